//! `highwater tail`: records of a stream, all shards as they come, each shard in order.

mod format;
mod from;
mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use highwater_client::{Client, ConsumerOptions, Start, StreamConsumer};
use highwater_wire::{GroupName, ShardDescription, StreamDescription, StreamName};

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

/// Reads each shard that is wanted; those that come of splits and merges too, after their parents.
async fn subscribe(
    args: &TailArgs,
    client: &Client,
    stream: &StreamDescription,
    group: Option<&Group>,
) -> Result<StreamConsumer, Failure> {
    if let Some(shard) = args.shard
        && stream.shards.iter().all(|s| s.shard != shard)
    {
        let shards = stream.shards.len();
        return Err(Failure::Failed(format!(
            "stream {} has {shards} shards; there is no shard {shard}",
            stream.name
        )));
    }
    let first: BTreeSet<u32> = stream.shards.iter().map(|s| s.shard).collect();
    let positions = group.map(Group::positions).cloned().unwrap_or_default();
    let (wanted, from, follow) = (args.shard, args.from.start(), args.follow);
    let span = move |shard: &ShardDescription| {
        if wanted.is_some_and(|wanted| wanted != shard.shard) {
            return None;
        }
        let start = match positions.get(&shard.shard) {
            Some(position) => Start::At(*position),
            // It came to be meanwhile: all of it is new.
            None if !first.contains(&shard.shard) => Start::Oldest,
            None if wanted.is_none() && first.len() > 1 => clamp(shard, from),
            None => from,
        };
        let mut options = ConsumerOptions::default();
        // A position beyond the mark is an error, not the end.
        let beyond = matches!(start, Start::At(position) if position > shard.high_water);
        if !follow && !shard.closed && !beyond {
            options.end = Some(shard.high_water);
        }
        Some((start, options))
    };
    let reading = |e| Failure::doing(format!("cannot read stream {}", stream.name), e);
    StreamConsumer::start(client.clone(), stream.clone(), span).await.map_err(reading)
}

/// One number for many shards lies beyond the end of some: these begin at their mark, and it is said.
fn clamp(shard: &ShardDescription, start: Start) -> Start {
    match start {
        Start::At(wanted) if wanted > shard.high_water => {
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
    inbox: &mut StreamConsumer,
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
            next = inbox.next() => match next {
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
