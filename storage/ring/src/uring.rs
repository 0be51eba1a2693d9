//! [`UringDisk`]: the kernel's io_uring behind the [`Disk`] vocabulary.
//!
//! One ring per thread, made and used on that thread only. Two ways to wait for it:
//! * bare: [`UringDisk::wait`] blocks in the ring itself, one system call per turn, and is woken by a
//!   completion, a timeout or a [`Waker`];
//! * inside an async runtime: [`UringDisk::event`] tells; then [`Disk::reap`]. Never poll the ring's own descriptor: with DEFER_TASKRUN it loses wake-ups.
//!
//! Buffers belong to the disk until the kernel has answered; on drop it waits for the answers, and leaks
//! what does not come.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::buffer::BufferPool;
use crate::preparer::{Gauge, JobPort, Opened, PreparerHandle};
use crate::vocab::{Completion, Disk, Done, FileId, Job, Token};

mod disk;
mod event;
mod lanes;
mod setup;
mod slots;
mod waker;

pub use event::DiskEvent;
use lanes::Lane;
use setup::Mode;
pub use setup::{Durability, UringError, UringOptions};
use slots::{FixedRegion, Outcome, Slots};
pub use waker::Waker;

/// The `user_data` of the poll for wakes. Operations: generation, slot's index, and a bit for a linked flush.
const WAKE: u64 = u64::MAX;

/// What a ring has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UringStats {
    /// System calls that submitted or collected, waits included.
    pub enters: u64,
    /// Of these, calls that could block.
    pub waits: u64,
    /// Operations answered by the kernel.
    pub completed: u64,
    /// Operations issued again (short, interrupted, cancelled).
    pub reissued: u64,
    /// Operations that had to queue outside the kernel.
    pub queued: u64,
}

/// A disk on io_uring. See the module's page.
pub struct UringDisk {
    // Before `pool` and `slots`, so that it is gone before they are.
    ring: IoUring,
    mode: Mode,
    options: UringOptions,
    region: Option<FixedRegion>,
    slots: Slots,
    /// Writes and syncs, which go first.
    writes: Lane,
    reads: Lane,
    /// Finished without the kernel.
    ready: VecDeque<Completion>,
    files: Vec<bool>,
    free_files: Vec<u32>,
    jobs: usize,
    port: Arc<JobPort>,
    preparer: Option<PreparerHandle>,
    polls_wakes: bool,
    event_registered: bool,
    warnings: Vec<String>,
    stats: UringStats,
    _pool: BufferPool,
    /// The kernel ties a ring to the thread that made it.
    _not_send: PhantomData<*mut ()>,
}

impl UringDisk {
    /// Makes a ring on this thread, to which it is bound. `pool`'s region is registered with the kernel; buffers
    /// from elsewhere work too. Without a `preparer`, jobs complete with `Unsupported`.
    ///
    /// # Errors
    /// When the kernel refuses io_uring or is too old.
    pub fn new(
        pool: &BufferPool,
        preparer: Option<PreparerHandle>,
        options: UringOptions,
    ) -> Result<UringDisk, UringError> {
        let io = |step| move |source| UringError::Io { step, source };
        let (ring, mode) = setup::build(&options)?;
        let files = setup::register_files(&ring, options.max_files)?;
        let mut warnings = Vec::new();
        if mode != Mode::Defer {
            warnings.push(format!(
                "io_uring runs without DEFER_TASKRUN ({mode:?}): more CPU per write"
            ));
        }
        let mut region = None;
        if options.register_buffers {
            match setup::register_buffers(&ring, pool) {
                Ok(true) => {
                    let (start, len) = pool.region();
                    region = Some(FixedRegion { start: start as usize, len });
                }
                Ok(false) => {}
                Err(warning) => warnings.push(warning),
            }
        }
        let port = Arc::new(JobPort {
            results: SegQueue::new(),
            waker: Waker::new().map_err(io("making eventfds"))?,
            gauge: Gauge::default(),
        });
        if let Some(preparer) = &preparer {
            preparer.attach(&port);
        }
        Ok(UringDisk {
            ring,
            mode,
            writes: Lane::new(options.max_in_flight, u64::MAX),
            reads: Lane::new(options.max_reads, options.max_read_bytes),
            options,
            region,
            slots: Slots::default(),
            ready: VecDeque::new(),
            files: vec![false; files as usize],
            free_files: (0..files).rev().collect(),
            jobs: 0,
            port,
            preparer,
            polls_wakes: false,
            event_registered: false,
            warnings,
            stats: UringStats::default(),
            _pool: pool.clone(),
            _not_send: PhantomData,
        })
    }

    /// Things that work, but not as well as they could here; for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How durable writes are made durable.
    pub fn durability(&self) -> Durability {
        self.options.durability
    }

    /// What it has done so far.
    pub fn stats(&self) -> UringStats {
        self.stats
    }

    /// Whether the pool's region is registered with the kernel.
    pub fn has_fixed_buffers(&self) -> bool {
        self.region.is_some()
    }

    /// Wakes this disk's thread from any other.
    pub fn waker(&self) -> Waker {
        self.port.waker.clone()
    }

    /// A descriptor that becomes readable with a completion or a wake, for an async runtime (for tokio's,
    /// [`UringDisk::event`] does the rest). Who waits for it to *become* readable (edge-triggered) goes on with
    /// [`Disk::reap`]; who waits for it to *be* readable reads 8 bytes first ([`UringDisk::clear_event`]). It is a
    /// duplicate: closing it takes nothing from the disk. Do not use
    /// [`UringDisk::wait`] as well, and reap once after the first call: what completed before is not told.
    ///
    /// # Errors
    /// When the kernel does not register it, or descriptors have run out.
    pub fn event_fd(&mut self) -> io::Result<OwnedFd> {
        let fd = self.port.waker.shared.outside.try_clone()?;
        if !self.event_registered {
            let raw = self.port.waker.shared.outside.as_raw_fd();
            self.ring.submitter().register_eventfd(raw)?;
            self.event_registered = true;
        }
        self.port.waker.set_inside(false);
        Ok(fd)
    }

    /// Reads the event descriptor, so that it is not readable until the next completion or wake.
    pub fn clear_event(&self) {
        let mut count = [0u8; 8];
        // "Would block" when it was clear already.
        let _ = rustix::io::read(&self.port.waker.shared.outside, &mut count);
    }

    /// Whether [`Disk::reap`] would find something. The event tells of a completion twice, when the kernel has it and
    /// again when it was fetched; the second time there is nothing to do.
    pub fn has_news(&mut self) -> bool {
        let told = !self.ready.is_empty()
            || !self.port.results.is_empty()
            || self.port.waker.is_signalled();
        let queue = self.ring.submission();
        // The kernel did not take all, or has more to tell.
        let pending = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        told || pending || self.waiting() > 0 || !self.ring.completion().is_empty()
    }

    /// Submits what is queued and blocks until there is something to [`Disk::reap`], somebody calls
    /// [`Waker::wake`], or `timeout` (if any) is over. May return early for nothing.
    ///
    /// # Errors
    /// When the kernel refuses the call; the disk is unusable then.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.port.waker.set_inside(true);
        self.fill_queue()?;
        if !self.polls_wakes {
            self.poll_wakes()?;
        }
        if !self.ready.is_empty()
            || !self.port.results.is_empty()
            || self.port.waker.is_signalled()
            || !self.ring.completion().is_empty()
        {
            return self.flush();
        }
        self.stats.enters += 1;
        self.stats.waits += 1;
        let result = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ETIME) || is_passing(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Puts an open file into the ring's table.
    ///
    /// # Errors
    /// `ENFILE`-like (`QuotaExceeded`) when the table is full, or as the kernel answers.
    pub fn register_file(&mut self, fd: OwnedFd) -> io::Result<FileId> {
        let Some(slot) = self.free_files.pop() else {
            let text = format!("all {} slots for open files are taken", self.files.len());
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        };
        match self.ring.submitter().register_files_update(slot, &[fd.as_raw_fd()]) {
            Ok(_) => {
                self.files[slot as usize] = true;
                Ok(FileId(slot))
            }
            Err(e) => {
                self.free_files.push(slot);
                Err(e)
            }
        }
    }

    /// Polls the inner wake descriptor. It is never read: the poll is edge-triggered, and every write is an edge.
    fn poll_wakes(&mut self) -> io::Result<()> {
        let fd = Fd(self.port.waker.shared.inside.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        if self.room() == 0 {
            self.enter()?;
        }
        // SAFETY: the descriptor lives in `port`, which the disk keeps until after the ring is gone.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(WAKE)) };
        self.polls_wakes = pushed.is_ok();
        Ok(())
    }

    pub(super) fn room(&mut self) -> u32 {
        let queue = self.ring.submission();
        (queue.capacity() - queue.len()) as u32
    }

    fn lane(&mut self, reads: bool) -> &mut Lane {
        if reads { &mut self.reads } else { &mut self.writes }
    }

    /// Operations that wait for their turn.
    fn waiting(&self) -> usize {
        self.writes.waiting() + self.reads.waiting()
    }

    /// Operations pushed and not answered.
    fn in_kernel(&self) -> u32 {
        self.writes.in_kernel() + self.reads.in_kernel()
    }

    /// Moves what waits into the submission queue as far as the bounds allow.
    fn fill_queue(&mut self) -> io::Result<()> {
        let durability = self.options.durability;
        for reads in [false, true] {
            while let Some(index) = self.lane(reads).next() {
                let need = self.slots.get(index).map_or(0, |slot| slot.entries(durability));
                if self.room() < need {
                    self.enter()?;
                    if self.room() < need {
                        return Ok(());
                    }
                }
                self.lane(reads).next_goes();
                self.push(index);
            }
        }
        Ok(())
    }

    /// Pushes a slot's entries, for which there is room.
    fn push(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index) else { return };
        let (first, second) = slot.issue(index, self.options.durability, self.region);
        let mut queue = self.ring.submission();
        for entry in [Some(first), second].into_iter().flatten() {
            // SAFETY: the buffer belongs to the slot, which stays until the kernel has answered all its
            // entries (or is leaked); the file is in the table, or the kernel answers EBADF.
            let pushed = unsafe { queue.push(&entry) };
            debug_assert!(pushed.is_ok(), "the caller made room");
        }
    }

    /// One system call: submits, and runs what the kernel has deferred.
    fn enter(&mut self) -> io::Result<()> {
        self.stats.enters += 1;
        loop {
            return match self.ring.submit() {
                Ok(_) => Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // What was not taken stays in the queue for the next time.
                Err(e) if is_passing(&e) => Ok(()),
                Err(e) => Err(e),
            };
        }
    }

    fn drain(&mut self, out: &mut Vec<Completion>) {
        loop {
            let mut entries = [const { MaybeUninit::<cqueue::Entry>::uninit() }; 32];
            let mut answers = [(0u64, 0i32, 0u32); 32];
            let filled = self.ring.completion().fill(&mut entries);
            let count = filled.len();
            for (answer, entry) in answers.iter_mut().zip(filled.iter()) {
                *answer = (entry.user_data(), entry.result(), entry.flags());
            }
            for &(user_data, result, flags) in &answers[..count] {
                self.answer(user_data, result, flags, out);
            }
            if count < entries.len() {
                return;
            }
        }
    }

    fn answer(&mut self, user_data: u64, result: i32, flags: u32, out: &mut Vec<Completion>) {
        if user_data == WAKE {
            self.polls_wakes = cqueue::more(flags);
            return;
        }
        let index = (user_data as u32) >> 1;
        let durability = self.options.durability;
        let Some(slot) = self.slots.get(index) else { return };
        let Some(outcome) = slot.answer(user_data, result, durability) else { return };
        let (reads, bytes) = (slot.is_read(), slot.len());
        self.lane(reads).leave(bytes);
        match outcome {
            Outcome::Again => {
                self.stats.reissued += 1;
                self.lane(reads).wait(index, bytes);
            }
            Outcome::Finish(result) => {
                self.stats.completed += 1;
                if let Some(slot) = self.slots.remove(index) {
                    if slot.is_writing() {
                        bump(&self.port.gauge.ended, 1);
                    }
                    out.push(Completion { token: slot.token, result });
                }
            }
        }
    }

    fn job(&mut self, token: Token, job: Job) {
        let sent = self.preparer.as_ref().map(|p| p.send_job(token, job, &self.port));
        let error = match sent {
            Some(true) => {
                self.jobs += 1;
                return;
            }
            Some(false) => io::Error::other("the preparer thread is gone"),
            None => io::Error::new(io::ErrorKind::Unsupported, "this disk has no preparer"),
        };
        self.ready.push_back(Completion { token, result: Err(error) });
    }

    fn finish_jobs(&mut self, out: &mut Vec<Completion>) {
        while let Some((token, result)) = self.port.results.pop() {
            self.jobs = self.jobs.saturating_sub(1);
            let result = result.and_then(|opened| match opened {
                Opened::Gone => Ok(Done::Gone),
                Opened::Segment { fd, capacity, cold } => {
                    self.register_file(fd).map(|file| Done::Segment { file, capacity, cold })
                }
            });
            out.push(Completion { token, result });
        }
    }
}

fn bump(counter: &std::sync::atomic::AtomicU64, by: u64) {
    // One writer: no read-modify-write needed.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Errors of `enter` that are over by themselves.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

#[cfg(test)]
mod tests;
