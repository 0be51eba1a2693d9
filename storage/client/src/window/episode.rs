//! An episode of failure, from its beginning to when batches are sent again, and the batches that it ends.

use std::time::Duration;

use highwater_wire::ProducerStamp;

use super::batch::{Entry, State};
use super::{Phase, Time, Window, entry};
use crate::outcome::{Fate, Run};
use crate::{AppendError, ClientError};

impl<B> Window<B> {
    pub(super) fn begin_episode(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Settling;
        }
    }

    /// No connection, or no new producer id: wait and try again.
    pub(crate) fn unreachable(&mut self, cause: &ClientError, now: Time) {
        for entry in self.entries.iter_mut().filter(|e| matches!(e.state, State::Queued)) {
            entry.last = Some(cause.clone());
        }
        self.renew |= self.phase == Phase::Renewing;
        let until = now.saturating_add(cause.retry_after());
        self.retry_at = Some(self.retry_at.unwrap_or_default().max(until));
        self.phase = Phase::Settling;
        self.settle(now);
    }

    /// A new producer id: everything unacknowledged is sent under it, from sequence 0.
    pub(crate) fn renewed(&mut self, id: u64, epoch: u32) {
        if self.phase == Phase::Renewing {
            self.renew = false;
            self.hole = None;
            self.next = ProducerStamp { id, epoch, sequence: 0 };
            self.restamp();
            self.phase = Phase::Open;
        }
    }

    /// Nothing that waits will be sent: there is no producer id to be had, or (`forever`) this producer is fenced.
    pub(crate) fn abandon(&mut self, cause: &ClientError, forever: bool) {
        for index in self.first..self.first + self.entries.len() as u64 {
            let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
            if matches!(entry.state, State::Queued) {
                let error = match entry.ambiguous {
                    true => AppendError::FateUnknown(cause.clone()),
                    false => AppendError::NotStored(cause.clone()),
                };
                self.finish(index, error);
            }
        }
        if forever {
            self.refused = Some(cause.clone());
            self.renew = false;
            self.phase = Phase::Open;
        }
    }

    /// Ends the first part of an episode once nothing is in flight.
    pub(super) fn settle(&mut self, now: Time) {
        if self.closed {
            self.move_queued();
        }
        let given_up = self.hole.is_some() || self.renew;
        let waiting = matches!(self.phase, Phase::Waiting { .. });
        if self.outstanding > 0 || !(self.phase == Phase::Settling || waiting && given_up) {
            return;
        }
        if given_up {
            self.resume_after_loss();
        }
        if waiting {
            return;
        }
        // From when the server said so: what was in flight meanwhile may have been held for long.
        let asked = self.retry_at.take().map(|until| until.saturating_sub(now));
        let mut wait = Duration::ZERO;
        if std::mem::take(&mut self.quota) {
            // The quota has room by then: to wait longer the oftener it happened would leave it unused.
            let asked = asked.unwrap_or_default();
            wait = asked.saturating_add(self.config.retry.backoff(0, &mut self.rng).min(asked / 4));
        } else if asked.is_some() || self.renew {
            wait = self.config.retry.backoff(self.failures, &mut self.rng);
            wait = wait.max(asked.unwrap_or_default());
            self.failures = self.failures.saturating_add(1);
        }
        self.phase = match (wait, self.renew) {
            (Duration::ZERO, true) => Phase::Renewing,
            (Duration::ZERO, false) => Phase::Open,
            _ => Phase::Waiting { until: now.saturating_add(wait) },
        };
    }

    /// A batch was given up, or the server forgot the producer. While no attempt can still be under way,
    /// the batches left move up into the hole; otherwise those that may be stored cannot be sent again
    /// safely, and the rest need a new producer id, under which an old attempt is never taken for a new one.
    fn resume_after_loss(&mut self) {
        let ambiguous = |e: &Entry<B>| e.ambiguous && matches!(e.state, State::Queued);
        if !self.renew && !self.entries.iter().any(ambiguous) {
            // A batch before the hole may still wait to be sent again: it keeps its place.
            let oldest = self.entries.iter().find(|e| matches!(e.state, State::Queued));
            if let Some(hole) = self.hole.take() {
                self.next.sequence = oldest.map_or(hole, |e| hole.min(e.stamp.sequence));
                self.restamp();
            }
            return;
        }
        self.renew = true;
        self.hole = None;
        for index in self.first..self.first + self.entries.len() as u64 {
            if let Some(entry) = entry(&mut self.entries, self.first, index)
                && ambiguous(entry)
            {
                let limit = ClientError::TimedOut { after: self.config.request_timeout };
                let cause = entry.last.take().unwrap_or(limit);
                self.finish(index, AppendError::FateUnknown(cause));
            }
        }
    }

    /// Gives the batches without outcome the stamps from `next` on.
    fn restamp(&mut self) {
        for entry in self.entries.iter_mut().filter(|e| matches!(e.state, State::Queued)) {
            entry.restamp |= entry.stamp != self.next;
            entry.stamp = self.next;
            self.next.sequence += u64::from(entry.records);
        }
    }

    /// The shard is closed: whatever is certainly not stored is to go elsewhere.
    pub(super) fn move_queued(&mut self) {
        (self.hole, self.renew) = (None, false);
        for entry in &mut self.entries {
            if matches!(entry.state, State::Queued) && !entry.ambiguous {
                entry.state = State::Moved;
                self.queued -= 1;
            }
        }
    }

    /// Ends a batch without acknowledgement. What comes after it cannot keep its stamps.
    pub(super) fn give_up(&mut self, index: u64, unknown: bool, cause: ClientError) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        let sequence = entry.stamp.sequence;
        let error =
            if unknown { AppendError::FateUnknown(cause) } else { AppendError::NotStored(cause) };
        self.finish(index, error);
        if self.config.idempotent && !self.closed {
            self.renew |= unknown;
            self.hole = Some(self.hole.map_or(sequence, |hole| hole.min(sequence)));
            self.begin_episode();
        }
    }

    /// The records of a batch that have no outcome yet have failed.
    pub(super) fn finish(&mut self, index: u64, error: AppendError) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        if matches!(entry.state, State::Queued | State::InFlight { .. }) {
            let (first, count) = (entry.decided, entry.records);
            entry.runs.push(Run { first, count, fate: Fate::Failed(error) });
            self.conclude(index);
        }
    }

    /// A batch has its outcome.
    pub(super) fn conclude(&mut self, index: u64) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        match entry.state {
            State::Done | State::Moved => return,
            State::Queued => self.queued -= 1,
            State::InFlight { .. } => self.outstanding -= 1,
        }
        self.in_pieces &= !std::mem::take(&mut entry.piece);
        entry.state = State::Done;
    }
}
