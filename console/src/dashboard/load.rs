//! What a load generator tells while it runs, for the Load screen. Whoever runs the generator makes a [`LoadFeed`]'s
//! events out of what it reports; nothing here knows how it works.

use std::collections::VecDeque;

/// Ticks kept: an hour at one a second.
const MAX_TICKS: usize = 3_600;
/// Trials of a search kept.
const MAX_TRIALS: usize = 1_024;

/// Phases, by the generator's names.
const WARMUP: &str = "warmup";
const DRAIN: &str = "drain";

/// A distribution in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// How many values.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// A second of a run. Rates are of that second, counters from the first record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tick {
    /// `warmup`, `measure`, `drain`, …
    pub phase: String,
    /// Since the first due time, seconds.
    pub elapsed_s: f64,
    /// Since the measured window began, seconds; negative before, by how long the warm-up may last at most.
    pub measured_s: f64,
    /// Warm-up and measured window together, seconds; `None` if it has no end.
    pub total_s: Option<f64>,
    /// Records due a second by the schedule; `None` for a run that saturates.
    pub offered_per_s: Option<f64>,
    /// Records acknowledged a second.
    pub acked_per_s: f64,
    /// Payload bytes acknowledged a second.
    pub acked_bytes_per_s: f64,
    /// Records read a second.
    pub consumed_per_s: f64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records due and not yet sent.
    pub unsent: u64,
    /// Records acknowledged and not yet read.
    pub backlog: u64,
    /// Records refused for good.
    pub refused: u64,
    /// Failed requests.
    pub errors: u64,
    /// Intended send time to acknowledgement.
    pub response: Percentiles,
    /// Intended send time to reading.
    pub propagation: Percentiles,
    /// Intended send time to sending: the generator's own lateness.
    pub send_lag: Percentiles,
}

impl Tick {
    /// Seconds since the warm-up or the measured window began, whichever goes on, and how long that is; behind the window,
    /// since its end.
    pub fn of_phase(&self) -> (f64, Option<f64>) {
        let warmup = self.elapsed_s - self.measured_s;
        let window = self.total_s.map(|total| total - warmup);
        match self.phase.as_str() {
            WARMUP => (self.elapsed_s, Some(warmup)),
            DRAIN => ((self.measured_s - window.unwrap_or_default()).max(0.0), None),
            _ => (self.measured_s.max(0.0), window),
        }
    }

    /// Whether it is not known how long the warm-up takes: until rate and latency are steady.
    pub fn warms_up_openly(&self) -> bool {
        self.phase == WARMUP && self.total_s.is_none()
    }
}

/// What is run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// `run`, `search`, `burst`, …
    pub what: String,
    /// In a line: arrival process, rate, record size, shards.
    pub words: String,
    /// What the response's 99th percentile has to keep, microseconds.
    pub slo_us: Option<f64>,
    /// Lateness from which on the generator is not to be trusted, microseconds.
    pub lag_budget_us: Option<f64>,
    /// Of a search: time for everything, seconds.
    pub budget_s: Option<f64>,
}

/// What a search does just now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stage {
    /// Which trial, what for, at which rate; or that it is between two.
    pub words: String,
    /// Of the budget, seconds, when that was last counted; `None`: as before.
    pub left_s: Option<f64>,
}

/// The response curve a search has fitted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// Share of records allowed beyond the bound.
    pub allowed: f64,
    /// Records a second and the share beyond it, by ascending rate; empty before there is one.
    pub curve: Vec<(f64, f64)>,
}

/// A trial of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Records offered a second.
    pub rate: f64,
    /// Share of records over the SLO, 0 to 1.
    pub over: f64,
    /// 99th percentile of the response, microseconds.
    pub p99_us: f64,
    /// Whether the target kept the SLO and its backlog did not grow; `None` if the trial does not count.
    pub kept: Option<bool>,
}

/// What a search believes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Records a second.
    pub rate: f64,
    /// It lies in here with 95 %.
    pub interval: (f64, f64),
    /// The interval before the last trial.
    pub before: Option<(f64, f64)>,
    /// Records a second of the next trial.
    pub next: Option<f64>,
    /// Trials planned at most.
    pub planned: Option<u32>,
}

/// What happened to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadEvent {
    /// It begins, or another one does.
    Begins(Plan),
    /// A second passed.
    Tick(Tick),
    /// A search does something else.
    Stage(Stage),
    /// A search has another curve.
    Response(Response),
    /// A trial of a search ended.
    Trial(Trial),
    /// What the search believes now.
    Estimate(Estimate),
    /// It is over: the result in lines.
    #[cfg_attr(not(test), allow(dead_code, reason = "told by a run that stays on the screen"))]
    Ended(Vec<String>),
}

/// Everything known about the run.
#[derive(Clone, Debug, Default)]
pub struct LoadFeed {
    /// What is run.
    pub plan: Plan,
    /// The last seconds, oldest first.
    pub ticks: VecDeque<Tick>,
    /// The trials of a search, in their order.
    pub trials: Vec<Trial>,
    /// What the search believes.
    pub estimate: Option<Estimate>,
    /// What a search does now.
    pub stage: Option<Stage>,
    /// Its response curve.
    pub curve: Option<Response>,
    /// Seconds of ticks since `stage` last said what is left.
    pub since_s: f64,
    /// The result, once there is one.
    pub result: Option<Vec<String>>,
}

impl LoadFeed {
    /// Takes in what happened.
    pub fn take(&mut self, event: LoadEvent) {
        match event {
            LoadEvent::Begins(plan) => *self = LoadFeed { plan, ..LoadFeed::default() },
            LoadEvent::Stage(stage) => {
                let left_s = stage.left_s.or_else(|| self.stage.as_ref()?.left_s);
                if stage.left_s.is_some() {
                    self.since_s = 0.0;
                }
                self.stage = Some(Stage { left_s, ..stage });
            }
            LoadEvent::Response(curve) => self.curve = Some(curve),
            LoadEvent::Tick(tick) => {
                self.since_s += 1.0;
                if self.ticks.len() == MAX_TICKS {
                    self.ticks.pop_front();
                }
                self.ticks.push_back(tick);
            }
            LoadEvent::Trial(trial) if self.trials.len() < MAX_TRIALS => self.trials.push(trial),
            LoadEvent::Trial(_) => {}
            LoadEvent::Estimate(estimate) => self.estimate = Some(estimate),
            LoadEvent::Ended(lines) => self.result = Some(lines),
        }
    }

    /// What is left of a search's budget, seconds.
    pub fn left_s(&self) -> Option<f64> {
        let counted = self.stage.as_ref().and_then(|stage| stage.left_s).or(self.plan.budget_s)?;
        Some((counted - self.since_s).max(0.0))
    }

    /// The last `n` seconds, right-aligned: `n` values, `None` where there was no tick.
    pub fn series(&self, n: usize, of: impl Fn(&Tick) -> Option<f64>) -> Vec<Option<f64>> {
        let mut values = vec![None; n.saturating_sub(self.ticks.len())];
        values.extend(self.ticks.iter().skip(self.ticks.len().saturating_sub(n)).map(of));
        values
    }
}

impl From<&highwater_loadgen::Progress> for Tick {
    fn from(progress: &highwater_loadgen::Progress) -> Tick {
        let percentiles = |of: &highwater_loadgen::Distribution| Percentiles {
            count: of.count,
            p50: of.p50,
            p99: of.p99,
            p999: of.p999,
            max: of.max,
        };
        Tick {
            phase: format!("{:?}", progress.phase).to_lowercase(),
            elapsed_s: progress.elapsed_s,
            measured_s: progress.t_s,
            total_s: progress.total_s,
            offered_per_s: Some(progress.offered_per_s),
            acked_per_s: progress.acked_per_s,
            acked_bytes_per_s: progress.acked_bytes_per_s,
            consumed_per_s: progress.consumed_per_s,
            acked: progress.acked,
            unsent: progress.unsent,
            backlog: progress.backlog,
            refused: progress.refused,
            errors: progress.errors,
            response: percentiles(&progress.response),
            propagation: percentiles(&progress.propagation),
            send_lag: percentiles(&progress.send_lag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_keeps_the_last_hour() {
        let mut feed = LoadFeed::default();
        for second in 0..4_000u32 {
            let acked_per_s = f64::from(second);
            feed.take(LoadEvent::Tick(Tick { acked_per_s, ..Tick::default() }));
        }
        assert_eq!(feed.ticks.len(), MAX_TICKS);
        assert_eq!(feed.series(2, |t| Some(t.acked_per_s)), [Some(3_998.0), Some(3_999.0)]);
        feed.take(LoadEvent::Begins(Plan { what: "run".into(), ..Plan::default() }));
        assert_eq!(feed.series(2, |t| Some(t.acked_per_s)), [None, None]);
        feed.take(LoadEvent::Ended(vec!["done".into()]));
        assert!(feed.result.is_some());
    }

    /// The bar of the measured window counted the warm-up before it.
    #[test]
    fn each_phase_counts_its_own_time() {
        let tick = |phase: &str, elapsed_s, measured_s, total_s| Tick {
            phase: phase.to_owned(),
            elapsed_s,
            measured_s,
            total_s,
            ..Tick::default()
        };
        // A warm-up of 5 s and a window of 10 s.
        let table = [
            (tick("warmup", 2.0, -3.0, Some(15.0)), (2.0, Some(5.0))),
            (tick("warmup", 5.0, 0.0, Some(15.0)), (5.0, Some(5.0))),
            (tick("measure", 6.0, 1.0, Some(15.0)), (1.0, Some(10.0))),
            (tick("measure", 15.0, 10.0, Some(15.0)), (10.0, Some(10.0))),
            (tick("drain", 17.0, 12.0, Some(15.0)), (2.0, None)),
            (tick("outage", 9.0, 4.0, None), (4.0, None)),
        ];
        for (tick, expected) in table {
            assert_eq!(tick.of_phase(), expected, "{tick:?}");
        }
        let open = tick("warmup", 2.0, -28.0, None);
        assert_eq!(open.of_phase(), (2.0, Some(30.0)));
        assert!(open.warms_up_openly() && !tick("measure", 9.0, 4.0, None).warms_up_openly());
        // The generator's own names.
        for (phase, name) in
            [(highwater_loadgen::Phase::Warmup, WARMUP), (highwater_loadgen::Phase::Drain, DRAIN)]
        {
            assert_eq!(format!("{phase:?}").to_lowercase(), name);
        }
    }

    #[test]
    fn what_is_left_of_a_budget_goes_down_between_trials_too() {
        let mut feed = LoadFeed::default();
        assert_eq!(feed.left_s(), None);
        feed.take(LoadEvent::Begins(Plan { budget_s: Some(60.0), ..Plan::default() }));
        let stage = |left_s| LoadEvent::Stage(Stage { words: String::new(), left_s });
        feed.take(stage(None));
        feed.take(LoadEvent::Tick(Tick::default()));
        assert_eq!(feed.left_s(), Some(59.0));
        feed.take(stage(Some(40.0)));
        feed.take(stage(None));
        feed.take(LoadEvent::Tick(Tick::default()));
        assert_eq!(feed.left_s(), Some(39.0));
    }
}
