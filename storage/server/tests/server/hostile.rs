//! Peers that break the protocol, come in too great numbers, or do not take what they asked for.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use highwater_wire::telemetry::ShardSnapshot;
use highwater_wire::{
    ControlReply, ControlRequest, ErrorCode, FetchRequest, Kind, ShardId, encode_control_request,
    encode_frame, encode_frame_header,
};

use crate::raw::{Fixture, Raw, batch};
use crate::{follow, shard};

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

/// Fetches the first record, and waits for it.
fn wait_for_one(client: &mut Raw, correlation: u64, id: ShardId) {
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
    client.send(Kind::Fetch, correlation, &request.to_array(), &[]);
}

/// Returns when a shard has one reader.
fn until_one_reader(client: &mut Raw, id: ShardId) {
    let mut serial = 0;
    // Only so that a failing test ends; less than fetches wait.
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        match client.control(&ControlRequest::SnapshotAfter { serial }) {
            Ok(ControlReply::Snapshot(snapshot)) => {
                serial = snapshot.serial;
                let of = |s: &&ShardSnapshot| (s.stream_id, s.shard) == (id.stream, id.shard);
                let readers = snapshot.shards.iter().find(of).map(|s| s.readers);
                if readers == Some(1) {
                    return;
                }
                assert!(Instant::now() < deadline, "{readers:?} readers, not one");
            }
            Ok(_) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn fetches_end_with_their_connection() {
    let fixture = Fixture::start(2);
    let mut other = fixture.client_of(0);
    let stream = other.create("s", 2);
    // One here, one on the other core.
    let ids = [0, 1].map(|core| {
        let on = stream.shards.iter().find(|shard| shard.core == core).unwrap();
        shard(stream.id, on.shard)
    });
    let (mut gone, mut closing) = (fixture.client_of(0), fixture.client_of(0));
    for (i, &id) in ids.iter().enumerate() {
        let first = 100 * i as u64;
        (first..first + 100).for_each(|i| wait_for_one(&mut gone, i, id));
        (first..first + 100).for_each(|i| wait_for_one(&mut closing, i, id));
        wait_for_one(&mut other, i as u64, id);
    }
    // Requests of a connection are taken in order: now they wait.
    for client in [&mut gone, &mut closing, &mut other] {
        client.control(&ControlRequest::Snapshot).unwrap();
    }

    // One is reset; one says that it asks for nothing more, and takes its answers.
    socket2::SockRef::from(&gone.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(gone);
    closing.stream.shutdown(Shutdown::Write).unwrap();
    let answered: BTreeSet<u64> = std::iter::from_fn(|| closing.next())
        .map(|reply| {
            assert_eq!((reply.kind, reply.data.len()), (Kind::FetchReply, 0), "{reply:?}");
            reply.correlation
        })
        .collect();
    assert_eq!(answered.len(), 200);
    ids.iter().for_each(|&id| until_one_reader(&mut fixture.client(), id));

    // Who is there waits on.
    for (i, &id) in ids.iter().enumerate() {
        fixture.client().append(id, &batch(1, 10, 0));
        let reply = other.expect();
        assert_eq!((reply.kind, reply.correlation), (Kind::FetchReply, i as u64));
        assert_eq!(follow(&reply.data, 0), 1);
    }
}

/// Asks again until it is not `Busy`.
fn until_taken(client: &mut Raw, mut ask: impl FnMut(&mut Raw)) {
    // Only so that a failing test ends; less than fetches wait.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        ask(client);
        client.send(Kind::Control, 1, &encode_control_request(&ControlRequest::ListStreams), &[]);
        match client.expect() {
            reply if reply.kind == Kind::Error => reply.error(ErrorCode::Busy),
            reply if reply.kind == Kind::ControlReply => return,
            _ => return assert_eq!(client.expect().kind, Kind::ControlReply),
        };
        assert_eq!(client.expect().kind, Kind::ControlReply);
        assert!(Instant::now() < deadline, "still busy");
    }
}

#[test]
fn a_core_has_so_many_fetches_that_wait_and_so_many_subscriptions() {
    let fixture = Fixture::with(1, |options| options.memory = Some(64 << 20));
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    let most = 4_608;
    let (mut first, mut second) = (fixture.client(), fixture.client());
    (0..4_000).for_each(|i| wait_for_one(&mut first, i, id));
    first.control(&ControlRequest::Snapshot).unwrap();
    (4_000..=most).for_each(|i| wait_for_one(&mut second, i, id));
    let refused = second.expect();
    assert_eq!(refused.correlation, most);
    refused.error(ErrorCode::Busy);
    drop(first);
    until_taken(&mut second, |second| wait_for_one(second, most, id));

    let mut peers: Vec<Raw> = (0..5).map(|_| fixture.client()).collect();
    for i in 1..=most {
        let peer = &mut peers[(i / 1000) as usize];
        peer.subscribe(i, id, 0, 0);
        assert_eq!(peer.expect().kind, Kind::SubscribeReply);
    }
    client.subscribe(7, id, 0, 0);
    client.expect().error(ErrorCode::Busy);
    peers.truncate(4);
    until_taken(&mut client, |client| client.subscribe(7, id, 0, 0));
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
        wait_for_one(&mut client, i, id);
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
