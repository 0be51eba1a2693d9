//! What each shard did, and how unevenly.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;

use highwater_wire::telemetry::{ShardSnapshot, Snapshot};

use super::{Flow, Seconds, Tail};
use crate::human;

/// A shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardFigures {
    /// Its stream.
    pub stream: String,
    /// The stream's number.
    pub stream_id: u32,
    /// Its number.
    pub shard: u32,
    /// The core that owns it.
    pub core: u32,
    /// `open`, `closed` after a split or merge, or what is wrong.
    pub state: String,
    /// In.
    pub into: Flow,
    /// Out.
    pub out: Flow,
    /// Batches a second.
    pub batches: f64,
    /// Commit groups a second.
    pub groups: f64,
    /// Mean bytes written per commit group; 0 without one.
    pub group_bytes: f64,
    /// Commit groups in flight now.
    pub in_flight: u32,
    /// Subscriptions and waiting fetches now.
    pub readers: u32,
    /// Durable writes.
    pub write: Tail,
    /// From arrival to hand-over to a subscriber.
    pub propagation: Tail,
    /// Appends refused a second.
    pub refused: f64,
    /// Records that did not get past its quota.
    pub beyond: Beyond,
    /// What filters of its readers did.
    pub filters: Filters,
    /// A split that its load suggests; empty for none.
    pub advice: String,
    /// Bytes of its segments on disk, of which the newest may be empty yet.
    pub stored_bytes: u64,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark.
    pub high_water: u64,
    /// The keys most of its load comes from, the first most: at most ten.
    pub keys: Vec<HotKey>,
}

/// Records that a shard did not store at once, a second, and what it holds back now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beyond {
    /// Refused, for whatever reason.
    pub refused: f64,
    /// Held back for a while.
    pub buffered: f64,
    /// Dropped.
    pub dropped: f64,
    /// Left out because the sample does not have them.
    pub sampled_out: f64,
    /// Bytes held back now.
    pub held_bytes: u64,
}

/// What filters of subscriptions and fetches did with records, all readers together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Filters {
    /// Records looked at, a second.
    pub looked: f64,
    /// Of these, records that matched.
    pub matched: f64,
    /// Records looked at since the server started.
    pub looked_records: u64,
    /// Of these, records that matched.
    pub matched_records: u64,
}

impl Filters {
    /// Records a second that did not match and were not sent.
    pub fn left_out(&self) -> f64 {
        (self.looked - self.matched).max(0.0)
    }

    /// In words, of which the last may be left off; `None` while nothing is looked at.
    pub fn words(&self) -> Option<[String; 3]> {
        let rate = |rate: f64| human::count(rate) + "/s";
        (self.looked > 0.0).then(|| {
            let share = self.matched / self.looked * 100.0;
            [
                format!("{} looked at", rate(self.looked)),
                format!(", {} left out", rate(self.left_out())),
                format!(", {} matched ({share:.1} %)", rate(self.matched)),
            ]
        })
    }
}

impl AddAssign for Filters {
    fn add_assign(&mut self, other: Filters) {
        self.looked += other.looked;
        self.matched += other.matched;
        self.looked_records += other.looked_records;
        self.matched_records += other.matched_records;
    }
}

/// What filters did by stream, those left out whose records no filter ever looked at.
pub fn filters(shards: &[ShardFigures]) -> BTreeMap<&str, Filters> {
    let mut by_stream: BTreeMap<&str, Filters> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| shard.filters.looked_records > 0) {
        *by_stream.entry(&shard.stream).or_default() += shard.filters;
    }
    by_stream
}

impl ShardFigures {
    /// As it is called in lists: `stream/number`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.stream, self.shard)
    }

    /// Whether it takes records, as far as splits and merges go.
    pub fn is_closed(&self) -> bool {
        self.state == "closed"
    }
}

/// A partition key and how much of its shard's load it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// Its share of the shard's records of about the last ten seconds, 0 to 1; a lower bound.
    pub share: f64,
}

pub(super) fn between(old: &Snapshot, new: &Snapshot, seconds: &Seconds) -> Vec<ShardFigures> {
    let before: HashMap<(u32, u32), &ShardSnapshot> =
        old.shards.iter().map(|s| ((s.stream_id, s.shard), s)).collect();
    // A shard that was not there before began to count at 0 in between.
    let none = ShardSnapshot::default();
    let figures = |shard: &ShardSnapshot| {
        let before = before.get(&(shard.stream_id, shard.shard)).copied().unwrap_or(&none);
        let seconds = seconds.of(shard.core);
        let more = |of: fn(&ShardSnapshot) -> u64| of(shard).saturating_sub(of(before)) as f64;
        let rate = |of: fn(&ShardSnapshot) -> u64| more(of) / seconds;
        let groups = more(|s| s.groups);
        ShardFigures {
            stream: shard.stream.clone(),
            stream_id: shard.stream_id,
            shard: shard.shard,
            core: shard.core,
            state: shard.state.clone(),
            into: Flow { records: rate(|s| s.records_in), bytes: rate(|s| s.bytes_in) },
            out: Flow { records: rate(|s| s.records_out), bytes: rate(|s| s.bytes_out) },
            batches: rate(|s| s.batches_in),
            groups: groups / seconds,
            group_bytes: if groups > 0.0 { more(|s| s.disk_bytes) / groups } else { 0.0 },
            in_flight: shard.in_flight,
            readers: shard.readers,
            write: Tail::of(&shard.write.since(&before.write)),
            propagation: Tail::of(&shard.propagation.since(&before.propagation)),
            refused: rate(|s| s.refused),
            beyond: Beyond {
                refused: rate(|s| s.counters.refused),
                buffered: rate(|s| s.counters.buffered),
                dropped: rate(|s| s.counters.dropped),
                sampled_out: rate(|s| s.counters.sampled_out),
                held_bytes: shard.counters.held_bytes,
            },
            filters: Filters {
                looked: rate(|s| s.filter_looked),
                matched: rate(|s| s.filter_matched),
                looked_records: shard.filter_looked,
                matched_records: shard.filter_matched,
            },
            advice: shard.advice.clone(),
            stored_bytes: shard.stored_bytes,
            oldest: shard.oldest,
            high_water: shard.high_water,
            keys: keys(shard),
        }
    };
    let mut shards: Vec<ShardFigures> = new.shards.iter().map(figures).collect();
    shards.sort_by(|a, b| (&a.stream, a.shard).cmp(&(&b.stream, b.shard)));
    shards
}

fn keys(shard: &ShardSnapshot) -> Vec<HotKey> {
    let total = shard.keys_total.max(1) as f64;
    let hot = |k: &highwater_wire::telemetry::HotKey| HotKey {
        key: k.key.clone(),
        share: k.records as f64 / total,
    };
    shard.keys.iter().map(hot).collect()
}

/// Largest over mean of the rates of a stream's shards, closed ones left out, for each stream with two shards and a record a second
/// on each: 1 is even. The most uneven stream first.
pub fn stream_skews(shards: &[ShardFigures]) -> Vec<(&str, f64)> {
    let mut by_stream: BTreeMap<&str, (f64, f64, f64)> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| !shard.is_closed()) {
        let (n, sum, max) = by_stream.entry(&shard.stream).or_default();
        *n += 1.0;
        *sum += shard.into.records;
        *max = max.max(shard.into.records);
    }
    let mut skews: Vec<(&str, f64)> = by_stream
        .into_iter()
        .filter(|(_, (n, sum, _))| *n >= 2.0 && sum / n >= 1.0)
        .map(|(stream, (n, sum, max))| (stream, max * n / sum))
        .collect();
    skews.sort_by(|a, b| b.1.total_cmp(&a.1));
    skews
}

/// That of the most uneven stream; `None` while there is none to tell.
pub fn skew(shards: &[ShardFigures]) -> Option<f64> {
    stream_skews(shards).first().map(|(_, skew)| *skew)
}
