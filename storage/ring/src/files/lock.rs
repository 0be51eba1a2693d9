//! The exclusive lock of a data directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, ftruncate, openat};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody has it.
    #[error("{path} is in use by another process{}", .pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Held {
        /// The data directory.
        path: PathBuf,
        /// The holder as it noted itself in the file, where readable.
        pid: Option<u32>,
    },
    /// The lock file could not be opened or locked.
    #[error("{path}/LOCK: {source}")]
    Io {
        /// The data directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The exclusive lock of a data directory; released on drop.
///
/// It says that the former holder is gone, not that its writes are: those a killed process had in flight go on
/// landing (see [`crate::Files::settle`]).
#[derive(Debug)]
pub struct DirLock {
    _file: OwnedFd,
}

impl DirLock {
    pub(super) fn take(root: &Path, dir: &OwnedFd) -> Result<DirLock, LockError> {
        let io = |e: Errno| LockError::Io { path: root.to_path_buf(), source: e.into() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(dir, "LOCK", flags, Mode::from_raw_mode(0o640)).map_err(io)?;
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held { path: root.to_path_buf(), pid: holder(&file) });
            }
            Err(e) => return Err(io(e)),
        }
        // A note for people; the lock is the flock.
        let note = format!("{}\n", std::process::id());
        let _ = ftruncate(&file, 0);
        let _ = pwrite(&file, note.as_bytes(), 0);
        Ok(DirLock { _file: file })
    }
}

fn holder(file: &OwnedFd) -> Option<u32> {
    let mut text = [0u8; 16];
    let n = pread(file, &mut text, 0).ok()?;
    std::str::from_utf8(text.get(..n)?).ok()?.trim().parse().ok()
}
