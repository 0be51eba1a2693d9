//! Copies a core's figures to where the telemetry thread finds them, once a second, or less often where that costs
//! too much.

use std::cell::Cell;
use std::sync::Arc;

use crate::clock::{Clock, thread_cpu_ns};
use crate::core_state::CoreState;
use crate::telemetry::{EVERY, Handed};

/// A copy, and what it cost to serve the last one, may take this share of the time to the next: 0.04 %. A core and
/// the telemetry thread together then stay below a thousandth, with room for what is not counted: the kernel's part
/// of sending.
const COST: u64 = 2_500;

/// However much it costs, nanoseconds.
const AT_LEAST_EVERY: u64 = 10_000_000_000;

/// The wall clock has jumped if it went this much more or less than the monotonic one, nanoseconds.
const JUMP: u64 = 10_000_000;

/// Keeps what figures cost within their share of the time.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    not_before: Cell<u64>,
}

impl Pace {
    /// Whether it is time again.
    pub fn due(&self, now_ns: u64) -> bool {
        now_ns >= self.not_before.get()
    }

    /// When it is time again.
    pub fn not_before(&self) -> u64 {
        self.not_before.get()
    }

    /// What the last time has cost in CPU time.
    pub fn spent(&self, now_ns: u64, cost_ns: u64) {
        self.not_before.set(now_ns + cost_ns.saturating_mul(COST).min(AT_LEAST_EVERY));
    }
}

/// Publishes the figures of one core.
pub(crate) struct Publisher {
    cpu: usize,
    report: Arc<Handed>,
    pace: Pace,
    /// What snapshots had cost when the pace was last set.
    counted_ns: Cell<u64>,
    watch: ClockWatch,
}

impl Publisher {
    pub fn new(cpu: usize, report: Arc<Handed>) -> Publisher {
        Publisher {
            cpu,
            report,
            pace: Pace::default(),
            counted_ns: Cell::default(),
            watch: ClockWatch::default(),
        }
    }

    /// Copies the figures, unless the last time is too short ago for what it cost, or they would be copied again
    /// before anybody takes them.
    pub fn publish_in_turn(&self, core: &CoreState) {
        let now_ns = core.clock.mono_ns();
        let next_ns = now_ns + (EVERY + EVERY / 4).as_nanos() as u64;
        if self.pace.due(now_ns) && self.report.wanted_at() <= next_ns {
            self.publish(core);
        }
    }

    /// Copies the figures.
    pub fn publish(&self, core: &CoreState) {
        core.figures.charged(|| self.copy(core));
        // With what it cost to serve the last one.
        let cost_ns = core.figures.snapshot_ns();
        self.pace.spent(core.clock.mono_ns(), cost_ns - self.counted_ns.replace(cost_ns));
    }

    fn copy(&self, core: &CoreState) {
        self.watch.look(&core.clock);
        let now = core.clock.now();
        // In place of one that nobody has taken it has to tell everything.
        let mut report = core.engine.borrow_mut().report(now, !self.report.is_taken());
        let figures = &mut report.core;
        core.figures.copy(figures);
        figures.core = core.index as u32;
        figures.cpu = self.cpu as u32;
        figures.busy_ns = thread_cpu_ns();
        figures.connections = core.connections.borrow().len() as u32;
        figures.receive_used = core.receive_budget.used() as u64;
        figures.queued = core.queued.bytes() as u64;
        figures.clock_jumps = self.watch.jumps.get();
        self.report.put(report);
    }
}

/// Looks for jumps of the wall clock.
#[derive(Debug, Default)]
struct ClockWatch {
    /// Wall clock less monotonic clock, when last looked at.
    offset: Cell<Option<u64>>,
    jumps: Cell<u64>,
}

impl ClockWatch {
    fn look(&self, clock: &Clock) {
        let (before, after) = (clock.now(), clock.now());
        self.compare(before.mono_ns, before.wall_ns, after.mono_ns);
    }

    /// The wall clock was read between two readings of the monotonic one.
    fn compare(&self, before_ns: u64, wall_ns: u64, after_ns: u64) {
        // The thread may have been set aside in between: then there is nothing to compare.
        if after_ns - before_ns > JUMP / 10 {
            return;
        }
        let offset = wall_ns.wrapping_sub(before_ns);
        if self.offset.replace(Some(offset)).is_some_and(|last| last.abs_diff(offset) > JUMP) {
            self.jumps.set(self.jumps.get() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_more_comes_less_often() {
        let pace = Pace::default();
        assert!(pace.due(0));
        pace.spent(5, 1_000);
        assert!(!pace.due(2_500_004) && pace.due(2_500_005));
        pace.spent(0, u64::MAX);
        assert!(!pace.due(AT_LEAST_EVERY - 1) && pace.due(AT_LEAST_EVERY));
    }

    #[test]
    fn a_wall_clock_that_jumps_is_noticed_and_one_that_drifts_is_not() {
        let watch = ClockWatch::default();
        let (second, wall) = (1_000_000_000, 1_760_000_000_000_000_000);
        let look = |at: u64, off: u64| watch.compare(at, wall + at + off, at + 50);
        look(0, 0);
        look(second, 500_000);
        look(2 * second, 1_000_000);
        assert_eq!(watch.jumps.get(), 0);
        look(3 * second, 61_000_000);
        look(4 * second, 61_000_000);
        assert_eq!(watch.jumps.get(), 1);
        look(5 * second, 0);
        assert_eq!(watch.jumps.get(), 2);
        // Set aside between the readings.
        watch.compare(6 * second, wall + 7 * second, 7 * second);
        assert_eq!(watch.jumps.get(), 2);
    }
}
