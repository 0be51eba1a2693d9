//! Rates and tails between two snapshots. Pure: no clock, no terminal.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use highwater_wire::telemetry::{CoreSnapshot, Distribution, ShardSnapshot, Snapshot};

/// What happened between two snapshots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// The server's clock at the later one, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Time between the two.
    pub span: Duration,
    /// Into all shards.
    pub into: Flow,
    /// Out of all shards.
    pub out: Flow,
    /// From arrival to hand-over to a subscriber.
    pub propagation: Tail,
    /// Durable writes.
    pub write: Tail,
    /// By core number.
    pub cores: Vec<CoreFigures>,
    /// By stream and shard number.
    pub shards: Vec<ShardFigures>,
    /// By group and stream, the one furthest behind first.
    pub groups: Vec<GroupFigures>,
}

/// Records and bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// Records a second.
    pub records: f64,
    /// Bytes a second.
    pub bytes: f64,
}

/// A distribution as it is shown, in nanoseconds; all 0 when nothing was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// How many values.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Largest.
    pub max: u64,
}

impl Tail {
    /// Of `distribution`.
    pub fn of(distribution: &Distribution) -> Tail {
        let at = |q| distribution.quantile(q).unwrap_or(0);
        Tail {
            count: distribution.count(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: distribution.max,
        }
    }
}

/// A core.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoreFigures {
    /// Its number.
    pub core: u32,
    /// The CPU it is pinned to.
    pub cpu: u32,
    /// CPU time of its thread as a share of the time, 0 to 1.
    pub busy: f64,
    /// Connections now.
    pub connections: u32,
}

/// A shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardFigures {
    /// Its stream.
    pub stream: String,
    /// Its number.
    pub shard: u32,
    /// `open`, or what is wrong.
    pub state: String,
    /// In.
    pub into: Flow,
}

/// A consumer group in one stream, over its shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupFigures {
    /// The group.
    pub group: String,
    /// The stream.
    pub stream: String,
    /// Records up to the high-water marks.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest unread record.
    pub age: Duration,
}

/// What happened from `old` to `new`; `None` when they cannot be compared: the server was restarted in
/// between, or no time has passed.
pub fn between(old: &Snapshot, new: &Snapshot) -> Option<Figures> {
    if old.started_ns != new.started_ns || new.taken_ns <= old.taken_ns {
        return None;
    }
    let span = Duration::from_nanos(new.taken_ns - old.taken_ns);
    let seconds = seconds_by_core(old, new);
    let before: HashMap<(u32, u32), &ShardSnapshot> =
        old.shards.iter().map(|s| ((s.stream_id, s.shard), s)).collect();
    let (mut into, mut out) = (Flow::default(), Flow::default());
    let mut shards = Vec::with_capacity(new.shards.len());
    for shard in &new.shards {
        let before = before.get(&(shard.stream_id, shard.shard)).copied();
        // A shard that was not there before began to count at 0 in between.
        let seconds = seconds.get(&shard.core).copied().unwrap_or(span.as_secs_f64());
        let rate = |of: fn(&ShardSnapshot) -> u64| {
            of(shard).saturating_sub(before.map_or(0, of)) as f64 / seconds
        };
        let shard_in = Flow { records: rate(|s| s.records_in), bytes: rate(|s| s.bytes_in) };
        into.records += shard_in.records;
        into.bytes += shard_in.bytes;
        out.records += rate(|s| s.records_out);
        out.bytes += rate(|s| s.bytes_out);
        shards.push(ShardFigures {
            stream: shard.stream.clone(),
            shard: shard.shard,
            state: shard.state.clone(),
            into: shard_in,
        });
    }
    shards.sort_by(|a, b| (&a.stream, a.shard).cmp(&(&b.stream, b.shard)));
    Some(Figures {
        at_ns: new.taken_ns,
        span,
        into,
        out,
        propagation: Tail::of(&propagation(new).since(&propagation(old))),
        write: Tail::of(&write(new).since(&write(old))),
        cores: cores(old, new),
        shards,
        groups: groups(new),
    })
}

/// Each core copies its figures at a time of its own: rates of its shards are over the time between its copies.
fn seconds_by_core(old: &Snapshot, new: &Snapshot) -> HashMap<u32, f64> {
    let taken: HashMap<u32, u64> = old.cores.iter().map(|c| (c.core, c.taken_ns)).collect();
    let seconds = |core: &CoreSnapshot| {
        let ns = core.taken_ns.saturating_sub(*taken.get(&core.core)?);
        (ns > 0).then_some((core.core, ns as f64 / 1e9))
    };
    new.cores.iter().filter_map(seconds).collect()
}

/// Propagation delay of all cores together, cumulative.
pub fn propagation(snapshot: &Snapshot) -> Distribution {
    merged(snapshot.cores.iter().map(|c| &c.propagation))
}

/// Durable writes of all cores together, cumulative.
pub fn write(snapshot: &Snapshot) -> Distribution {
    merged(snapshot.cores.iter().map(|c| &c.write))
}

/// Percentiles come from merged distributions, never from averaged percentiles.
fn merged<'a>(parts: impl Iterator<Item = &'a Distribution>) -> Distribution {
    let mut all = Distribution::default();
    parts.for_each(|part| all.merge(part));
    all
}

fn cores(old: &Snapshot, new: &Snapshot) -> Vec<CoreFigures> {
    let figures = |core: &CoreSnapshot| {
        let before = old.cores.iter().find(|c| c.core == core.core);
        let (busy_ns, taken_ns) = before.map_or((0, 0), |c| (c.busy_ns, c.taken_ns));
        let (used, time) =
            (core.busy_ns.saturating_sub(busy_ns), core.taken_ns.saturating_sub(taken_ns));
        let busy = if time == 0 { 0.0 } else { (used as f64 / time as f64).min(1.0) };
        CoreFigures { core: core.core, cpu: core.cpu, busy, connections: core.connections }
    };
    new.cores.iter().map(figures).collect()
}

fn groups(new: &Snapshot) -> Vec<GroupFigures> {
    let mut by_name: BTreeMap<(&str, &str), GroupFigures> = BTreeMap::new();
    for part in &new.groups {
        let group = by_name.entry((&part.group, &part.stream)).or_insert_with(|| GroupFigures {
            group: part.group.clone(),
            stream: part.stream.clone(),
            ..GroupFigures::default()
        });
        group.records += part.backlog_records;
        group.bytes += part.backlog_bytes;
        group.age = group.age.max(Duration::from_nanos(part.backlog_ns));
    }
    let mut groups: Vec<GroupFigures> = by_name.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.age, group.records)));
    groups
}

/// Largest over mean of the shards' rates, for the stream where it is largest: 1 is even. `None` while no
/// stream has two shards and a record a second on each.
pub fn skew(shards: &[ShardFigures]) -> Option<f64> {
    let mut by_stream: BTreeMap<&str, (f64, f64, f64)> = BTreeMap::new();
    for shard in shards {
        let (n, sum, max) = by_stream.entry(&shard.stream).or_default();
        *n += 1.0;
        *sum += shard.into.records;
        *max = max.max(shard.into.records);
    }
    by_stream
        .values()
        .filter(|(n, sum, _)| *n >= 2.0 && sum / n >= 1.0)
        .map(|(n, sum, max)| max * n / sum)
        .max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture;

    #[test]
    fn rates_busy_tails_and_groups() {
        let (old, new) = (fixture::snapshot(10), fixture::snapshot(12));
        let figures = between(&old, &new).unwrap();
        assert_eq!(figures.span, Duration::from_secs(2));
        assert_eq!(figures.into, Flow { records: 20_000.0, bytes: 20_000.0 * 512.0 });
        assert_eq!(figures.out, Flow { records: 40_000.0, bytes: 40_000.0 * 512.0 });
        assert_eq!(figures.cores.len(), 2);
        assert!((figures.cores[0].busy - 0.58).abs() < 1e-9);
        assert_eq!((figures.propagation.p50, figures.propagation.max), (400_000, 9_000_000));
        assert_eq!(figures.groups[0].group, "audit");
        assert_eq!(figures.groups[0].age, Duration::from_millis(1200 * 12));
        assert_eq!(figures.shards.len(), 4);
        assert!((skew(&figures.shards).unwrap() - 1.6).abs() < 1e-9);
    }

    #[test]
    fn rates_are_over_the_time_between_the_copies_of_their_core() {
        let (old, mut new) = (fixture::snapshot(10), fixture::snapshot(11));
        // Published together, but this core was copied half a second later.
        new.cores[1].taken_ns += 500_000_000;
        let figures = between(&old, &new).unwrap();
        assert_eq!(figures.shards[0].into.records, 4_000.0);
        assert_eq!(figures.shards[3].into.records.round(), 5_333.0);
    }

    #[test]
    fn what_cannot_be_compared_is_not() {
        let (old, mut new) = (fixture::snapshot(10), fixture::snapshot(11));
        assert_eq!(between(&old, &old), None);
        assert_eq!(between(&new, &old), None);
        new.started_ns += 1;
        assert_eq!(between(&old, &new), None);
    }

    #[test]
    fn a_new_shard_counts_from_zero_and_a_deleted_one_not_at_all() {
        let (mut old, mut new) = (fixture::snapshot(10), fixture::snapshot(11));
        old.shards.truncate(2);
        new.shards.remove(0);
        let figures = between(&old, &new).unwrap();
        let records_in: u64 = new.shards[1..].iter().map(|s| s.records_in).sum();
        assert_eq!(figures.into.records, records_in as f64 + 4_000.0);
        assert_eq!(skew(&[]), None);
    }
}
