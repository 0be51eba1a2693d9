//! What each core did.

use highwater_wire::telemetry::{CoreSnapshot, Distribution, Snapshot};

use super::{Flow, Seconds, ShardFigures, Tail};

/// A core.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoreFigures {
    /// Its number.
    pub core: u32,
    /// The CPU it is pinned to.
    pub cpu: u32,
    /// CPU time of its thread as a share of the time, 0 to 1.
    pub busy: f64,
    /// Turns of its loop a second.
    pub turns: f64,
    /// Length of these turns.
    pub turn: Tail,
    /// Operations of the log in flight now.
    pub ring_in_flight: u32,
    /// Commit groups in flight now.
    pub groups_in_flight: u32,
    /// Bytes written per commit group.
    pub group_bytes: Tail,
    /// Durable writes.
    pub write: Tail,
    /// Frames a second.
    pub requests: f64,
    /// Requests refused a second.
    pub refused: f64,
    /// Requests handed to another core a second.
    pub forwarded: f64,
    /// Connections now.
    pub connections: u32,
    /// Pooled buffer memory in use now, bytes.
    pub buffer_used: u64,
    /// Pooled buffer memory in all, bytes.
    pub buffer_capacity: u64,
    /// Memory beyond its least that connections receive into now, bytes.
    pub receive_used: u64,
    /// Bytes queued for clients now.
    pub queued: u64,
    /// Bytes of batches that wait for a segment now.
    pub waiting: u64,
    /// Into its shards.
    pub into: Flow,
    /// Out of its shards.
    pub out: Flow,
    /// CPU time of its part of the snapshots, microseconds a second.
    pub snapshot_cost_us: f64,
}

pub(super) fn between(
    old: &Snapshot,
    new: &Snapshot,
    seconds: &Seconds,
    shards: &[ShardFigures],
) -> Vec<CoreFigures> {
    let none = CoreSnapshot::default();
    let figures = |core: &CoreSnapshot| {
        let before = old.cores.iter().find(|c| c.core == core.core).unwrap_or(&none);
        let seconds = seconds.of(core.core);
        let rate =
            |of: fn(&CoreSnapshot) -> u64| of(core).saturating_sub(of(before)) as f64 / seconds;
        let tail = |of: fn(&CoreSnapshot) -> &Distribution| Tail::of(&of(core).since(of(before)));
        let (mut into, mut out) = (Flow::default(), Flow::default());
        for shard in shards.iter().filter(|s| s.core == core.core) {
            into += shard.into;
            out += shard.out;
        }
        CoreFigures {
            core: core.core,
            cpu: core.cpu,
            busy: (rate(|c| c.busy_ns) / 1e9).min(1.0),
            turns: rate(|c| c.turns),
            turn: tail(|c| &c.turn),
            ring_in_flight: core.ring_in_flight,
            groups_in_flight: core.groups_in_flight,
            group_bytes: tail(|c| &c.group_bytes),
            write: tail(|c| &c.write),
            requests: rate(|c| c.requests),
            refused: rate(|c| c.refused),
            forwarded: rate(|c| c.forwarded),
            connections: core.connections,
            buffer_used: core.buffer_used,
            buffer_capacity: core.buffer_capacity,
            receive_used: core.receive_used,
            queued: core.queued,
            waiting: core.waiting,
            into,
            out,
            snapshot_cost_us: rate(|c| c.snapshot_cost_us),
        }
    };
    new.cores.iter().map(figures).collect()
}
