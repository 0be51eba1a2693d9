//! [`SimFiles`]: the blocking file vocabulary in a simulated world.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::state::{State, Tick, crashed};
use super::{FaultKind, Shared};
use crate::buffer::AlignedBuf;
use crate::vocab::{BLOCK_ALIGN, Files};

/// The files of a simulated world, as one incarnation of a process sees them. Clones are the same process.
#[derive(Clone)]
pub struct SimFiles {
    link: Link,
    incarnation: u64,
}

#[derive(Clone)]
enum Link {
    Strong(Arc<Shared>),
    /// The world's own preparer, which must not keep the world alive.
    Weak(Weak<Shared>),
}

impl SimFiles {
    pub(super) fn new(shared: &Arc<Shared>, incarnation: u64) -> SimFiles {
        SimFiles { link: Link::Strong(Arc::clone(shared)), incarnation }
    }

    pub(super) fn weak(shared: &Arc<Shared>, incarnation: u64) -> SimFiles {
        SimFiles { link: Link::Weak(Arc::downgrade(shared)), incarnation }
    }

    fn shared(&self) -> io::Result<Arc<Shared>> {
        match &self.link {
            Link::Strong(shared) => Ok(Arc::clone(shared)),
            Link::Weak(shared) => shared.upgrade().ok_or_else(crashed),
        }
    }

    /// One step that a crash can come before or after, or (as nobody will hear of it) within.
    fn step<T>(
        &self,
        kind: u64,
        path: &Path,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let shared = self.shared()?;
        let mut state = shared.lock();
        if state.incarnation != self.incarnation {
            return Err(crashed());
        }
        match state.tick() {
            Tick::Dead => Err(crashed()),
            Tick::Last => {
                if state.rng.bool() {
                    let _ = act(&mut state);
                }
                Err(crashed())
            }
            Tick::Go => {
                let result = act(&mut state);
                state.note(&[16 + kind, u64::from(result.is_ok())]);
                state.note_bytes(path.as_os_str().as_encoded_bytes());
                result
            }
        }
    }
}

fn check(offset: u64, len: usize, room: usize) -> io::Result<()> {
    if len <= room && len.is_multiple_of(BLOCK_ALIGN) && offset.is_multiple_of(BLOCK_ALIGN as u64) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not aligned, or beyond the buffer"))
    }
}

fn parent_exists(state: &State, path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() && !state.dirs.contains(dir) => {
            Err(io::ErrorKind::NotFound.into())
        }
        _ => Ok(()),
    }
}

impl Files for SimFiles {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.step(0, dir, |state| {
            let mut names: Vec<String> = state
                .names
                .keys()
                .chain(&state.dirs)
                .filter(|path| path.parent() == Some(dir))
                .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
                .collect();
            names.sort_unstable();
            Ok(names)
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut path = PathBuf::new();
        for part in dir.components() {
            path.push(part);
            self.step(1, &path, |state| {
                if state.names.contains_key(&path) {
                    return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
                }
                state.dirs.insert(path.clone());
                Ok(())
            })?;
        }
        Ok(())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.step(2, path, |state| {
            let inode = state.inode(path)?;
            Ok(state.image(inode)?.len)
        })
    }

    fn read_at(&self, path: &Path, offset: u64, buf: &mut AlignedBuf) -> io::Result<usize> {
        check(offset, buf.len(), buf.len())?;
        self.step(3, path, |state| {
            let inode = state.inode(path)?;
            state.read(inode, offset, buf)
        })
    }

    fn write_at(&self, path: &Path, offset: u64, buf: &AlignedBuf, len: usize) -> io::Result<()> {
        check(offset, len, buf.len())?;
        // The write, and the flush after it: a crash may come between.
        let inode = self.step(4, path, |state| {
            let inode = state.inode(path)?;
            state.write(inode, offset, &buf[..len], false)?;
            Ok(inode)
        })?;
        self.step(5, path, |state| {
            let upto = state.seq;
            state.sync(inode, upto)
        })
    }

    fn write_at_relaxed(
        &self,
        path: &Path,
        offset: u64,
        buf: &AlignedBuf,
        len: usize,
    ) -> io::Result<()> {
        check(offset, len, buf.len())?;
        self.step(4, path, |state| {
            let inode = state.inode(path)?;
            state.write(inode, offset, &buf[..len], false)
        })
    }

    fn written_to(&self, path: &Path) -> io::Result<u64> {
        self.step(6, path, |state| {
            let inode = state.inode(path)?;
            Ok(state.image(inode)?.written_to())
        })
    }

    fn create(&self, path: &Path, capacity: u64, written: bool) -> io::Result<()> {
        // The name and the blocks, then the zeroes: between them a crash leaves the file cold.
        self.step(7, path, |state| {
            parent_exists(state, path)?;
            if state.names.contains_key(path) || state.dirs.contains(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if state.used_bytes().saturating_add(capacity) > state.options.quota_bytes {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            state.new_file(path, capacity, false);
            Ok(())
        })?;
        if written {
            self.step(8, path, |state| {
                let inode = state.inode(path)?;
                if let Some(error) = state.fault(FaultKind::Write, inode) {
                    state.names.remove(path);
                    state.drop_orphan(inode);
                    return Err(error);
                }
                state.new_file(path, capacity, true);
                state.drop_orphan(inode);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn shrink(&self, path: &Path, len: u64) -> io::Result<()> {
        self.step(14, path, |state| {
            let inode = state.inode(path)?;
            let image = state.image(inode)?;
            image.len = image.len.min(len);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(9, to, |state| {
            parent_exists(state, to)?;
            let inode = state.inode(from)?;
            state.names.remove(from);
            if let Some(old) = state.names.insert(to.to_path_buf(), inode) {
                state.drop_orphan(old);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(10, path, |state| {
            if let Some(inode) = state.names.remove(path) {
                state.drop_orphan(inode);
            }
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        loop {
            // Name by name, as a file system does it.
            let more = self.step(11, dir, |state| {
                let file = state.names.keys().find(|path| path.starts_with(dir)).cloned();
                if let Some(inode) = file.as_ref().and_then(|path| state.names.remove(path)) {
                    state.drop_orphan(inode);
                    return Ok(true);
                }
                state.dirs.retain(|path| !path.starts_with(dir));
                Ok(false)
            })?;
            if !more {
                return Ok(());
            }
        }
    }

    fn settle(&self, path: &Path) -> io::Result<()> {
        self.step(12, path, |state| {
            let inode = state.inode(path)?;
            state.settle(inode)
        })
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        self.step(13, Path::new(""), |state| {
            let total = state.options.quota_bytes;
            Ok((total.saturating_sub(state.used_bytes()), total))
        })
    }
}

impl std::fmt::Debug for SimFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimFiles(incarnation {})", self.incarnation)
    }
}
