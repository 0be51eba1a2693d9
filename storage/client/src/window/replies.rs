//! What a reply, or its absence, says of a batch in flight: what of it is decided, and whether the rest is to be sent
//! again, moved or given up.

use std::time::Duration;

use highwater_wire::{ErrorCode, WireError};

use super::batch::{State, Verdict, verdict};
use super::{Time, Window, entry};
use crate::outcome::Decision;
use crate::{AppendError, ClientError};

impl<B> Window<B> {
    /// The server replied to an attempt. (Also to a superseded one: what it decided is decided.)
    pub(crate) fn replied(&mut self, index: u64, attempt: u32, reply: &Decision, now: Time) {
        let (shard, idempotent) = (self.config.shard, self.config.idempotent);
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        if attempt < entry.valid_from || matches!(entry.state, State::Done | State::Moved) {
            return;
        }
        if reply.decided > entry.records {
            let cause =
                ClientError::Protocol("a reply tells of more records than were sent".into());
            return self.failed(index, attempt, cause, now);
        }
        reply.add_to(&mut entry.runs, shard, entry.decided);
        entry.decided += reply.decided;
        entry.records -= reply.decided;
        let (left, asked) = (entry.records, Duration::from_millis(reply.retry_after_ms.into()));
        if let State::InFlight { since } = entry.state {
            self.pace.replied(now.saturating_sub(since));
        }
        // What was decided without a word of waiting was all that was sent: a piece.
        let put_off = left > 0 && (reply.decided == 0 || reply.retry_after_ms > 0);
        self.pace.accepted(reply.decided, !put_off);
        if reply.decided > 0 {
            // A repetition of an earlier attempt can only tell the same.
            (entry.ambiguous, entry.least) = (false, 0);
            self.failures = 0;
            if index == self.first {
                self.progress = now;
            }
        }
        if left > 0 {
            entry.cut += reply.decided;
            entry.valid_from = entry.attempt + 1;
            if idempotent {
                entry.stamp.sequence += u64::from(reply.decided);
            }
            entry.restamp |= reply.decided > 0;
        }
        if put_off {
            let message = format!("{left} records are over the quota");
            let quota = WireError::new(ErrorCode::QuotaExceeded, message);
            entry.last = Some(ClientError::Refused(quota.retry_after(reply.retry_after_ms)));
            self.over_quota(index, reply.decided, asked, now);
        } else if left > 0 {
            entry.over_quota = false;
            self.requeue(index);
        } else {
            self.conclude(index);
            self.smooth += 1;
            if self.flight < self.config.inflight && self.smooth >= 2 * self.flight {
                (self.flight, self.smooth) = ((2 * self.flight).min(self.config.inflight), 0);
            }
        }
        self.settle(now);
    }

    /// An attempt failed. Attempts that are over already are ignored.
    pub(crate) fn failed(&mut self, index: u64, attempt: u32, cause: ClientError, now: Time) {
        let (idempotent, closed) = (self.config.idempotent, self.closed);
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        if entry.attempt != attempt || !matches!(entry.state, State::InFlight { .. }) {
            return;
        }
        match verdict(&cause) {
            Verdict::Stored => self.finish(index, AppendError::StoredBefore),
            Verdict::Closed => {
                // Certain, whatever earlier attempts met with: a closed shard tells what it has.
                entry.ambiguous = false;
                entry.last = Some(cause);
                self.closed = true;
                self.put_off(index, now);
            }
            Verdict::Retry { ambiguous: true } if !idempotent => {
                self.finish(index, AppendError::FateUnknown(cause));
            }
            // It cannot tell of a producer it forgot.
            Verdict::Renew if closed && entry.ambiguous => {
                self.finish(index, AppendError::FateUnknown(cause));
            }
            Verdict::Renew if !idempotent => {
                self.finish(index, AppendError::NotStored(cause));
            }
            Verdict::Final { ambiguous } => {
                let unknown = entry.ambiguous || ambiguous;
                self.give_up(index, unknown, cause);
            }
            verdict => {
                if verdict == (Verdict::Retry { ambiguous: true }) {
                    (entry.ambiguous, entry.least) = (true, entry.least.max(entry.sent));
                }
                self.renew |= verdict == Verdict::Renew && !closed;
                let mut over_quota = false;
                if let ClientError::Refused(error) = &cause {
                    match error.code {
                        ErrorCode::QuotaExceeded => over_quota = true,
                        ErrorCode::ProducerFenced => {
                            self.fenced_by = self.fenced_by.max(error.detail);
                        }
                        _ => {}
                    }
                }
                let asked = cause.retry_after();
                entry.last = Some(cause);
                match over_quota {
                    true => self.over_quota(index, 0, asked, now),
                    false => self.put_off(index, now.saturating_add(asked)),
                }
            }
        }
        self.settle(now);
    }

    /// A quota let `taken` records of a batch through and put the others off. What goes out together is put off
    /// together: fewer at a time for now.
    fn over_quota(&mut self, index: u64, taken: u32, asked: Duration, now: Time) {
        let mut until = now.saturating_add(asked);
        if let Some(entry) = entry(&mut self.entries, self.first, index) {
            let again = std::mem::replace(&mut entry.over_quota, true);
            let left = entry.sent.saturating_sub(taken).clamp(1, entry.records.max(1));
            self.pace.refused(taken, left, asked, again, now);
            // The server tells when all of it fits; the next piece does earlier.
            until = until.min(self.pace.due(self.pace.most(entry.records)).max(now));
        }
        (self.flight, self.smooth, self.quota) = ((self.flight / 2).max(1), 0, true);
        self.put_off(index, until);
    }

    /// A batch in flight is to be sent again, in this episode, not before `until`.
    fn put_off(&mut self, index: u64, until: Time) {
        self.requeue(index);
        self.retry_at = Some(self.retry_at.unwrap_or_default().max(until));
        self.begin_episode();
    }
}
