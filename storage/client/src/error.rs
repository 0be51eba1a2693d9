//! One error enum per kind of operation. All can be cloned, because one failure may answer many records.

use std::io;
use std::time::Duration;

use highwater_wire::{BatchError, ErrorCode, WireError};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The target is not `HOST:PORT`.
    #[error("target {target:?} is not HOST:PORT")]
    Target {
        /// As given.
        target: String,
    },
    /// The name does not resolve, or nobody accepts there.
    #[error("cannot connect to {address}: {message}")]
    Io {
        /// Host and port.
        address: String,
        /// The kind of failure.
        kind: io::ErrorKind,
        /// What the system said.
        message: String,
    },
    /// Not connected and greeted in time.
    #[error("no greeting from {address} within {after:?}")]
    TimedOut {
        /// Host and port.
        address: String,
        /// The limit, `connect_timeout`.
        after: Duration,
    },
    /// The server refused the greeting.
    #[error("{address} refused the connection: {error}")]
    Refused {
        /// Host and port.
        address: String,
        /// Its words.
        error: WireError,
    },
    /// Whatever answered does not speak this protocol.
    #[error("{address} does not speak Highwater: {reason}")]
    Protocol {
        /// Host and port.
        address: String,
        /// What came instead.
        reason: String,
    },
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before the reply: whether the request was carried out is unknown.
    #[error("connection to {address} lost: {reason}")]
    Disconnected {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// No reply in time: whether the request was carried out is unknown.
    #[error("no reply within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The server refused.
    #[error("refused ({:?}): {}", .0.code, .0.message)]
    Refused(WireError),
    /// The reply makes no sense.
    #[error("unexpected reply: {0}")]
    Protocol(String),
    /// The stream has no such shard.
    #[error("stream {stream} has {shards} shards; there is no shard {shard}")]
    NoShard {
        /// The stream's name.
        stream: String,
        /// The shard asked for.
        shard: u32,
        /// How many there are.
        shards: usize,
    },
    /// A batch came damaged.
    #[error("batch received is damaged: {0}")]
    Corrupt(#[from] BatchError),
}

impl ClientError {
    /// The server's code, if it was the server who refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused(error)
            | ClientError::Connect(ConnectError::Refused { error, .. }) => Some(error.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn retriable(&self) -> bool {
        match self {
            ClientError::Connect(ConnectError::Io { .. } | ConnectError::TimedOut { .. })
            | ClientError::Disconnected { .. }
            | ClientError::TimedOut { .. } => true,
            ClientError::Refused(error)
            | ClientError::Connect(ConnectError::Refused { error, .. }) => error.code.retriable(),
            _ => false,
        }
    }

    /// How long the server asked to wait.
    pub fn retry_after(&self) -> Duration {
        match self {
            ClientError::Refused(error)
            | ClientError::Connect(ConnectError::Refused { error, .. }) => {
                Duration::from_millis(u64::from(error.retry_after_ms))
            }
            _ => Duration::ZERO,
        }
    }
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The batch may or may not be stored.
    #[error("the fate of the batch is unknown: {0}")]
    FateUnknown(ClientError),
    /// The batch is not stored.
    #[error("the batch is not stored: {0}")]
    NotStored(ClientError),
    /// The batch is stored, by an attempt so long ago that the server cannot tell its sequence numbers.
    #[error("the batch is stored, but the server no longer knows where")]
    StoredBefore,
    /// The batch is larger than the server accepts; it was not sent.
    #[error("batch of {bytes} bytes; the server's limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: u32,
    },
    /// The server refused the record for good; it is not stored, others of its batch may be.
    #[error("the record is refused ({code:?}): {}", .code.meaning())]
    Refused {
        /// Why.
        code: ErrorCode,
    },
    /// The shard was closed by a split or merge, and the batch was meant for it alone; it is not stored.
    #[error("the shard was closed by a split or merge; the batch is not stored")]
    ShardClosed,
    /// There are no records in the batch; it was not sent.
    #[error("batch without records")]
    Empty,
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Payload, key and headers together are larger than the server accepts.
    #[error("record of {bytes} bytes; the server's limit is {limit}")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: u32,
    },
    /// The key is too long.
    #[error("partition key of {chars} characters; the limit is {limit}")]
    KeyTooLong {
        /// Its length.
        chars: usize,
        /// The limit.
        limit: usize,
    },
    /// The key is not text.
    #[error("partition key is not UTF-8")]
    KeyNotUtf8,
    /// The record cannot be encoded.
    #[error("record cannot be encoded: {0}")]
    Encode(BatchError),
    /// The stream was made so that records are dropped, or sampled, beyond its quota; this one is not stored.
    #[error("the record was {}", if *.sampled { "sampled out" } else { "dropped" })]
    Shed {
        /// It was not in the sample, rather than dropped.
        sampled: bool,
    },
    /// The record's batch failed.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The shard cannot be reached; the record is not stored.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
}

/// Why a consumer ended. After an error the consumer may be asked again: it goes on at its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// Refused, or not reachable until the retry deadline.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Retention removed the record wanted.
    #[error("position {position} was removed by retention; the oldest record kept is {oldest}")]
    Trimmed {
        /// Wanted.
        position: u64,
        /// Oldest sequence number kept.
        oldest: u64,
    },
    /// The position lies beyond the high-water mark.
    #[error("position {position} lies beyond the high-water mark {high_water}")]
    BeyondEnd {
        /// Wanted.
        position: u64,
        /// The mark.
        high_water: u64,
    },
    /// A batch came damaged.
    #[error("the batch at position {position} is damaged: {error}")]
    Corrupt {
        /// Position of the consumer.
        position: u64,
        /// What is wrong.
        error: BatchError,
    },
    /// The server left records out.
    #[error("records {expected} to {found} are missing from a delivery")]
    Gap {
        /// Next sequence number expected.
        expected: u64,
        /// What came.
        found: u64,
    },
}
