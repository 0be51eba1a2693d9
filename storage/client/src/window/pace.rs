//! How fast a shard with a quota takes records, by what it accepted and what it put off: when the next batch may go,
//! and how much of it.
//!
//! A shard that never put anything off has no pace. Between two refusals its bucket went from empty to empty, so what
//! it accepted meanwhile is what this client may have of it, however many others share it. From there the pace goes as
//! a congestion window does in CUBIC (RFC 9438, section 4.2): somewhat slower at first, so that the bucket fills, flat
//! about that rate, and then ever faster, to find out about a quota that was raised or a rival that left.
//!
//! At once goes no more than what passes in a twentieth of a second, however large the batch: a piece that is as large as the
//! burst comes back only as often as the whole of it does, and meanwhile nothing is acknowledged; and the bucket that
//! fills for it overflows.

use std::time::Duration;

use super::Time;

/// After a refusal the pace is less by this part of what the shard takes.
const BACK: f64 = 1.0 / 16.0;
/// Beyond that it grows by so many times the part at most, if what the shard takes in all is so many times as much.
const MOST_SHARES: f64 = 4.0;
/// Seconds until it is at that again.
const PLATEAU: f64 = 1.0;
/// Beyond so many times that the rate of the last refusal says nothing.
const STALE: f64 = 1.25;
/// Beyond so many times that there is no pace any more.
const FORGOTTEN: f64 = 16.0;
/// Seconds after which what was accepted counts a third.
const MEMORY: f64 = 1.0;
/// Before so many seconds were looked at, what the server asks for is the better measure.
const FEW: f64 = 0.1;
/// Nobody has less than this part of what the server says there is: so many others are not expected. Of parts, and of
/// batches that are taken whole or not at all.
const MANY_OTHERS: f64 = 64.0;
const FEW_OTHERS: f64 = 4.0;
/// Pieces are of what passes in so many seconds, or in so many times the time that a reply takes: they go one by one.
const AT_ONCE: f64 = 0.05;
const REPLIES: f64 = 2.0;
/// By how much pieces grow, each when the one before was accepted.
const GROWTH: f64 = 1.0 + 1.0 / 256.0;
/// Servers tell waits in whole milliseconds, rounded up.
const UNIT: Duration = Duration::from_millis(1);
/// How far a sender that was late may catch up: timers and jitter are no quieter.
const CATCH_UP: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Part of a batch may be sent.
    pieces: bool,
    known: Option<Known>,
    /// The shortest time that a reply took: what is held back takes longer.
    reply: Option<Duration>,
    /// Without one: when the first was sent, and records accepted since.
    before: Option<(Time, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Records a second, as found at the last refusal.
    rate: f64,
    /// When that was.
    refused: Time,
    /// Records accepted since.
    since: u64,
    /// There was always something to send since.
    busy: bool,
    /// Records accepted between refusals, and the seconds of that; what is long ago counts less.
    accepted: (f64, f64),
    /// The longest wait asked for lately: never more than the burst takes to come back.
    longest: Duration,
    /// Records a second that the shard takes in all, by what it last asked for.
    total: f64,
    /// Most records at once, if more than the burst was asked for.
    most: Option<f64>,
    /// All that was sent will have been let through by then.
    paid: Time,
}

impl Pace {
    /// `pieces`: part of a batch may be sent, and stored.
    pub(super) fn new(pieces: bool) -> Pace {
        Pace { pieces, ..Pace::default() }
    }

    /// A reply came after so long.
    pub(super) fn replied(&mut self, after: Duration) {
        self.reply = Some(self.reply.map_or(after, |shortest| shortest.min(after)));
    }

    /// `left` records are to come again after `wait`, `taken` in front of them were accepted; `again`: they had been
    /// put off before and came when they were asked to.
    pub(super) fn refused(
        &mut self,
        taken: u32,
        left: u32,
        wait: Duration,
        again: bool,
        now: Time,
    ) {
        let wait = wait.max(UNIT);
        let asked = f64::from(left) / (wait - UNIT).max(wait / 8).as_secs_f64();
        // A batch that was refused whole does not tell that the bucket was empty.
        let others = if taken == 0 { FEW_OTHERS } else { MANY_OTHERS };
        // A single record may have lacked the smallest part of what it takes.
        let (lacked, during) = match self.known {
            Some(known) if (taken, left) == (0, 1) => (left, wait.max(known.longest)),
            _ if taken == 0 => (left.max(2) - 1, wait),
            _ => (left, wait),
        };
        let least = f64::from(lacked) / during.as_secs_f64() / others;
        // What waited longer than the shard asks for as much again or more met a full bucket: the rest of the wait
        // was for nothing, and is no measure.
        let sent = taken.saturating_add(left);
        let waited = self.known.map_or(Time::ZERO, |known| known.cost(sent));
        // Much of what should have fitted did not; a little is what a pace that is too fast costs.
        let piece = self.known.and_then(|known| known.most);
        let piece = piece.is_some_and(|most| f64::from(sent) + 1.0 > most) && left >= sent / 8;
        let again = again && left >= taken || piece;
        let overflowed = taken > 0 && left >= taken && waited > wait;
        let known = match &self.known {
            Some(known) => known.refused_again(taken, least, asked, wait, now),
            None => Known {
                rate: asked.max(self.before.map_or(0.0, |(since, count)| rate(count, now - since))),
                refused: now,
                since: 0,
                busy: true,
                accepted: (0.0, 0.0),
                longest: wait,
                total: 0.0,
                most: None,
                paid: now,
            },
        };
        let known = self.known.insert(known);
        if taken > 0 {
            known.total = f64::from(left) / wait.as_secs_f64();
        }
        if overflowed {
            known.rate = known.rate.max(f64::from(taken) / wait.as_secs_f64());
        }
        known.paid = now;
        // Where nothing passed, part of a record may have been there.
        let there = if taken == 0 { known.cost(1) } else { Duration::ZERO };
        let fits = now.saturating_add(wait).saturating_sub(known.cost(left));
        known.paid = fits.max(now.saturating_sub(there));
        if (again || overflowed) && taken > 0 {
            // All of the burst was there, or what others left of it. By half of that the bucket never overflows
            // while the next piece waits.
            let burst = known.rate * known.longest.as_secs_f64();
            known.most = Some(f64::from(taken).max(burst) / 2.0);
        }
    }

    /// Records were accepted; `whole`: all that were sent.
    pub(super) fn accepted(&mut self, records: u32, whole: bool) {
        if let (None, Some((_, count))) = (&self.known, &mut self.before) {
            *count += u64::from(records);
        }
        let Some(known) = &mut self.known else { return };
        known.since += u64::from(records);
        if let Some(most) = known.most.filter(|most| whole && f64::from(records) + 1.0 > *most) {
            known.most = Some(most * GROWTH);
        }
    }

    /// There is nothing to send.
    pub(super) fn idle(&mut self) {
        if let Some(known) = &mut self.known {
            known.busy = false;
        }
    }

    /// Of so many records, those that may go at once: at least one.
    pub(super) fn most(&self, records: u32) -> u32 {
        let Some(known) = self.known.filter(|_| self.pieces) else { return records };
        let reply = self.reply.map_or(0.0, |reply| reply.as_secs_f64());
        let most = known.rate * AT_ONCE.max(REPLIES * reply);
        // One by one, smaller ones would not make up the rate.
        let most = known.most.map_or(most, |bound| most.min(bound.max(known.rate * reply)));
        // Beyond any number of records it is the greatest.
        (most as u32).clamp(1, records.max(1))
    }

    /// When so many records may go.
    pub(super) fn due(&self, records: u32) -> Time {
        self.known.map_or(Time::ZERO, |known| known.paid.saturating_add(known.cost(records)))
    }

    /// So many records went.
    pub(super) fn sent(&mut self, records: u32, now: Time) {
        let forgotten = |known: &mut Known| known.growth(now) > FORGOTTEN;
        if self.known.as_mut().is_some_and(forgotten) {
            (self.known, self.before) = (None, None);
        }
        let Some(known) = &mut self.known else {
            self.before.get_or_insert((now, 0));
            return;
        };
        let paid = known.paid.saturating_add(known.cost(records));
        known.paid = paid.max(now.saturating_sub(CATCH_UP));
    }
}

/// Records a second; 0 if there was no time.
fn rate(records: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { records as f64 / time.as_secs_f64() }
}

impl Known {
    /// What the pace is at `now`, in parts of the rate at the last refusal.
    fn growth(&self, now: Time) -> f64 {
        let seconds = now.saturating_sub(self.refused).as_secs_f64();
        let growth = BACK * ((seconds - PLATEAU) / PLATEAU).powi(3);
        // Whoever has a small share finds out sooner that a rival left, and they become alike.
        let share = (self.total / self.rate).clamp(1.0, MOST_SHARES);
        1.0 + if growth > 0.0 { growth * share } else { growth }
    }

    /// What records take.
    fn cost(&self, records: u32) -> Duration {
        let rate = self.rate * self.growth(self.paid);
        Duration::try_from_secs_f64(f64::from(records) / rate).unwrap_or(Duration::MAX)
    }

    /// After another refusal, which asks for a rate and leaves `least` of it to this client.
    fn refused_again(
        &self,
        taken: u32,
        least: f64,
        asked: f64,
        wait: Duration,
        now: Time,
    ) -> Known {
        let seconds = now.saturating_sub(self.refused).as_secs_f64();
        let growth = self.growth(now);
        let mut accepted = self.accepted;
        if growth > STALE {
            accepted = (0.0, 0.0);
        } else if self.busy {
            let kept = (-seconds / MEMORY).exp();
            accepted = (accepted.0 * kept + self.since as f64, accepted.1 * kept + seconds);
        }
        // Of what came when it nearly fitted, a refusal asks for far more than there is.
        let least = least.min(self.rate);
        let rate = match accepted.1 > FEW && accepted.0 >= 1.0 {
            true => (accepted.0 / accepted.1).max(least),
            // Of what is held back until it fits, a refusal asks for less than there is.
            false if growth > STALE => {
                asked.max(self.since as f64 / seconds).min(self.rate * growth)
            }
            // Others were quicker.
            false if taken == 0 => (self.rate / 2.0).max(least),
            false => asked.max(self.rate),
        };
        let longest = wait.max(self.longest - self.longest / 8);
        Known { rate, refused: now, since: 0, busy: true, accepted, longest, ..*self }
    }
}
