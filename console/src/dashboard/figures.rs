//! Rates and tails between two snapshots. Pure: no clock, no terminal.

mod cores;
mod groups;
mod shards;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use highwater_wire::ErrorCode;
use highwater_wire::telemetry::{CoreSnapshot, Distribution, Snapshot};

use crate::human;

pub use cores::CoreFigures;
pub use groups::{GroupFigures, Limit, Loss};
pub use shards::{Beyond, Filters, ShardFigures, filters, skew, stream_skews};

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
    /// From arrival to acknowledgement by the engine.
    pub append: Tail,
    /// Where the time goes.
    pub stages: Stages,
    /// By core number.
    pub cores: Vec<CoreFigures>,
    /// By stream and shard number.
    pub shards: Vec<ShardFigures>,
    /// By group and stream, the one furthest behind first.
    pub groups: Vec<GroupFigures>,
    /// Requests refused a second, by reason; only those that were.
    pub refusals: Vec<(ErrorCode, f64)>,
    /// Appends a second that waited for buffer memory.
    pub stalled: f64,
    /// Jumps of the server's wall clock.
    pub clock_jumps: u64,
    /// CPU time of the snapshots themselves, all threads, microseconds a second.
    pub snapshot_cost_us: f64,
    /// CPU time of the filter threads over the time, of one core: 1 for each that is busy.
    pub filter_busy: f64,
}

/// Records and bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// Records a second.
    pub records: f64,
    /// Bytes a second.
    pub bytes: f64,
}

impl Figures {
    /// What is known of a group only for a part of the time is what the `latest` figures say.
    pub fn complete(&mut self, latest: &Figures) {
        for group in self.groups.iter_mut().filter(|group| group.behind_before.is_none()) {
            let same = |g: &&GroupFigures| g.group == group.group && g.stream == group.stream;
            if let Some(known) = latest.groups.iter().find(same) {
                *group = known.clone();
            }
        }
    }
}

impl std::ops::AddAssign for Flow {
    fn add_assign(&mut self, other: Flow) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// A distribution as it is shown, in nanoseconds (sizes: bytes); all 0 when nothing was counted.
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
    /// One of its values as a time in words; a dash where nothing was counted.
    pub fn time(&self, of: impl Fn(&Tail) -> u64) -> String {
        if self.count == 0 { "-".to_owned() } else { human::nanos(of(self)) }
    }

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

/// The stages of a record's way. Queue and write end with acknowledgement by the device; then the reply and the
/// deliveries go their own ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Arrival until its commit group is submitted.
    pub queue: Tail,
    /// Submission until it is on the device.
    pub write: Tail,
    /// On the device until the reply is handed to the socket.
    pub ack: Tail,
    /// On the device until a delivery is handed to the socket.
    pub deliver: Tail,
}

/// A distribution that every core measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Arrival to hand-over to a subscriber.
    Propagation,
    /// Arrival to submission.
    Queue,
    /// Submission to completion.
    Write,
    /// Completion to the reply at the socket.
    Ack,
    /// Completion to the delivery at the socket.
    Deliver,
    /// Arrival to acknowledgement by the engine.
    Append,
}

impl Measured {
    /// All of them.
    pub const ALL: [Measured; 6] = [
        Measured::Propagation,
        Measured::Queue,
        Measured::Write,
        Measured::Ack,
        Measured::Deliver,
        Measured::Append,
    ];

    fn of(self, core: &CoreSnapshot) -> &Distribution {
        match self {
            Measured::Propagation => &core.propagation,
            Measured::Queue => &core.queue,
            Measured::Write => &core.write,
            Measured::Ack => &core.ack,
            Measured::Deliver => &core.deliver,
            Measured::Append => &core.append,
        }
    }

    /// Of all cores together, cumulative. Percentiles come from merged distributions, never from averaged
    /// percentiles.
    pub fn merged(self, snapshot: &Snapshot) -> Distribution {
        let mut all = Distribution::default();
        snapshot.cores.iter().for_each(|core| all.merge(self.of(core)));
        all
    }
}

/// What happened from `old` to `new`; `None` when they cannot be compared: the server was restarted in
/// between, or no time has passed.
pub fn between(old: &Snapshot, new: &Snapshot) -> Option<Figures> {
    if old.started_ns != new.started_ns || new.uptime_ns <= old.uptime_ns {
        return None;
    }
    let span = Duration::from_nanos(new.uptime_ns - old.uptime_ns);
    let seconds = Seconds::between(old, new, span);
    let tail = |what: Measured| Tail::of(&what.merged(new).since(&what.merged(old)));
    let shards = shards::between(old, new, &seconds);
    let (mut into, mut out) = (Flow::default(), Flow::default());
    for shard in &shards {
        into += shard.into;
        out += shard.out;
    }
    let cores = cores::between(old, new, &seconds, &shards);
    let write = tail(Measured::Write);
    let before = |count: fn(&CoreSnapshot) -> u64| old.cores.iter().map(count).sum::<u64>();
    let jumps = |snapshot: &Snapshot| snapshot.cores.iter().map(|c| c.clock_jumps).max();
    let own_cost = new.snapshot_cost_us.saturating_sub(old.snapshot_cost_us) as f64;
    Some(Figures {
        at_ns: new.taken_ns,
        span,
        into,
        out,
        propagation: tail(Measured::Propagation),
        write,
        append: tail(Measured::Append),
        stages: Stages {
            queue: tail(Measured::Queue),
            write,
            ack: tail(Measured::Ack),
            deliver: tail(Measured::Deliver),
        },
        refusals: refusals(old, new, span),
        stalled: new
            .cores
            .iter()
            .map(|c| c.stalled)
            .sum::<u64>()
            .saturating_sub(before(|c| c.stalled)) as f64
            / span.as_secs_f64(),
        // Every core sees the same clock jump.
        clock_jumps: jumps(new).unwrap_or(0).saturating_sub(jumps(old).unwrap_or(0)),
        snapshot_cost_us: own_cost / span.as_secs_f64()
            + cores.iter().map(|c| c.snapshot_cost_us).sum::<f64>(),
        filter_busy: new.filter_busy_ns.saturating_sub(old.filter_busy_ns) as f64
            / 1e9
            / span.as_secs_f64(),
        groups: groups::between(old, new, &seconds),
        cores,
        shards,
    })
}

/// Each core copies its figures at a time of its own: rates of what it owns are over the time between its copies.
struct Seconds {
    all: f64,
    by_core: HashMap<u32, f64>,
}

impl Seconds {
    fn between(old: &Snapshot, new: &Snapshot, span: Duration) -> Seconds {
        let before: HashMap<u32, u64> = old.cores.iter().map(|c| (c.core, c.uptime_ns)).collect();
        let seconds = |core: &CoreSnapshot| {
            let ns = core.uptime_ns.saturating_sub(*before.get(&core.core)?);
            (ns > 0).then_some((core.core, ns as f64 / 1e9))
        };
        Seconds { all: span.as_secs_f64(), by_core: new.cores.iter().filter_map(seconds).collect() }
    }

    fn of(&self, core: u32) -> f64 {
        self.by_core.get(&core).copied().unwrap_or(self.all)
    }
}

fn refusals(old: &Snapshot, new: &Snapshot, span: Duration) -> Vec<(ErrorCode, f64)> {
    let mut by_code: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
    for refusals in old.cores.iter().flat_map(|c| &c.refusals) {
        by_code.entry(refusals.code).or_default().0 += refusals.count;
    }
    for refusals in new.cores.iter().flat_map(|c| &c.refusals) {
        by_code.entry(refusals.code).or_default().1 += refusals.count;
    }
    let rate = |(code, (old, new)): (u16, (u64, u64))| {
        let more = new.saturating_sub(old);
        (more > 0).then(|| (ErrorCode::from_number(code), more as f64 / span.as_secs_f64()))
    };
    by_code.into_iter().filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture;
    use highwater_wire::telemetry::Refusals;

    #[test]
    fn rates_busy_tails_and_groups() {
        let (old, new) = (fixture::snapshot(10), fixture::snapshot(12));
        let figures = between(&old, &new).unwrap();
        assert_eq!(figures.span, Duration::from_secs(2));
        assert_eq!(figures.into, Flow { records: 20_000.0, bytes: 20_000.0 * 512.0 });
        assert_eq!(figures.out, Flow { records: 40_000.0, bytes: 40_000.0 * 512.0 });
        assert_eq!(figures.cores.len(), 2);
        assert!((figures.cores[0].busy - 0.58).abs() < 1e-9);
        assert_eq!(figures.cores[1].into.records, 12_000.0);
        assert_eq!((figures.propagation.p50, figures.propagation.max), (400_000, 9_000_000));
        assert_eq!(figures.stages.write, figures.write);
        assert!(figures.stages.queue.count > 0 && figures.stages.deliver.count > 0);
        assert_eq!(figures.groups[0].group, "audit");
        assert_eq!(figures.groups[0].age, Duration::from_millis(1200 * 12));
        assert_eq!(figures.shards.len(), 4);
        assert!((skew(&figures.shards).unwrap() - 1.6).abs() < 1e-9);
    }

    #[test]
    fn rates_are_over_the_time_between_the_copies_of_their_core() {
        let (old, mut new) = (fixture::snapshot(10), fixture::snapshot(11));
        // Published together, but this core was copied half a second later.
        new.cores[1].uptime_ns += 500_000_000;
        let figures = between(&old, &new).unwrap();
        assert_eq!(figures.shards[0].into.records, 4_000.0);
        assert_eq!(figures.shards[3].into.records.round(), 5_333.0);
    }

    #[test]
    fn a_clock_that_jumps_changes_no_rate() {
        let (old, mut new) = (fixture::snapshot(10), fixture::snapshot(11));
        let jump = 3_600_000_000_000;
        new.taken_ns -= jump;
        new.cores.iter_mut().for_each(|core| {
            core.taken_ns -= jump;
            core.clock_jumps = 1;
        });
        let figures = between(&old, &new).unwrap();
        assert_eq!((figures.into.records, figures.clock_jumps), (20_000.0, 1));
    }

    #[test]
    fn filters_are_told_by_stream() {
        let (mut old, mut new) = (fixture::snapshot(10), fixture::snapshot(12));
        assert!(filters(&between(&old, &new).unwrap().shards).is_empty(), "there are none");
        (old.shards[0].filter_looked, old.shards[0].filter_matched) = (1_000, 10);
        (new.shards[0].filter_looked, new.shards[0].filter_matched) = (5_000, 50);
        (new.shards[1].filter_looked, new.shards[1].filter_matched) = (4_000, 0);
        new.filter_busy_ns = 500_000_000;
        let figures = between(&old, &new).unwrap();
        let orders = filters(&figures.shards)["orders"];
        let wanted =
            Filters { looked: 4_000.0, matched: 20.0, looked_records: 9_000, matched_records: 50 };
        assert_eq!((orders, figures.filter_busy), (wanted, 0.25));
        let words = "4.00k/s looked at, 3.98k/s left out, 20/s matched (0.5 %)";
        assert_eq!(orders.words().unwrap().concat(), words);
        assert_eq!(Filters { looked: 0.0, ..orders }.words(), None);
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

    #[test]
    fn refusals_and_costs_are_over_all_cores() {
        let (mut old, mut new) = (fixture::snapshot(10), fixture::snapshot(12));
        let busy = |count| vec![Refusals { code: ErrorCode::Busy as u16, count }];
        old.cores[0].refusals = busy(3);
        new.cores[0].refusals = busy(3);
        new.cores[1].refusals = busy(8);
        old.snapshot_cost_us = 100;
        new.snapshot_cost_us = 300;
        new.cores[1].snapshot_cost_us = 1_000;
        new.cores[1].stalled = 10;
        let figures = between(&old, &new).unwrap();
        assert_eq!(figures.refusals, [(ErrorCode::Busy, 4.0)]);
        assert_eq!((figures.snapshot_cost_us, figures.stalled), (360.0, 5.0));
    }
}
