//! Filters at the broker: what crosses the network, what is counted, and that nothing is lost on the way.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use highwater_client::wire::{ErrorCode, FilterTally};
use highwater_client::{
    Client, ClientOptions, ConsumeError, ConsumerOptions, FetchOptions, GroupEvent, GroupOptions,
    Start,
};

use crate::formats::{combined_log, lines_where};
use crate::support::proxy::{Faults, Proxy};
use crate::support::{Server, refused, said, scratch, until};

/// Documents `{"n":…}`, one a line.
fn documents(numbers: std::ops::Range<u64>) -> Vec<u8> {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>().into_bytes()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(server: &Server) -> Client {
    Client::connect(&server.addr, ClientOptions::default()).await.unwrap()
}

#[test]
fn what_does_not_match_does_not_cross_the_network() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 2);
    let log = combined_log(9, 6_000);
    assert!(server.put("logs", &log, &["--format", "access-log"]).status.success());
    let described = server.json(&["stream", "describe", "logs", "--json"]);
    let ports = described["shards"].as_array().unwrap().iter();
    let ports: BTreeSet<u16> = ports.map(|s| s["port"].as_u64().unwrap() as u16).collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    let none = Faults { seed: 1, lost: 0.0, cut: 0.0, delayed: 0.0, longest: Duration::ZERO };
    let proxy = Proxy::before(&server.addr, &ports, none);
    let tail = |filter: &[&str]| {
        let before = proxy.received();
        let args = [&["tail", "logs", "--from", "oldest"], filter].concat();
        let output = server.command(&args).env("HIGHWATER_TARGET", &proxy.addr).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        (output, proxy.received() - before)
    };
    let (_, all) = tail(&[]);
    let filter = "json.status == 404 && json.path.endsWith('a')";
    let (found, some) = tail(&["--filter", filter]);
    let wanted = lines_where(&log, |line| {
        let path = line.split(['"', ' ', '?']).find(|word| word.starts_with('/'));
        line.contains("\" 404 ") && path.is_some_and(|path| path.ends_with('a'))
    });
    let matched = wanted.iter().filter(|b| **b == b'\n').count() as u64;
    assert!(matched > 0 && matched < 100, "{matched}");
    let sorted = |log: &[u8]| {
        let mut lines: Vec<Vec<u8>> = log.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    // Two shards have no order between them.
    assert_eq!(sorted(&found.stdout), sorted(&wanted));
    let words = format!("filter: {matched} of 6,000 records matched");
    assert!(said(&found).contains(&words), "{}", said(&found));
    assert!(some < 20_000 + matched * 1_000 && some * 10 < all, "{some} bytes instead of {all}");
    // And who watches the server is told.
    until(|| {
        let top = server.run(&["top", "--once", "--json"]);
        let top: serde_json::Value = serde_json::from_slice(&top.stdout).unwrap_or_default();
        let filters = &top["filters"][0];
        (&filters["stream"], &filters["looked_records"], &filters["matched_records"])
            == (&"logs".into(), &6_000.into(), &matched.into())
    });
}

#[test]
fn the_library_tells_what_its_filter_found() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    for from in 0..20 {
        let put = server.put("s", &documents(from * 500..(from + 1) * 500), &[]);
        assert!(put.status.success(), "{}", said(&put));
    }
    runtime().block_on(async {
        let client = connect(&server).await;
        let stream = client.describe_stream("s").await.unwrap();
        let filter = |filter: &str| Some(filter.to_owned());
        let options =
            ConsumerOptions { filter: filter("json.n % 1000 == 1"), ..ConsumerOptions::default() };
        let bounded = ConsumerOptions { end: Some(9_500), ..options.clone() };
        let mut consumer = client.consumer(&stream, 0, Start::At(250), bounded).await.unwrap();
        let (mut records, mut tally, mut at) = (Vec::new(), FilterTally::default(), 250);
        while let Some(delivery) = consumer.next().await.unwrap() {
            assert_eq!(delivery.from(), at, "without gaps between deliveries");
            at = delivery.next;
            records.extend(delivery.records().map(|record| record.sequence));
            tally.add(&delivery.filtered.unwrap());
        }
        assert_eq!(records, (1..10).map(|n| n * 1_000 + 1).collect::<Vec<u64>>());
        assert_eq!((tally.looked, tally.matched, at), (9_250, 9, 9_500));

        // It goes on where it was when it asks again.
        let mut consumer = client.consumer(&stream, 0, Start::Oldest, options).await.unwrap();
        let mut first = consumer.next().await.unwrap().unwrap();
        while first.records().next().is_none() {
            first = consumer.next().await.unwrap().unwrap();
        }
        consumer.seek(5_000);
        let mut next = consumer.next().await.unwrap().unwrap();
        while next.records().next().is_none() {
            next = consumer.next().await.unwrap().unwrap();
        }
        assert_eq!(next.records().next().unwrap().sequence, 5_001);

        let (mut from, mut records) = (0, Vec::new());
        while from < 10_000 {
            let asked = FetchOptions::default();
            let fetched = client.fetch_filtered(&stream, 0, from, asked, "json.n > 9997").await;
            let delivery = fetched.unwrap().delivery;
            records.extend(delivery.records().map(|record| record.sequence));
            assert!(delivery.filtered.unwrap().looked > 0 && delivery.next > from);
            from = delivery.next;
        }
        assert_eq!(records, [9_998, 9_999]);

        let wrong = ConsumerOptions { filter: filter("json.n ="), ..ConsumerOptions::default() };
        let mut consumer = client.consumer(&stream, 0, Start::Oldest, wrong).await.unwrap();
        let Err(ConsumeError::Client(error)) = consumer.next().await else { panic!("it reads") };
        assert_eq!(error.code(), Some(ErrorCode::InvalidFilter));
        let options = FetchOptions::default();
        let error = client.fetch_filtered(&stream, 0, 0, options, "n ==").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidFilter));
    });
}

#[test]
fn positions_of_a_group_move_over_what_does_not_match() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 4);
    let numbered: String = (0..4_000).map(|n| format!("{{\"n\":{n},\"k\":\"{n}\"}}\n")).collect();
    let put = server.put("s", numbered.as_bytes(), &["--format", "json", "--key", "k"]);
    assert!(put.status.success(), "{}", said(&put));
    runtime().block_on(async {
        let client = connect(&server).await;
        let filter = Some("json.n < 0".to_owned());
        let options = GroupOptions {
            auto_commit: Some(Duration::from_millis(10)),
            consumer: ConsumerOptions { filter, ..ConsumerOptions::default() },
            ..GroupOptions::default()
        };
        let mut member = client.group_consumer("g", "s", options).await.unwrap();
        let mut looked = 0;
        while looked < 4_000 {
            if let Some(GroupEvent::Records { delivery, .. }) = member.next().await.unwrap() {
                assert_eq!(delivery.records().count(), 0);
                looked += delivery.filtered.unwrap().looked;
            }
        }
        member.close().await.unwrap();
    });
    let described = server.json(&["group", "describe", "g", "--json"]);
    let shards = described["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 4);
    assert!(shards.iter().all(|shard| shard["backlog_records"] == 0), "{described:#}");
}

#[test]
fn a_member_with_a_filter_that_is_killed_loses_nothing() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("s", 2);
    let addr = server.addr.clone();
    let out = dir.path().join("out");
    let tail = |server: &Server, follow: &[&str]| {
        let args = ["tail", "s", "--group", "g", "--session-timeout", "1s", "--filter"];
        let out = File::options().create(true).append(true).open(&out).unwrap();
        let mut command = server.command(&[&args[..], &["json.n % 7 == 0"], follow].concat());
        command.stdout(out).stderr(Stdio::null()).spawn().unwrap()
    };
    let printed = || std::fs::read_to_string(&out).unwrap().lines().count();
    let put = |server: &Server, from: u64| {
        let put =
            server.put("s", &documents(from..from + 2_000), &["--format", "json", "--key", "n"]);
        assert!(put.status.success(), "{}", said(&put));
    };
    // A member is killed, then the server.
    let mut first = tail(&server, &["--follow"]);
    put(&server, 0);
    until(|| printed() > 0);
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = tail(&server, &["--follow"]);
    put(&server, 2_000);
    let before = printed();
    until(|| printed() > before);
    server.kill();
    let server = Server::start_with(&data, &["--listen", &addr]);
    put(&server, 4_000);
    let backlog = || {
        let described = server.run(&["group", "describe", "g", "--json"]);
        // Before one has joined again there may be no such group.
        if !described.status.success() {
            return u64::MAX;
        }
        let described: serde_json::Value = serde_json::from_slice(&described.stdout).unwrap();
        let shards = described["shards"].as_array().unwrap().clone();
        shards.iter().map(|shard| shard["backlog_records"].as_u64().unwrap()).sum::<u64>()
    };
    until(|| backlog() == 0);
    second.kill().unwrap();
    second.wait().unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    // Killed, one may have left half a line, to which the next has added.
    let whole = |line: &str| line.rfind('{').map(|at| line[at..].to_owned());
    let seen: BTreeSet<String> = text.lines().filter_map(whole).collect();
    let wanted: BTreeSet<String> = String::from_utf8(documents(0..6_000))
        .unwrap()
        .lines()
        .enumerate()
        .filter(|(n, _)| n % 7 == 0)
        .map(|(_, line)| line.to_owned())
        .collect();
    assert!(wanted.is_subset(&seen), "{:?}", wanted.difference(&seen).next());
}

#[test]
fn what_was_looked_at_is_told_to_the_record_where_tail_ends_early() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &documents(0..1_000), &[]).status.success());
    let args = ["tail", "s", "--group", "g", "--limit", "2", "--filter", "json.n % 100 == 99"];
    for from in [0, 2] {
        let tail = server.run(&args);
        let expected = documents(0..1_000);
        let lines = expected.split_inclusive(|b| *b == b'\n').skip(99).step_by(100);
        let expected: Vec<u8> = lines.skip(from).take(2).flatten().copied().collect();
        assert_eq!(tail.stdout, expected, "{}", said(&tail));
        assert!(said(&tail).contains("2 of 200 records matched"), "{}", said(&tail));
    }
    let described = server.json(&["group", "describe", "g", "--json"]);
    assert_eq!(described["shards"][0]["position"], 400, "{described:#}");
}

#[test]
fn the_number_of_filter_threads_has_limits() {
    let dir = scratch();
    for threads in ["0", "65", "many"] {
        let mut serve = crate::support::serve(&dir.path().join("data"));
        let output = serve.args(["--filter-threads", threads]).output().unwrap();
        refused(&output, if threads == "many" { 2 } else { 1 }, &["filter"]);
    }
    let server = Server::start_with(
        &dir.path().join("data"),
        &["--listen", "127.0.0.1:0", "--filter-threads", "3"],
    );
    server.create("s", 8);
    let numbered: String = (0..8_000).map(|n| format!("{{\"n\":{n},\"k\":\"{n}\"}}\n")).collect();
    let put = server.put("s", numbered.as_bytes(), &["--format", "json", "--key", "k"]);
    assert!(put.status.success(), "{}", said(&put));
    let tail = server.run(&["tail", "s", "--filter", "json.n % 1000 == 0"]);
    assert!(said(&tail).contains("8 of 8,000 records matched"), "{}", said(&tail));
}
