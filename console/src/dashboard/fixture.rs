//! A made-up server for tests: 20,000 records of 512 B a second into four shards on two cores, twice as many
//! out, one group that keeps up and one that falls behind.

use highwater_wire::telemetry::{
    CoreSnapshot, Distribution, GroupSnapshot, ShardSnapshot, Snapshot, VERSION,
};

/// When the made-up server started: an arbitrary moment, nanoseconds since 1970 UTC.
pub const STARTED: u64 = 1_760_000_000_000_000_000;

const SECOND: u64 = 1_000_000_000;

/// Its snapshot `at` seconds after the start.
pub fn snapshot(at: u64) -> Snapshot {
    let tail = |n: u64| Distribution {
        buckets: vec![(400_000, 980 * n), (3_900_000, 18 * n), (9_000_000, 2 * n)],
        max: 9_000_000,
        sum: n * (400_000 * 980 + 3_900_000 * 18 + 9_000_000 * 2),
    };
    let core = |core: u32, busy: u64| CoreSnapshot {
        core,
        cpu: core,
        taken_ns: STARTED + at * SECOND,
        busy_ns: at * busy * SECOND / 100,
        connections: 3,
        propagation: tail(at),
        write: tail(at),
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
        records_out: 2 * at * rate,
        bytes_out: 2 * at * rate * 512,
        ..ShardSnapshot::default()
    };
    let group = |group: &str, shard: u32, records: u64| GroupSnapshot {
        group: group.into(),
        stream: "orders".into(),
        shard,
        backlog_records: records,
        backlog_bytes: records * 512,
        backlog_ns: records * 1_200_000,
        ..GroupSnapshot::default()
    };
    Snapshot {
        version: VERSION,
        taken_ns: STARTED + at * SECOND,
        started_ns: STARTED,
        server: "0.1.0".into(),
        durability: "RWF_DSYNC on ext4".into(),
        durable: true,
        disk_free: 40 << 30,
        disk_total: 100 << 30,
        cores: vec![core(0, 58), core(1, 41)],
        shards: vec![shard(0, 4_000), shard(1, 4_000), shard(2, 4_000), shard(3, 8_000)],
        groups: vec![group("billing", 0, 12), group("audit", 0, 1000 * at), group("audit", 1, 1)],
        ..Snapshot::default()
    }
}
