//! What was read from disk and could not be delivered at once, kept for whoever goes on there: a subscription with its next
//! credit, a consumer with its next fetch. Without it a window of 64 KiB reads a block of 1 MiB sixteen times.
//!
//! Bounded, and never needed: what is not here is read again. So it gives way to whoever needs memory.

use std::collections::VecDeque;

use highwater_ring::SharedBuf;
use highwater_wire::ShardId;

/// A stretch of a segment in memory.
#[derive(Debug)]
pub struct Piece {
    /// Number of the segment.
    pub segment: u64,
    /// Where in its file the stretch begins.
    pub offset: u64,
    /// Bytes that were asked for.
    pub asked: usize,
    /// The mark when it was asked for: what lies beyond may have been read before it was written.
    pub mark: u64,
    /// What was read.
    pub buf: SharedBuf,
    /// Bytes of it that were read.
    pub len: usize,
    /// Where in it the next block begins.
    pub pos: usize,
    /// Whether that block was found to be sound.
    pub sound: bool,
}

impl Piece {
    /// What has not been looked at yet; `None` beyond the end.
    pub fn rest(&self) -> Option<&[u8]> {
        self.buf[..self.len].get(self.pos..)
    }
}

/// The pieces kept on one core, oldest first.
#[derive(Debug, Default)]
pub struct Kept {
    /// By the sequence number that comes next in them.
    pieces: VecDeque<(ShardId, u64, Piece)>,
    bytes: usize,
    /// Of the pieces, so many from the front were there at the last [`Kept::age`].
    aged: usize,
    /// Bytes that are being read ahead.
    expected: usize,
}

impl Kept {
    /// Keeps a piece whose next record is `next`. Older ones give way so that all together have at most `bound` bytes.
    pub fn keep(&mut self, shard: ShardId, next: u64, piece: Piece, bound: usize) {
        let bytes = piece.buf.capacity();
        if bytes > bound {
            return;
        }
        self.bytes += bytes;
        self.pieces.push_back((shard, next, piece));
        while self.bytes > bound && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, _, oldest)) = self.pieces.pop_front() else { return false };
        self.bytes -= oldest.buf.capacity();
        self.aged = self.aged.saturating_sub(1);
        true
    }

    /// Whether so many bytes more could be kept, what is being read ahead included, without anything giving way.
    pub fn has_room(&self, bytes: usize, bound: usize) -> bool {
        self.bytes + self.expected + bytes <= bound
    }

    /// So many bytes are being read ahead.
    pub fn expect(&mut self, bytes: usize) {
        self.expected += bytes;
    }

    /// They have come, or will not.
    pub fn arrived(&mut self, bytes: usize) {
        self.expected = self.expected.saturating_sub(bytes);
    }

    /// Gives back what was there the last time as well: whoever wanted it has gone elsewhere.
    pub fn age(&mut self) {
        for _ in 0..self.aged {
            self.drop_oldest();
        }
        self.aged = self.pieces.len();
    }

    /// What is kept for who reads `next` now.
    pub fn take(&mut self, shard: ShardId, next: u64) -> Option<Piece> {
        let at = self.pieces.iter().position(|(of, at, _)| (*of, *at) == (shard, next))?;
        let (_, _, piece) = self.pieces.remove(at)?;
        self.bytes -= piece.buf.capacity();
        self.aged -= usize::from(at < self.aged);
        Some(piece)
    }

    /// Gives all of it back; whether there was any.
    pub fn clear(&mut self) -> bool {
        (self.bytes, self.aged) = (0, 0);
        let any = !self.pieces.is_empty();
        self.pieces.clear();
        any
    }
}

#[cfg(test)]
mod tests {
    use highwater_ring::BufferPool;

    use super::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn pieces_are_found_by_what_comes_next_and_give_way_oldest_first() {
        const SHARD: ShardId = ShardId { stream: 1, shard: 0 };
        let pool = BufferPool::new(4 << 20, 1 << 20).unwrap();
        let piece = |bytes: usize| {
            let buf = pool.take(bytes).unwrap().freeze();
            Piece {
                segment: 1,
                offset: 0,
                asked: bytes,
                mark: 0,
                buf,
                len: bytes,
                pos: KIB,
                sound: true,
            }
        };
        let mut kept = Kept::default();
        for next in 1..=4 {
            kept.keep(SHARD, next, piece(4 * KIB), 12 * KIB);
        }
        assert!(kept.take(SHARD, 1).is_none(), "it had to give way");
        assert!(kept.take(ShardId { shard: 1, ..SHARD }, 2).is_none());
        let second = kept.take(SHARD, 2).unwrap();
        assert_eq!(second.rest().map(<[u8]>::len), Some(3 * KIB));
        assert!(kept.take(SHARD, 2).is_none(), "taken is taken");
        kept.keep(SHARD, 9, second, 12 * KIB);
        assert!(
            kept.take(SHARD, 3).is_some() && kept.take(SHARD, 4).is_some(),
            "there was room again"
        );
        kept.keep(SHARD, 5, piece(16 * KIB), 12 * KIB);
        assert!(kept.take(SHARD, 5).is_none(), "larger than all there is");
        kept.age();
        kept.keep(SHARD, 10, piece(4 * KIB), 12 * KIB);
        kept.age();
        assert!(kept.take(SHARD, 9).is_none(), "nobody came for it");
        assert!(kept.has_room(8 * KIB, 12 * KIB) && !kept.has_room(12 * KIB, 12 * KIB));
        kept.expect(8 * KIB);
        assert!(!kept.has_room(4 * KIB, 12 * KIB), "what is on its way counts");
        kept.arrived(8 * KIB);
        assert!(kept.clear() && !kept.clear());
        assert_eq!(pool.used_bytes(), 0);
    }
}
