//! Why a run did not take place, or could not be finished.

use std::time::Duration;

use highwater_wire::NameError;

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
    /// A rate that is no rate.
    #[error("rate is {rate} records/s; it must be more than 0 and at most 1e9")]
    Rate {
        /// What was asked.
        rate: f64,
    },
    /// A time out of its range.
    #[error("{field} is {value:?}; it must not be longer than 366 days, and duration not be 0")]
    Duration {
        /// Which option.
        field: &'static str,
        /// What was asked.
        value: Duration,
    },
    /// A stream name that is not allowed.
    #[error("stream {name:?}: {source}")]
    StreamName {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A record of this size does not fit what the server accepts.
    #[error(
        "record_size {record_size} with its {overhead} bytes of key and framing is over the server's \
         limit of {limit} bytes"
    )]
    RecordTooLarge {
        /// What was asked.
        record_size: usize,
        /// Bytes beside the payload.
        overhead: usize,
        /// The server's limit for what does not fit (a record, or a batch).
        limit: u32,
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
    /// More consumers than shards.
    #[error("{consumers} consumers for {shards} shards; there can be one per shard")]
    Consumers {
        /// What was asked.
        consumers: usize,
        /// What the stream has.
        shards: usize,
    },
    /// No partition key was found for a shard's hash range (it is too narrow to hit by chance).
    #[error("no partition key found for shard {shard}: its hash range is too narrow")]
    NoKey {
        /// The shard.
        shard: u32,
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
    /// [`crate::run`] blocks and starts runtimes of its own.
    #[error("run was called inside an asynchronous runtime; call it from a plain thread")]
    InsideRuntime,
    /// The stop flag was set before the first record.
    #[error("stopped before the first record was sent")]
    Stopped,
}
