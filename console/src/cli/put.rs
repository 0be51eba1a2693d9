//! `highwater put`: records from a file or standard input into a stream.

mod dead;
mod expect;
mod feed;
mod follow;
mod shape;
mod stored;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use highwater_client::{Client, Producer, ProducerOptions, Receipt, Record, SendError};
use highwater_wire::{Compression, Header, ProducerName, StreamName};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Target;
use crate::failure::{Failure, chain};
use crate::input::{Format, Key, Piece, Records};
use crate::signals::Stop;
use crate::units;
use crate::when::now_ns;
use dead::DeadLetters;
use feed::Feed;
use shape::{Shaped, Unfit};
use stored::{Awaited, Progress, Stored};

/// `highwater put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The stream
    stream: StreamName,
    /// Read from here [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Read these files as they grow and are rotated, until stopped; at least once over a crash
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["file", "expect_sequence"])]
    follow: Vec<PathBuf>,
    /// Where --follow keeps how far it is [default: NAME.follow.json]
    #[arg(long, value_name = "FILE", requires = "follow")]
    state: Option<PathBuf>,
    /// How the input is cut into records. What cannot be read so is kept in the stream NAME.dead with the reason,
    /// and counted; what follows it goes on
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
    /// Keep what is longer than a record may be, or cannot be one for another reason, in NAME.dead as well, as much of it
    /// as fits (header `origin-size` has its length), and go on; else it ends put. (--follow always does so)
    #[arg(long)]
    keep_refused: bool,
    /// Partition key: `random` (a new one for each record), `const` or `const:VALUE` (one for all), or with
    /// --format json, access-log or syslog a field, dotted (`user.id`; `.const` is the field of that name)
    /// [default: random; with --format records the record's own]
    #[arg(long, value_name = "FIELD|const|random")]
    key: Option<Key>,
    /// Give up when nothing is acknowledged for this long; until then records are sent again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::patience)]
    timeout: Duration,
    /// Be the producer of this name: whoever was it before is fenced off
    #[arg(long, value_name = "NAME")]
    producer: Option<ProducerName>,
    /// Store only if the first record gets this sequence number and nobody writes in between; for streams of
    /// one open shard, or with --key const
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
    if let (Some(Key::Field(field)), false) = (&args.key, args.format.documents()) {
        let what = format!(
            "--key {field:?} names a field, which needs --format json, access-log or syslog; without it use random \
             or const"
        );
        return Err(Failure::Usage(what));
    }
    if !args.follow.is_empty() {
        if args.format == Format::Raw {
            let what = "--follow reads lines; --format raw has none".to_owned();
            return Err(Failure::Usage(what));
        }
        let stop = Stop::on_signals()?;
        return super::runtime()?.block_on(follow::follow(&args, &stop));
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
    let mut feed = feed::start(
        Records::new(reader, args.format, client.info().max_record).cutting(args.keep_refused),
    )?;
    let (progress, failed) = (Progress::default(), Stop::new());
    let mut stored = Stored::default();
    let (expect, receipts) = mpsc::channel(RECEIPTS);
    let halted = || async {
        tokio::select! {
            () = stop.wait() => {}
            () = failed.wait() => {}
        }
    };
    let mut dead = DeadLetters::new(&client, &args.stream, args.format);
    let sending = async {
        tokio::select! {
            sent = send_all(args, &mut feed, &producer, &mut dead, &progress, expect) => sent,
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
        reason = progress.watch(args.timeout, || producer.held_up_by()) => Err(reason),
    };
    stored.report(&args.stream)?;
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
    if args.expect_sequence.is_some() {
        // Before there is a producer: one with a name would fence off whoever had it.
        expect::check(&client, args.stream.as_str(), args.key.as_ref()).await?;
    }
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
    dead: &mut DeadLetters<'_>,
    progress: &Progress,
    expect: mpsc::Sender<Awaited>,
) -> Result<(), String> {
    let file = args.file.as_ref().map_or("-".into(), |path| path.to_string_lossy());
    while let Some(chunk) = feed.recv().await {
        let chunk = chunk.map_err(|e| chain(&e))?;
        let now_ns = now_ns();
        for Piece { line, bytes: piece, cut } in chunk.records() {
            let shaped = match cut {
                Some(bytes) => Err(Unfit::TooLong { bytes }),
                None => shape::shape(args.format, args.key.as_ref(), piece, now_ns),
            };
            let sent = match shaped {
                Ok(shaped) => send(producer, &shaped, args.keep_refused).await,
                Err(unfit) => Ok(Err(unfit)),
            };
            let (receipt, unfit) = match sent.map_err(|e| format!("line {line}: {}", chain(&e)))? {
                Ok(receipt) => (receipt, None),
                Err(unfit) => (dead.send(&unfit, &file, line, piece).await?, Some(unfit)),
            };
            progress.sent();
            let unfit = unfit.map(|unfit| unfit.to_string());
            let awaited = Awaited { receipt, bytes: piece.len(), line, unfit };
            if expect.send(awaited).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Sends a record. One that would be refused for ever is unfit, if that is to be `kept`; else it is an error as others are.
async fn send(
    producer: &Producer,
    shaped: &Shaped<'_>,
    kept: bool,
) -> Result<Result<Receipt, Unfit>, SendError> {
    let headers = shaped.headers.iter();
    let headers: Vec<_> = headers.map(|(name, value)| Header { name, value }).collect();
    let record = Record::new(shaped.key.as_bytes(), &shaped.payload);
    let timestamp_ns = shaped.timestamp_ns;
    match producer.send(Record { headers: &headers, timestamp_ns, ..record }).await {
        Err(
            e @ (SendError::RecordTooLarge { .. }
            | SendError::KeyTooLong { .. }
            | SendError::Encode(_)),
        ) if kept => Ok(Err(Unfit::Refused(chain(&e)))),
        sent => sent.map(Ok),
    }
}
