//! Peers that break the protocol, come in too great numbers, or do not take what they asked for.

use std::collections::BTreeSet;
use std::io::Write;

use highwater_wire::{
    ControlRequest, ErrorCode, FetchRequest, Kind, encode_control_request, encode_frame,
    encode_frame_header,
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
