//! When the parts of a run begin and end: warm-up, measured window, outage, catch-up.
//!
//! [`Timeline`] decides, a pure state machine that is told the time and what can be seen; [`Marks`] keep its
//! decisions.

mod marks;

use std::ops::Range;
use std::time::Duration;

use crate::clock::nanos;
use crate::{LoadOptions, Scenario, WarmUpRule};

pub use marks::{BUSY, Bursts, CALM, DRAINING, Marks, OUTSIDE, PAUSED, Times};

/// A decision of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The measured window begins at this time; the paused groups are away for this time.
    Open {
        /// Nanoseconds since 1970 UTC, in the future.
        window_ns: u64,
        /// The same.
        outage: Option<Range<u64>>,
    },
    /// Nothing is due from this time on.
    Cut {
        /// Nanoseconds since 1970 UTC.
        end_ns: u64,
    },
}

/// What can be seen of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The time, nanoseconds since 1970 UTC.
    pub now_ns: u64,
    /// The steady-state test is content.
    pub steady: bool,
    /// The paused groups have read (nearly) everything.
    pub caught_up: bool,
}

/// What a run's timeline is to be, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How the warm-up ends.
    pub warmup: WarmUpRule,
    /// Measured before a group goes away, or in all.
    pub duration: Duration,
    /// How long the group is away, and how long its return is waited for.
    pub outage: Option<(Duration, Duration)>,
    /// How far ahead of the window's start, or of an end, it is set.
    pub lead: Duration,
}

impl Rules {
    /// Those of `options`; whoever acts on the window's start needs `lead` to do so.
    pub fn of(options: &LoadOptions, lead: Duration) -> Rules {
        let outage = match options.scenario {
            Scenario::Backlog { outage, drain_limit, .. } => Some((outage, drain_limit)),
            Scenario::Run | Scenario::Burst => None,
        };
        Rules { warmup: options.warmup, duration: options.duration, outage, lead }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Warming,
    /// The window is set, and its end too if it has one by the clock.
    Open,
    /// Producing until the paused groups have caught up.
    Awaiting {
        back_ns: u64,
    },
    Over,
}

/// Decides when the phases of a run begin and end. See the module.
#[derive(Clone, Debug)]
pub struct Timeline {
    rules: Rules,
    start_ns: u64,
    window_ns: Option<u64>,
    steady: Option<bool>,
    caught_up_ns: Option<u64>,
    state: State,
}

impl Timeline {
    /// For a run whose first record is due at `start_ns`.
    pub fn new(rules: Rules, start_ns: u64) -> Timeline {
        Timeline {
            rules,
            start_ns,
            window_ns: None,
            steady: None,
            caught_up_ns: None,
            state: State::Warming,
        }
    }

    /// The next decision, if one is due. Ask until there is none.
    pub fn step(&mut self, view: View) -> Option<Step> {
        match self.state {
            State::Warming => self.open(view),
            State::Open => {
                let window_ns = self.window_ns?;
                let away_ns = window_ns.saturating_add(nanos(self.rules.duration));
                match self.rules.outage {
                    None => {
                        self.state = State::Over;
                        Some(Step::Cut { end_ns: away_ns })
                    }
                    Some((outage, _)) => {
                        let back_ns = away_ns.saturating_add(nanos(outage));
                        self.state = State::Awaiting { back_ns };
                        None
                    }
                }
            }
            State::Awaiting { back_ns } => {
                let limit = self.rules.outage.map_or(0, |(_, limit)| nanos(limit));
                if view.now_ns < back_ns {
                    return None;
                }
                if view.caught_up {
                    self.caught_up_ns = Some(view.now_ns);
                } else if view.now_ns < back_ns.saturating_add(limit) {
                    return None;
                }
                self.state = State::Over;
                // No record beyond the end is dealt yet.
                Some(Step::Cut { end_ns: view.now_ns.saturating_add(nanos(self.rules.lead)) })
            }
            State::Over => None,
        }
    }

    fn open(&mut self, view: View) -> Option<Step> {
        let lead_ns = nanos(self.rules.lead);
        let window_ns = match self.rules.warmup {
            WarmUpRule::Fixed(time) => self.start_ns.saturating_add(nanos(time)),
            WarmUpRule::Steady { most } => {
                let latest = self.start_ns.saturating_add(nanos(most));
                let soonest = view.now_ns.saturating_add(lead_ns);
                if !view.steady && soonest < latest {
                    return None;
                }
                self.steady = Some(view.steady);
                // A bound that has passed while nobody looked is no reason to begin in the past.
                soonest.max(self.start_ns)
            }
        };
        self.window_ns = Some(window_ns);
        self.state = State::Open;
        let outage = self.rules.outage.map(|(outage, _)| {
            let away_ns = window_ns.saturating_add(nanos(self.rules.duration));
            away_ns..away_ns.saturating_add(nanos(outage))
        });
        Some(Step::Open { window_ns, outage })
    }

    /// The run is to end now: there is nothing more to decide.
    pub fn stop(&mut self, now_ns: u64) -> Step {
        self.state = State::Over;
        Step::Cut { end_ns: now_ns }
    }

    /// When something is to be decided by the clock alone; `None` if nothing is.
    pub fn due_ns(&self) -> Option<u64> {
        match (self.state, self.rules.warmup) {
            (State::Warming, WarmUpRule::Steady { most }) => {
                let lead_ns = nanos(self.rules.lead);
                Some(self.start_ns.saturating_add(nanos(most)).saturating_sub(lead_ns))
            }
            (State::Awaiting { back_ns }, _) => Some(back_ns),
            _ => None,
        }
    }

    /// Whether it was the steady-state test that opened the window; `None` if it was not asked, or has not
    /// been answered.
    pub fn steady(&self) -> Option<bool> {
        self.steady
    }

    /// When the paused groups had caught up.
    pub fn caught_up_ns(&self) -> Option<u64> {
        self.caught_up_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: Duration = Duration::from_nanos(5);

    fn rules(warmup: WarmUpRule, outage: Option<(u64, u64)>) -> Rules {
        let ns = Duration::from_nanos;
        Rules {
            warmup,
            duration: ns(100),
            outage: outage.map(|(outage, limit)| (ns(outage), ns(limit))),
            lead: LEAD,
        }
    }

    fn fixed(ns: u64) -> WarmUpRule {
        WarmUpRule::Fixed(Duration::from_nanos(ns))
    }

    fn steady(ns: u64) -> WarmUpRule {
        WarmUpRule::Steady { most: Duration::from_nanos(ns) }
    }

    /// Every decision, and when it was taken, over views `(now, steady, caught up)`.
    fn told(rules: Rules, views: &[(u64, bool, bool)]) -> (Vec<(u64, Step)>, Timeline) {
        let mut timeline = Timeline::new(rules, 1_000);
        let mut steps = Vec::new();
        for &(now_ns, steady, caught_up) in views {
            // An opening is followed by more that is due at once.
            for _ in 0..3 {
                let step = timeline.step(View { now_ns, steady, caught_up });
                steps.extend(step.map(|step| (now_ns, step)));
            }
        }
        (steps, timeline)
    }

    fn open(window_ns: u64) -> Step {
        Step::Open { window_ns, outage: None }
    }

    fn cut(end_ns: u64) -> Step {
        Step::Cut { end_ns }
    }

    #[test]
    fn a_fixed_warm_up_is_decided_before_it_begins() {
        let (steps, timeline) = told(rules(fixed(30), None), &[(990, false, false)]);
        assert_eq!(steps, [(990, open(1_030)), (990, cut(1_130))]);
        assert_eq!((timeline.steady(), timeline.due_ns()), (None, None));
    }

    #[test]
    fn a_steady_run_is_measured_from_a_little_later_on() {
        let views = [(1_000, false, false), (1_020, true, false), (1_040, true, false)];
        let (steps, timeline) = told(rules(steady(500), None), &views);
        assert_eq!(steps, [(1_020, open(1_025)), (1_020, cut(1_125))]);
        assert_eq!(timeline.steady(), Some(true));
    }

    #[test]
    fn a_run_that_never_becomes_steady_is_measured_at_the_bound_and_says_so() {
        let rules = rules(steady(50), None);
        assert_eq!(Timeline::new(rules, 1_000).due_ns(), Some(1_045));
        let views = [(1_044, false, false), (1_045, false, false)];
        let (steps, timeline) = told(rules, &views);
        assert_eq!(steps, [(1_045, open(1_050)), (1_045, cut(1_150))]);
        assert_eq!(timeline.steady(), Some(false));
        // Looked at too late: later, not in the past.
        let (steps, _) = told(rules, &[(2_000, false, false)]);
        assert_eq!(steps.first(), Some(&(2_000, open(2_005))));
    }

    #[test]
    fn an_outage_ends_with_the_catch_up_or_at_its_limit() {
        let window = || Step::Open { window_ns: 1_010, outage: Some(1_110..1_140) };
        let rules = rules(fixed(10), Some((30, 60)));
        let before = [(990, false, true), (1_100, false, true), (1_139, false, true)];
        let (steps, timeline) = told(rules, &before);
        // Having everything means nothing before the group has been away.
        assert_eq!(steps, [(990, window())]);
        assert_eq!(timeline.due_ns(), Some(1_140));
        let caught = [&before[..], &[(1_150, false, false), (1_180, false, true)]].concat();
        let (steps, timeline) = told(rules, &caught);
        assert_eq!(steps, [(990, window()), (1_180, cut(1_185))]);
        assert_eq!(timeline.caught_up_ns(), Some(1_180));
        let never = [&before[..], &[(1_199, false, false), (1_200, false, false)]].concat();
        let (steps, timeline) = told(rules, &never);
        assert_eq!(steps, [(990, window()), (1_200, cut(1_205))]);
        assert_eq!(timeline.caught_up_ns(), None);
    }

    #[test]
    fn after_a_stop_nothing_is_decided() {
        let (_, mut timeline) = told(rules(steady(50), None), &[]);
        assert_eq!(timeline.stop(1_010), cut(1_010));
        assert_eq!(timeline.step(View { now_ns: 5_000, steady: true, caught_up: true }), None);
    }
}
