//! A server on loopback, spoken to in bare frames.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "server/data.rs"]
mod data;
#[path = "server/figures.rs"]
mod figures;
#[path = "server/hostile.rs"]
mod hostile;
mod raw;
#[path = "server/starting.rs"]
mod starting;

use highwater_wire::{BatchIter, DeliverHeader, Kind, ShardId};
use raw::Raw;

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
