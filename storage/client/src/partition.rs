//! Which shard a record belongs to.

use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_wire::{StreamDescription, hash_key};

/// The hash-key ranges of a stream's shards.
///
/// A record with a hash key or a partition key goes to the shard whose range holds the hash key, or the
/// MD5 of the partition key. A record with neither goes to any shard: they fill one batch of one shard,
/// then one of the next, because spreading them record by record would make many small batches.
#[derive(Debug)]
pub(crate) struct Partitioner {
    /// Last hash key of each range and the place of its shard in the description, ascending.
    ranges: Vec<(u128, usize)>,
    /// Where records without a key go now.
    turn: AtomicUsize,
}

impl Partitioner {
    /// Begins with the shard in place `first` for records without a key.
    pub(crate) fn new(stream: &StreamDescription, first: usize) -> Partitioner {
        let mut ranges: Vec<_> =
            stream.shards.iter().enumerate().map(|(place, s)| (s.hash_end, place)).collect();
        ranges.sort_unstable();
        Partitioner { ranges, turn: AtomicUsize::new(first) }
    }

    /// The place of the record's shard in the description; `None` if the ranges leave its hash key out.
    pub(crate) fn place(&self, key: &[u8], explicit: Option<u128>) -> Option<usize> {
        let ranges = self.ranges.len();
        if ranges <= 1 {
            return self.ranges.first().map(|(_, place)| *place);
        }
        if key.is_empty() && explicit.is_none() {
            return Some(self.ranges[self.turn.load(Ordering::Relaxed) % ranges].1);
        }
        let hash = explicit.unwrap_or_else(|| hash_key(key));
        let at = self.ranges.partition_point(|(end, _)| *end < hash);
        self.ranges.get(at).map(|(_, place)| *place)
    }

    /// A batch of the shard in this place is full: records without a key go on to the next.
    pub(crate) fn turn_from(&self, place: usize) {
        let turn = self.turn.load(Ordering::Relaxed);
        let ranges = self.ranges.len();
        if ranges > 1 && self.ranges[turn % ranges].1 == place {
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
            let place = Partitioner::new(&stream, 0).place(&key, explicit).unwrap();
            let hash = explicit.unwrap_or_else(|| hash_key(&key));
            let shard = &stream.shards[place];
            prop_assert!((shard.hash_start..=shard.hash_end).contains(&hash));
        }
    }

    #[test]
    fn records_without_a_key_stay_until_their_batch_is_full() {
        let partitioner = Partitioner::new(&stream(3), 1);
        let place = || partitioner.place(b"", None).unwrap();
        assert_eq!((place(), place()), (1, 1));
        partitioner.turn_from(0);
        assert_eq!(place(), 1);
        partitioner.turn_from(1);
        assert_eq!(place(), 2);
        partitioner.turn_from(2);
        assert_eq!(place(), 0);
        assert_eq!(partitioner.place(b"", Some(u128::MAX)), Some(2));
    }

    #[test]
    fn both_ends_of_a_range_belong_to_it() {
        let stream = stream(4);
        let partitioner = Partitioner::new(&stream, 0);
        for (place, shard) in stream.shards.iter().enumerate() {
            assert_eq!(partitioner.place(b"", Some(shard.hash_start)), Some(place));
            assert_eq!(partitioner.place(b"", Some(shard.hash_end)), Some(place));
        }
    }
}
