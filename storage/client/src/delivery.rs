//! Batches received, read in place.

use bytes::Bytes;
use highwater_wire::{
    BatchError, BatchIter, BatchView, ENCODING_RECORDS, FilterTally, RecordView, Unpacker,
};

/// Batches as they came from the server, with the records wanted in them. The memory is shared with the
/// connection's receive buffer: keep a delivery as long as needed for its records, not longer.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) bytes: Bytes,
    /// First sequence number wanted.
    pub(crate) from: u64,
    /// Sequence number after the last one wanted.
    pub(crate) end: u64,
    /// Batches that arrived at the server earlier are not wanted.
    pub(crate) since_ns: u64,
    /// The high-water mark when the server handed this out: every record below it is durable.
    pub high_water: u64,
    /// Next sequence number to read.
    pub next: u64,
    /// The server's clock when it handed this out, nanoseconds since 1970 UTC; 0 for a fetch.
    pub sent_ns: u64,
    /// Of a consumer with a filter: what that found from the position before to [`next`](Self::next), which may be
    /// nothing.
    pub filtered: Option<FilterTally>,
    /// Records right before [`from`](Self::from) that retention had removed, so that a consumer with
    /// [`OnTrimmed::ContinueAtOldest`](crate::OnTrimmed::ContinueAtOldest) passed them over. If there was nothing behind
    /// them to be read, they come in a delivery without records.
    pub trimmed: u64,
}

impl Delivery {
    /// The position before: everything from here to [`next`](Self::next) is in this delivery, or did not match.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// The records wanted, in order, with their sequence numbers.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.batches()
            .flat_map(|batch| batch.records())
            .filter(|record| (self.from..self.end).contains(&record.sequence))
    }

    /// The batches that hold wanted records; the first may begin before the first record wanted, the last
    /// may end after the last.
    pub fn batches(&self) -> impl Iterator<Item = BatchView<'_>> {
        BatchIter::new(&self.bytes)
            .map_while(Result::ok)
            .filter(|batch| batch.end_sequence() > self.from && batch.base_sequence() < self.end)
            // From the first wanted on all are: the server's clock may step back.
            .skip_while(|batch| batch.header().arrival_ns.to_native() < self.since_ns)
    }

    /// Size of the batches, wanted or not, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no batch at all.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// What is wrong with received batches.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// A batch is damaged or unreadable.
    Corrupt(BatchError),
    /// A batch does not follow the one before.
    Gap { expected: u64, found: u64 },
}

/// How far received batches are sound.
#[derive(Debug)]
pub(crate) struct Sound {
    /// The sequence number after the last sound batch, or `from` if all of it lies below.
    pub next: u64,
    /// There is a flaw right after it.
    pub cut: bool,
}

/// Batches, inflated, and whether there are more behind them that were left out.
pub(crate) struct Inflated {
    pub bytes: Bytes,
    pub more: bool,
}

/// Inflates those batches that are compressed. None may have more than `limit` bytes then; and what comes to more
/// than four times that in all ends with the batch before, so that no sender can make a reader take more memory.
/// With `verify_crc` the checksums of compressed batches are verified: behind this they have others.
pub(crate) fn inflate(bytes: Bytes, limit: u32, verify_crc: bool) -> Result<Inflated, Flaw> {
    let packed = |batch: Result<BatchView<'_>, _>| batch.is_ok_and(|b| b.compressed());
    if !BatchIter::new(&bytes).any(packed) {
        return Ok(Inflated { bytes, more: false });
    }
    let mut unpacker = Unpacker::default();
    let mut inflated = Vec::new();
    for batch in BatchIter::new(&bytes) {
        let batch = batch.map_err(Flaw::Corrupt)?;
        if batch.compressed() && verify_crc {
            batch.check_crc().map_err(Flaw::Corrupt)?;
        }
        let before = inflated.len();
        unpacker.unpack_batch(&batch, limit, &mut inflated).map_err(Flaw::Corrupt)?;
        if before > 0 && inflated.len() > 4 * limit as usize {
            inflated.truncate(before);
            return Ok(Inflated { bytes: inflated.into(), more: true });
        }
    }
    Ok(Inflated { bytes: inflated.into(), more: false })
}

/// Checks batches back to back that should begin at or before `from` and follow each other. What precedes
/// a flaw is given out first: asked for what follows, the server shows it again, if it is its own.
pub(crate) fn check(bytes: &[u8], from: u64, verify_crc: bool) -> Result<Sound, Flaw> {
    let mut next = from;
    match check_each(bytes, &mut next, false, verify_crc) {
        Err(flaw) if next == from => Err(flaw),
        checked => Ok(Sound { next, cut: checked.is_err() }),
    }
}

/// The same of what a filter found from `from` to `until`: batches in order, with gaps; `more`: they are not all of it.
pub(crate) fn check_found(
    bytes: &[u8],
    from: u64,
    until: u64,
    more: bool,
    verify_crc: bool,
) -> Result<Sound, Flaw> {
    let mut next = from;
    match check_each(bytes, &mut next, true, verify_crc) {
        Err(flaw) if next == from => Err(flaw),
        Err(_) => Ok(Sound { next, cut: true }),
        Ok(()) if more => Ok(Sound { next, cut: true }),
        // They say more than they tell, or tell it again.
        Ok(()) if next > until => Err(Flaw::Gap { expected: until, found: next }),
        Ok(()) => Ok(Sound { next: until, cut: false }),
    }
}

fn check_each(bytes: &[u8], next: &mut u64, gaps: bool, verify_crc: bool) -> Result<(), Flaw> {
    for batch in BatchIter::new(bytes) {
        let batch = batch.map_err(Flaw::Corrupt)?;
        let header = batch.header();
        if header.encoding != ENCODING_RECORDS {
            let (field, value) = ("encoding", header.encoding);
            return Err(Flaw::Corrupt(BatchError::Unsupported { field, value }));
        }
        if verify_crc {
            batch.check_crc().map_err(Flaw::Corrupt)?;
        }
        if batch.end_sequence() <= *next {
            continue;
        }
        if batch.base_sequence() > *next && !gaps {
            return Err(Flaw::Gap { expected: *next, found: batch.base_sequence() });
        }
        *next = batch.end_sequence();
    }
    Ok(())
}

/// Answer to a [`fetch`](crate::Client::fetch).
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The batches; empty if nothing came within the wait.
    pub delivery: Delivery,
    /// Oldest sequence number kept.
    pub oldest: u64,
}

/// Answer to a [`locate`](crate::Client::locate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where to read from. For a time: at or shortly before the first record that arrived then or later.
    pub sequence: u64,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark: every record below it is durable.
    pub high_water: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{BatchBuilder, Compression, Packer, ProducerStamp, stamp};

    #[test]
    fn compressed_batches_come_out_as_they_were_and_within_the_bound() {
        let plain = batch(5, 7);
        let packed = |compression: Compression| {
            let mut builder = BatchBuilder::default();
            builder.push(b"k", &[], &[b'x'; 4_000], 0).unwrap();
            let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
            Packer::new(compression).pack(&mut bytes);
            stamp(&mut bytes, 7, 8, 0);
            bytes
        };
        for compression in [Compression::Lz4, Compression::Zstd] {
            let packed = packed(compression);
            assert!(packed.len() < 1_000);
            let both = Bytes::from([plain.clone(), packed.clone()].concat());
            let inflated = inflate(both.clone(), 1 << 20, true).unwrap();
            assert!(!inflated.more);
            check(&inflated.bytes, 5, true).unwrap();
            let payloads: Vec<usize> = BatchIter::new(&inflated.bytes)
                .flat_map(|batch| batch.unwrap().records())
                .map(|record| record.payload.len())
                .collect();
            assert_eq!(payloads, [1, 1, 4_000]);
            assert!(inflate(both, 4_000, true).is_err(), "one batch over the bound");
            let many = Bytes::from(packed.repeat(6));
            let some = inflate(many, 4_200, true).unwrap();
            assert!(some.more && BatchIter::new(&some.bytes).count() == 4);
            let mut bad = packed;
            *bad.last_mut().unwrap() ^= 1;
            assert!(inflate(bad.into(), 1 << 20, true).is_err());
        }
    }

    /// A batch of two records from sequence `base` on that arrived at `arrival_ns`.
    fn batch(base: u64, arrival_ns: u64) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for payload in [b"a", b"b"] {
            builder.push(b"k", &[], payload, 0).unwrap();
        }
        let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
        stamp(&mut bytes, base, arrival_ns, 0);
        bytes
    }

    #[test]
    fn what_precedes_a_gap_or_damage_is_sound() {
        let gap = [batch(10, 0), batch(12, 0), batch(20, 0)].concat();
        let sound = check(&gap, 11, true).map_err(|_| ()).unwrap();
        assert_eq!((sound.next, sound.cut), (14, true));
        // Asked again from there, it is reported.
        let flaw = check(&gap[2 * gap.len() / 3..], 14, true).unwrap_err();
        assert!(matches!(flaw, Flaw::Gap { expected: 14, found: 20 }));

        let mut damaged = [batch(10, 0), batch(12, 0)].concat();
        *damaged.last_mut().unwrap() ^= 1;
        let sound = check(&damaged, 10, true).map_err(|_| ()).unwrap();
        assert_eq!((sound.next, sound.cut), (12, true));
        let flaw = check(&damaged[damaged.len() / 2..], 12, true).unwrap_err();
        assert!(matches!(flaw, Flaw::Corrupt(_)));
    }

    #[test]
    fn what_a_filter_found_has_gaps_and_stays_within_what_it_looked_at() {
        let gaps = [batch(10, 0), batch(15, 0), batch(20, 0)].concat();
        let found = |until| check_found(&gaps, 8, until, false, true).map_err(|_| ());
        let sound = found(30).unwrap();
        assert_eq!((sound.next, sound.cut), (30, false));
        assert_eq!(found(22).unwrap().next, 22);
        assert!(found(21).is_err(), "beyond what was looked at");
        let some = check_found(&gaps, 8, 30, true, true).map_err(|_| ()).unwrap();
        assert_eq!((some.next, some.cut), (22, true), "the rest is asked for again");
        assert_eq!(check_found(&[], 8, 30, false, true).map_err(|_| ()).unwrap().next, 30);
        let mut damaged = gaps;
        *damaged.last_mut().unwrap() ^= 1;
        let sound = check_found(&damaged, 8, 30, false, true).map_err(|_| ()).unwrap();
        assert_eq!((sound.next, sound.cut), (17, true));
    }

    #[test]
    fn from_the_first_batch_that_came_late_enough_all_are_given() {
        // The server's clock steps back after the second.
        let bytes = [batch(0, 50), batch(2, 100), batch(4, 60)].concat();
        let delivery = Delivery {
            bytes: Bytes::from(bytes),
            from: 0,
            end: u64::MAX,
            since_ns: 80,
            high_water: 6,
            next: 6,
            sent_ns: 0,
            filtered: None,
            trimmed: 0,
        };
        assert!(delivery.records().map(|record| record.sequence).eq(2..6));
    }
}
