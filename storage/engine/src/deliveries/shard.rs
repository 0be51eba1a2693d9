//! One shard of a group that settles record by record: a position, below which everything is settled, and above it runs
//! of records by their state. What no run covers is fresh. (Below the position it is the other way round: runs are there
//! only of records that were given back to the group by hand.) Pure.

mod claim;
mod kept;
mod redrive;
mod runs;
mod settle;

use std::collections::BTreeMap;

use highwater_wire::{DeliveryConfig, GroupDelivery, MAX_REASON};

use crate::types::Now;
pub(crate) use kept::Kept;

/// Each attempt doubles the pause before the next, so often at most.
const DOUBLINGS: u32 = 6;

/// Records by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Processed.
    pub done: u64,
    /// Handed out again.
    pub redelivered: u64,
    /// Given up: to be stored as dead letters.
    pub given_up: u64,
    /// Stored as such.
    pub buried: u64,
    /// Removed by retention before.
    pub lost: u64,
    /// Attempts that failed, of runs.
    pub failed: u64,
    /// Runs given back untried.
    pub released: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.done += other.done;
        self.redelivered += other.redelivered;
        self.given_up += other.given_up;
        self.buried += other.buried;
        self.lost += other.lost;
        self.failed += other.failed;
        self.released += other.released;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Settled,
    /// To be handed out again, not before then.
    Waiting {
        due_ns: u64,
    },
    /// Until then, under this lease.
    InHand {
        lease: u64,
        until_ns: u64,
    },
    /// Given up; under this lease somebody carries it to where dead letters are, until then.
    ToBury {
        carried: Option<(u64, u64)>,
    },
}

/// A run of records with the same fate so far. More than one attempt is only ever counted of a single record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    to: u64,
    state: State,
    attempts: u32,
    since_ns: u64,
    again: bool,
    reason: String,
}

impl Piece {
    fn settled(to: u64) -> Piece {
        let (state, reason) = (State::Settled, String::new());
        Piece { to, state, attempts: 0, since_ns: 0, again: false, reason }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shard {
    position: u64,
    /// By first sequence number; none overlap.
    pieces: BTreeMap<u64, Piece>,
    /// Nothing is late before then.
    late_ns: u64,
    /// It is to be kept as it is now.
    changed: bool,
}

fn pause_ns(config: &DeliveryConfig, attempts: u32) -> u64 {
    (u64::from(config.retry_after_ms) * 1_000_000) << attempts.saturating_sub(1).min(DOUBLINGS)
}

/// As much of a text as is kept of a reason.
fn cut(text: &str) -> String {
    let end = (0..=MAX_REASON.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

impl Shard {
    /// Everything below is settled, and nothing else.
    pub fn at(position: u64) -> Shard {
        Shard { position, changed: true, ..Shard::default() }
    }

    /// Whether nothing waits or is in hand.
    pub fn at_rest(&self) -> bool {
        self.pieces.values().all(|piece| piece.state == State::Settled)
    }

    /// Whether something waits that can be claimed now.
    pub fn due(&self, now: Now) -> bool {
        self.pieces.values().any(|piece| match piece.state {
            State::Waiting { due_ns } => due_ns <= now.mono_ns,
            State::ToBury { carried } => carried.is_none(),
            State::Settled | State::InHand { .. } => false,
        })
    }

    pub fn add_to(&self, figures: &mut GroupDelivery) {
        for (from, piece) in &self.pieces {
            let records = piece.to - from;
            match piece.state {
                State::Settled => {}
                State::Waiting { .. } => figures.waiting += records,
                State::InHand { .. } => figures.in_hand += records,
                State::ToBury { .. } => figures.to_bury += records,
            }
        }
    }

    /// An attempt at a run has failed.
    fn fail(
        &mut self,
        now: Now,
        config: &DeliveryConfig,
        from: u64,
        reason: &str,
        tally: &mut Tally,
    ) {
        let Some(piece) = self.pieces.get_mut(&from) else { return };
        tally.failed += 1;
        (piece.again, piece.reason) = (true, cut(reason));
        if piece.to - from > 1 {
            let due_ns = now.mono_ns.saturating_add(pause_ns(config, 0));
            piece.state = State::Waiting { due_ns };
            let middle = from + (piece.to - from) / 2;
            return self.divide(middle);
        }
        piece.attempts = piece.attempts.saturating_add(1);
        piece.state = if piece.attempts >= config.attempts {
            tally.given_up += 1;
            State::ToBury { carried: None }
        } else {
            let due_ns = now.mono_ns.saturating_add(pause_ns(config, piece.attempts));
            State::Waiting { due_ns }
        };
    }

    /// Time passes.
    pub fn pass(&mut self, now: Now, config: &DeliveryConfig, tally: &mut Tally) {
        if now.mono_ns < self.late_ns {
            return;
        }
        let late = |until_ns: u64| until_ns <= now.mono_ns;
        let reason = format!("not settled within {} ms", config.timeout_ms);
        self.end(now, config, &reason, |_, until_ns| late(until_ns), tally);
        let until = self.pieces.values().filter_map(|piece| match piece.state {
            State::InHand { until_ns, .. } => Some(until_ns),
            State::ToBury { carried } => carried.map(|(_, until_ns)| until_ns),
            State::Settled | State::Waiting { .. } => None,
        });
        self.late_ns = until.min().unwrap_or(u64::MAX);
    }

    /// A lease is over.
    pub fn lease_ended(
        &mut self,
        now: Now,
        config: &DeliveryConfig,
        lease: u64,
        tally: &mut Tally,
    ) {
        let reason = "the member that had it is gone";
        self.end(now, config, reason, |of, _| of == lease, tally);
    }

    /// What is in hand fails and what is carried is not, where lease and time say so.
    fn end(
        &mut self,
        now: Now,
        config: &DeliveryConfig,
        reason: &str,
        ends: impl Fn(u64, u64) -> bool,
        tally: &mut Tally,
    ) {
        let mut failed = Vec::new();
        for (from, piece) in &mut self.pieces {
            match &mut piece.state {
                State::InHand { lease, until_ns } if ends(*lease, *until_ns) => failed.push(*from),
                State::ToBury { carried } => {
                    *carried = carried.filter(|(lease, until_ns)| !ends(*lease, *until_ns));
                }
                _ => {}
            }
        }
        self.changed |= !failed.is_empty();
        for from in failed {
            self.fail(now, config, from, reason, tally);
        }
    }

    /// Retention keeps what is at `oldest` and above. What is in hand is left to whoever has it.
    pub fn trimmed(&mut self, oldest: u64, tally: &mut Tally) {
        let free = |state| matches!(state, State::Waiting { .. } | State::ToBury { carried: None });
        self.divide_if(oldest, free);
        for from in self.within(0..oldest) {
            let Some(piece) = self.pieces.get(&from) else { continue };
            if free(piece.state) {
                let to = piece.to;
                tally.lost += to - from;
                self.set_settled(from, to);
                self.changed = true;
            }
        }
        while let Some(run) = self.fresh(&(self.position..oldest)) {
            tally.lost += run.end - run.start;
            self.set_settled(run.start, run.end);
            self.changed = true;
        }
        self.advance();
    }
}

#[cfg(test)]
impl Shard {
    /// Everything below is settled.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn is_settled(&self, sequence: u64) -> bool {
        let piece = self.pieces.range(..=sequence).next_back().map(|(_, piece)| piece);
        match piece.filter(|piece| piece.to > sequence) {
            Some(piece) => piece.state == State::Settled,
            None => sequence < self.position,
        }
    }

    /// Breaks where runs overlap, are empty, touch though both are settled, or settled ones lie at or below the position.
    pub fn check_sound(&self) {
        let mut before: Option<(u64, State)> = None;
        for (from, piece) in &self.pieces {
            assert!(*from < piece.to, "{self:?}");
            if let Some((end, state)) = before {
                assert!(*from >= end, "{self:?}");
                let both = state == State::Settled && piece.state == State::Settled;
                assert!(*from > end || !both, "{self:?}");
            }
            if piece.state == State::Settled {
                assert!(*from > self.position, "{self:?}");
            }
            assert!(piece.attempts == 0 || piece.to - from == 1, "{self:?}");
            before = Some((piece.to, piece.state));
        }
    }
}
