//! What a shard says of itself.

use highwater_wire::ShardCounters;

use super::{Item, Shard, State};
use crate::group::PendingAck;
use crate::types::{AppendError, Now, ShardStatus};

impl Shard {
    /// Its records by what became of them.
    pub fn counters(&self) -> ShardCounters {
        ShardCounters {
            pending: self.pending(),
            held_bytes: self.queue.held_bytes(),
            evictions: self.producers.evictions,
            ..self.stats.counters
        }
    }

    /// Records that wait for their answer.
    fn pending(&self) -> u64 {
        let of = |acks: &[PendingAck]| acks.iter().map(|a| u64::from(a.offered)).sum::<u64>();
        let ready = self.ready.iter().map(|item| match item {
            Item::Group(group) => of(&group.acks),
            Item::Header { .. } | Item::Seal { .. } => 0,
        });
        let flying = self.flights.iter().map(|flight| of(&flight.acks));
        let open = self.open.as_ref().map_or(0, |group| of(&group.acks));
        self.queue.records() + open + ready.sum::<u64>() + flying.sum::<u64>()
    }

    /// In brief.
    pub fn status(&self, now: Now) -> ShardStatus {
        ShardStatus {
            id: self.spec.id,
            oldest: self.oldest(),
            high_water: self.high_water,
            stored_bytes: self.stored_bytes(),
            log_bytes: self.log_bytes(),
            state: self.state_text(),
            counters: self.counters(),
            pressed: self.metering.pressed(now),
            closed: self.spec.closed,
            expired: self.expired(now),
            arriving_per_s: self.arriving_per_s(),
        }
    }

    pub(crate) fn state_text(&self) -> String {
        match &self.state {
            State::Open => match &self.take_refused {
                Some(refused) => self.without_another_segment(refused),
                None => "open".to_owned(),
            },
            State::Failed(reason) => format!("failed: {reason}"),
            State::Damaged(reason) => format!("damaged: {reason}"),
            State::Closed if self.quiet() => "closed".to_owned(),
            State::Closed | State::Closing => "closing".to_owned(),
        }
    }

    /// What an open shard is at that found no further segment.
    fn without_another_segment(&self, refused: &AppendError) -> String {
        let left = match self.segments.back().filter(|_| self.current) {
            Some(last) => last.capacity.saturating_sub(last.next_offset) >> 10,
            None => 0,
        };
        let why = match refused {
            AppendError::DiskFull { .. } => "the file system is full",
            AppendError::NoSegment { reason, .. } => reason,
            _ => return format!("open: {refused}"),
        };
        match left {
            0..64 => format!("open: {why}: appends are refused until another segment can be had"),
            left => format!("open: {why}: what fits the {left} KiB left of its segment is stored"),
        }
    }

    /// Bytes of its segments on disk.
    pub fn stored_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.capacity).sum::<u64>() + self.spare.map_or(0, |s| s.capacity)
    }

    /// Bytes of these that are written, or have their place.
    pub fn log_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.next_offset).sum()
    }

    /// Subscriptions and waiting reads.
    pub fn reader_count(&self) -> usize {
        self.readers.iter().filter(|reader| reader.reads()).count()
    }

    /// Segments on disk.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }
}
