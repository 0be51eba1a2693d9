//! The window of one appender: which batch to send, to send again, or to give up. A pure state machine:
//! no clock, no sockets; the time is what the caller says, counted from the appender's start.
//!
//! One *episode* of failure is handled at a time: the first failure stops sending; when every batch in
//! flight has been answered, timed out or lost its connection, the window waits (back-off, or what the
//! server asked for) and sends everything unacknowledged again, in order. A refused batch makes the server
//! refuse those after it as out of sequence, so the whole flight is one episode.
//!
//! A batch may be decided in parts: what is decided of the oldest is told at once, and what the server put off is sent
//! again, as a batch of its own, from there. As long as something is decided no batch behind that is given up. After a
//! quota put something off, batches go out at the [pace] at which the shard takes them, half as many at a time, and twice
//! as many whenever twice a flight was acknowledged. One that is larger than what passes in a twentieth of a second goes in
//! pieces, each when the one before is decided.
//!
//! A shard that was closed takes nothing new, but it still tells of a batch whether it is stored. So a batch is
//! *moved*, given back to be sent elsewhere, once it is certain that it is not; those of unknown fate are asked for.

use std::collections::VecDeque;
use std::time::Duration;

use highwater_wire::{ErrorCode, ProducerStamp, WireError};

use crate::outcome::{Decision, Fate, Run, Runs};
use crate::{AppendError, ClientError, RetryPolicy};

mod batch;
mod pace;

use batch::{Entry, State, Verdict, verdict};
pub(crate) use batch::{Moved, Send, Settled};
use pace::Pace;

/// Time since the appender started.
pub(crate) type Time = Duration;

/// What a window is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The shard's number.
    pub shard: u32,
    /// Most batches held, at least 1.
    pub inflight: usize,
    /// Batches carry stamps by which the server recognises a repetition.
    pub idempotent: bool,
    /// The server may store part of a batch.
    pub partial: bool,
    /// An attempt without reply is over after this time.
    pub request_timeout: Duration,
    /// Waits between attempts, and for how long a batch is tried while nothing is decided.
    pub retry: RetryPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Sending.
    Open,
    /// An episode began; nothing is sent until nothing is in flight.
    Settling,
    /// Backing off.
    Waiting { until: Time },
    /// A new producer id is needed before anything can be sent.
    Renewing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Window<B> {
    config: Config,
    rng: fastrand::Rng,
    entries: VecDeque<Entry<B>>,
    /// Index of the first entry.
    first: u64,
    /// No entry before this index is queued.
    cursor: u64,
    queued: usize,
    outstanding: usize,
    /// Most batches in flight for now.
    flight: usize,
    /// Batches acknowledged since that was changed.
    smooth: usize,
    /// When the next may go.
    pace: Pace,
    /// Only a piece of the last batch sent is in flight.
    in_pieces: bool,
    phase: Phase,
    /// Episodes in a row without an acknowledgement.
    failures: u32,
    /// Of this episode: until when the server asked to wait, by its longest; `None` if nothing is to be retried.
    retry_at: Option<Time>,
    /// Of this episode: a quota put something off, and said exactly for how long.
    quota: bool,
    /// When something of the oldest batch was last decided.
    progress: Time,
    /// Of this episode: the sequence of the first batch given up as not stored.
    hole: Option<u64>,
    /// Of this episode: a new producer id is needed.
    renew: bool,
    /// The newest epoch by which the server said this producer is fenced.
    fenced_by: u64,
    /// The shard is closed.
    closed: bool,
    /// Nothing can be sent any more, and why.
    refused: Option<ClientError>,
    /// Id and epoch, and the sequence of the next batch.
    next: ProducerStamp,
}

impl<B> Window<B> {
    /// Starts with the producer id and epoch given (ignored unless idempotent); without, it wants one first.
    pub(crate) fn new(
        config: Config,
        producer: Option<ProducerStamp>,
        rng: fastrand::Rng,
    ) -> Window<B> {
        let wants = config.idempotent && producer.is_none();
        Window {
            rng,
            entries: VecDeque::new(),
            first: 0,
            cursor: 0,
            queued: 0,
            outstanding: 0,
            flight: config.inflight,
            smooth: 0,
            pace: Pace::new(config.partial),
            in_pieces: false,
            phase: if wants { Phase::Renewing } else { Phase::Open },
            failures: 0,
            retry_at: None,
            quota: false,
            progress: Time::ZERO,
            hole: None,
            renew: wants,
            fenced_by: 0,
            closed: false,
            refused: None,
            next: producer.filter(|_| config.idempotent).unwrap_or_default(),
            config,
        }
    }

    /// Whether another batch may be pushed. (More are taken, but not sent before there is room.)
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < self.config.inflight && !self.closed
    }

    /// Whether the shard was closed: all that is pushed is moved.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The newest epoch by which the server said this producer is fenced; 0 if it never did.
    pub(crate) fn fenced_by(&self) -> u64 {
        self.fenced_by
    }

    /// Whether every batch has its outcome and was popped.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The stamp a batch pushed now is to carry.
    pub(crate) fn next_stamp(&self) -> ProducerStamp {
        self.next
    }

    /// Takes a batch that carries this stamp; best [`next_stamp`](Self::next_stamp).
    pub(crate) fn push(&mut self, body: B, records: u32, stamp: ProducerStamp, now: Time) {
        self.entries.push_back(Entry {
            body,
            decided: 0,
            records,
            cut: 0,
            sent: 0,
            piece: false,
            least: 0,
            over_quota: false,
            runs: Runs::default(),
            stamp: self.next,
            restamp: stamp != self.next,
            pushed: now,
            attempt: 0,
            valid_from: 0,
            ambiguous: false,
            last: None,
            state: State::Queued,
        });
        self.queued += 1;
        if self.config.idempotent {
            self.next.sequence += u64::from(records);
        }
        if self.closed {
            self.move_queued();
        } else if let Some(cause) = self.refused.clone() {
            self.finish(self.first + self.entries.len() as u64 - 1, AppendError::NotStored(cause));
        }
    }

    /// Whether an episode of failure is under way: [`tick`](Self::tick) may be due earlier than it was.
    pub(crate) fn in_trouble(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether [`next_send`](Self::next_send) would give a batch.
    pub(crate) fn wants_to_send(&self, now: Time) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    /// When the next batch may go, if only the pace keeps it.
    pub(crate) fn next_due(&self) -> Option<Time> {
        let may = self.phase == Phase::Open && self.outstanding < self.flight && !self.in_pieces;
        if !may || self.queued == 0 {
            return None;
        }
        let entry = &self.entries[self.next_queued()?];
        // What a closed shard only tells uses no quota.
        let unpaced = self.closed.then_some(Time::ZERO);
        // Of a repetition that is larger than a piece most is known already, or refused.
        Some(unpaced.unwrap_or_else(|| self.pace.due(self.pace.most(entry.records))))
    }

    /// Where the first batch is that is to be sent.
    fn next_queued(&self) -> Option<usize> {
        let skip = usize::try_from(self.cursor.saturating_sub(self.first)).ok()?;
        let mut rest = self.entries.iter().skip(skip);
        Some(skip + rest.position(|e| matches!(e.state, State::Queued))?)
    }

    /// How many of its records a batch is sent with: what an attempt of unknown fate had, at least.
    fn portion(&self, entry: &Entry<B>) -> u32 {
        // A closed shard only tells what it has.
        if self.closed { entry.records } else { self.pace.most(entry.records).max(entry.least) }
    }

    /// Whether a new producer id is wanted now; answer with [`renewed`](Self::renewed) or
    /// [`unreachable`](Self::unreachable).
    pub(crate) fn wants_producer(&self) -> bool {
        self.phase == Phase::Renewing
    }

    /// The next batch to send, in order; it counts as sent.
    pub(crate) fn next_send(&mut self, now: Time) -> Option<Send<'_, B>> {
        if !self.wants_to_send(now) {
            return None;
        }
        let at = self.next_queued()?;
        let portion = self.portion(&self.entries[at]);
        self.pace.sent(self.pace.most(portion), now);
        self.cursor = self.first + at as u64 + 1;
        let entry = &mut self.entries[at];
        (entry.sent, entry.piece) = (portion, portion < entry.records);
        self.in_pieces = entry.piece;
        entry.state = State::InFlight { since: now };
        entry.attempt += 1;
        self.queued -= 1;
        self.outstanding += 1;
        Some(Send {
            index: self.first + at as u64,
            attempt: entry.attempt,
            stamp: entry.stamp,
            restamp: std::mem::take(&mut entry.restamp),
            cut: std::mem::take(&mut entry.cut),
            piece: entry.piece.then_some(portion),
            body: &mut entry.body,
        })
    }

    /// The batch taken last was not sent after all: the connection had ended.
    pub(crate) fn unsent(&mut self, index: u64) {
        if let Some(entry) = entry(&mut self.entries, self.first, index)
            && matches!(entry.state, State::InFlight { .. })
        {
            self.requeue(index);
        }
    }

    /// A batch in flight is to be sent once more.
    fn requeue(&mut self, index: u64) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        if let State::InFlight { .. } = entry.state {
            entry.state = State::Queued;
            self.in_pieces &= !std::mem::take(&mut entry.piece);
            self.outstanding -= 1;
            self.queued += 1;
        }
        self.cursor = self.cursor.min(index);
    }

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

    /// The shard is closed: whatever is certainly not stored is to go elsewhere.
    fn move_queued(&mut self) {
        (self.hole, self.renew) = (None, false);
        for entry in &mut self.entries {
            if matches!(entry.state, State::Queued) && !entry.ambiguous {
                entry.state = State::Moved;
                self.queued -= 1;
            }
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

    /// Time passed: attempts and batches that took too long, the end of a wait. True if an attempt ended
    /// for want of a reply.
    pub(crate) fn tick(&mut self, now: Time) -> bool {
        let mut timed_out = false;
        for at in 0..self.entries.len() {
            let index = self.first + at as u64;
            let entry = &self.entries[at];
            let attempt = entry.attempt;
            if matches!(entry.state, State::Done | State::Moved) {
                continue;
            }
            if now >= self.deadline(entry) {
                let limit = ClientError::TimedOut { after: self.config.retry.deadline };
                let cause = entry.last.clone().unwrap_or(limit);
                // An attempt in flight may still succeed.
                let unknown = entry.ambiguous || matches!(entry.state, State::InFlight { .. });
                self.give_up(index, unknown, cause);
            } else if let State::InFlight { since } = entry.state
                && now >= since.saturating_add(self.config.request_timeout)
            {
                timed_out = true;
                let cause = ClientError::TimedOut { after: self.config.request_timeout };
                self.failed(index, attempt, cause, now);
            }
        }
        self.settle(now);
        if let Phase::Waiting { until } = self.phase
            && now >= until
        {
            self.phase = if self.renew { Phase::Renewing } else { Phase::Open };
        }
        timed_out
    }

    /// When [`tick`](Self::tick) is due, or a batch may go that only the pace keeps; `None` if nothing waits.
    pub(crate) fn next_tick(&self) -> Option<Time> {
        self.next_timeout().into_iter().chain(self.next_due()).min()
    }

    /// When [`tick`](Self::tick) is due.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let waiting = match self.phase {
            Phase::Waiting { until } => Some(until),
            _ => None,
        };
        let entries = self.entries.iter().filter_map(|entry| {
            let deadline = self.deadline(entry);
            match entry.state {
                State::Done | State::Moved => None,
                State::Queued => Some(deadline),
                State::InFlight { since } => {
                    Some(deadline.min(since.saturating_add(self.config.request_timeout)))
                }
            }
        });
        entries.chain(waiting).min()
    }

    /// When a batch is given up, unless something is decided before.
    fn deadline(&self, entry: &Entry<B>) -> Time {
        entry.pushed.max(self.progress).saturating_add(self.config.retry.deadline)
    }

    /// What was decided of the oldest batch since it was last asked for, while the rest of it is still open.
    pub(crate) fn take_decided(&mut self) -> Option<(Runs, &B)> {
        let entry = self.entries.front_mut()?;
        let open = matches!(entry.state, State::Queued | State::InFlight { .. });
        if !open || entry.runs.is_empty() {
            return None;
        }
        Some((std::mem::take(&mut entry.runs), &entry.body))
    }

    /// Why the oldest batch is to be sent again, and since when it is held; `None` while its reply is awaited.
    pub(crate) fn held_up_by(&self) -> Option<(Time, &ClientError)> {
        let entry = self.entries.front().filter(|entry| matches!(entry.state, State::Queued))?;
        Some((entry.pushed, entry.last.as_ref()?))
    }

    /// The oldest batch if it is decided, or to go elsewhere.
    pub(crate) fn pop_settled(&mut self) -> Option<Settled<B>> {
        let settled = |e: &mut Entry<B>| matches!(e.state, State::Done | State::Moved);
        let entry = self.entries.pop_front_if(settled)?;
        self.first += 1;
        if self.entries.is_empty() {
            self.pace.idle();
        }
        let moved = match entry.state {
            State::Moved => Some(Moved { first: entry.decided, cut: entry.cut }),
            _ => None,
        };
        Some(Settled { runs: entry.runs, moved, body: entry.body })
    }

    /// The records of a batch that have no outcome yet have failed.
    fn finish(&mut self, index: u64, error: AppendError) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        if matches!(entry.state, State::Queued | State::InFlight { .. }) {
            let (first, count) = (entry.decided, entry.records);
            entry.runs.push(Run { first, count, fate: Fate::Failed(error) });
            self.conclude(index);
        }
    }

    /// A batch has its outcome.
    fn conclude(&mut self, index: u64) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        match entry.state {
            State::Done | State::Moved => return,
            State::Queued => self.queued -= 1,
            State::InFlight { .. } => self.outstanding -= 1,
        }
        self.in_pieces &= !std::mem::take(&mut entry.piece);
        entry.state = State::Done;
    }

    /// Ends a batch without acknowledgement. What comes after it cannot keep its stamps.
    fn give_up(&mut self, index: u64, unknown: bool, cause: ClientError) {
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

    fn begin_episode(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Settling;
        }
    }

    /// Ends the first part of an episode once nothing is in flight.
    fn settle(&mut self, now: Time) {
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
}

fn entry<B>(entries: &mut VecDeque<Entry<B>>, first: u64, index: u64) -> Option<&mut Entry<B>> {
    entries.get_mut(usize::try_from(index.checked_sub(first)?).ok()?)
}

#[cfg(test)]
#[path = "window/quota_tests.rs"]
mod quota_tests;
#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
