//! What a core is asked and what it answers: plain values, no clock, no sockets.

use std::sync::Arc;

use highwater_ring::SharedBuf;
use highwater_wire::{
    AckMode, Backpressure, ErrorCode, Quota, RecordOutcome, ShardCounters, ShardId, WireError,
};

use crate::quota::Meters;

/// The two clocks, read by whoever drives a core and passed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, nanoseconds from an arbitrary start; never goes back.
    pub mono_ns: u64,
    /// Wall clock, nanoseconds since 1970 UTC; may jump.
    pub wall_ns: u64,
}

/// What a shard is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSpec {
    /// Which.
    pub id: ShardId,
    /// The stream's name, for telemetry and messages.
    pub stream: String,
    /// When appends are acknowledged.
    pub ack: AckMode,
    /// Age in milliseconds after which segments go; 0 keeps.
    pub retention_ms: u64,
    /// Bytes this shard may keep on disk; 0 for no bound.
    pub retention_bytes: u64,
    /// Records below this sequence number were given up: they are not read any more, and their segments go.
    pub trimmed: u64,
    /// A split or merge closed it: it takes no appends.
    pub closed: bool,
    /// What it lets pass, and what becomes of the rest.
    pub policy: Policy,
}

impl Default for ShardSpec {
    /// Shard 0 of stream 0, without a name: everything kept, acknowledged when durable.
    fn default() -> ShardSpec {
        ShardSpec {
            id: ShardId { stream: 0, shard: 0 },
            stream: String::new(),
            ack: AckMode::default(),
            retention_ms: 0,
            retention_bytes: 0,
            trimmed: 0,
            closed: false,
            policy: Policy::default(),
        }
    }
}

/// What a shard lets pass, and what becomes of the rest. May change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of the shard by itself.
    pub quota: Quota,
    /// Of all shards of its stream together.
    pub stream_quota: Quota,
    /// What happens to records beyond these.
    pub backpressure: Backpressure,
}

/// How a batch is to be appended.
#[derive(Clone, Debug, Default)]
pub struct AppendTerms {
    /// Results by record are taken: part of the batch may be stored. Otherwise it is stored whole or refused whole.
    pub partial: bool,
    /// Records dropped or sampled out are listed, not only counted.
    pub tell: bool,
    /// Only if the shard's next sequence number is this one.
    pub expected: Option<u64>,
    /// The meters of whoever appends, if there is a quota for them.
    pub client: Option<Arc<Meters>>,
}

/// A stored batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Sequence number of its first record.
    pub base_sequence: u64,
    /// Records stored.
    pub record_count: u32,
    /// Time of arrival, nanoseconds since 1970 UTC.
    pub arrival_ns: u64,
    /// Whether an earlier attempt had stored it.
    pub duplicate: bool,
    /// What became of the records that were not stored, if there are such.
    pub parts: Option<Box<Parts>>,
}

impl Appended {
    /// Records from the batch's front whose fate is decided; those behind may be sent again.
    pub fn decided(&self) -> u32 {
        self.parts.as_ref().map_or(self.record_count, |parts| parts.decided)
    }
}

/// What became of the records of a batch that was not stored whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Records from its front whose fate is decided: stored, dropped, sampled out, or refused for good.
    pub decided: u32,
    /// Of these, dropped.
    pub dropped: u32,
    /// Of these, sampled out.
    pub sampled_out: u32,
    /// When those not decided may be sent again, milliseconds; 0 if all are.
    pub retry_after_ms: u32,
    /// Records decided but not stored, by runs: those at fault, and as far as asked for those dropped and sampled out.
    pub outcomes: Vec<RecordOutcome>,
}

/// Why an append was refused. Nothing of the batch is stored, except where it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No such shard here.
    #[error("shard {0} does not exist")]
    UnknownShard(ShardId),
    /// A split or merge closed it; nothing of the batch was stored here, now or earlier.
    #[error(
        "shard {0} was closed by a split or merge: describe the stream and append to its children"
    )]
    ShardClosed(ShardId),
    /// The batch itself.
    #[error("{0}")]
    Batch(#[from] highwater_wire::BatchError),
    /// Not the producer's next batch.
    #[error("batch begins at producer sequence {got}, expected {expected}: resend from there")]
    OutOfSequence {
        /// What comes next.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// A newer epoch exists.
    #[error("producer epoch {got} is fenced by epoch {current}")]
    Fenced {
        /// The epoch in force.
        current: u32,
        /// The batch's.
        got: u32,
    },
    /// The shard does not know the producer, and the batch is not its first.
    #[error(
        "producer {id} is not known to this shard and its batch begins at {got}, not 0: take a new producer id"
    )]
    UnknownProducer {
        /// The producer.
        id: u64,
        /// The batch's sequence.
        got: u64,
    },
    /// Nobody was given this producer, or not yet this epoch of it.
    #[error("producer {id} with epoch {epoch} was never given out here: take a new producer id")]
    NotGiven {
        /// The producer.
        id: u64,
        /// The batch's epoch.
        epoch: u32,
    },
    /// Stored earlier, longer ago than the shard remembers where.
    #[error(
        "batch at producer sequence {0} was stored before; its sequence numbers are no longer remembered"
    )]
    Duplicate(u64),
    /// The shard's next sequence number is another than was expected.
    #[error("the shard's next sequence number is {next}, expected {expected}")]
    Expected {
        /// As given.
        expected: u64,
        /// As it is.
        next: u64,
    },
    /// A quota is used up; retry after this many milliseconds.
    #[error("the quota of the {whose} is used up: retry after {retry_after_ms} ms")]
    Quota {
        /// `shard or stream`, or `client`.
        whose: &'static str,
        /// Milliseconds.
        retry_after_ms: u32,
    },
    /// The core's memory for commit groups is spent; retry after this many milliseconds.
    #[error("the core's memory for commit groups is full: retry after {retry_after_ms} ms")]
    Busy {
        /// Milliseconds.
        retry_after_ms: u32,
    },
    /// No space for a new segment.
    #[error(
        "the file system is full: appends are refused until space returns; retry after {retry_after_ms} ms"
    )]
    DiskFull {
        /// Milliseconds.
        retry_after_ms: u32,
    },
    /// The next segment could not be had for another reason.
    #[error("no segment could be prepared ({reason}): retry after {retry_after_ms} ms")]
    NoSegment {
        /// The cause.
        reason: Arc<str>,
        /// Milliseconds.
        retry_after_ms: u32,
    },
    /// A write failed earlier, or this one did: then whether it is stored is not known.
    #[error("shard {shard} is read-only after a failed write: {reason}")]
    Failed {
        /// Which.
        shard: ShardId,
        /// The cause.
        reason: Arc<str>,
    },
    /// Durable data is damaged.
    #[error("shard {shard} is stopped: {reason}")]
    Damaged {
        /// Which.
        shard: ShardId,
        /// File, offset and records.
        reason: Arc<str>,
    },
    /// The core is stopping, or the shard is being removed.
    #[error("the shard is closing")]
    Closing,
}

impl AppendError {
    /// As told to a client.
    pub fn to_wire(&self) -> WireError {
        use highwater_wire::BatchError as B;
        let (code, retry, detail) = match self {
            AppendError::UnknownShard(_) => (ErrorCode::UnknownShard, 0, 0),
            AppendError::ShardClosed(_) => (ErrorCode::ShardClosed, 0, 0),
            AppendError::Batch(B::RecordTooLarge { .. }) => (ErrorCode::RecordTooLarge, 0, 0),
            AppendError::Batch(B::TooLarge { .. }) => (ErrorCode::BatchTooLarge, 0, 0),
            AppendError::Batch(B::KeyTooLong { .. } | B::KeyNotUtf8 { .. }) => {
                (ErrorCode::KeyTooLong, 0, 0)
            }
            AppendError::Batch(_) => (ErrorCode::CorruptBatch, 0, 0),
            AppendError::OutOfSequence { expected, .. } => (ErrorCode::OutOfSequence, 0, *expected),
            AppendError::Fenced { current, .. } => {
                (ErrorCode::ProducerFenced, 0, u64::from(*current))
            }
            AppendError::UnknownProducer { .. } | AppendError::NotGiven { .. } => {
                (ErrorCode::UnknownProducer, 0, 0)
            }
            AppendError::Duplicate(_) => (ErrorCode::DuplicateSequence, 0, 0),
            AppendError::Expected { next, .. } => (ErrorCode::SequenceMismatch, 0, *next),
            AppendError::Quota { retry_after_ms, .. } => {
                (ErrorCode::QuotaExceeded, *retry_after_ms, 0)
            }
            AppendError::Busy { retry_after_ms } => (ErrorCode::Busy, *retry_after_ms, 0),
            AppendError::DiskFull { retry_after_ms } => (ErrorCode::DiskFull, *retry_after_ms, 0),
            AppendError::NoSegment { retry_after_ms, .. } => {
                (ErrorCode::Unavailable, *retry_after_ms, 0)
            }
            AppendError::Failed { .. } => (ErrorCode::ShardFailed, 0, 0),
            AppendError::Damaged { .. } => (ErrorCode::ShardDamaged, 0, 0),
            AppendError::Closing => (ErrorCode::Unavailable, 100, 0),
        };
        WireError { code, retry_after_ms: retry, detail, message: self.to_string() }
    }
}

/// Why a read was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No such shard here.
    #[error("shard {0} does not exist")]
    UnknownShard(ShardId),
    /// Removed by retention.
    #[error("sequence {from} was removed by retention; the oldest kept is {oldest}")]
    Trimmed {
        /// Asked for.
        from: u64,
        /// What there is.
        oldest: u64,
    },
    /// Not written yet.
    #[error("sequence {from} lies beyond the high-water mark {high_water}")]
    BeyondEnd {
        /// Asked for.
        from: u64,
        /// The mark.
        high_water: u64,
    },
    /// A split or merge closed the shard, and all its records were read.
    #[error("shard {shard} was closed by a split or merge; it ended at {end}: read its children")]
    ShardEnded {
        /// Which.
        shard: ShardId,
        /// Sequence number after its last record.
        end: u64,
    },
    /// The device would not give the bytes.
    #[error("shard {shard} could not be read: {reason}")]
    Io {
        /// Which.
        shard: ShardId,
        /// The cause.
        reason: Arc<str>,
    },
    /// Durable data is damaged.
    #[error("shard {shard} is stopped: {reason}")]
    Damaged {
        /// Which.
        shard: ShardId,
        /// File, offset and records.
        reason: Arc<str>,
    },
    /// The quota of what is read is used up; retry after this many milliseconds.
    #[error("the quota of bytes read is used up: retry after {retry_after_ms} ms")]
    Quota {
        /// Milliseconds.
        retry_after_ms: u32,
    },
    /// It was to be read under a lease that is not in force any more.
    #[error(
        "lease {lease:#x} on shard {shard} is not in force any more: the shard has gone to another member of the group"
    )]
    LeaseLost {
        /// Which.
        shard: ShardId,
        /// The lease.
        lease: u64,
    },
    /// No buffer memory for the read; retry after this many milliseconds.
    #[error("the core's memory for reads is full: retry after {retry_after_ms} ms")]
    Busy {
        /// Milliseconds.
        retry_after_ms: u32,
    },
    /// The core is stopping, or the shard is being removed.
    #[error("the shard is closing")]
    Closing,
}

impl ReadError {
    /// As told to a client.
    pub fn to_wire(&self) -> WireError {
        let (code, retry, detail) = match self {
            ReadError::UnknownShard(_) => (ErrorCode::UnknownShard, 0, 0),
            ReadError::Trimmed { oldest, .. } => (ErrorCode::PositionTrimmed, 0, *oldest),
            ReadError::BeyondEnd { high_water, .. } => {
                (ErrorCode::PositionBeyondEnd, 0, *high_water)
            }
            ReadError::ShardEnded { end, .. } => (ErrorCode::ShardEnded, 0, *end),
            ReadError::Io { .. } => (ErrorCode::ShardFailed, 0, 0),
            ReadError::Damaged { .. } => (ErrorCode::ShardDamaged, 0, 0),
            ReadError::Quota { retry_after_ms } => (ErrorCode::QuotaExceeded, *retry_after_ms, 0),
            ReadError::LeaseLost { shard, .. } => (ErrorCode::LeaseLost, 0, u64::from(shard.shard)),
            ReadError::Busy { retry_after_ms } => (ErrorCode::Busy, *retry_after_ms, 0),
            ReadError::Closing => (ErrorCode::Unavailable, 100, 0),
        };
        WireError { code, retry_after_ms: retry, detail, message: self.to_string() }
    }
}

/// Whole batches, back to back, in a shared buffer: the bytes that were written or read.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The buffer.
    pub buf: SharedBuf,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl Slice {
    /// The batches.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }
}

/// What a read or a delivery brings. The first batch may begin before the sequence asked for.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The batches, in order.
    pub slices: Vec<Slice>,
    /// Their bytes.
    pub bytes: usize,
    /// Their records, those before the sequence asked for included.
    pub records: u64,
    /// Sequence number after the last record.
    pub next: u64,
    /// The high-water mark.
    pub high_water: u64,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// When the first of its records became durable, monotonic; 0 for a reader that had not caught up.
    pub durable_ns: u64,
    /// When its batches arrived; `None` for a reader that had not caught up. Whoever hands the chunk over says so
    /// with [`crate::Core::handed_over`]: until then its records have not propagated.
    pub arrivals: Option<Arrivals>,
}

impl Chunk {
    /// Capacity of the buffers its batches lie in, in bytes: what whoever keeps it keeps from the core.
    pub fn capacity(&self) -> usize {
        let mut last = None;
        let mut sum = 0;
        for Slice { buf, .. } in &self.slices {
            // Blocks of one read lie in one buffer, one after the other.
            if last.replace(buf.as_ptr()) != Some(buf.as_ptr()) {
                sum += buf.capacity();
            }
        }
        sum
    }
}

/// When the batches of a chunk arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// Whose they are.
    pub shard: ShardId,
    /// Arrival (nanoseconds since 1970 UTC) and number of records of each.
    pub batches: Vec<(u64, u32)>,
}

/// What a filter made of records of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sifted {
    /// Whose they are.
    pub shard: ShardId,
    /// Records looked at.
    pub looked: u64,
    /// Of these, records that matched: they are handed out.
    pub matched: u64,
    /// Bytes of the batches they are handed out in.
    pub bytes: u64,
}

/// A subscription, by the number its owner gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReaderId(pub u64);

/// What a core has to say. Each accepted append, read and removal is answered exactly once.
#[derive(Debug)]
pub enum Output {
    /// An append was acknowledged or has failed.
    Appended {
        /// As given.
        tag: u64,
        /// How it went.
        result: Result<Appended, AppendError>,
    },
    /// A read is complete; an empty chunk when its time ran out.
    Read {
        /// As given.
        tag: u64,
        /// How it went.
        result: Result<Chunk, ReadError>,
    },
    /// Records for a subscription.
    Deliver {
        /// Whose.
        reader: ReaderId,
        /// What.
        chunk: Chunk,
    },
    /// A subscription is over.
    Ended {
        /// Whose.
        reader: ReaderId,
        /// Why.
        error: ReadError,
    },
    /// A shard and its files are gone.
    Removed {
        /// As given.
        tag: u64,
        /// How it went.
        result: Result<(), Arc<str>>,
    },
}

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Oldest record kept.
    Oldest,
    /// Only what comes from now on.
    Latest,
    /// This sequence number.
    At(u64),
    /// The one after this sequence number.
    After(u64),
    /// The first record that arrived at this time or later, nanoseconds since 1970 UTC.
    Time(u64),
}

/// A position and the bounds it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where to read from.
    pub sequence: u64,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark.
    pub high_water: u64,
}

/// How far a position is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Records up to the high-water mark.
    pub records: u64,
    /// What the log holds from the next record's batch on, padding of commit groups, headers of segments and what is
    /// being written included.
    pub bytes: u64,
    /// How long ago the next record arrived, nanoseconds.
    pub age_ns: u64,
    /// Whether the next record's batch was looked at. Otherwise bytes and age are those of the nearest index entry
    /// before it: an interval too much at most (64 KiB, or the 1,024th part of a segment if that is more).
    pub exact: bool,
}

/// A shard in brief.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardStatus {
    /// Which.
    pub id: ShardId,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark.
    pub high_water: u64,
    /// Bytes of its segments on disk.
    pub stored_bytes: u64,
    /// Bytes of these that are written.
    pub log_bytes: u64,
    /// `open`, `closing` or `closed`, or `failed: …`, `damaged: …` with the reason.
    pub state: String,
    /// Its records by what became of them.
    pub counters: ShardCounters,
    /// Whether appends come as fast as its own quota lets them: less than half of the burst is left.
    pub pressed: bool,
    /// Whether a split or merge closed it.
    pub closed: bool,
    /// Whether it is closed, has ended, and retention or a trim leaves nothing of it.
    pub expired: bool,
    /// Records that come in a second, over about the last ten.
    pub arriving_per_s: f64,
}
