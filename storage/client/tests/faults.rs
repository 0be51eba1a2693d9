//! With refusals, lost connections, lost and reordered replies, every record is stored exactly once and in
//! order, and every acknowledgement says where.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

// Each test file is a crate of its own and uses a part of it.
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
mod support;

use std::time::Duration;

use highwater_client::wire::{BatchBuilder, Compression, hash_key};
use highwater_client::{
    AppenderOptions, Client, ClientOptions, ConsumerOptions, Fate, ProducerOptions, Record,
    RetryPolicy, SendError, Start,
};
use proptest::prelude::*;
use support::{Faults, Server};

/// With a `request_timeout` so long that work which waits for it by mistake does not end, or so short that
/// a reply that was dropped is soon missed. (Too early is no harm.)
fn client_options(impatient: bool) -> ClientOptions {
    let retry = RetryPolicy {
        first: Duration::from_millis(1),
        max: Duration::from_millis(5),
        ..RetryPolicy::default()
    };
    let request_timeout =
        if impatient { Duration::from_millis(100) } else { Duration::from_secs(3600) };
    ClientOptions { retry, request_timeout, ..ClientOptions::default() }
}

/// Faults but for dropped replies, which cost a timeout each.
fn faults() -> impl Strategy<Value = Faults> {
    let percent = || 0u8..25;
    let base = (any::<u64>(), 0u32..40, percent(), percent(), percent(), percent(), any::<bool>());
    (base, percent(), percent()).prop_map(|(base, part, drop_record)| {
        let (seed, budget, refuse, cut_before, cut_after, cut_delivery, reorder) = base;
        Faults {
            seed,
            budget,
            refuse,
            cut_before,
            cut_after,
            drop_reply: 0,
            cut_delivery,
            reorder,
            part,
            drop_record,
            reshard: 0,
        }
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn append_all(faults: Faults, batches: u64, inflight: usize) {
    let server = Server::start(1, faults).await;
    let impatient = faults.drop_reply > 0;
    let client = Client::connect(&server.target(), client_options(impatient)).await.unwrap();
    let (mut appender, mut acks) = loop {
        let appending = AppenderOptions { inflight, ..AppenderOptions::default() };
        let stream = client.describe_stream("s").await;
        let appender = match &stream {
            Ok(stream) => client.appender(stream, 0, appending).await,
            Err(error) => Err(error.clone()),
        };
        match appender {
            Ok(appender) => break appender,
            Err(error) => assert!(impatient && error.retriable(), "{error}"),
        }
    };
    let sending = tokio::spawn(async move {
        let mut builder = BatchBuilder::default();
        for tag in 0..batches {
            for part in 0..=tag % 3 {
                let payload = [tag.to_le_bytes(), part.to_le_bytes()].concat();
                builder.push(b"k", &[], &payload, tag).unwrap();
            }
            appender.append(&mut builder, tag).await.unwrap();
        }
    });
    let mut acked = Vec::new();
    for tag in 0..batches {
        let ack = acks.recv().await.unwrap();
        assert_eq!(ack.tag, tag);
        for part in 0..=tag % 3 {
            let payload = [tag.to_le_bytes(), part.to_le_bytes()].concat();
            match ack.runs.fate_of(part as u32).unwrap() {
                Fate::Stored { shard: 0, sequence } => acked.push((sequence, payload)),
                Fate::Dropped => {}
                fate => panic!("{fate:?}"),
            }
        }
    }
    sending.await.unwrap();
    assert_eq!(acks.recv().await, None);
    // Everything said to be stored is, where it was said to be, in order, and nothing else.
    assert!(acked.iter().map(|(sequence, _)| *sequence).eq(0..acked.len() as u64));
    let records = server.world().shards[0].records();
    assert!(records.into_iter().map(|r| r.1).eq(acked.into_iter().map(|a| a.1)));
}

/// Shards split and merge while records are sent: every record is stored once, acknowledged where it is, and the
/// records of a key are in order from a shard to those that take over.
async fn reshard_while_producing(faults: Faults, records: u32, options: ProducerOptions) {
    let server = Server::start(2, faults).await;
    let client = Client::connect(&server.target(), client_options(false)).await.unwrap();
    let producer = client.producer("s", options).await.unwrap();
    let mut receipts = Vec::new();
    for n in 0..records {
        let key = format!("key {}", n % 23);
        let hash_key = (n % 23 == 5).then_some(u128::MAX / 3);
        let payload = n.to_le_bytes();
        let record = Record { hash_key, ..Record::new(key.as_bytes(), &payload) };
        receipts.push((n, producer.send(record).await.unwrap()));
    }
    producer.close().await.unwrap();
    let stored: Vec<_> = server.world().shards.iter().map(|s| s.records()).collect();
    let mut dropped = 0;
    let mut last = vec![None; 23];
    for (n, receipt) in receipts {
        match receipt.await {
            Ok(acked) => {
                let record = &stored[acked.shard as usize][acked.sequence as usize];
                assert_eq!(record.1, n.to_le_bytes());
                let range = server.world().shards[acked.shard as usize].range;
                let hash = if n % 23 == 5 { u128::MAX / 3 } else { hash_key(&record.0) };
                assert!((range.0..=range.1).contains(&hash), "{n} is in a shard of another range");
                // Shards that take over have greater numbers.
                let place = Some((acked.shard, acked.sequence));
                let before = std::mem::replace(&mut last[(n % 23) as usize], place);
                assert!(before < place, "{n}: {before:?} {place:?}");
            }
            Err(SendError::Shed { sampled: false }) => dropped += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(dropped, server.world().dropped());
    let all: usize = stored.iter().map(Vec::len).sum();
    assert_eq!(all as u64 + dropped, u64::from(records), "exactly once");
}

/// The same with ready batches for one shard.
async fn reshard_while_appending(faults: Faults, batches: u64, appending: AppenderOptions) {
    let server = Server::start(1, faults).await;
    let client = Client::connect(&server.target(), client_options(false)).await.unwrap();
    let stream = client.describe_stream("s").await.unwrap();
    let (mut appender, mut acks) = client.appender(&stream, 0, appending).await.unwrap();
    let sending = tokio::spawn(async move {
        let mut builder = BatchBuilder::default();
        for tag in 0..batches {
            for n in tag * 5..tag * 5 + 5 {
                let key = format!("key {}", n % 23);
                builder.push(key.as_bytes(), &[], &n.to_le_bytes(), 1).unwrap();
            }
            appender.append(&mut builder, tag).await.unwrap();
        }
    });
    let mut outcomes = Vec::new();
    while let Some(ack) = acks.recv().await {
        assert_eq!(ack.tag, outcomes.len() as u64);
        outcomes.push(ack);
    }
    sending.await.unwrap();
    assert_eq!(outcomes.len() as u64, batches);
    let stored: Vec<_> = server.world().shards.iter().map(|s| s.records()).collect();
    let (mut last, mut kept) = (vec![None; 23], 0);
    for ack in outcomes {
        for index in 0..5 {
            let n = ack.tag * 5 + u64::from(index);
            match ack.runs.fate_of(index).unwrap() {
                Fate::Stored { shard, sequence } => {
                    let record = &stored[shard as usize][sequence as usize];
                    assert_eq!(record.1, n.to_le_bytes());
                    let before = last[(n % 23) as usize].replace((shard, sequence));
                    assert!(before < Some((shard, sequence)), "{n}");
                    kept += 1;
                }
                Fate::Dropped => {}
                fate => panic!("{n}: {fate:?}"),
            }
        }
    }
    assert_eq!(kept, stored.iter().map(Vec::len).sum::<usize>(), "nothing but what was told");
}

fn compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(&Compression::ALL[..])
}

async fn produce_and_consume(faults: Faults, records: u32, shards: usize, batch_bytes: usize) {
    let server = Server::start(shards, faults).await;
    let client = Client::connect(&server.target(), client_options(false)).await.unwrap();
    let linger = Duration::from_millis(u64::from(records % 2));
    let producing = ProducerOptions { batch_bytes, linger, ..ProducerOptions::default() };
    let producer = client.producer("s", producing).await.unwrap();
    let mut receipts = Vec::new();
    for n in 0..records {
        let key = format!("key {}", n % 7);
        let receipt = producer.send(Record::new(key.as_bytes(), &n.to_le_bytes())).await.unwrap();
        receipts.push((n, receipt));
    }
    producer.close().await.unwrap();
    let stored: Vec<_> = server.world().shards.iter().map(|s| s.records()).collect();
    let dropped = server.world().dropped();
    let all = stored.iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(all + dropped, u64::from(records), "exactly once");
    for (n, receipt) in receipts {
        let acked = match receipt.await {
            Err(SendError::Shed { sampled: false }) => continue,
            acked => acked.unwrap(),
        };
        assert_eq!(stored[acked.shard as usize][acked.sequence as usize].1, n.to_le_bytes());
    }
    for records in &stored {
        let numbers = records.iter().map(|r| u32::from_le_bytes(r.1[..].try_into().unwrap()));
        assert!(numbers.is_sorted(), "in order");
    }

    let stream = client.describe_stream("s").await.unwrap();
    for (shard, records) in stored.iter().enumerate() {
        let end = Some(records.len() as u64);
        let reading = ConsumerOptions { end, ..ConsumerOptions::default() };
        let mut consumer =
            client.consumer(&stream, shard as u32, Start::Oldest, reading).await.unwrap();
        let mut read = Vec::new();
        while let Some(delivery) = consumer.next().await.unwrap() {
            for record in delivery.records() {
                assert_eq!(record.sequence, read.len() as u64);
                read.push((record.key.to_vec(), record.payload.to_vec()));
            }
        }
        assert_eq!(&read, records);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_batch_is_stored_once_in_order_and_acknowledged_where_it_is(
        faults in faults(), batches in 1u64..60, inflight in 1usize..10,
    ) {
        block_on(append_all(faults, batches, inflight));
    }

    #[test]
    fn a_key_keeps_its_order_across_splits_and_merges_and_nothing_is_lost_or_doubled(
        faults in faults(), reshard in 1u8..30, budget in 5u32..60, records in 50u32..400,
        batch_bytes in 200usize..3000, compression in compression(), named: bool, partial: bool,
    ) {
        let faults = Faults { reshard, budget, ..faults };
        let name = named.then(|| "producer".to_owned());
        let appender = AppenderOptions { compression, name, partial, ..AppenderOptions::default() };
        let linger = Duration::from_millis(u64::from(records % 2));
        let options = ProducerOptions { batch_bytes, linger, appender, ..ProducerOptions::default() };
        block_on(reshard_while_producing(faults, records, options));
    }

    #[test]
    fn ready_batches_follow_splits_and_merges(
        faults in faults(), reshard in 1u8..30, budget in 5u32..60, batches in 10u64..80,
        inflight in 1usize..10, compression in compression(), partial: bool,
    ) {
        let faults = Faults { reshard, budget, ..faults };
        let appending =
            AppenderOptions { inflight, compression, partial, ..AppenderOptions::default() };
        block_on(reshard_while_appending(faults, batches, appending));
    }

    #[test]
    fn what_was_produced_is_consumed_once_and_in_order(
        faults in faults(), records in 1u32..300, shards in 1usize..4, batch_bytes in 200usize..2000,
    ) {
        block_on(produce_and_consume(faults, records, shards, batch_bytes));
    }
}

#[test]
fn replies_that_never_come_are_missed_and_asked_for_again() {
    for seed in 0..4 {
        let faults = Faults {
            seed,
            budget: 4,
            drop_reply: 10,
            cut_after: 5,
            refuse: 5,
            ..Faults::default()
        };
        block_on(append_all(faults, 60, 5));
    }
}

#[test]
fn a_multi_thread_runtime_does_as_well() {
    let faults = Faults { seed: 3, budget: 10, refuse: 10, cut_after: 10, ..Faults::default() };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let work = async move { tokio::spawn(produce_and_consume(faults, 500, 3, 1000)).await };
    runtime.block_on(work).unwrap();
}
