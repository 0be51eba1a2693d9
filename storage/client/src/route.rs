//! Where records go and what is read first, as a stream's shards split and merge. Pure: descriptions in, shards out.
//!
//! The shards of a stream are a graph: a split gives a shard children, a merge gives some shards a child together.
//! Numbers grow and a child's number is greater than its parents', so that following children ends.

use std::collections::{BTreeMap, BTreeSet};

use highwater_wire::{HashRange, ShardDescription, StreamDescription};

/// The open shards that have taken over `ranges` from shard `parent`, each with its part of them; `None` while the
/// description does not have all of them yet. A range that is no child's (there is none in a sound description)
/// counts as not there yet.
pub(crate) fn heirs(
    stream: &StreamDescription,
    parent: u32,
    ranges: &[HashRange],
) -> Option<Vec<(u32, Vec<HashRange>)>> {
    let below = descendants(stream, parent);
    let open = stream.shards.iter().filter(|s| !s.closed && below.contains(&s.shard));
    let mut heirs = Vec::new();
    let mut covered = Vec::new();
    for shard in open {
        let parts: Vec<_> = ranges.iter().filter_map(|range| common(range, shard)).collect();
        if !parts.is_empty() {
            covered.extend_from_slice(&parts);
            heirs.push((shard.shard, parts));
        }
    }
    ranges.iter().all(|range| covers(&mut covered, range)).then_some(heirs)
}

/// Every shard that came of this one, itself not included.
fn descendants(stream: &StreamDescription, shard: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([shard]);
    // Children have greater numbers: one pass in ascending order meets parents first.
    let by_number: BTreeMap<u32, &ShardDescription> =
        stream.shards.iter().map(|s| (s.shard, s)).collect();
    let named = |parent: u32, child: u32| {
        by_number.get(&parent).is_some_and(|parent| parent.children.contains(&child))
    };
    for (number, description) in &by_number {
        let parents = &description.parents;
        let below = parents.iter().any(|parent| found.contains(parent))
            || found.iter().any(|parent| named(*parent, *number));
        if below {
            found.insert(*number);
        }
    }
    found.remove(&shard);
    found
}

fn common(range: &HashRange, shard: &ShardDescription) -> Option<HashRange> {
    let (start, end) = (range.start.max(shard.hash_start), range.end.min(shard.hash_end));
    (start <= end).then_some(HashRange { start, end })
}

/// Whether `parts` (put in order here) leave nothing of `range` out.
fn covers(parts: &mut [HashRange], range: &HashRange) -> bool {
    parts.sort_unstable_by_key(|part| part.start);
    let mut next = range.start;
    let parts = parts.iter().filter(|part| part.end >= range.start);
    for part in parts {
        if part.start > next {
            return false;
        }
        if part.end >= range.end {
            return true;
        }
        next = next.max(part.end.saturating_add(1));
    }
    false
}

/// The shard among `routes` that has `hash`. For one that none of them has (its record was sent to a shard by
/// number), always the same.
pub(crate) fn pick(routes: &[(u32, Vec<HashRange>)], hash: u128) -> Option<u32> {
    let owner = routes.iter().find(|(_, ranges)| ranges.iter().any(|range| range.contains(hash)));
    let anyone = || routes.get(usize::try_from(hash % routes.len().max(1) as u128).ok()?);
    owner.or_else(anyone).map(|(shard, _)| *shard)
}

/// In which order the shards of a stream are read: none before its parents are at their end, so that the records of
/// a key come in order.
#[derive(Debug, Default)]
pub struct ReadingOrder {
    shards: BTreeMap<u32, Progress>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    parents: Vec<u32>,
    state: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Some parent is not at its end.
    Waiting,
    /// It is being read.
    Open,
    /// It was read to its end.
    Ended,
}

impl ReadingOrder {
    /// Takes note of the stream's shards. Those that are new, and wait for nobody, are to be read now.
    pub fn learn(&mut self, stream: &StreamDescription) -> Vec<u32> {
        for shard in &stream.shards {
            self.shards.entry(shard.shard).or_insert_with(|| Progress {
                parents: shard.parents.clone(),
                state: Reading::Waiting,
            });
        }
        self.open_ready()
    }

    /// A shard was read to its end; those to be read now.
    pub fn ended(&mut self, shard: u32) -> Vec<u32> {
        if let Some(progress) = self.shards.get_mut(&shard) {
            progress.state = Reading::Ended;
        }
        self.open_ready()
    }

    /// Whether a shard that was read to its end has a child that is known.
    pub fn has_children(&self, shard: u32) -> bool {
        self.shards.values().any(|progress| progress.parents.contains(&shard))
    }

    fn open_ready(&mut self) -> Vec<u32> {
        // A parent that is not described any more has been emptied by retention: there is nothing to wait for.
        let waits = |shards: &BTreeMap<u32, Progress>, progress: &Progress| {
            progress
                .parents
                .iter()
                .any(|p| shards.get(p).is_some_and(|p| p.state != Reading::Ended))
        };
        let ready: Vec<u32> = self
            .shards
            .iter()
            .filter(|(_, p)| p.state == Reading::Waiting && !waits(&self.shards, p))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in &ready {
            if let Some(progress) = self.shards.get_mut(shard) {
                progress.state = Reading::Open;
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::StreamConfig;

    /// Shards by number, range (in sixteenths of the hash-key space), parents; open ones are those without a child.
    fn stream(shards: &[(u32, u128, u128, &[u32])]) -> StreamDescription {
        let mut stream = StreamDescription::evenly("s", 1, StreamConfig::default());
        stream.shards = shards
            .iter()
            .map(|(shard, from, to, parents)| ShardDescription {
                shard: *shard,
                hash_start: range(*from, *to).start,
                hash_end: range(*from, *to).end,
                parents: parents.to_vec(),
                closed: shards.iter().any(|s| s.3.contains(shard)),
                ..ShardDescription::default()
            })
            .collect();
        stream
    }

    fn range(from: u128, to: u128) -> HashRange {
        let sixteenth = 1u128 << 124;
        let end = if to == 16 { u128::MAX } else { to * sixteenth - 1 };
        HashRange { start: from * sixteenth, end }
    }

    #[test]
    fn heirs_are_the_open_descendants_with_their_part() {
        // 0 → 1, 2; 2 → 3, 4; 1 and 3 → 5.
        let grown = stream(&[
            (0, 0, 16, &[]),
            (1, 0, 8, &[0]),
            (2, 8, 16, &[0]),
            (3, 8, 12, &[2]),
            (4, 12, 16, &[2]),
            (5, 0, 12, &[1, 3]),
        ]);
        let whole = [range(0, 16)];
        let heirs_of = |shard, ranges: &[HashRange]| heirs(&grown, shard, ranges);
        assert_eq!(
            heirs_of(0, &whole),
            Some(vec![(4, vec![range(12, 16)]), (5, vec![range(0, 12)])])
        );
        // A part of a parent's range, and of what came of it.
        assert_eq!(heirs_of(1, &[range(2, 4)]), Some(vec![(5, vec![range(2, 4)])]));
        assert_eq!(
            heirs_of(2, &[range(8, 9), range(11, 13)]),
            Some(vec![(4, vec![range(12, 13)]), (5, vec![range(8, 9), range(11, 12)])])
        );
        // An open shard has none, nor has one that is not there.
        assert_eq!((heirs_of(5, &whole), heirs_of(9, &whole)), (None, None));
    }

    #[test]
    fn children_that_are_not_described_yet_are_waited_for() {
        let half = stream(&[(0, 0, 16, &[]), (1, 0, 8, &[0])]);
        assert_eq!(heirs(&half, 0, &[range(0, 16)]), None);
        assert_eq!(heirs(&half, 0, &[range(0, 4)]), Some(vec![(1, vec![range(0, 4)])]));
        let alone = stream(&[(0, 0, 16, &[])]);
        assert_eq!(heirs(&alone, 0, &[range(0, 16)]), None);
    }

    #[test]
    fn a_hash_key_has_one_heir_and_one_that_is_nobodys_always_the_same() {
        let routes = [(4, vec![range(12, 16)]), (5, vec![range(0, 4), range(8, 12)])];
        for (hash, shard) in [(0, 5), (u128::MAX, 4), (8 << 124, 5), ((12 << 124) - 1, 5)] {
            assert_eq!(pick(&routes, hash), Some(shard), "{hash:#x}");
        }
        let nobodys = 5 << 124;
        assert_eq!(pick(&routes, nobodys), pick(&routes, nobodys));
        assert!(pick(&routes, nobodys).is_some() && pick(&[], 0).is_none());
    }

    #[test]
    fn no_shard_is_read_before_all_its_parents_are_at_their_end() {
        let mut order = ReadingOrder::default();
        assert_eq!(order.learn(&stream(&[(0, 0, 8, &[]), (1, 8, 16, &[])])), [0, 1]);
        // 0 splits into 2 and 3; 3 and 1 merge into 4.
        let grown = stream(&[
            (0, 0, 8, &[]),
            (1, 8, 16, &[]),
            (2, 0, 4, &[0]),
            (3, 4, 8, &[0]),
            (4, 4, 16, &[3, 1]),
        ]);
        assert_eq!(order.learn(&grown), Vec::<u32>::new());
        assert_eq!(order.ended(1), Vec::<u32>::new(), "4 waits for 3 as well");
        assert_eq!(order.ended(0), [2, 3]);
        assert_eq!(order.learn(&grown), Vec::<u32>::new(), "once");
        assert_eq!(order.ended(3), [4]);
        assert!(order.has_children(3) && !order.has_children(4));
    }

    #[test]
    fn a_reader_that_comes_late_begins_with_the_oldest_that_are_left() {
        let mut order = ReadingOrder::default();
        let late = stream(&[(1, 0, 8, &[0]), (2, 8, 16, &[0]), (3, 0, 16, &[1, 2])]);
        assert_eq!(order.learn(&late), [1, 2]);
        assert_eq!(order.ended(1), Vec::<u32>::new());
        assert_eq!(order.ended(2), [3]);
    }
}
