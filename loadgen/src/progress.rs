//! What a run tells while it goes on.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Distribution;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Sending, not measured yet.
    Warmup,
    /// Sending and measured.
    Measure,
    /// ... while one or more consumer groups are away.
    Outage,
    /// ... while these are back and catch up.
    Catchup,
    /// Waiting for acknowledgements and for the consumers.
    Drain,
}

/// Once a second, and one line of `samples.jsonl`. All numbers are finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Where the run was in the middle of the interval.
    pub phase: Phase,
    /// Since the measured window began, at the interval's end; negative before.
    pub t_s: f64,
    /// Since the first due time.
    pub elapsed_s: f64,
    /// Warm-up and measured window together; absent while the end of the warm-up is open.
    pub total_s: Option<f64>,
    /// Length of the interval.
    pub interval_s: f64,
    /// Records due by the schedule since the first record; for a saturating or closed run, records sent.
    pub offered: u64,
    /// Records sent since the first.
    pub sent: u64,
    /// Records acknowledged since the first.
    pub acked: u64,
    /// Payload bytes acknowledged.
    pub acked_bytes: u64,
    /// Records read and in order, by all groups together.
    pub consumed: u64,
    /// Payload bytes read.
    pub consumed_bytes: u64,
    /// Records refused for good.
    pub refused: u64,
    /// Failed requests, whatever became of them.
    pub errors: u64,
    /// Records due and not yet sent: the generator is late, or the target does not take them.
    pub unsent: u64,
    /// Records due whose fate is not known yet: not acknowledged, refused, dropped, sampled out, or given up as unknown.
    /// Absent in samples of before it was counted.
    #[serde(default)]
    pub unanswered: Option<u64>,
    /// Records acknowledged and not yet read, over all groups, in the shards that are read; 0 without
    /// consumers.
    pub backlog: u64,
    /// Records that fell due per second in the interval.
    pub offered_per_s: f64,
    /// Records sent per second in the interval.
    pub sent_per_s: f64,
    /// Records acknowledged per second in the interval.
    pub acked_per_s: f64,
    /// Payload bytes acknowledged per second in the interval.
    pub acked_bytes_per_s: f64,
    /// Records read per second in the interval.
    pub consumed_per_s: f64,
    /// Payload bytes read per second in the interval.
    pub consumed_bytes_per_s: f64,
    /// Intended send time to acknowledgement, of the interval's acknowledgements.
    pub response: Distribution,
    /// Intended send time to reading, of the interval's reads.
    pub propagation: Distribution,
    /// Intended send time to sending, of what was sent in the interval.
    pub send_lag: Distribution,
    /// Sending to acknowledgement, of the interval's acknowledgements.
    pub service: Distribution,
    /// The target's arrival stamp to reading, of the interval's reads.
    pub delivery: Distribution,
    /// Share of CPU time the hypervisor gave to others in the interval, 0 to 1; absent where the system
    /// does not tell.
    pub steal: Option<f64>,
    /// Share of the interval for which the generator's busiest worker thread had a CPU or waited for one, 0 to 1: near 1
    /// the generator does all it can. Absent where the system does not tell.
    #[serde(default)]
    pub generator_busy: Option<f64>,
}

/// One interval, as an [`Observer`] sees it.
#[derive(Debug)]
pub struct Tick<'a> {
    /// Counters and percentiles.
    pub progress: &'a Progress,
    /// When the interval began, nanoseconds since 1970 UTC.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Of the interval's records that were intended in the measured window: nanoseconds by name, named and
    /// in the order of [`crate::Distributions::named`].
    pub histograms: [(&'static str, &'a Histogram<u64>); 6],
}

/// Watches a run: called once a second, on the thread that called [`crate::run`].
pub trait Observer {
    /// An interval has passed.
    fn tick(&mut self, tick: &Tick<'_>);
}

/// Watches nothing.
impl Observer for () {
    fn tick(&mut self, _: &Tick<'_>) {}
}

/// One after the other.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.0.tick(tick);
        self.1.tick(tick);
    }
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn tick(&mut self, tick: &Tick<'_>) {
        (**self).tick(tick);
    }
}
