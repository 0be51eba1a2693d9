//! Telemetry: one type for the Prometheus endpoint, the console, recordings and tests. Counters and
//! distributions are cumulative since the server started; whoever looks takes differences.

use serde::{Deserialize as SerdeDeserialize, Serialize as SerdeSerialize};

use crate::ShardCounters;

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
        /// Their bytes.
        backlog_bytes: u64,
        /// Age of the next unread record, nanoseconds.
        backlog_ns: u64,
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
        /// CPU time spent on putting snapshots together, microseconds; the cores' part is theirs.
        snapshot_cost_us: u64,
        /// The cores.
        cores: Vec<CoreSnapshot>,
        /// The shards.
        shards: Vec<ShardSnapshot>,
        /// The groups, by shard.
        groups: Vec<GroupSnapshot>,
    }
}

/// Version of [`Snapshot`].
pub const VERSION: u32 = 3;

impl Distribution {
    /// Of values with their counts, the values ascending and each named once.
    pub fn of(buckets: impl IntoIterator<Item = (u64, u64)>, max: u64) -> Distribution {
        let buckets = buckets.into_iter();
        let (least, most) = buckets.size_hint();
        let packed = Vec::with_capacity(4 * most.unwrap_or(least));
        let mut all = Packer { packed, ..Packer::default() };
        buckets.for_each(|(value, count)| all.push(value, count));
        all.finish(max)
    }

    /// Value and count of each bucket that is not empty, the values ascending. What is not packed soundly ends it.
    pub fn buckets(&self) -> Buckets<'_> {
        Buckets { rest: &self.packed, value: 0 }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets().fold(0, |all, (_, n)| all.saturating_add(n))
    }

    /// What was added since `earlier`, an older state of the same distribution. The maximum of the
    /// difference is the value of its highest bucket.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let mut old = earlier.buckets().peekable();
        let (mut new, mut max) = (Packer::default(), 0);
        for (value, count) in self.buckets() {
            while old.next_if(|&(v, _)| v < value).is_some() {}
            let before = old.next_if(|&(v, _)| v == value).map_or(0, |(_, n)| n);
            if count > before {
                new.push(value, count - before);
                max = value;
            }
        }
        Distribution { sum: self.sum.saturating_sub(earlier.sum), ..new.finish(max) }
    }

    /// This and `other` together.
    pub fn merge(&mut self, other: &Distribution) {
        let (mut all, mut theirs) = (Packer::default(), other.buckets().peekable());
        for (value, count) in self.buckets() {
            while let Some((v, n)) = theirs.next_if(|&(v, _)| v < value) {
                all.push(v, n);
            }
            let more = theirs.next_if(|&(v, _)| v == value).map_or(0, |(_, n)| n);
            all.push(value, count.saturating_add(more));
        }
        theirs.for_each(|(value, count)| all.push(value, count));
        let sum = self.sum.saturating_add(other.sum);
        *self = Distribution { sum, ..all.finish(self.max.max(other.max)) };
    }

    /// The value at quantile `q` (0 to 1): nearest rank over the buckets. `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0u64;
        self.buckets().find_map(|(value, n)| {
            seen = seen.saturating_add(n);
            (seen >= rank).then_some(value)
        })
    }
}

/// The buckets of a [`Distribution`].
#[derive(Clone, Debug)]
pub struct Buckets<'a> {
    rest: &'a [u8],
    value: u64,
}

impl Buckets<'_> {
    /// The next number. Most take one byte or two.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

impl Iterator for Buckets<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let (further, count) = (self.number()?, self.number()?);
        self.value = self.value.checked_add(further)?;
        Some((self.value, count))
    }
}

/// Puts a [`Distribution`] together.
#[derive(Debug, Default)]
struct Packer {
    packed: Vec<u8>,
    last: u64,
    sum: u64,
}

impl Packer {
    fn push(&mut self, value: u64, count: u64) {
        self.number(value.saturating_sub(self.last));
        self.number(count);
        self.last = value.max(self.last);
        self.sum = self.sum.saturating_add(value.saturating_mul(count));
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.packed.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.packed.push(number as u8);
    }

    fn finish(self, max: u64) -> Distribution {
        Distribution { packed: self.packed, max, sum: self.sum }
    }
}

/// In recordings, and wherever people may read it, a distribution is its buckets as pairs.
mod pairs {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Buckets, Distribution};

    pub(super) fn serialize<S: Serializer>(packed: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(Buckets { rest: packed, value: 0 })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let mut pairs = Vec::<(u64, u64)>::deserialize(from)?;
        pairs.sort_unstable();
        let Distribution { packed, .. } = Distribution::of(pairs, 0);
        Ok(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(buckets: &[(u64, u64)]) -> Distribution {
        Distribution::of(buckets.iter().copied(), buckets.last().map_or(0, |b| b.0))
    }

    fn pairs(of: &Distribution) -> Vec<(u64, u64)> {
        of.buckets().collect()
    }

    #[test]
    fn differences_merges_and_quantiles() {
        let (old, new) = (of(&[(1, 2), (5, 1)]), of(&[(1, 3), (3, 4), (5, 1)]));
        let diff = new.since(&old);
        assert_eq!(pairs(&diff), [(1, 1), (3, 4)]);
        assert_eq!((diff.max, diff.sum), (3, 13));
        let mut back = old.clone();
        back.merge(&diff);
        assert_eq!(back, new);
        assert_eq!(new.quantile(0.0), Some(1));
        assert_eq!(new.quantile(0.5), Some(3));
        assert_eq!(new.quantile(1.0), Some(5));
        assert_eq!(of(&[]).quantile(0.5), None);
    }

    #[test]
    fn a_busy_distribution_takes_some_four_bytes_a_bucket() {
        // 500 buckets from 100 µs on, each 1/64 wide, with counts of hundreds.
        let widths = std::iter::successors(Some(100_000u64), |at| Some(at + at / 64));
        let busy: Vec<(u64, u64)> = widths.take(500).map(|value| (value, 300)).collect();
        let size = of(&busy).packed.len();
        assert!((2_000..2_600).contains(&size), "{size}");
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(values in prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..50)) {
            let buckets: Vec<(u64, u64)> = values.into_iter().collect();
            let packed = of(&buckets);
            prop_assert_eq!(pairs(&packed), buckets.as_slice());
            let json = serde_json::to_string(&packed).unwrap();
            prop_assert_eq!(serde_json::from_str::<Distribution>(&json).unwrap(), packed);
        }

        #[test]
        fn any_bytes_are_some_distribution(packed in prop::collection::vec(any::<u8>(), 0..100)) {
            let some = Distribution { packed, ..Distribution::default() };
            prop_assert!(some.buckets().count() <= 50);
            let values: Vec<u64> = some.buckets().map(|(value, _)| value).collect();
            prop_assert!(values.is_sorted());
            prop_assert_eq!(some.count(), some.count());
            let _ = (some.quantile(0.5), some.since(&some));
        }
    }
}
