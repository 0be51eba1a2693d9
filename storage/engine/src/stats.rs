//! Counters and latency distributions, written by the owning core only.

use hdrhistogram::Histogram;
use highwater_wire::telemetry::Distribution;

/// Shortest and longest duration told apart, nanoseconds: 1 µs to one hour.
const BOUNDS: (u64, u64) = (1_000, 3_600_000_000_000);

/// A distribution of durations with two significant digits; costs nothing until first used.
#[derive(Debug, Default)]
pub struct Durations(Option<Box<Histogram<u64>>>);

impl Durations {
    /// Adds `count` times a duration of `ns` nanoseconds; out of bounds counts at the bound.
    pub fn record(&mut self, ns: u64, count: u64) {
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(BOUNDS.0, BOUNDS.1, 2).ok().map(Box::new);
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record_n(ns.clamp(BOUNDS.0, BOUNDS.1), count);
        }
    }

    /// A copy for telemetry.
    pub fn copy(&self) -> Distribution {
        let Some(histogram) = &self.0 else {
            return Distribution::default();
        };
        let buckets: Vec<(u64, u64)> = histogram
            .iter_recorded()
            .map(|v| (histogram.median_equivalent(v.value_iterated_to()), v.count_at_value()))
            .collect();
        let sum = buckets.iter().fold(0u64, |sum, &(v, n)| sum.saturating_add(v.saturating_mul(n)));
        Distribution { buckets, max: histogram.max(), sum }
    }
}

/// What one shard counts.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Records acknowledged.
    pub records_in: u64,
    /// Bytes of their batches.
    pub bytes_in: u64,
    /// Batches acknowledged.
    pub batches_in: u64,
    /// Records handed out.
    pub records_out: u64,
    /// Bytes handed out.
    pub bytes_out: u64,
    /// Commit groups written.
    pub groups: u64,
    /// Bytes written to the device.
    pub disk_bytes: u64,
    /// Batches recognised as stored before.
    pub duplicates: u64,
    /// Appends refused.
    pub refused: u64,
    /// Segments taken that were not written before.
    pub cold_segments: u64,
    /// Duration of durable writes.
    pub write: Durations,
    /// Arrival to hand-over.
    pub propagation: Durations,
}

/// What one core counts over its shards.
#[derive(Debug, Default)]
pub struct CoreStats {
    /// Arrival to submission.
    pub queue: Durations,
    /// Submission to completion.
    pub write: Durations,
    /// Arrival to acknowledgement.
    pub ack: Durations,
    /// Arrival to hand-over.
    pub propagation: Durations,
}
