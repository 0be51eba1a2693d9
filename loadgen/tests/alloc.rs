//! Sending a record allocates nothing: counted over the whole process, every thread of it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::alloc::System;
use std::time::Duration;

use highwater_loadgen::{LoadOptions, Rate, Report, Stop, WarmUpRule, Workload, run};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations (moves to more memory included) during a run on the null target, and its report.
fn allocations(rate: Rate, shards: u32, clients: Option<usize>) -> (usize, Report) {
    let options = LoadOptions {
        target: "null".to_owned(),
        rate,
        shards,
        clients,
        duration: Duration::from_secs(1),
        warmup: WarmUpRule::Fixed(Duration::ZERO),
        workload: Workload::Fixed { size: 100 },
        seed: 7,
        ..LoadOptions::default()
    };
    let region = Region::new(ALLOCATOR);
    let report = run(options, &mut (), &Stop::default()).unwrap();
    let change = region.change();
    (change.allocations + change.reallocations, report)
}

// One test, so that no other thread's allocations are counted.
#[test]
fn twice_the_records_allocate_no_more() {
    for (shards, clients) in [(1, None), (4, None), (2, Some(2))] {
        let at = |rate| allocations(Rate::PerSecond(rate), shards, clients);
        // What is made once for the process.
        at(1_000.0);
        let (few, less) = at(20_000.0);
        let (many, more) = at(120_000.0);
        let records = more.acked_records - less.acked_records;
        assert!(records > 10_000, "{records} more with {shards} shards, {clients:?} clients");
        // Queues and batches grow to their size a few times more often.
        assert!(
            many <= few + 500,
            "{few} allocations, then {many} for {records} more records, {shards} shards, {clients:?} clients"
        );
    }
    let (count, report) = allocations(Rate::Max, 4, None);
    let records = report.acked_records as usize;
    assert!(count < records / 20, "{count} allocations for {records} records");
}
