//! How a shard ends: stopped in good order, removed, or failed.

use std::sync::Arc;

use highwater_ring::{Job, Op};

use super::{Item, Shard, State};
use crate::format::shard_dir;
use crate::group::PendingAck;
use crate::io::{Io, What};
use crate::types::{AppendError, ReadError};

impl Shard {
    /// Stops taking appends; what has a place in the log goes on to be acknowledged, and the segment is
    /// sealed. [`Shard::quiet`] tells when that is done.
    pub fn stop(&mut self, io: &mut Io) {
        if self.state == State::Open {
            self.state = State::Closing;
            self.refuse_waiting(&AppendError::Closing, io);
            self.close_open_group();
            if self.current {
                self.seal_current();
                self.current = false;
            }
        }
        self.end_readers(&ReadError::Closing, io);
    }

    /// Ends the shard and removes its files; answered by [`crate::Output::Removed`] with `tag`.
    pub fn remove(&mut self, tag: u64, io: &mut Io) {
        if self.state == State::Open {
            self.state = State::Closing;
        }
        self.removing = Some(tag);
        self.refuse_waiting(&AppendError::Closing, io);
        self.refuse_unsent(&AppendError::Closing, io);
        self.end_readers(&ReadError::Closing, io);
        self.remove_when_idle(io);
    }

    /// Goes on with a removal once nothing is in flight.
    pub fn remove_when_idle(&mut self, io: &mut Io) {
        if self.removing.is_none() || self.ops > 0 {
            return;
        }
        self.refuse_flying(&AppendError::Closing, io);
        let files =
            self.segments.drain(..).filter_map(|s| s.file).chain(self.spare.take().map(|s| s.file));
        io.closes.extend(files);
        self.drop_tail(io);
        let job = Job::RemoveDir { path: shard_dir(self.spec.id) };
        self.submit(io, What::RemoveDir, Op::Job(job));
    }

    /// Whether a removal is complete.
    pub fn removed(&self) -> bool {
        self.gone
    }

    pub(super) fn fail(&mut self, reason: String, io: &mut Io) {
        let reason: Arc<str> = reason.into();
        if !matches!(self.state, State::Failed(_) | State::Damaged(_)) {
            self.state = State::Failed(reason.clone());
        }
        let error = AppendError::Failed { shard: self.spec.id, reason };
        self.refuse_waiting(&error, io);
        self.refuse_unsent(&error, io);
        self.refuse_flying(&error, io);
        self.writing = 0;
        self.current = false;
    }

    /// Gives up the groups that have not gone out.
    fn refuse_unsent(&mut self, error: &AppendError, io: &mut Io) {
        let open = self.open.take();
        for item in std::mem::take(&mut self.ready) {
            if let Item::Group(group) = item {
                self.refuse_acks(group.acks, error, io);
            }
        }
        if let Some(group) = open {
            self.refuse_acks(group.acks, error, io);
        }
    }

    /// Gives up those under way.
    fn refuse_flying(&mut self, error: &AppendError, io: &mut Io) {
        for flight in std::mem::take(&mut self.flights) {
            self.refuse_acks(flight.acks, error, io);
        }
    }

    fn refuse_acks(&mut self, acks: Vec<PendingAck>, error: &AppendError, io: &mut Io) {
        for ack in acks {
            self.answer(ack.tag, ack.offered, Err(error.clone()), io);
        }
    }
}
