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
        while self.bytes > bound {
            let Some((_, _, oldest)) = self.pieces.pop_front() else { break };
            self.bytes -= oldest.buf.capacity();
        }
    }

    /// What is kept for who reads `next` now.
    pub fn take(&mut self, shard: ShardId, next: u64) -> Option<Piece> {
        let at = self.pieces.iter().position(|(of, at, _)| (*of, *at) == (shard, next))?;
        let (_, _, piece) = self.pieces.remove(at)?;
        self.bytes -= piece.buf.capacity();
        Some(piece)
    }

    /// Gives all of it back; whether there was any.
    pub fn clear(&mut self) -> bool {
        self.bytes = 0;
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
        let pool = BufferPool::new(1 << 20, 1 << 20).unwrap();
        let piece = |bytes: usize| {
            let buf = pool.take(bytes).unwrap().freeze();
            Piece {
                segment: 1,
                offset: 0,
                asked: bytes,
                mark: 0,
                buf,
                len: bytes,
                pos: 4 * KIB,
                sound: true,
            }
        };
        let mut kept = Kept::default();
        for next in 1..=4 {
            kept.keep(SHARD, next, piece(64 * KIB), 192 * KIB);
        }
        assert!(kept.take(SHARD, 1).is_none(), "it had to give way");
        assert!(kept.take(ShardId { shard: 1, ..SHARD }, 2).is_none());
        let second = kept.take(SHARD, 2).unwrap();
        assert_eq!(second.rest().map(<[u8]>::len), Some(60 * KIB));
        assert!(kept.take(SHARD, 2).is_none(), "taken is taken");
        kept.keep(SHARD, 9, second, 192 * KIB);
        assert!(
            kept.take(SHARD, 3).is_some() && kept.take(SHARD, 4).is_some(),
            "there was room again"
        );
        kept.keep(SHARD, 5, piece(256 * KIB), 192 * KIB);
        assert!(kept.take(SHARD, 5).is_none(), "larger than all there is");
        assert!(kept.clear() && !kept.clear());
        assert_eq!(pool.used_bytes(), 0);
    }
}
