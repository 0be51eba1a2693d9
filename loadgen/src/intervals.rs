//! A set of record numbers, kept as intervals: exact, and small as long as the numbers come in runs.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent intervals in order.
///
/// Numbers come in order where one shard has all of a lane, and then there is one interval, which takes no memory of
/// its own. Where several shards have a part each, one of which is read before the other, there may be as many as
/// numbers: so the others are a tree, and not a vector in whose middle room must be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// All but the last: their ends by their starts.
    earlier: BTreeMap<u64, u64>,
    /// Empty only if there is none at all.
    last: Range<u64>,
}

impl Intervals {
    /// Numbers in the set.
    pub fn len(&self) -> u64 {
        self.runs().map(|run| run.end - run.start).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// The intervals.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let earlier = self.earlier.iter().map(|(start, end)| *start..*end);
        earlier.chain(Some(self.last.clone()).filter(|last| !last.is_empty()))
    }

    /// Adds `range`; returns how many of its numbers were new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let len = range.end - range.start;
        if self.last.is_empty() {
            self.last = range;
            return len;
        }
        // What comes in order extends the last interval.
        if range.start == self.last.end {
            self.last.end = range.end;
            return len;
        }
        if range.start > self.last.end {
            let before = std::mem::replace(&mut self.last, range);
            self.earlier.insert(before.start, before.end);
            return len;
        }
        let (mut merged, mut known) = (range.clone(), 0);
        let mut take = |run: Range<u64>| {
            known += common(&run, &range);
            merged = merged.start.min(run.start)..merged.end.max(run.end);
        };
        let at_last = range.end >= self.last.start;
        if at_last {
            take(self.last.clone());
        }
        while let Some((&start, &end)) = self.earlier.range(..=range.end).next_back()
            && end >= range.start
        {
            take(start..end);
            self.earlier.remove(&start);
        }
        match at_last {
            true => self.last = merged,
            false => _ = self.earlier.insert(merged.start, merged.end),
        }
        len - known
    }

    /// How many numbers of `range` are in the set.
    pub fn count(&self, range: &Range<u64>) -> u64 {
        self.touching(range.clone()).map(|run| common(&run, range)).sum()
    }

    /// The parts of `range` that are in the set, in order.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let Range { start, end } = *range;
        self.touching(range.clone()).map(move |run| run.start.max(start)..run.end.min(end))
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = range.end;
        let mut at = range.start;
        // An empty interval at the end closes the last gap.
        let runs = self.touching(range).chain(std::iter::once(end..end));
        runs.filter_map(move |run| {
            let gap = at..run.start.min(end);
            at = at.max(run.end);
            (!gap.is_empty()).then_some(gap)
        })
    }

    /// The intervals that have numbers of `range`.
    fn touching(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let Range { start, end } = range.start..range.end.max(range.start);
        let before = self.earlier.range(..start).next_back().filter(|(_, till)| **till > start);
        let inside = self.earlier.range(start..end);
        let last = Some(self.last.clone()).filter(|last| last.end > start && last.start < end);
        let earlier = before.into_iter().chain(inside).map(|(start, end)| *start..*end);
        earlier.filter(move |_| start < end).chain(last.filter(|_| start < end))
    }
}

/// How many numbers two intervals share.
pub fn common(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            ranges in prop::collection::vec((0u64..60, 0u64..12), 0..40),
            probe in (0u64..60, 0u64..20),
        ) {
            let (mut set, mut model) = (Intervals::default(), BTreeSet::new());
            for (start, len) in ranges {
                let new = (start..start + len).filter(|n| model.insert(*n)).count();
                prop_assert_eq!(set.insert(start..start + len), new as u64);
                let runs: Vec<_> = set.runs().collect();
                prop_assert!(runs.windows(2).all(|w| w[0].end < w[1].start));
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
            let probe = probe.0..probe.0 + probe.1;
            let inside = probe.clone().filter(|n| model.contains(n)).count();
            prop_assert_eq!(set.count(&probe), inside as u64);
            let parts: Vec<u64> = set.within(&probe).flatten().collect();
            let present: Vec<u64> = probe.clone().filter(|n| model.contains(n)).collect();
            prop_assert_eq!(parts, present);
            let missing: Vec<u64> = probe.clone().filter(|n| !model.contains(n)).collect();
            let gaps: Vec<u64> = set.gaps(probe).flatten().collect();
            prop_assert_eq!(gaps, missing);
        }
    }
}
