//! Two runs side by side: is B worse than A by more than a margin, is it not, or can nobody tell?
//!
//! Every figure comes with a 95 % interval from its ten-second blocks ([`crate::stats`]), the ratio B/A with
//! one of its own; the verdict goes by the whole interval of the ratio, never by the ratio alone:
//!
//! * *worse*: the whole interval lies beyond the margin;
//! * *not worse*: all of it within, or better;
//! * *cannot tell*: it lies across. Longer runs make it narrower, and it is said about how much longer.
//!
//! A difference within the margin that is sure is *not worse*. Runs of different machines, workloads or rates
//! are not compared at all, unless forced.

mod differences;
mod metric;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use differences::Difference;
pub(crate) use differences::{machine_fields, target_kind};
pub use metric::{Metric, MetricError, Quantile};

use crate::hlog::Grid;
use crate::report::BEYOND_MIN;
use crate::stats::{BLOCK_S, BLOCKS_MIN, Counted, Resampled};
use crate::{Phase, Progress, RunFiles, RunReadError, read_run};

/// Version of the JSON layout: fields may be added under the same name, none change meaning.
pub const COMPARE_SCHEMA: &str = "highwater-compare/1";
/// Largest margin: ten times as slow.
const MARGIN_MAX: f64 = 10.0;
/// Longer than this nobody runs to settle a question: the ratio lies on the margin.
const LONGEST_S: f64 = 86_400.0;

/// How runs are compared. The default judges at 3 %.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// What may be lost without being worse, as a share of A; 0 to 10.
    pub margin: f64,
    /// What is judged; empty: `response.p99`, `propagation.p99` where both runs have it, and the
    /// acknowledged rate.
    pub metrics: Vec<Metric>,
    /// Seed of the resampling: the same runs and seed give the same answer.
    pub seed: u64,
    /// Compare runs all the same that differ in more than what is compared.
    pub force: bool,
}

impl Default for CompareOptions {
    fn default() -> CompareOptions {
        CompareOptions { margin: 0.03, metrics: Vec::new(), seed: 1, force: false }
    }
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One of the runs could not be read.
    #[error(transparent)]
    Read(#[from] RunReadError),
    /// A margin that is none.
    #[error("margin is {margin}; it must be 0 to {MARGIN_MAX}")]
    Margin {
        /// What was asked.
        margin: f64,
    },
    /// A side has no run.
    #[error("there is no run to compare")]
    Nothing,
    /// The runs differ in what must be the same for a difference to mean anything.
    #[error("the runs are not comparable: {}", differences::words(.differences))]
    Differ {
        /// In what.
        differences: Vec<Difference>,
    },
}

/// The answer. Ordered by what must not be overlooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Not worse by more than the margin.
    NotWorse,
    /// The runs do not say.
    CannotTell,
    /// Worse by more than the margin.
    Worse,
}

/// A figure with its 95 % interval, absent with fewer than three blocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// As measured.
    pub value: f64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// One run's side of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// The figure: microseconds, or records per second. Absent: `why`.
    pub estimate: Option<Estimate>,
    /// Records it was taken over.
    pub records: u64,
    /// Why there is no figure.
    pub why: Option<&'static str>,
}

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is.
    pub metric: Metric,
    /// `us`, or `records/s`.
    pub unit: &'static str,
    /// In A.
    pub a: Side,
    /// In B.
    pub b: Side,
    /// B over A.
    pub ratio: Option<Estimate>,
    /// The answer, if this is judged.
    pub verdict: Option<Verdict>,
    /// Why it cannot be told.
    pub reason: Option<String>,
}

/// A run, as far as a reader must know which it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Which {
    /// Its directory.
    pub path: PathBuf,
    /// How many runs, of which this is the first.
    pub runs: usize,
    /// Nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// Length of the measured window; over all runs.
    pub duration_s: f64,
    /// Ten-second blocks in it.
    pub blocks: usize,
    /// What it was run against.
    pub target: String,
    /// The target's release.
    pub server: String,
    /// Why its figures mean nothing.
    pub void_reason: Option<String>,
}

/// Two runs compared. `Display` writes a table for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// [`COMPARE_SCHEMA`].
    pub schema: &'static str,
    /// The answer over all that is judged: *worse* if anything is, *not worse* only if everything is.
    pub verdict: Verdict,
    /// What concerns the runs as a whole and decides the verdict.
    pub reasons: Vec<String>,
    /// What may be lost without being worse, as a share of A.
    pub margin: f64,
    /// Seed of the resampling.
    pub seed: u64,
    /// The run compared with.
    pub a: Which,
    /// The run judged.
    pub b: Which,
    /// In what else they differ, if it was forced.
    pub differences: Vec<Difference>,
    /// Every figure; those with a verdict are judged.
    pub rows: Vec<Row>,
}

/// Compares the run in directory `b` with the one in `a`.
pub fn compare(a: &Path, b: &Path, options: &CompareOptions) -> Result<Comparison, CompareError> {
    if !(0.0..=MARGIN_MAX).contains(&options.margin) {
        return Err(CompareError::Margin { margin: options.margin });
    }
    compare_runs(&[read_run(a)?], &[read_run(b)?], options)
}

/// Compares several runs of B with several of A, made in turn: each side's ten-second blocks are drawn from all its
/// runs together. Void runs are left out as long as a side has others; both sides need at least one run.
pub fn compare_many(
    a: &[PathBuf],
    b: &[PathBuf],
    options: &CompareOptions,
) -> Result<Comparison, CompareError> {
    if !(0.0..=MARGIN_MAX).contains(&options.margin) {
        return Err(CompareError::Margin { margin: options.margin });
    }
    let read = |paths: &[PathBuf]| paths.iter().map(|path| read_run(path)).collect();
    let (a, b): (Result<Vec<_>, RunReadError>, Result<Vec<_>, _>) = (read(a), read(b));
    compare_runs(&a?, &b?, options)
}

fn compare_runs(
    a: &[RunFiles],
    b: &[RunFiles],
    options: &CompareOptions,
) -> Result<Comparison, CompareError> {
    let (Some(first), true) = (a.first(), !b.is_empty()) else {
        return Err(CompareError::Nothing);
    };
    let mut differences = Vec::new();
    for run in a.iter().skip(1).chain(b) {
        for difference in differences::between(&first.report, &run.report) {
            if !differences.contains(&difference) {
                differences.push(difference);
            }
        }
    }
    let (left_out, a, b) = (left_out(a, b), counted(a), counted(b));
    if !differences.is_empty() && !options.force {
        return Err(CompareError::Differ { differences });
    }
    // Two seeds: of one, the same blocks would be drawn from both.
    let (of_a, of_b) = (Figures::of(&a, options.seed), Figures::of(&b, !options.seed));
    let judged = if options.metrics.is_empty() {
        let asked =
            |metric: &Metric| !metric.optional() || (of_a.has(*metric) && of_b.has(*metric));
        Metric::DEFAULT.into_iter().filter(asked).collect()
    } else {
        options.metrics.clone()
    };
    let (whole, mut reasons) = of_runs(&a, &b);
    reasons.extend(left_out);
    let mut rows: Vec<Row> = Metric::all()
        .filter(|metric| of_a.has(*metric) || of_b.has(*metric) || judged.contains(metric))
        .map(|metric| row(metric, &of_a, &of_b))
        .collect();
    let duration_s = seconds(&a).min(seconds(&b));
    for row in rows.iter_mut().filter(|row| judged.contains(&row.metric)) {
        let (verdict, reason) = match whole {
            Some(Verdict::CannotTell) => (Verdict::CannotTell, None),
            _ => judge(row, options.margin, duration_s),
        };
        (row.verdict, row.reason) = (Some(verdict), reason);
    }
    let verdict = rows.iter().filter_map(|row| row.verdict).chain(whole).max();
    Ok(Comparison {
        schema: COMPARE_SCHEMA,
        verdict: verdict.unwrap_or(Verdict::CannotTell),
        reasons,
        margin: options.margin,
        seed: options.seed,
        a: which(&a),
        b: which(&b),
        differences,
        rows,
    })
}

/// The runs that count: all of them if none does.
fn counted(runs: &[RunFiles]) -> Vec<&RunFiles> {
    let valid: Vec<&RunFiles> = runs.iter().filter(|run| run.report.valid).collect();
    // Lost records are not made up for by being void as well.
    if valid.is_empty() || runs.iter().any(|run| !run.report.intact()) {
        runs.iter().collect()
    } else {
        valid
    }
}

/// Which runs are left out.
fn left_out(a: &[RunFiles], b: &[RunFiles]) -> Vec<String> {
    let of = |(name, runs): (&str, &[RunFiles])| {
        let out = runs.len() - counted(runs).len();
        (out > 0).then(|| format!("{out} of {} runs of {name} are void and left out", runs.len()))
    };
    [("A", a), ("B", b)].into_iter().filter_map(of).collect()
}

fn seconds(runs: &[&RunFiles]) -> f64 {
    runs.iter().map(|run| run.report.duration_s).sum()
}

/// The runs of a side; there is at least one.
fn which(runs: &[&RunFiles]) -> Which {
    let first = runs.first().map(|run| &run.report);
    let void = runs.iter().find(|run| !run.report.valid);
    Which {
        path: runs.first().map(|run| run.path.clone()).unwrap_or_default(),
        runs: runs.len(),
        started_ns: first.map_or(0, |report| report.started_ns),
        duration_s: seconds(runs),
        blocks: runs.iter().map(|run| blocks(run)).sum(),
        target: first.map(|report| report.target.clone()).unwrap_or_default(),
        server: first.map(|report| report.server.clone()).unwrap_or_default(),
        void_reason: void.and_then(|run| run.report.void_reason.clone()),
    }
}

/// Whole blocks in the measured window.
fn blocks(run: &RunFiles) -> usize {
    (run.report.duration_s / BLOCK_S) as usize
}

/// What follows from the runs as a whole, whatever the figures say.
fn of_runs(a: &[&RunFiles], b: &[&RunFiles]) -> (Option<Verdict>, Vec<String>) {
    let mut reasons = Vec::new();
    for (name, runs) in [("A", a), ("B", b)] {
        if let Some(run) = runs.iter().find(|run| !run.report.valid) {
            let why = run.report.void_reason.as_deref().unwrap_or("no reason given");
            reasons.push(format!("{name} is void: {why}"));
        }
        if runs.iter().map(|run| blocks(run)).sum::<usize>() < BLOCKS_MIN {
            reasons.push(format!(
                "{name} is {:.0} s long: fewer than {BLOCKS_MIN} blocks of {BLOCK_S} s have no interval",
                seconds(runs)
            ));
        }
    }
    let damaged = |runs: &[&RunFiles]| runs.iter().any(|run| !run.report.intact());
    if damaged(a) {
        reasons.push("A lost, doubled, reordered or damaged records".to_owned());
    } else if damaged(b) {
        // No latency makes up for that.
        reasons
            .insert(0, "B lost, doubled, reordered or damaged records, and A did not".to_owned());
        return (Some(Verdict::Worse), reasons);
    }
    ((!reasons.is_empty()).then_some(Verdict::CannotTell), reasons)
}

/// What the runs of a side say about each metric.
struct Figures(Vec<(Metric, u64, Option<Resampled>)>);

impl Figures {
    fn of(runs: &[&RunFiles], seed: u64) -> Figures {
        let mut found = Vec::new();
        let all = |per_second: fn(&Progress) -> f64| -> Vec<(f64, f64)> {
            runs.iter().flat_map(|run| counts(run, per_second)).collect()
        };
        let acked = all(|sample| sample.acked_per_s);
        let consumed = all(|sample| sample.consumed_per_s);
        for (metric, blocks) in [(Metric::AckedRate, acked), (Metric::ConsumedRate, consumed)] {
            let records: f64 = blocks.iter().map(|(count, _)| count).sum();
            let figure = Resampled::rate(&blocks, seed).filter(|_| records > 0.0);
            found.push((metric, records.round() as u64, figure));
        }
        for name in metric::SERIES {
            let series = runs.iter().flat_map(|run| &run.series);
            let series = series.filter(|series| series.name == name);
            let blocks: Vec<Counted> = series.flat_map(|series| series.blocks.clone()).collect();
            let records = blocks.iter().map(Counted::count).sum();
            let quantiles = Quantile::ALL.map(Quantile::share);
            let mut figures = Resampled::quantiles(&blocks, &quantiles, seed).into_iter();
            for quantile in Quantile::ALL {
                let metric = Metric::Latency { name, quantile };
                // Nanoseconds: nobody reads those.
                let figure = figures.next().map(|figure| figure.scaled(1e-3));
                found.push((metric, records, figure));
            }
        }
        Figures(found)
    }

    fn get(&self, metric: Metric) -> (u64, Option<&Resampled>) {
        let found = self.0.iter().find(|(of, _, _)| *of == metric);
        found.map_or((0, None), |(_, records, figure)| (*records, figure.as_ref()))
    }

    fn has(&self, metric: Metric) -> bool {
        self.get(metric).1.is_some()
    }

    /// The figure, or why it says nothing.
    fn side(&self, metric: Metric) -> (Side, Option<&Resampled>) {
        let (records, figure) = self.get(metric);
        let enough = match metric {
            Metric::Latency { quantile, .. } => {
                records as f64 * (1.0 - quantile.share()) >= BEYOND_MIN - 1e-6
            }
            Metric::AckedRate | Metric::ConsumedRate => true,
        };
        let why = match figure {
            None => Some("not measured"),
            Some(_) if !enough => Some("n too small"),
            Some(_) => None,
        };
        let figure = figure.filter(|_| enough);
        (Side { estimate: figure.map(estimate), records, why }, figure)
    }
}

/// What `per_second` comes to in each block, with the seconds that were looked at.
fn counts(run: &RunFiles, per_second: impl Fn(&Progress) -> f64) -> Vec<(f64, f64)> {
    let grid = Grid::new(run.report.started_ns, run.report.duration_s);
    let mut blocks = vec![(0.0, 0.0); grid.blocks];
    for sample in &run.samples {
        let middle = sample.t_s - sample.interval_s / 2.0;
        let within = (0.0..run.report.duration_s).contains(&middle);
        if within && !matches!(sample.phase, Phase::Warmup | Phase::Drain) {
            let (count, seconds) = &mut blocks[grid.block(middle)];
            *count += per_second(sample) * sample.interval_s;
            *seconds += sample.interval_s;
        }
    }
    blocks
}

fn estimate(figure: &Resampled) -> Estimate {
    let (low, high) = figure.interval().unzip();
    Estimate { value: figure.value, low, high }
}

fn row(metric: Metric, a: &Figures, b: &Figures) -> Row {
    let ((a, of_a), (b, of_b)) = (a.side(metric), b.side(metric));
    let ratio = of_b.zip(of_a).and_then(|(b, a)| b.over(a));
    let ratio = ratio.as_ref().map(estimate);
    Row { metric, unit: metric.unit(), a, b, ratio, verdict: None, reason: None }
}

/// The answer for one row, and why there is none.
fn judge(row: &Row, margin: f64, duration_s: f64) -> (Verdict, Option<String>) {
    for (name, side) in [("A", &row.a), ("B", &row.b)] {
        if let Some(why) = side.why {
            return (
                Verdict::CannotTell,
                Some(format!("{why} in {name} ({} records)", side.records)),
            );
        }
    }
    let Some((ratio, (low, high))) =
        row.ratio.and_then(|ratio| Some((ratio.value, ratio.low.zip(ratio.high)?)))
    else {
        return (Verdict::CannotTell, Some("no ratio: a value is 0".to_owned()));
    };
    // More time is worse, and fewer records are.
    let (worst, best, bound) = match row.metric {
        Metric::Latency { .. } => (high, low, 1.0 + margin),
        Metric::AckedRate | Metric::ConsumedRate => (low, high, 1.0 - margin),
    };
    let beyond = |end: f64| match row.metric {
        Metric::Latency { .. } => end > bound,
        Metric::AckedRate | Metric::ConsumedRate => end < bound,
    };
    match (beyond(best), beyond(worst)) {
        (true, _) => (Verdict::Worse, None),
        (false, false) => (Verdict::NotWorse, None),
        (false, true) => {
            let needed = more_seconds(ratio, (low, high), bound, duration_s);
            (Verdict::CannotTell, Some(needed))
        }
    }
}

/// How much longer both runs would have to be. The interval shrinks as the root of their length; it must
/// become narrower than the way from the ratio to the bound.
fn more_seconds(ratio: f64, (low, high): (f64, f64), bound: f64, duration_s: f64) -> String {
    let way = (ratio / bound).ln().abs();
    let reach = if ratio < bound { (high / ratio).ln() } else { (ratio / low).ln() };
    let more = duration_s * ((reach / way).powi(2) - 1.0);
    if way > 0.0 && more < LONGEST_S {
        let more = (more / BLOCK_S).ceil().max(1.0) * BLOCK_S;
        format!("the interval crosses the margin: about {more:.0} s more of each run would tell")
    } else {
        "the ratio lies on the margin: no longer run would tell".to_owned()
    }
}
