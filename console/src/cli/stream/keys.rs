//! `highwater stream top-keys`: the partition keys most of the recent records have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use highwater_client::{Client, ClientError};
use highwater_wire::StreamName;
use highwater_wire::telemetry::{ShardSnapshot, Snapshot};
use serde::Serialize;

use crate::cli::Target;
use crate::failure::Failure;
use crate::{human, output};

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
/// Figures as old as this are fresh: cores copy them once a second, with many shards less often.
const FRESH: Duration = Duration::from_millis(1_500);
/// Fresher ones are waited for so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often they are asked for meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

/// The keys as programs get them. The names are stable; more may come.
#[derive(Debug, Serialize, PartialEq)]
struct TopKeys {
    stream: String,
    /// How old the figures are, in milliseconds.
    age_ms: u64,
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
    fn of(stream: &str, snapshot: &Snapshot, age: Duration) -> TopKeys {
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
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        TopKeys { stream: stream.to_owned(), age_ms, keys, shards }
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
    let (snapshot, age) = latest(&client).await.map_err(cannot)?;
    let top = TopKeys::of(name, &snapshot, age);
    if args.json {
        return output::json(&top);
    }
    let since = match age > FRESH {
        true => {
            format!(" before the figures were taken, {} ago", human::nanos(age.as_nanos() as u64))
        }
        false => String::new(),
    };
    if top.keys.is_empty() {
        return output::line(format!(
            "no key of stream {name} stands out in the last ten seconds{since}"
        ));
    }
    if age > FRESH {
        note!("the keys of ten seconds{since}");
    }
    let rows: Vec<_> = top
        .shards
        .iter()
        .flat_map(|shard| shard.keys.iter().map(|key| row(shard.shard, key)))
        .collect();
    output::table(&["shard", "share", "records", "key"], &rows)
}

/// The server's latest figures and how old they are by its clock: fresh ones if they come soon.
async fn latest(client: &Client) -> Result<(Snapshot, Duration), ClientError> {
    let (told_ns, asked) = (client.info().now_ns, Instant::now());
    let mut snapshot = client.snapshot().await?;
    loop {
        let age = age(told_ns, asked.elapsed(), snapshot.taken_ns);
        if age <= FRESH || asked.elapsed() >= PATIENCE {
            return Ok((snapshot, age));
        }
        tokio::time::sleep(AGAIN).await;
        if let Some(newer) = client.snapshot_after(snapshot.serial).await? {
            snapshot = newer;
        }
    }
}

/// How old figures are that were taken at `taken_ns`, if the server's clock was at `told_ns` that long ago.
fn age(told_ns: u64, ago: Duration, taken_ns: u64) -> Duration {
    let now_ns = told_ns.saturating_add(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX));
    Duration::from_nanos(now_ns.saturating_sub(taken_ns))
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
    fn figures_age_by_the_servers_clock() {
        let second = 1_000_000_000;
        let of = |taken| age(10 * second, Duration::from_millis(500), taken).as_millis();
        assert_eq!((of(7 * second), of(10 * second), of(11 * second)), (3_500, 500, 0));
    }

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
        let snapshot = Snapshot { shards, ..Snapshot::default() };
        let top = TopKeys::of("s", &snapshot, Duration::from_millis(40));
        assert_eq!((top.stream.as_str(), top.age_ms), ("s", 40));
        assert_eq!(top.keys, [key("b".into(), 45, 200), key("a".into(), 30, 200)]);
        assert_eq!(top.shards[0].keys[0].share, 0.3);
        assert_eq!(top.shards.len(), 2);
    }
}
