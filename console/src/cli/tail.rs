//! `highwater tail`: records of a stream, all shards as they come, each shard in order.

mod exec;
mod filter;
mod format;
mod from;
mod group;
mod member;
mod settled;
mod trimmed;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use highwater_client::{Client, ConsumerOptions, Delivery, Start, StreamConsumer};
use highwater_wire::{
    GroupName, MAX_CLAIM, RecordView, ShardDescription, StreamDescription, StreamName,
};

use super::Target;
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{output, units};
pub use filter::Found;
pub use from::From;
use group::Group;
use trimmed::OnGone;
use window::{Counting, WindowArgs};

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
    /// Read as a member of this consumer group: the shards that others do not, from where the group is (else --from),
    /// and commit what was printed. (With --shard or windows not as a member; the group may have none then)
    #[arg(long, value_name = "GROUP")]
    group: Option<GroupName>,
    /// If the record to go on with is not kept any more: fail, or go on at the oldest that is and say how many are
    /// missing. (--exec always goes on)
    #[arg(long, value_enum, value_name = "fail|oldest", hide_possible_values = true)]
    #[arg(default_value = "fail", conflicts_with = "exec")]
    on_trimmed: OnGone,
    /// Only records for which this CEL expression is true, like 'json.status >= 500'; over key, headers, timestamp,
    /// arrival, size, seq, json and payload (docs/consuming.md)
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// With --group: a name that stays the same through restarts. It keeps its shards for the session's time
    #[arg(long, value_name = "NAME", requires = "group", conflicts_with = "shard")]
    member: Option<String>,
    /// With --group: longest silence after which others take its shards over
    #[arg(long, value_name = "TIME", requires = "group", value_parser = units::duration)]
    #[arg(default_value = "10s")]
    session_timeout: Duration,
    /// With a --group that settles record by record (`group set`): run this with `sh -c` for each lot of records, which
    /// it finds on its standard input as --format says. Exit code 0: they are done; another: they have failed, for the
    /// reason in its last line on standard error
    #[arg(long, value_name = "CMD", requires = "group", value_parser = NonEmptyStringValueParser::new())]
    #[arg(conflicts_with_all = ["shard", "limit", "window", "session"])]
    exec: Option<String>,
    /// With --exec: records in a lot, at most
    #[arg(long, value_name = "N", requires = "exec", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CLAIM)))]
    batch: u32,
    /// End after this many records
    #[arg(long, value_name = "N", value_parser = units::count)]
    limit: Option<u64>,
    #[command(flatten)]
    windows: WindowArgs,
    #[command(flatten)]
    target: Target,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// The line of a log that the record was made of, else the payload, byte for byte, and a newline
    Text,
    /// The payload, byte for byte, and a newline
    Payload,
    /// A JSON object a line
    Json,
}

/// How often a group's positions are committed while records come.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

impl TailArgs {
    /// How each shard is read, but for its end.
    fn reading(&self) -> ConsumerOptions {
        ConsumerOptions {
            filter: self.filter.clone(),
            on_trimmed: self.on_trimmed.into(),
            ..ConsumerOptions::default()
        }
    }
}

/// Carries it out.
pub fn run(args: TailArgs) -> Result<(), Failure> {
    // What is only for windows is wrong without them, with --exec too.
    let mut counting = args.windows.plan()?;
    let mut found = Found::new(args.filter.as_deref())?;
    if let Some(command) = &args.exec {
        let stop = Stop::on_signals()?;
        return super::runtime()?.block_on(exec::run(&args, command, &stop));
    }
    let stop = Stop::on_signals()?;
    let read = super::runtime()?.block_on(tail(&args, &mut found, counting.as_mut(), &stop));
    found.report();
    if let Some(counting) = &counting {
        counting.report();
    }
    read
}

async fn tail(
    args: &TailArgs,
    found: &mut Found,
    counting: Option<&mut Counting>,
    stop: &Stop,
) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let name = args.stream.as_str();
    // Windows are over all of a stream, not over what one member reads of it.
    if let Some(group) = args.group.as_ref().filter(|_| args.shard.is_none() && counting.is_none())
    {
        let mut printer = Printer { args, found, counting, left: args.limit.unwrap_or(u64::MAX) };
        return member::read(&mut printer, &client, group.as_str(), stop).await;
    }
    let reading = |e| Failure::doing(format!("cannot read stream {name}"), e);
    let stream = client.describe_stream(name).await.map_err(reading)?;
    let mut group = match &args.group {
        Some(group) => Some(Group::open(&client, group.as_str(), name).await?),
        None => None,
    };
    let mut inbox = subscribe(args, &client, &stream, group.as_ref()).await?;
    let mut printer = Printer { args, found, counting, left: args.limit.unwrap_or(u64::MAX) };
    if let Some(counting) = &mut printer.counting {
        counting.expect(&stream, args.shard);
    }
    let mut out = output::stdout();
    let printed = print(&mut printer, &stream, &mut inbox, group.as_mut(), &mut out, stop).await;
    // Positions of what was printed are kept, however the printing ended; of windows only if it ended well.
    let committed = match &mut group {
        Some(group) => {
            if printed.is_ok() {
                printer.settle(group);
            }
            group.commit(&mut out).await
        }
        None => Ok(()),
    };
    printed.and(committed)
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
    let reading = args.reading();
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
        let mut options = reading.clone();
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
pub fn clamp(shard: &ShardDescription, start: Start) -> Start {
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

/// How much of a delivery was taken.
struct Part {
    records: u64,
    next: u64,
    /// There is more of it.
    cut: bool,
}

impl Part {
    fn of(delivery: &Delivery) -> Part {
        Part { records: 0, next: delivery.from(), cut: false }
    }

    fn took(&mut self, sequence: u64) {
        (self.records, self.next) = (self.records + 1, sequence + 1);
    }
}

/// What is done with records.
struct Printer<'a> {
    args: &'a TailArgs,
    found: &'a mut Found,
    counting: Option<&'a mut Counting>,
    /// Lines still to be printed.
    left: u64,
}

impl Printer<'_> {
    /// The records of a delivery, as many as are still wanted. `done` is told, again and again, below which sequence
    /// number everything was taken.
    fn print(
        &mut self,
        stream: &str,
        shard: u32,
        delivery: &Delivery,
        stop: &Stop,
        out: &mut impl Write,
        mut done: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let mut arrivals = format::Arrivals::new(delivery.batches());
        let mut part = Part::of(delivery);
        for record in delivery.records() {
            if self.left == 0 || stop.requested() {
                part.cut = true;
                break;
            }
            let arrival_ns = arrivals.of(record.sequence);
            self.take(stream, shard, &record, arrival_ns, out)?;
            part.took(record.sequence);
            done(record.sequence + 1);
        }
        if let Some(next) = self.took(delivery, &part) {
            done(next);
        }
        Ok(())
    }

    /// A record that is next in its shard.
    fn take(
        &mut self,
        stream: &str,
        shard: u32,
        record: &RecordView<'_>,
        arrival_ns: u64,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        if let Some(counting) = &mut self.counting {
            counting.observe(shard, record, arrival_ns);
            return Ok(());
        }
        self.left -= 1;
        match self.args.format {
            OutputFormat::Text => format::text(record, out),
            OutputFormat::Payload => format::payload(record, out),
            OutputFormat::Json => format::json(stream, shard, record, arrival_ns, out),
        }
    }

    /// A delivery was taken so far. Where its shard is by that, if its last record does not say so.
    fn took(&mut self, delivery: &Delivery, part: &Part) -> Option<u64> {
        // With the last record that is wanted it ends right there.
        if part.cut || self.left == 0 {
            self.found.took_part(delivery, part.records, part.next);
            return None;
        }
        self.found.took(delivery)
    }

    /// With windows the group is where nothing was read yet that is in one that is open: who goes on reads it again.
    fn settle(&mut self, group: &mut Group) {
        for (shard, next) in self.counting.iter_mut().flat_map(|counting| counting.settled()) {
            group.advance(shard, next);
        }
    }

    /// Prints windows that are over; with `all`, those that are not, too.
    fn look(&mut self, all: bool, out: &mut impl Write) -> Result<(), Failure> {
        let (left, as_json) = (self.left, self.args.format == OutputFormat::Json);
        if let Some(counting) = &mut self.counting {
            self.left -= match all {
                true => counting.finish(left, as_json, out)?,
                false => counting.print(left, as_json, out)?,
            };
        }
        Ok(())
    }
}

async fn print(
    printer: &mut Printer<'_>,
    stream: &StreamDescription,
    inbox: &mut StreamConsumer,
    mut group: Option<&mut Group>,
    out: &mut impl Write,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut commit = tokio::time::interval(COMMIT_EVERY);
    let mut look = tokio::time::interval(window::LOOK);
    let windows = printer.counting.is_some();
    while printer.left > 0 && !stop.requested() {
        // Whoever reads along sees records at once; whoever is behind gets them in large writes.
        if inbox.is_empty() {
            out.flush()?;
        }
        let (shard, delivery) = tokio::select! {
            next = inbox.next() => match next {
                Some((shard, Ok(delivery))) => (shard, delivery),
                Some((_, Err(error))) => {
                    out.flush()?;
                    return Err(trimmed::failure(printer.args, error));
                }
                None => {
                    printer.look(true, out)?;
                    break;
                }
            },
            _ = look.tick(), if windows => {
                if let Some(counting) = printer.counting.as_mut().filter(|_| inbox.is_empty()) {
                    counting.silent();
                }
                printer.look(false, out)?;
                continue;
            }
            _ = commit.tick() => {
                if let Some(group) = &mut group {
                    printer.settle(group);
                    group.commit(out).await?;
                }
                continue;
            }
            () = stop.wait() => break,
        };
        trimmed::tell(shard, &delivery);
        if let Some(group) = group.as_mut().filter(|_| delivery.trimmed > 0) {
            group.advance(shard, delivery.from());
        }
        let mut read = None;
        printer.print(&stream.name, shard, &delivery, stop, out, |next| match &mut group {
            _ if windows => read = Some(next),
            Some(group) => group.advance(shard, next),
            None => {}
        })?;
        if let Some(counting) = &mut printer.counting {
            if let Some(next) = read {
                counting.read(shard, next);
            }
            counting.delivered(shard, &delivery);
            printer.look(false, out)?;
        }
    }
    Ok(out.flush()?)
}

/// Positions by shard.
type Positions = BTreeMap<u32, u64>;
