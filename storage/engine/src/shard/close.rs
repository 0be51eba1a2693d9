//! Closing: after a split or merge a shard takes no appends any more; what it has is read to its end. And the
//! settings that may change while a shard serves.
//!
//! What a crash leaves, by where the control plane was (`control/reshard.rs` has the order):
//!
//! | it crashed | what is there | the next start |
//! |---|---|---|
//! | before the split was durable | the parents, open | knows of no split |
//! | after that, before a core knew | the parents' logs as any crash leaves them, no files of children | opens the parents closed, with the tail that recovery finds, and the children empty |
//! | while a parent wrote what it had in flight | a tail that is torn or not | the same: what was acknowledged is there, the rest is cut; nobody was told an end yet |
//! | after the parents were quiet | sealed parents | the same; the end is the one that was told, because it was durable and nothing came behind it |
//! | while children were written | logs of children as any crash leaves them | recovers them like any other shard |
//!
//! A key's records keep their order through all of them: no child is told to anybody before its parents have
//! nothing in flight, and a start has nothing in flight.

use highwater_ring::{Job, Op};

use super::append::{Ask, claim_of};
use super::{Shard, State};
use crate::format::segment_path;
use crate::io::{Io, What};
use crate::producers::Verdict;
use crate::types::{AppendError, Now, ShardSpec};

impl Shard {
    /// Takes no more appends: those without a place in the log are refused, the others are stored. The end is
    /// known when [`Shard::ended`] says so.
    pub fn close(&mut self, now: Now, io: &mut Io) {
        self.spec.closed = true;
        if self.state != State::Open {
            return;
        }
        self.state = State::Closed;
        self.refuse_waiting(&AppendError::ShardClosed(self.spec.id), io);
        self.close_open_group();
        if self.current {
            self.seal_current();
            self.current = false;
        }
        self.give_back_spare(io);
        self.pump(now, io);
        self.pump_readers(now, io);
    }

    /// Where a closed shard ends: nothing will come behind that, and all before it is durable.
    pub fn ended(&self) -> Option<u64> {
        (self.state == State::Closed && self.quiet()).then_some(self.high_water)
    }

    /// Whether it will not change any more: it has ended, or cannot.
    pub fn at_rest(&self) -> bool {
        match self.state {
            State::Open => false,
            State::Closed => self.quiet(),
            State::Failed(_) | State::Damaged(_) | State::Closing => true,
        }
    }

    /// A batch for a closed shard: a retry of one that it stored is told so, anything else belongs to its
    /// children.
    pub(super) fn append_closed(
        &mut self,
        now: Now,
        ask: &Ask<'_>,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        match self.producers.judge(claim_of(ask.batch.header())) {
            Verdict::Repeat(stored) => self.repeat(now, stored, ask, io),
            Verdict::Refuse(error @ (AppendError::Duplicate(_) | AppendError::Fenced { .. })) => {
                Err(error)
            }
            Verdict::Fresh | Verdict::Refuse(_) => Err(AppendError::ShardClosed(self.spec.id)),
        }
    }

    /// Other settings for the same shard, in force at once.
    pub fn respec(&mut self, now: Now, spec: ShardSpec, io: &mut Io) {
        // Whether it is closed is said by `close` alone, what it lets pass by `set_policy`.
        self.spec = ShardSpec { closed: self.spec.closed, policy: self.spec.policy, ..spec };
        self.retain(now, io);
        self.pump_readers(now, io);
    }

    /// Orders its first segment, so that the first append need not wait for one.
    pub fn prepare_first(&mut self, now: Now, io: &mut Io) {
        if self.state == State::Open && self.spare.is_none() && !self.current {
            // Refused: the first append asks again, and is told.
            let _ = self.take_segment(now, 0, io);
        }
    }

    /// Whether a segment is under way to it.
    pub fn preparing(&self) -> bool {
        self.taking
    }

    pub(super) fn give_back_spare(&mut self, io: &mut Io) {
        if let Some(spare) = self.spare.take() {
            io.closes.push(spare.file);
            let path = segment_path(self.spec.id, spare.number);
            self.submit(io, What::Discard, Op::Job(Job::Recycle { path }));
        }
    }

    /// Whether retention or a trim leaves nothing of a closed shard that has ended. Its last segment stays until
    /// the catalogue has forgotten the shard: without files its numbers would start again.
    pub fn expired(&self, now: Now) -> bool {
        let Some(end) = self.ended() else { return false };
        if self.oldest() >= end {
            return true;
        }
        self.segments.len() == 1 && !self.recycling && self.limits_passed(now)
    }
}
