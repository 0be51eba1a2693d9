//! Groups that settle record by record: one bad record stops nothing, whoever dies leaves nothing behind, and what is given
//! up can be had again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use highwater_client::wire::{
    BreakerState, DeliveryConfig, ErrorCode, GroupDelivery, Outcome, Position, SequenceRange,
    Settlement, TrimBefore,
};
use highwater_client::{
    Client, ClientOptions, ConsumerOptions, GroupEvent, GroupOptions, Lot, RecordConsumer,
    RecordOptions, Start,
};
use tokio::runtime::Runtime;

use crate::support::{Server, scratch};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(server: &Server) -> Client {
    Client::connect(&server.addr, ClientOptions::default()).await.unwrap()
}

fn quick() -> DeliveryConfig {
    DeliveryConfig { retry_after_ms: 1, ..DeliveryConfig::default() }
}

/// As far as is there when a shard is begun.
fn to_the_end(most: u32) -> RecordOptions {
    RecordOptions {
        most,
        until: Some(Arc::new(|shard| Some(shard.high_water))),
        ..RecordOptions::default()
    }
}

fn lines(count: usize, bad: &[usize]) -> Vec<u8> {
    let line = |n| if bad.contains(&n) { format!("poison {n}\n") } else { format!("line {n}\n") };
    (0..count).map(line).collect::<String>().into_bytes()
}

fn payloads(lot: &Lot) -> Vec<String> {
    lot.records().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()).collect()
}

/// How often each payload was processed.
type Seen = BTreeMap<String, u32>;

/// Processes everything; a lot with poison in it fails as a whole.
async fn work(consumer: &mut RecordConsumer, poison: &str, seen: &mut Seen) {
    while let Some(lot) = consumer.next().await.unwrap() {
        let found = payloads(&lot);
        assert_eq!(found.len() as u64, lot.range().end - lot.range().start);
        if found.iter().any(|payload| payload.contains(poison)) {
            let reason = format!("{poison} in it");
            consumer.settle(lot, Outcome::Failed { reason }).await.unwrap();
        } else {
            consumer.settle(lot, Outcome::Done).await.unwrap();
            found.into_iter().for_each(|payload| *seen.entry(payload).or_default() += 1);
        }
    }
}

async fn delivery(client: &Client) -> GroupDelivery {
    client.describe_group("g").await.unwrap().remove(0).delivery.unwrap()
}

/// The records of a stream of one shard: payload and headers.
async fn letters(client: &Client, stream: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let stream = client.describe_stream(stream).await.unwrap();
    let end = Some(stream.shards[0].high_water);
    let options = ConsumerOptions { end, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(&stream, 0, Start::Oldest, options).await.unwrap();
    let mut letters = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    while let Some(delivery) = consumer.next().await.unwrap() {
        letters.extend(delivery.records().map(|record| {
            let headers = record.headers().map(|h| (h.name.to_owned(), text(h.value)));
            (text(record.payload), headers.collect())
        }));
    }
    letters
}

#[test]
fn one_bad_record_in_ten_thousand_is_the_only_dead_letter_and_redrive_has_it_again() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    assert!(server.put("s", &lines(10_000, &[7_654]), &[]).status.success());
    runtime().block_on(async {
        let client = connect(&server).await;
        client.set_group("g", "s", Some(quick())).await.unwrap();
        let mut seen = Seen::new();
        let mut consumer = client.record_consumer("g", "s", to_the_end(100)).await.unwrap();
        work(&mut consumer, "poison", &mut seen).await;
        consumer.close().await.unwrap();
        assert_eq!(seen.len(), 9_999);
        let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");

        let letters_now = letters(&client, "s.g.dead").await;
        assert_eq!(letters_now.len(), 1, "{letters_now:?}");
        let (payload, headers) = &letters_now[0];
        assert_eq!(payload, "poison 7654");
        let header = |name: &str| headers[name].as_str();
        assert_eq!((header("reason"), header("attempts")), ("poison in it", "3"));
        assert_eq!((header("origin-group"), header("origin-stream")), ("g", "s"));
        let told = delivery(&client).await;
        assert_eq!((told.done, told.buried, told.lost), (9_999, 1, 0));
        assert_eq!((told.in_hand, told.waiting, told.to_bury), (0, 0, 0));
        assert_eq!(told.dead_letters, "s.g.dead");
        let groups = client.describe_group("g").await.unwrap();
        assert!(groups[0].shards.iter().all(|shard| shard.backlog_records == 0));

        // The consumer is mended.
        let (shard, sequence) = (header("origin-shard"), header("origin-sequence"));
        let (shard, from): (u32, u64) = (shard.parse().unwrap(), sequence.parse().unwrap());
        let range = SequenceRange { from, to: from + 1 };
        let redriven = client.redrive("g", "s", shard, &[range]).await.unwrap();
        assert_eq!((redriven.given, redriven.gone), (1, vec![]));
        client.trim_stream("s.g.dead", None, TrimBefore::Sequence(1)).await.unwrap();
        let mut consumer = client.record_consumer("g", "s", to_the_end(100)).await.unwrap();
        work(&mut consumer, "nothing", &mut seen).await;
        consumer.close().await.unwrap();
        assert_eq!((seen.len(), seen["poison 7654"]), (10_000, 1));
        assert!(seen.values().all(|times| *times == 1));
        assert!(letters(&client, "s.g.dead").await.is_empty());
        let told = delivery(&client).await;
        assert_eq!((told.done, told.buried, told.waiting), (10_000, 1, 0));
    });
}

#[test]
fn what_a_filter_leaves_out_counts_as_processed() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &lines(5_000, &[40, 3_000]), &[]).status.success());
    runtime().block_on(async {
        let client = connect(&server).await;
        client.set_group("g", "s", Some(quick())).await.unwrap();
        let mut options = to_the_end(10);
        options.consumer.filter = Some("payload.endsWith('00') || seq == 40".to_owned());
        let mut seen = Seen::new();
        let mut consumer = client.record_consumer("g", "s", options).await.unwrap();
        while let Some(lot) = consumer.next().await.unwrap() {
            let found = payloads(&lot);
            assert!((1..=10).contains(&found.len()), "{found:?}");
            // Both bad ones come alone in the end.
            if found.iter().any(|payload| payload.contains("poison")) {
                let reason = "poison".to_owned();
                consumer.settle(lot, Outcome::Failed { reason }).await.unwrap();
            } else {
                consumer.settle(lot, Outcome::Done).await.unwrap();
                found.into_iter().for_each(|payload| *seen.entry(payload).or_default() += 1);
            }
        }
        consumer.close().await.unwrap();
        let wanted = (1..50).filter(|n| *n != 30).map(|n| (format!("line {}", n * 100), 1));
        assert_eq!(seen, wanted.collect());
        let told = delivery(&client).await;
        assert_eq!((told.done, told.buried, told.waiting), (4_998, 2, 0));
        let mut origins: Vec<String> =
            letters(&client, "s.g.dead").await.into_iter().map(|(payload, _)| payload).collect();
        // Each is tried again by itself: whichever is given up first.
        origins.sort();
        assert_eq!(origins, ["poison 3000", "poison 40"]);
    });
}

#[test]
fn a_record_that_the_member_names_fails_alone() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &lines(100, &[42]), &[]).status.success());
    runtime().block_on(async {
        let client = connect(&server).await;
        let config = DeliveryConfig { attempts: 2, dead_letters: "graves".into(), ..quick() };
        client.set_group("g", "s", Some(config)).await.unwrap();
        let mut consumer = client.record_consumer("g", "s", to_the_end(30)).await.unwrap();
        let mut lots = Vec::new();
        while let Some(lot) = consumer.next().await.unwrap() {
            let range = lot.range();
            lots.push((range.clone(), lot.attempt(), lot.again()));
            let settlement = |from, to, outcome| Settlement { from, to, outcome };
            let failed = Outcome::Failed { reason: "odd".to_owned() };
            let settlements = match range.contains(&42) {
                false => vec![settlement(range.start, range.end, Outcome::Done)],
                true => vec![
                    settlement(range.start, 42, Outcome::Done),
                    settlement(42, 43, failed),
                    settlement(43, range.end, Outcome::Done),
                ],
            };
            consumer.settle_each(lot, settlements).await.unwrap();
        }
        consumer.close().await.unwrap();
        let again: Vec<_> = lots.iter().filter(|(_, _, again)| *again).collect();
        assert_eq!(again, [&(42..43, 2, true)], "{lots:?}");
        let letters = letters(&client, "graves").await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].1["origin-sequence"], "42");
    });
}

#[test]
fn what_a_dead_member_had_in_hand_is_worked_on_by_others() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &lines(500, &[]), &[]).status.success());
    let zombie = runtime();
    let mut seen = Seen::new();
    let (mut consumer, lot) = zombie.block_on(async {
        let client = connect(&server).await;
        client.set_group("g", "s", Some(quick())).await.unwrap();
        let session_timeout = Duration::from_millis(300);
        let options = RecordOptions { session_timeout, ..to_the_end(100) };
        let mut consumer = client.record_consumer("g", "s", options).await.unwrap();
        let lot = consumer.next().await.unwrap().unwrap();
        payloads(&lot).into_iter().for_each(|payload| *seen.entry(payload).or_default() += 1);
        consumer.settle(lot, Outcome::Done).await.unwrap();
        let lot = consumer.next().await.unwrap().unwrap();
        (consumer, lot)
    });
    // Nothing of the zombie's runtime runs from here on: no heartbeat.
    let range = lot.range();
    runtime().block_on(async {
        let client = connect(&server).await;
        let mut heir = client.record_consumer("g", "s", to_the_end(1_000)).await.unwrap();
        work(&mut heir, "nothing", &mut seen).await;
        heir.close().await.unwrap();
        assert!(seen.len() == 500 && seen.values().all(|times| *times == 1), "{seen:?}");
        let told = delivery(&client).await;
        assert_eq!((told.done, told.redelivered), (500, range.end - range.start));
    });
    zombie.block_on(async {
        let error = consumer.settle(lot, Outcome::Done).await.unwrap_err();
        let code = error.code().unwrap();
        assert!(matches!(code, ErrorCode::LeaseLost | ErrorCode::UnknownMember), "{code:?}");
    });
}

#[test]
fn a_second_member_takes_its_part_and_nothing_is_done_twice() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 4);
    let payload = |n| format!("{{\"key\":\"k{}\",\"n\":{n}}}\n", n % 50);
    let input = (0..4_000).map(payload).collect::<String>().into_bytes();
    let put = server.put("s", &input, &["--format", "json", "--key", "key"]);
    assert!(put.status.success());
    let addr = &server.addr;
    let (joined, wait) = channel();
    let second = |seen: &mut Seen| {
        runtime().block_on(async {
            let client = Client::connect(addr, ClientOptions::default()).await.unwrap();
            let mut consumer = client.record_consumer("g", "s", to_the_end(10)).await.unwrap();
            joined.send(()).unwrap();
            work(&mut consumer, "nothing", seen).await;
            consumer.close().await.unwrap();
        });
    };
    let (mut here, mut there) = (Seen::new(), Seen::new());
    std::thread::scope(|scope| {
        runtime().block_on(async {
            let client = connect(&server).await;
            client.set_group("g", "s", Some(quick())).await.unwrap();
            let mut consumer = client.record_consumer("g", "s", to_the_end(10)).await.unwrap();
            // In hand while the other comes.
            let lots = [consumer.next().await.unwrap(), consumer.next().await.unwrap()];
            let (second, there) = (second, &mut there);
            scope.spawn(move || second(there));
            tokio::task::spawn_blocking(move || wait.recv().unwrap()).await.unwrap();
            for lot in lots.into_iter().flatten() {
                let found = payloads(&lot);
                consumer.settle(lot, Outcome::Done).await.unwrap();
                found.into_iter().for_each(|payload| *here.entry(payload).or_default() += 1);
            }
            work(&mut consumer, "nothing", &mut here).await;
            consumer.close().await.unwrap();
        });
    });
    for (payload, times) in there {
        *here.entry(payload).or_default() += times;
    }
    assert_eq!(here.len(), 4_000);
    assert!(here.values().all(|times| *times == 1), "{:?}", here.iter().find(|(_, n)| **n > 1));
}

/// It had gone on with all of them, and lost what it had in hand when the session's time was over.
#[test]
fn a_member_that_has_read_everything_still_gives_up_what_others_are_to_have() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    let payload = |n| format!("{{\"key\":\"k{}\",\"n\":{n}}}\n", n % 50);
    let input = (0..200).map(payload).collect::<String>().into_bytes();
    assert!(server.put("s", &input, &["--format", "json", "--key", "key"]).status.success());
    let addr = &server.addr;
    let (got, wait) = channel();
    let second = || {
        runtime().block_on(async {
            let client = Client::connect(addr, ClientOptions::default()).await.unwrap();
            let mut consumer = client.record_consumer("g", "s", to_the_end(10)).await.unwrap();
            let lot = consumer.next().await.unwrap().unwrap();
            consumer.settle(lot, Outcome::Done).await.unwrap();
            got.send(()).unwrap();
            consumer.close().await.unwrap();
        });
    };
    std::thread::scope(|scope| {
        runtime().block_on(async {
            let client = connect(&server).await;
            client.set_group("g", "s", Some(quick())).await.unwrap();
            // It is not taken from it either.
            let session_timeout = Duration::from_secs(300);
            let options = RecordOptions { session_timeout, ..to_the_end(10) };
            let mut consumer = client.record_consumer("g", "s", options).await.unwrap();
            let mut second = Some(second);
            let given_up = tokio::time::timeout(Duration::from_secs(60), async {
                // What is given back comes again: there is always something to do.
                for round in 0.. {
                    if round == 100 {
                        second.take().into_iter().for_each(|second| drop(scope.spawn(second)));
                    }
                    let lot = consumer.next().await.unwrap().unwrap();
                    consumer.settle(lot, Outcome::Released).await.unwrap();
                    if wait.try_recv().is_ok() {
                        break;
                    }
                }
            });
            let given_up = given_up.await.is_ok();
            consumer.close().await.unwrap();
            assert!(given_up, "it went on with all there is");
        });
    });
}

#[test]
fn a_killed_server_remembers_what_was_settled_and_what_failed() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("s", 1);
    assert!(server.put("s", &lines(1_000, &[5]), &[]).status.success());
    let mut seen = Seen::new();
    runtime().block_on(async {
        let client = connect(&server).await;
        // Once would do, and the second attempt comes after the crash.
        let config = DeliveryConfig { attempts: 2, retry_after_ms: 60_000, ..quick() };
        client.set_group("g", "s", Some(config)).await.unwrap();
        let mut consumer = client.record_consumer("g", "s", to_the_end(10)).await.unwrap();
        for _ in 0..50 {
            let lot = consumer.next().await.unwrap().unwrap();
            let found = payloads(&lot);
            if !lot.range().contains(&5) {
                consumer.settle(lot, Outcome::Done).await.unwrap();
                found.into_iter().for_each(|payload| *seen.entry(payload).or_default() += 1);
                continue;
            }
            let failed = Outcome::Failed { reason: "five".to_owned() };
            let odd = Settlement { from: 5, to: 6, outcome: failed };
            let range = lot.range();
            let rest = [(range.start, 5), (6, range.end)].map(|(from, to)| Settlement {
                from,
                to,
                outcome: Outcome::Done,
            });
            let settlements = rest.into_iter().chain([odd]).collect();
            consumer.settle_each(lot, settlements).await.unwrap();
            let done = found.into_iter().filter(|payload| !payload.contains("poison"));
            done.for_each(|payload| *seen.entry(payload).or_default() += 1);
        }
        // In hand, and lost with the server.
        let _lost = consumer.next().await.unwrap().unwrap();
    });
    assert_eq!(seen.len(), 499);
    server.kill();
    let server = Server::start(&data);
    runtime().block_on(async {
        let client = connect(&server).await;
        let told = delivery(&client).await;
        assert_eq!((told.config.attempts, told.waiting), (2, 1));
        let mut consumer = client.record_consumer("g", "s", to_the_end(100)).await.unwrap();
        work(&mut consumer, "poison", &mut seen).await;
        consumer.close().await.unwrap();
        assert!(seen.len() == 999 && seen.values().all(|times| *times == 1), "{}", seen.len());
        let letters = letters(&client, "s.g.dead").await;
        assert_eq!((letters.len(), letters[0].1["attempts"].as_str()), (1, "2"));
    });
}

#[test]
fn the_breaker_stops_a_flood_of_dead_letters() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &lines(200, &[]), &[]).status.success());
    runtime().block_on(async {
        let client = connect(&server).await;
        let config = DeliveryConfig {
            attempts: 1,
            breaker_permille: 500,
            // A slow machine settles twenty in that, too.
            breaker_window_ms: 5_000,
            ..quick()
        };
        client.set_group("g", "s", Some(config)).await.unwrap();
        let mut consumer = client.record_consumer("g", "s", to_the_end(1)).await.unwrap();
        let mut tried = 0;
        let error = loop {
            match consumer.next().await {
                Ok(lot) => {
                    let failed = Outcome::Failed { reason: "the database is away".to_owned() };
                    consumer.settle(lot.unwrap(), failed).await.unwrap();
                    tried += 1;
                }
                Err(error) => break error,
            }
        };
        let refused = format!("{error}");
        assert!(refused.contains("breaker is open"), "{refused}");
        assert!((20..200).contains(&tried), "{tried} of 200");
        let told = delivery(&client).await;
        assert_eq!((told.breaker, told.in_hand), (BreakerState::Open, 0));
        // Asked again it waits, and then one record decides.
        let lot = consumer.next().await.unwrap().unwrap();
        assert_eq!(lot.range().end - lot.range().start, 1);
        assert_eq!(delivery(&client).await.breaker, BreakerState::HalfOpen);
        consumer.settle(lot, Outcome::Done).await.unwrap();
        assert_eq!(delivery(&client).await.breaker, BreakerState::Closed);
        let mut seen = Seen::new();
        work(&mut consumer, "nothing", &mut seen).await;
        consumer.close().await.unwrap();
        assert_eq!(seen.len() + 1 + tried, 200);
        assert_eq!(letters(&client, "s.g.dead").await.len(), tried);
    });
}

#[test]
fn children_of_a_split_are_handed_out_once_their_parents_are_settled() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    let line = |n| format!("{{\"key\":\"k{}\",\"n\":{n}}}\n", n % 20);
    let put = |range: std::ops::Range<u32>| {
        let input = range.map(line).collect::<String>().into_bytes();
        assert!(server.put("s", &input, &["--format", "json", "--key", "key"]).status.success());
    };
    put(0..500);
    server.ok(&["stream", "reshard", "s", "--shards", "5"]);
    // Nothing comes into these: they end where they begin.
    server.ok(&["stream", "reshard", "s", "--shards", "3"]);
    put(500..1_000);
    runtime().block_on(async {
        let client = connect(&server).await;
        client.set_group("g", "s", Some(quick())).await.unwrap();
        let mut seen = Seen::new();
        let mut consumer = client.record_consumer("g", "s", to_the_end(50)).await.unwrap();
        work(&mut consumer, "nothing", &mut seen).await;
        consumer.close().await.unwrap();
        assert!(seen.len() == 1_000 && seen.values().all(|times| *times == 1), "{}", seen.len());
    });
}

#[test]
fn a_group_is_of_one_kind_or_the_other() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &lines(10, &[]), &[]).status.success());
    runtime().block_on(async {
        let client = connect(&server).await;
        let odd = [
            (DeliveryConfig { attempts: 0, ..quick() }, "attempts is 0; 1 to 1000 are allowed"),
            (DeliveryConfig { timeout_ms: 5, ..quick() }, "timeout_ms is 5"),
            (DeliveryConfig { dead_letters: "s".into(), ..quick() }, "the stream itself"),
            (DeliveryConfig { dead_letters: "a b".into(), ..quick() }, "dead_letters \"a b\""),
            (DeliveryConfig { breaker_permille: 1_001, ..quick() }, "breaker_permille is 1001"),
        ];
        for (config, words) in odd {
            let error = client.set_group("g", "s", Some(config)).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let wrong = |error: highwater_client::ClientError| {
            assert_eq!(error.code(), Some(ErrorCode::WrongDelivery), "{error}");
        };
        let mut consumer = client.record_consumer("g", "s", to_the_end(10)).await.unwrap();
        match consumer.next().await.unwrap_err() {
            highwater_client::ConsumeError::Client(error) => wrong(error),
            error => panic!("{error}"),
        }
        let error = client.set_group("g", "s", Some(quick())).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::GroupActive), "{error}");
        consumer.close().await.unwrap();

        client.set_group("g", "s", Some(quick())).await.unwrap();
        let position = Position { shard: 0, sequence: 1 };
        wrong(client.commit_positions("g", "s", &[position]).await.unwrap_err());
        let mut consumer = client.group_consumer("g", "s", GroupOptions::default()).await.unwrap();
        while !matches!(consumer.next().await.unwrap(), Some(GroupEvent::Records { .. })) {}
        consumer.done(0, 10);
        wrong(consumer.commit().await.unwrap_err());
        consumer.close().await.unwrap();
        client.set_group("g", "s", None).await.unwrap();
        client.commit_positions("g", "s", &[Position { shard: 0, sequence: 1 }]).await.unwrap();
        let groups = client.describe_group("g").await.unwrap();
        assert_eq!(groups[0].delivery, None);
    });
}
