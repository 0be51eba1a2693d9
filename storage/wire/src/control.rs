//! Control requests and replies: rare, so whole rkyv archives, always through validated access. What they are about has
//! files of its own: `stream.rs`, `quota.rs`, `group.rs`, `deliveries.rs`.

use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};
use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

use crate::telemetry::Snapshot;
use crate::{
    Claimed, ClientQuota, DeliveryConfig, ErrorCode, GroupDescription, LeasedPosition, Membership,
    Position, Quota, Redriven, ResetPosition, ResetTo, SequenceRange, Settlement, StreamChange,
    StreamConfig, StreamDescription, TrimBefore, WireError,
};

/// The server's part of the greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct ClusterInfo {
    /// [`crate::PROTOCOL_VERSION`] of the server.
    pub protocol: u32,
    /// Its release.
    pub server: String,
    /// Largest record accepted, in bytes.
    pub max_record: u32,
    /// Largest batch accepted, in bytes.
    pub max_batch: u32,
    /// Port of each core.
    pub core_ports: Vec<u16>,
    /// The server's clock, nanoseconds since 1970 UTC.
    pub now_ns: u64,
}

/// A control request.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ControlRequest {
    /// The greeting: first on every connection.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the client.
        protocol: u32,
        /// Who is calling, for logs.
        client: String,
    },
    /// Create a stream.
    CreateStream {
        /// Its name.
        name: String,
        /// Its settings.
        config: StreamConfig,
    },
    /// All streams.
    ListStreams,
    /// One stream.
    DescribeStream {
        /// Its name.
        name: String,
    },
    /// Remove a stream and its records.
    DeleteStream {
        /// Its name.
        name: String,
    },
    /// A new producer id.
    NewProducer,
    /// Keep positions, durably, of a group without members. A position may move back (a reset).
    CommitPositions {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// By shard.
        positions: Vec<Position>,
    },
    /// The positions a group committed in a stream (empty if none).
    FetchPositions {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
    },
    /// All groups of a stream with their backlog; of all streams if the name is empty.
    ListGroups {
        /// The stream, or "".
        stream: String,
    },
    /// The latest telemetry.
    Snapshot,
    /// The same, if it is another than the one with this serial number; else [`ControlReply::Unchanged`].
    SnapshotAfter {
        /// [`Snapshot::serial`] of the last one received.
        serial: u64,
    },
    /// Change a stream's settings, at once and durably.
    SetStream {
        /// Its name.
        name: String,
        /// What is to change.
        change: StreamChange,
    },
    /// Split a shard.
    Split {
        /// The stream.
        name: String,
        /// The shard, open.
        shard: u32,
        /// First hash keys of the second and later children; empty to let the server halve the load.
        at: Vec<u128>,
    },
    /// Merge neighbouring shards into one.
    Merge {
        /// The stream.
        name: String,
        /// The shards, open and adjacent: at least two.
        shards: Vec<u32>,
    },
    /// Split and merge until so many shards are open.
    Reshard {
        /// The stream.
        name: String,
        /// Open shards wanted, 1 to 4,096.
        shards: u32,
    },
    /// Give up a stream's oldest records. Whole segments go; the position of the oldest record moves at once.
    Trim {
        /// The stream.
        name: String,
        /// The shard; all of them if none is named.
        shard: Option<u32>,
        /// Up to where.
        before: TrimBefore,
    },
    /// The producer of this name: always the same id, and an epoch greater than any before, which fences those.
    OpenProducer {
        /// Its name.
        name: String,
    },
    /// Bound all connections that greet with one name; a quota of zeros lifts it.
    SetClientQuota {
        /// The name.
        client: String,
        /// What may pass.
        quota: Quota,
    },
    /// The quotas of client names.
    ListClientQuotas,
    /// One group in all streams where it has positions or members.
    DescribeGroup {
        /// The group.
        group: String,
    },
    /// Set a group's positions. Refused while it has members there.
    ResetGroup {
        /// The group.
        group: String,
        /// The stream; "" for all where it has positions.
        stream: String,
        /// The shard; all of them if none is named.
        shard: Option<u32>,
        /// Where to.
        to: ResetTo,
        /// And then on by so many records, or back; no further than what is kept.
        shift: i64,
        /// Only tell what would be done.
        dry_run: bool,
    },
    /// Forget a group's positions. Refused while it has members there.
    DeleteGroup {
        /// The group.
        group: String,
        /// The stream; "" for all.
        stream: String,
    },
    /// Become a member of a group, which reads a stream. Repeating it does no harm.
    JoinGroup {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// The member's number, chosen by itself at random.
        member: u64,
        /// Its name, for operators.
        name: String,
        /// The name stays the same through restarts: whoever joins under it within the session takes its leases over.
        fixed: bool,
        /// Longest silence in milliseconds, 100 to 600,000.
        session_ms: u32,
        /// Where the group begins if it has no positions in the stream.
        start: ResetTo,
    },
    /// A member's sign of life.
    Heartbeat {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// The member.
        member: u64,
        /// Shards it was to give up, and has.
        released: Vec<u32>,
    },
    /// A member leaves; its shards go to others at once.
    LeaveGroup {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// The member.
        member: u64,
    },
    /// Keep positions of a member, durably: all of them, or none if a lease is not in force.
    CommitLeased {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// The member.
        member: u64,
        /// By shard.
        positions: Vec<LeasedPosition>,
    },
    /// Have a group settle a stream's records one by one, or go back to positions. Refused while it has members there,
    /// unless it settles record by record already and only the settings change.
    SetGroup {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// How records are delivered; `None` for positions.
        delivery: Option<DeliveryConfig>,
    },
    /// Ask for records of a shard to work on: those that wait for another attempt first, then fresh ones.
    Claim {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// The member.
        member: u64,
        /// The shard.
        shard: u32,
        /// The lease.
        lease: u64,
        /// Of the records the member has at hand, the first sequence number.
        from: u64,
        /// And the one after the last; `from` if it has none.
        to: u64,
        /// Records wanted, 1 to [`crate::MAX_CLAIM`]; 0 for burials alone.
        most: u32,
    },
    /// Say what became of records, durably: of all that are named, or of none if they are not all in hand.
    Settle {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// The member.
        member: u64,
        /// The shard.
        shard: u32,
        /// The lease they were claimed under.
        lease: u64,
        /// By sequence number; at most [`crate::MAX_CLAIM`].
        settlements: Vec<Settlement>,
    },
    /// Hand records out again to a group that has settled them, from the first attempt.
    Redrive {
        /// The group.
        group: String,
        /// The stream.
        stream: String,
        /// The shard.
        shard: u32,
        /// Which.
        ranges: Vec<SequenceRange>,
    },
}

/// A control reply.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum ControlReply {
    /// To the greeting.
    Hello(ClusterInfo),
    /// To create and describe.
    Stream(StreamDescription),
    /// To list.
    Streams(Vec<StreamDescription>),
    /// Done, nothing to tell.
    Done,
    /// A producer id, and the epoch to use.
    Producer {
        /// Never given out before.
        id: u64,
        /// The epoch.
        epoch: u32,
    },
    /// A group's positions.
    Positions(Vec<Position>),
    /// Groups with their backlog.
    Groups(Vec<GroupDescription>),
    /// Telemetry.
    Snapshot(Box<Snapshot>),
    /// To [`ControlRequest::SnapshotAfter`]: there is no other yet.
    Unchanged,
    /// The quotas of client names.
    ClientQuotas(Vec<ClientQuota>),
    /// To a reset, by stream and shard.
    Reset(Vec<ResetPosition>),
    /// To a join and a heartbeat.
    Membership(Membership),
    /// To a claim.
    Claimed(Claimed),
    /// To a redrive.
    Redriven(Redriven),
}

/// Control part of an `Error` frame.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ErrorReply {
    /// An [`ErrorCode`]'s number.
    pub code: u16,
    /// Milliseconds; 0 if nothing is said.
    pub retry_after_ms: u32,
    /// See the code.
    pub detail: u64,
    /// For people.
    pub message: String,
}

/// Bytes that are no valid archive of the type expected.
fn malformed(what: &str, error: rancor::Error) -> WireError {
    WireError::new(ErrorCode::MalformedFrame, format!("{what} is not valid: {error}"))
}

macro_rules! codec {
    ($encode:ident, $decode:ident, $ty:ty, $what:literal) => {
        #[doc = concat!("The archive of a ", $what, ".")]
        pub fn $encode(value: &$ty) -> Vec<u8> {
            // Serialising these types into memory has no way to fail; an empty archive never validates.
            rkyv::to_bytes::<rancor::Error>(value).map(|b| b.to_vec()).unwrap_or_default()
        }

        #[doc = concat!("A ", $what, " from its archive, validated.")]
        pub fn $decode(bytes: &[u8]) -> Result<$ty, WireError> {
            rkyv::from_bytes::<$ty, rancor::Error>(bytes).map_err(|e| malformed($what, e))
        }
    };
}

codec!(encode_control_request, decode_control_request, ControlRequest, "control request");
codec!(encode_control_reply, decode_control_reply, ControlReply, "control reply");

/// The archive of an error reply.
pub fn encode_error(error: &WireError) -> Vec<u8> {
    let reply = ErrorReply {
        code: error.code as u16,
        retry_after_ms: error.retry_after_ms,
        detail: error.detail,
        message: error.message.clone(),
    };
    rkyv::to_bytes::<rancor::Error>(&reply).map(|b| b.to_vec()).unwrap_or_default()
}

/// The archive of a control reply in place of what `into` holds: for large ones whose memory serves again.
pub fn encode_control_reply_into(reply: &ControlReply, mut into: Vec<u8>) -> Vec<u8> {
    into.clear();
    rkyv::api::high::to_bytes_in::<_, rancor::Error>(reply, into).unwrap_or_default()
}

/// The error in an error reply; an error about the reply itself if it does not decode.
pub fn decode_error(bytes: &[u8]) -> WireError {
    match rkyv::from_bytes::<ErrorReply, rancor::Error>(bytes) {
        Ok(reply) => WireError {
            code: ErrorCode::from_number(reply.code),
            retry_after_ms: reply.retry_after_ms,
            detail: reply.detail,
            message: reply.message,
        },
        Err(error) => malformed("error reply", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_messages_come_back() {
        let request = ControlRequest::CommitPositions {
            group: "g".into(),
            stream: "s".into(),
            positions: vec![Position { shard: 1, sequence: u64::MAX }],
        };
        assert_eq!(decode_control_request(&encode_control_request(&request)).unwrap(), request);
        let reply = ControlReply::Producer { id: 7, epoch: 1 };
        assert_eq!(decode_control_reply(&encode_control_reply(&reply)).unwrap(), reply);
        let error =
            WireError::new(ErrorCode::Busy, "queue of core 1 is full").retry_after(5).detail(9);
        assert_eq!(decode_error(&encode_error(&error)), error);
    }

    proptest! {
        #[test]
        fn random_archives_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_control_request(&bytes);
            let _ = decode_control_reply(&bytes);
            let _ = decode_error(&bytes);
        }
    }
}
