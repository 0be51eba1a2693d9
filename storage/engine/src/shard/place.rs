//! Where a record lies and when it arrived: found among recent groups in memory, or read from disk where the index
//! says, a few at a time. What was found of a group's position is kept until the group or retention moves on.

use std::collections::{BTreeMap, BTreeSet};

use highwater_wire::{BatchIter, BatchView};

use super::read::{Reader, ReaderKey};
use super::{Mark, Shard};
use crate::format::BlockHeader;
use crate::io::Io;
use crate::lag::{Kept, Lag, outlook};
use crate::types::{Backlog, Now, ReadError};

/// Look-ups of a shard that read from disk at once.
const AT_ONCE: usize = 4;

/// Numbers of readers from here on are look-ups.
pub(super) const FIRST: u64 = 1 << 63;

/// Bytes a look-up reads at first.
pub(super) const LOOK_BYTES: usize = 64 << 10;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Arrival of its batch, nanoseconds since 1970 UTC.
    arrival_ns: u64,
    /// Its batch begins in this segment.
    segment: u64,
    /// At this byte.
    offset: u64,
}

/// What a look-up looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The record of the reader's position.
    Record,
    /// The first record that arrived at this time or later, nanoseconds since 1970 UTC.
    Since(u64),
}

/// Look-ups, and what they found.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By sequence number; `None`: it could not be read.
    known: BTreeMap<u64, Option<Place>>,
    /// To be looked up.
    wanted: BTreeSet<u64>,
    /// Under way: the sequence number by the number of the reader.
    looking: BTreeMap<u64, u64>,
    /// Of those by time: what was found, by the number of the reader.
    found: BTreeMap<u64, Result<u64, ReadError>>,
    next: u64,
}

impl Places {
    /// Whether a record is looked up by now, or could not be.
    fn settled(&self, sequence: u64) -> bool {
        self.known.contains_key(&sequence)
    }
}

/// The batch with a record in the body of a block: its arrival, and where it begins in `block`.
fn in_block(block: &[u8], body_end: usize, sequence: u64) -> Option<(u64, usize)> {
    let mut pos = BlockHeader::LEN;
    for batch in BatchIter::new(block.get(pos..body_end)?) {
        let batch = batch.ok()?;
        if batch.record_count() > 0 && batch.end_sequence() > sequence {
            return Some((batch.header().arrival_ns.to_native(), pos));
        }
        pos += batch.bytes().len();
    }
    None
}

/// The first record from `from` on in the body of a block that arrived at `time_ns` or later.
fn since_in_block(block: &[u8], body_end: usize, from: u64, time_ns: u64) -> Option<u64> {
    let late_enough = |batch: &BatchView<'_>| {
        batch.record_count() > 0
            && batch.end_sequence() > from
            && batch.header().arrival_ns.to_native() >= time_ns
    };
    BatchIter::new(block.get(BlockHeader::LEN..body_end)?)
        .map_while(Result::ok)
        .find(late_enough)
        .map(|batch| batch.base_sequence().max(from))
}

impl Shard {
    /// How far `position` is behind the high-water mark, as far as that is known without reading.
    pub fn backlog(&self, now: Now, position: u64) -> Backlog {
        let position = position.max(self.oldest());
        if position >= self.high_water {
            return Backlog { exact: true, ..Backlog::default() };
        }
        let records = self.high_water - position;
        let place = match self.places.known.get(&position) {
            Some(place) => *place,
            None => self.place_in_tail(position),
        };
        let (arrival_ns, segment, offset) = match place {
            Some(place) => (
                place.arrival_ns,
                self.segments.binary_search_by_key(&place.segment, |s| s.number).ok(),
                place.offset,
            ),
            None => match self.index_entry(position) {
                Some((at, entry)) => (entry.arrival_ns, Some(at), entry.offset),
                None => (now.wall_ns, None, 0),
            },
        };
        let bytes = segment.map_or(0, |at| {
            let later: u64 = self.segments.iter().skip(at + 1).map(|s| s.next_offset).sum();
            later + self.segments[at].next_offset.saturating_sub(offset)
        });
        let age_ns = now.wall_ns.saturating_sub(arrival_ns);
        Backlog { records, bytes, age_ns, exact: place.is_some() }
    }

    fn index_entry(&self, sequence: u64) -> Option<(usize, crate::index::IndexEntry)> {
        let at = self.segment_of(sequence)?;
        Some((at, *self.segments[at].index.by_sequence(sequence)?))
    }

    fn place_in_tail(&self, sequence: u64) -> Option<Place> {
        let at = self.tail.partition_point(|block| block.end_sequence <= sequence);
        let block = self.tail.get(at).filter(|block| block.base_sequence <= sequence)?;
        let (arrival_ns, pos) = in_block(&block.buf, block.body_end, sequence)?;
        Some(Place { arrival_ns, segment: block.segment, offset: block.offset + pos as u64 })
    }

    /// A group on this shard, now; of a group that has no position here, as if it were at `position`.
    pub fn lag(&self, now: Now, group: &str, position: u64) -> Lag {
        let backlog = self.backlog(now, position);
        let follow = self.groups.get(group).map(|mark| mark.follow).unwrap_or_default();
        Lag {
            backlog,
            outlook: outlook(&backlog, &follow, self.arriving.per_s(), &self.kept()),
            oldest: self.oldest(),
            high_water: self.high_water,
        }
    }

    fn kept(&self) -> Kept {
        Kept {
            retention_ms: self.spec.retention_ms,
            retention_bytes: self.spec.retention_bytes,
            empty_bytes: self.stored_bytes().saturating_sub(self.log_bytes()),
        }
    }

    /// Records that come in, a second.
    pub fn arriving_per_s(&self) -> f64 {
        self.arriving.per_s()
    }

    /// Keeps a group's position; `None` when it has none any more.
    pub fn set_position(&mut self, group: &str, position: Option<u64>) {
        match (position, self.groups.get_mut(group)) {
            (Some(position), Some(mark)) => mark.position = position,
            (Some(position), None) => {
                let mark = Mark { position, ..Mark::default() };
                self.groups.insert(group.to_owned(), mark);
            }
            (None, _) => drop(self.groups.remove(group)),
        }
    }

    /// The groups' positions.
    pub fn positions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.groups.iter().map(|(group, mark)| (group.as_str(), mark.position))
    }

    /// Once a second: reads how far the groups are, and looks up what is not known of them.
    pub fn follow_groups(&mut self, now: Now, io: &mut Io) {
        self.arriving.read(now.mono_ns, self.high_water);
        if self.groups.is_empty() {
            self.places.known.clear();
            return;
        }
        let mut groups = std::mem::take(&mut self.groups);
        for mark in groups.values_mut() {
            self.want(now, mark.position, io);
            let backlog = self.backlog(now, mark.position);
            mark.follow.read(now.mono_ns, mark.position, &backlog);
        }
        self.groups = groups;
        if self.places.known.len() > 2 * self.groups.len() {
            let oldest = self.oldest();
            let used: BTreeSet<u64> =
                self.groups.values().map(|mark| mark.position.max(oldest)).collect();
            // What could not be read is tried again.
            self.places.known.retain(|at, place| used.contains(at) && place.is_some());
        }
        self.look_on(now, io);
    }

    /// Has the record at a position looked up, if it is not known where it lies.
    pub fn want(&mut self, now: Now, position: u64, io: &mut Io) {
        let at = position.max(self.oldest());
        if at >= self.high_water || self.places.settled(at) {
            return;
        }
        if let Some(place) = self.place_in_tail(at) {
            self.places.known.insert(at, Some(place));
            return;
        }
        let under_way = self.places.looking.values().any(|looking| *looking == at);
        if !under_way && self.places.wanted.insert(at) {
            self.look_up(now, io);
        }
    }

    /// Whether it is known how far a position is behind, as well as it can be.
    pub fn settled(&self, position: u64) -> bool {
        let at = position.max(self.oldest());
        at >= self.high_water || self.places.settled(at) || self.place_in_tail(at).is_some()
    }

    /// Begins as many look-ups as may be.
    fn look_up(&mut self, now: Now, io: &mut Io) {
        while self.places.looking.len() < AT_ONCE
            && let Some(sequence) = self.places.wanted.pop_first()
        {
            let number = self.next_look();
            self.places.looking.insert(number, sequence);
            self.readers.push(Reader::looking(number, sequence, Wanted::Record));
            self.pump_readers(now, io);
        }
    }

    fn next_look(&mut self) -> u64 {
        self.places.next += 1;
        FIRST | self.places.next
    }

    /// Looks for the first record that arrived at a time or later; the number to ask for it with.
    pub fn look_since(&mut self, now: Now, time_ns: u64, io: &mut Io) -> u64 {
        let number = self.next_look();
        let from = self.sequence_at(time_ns).clamp(self.oldest(), self.high_water);
        self.readers.push(Reader::looking(number, from, Wanted::Since(time_ns)));
        self.pump_readers(now, io);
        number
    }

    /// What [`Shard::look_since`] found, once it is known: a sequence number, the high-water mark if nothing is so new.
    pub fn found_since(&mut self, number: u64) -> Option<Result<u64, ReadError>> {
        self.places.found.remove(&number)
    }

    /// A look-up is at the end of what there is, or its record has gone.
    pub(super) fn look_ended(&mut self, at: usize, wanted: Wanted) {
        let next = self.readers[at].next.max(self.oldest());
        self.found(at, wanted, None, next);
    }

    /// One step of a look-up in memory; it is not at the end yet.
    pub(super) fn look_in_tail(&mut self, at: usize, wanted: Wanted) {
        let next = self.readers[at].next;
        match wanted {
            Wanted::Record => {
                let place = self.place_in_tail(next);
                self.found(at, wanted, place, next);
            }
            Wanted::Since(time_ns) => {
                let first = self.tail.partition_point(|block| block.end_sequence <= next);
                let mut blocks = self.tail.iter().skip(first);
                let found = blocks.find_map(|b| since_in_block(&b.buf, b.body_end, next, time_ns));
                self.found(at, wanted, None, found.unwrap_or(self.high_water));
            }
        }
    }

    /// A look-up meets a block on disk, whole and sound, that does not end before its position. `true` if it is done.
    pub(super) fn look_in_block(
        &mut self,
        at: usize,
        wanted: Wanted,
        block: &[u8],
        body_end: usize,
        segment: u64,
        offset: u64,
    ) -> bool {
        let next = self.readers[at].next;
        match wanted {
            Wanted::Record => {
                let Some((arrival_ns, pos)) = in_block(block, body_end, next) else { return false };
                let place = Place { arrival_ns, segment, offset: offset + pos as u64 };
                self.found(at, wanted, Some(place), next);
            }
            Wanted::Since(time_ns) => {
                let found = since_in_block(block, body_end, next, time_ns);
                let Some(found) = found else { return false };
                self.found(at, wanted, None, found.min(self.high_water));
            }
        }
        true
    }

    fn found(&mut self, at: usize, wanted: Wanted, place: Option<Place>, sequence: u64) {
        let reader = &mut self.readers[at];
        reader.end();
        let number = reader.number();
        match wanted {
            Wanted::Record => {
                if let Some(looked_for) = self.places.looking.remove(&number) {
                    self.places.known.insert(looked_for, place);
                }
            }
            Wanted::Since(_) => drop(self.places.found.insert(number, Ok(sequence))),
        }
    }

    /// A look-up cannot go on.
    pub(super) fn look_failed(&mut self, key: ReaderKey, error: &ReadError) {
        match key {
            ReaderKey::Look(number, Wanted::Record) => {
                if let Some(looked_for) = self.places.looking.remove(&number) {
                    self.places.known.insert(looked_for, None);
                }
            }
            ReaderKey::Look(number, Wanted::Since(_)) => {
                self.places.found.insert(number, Err(error.clone()));
            }
            ReaderKey::Push(_) | ReaderKey::Once(_) | ReaderKey::Ahead => {}
        }
    }

    /// Begins those look-ups that waited for others.
    pub(super) fn look_on(&mut self, now: Now, io: &mut Io) {
        if !self.places.wanted.is_empty() && self.places.looking.len() < AT_ONCE {
            self.look_up(now, io);
        }
    }
}
