//! One sample of the charts, and the rows of the heat map.

use crate::dashboard::figures::{Figures, Flow, Tail, skew};
use highwater_wire::telemetry::Distribution;

/// Upper bounds of the heat map's rows but the last, nanoseconds: three a decade from 10 µs to 10 s.
const HEAT_BOUNDS: [u64; 19] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Rows of the heat map, the shortest delays first.
pub const HEAT_ROWS: usize = HEAT_BOUNDS.len() + 1;

/// The longest delay that counts in `row`, nanoseconds; `None` for the last, which has no bound.
pub fn heat_bound(row: usize) -> Option<u64> {
    HEAT_BOUNDS.get(row).copied()
}

/// One sample of the charts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// The server's clock, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Into all shards.
    pub into: Flow,
    /// Out of all shards.
    pub out: Flow,
    /// Propagation delay.
    pub propagation: Tail,
    /// Durable writes.
    pub write: Tail,
    /// Unread records of all groups.
    pub backlog: u64,
    /// The busiest core, 0 to 1.
    pub busy: f32,
    /// Largest over mean of the shards' rates, where it is largest; 0 while there is none.
    pub skew: f32,
    /// Samples of the server that were not seen before this one.
    pub missed: u32,
    /// Jumps of the server's clock before this one.
    pub clock_jumps: u32,
    /// Records by propagation delay: the rows of the heat map.
    pub heat: [u32; HEAT_ROWS],
}

impl Point {
    /// Of `figures`, and of the propagation delays they are about.
    pub fn new(figures: &Figures, delays: &Distribution, missed: u64) -> Point {
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let mut heat = [0u32; HEAT_ROWS];
        for (ns, count) in delays.buckets() {
            let row = HEAT_BOUNDS.partition_point(|&bound| bound < ns);
            heat[row] = heat[row].saturating_add(small(count));
        }
        Point {
            at_ns: figures.at_ns,
            into: figures.into,
            out: figures.out,
            propagation: figures.propagation,
            write: figures.write,
            backlog: figures.groups.iter().map(|g| g.records).sum(),
            busy: figures.cores.iter().map(|c| c.busy).fold(0.0, f64::max) as f32,
            skew: skew(&figures.shards).unwrap_or(0.0) as f32,
            missed: small(missed),
            clock_jumps: small(figures.clock_jumps),
            heat,
        }
    }
}

/// The largest of something, and when that was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peak {
    /// How much.
    pub value: f64,
    /// The server's clock then, nanoseconds since 1970 UTC.
    pub at_ns: u64,
}

impl Peak {
    fn see(&mut self, value: f64, at_ns: u64) {
        if value > self.value {
            *self = Peak { value, at_ns };
        }
    }
}

/// The largest values since the dashboard started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peaks {
    /// Records a second into all shards.
    pub tps_in: Peak,
    /// Records a second out of them.
    pub tps_out: Peak,
    /// Bytes a second into them.
    pub bytes_in: Peak,
    /// Bytes a second out of them.
    pub bytes_out: Peak,
    /// The slowest propagation, nanoseconds.
    pub propagation: Peak,
    /// Unread records of all groups.
    pub backlog: Peak,
}

impl Peaks {
    /// Takes in a sample.
    pub fn see(&mut self, point: &Point) {
        let at = point.at_ns;
        self.tps_in.see(point.into.records, at);
        self.tps_out.see(point.out.records, at);
        self.bytes_in.see(point.into.bytes, at);
        self.bytes_out.see(point.out.bytes, at);
        self.propagation.see(point.propagation.max as f64, at);
        self.backlog.see(point.backlog as f64, at);
    }
}
