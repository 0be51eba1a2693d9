//! One real trial of a search: watched second by second, ended when it is hopeless, and written down.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::controller::{Outcome, Step, growth};
use super::file::{Block, Goal, SearchSettings, TrialRecord};
use crate::run::void;
use crate::stats::BLOCK_S;
use crate::{Distribution, LoadOptions, Observer, Phase, Rate, Report, Stop, Tick, WarmUpRule};

/// A trial is ended once so many seconds of traffic wait: nothing more is to be learnt, and all of it has to be worked
/// off before the next.
const OVERRUN_S: f64 = 4.0;
/// But not before so many seconds were measured: fewer have no slope.
const LEAST_S: usize = 5;
/// A shorter interval, in seconds, says nothing about what a second can be like.
const WHOLE_S: f64 = 0.75;

/// What the run of a trial is asked to do.
pub fn options(load: &LoadOptions, step: &Step, number: u32) -> LoadOptions {
    let seconds = Duration::from_secs_f64;
    LoadOptions {
        rate: Rate::PerSecond(step.rate),
        duration: seconds(step.seconds),
        warmup: match step.until_steady {
            true => WarmUpRule::Steady { most: seconds(step.settle_s) },
            false => WarmUpRule::Fixed(seconds(step.settle_s)),
        },
        // Every trial has arrivals of its own: the same ones again would be one sample.
        seed: load.seed.wrapping_add(u64::from(number)) % (1 << 53),
        ..load.clone()
    }
}

/// Counts what is beyond the bounds while a trial goes on.
pub struct Gauge<'a> {
    goals: &'a [Goal],
    /// Nanoseconds, by goal.
    bounds: Vec<(String, u64)>,
    rate: f64,
    /// Times a record is read.
    groups: u64,
    seconds: Vec<Second>,
    /// Of the window, before its first second.
    early: Vec<(u64, u64)>,
    waits: Vec<(f64, f64)>,
    /// Records acknowledged per second: the slowest and the fastest second so far.
    delivered: Option<(f64, f64)>,
    /// Ends this trial.
    trial: Stop,
    /// Ends the search.
    search: &'a Stop,
    overrun: bool,
    also: &'a mut dyn Observer,
}

/// A second of the measured window.
#[derive(Clone, Debug, Default)]
struct Second {
    seconds: f64,
    due: f64,
    /// By goal: records over, and records seen.
    seen: Vec<(u64, u64)>,
}

impl<'a> Gauge<'a> {
    /// For a trial at `rate`; whoever raises `search` ends it.
    pub fn new(
        goals: &'a [Goal],
        rate: f64,
        groups: usize,
        search: &'a Stop,
        also: &'a mut dyn Observer,
    ) -> Gauge<'a> {
        let bound = |goal: &Goal| {
            let latency = goal.of.split('.').next().unwrap_or_default();
            (latency.to_owned(), (goal.bound_us * 1e3) as u64)
        };
        Gauge {
            goals,
            bounds: goals.iter().map(bound).collect(),
            rate,
            groups: groups.max(1) as u64,
            seconds: Vec::new(),
            early: Vec::new(),
            waits: Vec::new(),
            delivered: None,
            trial: Stop::new(),
            search,
            overrun: false,
            also,
        }
    }

    /// What ends the trial.
    pub fn stop(&self) -> Stop {
        self.trial.clone()
    }

    /// The trial as it is kept. `number`, `dir` and `spent_s` are the caller's.
    pub fn record(self, step: &Step, report: &Report) -> TrialRecord {
        let unread = self.seconds.iter().all(|second| second.due == 0.0);
        let backlog = growth(&self.waits, report.offered_rate).filter(|_| !unread);
        let mut record = TrialRecord {
            number: 0,
            stage: step.stage,
            dir: String::new(),
            started_ns: report.started_ns,
            rate: step.rate,
            void_reason: void(report, self.overrun),
            measured_s: report.duration_s,
            spent_s: 0.0,
            drain_s: 0.0,
            offered_rate: report.offered_rate,
            delivered_rate: report.records_per_s,
            bytes_per_s: report.bytes_per_s,
            blocks: self.blocks(report),
            measured_us: self.goals.iter().map(|goal| percentile(report, &goal.of)).collect(),
            backlog,
            response: report.latency_us.response,
            propagation: report.latency_us.propagation,
            generator_late_us: report.generator_late.p99_us,
            generator_busy: report.generator_busy,
            delivered_seconds: self.delivered,
            steal: report.steal,
            shard_skew: report.workload.shard_skew,
        };
        if record.void_reason.is_none() && record.blocks.is_empty() {
            record.void_reason = Some("nothing was measured".to_owned());
        }
        record
    }

    /// The seconds in stretches of [`BLOCK_S`], the last of them longer rather than short.
    fn blocks(&self, report: &Report) -> Vec<Block> {
        let due = (report.offered_rate * report.duration_s).round();
        let mut stretches: Vec<Second> = Vec::new();
        let mut left: f64 = self.seconds.iter().map(|second| second.seconds).sum();
        for second in &self.seconds {
            let full = |last: &Second| last.seconds >= BLOCK_S - 0.5 && left >= BLOCK_S / 2.0;
            if stretches.last().is_none_or(full) {
                let seen = vec![(0, 0); self.goals.len()];
                stretches.push(Second { seen, ..Second::default() });
            }
            if let Some(last) = stretches.last_mut() {
                last.seconds += second.seconds;
                last.due += second.due;
                add(&mut last.seen, &second.seen);
            }
            left -= second.seconds;
        }
        let ticked: f64 = stretches.iter().map(|stretch| stretch.due).sum();
        let scale = if ticked > 0.0 { due / ticked } else { 0.0 };
        let mut blocks: Vec<Block> = stretches
            .iter()
            .map(|stretch| Block {
                seconds: stretch.seconds,
                records: (stretch.due * scale).round() as u64,
                over: Vec::new(),
            })
            .collect();
        for (at, goal) in self.goals.iter().enumerate() {
            let times = if goal.of.starts_with("response") { 1 } else { self.times(&goal.of) };
            let seen: u64 = stretches.iter().map(|stretch| stretch.seen[at].1).sum();
            // Never answered, or never read: beyond any bound. They are the last ones.
            let mut missing = (due as u64).saturating_sub(seen / times);
            let mut over: Vec<u64> =
                stretches.iter().map(|stretch| stretch.seen[at].0.div_ceil(times)).collect();
            for (over, block) in over.iter_mut().zip(&blocks).rev() {
                *over = (*over).min(block.records);
                let more = missing.min(block.records - *over);
                *over += more;
                missing -= more;
            }
            for (block, over) in blocks.iter_mut().zip(over) {
                block.over.push(over);
            }
        }
        blocks.retain(|block| block.records > 0 && block.seconds > 0.0);
        blocks
    }

    /// How often a record counts in a distribution.
    fn times(&self, of: &str) -> u64 {
        let by_reader = ["propagation", "visibility", "delivery"];
        if by_reader.iter().any(|name| of.starts_with(name)) { self.groups } else { 1 }
    }
}

impl Observer for Gauge<'_> {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.also.tick(tick);
        let p = tick.progress;
        if self.search.level() > self.trial.level() {
            self.trial.request();
        }
        let seen = self.bounds.iter().map(|(name, bound_ns)| {
            let found = tick.histograms.iter().find(|(tag, _)| tag == name);
            found.map_or((0, 0), |(_, histogram)| beyond(histogram, *bound_ns))
        });
        let seen: Vec<(u64, u64)> = seen.collect();
        let waits = p.unanswered.unwrap_or_default() + p.backlog;
        let due = p.offered_per_s * p.interval_s;
        let second = Second { seconds: p.interval_s, due, seen };
        if p.phase == Phase::Measure && p.interval_s >= WHOLE_S {
            let (slow, fast) = self.delivered.unwrap_or((f64::INFINITY, 0.0));
            self.delivered = Some((slow.min(p.acked_per_s), fast.max(p.acked_per_s)));
        }
        self.take(p.phase, p.t_s, waits as f64, second);
    }
}

impl Gauge<'_> {
    /// Takes in an interval that ended at `t_s` with so many records waiting.
    fn take(&mut self, phase: Phase, t_s: f64, waits: f64, mut second: Second) {
        match (phase, self.seconds.last_mut()) {
            (Phase::Measure, _) => {
                add(&mut second.seen, &std::mem::take(&mut self.early));
                self.seconds.push(second);
                self.waits.push((t_s, waits));
                let hopeless = waits > OVERRUN_S * self.rate && self.seconds.len() >= LEAST_S;
                if hopeless && self.trial.level() == 0 {
                    self.overrun = true;
                    self.trial.request();
                }
            }
            // Answers that came when the window was over.
            (_, Some(last)) => add(&mut last.seen, &second.seen),
            // An interval that lies mostly in the warm-up has the first records of the window.
            (_, None) if self.early.is_empty() => self.early = second.seen,
            (_, None) => add(&mut self.early, &second.seen),
        }
    }
}

fn add(sum: &mut [(u64, u64)], more: &[(u64, u64)]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = (sum.0 + more.0, sum.1 + more.1);
    }
}

/// Values beyond a bound, and all.
fn beyond(histogram: &Histogram<u64>, bound_ns: u64) -> (u64, u64) {
    let all = histogram.len();
    if all == 0 || histogram.max() <= bound_ns {
        return (0, all);
    }
    (all.saturating_sub(histogram.count_between(0, bound_ns)), all)
}

/// The percentile a goal is about, in microseconds; `None` with too few records.
fn percentile(report: &Report, of: &str) -> Option<f64> {
    let (latency, percentile) = of.split_once('.')?;
    let named = report.latency_us.named();
    let (_, found) = named.into_iter().find(|(name, _)| *name == latency)?;
    let at = Distribution::PERCENTILES.iter().position(|name| *name == percentile)?;
    found.percentiles().get(at).copied().flatten()
}

/// Why a trial says nothing about the target. Fewer reasons than for a run: a target that does not keep up, refuses, or
/// is not read from in time has missed its goal, which is what a search asks.
fn void(report: &Report, overrun: bool) -> Option<String> {
    let reasons = [
        report.ended_early.as_ref().map(|why| format!("ended early: {why}")),
        (report.interrupted && !overrun).then(|| "interrupted".to_owned()),
        (report.duration_s <= 0.0).then(|| "the measured window did not begin".to_owned()),
        void::late(report),
        void::stolen(report),
    ];
    let reasons: Vec<String> = reasons.into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

impl TrialRecord {
    /// As the controller is told of it.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            void: self.void_reason.clone(),
            measured_s: self.measured_s,
            spent_s: self.spent_s,
            blocks: self.blocks.clone(),
            backlog: self.backlog,
            p99_us: self.response.p99,
        }
    }
}

/// What cannot be asked of a search: the field, its value and its limit.
pub fn check(load: &LoadOptions, settings: &SearchSettings) -> Option<(&'static str, String)> {
    let within = |field, value: f64, least: f64, most: f64, unit: &str| {
        let wrong = !(least..=most).contains(&value);
        wrong.then(|| (field, format!("{value} {unit}; it must be {least} to {most} {unit}")))
    };
    let time = |field, value: f64, least: f64, most: f64| within(field, value, least, most, "s");
    if load.clients.is_some() {
        let why = "a closed loop: callers that wait offer no rate that could be too high";
        return Some(("clients", why.to_owned()));
    }
    if load.consumers == Some(0)
        && let Some(goal) = settings.goals.iter().find(|goal| !goal.of.starts_with("response"))
        && ["propagation", "visibility", "delivery"].iter().any(|name| goal.of.starts_with(name))
    {
        return Some(("slo", format!("{}: without consumers nothing is read", goal.of)));
    }
    time("budget", settings.budget_s, 20.0, 7.0 * 86_400.0)
        .or_else(|| time("duration", settings.trial_s, 2.0, longest_trial_s(settings.budget_s)))
        .or_else(|| within("precision", settings.precision, 0.01, 1.0, "of the rate"))
        .or_else(|| within("stable", settings.stable, 1e-4, 0.5, "of the rate"))
        .or_else(|| within("max-rate", settings.max_rate, 1.0, 1e9, "records/s"))
        .or_else(|| within("rate", settings.start_rate, 1.0, settings.max_rate, "records/s"))
}

/// The longest window of a trial: a tenth of the budget, to the millisecond that is shown and typed.
fn longest_trial_s(budget_s: f64) -> f64 {
    (budget_s * 100.0).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::rundir::tests::report;
    use crate::{Distributions, Progress};

    fn second(due: f64, over: u64, seen: u64) -> Second {
        Second { seconds: 1.0, due, seen: vec![(over, seen)] }
    }

    /// The interval in which the window begins may count as warm-up; its records are the window's all the same, and not
    /// missing. Those that never came are.
    #[test]
    fn every_record_of_the_window_counts_once_wherever_it_was_seen() {
        let goals = [Goal { of: "response.p99.9".into(), bound_us: 1e4, allowed: 0.001 }];
        let search = Stop::new();
        let mut nobody = ();
        let mut gauge = Gauge::new(&goals, 100.0, 1, &search, &mut nobody);
        gauge.take(Phase::Warmup, -1.0, 0.0, second(100.0, 0, 0));
        gauge.take(Phase::Warmup, 0.2, 0.0, second(100.0, 1, 20));
        for t in 1..=30 {
            gauge.take(Phase::Measure, f64::from(t), 0.0, second(100.0, 0, 99));
        }
        gauge.take(Phase::Drain, 31.0, 0.0, second(0.0, 2, 8));
        let report = Report { offered_rate: 100.0, ..report(30.0) };
        let blocks = gauge.blocks(&report);
        let sums = |of: fn(&Block) -> u64| -> Vec<u64> { blocks.iter().map(of).collect() };
        assert_eq!(sums(|block| block.records), [1_000; 3]);
        // 2,998 of 3,000 were seen: two are missing, at the end.
        assert_eq!(sums(|block| block.over[0]), [1, 0, 4]);
    }

    /// A stream with a quota of 1,000 a second that drops the newest: of 2,000 offered half are shed, and none waits.
    #[test]
    fn records_that_were_shed_do_not_wait_and_end_no_trial() {
        let (search, mut nobody) = (Stop::new(), ());
        let mut gauge = Gauge::new(&[], 2_000.0, 1, &search, &mut nobody);
        let some = fixture::steady().samples.last().unwrap().clone();
        let none = Histogram::new(3).unwrap();
        let names = Distributions::default().named().map(|(name, _)| name);
        for second in 1..=10 {
            let progress = Progress {
                phase: Phase::Measure,
                t_s: second as f64,
                offered: 2_000 * second,
                acked: 1_000 * second,
                refused: 0,
                unanswered: Some(20),
                backlog: 10,
                ..some.clone()
            };
            let histograms = names.map(|name| (name, &none));
            gauge.tick(&Tick { progress: &progress, start_ns: 0, end_ns: 1, histograms });
        }
        assert!(gauge.waits.iter().all(|(_, waits)| *waits == 30.0), "{:?}", gauge.waits);
        assert!(!gauge.overrun && gauge.waits.len() == 10);
    }

    #[test]
    fn a_trial_that_runs_away_is_ended_and_is_not_void_for_that() {
        let search = Stop::new();
        let mut nobody = ();
        let mut gauge = Gauge::new(&[], 100.0, 1, &search, &mut nobody);
        for t in 1..=5 {
            assert_eq!(gauge.trial.level(), 0, "second {t}");
            gauge.take(Phase::Measure, f64::from(t), 120.0 * f64::from(t), second(200.0, 0, 0));
        }
        assert!(gauge.overrun && gauge.stop().level() == 1);
        let stopped = Report { interrupted: true, ..report(5.0) };
        assert_eq!(void(&stopped, true), None);
        assert_eq!(void(&stopped, false).as_deref(), Some("interrupted"));
    }
}
