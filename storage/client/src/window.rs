//! The window of one appender: which batch to send, to send again, or to give up. A pure state machine:
//! no clock, no sockets; the time is what the caller says, counted from the appender's start.
//!
//! One *episode* of failure is handled at a time: the first failure stops sending; when every batch in
//! flight has been answered, timed out or lost its connection, the window waits (back-off, or what the
//! server asked for) and sends everything unacknowledged again, in order. A refused batch makes the server
//! refuse those after it as out of sequence, so the whole flight is one episode.

use std::collections::VecDeque;
use std::time::Duration;

use highwater_wire::{ErrorCode, ProducerStamp};

use crate::{AppendAck, AppendError, ClientError, RetryPolicy};

/// Time since the appender started.
pub(crate) type Time = Duration;

/// What a window is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Most batches held, at least 1.
    pub inflight: usize,
    /// Batches carry stamps by which the server recognises a repetition.
    pub idempotent: bool,
    /// An attempt without reply is over after this time.
    pub request_timeout: Duration,
    /// Waits between attempts, and the bound of all attempts of a batch.
    pub retry: RetryPolicy,
}

/// A batch to send now.
#[derive(Debug)]
pub(crate) struct Send<'a, B> {
    /// Names the batch in later events.
    pub index: u64,
    /// Names the attempt in later events.
    pub attempt: u32,
    /// The stamp to send it with.
    pub stamp: ProducerStamp,
    /// The stamp differs from the one it was sent or pushed with.
    pub restamp: bool,
    /// The batch.
    pub body: &'a mut B,
}

#[derive(Debug)]
enum State {
    /// To be sent, or sent again.
    Queued,
    InFlight {
        since: Time,
    },
    Done(Result<AppendAck, AppendError>),
}

#[derive(Debug)]
struct Entry<B> {
    body: B,
    tag: u64,
    records: u32,
    stamp: ProducerStamp,
    restamp: bool,
    pushed: Time,
    attempt: u32,
    /// An attempt ended without saying whether the batch is stored.
    ambiguous: bool,
    last: Option<ClientError>,
    state: State,
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

/// What a failure means for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Send it again; `ambiguous`: it may be stored all the same.
    Retry { ambiguous: bool },
    /// The server does not know this producer any more.
    Renew,
    /// It was stored by an earlier attempt.
    Stored,
    /// Give it up.
    Final { ambiguous: bool },
}

fn verdict(cause: &ClientError) -> Verdict {
    let ClientError::Refused(error) = cause else {
        return match cause {
            ClientError::Connect(_) => Verdict::Retry { ambiguous: false },
            ClientError::Disconnected { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Protocol(_) => Verdict::Retry { ambiguous: true },
            _ => Verdict::Final { ambiguous: false },
        };
    };
    match error.code {
        ErrorCode::TimedOut => Verdict::Retry { ambiguous: true },
        ErrorCode::UnknownProducer | ErrorCode::ProducerFenced => Verdict::Renew,
        ErrorCode::DuplicateSequence => Verdict::Stored,
        // A write that failed may still be found whole after a restart.
        ErrorCode::ShardFailed | ErrorCode::Internal => Verdict::Final { ambiguous: true },
        code if code.retriable() => Verdict::Retry { ambiguous: false },
        _ => Verdict::Final { ambiguous: false },
    }
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
    phase: Phase,
    /// Episodes in a row without an acknowledgement.
    failures: u32,
    /// Of this episode: the longest wait the server asked for; `None` if nothing is to be retried.
    retry_after: Option<Duration>,
    /// Of this episode: the sequence of the first batch given up as not stored.
    hole: Option<u64>,
    /// Of this episode: a new producer id is needed.
    renew: bool,
    /// Id and epoch, and the sequence of the next batch.
    next: ProducerStamp,
}

impl<B> Window<B> {
    /// Starts with the producer id and epoch given (ignored unless idempotent).
    pub(crate) fn new(config: Config, producer: ProducerStamp, rng: fastrand::Rng) -> Window<B> {
        Window {
            rng,
            entries: VecDeque::new(),
            first: 0,
            cursor: 0,
            queued: 0,
            outstanding: 0,
            phase: Phase::Open,
            failures: 0,
            retry_after: None,
            hole: None,
            renew: false,
            next: if config.idempotent { producer } else { ProducerStamp::default() },
            config,
        }
    }

    /// Whether another batch may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < self.config.inflight
    }

    /// Whether every batch has its outcome and was popped.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The stamp a batch pushed now is to carry.
    pub(crate) fn next_stamp(&self) -> ProducerStamp {
        self.next
    }

    /// Takes a batch that carries [`next_stamp`](Self::next_stamp).
    pub(crate) fn push(&mut self, body: B, tag: u64, records: u32, now: Time) {
        self.entries.push_back(Entry {
            body,
            tag,
            records,
            stamp: self.next,
            restamp: false,
            pushed: now,
            attempt: 0,
            ambiguous: false,
            last: None,
            state: State::Queued,
        });
        self.queued += 1;
        if self.config.idempotent {
            self.next.sequence += u64::from(records);
        }
    }

    /// Whether an episode of failure is under way: [`tick`](Self::tick) may be due earlier than it was.
    pub(crate) fn in_trouble(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether [`next_send`](Self::next_send) would give a batch.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.phase == Phase::Open && self.queued > 0
    }

    /// Whether a new producer id is wanted now; answer with [`renewed`](Self::renewed) or
    /// [`unreachable`](Self::unreachable).
    pub(crate) fn wants_producer(&self) -> bool {
        self.phase == Phase::Renewing
    }

    /// The next batch to send, in order; it counts as sent.
    pub(crate) fn next_send(&mut self, now: Time) -> Option<Send<'_, B>> {
        if !self.wants_to_send() {
            return None;
        }
        let skip = usize::try_from(self.cursor.saturating_sub(self.first)).ok()?;
        let mut rest = self.entries.iter().skip(skip);
        let at = skip + rest.position(|e| matches!(e.state, State::Queued))?;
        self.cursor = self.first + at as u64 + 1;
        let entry = &mut self.entries[at];
        entry.state = State::InFlight { since: now };
        entry.attempt += 1;
        self.queued -= 1;
        self.outstanding += 1;
        Some(Send {
            index: self.first + at as u64,
            attempt: entry.attempt,
            stamp: entry.stamp,
            restamp: std::mem::take(&mut entry.restamp),
            body: &mut entry.body,
        })
    }

    /// The batch taken last was not sent after all: the connection had ended.
    pub(crate) fn unsent(&mut self, index: u64) {
        if let Some(entry) = entry(&mut self.entries, self.first, index)
            && matches!(entry.state, State::InFlight { .. })
        {
            entry.state = State::Queued;
            self.outstanding -= 1;
            self.queued += 1;
            self.cursor = self.cursor.min(index);
        }
    }

    /// The server acknowledged an attempt. (Also a superseded one: the batch is stored.)
    pub(crate) fn acked(&mut self, index: u64, ack: AppendAck, now: Time) {
        self.finish(index, Ok(ack));
        self.failures = 0;
        self.settle(now);
    }

    /// An attempt failed. Attempts that are over already are ignored.
    pub(crate) fn failed(&mut self, index: u64, attempt: u32, cause: ClientError, now: Time) {
        let idempotent = self.config.idempotent;
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        if entry.attempt != attempt || !matches!(entry.state, State::InFlight { .. }) {
            return;
        }
        match verdict(&cause) {
            Verdict::Stored => self.finish(index, Err(AppendError::StoredBefore)),
            Verdict::Retry { ambiguous: true } if !idempotent => {
                self.finish(index, Err(AppendError::FateUnknown(cause)));
            }
            Verdict::Renew if !idempotent => {
                self.finish(index, Err(AppendError::NotStored(cause)));
            }
            Verdict::Final { ambiguous } => {
                let unknown = entry.ambiguous || ambiguous;
                self.give_up(index, unknown, cause);
            }
            verdict => {
                entry.ambiguous |= verdict == Verdict::Retry { ambiguous: true };
                entry.state = State::Queued;
                self.outstanding -= 1;
                self.queued += 1;
                self.cursor = self.cursor.min(index);
                self.renew |= verdict == Verdict::Renew;
                let asked = cause.retry_after();
                self.retry_after = Some(self.retry_after.unwrap_or_default().max(asked));
                entry.last = Some(cause);
                self.begin_episode();
            }
        }
        self.settle(now);
    }

    /// No connection, or no new producer id: wait and try again.
    pub(crate) fn unreachable(&mut self, cause: &ClientError, now: Time) {
        for entry in self.entries.iter_mut().filter(|e| matches!(e.state, State::Queued)) {
            entry.last = Some(cause.clone());
        }
        self.renew |= self.phase == Phase::Renewing;
        self.retry_after = Some(self.retry_after.unwrap_or_default().max(cause.retry_after()));
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
            if matches!(entry.state, State::Done(_)) {
                continue;
            }
            if now >= entry.pushed.saturating_add(self.config.retry.deadline) {
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

    /// When [`tick`](Self::tick) is due; `None` if nothing waits.
    pub(crate) fn next_tick(&self) -> Option<Time> {
        let waiting = match self.phase {
            Phase::Waiting { until } => Some(until),
            _ => None,
        };
        let entries = self.entries.iter().filter_map(|entry| {
            let deadline = entry.pushed.saturating_add(self.config.retry.deadline);
            match entry.state {
                State::Done(_) => None,
                State::Queued => Some(deadline),
                State::InFlight { since } => {
                    Some(deadline.min(since.saturating_add(self.config.request_timeout)))
                }
            }
        });
        entries.chain(waiting).min()
    }

    /// The oldest batch if it has its outcome: its tag, the outcome, and its memory.
    pub(crate) fn pop_done(&mut self) -> Option<(u64, Result<AppendAck, AppendError>, B)> {
        let entry = self.entries.pop_front_if(|e| matches!(e.state, State::Done(_)))?;
        self.first += 1;
        match entry.state {
            State::Done(result) => Some((entry.tag, result, entry.body)),
            _ => None,
        }
    }

    /// Sets the outcome of a batch that has none yet.
    fn finish(&mut self, index: u64, result: Result<AppendAck, AppendError>) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        match entry.state {
            State::Done(_) => return,
            State::Queued => self.queued -= 1,
            State::InFlight { .. } => self.outstanding -= 1,
        }
        entry.state = State::Done(result);
    }

    /// Ends a batch without acknowledgement. What comes after it cannot keep its stamps.
    fn give_up(&mut self, index: u64, unknown: bool, cause: ClientError) {
        let Some(entry) = entry(&mut self.entries, self.first, index) else { return };
        let sequence = entry.stamp.sequence;
        let error =
            if unknown { AppendError::FateUnknown(cause) } else { AppendError::NotStored(cause) };
        self.finish(index, Err(error));
        if self.config.idempotent {
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
        let asked = self.retry_after.take();
        let mut wait = Duration::ZERO;
        if asked.is_some() || self.renew {
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
        let ambiguous = |e: &Entry<B>| e.ambiguous && !matches!(e.state, State::Done(_));
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
        for entry in self.entries.iter_mut().filter(|e| ambiguous(e)) {
            let cause = entry
                .last
                .take()
                .unwrap_or(ClientError::TimedOut { after: self.config.request_timeout });
            entry.state = State::Done(Err(AppendError::FateUnknown(cause)));
            self.queued -= 1;
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
#[path = "window_tests.rs"]
mod tests;
