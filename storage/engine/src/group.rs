//! An open commit group: batches gathered into one block, to become one device write.

use highwater_ring::AlignedBuf;
use highwater_wire::{BatchView, crc32c, stamp};

use crate::format::{BLOCK_MAGIC, BlockHeader, KIND_DATA, page_align};
use crate::io::Io;
use crate::types::Appended;

/// An append that waits for its group to become durable.
#[derive(Clone, Debug)]
pub struct PendingAck {
    /// As given by the caller.
    pub tag: u64,
    /// What to answer.
    pub appended: Appended,
    /// Arrival, monotonic.
    pub arrived_mono_ns: u64,
    /// Records of the batch, as sent.
    pub offered: u32,
}

/// Batches gathered for one block.
#[derive(Debug)]
pub struct Group {
    /// The block so far: room for its header, then the batches.
    pub buf: AlignedBuf,
    /// Bytes used, the header included.
    pub len: usize,
    /// Most bytes it may grow to, padding included: what its segment has left.
    pub cap: usize,
    /// Segment it will go to.
    pub segment: u64,
    /// Where in the file.
    pub offset: u64,
    /// Sequence number of its first record.
    pub base_sequence: u64,
    /// Records so far.
    pub records: u32,
    /// Batches so far.
    pub batches: u16,
    /// Arrival of the first batch, wall clock.
    pub first_arrival_ns: u64,
    /// Arrival of the last batch, wall clock.
    pub last_arrival_ns: u64,
    /// Who waits.
    pub acks: Vec<PendingAck>,
}

impl Group {
    /// An empty group in `buf`.
    pub fn new(
        buf: AlignedBuf,
        cap: usize,
        segment: u64,
        offset: u64,
        base_sequence: u64,
    ) -> Group {
        Group {
            buf,
            len: BlockHeader::LEN,
            cap,
            segment,
            offset,
            base_sequence,
            records: 0,
            batches: 0,
            first_arrival_ns: 0,
            last_arrival_ns: 0,
            acks: Vec::new(),
        }
    }

    /// Sequence number after its last record.
    pub fn end_sequence(&self) -> u64 {
        self.base_sequence + u64::from(self.records)
    }

    /// Whether a batch of `len` bytes may join, as far as the segment and the largest group go.
    pub fn admits(&self, len: usize, group_max: usize) -> bool {
        let grown = self.len + len;
        page_align(grown) <= self.cap
            && (grown <= group_max || self.batches == 0)
            && self.batches < u16::MAX
    }

    /// Makes room for `len` bytes more, moving to a larger buffer if need be; `false` if none is to be had.
    pub fn make_room(&mut self, len: usize, io: &mut Io) -> bool {
        let need = page_align(self.len + len);
        if need <= self.buf.capacity() {
            return true;
        }
        let Some(mut larger) = io.take(need) else {
            return false;
        };
        larger[..self.len].copy_from_slice(&self.buf[..self.len]);
        self.buf = larger;
        true
    }

    /// Copies a batch in and stamps it. The caller has made room.
    pub fn push(&mut self, batch: &BatchView<'_>, arrival_ns: u64, epoch: u32) {
        let bytes = batch.bytes();
        let (at, base_sequence) = (self.len, self.end_sequence());
        self.buf[at..at + bytes.len()].copy_from_slice(bytes);
        stamp(&mut self.buf[at..], base_sequence, arrival_ns, epoch);
        if self.batches == 0 {
            self.first_arrival_ns = arrival_ns;
        }
        self.last_arrival_ns = arrival_ns;
        self.len += bytes.len();
        self.records += batch.record_count();
        self.batches += 1;
    }

    /// Completes the block: padding, header, checksums. Returns its length and the CRC of its header.
    pub fn seal(
        &mut self,
        generation: u64,
        block: u64,
        committed: u64,
        prev_crc: u32,
    ) -> (usize, u32) {
        let length = page_align(self.len);
        self.buf[self.len..length].fill(0);
        // One pass over bytes that are still in the cache; combining the batches' own checksums costs more
        // than this for batches under about 4 KiB and saves about 1 µs per 64 KiB above.
        let body_crc = crc32c(&self.buf[BlockHeader::LEN..self.len]);
        let header = BlockHeader {
            magic: BLOCK_MAGIC.into(),
            header_crc: 0.into(),
            generation: generation.into(),
            block: block.into(),
            committed: committed.into(),
            base_sequence: self.base_sequence.into(),
            length: (length as u32).into(),
            body_length: ((self.len - BlockHeader::LEN) as u32).into(),
            record_count: self.records.into(),
            batch_count: self.batches.into(),
            kind: KIND_DATA.into(),
            body_crc: body_crc.into(),
            prev_crc: prev_crc.into(),
        };
        (length, header.seal_into(&mut self.buf))
    }
}
