//! `highwater stream describe`: the settings, the shards, and what became of the records offered to them.

use clap::Args;
use highwater_wire::{
    ShardCounters, ShardDescription, StreamConfig, StreamDescription, StreamName,
};
use serde::Serialize;

use super::settings;
use crate::cli::Target;
use crate::failure::Failure;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Its name
    name: StreamName,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// A stream as programs get it. The names are stable; more may come.
#[derive(Debug, Serialize)]
pub struct Description<'a> {
    name: &'a str,
    id: u32,
    /// Nanoseconds since 1970 UTC.
    created_ns: u64,
    config: &'a StreamConfig,
    /// Shards that take records.
    open_shards: usize,
    /// Over all shards listed.
    counters: ShardCounters,
    shards: Vec<Shard<'a>>,
}

/// A shard of it.
#[derive(Debug, Serialize)]
struct Shard<'a> {
    shard: u32,
    /// For people.
    state: &'a str,
    /// Its first word: `open`, `closing`, `closed`, `failed` or `damaged`.
    status: &'a str,
    /// What the state says behind that, or "".
    reason: &'a str,
    closed: bool,
    parents: &'a [u32],
    children: &'a [u32],
    hash_start: u128,
    hash_end: u128,
    /// The same two in hexadecimal, 32 digits, for programs whose numbers do not hold 128 bits.
    hash_start_hex: String,
    hash_end_hex: String,
    /// Both, with `..` between.
    hash_range: String,
    core: u32,
    port: u16,
    /// Sequence number of the oldest record kept.
    oldest: u64,
    /// The next record's sequence number; of a closed shard, its end.
    next: u64,
    /// The same: every record below it is durable.
    high_water: u64,
    /// Records kept.
    records: u64,
    /// Bytes they take in the log, padding included.
    bytes: u64,
    /// Bytes of its segments on disk, with what is prepared and not yet written.
    stored_bytes: u64,
    #[serde(flatten)]
    counters: ShardCounters,
    /// A split that its load suggests, or "".
    advice: &'a str,
}

impl<'a> Description<'a> {
    /// Of a stream.
    pub fn of(stream: &'a StreamDescription) -> Description<'a> {
        Description {
            name: &stream.name,
            id: stream.id,
            created_ns: stream.created_ns,
            config: &stream.config,
            open_shards: stream.shards.iter().filter(|shard| !shard.closed).count(),
            counters: sum(stream.shards.iter().map(|shard| &shard.counters)),
            shards: stream.shards.iter().map(Shard::of).collect(),
        }
    }
}

impl<'a> Shard<'a> {
    fn of(shard: &'a ShardDescription) -> Shard<'a> {
        let (status, reason) = shard.state.split_once(": ").unwrap_or((shard.state.as_str(), ""));
        Shard {
            shard: shard.shard,
            state: &shard.state,
            status,
            reason,
            closed: shard.closed,
            parents: &shard.parents,
            children: &shard.children,
            hash_start: shard.hash_start,
            hash_end: shard.hash_end,
            hash_start_hex: format!("{:032x}", shard.hash_start),
            hash_end_hex: format!("{:032x}", shard.hash_end),
            hash_range: hash_range(shard),
            core: shard.core,
            port: shard.port,
            oldest: shard.oldest,
            next: shard.high_water,
            high_water: shard.high_water,
            records: shard.high_water.saturating_sub(shard.oldest),
            bytes: shard.log_bytes,
            stored_bytes: shard.stored_bytes,
            counters: shard.counters,
            advice: &shard.advice,
        }
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a ShardCounters>) -> ShardCounters {
    all.fold(ShardCounters::default(), |a, b| ShardCounters {
        offered: a.offered + b.offered,
        acknowledged: a.acknowledged + b.acknowledged,
        refused: a.refused + b.refused,
        buffered: a.buffered + b.buffered,
        dropped: a.dropped + b.dropped,
        sampled_out: a.sampled_out + b.sampled_out,
        duplicates_recognised: a.duplicates_recognised + b.duplicates_recognised,
        pending: a.pending + b.pending,
        held_bytes: a.held_bytes + b.held_bytes,
        evictions: a.evictions + b.evictions,
    })
}

fn hash_range(shard: &ShardDescription) -> String {
    format!("{:032x}..{:032x}", shard.hash_start, shard.hash_end)
}

/// Carries it out.
pub async fn run(args: DescribeArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let stream = client
        .describe_stream(args.name.as_str())
        .await
        .map_err(|e| Failure::doing(format!("cannot describe stream {}", args.name), e))?;
    if args.json {
        return output::json(&Description::of(&stream));
    }
    let created = human::rfc3339(stream.created_ns);
    output::line(format!(
        "stream {} (number {}), created {created}, ack {}",
        stream.name, stream.id, stream.config.ack
    ))?;
    output::line(settings::text(&stream.config))?;
    let rows: Vec<_> = stream.shards.iter().map(place).collect();
    let head =
        ["shard", "from", "core", "oldest", "next", "records", "stored", "state", "hash keys"];
    output::table(&head, &rows)?;
    output::line("records since the server started:")?;
    let rows: Vec<_> = stream.shards.iter().map(account).collect();
    let head = [
        "shard",
        "offered",
        "acknowledged",
        "refused",
        "buffered",
        "dropped",
        "sampled out",
        "duplicates",
        "pending",
    ];
    output::table(&head, &rows)?;
    for shard in stream.shards.iter().filter(|shard| !shard.advice.is_empty()) {
        output::line(format!("shard {}: {}", shard.shard, shard.advice))?;
    }
    Ok(())
}

fn place(shard: &ShardDescription) -> Vec<String> {
    let parents: Vec<String> = shard.parents.iter().map(u32::to_string).collect();
    vec![
        shard.shard.to_string(),
        if parents.is_empty() { "-".to_owned() } else { parents.join("+") },
        shard.core.to_string(),
        shard.oldest.to_string(),
        shard.high_water.to_string(),
        human::grouped(shard.high_water.saturating_sub(shard.oldest)),
        human::binary(shard.stored_bytes),
        shard.state.clone(),
        hash_range(shard),
    ]
}

fn account(shard: &ShardDescription) -> Vec<String> {
    let c = &shard.counters;
    let figures = [
        c.offered,
        c.acknowledged,
        c.refused,
        c.buffered,
        c.dropped,
        c.sampled_out,
        c.duplicates_recognised,
        c.pending,
    ];
    let figures = figures.iter().map(|n| human::grouped(*n));
    std::iter::once(shard.shard.to_string()).chain(figures).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_find_the_fields_by_their_fixed_names() {
        let mut stream = StreamDescription::evenly(
            "s",
            3,
            StreamConfig { shards: 2, ..StreamConfig::default() },
        );
        stream.shards[0].counters.offered = 7;
        stream.shards[1].counters =
            ShardCounters { offered: 5, dropped: 2, ..ShardCounters::default() };
        (stream.shards[1].oldest, stream.shards[1].high_water) = (10, 25);
        stream.shards[1].log_bytes = 99;
        stream.shards[0].state = "open: the file system is full".to_owned();
        let json = serde_json::to_string(&Description::of(&stream)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let shard = &json["shards"][1];
        let names = [
            "offered",
            "acknowledged",
            "refused",
            "buffered",
            "dropped",
            "sampled_out",
            "duplicates_recognised",
            "core",
            "oldest",
            "next",
            "records",
            "bytes",
        ];
        for name in names {
            assert!(shard[name].is_u64(), "{name} in {shard}");
        }
        assert!(shard["parents"].is_array() && shard["children"].is_array());
        assert_eq!(
            (&shard["records"], &shard["next"], &shard["bytes"]),
            (&15.into(), &25.into(), &99.into())
        );
        assert_eq!(json["counters"]["offered"], 12);
        let state = |at: usize| [&json["shards"][at]["status"], &json["shards"][at]["reason"]];
        assert_eq!(state(0), ["open", "the file system is full"]);
        assert_eq!(state(1), ["open", ""]);
        assert_eq!(shard["hash_start_hex"], format!("8{:031}", 0));
        assert_eq!(shard["hash_end_hex"], "f".repeat(32));
        assert_eq!(shard["hash_range"], format!("8{:031}..{}", 0, "f".repeat(32)));
    }
}
