//! `highwater tail`: records of a stream, all shards as they come, each shard in order.

mod format;
mod from;
mod group;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use highwater_client::{Client, ConsumeError, ConsumerOptions, Delivery, Start};
use highwater_wire::{GroupName, ShardDescription, StreamDescription, StreamName};
use tokio::sync::mpsc;

use super::Target;
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{output, units};
use from::From;
use group::Group;

/// `highwater tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The stream
    stream: StreamName,
    /// Where to begin: oldest, latest, a sequence number, or a time (RFC 3339, or back from now like -10m)
    #[arg(
        long,
        value_name = "oldest|latest|N|TIME",
        default_value = "oldest",
        allow_hyphen_values = true
    )]
    from: From,
    /// Go on with what comes; else end at the high-water mark
    #[arg(short, long)]
    follow: bool,
    /// How records are printed
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    /// Only this shard
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
    /// Begin where this consumer group is (else at --from), and commit its positions
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupName>,
    /// End after this many records
    #[arg(long, value_name = "N", value_parser = units::count)]
    limit: Option<u64>,
    #[command(flatten)]
    target: Target,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// The payload, byte for byte, and a newline
    Text,
    /// A JSON object a line
    Json,
}

/// Deliveries that wait to be printed, over all shards. What the server may send ahead is bounded by credit.
const WAITING: usize = 4;

/// How often a group's positions are committed while records come.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Carries it out.
pub fn run(args: TailArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    super::runtime()?.block_on(tail(&args, &stop))
}

async fn tail(args: &TailArgs, stop: &Stop) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let name = args.stream.as_str();
    let reading = |e| Failure::doing(format!("cannot read stream {name}"), e);
    let stream = client.describe_stream(name).await.map_err(reading)?;
    let mut group = match &args.group {
        Some(group) => Some(Group::open(&client, group.as_str(), name).await?),
        None => None,
    };
    let mut inbox = subscribe(args, &client, &stream, group.as_ref()).await?;
    let printed = print(args, &stream, &mut inbox, group.as_mut(), stop).await;
    // Positions of what was printed are kept, however the printing ended.
    if let Some(group) = &mut group {
        group.commit().await?;
    }
    printed
}

type Inbox = mpsc::Receiver<(u32, Result<Delivery, ConsumeError>)>;

/// A consumer for each shard wanted; what they bring comes in one queue, which ends when all have ended.
async fn subscribe(
    args: &TailArgs,
    client: &Client,
    stream: &StreamDescription,
    group: Option<&Group>,
) -> Result<Inbox, Failure> {
    if let Some(shard) = args.shard.filter(|shard| *shard as usize >= stream.shards.len()) {
        let shards = stream.shards.len();
        return Err(Failure::Failed(format!(
            "stream {} has {shards} shards; there is no shard {shard}",
            stream.name
        )));
    }
    let reading = |e| Failure::doing(format!("cannot read stream {}", stream.name), e);
    let (sender, inbox) = mpsc::channel(WAITING);
    let wanted = stream.shards.iter().filter(|s| args.shard.is_none_or(|shard| shard == s.shard));
    for shard in wanted {
        let start = match group.and_then(|group| group.position(shard.shard)) {
            Some(position) => Start::At(position),
            None => clamp(args, shard, stream.shards.len(), args.from.start()),
        };
        let mut options = ConsumerOptions::default();
        if !args.follow {
            let located = client.locate(stream, shard.shard, start).await.map_err(reading)?;
            if located.sequence >= located.high_water {
                continue;
            }
            options.end = Some(located.high_water);
        }
        let mut consumer =
            client.consumer(stream, shard.shard, start, options).await.map_err(reading)?;
        let (sender, shard) = (sender.clone(), shard.shard);
        tokio::spawn(async move {
            while let Some(result) = consumer.next().await.transpose() {
                let failed = result.is_err();
                if sender.send((shard, result)).await.is_err() || failed {
                    return;
                }
            }
        });
    }
    Ok(inbox)
}

/// One number for many shards lies beyond the end of some: these begin at their mark, and it is said.
fn clamp(args: &TailArgs, shard: &ShardDescription, shards: usize, start: Start) -> Start {
    match start {
        Start::At(wanted) if shards > 1 && args.shard.is_none() && wanted > shard.high_water => {
            note!(
                "note: shard {} ends at {}, before {wanted}; reading it from there",
                shard.shard,
                shard.high_water
            );
            Start::At(shard.high_water)
        }
        start => start,
    }
}

async fn print(
    args: &TailArgs,
    stream: &StreamDescription,
    inbox: &mut Inbox,
    mut group: Option<&mut Group>,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut out = output::stdout();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut commit = tokio::time::interval(COMMIT_EVERY);
    while left > 0 && !stop.requested() {
        // Whoever reads along sees records at once; whoever is behind gets them in large writes.
        if inbox.is_empty() {
            out.flush()?;
        }
        let (shard, delivery) = tokio::select! {
            next = inbox.recv() => match next {
                Some((shard, Ok(delivery))) => (shard, delivery),
                Some((_, Err(error))) => {
                    out.flush()?;
                    return Err(Failure::doing(format!("cannot read stream {}", stream.name), error));
                }
                None => break,
            },
            _ = commit.tick() => {
                if let Some(group) = &mut group {
                    group.commit().await?;
                }
                continue;
            }
            () = stop.wait() => break,
        };
        let mut arrivals = format::Arrivals::new(delivery.batches());
        for record in delivery.records() {
            if left == 0 || stop.requested() {
                break;
            }
            match args.format {
                OutputFormat::Text => {
                    out.write_all(record.payload)?;
                    out.write_all(b"\n")?;
                }
                OutputFormat::Json => {
                    let arrival = arrivals.of(record.sequence);
                    format::json(&stream.name, shard, &record, arrival, &mut out)?;
                }
            }
            left -= 1;
            if let Some(group) = &mut group {
                group.advance(shard, record.sequence + 1);
            }
        }
    }
    Ok(out.flush()?)
}

/// Positions by shard.
type Positions = BTreeMap<u32, u64>;
