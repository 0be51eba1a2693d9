//! Copies a core's figures for telemetry.

use highwater_ring::Disk;
use highwater_wire::telemetry::{CoreSnapshot, GroupSnapshot, ShardSnapshot};

use crate::io::Io;
use crate::shard::Shard;
use crate::types::Now;

/// The figures of a core, its shards and their groups.
pub(crate) fn take<'a, D: Disk>(
    core: usize,
    now: Now,
    disk: &D,
    io: &mut Io,
    shards: impl Iterator<Item = &'a mut Shard>,
) -> (CoreSnapshot, Vec<ShardSnapshot>, Vec<GroupSnapshot>) {
    let (mut all, mut groups) = (Vec::new(), Vec::new());
    for shard in shards {
        all.push(of_shard(core, now, shard));
        groups.extend(shard.positions().map(|(group, position)| {
            let backlog = shard.backlog(now, position);
            GroupSnapshot {
                group: group.to_owned(),
                stream: shard.spec().stream.clone(),
                shard: shard.id().shard,
                position,
                backlog_records: backlog.records,
                backlog_bytes: backlog.bytes,
                backlog_ns: backlog.age_ns,
            }
        }));
    }
    let snapshot = CoreSnapshot {
        core: core as u32,
        taken_ns: now.wall_ns,
        uptime_ns: now.mono_ns,
        ring_in_flight: disk.in_flight() as u32,
        groups_in_flight: all.iter().map(|s| s.in_flight).sum(),
        buffer_used: io.pool.used_bytes() as u64,
        buffer_capacity: io.pool.capacity_bytes() as u64,
        waiting: io.waiting_used as u64,
        refused: all.iter().map(|s| s.refused).sum(),
        group_bytes: io.stats.group_bytes.copy(),
        queue: io.stats.queue.copy(),
        write: io.stats.write.copy(),
        append: io.stats.append.copy(),
        propagation: io.stats.propagation.copy(),
        ..CoreSnapshot::default()
    };
    (snapshot, all, groups)
}

fn of_shard(core: usize, now: Now, shard: &mut Shard) -> ShardSnapshot {
    let (write, propagation) = (shard.stats.write.copy(), shard.stats.propagation.copy());
    let (keys_total, keys) = shard.stats.keys.tell(now.mono_ns);
    let stats = &shard.stats;
    ShardSnapshot {
        stream: shard.spec().stream.clone(),
        stream_id: shard.id().stream,
        shard: shard.id().shard,
        core: core as u32,
        state: shard.state_text(),
        records_in: stats.records_in,
        bytes_in: stats.bytes_in,
        batches_in: stats.batches_in,
        records_out: stats.records_out,
        bytes_out: stats.bytes_out,
        groups: stats.groups,
        disk_bytes: stats.disk_bytes,
        duplicates: stats.duplicates,
        refused: stats.refused,
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
        write,
        propagation,
        keys_total,
        keys,
        ..ShardSnapshot::default()
    }
}
