//! Settlements: what members say became of records they have in hand.

use highwater_wire::{DeliveryConfig, Outcome, Settlement};

use super::{Piece, Shard, State, Tally};
use crate::types::Now;

impl Shard {
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
}
