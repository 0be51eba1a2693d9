//! [`SimDisk`]: the [`Disk`] vocabulary in a simulated world.

use std::io;
use std::sync::Arc;

use super::state::{DiskState, Kind, Pending, State, Tick};
use super::{Shared, SimWorld};
use crate::vocab::{BLOCK_ALIGN, Completion, Disk, FileId, Op, Token};

/// A disk of a simulated world. What is submitted and flushed completes, in an order of the seed's
/// choosing, when somebody calls [`SimDisk::step`] or [`SimWorld::step`]. After a crash it is dead: it takes
/// everything and answers nothing.
pub struct SimDisk {
    shared: Arc<Shared>,
    id: u64,
    incarnation: u64,
}

impl SimDisk {
    pub(super) fn new(shared: &Arc<Shared>) -> SimDisk {
        let mut state = shared.lock();
        let id = state.next_disk;
        state.next_disk += 1;
        state.disks.insert(id, DiskState::default());
        SimDisk { shared: Arc::clone(shared), id, incarnation: state.incarnation }
    }

    /// Does one thing: see [`SimWorld::step`].
    pub fn step(&self) -> bool {
        SimWorld::of(&self.shared).step()
    }

    /// Steps until nothing is under way in the world.
    pub fn run_until_idle(&self) {
        SimWorld::of(&self.shared).run_until_idle();
    }

    /// Whether it still belongs to a living process.
    pub fn is_alive(&self) -> bool {
        let state = self.shared.lock();
        state.incarnation == self.incarnation && !state.halted
    }

    fn check(state: &DiskState, op: Op) -> io::Result<Kind> {
        let aligned = |offset: u64, len: u32, room: usize| {
            let block = BLOCK_ALIGN as u64;
            let whole = offset.is_multiple_of(block) && u64::from(len).is_multiple_of(block);
            if whole && len > 0 && len as usize <= room {
                Ok(len as usize)
            } else {
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "not aligned, or beyond the buffer",
                ))
            }
        };
        let inode = |file: FileId| {
            let open = state.files.get(file.0 as usize).copied().flatten();
            open.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
        };
        Ok(match op {
            Op::Write { file, offset, buf, len, durable } => {
                let len = aligned(offset, len, buf.len())?;
                Kind::Write { inode: inode(file)?, offset, buf, len, durable }
            }
            Op::Read { file, offset, buf, len } => {
                let len = aligned(offset, len, buf.len())?;
                Kind::Read { inode: inode(file)?, offset, buf, len }
            }
            Op::Sync { file } => Kind::Sync { inode: inode(file)?, upto: 0 },
            Op::Job(job) => Kind::Job(job),
        })
    }

    fn with<T: Default>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.lock();
        if state.incarnation == self.incarnation { act(&mut state) } else { T::default() }
    }
}

impl Disk for SimDisk {
    fn submit(&mut self, token: Token, op: Op) {
        let id = self.id;
        self.with(|state| {
            match state.tick() {
                Tick::Go => {}
                Tick::Last | Tick::Dead => return,
            }
            state.note(&[7, id, token]);
            let seq = state.seq;
            let Some(disk) = state.disks.get_mut(&id) else { return };
            match Self::check(disk, op) {
                // A flush covers what has completed by now.
                Ok(Kind::Sync { inode, .. }) => {
                    disk.queued.push((token, Kind::Sync { inode, upto: seq }));
                }
                Ok(kind) => disk.queued.push((token, kind)),
                Err(e) => disk.ready.push(Completion { token, result: Err(e) }),
            }
        });
    }

    fn flush(&mut self) -> io::Result<()> {
        let id = self.id;
        self.with(|state| {
            if state.halted {
                return;
            }
            let Some(disk) = state.disks.get_mut(&id) else { return };
            for (token, kind) in std::mem::take(&mut disk.queued) {
                state.pending.push(Pending { disk: id, token, kind });
            }
        });
        Ok(())
    }

    fn reap(&mut self, out: &mut Vec<Completion>) {
        let id = self.id;
        self.with(|state| {
            if state.halted {
                return;
            }
            if let Some(disk) = state.disks.get_mut(&id) {
                out.append(&mut disk.ready);
            }
        });
    }

    fn close(&mut self, file: FileId) {
        let id = self.id;
        self.with(|state| {
            let Some(disk) = state.disks.get_mut(&id) else { return };
            let inode = disk.files.get_mut(file.0 as usize).and_then(Option::take);
            if let Some(inode) = inode {
                state.drop_orphan(inode);
            }
        });
    }

    fn in_flight(&self) -> usize {
        let id = self.id;
        self.with(|state| {
            let pending = state.pending.iter().filter(|p| p.disk == id).count();
            pending + state.disks.get(&id).map_or(0, |d| d.queued.len() + d.ready.len())
        })
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        let id = self.id;
        self.with(|state| {
            state.orphan_writes(Some(id));
            state.disks.remove(&id);
        });
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDisk({} of incarnation {})", self.id, self.incarnation)
    }
}
