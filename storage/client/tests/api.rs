//! What the library promises beside exactly-once: starts, ends, limits, typed errors, the way to a core.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

// Each test file is a crate of its own and uses a part of it.
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
mod support;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_client::wire::{
    AckMode, BatchBuilder, ErrorCode, Header, Position, StreamConfig, StreamDescription,
};
use highwater_client::*;
use support::{Faults, Server};
use tokio::net::TcpListener;

async fn setup(shards: usize) -> (Server, Client, StreamDescription) {
    let server = Server::start(shards, Faults::default()).await;
    let client = connect(&server, ClientOptions::default().request_timeout).await;
    let stream = client.describe_stream("s").await.unwrap();
    (server, client, stream)
}

async fn connect(server: &Server, request_timeout: Duration) -> Client {
    let retry = RetryPolicy { first: Duration::from_millis(1), ..RetryPolicy::default() };
    let options = ClientOptions { retry, request_timeout, ..ClientOptions::default() };
    Client::connect(&server.target(), options).await.unwrap()
}

/// Soon misses a reply that does not come. What is asked of it has to be asked [`patiently`].
const IMPATIENT: Duration = Duration::from_millis(100);

async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, ClientError>) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.retriable(), "{error}"),
        }
    }
}

/// The payloads of the next delivery.
async fn read(consumer: &mut ShardConsumer) -> Vec<Vec<u8>> {
    let delivery = consumer.next().await.unwrap().unwrap();
    delivery.records().map(|r| r.payload.to_vec()).collect()
}

#[tokio::test]
async fn streams_and_positions_by_the_control_requests() {
    let (_server, client, _) = setup(1).await;
    let config = StreamConfig {
        shards: 4,
        retention_ms: 0,
        retention_bytes: 0,
        ack: AckMode::Durable,
        ..StreamConfig::default()
    };
    let created = client.create_stream("new", config.clone()).await.unwrap();
    assert_eq!(created.shards.len(), 4);
    let again = client.create_stream("new", config).await.unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::StreamExists));
    assert!(!again.retriable());
    assert_eq!(client.list_streams().await.unwrap().len(), 2);
    client.delete_stream("new").await.unwrap();
    let gone = client.describe_stream("new").await.unwrap_err();
    assert_eq!(gone.code(), Some(ErrorCode::UnknownStream));

    let positions = [Position { shard: 0, sequence: 7 }];
    client.commit_positions("g", "s", &positions).await.unwrap();
    assert_eq!(client.fetch_positions("g", "s").await.unwrap(), positions);
    assert_eq!(client.list_groups("").await.unwrap(), []);
    client.snapshot().await.unwrap();
    assert_eq!(client.info().server, "test");
}

#[tokio::test]
async fn every_start_begins_where_it_says() {
    let (server, client, stream) = setup(1).await;
    server.store(0, 100, &[b"0", b"1"]);
    server.store(0, 200, &[b"2"]);
    server.store(0, 300, &[b"3"]);
    let table: [(Start, &[u8]); 8] = [
        (Start::Oldest, b"0123"),
        (Start::At(0), b"0123"),
        (Start::At(1), b"123"),
        (Start::After(1), b"23"),
        (Start::After(3), b""),
        (Start::Time(200), b"23"),
        (Start::Time(201), b"3"),
        (Start::Latest, b""),
    ];
    let mut consumers = Vec::new();
    for (start, expected) in table {
        let options = ConsumerOptions { end: Some(5), ..ConsumerOptions::default() };
        consumers.push((client.consumer(&stream, 0, start, options).await.unwrap(), expected));
    }
    // What comes later reaches all of them.
    server.store(0, 400, &[b"4", b"5"]);
    for (consumer, expected) in &mut consumers {
        let mut found = Vec::new();
        while let Some(delivery) = consumer.next().await.unwrap() {
            found.extend(delivery.records().flat_map(|r| r.payload.to_vec()));
            assert_eq!(delivery.high_water, 6);
        }
        assert_eq!(found, [*expected, b"4"].concat());
        assert_eq!(consumer.position(), 5, "the end is not passed");
    }
}

#[tokio::test]
async fn records_are_pushed_as_they_come_and_the_reader_may_lose_patience() {
    let (server, client, stream) = setup(1).await;
    let mut consumer =
        client.consumer(&stream, 0, Start::Latest, ConsumerOptions::default()).await.unwrap();
    for n in 0..20u8 {
        // Asked and given up on: nothing is lost.
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(consumer.next()).poll(&mut context).is_pending());
        server.store(0, 1, &[&[n]]);
        assert_eq!(read(&mut consumer).await, [[n]]);
    }
    assert_eq!(server.world().subscriptions, 1);
}

#[tokio::test]
async fn more_than_the_credit_is_read_because_credit_is_given_back() {
    let (server, client, stream) = setup(1).await;
    let payload = vec![7; 400_000];
    for _ in 0..20 {
        server.store(0, 1, &[&payload]);
    }
    let options = ConsumerOptions { credit_bytes: 1, end: Some(20), ..ConsumerOptions::default() };
    let mut consumer = client.consumer(&stream, 0, Start::Oldest, options).await.unwrap();
    let mut records = 0;
    while let Some(delivery) = consumer.next().await.unwrap() {
        assert!(delivery.records().all(|r| r.payload == payload));
        records += delivery.records().count();
    }
    assert_eq!(records, 20);
}

#[tokio::test]
async fn the_server_is_told_when_deliveries_were_handed_out() {
    let (server, client, stream) = setup(1).await;
    let mut consumer =
        client.consumer(&stream, 0, Start::Oldest, ConsumerOptions::default()).await.unwrap();
    let told = |count: usize| {
        let server = &server;
        async move {
            while server.world().receipts.len() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    let wall_ns = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut within = Vec::new();
    for n in 0..3u8 {
        server.store(0, 1, &[&[n]]);
        let before = wall_ns();
        assert_eq!(read(&mut consumer).await, [[n]]);
        within.push((u64::from(n) + 1, before..=wall_ns()));
    }
    // Credit is not due for long, and nothing more comes.
    tokio::select! {
        delivery = consumer.next() => panic!("{delivery:?}"),
        () = told(3) => {}
    }
    for (receipt, (next, within)) in server.world().receipts.iter().zip(&within) {
        assert_eq!(receipt.next.to_native(), *next);
        assert!(within.contains(&receipt.received_ns.to_native()), "{receipt:?} {within:?}");
    }
    // One that leaves tells the rest.
    server.store(0, 1, &[b"last"]);
    assert_eq!(read(&mut consumer).await, [b"last"]);
    drop(consumer);
    told(4).await;
}

#[tokio::test]
async fn trimmed_records_are_an_error_or_counted_as_chosen() {
    let (server, client, stream) = setup(1).await;
    for n in 0..5u8 {
        server.store(0, 1, &[&[n]]);
    }
    server.world().shards[0].oldest = 3;
    let trimmed = ConsumeError::Trimmed { position: 1, oldest: 3 };
    let options = ConsumerOptions::default();
    let mut failing = client.consumer(&stream, 0, Start::At(1), options).await.unwrap();
    assert_eq!(failing.next().await.unwrap_err(), trimmed);
    assert_eq!(failing.next().await.unwrap_err(), trimmed, "asked again, it says so again");

    let options =
        ConsumerOptions { on_trimmed: OnTrimmed::ContinueAtOldest, ..ConsumerOptions::default() };
    let mut going_on = client.consumer(&stream, 0, Start::At(1), options).await.unwrap();
    let delivery = going_on.next().await.unwrap().unwrap();
    assert_eq!((delivery.from(), delivery.trimmed), (3, 2));
    going_on.seek(3);
    assert_eq!(read(&mut going_on).await, [[3], [4]]);
    assert_eq!((going_on.trimmed(), going_on.position()), (2, 5));

    // Told as well where nothing is left behind it.
    let to_the_end = ConsumerOptions {
        on_trimmed: OnTrimmed::ContinueAtOldest,
        end: Some(3),
        ..ConsumerOptions::default()
    };
    let mut ends = client.consumer(&stream, 0, Start::At(1), to_the_end).await.unwrap();
    let delivery = ends.next().await.unwrap().unwrap();
    assert_eq!((delivery.records().count(), delivery.next, delivery.trimmed), (0, 3, 2));
    assert!(ends.next().await.unwrap().is_none());

    let options = ConsumerOptions::default();
    let mut beyond = client.consumer(&stream, 0, Start::At(9), options).await.unwrap();
    let error = ConsumeError::BeyondEnd { position: 9, high_water: 5 };
    assert_eq!(beyond.next().await.unwrap_err(), error);
}

#[tokio::test]
async fn a_damaged_batch_is_named_and_not_passed_over() {
    let (server, client, stream) = setup(1).await;
    server.store(0, 1, &[b"good"]);
    server.store(0, 1, &[b"bad"]);
    let last = server.world().shards[0].batches[1].1.len() - 1;
    server.world().shards[0].batches[1].1[last] ^= 1;
    let options = ConsumerOptions::default();
    let mut consumer = client.consumer(&stream, 0, Start::At(1), options).await.unwrap();
    let error = consumer.next().await.unwrap_err();
    assert!(matches!(error, ConsumeError::Corrupt { position: 1, .. }), "{error}");
    let fetched = client.fetch(&stream, 0, 1, FetchOptions::default()).await.unwrap_err();
    assert!(matches!(fetched, ClientError::Corrupt(_)));
    let trusting = FetchOptions { verify_crc: false, ..FetchOptions::default() };
    assert_eq!(client.fetch(&stream, 0, 1, trusting).await.unwrap().delivery.records().count(), 1);
}

#[tokio::test]
async fn a_fetch_gives_the_records_from_the_position_on() {
    let (server, client, stream) = setup(1).await;
    server.store(0, 1, &[b"0", b"1", b"2"]);
    let fetched = client.fetch(&stream, 0, 1, FetchOptions::default()).await.unwrap();
    let sequences: Vec<_> = fetched.delivery.records().map(|r| r.sequence).collect();
    assert_eq!((sequences, fetched.delivery.next), (vec![1, 2], 3));
    let missing = client.fetch(&stream, 8, 0, FetchOptions::default()).await.unwrap_err();
    assert!(matches!(missing, ClientError::NoShard { shard: 8, shards: 1, .. }));
}

#[tokio::test]
async fn records_that_cannot_be_sent_are_refused_at_once() {
    let (server, client, stream) = setup(1).await;
    let producer = client.producer("s", ProducerOptions::default()).await.unwrap();
    let large = vec![0; (1 << 20) + 1];
    let error = producer.send(Record::new(b"", &large)).await.unwrap_err();
    assert_eq!(error, SendError::RecordTooLarge { bytes: (1 << 20) + 1, limit: 1 << 20 });
    let error = producer.send(Record::new(&[b'k'; 257], b"")).await.unwrap_err();
    assert_eq!(error, SendError::KeyTooLong { chars: 257, limit: 256 });
    assert_eq!(producer.send(Record::new(&[0xff], b"")).await.unwrap_err(), SendError::KeyNotUtf8);
    producer.send(Record::new(b"k", &large[..1 << 19])).await.unwrap().await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(producer.send(Record::new(b"", b"")).await.unwrap_err(), SendError::Closed);
    assert_eq!(server.world().shards[0].next, 1);

    let (mut appender, _acks) =
        client.appender(&stream, 0, AppenderOptions::default()).await.unwrap();
    let mut builder = BatchBuilder::default();
    assert_eq!(appender.append(&mut builder, 0).await, Err(AppendError::Empty));
    builder.push(b"", &[], &vec![0; 2 << 20], 0).unwrap();
    let error = appender.append(&mut builder, 0).await.unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }));
    assert_eq!(builder.record_count(), 1, "the batch is left as it is");
}

#[tokio::test]
async fn a_dropped_producer_still_sends_what_it_accepted() {
    let (server, client, stream) = setup(1).await;
    let linger = Duration::from_secs(3600);
    let options = ProducerOptions { linger, ..ProducerOptions::default() };
    let producer = client.producer("s", options).await.unwrap();
    let receipt = producer.send(Record::new(b"k", b"payload")).await.unwrap();
    drop(producer);
    assert_eq!(receipt.await.unwrap(), Acked { shard: 0, sequence: 0 });
    assert_eq!(server.world().shards[0].records().len(), 1);
    drop(stream);
}

/// It went only once it had lingered.
#[tokio::test]
async fn a_full_batch_goes_although_the_record_that_had_no_room_in_it_cannot_be_encoded() {
    let (_server, client, _) = setup(1).await;
    let linger = Duration::from_secs(3600);
    let options = ProducerOptions { batch_bytes: 4 << 10, linger, ..ProducerOptions::default() };
    let producer = client.producer("s", options).await.unwrap();
    let receipt = producer.send(Record::new(b"k", b"payload")).await.unwrap();
    // Until its driver has nothing to do but to wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let value = vec![0; 1 << 16];
    let headers = [Header { name: "n", value: &value }];
    let refused = producer.send(Record { headers: &headers, ..Record::default() }).await;
    assert!(matches!(refused, Err(SendError::Encode(_))), "{refused:?}");
    assert_eq!(receipt.await.unwrap(), Acked { shard: 0, sequence: 0 });
}

/// Drivers panicked over their sum with the time it is, and what had been appended was never decided.
#[tokio::test]
async fn times_may_be_as_long_as_they_like() {
    let server = Server::start(1, Faults::default()).await;
    let (first, deadline) = (Duration::from_millis(1), Duration::MAX);
    let retry = RetryPolicy { first, max: Duration::MAX, deadline };
    let (connect_timeout, request_timeout) = (Duration::MAX, Duration::MAX);
    let options =
        ClientOptions { connect_timeout, request_timeout, retry, ..ClientOptions::default() };
    let client = Client::connect(&server.target(), options).await.unwrap();
    let options = ProducerOptions { linger: Duration::MAX, ..ProducerOptions::default() };
    let producer = client.producer("s", options).await.unwrap();
    let before = producer.send(Record::new(b"k", b"before")).await.unwrap();
    // Until its driver has nothing to do but to wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    producer.flush().await.unwrap();
    assert_eq!(before.await.unwrap(), Acked { shard: 0, sequence: 0 });
    // The way to those that took over has its deadline, too.
    server.world().split(0);
    let after = producer.send(Record::new(b"k", b"after")).await.unwrap();
    producer.close().await.unwrap();
    assert_ne!(after.await.unwrap().shard, 0);
}

#[tokio::test]
async fn sending_waits_while_the_memory_is_spent() {
    let (server, _, _) = setup(1).await;
    let client = connect(&server, IMPATIENT).await;
    server.world().swallow = true;
    let linger = Duration::from_secs(3600);
    let options = ProducerOptions { memory: 1, linger, ..ProducerOptions::default() };
    let producer = patiently(async || client.producer("s", options.clone()).await).await;
    let payload = vec![0; 1 << 19];
    let mut context = Context::from_waker(Waker::noop());
    let first = producer.send(Record::new(b"", &payload)).await.unwrap();
    {
        let mut waiting = pin!(producer.send(Record::new(b"", &payload)));
        // The memory is raised to one largest batch, which these do not quite fill together.
        let Poll::Ready(second) = waiting.as_mut().poll(&mut context) else {
            panic!("waits early")
        };
        drop(second.unwrap());
    }
    let mut waiting = pin!(producer.send(Record::new(b"", &payload)));
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    server.world().swallow = false;
    let third = waiting.await.unwrap();
    producer.flush().await.unwrap();
    assert_eq!(first.await.unwrap().sequence, 0);
    assert_eq!(third.await.unwrap().sequence, 2);
}

#[tokio::test]
async fn a_final_refusal_reaches_every_record_of_its_batch_and_the_producer_goes_on() {
    let (server, client, _) = setup(1).await;
    server.world().refuse_all = Some(ErrorCode::ShardDamaged);
    let producer = client.producer("s", ProducerOptions::default()).await.unwrap();
    let receipts =
        [producer.send(Record::new(b"", b"0")).await, producer.send(Record::new(b"", b"1")).await];
    for receipt in receipts {
        let error = receipt.unwrap().await.unwrap_err();
        let SendError::Append(AppendError::NotStored(cause)) = error else { panic!("{error}") };
        assert_eq!(cause.code(), Some(ErrorCode::ShardDamaged));
    }
    server.world().refuse_all = None;
    let acked = producer.send(Record::new(b"", b"2")).await.unwrap().await.unwrap();
    assert_eq!(acked, Acked { shard: 0, sequence: 0 });
    assert_eq!(server.world().producers, 1, "nothing was ambiguous: the same producer id");
}

#[tokio::test]
async fn without_idempotence_an_unknown_fate_is_final() {
    let (server, _, stream) = setup(1).await;
    let client = connect(&server, IMPATIENT).await;
    server.world().swallow = true;
    let options = AppenderOptions { idempotent: false, inflight: 2, ..AppenderOptions::default() };
    let (mut appender, mut acks) =
        patiently(async || client.appender(&stream, 0, options.clone()).await).await;
    let mut builder = BatchBuilder::default();
    builder.push(b"", &[], b"x", 0).unwrap();
    appender.append(&mut builder, 5).await.unwrap();
    let ack = acks.recv().await.unwrap();
    let Err(Fate::Failed(AppendError::FateUnknown(why))) = ack.whole() else { panic!("{ack:?}") };
    assert!(matches!(why, ClientError::TimedOut { .. }), "{why}");
    assert_eq!((ack.tag, server.world().producers), (5, 0));
}

#[tokio::test]
async fn a_core_port_that_cannot_be_reached_is_replaced_by_the_target() {
    let (server, client, _) = setup(1).await;
    // A port nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    server.world().core_port = closed;
    let producer = client.producer("s", ProducerOptions::default()).await.unwrap();
    assert_eq!(producer.stream().shards[0].port, closed);
    producer.send(Record::new(b"k", b"x")).await.unwrap().await.unwrap();
    let located = client.locate(producer.stream(), 0, Start::Latest).await.unwrap();
    assert_eq!(located, Located { sequence: 1, oldest: 0, high_water: 1 });
}

#[tokio::test]
async fn what_is_no_server_is_told_from_what_is_not_there() {
    let options = ClientOptions::default();
    let error = Client::connect("nowhere", options.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Target { .. }), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hello = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, hello).await.unwrap();
        stream
    });
    let error = Client::connect(&target, options.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error}");
    drop(other.await.unwrap());
    let error = Client::connect(&target, options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io { .. }), "{error}");
}

#[test]
fn handles_may_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Client>();
    crosses::<Producer>();
    crosses::<Receipt>();
    crosses::<Appender>();
    crosses::<Acks>();
    crosses::<ShardConsumer>();
    crosses::<Delivery>();
}
