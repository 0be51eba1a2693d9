//! When records are due: pure arithmetic, exact over any length of run.
//!
//! A run's rate is a [`Profile`] over time: constant, with bursts, or as a trace says. The k-th record of
//! the run is due when the profile's integral reaches k records, in whole nanoseconds rounded down; it is
//! computed from integers alone, so that no error gathers. Producer `part` of `parts` has every `parts`-th
//! record, beginning with number `part`. With Poisson arrivals each producer has a Poisson stream of its
//! own at its share of the rate: together they are one of the whole rate.
//!
//! One division per step of the profile, none per record: a record costs a few additions.

mod course;
mod moments;
mod profile;
mod trace;

use std::sync::Arc;

use crate::Arrival;
use course::{Course, RECORD};
pub use moments::Gaps;
pub use profile::{Burst, PreparedProfile, Profile, ScheduleError, TraceSpec};

/// Due times of one producer, in order, in nanoseconds on the clock of `start_ns`.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    next_ns: u64,
    parts: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Even(Even),
    Poisson(Poisson),
    /// Due times from the start on, and which is next.
    Times {
        times: Arc<[u64]>,
        index: usize,
    },
}

impl Schedule {
    /// Due times of producer `part` of `parts`, from `start_ns` on. `rate` is the profile's base in
    /// records per second over all producers; a trace brings its own. It is kept in whole
    /// nanorecords per second, at least 1 and at most 9 × 10¹⁸.
    pub fn new(
        arrival: Arrival,
        profile: &PreparedProfile,
        rate: f64,
        part: usize,
        parts: usize,
        start_ns: u64,
        seed: u64,
    ) -> Schedule {
        let parts = parts.max(1) as u64;
        let kind = match profile.times() {
            Some(times) => Kind::Times { times, index: part },
            None => {
                let course = Course::new(profile.steps(rate), start_ns);
                match arrival {
                    Arrival::Constant => Kind::Even(Even::new(course)),
                    Arrival::Poisson => {
                        let random = fastrand::Rng::with_seed(mix(seed, part as u64));
                        Kind::Poisson(Poisson::new(course, random))
                    }
                }
            }
        };
        let mut schedule = Schedule { start_ns, next_ns: start_ns, parts, kind };
        schedule.next_ns = match &mut schedule.kind {
            Kind::Even(even) => even.first(part as u128 * RECORD, parts),
            Kind::Poisson(poisson) => poisson.first(parts),
            Kind::Times { times, index } => due(start_ns, times, *index),
        };
        schedule
    }

    /// When the next record is due; `u64::MAX` if none ever is (a trace of times has ended).
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Goes on to the record after.
    #[inline]
    pub fn advance(&mut self) {
        self.next_ns = match &mut self.kind {
            Kind::Even(even) => even.after(self.next_ns, self.parts),
            Kind::Poisson(poisson) => poisson.after(self.next_ns, self.parts),
            Kind::Times { times, index } => {
                *index = index.saturating_add(self.parts as usize);
                due(self.start_ns, times, *index)
            }
        };
    }

    /// Records due from now on and before `end_ns`: exact, but for Poisson the expected number.
    pub fn due_before(&self, end_ns: u64) -> u64 {
        if self.next_ns >= end_ns {
            return 0;
        }
        let each = u128::from(self.parts) * RECORD;
        match &self.kind {
            Kind::Even(even) => {
                let left = even.course.units_until(end_ns)
                    - (even.course.units_until(self.next_ns) + u128::from(even.rest));
                u64::try_from(left.div_ceil(each)).unwrap_or(u64::MAX)
            }
            Kind::Poisson(poisson) => {
                let left =
                    poisson.course.units_until(end_ns) - poisson.course.units_until(self.next_ns);
                1 + u64::try_from(left / each).unwrap_or(u64::MAX - 1)
            }
            Kind::Times { times, index } => {
                let end = times.partition_point(|offset| *offset < end_ns - self.start_ns);
                end.saturating_sub(*index).div_ceil(self.parts as usize) as u64
            }
        }
    }
}

fn due(start_ns: u64, times: &[u64], index: usize) -> u64 {
    times.get(index).map_or(u64::MAX, |offset| start_ns.saturating_add(*offset))
}

/// Evenly spaced along the profile: within a step of the profile, the distance of two records is a
/// quotient and a remainder computed once.
#[derive(Clone, Debug)]
struct Even {
    /// What the next due time was rounded down by, in parts of `course.rate()` of a nanosecond.
    rest: u64,
    step_ns: u64,
    step_rest: u64,
    course: Course,
}

impl Even {
    fn new(course: Course) -> Even {
        Even { rest: 0, step_ns: 0, step_rest: 0, course }
    }

    /// The due time `units` after the start.
    fn first(&mut self, units: u128, parts: u64) -> u64 {
        self.seek(units, parts)
    }

    #[inline]
    fn after(&mut self, now_ns: u64, parts: u64) -> u64 {
        let before = self.rest;
        let mut next = now_ns.saturating_add(self.step_ns);
        // Neither is as large as the rate, and twice the rate fits.
        self.rest += self.step_rest;
        if self.rest >= self.course.rate() {
            self.rest -= self.course.rate();
            next = next.saturating_add(1);
        }
        if next < self.course.end_ns() {
            return next;
        }
        self.cross(now_ns, before, parts)
    }

    /// Out of the current step of the profile.
    #[cold]
    fn cross(&mut self, now_ns: u64, rest: u64, parts: u64) -> u64 {
        if now_ns == u64::MAX {
            return u64::MAX;
        }
        let into = u128::from(now_ns - self.course.begin_ns()) * u128::from(self.course.rate());
        let units = into + u128::from(rest) + u128::from(parts) * RECORD;
        self.seek(units, parts)
    }

    fn seek(&mut self, units: u128, parts: u64) -> u64 {
        let Some((next_ns, rest)) = self.course.seek(units) else {
            self.rest = 0;
            self.step_rest = 0;
            return u64::MAX;
        };
        let (each, rate) = (u128::from(parts) * RECORD, u128::from(self.course.rate()));
        self.rest = rest;
        self.step_ns = u64::try_from(each / rate).unwrap_or(u64::MAX);
        self.step_rest = (each % rate) as u64;
        next_ns
    }
}

/// A Poisson process of rate 1, stretched along the profile.
#[derive(Clone, Debug)]
struct Poisson {
    /// Of the next due time, what was rounded down.
    fraction: f64,
    /// Mean gap of one producer in the current step, nanoseconds.
    mean_ns: f64,
    random: fastrand::Rng,
    course: Course,
}

impl Poisson {
    fn new(course: Course, random: fastrand::Rng) -> Poisson {
        Poisson { fraction: 0.0, mean_ns: 0.0, random, course }
    }

    /// The first arrival is one gap after the start, like all others.
    fn first(&mut self, parts: u64) -> u64 {
        match self.course.seek(0) {
            Some((start_ns, _)) => {
                self.mean_ns = self.mean_of_step(parts);
                self.after(start_ns, parts)
            }
            None => u64::MAX,
        }
    }

    #[inline]
    fn after(&mut self, now_ns: u64, parts: u64) -> u64 {
        // 1 - u is in (0, 1], so the logarithm is finite.
        let gap = -(1.0 - self.random.f64()).ln();
        let ahead = self.fraction + gap * self.mean_ns;
        let whole = ahead as u64;
        let next = now_ns.saturating_add(whole);
        if next < self.course.end_ns() {
            self.fraction = ahead - whole as f64;
            return next;
        }
        self.cross(now_ns, ahead, parts)
    }

    /// Out of the current step: what is left of the gap is spent at the rate of those that follow.
    #[cold]
    fn cross(&mut self, now_ns: u64, ahead: f64, parts: u64) -> u64 {
        if now_ns == u64::MAX {
            return u64::MAX;
        }
        let over_ns = (ahead - (self.course.end_ns() - now_ns) as f64).max(0.0);
        let records = over_ns / self.mean_ns * parts as f64;
        match self.course.spend(records) {
            Some((next_ns, fraction)) => {
                self.fraction = fraction;
                self.mean_ns = self.mean_of_step(parts);
                next_ns
            }
            None => u64::MAX,
        }
    }

    fn mean_of_step(&self, parts: u64) -> f64 {
        RECORD as f64 * parts as f64 / self.course.rate() as f64
    }
}

/// A seed for part `index` of something seeded with `seed`: neighbours have nothing in common.
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    // The finaliser of SplitMix64.
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
