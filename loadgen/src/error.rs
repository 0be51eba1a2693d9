//! Why a run did not take place, or could not be finished.

use std::time::Duration;

use highwater_wire::NameError;

use crate::schedule::ScheduleError;
use crate::workload::WorkloadError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A number out of its range.
    #[error("{field} is {value}; it must be {least} to {most}")]
    OutOfRange {
        /// Which option.
        field: &'static str,
        /// What was asked.
        value: String,
        /// Smallest allowed.
        least: usize,
        /// Largest allowed.
        most: usize,
    },
    /// A stream that would keep less than a server can.
    #[error(
        "retention_bytes is {value}; it must be {least} at least (two segments), or 0 for no bound"
    )]
    Retention {
        /// What was asked.
        value: u64,
        /// Smallest allowed.
        least: u64,
    },
    /// A rate that is no rate.
    #[error("rate is {rate} records/s; it must be more than 0 and at most 1e9")]
    Rate {
        /// What was asked.
        rate: f64,
    },
    /// A time out of its range.
    #[error("{field} is {value:?}; it must be {least} and at most 366 days")]
    Duration {
        /// Which option.
        field: &'static str,
        /// What was asked.
        value: Duration,
        /// The lower limit, in words.
        least: &'static str,
    },
    /// Options that are possible each, but not together.
    #[error("{field} is {value}: {why}")]
    Contradiction {
        /// Which option.
        field: &'static str,
        /// What was asked.
        value: String,
        /// What it contradicts.
        why: &'static str,
    },
    /// Due times that cannot be made.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Records that cannot be made.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A client name that is not allowed.
    #[error(
        "client_name is {name:?}; it must have 1 to {limit} characters, no control characters among them"
    )]
    ClientName {
        /// What was asked.
        name: String,
        /// Most characters.
        limit: usize,
    },
    /// A producer name that is not allowed.
    #[error("producer {name:?} (and the number of a lane behind it): {source}")]
    ProducerName {
        /// What was asked.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A stream name that is not allowed.
    #[error("stream {name:?}: {source}")]
    StreamName {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// Records of this size do not fit what the target accepts.
    #[error(
        "payloads of up to {payload} bytes with {overhead} bytes of key, headers and framing are \
         over the target's limit of {limit} bytes"
    )]
    RecordTooLarge {
        /// The largest payload.
        payload: usize,
        /// Bytes beside it.
        overhead: usize,
        /// The target's limit for what does not fit (a record, or a batch).
        limit: u32,
    },
    /// Too much to keep apart.
    #[error(
        "producers ({producers}) times the {shards} shards of {streams} streams are {lanes} lanes; the limit \
         is {limit}"
    )]
    Lanes {
        /// Producers, or closed-loop clients.
        producers: usize,
        /// Streams.
        streams: usize,
        /// Shards over all streams.
        shards: usize,
        /// Producers times shards.
        lanes: usize,
        /// The limit.
        limit: usize,
    },
    /// A target that stalls would make the generator hold too much.
    #[error(
        "inflight batches of all producers and shards may come to {bytes} bytes; the limit is {limit}: \
         fewer of these, or smaller batches"
    )]
    Memory {
        /// Producers, shards, `inflight` and the size of a batch, multiplied.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A key that belongs to no shard.
    #[error("stream {stream:?} has no shard for the key {key:?}")]
    NoShard {
        /// The stream.
        stream: String,
        /// The key.
        key: String,
    },
    /// A CPU that does not exist, or not for this process.
    #[error(
        "cannot pin a worker to CPU {core}: it does not exist, or is not allowed for this process"
    )]
    Core {
        /// The CPU.
        core: usize,
    },
    /// The target could not be reached or refused before the first record.
    #[error("target {target}: {doing}: {message}")]
    Target {
        /// The target.
        target: String,
        /// What was attempted.
        doing: &'static str,
        /// What was answered.
        message: String,
    },
    /// The operating system refused something the generator itself needs.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// The refusal.
        source: std::io::Error,
    },
    /// A worker thread ended without its result.
    #[error("worker {worker} ended unexpectedly")]
    Worker {
        /// Which, from 0.
        worker: usize,
    },
    /// A target this build does not know, or cannot have.
    #[error("target {target:?}: {why}")]
    NoTarget {
        /// What was asked.
        target: String,
        /// Why not.
        why: String,
    },
    /// [`crate::run`] blocks and starts runtimes of its own.
    #[error("run was called inside an asynchronous runtime; call it from a plain thread")]
    InsideRuntime,
    /// The stop flag was set before the first record.
    #[error("stopped before the first record was sent")]
    Stopped,
}

impl LoadError {
    /// Whether the run was asked for wrongly: nothing that is tried again will succeed unless the options
    /// change.
    pub fn usage(&self) -> bool {
        match self {
            LoadError::OutOfRange { .. }
            | LoadError::Retention { .. }
            | LoadError::Rate { .. }
            | LoadError::Duration { .. }
            | LoadError::Contradiction { .. }
            | LoadError::Schedule(_)
            | LoadError::Workload(_)
            | LoadError::StreamName { .. }
            | LoadError::ClientName { .. }
            | LoadError::ProducerName { .. }
            | LoadError::RecordTooLarge { .. }
            | LoadError::Lanes { .. }
            | LoadError::Memory { .. }
            | LoadError::NoShard { .. }
            | LoadError::NoTarget { .. }
            | LoadError::Core { .. } => true,
            LoadError::Target { .. }
            | LoadError::System { .. }
            | LoadError::Worker { .. }
            | LoadError::InsideRuntime
            | LoadError::Stopped => false,
        }
    }

    /// The field of [`crate::LoadOptions`] that is to blame, if it is one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            LoadError::OutOfRange { field, .. }
            | LoadError::Duration { field, .. }
            | LoadError::Contradiction { field, .. } => Some(field),
            LoadError::Rate { .. } => Some("rate"),
            LoadError::Retention { .. } => Some("retention_bytes"),
            LoadError::Schedule(_) => Some("profile"),
            LoadError::Workload(_) | LoadError::RecordTooLarge { .. } => Some("workload"),
            LoadError::StreamName { .. } => Some("stream"),
            LoadError::ClientName { .. } => Some("client_name"),
            LoadError::ProducerName { .. } => Some("producer"),
            LoadError::Lanes { .. } => Some("producers"),
            LoadError::Memory { .. } => Some("inflight"),
            LoadError::Core { .. } => Some("cores"),
            LoadError::NoTarget { .. } => Some("target"),
            _ => None,
        }
    }
}
