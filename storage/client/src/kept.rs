//! Records taken out of a delivery, each by itself, without copying them.

use std::ops::Range;

use bytes::Bytes;
use highwater_wire::RecordView;

use crate::Delivery;

/// A record that keeps the memory it lies in: to be put in order with others, or to wait. Cheap to clone. (The memory
/// is that of a whole delivery: keep it as long as needed, not longer.)
#[derive(Clone, Debug)]
pub struct KeptRecord {
    bytes: Bytes,
    key: Range<usize>,
    headers: Range<usize>,
    payload: Range<usize>,
    /// Sequence number in the shard.
    pub sequence: u64,
    /// The producer's time, nanoseconds since 1970 UTC.
    pub timestamp_ns: u64,
    /// When its batch reached the server, nanoseconds since 1970 UTC.
    pub arrival_ns: u64,
}

impl KeptRecord {
    /// The record.
    pub fn view(&self) -> RecordView<'_> {
        let part = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        RecordView {
            sequence: self.sequence,
            timestamp_ns: self.timestamp_ns,
            key: part(&self.key),
            raw_headers: part(&self.headers),
            payload: part(&self.payload),
        }
    }
}

/// Where `part` lies in `whole`; an empty one anywhere.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    match part.as_ptr().addr().checked_sub(whole.as_ptr().addr()) {
        Some(start) if !part.is_empty() && start + part.len() <= whole.len() => {
            start..start + part.len()
        }
        _ => 0..0,
    }
}

impl Delivery {
    /// The records wanted, as [`records`](Self::records) gives them, with their arrival.
    pub fn keep(&self) -> impl Iterator<Item = KeptRecord> + '_ {
        let whole = &self.bytes;
        self.batches()
            .flat_map(|batch| {
                let arrival_ns = batch.header().arrival_ns.to_native();
                batch.records().map(move |record| (arrival_ns, record))
            })
            .filter(|(_, record)| (self.from..self.end).contains(&record.sequence))
            .map(|(arrival_ns, record)| KeptRecord {
                bytes: whole.clone(),
                key: place(whole, record.key),
                headers: place(whole, record.raw_headers),
                payload: place(whole, record.payload),
                sequence: record.sequence,
                timestamp_ns: record.timestamp_ns,
                arrival_ns,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{BatchBuilder, Header, ProducerStamp, stamp};

    #[test]
    fn kept_records_are_those_of_the_delivery_and_outlive_it() {
        let mut bytes = Vec::new();
        for (base, arrival_ns) in [(10, 100), (12, 200)] {
            let mut builder = BatchBuilder::default();
            let headers = [Header { name: "h", value: b"v" }];
            builder.push(b"key", &headers, b"payload", 7).unwrap();
            builder.push(b"", &[], b"", 8).unwrap();
            let mut batch = builder.finish(ProducerStamp::default()).to_vec();
            stamp(&mut batch, base, arrival_ns, 0);
            bytes.extend(batch);
        }
        let delivery = Delivery {
            bytes: bytes.into(),
            from: 11,
            end: 14,
            since_ns: 0,
            high_water: 14,
            next: 14,
            sent_ns: 0,
            filtered: None,
            trimmed: 0,
        };
        let copies: Vec<_> = delivery
            .records()
            .map(|r| (r.sequence, r.timestamp_ns, r.key.to_vec(), r.raw_headers.to_vec()))
            .collect();
        let kept: Vec<KeptRecord> = delivery.keep().collect();
        drop(delivery);
        let found = kept.iter().map(KeptRecord::view);
        let found: Vec<_> = found
            .map(|r| (r.sequence, r.timestamp_ns, r.key.to_vec(), r.raw_headers.to_vec()))
            .collect();
        assert_eq!(found, copies);
        assert!(kept.iter().map(|r| r.arrival_ns).eq([100, 200, 200]));
        assert_eq!(kept[1].view().payload, b"payload");
        assert_eq!(kept[2].view().payload, b"");
    }
}
