//! What is kept of a shard, and a shard from what was kept.

use serde::{Deserialize, Serialize};

use super::{Piece, Shard, State};

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

impl Shard {
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
}
