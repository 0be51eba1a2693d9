//! Part of a batch as a batch: what a server stores when quotas, limits or a sample leave records out, and what it
//! delivers when a filter does.

use crate::batch::seal;
use crate::{BatchError, BatchHeader, RECORD_HEADER_LEN, RecordHeader, RecordIter, padded};

/// A batch of those records for which `keep` is true of their index: stamped as the producer stamped the whole,
/// uncompressed, saying that `decided` records from the front of what was sent are decided. It may have no records
/// at all: then it only tells a start how far its producer has come.
///
/// `body` is the batch's body, uncompressed, its structure checked; of one that was not, the records up to the first
/// that does not fit are looked at.
pub fn cut(
    header: &BatchHeader,
    body: &[u8],
    decided: u32,
    mut keep: impl FnMut(u32) -> bool,
) -> Vec<u8> {
    let mut bytes = vec![0; BatchHeader::LEN];
    let (mut count, mut first, mut last) = (0u32, 0, 0);
    for (index, record) in spans(body, header.record_count.to_native()) {
        if !keep(index) {
            continue;
        }
        let timestamp_ns = RecordHeader::view(record).map_or(0, |r| r.timestamp_ns.to_native());
        if count == 0 {
            first = timestamp_ns;
        }
        last = timestamp_ns;
        count += 1;
        bytes.extend_from_slice(record);
    }
    let length = bytes.len() as u32; // of a batch that is no longer
    let cut = BatchHeader {
        length: length.into(),
        compression: 0,
        packed_length: 0.into(),
        record_count: count.into(),
        producer_count: decided.into(),
        body_length: (length - BatchHeader::LEN as u32).into(),
        first_timestamp_ns: first.into(),
        last_timestamp_ns: last.into(),
        crc: 0.into(),
        ..*header
    };
    cut.write_to(&mut bytes);
    seal(&mut bytes);
    bytes
}

/// Consecutive records of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index in the batch of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Where they lie in the body, their headers and padding included.
    pub bytes: std::ops::Range<usize>,
    /// Time of the last, nanoseconds since 1970 UTC.
    pub last_timestamp_ns: u64,
}

/// Adds the records of `run` to `out` as a batch of their own, uncompressed, with the sequence numbers, arrival and epoch
/// they have in the whole. It is nobody's: it must not pass for a batch that its producer has sent.
///
/// `body` is the body of the whole, uncompressed; of a run that does not lie in it nothing is added.
pub fn append_run(out: &mut Vec<u8>, whole: &BatchHeader, body: &[u8], run: &Run) {
    let Some(records) = body.get(run.bytes.clone()) else { return };
    let first_timestamp_ns = RecordHeader::view(records).map_or(0, |r| r.timestamp_ns.to_native());
    let length = (BatchHeader::LEN + records.len()) as u32; // of a batch that is hardly longer than the whole
    let header = BatchHeader {
        base_sequence: (whole.base_sequence.to_native() + u64::from(run.first)).into(),
        length: length.into(),
        compression: 0,
        packed_length: 0.into(),
        record_count: run.count.into(),
        producer_id: 0.into(),
        producer_sequence: 0.into(),
        producer_epoch: 0.into(),
        producer_count: 0.into(),
        body_length: (records.len() as u32).into(),
        first_timestamp_ns: first_timestamp_ns.into(),
        last_timestamp_ns: run.last_timestamp_ns.into(),
        crc: 0.into(),
        ..*whole
    };
    let start = out.len();
    out.extend_from_slice(&header.to_array());
    out.extend_from_slice(records);
    seal(&mut out[start..]);
}

/// The records of a checked body with their index, each with its header and padding.
pub fn spans(body: &[u8], count: u32) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = body;
    (0..count).map_while(move |index| {
        let length = padded(RecordHeader::view(rest)?.length.to_native() as usize);
        let (record, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some((index, record))
    })
}

/// How many records of a checked body fit into `bytes` bytes of a batch of their own, `records` at most.
pub fn front(header: &BatchHeader, body: &[u8], records: u64, bytes: u64) -> u32 {
    let mut left = bytes.saturating_sub(BatchHeader::LEN as u64);
    let fits = |(index, record): &(u32, &[u8])| {
        let fits = u64::from(*index) < records && record.len() as u64 <= left;
        left -= if fits { record.len() as u64 } else { 0 };
        fits
    };
    spans(body, header.record_count.to_native()).take_while(fits).count() as u32
}

/// The records of a body, uncompressed and checked; numbered from `sequence`.
pub fn records(body: &[u8], count: u32, sequence: u64) -> RecordIter<'_> {
    RecordIter { rest: body, sequence, left: count }
}

/// Those records of a body that are at fault by themselves, each with what is wrong with it: too large, or with a key
/// that is too long or no text.
///
/// # Errors
/// When the structure of the whole is wrong.
pub fn faults(
    body: &[u8],
    count: u32,
    max_record: u32,
) -> Result<Vec<(u32, BatchError)>, BatchError> {
    let mut rest = body;
    let mut faults = Vec::new();
    for index in 0..count {
        let length = RecordHeader::view(rest).map(|r| r.length.to_native() as usize);
        let whole = length.filter(|&l| l >= RECORD_HEADER_LEN).map(padded);
        let (record, behind) = whole
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(BatchError::Structure { record: index })?;
        match crate::record::check_record(record, index, max_record) {
            Ok(_) => {}
            Err(
                error @ (BatchError::RecordTooLarge { .. }
                | BatchError::KeyTooLong { .. }
                | BatchError::KeyNotUtf8 { .. }),
            ) => faults.push((index, error)),
            Err(error) => return Err(error),
        }
        rest = behind;
    }
    if rest.is_empty() { Ok(faults) } else { Err(BatchError::Structure { record: count }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, BatchView, Limits, ProducerStamp};
    use proptest::prelude::*;

    fn batch(sizes: &[usize], key: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for (i, size) in sizes.iter().enumerate() {
            builder.push(key, &[], &vec![i as u8; *size], 100 + i as u64).unwrap();
        }
        builder.finish(ProducerStamp { id: 7, epoch: 3, sequence: 40 }).to_vec()
    }

    #[test]
    fn a_batch_without_records_tells_how_far_its_producer_came() {
        let whole = batch(&[10, 20], b"k");
        let view = BatchView::parse(&whole).unwrap();
        let none = cut(view.header(), view.body(), 2, |_| false);
        let none = BatchView::parse(&none).unwrap();
        none.check(&Limits::default()).unwrap();
        assert_eq!((none.record_count(), none.bytes().len()), (0, BatchHeader::LEN));
        assert_eq!(none.header().producer_count.to_native(), 2);
    }

    #[test]
    fn a_run_keeps_numbers_and_times_and_is_nobodys() {
        let mut whole = batch(&[10, 20, 30, 40], b"k");
        crate::stamp(&mut whole, 100, 55, 3);
        let view = BatchView::parse(&whole).unwrap();
        let mut at = 0;
        let mut places = Vec::new();
        for (_, record) in spans(view.body(), 4) {
            places.push(at..at + record.len());
            at += record.len();
        }
        let bytes = places[1].start..places[2].end;
        let run = Run { first: 1, count: 2, bytes, last_timestamp_ns: 102 };
        let mut out = vec![9; 8];
        append_run(&mut out, view.header(), view.body(), &run);
        let part = BatchView::parse(&out[8..]).unwrap();
        part.check(&Limits::default()).unwrap();
        let records: Vec<_> = part.records().collect();
        let expected: Vec<_> = view.records().skip(1).take(2).collect();
        assert_eq!(records, expected);
        let h = part.header();
        assert_eq!((h.arrival_ns.to_native(), h.epoch.to_native()), (55, 3));
        assert_eq!((h.first_timestamp_ns.to_native(), h.last_timestamp_ns.to_native()), (101, 102));
        assert_eq!((h.producer_id.to_native(), h.producer_epoch.to_native()), (0, 0));
        let beyond = Run { bytes: 0..at + 8, ..run };
        let before = out.len();
        append_run(&mut out, view.header(), view.body(), &beyond);
        assert_eq!(out.len(), before);
    }

    #[test]
    fn records_at_fault_are_named_and_a_broken_structure_is_refused() {
        let whole = batch(&[10, 5_000, 20], &[b'x'; 300]);
        let view = BatchView::parse(&whole).unwrap();
        let all = faults(view.body(), 3, 1 << 20).unwrap();
        assert!(matches!(all[..], [(0, BatchError::KeyTooLong { .. }), _, _]));
        let whole = batch(&[10, 5_000, 20], b"k");
        let view = BatchView::parse(&whole).unwrap();
        let large = faults(view.body(), 3, 1_000).unwrap();
        assert!(matches!(large[..], [(1, BatchError::RecordTooLarge { record: 1, .. })]));
        assert!(faults(view.body(), 2, 1_000).is_err() && faults(view.body(), 4, 1_000).is_err());
        assert!(faults(&view.body()[..view.body().len() - 8], 3, 1_000).is_err());
        assert!(faults(&[0; 64], 1, 1_000).is_err());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_a_sound_batch(
            sizes in prop::collection::vec(0usize..200, 1..30), kept in any::<u32>(), room in 0u64..5_000,
        ) {
            let whole = batch(&sizes, b"key");
            let view = BatchView::parse(&whole).unwrap();
            let cut_bytes = cut(view.header(), view.body(), 9, |i| kept >> i & 1 == 1);
            let part = BatchView::parse(&cut_bytes).unwrap();
            part.check(&Limits::default()).unwrap();
            let payloads = |v: &BatchView<'_>| v.records().map(|r| (r.payload.to_vec(), r.timestamp_ns)).collect::<Vec<_>>();
            let mut want = payloads(&view);
            let mut index = 0;
            want.retain(|_| { index += 1; kept >> (index - 1) & 1 == 1 });
            prop_assert_eq!(&payloads(&part), &want);
            prop_assert_eq!(part.record_count() as usize, want.len());
            let h = part.header();
            prop_assert_eq!(h.first_timestamp_ns.to_native(), want.first().map_or(0, |r| r.1));
            prop_assert_eq!(h.last_timestamp_ns.to_native(), want.last().map_or(0, |r| r.1));
            prop_assert_eq!((h.producer_id.to_native(), h.producer_sequence.to_native()), (7, 40));

            let fit = front(view.header(), view.body(), 5, room);
            let of = |n: u32| cut(view.header(), view.body(), n, |i| i < n).len() as u64;
            prop_assert!(fit <= 5 && (fit == 0 || of(fit) <= room));
            prop_assert!(fit as usize == sizes.len().min(5) || of(fit + 1) > room);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0u32..20) {
            let _ = faults(&bytes, count, 1_000);
            let whole = batch(&[1], b"");
            let view = BatchView::parse(&whole).unwrap();
            let _ = cut(view.header(), &bytes, 1, |_| true);
            let _ = front(view.header(), &bytes, 10, 100);
        }
    }
}
