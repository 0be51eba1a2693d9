//! Shards that come of others while a run goes on: what is read after what, and whose records are in them.
//!
//! A run begins with the open shards of its streams, its places. When these split and merge, the records of a key go on
//! in another shard; a group reads that one when it has read all it came of to the end. Whichever of the group's readers
//! comes to such an end last, reads on: there is nobody to be told of it, on whatever thread it is.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater_client::ReadingOrder;
use highwater_wire::StreamDescription;

/// How the shards of a run's streams come of each other.
#[derive(Debug)]
pub struct Descent {
    streams: Vec<Lineage>,
}

/// Of one stream.
#[derive(Debug)]
struct Lineage {
    /// Shards that were closed when the run began: nothing of it is in them.
    past: BTreeSet<u32>,
    /// Ends of the places' hash ranges, ascending, and the place of each, from 0 in this stream.
    ranges: Vec<(u128, usize)>,
    /// What each group has read.
    orders: Vec<Mutex<ReadingOrder>>,
}

impl Descent {
    /// Of streams as they are when the run begins, closed shards included, for so many groups.
    pub fn new(streams: &[StreamDescription], groups: usize) -> Descent {
        let lineage = |stream: &StreamDescription| {
            let past = stream.shards.iter().filter(|shard| shard.closed).map(|shard| shard.shard);
            let open = stream.shards.iter().filter(|shard| !shard.closed);
            let mut ranges: Vec<_> = open.map(|shard| shard.hash_end).zip(0..).collect();
            ranges.sort_unstable();
            let lineage = Lineage { past: past.collect(), ranges, orders: Vec::new() };
            let orders = (0..groups).map(|_| {
                let mut order = ReadingOrder::default();
                order.learn(&lineage.of_run(stream));
                Mutex::new(order)
            });
            Lineage { orders: orders.collect(), ..lineage }
        };
        Descent { streams: streams.iter().map(lineage).collect() }
    }

    /// The shards of a stream that may hold records of the run.
    pub fn of_run(&self, stream: usize, now: &StreamDescription) -> StreamDescription {
        self.streams[stream].of_run(now)
    }

    /// The place, from 0 in its stream, whose range has this hash key.
    pub fn place(&self, stream: usize, hash: u128) -> Option<usize> {
        let ranges = &self.streams[stream].ranges;
        ranges.get(ranges.partition_point(|(end, _)| *end < hash)).map(|(_, place)| *place)
    }

    /// A group has read a shard to its end: the shards that it reads now, as far as they are known.
    pub fn ended(&self, stream: usize, group: usize, shard: u32) -> Vec<u32> {
        self.order(stream, group).ended(shard)
    }

    /// The stream is like this now: the shards that a group reads because of it.
    pub fn learn(&self, stream: usize, group: usize, now: &StreamDescription) -> Vec<u32> {
        self.order(stream, group).learn(&self.of_run(stream, now))
    }

    /// Whether it is known what came of a shard.
    pub fn is_continued(&self, stream: usize, group: usize, shard: u32) -> bool {
        self.order(stream, group).has_children(shard)
    }

    fn order(&self, stream: usize, group: usize) -> MutexGuard<'_, ReadingOrder> {
        // An order is whole between calls: a panic elsewhere does not spoil it.
        self.streams[stream].orders[group].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lineage {
    fn of_run(&self, now: &StreamDescription) -> StreamDescription {
        let mut stream = now.clone();
        stream.shards.retain(|shard| !self.past.contains(&shard.shard));
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{HashRange, ShardDescription, StreamConfig, split_evenly};

    /// A stream of shards by number, range (of so many equal ones) and parents; those that are parents are closed.
    fn stream(shards: &[(u32, std::ops::RangeInclusive<usize>, &[u32])]) -> StreamDescription {
        let eighths = split_evenly(8);
        let mut stream = StreamDescription::evenly("s", 1, StreamConfig::default());
        let shard = |(shard, range, parents): &(u32, std::ops::RangeInclusive<usize>, &[u32])| {
            ShardDescription {
                shard: *shard,
                hash_start: eighths[*range.start()].start,
                hash_end: eighths[*range.end()].end,
                parents: parents.to_vec(),
                closed: shards.iter().any(|other| other.2.contains(shard)),
                ..ShardDescription::default()
            }
        };
        stream.shards = shards.iter().map(shard).collect();
        stream
    }

    #[test]
    fn what_was_closed_before_the_run_takes_no_part_and_a_child_is_read_once_its_parents_are() {
        // 0 was split into 1 and 2 before the run.
        let first = stream(&[(0, 0..=7, &[]), (1, 0..=3, &[0]), (2, 4..=7, &[0])]);
        let descent = Descent::new(&[first], 2);
        let eighth = |n: usize| -> HashRange { split_evenly(8)[n] };
        assert_eq!([0, 3, 4, 7].map(|n| descent.place(0, eighth(n).end)), [0, 0, 1, 1].map(Some));

        // 1 into 3 and 4; 4 and 2 into 5.
        let now = stream(&[
            (0, 0..=7, &[]),
            (1, 0..=3, &[0]),
            (2, 4..=7, &[0]),
            (3, 0..=1, &[1]),
            (4, 2..=3, &[1]),
            (5, 2..=7, &[4, 2]),
        ]);
        let left: Vec<u32> = descent.of_run(0, &now).shards.iter().map(|s| s.shard).collect();
        assert_eq!(left, [1, 2, 3, 4, 5]);
        assert!(descent.ended(0, 0, 2).is_empty() && !descent.is_continued(0, 0, 2));
        assert!(descent.learn(0, 0, &now).is_empty() && descent.is_continued(0, 0, 2));
        assert_eq!(descent.ended(0, 0, 1), [3, 4]);
        assert_eq!(descent.ended(0, 0, 4), [5], "2 has ended before");
        // The other group is where it is.
        assert!(!descent.is_continued(0, 1, 1) && descent.learn(0, 1, &now).is_empty());
        assert_eq!(descent.ended(0, 1, 1), [3, 4]);
    }
}
