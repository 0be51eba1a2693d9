//! Runs: found, divided where something else begins, joined where they are settled alike.

use std::ops::Range;

use super::{Piece, Shard, State};

impl Shard {
    /// No piece goes across `at`.
    pub(super) fn divide(&mut self, at: u64) {
        let before = self.pieces.range_mut(..at).next_back();
        if let Some((_, piece)) = before.filter(|(_, piece)| piece.to > at) {
            let behind = piece.clone();
            piece.to = at;
            self.pieces.insert(at, behind);
        }
    }

    /// The same for a piece in such a state only.
    pub(super) fn divide_if(&mut self, at: u64, wanted: impl Fn(State) -> bool) {
        let before = self.pieces.range(..at).next_back();
        if before.is_some_and(|(_, piece)| piece.to > at && wanted(piece.state)) {
            self.divide(at);
        }
    }

    /// First sequence numbers of the pieces within a range, which begins and ends where pieces do.
    pub(super) fn within(&self, range: Range<u64>) -> Vec<u64> {
        self.pieces.range(range).map(|(from, _)| *from).collect()
    }

    /// The first run within a range of which nothing is known.
    pub(super) fn fresh(&self, range: &Range<u64>) -> Option<Range<u64>> {
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
    pub(super) fn set_settled(&mut self, from: u64, to: u64) {
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
    pub(super) fn advance(&mut self) {
        while let Some(piece) = self.pieces.get(&self.position)
            && piece.state == State::Settled
        {
            let to = piece.to;
            self.pieces.remove(&self.position);
            self.position = to;
        }
    }
}
