//! With refusals, lost connections, lost and reordered replies, every record is stored exactly once and in
//! order, and every acknowledgement says where.

// A panic in a test is its report.
#![allow(clippy::unwrap_used, clippy::panic)]

// Each test file is a crate of its own and uses a part of it.
#[allow(dead_code)]
mod support;

use std::time::Duration;

use highwater_client::wire::BatchBuilder;
use highwater_client::{
    AppenderOptions, Client, ClientOptions, ConsumerOptions, ProducerOptions, Record, RetryPolicy,
    Start,
};
use proptest::prelude::*;
use support::{Faults, Server};

/// With a `request_timeout` so long that work which waits for it by mistake does not end, or so short that
/// a reply that was dropped is soon missed. (Too early is no harm.)
fn options(impatient: bool) -> ClientOptions {
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
    (any::<u64>(), 0u32..25, percent(), percent(), percent(), percent(), any::<bool>()).prop_map(
        |(seed, budget, refuse, cut_before, cut_after, cut_delivery, reorder)| Faults {
            seed,
            budget,
            refuse,
            cut_before,
            cut_after,
            drop_reply: 0,
            cut_delivery,
            reorder,
        },
    )
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn append_all(faults: Faults, batches: u64, inflight: usize) {
    let server = Server::start(1, faults).await;
    let impatient = faults.drop_reply > 0;
    let client = Client::connect(&server.target(), options(impatient)).await.unwrap();
    let (mut appender, mut acks) = loop {
        let appending = AppenderOptions { inflight, idempotent: true };
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
    let mut expected = 0;
    for tag in 0..batches {
        let ack = acks.recv().await.unwrap();
        let result = ack.result.unwrap();
        assert_eq!((ack.tag, result.base_sequence), (tag, expected));
        assert_eq!(u64::from(result.record_count), tag % 3 + 1);
        expected += tag % 3 + 1;
    }
    sending.await.unwrap();
    assert_eq!(acks.recv().await, None);
    let records = server.world().shards[0].records();
    let wanted = (0..batches)
        .flat_map(|tag| (0..=tag % 3).map(move |p| [tag.to_le_bytes(), p.to_le_bytes()].concat()));
    assert!(records.into_iter().map(|r| r.1).eq(wanted));
}

async fn produce_and_consume(faults: Faults, records: u32, shards: usize, batch_bytes: usize) {
    let server = Server::start(shards, faults).await;
    let client = Client::connect(&server.target(), options(false)).await.unwrap();
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
    assert_eq!(stored.iter().map(Vec::len).sum::<usize>(), records as usize, "exactly once");
    for (n, receipt) in receipts {
        let acked = receipt.await.unwrap();
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
