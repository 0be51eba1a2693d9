//! Consumer groups in this process on a real directory: how far they are behind, to the nanosecond, and their positions
//! set and forgotten.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_engine::{Commit, Control, Engine, EngineOptions, GroupReset, SegmentSizes};
use highwater_wire::{
    BatchBuilder, ErrorCode, GroupDescription, Position, ProducerStamp, ResetTo, ShardId,
    StreamConfig,
};

const SHARD: ShardId = ShardId { stream: 1, shard: 0 };

fn open(dir: &Path) -> Engine {
    let mut options = EngineOptions::default();
    options.store.pool_bytes = 8 << 20;
    options.store.prepared_bytes = 64 << 20;
    // So that old records are in other segments, and none of them in memory.
    options.store.core.tail_bytes = 256 << 10;
    options.store.core.segments = SegmentSizes { min: 256 << 10, max: 1 << 20 };
    Engine::open(dir, options).unwrap()
}

/// Appends `batches` of ten records; the first sequence number and the arrival of each.
fn append(engine: &Engine, batches: usize) -> Vec<(u64, u64)> {
    let payload = [b'x'; 200];
    let one = |_| {
        let mut builder = BatchBuilder::default();
        (0..10).for_each(|_| builder.push(b"key", &[], &payload, 1).unwrap());
        let batch = builder.finish(ProducerStamp::default()).to_vec();
        let stored = engine.append(SHARD, batch).unwrap().wait().unwrap();
        (stored.base_sequence, stored.arrival_ns)
    };
    (0..batches).map(one).collect()
}

fn commit(control: &mut Control, group: &str, sequence: u64) {
    let positions = vec![Position { shard: 0, sequence }];
    let commit = Commit { group: group.into(), stream: "s".into(), positions, leases: None };
    control.commit_positions(&[commit]).remove(0).unwrap();
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Each group, called by its position, is as far behind as the arrival of its batch says.
fn all_exact(engine: &Engine, arrivals: &[(u64, u64)]) {
    let before = now_ns();
    let groups: Vec<GroupDescription> = engine.control().list_groups("").unwrap();
    let after = now_ns();
    let end = arrivals.len() as u64 * 10;
    assert!(!groups.is_empty());
    let mut bytes = Vec::new();
    for group in &groups {
        let shard = &group.shards[0];
        let position: u64 = group.group.parse().unwrap();
        assert_eq!(shard.position, Some(position));
        assert_eq!(shard.backlog_records, end - position, "{group:?}");
        assert!(shard.exact, "{group:?}");
        bytes.push((position, shard.backlog_bytes));
        let Some((_, arrival)) = arrivals.get((position / 10) as usize) else {
            assert_eq!((shard.backlog_ns, shard.backlog_bytes), (0, 0), "{group:?}");
            continue;
        };
        let age = before.saturating_sub(*arrival)..=after - arrival;
        assert!(age.contains(&shard.backlog_ns), "{age:?} {group:?}");
    }
    bytes.sort_unstable();
    for pair in bytes.windows(2) {
        let ((from, most), (to, least)) = (pair[0], pair[1]);
        // At least what the payloads of the batches between them take.
        let between = (to / 10 - from / 10) * 10 * 200;
        assert!(most >= least + between, "{pair:?}");
    }
}

#[test]
fn the_lag_of_groups_is_exact_in_memory_on_disk_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine.create_stream("s", StreamConfig { shards: 1, ..StreamConfig::default() }).unwrap();
    let mut arrivals = append(&engine, 1_500);
    let positions = [0, 1, 9, 10, 4_444, 7_315, 9_999, 12_340, 14_989, 14_990, 14_999, 15_000];
    for position in positions {
        commit(&mut engine.control(), &position.to_string(), position);
    }
    all_exact(&engine, &arrivals);
    // Who had caught up is behind now; the record it did not read was the next one.
    arrivals.extend(append(&engine, 500));
    all_exact(&engine, &arrivals);
    all_exact(&engine, &arrivals);
    drop(engine);
    let engine = open(dir.path());
    all_exact(&engine, &arrivals);
    arrivals.extend(append(&engine, 10));
    all_exact(&engine, &arrivals);
}

#[test]
fn a_reset_finds_times_and_keeps_within_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine.create_stream("s", StreamConfig { shards: 1, ..StreamConfig::default() }).unwrap();
    let arrivals = append(&engine, 1_500);
    let mut control = engine.control();
    commit(&mut control, "g", 77);
    let reset = |control: &mut Control, to, shift, dry_run| {
        let reset = GroupReset { shard: None, to, shift, dry_run };
        let done = control.reset_group("g", "", &reset).unwrap();
        assert_eq!(done.len(), 1);
        done[0].to
    };
    for (sequence, arrival) in arrivals.iter().step_by(97) {
        let first = arrivals.iter().find(|(_, a)| a >= arrival).unwrap().0;
        assert_eq!(reset(&mut control, ResetTo::Time(*arrival), 0, true), first, "{sequence}");
        let next = arrivals.iter().find(|(_, a)| a > arrival).map_or(15_000, |(s, _)| *s);
        assert_eq!(reset(&mut control, ResetTo::Time(arrival + 1), 0, true), next, "{sequence}");
    }
    assert_eq!(reset(&mut control, ResetTo::Time(u64::MAX), 0, true), 15_000);
    assert_eq!(reset(&mut control, ResetTo::Time(0), 0, true), 0);
    let table = [
        (ResetTo::Current, 23, 100),
        (ResetTo::Current, -100, 0),
        (ResetTo::Latest, -5, 14_995),
        (ResetTo::Oldest, 5, 5),
        (ResetTo::Sequence(u64::MAX), 0, 15_000),
        (ResetTo::Sequence(3), i64::MIN, 0),
    ];
    for (to, shift, target) in table {
        assert_eq!(reset(&mut control, to, shift, true), target, "{to:?} {shift}");
    }
    let position = |control: &Control| control.fetch_positions("g", "s").unwrap()[0].sequence;
    assert_eq!(position(&control), 77, "nothing was changed so far");
    assert_eq!(reset(&mut control, ResetTo::Latest, -5, false), 14_995);
    assert_eq!(position(&control), 14_995);
    let missing = GroupReset { shard: Some(3), to: ResetTo::Latest, shift: 0, dry_run: false };
    let refused = control.reset_group("g", "s", &missing).unwrap_err();
    assert_eq!(refused.to_wire().code, ErrorCode::UnknownShard);
    control.delete_group("g", "").unwrap();
    for refused in [control.delete_group("g", ""), control.describe_group("g").map(|_| ())] {
        assert_eq!(refused.unwrap_err().to_wire().code, ErrorCode::UnknownGroup);
    }
    drop(control);
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(engine.control().fetch_positions("g", "s").unwrap(), []);
}
