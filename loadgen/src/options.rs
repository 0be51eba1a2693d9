//! What a run is asked to do, and the check that it can be done.

mod durations;
mod rate;
mod scenario;
#[cfg(test)]
mod tests;
mod validate;

use std::time::Duration;

use highwater_wire::{AckMode, Compression};
use serde::{Deserialize, Serialize};

use crate::schedule::Profile;
use crate::workload::{Keys, Workload};
use crate::{LATE_P99_MAX, STEAL_MAX};
pub(crate) use durations::{microseconds, seconds};
pub use rate::{Arrival, Rate};
pub use scenario::{Scenario, WarmUpRule};
pub(crate) use validate::between;

/// A run. [`LoadOptions::default`] gives the values named with each field.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadOptions {
    /// What the run goes through. Default a plain run.
    pub scenario: Scenario,
    /// Server, `host:port`, or another target as the caller of [`crate::run_on`] names it. Default
    /// `127.0.0.1:7411`.
    pub target: String,
    /// Stream to write; created if missing. With several streams, the part of their names before `-0`,
    /// `-1` and so on. Default `load-` and eight random hexadecimal digits.
    pub stream: String,
    /// Streams, 1 to 1,024. Every producer writes to each in turn. Default 1.
    pub streams: u32,
    /// Shards of each stream this run creates, 1 to 4,096. An existing stream keeps its own. Default 1.
    pub shards: u32,
    /// Acknowledgement of a stream this run creates. Default durable.
    pub ack: AckMode,
    /// Bytes kept of a stream this run creates, over all shards: 8 MiB at least, or 0 for no bound. Default 4 GiB.
    pub retention_bytes: u64,
    /// Records per second in total. Default 10,000.
    pub rate: Rate,
    /// Spacing of the due times. Default constant.
    pub arrival: Arrival,
    /// How the rate changes with time. Default flat.
    pub profile: Profile,
    /// Length of the measured window, more than 0 (the outage of a backlog scenario and the catch-up come
    /// on top). Default 10 s.
    #[serde(rename = "duration_s", with = "seconds")]
    pub duration: Duration,
    /// Sent before the measured window and not measured. Default until steady, at most 30 s.
    pub warmup: WarmUpRule,
    /// What records look like. Default 1 KiB of filler each.
    pub workload: Workload,
    /// Partition keys, for workloads that do not bring their own.
    pub keys: Keys,
    /// Producers over all streams, each with its own order in every shard; 1 to 4,096. Producers, streams
    /// and shards multiplied may come to 16,384. Default 1.
    pub producers: usize,
    /// Consumer groups, each of which reads everything; 1 to 64. Default 1.
    pub groups: usize,
    /// Consumers over all groups; `None` one per group and shard, `Some(0)` none (then loss is not
    /// judged), otherwise at least one per group and at most one per group and shard. Default `None`.
    pub consumers: Option<usize>,
    /// Closed loop: this many callers with one record outstanding each, timed from the actual send.
    /// With a rate they share it, and a caller held up past its due times sends at once until it has
    /// caught up. `producers`, `batch_bytes`, `linger` and `inflight` must be left alone then. Default
    /// `None`: open loop.
    pub clients: Option<usize>,
    /// A batch is sent when it has this many bytes. Default 256 KiB.
    pub batch_bytes: usize,
    /// ... or this long after the intended time of its first record; at once if no further record of
    /// the producer for that shard falls due within that time. Default 200 µs.
    #[serde(rename = "linger_us", with = "microseconds")]
    pub linger: Duration,
    /// Unacknowledged batches per producer and shard, 1 to 4,096; in all at most 4 GiB. Default 16.
    pub inflight: usize,
    /// Connections to each of the server's cores, per worker thread; 1 to 64. Default 1.
    pub connections: usize,
    /// How batches are compressed, by the generator as by any client; only for a server. Default not at all.
    #[serde(default)]
    pub compression: Compression,
    /// The name by which the server knows the generator's connections, and may bound them together; 1 to 128
    /// characters. Default `highwater-loadgen`.
    #[serde(default = "client_name")]
    pub client_name: String,
    /// Producers have names that the server keeps: this with `-` and the number of the lane (producer and shard) behind
    /// it. A run with the same name fences off one that is still under way. Only for a server. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// CPUs the worker threads are pinned to, one worker each. Empty: not pinned, and as many workers as
    /// there are producers, at most one less than there are CPUs. Default empty.
    pub cores: Vec<usize>,
    /// CPUs the engine's threads are pinned to, if the target is embedded. Default empty.
    pub engine_cores: Vec<usize>,
    /// Seed of arrivals, keys, sizes and filler. Default random.
    pub seed: u64,
    /// The last stretch before a due time is waited for awake. 0 never spins (and is late by the
    /// timer's 50 to 100 µs). Default 60 µs.
    #[serde(rename = "spin_us", with = "microseconds")]
    pub spin: Duration,
    /// How long to wait at the end for acknowledgements, and then for the consumers. Default 30 s.
    #[serde(rename = "drain_timeout_s", with = "seconds")]
    pub drain_timeout: Duration,
    /// Groups keep their positions at the target, about once a second and at the end, so that whoever watches it
    /// sees them fall behind and catch up. Default true.
    #[serde(default)]
    pub commit: bool,
    /// Streams that held nothing before the run are removed after it. Default false.
    #[serde(default)]
    pub delete_stream: bool,
    /// The target may die and come back: the run waits for it as long as it lasts. Default false.
    pub tolerate_restart: bool,
    /// Nothing answered for so long while something is outstanding ends the run early, unless restarts
    /// are tolerated. More than 0. Default 10 s.
    #[serde(rename = "target_timeout_s", with = "seconds")]
    pub target_timeout: Duration,
    /// Lateness of the generator itself at the 99th percentile that voids a run; more than 0. Default
    /// [`LATE_P99_MAX`].
    #[serde(rename = "late_bound_us", with = "microseconds")]
    pub late_bound: Duration,
    /// Share of the machine's CPU time given to others by the hypervisor that voids a run, 0 to 1. Default
    /// [`STEAL_MAX`].
    #[serde(default = "steal_bound")]
    pub steal_bound: f64,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            scenario: Scenario::Run,
            target: "127.0.0.1:7411".to_owned(),
            stream: format!("load-{:08x}", fastrand::u32(..)),
            streams: 1,
            shards: 1,
            ack: AckMode::Durable,
            retention_bytes: 4 << 30,
            rate: Rate::PerSecond(10_000.0),
            arrival: Arrival::Constant,
            profile: Profile::Flat,
            duration: Duration::from_secs(10),
            warmup: WarmUpRule::Steady { most: Duration::from_secs(30) },
            workload: Workload::Fixed { size: 1 << 10 },
            keys: Keys::default(),
            producers: 1,
            groups: 1,
            consumers: None,
            clients: None,
            batch_bytes: 256 << 10,
            linger: Duration::from_micros(200),
            inflight: 16,
            connections: 1,
            compression: Compression::None,
            client_name: client_name(),
            producer: None,
            cores: Vec::new(),
            engine_cores: Vec::new(),
            // JSON readers keep integers exactly only up to 2⁵³.
            seed: fastrand::u64(..1 << 53),
            spin: Duration::from_micros(60),
            drain_timeout: Duration::from_secs(30),
            commit: true,
            delete_stream: false,
            tolerate_restart: false,
            target_timeout: Duration::from_secs(10),
            late_bound: LATE_P99_MAX,
            steal_bound: STEAL_MAX,
        }
    }
}

fn steal_bound() -> f64 {
    STEAL_MAX
}

fn client_name() -> String {
    "highwater-loadgen".to_owned()
}

/// Most characters of a client's name.
pub(crate) const MAX_CLIENT_NAME: usize = 128;
/// Most producers or closed-loop callers.
pub(crate) const MAX_PRODUCERS: usize = 4096;
/// Most streams of one run.
pub(crate) const MAX_STREAMS: usize = 1024;
/// Most consumer groups.
pub(crate) const MAX_GROUPS: usize = 64;
/// Most lanes: each has a window of batches and a history of its own.
pub(crate) const MAX_LANES: usize = 16_384;

/// Least that a server is told to keep of a stream: two segments of the smallest size there is (storage/engine,
/// `control/settings.rs`). One whose segments are larger refuses more than this, in words of its own.
pub(crate) const RETENTION_LEAST: u64 = 8 << 20;

/// Longest time any option may give: far within what nanoseconds in 64 bits hold.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 3600);

impl LoadOptions {
    /// The longest the run may take: every part at its limit.
    pub fn longest(&self) -> Duration {
        let scenario = match self.scenario {
            Scenario::Backlog { outage, drain_limit, .. } => outage.saturating_add(drain_limit),
            Scenario::Run | Scenario::Burst => Duration::ZERO,
        };
        // Acknowledgements, the marks and the readers are each waited for.
        let drain = self.drain_timeout.saturating_mul(3);
        [self.warmup.most(), self.duration, scenario, drain, Duration::from_secs(60)]
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add)
    }

    /// The names of the streams: that of `stream`, or with a number at the end if there are several.
    pub fn stream_names(&self) -> impl Iterator<Item = String> {
        let several = self.streams > 1;
        (0..self.streams.max(1)).map(move |n| match several {
            true => format!("{}-{n}", self.stream),
            false => self.stream.clone(),
        })
    }
}
