//! What a record costs on its way to its acknowledgement: no allocation. Counted over the whole process, the server's
//! threads and the client's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod raw;

use std::alloc::System;

use highwater_wire::ShardId;
use raw::{Fixture, Raw, batch};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BATCHES: usize = 400;

/// Allocations (moves to more memory included) until as many batches as this are acknowledged as durable, one at a time.
fn allocations(client: &mut Raw, shard: ShardId, batch: &[u8]) -> usize {
    let region = Region::new(ALLOCATOR);
    for n in 0..BATCHES {
        client.send_append(n as u64, shard, batch);
        client.expect().appended();
    }
    let change = region.change();
    change.allocations + change.reallocations
}

// One test, so that no other thread's allocations are counted.
#[test]
fn a_record_more_in_a_batch_allocates_nothing() {
    const FEW: usize = 4;
    const MANY: usize = 260;
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let stream = client.create("s", 1);
    let shard = ShardId { stream: stream.id, shard: 0 };
    let (few, many) = (batch(FEW, 40, 1), batch(MANY, 40, 2));
    // Queues and buffers come to their size.
    allocations(&mut client, shard, &many);
    let for_few = allocations(&mut client, shard, &few);
    let for_many = allocations(&mut client, shard, &many);
    let more = (MANY - FEW) * BATCHES;
    // Whatever else the process does meanwhile (figures once a second, segments) is far from one for each record.
    assert!(
        for_many < for_few + more / 100,
        "{for_few} allocations for {BATCHES} batches of {FEW}, {for_many} for as many of {MANY}"
    );
    println!("{for_few} allocations for {BATCHES} batches of {FEW}, {for_many} of {MANY}");
}
