//! Control requests and replies: rare, so whole rkyv archives, always through validated access.

use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};
use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

use crate::telemetry::Snapshot;
use crate::{
    Claimed, DeliveryConfig, ErrorCode, GroupDelivery, Redriven, SequenceRange, Settlement,
    WireError, split_evenly,
};

/// `ack` value: acknowledged when the device has the bytes.
pub const ACK_DURABLE: u8 = 0;
/// `ack` value: acknowledged when the write completed; durable at most 10 ms later.
pub const ACK_WRITTEN: u8 = 1;

/// When an append is acknowledged; a property of the stream.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum AckMode {
    /// The device has the bytes.
    #[default]
    Durable,
    /// The write completed; a flush follows within 10 ms.
    Written,
}

impl std::fmt::Display for AckMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AckMode::Durable => "durable",
            AckMode::Written => "written",
        })
    }
}

/// What may pass in a second; 0 is no bound.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
#[serde(default)]
pub struct Quota {
    /// Records appended, a second.
    pub records_in: u64,
    /// Bytes of batches appended, a second.
    pub bytes_in: u64,
    /// Bytes of batches read, a second.
    pub bytes_out: u64,
    /// What may pass at once after a quiet time, in milliseconds of the rates above; 0 for 1,000.
    pub burst_ms: u32,
}

/// How records are chosen that a sample keeps.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SampleBy {
    /// By the hash of the partition key: all records of a key, or none.
    #[default]
    Key,
    /// Each record for itself.
    Record,
}

/// What happens to records beyond the quota.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Backpressure {
    /// Refused, with the time after which to retry.
    #[default]
    Reduce,
    /// Refused likewise, and a split is proposed; it is done while fewer shards than this are open (0: only proposed).
    Scale {
        /// Open shards of the stream, at most.
        max_shards: u32,
    },
    /// Held back until the quota lets them pass, within these bounds for each shard; beyond them refused.
    Buffer {
        /// Bytes of batches held, at most.
        bytes: u64,
        /// Longest time a batch would be held, milliseconds.
        age_ms: u64,
    },
    /// Held back likewise; beyond the bounds the oldest held are dropped.
    DropOldest {
        /// Bytes of batches held, at most.
        bytes: u64,
        /// Longest time a batch would be held, milliseconds.
        age_ms: u64,
    },
    /// Dropped.
    DropNewest,
    /// While the quota is used up only a part is kept, at the quota's expense; the rest is dropped and counted.
    Sample {
        /// Of a million records, so many are kept.
        ppm: u32,
        /// Which.
        by: SampleBy,
    },
}

/// What a stream is created with.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub struct StreamConfig {
    /// Number of shards it is created with, 1 to 4,096; those open now may be others.
    pub shards: u32,
    /// Segments whose last record arrived longer ago than this many milliseconds go; 0 keeps for ever.
    pub retention_ms: u64,
    /// Oldest segments go while the stream (its shards share it evenly) holds more bytes on disk than this; 0 for no bound.
    pub retention_bytes: u64,
    /// When appends are acknowledged.
    pub ack: AckMode,
    /// What each shard lets pass.
    #[serde(default)]
    pub quota: Quota,
    /// What all shards together let pass.
    #[serde(default)]
    pub stream_quota: Quota,
    /// What happens to records beyond a quota.
    #[serde(default)]
    pub backpressure: Backpressure,
}

/// Settings of a stream to be changed; `None` leaves one as it is.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub struct StreamChange {
    /// See [`StreamConfig`].
    pub retention_ms: Option<u64>,
    /// See [`StreamConfig`].
    pub retention_bytes: Option<u64>,
    /// See [`StreamConfig`].
    pub quota: Option<Quota>,
    /// See [`StreamConfig`].
    pub stream_quota: Option<Quota>,
    /// See [`StreamConfig`].
    pub backpressure: Option<Backpressure>,
}

/// Records of a shard by what became of them, counted since the server started:
/// `offered = acknowledged + refused + dropped + sampled_out + duplicates_recognised + pending`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
#[serde(default)]
pub struct ShardCounters {
    /// In sound batches that came for the shard.
    pub offered: u64,
    /// Stored and acknowledged.
    pub acknowledged: u64,
    /// Refused, for whatever reason.
    pub refused: u64,
    /// Of all these, held back for a while by the stream's backpressure.
    pub buffered: u64,
    /// Dropped by the stream's backpressure.
    pub dropped: u64,
    /// Left out by the stream's backpressure because the sample does not have them.
    pub sampled_out: u64,
    /// Recognised as stored by an earlier attempt.
    pub duplicates_recognised: u64,
    /// Not answered yet.
    pub pending: u64,
    /// Bytes of batches held back now.
    pub held_bytes: u64,
    /// Producers forgotten because the shard remembers only so many.
    pub evictions: u64,
}

/// A shard as described to a client.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub struct ShardDescription {
    /// Number within the stream.
    pub shard: u32,
    /// First hash key of its range.
    pub hash_start: u128,
    /// Last hash key of its range.
    pub hash_end: u128,
    /// The core that owns it.
    pub core: u32,
    /// Port of that core, on the host the client reached.
    pub port: u16,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark; of a closed shard, its end.
    pub high_water: u64,
    /// Bytes of its segments on disk.
    pub stored_bytes: u64,
    /// Bytes of these that are written.
    pub log_bytes: u64,
    /// `open` or `closed`, or `failed: …`, `damaged: …` with the reason.
    pub state: String,
    /// Whether a split or merge closed it: it takes no records, and what it has is read before its children's.
    pub closed: bool,
    /// The shards it came from.
    pub parents: Vec<u32>,
    /// The shards that took over from it.
    pub children: Vec<u32>,
    /// Its records by what became of them.
    pub counters: ShardCounters,
    /// A split that its load suggests; empty for none.
    pub advice: String,
}

/// A stream as described to a client.
#[derive(
    Clone, Debug, PartialEq, Eq, SerdeSerialize, SerdeDeserialize, Archive, Serialize, Deserialize,
)]
pub struct StreamDescription {
    /// Its name.
    pub name: String,
    /// Its number, never reused.
    pub id: u32,
    /// When it was created, nanoseconds since 1970 UTC.
    pub created_ns: u64,
    /// What it was created with.
    pub config: StreamConfig,
    /// Its shards, by number.
    pub shards: Vec<ShardDescription>,
}

impl StreamDescription {
    /// An empty stream whose shards, all open, divide the hash-key space evenly. For targets and tests that
    /// keep no catalogue of their own; cores, ports and times are 0.
    pub fn evenly(name: &str, id: u32, config: StreamConfig) -> StreamDescription {
        let ranges = split_evenly(config.shards.max(1));
        let shards = ranges.iter().zip(0..).map(|(range, shard)| ShardDescription {
            shard,
            hash_start: range.start,
            hash_end: range.end,
            state: "open".to_owned(),
            ..ShardDescription::default()
        });
        let shards = shards.collect();
        StreamDescription { name: name.to_owned(), id, created_ns: 0, config, shards }
    }
}

/// A committed position.
#[derive(
    Clone, Debug, PartialEq, Eq, SerdeSerialize, SerdeDeserialize, Archive, Serialize, Deserialize,
)]
pub struct Position {
    /// The shard's number.
    pub shard: u32,
    /// Next sequence number to read: everything below it was processed.
    pub sequence: u64,
}

/// Which way a backlog goes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Trend {
    /// Not a second behind.
    #[default]
    KeepsUp,
    /// It gets smaller, by more than 1/200 of what arrives.
    Drains,
    /// It stays as it is.
    Holds,
    /// It grows, by more than 1/200 of what arrives.
    Grows,
}

impl std::fmt::Display for Trend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Trend::KeepsUp => "keeps up",
            Trend::Drains => "drains",
            Trend::Holds => "holds",
            Trend::Grows => "grows",
        })
    }
}

/// How far a group is on one shard.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub struct GroupShard {
    /// The shard's number.
    pub shard: u32,
    /// Next sequence number to read; `None` where nothing was committed: then all that is kept is to be read.
    pub position: Option<u64>,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark.
    pub high_water: u64,
    /// Records up to it that are to be read.
    pub backlog_records: u64,
    /// What the log holds from the next record's batch on, bytes: padding of commit groups, headers of segments and
    /// what is being written included.
    pub backlog_bytes: u64,
    /// How long ago the next record arrived, nanoseconds; 0 without backlog.
    pub backlog_ns: u64,
    /// Whether bytes and age are exact. They are, unless the record could not be looked up within 5 s: then they are
    /// those of the nearest index entry before it.
    pub exact: bool,
    /// Records that retention removed before they were read.
    pub lost_records: u64,
    /// Records that come in a second, over about the last ten.
    pub rate_in: f64,
    /// Records the position advances by a second, over about the last ten.
    pub rate_out: f64,
    /// Which way the backlog goes.
    pub trend: Trend,
    /// Milliseconds until it is empty, if it gets smaller; 0 if it is.
    pub empty_ms: Option<u64>,
    /// Milliseconds until retention reaches the position, if that is to be expected.
    pub loss_ms: Option<u64>,
    /// Name of the member that holds the lease; empty for none.
    pub owner: String,
}

/// Where the positions of a group are set to.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub enum ResetTo {
    /// Where they are.
    Current,
    /// The oldest record kept.
    Oldest,
    /// The high-water mark.
    Latest,
    /// The first record that arrived at this time or later, nanoseconds since 1970 UTC.
    Time(u64),
    /// This sequence number, or the bound of what is kept that is nearest to it.
    Sequence(u64),
}

/// A position that was reset, or would be.
#[derive(
    Clone, Debug, PartialEq, Eq, SerdeSerialize, SerdeDeserialize, Archive, Serialize, Deserialize,
)]
pub struct ResetPosition {
    /// The stream's name.
    pub stream: String,
    /// The shard's number.
    pub shard: u32,
    /// The position before; `None` for none.
    pub from: Option<u64>,
    /// The position after.
    pub to: u64,
}

/// A member of a group.
#[derive(
    Clone, Debug, PartialEq, Eq, SerdeSerialize, SerdeDeserialize, Archive, Serialize, Deserialize,
)]
pub struct GroupMember {
    /// Its number, chosen by itself.
    pub member: u64,
    /// Its name.
    pub name: String,
    /// Whether it keeps its leases through a restart.
    pub fixed: bool,
    /// Milliseconds of silence after which its shards go to others.
    pub left_ms: u64,
    /// The shards it holds leases on.
    pub shards: Vec<u32>,
}

/// A lease that a member holds.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub struct LeaseGrant {
    /// The shard.
    pub shard: u32,
    /// The lease's number: what is read and committed under another one is refused. Never used again.
    pub lease: u64,
    /// The position the group committed; `None` for none: then the shard is read from the oldest record kept.
    pub position: Option<u64>,
    /// To be given up: finish what was received, commit it, and say with a heartbeat that the shard is released. After
    /// the time of a session it is taken away.
    pub revoked: bool,
    /// Of a group that settles record by record: something waits that can be claimed now.
    pub due: bool,
}

/// What a member holds.
#[derive(
    Clone, Debug, PartialEq, Eq, SerdeSerialize, SerdeDeserialize, Archive, Serialize, Deserialize,
)]
pub struct Membership {
    /// The member's number.
    pub member: u64,
    /// Its leases, by shard.
    pub leases: Vec<LeaseGrant>,
}

/// A position committed under a lease.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub struct LeasedPosition {
    /// The shard's number.
    pub shard: u32,
    /// The lease.
    pub lease: u64,
    /// Next sequence number to read: everything below it was processed.
    pub sequence: u64,
}

/// A group's positions in a stream.
#[derive(
    Clone, Debug, PartialEq, SerdeSerialize, SerdeDeserialize, Archive, Serialize, Deserialize,
)]
pub struct GroupDescription {
    /// The group's name.
    pub group: String,
    /// The stream's name.
    pub stream: String,
    /// By shard.
    pub shards: Vec<GroupShard>,
    /// Who reads, by number.
    pub members: Vec<GroupMember>,
    /// Of a group that settles record by record.
    pub delivery: Option<GroupDelivery>,
}

/// The server's part of the greeting.
#[derive(
    Clone, Debug, PartialEq, Eq, SerdeSerialize, SerdeDeserialize, Archive, Serialize, Deserialize,
)]
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

/// Up to where a shard's records are given up.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub enum TrimBefore {
    /// Those with a smaller sequence number.
    Sequence(u64),
    /// Those that arrived earlier, nanoseconds since 1970 UTC.
    Time(u64),
}

/// The quota of all connections that greet with one name.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    SerdeSerialize,
    SerdeDeserialize,
    Archive,
    Serialize,
    Deserialize,
)]
pub struct ClientQuota {
    /// The name.
    pub client: String,
    /// What may pass.
    pub quota: Quota,
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
    ($encode:ident, $decode:ident, $ty:ty, $archived:ty, $what:literal) => {
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

codec!(
    encode_control_request,
    decode_control_request,
    ControlRequest,
    ArchivedControlRequest,
    "control request"
);
codec!(
    encode_control_reply,
    decode_control_reply,
    ControlReply,
    ArchivedControlReply,
    "control reply"
);

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
