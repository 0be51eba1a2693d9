//! Redrives: settled records are handed out again, by hand.

use highwater_wire::{Redriven, SequenceRange};

use super::{Piece, Shard, State};
use crate::deliveries::{DeliveryError, MAX_REDRIVEN};

impl Shard {
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
