//! What each worker measures: counters and histograms, handed to the controlling thread once a second.
//!
//! One [`Meter`] per worker thread, behind a lock that only its own tasks and (once a second, for a swap
//! of pointers) the controlling thread take; merged at the end, never averaged.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::CreationError;
use hdrhistogram::Histogram;

use crate::busy::Thread;
use crate::pauses::Longest;
use crate::schedule::Gaps;
use crate::{Distribution, Distributions};

/// Longest time told apart: 1 h. What took longer counts as that.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Significant decimal digits kept.
const DIGITS: u8 = 3;

/// The histograms of one set of records, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Set {
    /// Intended to acknowledged.
    pub response: Histogram<u64>,
    /// Intended to read.
    pub propagation: Histogram<u64>,
    /// Intended to sent.
    pub send_lag: Histogram<u64>,
    /// Sent to acknowledged.
    pub service: Histogram<u64>,
    /// Acknowledged to read.
    pub visibility: Histogram<u64>,
    /// Arrived, by the target's clock, to read.
    pub delivery: Histogram<u64>,
    /// When the generator could and should have acted, to when it did.
    pub late: Histogram<u64>,
}

impl Set {
    /// Empty.
    pub fn new() -> Result<Set, CreationError> {
        let empty = || Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Ok(Set {
            response: empty()?,
            propagation: empty()?,
            send_lag: empty()?,
            service: empty()?,
            visibility: empty()?,
            delivery: empty()?,
            late: empty()?,
        })
    }

    fn pairs<'a>(
        &'a mut self,
        other: &'a Set,
    ) -> [(&'a mut Histogram<u64>, &'a Histogram<u64>); 7] {
        [
            (&mut self.response, &other.response),
            (&mut self.propagation, &other.propagation),
            (&mut self.send_lag, &other.send_lag),
            (&mut self.service, &other.service),
            (&mut self.visibility, &other.visibility),
            (&mut self.delivery, &other.delivery),
            (&mut self.late, &other.late),
        ]
    }

    /// Adds everything in `other`.
    pub fn add(&mut self, other: &Set) {
        for (mine, theirs) in self.pairs(other) {
            if !theirs.is_empty() {
                // Adding fails only where a value exceeds the bounds, and all bounds here are the same.
                let _same_bounds = mine.add(theirs);
            }
        }
    }

    /// Empties it, keeping the memory.
    pub fn clear(&mut self) {
        for histogram in [
            &mut self.response,
            &mut self.propagation,
            &mut self.send_lag,
            &mut self.service,
            &mut self.visibility,
            &mut self.delivery,
            &mut self.late,
        ] {
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
    }

    /// The six that are reported, with their names in reports and logs.
    pub fn named(&self) -> [(&'static str, &Histogram<u64>); 6] {
        [
            ("response", &self.response),
            ("propagation", &self.propagation),
            ("send_lag", &self.send_lag),
            ("service", &self.service),
            ("visibility", &self.visibility),
            ("delivery", &self.delivery),
        ]
    }

    /// Their percentiles.
    pub fn distributions(&self) -> Distributions {
        Distributions {
            response: Distribution::of(&self.response),
            propagation: Distribution::of(&self.propagation),
            send_lag: Distribution::of(&self.send_lag),
            service: Distribution::of(&self.service),
            visibility: Distribution::of(&self.visibility),
            delivery: Distribution::of(&self.delivery),
        }
    }
}

/// Counts `count` records that took from `from_ns` to `to_ns`. Times that run backwards count as 0.
pub fn record(histogram: &mut Histogram<u64>, from_ns: u64, to_ns: u64, count: u64) {
    histogram.saturating_record_n(to_ns.saturating_sub(from_ns), count);
}

/// Counts a record for each of `from_ns`, ascending, that took until `to_ns`: those that fall into one bucket
/// of the histogram, as neighbours in a batch usually do, at once.
pub fn record_each(histogram: &mut Histogram<u64>, from_ns: &[u64], to_ns: u64) {
    let mut rest = from_ns;
    while let Some((&first, &last)) = rest.first().zip(rest.last()) {
        let took = to_ns.saturating_sub(first).min(LONGEST_NS);
        let latest = match histogram.lowest_equivalent(took) {
            0 => u64::MAX,
            least => to_ns - least,
        };
        let same = match last <= latest {
            true => rest.len(),
            false => rest.iter().take_while(|from| **from <= latest).count().max(1),
        };
        histogram.saturating_record_n(took, same as u64);
        rest = &rest[same..];
    }
}

/// Counters of a run, since its first record. "In window" goes by the intended time unless said otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Records sent.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Their payload bytes.
    pub acked_bytes: u64,
    /// Reads whose arrival stamp lay after the reader's clock.
    pub delivery_before_arrival: u64,
    /// Records refused.
    pub refused: u64,
    /// Records dropped, as the stream is made.
    pub dropped: u64,
    /// Records left out of a sample, as the stream is made.
    pub sampled_out: u64,
    /// Records of unknown fate.
    pub unknown: u64,
    /// Records with a wrong checksum, or where this run did not put them.
    pub corrupted: u64,
    /// Failed requests.
    pub errors: u64,
    /// ... that were reads, or looked for the end of what is to be read.
    pub read_errors: u64,
    /// Records due and never sent.
    pub unsent: u64,
    /// Records due in the window.
    pub window_due: u64,
    /// ... that were sent by its end.
    pub window_sent: u64,
    /// Records due in the window and acknowledged, whenever.
    pub window_acked: u64,
    /// Records whose acknowledgement came within the window.
    pub acked_within: u64,
    /// Their payload bytes.
    pub acked_within_bytes: u64,
}

impl Counts {
    /// Adds another worker's.
    pub fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.acked_bytes += other.acked_bytes;
        self.delivery_before_arrival += other.delivery_before_arrival;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.sampled_out += other.sampled_out;
        self.unknown += other.unknown;
        self.corrupted += other.corrupted;
        self.errors += other.errors;
        self.read_errors += other.read_errors;
        self.unsent += other.unsent;
        self.window_due += other.window_due;
        self.window_sent += other.window_sent;
        self.window_acked += other.window_acked;
        self.acked_within += other.acked_within;
        self.acked_within_bytes += other.acked_within_bytes;
    }
}

/// What one group read since the start of the run. Records count when they are read for the first time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reads {
    /// Records.
    pub consumed: u64,
    /// Their payload bytes.
    pub consumed_bytes: u64,
    /// Records due in the window, whenever they were read.
    pub window_consumed: u64,
    /// Records read within the window, whenever they were due.
    pub consumed_within: u64,
}

impl Reads {
    /// Adds another worker's.
    pub fn add(&mut self, other: &Reads) {
        self.consumed += other.consumed;
        self.consumed_bytes += other.consumed_bytes;
        self.window_consumed += other.window_consumed;
        self.consumed_within += other.consumed_within;
    }
}

/// What one worker measured since the last harvest (histograms) and since the start (the rest).
#[derive(Debug)]
pub struct Readings {
    /// The histograms, by class of the intended time; see [`crate::timeline::Times`].
    pub sets: Vec<Set>,
    /// What was read, by group.
    pub reads: Vec<Reads>,
    /// The counters.
    pub counts: Counts,
    /// Gaps between due times in the window, of the producers that are done.
    pub gaps: Gaps,
    /// The longest pauses in acknowledgements, of the producers that are done.
    pub pauses: Longest,
    /// The first failure, in words.
    pub first_error: Option<String>,
    /// The worker's thread, as far as its time can be read.
    pub thread: Option<Thread>,
}

impl Readings {
    /// Counts a failed request.
    pub fn failed(&mut self, why: impl FnOnce() -> String) {
        self.counts.errors += 1;
        self.first_error.get_or_insert_with(why);
    }
}

/// A worker's readings, shared with the controlling thread.
#[derive(Debug)]
pub struct Meter(Mutex<Readings>);

impl Meter {
    /// All zero, with so many sets of histograms, for so many groups.
    pub fn new(sets: usize, groups: usize) -> Result<Meter, CreationError> {
        Ok(Meter(Mutex::new(Readings {
            sets: (0..sets).map(|_| Set::new()).collect::<Result<_, _>>()?,
            reads: vec![Reads::default(); groups],
            counts: Counts::default(),
            gaps: Gaps::default(),
            pauses: Longest::new(),
            first_error: None,
            thread: None,
        })))
    }

    /// For writing. Once per batch, not per record.
    pub fn lock(&self) -> MutexGuard<'_, Readings> {
        // Counters are whole at any moment: a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the histograms out, leaving `sets` (as many, empty) in their place; adds what was read to `reads`
    /// (as many as groups).
    pub fn harvest(&self, sets: &mut Vec<Set>, reads: &mut [Reads]) -> (Counts, Option<String>) {
        let mut readings = self.lock();
        reads.iter_mut().zip(&readings.reads).for_each(|(sum, reads)| sum.add(reads));
        std::mem::swap(&mut readings.sets, sets);
        (readings.counts, readings.first_error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn merging_workers_keeps_the_slowest_where_a_mean_would_hide_it() {
        let (mut fast, mut slow) = (Set::new().unwrap(), Set::new().unwrap());
        record(&mut fast.response, 0, 1_000, 900);
        record(&mut slow.response, 0, 1_000_000, 100);
        fast.add(&slow);
        let d = fast.distributions().response;
        assert_eq!(d.count, 1000);
        assert_eq!((d.p50.round(), d.p90.round()), (1.0, 1.0));
        assert!((d.p99 - 1_000.0).abs() < 1.0, "{d:?}");
    }

    #[test]
    fn odd_times_are_counted_at_the_bounds_not_dropped() {
        let mut set = Set::new().unwrap();
        record(&mut set.visibility, 10, 5, 2);
        record(&mut set.visibility, 0, u64::MAX, 1);
        let d = set.distributions().visibility;
        assert_eq!((d.count, d.p50), (3, 0.0));
        assert!(d.max >= 3.6e9, "{d:?}");
    }

    #[test]
    fn a_harvest_leaves_empty_histograms_and_running_counters() {
        let meter = Meter::new(2, 1).unwrap();
        {
            let mut readings = meter.lock();
            readings.counts.acked = 5;
            record(&mut readings.sets[1].response, 15, 30, 5);
            record(&mut readings.sets[0].response, 20, 30, 1);
            readings.failed(|| "first".into());
            readings.failed(|| "second".into());
        }
        let mut sets = vec![Set::new().unwrap(), Set::new().unwrap()];
        let (counts, error) = meter.harvest(&mut sets, &mut []);
        assert_eq!((counts.acked, counts.errors), (5, 2));
        assert_eq!(error.as_deref(), Some("first"));
        assert_eq!((sets[1].response.len(), sets[0].response.len()), (5, 1));
        sets.iter_mut().for_each(Set::clear);
        meter.harvest(&mut sets, &mut []);
        assert!(sets.iter().all(|set| set.response.is_empty()));
    }

    proptest! {
        #[test]
        fn counting_runs_is_counting_each(
            mut from in prop::collection::vec(0u64..1 << 40, 0..200), to in 0u64..1 << 41, near: bool,
        ) {
            if near {
                from.iter_mut().for_each(|from| *from = to.saturating_sub(*from >> 25));
            }
            from.sort_unstable();
            let (mut runs, mut each) = (Set::new().unwrap(), Set::new().unwrap());
            record_each(&mut runs.response, &from, to);
            from.iter().for_each(|from| record(&mut each.response, *from, to, 1));
            let counts = |set: &Set| -> Vec<_> {
                let values = set.response.iter_recorded();
                values.map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
            };
            prop_assert_eq!(counts(&runs), counts(&each));
        }
    }
}
