//! Counters and latency distributions, written by the owning core only.

use hdrhistogram::Histogram;
use highwater_wire::telemetry::{Distribution, ShardSnapshot};

use crate::hotkeys::HotKeys;

/// Shortest and longest duration told apart, nanoseconds: 1 µs to one hour. (Of bytes: 1 kB to more than enough.)
const BOUNDS: (u64, u64) = (1_000, 3_600_000_000_000);

/// A distribution of durations, or of sizes, with two significant digits; costs nothing until first used.
#[derive(Debug, Default)]
pub struct Durations(Option<Box<Kept>>);

#[derive(Debug)]
struct Kept {
    histogram: Histogram<u64>,
    /// The representatives of its buckets that are not empty, ascending: some hundred of thousands, so that a copy
    /// does not walk them all.
    used: Vec<u64>,
    /// Whether anything was added since the last copy.
    changed: bool,
}

impl Durations {
    /// Adds `count` times a duration of `ns` nanoseconds; out of bounds counts at the bound.
    pub fn record(&mut self, ns: u64, count: u64) {
        if self.0.is_none() {
            let histogram = Histogram::new_with_bounds(BOUNDS.0, BOUNDS.1, 2).ok();
            self.0 = histogram
                .map(|histogram| Box::new(Kept { histogram, used: Vec::new(), changed: false }));
        }
        if let Some(kept) = &mut self.0 {
            kept.record(ns.clamp(BOUNDS.0, BOUNDS.1), count);
        }
    }

    /// Whether anything was added since the last copy.
    pub fn changed(&self) -> bool {
        self.0.as_ref().is_some_and(|kept| kept.changed)
    }

    /// A copy for telemetry.
    pub fn copy(&mut self) -> Distribution {
        self.0.as_mut().map_or_else(Distribution::default, |kept| kept.copy())
    }
}

impl Kept {
    fn record(&mut self, value: u64, count: u64) {
        if self.histogram.count_at(value) == 0 {
            let bucket = self.histogram.median_equivalent(value);
            if let Err(place) = self.used.binary_search(&bucket) {
                self.used.insert(place, bucket);
            }
        }
        self.histogram.saturating_record_n(value, count);
        self.changed = true;
    }

    fn copy(&mut self) -> Distribution {
        self.changed = false;
        let histogram = &self.histogram;
        let buckets = self.used.iter().map(|&value| (value, histogram.count_at(value)));
        Distribution::of(buckets, histogram.max())
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
    /// Whose records they are.
    pub keys: HotKeys,
    /// What telemetry was told last, distributions and names left out.
    pub told: Option<Box<ShardSnapshot>>,
}

/// What one core counts over its shards.
#[derive(Debug, Default)]
pub struct CoreStats {
    /// Bytes written per commit group.
    pub group_bytes: Durations,
    /// Arrival to submission.
    pub queue: Durations,
    /// Submission to completion.
    pub write: Durations,
    /// Arrival to acknowledgement.
    pub append: Durations,
    /// Arrival to hand-over.
    pub propagation: Durations,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_every_bucket_that_is_not_empty() {
        let mut durations = Durations::default();
        assert_eq!(durations.copy(), Distribution::default());
        let mut random = fastrand::Rng::with_seed(3);
        let mut all = Histogram::<u64>::new_with_bounds(BOUNDS.0, BOUNDS.1, 2).unwrap();
        for _ in 0..5_000 {
            // From below to above the bounds.
            let value = 10f64.powf(random.f64() * 12.0 + 1.0) as u64;
            durations.record(value, 3);
            all.saturating_record_n(value.clamp(BOUNDS.0, BOUNDS.1), 3);
        }
        let walked: Vec<(u64, u64)> = all
            .iter_recorded()
            .map(|v| (all.median_equivalent(v.value_iterated_to()), v.count_at_value()))
            .collect();
        let copy = durations.copy();
        assert_eq!((copy.buckets().collect::<Vec<_>>(), copy.max), (walked, all.max()));
        assert!(!durations.changed());
        assert_eq!((durations.copy(), copy.count()), (copy.clone(), 15_000));
        durations.record(5_000_000, 1);
        assert!(durations.changed());
        assert_eq!(durations.copy().count(), 15_001);
    }
}
