//! Retention: whole segments go when they are too old or the shard holds too much.

use highwater_ring::{Job, Op};

use super::{Item, Shard, State};
use crate::format::segment_path;
use crate::io::{Io, What};
use crate::types::Now;

/// After a segment's file could not be given back, the next attempt comes this much later.
pub(super) const RECYCLE_AGAIN_NS: u64 = 1_000_000_000;

impl Shard {
    /// Closes files nobody writes any more and nobody has read since the last look: the ring's table of files
    /// is bounded.
    pub fn close_idle_files(&mut self, io: &mut Io) {
        let (committed, written_below) = (self.committed, self.written_below());
        for segment in self.segments.iter_mut() {
            let idle = segment.number < written_below
                && segment.reads == 0
                && !segment.opening
                && segment.last_block <= committed;
            if idle && !std::mem::take(&mut segment.touched) {
                io.closes.extend(segment.file.take());
            }
        }
    }

    /// Segments below this number have nothing left to be written or in flight.
    fn written_below(&self) -> u64 {
        let current = self.segments.back().filter(|_| self.current).map(|s| s.number);
        let ready = self.ready.iter().map(|item| match item {
            Item::Header { segment } | Item::Seal { segment, .. } => *segment,
            Item::Group(group) => group.segment,
        });
        let flights = self.flights.iter().map(|f| f.segment);
        ready.chain(flights).chain(current).min().unwrap_or(u64::MAX)
    }

    /// Gives back segments past the limits. The last one stays: it carries the sequence numbers on.
    pub fn retain(&mut self, now: Now, io: &mut Io) {
        if !matches!(self.state, State::Open | State::Closed) || self.removing.is_some() {
            return;
        }
        // One at a time: were a later file gone before an earlier one, a crash in between would leave a gap.
        if self.recycling
            || now.mono_ns < self.recycle_again_ns
            || self.segments.len() < 2
            || !self.limits_passed(now)
            || self.oldest_in_use()
        {
            return;
        }
        let Some(oldest) = self.segments.front() else { return };
        self.recycling = true;
        let path = segment_path(self.spec.id, oldest.number);
        self.submit(io, What::Recycle, Op::Job(Job::Recycle { path }));
    }

    /// Whether the next segment has to wait until the oldest has gone: with it the shard would hold two segments
    /// more than it may. Not while nothing can be given back: then storing comes before the bound.
    pub(super) fn must_recycle_first(&self, now: Now, capacity: u64) -> bool {
        let bound = self.spec.retention_bytes.saturating_add(2 * capacity);
        self.spec.retention_bytes > 0
            && self.stored_bytes() + capacity > bound
            && self.segments.len() > 1
            && now.mono_ns >= self.recycle_again_ns
    }

    /// The oldest segment's file is gone, durably: only now are its records, so that the oldest sequence
    /// number never goes back, whatever crashes.
    pub(super) fn segment_gone(&mut self, now: Now, io: &mut Io) {
        if !std::mem::take(&mut self.recycling) {
            return;
        }
        if let Some(gone) = self.segments.pop_front() {
            io.closes.extend(gone.file);
            while self.tail.front().is_some_and(|b| b.base_sequence < gone.end_sequence) {
                self.drop_oldest_tail(io);
            }
        }
        self.retain(now, io);
        self.pump_readers(now, io);
    }

    /// Whether the oldest segment is being read, or not yet durable as a whole.
    fn oldest_in_use(&self) -> bool {
        self.segments.front().is_none_or(|oldest| {
            let written =
                oldest.number < self.written_below() && oldest.last_block <= self.committed;
            oldest.reads > 0 || oldest.opening || !written
        })
    }

    /// Whether the oldest segment is past what retention or a trim leaves. The segment under way counts: its room
    /// is that of the oldest one.
    pub(super) fn limits_passed(&self, now: Now) -> bool {
        let Some(oldest) = self.segments.front() else { return false };
        let age_ms = now.wall_ns.saturating_sub(oldest.last_arrival_ns) / 1_000_000;
        let too_old = self.spec.retention_ms > 0 && age_ms > self.spec.retention_ms;
        let too_much = self.spec.retention_bytes > 0
            && self.stored_bytes() + self.ordered > self.spec.retention_bytes;
        let trimmed = oldest.end_sequence <= self.oldest();
        too_old || too_much || trimmed
    }
}
