//! What becomes of a batch that meets a quota: the five kinds of backpressure as pure decisions. The shard tells
//! what it sees, and does what comes back.

use highwater_wire::{Backpressure, RecordView, SampleBy, crc32c, hash_key};

use crate::producers::Claim;

/// A batch held may wait this much longer than its bound, of which the estimate at its coming knew nothing: other
/// cores use the stream's quota too, and turns are not taken to the nanosecond.
const SLACK_NS: u64 = 20_000_000;

/// A batch at the door, and what stands in its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// It fits the quotas as a whole.
    pub fits: bool,
    /// Records from its front that fit; 0 of one that is stored whole or not at all.
    pub front: u32,
    /// It is the client's own quota that it does not fit: whatever the stream does, that client is to slow down.
    pub own: bool,
    /// Nanoseconds until it fits, by itself.
    pub wait_ns: u64,
    /// Nanoseconds until it fits behind all that is held.
    pub held_wait_ns: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes held already.
    pub held_bytes: u64,
    /// Memory for more of them.
    pub memory: u64,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Stored.
    Store,
    /// So many records of its front are stored (0: none); the rest is refused, to be sent again after a wait.
    Refuse {
        /// Records stored.
        front: u32,
        /// Nanoseconds.
        wait_ns: u64,
    },
    /// Held, behind all that is held already, once so many bytes of those have been dropped from the front.
    Hold {
        /// Bytes; 0 for none.
        drop: u64,
    },
    /// So many records of its front are stored (0: none), the rest is dropped.
    Drop {
        /// Records stored.
        front: u32,
    },
    /// Of all its records those in the sample are stored, and from the front what there is room for besides.
    Sample {
        /// Of a million.
        ppm: u32,
        /// Which.
        by: SampleBy,
    },
}

/// Decides over a batch at the door, or (with nothing held) over one that waited for something else.
pub fn admit(strategy: Backpressure, offer: &Offer) -> Admission {
    if offer.fits && offer.held_bytes == 0 {
        return Admission::Store;
    }
    let refuse = Admission::Refuse { front: offer.front, wait_ns: offer.wait_ns };
    if offer.own {
        return refuse;
    }
    let behind = Admission::Refuse { front: 0, wait_ns: offer.held_wait_ns.max(offer.wait_ns) };
    match strategy {
        Backpressure::Reduce | Backpressure::Scale { .. } => refuse,
        Backpressure::DropNewest => Admission::Drop { front: offer.front },
        Backpressure::Sample { ppm, by } => Admission::Sample { ppm, by },
        Backpressure::Buffer { bytes, age_ms } => {
            let held = offer.held_bytes + offer.bytes;
            let within = held <= bytes && offer.bytes <= offer.memory;
            if within && offer.held_wait_ns <= ns(age_ms) {
                Admission::Hold { drop: 0 }
            } else {
                behind
            }
        }
        Backpressure::DropOldest { bytes, age_ms } => {
            let most = bytes.min(offer.held_bytes.saturating_add(offer.memory));
            if offer.bytes > most || offer.wait_ns > ns(age_ms) {
                // It alone is too much.
                return Admission::Drop { front: 0 };
            }
            Admission::Hold { drop: (offer.held_bytes + offer.bytes).saturating_sub(most) }
        }
    }
}

/// What is done with the first of the batches held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Its turn has come.
    Store,
    /// It goes on waiting.
    Stay,
    /// It has waited too long: refused, to be sent again after a wait.
    Refuse,
    /// It has waited too long: dropped.
    Drop,
}

/// Decides over the first of the batches held, which has waited so long. A strategy that holds nothing was set
/// meanwhile: then what is held passes as it fits, as if at the door.
pub fn next(strategy: Backpressure, fits: bool, waited_ns: u64) -> Next {
    let late = patience_ns(strategy).is_some_and(|most| waited_ns > most);
    match strategy {
        // Only the present matters: what is late goes, also if it would fit by now.
        Backpressure::DropOldest { .. } if late => Next::Drop,
        _ if fits => Next::Store,
        Backpressure::Buffer { .. } if late => Next::Refuse,
        Backpressure::Buffer { .. } | Backpressure::DropOldest { .. } => Next::Stay,
        _ => Next::Store,
    }
}

/// Nanoseconds that a batch is held at most; `None` of a strategy that holds none.
pub fn patience_ns(strategy: Backpressure) -> Option<u64> {
    match strategy {
        Backpressure::Buffer { age_ms, .. } => {
            Some(ns(age_ms).saturating_add(ns(age_ms) / 8).saturating_add(SLACK_NS))
        }
        Backpressure::DropOldest { age_ms, .. } => Some(ns(age_ms)),
        _ => None,
    }
}

/// Whether a strategy holds batches back.
pub fn holds(strategy: Backpressure) -> bool {
    patience_ns(strategy).is_some()
}

fn ns(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

/// Whether the sample has a record, the `index`th of a batch from `claim`. Always the same answer for the same
/// record, so that a retry can be told what became of it.
pub fn sampled(ppm: u32, by: SampleBy, claim: &Claim, index: u32, record: &RecordView<'_>) -> bool {
    let hash = match by {
        // Shards own ranges of hash keys, which the upper bits tell apart: the lower ones are even in all of them.
        SampleBy::Key if !record.key.is_empty() => hash_key(record.key) as u64,
        _ if claim.id != 0 => mix(mix(claim.id) ^ (claim.sequence + u64::from(index))),
        _ => {
            let content = u64::from(crc32c(record.key)) << 32 | u64::from(crc32c(record.payload));
            mix(mix(record.timestamp_ns) ^ content)
        }
    };
    hash % 1_000_000 < u64::from(ppm)
}

/// Spreads a number's bits (the finaliser of splitmix64; Steele, Lea, Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: Backpressure = Backpressure::Buffer { bytes: 1_000, age_ms: 50 };
    const OLDEST: Backpressure = Backpressure::DropOldest { bytes: 1_000, age_ms: 50 };
    const SAMPLE: Backpressure = Backpressure::Sample { ppm: 50_000, by: SampleBy::Key };

    #[test]
    fn decisions_at_the_door() {
        let fits = Offer { fits: true, bytes: 100, memory: 10_000, ..Offer::default() };
        let over = Offer { fits: false, front: 3, wait_ns: 7, held_wait_ns: 7, ..fits };
        let held = Offer { held_bytes: 950, held_wait_ns: 40_000_000, ..over };
        let refuse = |front, wait_ns| Admission::Refuse { front, wait_ns };
        for (what, strategy, offer, want) in [
            ("fits", Backpressure::Reduce, fits, Admission::Store),
            ("reduce", Backpressure::Reduce, over, refuse(3, 7)),
            ("scale", Backpressure::Scale { max_shards: 8 }, over, refuse(3, 7)),
            ("newest", Backpressure::DropNewest, over, Admission::Drop { front: 3 }),
            ("own quota", BUFFER, Offer { own: true, ..over }, refuse(3, 7)),
            ("own quota", SAMPLE, Offer { own: true, front: 0, ..over }, refuse(0, 7)),
            ("sample", SAMPLE, over, Admission::Sample { ppm: 50_000, by: SampleBy::Key }),
            ("sample, fits", SAMPLE, fits, Admission::Store),
            ("held", BUFFER, over, Admission::Hold { drop: 0 }),
            (
                "fits, but others wait",
                BUFFER,
                Offer { held_bytes: 9, ..fits },
                Admission::Hold { drop: 0 },
            ),
            ("too many bytes", BUFFER, held, refuse(0, 40_000_000)),
            ("too old", BUFFER, Offer { held_wait_ns: 50_000_001, ..over }, refuse(0, 50_000_001)),
            ("no memory", BUFFER, Offer { memory: 99, ..over }, refuse(0, 7)),
            ("held", OLDEST, over, Admission::Hold { drop: 0 }),
            ("makes room", OLDEST, held, Admission::Hold { drop: 50 }),
            (
                "makes room in memory",
                OLDEST,
                Offer { memory: 20, ..held },
                Admission::Hold { drop: 80 },
            ),
            ("too large", OLDEST, Offer { bytes: 1_001, ..over }, Admission::Drop { front: 0 }),
            (
                "never in time",
                OLDEST,
                Offer { wait_ns: 50_000_001, ..over },
                Admission::Drop { front: 0 },
            ),
        ] {
            assert_eq!(admit(strategy, &offer), want, "{what}: {strategy:?} {offer:?}");
        }
    }

    #[test]
    fn decisions_over_what_is_held() {
        let late = 50_000_000 + 50_000_000 / 8 + SLACK_NS;
        for (strategy, fits, waited, want) in [
            (BUFFER, true, u64::MAX, Next::Store),
            (BUFFER, false, late, Next::Stay),
            (BUFFER, false, late + 1, Next::Refuse),
            (OLDEST, false, 50_000_000, Next::Stay),
            (OLDEST, false, 50_000_001, Next::Drop),
            (OLDEST, true, 50_000_000, Next::Store),
            // Quota came free after its time, and before it was looked at.
            (OLDEST, true, 50_000_001, Next::Drop),
            (Backpressure::Reduce, false, 0, Next::Store),
        ] {
            assert_eq!(next(strategy, fits, waited), want, "{strategy:?} {fits} {waited}");
        }
    }

    #[test]
    fn a_sample_has_its_share_and_is_the_same_each_time() {
        let payload = [7u8; 20];
        for (by, id) in [(SampleBy::Key, 0), (SampleBy::Record, 9), (SampleBy::Record, 0)] {
            let claim = Claim { id, epoch: 0, sequence: 100, records: 20_000 };
            let mut kept = 0;
            for index in 0..20_000u32 {
                let key = format!("user-{index}");
                let record = RecordView {
                    sequence: 0,
                    timestamp_ns: u64::from(index),
                    key: key.as_bytes(),
                    raw_headers: &[],
                    payload: &payload,
                };
                let first = sampled(50_000, by, &claim, index, &record);
                assert_eq!(sampled(50_000, by, &claim, index, &record), first);
                assert!(!sampled(0, by, &claim, index, &record));
                assert!(sampled(1_000_000, by, &claim, index, &record));
                kept += u32::from(first);
            }
            // 5 % of 20,000, within five standard deviations.
            assert!((846..1_154).contains(&kept), "{by:?}: {kept}");
        }
    }
}
