//! The checkpoint: how far each shard of a core was durable a moment ago. It closes the window in which a
//! torn last group could not be told from damage, and says where a stopped shard's seal lies.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use highwater_ring::{AlignedBuf, BLOCK_ALIGN, Files};
use highwater_wire::le::{u32_ule, u64_ule};
use highwater_wire::{ShardId, crc32c, portable_header};

use crate::format::page_align;
use crate::shard::ShardLog;
use crate::types::ShardSpec;

/// "HWCP0001", little-endian.
pub const CHECKPOINT_MAGIC: u64 = u64::from_le_bytes(*b"HWCP0001");

/// Directory of the checkpoints, relative to the data directory.
pub const CHECKPOINT_DIR: &str = "checkpoint";

portable_header! {
    /// In front of each of the two slots of a checkpoint file, which are written in turn.
    pub struct CheckpointHeader, 32 bytes {
        /// [`CHECKPOINT_MAGIC`].
        magic: u64_ule,
        /// Grows with each write. (Both slots count where sound: for each shard the highest block.)
        serial: u64_ule,
        /// The engine's epoch.
        epoch: u32_ule,
        /// Number of entries that follow.
        count: u32_ule,
        /// CRC32C of the entries.
        entries_crc: u32_ule,
        /// CRC32C of bytes 0 to 28.
        header_crc: u32_ule,
    }
}

portable_header! {
    /// One shard in a checkpoint.
    pub struct CheckpointEntry, 32 bytes {
        /// The stream's number.
        stream: u32_ule,
        /// The shard's number.
        shard: u32_ule,
        /// Generation of its last segment.
        generation: u64_ule,
        /// Last durable block.
        block: u64_ule,
        /// Where that segment's seal lies, once the shard has stopped; 0 before.
        seal_offset: u64_ule,
    }
}

/// What a checkpoint says of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Generation of its last segment.
    pub generation: u64,
    /// Last durable block.
    pub block: u64,
    /// Where the segment's seal lies; 0 if the shard was not stopped.
    pub seal_offset: u64,
}

/// What all checkpoints together say: for each shard the highest block.
#[derive(Clone, Debug, Default)]
pub struct Claims(BTreeMap<ShardId, Claim>);

impl Claims {
    /// What is known of a shard.
    pub fn of(&self, id: ShardId) -> Option<Claim> {
        self.0.get(&id).copied()
    }

    /// Adds one; block numbers never go back, so the highest is the latest.
    pub fn add(&mut self, id: ShardId, claim: Claim) {
        let known = self.0.entry(id).or_insert(claim);
        if (claim.block, claim.seal_offset) > (known.block, known.seal_offset) {
            *known = claim;
        }
    }

    /// Reads every checkpoint there is. Slots that do not validate are passed over: the other one of the
    /// pair is whole.
    pub fn read_all(files: &dyn Files) -> io::Result<Claims> {
        for name in files.list(Path::new(CHECKPOINT_DIR))? {
            files.settle(&Path::new(CHECKPOINT_DIR).join(name))?;
        }
        Claims::peek(files)
    }

    /// As [`Claims::read_all`], for someone who only looks: nothing is settled.
    pub fn peek(files: &dyn Files) -> io::Result<Claims> {
        let mut claims = Claims::default();
        for name in files.list(Path::new(CHECKPOINT_DIR))? {
            let path = Path::new(CHECKPOINT_DIR).join(name);
            let len = files.len(&path)? as usize;
            let mut buf = AlignedBuf::alloc(page_align(len.max(1)));
            let read = files.read_at(&path, 0, &mut buf)?;
            let half = len / 2;
            for slot in [0, half] {
                if let Some(bytes) = buf[..read].get(slot..(slot + half).min(read)) {
                    claims.read_slot(bytes);
                }
            }
        }
        Ok(claims)
    }

    fn read_slot(&mut self, slot: &[u8]) -> Option<()> {
        let header = CheckpointHeader::view(slot)?;
        let sound = header.magic.to_native() == CHECKPOINT_MAGIC
            && crc32c(&slot[..28]) == header.header_crc.to_native();
        let len = sound.then(|| header.count.to_native() as usize * CheckpointEntry::LEN)?;
        let entries = slot.get(CheckpointHeader::LEN..CheckpointHeader::LEN + len)?;
        if crc32c(entries) != header.entries_crc.to_native() {
            return None;
        }
        for entry in entries.chunks_exact(CheckpointEntry::LEN) {
            let e = CheckpointEntry::view(entry)?;
            let id = ShardId { stream: e.stream.to_native(), shard: e.shard.to_native() };
            self.add(
                id,
                Claim {
                    generation: e.generation.to_native(),
                    block: e.block.to_native(),
                    seal_offset: e.seal_offset.to_native(),
                },
            );
        }
        Some(())
    }
}

/// Name of a core's checkpoint file. Each incarnation has its own: the dead one's writes may still land.
pub fn checkpoint_path(epoch: u32, core: usize) -> PathBuf {
    Path::new(CHECKPOINT_DIR).join(format!("{epoch:010}-{core:04}.ckpt"))
}

/// Name of the file that takes its place when the core has more shards than fit a slot; `serial` is that of the
/// checkpoint written last.
pub fn larger_path(epoch: u32, core: usize, serial: u64) -> PathBuf {
    Path::new(CHECKPOINT_DIR).join(format!("{epoch:010}-{core:04}-{serial}.ckpt"))
}

/// Shards that fit a slot of so many bytes.
pub fn slot_room(slot_len: usize) -> usize {
    slot_len.saturating_sub(CheckpointHeader::LEN) / CheckpointEntry::LEN
}

/// Bytes of one slot for this many shards, and room for as many again.
pub fn slot_len(shards: usize) -> usize {
    page_align(CheckpointHeader::LEN + (shards * 2 + 1024) * CheckpointEntry::LEN)
}

/// Makes a core's checkpoint file and writes what recovery found into it, durably: from then on the files
/// of earlier incarnations are not needed.
pub fn create(
    files: &dyn Files,
    epoch: u32,
    core: usize,
    shards: &[(ShardSpec, ShardLog)],
) -> io::Result<()> {
    let (path, slot) = (checkpoint_path(epoch, core), slot_len(shards.len()));
    files.create_dir(Path::new(CHECKPOINT_DIR))?;
    files.remove(&path)?;
    files.create(&path, slot as u64 * 2, true)?;
    let mut buf = AlignedBuf::alloc(slot);
    let claims = shards.iter().filter_map(|(spec, log)| Some((spec.id, log.claim()?)));
    let len = encode(&mut buf, slot, 0, epoch, claims);
    files.write_at(&path, 0, &buf, len)
}

/// Removes the checkpoints of other incarnations. Only after [`create`] for every core of this one.
pub fn remove_others(files: &dyn Files, epoch: u32) -> io::Result<()> {
    let ours = format!("{epoch:010}-");
    for name in files.list(Path::new(CHECKPOINT_DIR))? {
        if !name.starts_with(&ours) {
            files.remove(&Path::new(CHECKPOINT_DIR).join(name))?;
        }
    }
    Ok(())
}

/// A slot's bytes, as many entries as fit. Returns the bytes to write.
pub fn encode(
    buf: &mut AlignedBuf,
    slot_len: usize,
    serial: u64,
    epoch: u32,
    entries: impl Iterator<Item = (ShardId, Claim)>,
) -> usize {
    let most = slot_room(slot_len);
    let mut count = 0;
    let mut end = CheckpointHeader::LEN;
    for (id, claim) in entries.take(most) {
        let entry = CheckpointEntry {
            stream: id.stream.into(),
            shard: id.shard.into(),
            generation: claim.generation.into(),
            block: claim.block.into(),
            seal_offset: claim.seal_offset.into(),
        };
        entry.write_to(&mut buf[end..]);
        end += CheckpointEntry::LEN;
        count += 1;
    }
    let header = CheckpointHeader {
        magic: CHECKPOINT_MAGIC.into(),
        serial: serial.into(),
        epoch: epoch.into(),
        count: (count as u32).into(),
        entries_crc: crc32c(&buf[CheckpointHeader::LEN..end]).into(),
        header_crc: 0.into(),
    };
    header.write_to(buf);
    let crc = crc32c(&buf[..28]);
    buf[28..32].copy_from_slice(&crc.to_le_bytes());
    let len = page_align(end).max(BLOCK_ALIGN);
    buf[end..len].fill(0);
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_claim_of_sound_slots_counts() {
        let id = ShardId { stream: 3, shard: 1 };
        let claim = |block, seal_offset| Claim { generation: 9, block, seal_offset };
        let slot = slot_len(1);
        let mut buf = AlignedBuf::alloc(slot);
        let len = encode(&mut buf, slot, 1, 1, [(id, claim(5, 0))].into_iter());
        let mut claims = Claims::default();
        claims.read_slot(&buf[..len]).unwrap();
        assert_eq!(claims.of(id), Some(claim(5, 0)));
        encode(&mut buf, slot, 2, 1, [(id, claim(4, 0))].into_iter());
        claims.read_slot(&buf[..len]).unwrap();
        assert_eq!(claims.of(id), Some(claim(5, 0)));
        encode(&mut buf, slot, 3, 1, [(id, claim(5, 4096))].into_iter());
        claims.read_slot(&buf[..len]).unwrap();
        assert_eq!(claims.of(id), Some(claim(5, 4096)));
        encode(&mut buf, slot, 4, 1, [(id, claim(8, 0))].into_iter());
        buf[40] ^= 1;
        assert_eq!(claims.read_slot(&buf[..len]), None);
        assert_eq!(claims.of(id), Some(claim(5, 4096)));
    }
}
