//! The state of a simulated world: names, files, operations under way, and how crashes and faults act on it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::image::Image;
use super::{Crash, FaultKind, SimOptions};
use crate::buffer::{AlignedBuf, SharedBuf};
use crate::vocab::{Completion, Done, Job, Token};

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) options: SimOptions,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<u64, Image>,
    next_inode: u64,
    pub(super) incarnation: u64,
    pub(super) halted: bool,
    pub(super) ops: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) disks: BTreeMap<u64, DiskState>,
    pub(super) next_disk: u64,
    pub(super) pending: Vec<Pending>,
    dead: Vec<DeadWrite>,
    /// Counts completed writes; a flush covers those before it.
    pub(super) seq: u64,
    pub(super) now_us: u64,
    pub(super) trace: u64,
    faults: Vec<Fault>,
    counts: [u64; 3],
    pub(super) stalled: BTreeSet<u64>,
    pub(super) idle_more: bool,
}

#[derive(Default)]
pub(super) struct DiskState {
    /// Inodes of the open files.
    pub(super) files: Vec<Option<u64>>,
    /// Submitted, not flushed.
    pub(super) queued: Vec<(Token, Kind)>,
    pub(super) ready: Vec<Completion>,
}

/// An operation under way.
pub(super) struct Pending {
    pub(super) disk: u64,
    pub(super) token: Token,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Write { inode: u64, offset: u64, buf: SharedBuf, len: usize, durable: bool },
    Read { inode: u64, offset: u64, buf: AlignedBuf, len: usize },
    Sync { inode: u64, upto: u64 },
    Job(Job),
}

/// A write that a killed process had in flight.
struct DeadWrite {
    inode: u64,
    offset: u64,
    data: Vec<u8>,
}

struct Fault {
    kind: FaultKind,
    /// The operation's number among its kind, or any on this file.
    at: Result<u64, u64>,
    errno: i32,
}

/// What to do about an operation.
pub(super) enum Tick {
    Go,
    /// The crash comes during this one: it may take effect, nobody hears of it.
    Last,
    Dead,
}

pub(super) fn crashed() -> io::Error {
    io::Error::other("crashed")
}

impl State {
    pub(super) fn new(seed: u64, options: SimOptions) -> State {
        State {
            rng: Rng::with_seed(seed),
            options,
            names: BTreeMap::new(),
            dirs: BTreeSet::new(),
            files: BTreeMap::new(),
            next_inode: 1,
            incarnation: 0,
            halted: false,
            ops: 0,
            crash_at: None,
            disks: BTreeMap::new(),
            next_disk: 0,
            pending: Vec::new(),
            dead: Vec::new(),
            seq: 0,
            now_us: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            faults: Vec::new(),
            counts: [0; 3],
            stalled: BTreeSet::new(),
            idle_more: true,
        }
    }

    /// Adds words to the trace.
    pub(super) fn note(&mut self, words: &[u64]) {
        for &word in words {
            self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    pub(super) fn note_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.note(&[u64::from_le_bytes(word)]);
        }
    }

    /// Counts an operation; the crash that was asked for happens here.
    pub(super) fn tick(&mut self) -> Tick {
        if self.halted {
            return Tick::Dead;
        }
        self.ops += 1;
        if !self.dead.is_empty() && self.rng.u8(0..16) == 0 {
            self.land_one();
        }
        if self.crash_at.is_some_and(|at| self.ops >= at) {
            self.halted = true;
            return Tick::Last;
        }
        Tick::Go
    }

    pub(super) fn add_fault(&mut self, kind: FaultKind, after: u64, errno: i32) {
        let at = Ok(self.counts[kind as usize] + after);
        self.faults.push(Fault { kind, at, errno });
    }

    pub(super) fn add_file_fault(&mut self, kind: FaultKind, inode: u64, errno: i32) {
        self.faults.push(Fault { kind, at: Err(inode), errno });
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Whether this operation is to fail.
    pub(super) fn fault(&mut self, kind: FaultKind, inode: u64) -> Option<io::Error> {
        let number = self.counts[kind as usize];
        self.counts[kind as usize] += 1;
        let hit = self
            .faults
            .iter()
            .find(|f| f.kind == kind && (f.at == Ok(number) || f.at == Err(inode)))?;
        Some(io::Error::from_raw_os_error(hit.errno))
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().filter_map(|inode| self.files.get(inode)).map(|f| f.len).sum()
    }

    pub(super) fn inode(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn image(&mut self, inode: u64) -> io::Result<&mut Image> {
        self.files.get_mut(&inode).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    pub(super) fn new_file(&mut self, path: &Path, len: u64, written: bool) {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, Image::new(len, written));
        self.names.insert(path.to_path_buf(), inode);
    }

    /// Drops the file if it has neither a name nor an opener.
    pub(super) fn drop_orphan(&mut self, inode: u64) {
        let open = self.disks.values().any(|d| d.files.contains(&Some(inode)));
        if !open && !self.names.values().any(|&i| i == inode) {
            self.files.remove(&inode);
        }
    }

    /// Everything up to this number is promised by a flush under way on the file.
    fn promised(&self, inode: u64) -> Option<u64> {
        self.pending
            .iter()
            .filter_map(|p| match p.kind {
                Kind::Sync { inode: i, upto } if i == inode => Some(upto),
                _ => None,
            })
            .max()
    }

    pub(super) fn write(
        &mut self,
        inode: u64,
        offset: u64,
        data: &[u8],
        durable: bool,
    ) -> io::Result<()> {
        if let Some(error) = self.fault(FaultKind::Write, inode) {
            let seq = self.seq;
            let mut rng = self.rng.fork();
            self.image(inode)?.write_partly(offset, data, false, seq, 0.5, &mut rng);
            return Err(error);
        }
        let end = offset.saturating_add(data.len() as u64);
        let grows = end.saturating_sub(self.image(inode)?.len);
        if grows > 0 && self.used_bytes().saturating_add(grows) > self.options.quota_bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.seq += 1;
        let (seq, keep) = (self.seq, self.promised(inode));
        let durable = durable && !self.options.lie_about_durability;
        self.image(inode)?.write(offset, data, durable, seq, keep);
        Ok(())
    }

    pub(super) fn read(&mut self, inode: u64, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.fault(FaultKind::Read, inode) {
            return Err(error);
        }
        Ok(self.image(inode)?.read(offset, buf))
    }

    pub(super) fn sync(&mut self, inode: u64, upto: u64) -> io::Result<()> {
        if let Some(error) = self.fault(FaultKind::Sync, inode) {
            self.image(inode)?.fail_sync(upto);
            return Err(error);
        }
        if !self.options.lie_about_durability {
            self.image(inode)?.sync(upto);
        }
        Ok(())
    }

    /// One operation of a disk comes to its end. Jobs are done elsewhere.
    pub(super) fn complete(&mut self, pending: Pending) {
        let result = match pending.kind {
            Kind::Write { inode, offset, buf, len, durable } => {
                self.note(&[1, inode, offset, len as u64, u64::from(durable)]);
                self.note_bytes(&buf[..len]);
                self.write(inode, offset, &buf[..len], durable).map(|()| Done::Written)
            }
            Kind::Read { inode, offset, mut buf, len } => {
                self.note(&[2, inode, offset, len as u64]);
                self.read(inode, offset, &mut buf[..len]).map(|n| Done::Read { buf, len: n as u32 })
            }
            Kind::Sync { inode, upto } => {
                self.note(&[3, inode, upto]);
                self.sync(inode, upto).map(|()| Done::Synced)
            }
            Kind::Job(_) => return,
        };
        self.finish(pending.disk, pending.token, result);
    }

    pub(super) fn finish(&mut self, disk: u64, token: Token, result: io::Result<Done>) {
        self.note(&[4, disk, token, u64::from(result.is_ok())]);
        if let Some(disk) = self.disks.get_mut(&disk) {
            disk.ready.push(Completion { token, result });
        }
    }

    pub(super) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// One write of a killed process lands.
    pub(super) fn land_one(&mut self) {
        if !self.dead.is_empty() {
            let which = self.rng.usize(0..self.dead.len());
            let write = self.dead.swap_remove(which);
            self.land(&write);
        }
    }

    fn land(&mut self, write: &DeadWrite) {
        self.note(&[5, write.inode, write.offset]);
        self.seq += 1;
        let (seq, keep) = (self.seq, self.promised(write.inode));
        // Its flush, if it had one, may or may not have gone out.
        let durable = self.rng.bool() && !self.options.lie_about_durability;
        if let Ok(image) = self.image(write.inode) {
            image.write(write.offset, &write.data, durable, seq, keep);
        }
    }

    /// All dead writes to a file land, and everything completed on it becomes stable.
    pub(super) fn settle(&mut self, inode: u64) -> io::Result<()> {
        for write in std::mem::take(&mut self.dead) {
            if write.inode == inode {
                self.land(&write);
            } else {
                self.dead.push(write);
            }
        }
        let upto = self.seq;
        self.sync(inode, upto)
    }

    /// The owner of a disk is gone: its writes go on by themselves.
    pub(super) fn orphan_writes(&mut self, of: Option<u64>) {
        for pending in std::mem::take(&mut self.pending) {
            if of.is_some_and(|disk| disk != pending.disk) {
                self.pending.push(pending);
            } else if let Kind::Write { inode, offset, buf, len, .. } = pending.kind {
                self.dead.push(DeadWrite { inode, offset, data: buf[..len].to_vec() });
            }
        }
    }

    pub(super) fn crash(&mut self, kind: Crash) {
        self.note(&[6, kind as u64]);
        self.orphan_writes(None);
        if kind == Crash::PowerCut {
            let p = [0.0, 0.25, 0.5, 0.75, 1.0][self.rng.usize(0..5)];
            let mut rng = self.rng.fork();
            for image in self.files.values_mut() {
                image.power_cut(p, &mut rng);
            }
            for write in std::mem::take(&mut self.dead) {
                if let Ok(image) = self.image(write.inode) {
                    image.write_partly(write.offset, &write.data, true, 0, p, &mut rng);
                }
            }
        }
        self.incarnation += 1;
        self.disks.clear();
        self.halted = false;
        self.crash_at = None;
        self.stalled.clear();
        self.idle_more = true;
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}
