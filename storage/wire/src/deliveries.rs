//! Deliveries record by record: what a group asks for, what its members claim and settle, and what is told of it.
//! Archives within control messages.

use rkyv::{Archive, Deserialize, Serialize};
use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

/// Records that one claim may be for, at most.
pub const MAX_CLAIM: u32 = 10_000;

/// Longest reason that is kept of a failure, bytes; what is longer is cut.
pub const MAX_REASON: usize = 256;

/// How records are delivered to a group that settles them one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
#[serde(default)]
pub struct DeliveryConfig {
    /// Records that are not settled so long after they were handed out count as failed; milliseconds, 100 to 43,200,000.
    pub timeout_ms: u32,
    /// A record that failed so often is a dead letter, 1 to 1,000.
    pub attempts: u32,
    /// Pause before what failed is handed out again, doubled with each attempt up to 64 times as long; milliseconds, at
    /// most 3,600,000.
    pub retry_after_ms: u32,
    /// What failed is a dead letter so long after it was first handed out, however few attempts were made; milliseconds,
    /// 0 for never.
    pub max_age_ms: u64,
    /// The stream that dead letters go to; empty for STREAM.GROUP.dead.
    pub dead_letters: String,
    /// Nothing is handed out while more than this share of the records settled within the window were dead letters;
    /// of a thousand, 0 for no such breaker.
    pub breaker_permille: u32,
    /// The window, and how long nothing is handed out then; milliseconds, 1,000 to 3,600,000.
    pub breaker_window_ms: u32,
}

impl Default for DeliveryConfig {
    fn default() -> DeliveryConfig {
        DeliveryConfig {
            timeout_ms: 30_000,
            attempts: 3,
            retry_after_ms: 1_000,
            max_age_ms: 0,
            dead_letters: String::new(),
            breaker_permille: 0,
            breaker_window_ms: 60_000,
        }
    }
}

impl DeliveryConfig {
    /// Name of the stream that a group's dead letters from a stream go to.
    pub fn dead_letters_of(&self, group: &str, stream: &str) -> String {
        if self.dead_letters.is_empty() {
            format!("{stream}.{group}.dead")
        } else {
            self.dead_letters.clone()
        }
    }
}

/// Whether a group's records are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// They are.
    #[default]
    Closed,
    /// They are not: too many were dead letters.
    Open,
    /// One at a time, until one was processed.
    HalfOpen,
}

impl std::fmt::Display for BreakerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        })
    }
}

/// Records of a group in a stream by what became of them. Those that are gone are counted since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct GroupDelivery {
    /// How they are delivered.
    pub config: DeliveryConfig,
    /// Name of the stream that its dead letters go to.
    pub dead_letters: String,
    /// Handed out and not settled yet.
    pub in_hand: u64,
    /// To be handed out again.
    pub waiting: u64,
    /// Given up, and not stored as dead letters yet.
    pub to_bury: u64,
    /// Processed.
    pub done: u64,
    /// Handed out again, each time counted.
    pub redelivered: u64,
    /// Stored as dead letters.
    pub buried: u64,
    /// Removed by retention before they were settled.
    pub lost: u64,
    /// Whether its records are handed out.
    pub breaker: BreakerState,
}

/// What became of records that were handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Processed.
    Done,
    /// Not processed. Of several records it is not known which one failed: they are handed out again in halves, and no
    /// attempt is counted. Of a single record one is.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// Given back untried: they are handed out again at once, and no attempt is counted.
    Released,
    /// Stored as dead letters; of burials only.
    Buried,
    /// Not there any more: retention removed them.
    Lost,
}

/// Records by what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct Settlement {
    /// First sequence number.
    pub from: u64,
    /// Sequence number after the last.
    pub to: u64,
    /// What became of them.
    pub outcome: Outcome,
}

/// Records handed out, of one shard, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct Portion {
    /// First sequence number.
    pub from: u64,
    /// Sequence number after the last.
    pub to: u64,
    /// Which attempt at these records it is, from 1.
    pub attempt: u32,
    /// They were handed out before.
    pub again: bool,
    /// They have to be settled within so many milliseconds.
    pub timeout_ms: u32,
}

/// Records given up, to be stored as dead letters by whoever holds the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct Burial {
    /// First sequence number.
    pub from: u64,
    /// Sequence number after the last.
    pub to: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Why it is given up.
    pub reason: String,
}

/// Answer to a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct Claimed {
    /// What to work on; `None` if there is nothing now.
    pub portion: Option<Portion>,
    /// What to bury.
    pub burials: Vec<Burial>,
    /// Stream to bury it in.
    pub dead_letters: String,
    /// No record below is fresh.
    pub next_fresh: u64,
    /// Milliseconds after which something may be handed out again; `None` if nothing waits.
    pub again_ms: Option<u32>,
}

/// Records one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct SequenceRange {
    /// First sequence number.
    pub from: u64,
    /// Sequence number after the last.
    pub to: u64,
}

/// What became of records that a group was to get again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct Redriven {
    /// So many it gets again. (Those it has not settled yet it gets anyway; they do not count.)
    pub given: u64,
    /// Those that are not kept any more.
    pub gone: Vec<SequenceRange>,
}
