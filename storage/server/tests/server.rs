//! A server on loopback, spoken to in bare frames.
// A panic in a test is the report; clippy sees helpers outside `#[test]` as something else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod raw;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use highwater_server::{Server, StartError};
use highwater_wire::telemetry::{HotKey, Refusals, Snapshot};
use highwater_wire::{
    BatchIter, ControlReply, ControlRequest, DeliverHeader, ErrorCode, FetchReply, FetchRequest,
    Kind, LocateReply, LocateRequest, Position, ShardId, SubscribeReply, UnsubscribeRequest,
    encode_control_request, encode_frame, encode_frame_header,
};
use raw::{Fixture, Raw, Reply, batch};

fn shard(stream: u32, shard: u32) -> ShardId {
    ShardId { stream, shard }
}

/// Sequence numbers in batches, which have to follow each other from `from` on.
fn follow(data: &[u8], from: u64) -> u64 {
    BatchIter::new(data).fold(from, |next, batch| {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        assert_eq!(batch.base_sequence(), next);
        batch.end_sequence()
    })
}

/// Reads deliveries of `subscription` until `until`, giving back as much credit.
fn drain(client: &mut Raw, subscription: u64, mut next: u64, until: u64) {
    while next < until {
        let reply = client.expect();
        assert_eq!((reply.kind, reply.correlation), (Kind::Deliver, subscription), "{reply:?}");
        next = follow(&reply.data, next);
        assert_eq!(DeliverHeader::view(&reply.control).unwrap().next.to_native(), next);
        client.credit(subscription, reply.data.len() as u64);
    }
}

#[test]
fn appends_pipelined_are_acknowledged_in_order_and_fetched() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let stream = client.create("s", 1);
    let id = shard(stream.id, 0);
    assert_eq!(stream.shards[0].port, fixture.server.core_ports()[0]);
    for i in 0..100 {
        client.send_append(i, id, &batch(10, 100, i as u8));
    }
    for i in 0..100 {
        let reply = client.expect();
        assert_eq!(reply.correlation, i);
        assert_eq!(reply.appended().base_sequence.to_native(), i * 10);
        assert_eq!(reply.appended().record_count.to_native(), 10);
    }
    let mut next = 0;
    while next < 1000 {
        client.send_fetch(7, id, next, 0);
        let reply = client.expect();
        assert_eq!((reply.kind, reply.correlation), (Kind::FetchReply, 7), "{reply:?}");
        next = follow(&reply.data, next);
        let header = FetchReply::view(&reply.control).unwrap();
        assert_eq!((header.next.to_native(), header.high_water.to_native()), (next, 1000));
    }
    let locate = LocateRequest {
        stream: id.stream.into(),
        shard: 0.into(),
        kind: 1.into(),
        reserved: 0.into(),
        value: 0.into(),
    };
    client.send(Kind::Locate, 8, &locate.to_array(), &[]);
    let reply = client.expect();
    assert_eq!(LocateReply::view(&reply.control).unwrap().sequence.to_native(), 1000);
}

#[test]
fn a_fetch_at_the_end_waits_for_records_and_no_longer_than_asked() {
    let fixture = Fixture::start(1);
    let (mut reader, mut writer) = (fixture.client(), fixture.client());
    let id = shard(writer.create("s", 1).id, 0);
    reader.send_fetch(1, id, 0, 60_000);
    // Answered at once, and after the fetch was accepted: requests of a connection are taken in order.
    assert!(reader.control(&ControlRequest::Snapshot).is_ok());
    writer.append(id, &batch(3, 10, 0));
    assert_eq!(follow(&reader.expect().data, 0), 3);
    reader.send_fetch(2, id, 3, 1);
    let reply = reader.expect();
    assert_eq!((reply.kind, reply.data.len()), (Kind::FetchReply, 0));
}

#[test]
fn subscriptions_deliver_as_credit_allows() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    let one = batch(1, 1000, 1);
    client.append(id, &one);
    client.subscribe(5, id, 0, 1);
    let reply = client.expect();
    assert_eq!(reply.kind, Kind::SubscribeReply);
    assert_eq!(SubscribeReply::view(&reply.control).unwrap().high_water.to_native(), 1);
    let reply = client.expect();
    assert_eq!((reply.kind, reply.correlation), (Kind::Deliver, 5));
    assert_eq!(follow(&reply.data, 0), 1);
    // The credit is spent: an append is acknowledged and nothing delivered.
    for _ in 0..2 {
        assert_eq!(client.append(id, &one).record_count.to_native(), 1);
    }
    client.credit(5, 1 << 20);
    drain(&mut client, 5, 1, 3);
    let end = UnsubscribeRequest { subscription: 5.into() };
    client.send(Kind::Unsubscribe, 5, &end.to_array(), &[]);
    assert_eq!(client.append(id, &one).base_sequence.to_native(), 3);
}

#[test]
fn shards_of_other_cores_are_served_through_any_core() {
    let fixture = Fixture::start(2);
    let mut client = fixture.client_of(0);
    let stream = client.create("s", 2);
    let cores: BTreeSet<u32> = stream.shards.iter().map(|s| s.core).collect();
    assert_eq!(cores, BTreeSet::from([0, 1]));
    for number in 0..2 {
        let id = shard(stream.id, number);
        client.subscribe(50, id, 0, 10_000);
        assert_eq!(client.expect().kind, Kind::SubscribeReply);
        for i in 0..50 {
            client.send_append(1000 + i, id, &batch(2, 500, 0));
        }
        let (mut acks, mut next) = (0, 0);
        while acks < 50 || next < 100 {
            let reply = client.expect();
            if reply.kind == Kind::Deliver {
                next = follow(&reply.data, next);
                client.credit(50, reply.data.len() as u64);
            } else {
                assert_eq!(reply.appended().base_sequence.to_native(), acks * 2);
                acks += 1;
            }
        }
        let end = UnsubscribeRequest { subscription: 50.into() };
        client.send(Kind::Unsubscribe, 50, &end.to_array(), &[]);
        client.send_fetch(60, id, 98, 0);
        assert_eq!(follow(&client.expect().data, 98), 100);
        client.send_fetch(61, id, 101, 0);
        client.expect().error(ErrorCode::PositionBeyondEnd);
    }
    client.send_append(70, shard(77, 1), &batch(1, 1, 0));
    client.expect().error(ErrorCode::UnknownShard);
}

#[test]
fn a_reader_on_each_core_sees_what_is_appended_on_the_other() {
    let fixture = Fixture::start(2);
    let id = shard(fixture.client().create("s", 1).id, 0);
    let mut readers = [fixture.client_of(0), fixture.client_of(1)];
    for reader in &mut readers {
        reader.subscribe(3, id, 0, 100_000);
        assert_eq!(reader.expect().kind, Kind::SubscribeReply);
    }
    let mut writers = [fixture.client_of(1), fixture.client_of(0)];
    for _ in 0..100 {
        for writer in &mut writers {
            writer.append(id, &batch(5, 200, 0));
        }
    }
    for reader in &mut readers {
        drain(reader, 3, 0, 1000);
    }
}

#[test]
fn a_wrong_version_and_a_missing_greeting_end_the_connection() {
    let fixture = Fixture::start(1);
    let mut client = Raw::connect(fixture.server.local_addr());
    let hello = ControlRequest::Hello { protocol: 999, client: "test".into() };
    client.send(Kind::Control, 4, &encode_control_request(&hello), &[]);
    let reply = client.expect();
    assert_eq!(reply.correlation, 0);
    reply.error(ErrorCode::UnsupportedVersion);
    assert!(client.next().is_none());

    let mut client = Raw::connect(fixture.server.local_addr());
    client.send_fetch(4, shard(0, 0), 0, 0);
    client.expect().error(ErrorCode::UnknownRequest);
    assert!(client.next().is_none());
}

#[test]
fn bad_bytes_end_their_connection_with_an_error_and_no_other() {
    let fixture = Fixture::start(1);
    let mut good = fixture.client();
    let id = shard(good.create("s", 1).id, 0);
    let mut oversized = Vec::new();
    encode_frame_header(&mut oversized, Kind::Append, 1, &[0; 16], u32::MAX as usize);
    let mut corrupt = Vec::new();
    encode_frame(&mut corrupt, Kind::Append, 1, &[0; 16], b"data");
    corrupt[40] ^= 1;
    let mut misshapen = Vec::new();
    encode_frame(&mut misshapen, Kind::Append, 1, &[0; 7], &[]);
    let cases = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), ErrorCode::MalformedFrame),
        (oversized, ErrorCode::FrameTooLarge),
        (corrupt, ErrorCode::MalformedFrame),
        (misshapen, ErrorCode::MalformedFrame),
    ];
    for (bytes, code) in cases {
        let mut client = fixture.client();
        client.stream.write_all(&bytes).unwrap();
        let reply = client.expect();
        assert_eq!(reply.correlation, 0);
        reply.error(code);
        assert!(client.next().is_none());
        assert_eq!(good.append(id, &batch(1, 10, 0)).record_count.to_native(), 1);
    }
    // A batch that is wrong is refused by itself.
    let mut client = fixture.client();
    let mut wrong = batch(1, 100, 0);
    let last = wrong.len() - 20;
    wrong[last] ^= 1;
    client.send_append(8, id, &wrong);
    let reply = client.expect();
    assert_eq!(reply.correlation, 8);
    reply.error(ErrorCode::CorruptBatch);
    assert_eq!(client.append(id, &batch(1, 10, 0)).base_sequence.to_native(), 4);
    // Cut off in the middle of a frame.
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, Kind::Append, 1, &[0; 16], &[0; 1000]);
    let mut client = fixture.client();
    client.stream.write_all(&bytes[..500]).unwrap();
    drop(client);
    assert_eq!(good.append(id, &batch(1, 10, 0)).base_sequence.to_native(), 5);
}

#[test]
fn one_connection_too_many_is_refused_with_a_word() {
    let fixture = Fixture::with(1, |options| options.max_connections = Some(2));
    let _held = [fixture.client(), fixture.client()];
    let mut third = Raw::connect(fixture.server.local_addr());
    third.expect().error(ErrorCode::Busy);
    assert!(third.next().is_none());
}

#[test]
fn a_peer_that_does_not_read_pauses_and_misses_nothing() {
    let fixture = Fixture::start(1);
    let mut slow = fixture.client();
    let mut writer = fixture.client();
    let id = shard(writer.create("s", 1).id, 0);
    slow.subscribe(2, id, 0, u64::MAX / 2);
    assert_eq!(slow.expect().kind, Kind::SubscribeReply);
    // Far more than the queue, the sockets' buffers and the core's memory hold together.
    let one = batch(60, 1024, 0);
    let total = 64 << 20;
    for _ in 0..total / one.len() {
        writer.append(id, &one);
    }
    let end = (total / one.len() * 60) as u64;
    let mut next = 0;
    while next < end {
        let reply = slow.expect();
        assert_eq!(reply.kind, Kind::Deliver, "{reply:?}");
        next = follow(&reply.data, next);
    }
}

#[test]
fn credit_that_comes_while_fetches_fill_the_queue_is_not_forgotten() {
    let fixture = Fixture::start(1);
    let (mut client, mut writer) = (fixture.client(), fixture.client());
    let id = shard(writer.create("s", 1).id, 0);
    let one = batch(60, 16_000, 0);
    writer.append(id, &one);
    client.subscribe(100, id, 0, 1);
    assert_eq!(client.expect().kind, Kind::SubscribeReply);
    assert_eq!(client.expect().kind, Kind::Deliver);
    for i in 0..8 {
        client.send_fetch(i, id, 60, 60_000);
    }
    // Now they wait. Answered together they are more than may be queued before grants pause.
    assert!(client.control(&ControlRequest::Snapshot).is_ok());
    writer.append(id, &one);
    client.credit(100, 1 << 20);
    let mut kinds = BTreeSet::new();
    for _ in 0..9 {
        let reply = client.expect();
        follow(&reply.data, 60);
        kinds.insert((reply.kind as u16, reply.correlation));
    }
    assert!(kinds.contains(&(Kind::Deliver as u16, 100)), "{kinds:?}");
}

#[test]
fn fetches_that_wait_on_another_core_do_not_keep_out_appends() {
    let fixture = Fixture::start(2);
    let (mut client, mut writer) = (fixture.client_of(0), fixture.client_of(0));
    let stream = writer.create("s", 2);
    let there = stream.shards.iter().find(|shard| shard.core == 1).unwrap();
    let id = shard(stream.id, there.shard);
    let waits = 512;
    for i in 0..=waits {
        let request = FetchRequest {
            stream: id.stream.into(),
            shard: id.shard.into(),
            from: 0.into(),
            max_bytes: 1.into(),
            min_bytes: 1.into(),
            max_wait_ms: 60_000.into(),
            reserved: 0.into(),
            lease: 0.into(),
        };
        client.send(Kind::Fetch, i, &request.to_array(), &[]);
    }
    let refused = client.expect();
    assert_eq!(refused.correlation, waits);
    refused.error(ErrorCode::Busy);
    assert_eq!(writer.append(id, &batch(1, 10, 0)).base_sequence.to_native(), 0);
    for _ in 0..waits {
        let reply = client.expect();
        assert_eq!(reply.kind, Kind::FetchReply, "{reply:?}");
        assert_eq!(follow(&reply.data, 0), 1);
    }
}

#[test]
fn a_peer_that_does_not_take_its_replies_is_not_read_from() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let hello = ControlRequest::ListStreams;
    let mut frame = Vec::new();
    encode_frame(&mut frame, Kind::Control, 1, &encode_control_request(&hello), &[]);
    client.create(&"n".repeat(128), 64);
    // Replies are some hundred times longer than requests; the server has to stop reading at some point.
    client.stream.set_nonblocking(true).unwrap();
    let mut sent = 0usize;
    let limit = 256 << 20;
    let mut patience = 0;
    while patience < 1000 && sent < limit {
        match client.stream.write(&frame[sent % frame.len()..]) {
            Ok(n) => (sent, patience) = (sent + n, 0),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                patience += 1;
                std::thread::yield_now();
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(sent < limit, "the server took {sent} bytes of requests whose replies nobody took");
    assert!(fixture.client().control(&ControlRequest::ListStreams).is_ok());
}

#[test]
fn stopping_answers_what_is_in_flight_and_keeps_what_it_acknowledged() {
    let Fixture { server, options, .. } = &Fixture::start(2);
    let mut client = Raw::greeted(server.local_addr());
    let stream = client.create("s", 2);
    for i in 0..200 {
        client.send_append(i, shard(stream.id, (i % 2) as u32), &batch(4, 1000, 0));
    }
    // The first answer shows that the server is at work.
    let first = client.expect();
    let mut acknowledged = u64::from(first.appended().record_count.to_native());
    let answered = std::thread::scope(|scope| {
        scope.spawn(|| server.stop().unwrap());
        let mut answered = 1;
        while let Some(reply) = client.next() {
            match reply.kind {
                Kind::AppendReply => acknowledged += 4,
                _ => drop(reply.error(ErrorCode::Unavailable)),
            }
            answered += 1;
        }
        answered
    });
    // What the server had not read when it stopped gets no answer; all it read does.
    assert!((1..=200).contains(&answered));
    server.wait().unwrap();
    assert!(TcpStream::connect(server.local_addr()).is_err());

    let mut again = options.clone();
    again.listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(again).unwrap();
    let mut client = Raw::greeted(server.local_addr());
    let request = ControlRequest::DescribeStream { name: "s".into() };
    let Ok(ControlReply::Stream(stream)) = client.control(&request) else { panic!() };
    let kept: u64 = stream.shards.iter().map(|s| s.high_water).sum();
    assert_eq!(kept, acknowledged);
}

#[test]
fn stopping_with_idle_and_waiting_clients_is_prompt() {
    let fixture = Fixture::start(1);
    let mut waiting = fixture.client();
    let id = shard(waiting.create("s", 1).id, 0);
    waiting.send_fetch(1, id, 0, 60_000);
    let mut subscribed = fixture.client();
    subscribed.subscribe(2, id, 0, 1000);
    assert_eq!(subscribed.expect().kind, Kind::SubscribeReply);
    let mut idle = fixture.client();
    fixture.server.stop().unwrap();
    let said = |reply: Option<Reply>| reply.map(|reply| reply.kind);
    assert!(matches!(said(waiting.next()), Some(Kind::Error | Kind::FetchReply)));
    assert_eq!(said(subscribed.next()), Some(Kind::Error));
    assert_eq!(said(idle.next()), None);
}

#[test]
fn a_port_in_use_and_a_directory_in_use_are_errors_that_name_them() {
    let fixture = Fixture::start(1);
    let mut options = fixture.options.clone();
    options.data = options.data.with_file_name("other");
    options.listen = fixture.server.local_addr();
    let Err(StartError::AddressInUse(address)) = Server::start(options.clone()) else { panic!() };
    assert_eq!(address, fixture.server.local_addr());
    assert!(!options.data.exists());

    let error = Server::start(fixture.options.clone()).err().expect("two servers on one directory");
    assert!(matches!(error, StartError::Open(_)), "{error}");
    // A failed start leaves nothing behind.
    assert!(fixture.client().control(&ControlRequest::ListStreams).is_ok());
}

#[test]
fn a_core_that_cannot_start_is_an_error_and_leaves_nothing_behind() {
    let fixture = Fixture::start(1);
    fixture.server.stop().unwrap();
    let mut options = fixture.options.clone();
    options.cores.push(100_000);
    let error = Server::start(options.clone()).err().expect("a core on a CPU that does not exist");
    assert!(matches!(error, StartError::Cpu(_)), "{error}");
    options.cores.pop();
    options.core_port_base = Some(u16::MAX);
    options.cores.push(options.cores[0]);
    let error = Server::start(options.clone()).err().expect("ports beyond 65535");
    assert!(matches!(error, StartError::PortRange { .. } | StartError::AddressInUse(_)), "{error}");
    // Neither the directory's lock nor a port is still held.
    Server::start(fixture.options.clone()).unwrap().stop().unwrap();
}

#[test]
fn positions_are_kept_and_control_errors_are_typed() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    client.create("s", 2);
    let commit = |stream: &str, sequence| ControlRequest::CommitPositions {
        group: "g".into(),
        stream: stream.into(),
        positions: vec![Position { shard: 1, sequence }],
    };
    for i in 0..20 {
        let stream = if i == 10 { "missing" } else { "s" };
        client.send(Kind::Control, 100 + i, &encode_control_request(&commit(stream, i)), &[]);
    }
    for i in 0..20 {
        let reply = client.expect();
        assert_eq!(reply.correlation, 100 + i);
        if i == 10 {
            reply.error(ErrorCode::UnknownStream);
        } else {
            assert_eq!(reply.kind, Kind::ControlReply);
        }
    }
    let fetch = ControlRequest::FetchPositions { group: "g".into(), stream: "s".into() };
    let Ok(ControlReply::Positions(positions)) = client.control(&fetch) else { panic!() };
    assert_eq!(positions, [Position { shard: 1, sequence: 19 }]);
    let odd = ControlRequest::DescribeStream { name: "no/such".into() };
    assert!(client.control(&odd).is_err());
    let delete = ControlRequest::DeleteStream { name: "s".into() };
    assert_eq!(client.control(&delete).unwrap(), ControlReply::Done);
    assert_eq!(client.control(&fetch).unwrap_err().code, ErrorCode::UnknownStream);
}

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

#[test]
fn a_full_disk_is_said_and_a_reserve_of_all_of_it_is_refused() {
    let size = |at: &std::path::Path| {
        let of = rustix::fs::statvfs(at).unwrap();
        of.f_blocks * of.f_frsize
    };
    let (notices, heard) = std::sync::mpsc::channel();
    let fixture = Fixture::with(1, |options| {
        let total = size(options.data.parent().unwrap());
        options.notices = Some(notices);
        // Some of it is in use.
        options.store.reserve_bytes = Some(total - 1);
    });
    // Only so that a failing test ends.
    let said = heard.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert!(said.starts_with("the file system is full: "), "{said}");

    let mut options = fixture.options.clone();
    options.data = options.data.with_file_name("other");
    options.store.reserve_bytes = Some(size(options.data.parent().unwrap()));
    let Err(refused) = Server::start(options) else { panic!("it starts") };
    assert!(refused.to_string().contains("reserve_bytes is "), "{refused}");
}
