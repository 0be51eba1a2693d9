//! Claims: what failed is handed out again first, then what is fresh, and beside it what is to be buried.

use highwater_wire::{Burial, Claimed, DeliveryConfig, Portion};

use super::{Piece, Shard, State, Tally, cut};
use crate::deliveries::{Ask, MAX_PIECES};
use crate::types::Now;

/// Runs to bury that one claim brings, at most.
const BURIALS: usize = 100;

impl Shard {
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
}
