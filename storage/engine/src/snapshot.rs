//! Copies a core's figures for telemetry.

use highwater_ring::Disk;
use highwater_wire::telemetry::{CoreSnapshot, GroupSnapshot, ShardSnapshot};

use crate::io::Io;
use crate::shard::Shard;
use crate::types::Now;

/// What a core tells of itself.
#[derive(Clone, Debug, Default)]
pub struct CoreReport {
    /// The core. Fields that only the server knows are left at zero.
    pub core: CoreSnapshot,
    /// Its shards whose figures have changed since the last report.
    pub shards: Vec<ShardSnapshot>,
    /// Whether `shards` are all it has.
    pub complete: bool,
    /// The groups on its shards, all of them.
    pub groups: Vec<GroupSnapshot>,
}

/// The figures of a core and of its shards: of all of them, or of those that have something new to tell.
pub(crate) fn take<'a, D: Disk>(
    core: usize,
    now: Now,
    complete: bool,
    disk: &D,
    io: &mut Io,
    shards: impl Iterator<Item = &'a mut Shard>,
) -> CoreReport {
    let (mut told, mut groups) = (Vec::new(), Vec::new());
    let (mut groups_in_flight, mut refused) = (0, 0);
    for shard in shards {
        groups_in_flight += shard.writing() as u32;
        refused += shard.stats.refused;
        told.extend(of_shard(core, now, complete, shard));
        groups.extend(shard.positions().map(|(group, position)| {
            let lag = shard.lag(now, group, position);
            GroupSnapshot {
                group: group.to_owned(),
                stream: shard.spec().stream.clone(),
                shard: shard.id().shard,
                position,
                backlog_records: lag.backlog.records,
                backlog_bytes: lag.backlog.bytes,
                backlog_ns: lag.backlog.age_ns,
                exact: lag.backlog.exact,
                rate_in: lag.outlook.rate_in,
                rate_out: lag.outlook.rate_out,
                trend: lag.outlook.trend,
                empty_ms: lag.outlook.empty_ms,
                loss_ms: lag.outlook.loss_ms,
            }
        }));
    }
    let core = CoreSnapshot {
        core: core as u32,
        taken_ns: now.wall_ns,
        uptime_ns: now.mono_ns,
        ring_in_flight: disk.in_flight() as u32,
        groups_in_flight,
        buffer_used: io.pool.used_bytes() as u64,
        buffer_capacity: io.pool.capacity_bytes() as u64,
        waiting: io.waiting_used as u64,
        refused,
        group_bytes: io.stats.group_bytes.copy(),
        queue: io.stats.queue.copy(),
        write: io.stats.write.copy(),
        append: io.stats.append.copy(),
        propagation: io.stats.propagation.copy(),
        ..CoreSnapshot::default()
    };
    CoreReport { core, shards: told, complete, groups }
}

/// The figures of a shard; `None` if they are those told last and not `always` wanted.
fn of_shard(core: usize, now: Now, always: bool, shard: &mut Shard) -> Option<ShardSnapshot> {
    let mut plain = numbers(core, shard);
    let stats = &mut shard.stats;
    let told = stats.told.as_deref();
    plain.keys_total = told.map_or(0, |told| told.keys_total);
    let same = told == Some(&plain) && stats.keys.is_empty() && plain.keys_total == 0;
    if same && !always && !stats.write.changed() && !stats.propagation.changed() {
        return None;
    }
    let (keys_total, keys) = stats.keys.tell(now.mono_ns);
    plain.keys_total = keys_total;
    let whole = ShardSnapshot {
        stream: String::new(),
        write: stats.write.copy(),
        propagation: stats.propagation.copy(),
        keys,
        ..plain.clone()
    };
    stats.told = Some(Box::new(plain));
    Some(ShardSnapshot { stream: shard.spec().stream.clone(), ..whole })
}

/// What costs nothing to copy.
fn numbers(core: usize, shard: &Shard) -> ShardSnapshot {
    let stats = &shard.stats;
    ShardSnapshot {
        stream_id: shard.id().stream,
        shard: shard.id().shard,
        core: core as u32,
        state: shard.state_text(),
        records_in: stats.records_in,
        bytes_in: stats.bytes_in,
        batches_in: stats.batches_in,
        records_out: stats.records_out,
        bytes_out: stats.bytes_out,
        filter_looked: stats.filter_looked,
        filter_matched: stats.filter_matched,
        groups: stats.groups,
        disk_bytes: stats.disk_bytes,
        duplicates: stats.duplicates,
        refused: stats.refused,
        counters: shard.counters(),
        oldest: shard.oldest(),
        high_water: shard.high_water(),
        stored_bytes: shard.stored_bytes(),
        log_bytes: shard.log_bytes(),
        retention_ms: shard.spec().retention_ms,
        retention_bytes: shard.spec().retention_bytes,
        segments: shard.segment_count() as u32,
        cold_segments: stats.cold_segments,
        in_flight: shard.writing() as u32,
        readers: shard.reader_count() as u32,
        ..ShardSnapshot::default()
    }
}
