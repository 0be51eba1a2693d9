//! Sets the demo up and takes it down: data, server, load, readers, console.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use highwater_client::{Client, ClientOptions};
use highwater_loadgen::{LoadError, LoadOptions, Observer, Report, Tick};
use highwater_server::{Server, ServerOptions};
use highwater_wire::{AckMode, ErrorCode, StreamConfig};
use tempfile::TempDir;

use super::acts::{Act, KEPT, acts};
use super::readers::Story;
use super::summary::Played;
use super::{DemoArgs, readers, summary};
use crate::cli::load;
use crate::dashboard::LookArgs;
use crate::dashboard::load::{LoadEvent, Plan};
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{dashboard, human, output};

/// Segment files prepared ahead, in bytes.
const PREPARED: u64 = 128 << 20;
/// Largest segment: several fit into what is prepared.
const SEGMENT: u64 = 32 << 20;
/// Without a terminal nobody can press q.
const DURATION: Duration = Duration::from_secs(10);

/// Seconds of the generator that wait to be shown.
const TOLD: usize = 16;

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
    let acts = acts(args, args.duration.or((!with_console).then_some(DURATION)));
    for act in &acts {
        act.load.validate().map_err(load::failure)?;
    }
    let data = Data::open(args.dir.as_deref())?;
    let server = start_server(data.path())?;
    let look = with_console.then_some(&args.look);
    let played = play(acts, &server, look, &stop);
    let stopped = server.stop().map_err(|e| Failure::doing("stopping the server", e));
    drop(server);
    let closed = data.close();
    played.and(stopped).and(closed)
}

fn start_server(dir: &Path) -> Result<Server, Failure> {
    let mut options = ServerOptions::new(dir);
    options.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    options.store.prepared_bytes = PREPARED;
    options.store.core.segments.max = SEGMENT;
    // A demo should run wherever it is tried; what is not durable is labelled.
    options.store.allow_buffered = true;
    let server = Server::start(options).map_err(|e| Failure::doing("cannot serve", e))?;
    note!("demo server on {}, data in {}", server.local_addr(), dir.display());
    note!("{}{}", summary::label(server.durable()), server.durability());
    for warning in server.warnings() {
        note!("warning: {warning}");
    }
    Ok(server)
}

/// With the console, which looks like this, or without.
fn play(
    acts: [Act; 3],
    server: &Server,
    console: Option<&LookArgs>,
    stop: &Stop,
) -> Result<(), Failure> {
    let target = server.local_addr().to_string();
    super::super::runtime()?.block_on(create_streams(&target, &acts))?;
    // The steady stream is told of each second: on the Load screen, or in lines.
    let (screen, events) = sync_channel(TOLD);
    let mut tell = Some(if console.is_some() { Tell::Screen(screen) } else { Tell::Lines });
    let mut playing = Vec::new();
    for act in acts {
        playing.push(Playing::start(&target, act, tell.take().unwrap_or(Tell::Nobody), stop)?);
    }
    let shown = match console {
        Some(look) => {
            let extras = dashboard::Extras { load: Some(events), ..Default::default() };
            dashboard::run(Some(&target), look, extras, stop)
                .map(|app| app.player.fired().collect())
        }
        None => Ok(Vec::new()),
    };
    if console.is_some() {
        // However the console ended, it is over.
        stop.request();
    }
    let played: Vec<_> = playing.into_iter().map(|playing| playing.finish(stop)).collect();
    let fired = shown?;
    let played: Vec<Played> =
        played.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    if played.is_empty() {
        return output::line("stopped before the first record");
    }
    summary::tell(&played, &fired, server.durable(), server.durability())
}

/// An act under way.
struct Playing {
    act: Act,
    load: JoinHandle<Result<Report, LoadError>>,
    readers: JoinHandle<()>,
    story: Story,
}

impl Playing {
    fn start(target: &str, act: Act, tell: Tell, stop: &Stop) -> Result<Playing, Failure> {
        let (readers, story) = readers::spawn(target.to_owned(), &act, stop.clone())?;
        let options = LoadOptions { target: target.to_owned(), ..act.load.clone() };
        let over = stop.clone();
        if let Tell::Screen(screen) = &tell {
            let rate = match options.rate {
                highwater_loadgen::Rate::PerSecond(rate) => format!("{}/s", human::count(rate)),
                highwater_loadgen::Rate::Max => "as much as goes in".to_owned(),
            };
            let words = format!("{rate} to {}: {}", act.stream, act.about);
            let plan = Plan { what: "of the demo".into(), words, ..Plan::default() };
            let _room_for_the_first = screen.try_send(LoadEvent::Begins(plan));
        }
        let load = thread::Builder::new()
            .name("load".into())
            .spawn(move || {
                let mut teller = Teller { tell, stop: &over };
                let result = highwater_loadgen::run(options, &mut teller, over.load());
                // One that cannot go on ends the others too.
                if result.is_err() {
                    over.request();
                }
                result
            })
            .map_err(|e| Failure::doing("cannot start a thread", e))?;
        Ok(Playing { act, load, readers, story })
    }

    /// `None`: stopped before its first record.
    fn finish(self, stop: &Stop) -> Result<Option<Played>, Failure> {
        let report = self.load.join();
        // All loads are equally long: the readers of the first to end have nothing to wait for either.
        stop.request();
        let _nothing_to_learn = self.readers.join();
        let report =
            report.map_err(|_| Failure::failed("the load generator ended unexpectedly"))?;
        match report {
            Ok(report) => Ok(Some(Played { act: self.act, report, story: self.story })),
            Err(LoadError::Stopped) => Ok(None),
            Err(error) => Err(load::failure(error)),
        }
    }
}

/// Who is told of each second.
enum Tell {
    /// Standard output.
    Lines,
    /// The console's Load screen.
    Screen(SyncSender<LoadEvent>),
    /// Nobody.
    Nobody,
}

struct Teller<'a> {
    tell: Tell,
    stop: &'a Stop,
}

impl Observer for Teller<'_> {
    fn tick(&mut self, tick: &Tick<'_>) {
        match &self.tell {
            // If nobody reads the lines any more, nobody waits for the end either.
            Tell::Lines if output::line(load::line(tick.progress)).is_err() => {
                self.stop.request();
            }
            // A console that cannot keep up misses a second of the generator, and nothing else.
            Tell::Screen(screen) => {
                let _full_or_gone = screen.try_send(LoadEvent::Tick(tick.progress.into()));
            }
            Tell::Lines | Tell::Nobody => {}
        }
    }
}

/// Made here and not by the load generator, so that the readers find them too.
async fn create_streams(target: &str, acts: &[Act]) -> Result<(), Failure> {
    let client =
        Client::connect(target, ClientOptions::default()).await.map_err(Failure::failed)?;
    for act in acts {
        let config = StreamConfig {
            shards: act.shards,
            retention_ms: 0,
            retention_bytes: KEPT,
            ack: AckMode::Durable,
            ..StreamConfig::default()
        };
        match client.create_stream(act.stream, config).await {
            // Of an earlier demo in the same directory.
            Err(error) if error.code() == Some(ErrorCode::StreamExists) => {}
            result => {
                result.map(drop).map_err(|e| Failure::doing("cannot create a stream", e))?;
            }
        }
    }
    Ok(())
}
