//! Idempotence: what a shard remembers of its producers, so that a retried batch is stored once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::AppendError;

/// Batches remembered per producer: a retry of one of these gets its original sequence numbers. Kafka keeps
/// five, and limits its clients to that many in flight; thirty-two leaves room for deep pipelines.
pub const REMEMBERED: usize = 32;

/// Which producer ids have been given out. The catalogue counts them, in all its starts; cores look, and take from
/// nobody else.
#[derive(Debug)]
pub struct IdsGiven(AtomicU64);

impl IdsGiven {
    /// All below `end`.
    pub fn below(end: u64) -> IdsGiven {
        IdsGiven(AtomicU64::new(end))
    }

    /// The next one is given out, `id`. To be called before anybody is told of it.
    pub fn give(&self, id: u64) {
        self.0.fetch_max(id.saturating_add(1), Ordering::Release);
    }

    /// Whether one has been.
    pub fn has(&self, id: u64) -> bool {
        id < self.0.load(Ordering::Acquire)
    }
}

/// A batch that was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Stored {
    /// Producer sequence of its first record.
    pub sequence: u64,
    /// Its records that were stored.
    pub records: u32,
    /// Its records from the front whose fate was decided: stored, dropped, sampled out or refused for good.
    pub decided: u32,
    /// The shard's sequence number of the first record stored, or of what came after if none was.
    pub base_sequence: u64,
    /// Its time of arrival.
    pub arrival_ns: u64,
}

/// One producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Producer {
    /// Its id.
    pub id: u64,
    /// The epoch in force.
    pub epoch: u32,
    /// Producer sequence expected next.
    pub next: u64,
    /// The shard's sequence number after its last record: the oldest go first when the table is full.
    pub last_used: u64,
    /// Its last batches, oldest first, at most [`REMEMBERED`].
    pub recent: Vec<Stored>,
}

/// Who a batch says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Producer; 0 for nobody.
    pub id: u64,
    /// Its epoch.
    pub epoch: u32,
    /// Its sequence of the first record.
    pub sequence: u64,
    /// Records in the batch; of one that was stored, those decided.
    pub records: u32,
}

/// What is to be done with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Store it.
    Fresh,
    /// It is stored (or about to be): answer with this.
    Repeat(Stored),
    /// Refuse it.
    Refuse(AppendError),
}

/// The producers of one shard, at most `capacity`.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    table: BTreeMap<u64, Producer>,
    remembered: u64,
    capacity: usize,
    /// Producers forgotten because the table was full.
    pub evictions: u64,
}

impl Producers {
    /// An empty table for `capacity` producers.
    pub fn new(capacity: usize) -> Producers {
        Producers { table: BTreeMap::new(), remembered: 0, capacity: capacity.max(1), evictions: 0 }
    }

    /// A table as it was kept.
    pub fn restore(capacity: usize, kept: Vec<Producer>) -> Producers {
        let mut producers = Producers::new(capacity);
        producers.remembered = kept.iter().map(|p| p.recent.len() as u64).sum();
        producers.table = kept.into_iter().map(|p| (p.id, p)).collect();
        producers
    }

    /// All producers, to be kept, each with its last `batches` batches.
    pub fn to_keep(&self, batches: usize) -> Vec<Producer> {
        let keep = |p: &Producer| {
            let recent = p.recent[p.recent.len().saturating_sub(batches)..].to_vec();
            Producer { recent, ..p.clone() }
        };
        self.table.values().map(keep).collect()
    }

    /// Producers and batches remembered: what keeping them takes.
    pub fn counts(&self) -> (u64, u64) {
        (self.table.len() as u64, self.remembered)
    }

    /// Judges a batch. Changes nothing.
    pub fn judge(&self, claim: Claim) -> Verdict {
        if claim.id == 0 {
            return Verdict::Fresh;
        }
        let Some(known) = self.table.get(&claim.id) else {
            return match claim.sequence {
                0 => Verdict::Fresh,
                got => Verdict::Refuse(AppendError::UnknownProducer { id: claim.id, got }),
            };
        };
        if claim.epoch < known.epoch {
            return Verdict::Refuse(AppendError::Fenced { current: known.epoch, got: claim.epoch });
        }
        // A new epoch starts counting again.
        let expected = if claim.epoch > known.epoch { 0 } else { known.next };
        if claim.sequence == expected {
            return Verdict::Fresh;
        }
        if claim.epoch == known.epoch && claim.sequence < expected {
            // What the batch has beyond those decided was refused, and may be sent again.
            let same = |s: &&Stored| s.sequence == claim.sequence && s.decided <= claim.records;
            return match known.recent.iter().find(same) {
                Some(stored) => Verdict::Repeat(*stored),
                None => Verdict::Refuse(AppendError::Duplicate(claim.sequence)),
            };
        }
        Verdict::Refuse(AppendError::OutOfSequence { expected, got: claim.sequence })
    }

    /// Remembers a batch that was given its place in the log; `records` of those claimed were stored.
    pub fn record(&mut self, claim: Claim, records: u32, base_sequence: u64, arrival_ns: u64) {
        if claim.id == 0 {
            return;
        }
        if self.table.len() >= self.capacity && !self.table.contains_key(&claim.id) {
            self.evict();
        }
        let known = self.table.entry(claim.id).or_insert_with(|| Producer {
            id: claim.id,
            epoch: claim.epoch,
            ..Producer::default()
        });
        if claim.epoch != known.epoch {
            known.epoch = claim.epoch;
            self.remembered -= known.recent.len() as u64;
            known.recent.clear();
        }
        let (sequence, decided) = (claim.sequence, claim.records);
        known.next = sequence.saturating_add(u64::from(decided));
        known.last_used = base_sequence + u64::from(records);
        if known.recent.len() == REMEMBERED {
            known.recent.remove(0);
            self.remembered -= 1;
        }
        self.remembered += 1;
        known.recent.push(Stored { sequence, records, decided, base_sequence, arrival_ns });
    }

    fn evict(&mut self) {
        // Rare (a table of a thousand is full): a walk is cheap enough.
        if let Some(id) = self.table.values().min_by_key(|p| p.last_used).map(|p| p.id) {
            let gone = self.table.remove(&id);
            self.remembered -= gone.map_or(0, |p| p.recent.len() as u64);
            self.evictions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(id: u64, epoch: u32, sequence: u64, records: u32) -> Claim {
        Claim { id, epoch, sequence, records }
    }

    #[test]
    fn verdicts() {
        let mut p = Producers::new(10);
        p.record(claim(7, 1, 0, 3), 3, 100, 5);
        p.record(claim(7, 1, 3, 2), 1, 103, 6);
        let stored = |sequence, decided, records, base_sequence, arrival_ns| {
            Verdict::Repeat(Stored { sequence, records, decided, base_sequence, arrival_ns })
        };
        let refuse = Verdict::Refuse;
        for (what, c, want) in [
            ("anonymous", claim(0, 0, 99, 1), Verdict::Fresh),
            ("next", claim(7, 1, 5, 1), Verdict::Fresh),
            ("retry of the last", claim(7, 1, 3, 2), stored(3, 2, 1, 103, 6)),
            ("retry of the first", claim(7, 1, 0, 3), stored(0, 3, 3, 100, 5)),
            ("retry of what was refused in part", claim(7, 1, 3, 9), stored(3, 2, 1, 103, 6)),
            ("cut shorter", claim(7, 1, 0, 2), refuse(AppendError::Duplicate(0))),
            ("cut in the middle", claim(7, 1, 1, 2), refuse(AppendError::Duplicate(1))),
            ("gap", claim(7, 1, 6, 1), refuse(AppendError::OutOfSequence { expected: 5, got: 6 })),
            ("old epoch", claim(7, 0, 5, 1), refuse(AppendError::Fenced { current: 1, got: 0 })),
            ("new epoch from 0", claim(7, 2, 0, 1), Verdict::Fresh),
            (
                "new epoch not from 0",
                claim(7, 2, 5, 1),
                refuse(AppendError::OutOfSequence { expected: 0, got: 5 }),
            ),
            ("new producer", claim(8, 0, 0, 1), Verdict::Fresh),
            (
                "unknown producer",
                claim(8, 0, 4, 1),
                refuse(AppendError::UnknownProducer { id: 8, got: 4 }),
            ),
        ] {
            assert_eq!(p.judge(c), want, "{what}");
        }
    }

    #[test]
    fn a_full_table_forgets_the_longest_idle() {
        let mut p = Producers::new(2);
        p.record(claim(1, 0, 0, 1), 1, 0, 0);
        p.record(claim(2, 0, 0, 1), 1, 1, 0);
        p.record(claim(1, 0, 1, 1), 1, 2, 0);
        p.record(claim(3, 0, 0, 1), 1, 3, 0);
        assert_eq!(p.evictions, 1);
        assert!(matches!(
            p.judge(claim(2, 0, 1, 1)),
            Verdict::Refuse(AppendError::UnknownProducer { .. })
        ));
        assert_eq!(p.judge(claim(1, 0, 2, 1)), Verdict::Fresh);
    }

    proptest! {
        #[test]
        fn any_retry_within_the_window_finds_its_original(sizes in prop::collection::vec(1u32..50, 1..40)) {
            let (mut p, mut sequence, mut base, mut sent) = (Producers::new(4), 0u64, 1000u64, Vec::new());
            for records in sizes {
                let c = claim(9, 3, sequence, records);
                prop_assert_eq!(p.judge(c), Verdict::Fresh);
                p.record(c, records, base, base);
                sent.push((c, base));
                sequence += u64::from(records);
                base += u64::from(records) + 5;
                for (c, base) in sent.iter().rev().take(REMEMBERED) {
                    let Verdict::Repeat(s) = p.judge(*c) else { panic!("{c:?}") };
                    prop_assert_eq!(s.base_sequence, *base);
                }
            }
            let kept = Producers::restore(4, p.to_keep(REMEMBERED));
            prop_assert_eq!(kept.to_keep(REMEMBERED), p.to_keep(REMEMBERED));
        }
    }
}
