//! When records are due: pure arithmetic, exact over any length of run.
//!
//! A run's records are split over *lanes* (one producer's records for one shard). The k-th record of a
//! constant run is due at `start + k / rate`, computed for each k in 128-bit integers, so that no error
//! gathers; lane i of n takes every n-th of them, beginning with the i-th. A Poisson run gives each lane a
//! Poisson stream of its own at 1/n of the rate: together they are one of the whole rate.

use crate::Arrival;

/// Due times of one lane, in order, in nanoseconds on the clock of `start_ns`.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    kind: Kind,
    next_ns: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    /// `k` is the number of the next record in the whole run.
    Constant { k: u128, lanes: u128, nano_rate: u128 },
    /// `offset_ns` as a float keeps fractions: whole nanoseconds stay exact for the first 104 days.
    Poisson { offset_ns: f64, mean_ns: f64, random: fastrand::Rng },
}

/// Nanoseconds per second, times the 10⁹ by which rates are kept as integers.
const NANOS_TIMES_NANO: u128 = 1_000_000_000_000_000_000;

impl Schedule {
    /// Due times of lane `lane` of `lanes`, at `rate` records per second over all lanes, from `start_ns`
    /// on. `rate` is kept in whole nanorecords per second, at least 1.
    pub fn new(
        arrival: Arrival,
        rate: f64,
        lane: usize,
        lanes: usize,
        start_ns: u64,
        seed: u64,
    ) -> Schedule {
        let lanes = lanes.max(1);
        let kind = match arrival {
            Arrival::Constant => Kind::Constant {
                k: lane as u128,
                lanes: lanes as u128,
                nano_rate: ((rate * 1e9).round() as u128).max(1),
            },
            Arrival::Poisson => Kind::Poisson {
                offset_ns: 0.0,
                mean_ns: 1e9 * lanes as f64 / rate.max(1e-9),
                random: fastrand::Rng::with_seed(mix(seed, lane as u64)),
            },
        };
        let mut schedule = Schedule { start_ns, kind, next_ns: start_ns };
        if let Kind::Poisson { .. } = schedule.kind {
            // The first arrival is one gap after the start, like all others.
            schedule.advance();
        } else {
            schedule.place();
        }
        schedule
    }

    /// When the next record is due.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Goes on to the record after.
    pub fn advance(&mut self) {
        match &mut self.kind {
            Kind::Constant { k, lanes, .. } => *k += *lanes,
            Kind::Poisson { offset_ns, mean_ns, random } => {
                // 1 - u is in (0, 1], so the logarithm is finite.
                *offset_ns -= (1.0 - random.f64()).ln() * *mean_ns;
            }
        }
        self.place();
    }

    /// Records due from now on and before `end_ns`: exact for constant arrivals, expected for Poisson.
    pub fn due_before(&self, end_ns: u64) -> u64 {
        if self.next_ns >= end_ns {
            return 0;
        }
        match &self.kind {
            Kind::Constant { k, lanes, nano_rate } => {
                // The first of the run's records that is not due before the end.
                let beyond = (u128::from(end_ns - self.start_ns) * nano_rate)
                    .div_ceil(NANOS_TIMES_NANO)
                    .max(*k);
                u64::try_from((beyond - k).div_ceil(*lanes)).unwrap_or(u64::MAX)
            }
            Kind::Poisson { mean_ns, .. } => 1 + ((end_ns - self.next_ns) as f64 / mean_ns) as u64,
        }
    }

    fn place(&mut self) {
        let offset = match &self.kind {
            Kind::Constant { k, nano_rate, .. } => {
                let exact = k.saturating_mul(NANOS_TIMES_NANO) / nano_rate;
                u64::try_from(exact).unwrap_or(u64::MAX)
            }
            Kind::Poisson { offset_ns, .. } => *offset_ns as u64,
        };
        self.next_ns = self.start_ns.saturating_add(offset);
    }
}

/// A seed for part `index` of something seeded with `seed`: neighbours have nothing in common.
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    // The finaliser of SplitMix64.
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All due times of all lanes, `each` per lane, in order.
    fn merged(arrival: Arrival, rate: f64, lanes: usize, each: usize, seed: u64) -> Vec<u64> {
        let mut all = Vec::new();
        for lane in 0..lanes {
            let mut schedule = Schedule::new(arrival, rate, lane, lanes, 1_000, seed);
            for _ in 0..each {
                all.push(schedule.next_ns() - 1_000);
                schedule.advance();
            }
        }
        all.sort_unstable();
        all
    }

    /// Mean of the gaps in nanoseconds, and their squared coefficient of variation.
    fn gaps(due: &[u64]) -> (f64, f64) {
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance / (mean * mean))
    }

    #[test]
    fn the_kth_due_time_is_exact_where_an_interval_in_whole_nanoseconds_drifts() {
        // 7 M/s: an interval rounded to 143 ns is off by 0.1 %, a second in a quarter of an hour.
        let mut schedule = Schedule::new(Arrival::Constant, 7e6, 0, 1, 0, 0);
        if let Kind::Constant { k, .. } = &mut schedule.kind {
            *k = 7_000_000 * 86_400 - 1;
        }
        schedule.advance();
        assert_eq!(schedule.next_ns(), 86_400 * 1_000_000_000);
    }

    #[test]
    fn lanes_of_a_constant_run_interleave_to_the_one_exact_sequence() {
        let due = merged(Arrival::Constant, 30_000.0, 7, 100, 0);
        let exact: Vec<u64> = (0..700u64).map(|k| k * 100_000 / 3).collect();
        assert_eq!(due, exact);
    }

    #[test]
    fn poisson_lanes_add_up_to_a_poisson_stream_of_the_whole_rate() {
        for lanes in [1, 8] {
            let mut due = merged(Arrival::Poisson, 100_000.0, lanes, 1_000_000 / lanes, 42);
            // Lanes end at different times: judge only where all are still there.
            due.truncate(due.len() * 9 / 10);
            let (mean, c2) = gaps(&due);
            assert!((mean / 10_000.0 - 1.0).abs() < 0.01, "mean {mean} with {lanes} lanes");
            assert!((0.95..=1.05).contains(&c2), "c2 {c2} with {lanes} lanes");
        }
    }

    #[test]
    fn a_poisson_stream_is_its_seeds() {
        let with = |seed| merged(Arrival::Poisson, 1e3, 3, 50, seed);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    proptest! {
        #[test]
        fn constant_gaps_are_constant(rate in 1.0..5e6f64, lanes in 1usize..9) {
            let due = merged(Arrival::Constant, rate, lanes, 2_000, 0);
            let (mean, c2) = gaps(&due);
            prop_assert!((mean * rate / 1e9 - 1.0).abs() < 1e-3, "mean {}", mean);
            prop_assert!(c2 < 0.01, "c2 {}", c2);
            let n = due.len() as u64 - 1;
            let exact = n as f64 * 1e9 / rate;
            prop_assert!((due[n as usize] as f64 - exact).abs() <= 1.0 + exact * 1e-9);
        }

        #[test]
        fn what_is_left_is_counted_exactly(
            rate in 1.0..5e6f64, lanes in 1usize..5, lane in 0usize..5, done in 0u64..50, more in 0u64..500,
        ) {
            let mut schedule = Schedule::new(Arrival::Constant, rate, lane % lanes, lanes, 77, 0);
            (0..done).for_each(|_| schedule.advance());
            let mut walk = schedule.clone();
            (0..more).for_each(|_| walk.advance());
            prop_assert_eq!(schedule.due_before(walk.next_ns()), more);
            prop_assert_eq!(schedule.due_before(walk.next_ns() + 1), more + 1);
        }

        #[test]
        fn no_rate_or_position_overflows(rate in 1e-12..1e9f64, lane in 0usize..4096, poisson in any::<bool>()) {
            let arrival = if poisson { Arrival::Poisson } else { Arrival::Constant };
            let mut schedule = Schedule::new(arrival, rate, lane, 4096, u64::MAX / 2, 0);
            let mut last = 0;
            for _ in 0..10 {
                prop_assert!(schedule.next_ns() >= last);
                last = schedule.next_ns();
                schedule.advance();
            }
        }
    }
}
