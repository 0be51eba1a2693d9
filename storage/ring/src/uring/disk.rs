//! The [`Disk`] vocabulary of [`UringDisk`], and its end.

use std::io;
use std::time::{Duration, Instant};

use super::setup::FIXED_PIECE;
use super::slots::Slot;
use super::{UringDisk, bump};
use crate::vocab::{Completion, Disk, FileId, Op, Token};

/// How long a drop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(5);

impl Disk for UringDisk {
    fn submit(&mut self, token: Token, op: Op) {
        let op = match op {
            Op::Job(job) => return self.job(token, job),
            op => op,
        };
        match Slot::new(token, op) {
            Ok(Some(slot)) => {
                if slot.is_writing() {
                    bump(&self.port.gauge.begun, 1);
                    bump(&self.port.gauge.bytes, slot.len().into());
                }
                let need = slot.entries(self.options.durability);
                let (reads, bytes) = (slot.is_read(), slot.len());
                let index = self.slots.insert(slot);
                if self.lane(reads).is_free(bytes) && self.room() >= need {
                    self.lane(reads).enter(bytes);
                    self.push(index);
                } else {
                    self.stats.queued += 1;
                    self.lane(reads).wait(index, bytes);
                    // On an error here the operation stays queued, and `flush` reports it.
                    let _ = self.fill_queue();
                }
            }
            Ok(None) => {}
            Err(e) => self.ready.push_back(Completion { token, result: Err(e) }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.fill_queue()?;
        if self.ring.submission().is_empty() { Ok(()) } else { self.enter() }
    }

    fn reap(&mut self, out: &mut Vec<Completion>) {
        self.port.waker.clear();
        if self.jobs > 0 {
            self.finish_jobs(out);
        }
        out.extend(self.ready.drain(..));
        if self.in_kernel() == 0 && !self.polls_wakes && self.waiting() == 0 {
            return;
        }
        let queue = self.ring.submission();
        let pending = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if pending {
            // Deferred completions are made here. An error is not lost: `flush` meets it again.
            let _ = self.enter();
        }
        self.drain(out);
        if self.waiting() > 0 {
            let _ = self.flush();
        }
    }

    fn close(&mut self, file: FileId) {
        let open = self.files.get_mut(file.0 as usize).is_some_and(std::mem::take);
        if open {
            match self.ring.submitter().register_files_update(file.0, &[-1]) {
                Ok(_) => self.free_files.push(file.0),
                // The slot stays taken: better than two files in one.
                Err(e) => self.warnings.push(format!("a file's slot could not be emptied: {e}")),
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.slots.len() + self.jobs + self.ready.len()
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        let deadline = Instant::now() + DRAIN;
        let mut out = Vec::new();
        self.reads.give_up();
        while self.in_kernel() > 0 || self.waiting() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wait(Some(left.min(Duration::from_millis(100)))).is_err() {
                break;
            }
            self.reap(&mut out);
            out.clear();
        }
        self.slots.leak();
    }
}

impl std::fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringDisk")
            .field("mode", &self.mode)
            .field("durability", &self.options.durability)
            .field("in_flight", &self.in_flight())
            .field("fixed", &self.region.map(|r| r.len.div_ceil(FIXED_PIECE)))
            .finish_non_exhaustive()
    }
}
