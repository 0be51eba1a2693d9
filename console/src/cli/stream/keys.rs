//! `highwater stream top-keys`: the partition keys most of the recent records have.

use std::collections::BTreeMap;

use clap::Args;
use highwater_wire::StreamName;
use highwater_wire::telemetry::{ShardSnapshot, Snapshot};
use serde::Serialize;

use crate::cli::Target;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
pub struct TopKeysArgs {
    /// The stream
    name: StreamName,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Keys listed at most, of a shard and of the stream.
const KEYS: usize = 10;

/// The keys as programs get them. The names are stable; more may come.
#[derive(Debug, Serialize, PartialEq)]
struct TopKeys {
    stream: String,
    /// Of all shards, the first most.
    keys: Vec<Key>,
    shards: Vec<Shard>,
}

/// A shard's.
#[derive(Debug, Serialize, PartialEq)]
struct Shard {
    shard: u32,
    /// Records behind the figures: those of about the last ten seconds, as sampled.
    records: u64,
    keys: Vec<Key>,
}

/// A key.
#[derive(Clone, Debug, Serialize, PartialEq)]
struct Key {
    key: String,
    /// Its records, as estimated from the sample.
    records: u64,
    /// Their share of the shard's, or of the stream's.
    share: f64,
}

fn key(key: String, records: u64, of: u64) -> Key {
    Key { key, records, share: records as f64 / of.max(1) as f64 }
}

impl TopKeys {
    fn of(stream: &str, snapshot: &Snapshot) -> TopKeys {
        let shards: Vec<Shard> =
            snapshot.shards.iter().filter(|s| s.stream == stream).map(Shard::of).collect();
        let total = shards.iter().map(|shard| shard.records).sum();
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        for hot in shards.iter().flat_map(|shard| &shard.keys) {
            *all.entry(&hot.key).or_default() += hot.records;
        }
        let mut keys: Vec<Key> = all.iter().map(|(k, n)| key((*k).to_owned(), *n, total)).collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.records));
        keys.truncate(KEYS);
        TopKeys { stream: stream.to_owned(), keys, shards }
    }
}

impl Shard {
    fn of(shard: &ShardSnapshot) -> Shard {
        let hot = shard.keys.iter().take(KEYS);
        let keys = hot.map(|hot| key(hot.key.clone(), hot.records, shard.keys_total)).collect();
        Shard { shard: shard.shard, records: shard.keys_total, keys }
    }
}

/// Carries it out.
pub async fn run(args: TopKeysArgs) -> Result<(), Failure> {
    let name = args.name.as_str();
    let cannot = |e| Failure::doing(format!("cannot show the keys of stream {name}"), e);
    let client = args.target.connect().await?;
    // Says so if there is no such stream.
    client.describe_stream(name).await.map_err(cannot)?;
    let top = TopKeys::of(name, &client.snapshot().await.map_err(cannot)?);
    if args.json {
        return output::json(&top);
    }
    if top.keys.is_empty() {
        return output::line(format!("no key of stream {name} stands out in the last ten seconds"));
    }
    let rows: Vec<_> = top
        .shards
        .iter()
        .flat_map(|shard| shard.keys.iter().map(|key| row(shard.shard, key)))
        .collect();
    output::table(&["shard", "share", "records", "key"], &rows)
}

fn row(shard: u32, key: &Key) -> Vec<String> {
    let share = format!("{:.1} %", key.share * 100.0);
    vec![shard.to_string(), share, key.records.to_string(), key.key.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::telemetry::HotKey;

    #[test]
    fn the_streams_keys_are_those_of_its_shards_together() {
        let shard = |stream: &str, shard, keys: &[(&str, u64)]| ShardSnapshot {
            stream: stream.into(),
            shard,
            keys_total: 100,
            keys: keys.iter().map(|(k, n)| HotKey { key: (*k).into(), records: *n }).collect(),
            ..ShardSnapshot::default()
        };
        let shards = vec![
            shard("s", 0, &[("a", 30), ("b", 20)]),
            shard("s", 1, &[("b", 25)]),
            shard("other", 0, &[("x", 90)]),
        ];
        let top = TopKeys::of("s", &Snapshot { shards, ..Snapshot::default() });
        assert_eq!(top.keys, [key("b".into(), 45, 200), key("a".into(), 30, 200)]);
        assert_eq!(top.shards[0].keys[0].share, 0.3);
        assert_eq!(top.shards.len(), 2);
    }
}
