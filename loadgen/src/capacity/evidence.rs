//! What was measured, as the questions of a plan need it: one form for runs, searches, sweeps and recordings.

use serde::Serialize;

use super::probe::ProbeFile;
use super::recorded::Recorded;
use crate::{Environment, Lint, LoadOptions};

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A run directory.
    Run,
    /// The directory of a search.
    Search,
    /// That of a sweep.
    Sweep,
    /// A recording of a server's figures.
    Recording,
    /// What the machine can do by itself.
    Probe,
}

impl SourceKind {
    /// The layout that this program writes.
    pub fn schema(self) -> &'static str {
        match self {
            SourceKind::Run => crate::SCHEMA,
            SourceKind::Search => crate::search::SEARCH_SCHEMA,
            SourceKind::Sweep => crate::search::SWEEP_SCHEMA,
            SourceKind::Recording => RECORDING_SCHEMA,
            SourceKind::Probe => super::probe::PROBE_SCHEMA,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::Run => "run",
            SourceKind::Search => "search",
            SourceKind::Sweep => "sweep",
            SourceKind::Recording => "recording",
            SourceKind::Probe => "probe",
        }
    }
}

/// What recordings are called; their versions are their reader's to tell apart.
pub(super) const RECORDING_SCHEMA: &str = "highwater_recording";

/// Something a plan was made from.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// As it was named: a path.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
    /// Version of its layout.
    pub schema: String,
    /// What was loaded, or watched.
    pub target: String,
    /// Release of the server, where known.
    pub server: String,
    /// When it began, nanoseconds since 1970 UTC; 0 if that is not known.
    pub began_ns: u64,
    /// Trials, points or samples that count.
    pub counted: usize,
    /// Those that do not, each with its reason.
    pub void: Vec<String>,
    /// The command that repeats it.
    pub command: Vec<String>,
    /// What about the machine makes its figures worse.
    pub lints: Vec<Lint>,
    /// The machine that measured; absent where it is not known.
    pub environment: Option<Environment>,
    /// What it asked of the generator, where it had one.
    #[serde(skip)]
    pub load: Option<Box<LoadOptions>>,
}

/// What a figure holds for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setup {
    /// Shards over all streams.
    pub shards: u32,
    /// Consumer groups.
    pub groups: u32,
    /// `durable` or `written`.
    pub ack: String,
    /// Payload bytes of a record in the mean.
    pub record_bytes: f64,
    /// Most bytes of a batch.
    pub batch_bytes: u64,
    /// How long a batch waits for more, in microseconds.
    pub linger_us: f64,
    /// Producers.
    pub producers: usize,
    /// Busiest shard over the mean of all; 0 if not measured.
    pub skew: f64,
}

impl Setup {
    /// `4 shards, durable, 1,024 B records, 2 groups`.
    pub fn words(&self) -> String {
        use crate::report::figures::{bytes, counted};
        format!(
            "{}, {}, {} records, {}",
            counted(u64::from(self.shards), "shard"),
            self.ack,
            bytes(self.record_bytes),
            counted(u64::from(self.groups), "group")
        )
    }

    /// Whether both are the same but for what `differs` sets alike.
    pub fn same_but(&self, other: &Setup, differs: impl Fn(&mut Setup)) -> bool {
        let alike = |setup: &Setup| {
            let mut setup = Setup { skew: 0.0, ..setup.clone() };
            differs(&mut setup);
            setup
        };
        let (a, b) = (alike(self), alike(other));
        // Payloads that are drawn differ by a little in the mean.
        let size = (a.record_bytes / b.record_bytes.max(1.0) - 1.0).abs() <= SAME_SIZE;
        size && Setup { record_bytes: b.record_bytes, ..a } == b
    }
}

/// Means of record sizes that differ by no more are the same.
pub const SAME_SIZE: f64 = 0.05;

/// A figure with what it may also be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Range {
    /// Without an extent.
    pub fn exactly(value: f64) -> Range {
        Range { value, low: value, high: value }
    }

    /// Median and ends of `values`; `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Range> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let value = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Range { value, low, high })
    }
}

/// The rate one setup sustains, as a search found it.
#[derive(Clone, Debug)]
pub struct Sustained {
    /// The source.
    pub from: String,
    /// Whether a sweep made it: then it is one of many.
    pub in_sweep: bool,
    /// What it holds for.
    pub setup: Setup,
    /// The goals, in words: `response.p99 within 10.0 ms`.
    pub goals: String,
    /// The same as (percentile, bound in microseconds).
    pub bounds: Vec<(String, f64)>,
    /// The highest rate that meets them; absent if none was found. With a safe rate: nothing gave out at any rate tried, and
    /// there may be more.
    pub estimate: Option<Range>,
    /// What may be relied on.
    pub safe: Option<f64>,
    /// Which goal gives out first.
    pub binding: Option<String>,
    /// Why there is no rate, or what was seen, in words.
    pub remark: String,
    /// Whether no rate tried met the goals.
    pub unreachable: bool,
    /// The command that would find a rate to rely on: the same search with a budget that should do, or where it was
    /// interrupted to its end. Absent where there is one, and where nothing of the kind would help.
    pub longer: Option<String>,
    /// Trials that count.
    pub trials: usize,
    /// Trials that do not.
    pub void: usize,
    /// How long the safe rate was kept up, and whether it held.
    pub soak: Option<(f64, bool)>,
    /// How long it should have been, in seconds.
    pub wanted_s: Option<f64>,
    /// What the search itself says of its result.
    pub notes: Vec<String>,
    /// Whether it is as before after an overload; absent if that was not tried.
    pub recovers: Option<bool>,
    /// Where the goals are met as before: how many times as high p99 of the response is nevertheless.
    pub slower: Option<f64>,
}

impl Sustained {
    /// Whether whoever meets these goals meets those of `other`, and not the other way round.
    pub fn tighter_than(&self, other: &Sustained) -> bool {
        let implies = |a: &Sustained, b: &Sustained| {
            let met =
                |(of, bound): &(String, f64)| a.bounds.iter().any(|(o, at)| o == of && at <= bound);
            b.bounds.iter().all(met)
        };
        implies(self, other) && !implies(other, self)
    }
}

/// What a setup delivers when more is offered than it can serve.
#[derive(Clone, Debug)]
pub struct Ceiling {
    /// The source.
    pub from: String,
    /// What it holds for.
    pub setup: Setup,
    /// Records acknowledged per second, in the mean and in the slowest and the fastest second; or with a 95 % interval.
    pub rate: Range,
    /// How long that was measured, at once, in seconds.
    pub lasted_s: f64,
    /// Share of that time for which the generator's busiest worker wanted a CPU; absent where it is not known.
    pub generator_busy: Option<f64>,
}

/// A load that was offered, and what came of it.
#[derive(Clone, Debug)]
pub struct Point {
    /// The source.
    pub from: String,
    /// What it holds for.
    pub setup: Setup,
    /// Records due per second.
    pub offered: f64,
    /// Records acknowledged per second.
    pub delivered: f64,
    /// Records read per second, by all groups.
    pub consumed: f64,
    /// Response percentiles 50, 99 and 99.9, in microseconds; absent with too few records.
    pub response_us: [Option<f64>; 3],
    /// Propagation's.
    pub propagation_us: [Option<f64>; 3],
    /// Whether what was set as a bound was met; absent if nothing was set.
    pub met: Option<bool>,
    /// Whether it kept up: nearly all that was due was acknowledged and nothing went on waiting.
    pub kept_up: bool,
    /// Whether it may stand for a rate to rely on. A trial of a search that promises none may not.
    pub stands: bool,
}

/// A group that caught up while producers went on.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// The source.
    pub from: String,
    /// Who and when, in words.
    pub what: String,
    /// What it holds for, where known.
    pub setup: Option<Setup>,
    /// Groups that caught up at once.
    pub paused: u32,
    /// Records a second that one of them read, with the interval where there is one.
    pub rate: Range,
    /// Whether that interval holds 95 %. Otherwise it is the slowest and the fastest second, or only the value.
    pub measured_interval: bool,
    /// Records per second that arrived meanwhile.
    pub arrival: f64,
    /// How long it had been away, in seconds; 0 if not known.
    pub outage_s: f64,
    /// How long it took, in seconds; absent if it did not catch up.
    pub took_s: Option<f64>,
    /// 99th percentile of the response before and during, in microseconds.
    pub live_us: Option<(f64, f64)>,
    /// Share of the time for which the generator's busiest worker wanted a CPU meanwhile; absent where it is not known.
    pub generator_busy: Option<f64>,
}

/// Everything a plan is made from.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// In the order they were named.
    pub sources: Vec<Source>,
    /// From searches.
    pub sustained: Vec<Sustained>,
    /// From overload.
    pub ceilings: Vec<Ceiling>,
    /// From runs and trials.
    pub points: Vec<Point>,
    /// From backlog runs and recordings.
    pub drains: Vec<Drain>,
    /// From recordings, each with its source.
    pub recorded: Vec<(String, Recorded)>,
    /// From probes, the same.
    pub probes: Vec<(String, ProbeFile)>,
    /// What was left out, and why, in sentences.
    pub left_out: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_the_median_with_both_ends() {
        assert_eq!(Range::of(vec![]), None);
        assert_eq!(Range::of(vec![f64::NAN]), None);
        assert_eq!(Range::of(vec![3.0, 1.0, 2.0]), Some(Range { value: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Range::of(vec![4.0, 1.0]), Some(Range { value: 2.5, low: 1.0, high: 4.0 }));
        assert_eq!(Range::of(vec![4.0]), Some(Range::exactly(4.0)));
    }
}
