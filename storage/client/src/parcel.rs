//! Ready batches on their way: whose they are, and how one is divided when the shard it was meant for has split.

use std::sync::Arc;

use highwater_wire::select::{cut, records};
use highwater_wire::{BatchError, BatchView, Compression, HashRange, Packer, Unpacker, hash_key};

use crate::outcome::{Fate, Run};
use crate::route::pick;
use crate::window::Moved;

/// Memory of a batch: the window keeps it to send it again, the connection's writer while it writes.
pub(crate) type Body = Arc<Vec<u8>>;

/// Who is told what became of records. Called under a router's lock: must not block or call back.
pub(crate) trait Owner: std::fmt::Debug + Send + Sync {
    /// Records of the owner's batch `batch` have their outcome, each once.
    fn settled(&self, batch: u64, run: Run);
}

/// A batch, or what is left of it.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub body: Body,
    pub records: u32,
    pub owner: Arc<dyn Owner>,
    /// The owner's number of the batch these records are from.
    pub batch: u64,
    /// Index in that batch of each record here; `None`: they are the same.
    pub places: Option<Arc<[u32]>>,
    /// Hash keys, by index in that batch, of records whose key does not say it; ascending.
    pub hashes: Option<Arc<[(u32, u128)]>>,
}

impl Parcel {
    /// Tells the owner of a run of records here.
    pub(crate) fn settle(&self, run: &Run) {
        let Some(places) = &self.places else { return self.owner.settled(self.batch, run.clone()) };
        let range = run.first as usize..run.first as usize + run.count as usize;
        let mut place = 0;
        let places = places.get(range).unwrap_or_default();
        // Neighbours here need not have been neighbours there.
        for piece in places.chunk_by(|a, b| a + 1 == *b) {
            let fate = match &run.fate {
                Fate::Stored { shard, sequence } => {
                    Fate::Stored { shard: *shard, sequence: sequence + place }
                }
                fate => fate.clone(),
            };
            place += piece.len() as u64;
            let count = piece.len() as u32;
            self.owner.settled(self.batch, Run { first: piece[0], count, fate });
        }
    }

    /// Tells the owner that the records from `first` on have this fate.
    pub(crate) fn settle_from(&self, first: u32, fate: Fate) {
        let count = self.records.saturating_sub(first);
        if count > 0 {
            self.settle(&Run { first, count, fate });
        }
    }

    fn place(&self, index: u32) -> u32 {
        match &self.places {
            Some(places) => places.get(index as usize).copied().unwrap_or(index),
            None => index,
        }
    }

    /// The hash key that was given with a record instead of a key's.
    fn given_hash(&self, place: u32) -> Option<u128> {
        let hashes = self.hashes.as_ref()?;
        let at = hashes.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(hashes[at].1)
    }

    /// Divides the records from `moved` on among `heirs`, in order: what each of them gets.
    pub(crate) fn divide(
        self,
        moved: Moved,
        heirs: &[(u32, Vec<HashRange>)],
        unpacker: &mut Unpacker,
    ) -> Result<Vec<(u32, Parcel)>, BatchError> {
        let view = BatchView::parse(&self.body)?;
        let header = *view.header();
        let mut body = Vec::new();
        unpacker.unpack_into(&view, u32::MAX, &mut body)?;
        let mut shares: Vec<(u32, Vec<u32>, Vec<u32>)> = Vec::new();
        let walk = records(&body, header.record_count.to_native(), 0);
        for (index, record) in (0..).zip(walk).skip(moved.cut as usize) {
            let place = self.place(moved.first + (index - moved.cut));
            // Records without a key may go anywhere, but stay together: they were appended in an order.
            let hash = self.given_hash(place).unwrap_or_else(|| match record.key {
                [] => heirs.first().and_then(|h| h.1.first()).map_or(0, |range| range.start),
                key => hash_key(key),
            });
            let Some(shard) = pick(heirs, hash) else { continue };
            let at = shares.iter().position(|share| share.0 == shard).unwrap_or_else(|| {
                shares.push((shard, Vec::new(), Vec::new()));
                shares.len() - 1
            });
            shares[at].1.push(index);
            shares[at].2.push(place);
        }
        let whole = shares.len() == 1 && moved.cut == 0;
        if let (true, 0, [(shard, ..)]) = (whole, moved.first, &shares[..]) {
            return Ok(vec![(*shard, self)]);
        }
        let mut packer = Packer::new(Compression::from_tag(header.compression).unwrap_or_default());
        let parcels = shares.into_iter().map(|(shard, indices, places)| {
            let share = if whole {
                Arc::clone(&self.body)
            } else {
                let mut next = indices.iter().peekable();
                let mut share = cut(&header, &body, 0, |i| next.next_if(|at| **at == i).is_some());
                packer.pack(&mut share);
                Arc::new(share)
            };
            let parcel = Parcel {
                body: share,
                records: indices.len() as u32,
                owner: Arc::clone(&self.owner),
                batch: self.batch,
                places: Some(places.into()),
                hashes: self.hashes.clone(),
            };
            (shard, parcel)
        });
        Ok(parcels.collect())
    }
}

/// Leaves the first `count` records out of a batch.
pub(crate) fn cut_front(
    batch: &[u8],
    count: u32,
    unpacker: &mut Unpacker,
) -> Result<Vec<u8>, BatchError> {
    select(batch, |index| index >= count, unpacker)
}

/// Leaves all but the first `count` records out of a batch.
pub(crate) fn keep_front(
    batch: &[u8],
    count: u32,
    unpacker: &mut Unpacker,
) -> Result<Vec<u8>, BatchError> {
    select(batch, |index| index < count, unpacker)
}

fn select(
    batch: &[u8],
    keep: impl FnMut(u32) -> bool,
    unpacker: &mut Unpacker,
) -> Result<Vec<u8>, BatchError> {
    let view = BatchView::parse(batch)?;
    let mut body = Vec::new();
    unpacker.unpack_into(&view, u32::MAX, &mut body)?;
    let mut rest = cut(view.header(), &body, 0, keep);
    Packer::new(Compression::from_tag(view.header().compression).unwrap_or_default())
        .pack(&mut rest);
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{BatchBuilder, Limits, ProducerStamp, split_evenly};
    use std::sync::Mutex;

    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<(u64, Run)>>);

    impl Owner for Told {
        fn settled(&self, batch: u64, run: Run) {
            self.0.lock().unwrap().push((batch, run));
        }
    }

    /// A parcel of records whose payload is their index, with these keys.
    fn parcel(keys: &[&[u8]], compression: Compression) -> (Parcel, Arc<Told>) {
        let mut builder = BatchBuilder::default();
        for (index, key) in keys.iter().enumerate() {
            builder.push(key, &[], &[index as u8; 200], 1).unwrap();
        }
        let mut body = builder.finish(ProducerStamp::default()).to_vec();
        Packer::new(compression).pack(&mut body);
        let told = Arc::new(Told::default());
        let owner: Arc<dyn Owner> = Arc::<Told>::clone(&told);
        let (body, records) = (Arc::new(body), keys.len() as u32);
        (Parcel { body, records, owner, batch: 7, places: None, hashes: None }, told)
    }

    fn contents(parcel: &Parcel) -> Vec<u8> {
        let view = BatchView::parse(&parcel.body).unwrap();
        let mut whole = Vec::new();
        Unpacker::default().unpack_batch(&view, u32::MAX, &mut whole).unwrap();
        let view = BatchView::parse(&whole).unwrap();
        view.check(&Limits::default()).unwrap();
        assert_eq!(view.record_count(), parcel.records);
        view.records().map(|r| r.payload[0]).collect()
    }

    fn heirs(shards: u32) -> Vec<(u32, Vec<HashRange>)> {
        split_evenly(shards)
            .into_iter()
            .zip(10..)
            .map(|(range, shard)| (shard, vec![range]))
            .collect()
    }

    #[test]
    fn a_batch_is_divided_by_key_in_order_and_every_record_is_told_under_its_own_index() {
        let keys: Vec<Vec<u8>> = (0..40u8).map(|n| format!("key {}", n % 9).into_bytes()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let (heirs, mut unpacker) = (heirs(3), Unpacker::default());
        for compression in Compression::ALL {
            let (whole, told) = parcel(&keys, compression);
            // The first three are decided, the first two of them cut away: one is left in the body.
            let moved = Moved { first: 3, cut: 3 };
            let mut seen = Vec::new();
            for (shard, part) in whole.divide(moved, &heirs, &mut unpacker).unwrap() {
                let inside = contents(&part);
                assert!(inside.is_sorted());
                for index in &inside {
                    assert_eq!(pick(&heirs, hash_key(keys[usize::from(*index)])), Some(shard));
                }
                seen.extend_from_slice(&inside);
                // Divided once more, and then stored.
                for (_, piece) in
                    part.divide(Moved { first: 0, cut: 0 }, &heirs, &mut unpacker).unwrap()
                {
                    piece.settle_from(0, Fate::Stored { shard, sequence: 1000 });
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (3..40).collect::<Vec<u8>>());
            let told = std::mem::take(&mut *told.0.lock().unwrap());
            let mut indices: Vec<u32> =
                told.iter().flat_map(|(_, run)| run.first..run.first + run.count).collect();
            indices.sort_unstable();
            assert_eq!(indices, (3..40).collect::<Vec<u32>>());
            assert!(told.iter().all(|(batch, _)| *batch == 7));
        }
    }

    #[test]
    fn a_run_of_a_part_is_told_in_pieces_with_the_sequence_going_on() {
        let (mut part, told) = parcel(&[b"a", b"a", b"a", b"a"], Compression::None);
        part.places = Some([2, 3, 7, 9].into());
        part.settle(&Run { first: 1, count: 3, fate: Fate::Stored { shard: 5, sequence: 100 } });
        let stored = |first, sequence| {
            (7, Run { first, count: 1, fate: Fate::Stored { shard: 5, sequence } })
        };
        assert_eq!(*told.0.lock().unwrap(), [stored(3, 100), stored(7, 101), stored(9, 102)]);
    }

    #[test]
    fn given_hash_keys_decide_and_records_without_a_key_stay_together() {
        let (mut whole, _) = parcel(&[b"a", b"a", b"", b"", b"a"], Compression::None);
        whole.hashes = Some([(1, u128::MAX), (4, 0)].into());
        let heirs = heirs(2);
        let parts = whole.divide(Moved { first: 0, cut: 0 }, &heirs, &mut Unpacker::default());
        let of = |shard| {
            let parts = parts.as_ref().unwrap().iter();
            parts.filter(|p| p.0 == shard).flat_map(|p| contents(&p.1)).collect::<Vec<_>>()
        };
        // MD5("a") begins with 0x0c.
        assert_eq!((of(10), of(11)), (vec![0, 2, 3, 4], vec![1]));
    }

    #[test]
    fn a_batch_that_goes_to_one_heir_goes_as_it_is() {
        let (whole, _) = parcel(&[b"a", b"a"], Compression::Zstd);
        let body = Arc::clone(&whole.body);
        let parts = whole.divide(Moved { first: 0, cut: 0 }, &heirs(4), &mut Unpacker::default());
        let parts = parts.unwrap();
        assert!(parts.len() == 1 && Arc::ptr_eq(&parts[0].1.body, &body));
        let rest = cut_front(&body, 1, &mut Unpacker::default()).unwrap();
        assert_eq!(BatchView::parse(&rest).unwrap().record_count(), 1);
    }
}
