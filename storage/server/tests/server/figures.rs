//! What a server says of itself: snapshots and the Prometheus endpoint.

use std::io::{Read, Write};
use std::net::TcpStream;

use highwater_wire::telemetry::{HotKey, Refusals, Snapshot};
use highwater_wire::{ControlReply, ControlRequest, ErrorCode, Kind, Position};

use crate::raw::{Fixture, Raw, batch};
use crate::{drain, shard};

#[test]
fn snapshots_and_prometheus_text_show_what_happened() {
    let fixture = Fixture::with(1, |options| options.http = Some("127.0.0.1:0".parse().unwrap()));
    let mut client = fixture.client();
    let id = shard(client.create("clicks", 1).id, 0);
    client.append(id, &batch(7, 100, 0));
    client.send_fetch(1, id, 0, 0);
    client.expect();
    let commit = ControlRequest::CommitPositions {
        group: "g".into(),
        stream: "clicks".into(),
        positions: vec![Position { shard: 0, sequence: 3 }],
    };
    assert_eq!(client.control(&commit).unwrap(), ControlReply::Done);
    // Published once a second.
    let snapshot = loop {
        let reply = client.control(&ControlRequest::Snapshot).unwrap();
        let ControlReply::Snapshot(snapshot) = reply else { panic!() };
        if snapshot.groups.first().is_some_and(|g| g.backlog_records == 4) {
            break snapshot;
        }
    };
    let shard = &snapshot.shards[0];
    assert_eq!((shard.stream.as_str(), shard.records_in, shard.records_out), ("clicks", 7, 7));
    assert_eq!(snapshot.cores[0].connections, 1);
    assert!(snapshot.cores[0].requests > 5 && snapshot.cores[0].busy_ns > 0);
    assert!(snapshot.disk_total > 0 && !snapshot.durability.is_empty());
    assert!(snapshot.resident > 0 && snapshot.snapshot_cost_us > 0 && snapshot.serial > 0);
    let core = &snapshot.cores[0];
    assert!(core.snapshot_cost_us > 0 && core.uptime_ns > 0 && core.turns > 0);
    assert_eq!((core.group_bytes.count(), core.queue.count(), core.write.count()), (1, 7, 1));
    assert_eq!((core.append.count(), core.ack.count()), (7, 7), "by record");
    assert_eq!(core.turn.count(), core.turns);
    assert!(shard.log_bytes > 0 && shard.log_bytes < shard.stored_bytes);
    let text = loop {
        let text = scrape(&fixture);
        if text.contains("highwater_backlog_records{") {
            break text;
        }
    };
    for line in [
        "highwater_appended_records_total{stream=\"clicks\",shard=\"0\"} 7",
        "highwater_delivered_records_total{stream=\"clicks\",shard=\"0\"} 7",
        "highwater_high_water{stream=\"clicks\",shard=\"0\"} 7",
        "highwater_backlog_records{group=\"g\",stream=\"clicks\",shard=\"0\"} 4",
        "highwater_durable_write_seconds_count{stream=\"clicks\",shard=\"0\"} 1",
        "# TYPE highwater_propagation_seconds histogram",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
}

#[test]
fn snapshots_tell_stages_keys_and_reasons() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("clicks", 1).id, 0);
    let mut reader = fixture.client();
    reader.subscribe(7, id, 0, 1 << 20);
    reader.expect();
    for i in 0..20 {
        client.append(id, &batch(50, 100, i));
    }
    drain(&mut reader, 7, 0, 1_000);
    assert!(client.control(&ControlRequest::DescribeStream { name: "none".into() }).is_err());
    let snapshot = loop {
        let reply = client.control(&ControlRequest::Snapshot).unwrap();
        let ControlReply::Snapshot(snapshot) = reply else { panic!() };
        let core = &snapshot.cores[0];
        if core.refused > 0 && core.deliver.count() == 1_000 {
            break snapshot;
        }
    };
    let core = &snapshot.cores[0];
    assert_eq!((core.ack.count(), core.propagation.count()), (1_000, 1_000));
    let refused = Refusals { code: ErrorCode::UnknownStream as u16, count: 1 };
    assert_eq!((core.refused, core.refusals.as_slice()), (1, [refused].as_slice()));
    let shard = &snapshot.shards[0];
    assert_eq!((shard.readers, shard.high_water), (1, 1_000));
    assert!(shard.keys_total > 0);
    assert_eq!(shard.keys, [HotKey { key: "key".into(), records: shard.keys_total }]);
}

/// On the core that owns the shard and on one that hands its figures over.
#[test]
fn propagation_ends_when_the_consumer_says_it_has_the_record() {
    let fixture = Fixture::start(2);
    let mut client = fixture.client();
    let id = shard(client.create("clicks", 1).id, 0);
    let mut readers = [fixture.client_of(0), fixture.client_of(1)];
    for reader in &mut readers {
        reader.subscribe(7, id, 0, 1 << 20);
        reader.expect();
    }
    let arrival_ns = client.append(id, &batch(50, 100, 1)).arrival_ns.to_native();
    for reader in &mut readers {
        assert_eq!(reader.expect().kind, Kind::Deliver);
    }
    let handed = |s: &Snapshot| s.cores.iter().map(|core| core.deliver.count()).sum::<u64>();
    let propagated = |s: &Snapshot| s.cores.iter().map(|c| c.propagation.count()).sum::<u64>();
    let until = |client: &mut Raw, done: &dyn Fn(&Snapshot) -> bool| loop {
        let snapshot = client.snapshot();
        if done(&snapshot) {
            break snapshot;
        }
    };
    let snapshot = until(&mut client, &|s| handed(s) == 100);
    assert_eq!(propagated(&snapshot), 0, "nobody has said that he has them");
    // Clocks that are an hour wrong, either way.
    let hour = 3_600_000_000_000;
    readers[0].receipt(7, 50, arrival_ns - hour);
    readers[1].receipt(7, 50, arrival_ns + hour);
    let snapshot = until(&mut client, &|s| propagated(s) == 100);
    let owner = snapshot.cores.iter().find(|core| core.propagation.count() > 0).unwrap();
    assert_eq!((owner.propagation.count(), owner.core), (100, snapshot.shards[0].core));
    // Within what has passed since.
    assert!(owner.propagation.max < hour / 2, "{}", owner.propagation.max);
}

/// Counted, not timed: an idle core looks after retention once a second, and nothing else.
#[test]
fn an_idle_core_turns_about_once_a_second() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("clicks", 8).id, 0);
    client.append(id, &batch(10, 100, 0));
    let mut first: Option<(u64, u64)> = None;
    let (turns, seconds) = loop {
        let reply = client.control(&ControlRequest::Snapshot).unwrap();
        let ControlReply::Snapshot(snapshot) = reply else { panic!() };
        let core = &snapshot.cores[0];
        // Once the checkpoint after the last append is written.
        if core.uptime_ns < 2_000_000_000 || core.append.count() == 0 {
            continue;
        }
        let (turns, since) = *first.get_or_insert((core.turns, core.uptime_ns));
        if core.uptime_ns - since > 2_000_000_000 {
            break (core.turns - turns, (core.uptime_ns - since) as f64 / 1e9);
        }
    };
    assert!(turns as f64 <= 3.0 * seconds + 3.0, "{turns} turns in {seconds} s");
}

fn scrape(fixture: &Fixture) -> String {
    let mut socket = TcpStream::connect(fixture.server.http_addr().unwrap()).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    text
}
