//! A stream: what it is created with, what of it can be changed, and what is told of it and its shards. Archives within
//! control messages.

use rkyv::{Archive, Deserialize, Serialize};
use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

use crate::{Backpressure, Quota, split_evenly};

/// When an append is acknowledged; a property of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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

/// What a stream is created with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
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

/// Up to where a shard's records are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[derive(Archive, Serialize, Deserialize, SerdeSerialize, SerdeDeserialize)]
pub enum TrimBefore {
    /// Those with a smaller sequence number.
    Sequence(u64),
    /// Those that arrived earlier, nanoseconds since 1970 UTC.
    Time(u64),
}
