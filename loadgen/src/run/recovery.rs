//! How long a system takes to be itself again after a burst: a pure follower of one number.

use std::ops::Range;

use crate::timeline::Bursts;

/// A burst being followed.
#[derive(Clone, Copy, Debug)]
struct Burst {
    index: u64,
    end_ns: u64,
    /// What waited before it.
    before: u64,
    recovered: bool,
}

/// What the bursts of a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Bursts begun in the window.
    pub bursts: u64,
    /// The most that waited at any sample in the window.
    pub peak: u64,
    /// The longest time from a burst's end until no more waited than before it; `None` if some burst's
    /// remains were never gone before the next, or before the window's end, or none has ended.
    pub longest_ns: Option<u64>,
}

/// Follows how many records wait in the system (due and not acknowledged, or acknowledged and not read)
/// through the bursts of a run. Its resolution is the distance of the samples: a recovery is noticed at
/// most that much late.
#[derive(Clone, Debug)]
pub struct Recovery {
    bursts: Bursts,
    /// What waited last while nothing was left of a burst.
    calm: u64,
    current: Option<Burst>,
    failed: bool,
    so_far: Recovered,
}

impl Recovery {
    /// Through these bursts.
    pub fn new(bursts: Bursts) -> Recovery {
        Recovery { bursts, calm: 0, current: None, failed: false, so_far: Recovered::default() }
    }

    /// At `at_ns`, `waiting` records wait; up to `slack` more than before a burst are as good as before.
    /// `window` is the measured window as known by then.
    pub fn sample(&mut self, window: &Range<u64>, at_ns: u64, waiting: u64, slack: u64) {
        if at_ns < window.start {
            self.calm = waiting;
            return;
        }
        if at_ns >= window.end {
            return;
        }
        self.so_far.peak = self.so_far.peak.max(waiting);
        let Bursts { on_ns, every_ns } = self.bursts;
        let index = (at_ns - window.start) / every_ns;
        if self.current.is_none_or(|burst| burst.index < index) {
            self.failed |= self.current.is_some_and(|burst| !burst.recovered);
            let end_ns = window.start + index * every_ns + on_ns;
            let before = self.calm;
            self.current = Some(Burst { index, end_ns, before, recovered: false });
            self.so_far.bursts = index + 1;
        }
        let Some(burst) = self.current.as_mut().filter(|burst| at_ns >= burst.end_ns) else {
            return;
        };
        if !burst.recovered && waiting <= burst.before.saturating_add(slack) {
            burst.recovered = true;
            let took = at_ns - burst.end_ns;
            self.so_far.longest_ns = self.so_far.longest_ns.max(Some(took));
        }
        if burst.recovered {
            self.calm = waiting;
        }
    }

    /// At the end. A burst that the window's end cut off is not judged.
    pub fn finish(mut self, window: &Range<u64>) -> Recovered {
        let left = |burst: Burst| !burst.recovered && burst.end_ns < window.end;
        if self.failed || self.current.is_some_and(left) {
            self.so_far.longest_ns = None;
        }
        self.so_far
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bursts of 20 every 100, from 1,000 on; a window of 300; samples `(time, waiting)` with slack 2.
    fn followed(samples: &[(u64, u64)]) -> Recovered {
        let window = 1_000..1_300;
        let mut recovery = Recovery::new(Bursts { on_ns: 20, every_ns: 100 });
        for &(at, waiting) in samples {
            recovery.sample(&window, at, waiting, 2);
        }
        recovery.finish(&window)
    }

    fn found(bursts: u64, peak: u64, longest_ns: Option<u64>) -> Recovered {
        Recovered { bursts, peak, longest_ns }
    }

    #[test]
    fn the_slowest_recovery_counts() {
        let samples = [
            (990, 10),
            (1_010, 50),
            (1_020, 80),
            (1_030, 40),
            (1_040, 12), // back within the slack, 20 after the end
            (1_090, 9),
            (1_115, 60),
            (1_150, 11), // 30 after
            (1_205, 30),
            (1_225, 8),
        ];
        assert_eq!(followed(&samples), found(3, 80, Some(30)));
    }

    #[test]
    fn a_burst_that_is_not_digested_before_the_next_never_recovers() {
        let samples = [(990, 0), (1_010, 90), (1_090, 70), (1_110, 150), (1_150, 0), (1_250, 0)];
        assert_eq!(followed(&samples), found(3, 150, None));
        assert_eq!(followed(&[(990, 0), (1_050, 0), (1_150, 0), (1_290, 70)]), found(3, 70, None));
    }

    #[test]
    fn before_and_after_the_window_nothing_is_judged() {
        assert_eq!(followed(&[(500, 400), (990, 3), (1_300, 900), (1_400, 5)]), found(0, 0, None));
        // What waits during a burst is no sign of recovery.
        assert_eq!(followed(&[(990, 0), (1_010, 0)]), found(1, 0, None));
    }

    #[test]
    fn a_burst_cut_off_by_the_end_is_not_judged() {
        let window = 1_000..1_110;
        let mut recovery = Recovery::new(Bursts { on_ns: 20, every_ns: 100 });
        for (at, waiting) in [(990, 0), (1_030, 1), (1_105, 70)] {
            recovery.sample(&window, at, waiting, 2);
        }
        assert_eq!(recovery.finish(&window), found(2, 70, Some(10)));
    }
}
