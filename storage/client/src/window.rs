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

use highwater_wire::ProducerStamp;

use crate::outcome::Runs;
use crate::{AppendError, ClientError, RetryPolicy};

mod batch;
mod episode;
#[cfg(test)]
mod fault_tests;
mod pace;
#[cfg(test)]
mod quota_tests;
mod replies;
#[cfg(test)]
mod tests;

use batch::{Entry, State};
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
}

fn entry<B>(entries: &mut VecDeque<Entry<B>>, first: u64, index: u64) -> Option<&mut Entry<B>> {
    entries.get_mut(usize::try_from(index.checked_sub(first)?).ok()?)
}
