//! What every record carries to prove where it came from and that it is whole.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0–3 | checksum | CRC32C of the other 28 bytes and of the payload behind them |
//! | 4–7 | producer | number of the producer (or closed-loop caller), from 0 |
//! | 8–15 | run | random number of the run; records of other runs in the stream are ignored |
//! | 16–23 | sequence | number of the record among this producer's for this shard, from 0, dense |
//! | 24–31 | intended | when it should have been sent, nanoseconds since 1970 UTC |
//!
//! All integers are little-endian. Records of opaque bytes carry these as the first 32 bytes of their
//! payload, so that the smallest payload has 32 bytes. Records of text stay text: they carry them as a
//! record header named `hw`, the only one, which lies in front of the payload.

use highwater_wire::{Header, RecordView, crc32c, crc32c_parts};

/// Bytes of a proof: the smallest opaque payload.
pub const PROOF_LEN: usize = 32;

/// Name of the record header that carries the proof of a text record.
pub const PROOF_HEADER: &str = "hw";

/// Encoded bytes of that header: lengths, name and value.
pub const PROOF_HEADER_LEN: usize = 3 + PROOF_HEADER.len() + PROOF_LEN;

/// What a record says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The producer's number.
    pub producer: u32,
    /// The run's number.
    pub run: u64,
    /// The record's number among the producer's for the shard.
    pub sequence: u64,
    /// Intended send time, nanoseconds since 1970 UTC.
    pub intended_ns: u64,
}

/// What a record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A record of this run, unharmed.
    Own(Proof),
    /// A record of this run by its number, but the checksum says otherwise.
    Corrupt,
    /// Somebody else's record.
    Foreign,
}

impl Proof {
    /// Its bytes, the checksum still 0.
    #[inline]
    pub(crate) fn bytes(&self) -> [u8; PROOF_LEN] {
        let mut bytes = [0; PROOF_LEN];
        bytes[4..8].copy_from_slice(&self.producer.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.run.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.intended_ns.to_le_bytes());
        bytes
    }

    /// Writes it over the first bytes of a payload, with the checksum of all of it.
    #[inline]
    pub(crate) fn seal_into(&self, payload: &mut [u8]) {
        if let Some(place) = payload.first_chunk_mut::<PROOF_LEN>() {
            *place = self.bytes();
            seal(payload);
        }
    }

    /// Likewise, where the checksum of what follows is known: `join` makes that of all of it from that of the
    /// proof's other 28 bytes.
    #[inline]
    pub(crate) fn seal_before(&self, payload: &mut [u8], join: impl FnOnce(u32) -> u32) {
        if let Some(place) = payload.first_chunk_mut::<PROOF_LEN>() {
            *place = self.bytes();
            let crc = join(crc32c(&place[4..]));
            place[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn read(bytes: &[u8; PROOF_LEN]) -> (u32, Proof) {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let proof = Proof {
            producer: u32_at(4),
            run: u64_at(8),
            sequence: u64_at(16),
            intended_ns: u64_at(24),
        };
        (u32_at(0), proof)
    }
}

/// Puts the checksum into a proof and the payload right behind it.
#[inline]
pub(crate) fn seal(proof_and_payload: &mut [u8]) {
    let crc = crc32c(&proof_and_payload[4..]);
    proof_and_payload[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads and verifies a record met by run `run`.
pub fn verify(view: &RecordView<'_>, run: u64) -> Verdict {
    let found = if view.raw_headers.is_empty() {
        view.payload.split_first_chunk::<PROOF_LEN>()
    } else {
        let proof = view.headers().find(|header| header.name == PROOF_HEADER);
        proof.and_then(|Header { value, .. }| Some((value.try_into().ok()?, view.payload)))
    };
    let Some((bytes, rest)) = found else {
        return Verdict::Foreign;
    };
    let (crc, proof) = Proof::read(bytes);
    if proof.run != run {
        return Verdict::Foreign;
    }
    // Of a proof in the payload the bytes lie together: one pass.
    let actual = if view.raw_headers.is_empty() {
        crc32c(&view.payload[4..])
    } else {
        crc32c_parts(&[&bytes[4..], rest])
    };
    if actual == crc { Verdict::Own(proof) } else { Verdict::Corrupt }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROOF: Proof = Proof { producer: 3, run: 77, sequence: 1 << 40, intended_ns: 123_456 };

    /// Headers and payload of a record that carries [`PROOF`] in its payload, or in a header.
    fn record(header: bool, rest: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut whole = PROOF.bytes().to_vec();
        whole.extend_from_slice(rest);
        seal(&mut whole);
        if !header {
            return (Vec::new(), whole);
        }
        let payload = whole.split_off(PROOF_LEN);
        let mut headers = vec![2, 32, 0, b'h', b'w'];
        headers.extend_from_slice(&whole);
        assert_eq!(headers.len(), PROOF_HEADER_LEN);
        (headers, payload)
    }

    fn judge(raw_headers: &[u8], payload: &[u8], run: u64) -> Verdict {
        let view = RecordView { sequence: 9, timestamp_ns: 8, key: b"k", raw_headers, payload };
        verify(&view, run)
    }

    #[test]
    fn what_is_written_is_read() {
        for header in [false, true] {
            for rest in [&b""[..], b"x", b"{\"a\":1}", &[7; 100_000]] {
                let (headers, payload) = record(header, rest);
                assert_eq!(judge(&headers, &payload, 77), Verdict::Own(PROOF));
                assert_eq!(judge(&headers, &payload, 78), Verdict::Foreign);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for header in [false, true] {
            let (headers, payload) = record(header, b"some more of it");
            // Where the proof begins, in what is flipped.
            let from = if header { PROOF_HEADER_LEN - PROOF_LEN } else { 0 };
            for bit in from * 8..(headers.len() + payload.len()) * 8 {
                let (mut headers, mut payload) = (headers.clone(), payload.clone());
                match headers.get_mut(bit / 8) {
                    Some(byte) => *byte ^= 1 << (bit % 8),
                    None => payload[bit / 8 - headers.len()] ^= 1 << (bit % 8),
                }
                // A flipped run number makes it somebody else's: such a record turns up as lost.
                let run = (from + 8) * 8..(from + 16) * 8;
                let expected = if run.contains(&bit) { Verdict::Foreign } else { Verdict::Corrupt };
                assert_eq!(judge(&headers, &payload, 77), expected, "bit {bit}");
            }
        }
    }

    #[test]
    fn what_carries_no_proof_is_somebody_elses() {
        let (headers, payload) = record(true, b"text");
        assert_eq!(judge(&[], &[0; 31], 77), Verdict::Foreign);
        assert_eq!(judge(b"\x01\x01\x00xy", &payload, 77), Verdict::Foreign);
        // A header of that name and another length.
        assert_eq!(judge(b"\x02\x01\x00hwy", &payload, 77), Verdict::Foreign);
        assert_eq!(judge(&headers[..20], &payload, 77), Verdict::Foreign);
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let (_, bytes) = record(false, b"rest");
        assert_eq!(bytes[..4], crc32c(&bytes[4..]).to_le_bytes());
        assert_eq!(bytes[4..8], 3u32.to_le_bytes());
        assert_eq!(bytes[8..16], 77u64.to_le_bytes());
        assert_eq!(bytes[16..24], (1u64 << 40).to_le_bytes());
        assert_eq!(bytes[24..32], 123_456u64.to_le_bytes());
    }
}
