//! When a core writes its checkpoint, and the last one of all.

use highwater_ring::{AlignedBuf, Disk, Done, FileId, Op};

use super::{Core, NO_SHARD};
use crate::checkpoint;
use crate::io::What;
use crate::shard::Shard;
use crate::types::Now;

#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    pub(super) file: Option<FileId>,
    pub(super) slot_len: usize,
    pub(super) serial: u64,
    pub(super) writing: bool,
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
        match result {
            Ok(Done::Segment { file, .. }) => self.checkpoint.file = Some(file),
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
}
