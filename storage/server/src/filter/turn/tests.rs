use super::*;
use highwater_engine::{Arrivals, Slice};
use highwater_ring::AlignedBuf;
use highwater_wire::{BatchBuilder, Compression, Limits, Packer, ProducerStamp, ShardId, stamp};
use proptest::prelude::*;

const LIMIT: u32 = 1 << 20;

/// A batch of records with these numbers as payload, from sequence `base` on, that arrived at `arrival_ns`.
fn batch(base: u64, arrival_ns: u64, numbers: &[u32], compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    for number in numbers {
        let payload = format!("{{\"n\":{number},\"filler\":\"{}\"}}", "x".repeat(40));
        builder.push(b"k", &[], payload.as_bytes(), u64::from(*number)).unwrap();
    }
    let stamped = ProducerStamp { id: 7, epoch: 1, sequence: 90 };
    let mut bytes = builder.finish(stamped).to_vec();
    Packer::new(compression).pack(&mut bytes);
    stamp(&mut bytes, base, arrival_ns, 2);
    bytes
}

/// All batches in one of the log's buffers.
fn chunk(batches: &[Vec<u8>]) -> Chunk {
    let bytes = batches.concat();
    let mut buf = AlignedBuf::alloc(bytes.len() + 8);
    buf[8..8 + bytes.len()].copy_from_slice(&bytes);
    let last = BatchIter::new(&bytes).last().unwrap().unwrap().end_sequence();
    let slices = vec![Slice { buf: buf.freeze(), start: 8, end: 8 + bytes.len() }];
    let arrivals = Some(Arrivals { shard: ShardId { stream: 1, shard: 0 }, batches: Vec::new() });
    Chunk { slices, bytes: bytes.len(), next: last, high_water: last, arrivals, ..Chunk::default() }
}

fn turn(source: &str, batches: &[Vec<u8>], share: bool) -> Turn {
    let (lot, held) = Lot::of(chunk(batches), share);
    assert_eq!(held > 0, share);
    Turn {
        whose: Whose::Fetch(1),
        program: Arc::new(Program::compile(source, 1).unwrap()),
        lot,
        span: Span { next: 0, since_ns: 0, until: u64::MAX },
        room: usize::MAX,
        max_batch: LIMIT,
    }
}

fn take(turn: &Turn) -> Found {
    turn.take(&mut Scratch::default(), || false)
}

/// Sequence numbers and times of what was found, every batch checked as if it had just come.
fn found(data: &[u8]) -> Vec<(u64, u64)> {
    let mut inflated = Vec::new();
    for batch in BatchIter::new(data) {
        let batch = batch.unwrap();
        batch.check_outside(&Limits::default()).unwrap();
        Unpacker::default().unpack_batch(&batch, LIMIT, &mut inflated).unwrap();
    }
    BatchIter::new(&inflated)
        .flat_map(|batch| batch.unwrap().records())
        .map(|record| (record.sequence, record.timestamp_ns))
        .collect()
}

#[test]
fn what_matches_is_found_with_its_numbers_and_the_rest_is_counted() {
    for compression in Compression::ALL {
        for share in [true, false] {
            let batches = [
                batch(10, 100, &[1, 2, 3, 4, 5], compression),
                batch(15, 200, &[2, 2, 2], compression),
                batch(18, 300, &[7, 8], compression),
            ];
            let turn = turn("json.n % 2 == 0", &batches, share);
            let result = take(&turn);
            let expected = [(11, 2), (13, 4), (15, 2), (16, 2), (17, 2), (19, 8)];
            assert_eq!(found(&result.data), expected);
            assert_eq!((result.tally.looked, result.tally.matched), (10, 6));
            assert_eq!(result.arrivals, Some(vec![(100, 2), (200, 3), (300, 1)]));
            assert_eq!((result.span.next, result.finished), (20, true));
            // All of a batch goes as it came, with its producer's stamp; a part is nobody's.
            let ids: Vec<u64> = BatchIter::new(&result.data)
                .map(|batch| batch.unwrap().header().producer_id.to_native())
                .collect();
            assert_eq!(ids, [0, 0, 7, 0]);
        }
    }
}

#[test]
fn records_without_an_answer_are_counted_by_reason_and_do_not_match() {
    let turn = turn(
        "json.missing == 1 || json.n / 0 == 1",
        &[batch(0, 0, &[1, 2, 3], Compression::None)],
        true,
    );
    let result = take(&turn);
    assert_eq!((result.data.len(), result.tally.matched, result.tally.looked), (0, 0, 3));
    assert_eq!(result.tally.reasons().collect::<Vec<_>>(), [("missing field", 3)]);
}

#[test]
fn only_what_is_wanted_is_looked_at() {
    let batches = [
        batch(0, 50, &[1, 2, 3, 4], Compression::None),
        batch(4, 90, &[1, 2, 3, 4], Compression::Lz4),
        // The clock has stepped back: from the first batch wanted on all are.
        batch(8, 60, &[1, 2, 3, 4], Compression::None),
    ];
    let mut turn = turn("true", &batches, true);
    turn.span = Span { next: 5, since_ns: 0, until: 10 };
    let result = take(&turn);
    assert_eq!(found(&result.data).iter().map(|r| r.0).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
    assert_eq!((result.tally.looked, result.span.next, result.finished), (5, 10, true));
    turn.span = Span { next: 0, since_ns: 80, until: u64::MAX };
    let result = take(&turn);
    assert_eq!((result.tally.looked, result.span.since_ns), (8, 0));
    turn.span = Span { next: 0, since_ns: 800, until: u64::MAX };
    let result = take(&turn);
    assert_eq!((result.tally.looked, result.span.since_ns, result.span.next), (0, 800, 12));
    assert!(result.finished);
}

#[test]
fn one_delivery_is_never_more_than_a_client_inflates() {
    let one = batch(0, 0, &[7; 5_000], Compression::Zstd);
    let body = BatchView::parse(&one).unwrap().header().body_length.to_native() as usize;
    let count = 6 * LIMIT as usize / body;
    let batches: Vec<Vec<u8>> =
        (0..count as u64).map(|n| batch(n * 5_000, 0, &[7; 5_000], Compression::Zstd)).collect();
    let mut turn = turn("true", &batches, true);
    let mut records = 0;
    loop {
        let result = take(&turn);
        let inflated: usize = BatchIter::new(&result.data)
            .map(|b| BatchHeader::LEN + b.unwrap().header().body_length.to_native() as usize)
            .sum();
        assert!(inflated <= 4 * LIMIT as usize, "{inflated}");
        records += result.tally.matched;
        turn.span = result.span;
        if result.finished {
            break;
        }
    }
    assert_eq!(records, count as u64 * 5_000);
}

#[test]
fn damage_is_told_and_not_passed_over() {
    let mut packed = batch(3, 0, &[1; 50], Compression::Zstd);
    let at = BatchHeader::LEN + 20;
    packed[at..at + 40].fill(0xff);
    let batches = [batch(0, 0, &[1, 2, 3], Compression::None), packed];
    let result = take(&turn("true", &batches, true));
    assert!(
        matches!(result.flaw, Some(Flaw::Batch(BatchError::Packed { .. }))),
        "{:?}",
        result.flaw
    );
    assert_eq!((result.span.next, result.finished, result.tally.matched), (3, false, 3));
}

proptest! {
    #[test]
    fn however_turns_are_cut_the_same_is_found(
        sizes in prop::collection::vec(1usize..20, 1..8),
        seed in any::<u64>(),
        room in 1usize..3_000,
        patience in 1u32..20,
        packed in any::<bool>(),
    ) {
        let compression = if packed { Compression::Lz4 } else { Compression::None };
        let mut next = 0;
        let mut numbers = 0u32;
        let batches: Vec<Vec<u8>> = sizes.iter().map(|&size| {
            let of: Vec<u32> = (0..size as u32).map(|i| (seed >> ((numbers + i) % 60)) as u32 % 2).collect();
            numbers += size as u32;
            let bytes = batch(next, next, &of, compression);
            next += size as u64;
            bytes
        }).collect();
        let mut turn = turn("json.n == 1", &batches, true);
        let whole = take(&turn);
        turn.room = room;
        let (mut all, mut tally, mut turns) = (Vec::new(), FilterTally::default(), 0);
        loop {
            let mut asked = 0;
            let result = turn.take(&mut Scratch::default(), || { asked += 1; asked >= patience });
            // At most the record by which there was enough, with its header.
            prop_assert!(result.data.len() < room + BatchHeader::LEN + 200);
            prop_assert!(result.tally.looked > 0 || result.finished);
            all.extend(found(&result.data));
            tally.add(&result.tally);
            turn.span = result.span;
            turns += 1;
            if result.finished { break; }
            prop_assert!(turns < 1_000);
        }
        prop_assert_eq!(all, found(&whole.data));
        prop_assert_eq!((tally, turn.span.next), (whole.tally, next));
    }
}
