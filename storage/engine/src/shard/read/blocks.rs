//! The blocks of a stretch that was read from disk: which of them are whole and sound, and what of them a reader gets.

use std::ops::Range;

use highwater_ring::BLOCK_ALIGN;
use highwater_wire::BatchIter;

use super::add_batches;
use crate::format::{BlockHeader, KIND_DATA};
use crate::kept::Piece;
use crate::types::Chunk;

/// What is to be taken out of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Of the segment the piece is of.
    pub generation: u64,
    /// Sequence number after the last.
    pub to: u64,
    /// Bytes, if there is not more in one batch.
    pub budget: usize,
    /// Bytes of a read, unless a block is larger.
    pub usual: usize,
}

/// Where in the file the next block begins, and the bytes without which it is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub offset: u64,
    pub least: usize,
}

/// What is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub offset: u64,
    /// Records from there on.
    pub sequence: u64,
    pub what: &'static str,
}

/// Why nothing more is taken out of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// All of it that was wanted has been.
    Done,
    /// The next block does not lie in it as a whole.
    Cut(Next),
    /// The budget is spent inside this block.
    Spent(Next),
    /// The next block is damaged.
    Damaged(Damage),
}

/// A block that lies whole in a piece, and is sound but for its batches.
struct Block {
    next: Next,
    length: usize,
    data: bool,
    /// Sequence numbers of its records.
    records: Range<u64>,
    /// Where in the piece its batches lie.
    body: Range<usize>,
}

/// Takes batches from `chunk.next` on out of a piece into `chunk`.
pub(super) fn take_blocks(piece: &mut Piece, wish: Wish, chunk: &mut Chunk) -> Stop {
    while chunk.next < wish.to {
        let Block { next, length, data, records, body } = match next_block(piece, wish, chunk.next)
        {
            Ok(block) => block,
            Err(stop) => return stop,
        };
        if data && records.end > chunk.next {
            if !piece.sound && BatchIter::new(&piece.buf[body.clone()]).any(|b| b.is_err()) {
                let (offset, sequence) = (next.offset, records.start);
                return Stop::Damaged(Damage { offset, sequence, what: "batch" });
            }
            if !add_batches(chunk, &piece.buf, body.start, body.end, wish.budget) {
                piece.sound = true;
                return Stop::Spent(next);
            }
        }
        piece.sound = false;
        piece.pos += length;
    }
    Stop::Done
}

/// The next block of a piece, for whoever wants the record `sequence`.
fn next_block(piece: &Piece, wish: Wish, sequence: u64) -> Result<Block, Stop> {
    let offset = piece.offset + piece.pos as u64;
    let damaged = |sequence, what| Stop::Damaged(Damage { offset, sequence, what });
    let cut = |least| match piece.pos == 0 && least <= piece.asked {
        // No progress although the whole of it was asked for: the file ends too early.
        true => damaged(sequence, "end of file"),
        false => Stop::Cut(Next { offset, least }),
    };
    let rest = piece.rest().filter(|rest| rest.len() >= BLOCK_ALIGN);
    let rest = rest.ok_or_else(|| cut(wish.usual))?;
    let header = BlockHeader::read(rest, wish.generation);
    let header = header.ok_or_else(|| damaged(sequence, "block header"))?;
    let length = header.length.to_native() as usize;
    let least = length.max(wish.usual);
    let block = rest.get(..length).ok_or_else(|| cut(least))?;
    let base = header.base_sequence.to_native();
    if !piece.sound && !header.body_is_sound(block) {
        return Err(damaged(base, "block body"));
    }
    let body = piece.pos + BlockHeader::LEN;
    Ok(Block {
        next: Next { offset, least },
        length,
        data: header.kind.to_native() == KIND_DATA,
        records: base..base + u64::from(header.record_count.to_native()),
        body: body..body + header.body_length.to_native() as usize,
    })
}

#[cfg(test)]
mod tests {
    use highwater_ring::AlignedBuf;
    use highwater_wire::{BatchBuilder, ProducerStamp};

    use super::*;
    use crate::group::Group;

    const GENERATION: u64 = 7;
    /// Where in its file a piece begins.
    const AT: u64 = 5 * BLOCK_ALIGN as u64;

    /// Two blocks of two and of one batch, of two records of 1,000 bytes each: 8 KiB and 4 KiB.
    fn blocks() -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        (0..2).for_each(|_| builder.push(b"key", &[], &[b'x'; 1000], 1).unwrap());
        let bytes = builder.finish(ProducerStamp::default()).to_vec();
        let batch = BatchIter::new(&bytes).next().unwrap().unwrap();
        let (mut blocks, mut next) = (Vec::new(), 0);
        for batches in [2, 1] {
            let mut group = Group::new(AlignedBuf::alloc(1 << 16), 1 << 16, 1, 0, next);
            (0..batches).for_each(|_| group.push(&batch, 1, 1));
            let (length, _) = group.seal(GENERATION, 1, 0, 0);
            next = group.end_sequence();
            blocks.extend_from_slice(&group.buf[..length]);
        }
        assert_eq!((blocks.len(), next), (3 * BLOCK_ALIGN, 6));
        blocks
    }

    fn piece(bytes: &[u8], asked: usize) -> Piece {
        let mut buf = AlignedBuf::alloc(bytes.len());
        buf[..bytes.len()].copy_from_slice(bytes);
        let (buf, len) = (buf.freeze(), bytes.len());
        Piece { segment: 1, offset: AT, asked, mark: 6, buf, len, pos: 0, sound: false }
    }

    fn wish(budget: usize) -> Wish {
        Wish { generation: GENERATION, to: 6, budget, usual: BLOCK_ALIGN }
    }

    /// What is taken from record `from` on: the record after it, and why not more.
    fn take(piece: &mut Piece, budget: usize, from: u64) -> (u64, Stop) {
        let mut chunk = Chunk { next: from, ..Chunk::default() };
        let stop = take_blocks(piece, wish(budget), &mut chunk);
        (chunk.next, stop)
    }

    #[test]
    fn whole_blocks_are_taken_and_what_is_cut_is_to_be_read() {
        let bytes = blocks();
        let all = bytes.len();
        let cut = |offset: usize, least: usize| {
            let offset = AT + (offset * BLOCK_ALIGN) as u64;
            Stop::Cut(Next { offset, least: least * BLOCK_ALIGN })
        };
        for (len, from, expected) in [
            (all, 0, (6, Stop::Done)),
            (all, 3, (6, Stop::Done)),
            (all, 5, (6, Stop::Done)),
            (2 * BLOCK_ALIGN, 0, (4, cut(2, 1))),
            (all - 1, 0, (4, cut(2, 1))),
            (BLOCK_ALIGN, 0, (0, cut(0, 2))),
            (0, 0, (0, cut(0, 1))),
        ] {
            // Of what could not be asked for in whole.
            let mut piece = piece(&bytes[..len], BLOCK_ALIGN / 2);
            assert_eq!(take(&mut piece, usize::MAX, from), expected, "{len} from {from}");
        }
        let mut piece = piece(&bytes[..BLOCK_ALIGN], 2 * BLOCK_ALIGN);
        let damage = Damage { offset: AT, sequence: 0, what: "end of file" };
        assert_eq!(take(&mut piece, usize::MAX, 0), (0, Stop::Damaged(damage)));
    }

    #[test]
    fn a_budget_that_ends_within_a_block_is_gone_on_with_there() {
        let mut piece = piece(&blocks(), 3 * BLOCK_ALIGN);
        let first = Next { offset: AT, least: 2 * BLOCK_ALIGN };
        assert_eq!(take(&mut piece, 1, 0), (2, Stop::Spent(first)));
        assert!(piece.sound, "its body is not looked at again");
        let second = Next { offset: AT + 2 * BLOCK_ALIGN as u64, least: BLOCK_ALIGN };
        assert_eq!(take(&mut piece, 1, 2), (4, Stop::Spent(second)));
        assert_eq!(take(&mut piece, 1, 4), (6, Stop::Done));
    }

    #[test]
    fn damage_is_told_by_where_it_is() {
        let second = 2 * BLOCK_ALIGN;
        for (flipped, offset, taken, sequence, what) in [
            (9, 0, 0, 0, "block header"),
            (100, 0, 0, 0, "block body"),
            (second + 9, second, 4, 4, "block header"),
            (second + 100, second, 4, 4, "block body"),
        ] {
            let mut bytes = blocks();
            bytes[flipped] ^= 1;
            let mut piece = piece(&bytes, bytes.len());
            let damage = Damage { offset: AT + offset as u64, sequence, what };
            let expected = (taken, Stop::Damaged(damage));
            assert_eq!(take(&mut piece, usize::MAX, 0), expected, "byte {flipped}");
        }
    }
}
