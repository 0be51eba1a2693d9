//! Which shard a record belongs to.

use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_wire::{HashRange, StreamDescription, hash_key};

use crate::router::Heirs;

/// The hash-key ranges of a stream's open shards.
///
/// A record with a hash key or a partition key goes to the shard whose range holds the hash key, or the
/// MD5 of the partition key. A record with neither goes to any shard: they fill one batch of one shard,
/// then one of the next, because spreading them record by record would make many small batches.
#[derive(Debug)]
pub(crate) struct Partitioner {
    /// Each range and its shard, ascending.
    ranges: Vec<(HashRange, u32)>,
    /// Where records without a key go now.
    turn: AtomicUsize,
}

impl Partitioner {
    /// Begins with the `first`-th range for records without a key.
    pub(crate) fn new(stream: &StreamDescription, first: usize) -> Partitioner {
        let open = stream.shards.iter().filter(|shard| !shard.closed);
        let ranges = open.map(|s| (HashRange { start: s.hash_start, end: s.hash_end }, s.shard));
        Partitioner::of(ranges.collect(), first)
    }

    fn of(mut ranges: Vec<(HashRange, u32)>, first: usize) -> Partitioner {
        ranges.sort_unstable_by_key(|(range, _)| range.start);
        // Neighbours that went to one shard, each from another parent.
        ranges.dedup_by(|next, range| {
            let joins = next.1 == range.1 && range.0.end.checked_add(1) == Some(next.0.start);
            if joins {
                range.0.end = next.0.end;
            }
            joins
        });
        Partitioner { ranges, turn: AtomicUsize::new(first) }
    }

    /// With a shard's heirs in its place.
    pub(crate) fn replaced(&self, shard: u32, heirs: &Heirs) -> Partitioner {
        let kept = self.ranges.iter().filter(|(_, owner)| *owner != shard).copied();
        let new = heirs.iter().flat_map(|(heir, ranges)| ranges.iter().map(|r| (*r, *heir)));
        Partitioner::of(kept.chain(new).collect(), self.turn.load(Ordering::Relaxed))
    }

    /// The record's shard; `None` if the ranges leave its hash key out.
    pub(crate) fn shard(&self, key: &[u8], explicit: Option<u128>) -> Option<u32> {
        let ranges = self.ranges.len();
        if ranges <= 1 {
            return self.ranges.first().map(|(_, shard)| *shard);
        }
        if key.is_empty() && explicit.is_none() {
            return Some(self.ranges[self.turn.load(Ordering::Relaxed) % ranges].1);
        }
        let hash = explicit.unwrap_or_else(|| hash_key(key));
        let at = self.ranges.partition_point(|(range, _)| range.end < hash);
        self.ranges.get(at).map(|(_, shard)| *shard)
    }

    /// A batch of this shard is full: records without a key go on to the next.
    pub(crate) fn turn_from(&self, shard: u32) {
        let turn = self.turn.load(Ordering::Relaxed);
        let ranges = self.ranges.len();
        if ranges > 1 && self.ranges[turn % ranges].1 == shard {
            // Two callers at once may skip a shard; no matter.
            self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{AckMode, StreamConfig};
    use proptest::prelude::*;

    fn stream(shards: u32) -> StreamDescription {
        let (retention_ms, retention_bytes, ack) = (0, 0, AckMode::Durable);
        let config =
            StreamConfig { shards, retention_ms, retention_bytes, ack, ..StreamConfig::default() };
        StreamDescription::evenly("s", 1, config)
    }

    proptest! {
        #[test]
        fn a_record_goes_where_its_hash_key_lies(
            shards in 1u32..300,
            key in prop::collection::vec(any::<u8>(), 1..40),
            explicit: Option<u128>,
            reversed: bool,
        ) {
            let mut stream = stream(shards);
            if reversed {
                stream.shards.reverse();
            }
            let number = Partitioner::new(&stream, 0).shard(&key, explicit).unwrap();
            let hash = explicit.unwrap_or_else(|| hash_key(&key));
            let shard = stream.shards.iter().find(|s| s.shard == number).unwrap();
            prop_assert!((shard.hash_start..=shard.hash_end).contains(&hash));
        }
    }

    #[test]
    fn records_without_a_key_stay_until_their_batch_is_full() {
        let partitioner = Partitioner::new(&stream(3), 1);
        let place = || partitioner.shard(b"", None).unwrap();
        assert_eq!((place(), place()), (1, 1));
        partitioner.turn_from(0);
        assert_eq!(place(), 1);
        partitioner.turn_from(1);
        assert_eq!(place(), 2);
        partitioner.turn_from(2);
        assert_eq!(place(), 0);
        assert_eq!(partitioner.shard(b"", Some(u128::MAX)), Some(2));
    }

    #[test]
    fn both_ends_of_a_range_belong_to_it() {
        let stream = stream(4);
        let partitioner = Partitioner::new(&stream, 0);
        for shard in &stream.shards {
            assert_eq!(partitioner.shard(b"", Some(shard.hash_start)), Some(shard.shard));
            assert_eq!(partitioner.shard(b"", Some(shard.hash_end)), Some(shard.shard));
        }
    }

    #[test]
    fn heirs_take_over_their_part_and_only_that() {
        let mut stream = stream(2);
        let whole = |s: u32| HashRange {
            start: stream.shards[s as usize].hash_start,
            end: stream.shards[s as usize].hash_end,
        };
        let (low, high) = (whole(0), whole(1));
        let quarter = low.end / 2;
        let first = HashRange { start: 0, end: quarter };
        let second = HashRange { start: quarter + 1, end: low.end };
        let split =
            Partitioner::new(&stream, 0).replaced(0, &vec![(2, vec![first]), (3, vec![second])]);
        let of = |p: &Partitioner, hash| p.shard(b"", Some(hash)).unwrap();
        assert_eq!(
            [0, quarter, quarter + 1, high.start].map(|hash| of(&split, hash)),
            [2, 2, 3, 1]
        );
        // 3 and 1 merge, one after the other.
        let merged =
            split.replaced(3, &vec![(4, vec![second])]).replaced(1, &vec![(4, vec![high])]);
        assert_eq!([0, quarter + 1, u128::MAX].map(|hash| of(&merged, hash)), [2, 4, 4]);
        assert_eq!(merged.ranges.len(), 2, "neighbours are one");
        stream.shards[1].closed = true;
        assert_eq!(Partitioner::new(&stream, 0).ranges.len(), 1);
    }
}
