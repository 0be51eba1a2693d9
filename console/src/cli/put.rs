//! `highwater put`: records from a file or standard input into a stream.

mod feed;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use clap::Args;
use highwater_client::{Client, Producer, ProducerOptions, Receipt, Record};
use highwater_wire::StreamName;

use super::Target;
use crate::failure::{Failure, chain};
use crate::input::{self, Format, InputError, Key, Records};
use crate::signals::Stop;
use crate::{human, output};
use feed::Feed;

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
    #[command(flatten)]
    target: Target,
}

/// Large enough that a line costs no system call.
const BUFFER: usize = 256 << 10;

/// Acknowledgements waited for at most; records waiting for them are bounded in bytes by the producer.
const RECEIPTS: usize = 65_536;

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
    let client = args.target.connect().await?;
    let producer = producer(&client, args).await?;
    let reader = BufReader::with_capacity(BUFFER, input);
    let mut feed = feed::start(Records::new(reader, args.format, client.info().max_record))?;
    let mut stored = Stored::default();
    let sent = tokio::select! {
        sent = send_all(args, &mut feed, &producer, &mut stored) => sent,
        () = stop.wait() => Err("interrupted".to_owned()),
    };
    // What was sent before a failure is stored all the same, and told.
    let settled = stored.settle(0).await;
    let closed = producer.close().await.map_err(|e| chain(&e));
    stored.report(args.stream.as_str())?;
    let told = |error| {
        Failure::Failed(format!("{error} ({} records were stored)", human::grouped(stored.records)))
    };
    sent.and(settled).and(closed).map_err(told)
}

async fn producer(client: &Client, args: &PutArgs) -> Result<Producer, Failure> {
    client
        .producer(args.stream.as_str(), ProducerOptions::default())
        .await
        .map_err(|e| Failure::doing(format!("cannot write to stream {}", args.stream), e))
}

async fn send_all(
    args: &PutArgs,
    feed: &mut Feed,
    producer: &Producer,
    stored: &mut Stored,
) -> Result<(), String> {
    while let Some(chunk) = feed.recv().await {
        let chunk = chunk.map_err(|e| chain(&e))?;
        for (line, payload) in chunk.records() {
            let key = key(args, payload, line).map_err(|e| chain(&e))?;
            let receipt = producer
                .send(Record::new(key.as_bytes(), payload))
                .await
                .map_err(|e| format!("line {line}: {}", chain(&e)))?;
            stored.expect(receipt, payload.len(), line);
            stored.settle(RECEIPTS).await?;
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

/// What is acknowledged, and what is waited for.
#[derive(Default)]
struct Stored {
    waiting: VecDeque<(Receipt, usize, u64)>,
    records: u64,
    bytes: u64,
    /// First and last sequence number and number of records, by shard.
    shards: BTreeMap<u32, (u64, u64, u64)>,
}

impl Stored {
    fn expect(&mut self, receipt: Receipt, bytes: usize, line: u64) {
        self.waiting.push_back((receipt, bytes, line));
    }

    /// Waits until at most `most` acknowledgements are missing. After a failure the others are still counted.
    async fn settle(&mut self, most: usize) -> Result<(), String> {
        let mut failed = None;
        while self.waiting.len() > most {
            let Some((receipt, bytes, line)) = self.waiting.pop_front() else { break };
            match receipt.await {
                Ok(acked) => self.count(acked.shard, acked.sequence, bytes),
                Err(e) => failed = failed.or_else(|| Some(format!("line {line}: {}", chain(&e)))),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn count(&mut self, shard: u32, sequence: u64, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
        let (first, last, records) = self.shards.entry(shard).or_insert((sequence, sequence, 0));
        *first = sequence.min(*first);
        *last = sequence.max(*last);
        *records += 1;
    }

    fn report(&self, stream: &str) -> Result<(), Failure> {
        let (records, bytes) = (human::grouped(self.records), human::grouped(self.bytes));
        output::line(format!("stored {records} records, {bytes} bytes in {stream}"))?;
        for (shard, (first, last, records)) in &self.shards {
            let records = human::grouped(*records);
            output::line(format!("shard {shard}: {records} records, sequence {first} to {last}"))?;
        }
        Ok(())
    }
}
