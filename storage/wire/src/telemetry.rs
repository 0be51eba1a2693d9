//! Telemetry: one type for the Prometheus endpoint, the console, recordings and tests. Counters and
//! distributions are cumulative since the server started; whoever looks takes differences.

mod distribution;

pub use distribution::Buckets;

use distribution::pairs;
use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

use crate::{BreakerState, ShardCounters, Trend};

macro_rules! data {
    ($( $(#[$meta:meta])* pub struct $name:ident { $( $(#[$fmeta:meta])* $field:ident : $ty:ty, )* } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, SerdeSerialize, SerdeDeserialize)]
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        #[serde(default)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )* }
    )* };
}

data! {
    /// A distribution as the non-empty buckets of an HDR histogram: of two significant digits (no wider than 1/128 of
    /// the value) for a core, 1/32 for a shard.
    /// Values are nanoseconds, or bytes where that is said.
    pub struct Distribution {
        /// For each bucket, by ascending value: how much its representative value is above the one before (the
        /// first: above 0), and its count; both as LEB128. See [`Distribution::buckets`].
        #[serde(rename = "buckets", with = "pairs")]
        packed: Vec<u8>,
        /// Largest value ever.
        max: u64,
        /// Sum of all values (from the representatives).
        sum: u64,
    }

    /// Requests refused with one error code.
    pub struct Refusals {
        /// [`crate::ErrorCode`] as a number.
        code: u16,
        /// How many.
        count: u64,
    }

    /// A partition key that much of a shard's load comes from.
    pub struct HotKey {
        /// The key, cut to 64 bytes.
        key: String,
        /// Its records of [`ShardSnapshot::keys_total`], at least.
        records: u64,
    }

    /// One core.
    pub struct CoreSnapshot {
        /// Its number, from 0.
        core: u32,
        /// The CPU it is pinned to.
        cpu: u32,
        /// When these figures were copied, nanoseconds since 1970 UTC.
        taken_ns: u64,
        /// The same moment in nanoseconds since the server started, by a clock that never jumps.
        uptime_ns: u64,
        /// CPU time of the core's thread, nanoseconds.
        busy_ns: u64,
        /// Turns of the core's loop.
        turns: u64,
        /// Connections now.
        connections: u32,
        /// Operations of the ring in flight now.
        ring_in_flight: u32,
        /// Commit groups in flight now, over all shards.
        groups_in_flight: u32,
        /// Pooled buffer memory in use now, bytes.
        buffer_used: u64,
        /// Pooled buffer memory in all, bytes.
        buffer_capacity: u64,
        /// Memory beyond its least that connections receive into now, bytes.
        receive_used: u64,
        /// Bytes queued for clients now.
        queued: u64,
        /// Bytes of batches that wait for a segment now.
        waiting: u64,
        /// Frames received.
        requests: u64,
        /// Requests refused, for whatever reason.
        refused: u64,
        /// The same by reason, ascending; what never happened is left out.
        refusals: Vec<Refusals>,
        /// Appends that found no buffer memory and waited for it (those still without it are `Busy`).
        stalled: u64,
        /// Requests handed over to another core.
        forwarded: u64,
        /// Connections ended for malformed frames.
        malformed: u64,
        /// Times the wall clock was found to have jumped, by more than 10 ms between two copies.
        clock_jumps: u64,
        /// CPU time spent on taking and serving these figures, microseconds.
        snapshot_cost_us: u64,
        /// Length of the loop's turns.
        turn: Distribution,
        /// Bytes written per commit group, padding included.
        group_bytes: Distribution,
        /// From arrival of a batch to submission of its commit group, by record.
        queue: Distribution,
        /// From submission to completion of a commit group's write.
        write: Distribution,
        /// From that completion to the hand-over of the reply to the socket, by record.
        ack: Distribution,
        /// From that completion to the hand-over of a delivery to the socket, by record; for consumers that
        /// had caught up.
        deliver: Distribution,
        /// From arrival of a batch to its acknowledgement by the engine, by record.
        append: Distribution,
        /// Propagation delay, by record: from arrival of a batch until a consumer that had caught up (replay does not
        /// count) handed it to its application, by that consumer's clock; of one that does not say when, and of a
        /// fetch, until the socket had it.
        propagation: Distribution,
    }

    /// One shard.
    pub struct ShardSnapshot {
        /// The stream's name.
        stream: String,
        /// The stream's number.
        stream_id: u32,
        /// The shard's number.
        shard: u32,
        /// The core that owns it.
        core: u32,
        /// `open`, or `failed: …`, `damaged: …` with the reason.
        state: String,
        /// Records acknowledged.
        records_in: u64,
        /// Bytes of their batches.
        bytes_in: u64,
        /// Batches acknowledged.
        batches_in: u64,
        /// Records handed to consumers.
        records_out: u64,
        /// Bytes handed to consumers.
        bytes_out: u64,
        /// Records that filters of subscriptions and fetches looked at.
        filter_looked: u64,
        /// Of these, records that matched.
        filter_matched: u64,
        /// Commit groups written.
        groups: u64,
        /// Bytes written to the device, padding included.
        disk_bytes: u64,
        /// Batches recognised as stored before.
        duplicates: u64,
        /// Appends refused.
        refused: u64,
        /// Records by what became of them.
        counters: ShardCounters,
        /// A split that its load suggests; empty for none.
        advice: String,
        /// Oldest sequence number kept.
        oldest: u64,
        /// The high-water mark.
        high_water: u64,
        /// Bytes of its segments on disk, with what is prepared and not yet written.
        stored_bytes: u64,
        /// Bytes of these that are written.
        log_bytes: u64,
        /// Age in milliseconds after which segments go; 0 keeps.
        retention_ms: u64,
        /// Bytes it may keep on disk; 0 for no bound.
        retention_bytes: u64,
        /// Segments on disk.
        segments: u32,
        /// Segments taken that had to be written cold.
        cold_segments: u64,
        /// Commit groups in flight now.
        in_flight: u32,
        /// Subscriptions and waiting fetches now.
        readers: u32,
        /// Duration of durable writes.
        write: Distribution,
        /// Propagation delay, as for the core.
        propagation: Distribution,
        /// Records behind `keys`: those of about the last ten seconds, as sampled.
        keys_total: u64,
        /// The keys most of these have, the first most: at most ten.
        keys: Vec<HotKey>,
    }

    /// How far a consumer group is on one shard.
    pub struct GroupSnapshot {
        /// The group's name.
        group: String,
        /// The stream's name.
        stream: String,
        /// The shard's number.
        shard: u32,
        /// Committed position.
        position: u64,
        /// Records up to the high-water mark.
        backlog_records: u64,
        /// What the log holds from the next record's batch on, bytes.
        backlog_bytes: u64,
        /// Age of the next unread record, nanoseconds.
        backlog_ns: u64,
        /// Whether bytes and age are exact; otherwise they are those of the nearest index entry before, at most 64 KiB
        /// or the 1,024th part of a segment earlier.
        exact: bool,
        /// Records that come into the shard a second, over about the last ten.
        rate_in: f64,
        /// Records the position advances by a second, over about the last ten.
        rate_out: f64,
        /// Which way the backlog goes.
        trend: Trend,
        /// Milliseconds until it is empty, if it gets smaller.
        empty_ms: Option<u64>,
        /// Milliseconds until retention reaches the position, if that is to be expected.
        loss_ms: Option<u64>,
    }

    /// Records by what became of them, of a consumer group that settles them one by one. Those that are gone are counted
    /// since the server started.
    pub struct DeliverySnapshot {
        /// The group's name.
        group: String,
        /// The stream's name.
        stream: String,
        /// Handed out and not settled yet.
        in_hand: u64,
        /// To be handed out again.
        waiting: u64,
        /// Given up, and not stored as dead letters yet.
        to_bury: u64,
        /// Processed.
        done: u64,
        /// Handed out again, each time counted.
        redelivered: u64,
        /// Stored as dead letters.
        buried: u64,
        /// Removed by retention before they were settled.
        lost: u64,
        /// Whether its records are handed out.
        breaker: BreakerState,
    }

    /// Everything, at one moment.
    pub struct Snapshot {
        /// Version of this type: [`VERSION`].
        version: u32,
        /// Its number since the server started; the next one with new figures has the next number.
        serial: u64,
        /// The server's clock at its oldest part, nanoseconds since 1970 UTC.
        taken_ns: u64,
        /// The same moment in nanoseconds since the server started, by a clock that never jumps.
        uptime_ns: u64,
        /// When the server started, nanoseconds since 1970 UTC.
        started_ns: u64,
        /// The server's release.
        server: String,
        /// How writes are made durable, as calibrated, and on what.
        durability: String,
        /// False on a volatile file system: acknowledged records do not survive a power cut.
        durable: bool,
        /// What an operator should know.
        warnings: Vec<String>,
        /// Free bytes of the file system.
        disk_free: u64,
        /// Size of the file system.
        disk_total: u64,
        /// Memory of the process, bytes.
        resident: u64,
        /// The bound of its buffers over all cores, bytes.
        memory: u64,
        /// CPU time spent on putting snapshots together, microseconds; the cores' part is theirs.
        snapshot_cost_us: u64,
        /// CPU time of the filter threads, nanoseconds.
        filter_busy_ns: u64,
        /// The cores.
        cores: Vec<CoreSnapshot>,
        /// The shards.
        shards: Vec<ShardSnapshot>,
        /// The groups, by shard.
        groups: Vec<GroupSnapshot>,
        /// Those that settle record by record, by group and stream.
        deliveries: Vec<DeliverySnapshot>,
    }
}

/// Version of [`Snapshot`].
pub const VERSION: u32 = 4;
