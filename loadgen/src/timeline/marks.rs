//! The times at which the parts of a run begin and end, where every thread reads them.
//!
//! [`Marks`] keep what the timeline decided; [`Times`] is one consistent look at them, and sorts records by
//! when they were due.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Step;
use crate::clock::nanos;
use crate::{LoadOptions, Phase, Profile, Scenario};

/// Index of the histograms of records due outside the measured window.
pub const OUTSIDE: usize = 0;
/// ... in the window, but for what the next two hold.
pub const CALM: usize = 1;
/// ... during a burst, or while a group is away.
pub const BUSY: usize = 2;
/// ... while the group that was away catches up.
pub const DRAINING: usize = 3;
/// ... of what the paused groups read, whenever it was due.
pub const PAUSED: usize = 4;

/// Bursts of an even rhythm: the first `on_ns` of every `every_ns`, from the window's start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// Length of a burst, in nanoseconds.
    pub on_ns: u64,
    /// From one burst's beginning to the next, in nanoseconds; more than 0.
    pub every_ns: u64,
}

impl Bursts {
    /// Those of a run, if its rate has any.
    pub fn of(options: &LoadOptions) -> Option<Bursts> {
        match &options.profile {
            Profile::Burst(burst) => {
                Some(Bursts { on_ns: nanos(burst.on), every_ns: nanos(burst.every).max(1) })
            }
            Profile::Flat | Profile::Trace(_) => None,
        }
    }

    /// Whether there is a burst `offset_ns` after the window's start.
    fn at(&self, offset_ns: u64) -> bool {
        offset_ns % self.every_ns < self.on_ns
    }
}

/// The times of a run in nanoseconds since 1970 UTC, as far as they are known; `u64::MAX` where not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The first record is due.
    pub start_ns: u64,
    /// The measured window begins.
    pub window_ns: u64,
    /// The paused groups go.
    pub away_ns: u64,
    /// They return.
    pub back_ns: u64,
    /// Nothing is due from here on.
    pub end_ns: u64,
    bursts: Option<Bursts>,
}

impl Times {
    /// The measured window, by intended time; empty as long as it is not known, or if the run ended before.
    pub fn window(&self) -> Range<u64> {
        self.window_ns..self.end_ns.max(self.window_ns)
    }

    /// Which histograms a record belongs to that was due at `intended_ns`: [`OUTSIDE`] to [`DRAINING`].
    pub fn class(&self, intended_ns: u64) -> usize {
        if intended_ns < self.window_ns || intended_ns >= self.end_ns {
            OUTSIDE
        } else if intended_ns >= self.back_ns {
            DRAINING
        } else if intended_ns >= self.away_ns
            || self.bursts.is_some_and(|b| b.at(intended_ns - self.window_ns))
        {
            BUSY
        } else {
            CALM
        }
    }

    /// Cuts due times, ascending, where the class changes.
    pub fn split<'a>(&self, due: &'a [u64]) -> impl Iterator<Item = (usize, &'a [u64])> + use<'a> {
        let (times, mut rest) = (*self, due);
        std::iter::from_fn(move || {
            let first = *rest.first()?;
            let until = times.same_until(first);
            let same = match rest.last() {
                Some(last) if *last < until => rest.len(),
                _ => rest.partition_point(|ns| *ns < until).max(1),
            };
            let (stretch, after) = rest.split_at(same);
            rest = after;
            Some((times.class(first), stretch))
        })
    }

    /// The first time after `ns` at which the class may change.
    fn same_until(&self, ns: u64) -> u64 {
        let marks = [self.window_ns, self.away_ns, self.back_ns, self.end_ns];
        let next = marks.into_iter().filter(|mark| *mark > ns).min().unwrap_or(u64::MAX);
        match self.bursts {
            Some(b) if ns >= self.window_ns => {
                let begun = ns - (ns - self.window_ns) % b.every_ns;
                let turn = if ns - begun < b.on_ns { b.on_ns } else { b.every_ns };
                next.min(begun.saturating_add(turn))
            }
            _ => next,
        }
    }

    /// Where the run is at `ns`.
    pub fn phase(&self, ns: u64) -> Phase {
        if ns >= self.end_ns {
            Phase::Drain
        } else if ns < self.window_ns {
            Phase::Warmup
        } else if ns >= self.back_ns {
            Phase::Catchup
        } else if ns >= self.away_ns {
            Phase::Outage
        } else {
            Phase::Measure
        }
    }

    /// Whether the paused groups are to be away at `ns`.
    pub fn away(&self, ns: u64) -> bool {
        (self.away_ns..self.back_ns).contains(&ns) && ns < self.end_ns
    }
}

/// The times of a run, shared by its threads. Each is set while it lies in the future (but for an early
/// end), so that nobody acts on one that has passed unseen.
#[derive(Debug)]
pub struct Marks {
    start_ns: AtomicU64,
    window_ns: AtomicU64,
    away_ns: AtomicU64,
    back_ns: AtomicU64,
    end_ns: AtomicU64,
    bursts: Option<Bursts>,
    classes: usize,
}

impl Marks {
    /// Nothing is known yet.
    pub fn new(options: &LoadOptions) -> Marks {
        let unknown = || AtomicU64::new(u64::MAX);
        let bursts = Bursts::of(options);
        let classes = match options.scenario {
            Scenario::Backlog { .. } => PAUSED + 1,
            _ if bursts.is_some() => BUSY + 1,
            _ => CALM + 1,
        };
        Marks {
            start_ns: unknown(),
            window_ns: unknown(),
            away_ns: unknown(),
            back_ns: unknown(),
            end_ns: unknown(),
            bursts,
            classes,
        }
    }

    /// Sets of histograms the run needs: one more than the largest class.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// All of them. Not one atomic act, and need not be: each is set once, before it comes to pass.
    pub fn times(&self) -> Times {
        // The end first: a window that is seen open then has no end from before it opened.
        let end_ns = self.end_ns.load(Ordering::Acquire);
        Times {
            start_ns: self.start_ns.load(Ordering::Acquire),
            window_ns: self.window_ns.load(Ordering::Acquire),
            away_ns: self.away_ns.load(Ordering::Acquire),
            back_ns: self.back_ns.load(Ordering::Acquire),
            end_ns,
            bursts: self.bursts,
        }
    }

    /// Sets when the first record is due.
    pub fn begin(&self, start_ns: u64) {
        self.start_ns.store(start_ns, Ordering::Release);
    }

    /// Ends production at `end_ns`, if it would not end sooner.
    pub fn cut(&self, end_ns: u64) {
        self.end_ns.fetch_min(end_ns, Ordering::AcqRel);
    }

    /// Carries out a decision.
    pub fn set(&self, step: Step) {
        match step {
            Step::Open { window_ns, outage } => {
                if let Some(outage) = outage {
                    self.away_ns.store(outage.start, Ordering::Release);
                    self.back_ns.store(outage.end, Ordering::Release);
                }
                self.window_ns.store(window_ns, Ordering::Release);
            }
            Step::Cut { end_ns } => self.cut(end_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times(bursts: Option<Bursts>) -> Times {
        Times { start_ns: 100, window_ns: 200, away_ns: 300, back_ns: 400, end_ns: 500, bursts }
    }

    #[test]
    fn phases_and_classes_change_exactly_at_their_times() {
        let times = times(None);
        let table = [
            (0, Phase::Warmup, OUTSIDE),
            (199, Phase::Warmup, OUTSIDE),
            (200, Phase::Measure, CALM),
            (299, Phase::Measure, CALM),
            (300, Phase::Outage, BUSY),
            (399, Phase::Outage, BUSY),
            (400, Phase::Catchup, DRAINING),
            (499, Phase::Catchup, DRAINING),
            (500, Phase::Drain, OUTSIDE),
        ];
        for (ns, phase, class) in table {
            assert_eq!((times.phase(ns), times.class(ns)), (phase, class), "at {ns}");
            assert_eq!(times.away(ns), phase == Phase::Outage, "at {ns}");
        }
        assert_eq!(times.window(), 200..500);
    }

    #[test]
    fn bursts_are_the_first_part_of_each_period_of_the_window() {
        let never = u64::MAX;
        let bursts = Some(Bursts { on_ns: 10, every_ns: 40 });
        let times = Times { away_ns: never, back_ns: never, ..times(bursts) };
        for (ns, class) in [(199, OUTSIDE), (200, BUSY), (209, BUSY), (210, CALM), (240, BUSY)] {
            assert_eq!(times.class(ns), class, "at {ns}");
        }
    }

    proptest! {
        #[test]
        fn cutting_is_classing_each(
            mut due in prop::collection::vec(50u64..550, 0..60), on in 1u64..60, every in 60u64..200, some: bool,
        ) {
            due.sort_unstable();
            let times = times(some.then_some(Bursts { on_ns: on, every_ns: every }));
            let cut: Vec<_> = times
                .split(&due)
                .flat_map(|(class, stretch)| stretch.iter().map(move |ns| (class, *ns)))
                .collect();
            let each: Vec<_> = due.iter().map(|ns| (times.class(*ns), *ns)).collect();
            prop_assert_eq!(cut, each);
        }
    }

    #[test]
    fn nothing_is_in_a_window_that_is_not_known_or_was_never_reached() {
        let marks = Marks::new(&LoadOptions::default());
        marks.begin(100);
        let times = marks.times();
        assert!(times.window().is_empty());
        assert_eq!((times.class(150), times.phase(150)), (OUTSIDE, Phase::Warmup));
        marks.cut(160);
        let times = marks.times();
        assert!(times.window().is_empty());
        assert_eq!((times.class(170), times.phase(170)), (OUTSIDE, Phase::Drain));
        // A later end does not undo a cut.
        marks.cut(900);
        assert_eq!(marks.times().end_ns, 160);
    }
}
