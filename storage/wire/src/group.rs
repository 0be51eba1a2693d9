//! Consumer groups: positions, members and their leases, and how far a group is behind. Archives within control messages.

use rkyv::{Archive, Deserialize, Serialize};
use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

use crate::GroupDelivery;

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct Position {
    /// The shard's number.
    pub shard: u32,
    /// Next sequence number to read: everything below it was processed.
    pub sequence: u64,
}

/// Which way a backlog goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Debug, Default, PartialEq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct Membership {
    /// The member's number.
    pub member: u64,
    /// Its leases, by shard.
    pub leases: Vec<LeaseGrant>,
}

/// A position committed under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct LeasedPosition {
    /// The shard's number.
    pub shard: u32,
    /// The lease.
    pub lease: u64,
    /// Next sequence number to read: everything below it was processed.
    pub sequence: u64,
}

/// A group's positions in a stream.
#[derive(Clone, Debug, PartialEq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
