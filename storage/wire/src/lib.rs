//! Bytes on the wire and on disk: batches, records, frames, requests and replies.
//!
//! This crate does no I/O and reads no clock. `docs/wire.md` describes every byte of it; the test
//! `layout` keeps the two together.

mod batch;
mod compress;
mod control;
mod crc;
mod data;
mod deliveries;
mod error;
mod filter;
mod frame;
mod group;
mod hash_key;
mod header;
mod limits;
mod name;
mod quota;
mod range;
mod record;
pub mod select;
mod stream;
pub mod telemetry;

pub use batch::{
    BATCH_MAGIC, BATCH_VERSION, BatchBuilder, BatchError, BatchHeader, BatchIter, BatchView,
    ENCODING_RECORDS, ProducerStamp, restamp, stamp,
};
pub use compress::{Compression, Packer, UnknownCompression, Unpacker};
pub use control::{
    ClusterInfo, ControlReply, ControlRequest, ErrorReply, decode_control_reply,
    decode_control_request, decode_error, encode_control_reply, encode_control_reply_into,
    encode_control_request, encode_error,
};
pub use crc::{Crc32cCombine, crc32c, crc32c_combine, crc32c_parts};
pub use data::{
    ANY_SEQUENCE, APPEND_PARTIAL, APPEND_TELL, AppendReply, AppendRequest, CreditRequest,
    DeliverHeader, DeliveryReceipt, FetchReply, FetchRequest, LocateReply, LocateRequest, NO_END,
    RecordOutcome, SubscribeReply, SubscribeRequest, UnsubscribeRequest,
};
pub use deliveries::{
    BreakerState, Burial, Claimed, DeliveryConfig, GroupDelivery, MAX_CLAIM, MAX_REASON, Outcome,
    Portion, Redriven, SequenceRange, Settlement,
};
pub use error::{ErrorCode, WireError};
pub use filter::{FilterCounts, FilterTally, UNANSWERED};
pub use frame::{
    Decoded, FRAME_HEADER_LEN, FRAME_MAGIC, Frame, FrameError, FrameHeader, Kind, decode_frame,
    encode_bare_header, encode_frame, encode_frame_header,
};
pub use group::{
    GroupDescription, GroupMember, GroupShard, LeaseGrant, LeasedPosition, Membership, Position,
    ResetPosition, ResetTo, Trend,
};
pub use hash_key::{HashRange, hash_key, split_evenly};
pub use header::FixedBytes;
pub use limits::{Limits, MAX_KEY_CHARS, MAX_RECORD_CEILING, MAX_SHARDS_PER_STREAM};
pub use name::{GroupName, NameError, ProducerName, StreamName};
pub use quota::{Backpressure, ClientQuota, Quota, SampleBy};
pub use range::OutOfRange;
pub use record::{
    Header, HeaderIter, RECORD_HEADER_LEN, RecordHeader, RecordIter, RecordView, padded,
};
pub use stream::{
    AckMode, ShardCounters, ShardDescription, StreamChange, StreamConfig, StreamDescription,
    TrimBefore,
};

/// Version of the protocol spoken here; the greeting carries it. Both sides must agree exactly until 1.0.
pub const PROTOCOL_VERSION: u32 = 6;

/// A shard, by the number of its stream (never reused) and its own number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[derive(serde::Serialize, serde::Deserialize)]
pub struct ShardId {
    /// The stream's number, given at creation.
    pub stream: u32,
    /// The shard's number within the stream, from 0.
    pub shard: u32,
}

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.stream, self.shard)
    }
}

/// Explicit little-endian integers for headers that are read in place.
pub mod le {
    pub use rend::unaligned::{u16_ule, u32_ule, u64_ule};
}

#[doc(hidden)]
pub use rkyv as __rkyv;
