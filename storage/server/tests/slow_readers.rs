//! Peers that leave what is queued for them: others are served all the same, and those are cut.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

// Each test file is a crate of its own and uses a part of it.
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
mod raw;

use std::time::{Duration, Instant};

use highwater_server::ServerOptions;
use highwater_wire::{BatchIter, ControlReply, ControlRequest, Kind, ShardId};
use raw::{Fixture, Raw, batch};

/// Peers that take nothing: enough to hold all memory that one core has for queues.
const STALLED: usize = 32;
/// Records and bytes of each record of a batch that is nearly the largest: a block of it is more than is read at once.
const LARGE: (usize, usize) = (60, 16_000);
/// Batches stored: more than sockets and windows of one peer hold together.
const BATCHES: u64 = 24;

/// The least memory a core can have.
fn least(options: &mut ServerOptions) {
    options.memory = Some(64 << 20);
}

/// A server with a stream of [`BATCHES`] large batches.
fn stored() -> (Fixture, Raw, ShardId) {
    let fixture = Fixture::with(1, least);
    let mut client = fixture.client();
    let id = ShardId { stream: client.create("s", 1).id, shard: 0 };
    for _ in 0..BATCHES {
        client.append(id, &batch(LARGE.0, LARGE.1, 1));
    }
    (fixture, client, id)
}

/// Peers that subscribed to everything and take none of it.
fn stall(fixture: &Fixture, id: ShardId) -> Vec<Raw> {
    let stalled: Vec<Raw> = (0..STALLED)
        .map(|_| {
            let mut peer = fixture.client();
            let socket = socket2::SockRef::from(&peer.stream);
            // The kernel is to hold little of it.
            socket.set_recv_buffer_size(4096).unwrap();
            peer.subscribe(7, id, 0, 1 << 40);
            peer
        })
        .collect();
    stalled
}

/// Waits until a snapshot says so.
fn until(client: &mut Raw, what: &str, so: impl Fn(&highwater_wire::telemetry::Snapshot) -> bool) {
    let mut serial = 0;
    // Only so that a failing test ends.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match client.control(&ControlRequest::SnapshotAfter { serial }) {
            Ok(ControlReply::Snapshot(snapshot)) if so(&snapshot) => return,
            Ok(ControlReply::Snapshot(snapshot)) => serial = snapshot.serial,
            Ok(_) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "{what}");
    }
}

fn end_of(data: &[u8], from: u64) -> u64 {
    BatchIter::new(data).fold(from, |next, batch| {
        let batch = batch.unwrap();
        assert_eq!(batch.base_sequence(), next);
        batch.end_sequence()
    })
}

#[test]
fn peers_that_take_nothing_starve_nobody_and_are_cut() {
    let (fixture, mut client, id) = stored();
    let stalled = stall(&fixture, id);
    // Most of them have got what they get.
    until(&mut client, "little is queued", |snapshot| snapshot.cores[0].queued > 4 << 20);
    let end = BATCHES * LARGE.0 as u64;

    // A subscription has everything nevertheless, from the disk and from memory.
    let mut reader = fixture.client();
    reader.subscribe(7, id, 0, 1 << 40);
    assert_eq!(reader.expect().kind, Kind::SubscribeReply);
    let mut next = 0;
    while next < end {
        let reply = reader.expect();
        assert_eq!(reply.kind, Kind::Deliver, "{reply:?}");
        next = end_of(&reply.data, next);
    }

    // So has one that fetches, which is at most told to come again.
    let mut next = 0;
    while next < end {
        client.send_fetch(8, id, next, 0);
        let reply = client.expect();
        if reply.kind == Kind::Error {
            reply.error(highwater_wire::ErrorCode::Busy);
            std::thread::yield_now();
        } else {
            next = end_of(&reply.data, next);
        }
    }

    // And appends go on.
    client.append(id, &batch(1, 10, 2));

    // Those that are left when memory is no longer short have their longer time.
    until(&mut client, "peers that take nothing are still there", |snapshot| {
        snapshot.cores[0].connections as usize <= 2 + STALLED / 2
    });
    drop(stalled);
}
