//! Batches: what is put in comes out, and what is wrong with one is found.

use proptest::prelude::*;

use super::*;
use crate::Header;

fn one(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut b = BatchBuilder::default();
    b.push(key, &[], payload, 7).unwrap();
    b.finish(ProducerStamp::default()).to_vec()
}

#[test]
fn a_zero_header_is_no_batch() {
    assert_eq!(BatchView::parse(&[0; 200]).unwrap_err(), BatchError::Magic(0));
}

#[test]
fn stamping_keeps_the_producers_checksum() {
    let mut bytes = one(b"k", b"payload");
    stamp(&mut bytes, 42, 1_000, 3);
    let view = BatchView::parse(&bytes).unwrap();
    view.check(&Limits::default()).unwrap();
    let record = view.records().next().unwrap();
    assert_eq!((record.sequence, record.payload), (42, &b"payload"[..]));
    assert_eq!(view.end_sequence(), 43);
}

#[test]
fn records_and_keys_over_the_limit_are_named() {
    let bytes = one(b"", &vec![1; 2000]);
    let limits = Limits { max_record: 1999, max_batch: 1 << 20 };
    assert_eq!(
        BatchView::parse(&bytes).unwrap().check(&limits),
        Err(BatchError::RecordTooLarge { record: 0, bytes: 2000, limit: 1999 })
    );
    let long = "ä".repeat(257);
    assert_eq!(
        BatchView::parse(&one(long.as_bytes(), b"")).unwrap().check(&Limits::default()),
        Err(BatchError::KeyTooLong { record: 0, chars: 257 })
    );
    let fits = "ä".repeat(256);
    BatchView::parse(&one(fits.as_bytes(), b"")).unwrap().check(&Limits::default()).unwrap();
    assert_eq!(
        BatchView::parse(&one(&[0xff, 0xfe], b"")).unwrap().check(&Limits::default()),
        Err(BatchError::KeyNotUtf8 { record: 0 })
    );
}

#[test]
fn every_flipped_bit_of_the_producers_part_is_found() {
    let bytes = one(b"key", b"some payload");
    for bit in CHECKED_FROM * 8..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let found = BatchView::parse(&bad).and_then(|b| b.check(&Limits::default()));
        assert!(found.is_err(), "bit {bit}");
    }
}

#[test]
fn a_patched_record_is_the_one_that_was_meant() {
    let headers = |value| [Header { name: "h", value }];
    let mut patched = BatchBuilder::default();
    patched
        .push_patched(b"key", &headers(b"v?"), &[b"pay", b"l??d"], 7, |bytes| {
            assert_eq!(bytes, b"\x01\x02\x00hv?payl??d");
            bytes[5] = b'1';
            bytes[10..12].copy_from_slice(b"oa");
        })
        .unwrap();
    let mut plain = BatchBuilder::default();
    plain.push(b"key", &headers(b"v1"), b"payload", 7).unwrap();
    let stamp = ProducerStamp::default();
    assert_eq!(patched.finish(stamp), plain.finish(stamp));
}

type Rec = (String, Vec<(String, Vec<u8>)>, Vec<u8>, u64);

fn records() -> impl Strategy<Value = Vec<Rec>> {
    let headers =
        prop::collection::vec(("[a-z]{0,12}", prop::collection::vec(any::<u8>(), 0..40)), 0..4);
    let record = ("\\PC{0,40}", headers, prop::collection::vec(any::<u8>(), 0..300), any::<u64>());
    prop::collection::vec(record, 1..20)
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(records in records(), base in 0..u64::MAX / 2) {
        let mut b = BatchBuilder::default();
        for (key, headers, payload, ts) in &records {
            let hs: Vec<_> = headers.iter().map(|(n, v)| Header { name: n, value: v }).collect();
            b.push(key.as_bytes(), &hs, payload, *ts).unwrap();
        }
        let mut bytes = b.finish(ProducerStamp { id: 1, epoch: 2, sequence: 3 }).to_vec();
        stamp(&mut bytes, base, 5, 6);
        let view = BatchView::parse(&bytes).unwrap();
        view.check(&Limits::default()).unwrap();
        let out: Vec<_> = view.records().collect();
        prop_assert_eq!(out.len(), records.len());
        for (i, (r, (key, headers, payload, ts))) in out.iter().zip(&records).enumerate() {
            prop_assert_eq!(r.sequence, base + i as u64);
            prop_assert_eq!(r.key, key.as_bytes());
            prop_assert_eq!(r.payload, &payload[..]);
            prop_assert_eq!(r.timestamp_ns, *ts);
            let hs: Vec<_> = r.headers().map(|h| (h.name.to_owned(), h.value.to_vec())).collect();
            prop_assert_eq!(&hs, headers);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), real in any::<bool>()) {
        if real && bytes.len() >= BatchHeader::LEN {
            // Make it past the front checks, so that the record walk meets the random bytes.
            bytes.truncate(bytes.len() & !7);
            let len = bytes.len() as u32;
            bytes[24..28].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
            bytes[28..32].copy_from_slice(&len.to_le_bytes());
            bytes[32..36].copy_from_slice(&[BATCH_VERSION, 0, 0, 0]);
            bytes[60..64].copy_from_slice(&(len - 88).to_le_bytes());
            let crc = crc32c(&bytes[CHECKED_FROM..]);
            bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(batch) = BatchView::parse(&bytes) {
            let _ = batch.check(&Limits::default());
            batch.records().count();
        }
    }
}
