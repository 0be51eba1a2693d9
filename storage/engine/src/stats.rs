//! Counters and latency distributions, written by the owning core only.

use highwater_wire::ShardCounters;
use highwater_wire::telemetry::{Distribution, ShardSnapshot};

use crate::hotkeys::HotKeys;
use crate::types::{AppendError, Appended};

/// Shortest and longest duration told apart, nanoseconds: 1 µs to one hour. (Of bytes: 1 kB to more than enough.)
const BOUNDS: (u64, u64) = (1_000, 3_600_000_000_000);

/// What is shorter than 2^9 ns is not told apart: the unit of the buckets.
const UNIT_BITS: u32 = 9;

/// A distribution of durations, or of sizes; costs nothing until first used.
///
/// The buckets are those of an HDR histogram: of one unit up to 2^(`SUB` + 1) units, then 2^`SUB` to each doubling, so
/// that none is wider than 1/2^`SUB` of its value. 7 is what two significant digits need.
#[derive(Debug, Default)]
pub struct Durations<const SUB: u32 = 7>(Option<Box<Kept<SUB>>>);

/// The same for each of hundreds of shards, whose figures are copied every second: within 1/32 of the value.
pub type ShardDurations = Durations<5>;

#[derive(Debug)]
struct Kept<const SUB: u32> {
    /// By bucket. What is used lies close together: a copy walks over little memory.
    counts: Vec<u64>,
    /// The buckets used, from the first to the last.
    used: std::ops::RangeInclusive<usize>,
    max: u64,
    /// Whether anything was added since the last copy.
    changed: bool,
}

/// Number of the bucket of `value`.
const fn bucket(sub: u32, value: u64) -> usize {
    let units = value >> UNIT_BITS;
    let shift = (u64::BITS - (units | 1).leading_zeros()).saturating_sub(sub + 1);
    ((shift as usize) << sub) + (units >> shift) as usize
}

/// The value in the middle of a bucket.
const fn middle(sub: u32, bucket: usize) -> u64 {
    let shift = ((bucket >> sub) as u32).saturating_sub(1);
    let units = (bucket - ((shift as usize) << sub)) as u64;
    let width = 1 << (shift + UNIT_BITS);
    units * width + width / 2
}

impl<const SUB: u32> Durations<SUB> {
    /// Adds `count` times a duration of `ns` nanoseconds; out of bounds counts at the bound.
    pub fn record(&mut self, ns: u64, count: u64) {
        let kept = self.0.get_or_insert_with(|| {
            let counts = vec![0; bucket(SUB, BOUNDS.1) + 1];
            let first = bucket(SUB, ns.clamp(BOUNDS.0, BOUNDS.1));
            Box::new(Kept { counts, used: first..=first, max: 0, changed: false })
        });
        kept.record(ns.clamp(BOUNDS.0, BOUNDS.1), count);
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

impl<const SUB: u32> Kept<SUB> {
    fn record(&mut self, value: u64, count: u64) {
        let bucket = bucket(SUB, value);
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
        if !self.used.contains(&bucket) {
            self.used = bucket.min(*self.used.start())..=bucket.max(*self.used.end());
        }
        self.max = self.max.max(value);
        self.changed = true;
    }

    fn copy(&mut self) -> Distribution {
        self.changed = false;
        let used = self.used.clone().zip(&self.counts[self.used.clone()]);
        let filled = used.filter(|(_, count)| **count > 0);
        Distribution::of(filled.map(|(bucket, count)| (middle(SUB, bucket), *count)), self.max)
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
    /// Records that filters looked at.
    pub filter_looked: u64,
    /// Of these, records that matched.
    pub filter_matched: u64,
    /// Commit groups written.
    pub groups: u64,
    /// Bytes written to the device.
    pub disk_bytes: u64,
    /// Batches recognised as stored before.
    pub duplicates: u64,
    /// Appends refused.
    pub refused: u64,
    /// Records by what became of them; what waits now and what is held is not kept here but found.
    pub counters: ShardCounters,
    /// Segments taken that were not written before.
    pub cold_segments: u64,
    /// Duration of durable writes.
    pub write: ShardDurations,
    /// Propagation delay.
    pub propagation: ShardDurations,
    /// Whose records they are.
    pub keys: HotKeys,
    /// What telemetry was told last, distributions and names left out.
    pub told: Option<Box<ShardSnapshot>>,
}

impl ShardStats {
    /// A batch of `offered` records has its answer: each of them is counted once.
    pub fn count(&mut self, offered: u32, result: &Result<Appended, AppendError>) {
        let (offered, c) = (u64::from(offered), &mut self.counters);
        let rest = match result {
            Ok(appended) if appended.duplicate => {
                let decided = u64::from(appended.decided()).min(offered);
                c.duplicates_recognised += decided;
                offered - decided
            }
            Ok(appended) => {
                let parts = appended.parts.as_ref().map(|p| (p.dropped, p.sampled_out));
                let (dropped, sampled_out) = parts.unwrap_or_default();
                let stored = u64::from(appended.record_count);
                let (dropped, sampled_out) = (u64::from(dropped), u64::from(sampled_out));
                c.acknowledged += stored;
                c.dropped += dropped;
                c.sampled_out += sampled_out;
                offered.saturating_sub(stored + dropped + sampled_out)
            }
            // Stored before, only not known where.
            Err(AppendError::Duplicate(_)) => {
                c.duplicates_recognised += offered;
                0
            }
            Err(_) => offered,
        };
        c.refused += rest;
    }

    /// A batch of `offered` records was refused when it came.
    pub fn turned_away(&mut self, offered: u32, error: &AppendError) {
        self.refused += 1;
        self.counters.offered += u64::from(offered);
        self.count(offered, &Err(error.clone()));
    }
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
    use hdrhistogram::Histogram;

    #[test]
    fn buckets_are_those_of_an_hdr_histogram_of_two_digits() {
        let mut durations = Durations::<7>::default();
        assert_eq!(durations.copy(), Distribution::default());
        let mut random = fastrand::Rng::with_seed(3);
        let mut all = Histogram::<u64>::new_with_bounds(BOUNDS.0, BOUNDS.1, 2).unwrap();
        let mut max = 0;
        for _ in 0..5_000 {
            // From below to above the bounds.
            let value = 10f64.powf(random.f64() * 12.0 + 1.0) as u64;
            durations.record(value, 3);
            all.saturating_record_n(value.clamp(BOUNDS.0, BOUNDS.1), 3);
            max = value.clamp(max, BOUNDS.1);
        }
        let walked: Vec<(u64, u64)> = all
            .iter_recorded()
            .map(|v| (all.median_equivalent(v.value_iterated_to()), v.count_at_value()))
            .collect();
        let copy = durations.copy();
        assert_eq!((copy.buckets().collect::<Vec<_>>(), copy.max), (walked, max));
        assert!(!durations.changed());
        assert_eq!((durations.copy(), copy.count()), (copy.clone(), 15_000));
        durations.record(5_000_000, 1);
        assert!(durations.changed());
        assert_eq!(durations.copy().count(), 15_001);
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        fn within<const SUB: u32>(value: u64) {
            let (at, middle) = (bucket(SUB, value), middle(SUB, bucket(SUB, value)));
            let half = (value >> (SUB + 1)).max(1 << (UNIT_BITS - 1));
            assert!(middle.abs_diff(value) <= half, "{value} is not {middle}");
            assert_eq!(bucket(SUB, middle), at);
            assert!(bucket(SUB, value + 1) - at <= 1, "none is left out");
        }
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let value = 10f64.powf(random.f64() * 9.5 + 3.0) as u64;
            within::<7>(value);
            within::<5>(value);
        }
        (1_000..40_000).for_each(within::<5>);
    }
}
