//! One shard of a group that settles record by record: a position, below which everything is settled, and above it runs
//! of records by their state. What no run covers is fresh. (Below the position it is the other way round: runs are there
//! only of records that were given back to the group by hand.) Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use highwater_wire::{
    Burial, Claimed, DeliveryConfig, GroupDelivery, MAX_REASON, Outcome, Portion, Redriven,
    SequenceRange, Settlement,
};
use serde::{Deserialize, Serialize};

use super::{Ask, DeliveryError, MAX_PIECES, MAX_REDRIVEN};
use crate::types::Now;

/// Runs to bury that one claim brings, at most.
const BURIALS: usize = 100;

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

/// A shard as it is kept. What is in hand for the first time is not: after a crash it is fresh again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// Everything below is settled.
    pub position: u64,
    /// And these above it: first sequence number, and the one after the last.
    pub settled: Vec<(u64, u64)>,
    /// To be handed out again, or buried.
    pub pieces: Vec<KeptPiece>,
}

/// A run of records that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeptPiece {
    /// First sequence number.
    pub from: u64,
    /// Sequence number after the last.
    pub to: u64,
    /// Attempts made at it.
    pub attempts: u32,
    /// When it was first handed out, nanoseconds since 1970 UTC; 0 for never.
    pub since_ns: u64,
    /// It was handed out before.
    pub again: bool,
    /// Why it failed last.
    pub reason: String,
    /// It is given up.
    pub bury: bool,
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

    pub fn restore(kept: Kept) -> Shard {
        let mut shard = Shard { position: kept.position, ..Shard::default() };
        for (from, to) in kept.settled {
            shard.pieces.insert(from, Piece::settled(to));
        }
        for piece in kept.pieces {
            let KeptPiece { from, to, attempts, since_ns, again, reason, bury } = piece;
            let state = match bury {
                true => State::ToBury { carried: None },
                false => State::Waiting { due_ns: 0 },
            };
            shard.pieces.insert(from, Piece { to, state, attempts, since_ns, again, reason });
        }
        shard
    }

    fn kept(&self) -> Kept {
        let mut kept = Kept { position: self.position, ..Kept::default() };
        for (from, piece) in &self.pieces {
            let bury = matches!(piece.state, State::ToBury { .. });
            match piece.state {
                State::Settled => kept.settled.push((*from, piece.to)),
                State::InHand { .. } if !piece.again => {}
                _ => kept.pieces.push(KeptPiece {
                    from: *from,
                    to: piece.to,
                    attempts: piece.attempts,
                    since_ns: piece.since_ns,
                    again: piece.again,
                    reason: piece.reason.clone(),
                    bury,
                }),
            }
        }
        kept
    }

    /// What is to be kept, if anything has changed since this was asked last.
    pub fn changed(&mut self) -> Option<Kept> {
        std::mem::take(&mut self.changed).then(|| self.kept())
    }

    pub fn touch(&mut self) {
        self.changed = true;
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

    /// No piece goes across `at`.
    fn divide(&mut self, at: u64) {
        let before = self.pieces.range_mut(..at).next_back();
        if let Some((_, piece)) = before.filter(|(_, piece)| piece.to > at) {
            let behind = piece.clone();
            piece.to = at;
            self.pieces.insert(at, behind);
        }
    }

    /// The same for a piece in such a state only.
    fn divide_if(&mut self, at: u64, wanted: impl Fn(State) -> bool) {
        let before = self.pieces.range(..at).next_back();
        if before.is_some_and(|(_, piece)| piece.to > at && wanted(piece.state)) {
            self.divide(at);
        }
    }

    /// First sequence numbers of the pieces within a range, which begins and ends where pieces do.
    fn within(&self, range: Range<u64>) -> Vec<u64> {
        self.pieces.range(range).map(|(from, _)| *from).collect()
    }

    /// The first run within a range of which nothing is known.
    fn fresh(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let mut from = range.start.max(self.position);
        let before = self.pieces.range(..=from).next_back();
        if let Some((_, piece)) = before {
            from = from.max(piece.to);
        }
        while from < range.end {
            match self.pieces.range(from..range.end).next() {
                Some((start, piece)) if *start == from => from = piece.to,
                next => return Some(from..next.map_or(range.end, |(start, _)| *start)),
            }
        }
        None
    }

    /// A run is settled: no piece covers it, or exactly one. Neighbours become one.
    fn set_settled(&mut self, from: u64, to: u64) {
        self.pieces.remove(&from);
        // Below the position that goes without saying.
        if to <= self.position {
            return;
        }
        let (mut first, mut last) = (from, to);
        let before = self.pieces.range(..from).next_back();
        if let Some((start, piece)) = before
            && piece.to == from
            && piece.state == State::Settled
        {
            first = *start;
        }
        if let Some(piece) = self.pieces.get(&to)
            && piece.state == State::Settled
        {
            last = piece.to;
            self.pieces.remove(&to);
        }
        self.pieces.insert(first, Piece::settled(last));
    }

    /// The position moves over what is settled.
    fn advance(&mut self) {
        while let Some(piece) = self.pieces.get(&self.position)
            && piece.state == State::Settled
        {
            let to = piece.to;
            self.pieces.remove(&self.position);
            self.position = to;
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

    /// Hands records out.
    pub fn claim(
        &mut self,
        now: Now,
        config: &DeliveryConfig,
        ask: &Ask,
        tally: &mut Tally,
    ) -> Claimed {
        self.give_up_old(now, config, tally);
        let until_ns = now.mono_ns.saturating_add(u64::from(config.timeout_ms) * 1_000_000);
        let mut claimed = Claimed::default();
        for (from, piece) in &mut self.pieces {
            if piece.state == (State::ToBury { carried: None }) && claimed.burials.len() < BURIALS {
                piece.state = State::ToBury { carried: Some((ask.lease, until_ns)) };
                let (to, attempts, reason) = (piece.to, piece.attempts, piece.reason.clone());
                claimed.burials.push(Burial { from: *from, to, attempts, reason });
            }
        }
        claimed.portion = match u64::from(ask.most) {
            0 => None,
            most => self
                .hand_out_again(now, ask.lease, until_ns, most, tally)
                .or_else(|| self.hand_out_fresh(now, ask, until_ns, most)),
        };
        if let Some(portion) = &mut claimed.portion {
            portion.timeout_ms = config.timeout_ms;
        }
        if claimed.portion.is_some() || !claimed.burials.is_empty() {
            self.late_ns = self.late_ns.min(until_ns);
        }
        let next = self.fresh(&ask.fresh).map_or(ask.fresh.end, |run| run.start);
        claimed.next_fresh = next.max(ask.fresh.start);
        claimed.again_ms = self.again_ms(now);
        claimed
    }

    /// What waits and is older than what is tried for becomes a dead letter.
    fn give_up_old(&mut self, now: Now, config: &DeliveryConfig, tally: &mut Tally) {
        if config.max_age_ms == 0 {
            return;
        }
        let most_ns = config.max_age_ms.saturating_mul(1_000_000);
        for (from, piece) in &mut self.pieces {
            let due = matches!(piece.state, State::Waiting { due_ns } if due_ns <= now.mono_ns);
            let old = piece.since_ns > 0 && now.wall_ns.saturating_sub(piece.since_ns) > most_ns;
            if due && old {
                piece.state = State::ToBury { carried: None };
                let last = std::mem::take(&mut piece.reason);
                piece.reason = cut(&format!("older than {} ms; last: {last}", config.max_age_ms));
                tally.given_up += piece.to - from;
                self.changed = true;
            }
        }
    }

    fn hand_out_again(
        &mut self,
        now: Now,
        lease: u64,
        until_ns: u64,
        most: u64,
        tally: &mut Tally,
    ) -> Option<Portion> {
        let due = |piece: &Piece| matches!(piece.state, State::Waiting { due_ns } if due_ns <= now.mono_ns);
        let from = self.pieces.iter().find(|(_, piece)| due(piece)).map(|(from, _)| *from)?;
        let end = from.saturating_add(most);
        if self.pieces.get(&from).is_some_and(|piece| piece.to > end) {
            self.divide(end);
        }
        let piece = self.pieces.get_mut(&from)?;
        piece.state = State::InHand { lease, until_ns };
        if piece.since_ns == 0 {
            piece.since_ns = now.wall_ns;
        }
        if piece.again {
            tally.redelivered += piece.to - from;
        }
        let (to, attempt, again) = (piece.to, piece.attempts + 1, piece.again);
        Some(Portion { from, to, attempt, again, timeout_ms: 0 })
    }

    fn hand_out_fresh(&mut self, now: Now, ask: &Ask, until_ns: u64, most: u64) -> Option<Portion> {
        let run = self.fresh(&ask.fresh)?;
        let end = self.pieces.last_key_value().map_or(0, |(_, piece)| piece.to);
        // Gaps that a crash left are closed in any case: that makes fewer pieces.
        if self.pieces.len() >= MAX_PIECES && run.start >= end {
            return None;
        }
        let (from, to) = (run.start, run.end.min(run.start.saturating_add(most)));
        let piece = Piece {
            to,
            state: State::InHand { lease: ask.lease, until_ns },
            attempts: 0,
            since_ns: now.wall_ns,
            again: false,
            reason: String::new(),
        };
        self.pieces.insert(from, piece);
        Some(Portion { from, to, attempt: 1, again: false, timeout_ms: 0 })
    }

    /// Milliseconds until something can be claimed that is not fresh; `None` if nothing waits.
    fn again_ms(&self, now: Now) -> Option<u32> {
        let due = self.pieces.values().filter_map(|piece| match piece.state {
            State::Waiting { due_ns } => Some(due_ns),
            State::ToBury { carried } => carried.is_none().then_some(0),
            State::Settled | State::InHand { .. } => None,
        });
        let left_ms = |due_ns: u64| due_ns.saturating_sub(now.mono_ns).div_ceil(1_000_000);
        due.min().map(|due_ns| u32::try_from(left_ms(due_ns)).unwrap_or(u32::MAX))
    }

    /// Takes note of what became of records: of all, or of none, then the first that is not in hand.
    pub fn settle(
        &mut self,
        now: Now,
        config: &DeliveryConfig,
        lease: u64,
        settlements: &[Settlement],
        tally: &mut Tally,
    ) -> Result<(), u64> {
        for settlement in settlements {
            self.check(lease, settlement)?;
        }
        for Settlement { from, to, outcome } in settlements {
            self.divide(*from);
            self.divide(*to);
            for piece in self.within(*from..*to) {
                self.settle_piece(now, config, piece, outcome, tally);
            }
        }
        self.changed = true;
        self.advance();
        Ok(())
    }

    /// Whether all of a run is in hand, or carried; that what was processed is settled already does no harm: the answer to
    /// an earlier attempt was lost.
    fn check(&self, lease: u64, settlement: &Settlement) -> Result<(), u64> {
        let Settlement { from, to, outcome } = settlement;
        let done = *outcome == Outcome::Done;
        let fits = |piece: &Piece| match (piece.state, outcome) {
            (State::InHand { lease: of, .. }, outcome) => {
                of == lease && *outcome != Outcome::Buried
            }
            (State::ToBury { carried: Some((of, _)) }, outcome) => {
                of == lease
                    && matches!(outcome, Outcome::Buried | Outcome::Released | Outcome::Lost)
            }
            (State::Settled, _) => done,
            (State::ToBury { carried: None } | State::Waiting { .. }, _) => false,
        };
        let below = if done { self.position } else { 0 };
        let mut next = *from;
        let first = self.pieces.range(..=*from).next_back().filter(|(_, piece)| piece.to > *from);
        let later = self.pieces.range(from.saturating_add(1)..(*to).max(from.saturating_add(1)));
        for (start, piece) in first.into_iter().chain(later) {
            if *start > next && *start > below || !fits(piece) {
                return Err(next);
            }
            next = piece.to;
        }
        if next >= *to || *to <= below { Ok(()) } else { Err(next) }
    }

    fn settle_piece(
        &mut self,
        now: Now,
        config: &DeliveryConfig,
        from: u64,
        outcome: &Outcome,
        tally: &mut Tally,
    ) {
        let Some(piece) = self.pieces.get_mut(&from) else { return };
        let (to, records) = (piece.to, piece.to - from);
        match (&mut piece.state, outcome) {
            (State::Waiting { .. }, _) => return,
            // Said twice; what was cut for that becomes one again.
            (State::Settled, _) => {}
            (State::ToBury { carried }, Outcome::Released) => {
                *carried = None;
                return;
            }
            (State::InHand { .. }, Outcome::Released) => {
                tally.released += 1;
                piece.state = State::Waiting { due_ns: 0 };
                return;
            }
            (State::InHand { .. }, Outcome::Failed { reason }) => {
                return self.fail(now, config, from, reason, tally);
            }
            (_, Outcome::Done) => tally.done += records,
            (_, Outcome::Buried) => tally.buried += records,
            (_, Outcome::Lost) => tally.lost += records,
            (State::ToBury { .. }, Outcome::Failed { .. }) => return,
        }
        self.set_settled(from, to);
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

    /// Hands settled records out again.
    pub fn redrive(
        &mut self,
        ranges: &[SequenceRange],
        oldest: u64,
    ) -> Result<Redriven, DeliveryError> {
        let (found, limit) = (self.pieces.len() + 2 * ranges.len(), MAX_REDRIVEN);
        if found > limit {
            return Err(DeliveryError::TooMany { ranges: found, limit });
        }
        let mut redriven = Redriven::default();
        for SequenceRange { from, to } in joined(ranges) {
            if from < oldest {
                redriven.gone.push(SequenceRange { from, to: to.min(oldest) });
            }
            let from = from.max(oldest);
            if from < to {
                self.divide_if(from, |state| state == State::Settled);
                self.divide_if(to, |state| state == State::Settled);
                redriven.given += self.unsettle(from, to);
            }
        }
        self.changed |= redriven.given > 0;
        Ok(redriven)
    }

    /// What is settled of a run waits; how many records that are. No settled piece goes across its ends.
    fn unsettle(&mut self, from: u64, to: u64) -> u64 {
        let waiting =
            |to| Piece { state: State::Waiting { due_ns: 0 }, again: true, ..Piece::settled(to) };
        let mut given = 0;
        for start in self.within(from..to) {
            let piece = self.pieces.get_mut(&start);
            if let Some(piece) = piece.filter(|piece| piece.state == State::Settled) {
                given += piece.to - start;
                *piece = waiting(piece.to);
            }
        }
        // Below the position what no piece covers is settled.
        let below = to.min(self.position);
        let before = self.pieces.range(..from).next_back().map_or(from, |(_, piece)| piece.to);
        let mut next = from.max(before);
        while next < below {
            match self.pieces.range(next..below).next().map(|(start, piece)| (*start, piece.to)) {
                Some((start, end)) if start == next => next = end,
                found => {
                    let end = found.map_or(below, |(start, _)| start);
                    self.pieces.insert(next, waiting(end));
                    given += end - next;
                    next = end;
                }
            }
        }
        given
    }
}

/// Ranges in order, those that touch or overlap as one.
fn joined(ranges: &[SequenceRange]) -> Vec<SequenceRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<SequenceRange> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.from <= last.to => last.to = last.to.max(range.to),
            _ => joined.push(range),
        }
    }
    joined
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
