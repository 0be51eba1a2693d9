//! How many records are due by now.
//!
//! Where due times are drawn at random, their expected number will not do: after an hour it is off by more
//! than a burst leaves waiting, and at one record in ten seconds the next may not be due for a minute. So
//! the schedules are followed, as the producers follow theirs.

use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::{Arrival, Rate};

/// Up to this many records per second the schedules are followed: a few milliseconds of each second. Beyond it
/// the expected number is as good: in 100 ms more fall due than it is off by in an hour.
const FOLLOWED: f64 = 300_000.0;

/// Follows a run's schedules.
#[derive(Debug, Default)]
pub struct Due {
    /// Those of the current part of the run, one per producer; none before it begins.
    schedules: Vec<Schedule>,
    measured: bool,
    count: u64,
}

impl Due {
    /// Records due before `ns`, never less than at the call before.
    pub fn by(&mut self, plan: &Plan, ns: u64) -> u64 {
        let Rate::PerSecond(rate) = plan.options.rate else { return 0 };
        let random = plan.options.arrival == Arrival::Poisson;
        if !random || plan.profile.mean_rate(rate) > FOLLOWED {
            self.count = self.count.max(plan.due_by(ns));
            return self.count;
        }
        let times = plan.times();
        let until = ns.min(times.end_ns);
        if !self.measured {
            if self.schedules.is_empty() {
                self.schedules = (0..plan.producers).filter_map(|p| plan.warm_up(p)).collect();
            }
            self.walk(until.min(times.window_ns));
        }
        if until > times.window_ns {
            if !std::mem::replace(&mut self.measured, true) {
                self.schedules = (0..plan.producers).filter_map(|p| plan.measured(p)).collect();
            }
            self.walk(until);
        }
        self.count
    }

    fn walk(&mut self, until_ns: u64) {
        for schedule in &mut self.schedules {
            while schedule.next_ns() < until_ns {
                schedule.advance();
                self.count += 1;
            }
        }
    }
}
