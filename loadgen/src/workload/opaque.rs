//! Opaque records: random bytes behind the proof, of sizes that do not depend on what was there before.

use std::sync::Arc;

use highwater_wire::{BatchBuilder, BatchError, Crc32cCombine, crc32c};

use super::keys::{KeyDraw, KeyPick};
use super::sizes::Sizes;
use super::{Draw, Keys, WorkloadError};
use crate::proof::{PROOF_LEN, Proof};

/// Sizes and keys, each drawn on its own.
#[derive(Debug)]
pub(super) struct Opaque {
    pub sizes: Arc<Sizes>,
    pub keys: KeyDraw,
}

impl Opaque {
    pub fn new(sizes: Sizes, keys: &Keys) -> Result<Opaque, WorkloadError> {
        Ok(Opaque { sizes: Arc::new(sizes), keys: KeyDraw::new(keys)? })
    }

    pub fn source(&self, producer: u32, producers: u32) -> OpaqueSource {
        OpaqueSource { keys: self.keys.picker(producer, producers), sizes: Arc::clone(&self.sizes) }
    }
}

/// One producer's.
#[derive(Debug)]
pub(super) struct OpaqueSource {
    keys: KeyPick,
    sizes: Arc<Sizes>,
}

impl OpaqueSource {
    #[inline]
    pub fn next(&mut self, random: &mut fastrand::Rng) -> Draw {
        Draw { key: self.keys.next(random), len: self.sizes.draw(random), shape: 0 }
    }
}

/// Random bytes to cut payloads from, without a random number per byte.
#[derive(Debug)]
pub(super) struct Filler {
    block: Vec<u8>,
    sums: Option<Sums>,
}

/// Checksums taken in advance, where all payloads are of one length: of each record only the proof is
/// summed then, and writing one of 1 KiB takes half the time.
#[derive(Debug)]
struct Sums {
    len: usize,
    /// Of what lies behind the proof, by the slice's number.
    behind: Vec<u32>,
    combine: Crc32cCombine,
}

/// Slices begin at multiples of this.
const STEP: usize = 8;
/// So many slices: they begin in the first 64 KiB of the block.
const SLICES: usize = 8192;
/// From one slice's number to the next one's: odd, so that all come up.
const STRIDE: usize = 513;
/// Longest payload with sums: taking them reads [`SLICES`] times as many bytes, some milliseconds at most.
const MAX_SUMMED: usize = 16 << 10;

impl Filler {
    /// For payloads of up to `most` bytes.
    pub fn new(most: usize, seed: u64) -> Filler {
        let mut block = vec![0; most.max(PROOF_LEN) + SLICES * STEP];
        fastrand::Rng::with_seed(seed).fill(&mut block);
        Filler { block, sums: None }
    }

    /// For payloads of `len` bytes, at least those of a proof, and no others.
    pub fn of_one_length(len: usize, seed: u64) -> Filler {
        let mut filler = Filler::new(len, seed);
        if (PROOF_LEN..=MAX_SUMMED).contains(&len) {
            let behind = (0..SLICES).map(|slice| {
                let from = slice * STEP;
                crc32c(&filler.block[from + PROOF_LEN..from + len])
            });
            let behind = behind.collect();
            let combine = Crc32cCombine::new((len - PROOF_LEN) as u64);
            filler.sums = Some(Sums { len, behind, combine });
        }
        filler
    }

    /// Adds a record of `len` bytes of payload, at least those of a proof; `slice` is the number of the
    /// writer's last slice of the block, and goes on.
    #[inline]
    pub fn push(
        &self,
        batch: &mut BatchBuilder,
        key: &[u8],
        len: usize,
        proof: &Proof,
        slice: &mut usize,
    ) -> Result<(), BatchError> {
        *slice = (*slice + STRIDE) % SLICES;
        let len = len.clamp(PROOF_LEN, self.block.len() - SLICES * STEP);
        let payload = &self.block[*slice * STEP..][..len];
        batch.push_patched(key, &[], &[payload], proof.intended_ns, |payload| match &self.sums {
            Some(sums) if sums.len == len => {
                let behind = sums.behind[*slice];
                proof.seal_before(payload, |crc| sums.combine.combine(crc, behind));
            }
            _ => proof.seal_into(payload),
        })
    }
}

#[cfg(test)]
mod tests {
    use highwater_wire::{BatchView, Limits, ProducerStamp};

    use super::*;
    use crate::proof::{Verdict, verify};

    #[test]
    fn what_is_written_is_whole_at_every_size() {
        let any = Filler::new(1 << 20, 9);
        for len in [0, 32, 33, 100, MAX_SUMMED, MAX_SUMMED + 1, 1 << 20] {
            let one = Filler::of_one_length(len, 9);
            assert_eq!(one.sums.is_some(), (PROOF_LEN..=MAX_SUMMED).contains(&len));
            let proof = Proof { producer: 1, run: 7, sequence: 5, intended_ns: 99 };
            let [first, second] = [&any, &one].map(|filler| {
                let (mut batch, mut slice) = (BatchBuilder::default(), SLICES - 1);
                filler.push(&mut batch, b"key", len, &proof, &mut slice).unwrap();
                filler.push(&mut batch, b"key", len, &proof, &mut slice).unwrap();
                batch.finish(ProducerStamp::default()).to_vec()
            });
            for bytes in [&first, &second] {
                let view = BatchView::parse(bytes).unwrap();
                view.check(&Limits::for_record(2 << 20)).unwrap();
                let payloads: Vec<&[u8]> = view.records().map(|r| r.payload).collect();
                assert_eq!(payloads[0].len(), len.max(PROOF_LEN));
                // Two records of the same proof differ in their filler.
                assert!(len <= 64 || payloads[0] != payloads[1]);
                for record in view.records() {
                    assert_eq!(verify(&record, 7), Verdict::Own(proof));
                    assert_eq!((record.key, record.timestamp_ns), (&b"key"[..], 99));
                }
            }
        }
    }
}
