//! Which shards a stream has, and how splits and merges change them. Pure: records in, a plan out; the control
//! plane makes a plan durable and carries it out.

use highwater_wire::{HashRange, MAX_SHARDS_PER_STREAM, ShardId, split_evenly};
use serde::{Deserialize, Serialize};

/// Shards of a stream that may be kept, closed ones included.
pub const MAX_SHARDS_KEPT: u32 = 2 * MAX_SHARDS_PER_STREAM;

/// A shard as the catalogue keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Number within the stream, never reused.
    pub shard: u32,
    /// First hash key of its range.
    pub hash_start: u128,
    /// Last hash key of its range.
    pub hash_end: u128,
    /// The shards it came from; they may have gone since.
    #[serde(default)]
    pub parents: Vec<u32>,
    /// The shards that took over from it.
    #[serde(default)]
    pub children: Vec<u32>,
    /// It takes no appends any more, in this start and all later ones.
    #[serde(default)]
    pub closed: bool,
    /// When it was closed, nanoseconds since 1970 UTC.
    #[serde(default)]
    pub closed_ns: u64,
    /// The core that owns it, modulo the number of cores.
    pub home: u32,
    /// Records below this sequence number were given up.
    #[serde(default)]
    pub trimmed: u64,
}

impl ShardRecord {
    /// Its part of the hash-key space.
    pub fn range(&self) -> HashRange {
        HashRange { start: self.hash_start, end: self.hash_end }
    }

    fn open(shard: u32, range: HashRange, parents: Vec<u32>) -> ShardRecord {
        ShardRecord {
            shard,
            hash_start: range.start,
            hash_end: range.end,
            parents,
            children: Vec::new(),
            closed: false,
            closed_ns: 0,
            home: 0,
            trimmed: 0,
        }
    }
}

/// Where the shard of a stream lies when nothing else was decided: `home` of those a stream is created with.
pub fn first_home(shard: ShardId) -> u32 {
    shard.stream.wrapping_add(shard.shard)
}

/// The shards a new stream begins with.
pub fn first_shards(stream: u32, shards: u32) -> Vec<ShardRecord> {
    let ranges = split_evenly(shards.max(1)).into_iter().zip(0..);
    ranges
        .map(|(range, shard)| ShardRecord {
            home: first_home(ShardId { stream, shard }),
            ..ShardRecord::open(shard, range, Vec::new())
        })
        .collect()
}

/// Why shards cannot be split or merged as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReshardError {
    /// Not there.
    #[error("shard {0} does not exist")]
    Unknown(u32),
    /// It has children already.
    #[error("shard {shard} is closed; its records go to {children:?} now")]
    Closed {
        /// Which.
        shard: u32,
        /// Its children.
        children: Vec<u32>,
    },
    /// It takes no appends because of its disk.
    #[error("shard {shard} is {state}: only an open shard can be split or merged")]
    NotServing {
        /// Which.
        shard: u32,
        /// What it says.
        state: String,
    },
    /// Named twice.
    #[error("shard {0} is named twice")]
    Twice(u32),
    /// One shard is no merge.
    #[error("merging takes at least two shards, {0} given")]
    TooFew(usize),
    /// A gap between them.
    #[error(
        "shards {left} and {right} are not neighbours: the range of {left} ends at {end:#034x}, that of {right} begins at {start:#034x}"
    )]
    NotAdjacent {
        /// The one before.
        left: u32,
        /// The one after.
        right: u32,
        /// Last hash key of the one.
        end: u128,
        /// First hash key of the other.
        start: u128,
    },
    /// A split point at the wrong place.
    #[error(
        "split point {at:#034x}: it has to be above {after:#034x} and at most {end:#034x} (they go up, within the range of shard {shard})"
    )]
    Point {
        /// The shard.
        shard: u32,
        /// As given.
        at: u128,
        /// The one before, or where the range begins.
        after: u128,
        /// Where the range ends.
        end: u128,
    },
    /// Nothing to divide.
    #[error("the range of shard {0} is a single hash key")]
    Narrow(u32),
    /// A split would move the load, not divide it.
    #[error(
        "shard {shard} has one key: all of the {samples} records looked at last had the same hash key {hash:#034x}; a split would not divide its load (name the split points to split it anyway)"
    )]
    OneKey {
        /// Which.
        shard: u32,
        /// Records that were looked at.
        samples: usize,
        /// The key's hash.
        hash: u128,
    },
    /// A core does not say how its shards are.
    #[error("core {core} does not answer within {waited_ms} ms: nothing was changed; try again")]
    NoAnswer {
        /// Which.
        core: usize,
        /// Milliseconds waited.
        waited_ms: u64,
    },
    /// A parent has not finished what it had in flight.
    #[error(
        "shard {shard} has not finished after {waited_ms} ms what it had in flight: the change is kept, and its children are open to producers and readers as soon as it has (stream describe shows them)"
    )]
    UnderWay {
        /// The parent.
        shard: u32,
        /// Milliseconds waited.
        waited_ms: u64,
    },
    /// More than allowed.
    #[error("the stream would have {shards} {what}; {limit} are allowed")]
    TooMany {
        /// `open shards`, or `shards, closed ones included`.
        what: &'static str,
        /// So many.
        shards: u64,
        /// The limit.
        limit: u32,
    },
}

/// What a split or merge comes to: parents that close, and children, complete but for their homes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be closed.
    pub close: Vec<u32>,
    /// To be added.
    pub open: Vec<ShardRecord>,
}

/// The shards of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// All that are kept.
    pub shards: &'a [ShardRecord],
    /// Number of the next.
    pub next: u32,
}

impl<'a> Layout<'a> {
    /// The open ones, by hash range.
    pub fn open(&self) -> Vec<&'a ShardRecord> {
        let mut open: Vec<_> = self.shards.iter().filter(|s| !s.closed).collect();
        open.sort_by_key(|s| s.hash_start);
        open
    }

    fn find_open(&self, shard: u32) -> Result<&'a ShardRecord, ReshardError> {
        let found = self.shards.iter().find(|s| s.shard == shard);
        let found = found.ok_or(ReshardError::Unknown(shard))?;
        if found.closed {
            return Err(ReshardError::Closed { shard, children: found.children.clone() });
        }
        Ok(found)
    }

    /// Splits a shard: the second and later children begin at `at`.
    pub fn split(&self, shard: u32, at: &[u128]) -> Result<Plan, ReshardError> {
        let parent = self.find_open(shard)?;
        let (mut start, end) = (parent.hash_start, parent.hash_end);
        if start == end {
            return Err(ReshardError::Narrow(shard));
        }
        let mut ranges = Vec::new();
        for &at in at {
            if at <= start || at > end {
                return Err(ReshardError::Point { shard, at, after: start, end });
            }
            ranges.push(HashRange { start, end: at - 1 });
            start = at;
        }
        ranges.push(HashRange { start, end });
        self.plan(&[parent], &ranges)
    }

    /// Merges neighbours into one shard.
    pub fn merge(&self, shards: &[u32]) -> Result<Plan, ReshardError> {
        if shards.len() < 2 {
            return Err(ReshardError::TooFew(shards.len()));
        }
        let mut parents = Vec::new();
        for (at, &shard) in shards.iter().enumerate() {
            if shards[..at].contains(&shard) {
                return Err(ReshardError::Twice(shard));
            }
            parents.push(self.find_open(shard)?);
        }
        parents.sort_by_key(|p| p.hash_start);
        for pair in parents.windows(2) {
            let (left, right) = (pair[0], pair[1]);
            if left.hash_end.checked_add(1) != Some(right.hash_start) {
                return Err(ReshardError::NotAdjacent {
                    left: left.shard,
                    right: right.shard,
                    end: left.hash_end,
                    start: right.hash_start,
                });
            }
        }
        let start = parents.first().map_or(0, |p| p.hash_start);
        let end = parents.last().map_or(u128::MAX, |p| p.hash_end);
        self.plan(&parents, &[HashRange { start, end }])
    }

    /// Divides the whole space as `wanted` does, which covers it. Shards whose range is wanted stay.
    pub fn divided(&self, mut wanted: Vec<HashRange>) -> Result<Plan, ReshardError> {
        let open = self.open();
        let parents: Vec<_> =
            open.iter().copied().filter(|s| !wanted.contains(&s.range())).collect();
        wanted.retain(|range| !open.iter().any(|s| s.range() == *range));
        self.plan(&parents, &wanted)
    }

    fn plan(&self, parents: &[&ShardRecord], ranges: &[HashRange]) -> Result<Plan, ReshardError> {
        let open = self.shards.iter().filter(|s| !s.closed).count();
        let limits = [
            ("open shards", open - parents.len(), MAX_SHARDS_PER_STREAM),
            ("shards, closed ones included", self.shards.len(), MAX_SHARDS_KEPT),
        ];
        for (what, others, limit) in limits {
            let shards = (others + ranges.len()) as u64;
            if shards > u64::from(limit) {
                return Err(ReshardError::TooMany { what, shards, limit });
            }
        }
        let children = ranges.iter().zip(self.next..).map(|(range, shard)| {
            let of = parents.iter().filter(|p| overlap(p.range(), *range));
            ShardRecord::open(shard, *range, of.map(|p| p.shard).collect())
        });
        Ok(Plan { close: parents.iter().map(|p| p.shard).collect(), open: children.collect() })
    }
}

fn overlap(a: HashRange, b: HashRange) -> bool {
    a.start <= b.end && b.start <= a.end
}

impl Plan {
    /// Gives every child the core that has fewest open shards; `open` counts them per core, and is kept up.
    pub fn place(&mut self, open: &mut [u64]) {
        for child in &mut self.open {
            let fewest = open.iter_mut().enumerate().min_by_key(|(_, n)| **n);
            if let Some((core, n)) = fewest {
                (child.home, *n) = (core as u32, *n + 1);
            }
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.close.is_empty() && self.open.is_empty()
    }

    /// The shards and the next number afterwards. `now_ns` since 1970 UTC.
    pub fn apply(&self, before: Layout<'_>, now_ns: u64) -> (Vec<ShardRecord>, u32) {
        let mut shards = before.shards.to_vec();
        for shard in shards.iter_mut().filter(|s| self.close.contains(&s.shard)) {
            let children = self.open.iter().filter(|c| c.parents.contains(&shard.shard));
            shard.children = children.map(|c| c.shard).collect();
            (shard.closed, shard.closed_ns) = (true, now_ns);
        }
        shards.extend(self.open.iter().cloned());
        (shards, before.next + self.open.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIDDLE: u128 = 1 << 127;

    fn layout(shards: &[ShardRecord]) -> Layout<'_> {
        Layout { shards, next: shards.iter().map(|s| s.shard + 1).max().unwrap_or(0) }
    }

    fn covers_the_space(shards: &[ShardRecord]) {
        let open = layout(shards).open();
        assert_eq!(open[0].hash_start, 0);
        assert_eq!(open[open.len() - 1].hash_end, u128::MAX);
        assert!(open.windows(2).all(|w| w[0].hash_end.checked_add(1) == Some(w[1].hash_start)));
    }

    #[test]
    fn a_split_closes_the_parent_and_its_halves_name_it() {
        let shards = first_shards(7, 1);
        assert_eq!(shards[0].home, 7);
        let mut plan = layout(&shards).split(0, &[MIDDLE]).unwrap();
        let mut counts = [3, 1, 1];
        plan.place(&mut counts);
        assert_eq!(counts, [3, 2, 2]);
        let (shards, next) = plan.apply(layout(&shards), 9);
        assert_eq!((next, shards[0].closed, shards[0].closed_ns), (3, true, 9));
        assert_eq!(shards[0].children, [1, 2]);
        assert_eq!((&shards[1].parents, shards[1].home), (&vec![0], 1));
        assert_eq!((shards[2].hash_start, shards[2].home), (MIDDLE, 2));
        covers_the_space(&shards);
        let closed = layout(&shards).split(0, &[5]).unwrap_err();
        assert_eq!(closed, ReshardError::Closed { shard: 0, children: vec![1, 2] });
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let shards = first_shards(1, 4);
        let l = layout(&shards);
        assert_eq!(l.split(9, &[1]), Err(ReshardError::Unknown(9)));
        assert!(matches!(l.split(0, &[0]), Err(ReshardError::Point { at: 0, .. })));
        assert!(matches!(l.split(0, &[u128::MAX]), Err(ReshardError::Point { .. })));
        assert!(matches!(l.split(0, &[9, 9]), Err(ReshardError::Point { after: 9, .. })));
        assert_eq!(l.merge(&[1]), Err(ReshardError::TooFew(1)));
        assert_eq!(l.merge(&[1, 1]), Err(ReshardError::Twice(1)));
        assert!(matches!(
            l.merge(&[2, 0]),
            Err(ReshardError::NotAdjacent { left: 0, right: 2, .. })
        ));
        assert!(l.merge(&[2, 1, 0]).is_ok(), "in any order");
        let mut narrow = first_shards(1, 1);
        narrow[0].hash_start = u128::MAX;
        assert_eq!(layout(&narrow).split(0, &[]), Err(ReshardError::Narrow(0)));
        let many = first_shards(1, MAX_SHARDS_PER_STREAM);
        assert!(matches!(layout(&many).split(0, &[1]), Err(ReshardError::TooMany { .. })));
    }

    #[test]
    fn what_fits_is_left_alone() {
        let shards = first_shards(1, 2);
        let plan = layout(&shards).divided(split_evenly(2)).unwrap();
        assert!(plan.is_empty());
        // 3 of 2: the middle child has both parents.
        let plan = layout(&shards).divided(split_evenly(3)).unwrap();
        assert_eq!(plan.close, [0, 1]);
        let parents: Vec<_> = plan.open.iter().map(|c| c.parents.clone()).collect();
        assert_eq!(parents, [vec![0], vec![0, 1], vec![1]]);
    }

    proptest! {
        #[test]
        fn whatever_is_done_the_open_shards_cover_the_space(
            first in 1u32..6, steps in prop::collection::vec((0u8..3, any::<u128>(), 1u32..12), 1..12)
        ) {
            let mut shards = first_shards(1, first);
            let mut next = first;
            for (what, random, n) in steps {
                let layout = Layout { shards: &shards, next };
                let open = layout.open();
                let at = (random % open.len() as u128) as usize;
                let plan = match what {
                    0 => {
                        let range = open[at].range();
                        let point = range.start + 1 + random % (range.end - range.start);
                        layout.split(open[at].shard, &[point])
                    }
                    1 if open.len() > 1 => {
                        let at = at.min(open.len() - 2);
                        layout.merge(&[open[at].shard, open[at + 1].shard])
                    }
                    _ => layout.divided(split_evenly(n)),
                };
                let plan = plan.unwrap();
                for shard in &plan.close {
                    prop_assert!(plan.open.iter().any(|c| c.parents.contains(shard)));
                }
                prop_assert!(plan.open.iter().all(|c| !c.parents.is_empty()));
                (shards, next) = plan.apply(layout, 1);
                covers_the_space(&shards);
            }
        }
    }
}
