//! Sets the demo up and takes it down: data, server, load, readers, console.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use highwater_client::{Client, ClientOptions};
use highwater_loadgen::{LoadError, LoadOptions, Rate, Report};
use highwater_server::{Server, ServerOptions};
use highwater_wire::{AckMode, ErrorCode, StreamConfig};
use tempfile::TempDir;

use super::{DemoArgs, readers, summary};
use crate::cli::load;
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{dashboard, output, units};

/// The stream written.
const STREAM: &str = "demo";
/// Kept of it: enough to fall behind by a minute, not enough to fill a disk.
const KEPT: u64 = 1 << 30;
/// Segment files prepared ahead, in bytes.
const PREPARED: u64 = 128 << 20;
/// Largest segment: several fit into what is prepared.
const SEGMENT: u64 = 32 << 20;
/// Without a terminal nobody can press q.
const DURATION: Duration = Duration::from_secs(10);
/// "Until q", as far as a load run is concerned.
const FOR_EVER: Duration = Duration::from_secs(300 * 24 * 3600);

/// Where the data is; a temporary directory goes with this value.
enum Data {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Data {
    fn open(given: Option<&Path>) -> Result<Data, Failure> {
        match given {
            Some(dir) => Ok(Data::Given(dir.to_owned())),
            None => tempfile::Builder::new()
                .prefix("highwater-demo-")
                .tempdir_in(".")
                .map(Data::Temporary)
                .map_err(|e| Failure::doing("no temporary directory here (use --dir)", e)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Data::Given(dir) => dir,
            Data::Temporary(dir) => dir.path(),
        }
    }

    fn close(self) -> Result<(), Failure> {
        match self {
            Data::Given(_) => Ok(()),
            Data::Temporary(dir) => {
                dir.close().map_err(|e| Failure::doing("cannot remove the temporary directory", e))
            }
        }
    }
}

/// The whole demo.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let with_console = dashboard::possible();
    let mut options = load_options(args, with_console);
    options.validate().map_err(load::failure)?;
    let data = Data::open(args.dir.as_deref())?;
    let server = start_server(data.path())?;
    options.target = server.local_addr().to_string();
    let played = play(args, &server, options, with_console, &stop);
    let stopped = server.stop().map_err(|e| Failure::doing("stopping the server", e));
    drop(server);
    let closed = data.close();
    played.and(stopped).and(closed)
}

fn load_options(args: &DemoArgs, with_console: bool) -> LoadOptions {
    let default = if with_console { FOR_EVER } else { DURATION };
    let duration = args.duration.unwrap_or(default);
    let warmup = (duration / 10).min(Duration::from_secs(1));
    LoadOptions {
        stream: STREAM.to_owned(),
        shards: args.shards,
        rate: match args.rate {
            units::Rate::Max => Rate::Max,
            units::Rate::PerSecond(rate) => Rate::PerSecond(rate),
        },
        record_size: args.size as usize,
        retention_bytes: KEPT,
        duration: duration.saturating_sub(warmup),
        warmup,
        ..LoadOptions::default()
    }
}

fn start_server(dir: &Path) -> Result<Server, Failure> {
    let mut options = ServerOptions::new(dir);
    options.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    options.store.prepared_bytes = PREPARED;
    options.store.core.segments.max = SEGMENT;
    // A demo should run wherever it is tried; what is not durable is labelled.
    options.store.allow_buffered = true;
    let server = Server::start(options).map_err(|e| Failure::doing("cannot serve", e))?;
    eprintln!("demo server on {}, data in {}", server.local_addr(), dir.display());
    eprintln!("{}{}", summary::label(server.durable()), server.durability());
    for warning in server.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(server)
}

fn play(
    args: &DemoArgs,
    server: &Server,
    options: LoadOptions,
    with_console: bool,
    stop: &Stop,
) -> Result<(), Failure> {
    let target = options.target.clone();
    super::super::runtime()?.block_on(create_stream(&target, args.shards))?;
    let readers = readers::spawn(target.clone(), STREAM, stop.clone())?;
    let over = stop.clone();
    let load = thread::Builder::new()
        .name("load".into())
        .spawn(move || {
            let result = generate(options, with_console, &over);
            over.request();
            result
        })
        .map_err(|e| Failure::doing("cannot start a thread", e))?;
    let shown = match with_console {
        true => dashboard::run(&target, stop).map(drop),
        false => Ok(()),
    };
    if with_console {
        // However the console ended, it is over.
        stop.request();
    }
    let report =
        load.join().map_err(|_| Failure::failed("the load generator ended unexpectedly"))?;
    // The readers end with the load; there is nothing to learn from them.
    let _ = readers.join();
    shown?;
    match report {
        Ok(report) => summary::tell(&report, server.durable(), server.durability()),
        Err(LoadError::Stopped) => output::line("stopped before the first record"),
        Err(error) => Err(load::failure(error)),
    }
}

fn generate(options: LoadOptions, with_console: bool, stop: &Stop) -> Result<Report, LoadError> {
    let progress = |progress| {
        // If nobody reads the lines any more, nobody waits for the end either.
        if !with_console && output::line(load::line(&progress)).is_err() {
            stop.request();
        }
    };
    highwater_loadgen::run(options, progress, stop.flag())
}

/// Made here and not by the load generator, so that the readers find it too.
async fn create_stream(target: &str, shards: u32) -> Result<(), Failure> {
    let config =
        StreamConfig { shards, retention_ms: 0, retention_bytes: KEPT, ack: AckMode::Durable };
    let client =
        Client::connect(target, ClientOptions::default()).await.map_err(Failure::failed)?;
    match client.create_stream(STREAM, config).await {
        // Of an earlier demo in the same directory.
        Err(error) if error.code() == Some(ErrorCode::StreamExists) => Ok(()),
        result => result.map(drop).map_err(|e| Failure::doing("cannot create the stream", e)),
    }
}
