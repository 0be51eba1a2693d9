//! What shards of one core share: buffers, operations to submit, answers to give.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use highwater_ring::{AlignedBuf, BufferPool, Op, Token};
use highwater_wire::{ShardId, Unpacker};

use crate::format::page_align;
use crate::kept::Kept;
use crate::options::CoreOptions;
use crate::producers::{Claim, IdsGiven};
use crate::stats::CoreStats;
use crate::types::{AppendError, Output};

/// What an operation in flight was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A write of a shard's log, by its number in the order of submission.
    Flight(u64),
    /// A flush of all writes up to this one.
    Sync(u64),
    /// A read for a reader.
    Read(u64),
    /// The next segment.
    Take(u64),
    /// Opening an old segment.
    Open(u64),
    /// Giving the oldest segment back.
    Recycle,
    /// Giving back a file that was never used.
    Discard,
    /// Removing the shard's directory.
    RemoveDir,
    /// The core's checkpoint.
    Checkpoint,
}

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Whose.
    pub shard: ShardId,
    /// What for.
    pub what: What,
}

/// Smallest buffer a tail block can have, in bytes.
const SMALLEST: usize = 4 << 10;
/// Largest buffer of the pool, in bytes.
const POOLED: usize = 1 << 20;
/// Entries of the tail's order beyond the blocks that can be there.
const ORDER_SLACK: usize = 1024;

/// Shared by the shards of a core.
pub struct Io {
    /// Buffers.
    pub pool: BufferPool,
    /// Sizes and bounds.
    pub options: CoreOptions,
    /// To be submitted, in order.
    pub ops: Vec<(Token, Op)>,
    /// To be answered, in order.
    pub outputs: Vec<Output>,
    /// Files no longer needed.
    pub closes: Vec<highwater_ring::FileId>,
    /// Distributions over all shards.
    pub stats: CoreStats,
    /// Pooled bytes kept in the tails of all shards.
    pub tail_used: usize,
    /// What was read from disk for readers that have no credit for it yet.
    pub kept: Kept,
    /// Bytes of batches that wait, over all shards, while segments are being prepared.
    pub waiting_used: usize,
    /// Bytes of batches that backpressure holds, over all shards.
    pub held_used: usize,
    /// The epochs of named producers that were given out last, by id.
    pub fences: HashMap<u64, u32>,
    /// The ids given out; `None` where nobody keeps count: then whoever comes is taken at their word.
    pub ids_given: Option<Arc<IdsGiven>>,
    /// The body of a compressed batch that is looked into, uncompressed.
    pub scratch: Vec<u8>,
    /// Inflates it.
    pub unpacker: Unpacker,
    /// For generations: seeded by whoever opens the core.
    pub random: fastrand::Rng,
    /// Shards that have to give back their oldest tail block.
    evict: Vec<ShardId>,
    /// Bytes of the blocks that are picked for that and not dropped yet: they count as gone.
    picked: usize,
    /// Whose blocks are in a tail, oldest first.
    pub tail_order: VecDeque<(ShardId, usize)>,
    /// The file system is so full that nothing is to be stored.
    pub disk_low: bool,
    /// Operations in flight by token.
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
}

impl Io {
    /// For one core.
    pub fn new(pool: BufferPool, options: CoreOptions, seed: u64) -> Io {
        Io {
            pool,
            options,
            ops: Vec::new(),
            outputs: Vec::new(),
            closes: Vec::new(),
            stats: CoreStats::default(),
            tail_used: 0,
            kept: Kept::default(),
            waiting_used: 0,
            held_used: 0,
            fences: HashMap::new(),
            ids_given: None,
            scratch: Vec::new(),
            unpacker: Unpacker::default(),
            random: fastrand::Rng::with_seed(seed),
            evict: Vec::new(),
            picked: 0,
            tail_order: VecDeque::new(),
            disk_low: false,
            pending: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Refuses a producer of which a newer epoch was opened, and one that was never given out: a batch of an epoch or id
    /// of the future would lock out whoever is given it one day.
    pub fn admits(&self, claim: &Claim) -> Result<(), AppendError> {
        if claim.id == 0 {
            return Ok(());
        }
        let named = self.fences.get(&claim.id).copied();
        if let Some(current) = named.filter(|current| claim.epoch < *current) {
            return Err(AppendError::Fenced { current, got: claim.epoch });
        }
        let Some(ids) = &self.ids_given else { return Ok(()) };
        // Ids without a name have one epoch, 0.
        if claim.epoch > named.unwrap_or(0) || !ids.has(claim.id) {
            return Err(AppendError::NotGiven { id: claim.id, epoch: claim.epoch });
        }
        Ok(())
    }

    /// Bytes that a shard which holds `held` bytes back may hold more. Half of the core's memory for this goes to
    /// whoever comes; of the rest a shard gets no more than an eighth of the whole, so that none takes all.
    pub fn left_to_hold(&self, held: u64) -> u64 {
        let all = self.options.held_bytes;
        let left = all.saturating_sub(self.held_used) as u64;
        let share = (all / 8) as u64;
        if self.held_used > all / 2 { left.min(share.saturating_sub(held)) } else { left }
    }

    /// Queues an operation.
    pub fn submit(&mut self, shard: ShardId, what: What, op: Op) {
        let pending = Some(Pending { shard, what });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.pending[slot] = pending;
                slot
            }
            None => {
                self.pending.push(pending);
                self.pending.len() - 1
            }
        };
        self.ops.push((slot as Token, op));
    }

    /// What a completed operation was for.
    pub fn complete(&mut self, token: Token) -> Option<Pending> {
        let slot = usize::try_from(token).ok()?;
        let pending = self.pending.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(pending)
    }

    /// Operations in flight or queued.
    pub fn in_flight(&self) -> usize {
        self.pending.len() - self.free.len()
    }

    /// A pooled buffer for a commit group. When there is none, what is kept for readers goes, and the oldest tails are
    /// picked to make room: ask again after they were dropped.
    pub fn take(&mut self, len: usize) -> Option<AlignedBuf> {
        let mut buf = self.pool.take(len);
        if buf.is_none() && self.kept.clear() {
            buf = self.pool.take(len);
        }
        if buf.is_none() {
            self.pick_tails(len.max(self.pool.region_bytes() / 8).saturating_sub(self.picked));
        }
        buf
    }

    /// Counts a block that a shard keeps in its tail, and picks those that have to go for it.
    pub fn keep_tail(&mut self, shard: ShardId, bytes: usize) {
        self.tail_used += bytes;
        self.tail_order.push_back((shard, bytes));
        // Blocks also go by retention: forget the front of what is certainly gone.
        while self.tail_order.len() > ORDER_SLACK + self.tail_used / SMALLEST {
            self.tail_order.pop_front();
        }
        let over = self.tail_used.saturating_sub(self.options.tail_bytes);
        // Appends come first: the tail gives way when three quarters of the pool are in use.
        let pressed = self.pool.region_used().saturating_sub(self.pool.region_bytes() / 4 * 3);
        self.pick_tails(over.max(pressed).saturating_sub(self.picked));
    }

    /// Whether shards have to give back tail blocks.
    pub fn has_to_evict(&self) -> bool {
        !self.evict.is_empty()
    }

    /// The shards that have to give back their oldest tail block, once for each time they are named: to be done now.
    pub fn take_evicted(&mut self) -> Vec<ShardId> {
        self.picked = 0;
        std::mem::take(&mut self.evict)
    }

    /// Picks the oldest tail blocks, `bytes` in all, to be dropped.
    fn pick_tails(&mut self, bytes: usize) {
        let mut picked = 0;
        while picked < bytes {
            let Some((shard, size)) = self.tail_order.pop_front() else { break };
            self.evict.push(shard);
            picked += size;
        }
        self.picked += picked;
    }

    /// A buffer for a read, which leaves a quarter of the pool to appends. Where the rest is in use or in pieces,
    /// tails give way down to a quarter, and the read gets one apart from the pool, of the half of the memory for
    /// large buffers that is not left to appends: what consumers hold of the pool never keeps others from reading. What
    /// is kept for other readers goes only if there is none otherwise: they would have to read it again.
    pub fn take_for_read(&mut self, len: usize) -> Option<AlignedBuf> {
        if let Some(buf) = self.pooled_for_read(len) {
            return Some(buf);
        }
        if len <= POOLED
            && self.tail_used.saturating_sub(self.picked) > self.pool.region_bytes() / 4
        {
            self.pick_tails(len);
        }
        let large = self.pool.large_bytes();
        // A block larger than the half is read while no other is.
        let most = if len > POOLED { (large / 2).max(page_align(len)) } else { large / 2 };
        if let Some(buf) = self.pool.take_apart(len, most) {
            return Some(buf);
        }
        if !self.kept.clear() {
            return None;
        }
        self.pooled_for_read(len).or_else(|| self.pool.take_apart(len, most))
    }

    fn pooled_for_read(&self, len: usize) -> Option<AlignedBuf> {
        let room = self.pool.region_used() <= self.pool.region_bytes() / 4 * 3;
        (len <= POOLED && room).then(|| self.pool.take(len)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::Piece;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_read_finds_memory_though_consumers_and_tails_have_all_of_the_pool() {
        let pool = BufferPool::new(4 * MIB, 8 * MIB).unwrap();
        let mut io = Io::new(pool, CoreOptions::default(), 1);
        let shard = ShardId { stream: 1, shard: 0 };
        let first = io.take_for_read(MIB).unwrap();
        assert_eq!(io.pool.region_used(), MIB, "from the pool while there is room");
        let kept: Vec<_> = (0..3).map(|_| io.pool.take(MIB).unwrap()).collect();
        io.tail_used = 2 * MIB;
        io.tail_order.extend([(shard, MIB), (shard, MIB)]);
        let half: Vec<_> = (0..4).map(|_| io.take_for_read(MIB).unwrap()).collect();
        assert_eq!(io.pool.used_bytes(), 8 * MIB);
        assert!(io.take_for_read(4096).is_none(), "half of the large buffers is for appends");
        assert!(io.pool.take(4 * MIB).is_some());
        assert_eq!(io.take_evicted(), [shard], "tails give way, down to a quarter");
        drop((first, half));
        drop(kept);
        assert!(io.take_for_read(MIB).is_some());
        assert_eq!(io.pool.used_bytes(), 0, "nothing is lost");
    }

    #[test]
    fn the_tail_gave_way_again_for_what_had_been_picked_before() {
        let bound = 64 << 10;
        let options = CoreOptions { tail_bytes: bound, ..CoreOptions::default() };
        // Blocks of 4 KiB that come within one turn, before anything is dropped: each has to make room for itself alone.
        let shard = ShardId { stream: 1, shard: 0 };
        let mut io = Io::new(BufferPool::new(4 * MIB, 0).unwrap(), options, 1);
        (0..16).for_each(|_| io.keep_tail(shard, SMALLEST));
        assert!(!io.has_to_evict());
        (0..10).for_each(|_| io.keep_tail(shard, SMALLEST));
        assert_eq!(io.take_evicted().len(), 10);
        io.tail_used = bound;
        io.keep_tail(shard, SMALLEST);
        assert_eq!(io.take_evicted().len(), 1, "in the next turn again");
        // As many turned away in one turn want the same eighth.
        io.pool = BufferPool::new(0, 0).unwrap();
        (0..5).for_each(|_| assert!(io.take(2 * SMALLEST).is_none()));
        assert_eq!(io.take_evicted().len(), 2);
        // Above three quarters of the pool: what is beyond them, once.
        let mut io = Io::new(BufferPool::new(MIB, 0).unwrap(), CoreOptions::default(), 1);
        (0..30).for_each(|_| io.keep_tail(shard, SMALLEST));
        let _used: Vec<_> = (0..13).map(|_| io.pool.take(64 << 10).unwrap()).collect();
        (0..5).for_each(|_| io.keep_tail(shard, SMALLEST));
        assert_eq!(io.take_evicted().len(), 16, "64 KiB in blocks of 4");
    }

    #[test]
    fn large_blocks_are_read_though_the_pool_is_used_up() {
        let pool = BufferPool::new(4 * MIB, 8 * MIB).unwrap();
        let mut io = Io::new(pool, CoreOptions::default(), 1);
        let _all: Vec<_> = (0..4).map(|_| io.pool.take(MIB).unwrap()).collect();
        assert!(io.take_for_read(2 * MIB).is_some());
    }

    #[test]
    fn readers_of_large_blocks_kept_large_appends_out() {
        let mut io = Io::new(BufferPool::new(0, 8 * MIB).unwrap(), CoreOptions::default(), 1);
        let two = [io.take_for_read(2 * MIB).unwrap(), io.take_for_read(2 * MIB).unwrap()];
        assert!(io.take_for_read(2 * MIB).is_none());
        assert!(io.take(4 * MIB).is_some(), "the other half is for appends");
        assert!(io.take_for_read(6 * MIB).is_none());
        drop(two);
        assert!(io.take_for_read(6 * MIB).is_some(), "no block is too large to be read");
    }

    #[test]
    fn each_read_under_pressure_threw_away_what_was_kept_for_all_others() {
        let pool = BufferPool::new(4 * MIB, 4 * MIB).unwrap();
        let mut io = Io::new(pool, CoreOptions::default(), 1);
        let shard = ShardId { stream: 1, shard: 0 };
        let buf = io.take_for_read(256 << 10).unwrap().freeze();
        let (asked, len) = (buf.capacity(), buf.capacity());
        let piece =
            Piece { segment: 1, offset: 0, asked, mark: 9, buf, len, pos: 4096, sound: true };
        io.kept.keep(shard, 7, piece, MIB);
        let _three: Vec<_> = (0..3).map(|_| io.pool.take(MIB).unwrap()).collect();
        assert!(io.pool.region_used() > 3 * MIB);
        let half = [io.take_for_read(MIB).unwrap(), io.take_for_read(MIB).unwrap()];
        let piece = io.kept.take(shard, 7).expect("nobody was short of it");
        io.kept.keep(shard, 7, piece, MIB);
        // Where there is nothing else it goes, and the room is found.
        let _last = io.take_for_read(256 << 10).unwrap();
        assert!(io.kept.take(shard, 7).is_none());
        assert!(io.take_for_read(256 << 10).is_none());
        drop(half);
    }
}
