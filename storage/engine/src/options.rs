//! Sizes and bounds of a core and its shards.

use highwater_wire::Limits;

/// Sizes of segment files, in bytes. A shard starts with the smallest and goes up and down with its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSizes {
    /// Smallest: what an idle shard takes.
    pub min: u64,
    /// Largest.
    pub max: u64,
}

impl Default for SegmentSizes {
    /// 4 MiB to 256 MiB.
    fn default() -> SegmentSizes {
        SegmentSizes { min: 4 << 20, max: 256 << 20 }
    }
}

/// What the shards of a core obey.
#[derive(Clone, Copy, Debug)]
pub struct CoreOptions {
    /// Largest record and batch.
    pub limits: Limits,
    /// Sizes of segments.
    pub segments: SegmentSizes,
    /// Commit groups of one shard in flight at once.
    pub depth: usize,
    /// With one group in flight, the next follows as soon as it has this many bytes.
    pub group_min: usize,
    /// With more in flight, as soon as it has this many.
    pub group_large: usize,
    /// A group grows no further than this, unless a single batch needs it.
    pub group_max: usize,
    /// Pooled memory that recently written groups may keep for live consumers, in bytes.
    pub tail_bytes: usize,
    /// Bytes of batches that may wait, over all shards, while segments are being prepared.
    pub waiting_bytes: usize,
    /// Bytes of batches that backpressure may hold back, over all shards.
    pub held_bytes: usize,
    /// Producers remembered per shard.
    pub producers: usize,
    /// Bytes of one read from disk.
    pub read_bytes: usize,
    /// For `written` streams: longest time from a write's completion to the flush that follows, ns.
    pub flush_after_ns: u64,
    /// Longest time between checkpoints under load, ns.
    pub checkpoint_every_ns: u64,
    /// A checkpoint follows this long after a core went quiet, ns.
    pub checkpoint_quiet_ns: u64,
    /// Test-only faults planted on purpose.
    pub planted: Planted,
}

/// Defects planted on purpose, to prove that the crash tests would find them. Never set outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// Acknowledge a group when it is submitted, not when it is durable.
    pub ack_before_flush: bool,
    /// Advance the high-water mark with any completion, not in order.
    pub mark_out_of_order: bool,
}

impl Default for CoreOptions {
    fn default() -> CoreOptions {
        CoreOptions {
            limits: Limits::default(),
            segments: SegmentSizes::default(),
            depth: 4,
            group_min: 64 << 10,
            group_large: 256 << 10,
            group_max: 1 << 20,
            tail_bytes: 16 << 20,
            waiting_bytes: 16 << 20,
            held_bytes: 64 << 20,
            producers: 1024,
            read_bytes: 256 << 10,
            flush_after_ns: 5_000_000,
            checkpoint_every_ns: 100_000_000,
            checkpoint_quiet_ns: 5_000_000,
            planted: Planted::default(),
        }
    }
}
