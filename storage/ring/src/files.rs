//! [`OsFiles`]: the blocking file vocabulary on a real directory, with O_DIRECT and directory syncs.
//!
//! Used by recovery, the preparer and tools; never on a shard's thread while it serves.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{self, AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use crate::buffer::AlignedBuf;
use crate::vocab::{BLOCK_ALIGN, Files, OpenMode};

mod lock;
pub use lock::{DirLock, LockError};

/// How a data directory is to be used.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilesOptions {
    /// Accept a file system without O_DIRECT; I/O is then buffered and flushed by fdatasync.
    pub allow_buffered: bool,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The file system refuses O_DIRECT.
    #[error(
        "{path}: the file system ({filesystem}) refuses O_DIRECT; use another (ext4, xfs), or allow buffered I/O"
    )]
    NoDirect {
        /// The data directory.
        path: PathBuf,
        /// Name of the file system, or its magic number.
        filesystem: String,
    },
    /// Anything else.
    #[error("{path}: {source}")]
    Io {
        /// The data directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The files under one data directory. Clones share it.
#[derive(Clone, Debug)]
pub struct OsFiles {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    dir: OwnedFd,
    direct: bool,
    filesystem: String,
    volatile: bool,
    /// The file last written by `write_at_relaxed`, kept open: filling a file is many small steps.
    filling: Mutex<Option<(PathBuf, Arc<OwnedFd>)>>,
    /// Directories whose own name is known to be durable.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

impl OsFiles {
    /// Opens the data directory, creating it (and its parents) if missing.
    ///
    /// # Errors
    /// When it cannot be made or opened, or its file system refuses O_DIRECT and that was not allowed.
    pub fn open(root: impl Into<PathBuf>, options: FilesOptions) -> Result<OsFiles, FilesError> {
        let root = root.into();
        let io = |source: io::Error| FilesError::Io { path: root.clone(), source };
        if !root.is_dir() {
            std::fs::create_dir_all(&root).map_err(io)?;
            // Its own name has to last as well. Further up, people made it or may lose it.
            if let Some(parent) = root.canonicalize().map_err(io)?.parent() {
                std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)?;
            }
        }
        let dir = fs::open(&root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| io(e.into()))?;
        let magic = fs::fstatfs(&dir).map_err(|e| io(e.into()))?.f_type as u64;
        let (filesystem, volatile) = name_of(magic);
        let direct = takes_direct(&dir).map_err(io)?;
        if !direct && !options.allow_buffered {
            return Err(FilesError::NoDirect { path: root, filesystem });
        }
        Ok(OsFiles {
            inner: Arc::new(Inner {
                root,
                dir,
                direct,
                filesystem,
                volatile,
                filling: Mutex::new(None),
                durable_dirs: Mutex::new(HashSet::new()),
            }),
        })
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Whether I/O bypasses the page cache (O_DIRECT).
    pub fn direct(&self) -> bool {
        self.inner.direct
    }

    /// Whether the file system lives in memory (tmpfs, ramfs): nothing survives a power cut.
    pub fn volatile(&self) -> bool {
        self.inner.volatile
    }

    /// Name of the file system (`ext4`, `xfs`, ..) or its magic number.
    pub fn filesystem(&self) -> &str {
        &self.inner.filesystem
    }

    /// Opens a file for the ring.
    ///
    /// # Errors
    /// As the kernel answers; `InvalidInput` for a path that leaves the data directory.
    pub fn open_file(&self, path: &Path, mode: OpenMode) -> io::Result<OwnedFd> {
        let access = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::Write => OFlags::RDWR,
        };
        self.open_with(path, access)
    }

    /// Takes the exclusive lock of the data directory, through its file `LOCK`. Held until the guard is
    /// dropped or the process ends.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process (or guard) has it.
    pub fn open_lock(&self) -> Result<DirLock, LockError> {
        DirLock::take(&self.inner.root, &self.inner.dir)
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let direct = if self.inner.direct { OFlags::DIRECT } else { OFlags::empty() };
        let flags = flags | direct | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o640);
        let path = checked(path)?;
        Ok(retry_on_intr(|| fs::openat(&self.inner.dir, path, flags, mode))?)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = retry_on_intr(|| fs::openat(&self.inner.dir, dir, flags, Mode::empty()))?;
        Ok(retry_on_intr(|| fs::fsync(&fd))?)
    }

    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
    }

    /// Forgets the file kept open for filling.
    fn forget_filling(&self) {
        *self.inner.filling.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn fill(&self, fd: &OwnedFd, capacity: u64, written: bool) -> io::Result<()> {
        match retry_on_intr(|| fs::fallocate(fd, FallocateFlags::empty(), 0, capacity.max(1))) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => retry_on_intr(|| fs::ftruncate(fd, capacity))?,
            other => other?,
        }
        if written {
            let zeros = AlignedBuf::alloc(1 << 20);
            let mut at = 0;
            while at < capacity {
                let len = (capacity - at).min(zeros.len() as u64);
                write_all(fd, &zeros[..len as usize], at)?;
                at += len;
            }
        }
        Ok(retry_on_intr(|| fs::fsync(fd))?)
    }
}

/// Refuses paths that leave the data directory.
fn checked(path: &Path) -> io::Result<&Path> {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if plain && !path.as_os_str().is_empty() {
        Ok(path)
    } else {
        let text = format!("{}: not a path within the data directory", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry_on_intr(|| rustix::io::pwrite(fd, bytes, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                bytes = &bytes[n.min(bytes.len())..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// Whether files in `dir` take O_DIRECT.
fn takes_direct(dir: &OwnedFd) -> io::Result<bool> {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    match fs::openat(dir, ".", flags | OFlags::TMPFILE, mode) {
        Ok(_) => return Ok(true),
        Err(Errno::INVAL) => return Ok(false),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {} // no O_TMPFILE here
        Err(e) => return Err(e.into()),
    }
    let name = format!(".direct-probe-{}", std::process::id());
    let result = fs::openat(dir, name.as_str(), flags | OFlags::CREATE, mode);
    let _ = fs::unlinkat(dir, name.as_str(), AtFlags::empty());
    match result {
        Ok(_) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Name of a file system by its magic number, and whether it lives in memory.
fn name_of(magic: u64) -> (String, bool) {
    let name = match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0xF2F5_2010 => "f2fs",
        0x2FC1_2FC1 => "zfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x794C_7630 => "overlayfs",
        0x0102_1994 => return ("tmpfs".into(), true),
        0x8584_58F6 => return ("ramfs".into(), true),
        _ => return (format!("magic {magic:#x}"), false),
    };
    (name.into(), false)
}

fn check_aligned(offset: u64, buf: &AlignedBuf, len: usize) -> io::Result<()> {
    if len > buf.len()
        || !len.is_multiple_of(BLOCK_ALIGN)
        || !offset.is_multiple_of(BLOCK_ALIGN as u64)
    {
        let text = format!("write of {len} B at {offset} is not aligned or beyond its buffer");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

impl Files for OsFiles {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let path = if dir.as_os_str().is_empty() { Path::new(".") } else { checked(dir)? };
        let fd = match fs::openat(&self.inner.dir, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in fs::Dir::new(fd)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut known = self.inner.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut path = PathBuf::new();
        for part in checked(dir)?.components() {
            path.push(part);
            if known.contains(&path) {
                continue;
            }
            match fs::mkdirat(&self.inner.dir, &path, Mode::from_raw_mode(0o750)) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let stat = fs::statat(&self.inner.dir, &path, AtFlags::empty())?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                        return Err(Errno::NOTDIR.into());
                    }
                }
                Err(e) => return Err(e.into()),
            }
            // Also if it was there: whoever made it may have died before this.
            self.sync_parent(&path)?;
            known.insert(path.clone());
        }
        Ok(())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let stat = fs::statat(&self.inner.dir, checked(path)?, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(stat.st_size as u64)
    }

    fn read_at(&self, path: &Path, offset: u64, buf: &mut AlignedBuf) -> io::Result<usize> {
        let fd = self.open_with(path, OFlags::RDONLY)?;
        let mut done = 0;
        while done < buf.len() {
            let n =
                retry_on_intr(|| rustix::io::pread(&fd, &mut buf[done..], offset + done as u64))?;
            done += n;
            // A short read that leaves us unaligned was the end of the file.
            if n == 0 || !done.is_multiple_of(BLOCK_ALIGN) {
                break;
            }
        }
        Ok(done)
    }

    fn write_at(&self, path: &Path, offset: u64, buf: &AlignedBuf, len: usize) -> io::Result<()> {
        check_aligned(offset, buf, len)?;
        let fd = self.open_with(path, OFlags::RDWR)?;
        write_all(&fd, &buf[..len], offset)?;
        Ok(retry_on_intr(|| fs::fdatasync(&fd))?)
    }

    fn write_at_relaxed(
        &self,
        path: &Path,
        offset: u64,
        buf: &AlignedBuf,
        len: usize,
    ) -> io::Result<()> {
        check_aligned(offset, buf, len)?;
        let fd = {
            let mut filling = self.inner.filling.lock().unwrap_or_else(PoisonError::into_inner);
            match filling.as_ref() {
                Some((kept, fd)) if kept == path => Arc::clone(fd),
                _ => {
                    let fd = Arc::new(self.open_with(path, OFlags::RDWR)?);
                    *filling = Some((path.to_path_buf(), Arc::clone(&fd)));
                    fd
                }
            }
        };
        write_all(&fd, &buf[..len], offset)
    }

    fn written_to(&self, path: &Path) -> io::Result<u64> {
        let fd = self.open_with(path, OFlags::RDONLY)?;
        // Allocated but unwritten extents answer as holes, and so does the end.
        match fs::seek(&fd, SeekFrom::Hole(0)) {
            Ok(at) => Ok(at),
            Err(Errno::INVAL | Errno::NXIO | Errno::OPNOTSUPP) => {
                Ok(fs::fstat(&fd)?.st_size as u64)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn create(&self, path: &Path, capacity: u64, written: bool) -> io::Result<()> {
        let fd = self.open_with(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        let made = self.fill(&fd, capacity, written).and_then(|()| self.sync_parent(path));
        if made.is_err() {
            drop(fd);
            let _ = self.remove(path);
        }
        made
    }

    fn shrink(&self, path: &Path, len: u64) -> io::Result<()> {
        let fd = self.open_with(path, OFlags::WRONLY)?;
        Ok(retry_on_intr(|| fs::ftruncate(&fd, len))?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.forget_filling();
        let dir = self.inner.dir.as_fd();
        retry_on_intr(|| fs::renameat(dir, checked_errno(from)?, dir, checked_errno(to)?))?;
        self.sync_parent(to)?;
        if from.parent() == to.parent() { Ok(()) } else { self.sync_parent(from) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.forget_filling();
        match retry_on_intr(|| {
            fs::unlinkat(&self.inner.dir, checked_errno(path)?, AtFlags::empty())
        }) {
            // Also when missing: whoever removed it may have died before the sync.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        missing_is_fine(self.sync_parent(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.forget_filling();
        let mut known = self.inner.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|path| !path.starts_with(dir));
        missing_is_fine(std::fs::remove_dir_all(self.inner.root.join(checked(dir)?)))?;
        missing_is_fine(self.sync_parent(dir))
    }

    fn settle(&self, path: &Path) -> io::Result<()> {
        self.forget_filling();
        let fd = self.open_with(path, OFlags::RDWR)?;
        let len = (fs::fstat(&fd)?.st_size as u64).max(BLOCK_ALIGN as u64);
        // Over a range that is allocated already it changes nothing, but it waits for direct I/O on the
        // inode, whoever submitted it (measured on ext4 and xfs).
        match retry_on_intr(|| fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 0, len)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(retry_on_intr(|| fs::fsync(&fd))?)
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        let stat = fs::fstatvfs(&self.inner.dir)?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }
}

fn checked_errno(path: &Path) -> Result<&Path, Errno> {
    checked(path).map_err(|_| Errno::INVAL)
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
