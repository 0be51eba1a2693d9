//! What a run tells while it goes on.

use std::time::Duration;

use serde::Serialize;

use crate::Distribution;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Sending, not measured yet.
    Warmup,
    /// Sending and measured.
    Measure,
    /// Waiting for acknowledgements and for the consumers.
    Drain,
}

/// Once a second. Counters run from the first record, warm-up included; `interval`, `response` and
/// `propagation` are about the time since the last report alone.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// Where the run is.
    pub phase: Phase,
    /// Since the first due time.
    pub elapsed: Duration,
    /// Warm-up and measured window together.
    pub total: Duration,
    /// Records due so far by the schedule; for a saturating or closed run, records sent.
    pub offered: u64,
    /// Records sent.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Payload bytes acknowledged.
    pub acked_bytes: u64,
    /// Records read and in order.
    pub consumed: u64,
    /// Payload bytes read.
    pub consumed_bytes: u64,
    /// Records refused for good.
    pub refused: u64,
    /// Failed requests, whatever became of them.
    pub errors: u64,
    /// Records due and not yet sent: the generator is late, or the target does not take them.
    pub unsent: u64,
    /// Records acknowledged and not yet read, in the shards that are read; 0 without consumers.
    pub backlog: u64,
    /// Length of the interval.
    pub interval: Duration,
    /// Acknowledged records per second in the interval.
    pub acked_per_s: f64,
    /// Acknowledged payload bytes per second in the interval.
    pub acked_bytes_per_s: f64,
    /// Records read per second in the interval.
    pub consumed_per_s: f64,
    /// Payload bytes read per second in the interval.
    pub consumed_bytes_per_s: f64,
    /// Intended send time to acknowledgement, of the interval's acknowledgements.
    pub response: Distribution,
    /// Intended send time to reading, of the interval's reads.
    pub propagation: Distribution,
}
