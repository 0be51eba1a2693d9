//! Quotas, and what happens to records beyond one. Archives within control messages.

use rkyv::{Archive, Deserialize, Serialize};
use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

/// What may pass in a second; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleBy {
    /// By the hash of the partition key: all records of a key, or none.
    #[default]
    Key,
    /// Each record for itself.
    Record,
}

/// What happens to records beyond the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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

/// The quota of all connections that greet with one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub struct ClientQuota {
    /// The name.
    pub client: String,
    /// What may pass.
    pub quota: Quota,
}
