//! A segment as its shard knows it, and the seal that closes it.

use highwater_ring::{AlignedBuf, FileId};
use highwater_wire::crc32c;
use rkyv::rancor;

use crate::format::{BLOCK_MAGIC, BlockHeader, KIND_SEAL, KIND_SEAL_1, page_align};
use crate::index::{IndexEntry, SparseIndex};
use crate::producers::Producer;

/// One file of a shard's log.
#[derive(Debug)]
pub struct Segment {
    /// Its number: the file's name.
    pub number: u64,
    /// Its generation.
    pub generation: u64,
    /// The file, once open.
    pub file: Option<FileId>,
    /// Whether it is being opened.
    pub opening: bool,
    /// Bytes of the file.
    pub capacity: u64,
    /// Sequence number of its first record.
    pub base_sequence: u64,
    /// Sequence number after its last record (so far, for the current one: of what was given a place).
    pub end_sequence: u64,
    /// Number of its first block.
    pub first_block: u64,
    /// Number of its last block, its seal included; `first_block - 1` while it has none.
    pub last_block: u64,
    /// Where the next block goes.
    pub next_offset: u64,
    /// Where its seal lies; 0 without one.
    pub seal_offset: u64,
    /// Begun at, wall clock.
    pub created_ns: u64,
    /// Arrival of its last batch, wall clock; 0 while empty.
    pub last_arrival_ns: u64,
    /// Where things are.
    pub index: SparseIndex,
    /// Reads in flight: the file must stay open.
    pub reads: u32,
    /// Read since it was last looked at: the file had better stay open.
    pub touched: bool,
}

/// What a seal holds.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Seal {
    /// Sequence number after the segment's last record.
    pub end_sequence: u64,
    /// Arrival of its last batch, nanoseconds since 1970 UTC.
    pub last_arrival_ns: u64,
    /// The segment's sparse index.
    pub index: Vec<IndexEntry>,
    /// The shard's producers as they were at its end.
    pub producers: Vec<Producer>,
}

/// Bytes of a sealed block for this many index entries, producers and remembered batches, at most.
pub fn seal_len(entries: u64, producers: u64, remembered: u64) -> u64 {
    // Archived sizes: entry 24, producer 36, batch 32; the root 32; generously rounded up.
    page_align(
        (BlockHeader::LEN as u64 + 128 + entries * 32 + producers * 40 + remembered * 36) as usize,
    ) as u64
}

/// What a seal block says of itself.
#[derive(Clone, Copy, Debug)]
pub struct SealPlace {
    /// The segment's generation.
    pub generation: u64,
    /// The block's number.
    pub block: u64,
    /// Highest block known durable.
    pub committed: u64,
    /// Header CRC of the block before.
    pub prev_crc: u32,
}

impl Seal {
    /// The archive.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising into memory cannot fail; an empty archive never validates.
        rkyv::to_bytes::<rancor::Error>(self).map(|b| b.to_vec()).unwrap_or_default()
    }

    /// From its archive, validated.
    pub fn decode(bytes: &[u8]) -> Option<Seal> {
        rkyv::from_bytes::<Seal, rancor::Error>(bytes).ok()
    }

    /// From the body of a seal block of this kind.
    pub fn decode_kind(kind: u16, bytes: &[u8]) -> Option<Seal> {
        match kind {
            KIND_SEAL_1 => {
                rkyv::from_bytes::<format_1::Seal, rancor::Error>(bytes).ok().map(Seal::from)
            }
            _ => Seal::decode(bytes),
        }
    }

    /// A seal block holding `body` (an encoded seal): the buffer, its length and the CRC of its header.
    pub fn block(body: &[u8], end_sequence: u64, place: SealPlace) -> (AlignedBuf, usize, u32) {
        let length = page_align(BlockHeader::LEN + body.len());
        let mut buf = AlignedBuf::alloc(length);
        buf[..length].fill(0);
        buf[BlockHeader::LEN..BlockHeader::LEN + body.len()].copy_from_slice(body);
        let header = BlockHeader {
            magic: BLOCK_MAGIC.into(),
            header_crc: 0.into(),
            generation: place.generation.into(),
            block: place.block.into(),
            committed: place.committed.into(),
            base_sequence: end_sequence.into(),
            length: (length as u32).into(),
            body_length: (body.len() as u32).into(),
            record_count: 0.into(),
            batch_count: 0.into(),
            kind: KIND_SEAL.into(),
            body_crc: crc32c(body).into(),
            prev_crc: place.prev_crc.into(),
        };
        let crc = header.seal_into(&mut buf);
        (buf, length, crc)
    }
}

/// The seal of format 1, whose batches were all stored whole.
mod format_1 {
    use crate::index::IndexEntry;
    use crate::producers;

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    pub struct Seal {
        pub end_sequence: u64,
        pub last_arrival_ns: u64,
        pub index: Vec<IndexEntry>,
        pub producers: Vec<Producer>,
    }

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    pub struct Producer {
        pub id: u64,
        pub epoch: u32,
        pub next: u64,
        pub last_used: u64,
        pub recent: Vec<Stored>,
    }

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    pub struct Stored {
        pub sequence: u64,
        pub records: u32,
        pub base_sequence: u64,
        pub arrival_ns: u64,
    }

    impl From<Producer> for producers::Producer {
        fn from(old: Producer) -> producers::Producer {
            let Producer { id, epoch, next, last_used, recent } = old;
            let stored = |old: Stored| {
                let Stored { sequence, records, base_sequence, arrival_ns } = old;
                producers::Stored { sequence, records, decided: records, base_sequence, arrival_ns }
            };
            let recent = recent.into_iter().map(stored).collect();
            producers::Producer { id, epoch, next, last_used, recent }
        }
    }

    impl From<Seal> for super::Seal {
        fn from(old: Seal) -> super::Seal {
            let Seal { end_sequence, last_arrival_ns, index, producers } = old;
            let producers = producers.into_iter().map(producers::Producer::from).collect();
            super::Seal { end_sequence, last_arrival_ns, index, producers }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producers::Stored;

    #[test]
    fn a_seal_of_format_1_is_read() {
        let stored = format_1::Stored { sequence: 4, records: 3, base_sequence: 90, arrival_ns: 5 };
        let (next, recent) = (7, vec![stored]);
        let producer = format_1::Producer { id: 7, epoch: 1, next, last_used: 93, recent };
        let index = vec![IndexEntry { sequence: 90, offset: 4096, arrival_ns: 5 }];
        let old = format_1::Seal {
            end_sequence: 93,
            last_arrival_ns: 9,
            index: index.clone(),
            producers: vec![producer],
        };
        let bytes = rkyv::to_bytes::<rancor::Error>(&old).unwrap();
        let recent =
            vec![Stored { sequence: 4, records: 3, decided: 3, base_sequence: 90, arrival_ns: 5 }];
        let producer = Producer { id: 7, epoch: 1, next, last_used: 93, recent };
        let (end_sequence, last_arrival_ns) = (93, 9);
        let want = Seal { end_sequence, last_arrival_ns, index, producers: vec![producer] };
        assert_eq!(Seal::decode_kind(KIND_SEAL_1, &bytes), Some(want.clone()));
        assert_eq!(Seal::decode_kind(KIND_SEAL, &want.encode()), Some(want));
    }

    #[test]
    fn the_estimate_of_a_seals_length_is_never_too_small() {
        for (entries, producers, remembered) in [(0, 0, 0), (1, 1, 1), (1000, 3, 32), (5, 1024, 32)]
        {
            let seal = Seal {
                end_sequence: 1,
                last_arrival_ns: 2,
                index: vec![IndexEntry::default(); entries],
                producers: (0..producers)
                    .map(|id| Producer {
                        id,
                        recent: vec![Stored::default(); remembered],
                        ..Producer::default()
                    })
                    .collect(),
            };
            let body = seal.encode();
            let actual = page_align(BlockHeader::LEN + body.len()) as u64;
            let all = producers * remembered as u64;
            assert!(
                actual <= seal_len(entries as u64, producers, all),
                "{entries} {producers} {remembered}"
            );
            assert_eq!(Seal::decode(&body), Some(seal));
        }
    }
}
