//! A set of record numbers, kept as intervals: exact, and small as long as the numbers come in runs.

use std::ops::Range;

/// Disjoint, non-adjacent intervals in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    runs: Vec<Range<u64>>,
}

impl Intervals {
    /// Numbers in the set.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Empties it, keeping the memory.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    /// The intervals.
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// Adds `range`; returns how many of its numbers were new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        // What comes in order extends the last interval.
        match self.runs.last_mut() {
            Some(last) if last.end == range.start => {
                last.end = range.end;
                return range.end - range.start;
            }
            Some(last) if last.end > range.start => {}
            _ => {
                let new = range.end - range.start;
                self.runs.push(range);
                return new;
            }
        }
        let first = self.runs.partition_point(|run| run.end < range.start);
        let after = first + self.runs[first..].partition_point(|run| run.start <= range.end);
        let touched = &self.runs[first..after];
        let known: u64 = touched.iter().map(|run| common(run, &range)).sum();
        let merged = match (touched.first(), touched.last()) {
            (Some(a), Some(b)) => a.start.min(range.start)..b.end.max(range.end),
            _ => range.clone(),
        };
        self.runs.splice(first..after, [merged]);
        range.end - range.start - known
    }

    /// How many numbers of `range` are in the set.
    pub fn count(&self, range: &Range<u64>) -> u64 {
        self.touching(range).iter().map(|run| common(run, range)).sum()
    }

    /// The parts of `range` that are in the set, in order.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let Range { start, end } = *range;
        self.touching(range).iter().map(move |run| run.start.max(start)..run.end.min(end))
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = range.end;
        let mut at = range.start;
        // An empty interval at the end closes the last gap.
        self.touching(&range).iter().cloned().chain(std::iter::once(end..end)).filter_map(
            move |run| {
                let gap = at..run.start.min(end);
                at = at.max(run.end);
                (!gap.is_empty()).then_some(gap)
            },
        )
    }

    fn touching(&self, range: &Range<u64>) -> &[Range<u64>] {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let count = self.runs[first..].partition_point(|run| run.start < range.end);
        &self.runs[first..first + count]
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
                prop_assert!(set.runs().windows(2).all(|w| w[0].end < w[1].start));
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
