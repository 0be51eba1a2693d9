//! The judge of what became of records: pure bookkeeping, no clock and no I/O.
//!
//! A [`Ledger`] follows one *lane*, the records of one producer for one shard, numbered densely in the
//! order they were made. It is told of every acknowledgement and of everything each consumer group read, in
//! any order of the two, and says at the end which records are lost, exactly: sets of numbers, not counts,
//! decide. Every group must see every record.
//!
//! When shards split and merge, a lane's records go on to other shards: what is acknowledged is kept by the shard it
//! is in, because consumers come to different shards at different times.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use crate::intervals::{Intervals, common};
use crate::target::At;

/// What a lane's history comes to. Numbers of records; one that fared the same in several groups counts once,
/// but for what is read again or too late, which is counted each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged.
    pub acked: u64,
    /// Read, once for each group.
    pub read: u64,
    /// Acknowledged and never read by some group, though its consumer went past their place, or to the end.
    pub lost: u64,
    /// Read again.
    pub duplicated: u64,
    /// Read after a later one; in shards that came of others, after a later one of the same key.
    pub reordered: u64,
    /// Acknowledged and removed by retention before some group read them.
    pub trimmed: u64,
    /// Acknowledged, and some group's consumer had not come to them yet.
    pub unread: u64,
    /// Not stored, said the target.
    pub refused: u64,
    /// ... and read nevertheless.
    pub refused_but_read: u64,
    /// Of unknown fate.
    pub unknown: u64,
    /// ... and read: they are stored.
    pub unknown_but_read: u64,
    /// Dropped, said the target.
    pub dropped: u64,
    /// Sampled out, said the target.
    pub sampled_out: u64,
    /// Of these two, read nevertheless.
    pub shed_but_read: u64,
}

impl Verdict {
    /// Adds another lane's.
    pub fn add(&mut self, other: &Verdict) {
        self.acked += other.acked;
        self.read += other.read;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.trimmed += other.trimmed;
        self.unread += other.unread;
        self.refused += other.refused;
        self.refused_but_read += other.refused_but_read;
        self.unknown += other.unknown;
        self.unknown_but_read += other.unknown_but_read;
        self.dropped += other.dropped;
        self.sampled_out += other.sampled_out;
        self.shed_but_read += other.shed_but_read;
    }
}

/// How far a group's consumer of a shard came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Next shard sequence it would have read.
    pub position: u64,
    /// Shard sequences it had to skip because retention had removed them.
    pub trimmed: Intervals,
    /// Whether that is the end of the shard: nothing acknowledged can be behind it.
    pub at_end: bool,
}

/// Acknowledgements that may wait for a group one by one. Past it neighbours are kept as one, with the time
/// of the first: a group that is far behind must not take memory with every batch.
const WAITING: usize = 1 << 16;

/// Acknowledged and not read when the acknowledgement came.
#[derive(Clone, Debug)]
struct Waiting {
    records: Range<u64>,
    /// Shard sequence of the first of them; `None` if the target did not know it any more.
    base: Option<u64>,
    acked_ns: u64,
}

impl Waiting {
    fn len(&self) -> u64 {
        self.records.end - self.records.start
    }

    /// The part of it that is `records`.
    fn part(&self, records: Range<u64>) -> Waiting {
        let base = self.base.map(|base| base + (records.start - self.records.start));
        Waiting { records, base, acked_ns: self.acked_ns }
    }

    /// Takes in `next` if it follows at once, here and in the shard.
    fn join(&mut self, next: &Waiting) -> bool {
        let follows = self.records.end == next.records.start
            && self.base.map(|base| base + self.len()) == next.base;
        if follows {
            self.records.end = next.records.end;
        }
        follows
    }
}

/// What one group read of a lane.
#[derive(Clone, Debug, Default)]
struct Reader {
    read: Intervals,
    /// After the latest record read in the shard that had all of the lane.
    read_end: u64,
    /// After the latest record read in shards that came of it, by the hash of its key.
    key_ends: HashMap<u128, u64>,
    /// By shard; seldom more than one.
    shards: Vec<(u32, Unread)>,
    /// Acknowledged, and nobody knows in which shard.
    astray: Unread,
    duplicated: u64,
    reordered: u64,
}

/// What is acknowledged in one shard, and not read.
#[derive(Clone, Debug, Default)]
struct Unread {
    /// In order of acknowledgement: those the consumer has not come to.
    waiting: VecDeque<Waiting>,
    /// Those of which a later one was read.
    passed: Vec<Waiting>,
}

/// How the order of records that are read is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their numbers: their shard has all records of the lane, so that they come one after the other.
    ByNumber,
    /// By the numbers of those with the same key, whose hash this is: their shard came of the lane's and has a part
    /// of its keys. Whatever the first shard had of the lane comes before.
    ByKey(u128),
}

impl Reader {
    fn unread(&mut self, shard: Option<u32>) -> &mut Unread {
        let Some(shard) = shard else { return &mut self.astray };
        let at = self.shards.iter().position(|(known, _)| *known == shard).unwrap_or_else(|| {
            self.shards.push((shard, Unread::default()));
            self.shards.len() - 1
        });
        &mut self.shards[at].1
    }

    /// Returns how many of the records were read before.
    fn acked(&mut self, shard: Option<u32>, whole: &Waiting) -> u64 {
        if self.read.count(&whole.records) == 0 {
            wait(&mut self.unread(shard).waiting, whole.clone());
            return 0;
        }
        let mut early = whole.len();
        let gaps: Vec<_> = self.read.gaps(whole.records.clone()).collect();
        for gap in gaps {
            early -= gap.end - gap.start;
            wait(&mut self.unread(shard).waiting, whole.part(gap));
        }
        early
    }

    fn read(
        &mut self,
        shard: u32,
        records: Range<u64>,
        order: Order,
        mut acked: impl FnMut(u64, u64),
    ) -> u64 {
        let count = records.end - records.start;
        let behind = match order {
            Order::ByNumber => self.read_end,
            Order::ByKey(key) => self.key_ends.get(&key).map_or(self.read_end, |end| *end),
        };
        // Only what is new and lies before something read earlier came late.
        let late = records.start..records.end.min(behind);
        let late_known = self.read.count(&late);
        let new = self.read.insert(records.clone());
        self.duplicated += count - new;
        self.reordered += late.end.saturating_sub(late.start) - late_known;
        let end = behind.max(records.end);
        match order {
            Order::ByNumber => self.read_end = end,
            Order::ByKey(key) => _ = self.key_ends.insert(key, end),
        }
        if let Some((_, unread)) = self.shards.iter_mut().find(|(known, _)| *known == shard) {
            unread.read(&records, &mut acked);
        }
        if !self.astray.waiting.is_empty() {
            self.astray.read(&records, &mut acked);
        }
        new
    }
}

impl Unread {
    /// `records` were read: what waited for them is told, what waits before them was passed by.
    fn read(&mut self, records: &Range<u64>, mut acked: impl FnMut(u64, u64)) {
        while let Some(front) = self.waiting.front_mut() {
            if front.records.start >= records.end {
                break;
            }
            let here = common(&front.records, records);
            if here > 0 {
                acked(front.acked_ns, here);
            }
            if front.records.start < records.start {
                let end = front.records.end.min(records.start);
                let passed = front.part(front.records.start..end);
                if !self.passed.last_mut().is_some_and(|last| last.join(&passed)) {
                    self.passed.push(passed);
                }
            }
            if front.records.end > records.end {
                *front = front.part(records.end..front.records.end);
                break;
            }
            self.waiting.pop_front();
        }
    }
}

fn wait(waiting: &mut VecDeque<Waiting>, entry: Waiting) {
    let full = waiting.len() >= WAITING;
    if !full || !waiting.back_mut().is_some_and(|last| last.join(&entry)) {
        waiting.push_back(entry);
    }
}

/// Records that fared badly, by their numbers.
#[derive(Debug, Default)]
struct Missing {
    lost: Intervals,
    trimmed: Intervals,
    unread: Intervals,
}

impl Missing {
    /// Adds what a group whose consumer of a shard came so far, and who `read` this, did not read of what was
    /// acknowledged there.
    fn add(&mut self, unread: &Unread, read: &Intervals, reach: &Reach) {
        for entry in unread.passed.iter().chain(&unread.waiting) {
            // A record passed by may still have been read later.
            for gap in read.gaps(entry.records.clone()) {
                let part = entry.part(gap);
                match part.base {
                    Some(base) => self.place(&part.records, base, reach),
                    None => _ = self.lost.insert(part.records),
                }
            }
        }
    }

    /// Sorts `records`, stored from shard sequence `base` on, by where the consumer was.
    fn place(&mut self, records: &Range<u64>, base: u64, reach: &Reach) {
        let stored = base..base + (records.end - records.start);
        let number = |sequence: u64| records.start + (sequence - base);
        let came_to = if reach.at_end { stored.end } else { reach.position };
        let passed = stored.start..came_to.clamp(stored.start, stored.end);
        self.unread.insert(number(passed.end)..records.end);
        for kept in reach.trimmed.gaps(passed.clone()) {
            self.lost.insert(number(kept.start)..number(kept.end));
        }
        for gone in reach.trimmed.runs() {
            let gone = gone.start.max(passed.start)..gone.end.min(passed.end);
            if !gone.is_empty() {
                self.trimmed.insert(number(gone.start)..number(gone.end));
            }
        }
    }
}

/// The history of one lane.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    groups: Vec<Reader>,
    refused: Intervals,
    unknown: Intervals,
    dropped: Intervals,
    sampled_out: Intervals,
    acked: u64,
    /// By shard: after the last sequence acknowledged.
    acked_ends: Vec<(u32, u64)>,
}

impl Ledger {
    /// Of a lane that so many groups read; with none, nothing of it is judged.
    pub fn new(groups: usize) -> Ledger {
        Ledger { groups: vec![Reader::default(); groups], ..Ledger::default() }
    }

    /// Records `records` are acknowledged, the first being `at`. For each group that had read some of them by
    /// then, `early(group, records)` is told how many.
    pub fn acked(
        &mut self,
        records: Range<u64>,
        at: Option<At>,
        acked_ns: u64,
        mut early: impl FnMut(usize, u64),
    ) {
        let whole = Waiting { records, base: at.map(|at| at.sequence), acked_ns };
        self.acked += whole.len();
        if let Some(At { shard, sequence }) = at {
            let end = sequence.saturating_add(whole.len());
            match self.acked_ends.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, known)) => *known = end.max(*known),
                None => self.acked_ends.push((shard, end)),
            }
        }
        for (number, group) in self.groups.iter_mut().enumerate() {
            let count = group.acked(at.map(|at| at.shard), &whole);
            if count > 0 {
                early(number, count);
            }
        }
    }

    /// Records acknowledged.
    pub fn acked_count(&self) -> u64 {
        self.acked
    }

    /// The sequence after the last one acknowledged, of each shard that is known to have some.
    pub fn acked_ends(&self) -> &[(u32, u64)] {
        &self.acked_ends
    }

    /// The target dropped `records`, or they were not in its sample.
    pub fn shed(&mut self, records: Range<u64>, sampled: bool) {
        let shed = if sampled { &mut self.sampled_out } else { &mut self.dropped };
        shed.insert(records);
    }

    /// The target says it did not store `records`.
    pub fn refused(&mut self, records: Range<u64>) {
        self.refused.insert(records);
    }

    /// Nobody knows whether `records` are stored.
    pub fn unknown(&mut self, records: Range<u64>) {
        self.unknown.insert(records);
    }

    /// `group` read `records` in `shard`, one after the other (by key: all of one key). Returns how many were new to it, after giving each
    /// acknowledgement that waited for some of them to `acked(acked_ns, records)`.
    pub fn read(
        &mut self,
        group: usize,
        shard: u32,
        records: Range<u64>,
        order: Order,
        acked: impl FnMut(u64, u64),
    ) -> u64 {
        match self.groups.get_mut(group) {
            Some(reader) if !records.is_empty() => reader.read(shard, records, order, acked),
            _ => 0,
        }
    }

    /// What it all comes to. `reach(group, shard)`: how far the group's consumer of the shard came; `None` if
    /// that is not known (then all it did not read is unread).
    pub fn verdict<'a>(&self, reach: impl Fn(usize, u32) -> Option<&'a Reach>) -> Verdict {
        let nowhere = Reach::default();
        let mut missing = Missing::default();
        for (group, reader) in self.groups.iter().enumerate() {
            missing.add(&reader.astray, &reader.read, &nowhere);
            for (shard, unread) in &reader.shards {
                let reach = reach(group, *shard).unwrap_or(&nowhere);
                missing.add(unread, &reader.read, reach);
            }
        }
        let sum = |of: fn(&Reader) -> u64| self.groups.iter().map(of).sum();
        Verdict {
            acked: self.acked,
            read: sum(|reader| reader.read.len()),
            lost: missing.lost.len(),
            duplicated: sum(|reader| reader.duplicated),
            reordered: sum(|reader| reader.reordered),
            trimmed: missing.trimmed.len(),
            unread: missing.unread.len(),
            refused: self.refused.len(),
            refused_but_read: self.read_of(&self.refused),
            unknown: self.unknown.len(),
            unknown_but_read: self.read_of(&self.unknown),
            dropped: self.dropped.len(),
            sampled_out: self.sampled_out.len(),
            shed_but_read: self.read_of(&self.dropped) + self.read_of(&self.sampled_out),
        }
    }

    /// How many of `set` some group read.
    fn read_of(&self, set: &Intervals) -> u64 {
        set.runs()
            .map(|run| {
                let mut read = Intervals::default();
                for group in &self.groups {
                    for part in group.read.within(&run) {
                        read.insert(part);
                    }
                }
                read.len()
            })
            .sum()
    }
}

#[cfg(test)]
mod tests;
