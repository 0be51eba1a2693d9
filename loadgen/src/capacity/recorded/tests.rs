//! Made-up servers, and what is seen of them.

use super::*;
use highwater_wire::telemetry::{CoreSnapshot, GroupSnapshot};

/// A server of two cores and two shards: 1,000 and 500 records/s of 200 bytes each, 250 on the device; what one
/// group has read is `position`.
fn at(started: u64, second: u64, position: u64) -> Snapshot {
    let shard = |shard: u32, per_s: u64| ShardSnapshot {
        stream: "s".into(),
        shard,
        core: shard,
        records_in: per_s * second,
        bytes_in: per_s * second * 200,
        records_out: per_s * second * 2,
        disk_bytes: per_s * second * 250,
        ..ShardSnapshot::default()
    };
    let core = |core: u32, share: u64| CoreSnapshot {
        core,
        busy_ns: second * share * 10_000_000,
        propagation: Distribution::of(
            [(400_000, 990 * second), (9_000_000, 10 * second)],
            9_000_000,
        ),
        ..CoreSnapshot::default()
    };
    let high_water = 1_000 * second;
    Snapshot {
        taken_ns: (started + second) * 1_000_000_000,
        uptime_ns: second * 1_000_000_000,
        started_ns: started * 1_000_000_000,
        cores: vec![core(0, 60), core(1, 30)],
        shards: vec![shard(0, 1_000), shard(1, 500)],
        groups: vec![GroupSnapshot {
            group: "g".into(),
            stream: "s".into(),
            position,
            backlog_records: high_water.saturating_sub(position),
            ..GroupSnapshot::default()
        }],
        disk_free: 7,
        ..Snapshot::default()
    }
}

fn watched(snapshots: impl IntoIterator<Item = Snapshot>) -> Option<Recorded> {
    let mut watch = Watch::default();
    snapshots.into_iter().for_each(|snapshot| watch.take(&snapshot));
    watch.finish()
}

#[test]
fn rates_shares_and_percentiles_are_of_what_happened_meanwhile() {
    let found = watched((100..141).map(|s| at(5_000, s, 1_000 * s))).unwrap();
    assert_eq!((found.samples, found.restarts, found.span_s), (41, 0, 40.0));
    assert_eq!((found.mean.records_in, found.mean.bytes_in), (1_500.0, 300_000.0));
    assert_eq!((found.mean.records_out, found.mean.disk_bytes), (3_000.0, 375_000.0));
    assert_eq!(found.disk_bytes_per_record(), Some(250.0));
    assert_eq!(found.batch_bytes_per_record(), Some(200.0));
    assert!((found.mean.cores_busy - 0.9).abs() < 1e-9);
    assert!((found.windows[0].cores_busy - 0.9).abs() < 1e-9);
    assert!((found.mean.busy - 0.6).abs() < 1e-9 && (found.core_skew - 60.0 / 45.0).abs() < 1e-9);
    // 1,000 of 1,500 over two shards.
    assert!((found.shard_skew - 1_000.0 / 750.0).abs() < 1e-9);
    assert_eq!(found.propagation_us, Some([400.0, 400.0, 9_000.0]));
    assert_eq!((found.windows.len(), found.shards, found.cores, found.groups), (4, 2, 2, 1));
    assert_eq!(found.busiest().unwrap().records_in, 1_500.0);
    assert_eq!(found.borne().unwrap().records_in, 1_500.0);
    assert!(found.caught_up.is_empty(), "{:?}", found.caught_up);
}

#[test]
fn a_group_that_catches_up_is_followed_from_its_return_to_the_head() {
    // Away until second 130 with 30,000 behind, then 4,000/s read: at the head ten seconds later.
    let position = |s: u64| match s {
        ..=130 => 100_000,
        131..=140 => 100_000 + (s - 130) * 4_000,
        s => s * 1_000,
    };
    let found = watched((100..161).map(|s| at(5_000, s, position(s)))).unwrap();
    let [seen] = &found.caught_up[..] else { panic!("{:?}", found.caught_up) };
    assert_eq!((seen.group.as_str(), seen.backlog), ("g", 30_000.0));
    assert!((seen.read - 4_000.0).abs() < 1e-6 && (seen.arrival - 1_000.0).abs() < 1e-6);
    // In steps of two seconds, and the last, which ends at the head, does not count.
    assert!((6.0..=10.0).contains(&seen.took_s), "{}", seen.took_s);
}

#[test]
fn a_restart_and_a_repeated_snapshot_are_no_time() {
    let lives = (100..121).map(|s| at(5_000, s, 0)).chain((1..22).map(|s| at(6_000, s, 0)));
    let found = watched(lives).unwrap();
    assert_eq!((found.restarts, found.span_s), (1, 40.0));
    assert!((found.mean.records_in - 1_500.0).abs() < 1e-9);
    let again = watched((100..121).flat_map(|s| [at(5_000, s, 0), at(5_000, s, 0)])).unwrap();
    assert_eq!((again.samples, again.span_s), (21, 20.0));
    assert_eq!(watched([at(5_000, 100, 0)]), None);
    assert_eq!(watched([]), None);
}

/// A stream that is deleted takes its counters out of the sums of all shards: what it took was then missing.
#[test]
fn what_a_deleted_stream_took_stays() {
    let with = |snapshot: Snapshot, stream_id: u32, born: u64| {
        let mut other = at(5_000, snapshot.uptime_ns / 1_000_000_000 - born, 0).shards;
        for shard in &mut other {
            (shard.stream, shard.stream_id) = ("t".into(), stream_id);
        }
        Snapshot { shards: [snapshot.shards, other].concat(), ..snapshot }
    };
    // Beside `s`, one that is there from 110 to 120 (told as long as it is), and one by its name from 125 on.
    let seen = |second: u64| {
        let snapshot = at(5_000, second, 0);
        match second {
            110..=120 => with(snapshot, 7, 110),
            125.. => with(snapshot, 8, 125),
            _ => snapshot,
        }
    };
    let found = watched((100..141).map(seen)).unwrap();
    // 40 s of 1,500/s, 10 s and 15 s more of it.
    assert_eq!(found.mean.records_in, 1_500.0 * 65.0 / 40.0);
    assert_eq!(found.mean.bytes_in, 200.0 * found.mean.records_in);
    assert_eq!(found.mean.records_out, 2.0 * found.mean.records_in);
    assert_eq!(found.mean.disk_bytes, 250.0 * found.mean.records_in);
    let windows: Vec<f64> = found.windows.iter().map(|window| window.records_in).collect();
    assert_eq!(windows, [1_500.0, 3_000.0, 2_250.0, 3_000.0]);
    assert!((found.shard_skew - 1_000.0 / 750.0).abs() < 1e-9);
    // All that was there is deleted: what `load run --delete-stream` leaves.
    let gone = (100..121).map(|second| match second {
        120 => Snapshot { shards: vec![], ..at(5_000, 120, 0) },
        second => at(5_000, second, 0),
    });
    let found = watched(gone).unwrap();
    assert_eq!(found.mean.records_in, 1_500.0 * 19.0 / 20.0);
    // By the same name and number, one that counts less began anew.
    let anew = (100..121).map(|second| Snapshot {
        shards: if second < 110 { at(5_000, second, 0) } else { at(5_000, second - 110, 0) }.shards,
        ..at(5_000, second, 0)
    });
    assert_eq!(watched(anew).unwrap().mean.records_in, 1_500.0 * 19.0 / 20.0);
}

/// One record in a stream of two shards made its skew of 2 that of all keys.
#[test]
fn a_stream_with_next_to_nothing_in_it_has_no_skew() {
    let seen = |second: u64| {
        let mut snapshot = at(5_000, second, 0);
        let tried = |shard: u32| ShardSnapshot {
            stream: "tried".into(),
            stream_id: 9,
            shard,
            records_in: u64::from(shard == 0 && second > 105),
            ..ShardSnapshot::default()
        };
        snapshot.shards.extend([tried(0), tried(1)]);
        snapshot
    };
    let found = watched((100..121).map(seen)).unwrap();
    assert!((found.shard_skew - 1_000.0 / 750.0).abs() < 1e-9, "{}", found.shard_skew);
}

/// What a group had not read was gone with its stream: a load that was not borne seemed to be.
#[test]
fn a_backlog_that_is_deleted_was_not_read() {
    let seen = |second: u64| match second {
        ..115 => at(5_000, second, 0),
        _ => Snapshot { shards: vec![], groups: vec![], ..at(5_000, second, 0) },
    };
    // Another one, empty and read, has its name since.
    let made_again = |second: u64| {
        let mut snapshot = at(5_000, second, 0);
        if second >= 115 {
            for shard in &mut snapshot.shards {
                let (stream, stream_id) = (shard.stream.clone(), shard.stream_id + 1);
                *shard =
                    ShardSnapshot { stream, stream_id, shard: shard.shard, ..Default::default() };
            }
            snapshot.groups.iter_mut().for_each(|group| group.backlog_records = 0);
        }
        snapshot
    };
    for found in [watched((100..141).map(seen)), watched((100..141).map(made_again))] {
        let found = found.unwrap();
        assert_eq!(found.windows[1].records_in, 600.0);
        assert_eq!(found.windows[1].backlog_growth, 400.0);
        assert_eq!(found.borne(), None);
    }
}

#[test]
fn a_short_recording_is_one_window() {
    let found = watched((100..103).map(|s| at(5_000, s, 0))).unwrap();
    assert_eq!((found.windows.len(), found.windows[0].span_s), (1, 2.0));
    // Nobody reads: what is unread grows, and nothing was borne.
    assert_eq!(found.borne(), None);
}
