//! What a search and a sweep leave: `search.json` and `sweep.json`, for the planner, for people, and to go on after an
//! interruption.
//!
//! Rates are records per second over all producers, times seconds, latencies microseconds, shares 0 to 1. All
//! numbers are finite. Fields may be added under the same schema; none change meaning.

use serde::{Deserialize, Serialize};

use crate::{Distribution, Environment, Lint, LoadOptions};

/// Version of `search.json`.
pub const SEARCH_SCHEMA: &str = "highwater-search/1";
/// Version of `sweep.json`.
pub const SWEEP_SCHEMA: &str = "highwater-sweep/1";
/// The file of a search in its directory.
pub const SEARCH_FILE: &str = "search.json";
/// The file of a sweep in its directory.
pub const SWEEP_FILE: &str = "sweep.json";

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end, at most `value`.
    pub low: f64,
    /// Upper end, at least `value`.
    pub high: f64,
}

/// A percentile of a latency, and what it has to keep: of the records due, at most `allowed` may take longer than
/// `bound_us`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// `response.p99`, `propagation.p99.9`, ...
    pub of: String,
    /// The bound, in microseconds.
    pub bound_us: f64,
    /// Share of records that may be beyond it: 0.01 for p99.
    pub allowed: f64,
}

/// What was asked of a search, apart from the load of its trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchSettings {
    /// All of them have to be met.
    pub goals: Vec<Goal>,
    /// Share of the offered rate by which what waits may grow before the target counts as unstable.
    pub stable: f64,
    /// Most time for everything: warm-up, trials, draining, soak.
    pub budget_s: f64,
    /// Half width of the interval, as a share of the estimate, that ends the search early.
    pub precision: f64,
    /// Measured window of a trial.
    pub trial_s: f64,
    /// Rate of the first trial.
    pub start_rate: f64,
    /// No trial goes beyond this.
    pub max_rate: f64,
    /// Seed of the order and the rates of trials.
    pub seed: u64,
}

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Upwards in large steps, until the target gives out.
    Ramp,
    /// Rates over the whole range below that, shuffled.
    Coarse,
    /// Around the estimate.
    Refine,
    /// Beyond what the target sustains, on purpose: what follows shows whether it recovers.
    Overload,
    /// Down again from there; what waited is worked off before each.
    Descent,
    /// Long, at the rate that is to be published.
    Soak,
}

/// How many records of a stretch of a trial were beyond each goal's bound. Stretches of about ten seconds are what
/// intervals are drawn from: seconds are not independent of their neighbours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Length.
    pub seconds: f64,
    /// Records due.
    pub records: u64,
    /// ... that took longer than the bound or were never answered, in the order of [`SearchSettings::goals`].
    pub over: Vec<u64>,
}

/// How what waits (due and not answered, or acknowledged and not read, summed over all groups) changed in the
/// last two thirds of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backlog {
    /// Records by which it grew each second (least squares), as a share of the offered rate; may be negative.
    pub growth: f64,
    /// Whether the 95 % interval of the slope excludes 0.
    pub significant: bool,
    /// Records that waited at the end of the window.
    pub at_end: f64,
}

/// A trial, void ones included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// From 1.
    pub number: u32,
    /// What it was for.
    pub stage: Stage,
    /// Its run directory, relative to that of the search.
    pub dir: String,
    /// When its measured window began, nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// The rate asked for.
    pub rate: f64,
    /// Why it does not count; the rest then means nothing.
    pub void_reason: Option<String>,
    /// Length of the measured window.
    pub measured_s: f64,
    /// Everything: setting up, warm-up, window, draining.
    pub spent_s: f64,
    /// From the end of the window until all was acknowledged and read.
    pub drain_s: f64,
    /// Records due per second in the window.
    pub offered_rate: f64,
    /// Records acknowledged per second in the window.
    pub delivered_rate: f64,
    /// Payload bytes acknowledged per second in the window.
    pub bytes_per_s: f64,
    /// The window in stretches.
    pub blocks: Vec<Block>,
    /// The percentile each goal is about, in microseconds; absent with too few records.
    pub measured_us: Vec<Option<f64>>,
    /// What waits; absent if the window was too short to say.
    pub backlog: Option<Backlog>,
    /// Intended send time to acknowledgement.
    pub response: Distribution,
    /// Intended send time to reading; empty without consumers.
    pub propagation: Distribution,
    /// The generator's own lateness at p99.
    pub generator_late_us: f64,
    /// Share of the window for which its busiest worker thread had a CPU or waited for one, 0 to 1; absent where the system
    /// does not tell.
    #[serde(default)]
    pub generator_busy: Option<f64>,
    /// Records acknowledged per second in the slowest and the fastest second of the window; absent without a whole one.
    #[serde(default)]
    pub delivered_seconds: Option<(f64, f64)>,
    /// Share of CPU time the hypervisor gave to others; absent where that is not told.
    pub steal: Option<f64>,
    /// Busiest shard over the mean of all.
    pub shard_skew: f64,
}

impl TrialRecord {
    /// Share of the window's records beyond the bound of goal `goal`; `None` if there were no records.
    pub fn share_over(&self, goal: usize) -> Option<f64> {
        let records: u64 = self.blocks.iter().map(|block| block.records).sum();
        let over: u64 = self.blocks.iter().filter_map(|block| block.over.get(goal)).sum();
        (records > 0).then(|| over as f64 / records as f64)
    }
}

/// What is known about one bound on the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// It was met below and missed above: the estimate lies between.
    Found,
    /// It was met at every rate tried: the estimate's `low` is the highest of them, and there is no upper end.
    NotReached,
    /// It was missed at every rate tried.
    Unreachable,
}

/// A point of a fitted response curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Records per second.
    pub rate: f64,
    /// Share of records beyond the bound, or of the offered rate by which the backlog grows.
    pub share: f64,
    /// 95 % interval of that.
    pub low: f64,
    /// The same.
    pub high: f64,
}

/// What the trials say about one goal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalResult {
    /// `response.p99`, ..., or `stable` for the growth of the backlog.
    pub of: String,
    /// The bound in microseconds; absent for `stable`.
    pub bound_us: Option<f64>,
    /// Share allowed beyond it.
    pub allowed: f64,
    /// What is known.
    pub bound: Bound,
    /// Where the fitted curve crosses the allowed share; absent if it does not.
    pub estimate: Option<Interval>,
    /// The rate at which a run of two minutes meets it with 95 %: what may be promised. Absent if there is none: so where
    /// it was met at every rate tried, unless a rate was kept up for long enough.
    pub safe_rate: Option<f64>,
    /// The lowest share seen in a trial that counts, and that trial's number: the best seen, where a goal is unreachable.
    pub best: Option<(f64, u32)>,
    /// The percentile in that trial, in microseconds.
    pub best_us: Option<f64>,
    /// The fitted response curve, by ascending rate.
    pub curve: Vec<Curve>,
}

/// What a rate rests on where every trial met every goal, so that there is no curve: the time it was kept up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Records per second.
    pub rate: f64,
    /// How long it was offered, over all trials at it.
    pub seconds: f64,
    /// How long it would have to be before a run of two minutes can be promised with 95 %, what was late meanwhile
    /// considered; absent if too much was for any promise.
    pub needed_s: Option<f64>,
}

impl Proof {
    /// Whether the rate may be relied on.
    pub fn holds(&self) -> bool {
        self.needed_s.is_some_and(|needed_s| self.seconds >= needed_s)
    }
}

/// How long the published rate was kept up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    /// Records per second.
    pub rate: f64,
    /// How long it was measured.
    pub seconds: f64,
    /// How long it should have been: 10 minutes, or 20 times the longest time between stalls seen.
    pub wanted_s: f64,
    /// Whether every goal was met over the whole of it.
    pub held: bool,
}

/// One step of the way down from overload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// Records per second.
    pub rate: f64,
    /// 99th percentile of the response on the way down, in microseconds.
    pub down_us: f64,
    /// The same at this rate before the overload: between the trials nearest below and above it, in proportion (both axes
    /// logarithmic).
    pub up_us: f64,
    /// The trial on the way down.
    pub trial: u32,
}

/// Whether the target is as before once an overload is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hysteresis {
    /// Whether it is, as far as the goals go: no more is beyond their bounds than before.
    pub recovers: bool,
    /// How many times as high p99 of the response is as before, the median of the steps; absent unless it is 1.5 times as high
    /// at every one.
    #[serde(default)]
    pub slower: Option<f64>,
    /// The steps, downwards.
    pub steps: Vec<Walk>,
}

/// p99 after an overload counts as higher than before from this factor on, if it is at every step.
const SLOWER: f64 = 1.5;

impl Hysteresis {
    /// What `steps` say beside whether the goals are kept as before.
    pub(super) fn new(recovers: bool, steps: Vec<Walk>) -> Hysteresis {
        let ratios = steps.iter().filter(|step| step.up_us > 0.0);
        let mut ratios: Vec<f64> = ratios.map(|step| step.down_us / step.up_us).collect();
        ratios.sort_by(f64::total_cmp);
        let every = ratios.len() == steps.len() && ratios.iter().all(|ratio| *ratio >= SLOWER);
        let slower = ratios.get(ratios.len() / 2).copied().filter(|_| every);
        Hysteresis { recovers, slower, steps }
    }
}

/// Why no further trial was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The interval is as narrow as was asked.
    Precision,
    /// The time was used up.
    Budget,
    /// The goals are missed at the lowest rate that can be tried.
    Unreachable,
    /// The goals are met at the highest rate that can be tried: the maximum given, or what the generator can do.
    NotReached,
    /// Too many trials in a row did not count.
    Void,
}

/// The answer of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// Why it ended.
    pub ended: Ended,
    /// Every goal, in the order asked, and `stable` last.
    pub goals: Vec<GoalResult>,
    /// The highest rate at which all of them are met: the lowest of theirs. Half of all two-minute runs at its
    /// `value` miss the goal.
    pub estimate: Option<Interval>,
    /// Which of them gives out first: its `of`.
    pub binding: Option<String>,
    /// The rate that may be relied on: the lowest `safe_rate`, never above the lower end of the interval, and no
    /// higher than a soak has held; where nothing gave out, what was kept up for long enough. Absent if there is none.
    pub published_rate: Option<f64>,
    /// Where nothing gave out: what the rate to be published rests on. Absent where there is an estimate.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// How much longer the budget would have to be, about, for a rate to be published, in seconds; absent if there is
    /// one, or a goal is out of reach.
    #[serde(default)]
    pub needs_s: Option<f64>,
    /// Records acknowledged per second in the trials nearest to the published rate, as a share of the offered.
    pub delivered_share: Option<f64>,
    /// The soak, if there was time for one.
    pub soak: Option<Soak>,
    /// Absent if there was no time for it, or no overload.
    pub hysteresis: Option<Hysteresis>,
    /// What a reader has to know, in sentences.
    pub notes: Vec<String>,
}

/// `search.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchFile {
    /// [`SEARCH_SCHEMA`].
    pub schema: String,
    /// The command that repeats it, word by word.
    pub command: Vec<String>,
    /// The target.
    pub target: String,
    /// Its release; empty before the first trial.
    pub server: String,
    /// When the first trial began, nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// Time spent on trials so far, over all sittings.
    pub spent_s: f64,
    /// What was asked.
    pub settings: SearchSettings,
    /// What a trial does; its rate, stream, seed and length are those of each trial.
    pub load: LoadOptions,
    /// Shards of the stream as it was: an existing one keeps its own.
    pub shards: u32,
    /// Consumer groups.
    pub groups: u32,
    /// `durable` or `written`.
    pub ack: String,
    /// Payload bytes of a record in the mean over the trials that count; 0 before the first.
    pub mean_payload_bytes: f64,
    /// The machine, at the last trial.
    pub environment: Environment,
    /// What about the machine makes the figures worse, over all trials, each once.
    pub lints: Vec<Lint>,
    /// In the order they were made.
    pub trials: Vec<TrialRecord>,
    /// The answer; absent while the search goes on or after it was interrupted.
    pub result: Option<SearchResult>,
}

/// The values one setting takes in a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisValues {
    /// `shards`, `size`, `ack`, ...: the flag without its dashes.
    pub name: String,
    /// As typed.
    pub values: Vec<String>,
}

/// A setting of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As in [`AxisValues`].
    pub name: String,
    /// As typed.
    pub value: String,
}

/// What is done at each point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SweepMode {
    /// A search.
    Search {
        /// What each search was asked.
        settings: SearchSettings,
    },
    /// A run at one rate.
    Rate {
        /// Records per second; absent for as fast as it goes.
        rate: Option<f64>,
        /// Length of the measured window.
        duration_s: f64,
    },
}

/// A point of the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// When its turn is, from 1: the order was shuffled.
    pub turn: u32,
    /// One per axis, in their order.
    pub settings: Vec<Setting>,
    /// Its directory, relative to that of the sweep: a search's or a run's.
    pub dir: String,
    /// Whether it was carried out.
    pub done: bool,
    /// Why it says nothing: void, too short for a rate to rely on, or it could not be carried out.
    pub void_reason: Option<String>,
    /// Of a search whose trials count: what keeps it from having a rate, a goal that was missed at every rate tried.
    #[serde(default)]
    pub missed: Option<String>,
    /// Whether records were lost, doubled, reordered or damaged in its run: `void_reason` says which. A search that meets
    /// that ends the sweep.
    #[serde(default)]
    pub damaged: bool,
    /// Shards of the stream.
    pub shards: u32,
    /// Consumer groups.
    pub groups: u32,
    /// `durable` or `written`.
    pub ack: String,
    /// Payload bytes of a record in the mean.
    pub mean_payload_bytes: f64,
    /// The sustained rate of a search; of a run, the rate acknowledged (without an interval: `low` and `high` are
    /// `value`).
    pub rate: Option<Interval>,
    /// What a search says may be relied on.
    pub published_rate: Option<f64>,
    /// Payload bytes per second at `rate`.
    pub bytes_per_s: Option<f64>,
    /// Of a run, or of the search's trial that is nearest to the published rate.
    pub response: Distribution,
    /// The same.
    pub propagation: Distribution,
}

/// `sweep.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepFile {
    /// [`SWEEP_SCHEMA`].
    pub schema: String,
    /// The command that repeats it, word by word.
    pub command: Vec<String>,
    /// The target.
    pub target: String,
    /// Its release; empty before the first point.
    pub server: String,
    /// When it began, nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// Seed of the order of points.
    pub seed: u64,
    /// What is varied.
    pub vary: Vec<AxisValues>,
    /// What is done at each point.
    pub mode: SweepMode,
    /// What every point has in common.
    pub load: LoadOptions,
    /// The machine, at the last point.
    pub environment: Environment,
    /// What about the machine makes the figures worse, each once.
    pub lints: Vec<Lint>,
    /// All points, in the order of their turns.
    pub points: Vec<SweepPoint>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the planner reads: the words in the files are an interface.
    #[test]
    fn the_words_of_the_files_are_fixed() {
        let words = |value: serde_json::Value| value.to_string();
        let stages = [Stage::Ramp, Stage::Refine, Stage::Overload, Stage::Descent, Stage::Soak];
        assert_eq!(
            words(serde_json::json!(stages)),
            r#"["ramp","refine","overload","descent","soak"]"#
        );
        let bounds = [Bound::Found, Bound::NotReached, Bound::Unreachable];
        assert_eq!(words(serde_json::json!(bounds)), r#"["found","not-reached","unreachable"]"#);
        let mode = SweepMode::Rate { rate: None, duration_s: 10.0 };
        assert_eq!(
            words(serde_json::json!(mode)),
            r#"{"duration_s":10.0,"kind":"rate","rate":null}"#
        );
    }
}
