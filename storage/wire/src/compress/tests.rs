//! Tests of compression: what is packed is what is unpacked, and what only claims to be is refused in time.

use proptest::prelude::*;

use super::*;
use crate::{BatchBuilder, Header, Limits, ProducerStamp, hash_key, stamp};

const PACKED: [Compression; 2] = [Compression::Lz4, Compression::Zstd];
const LIMITS: Limits = Limits { max_record: 1 << 20, max_batch: (1 << 20) + 4096 };

/// A batch of `records` of a text that repeats itself.
fn batch(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    for n in 0..records as u64 {
        let headers = [Header { name: "h", value: b"v" }];
        builder.push(b"key", &headers, b"the same again and again and again", n).unwrap();
    }
    let mut bytes = builder.finish(ProducerStamp { id: 7, epoch: 8, sequence: 9 }).to_vec();
    stamp(&mut bytes, 100, 200, 3);
    bytes
}

fn packed(records: usize, compression: Compression) -> Vec<u8> {
    let mut bytes = batch(records);
    Packer::new(compression).pack(&mut bytes);
    assert_eq!(BatchView::parse(&bytes).unwrap().header().compression, compression as u8);
    bytes
}

/// As a server does it at its door.
fn check(bytes: &[u8]) -> Result<(), BatchError> {
    let (view, mut body) = (BatchView::parse(bytes).unwrap(), Vec::new());
    view.check_outside(&LIMITS)?;
    Unpacker::default().unpack_into(&view, LIMITS.max_batch, &mut body)?;
    view.check_inside(&body, &LIMITS)
}

/// Changes the header of a batch and makes the checksum right.
fn forge(mut bytes: Vec<u8>, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = *BatchHeader::view(&bytes).unwrap();
    change(&mut header);
    header.write_to(&mut bytes);
    seal(&mut bytes);
    bytes
}

#[test]
fn what_is_packed_is_smaller_sound_and_inflates_to_the_same_batch() {
    let plain = batch(1000);
    let mut unpacker = Unpacker::default();
    for compression in PACKED {
        let bytes = packed(1000, compression);
        assert!(bytes.len() < plain.len() / 4, "{compression}: {} bytes", bytes.len());
        check(&bytes).unwrap();
        let view = BatchView::parse(&bytes).unwrap();
        assert!(view.check(&LIMITS).is_err(), "who does not inflate does not take it");
        let mut inflated = b"before".to_vec();
        unpacker.unpack_batch(&view, LIMITS.max_batch, &mut inflated).unwrap();
        assert!(inflated.split_off(6) == plain, "{compression}");
        let mut body = b"replaced".to_vec();
        unpacker.unpack_into(&view, LIMITS.max_batch, &mut body).unwrap();
        assert!(body == plain[BatchHeader::LEN..], "{compression}");
    }
}

#[test]
fn what_does_not_get_shorter_stays_as_it_is() {
    let mut builder = BatchBuilder::default();
    let noise: Vec<u8> =
        (0..256u32).flat_map(|n| hash_key(&n.to_le_bytes()).to_le_bytes()).collect();
    builder.push(b"", &[], &noise, 1).unwrap();
    let plain = builder.finish(ProducerStamp::default()).to_vec();
    for compression in Compression::ALL {
        let mut bytes = plain.clone();
        Packer::new(compression).pack(&mut bytes);
        assert!(bytes == plain, "{compression}");
        check(&bytes).unwrap();
    }
}

#[test]
fn a_bomb_is_refused_before_it_goes_off() {
    let mut unpacker = Unpacker::default();
    for compression in PACKED {
        // 64 MiB of zeros in a few KiB, announced truly: too large, and no memory is taken for it.
        let zeros = vec![0; 64 << 20];
        let mut packer = Packer::new(compression);
        let length = packer.squeeze(&zeros).unwrap();
        let mut bytes = batch(1)[..BatchHeader::LEN].to_vec();
        bytes.extend_from_slice(&packer.packed[..length]);
        bytes.resize(BatchHeader::LEN + padded(length), 0);
        let whole = bytes.len() as u32;
        assert!(whole < LIMITS.max_batch);
        let header = |announced: u32| {
            move |h: &mut BatchHeader| {
                h.compression = compression as u8;
                h.length = whole.into();
                h.packed_length = (length as u32).into();
                h.body_length = announced.into();
            }
        };
        let honest = forge(bytes.clone(), header(64 << 20));
        let mut out = Vec::new();
        let view = BatchView::parse(&honest).unwrap();
        let error = unpacker.unpack_into(&view, LIMITS.max_batch, &mut out).unwrap_err();
        assert!(matches!(error, BatchError::TooLarge { .. }), "{error}");
        assert_eq!(out.capacity(), 0);
        assert!(matches!(check(&honest), Err(BatchError::TooLarge { .. })));
        // Announced as small: what is written stays within what was announced.
        let lying = forge(bytes, header(4096));
        let view = BatchView::parse(&lying).unwrap();
        let error = unpacker.unpack_into(&view, LIMITS.max_batch, &mut out).unwrap_err();
        assert_eq!(error, BatchError::Packed { compression, length: 4096 });
        assert!(out.is_empty() && out.capacity() < 64 << 10);
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for compression in PACKED {
        let sound = packed(100, compression);
        let length = BatchHeader::view(&sound).unwrap().body_length.to_native();
        for announced in [0, length - 8, length + 8] {
            let bytes = forge(sound.clone(), |h| h.body_length = announced.into());
            assert_eq!(check(&bytes), Err(BatchError::Packed { compression, length: announced }));
        }
        for packed in [0, 1, u32::MAX, length] {
            let bytes = forge(sound.clone(), |h| h.packed_length = packed.into());
            assert_eq!(check(&bytes), Err(BatchError::Length(packed)), "{compression} {packed}");
        }
        let bytes = forge(sound.clone(), |h| h.record_count = 99.into());
        assert!(matches!(check(&bytes), Err(BatchError::Structure { .. })));
    }
    let unknown = forge(batch(1), |h| h.compression = 3);
    assert_eq!(check(&unknown), Err(BatchError::Unsupported { field: "compression", value: 3 }));
    let claimed = forge(batch(1), |h| h.packed_length = 8.into());
    assert!(matches!(check(&claimed), Err(BatchError::Length(_))));
}

#[test]
fn names_and_numbers_are_read_back() {
    for compression in Compression::ALL {
        assert_eq!(compression.name().parse(), Ok(compression));
        assert_eq!(Compression::from_tag(compression as u8), Some(compression));
    }
    assert_eq!(Compression::from_tag(3), None);
    assert!("gzip".parse::<Compression>().unwrap_err().to_string().contains("gzip"));
}

proptest! {
    #[test]
    fn bytes_from_anywhere_never_panic_and_never_exceed_the_limit(
        packed in prop::collection::vec(any::<u8>(), 1..400), announced in 0u32..20_000, lz4: bool,
    ) {
        let compression = if lz4 { Compression::Lz4 } else { Compression::Zstd };
        let mut bytes = batch(1)[..BatchHeader::LEN].to_vec();
        bytes.extend_from_slice(&packed);
        bytes.resize(BatchHeader::LEN + padded(packed.len()), 0);
        let whole = bytes.len() as u32;
        let bytes = forge(bytes, |h| {
            h.compression = compression as u8;
            h.length = whole.into();
            h.packed_length = (packed.len() as u32).into();
            h.body_length = announced.into();
        });
        let view = BatchView::parse(&bytes).unwrap();
        let mut body = Vec::new();
        match Unpacker::default().unpack_into(&view, 10_000, &mut body) {
            Ok(()) => prop_assert_eq!(body.len(), announced as usize),
            Err(_) => prop_assert!(body.is_empty()),
        }
        prop_assert!(body.capacity() <= 16_384);
        let _refused_or_not = check(&bytes);
    }

    #[test]
    fn a_flipped_byte_is_refused_or_inflates_within_bounds(
        records in 1usize..60, at: prop::sample::Index, flip in 1u8.., lz4: bool,
    ) {
        let compression = if lz4 { Compression::Lz4 } else { Compression::Zstd };
        let mut bytes = batch(records);
        Packer::new(compression).pack(&mut bytes);
        let at = BatchHeader::LEN + at.index(bytes.len() - BatchHeader::LEN);
        bytes[at] ^= flip;
        prop_assert!(check(&bytes).is_err(), "the checksum");
        seal(&mut bytes);
        // Whoever forges a checksum too gets his records checked.
        let _refused_or_not = check(&bytes);
    }
}
