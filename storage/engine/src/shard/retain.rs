//! Retention: whole segments go when they are too old or the shard holds too much.

use highwater_ring::{Job, Op};

use super::{Item, Shard, State};
use crate::format::segment_path;
use crate::io::{Io, What};
use crate::segment::Segment;
use crate::types::Now;

/// After a segment's file could not be given back, the next attempt comes this much later.
pub(super) const RECYCLE_AGAIN_NS: u64 = 1_000_000_000;

/// So long readers may keep the oldest segment after it passed a limit, ns, if nothing waits for its room: time to read
/// it to its end.
const READ_OUT_NS: u64 = 10_000_000_000;

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
        // One at a time: were a later file gone before an earlier one, a crash in between would leave a gap.
        if self.recycling {
            return;
        }
        if !self.oldest_is_due(now) {
            self.leaves_at = u64::MAX;
            return;
        }
        let Some(oldest) = self.segments.front() else { return };
        if oldest.reads > 0 || oldest.opening {
            self.leaves_at = self.leaves_at.min(now.mono_ns.saturating_add(READ_OUT_NS));
            return;
        }
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
        self.leaves_at = u64::MAX;
        if let Some(gone) = self.segments.pop_front() {
            io.closes.extend(gone.file);
            while self.tail.front().is_some_and(|b| b.base_sequence < gone.end_sequence) {
                self.drop_oldest_tail(io);
            }
        }
        self.retain(now, io);
        self.pump_readers(now, io);
    }

    /// Whether the oldest segment is to go: past a limit, durable as a whole, and not the last.
    fn oldest_is_due(&self, now: Now) -> bool {
        let written = |oldest: &Segment| {
            oldest.number < self.written_below() && oldest.last_block <= self.committed
        };
        matches!(self.state, State::Open | State::Closed)
            && self.removing.is_none()
            && now.mono_ns >= self.recycle_again_ns
            && self.segments.len() > 1
            && self.limits_passed(now)
            && self.segments.front().is_some_and(written)
    }

    /// Whether no read may begin in the oldest segment any more. Those under way end, and with the last of them it
    /// goes: else readers who come and go would keep it for good, and whoever appends would wait for them.
    ///
    /// Who waits here is looked at when it has gone, or when a read ends: while neither is under way, asking for it is
    /// what makes it go ([`Shard::retain`]).
    pub(super) fn oldest_is_leaving(&self, now: Now) -> bool {
        self.recycling || (now.mono_ns >= self.leaves_at && self.oldest_is_due(now))
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
