//! How fast a shard with a quota takes records, by what it accepted and what it put off: when the next batch may go,
//! and how much of it.
//!
//! A shard that never put anything off has no pace. Between two refusals its bucket went from empty to empty, so what
//! it accepted meanwhile is what this client may have of it, however many others share it. From there the pace goes as
//! a congestion window does in CUBIC (RFC 9438, section 4.2): somewhat slower at first, so that the bucket fills, flat
//! about that rate, and then ever faster, to find out about a quota that was raised or a rival that left.

use std::time::Duration;

use super::Time;

/// After a refusal the pace is less by this part of what the shard takes.
const BACK: f64 = 1.0 / 16.0;
/// Seconds until it is at that again.
const PLATEAU: f64 = 2.0;
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
/// By how much pieces grow, each when the one before was accepted.
const GROWTH: f64 = 1.0 + 1.0 / 256.0;
/// Servers tell waits in whole milliseconds, rounded up.
const UNIT: Duration = Duration::from_millis(1);
/// How far a sender that was late may catch up: timers and jitter are no quieter.
const CATCH_UP: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    known: Option<Known>,
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
    /// Most records at once, if more than the burst was asked for.
    most: Option<f64>,
    /// All that was sent will have been let through by then.
    paid: Time,
}

impl Pace {
    /// `left` records are to come again after `wait`, `taken` in front of them were accepted; `again`: they had been
    /// put off before and came when they were asked to, or were a piece that should have fitted.
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
        let least = f64::from(left) / wait.as_secs_f64() / others;
        // What waited longer than the shard asks for as much again or more met a full bucket: the rest of the wait
        // was for nothing, and is no measure.
        let waited = self.known.map_or(Time::ZERO, |known| known.cost(taken.saturating_add(left)));
        let overflowed = taken > 0 && left >= taken && waited > wait;
        let known = match &self.known {
            Some(known) => known.refused_again(least, asked, wait, now),
            None => Known {
                rate: asked.max(self.before.map_or(0.0, |(since, count)| rate(count, now - since))),
                refused: now,
                since: 0,
                busy: true,
                accepted: (0.0, 0.0),
                longest: wait,
                most: None,
                paid: now,
            },
        };
        let known = self.known.insert(known);
        if overflowed {
            known.rate = known.rate.max(f64::from(taken) / wait.as_secs_f64());
        }
        known.paid = now;
        known.paid = now.saturating_add(wait.saturating_sub(known.cost(left)));
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
        let most = self.known.and_then(|known| known.most);
        // Beyond any number of records it is the greatest.
        most.map_or(records, |most| (most as u32).clamp(1, records.max(1)))
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
        1.0 + BACK * ((seconds - PLATEAU) / PLATEAU).powi(3)
    }

    /// What records take.
    fn cost(&self, records: u32) -> Duration {
        let rate = self.rate * self.growth(self.paid);
        Duration::try_from_secs_f64(f64::from(records) / rate).unwrap_or(Duration::MAX)
    }

    /// After another refusal, which asks for a rate and leaves `least` of it to this client.
    fn refused_again(&self, least: f64, asked: f64, wait: Duration, now: Time) -> Known {
        let seconds = now.saturating_sub(self.refused).as_secs_f64();
        let growth = self.growth(now);
        let mut accepted = self.accepted;
        if growth > STALE {
            accepted = (0.0, 0.0);
        } else if self.busy {
            let kept = (-seconds / MEMORY).exp();
            accepted = (accepted.0 * kept + self.since as f64, accepted.1 * kept + seconds);
        }
        let rate = match accepted.1 > FEW && accepted.0 >= 1.0 {
            true => (accepted.0 / accepted.1).max(least),
            // Of what is held back until it fits, a refusal asks for less than there is.
            false if growth > STALE => {
                asked.max(self.since as f64 / seconds).min(self.rate * growth)
            }
            false => asked.max(self.rate),
        };
        let longest = wait.max(self.longest - self.longest / 8);
        Known { rate, refused: now, since: 0, busy: true, accepted, longest, ..*self }
    }
}
