//! The dealer: what it deals to which lane, and when.

use highwater_wire::StreamConfig;

use super::*;
use crate::plan::Supplies;
use crate::target::{Link, Null, Target};
use crate::timeline::Step;
use crate::{LoadOptions, Rate};

const SECOND: u64 = 1_000_000_000;

/// A dealer of 1,000 records/s for a second that is over, and when that second began.
fn dealer(change: impl FnOnce(&mut LoadOptions)) -> (Dealer, u64) {
    let mut options =
        LoadOptions { rate: Rate::PerSecond(1_000.0), seed: 1, ..LoadOptions::default() };
    change(&mut options);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let plan = runtime.block_on(async {
        let link = Null::default().link().await.unwrap();
        let (mut streams, mut from) = (Vec::new(), Vec::new());
        for name in options.stream_names() {
            let (retention_ms, retention_bytes, ack) = (0, 0, options.ack);
            let shards = options.shards;
            let config = StreamConfig {
                shards,
                retention_ms,
                retention_bytes,
                ack,
                ..StreamConfig::default()
            };
            let stream = link.stream(&name, &config).await.unwrap();
            from.extend(stream.shards.iter().map(|_| 0));
            streams.push(stream);
        }
        let supplies = Supplies::prepare(&options).unwrap();
        Plan::new(options, supplies, &link, streams, from, false).unwrap()
    });
    let start = plan.clock.now_ns() - 2 * SECOND;
    plan.marks.begin(start);
    plan.marks.set(Step::Open { window_ns: start, outage: None });
    plan.marks.cut(start + SECOND);
    let mut dealer = Dealer::new(&Arc::new(plan), 0);
    dealer.begin();
    (dealer, start)
}

fn take_all(dealer: &Dealer, lane: usize) -> Vec<Planned> {
    let mut taken = Vec::new();
    let mut batch = Batch::default();
    dealer.hand.extend(lane, &mut batch, u64::MAX, usize::MAX);
    let all = dealer.hand.take(lane, &batch, |record| {
        taken.push(record);
        Ok::<_, ()>(())
    });
    all.unwrap();
    taken
}

#[test]
fn every_record_is_dealt_once_and_streams_take_turns() {
    let (mut dealer, start) = dealer(|o| (o.streams, o.shards) = (2, 3));
    assert_eq!(dealer.deal_due(), Dealt::All);
    let places = dealer.plan.places.len();
    let lanes: Vec<_> = (0..places).map(|lane| take_all(&dealer, lane)).collect();
    assert!(lanes.iter().all(|lane| lane.is_sorted_by_key(|record| record.intended_ns)));
    for (stream, lanes) in lanes.chunks(3).enumerate() {
        let mut due: Vec<u64> = lanes.iter().flatten().map(|r| r.intended_ns - start).collect();
        due.sort_unstable();
        let exact: Vec<u64> = (0..500).map(|k| (2 * k + stream as u64) * 1_000_000).collect();
        assert_eq!(due, exact);
    }
    // A key has one shard, the same in both streams.
    for (a, b) in lanes[..3].iter().zip(&lanes[3..]) {
        let of = |lane: &[Planned]| -> std::collections::BTreeSet<u32> {
            lane.iter().map(|record| record.draw.key).collect()
        };
        let others = lanes.iter().filter(|lane| !std::ptr::eq(*lane, a) && !std::ptr::eq(*lane, b));
        assert!(others.flat_map(|lane| of(lane)).all(|key| !of(a).contains(&key)));
    }
    assert_eq!((dealer.unsent().0, dealer.unsent().1), (0, 0));
}

#[test]
fn at_the_bound_dealing_waits_and_skips_nothing() {
    let (mut dealer, start) = dealer(|_| ());
    dealer.most_waiting = 300;
    let mut due = Vec::new();
    for left in [700, 400, 100] {
        assert_eq!(dealer.deal_due(), Dealt::Full);
        // What waits and what was not dealt yet are both not sent.
        assert_eq!((dealer.unsent().0, dealer.unsent().1), (left + 300, left + 300));
        due.extend(take_all(&dealer, 0).iter().map(|record| record.intended_ns - start));
    }
    assert_eq!(dealer.deal_due(), Dealt::All);
    due.extend(take_all(&dealer, 0).iter().map(|record| record.intended_ns - start));
    assert_eq!(due, (0..1_000).map(|k| k * 1_000_000).collect::<Vec<u64>>());
}

#[test]
fn a_batch_is_what_fits_and_is_due() {
    let (mut dealer, start) = dealer(|_| ());
    dealer.deal_due();
    let record = dealer.hand.queues[0].bytes.get() / 1_000;
    let mut batch = Batch::default();
    dealer.hand.extend(0, &mut batch, start + 4_500_000, 100 * record);
    assert_eq!((batch.records, batch.close_ns), (5, start + 4_000_000));
    dealer.hand.extend(0, &mut batch, u64::MAX, 7 * record);
    assert_eq!((batch.records, batch.bytes), (7, 7 * record));
    // One always fits.
    let mut lone = Batch::default();
    dealer.hand.extend(0, &mut lone, u64::MAX, 0);
    assert_eq!(lone.records, 1);
}

#[test]
fn a_saturating_producer_does_not_run_ahead_of_its_slowest_lane() {
    let (mut dealer, _) = dealer(|o| (o.rate, o.shards) = (Rate::Max, 4));
    let bytes = |dealer: &Dealer, lane: usize| dealer.hand.queues[lane].bytes.get();
    dealer.deal_full(100_000);
    let most = |dealer: &Dealer| (0..4).map(|lane| bytes(dealer, lane)).max().unwrap();
    assert!((200_000..210_000).contains(&most(&dealer)));
    let full = (0..4).find(|lane| bytes(&dealer, *lane) >= 200_000).unwrap();
    take_all(&dealer, (full + 1) % 4);
    dealer.deal_full(100_000);
    assert_eq!(bytes(&dealer, (full + 1) % 4), 0);
    take_all(&dealer, full);
    dealer.deal_full(100_000);
    assert!(bytes(&dealer, full) > 0);
}
