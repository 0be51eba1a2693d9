//! A made-up server for tests: 20,000 records of 512 B a second into four shards on two cores, twice as many
//! out, one group that keeps up and one that falls behind.

use highwater_wire::telemetry::{
    CoreSnapshot, Distribution, GroupSnapshot, HotKey, ShardSnapshot, Snapshot, VERSION,
};

/// When the made-up server started: an arbitrary moment, nanoseconds since 1970 UTC.
pub const STARTED: u64 = 1_760_000_000_000_000_000;

const SECOND: u64 = 1_000_000_000;

/// A thousand values a second, `scale` times (0.4 ms, 3.9 ms, 9 ms) long, after `at` seconds.
fn tail(at: u64, scale: f64) -> Distribution {
    let value = |us: f64| (us * 1e3 * scale) as u64;
    let buckets = [(value(400.0), 980 * at), (value(3_900.0), 18 * at), (value(9_000.0), 2 * at)];
    Distribution::of(buckets, value(9_000.0))
}

/// Its snapshot `at` seconds after the start.
pub fn snapshot(at: u64) -> Snapshot {
    let core = |core: u32, busy: u64| CoreSnapshot {
        core,
        cpu: core,
        taken_ns: STARTED + at * SECOND,
        uptime_ns: at * SECOND,
        busy_ns: at * busy * SECOND / 100,
        turns: at * 5_000,
        connections: 3,
        ring_in_flight: 2,
        groups_in_flight: 1,
        buffer_used: 9 << 20,
        buffer_capacity: 32 << 20,
        receive_used: 1 << 20,
        queued: 96 << 10,
        requests: at * 900,
        snapshot_cost_us: at * 60,
        turn: tail(at, 0.02),
        group_bytes: tail(at, 0.1),
        queue: tail(at, 0.2),
        write: tail(at, 1.0),
        ack: tail(at, 0.05),
        deliver: tail(at, 0.1),
        append: tail(at, 1.1),
        propagation: tail(at, 1.0),
        ..CoreSnapshot::default()
    };
    let shard = |shard: u32, rate: u64| ShardSnapshot {
        stream: "orders".into(),
        stream_id: 1,
        shard,
        core: shard % 2,
        state: "open".into(),
        records_in: at * rate,
        bytes_in: at * rate * 512,
        batches_in: at * rate / 20,
        records_out: 2 * at * rate,
        bytes_out: 2 * at * rate * 512,
        groups: at * 250,
        disk_bytes: at * (rate * 512 + 250 * 1024),
        high_water: at * rate,
        stored_bytes: at * rate * 600,
        log_bytes: at * rate * 520,
        segments: 2,
        readers: 2,
        write: tail(at, 1.0),
        propagation: tail(at, 1.0),
        keys_total: rate * 10,
        keys: vec![
            HotKey { key: "user-17".into(), records: rate * u64::from(shard + 1) },
            HotKey { key: "user-4".into(), records: rate / 5 },
        ],
        ..ShardSnapshot::default()
    };
    let group = |group: &str, shard: u32, records: u64| GroupSnapshot {
        group: group.into(),
        stream: "orders".into(),
        shard,
        position: (4_000 * at).saturating_sub(records),
        backlog_records: records,
        backlog_bytes: records * 512,
        backlog_ns: records * 1_200_000,
        ..GroupSnapshot::default()
    };
    Snapshot {
        version: VERSION,
        serial: at,
        taken_ns: STARTED + at * SECOND,
        uptime_ns: at * SECOND,
        started_ns: STARTED,
        server: "0.1.0".into(),
        durability: "RWF_DSYNC on ext4".into(),
        durable: true,
        disk_free: 40 << 30,
        disk_total: 100 << 30,
        resident: 120 << 20,
        snapshot_cost_us: at * 80,
        cores: vec![core(0, 58), core(1, 41)],
        shards: vec![shard(0, 4_000), shard(1, 4_000), shard(2, 4_000), shard(3, 8_000)],
        groups: vec![group("billing", 0, 12), group("audit", 0, 1000 * at), group("audit", 1, 1)],
        ..Snapshot::default()
    }
}
