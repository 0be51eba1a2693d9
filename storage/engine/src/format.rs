//! The bytes of a segment file: one header page, then blocks. `docs/format.md` describes each of them.

use std::path::PathBuf;

use highwater_ring::BLOCK_ALIGN;
use highwater_wire::le::{u16_ule, u32_ule, u64_ule};
use highwater_wire::{ShardId, crc32c, portable_header};

/// Version of the data directory and of everything in it.
pub const FORMAT_VERSION: u32 = 2;

/// "HWSEG001", little-endian.
pub const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"HWSEG001");
/// "HWBK", little-endian.
pub const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"HWBK");

/// Bytes of the header page in front of a segment.
pub const SEGMENT_HEADER_LEN: u64 = BLOCK_ALIGN as u64;

/// No block: in front of the first one.
pub const NO_BLOCK: u64 = 0;

portable_header! {
    /// First bytes of a segment; zeros fill the rest of its page.
    pub struct SegmentHeader, 120 bytes {
        /// [`SEGMENT_MAGIC`].
        magic: u64_ule,
        /// [`FORMAT_VERSION`].
        format: u32_ule,
        /// The shard's epoch when the segment was begun.
        epoch: u32_ule,
        /// The stream's number.
        stream: u32_ule,
        /// The shard's number.
        shard: u32_ule,
        /// Random for each use of the file, never sent to a client: neither stale bytes of a recycled file
        /// nor a forged payload can pass for a block of this segment.
        generation: u64_ule,
        /// Number of the segment within the shard: the file's name.
        segment: u64_ule,
        /// Sequence number of its first record.
        base_sequence: u64_ule,
        /// Number of its first block.
        first_block: u64_ule,
        /// Bytes of the file.
        capacity: u64_ule,
        /// When it was begun, nanoseconds since 1970 UTC.
        created_ns: u64_ule,
        /// Generation of the segment before; 0 for the first.
        prev_generation: u64_ule,
        /// Last block of the segment before.
        prev_last_block: u64_ule,
        /// Where in the segment before its seal lies; 0 if it has none.
        prev_seal_offset: u64_ule,
        /// Highest block known durable when this header was submitted.
        committed: u64_ule,
        /// Header CRC of the block before `first_block`; 0 for the first.
        prev_crc: u32_ule,
        /// When appends are acknowledged: 0 durable, 1 written.
        ack: u32_ule,
        /// Reserved: 0.
        reserved: u32_ule,
        /// CRC32C of bytes 0 to 116.
        header_crc: u32_ule,
    }
}

portable_header! {
    /// In front of every block. A block begins at a multiple of 4,096 bytes and is one commit group.
    pub struct BlockHeader, 64 bytes {
        /// [`BLOCK_MAGIC`].
        magic: u32_ule,
        /// CRC32C of bytes 8 to 64.
        header_crc: u32_ule,
        /// The segment's generation.
        generation: u64_ule,
        /// Number of the block within the shard's log, from 1, never reset.
        block: u64_ule,
        /// Highest block known durable when this one was submitted.
        committed: u64_ule,
        /// Sequence number of the first record.
        base_sequence: u64_ule,
        /// Bytes of the block, header and padding included: a multiple of 4,096.
        length: u32_ule,
        /// Bytes of the body, without padding.
        body_length: u32_ule,
        /// Records in the block.
        record_count: u32_ule,
        /// Batches in the block (at most 65,535).
        batch_count: u16_ule,
        /// [`KIND_DATA`] or [`KIND_SEAL`].
        kind: u16_ule,
        /// CRC32C of the body.
        body_crc: u32_ule,
        /// Header CRC of the block before.
        prev_crc: u32_ule,
    }
}

/// A block of batches.
pub const KIND_DATA: u16 = 0;
/// The last block of a segment: its index and the producer table, an rkyv archive of a `Seal`.
pub const KIND_SEAL: u16 = 2;
/// The same as format 1 had it, without what was decided of batches stored in part; still read.
pub const KIND_SEAL_1: u16 = 1;

/// `len` rounded up to whole pages.
pub const fn page_align(len: usize) -> usize {
    (len + BLOCK_ALIGN - 1) & !(BLOCK_ALIGN - 1)
}

impl SegmentHeader {
    /// Lays the header down in a page, with its checksum.
    pub fn seal_into(&self, page: &mut [u8]) {
        page[..BLOCK_ALIGN].fill(0);
        self.write_to(page);
        let crc = crc32c(&page[..116]);
        page[116..120].copy_from_slice(&crc.to_le_bytes());
    }

    /// Whether `page` begins with a header of any segment, its checksum right.
    pub fn is_sound(page: &[u8]) -> bool {
        Self::view(page).is_some_and(|h| {
            h.magic.to_native() == SEGMENT_MAGIC && crc32c(&page[..116]) == h.header_crc.to_native()
        })
    }

    /// The header in `page`, if it is one of this shard and segment number and undamaged.
    pub fn read(page: &[u8], id: ShardId, segment: u64) -> Option<&SegmentHeader> {
        let header = Self::view(page)?;
        let ours = header.magic.to_native() == SEGMENT_MAGIC
            && crc32c(&page[..116]) == header.header_crc.to_native()
            && header.stream.to_native() == id.stream
            && header.shard.to_native() == id.shard
            && header.segment.to_native() == segment;
        ours.then_some(header)
    }
}

impl BlockHeader {
    /// Lays the header down in front of a block, with its checksum, and returns that.
    pub fn seal_into(&self, block: &mut [u8]) -> u32 {
        self.write_to(block);
        let crc = crc32c(&block[8..64]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// The header at the start of `bytes` if it belongs to `generation` and is undamaged.
    pub fn read(bytes: &[u8], generation: u64) -> Option<&BlockHeader> {
        let header = Self::view(bytes)?;
        let length = header.length.to_native() as usize;
        let sound = header.magic.to_native() == BLOCK_MAGIC
            && header.generation.to_native() == generation
            && crc32c(&bytes[8..64]) == header.header_crc.to_native()
            && length >= BLOCK_ALIGN
            && length.is_multiple_of(BLOCK_ALIGN)
            && header.body_length.to_native() as usize <= length - BlockHeader::LEN;
        sound.then_some(header)
    }

    /// Whether the body behind this header is undamaged. `block` holds the whole block.
    pub fn body_is_sound(&self, block: &[u8]) -> bool {
        let end = BlockHeader::LEN + self.body_length.to_native() as usize;
        block.get(BlockHeader::LEN..end).is_some_and(|b| crc32c(b) == self.body_crc.to_native())
    }
}

/// Directory of a shard, relative to the data directory.
pub fn shard_dir(id: ShardId) -> PathBuf {
    PathBuf::from(format!("shards/{}-{}", id.stream, id.shard))
}

/// File of a segment, relative to the data directory.
pub fn segment_path(id: ShardId, segment: u64) -> PathBuf {
    shard_dir(id).join(format!("{segment:012}.seg"))
}

/// File of the index kept beside a segment that was not sealed before its writer died.
pub fn sidecar_path(id: ShardId, segment: u64) -> PathBuf {
    shard_dir(id).join(format!("{segment:012}.seal"))
}

/// The shard a directory under `shards/` belongs to.
pub fn parse_shard_dir(name: &str) -> Option<ShardId> {
    let (stream, shard) = name.split_once('-')?;
    Some(ShardId { stream: stream.parse().ok()?, shard: shard.parse().ok()? })
}

/// The segment number in a file name.
pub fn parse_segment(name: &str) -> Option<u64> {
    name.strip_suffix(".seg").filter(|n| n.len() == 12)?.parse().ok()
}
