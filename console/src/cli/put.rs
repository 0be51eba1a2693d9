//! `highwater put`: records from a file or standard input into a stream.

mod feed;
mod stored;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use highwater_client::{Client, Producer, ProducerOptions, Record};
use highwater_wire::{Compression, ProducerName, StreamName};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Target;
use crate::failure::{Failure, chain};
use crate::input::{self, Format, InputError, Key, Records};
use crate::signals::Stop;
use crate::units;
use feed::Feed;
use stored::{Awaited, Progress, Stored};

/// `highwater put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The stream
    stream: StreamName,
    /// Read from here [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How the input is cut into records
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
    /// Partition key: `random` (a new one for each record), `const` or `const:VALUE` (one for all), or with
    /// --format json a field, dotted (`user.id`; `.const` is the field of that name)
    #[arg(long, value_name = "FIELD|const|random", default_value = "random")]
    key: Key,
    /// Give up on records that are not acknowledged for this long; until then they are sent again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::patience)]
    timeout: Duration,
    /// Be the producer of this name: whoever was it before is fenced off
    #[arg(long, value_name = "NAME")]
    producer: Option<ProducerName>,
    /// Store only if the first record gets this sequence number and nobody writes in between; for streams of
    /// one shard, or a key that leads to one
    #[arg(long, value_name = "N", value_parser = units::count)]
    expect_sequence: Option<u64>,
    /// Compress batches: none, lz4 or zstd
    #[arg(long, value_name = "none|lz4|zstd", default_value = "none")]
    compression: Compression,
    #[command(flatten)]
    target: Target,
}

/// Large enough that a line costs no system call.
const BUFFER: usize = 256 << 10;

/// Acknowledgements waited for at most; records waiting for them are bounded in bytes by the producer.
const RECEIPTS: usize = 65_536;

/// What was sent has so long to be acknowledged after a signal, or after a record was given up.
const GRACE: Duration = Duration::from_secs(3);

/// Carries it out.
pub fn run(args: PutArgs) -> Result<(), Failure> {
    if let (Key::Field(field), false) = (&args.key, args.format == Format::Json) {
        let what = format!(
            "--key {field:?} names a field, which needs --format json; without it use random or const"
        );
        return Err(Failure::Usage(what));
    }
    let input: Box<dyn Read + Send> = match &args.file {
        None => Box::new(io::stdin()),
        Some(path) => Box::new(
            File::open(path)
                .map_err(|e| Failure::doing(format!("cannot open {}", path.display()), e))?,
        ),
    };
    let stop = Stop::on_signals()?;
    super::runtime()?.block_on(put(&args, input, &stop))
}

async fn put(args: &PutArgs, input: Box<dyn Read + Send>, stop: &Stop) -> Result<(), Failure> {
    let (client, producer) = tokio::select! {
        opened = open(args) => opened?,
        () = stop.wait() => return Err(Failure::failed("interrupted; nothing was sent")),
    };
    let reader = BufReader::with_capacity(BUFFER, input);
    let mut feed = feed::start(Records::new(reader, args.format, client.info().max_record))?;
    let (progress, failed) = (Progress::default(), Stop::new());
    let mut stored = Stored::default();
    let (expect, receipts) = mpsc::channel(RECEIPTS);
    let halted = || async {
        tokio::select! {
            () = stop.wait() => {}
            () = failed.wait() => {}
        }
    };
    let sending = async {
        tokio::select! {
            sent = send_all(args, &mut feed, &producer, &progress, expect) => sent,
            () = halted() => Ok(()),
        }
    };
    let all = async {
        // What was sent before a failure is stored all the same, and told.
        let (sent, settled) = tokio::join!(sending, stored.settle(receipts, &progress, &failed));
        settled.and(sent)?;
        producer.close().await.map_err(|e| chain(&e))
    };
    let ended = tokio::select! {
        ended = all => ended,
        () = async { halted().await; sleep(GRACE).await } => Err("gave up waiting".to_owned()),
        reason = progress.watch(args.timeout) => Err(reason),
    };
    stored.report(args.stream.as_str())?;
    let ended = if stop.requested() { Err("interrupted".to_owned()) } else { stored.first(ended) };
    ended.map_err(|error| Failure::Failed(format!("{error} ({})", stored.tally(&progress))))
}

impl PutArgs {
    fn options(&self) -> ProducerOptions {
        let mut options = ProducerOptions::default();
        options.appender.compression = self.compression;
        options.appender.name = self.producer.as_ref().map(|name| name.as_str().to_owned());
        options.appender.expect = self.expect_sequence;
        options
    }
}

async fn open(args: &PutArgs) -> Result<(Client, Producer), Failure> {
    let client = args.target.connect_for(args.timeout).await?;
    let producer = client
        .producer(args.stream.as_str(), args.options())
        .await
        .map_err(|e| Failure::doing(format!("cannot write to stream {}", args.stream), e))?;
    Ok((client, producer))
}

async fn send_all(
    args: &PutArgs,
    feed: &mut Feed,
    producer: &Producer,
    progress: &Progress,
    expect: mpsc::Sender<Awaited>,
) -> Result<(), String> {
    while let Some(chunk) = feed.recv().await {
        let chunk = chunk.map_err(|e| chain(&e))?;
        for (line, payload) in chunk.records() {
            let key = key(args, payload, line).map_err(|e| chain(&e))?;
            let receipt = producer
                .send(Record::new(key.as_bytes(), payload))
                .await
                .map_err(|e| format!("line {line}: {}", chain(&e)))?;
            progress.sent();
            let awaited = Awaited { receipt, bytes: payload.len(), line };
            if expect.send(awaited).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn key(args: &PutArgs, payload: &[u8], line: u64) -> Result<String, InputError> {
    match &args.key {
        Key::Field(field) => return input::key_of(payload, field, line),
        _ if args.format == Format::Json => input::check_json(payload, line)?,
        _ => {}
    }
    Ok(match &args.key {
        Key::Constant(value) => value.clone(),
        _ => format!("{:016x}", fastrand::u64(..)),
    })
}
