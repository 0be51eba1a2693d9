//! Operations in the kernel: who owns their buffers, what their entries look like, what their results mean.

use std::io;

use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{opcode, squeue};

use super::setup::{Durability, FIXED_PIECE};
use crate::buffer::{AlignedBuf, SharedBuf};
use crate::vocab::{BLOCK_ALIGN, Done, FileId, Op, Token};

/// Times an operation is issued again without having got on.
const MAX_RETRIES: u32 = 64;
/// Generations of issues, as a mask; all ones never occurs in `user_data` (see [`super::WAKE`]).
const GENERATIONS: u32 = u32::MAX >> 1;

/// One operation, from `submit` to its completion. Owns its buffer: it is dropped only when the kernel has
/// answered every entry.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) token: Token,
    work: Work,
    /// Bytes done by earlier issues.
    done: u32,
    retries: u32,
    /// Whether the kernel has it and owes an answer.
    pub(crate) waiting: bool,
    /// Which issue that is: an answer to another is stale.
    generation: u32,
    /// The write is through; only its flush has to be issued again.
    flush_only: bool,
}

#[derive(Debug)]
enum Work {
    Write { file: FileId, offset: u64, buf: SharedBuf, len: u32, durable: bool },
    Read { file: FileId, offset: u64, buf: Option<AlignedBuf>, len: u32 },
    Sync { file: FileId },
}

/// What to do about a slot whose entries were all answered.
pub(crate) enum Outcome {
    Finish(io::Result<Done>),
    /// Short, interrupted or cancelled: issue what is left.
    Again,
}

/// The region registered as fixed buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedRegion {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl FixedRegion {
    /// Index of the registered buffer that holds all of the range.
    fn index(&self, at: usize, len: usize) -> Option<u16> {
        let offset = at.checked_sub(self.start)?;
        (offset + len <= self.len).then_some((offset / FIXED_PIECE) as u16)
    }
}

impl Slot {
    /// Checks an operation. `None` for a job, which has no place here.
    ///
    /// # Errors
    /// `InvalidInput` for what is not aligned or reaches beyond its buffer.
    pub(crate) fn new(token: Token, op: Op) -> io::Result<Option<Slot>> {
        let block = BLOCK_ALIGN as u64;
        let check = |offset: u64, len: u32, room: usize| {
            let aligned = offset.is_multiple_of(block) && u64::from(len).is_multiple_of(block);
            if aligned && len > 0 && len as usize <= room && len <= i32::MAX as u32 {
                Ok(())
            } else {
                let text =
                    format!("{len} B at {offset}: not aligned, or beyond a buffer of {room} B");
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        };
        let work = match op {
            Op::Write { file, offset, buf, len, durable } => {
                check(offset, len, buf.len())?;
                Work::Write { file, offset, buf, len, durable }
            }
            Op::Read { file, offset, buf, len } => {
                check(offset, len, buf.len())?;
                Work::Read { file, offset, buf: Some(buf), len }
            }
            Op::Sync { file } => Work::Sync { file },
            Op::Job(_) => return Ok(None),
        };
        Ok(Some(Slot {
            token,
            work,
            done: 0,
            retries: 0,
            waiting: false,
            generation: 0,
            flush_only: false,
        }))
    }

    fn is_durable_write(&self) -> bool {
        matches!(self.work, Work::Write { durable: true, .. })
    }

    /// Whether zeroing has to be gentle to it.
    pub(crate) fn is_writing(&self) -> bool {
        matches!(self.work, Work::Write { .. } | Work::Sync { .. })
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(self.work, Work::Read { .. })
    }

    /// Bytes it moves.
    pub(crate) fn len(&self) -> u32 {
        match self.work {
            Work::Write { len, .. } | Work::Read { len, .. } => len,
            Work::Sync { .. } => 0,
        }
    }

    fn linked(&self, durability: Durability) -> bool {
        !self.flush_only && durability == Durability::WriteThenFlush && self.is_durable_write()
    }

    /// Entries its next issue takes. Whatever it takes, the kernel answers once: the write of a linked pair
    /// speaks up only if it fails or is short, and then silences the flush it cancels.
    pub(crate) fn entries(&self, durability: Durability) -> u32 {
        1 + u32::from(self.linked(durability))
    }

    /// The entries of its next issue, as the slot `index`.
    pub(crate) fn issue(
        &mut self,
        index: u32,
        durability: Durability,
        region: Option<FixedRegion>,
    ) -> (squeue::Entry, Option<squeue::Entry>) {
        let linked = self.linked(durability);
        self.waiting = true;
        self.generation = self.generation.wrapping_add(1) & GENERATIONS;
        let user_data = u64::from(self.generation) << 32 | u64::from(index) << 1;
        let at = u64::from(self.done);
        let (entry, file) = match &self.work {
            Work::Sync { file } => (flush(*file), *file),
            Work::Write { file, .. } if self.flush_only => (flush(*file), *file),
            Work::Write { file, offset, buf, len, durable } => {
                let from = buf.as_ptr().wrapping_add(self.done as usize).cast_const();
                let len = len - self.done;
                let dsync = *durable && durability == Durability::Dsync;
                let flags = if dsync { libc::RWF_DSYNC } else { 0 };
                let fd = Fixed(file.0);
                let offset = offset.saturating_add(at);
                let entry = match region.and_then(|r| r.index(from as usize, len as usize)) {
                    Some(index) => opcode::WriteFixed::new(fd, from, len, index)
                        .offset(offset)
                        .rw_flags(flags)
                        .build(),
                    None => {
                        opcode::Write::new(fd, from, len).offset(offset).rw_flags(flags).build()
                    }
                };
                (entry, *file)
            }
            Work::Read { file, offset, buf, len } => {
                let base = buf.as_ref().map_or(std::ptr::null_mut(), AlignedBuf::as_ptr);
                let to = base.wrapping_add(self.done as usize);
                let len = len - self.done;
                let fd = Fixed(file.0);
                let offset = offset.saturating_add(at);
                let entry = match region.and_then(|r| r.index(to as usize, len as usize)) {
                    Some(index) => {
                        opcode::ReadFixed::new(fd, to, len, index).offset(offset).build()
                    }
                    None => opcode::Read::new(fd, to, len).offset(offset).build(),
                };
                (entry, *file)
            }
        };
        let entry = entry.user_data(user_data);
        if linked {
            let second = flush(file).user_data(user_data | 1);
            let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
            (entry.flags(flags), Some(second))
        } else {
            (entry, None)
        }
    }

    /// Takes the kernel's answer and says what to do next. `None` for one that is stale.
    pub(crate) fn answer(
        &mut self,
        user_data: u64,
        result: i32,
        durability: Durability,
    ) -> Option<Outcome> {
        if !self.waiting || (user_data >> 32) as u32 != self.generation {
            return None;
        }
        self.waiting = false;
        Some(self.outcome(user_data & 1 == 1, result, durability))
    }

    /// `flushed`: it is the flush of a linked pair that answers, so the write before it is through.
    fn outcome(&mut self, flushed: bool, result: i32, durability: Durability) -> Outcome {
        let linked = self.linked(durability);
        self.flush_only |= flushed;
        if result < 0 {
            return self.failed(result);
        }
        match &mut self.work {
            Work::Sync { .. } => Outcome::Finish(Ok(Done::Synced)),
            Work::Write { .. } if self.flush_only => Outcome::Finish(Ok(Done::Written)),
            Work::Write { len, .. } => {
                if result as u32 >= *len - self.done {
                    if linked {
                        // Not expected to speak up; its flush may not have run.
                        self.flush_only = true;
                        return Outcome::Again;
                    }
                    return Outcome::Finish(Ok(Done::Written));
                }
                // Only whole blocks count, so that the rest stays aligned.
                let got = result as u32 & !(BLOCK_ALIGN as u32 - 1);
                self.done += got;
                if got == 0 && !self.may_retry() {
                    return Outcome::Finish(Err(io::ErrorKind::WriteZero.into()));
                }
                Outcome::Again
            }
            Work::Read { buf, len, .. } => {
                let got = (result as u32).min(*len - self.done);
                self.done += got;
                // Zero, or less than whole blocks, is the end of the file.
                let end = got == 0 || !self.done.is_multiple_of(BLOCK_ALIGN as u32);
                if self.done < *len && !end {
                    return Outcome::Again;
                }
                Outcome::Finish(match buf.take() {
                    Some(buf) => Ok(Done::Read { buf, len: self.done }),
                    None => Err(io::Error::other("read answered twice")),
                })
            }
        }
    }

    fn failed(&mut self, result: i32) -> Outcome {
        let errno = result.wrapping_neg();
        // Nothing here cancels but a link; a cancelled flush has not run.
        let cancelled = self.flush_only && errno == libc::ECANCELED;
        let again = cancelled || errno == libc::EINTR || errno == libc::EAGAIN;
        if again && self.may_retry() {
            Outcome::Again
        } else {
            Outcome::Finish(Err(io::Error::from_raw_os_error(errno)))
        }
    }

    fn may_retry(&mut self) -> bool {
        self.retries += 1;
        self.retries <= MAX_RETRIES
    }
}

fn flush(file: FileId) -> squeue::Entry {
    opcode::Fsync::new(Fixed(file.0)).flags(FsyncFlags::DATASYNC).build()
}

/// A slab of slots; an index stays with its operation.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    entries: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Gives every operation a generation to start from, so that a slot's users differ.
    generation: u32,
}

impl Slots {
    pub(crate) fn insert(&mut self, mut slot: Slot) -> u32 {
        // Apart by more than an operation may be issued.
        self.generation = self.generation.wrapping_add(4 * MAX_RETRIES) & GENERATIONS;
        slot.generation = self.generation;
        if let Some(index) = self.free.pop() {
            self.entries[index as usize] = Some(slot);
            index
        } else {
            self.entries.push(Some(slot));
            (self.entries.len() - 1) as u32
        }
    }

    pub(crate) fn get(&mut self, index: u32) -> Option<&mut Slot> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Slot> {
        let slot = self.entries.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Leaks every buffer that an unanswered entry still refers to.
    pub(crate) fn leak(&mut self) {
        for slot in std::mem::take(&mut self.entries).into_iter().flatten() {
            if slot.waiting {
                std::mem::forget(slot);
            }
        }
        self.free.clear();
    }
}

#[cfg(test)]
mod tests;
