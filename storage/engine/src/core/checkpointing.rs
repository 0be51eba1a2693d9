//! When a core writes its checkpoint, and the last one of all.

use highwater_ring::{AlignedBuf, Disk, Done, FileId, Job, Op};

use super::{Core, NO_SHARD};
use crate::checkpoint;
use crate::io::What;
use crate::shard::Shard;
use crate::types::Now;

/// After no larger file could be had, the next attempt comes this much later, ns.
const GROW_AGAIN_NS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    pub(super) file: Option<FileId>,
    pub(super) slot_len: usize,
    pub(super) serial: u64,
    pub(super) writing: bool,
    /// A larger file is under way.
    pub(super) growing: bool,
    /// After none could be had: not before this time again, monotonic.
    pub(super) grow_again_ns: u64,
    /// Something became durable since the last one.
    pub(super) dirty: bool,
    pub(super) written_at: u64,
    pub(super) active_at: u64,
    /// The last one, after all shards have stopped.
    pub(super) last: Last,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Last {
    #[default]
    No,
    Writing,
    Done,
}

impl<D: Disk> Core<D> {
    pub(super) fn checkpoint_done(&mut self, now: Now, result: Result<Done, std::io::Error>) {
        self.checkpoint.writing = false;
        let growing = std::mem::take(&mut self.checkpoint.growing);
        match result {
            Ok(Done::Segment { file, capacity, .. }) => {
                // What a smaller one says stays true: of each shard the highest block counts.
                self.io.closes.extend(self.checkpoint.file.replace(file));
                self.checkpoint.slot_len = capacity as usize / 2;
            }
            // Until there is one, as many shards as fit.
            Err(_) if growing => self.checkpoint.grow_again_ns = now.mono_ns + GROW_AGAIN_NS,
            Ok(_) => {
                self.checkpoint.written_at = now.mono_ns;
                if self.checkpoint.last == Last::Writing {
                    self.checkpoint.last = Last::Done;
                }
            }
            // Without a checkpoint a torn last group is ambiguous, nothing else: go on.
            Err(_) if self.checkpoint.last == Last::Writing => self.checkpoint.last = Last::Done,
            Err(_) => {}
        }
    }

    /// Within 5 ms of going quiet, and every 100 ms under load.
    pub(super) fn checkpoint_due(&self) -> Option<u64> {
        let c = &self.checkpoint;
        if c.writing || !c.dirty || c.file.is_none() {
            return None;
        }
        let quiet = c.active_at + self.io.options.checkpoint_quiet_ns;
        Some(quiet.min(c.written_at + self.io.options.checkpoint_every_ns).max(c.written_at))
    }

    pub(super) fn write_checkpoint(&mut self, now: Now) {
        let all_quiet = self.stopping && self.shards.values().all(Shard::quiet);
        let final_one = all_quiet && self.checkpoint.last == Last::No && !self.checkpoint.writing;
        let due = self.checkpoint_due().is_some_and(|at| now.mono_ns >= at);
        if !due && !final_one {
            return;
        }
        let Some(file) = self.checkpoint.file else {
            if final_one {
                self.checkpoint.last = Last::Done;
            }
            return;
        };
        if !final_one && self.order_larger(now) {
            return;
        }
        let c = &mut self.checkpoint;
        (c.writing, c.dirty) = (true, false);
        c.serial += 1;
        if final_one {
            c.last = Last::Writing;
        }
        let (serial, slot_len) = (c.serial, c.slot_len);
        let mut buf = AlignedBuf::alloc(slot_len);
        let entries = self.shards.values().filter_map(|s| Some((s.id(), s.checkpoint()?)));
        let len = checkpoint::encode(&mut buf, slot_len, serial, self.epoch, entries) as u32;
        let offset = (serial % 2) * slot_len as u64;
        let op = Op::Write { file, offset, buf: buf.freeze(), len, durable: true };
        self.io.submit(NO_SHARD, What::Checkpoint, op);
    }

    /// Orders a larger file if there are more shards than fit a slot of this one; the checkpoint that is due follows then.
    fn order_larger(&mut self, now: Now) -> bool {
        let (shards, c) = (self.shards.count(), &mut self.checkpoint);
        if shards <= checkpoint::slot_room(c.slot_len) || now.mono_ns < c.grow_again_ns {
            return false;
        }
        (c.writing, c.growing) = (true, true);
        let path = checkpoint::larger_path(self.epoch, self.number, c.serial);
        let capacity = 2 * checkpoint::slot_len(shards) as u64;
        let job = Job::TakeSegment { path, capacity, least: capacity };
        self.io.submit(NO_SHARD, What::Checkpoint, Op::Job(job));
        true
    }
}
