//! Walking the blocks of a segment in order, as far as they hold together.

use std::io;
use std::path::Path;

use highwater_ring::{BLOCK_ALIGN, Files};
use highwater_wire::{BatchIter, BatchView};

use super::Window;
use crate::format::{BLOCK_MAGIC, BlockHeader, KIND_DATA, KIND_SEAL, KIND_SEAL_1};
use crate::index::IndexEntry;
use crate::producers::Producers;
use crate::segment::Segment;
use crate::shard::claim_of;

/// Why the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a seal, or the end of the file.
    Full,
    /// No block of this generation at the next place.
    Stale,
    /// A block of this generation whose header is not right.
    BadHeader,
    /// The next block, its body not sound.
    BadBody,
}

/// What a walk came to; the segment given has been brought up to date.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Why it ended.
    pub ending: Ending,
    /// Header CRC of the last good block.
    pub prev_crc: u32,
    /// Batches seen.
    pub batches: u64,
}

/// Walks `segment` from its start, up to block `last` if that is given; fills its index and remembers its
/// producers. `each` sees every batch.
pub fn scan_segment(
    files: &dyn Files,
    path: &Path,
    segment: &mut Segment,
    mut prev_crc: u32,
    last: Option<u64>,
    producers: &mut Producers,
    each: &mut dyn FnMut(&BatchView<'_>),
) -> io::Result<Found> {
    let mut window = Window::new(files, path);
    let mut batches = 0;
    let ending = loop {
        if last == Some(segment.last_block) {
            break Ending::Full;
        }
        let offset = segment.next_offset;
        let page = window.page(offset)?;
        if page.len() < BLOCK_ALIGN {
            break Ending::Full;
        }
        let Some(header) = BlockHeader::read(page, segment.generation).copied() else {
            break not_a_block(page, segment.generation);
        };
        let next = segment.last_block + 1;
        if header.block.to_native() != next || header.prev_crc.to_native() != prev_crc {
            break Ending::BadHeader;
        }
        let length = header.length.to_native() as usize;
        let block = window.get(offset, length)?;
        if block.len() < length || !header.body_is_sound(block) {
            break Ending::BadBody;
        }
        segment.next_offset += length as u64;
        segment.last_block = next;
        prev_crc = header.header_crc.to_native();
        match header.kind.to_native() {
            KIND_DATA => {
                let body = &block
                    [BlockHeader::LEN..BlockHeader::LEN + header.body_length.to_native() as usize];
                let mut first = true;
                if BatchIter::new(body).any(|b| b.is_err()) {
                    break Ending::BadBody;
                }
                for batch in BatchIter::new(body).flatten() {
                    let arrival_ns = batch.header().arrival_ns.to_native();
                    if std::mem::take(&mut first) {
                        let sequence = header.base_sequence.to_native();
                        segment.index.note(IndexEntry { sequence, offset, arrival_ns });
                    }
                    let (records, base) = (batch.record_count(), batch.base_sequence());
                    producers.record(claim_of(batch.header()), records, base, arrival_ns);
                    segment.end_sequence = batch.end_sequence();
                    segment.last_arrival_ns = arrival_ns;
                    batches += 1;
                    each(&batch);
                }
            }
            KIND_SEAL | KIND_SEAL_1 => {
                segment.seal_offset = offset;
                break Ending::Full;
            }
            _ => break Ending::BadHeader,
        }
    };
    Ok(Found { ending, prev_crc, batches })
}

/// Tells a damaged header of this use of the file from bytes that have nothing to do with it.
fn not_a_block(page: &[u8], generation: u64) -> Ending {
    match BlockHeader::view(page) {
        Some(h) if h.generation.to_native() == generation || h.magic.to_native() == BLOCK_MAGIC => {
            // Recycled files hold blocks of other generations: those are no blocks of ours.
            let sound_but_foreign = h.generation.to_native() != generation
                && BlockHeader::read(page, h.generation.to_native()).is_some();
            if sound_but_foreign { Ending::Stale } else { Ending::BadHeader }
        }
        _ => Ending::Stale,
    }
}
