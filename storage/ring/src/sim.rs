//! A disk and a file system in memory, by seed: completions in random order (a write overtakes reads that came before it,
//! as on the ring, or does not), torn sectors, lost caches, writes of a killed process that land later, injected faults.
//! No clock, no threads: same seed and same calls, same history ([`SimWorld::trace_hash`]).
//!
//! Each file has a *stable* image, which survives a power cut, and before it a volatile cache of 512-byte
//! sectors. A durable write completes with its sectors stable; another one completes into the cache; a sync
//! makes stable what had completed before it was submitted. What [`SimFiles`] does to names is durable when it
//! returns, but a crash can come in the middle of a call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::preparer::{JobDone, Preparer, PreparerOptions};
use crate::vocab::{Done, FileId, Job, Token};

mod disk;
mod files;
mod image;
mod state;

pub use disk::SimDisk;
pub use files::SimFiles;
use state::{Kind, Pending, State, Tick, crashed};

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Each sector that is not stable survives or not, independently, with a probability drawn per cut from
    /// {0, ¼, ½, ¾, 1}; so do the sectors of writes in flight.
    PowerCut,
    /// The cache survives; writes in flight land at random times during the next incarnation, at the latest when their file
    /// is settled.
    ProcessKill,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A write, through a disk or files: a random part of it arrives, unflushed.
    Write,
    /// A read.
    Read,
    /// A sync or settle: what it covered is still read back, and never becomes stable, though later syncs succeed.
    Sync,
}

/// How a simulated world is.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Bytes of all files together; more is ENOSPC.
    pub quota_bytes: u64,
    /// Durable writes and syncs complete without making anything stable: to check that the checkers notice.
    pub lie_about_durability: bool,
    /// How the world's preparer keeps its pool.
    pub preparer: PreparerOptions,
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions {
            quota_bytes: 4 << 30,
            lie_about_durability: false,
            preparer: PreparerOptions {
                ready_per_class: 1,
                max_bytes: 64 << 20,
                keep_free_bytes: 0,
                ..PreparerOptions::default()
            },
        }
    }
}

/// A simulated machine: its disks, its files, and its fate. Clones share it.
#[derive(Clone)]
pub struct SimWorld {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The process's preparer; apart from the state, which its file operations lock.
    preparer: Mutex<Option<Preparer<SimFiles>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimWorld {
    /// An empty world.
    pub fn new(seed: u64, options: SimOptions) -> SimWorld {
        SimWorld {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(seed, options)),
                preparer: Mutex::new(None),
            }),
        }
    }

    fn of(shared: &Arc<Shared>) -> SimWorld {
        SimWorld { shared: Arc::clone(shared) }
    }

    /// A disk of the present incarnation.
    pub fn disk(&self) -> SimDisk {
        SimDisk::new(&self.shared)
    }

    /// The files as the present incarnation sees them.
    pub fn files(&self) -> SimFiles {
        let incarnation = self.shared.lock().incarnation;
        SimFiles::new(&self.shared, incarnation)
    }

    /// Does one thing of the seed's choosing: completes an operation, does a job, lets a dead write land, fills the
    /// pool a bit. False when nothing was left to do (or the world has halted). Never blocks.
    pub fn step(&self) -> bool {
        let pending = {
            let mut state = self.shared.lock();
            if state.halted {
                return false;
            }
            state.now_us += state.rng.u64(1..200);
            let eligible: Vec<usize> = (0..state.pending.len())
                .filter(|&i| match state.pending[i].kind {
                    Kind::Write { inode, .. }
                    | Kind::Read { inode, .. }
                    | Kind::Sync { inode, .. } => !state.stalled.contains(&inode),
                    Kind::Job(_) => true,
                })
                .collect();
            if state.has_dead() && (eligible.is_empty() || state.rng.u8(0..4) == 0) {
                state.land_one();
                return true;
            }
            if eligible.is_empty() || (state.idle_more && state.rng.u8(0..8) == 0) {
                let waiting = !eligible.is_empty();
                drop(state);
                return self.idle() || (waiting && !self.is_halted());
            }
            let which = eligible[state.rng.usize(0..eligible.len())];
            match state.tick() {
                Tick::Go => {}
                // The operation is under way when the crash comes.
                Tick::Last | Tick::Dead => return false,
            }
            let pending = state.pending.swap_remove(which);
            match pending.kind {
                Kind::Job(job) => (pending.disk, pending.token, job),
                kind => {
                    state.complete(Pending { kind, ..pending });
                    return true;
                }
            }
        };
        self.job(pending.0, pending.1, pending.2);
        true
    }

    /// Steps until nothing is left to do.
    pub fn run_until_idle(&self) {
        while self.step() {}
    }

    fn with_preparer<T>(
        &self,
        act: impl FnOnce(&mut Preparer<SimFiles>) -> io::Result<T>,
    ) -> io::Result<T> {
        let (incarnation, options) = {
            let state = self.shared.lock();
            (state.incarnation, state.options.preparer.clone())
        };
        let mut kept = self.shared.preparer.lock().unwrap_or_else(PoisonError::into_inner);
        let preparer = match kept.take() {
            Some(preparer) => kept.insert(preparer),
            None => kept.insert(Preparer::new(SimFiles::weak(&self.shared, incarnation), options)?),
        };
        act(preparer)
    }

    fn idle(&self) -> bool {
        if !self.shared.lock().idle_more {
            return false;
        }
        let more = self.with_preparer(|p| Ok(p.idle(false).more)).unwrap_or(false);
        let mut state = self.shared.lock();
        state.idle_more = more;
        more && !state.halted
    }

    fn job(&self, disk: u64, token: Token, job: Job) {
        let result = self.with_preparer(|preparer| preparer.handle(job));
        let mut state = self.shared.lock();
        if state.halted {
            return;
        }
        state.idle_more = true;
        let result = result.and_then(|done| match done {
            JobDone::Gone => Ok(Done::Gone),
            JobDone::Segment { path, capacity, cold, .. } => {
                let inode = state.inode(&path)?;
                let files = &mut state.disks.get_mut(&disk).ok_or_else(crashed)?.files;
                let slot = files.iter().position(Option::is_none).unwrap_or(files.len());
                if slot == files.len() {
                    files.push(None);
                }
                files[slot] = Some(inode);
                Ok(Done::Segment { file: FileId(slot as u32), capacity, cold })
            }
        });
        state.finish(disk, token, result);
    }

    /// The process dies (at once, or as `crash_after` decided), and a new incarnation begins. Disks and files got
    /// before are dead.
    pub fn crash(&self, kind: Crash) {
        self.shared.lock().crash(kind);
        *self.shared.preparer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Operations so far: each call of files (several for a call of several steps), each submit, each completion.
    pub fn ops(&self) -> u64 {
        self.shared.lock().ops
    }

    /// Halts the world at the `n`-th operation from now (1 is the next), which takes effect or not: from then on
    /// files answer "crashed" and disks nothing, until [`SimWorld::crash`].
    pub fn crash_after(&self, n: u64) {
        let mut state = self.shared.lock();
        state.crash_at = Some(state.ops.saturating_add(n.max(1)));
    }

    /// Whether the crash that was asked for has come.
    pub fn is_halted(&self) -> bool {
        self.shared.lock().halted
    }

    /// How many crashes there were.
    pub fn incarnation(&self) -> u64 {
        self.shared.lock().incarnation
    }

    /// Fails one operation of a kind: the next one (`after` 0), or the one after `after` others. `errno` as
    /// `libc::EIO` (5) or ENOSPC (28).
    pub fn fail(&self, kind: FaultKind, after: u64, errno: i32) {
        self.shared.lock().add_fault(kind, after, errno);
    }

    /// Fails every operation of a kind on a file, until [`SimWorld::clear_faults`].
    ///
    /// # Errors
    /// `NotFound`.
    pub fn fail_file(&self, kind: FaultKind, path: &Path, errno: i32) -> io::Result<()> {
        let mut state = self.shared.lock();
        let inode = state.inode(path)?;
        state.add_file_fault(kind, inode, errno);
        Ok(())
    }

    /// Ends all injected faults and stalls.
    pub fn clear_faults(&self) {
        let mut state = self.shared.lock();
        state.clear_faults();
        state.stalled.clear();
    }

    /// Lets nothing on a file complete until [`SimWorld::clear_faults`] or a crash.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn stall(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.lock();
        let inode = state.inode(path)?;
        state.stalled.insert(inode);
        Ok(())
    }

    /// Flips one bit (0 to 7) of the byte at `offset` on the medium.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` beyond the end.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.shared.lock();
        let inode = state.inode(path)?;
        let image = state.image(inode)?;
        if offset >= image.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        image.flip(offset, bit);
        Ok(())
    }

    /// Changes the quota of bytes.
    pub fn set_quota(&self, bytes: u64) {
        self.shared.lock().options.quota_bytes = bytes;
    }

    /// Switches lying about durability (see [`SimOptions`]).
    pub fn lie_about_durability(&self, lie: bool) {
        self.shared.lock().options.lie_about_durability = lie;
    }

    /// Sectors of a file that a power cut could take.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volatile_sectors(&self, path: &Path) -> io::Result<usize> {
        let mut state = self.shared.lock();
        let inode = state.inode(path)?;
        Ok(state.image(inode)?.volatile_sectors())
    }

    /// Names and sizes of all files, sorted; not an operation of the world.
    pub fn tree(&self) -> Vec<(PathBuf, u64)> {
        let state = self.shared.lock();
        let len = |inode| state.files.get(inode).map_or(0, |f| f.len);
        state.names.iter().map(|(path, inode)| (path.clone(), len(inode))).collect()
    }

    /// Virtual microseconds since the beginning: advanced by every step.
    pub fn now_us(&self) -> u64 {
        self.shared.lock().now_us
    }

    /// A hash of everything that happened so far, for checking that a run is repeatable.
    pub fn trace_hash(&self) -> u64 {
        self.shared.lock().trace
    }
}

impl std::fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimWorld({} files, {} ops)", self.tree().len(), self.ops())
    }
}

#[cfg(test)]
mod tests;
