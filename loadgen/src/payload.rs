//! The self-describing payload of a record.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0–3 | checksum | CRC32C of bytes 4 to the end of the payload |
//! | 4–7 | producer | number of the producer (or closed-loop caller), from 0 |
//! | 8–15 | run | random number of the run; records of other runs in the stream are ignored |
//! | 16–23 | sequence | number of the record among this producer's for this shard, from 0, dense |
//! | 24–31 | intended | when it should have been sent, nanoseconds since 1970 UTC |
//! | 32– | filler | a slice of a random block made from the seed |
//!
//! All integers are little-endian.

use highwater_wire::crc32c;

/// Bytes of the header: the smallest payload.
pub const HEADER_LEN: usize = 32;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The producer's number.
    pub producer: u32,
    /// The run's number.
    pub run: u64,
    /// The record's number among the producer's for the shard.
    pub sequence: u64,
    /// Intended send time, nanoseconds since 1970 UTC.
    pub intended_ns: u64,
}

/// What a payload turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A record of this run, unharmed.
    Own(Header),
    /// A record of this run by its number, but the checksum says otherwise.
    Corrupt,
    /// Somebody else's record.
    Foreign,
}

/// Reads and verifies a payload met by run `run`.
pub fn verify(payload: &[u8], run: u64) -> Verdict {
    let Some(head) = payload.first_chunk::<HEADER_LEN>() else {
        return Verdict::Foreign;
    };
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    if u64_at(8) != run {
        return Verdict::Foreign;
    }
    if crc32c(&payload[4..]) != u32_at(0) {
        return Verdict::Corrupt;
    }
    Verdict::Own(Header { producer: u32_at(4), run, sequence: u64_at(16), intended_ns: u64_at(24) })
}

/// Makes payloads of one size without an allocation or a random number per byte: each is a slice of one
/// random block, its header written over the slice's first bytes and taken away again.
#[derive(Debug)]
pub struct Filler {
    block: Vec<u8>,
    size: usize,
    at: usize,
}

/// Room in the block beyond one payload, in which slices begin.
const SPREAD: usize = 64 << 10;
/// Distance between the beginnings of successive slices: odd, so that all beginnings come up.
const STRIDE: usize = 4099;

impl Filler {
    /// For payloads of `size` bytes, at least [`HEADER_LEN`] (less counts as that).
    pub fn new(size: usize, seed: u64) -> Filler {
        let size = size.max(HEADER_LEN);
        let mut block = vec![0; size + SPREAD];
        fastrand::Rng::with_seed(seed).fill(&mut block);
        Filler { block, size, at: 0 }
    }

    /// The next payload, given to `take`.
    pub fn with<R>(&mut self, header: &Header, take: impl FnOnce(&[u8]) -> R) -> R {
        self.at = (self.at + STRIDE) % SPREAD;
        let payload = &mut self.block[self.at..self.at + self.size];
        let mut kept = [0; HEADER_LEN];
        kept.copy_from_slice(&payload[..HEADER_LEN]);
        payload[4..8].copy_from_slice(&header.producer.to_le_bytes());
        payload[8..16].copy_from_slice(&header.run.to_le_bytes());
        payload[16..24].copy_from_slice(&header.sequence.to_le_bytes());
        payload[24..32].copy_from_slice(&header.intended_ns.to_le_bytes());
        let crc = crc32c(&payload[4..]);
        payload[..4].copy_from_slice(&crc.to_le_bytes());
        let result = take(payload);
        payload[..HEADER_LEN].copy_from_slice(&kept);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { producer: 3, run: 77, sequence: 1 << 40, intended_ns: 123_456 };

    #[test]
    fn what_is_written_is_read_at_every_size() {
        for size in [0, HEADER_LEN, HEADER_LEN + 1, 100, 1 << 20] {
            let mut filler = Filler::new(size, 9);
            for sequence in 0..20 {
                let header = Header { sequence, ..HEADER };
                filler.with(&header, |payload| {
                    assert_eq!(payload.len(), size.max(HEADER_LEN));
                    assert_eq!(verify(payload, 77), Verdict::Own(header));
                    assert_eq!(verify(payload, 78), Verdict::Foreign);
                });
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = Filler::new(64, 9).with(&HEADER, <[u8]>::to_vec);
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = verify(&bad, 77);
            // A flipped run number makes it somebody else's: such a record turns up as lost.
            let expected =
                if (64..128).contains(&bit) { Verdict::Foreign } else { Verdict::Corrupt };
            assert_eq!(found, expected, "bit {bit}");
        }
        assert_eq!(verify(&whole[..31], 77), Verdict::Foreign);
        assert_eq!(verify(&whole[..63], 77), Verdict::Corrupt);
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = Filler::new(40, 9).with(&HEADER, <[u8]>::to_vec);
        assert_eq!(bytes[..4], crc32c(&bytes[4..]).to_le_bytes());
        assert_eq!(bytes[4..8], 3u32.to_le_bytes());
        assert_eq!(bytes[8..16], 77u64.to_le_bytes());
        assert_eq!(bytes[16..24], (1u64 << 40).to_le_bytes());
        assert_eq!(bytes[24..32], 123_456u64.to_le_bytes());
    }

    #[test]
    fn headers_leave_no_trace_in_the_filler() {
        let mut filler = Filler::new(100, 9);
        let before = filler.block.clone();
        for sequence in 0..1000 {
            filler.with(&Header { sequence, ..HEADER }, |_| ());
        }
        assert_eq!(filler.block, before);
    }
}
