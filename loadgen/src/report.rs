//! What a run found: one JSON object, and the same as text, Markdown and HTML for people.

mod account;
pub(crate) mod chart;
pub(crate) mod document;
mod explain;
pub(crate) mod figures;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod html;
pub(crate) mod machine;
pub(crate) mod markdown;
mod pages;
mod search;
mod series;
#[cfg(test)]
mod tests;
mod text;

use std::cmp::Reverse;
use std::time::Duration;

use hdrhistogram::Histogram;
use highwater_wire::StreamDescription;
use serde::{Deserialize, Serialize};

use crate::pauses::Longest;
use crate::{Environment, Lint, LoadOptions, RunFiles};

pub use account::Account;
pub(crate) use explain::{KEEPS_UP, notes};
pub use pages::shell_words;
pub(crate) use pages::{micro, quoted};

/// Version of the JSON layout: fields may be added under the same name, none change meaning.
pub const SCHEMA: &str = "highwater-load/1";

/// A run is not valid if the generator itself acted later than this at the 99th percentile.
/// A scheduler tick is 1 to 4 ms, so a busy or stolen CPU is well beyond it.
pub const LATE_P99_MAX: Duration = Duration::from_millis(1);

/// ... or sent less than this share of what was due by the end of the window, the target's fault or not.
pub const ACHIEVED_MIN: f64 = 0.99;

/// ... or lost more than this share of the machine's CPU time to the hypervisor.
pub const STEAL_MAX: f64 = 0.02;

/// How records were offered, and so what their latency counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// At due times that do not wait for the target; from the due time.
    Open,
    /// As fast as the target takes them; from the moment the record was made.
    Saturating,
    /// Each caller waits for its acknowledgement; from the moment the record was made.
    Closed,
}

/// What the run was to find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScenarioKind {
    /// What a load costs.
    #[default]
    Run,
    /// What bursts do, and how soon they are over; see [`Report::burst`].
    Burst,
    /// How a group that was away catches up, and at whose cost; see [`Report::backlog`].
    Backlog,
}

/// A latency distribution in microseconds, three significant digits. All values count: none is
/// dropped, and nothing is averaged over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Median.
    pub p50: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// Largest.
    pub max: f64,
    /// Records.
    pub count: u64,
}

/// A percentile with fewer values than this beyond it is noise, and not shown.
pub const BEYOND_MIN: f64 = 10.0;

impl Distribution {
    /// Names of the percentiles, in the order of [`Distribution::percentiles`].
    pub const PERCENTILES: [&'static str; 5] = ["p50", "p90", "p99", "p99.9", "p99.99"];

    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Distribution {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if histogram.is_empty() {
            return Distribution::default();
        }
        Distribution {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1e3,
            count: histogram.len(),
        }
    }

    /// The percentiles in microseconds; `None` where fewer than [`BEYOND_MIN`] values lie beyond.
    pub fn percentiles(&self) -> [Option<f64>; 5] {
        [
            (self.p50, 0.5),
            (self.p90, 0.1),
            (self.p99, 0.01),
            (self.p999, 0.001),
            (self.p9999, 0.0001),
        ]
        // A little slack: 100,000 x 0.0001 may come out as a little less than 10.
        .map(|(value, beyond)| (self.count as f64 * beyond >= BEYOND_MIN - 1e-6).then_some(value))
    }

    /// The largest, in microseconds; `None` if there are no values.
    pub fn largest(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }
}

/// The six distributions, of records intended within the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distributions {
    /// Intended send time to acknowledgement.
    pub response: Distribution,
    /// Intended send time to reading by a consumer.
    pub propagation: Distribution,
    /// Intended send time to sending: linger, the generator's lateness and waiting for the target.
    pub send_lag: Distribution,
    /// Sending to acknowledgement.
    pub service: Distribution,
    /// Acknowledgement to reading; 0 for a record read before its acknowledgement came.
    pub visibility: Distribution,
    /// The target's own arrival stamp to reading: what the console shows as propagation delay.
    pub delivery: Distribution,
}

impl Distributions {
    /// Each with its name in JSON (and in the interval log), in the order of a report.
    pub fn named(&self) -> [(&'static str, &Distribution); 6] {
        [
            ("response", &self.response),
            ("propagation", &self.propagation),
            ("send_lag", &self.send_lag),
            ("service", &self.service),
            ("visibility", &self.visibility),
            ("delivery", &self.delivery),
        ]
    }
}

/// The longest pause in acknowledgements of each shard: time in which it acknowledged nothing to a producer although a
/// record of it that was acknowledged then, and is of the measured window, was due. Milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AckPauses {
    /// The median over shards.
    pub p50: f64,
    /// 99 % of the shards had none longer than this.
    pub p99: f64,
    /// The longest of all.
    pub max: f64,
    /// Shards that acknowledged something, those that came up and those that were closed during the run included.
    pub shards: u64,
    /// The shards with the longest, those first; at most [`AckPauses::WORST`].
    pub worst: Vec<AckPause>,
}

/// The longest pause in acknowledgements of one shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AckPause {
    /// The stream.
    pub stream: String,
    /// The shard's number.
    pub shard: u32,
    /// Milliseconds.
    pub pause: f64,
}

impl AckPauses {
    /// Most shards that are named.
    pub const WORST: usize = 32;

    /// Of the longest of each shard, in nanoseconds, by stream and number.
    pub(crate) fn of(longest: &Longest, streams: &[StreamDescription]) -> AckPauses {
        let mut all: Vec<(u64, usize, u32)> =
            longest.iter().map(|((stream, shard), pause)| (*pause, *stream, *shard)).collect();
        all.sort_unstable_by_key(|(pause, stream, shard)| (Reverse(*pause), *stream, *shard));
        let ms = |ns: u64| ns as f64 / 1e6;
        // Of n in descending order, the first for which at least that share is no longer.
        let at =
            |percent: usize| all.get(all.len() * (100 - percent) / 100).map_or(0.0, |p| ms(p.0));
        let worst = all.iter().take(AckPauses::WORST).map(|(pause, stream, shard)| AckPause {
            stream: streams.get(*stream).map(|s| s.name.clone()).unwrap_or_default(),
            shard: *shard,
            pause: ms(*pause),
        });
        AckPauses {
            p50: at(50),
            p99: at(99),
            max: all.first().map_or(0.0, |p| ms(p.0)),
            shards: all.len() as u64,
            worst: worst.collect(),
        }
    }
}

/// The generator's own lateness: how long after it could and should have acted it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    /// 99th percentile over records, in microseconds; 0 in a saturating or closed run.
    pub p99_us: f64,
    /// Largest, in microseconds.
    pub max_us: f64,
    /// Bound on `p99_us` of a valid run, in microseconds.
    pub bound_us: f64,
}

/// Due times as the schedule gave them in the measured window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// `constant`, `poisson`, `burst`, `trace`.
    pub process: String,
    /// Squared coefficient of variation the gaps should have: 0 constant, 1 Poisson. Absent in a
    /// saturating or closed run, and where it follows from a trace alone.
    pub intended_c2: Option<f64>,
    /// ... and had, over the gaps of each producer's due times, pooled. Absent with fewer than 2 gaps.
    pub scheduled_c2: Option<f64>,
    /// Gaps it was taken over.
    pub gaps: u64,
}

/// What went before the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    /// How long it took.
    pub duration_s: f64,
    /// Whether rate and latency had become steady; absent if the clock alone was to end it.
    pub steady: Option<bool>,
}

/// What the records were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSummary {
    /// `fixed`, `apache-log`, `iot`, ...
    pub name: String,
    /// Payload bytes of a record, the mean over everything acknowledged.
    pub mean_payload_bytes: f64,
    /// Distinct keys.
    pub keys: u64,
    /// How records choose among them.
    pub key_distribution: String,
    /// Acknowledged records of the busiest shard over the mean of all shards; 1 is even.
    pub shard_skew: f64,
}

/// Where the time of a burst scenario went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BurstReport {
    /// Records per second between bursts.
    pub base_rate: f64,
    /// ... and in them.
    pub peak_rate: f64,
    /// Length of a burst.
    pub on_s: f64,
    /// From the beginning of one to the beginning of the next.
    pub every_s: f64,
    /// Bursts that began in the window.
    pub bursts: u64,
    /// Records intended between bursts.
    pub calm: Distributions,
    /// Records intended in a burst.
    pub burst: Distributions,
    /// Most records due and not acknowledged, or acknowledged and not read, at any look.
    pub backlog_peak: u64,
    /// Longest time from a burst's end until what was due or unread was back to what it was before the
    /// burst, within 100 ms of traffic; absent if that did not happen after at least one.
    pub recovery_s: Option<f64>,
}

/// Groups that were away, and their return, while producers went on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BacklogReport {
    /// How long they were away.
    pub outage_s: f64,
    /// How many groups.
    pub groups_paused: u32,
    /// Records that waited for them when they returned, over all of them.
    pub backlog_records: u64,
    /// ... and payload bytes.
    pub backlog_bytes: u64,
    /// Whether they caught up.
    pub drained: bool,
    /// How long that took; absent if they did not before the limit.
    pub drain_s: Option<f64>,
    /// Records per second they read meanwhile.
    pub drain_rate: f64,
    /// ... and payload bytes per second.
    pub drain_bytes_per_s: f64,
    /// Records acknowledged per second meanwhile.
    pub arrival_rate: f64,
    /// Before the outage.
    pub before: LiveLatency,
    /// During it.
    pub outage: LiveLatency,
    /// While the paused groups caught up.
    pub draining: LiveLatency,
    /// Intended send time to reading by the paused groups; not in `latency_us.propagation`.
    pub paused_propagation: Distribution,
}

/// What producers, and the groups that were never away, saw in one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveLatency {
    /// Intended send time to acknowledgement.
    pub response: Distribution,
    /// Intended send time to reading.
    pub propagation: Distribution,
}

/// A bound that was set on a percentile, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// As it was asked for: `response.p99`, `propagation.max`, ...
    pub of: String,
    /// At most this, in microseconds.
    pub bound_us: f64,
    /// What was measured; absent with too few records for that percentile.
    pub measured_us: Option<f64>,
    /// Whether it was met; absent if nothing was measured, or the run is not valid.
    pub met: Option<bool>,
}

/// What a run found. Records of the warm-up count in the integrity figures (`checked_records`, `lost` to
/// `unread`, `refused`, `errors`, `unknown`), not in rates and latencies. All numbers are finite.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Whether the measurement can be trusted; see `void_reason`.
    pub valid: bool,
    /// Why not.
    pub void_reason: Option<String>,
    /// The bounds it was to meet, filled by who set them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slo: Vec<Slo>,
    /// Whether the run was stopped before its time.
    pub interrupted: bool,
    /// Why it ended before its time though nobody asked it to: the target went away or hung.
    pub ended_early: Option<String>,
    /// What it was to find out.
    pub scenario: ScenarioKind,
    /// How records were offered.
    pub mode: Mode,
    /// The target.
    pub target: String,
    /// The server's release.
    pub server: String,
    /// The stream; the first of them if `streams` is more than 1.
    pub stream: String,
    /// Streams written to.
    pub streams: u32,
    /// Shards of each that were open when the run began.
    pub shards: u32,
    /// When the stream acknowledges: `durable` or `written`.
    pub ack: String,
    /// Consumer groups, each of which reads everything.
    pub groups: u32,
    /// Consumers of all groups together.
    pub consumers: u32,
    /// Seed of arrivals, keys and filler.
    pub seed: u64,
    /// Number in the header of every record of this run.
    pub run_id: u64,
    /// When the measured window began, nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// What went before the measured window.
    pub warmup: WarmUp,
    /// Length of the measured window.
    pub duration_s: f64,
    /// What the records were.
    pub workload: WorkloadSummary,
    /// Their due times.
    pub arrivals: Arrivals,
    /// Records per second due by the schedule in the window; sent, in a saturating or closed run.
    pub offered_rate: f64,
    /// Records per second of those that were sent by the end of the window, give or take linger and
    /// `LATE_P99_MAX`. How late each of them was is in the latencies.
    pub achieved_rate: f64,
    /// Records due within the window that were acknowledged, whenever that was.
    pub acked_records: u64,
    /// Acknowledgements within the window, per second.
    pub records_per_s: f64,
    /// Their payload bytes, per second.
    pub bytes_per_s: f64,
    /// Records due within the window that were read, each once per group.
    pub consumed_records: u64,
    /// Reads within the window, per second, over all groups.
    pub consumed_per_s: f64,
    /// Whether consumers read every shard: otherwise the records of some were not checked.
    pub checked: bool,
    /// Acknowledged records of the whole run in shards that were read.
    pub checked_records: u64,
    /// Acknowledged, and never read though the consumer went past them or to the end of the shard.
    pub lost: u64,
    /// Read again.
    pub duplicated: u64,
    /// Read after a later record of the same producer and shard; in shards that came up during the run by a split or
    /// merge, after a later one of the same producer and key.
    pub reordered: u64,
    /// Read with a wrong checksum, or where this run never put them.
    pub corrupted: u64,
    /// Acknowledged, and removed by retention before they were read.
    pub trimmed: u64,
    /// Acknowledged, and not yet reached by the consumer when the drain timeout ended the run.
    pub unread: u64,
    /// Records the target said it did not store.
    pub refused: u64,
    /// ... that were read all the same.
    pub refused_but_read: u64,
    /// Records the target dropped, as the stream's backpressure says.
    #[serde(default)]
    pub dropped: u64,
    /// Records the target left out, as the sample of the stream's backpressure says.
    #[serde(default)]
    pub sampled_out: u64,
    /// Records of either kind that were read all the same.
    #[serde(default)]
    pub shed_but_read: u64,
    /// What the target's own account says of the run; absent if it keeps none, or was restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Records whose fate the target did not tell.
    pub unknown: u64,
    /// ... that were read: they are stored.
    pub unknown_but_read: u64,
    /// Records due that were not sent: the generator or the target was too slow.
    pub unsent: u64,
    /// Failed requests: batches not acknowledged, and reads that had to be begun again.
    pub errors: u64,
    /// ... of them reads, or attempts to learn up to where to read. With `unread` records these are not
    /// merely late: nobody could get at them.
    pub read_errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
    /// By distribution, in microseconds.
    pub latency_us: Distributions,
    /// For how long shards acknowledged nothing though records were due for them.
    #[serde(default)]
    pub ack_pause_ms: AckPauses,
    /// Reads whose arrival stamp lay after the reader's clock (two clocks that differ); counted as 0.
    pub delivery_before_arrival: u64,
    /// The generator's own lateness.
    pub generator_late: Lateness,
    /// Share of the measured window for which the generator's busiest worker thread had a CPU or waited for one, 0 to 1:
    /// near 1 the generator did all it could, and what was delivered may be its bound and not the target's. Absent
    /// where the system does not tell.
    #[serde(default)]
    pub generator_busy: Option<f64>,
    /// Share of the machine's CPU time that the hypervisor gave to others during the run, 0 to 1; absent
    /// where the system does not tell.
    pub steal: Option<f64>,
    /// Worker threads.
    pub workers: usize,
    /// Of the burst scenario.
    pub burst: Option<BurstReport>,
    /// Of the backlog scenario.
    pub backlog: Option<BacklogReport>,
    /// What a reader must know to read the figures right (coordinated omission, low counts, clocks), in
    /// sentences.
    pub notes: Vec<String>,
    /// The machine.
    pub environment: Environment,
    /// What about the machine makes the figures worse, or not comparable.
    pub lints: Vec<Lint>,
    /// The command that repeats it, word by word, every default written out; empty if it was not started
    /// from a command line.
    pub command: Vec<String>,
    /// What was asked.
    pub options: LoadOptions,
}

impl Report {
    /// Whether everything acknowledged was read once, in order and unharmed, or removed by retention, or not
    /// reached (`unread`, which makes the run invalid). If not `checked`, as far as shards were read.
    pub fn intact(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.reordered == 0
            && self.corrupted == 0
            && self.refused_but_read == 0
            && self.shed_but_read == 0
    }
}

/// A run written down for people: Markdown with the figures, and one HTML file with charts that fetches nothing
/// and runs nothing. Without samples or histograms both are shorter.
pub(crate) fn write_reports(run: &RunFiles) -> (String, String) {
    let document = pages::document(&run.report, &run.samples, |name| run.histogram(name));
    (markdown::markdown(&document), html::html(&document))
}

/// A search written down for people, in the same two forms.
pub(crate) fn search_reports(file: &crate::search::SearchFile) -> (String, String) {
    let document = search::search(file);
    (markdown::markdown(&document), html::html(&document))
}

/// A sweep written down for people.
pub(crate) fn sweep_reports(file: &crate::search::SweepFile) -> (String, String) {
    let document = search::sweep(file);
    (markdown::markdown(&document), html::html(&document))
}
