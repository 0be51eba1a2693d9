//! The vocabulary of log I/O: what a shard may ask of a disk and what it hears back.
//!
//! Two disks speak it: [`crate::UringDisk`] (the kernel's io_uring) and [`crate::SimDisk`] (in memory,
//! seeded, with crashes and faults). The engine knows only these types.

use std::io;
use std::path::PathBuf;

use crate::buffer::{AlignedBuf, SharedBuf};

/// Alignment of every file offset, length and buffer address in log I/O, in bytes.
pub const BLOCK_ALIGN: usize = 4096;

/// Names an operation in flight; chosen by the caller, returned with the completion.
pub type Token = u64;

/// An open log file, by its slot in the disk's table of registered files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// An operation on the data path. Never blocks the submitting thread.
#[derive(Debug)]
pub enum Op {
    /// Write `buf[..len]` at `offset`. `offset` and `len` are multiples of [`BLOCK_ALIGN`].
    /// With `durable`, the completion means the device has the bytes (RWF_DSYNC, or a write followed
    /// by a flush, as calibrated). Without, it means only that the write was accepted.
    Write {
        /// Where to.
        file: FileId,
        /// Byte offset in the file.
        offset: u64,
        /// What: kept alive by the disk until the completion.
        buf: SharedBuf,
        /// Bytes of `buf` to write.
        len: u32,
        /// Whether the completion promises durability.
        durable: bool,
    },
    /// Read up to `len` bytes at `offset` into `buf` (at least `len` long). Aligned as writes are.
    Read {
        /// Where from.
        file: FileId,
        /// Byte offset in the file.
        offset: u64,
        /// Receives the bytes; comes back in the completion, also after an error.
        buf: AlignedBuf,
        /// Bytes wanted; fewer come back at the end of the file.
        len: u32,
    },
    /// Make every write to `file` that completed before this was submitted durable.
    Sync {
        /// Which file.
        file: FileId,
    },
    /// Work for the preparer thread: everything that may block on the file system.
    Job(Job),
}

/// Work of the preparer, outside the shard's thread: open, allocate, rename, sync of directories, unlink.
/// Paths are relative to the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Give a segment file of `capacity` bytes under the name `path` (its directory is created if missing): from the
    /// pool if it has one, or one down to `least` bytes that is written already, else freshly allocated (`cold`).
    /// Durable under its name before the completion. Completes with [`Done::Segment`].
    TakeSegment {
        /// Final name.
        path: PathBuf,
        /// Size in bytes, a multiple of [`BLOCK_ALIGN`].
        capacity: u64,
        /// The size below which a file is of no use.
        least: u64,
    },
    /// Open an existing file for reading (and writing, if `write`). Completes with [`Done::Segment`].
    OpenSegment {
        /// Name.
        path: PathBuf,
        /// Whether it will be written.
        write: bool,
    },
    /// Return a segment file to the pool, or remove it when the pool is full. The name is gone, durably,
    /// before the completion. The caller has closed it. Completes with [`Done::Gone`].
    Recycle {
        /// Name.
        path: PathBuf,
    },
    /// Remove a directory and everything in it, durably (its segments may go to the pool).
    RemoveDir {
        /// Name.
        path: PathBuf,
    },
}

/// What an operation came to.
#[derive(Debug)]
pub enum Done {
    /// All bytes were written (and are durable, where asked).
    Written,
    /// Bytes read, from the start of the buffer. `len` may be short at the end of the file.
    Read {
        /// The buffer given.
        buf: AlignedBuf,
        /// Valid bytes in it.
        len: u32,
    },
    /// Earlier completed writes are durable.
    Synced,
    /// A segment file is open.
    Segment {
        /// Its slot, valid until `close`.
        file: FileId,
        /// Size in bytes.
        capacity: u64,
        /// True if its blocks are allocated but not yet written: durable writes cost about three times
        /// as much.
        cold: bool,
    },
    /// The name is gone.
    Gone,
}

/// A finished operation.
#[derive(Debug)]
pub struct Completion {
    /// As given with the operation.
    pub token: Token,
    /// What it came to. After an error the buffer of a read is dropped (returned to its pool).
    pub result: Result<Done, io::Error>,
}

/// A disk as the engine sees it.
pub trait Disk {
    /// Queue `op`. It starts at the latest at the next [`Disk::flush`], but for those that a bound of the disk keeps
    /// waiting; no write or sync waits for reads. They complete in any order.
    fn submit(&mut self, token: Token, op: Op);
    /// Hand everything queued to the kernel. Does not block.
    fn flush(&mut self) -> io::Result<()>;
    /// Take the completions that are there, appending to `out`. Does not block.
    fn reap(&mut self, out: &mut Vec<Completion>);
    /// Forget a file; no operation on it may be in flight. Its slot may be given out again.
    fn close(&mut self, file: FileId);
    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;
}

/// How a blocking open is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read only.
    Read,
    /// Read and write an existing file.
    Write,
}

/// The blocking file-system vocabulary: used where waiting is right (recovery at start, the preparer,
/// `inspect`), never on a shard's thread while it serves. Paths are relative to the data directory.
pub trait Files: Send + Sync {
    /// Names in a directory, sorted. A missing directory is empty.
    fn list(&self, dir: &std::path::Path) -> io::Result<Vec<String>>;
    /// Create a directory (and its parents) durably; fine if it exists.
    fn create_dir(&self, dir: &std::path::Path) -> io::Result<()>;
    /// Size of a file in bytes.
    fn len(&self, path: &std::path::Path) -> io::Result<u64>;
    /// Read up to `buf.len()` bytes at `offset` (both aligned); returns how many (short at the end).
    fn read_at(
        &self,
        path: &std::path::Path,
        offset: u64,
        buf: &mut AlignedBuf,
    ) -> io::Result<usize>;
    /// Write `len` bytes of `buf` at `offset` (aligned) durably: returns once the device has them.
    fn write_at(
        &self,
        path: &std::path::Path,
        offset: u64,
        buf: &AlignedBuf,
        len: usize,
    ) -> io::Result<()>;
    /// Write as [`Files::write_at`] does, but durable only after a later [`Files::settle`]: for filling
    /// files nobody relies on yet.
    fn write_at_relaxed(
        &self,
        path: &std::path::Path,
        offset: u64,
        buf: &AlignedBuf,
        len: usize,
    ) -> io::Result<()> {
        self.write_at(path, offset, buf, len)
    }
    /// Where the first block lies that was never written, so that durable writes to those before it are cheap; the
    /// file's length if all were, or where it cannot be told.
    fn written_to(&self, path: &std::path::Path) -> io::Result<u64> {
        self.len(path)
    }
    /// Whether every block of the file has been written.
    fn is_written(&self, path: &std::path::Path) -> io::Result<bool> {
        Ok(self.written_to(path)? >= self.len(path)?)
    }
    /// Create a file of `capacity` bytes, allocated; zeroed by real writes if `written`. Durable with its name.
    /// A file that exists is an error (`AlreadyExists`); after an error nothing is left behind.
    fn create(&self, path: &std::path::Path, capacity: u64, written: bool) -> io::Result<()>;
    /// Shorten a file that nobody uses any more, to `len` bytes: a step of its removal, not durable. Where it does
    /// nothing, [`Files::remove`] does it all.
    fn shrink(&self, path: &std::path::Path, len: u64) -> io::Result<()> {
        let _ = (path, len);
        Ok(())
    }
    /// Rename durably (both directories synced).
    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> io::Result<()>;
    /// Remove durably; fine if it is missing.
    fn remove(&self, path: &std::path::Path) -> io::Result<()>;
    /// Remove an empty or full directory durably; fine if it is missing.
    fn remove_dir(&self, dir: &std::path::Path) -> io::Result<()>;
    /// Wait until no write of a dead process is in flight on the file any more, then flush it to the
    /// device, so that what is read afterwards stays.
    fn settle(&self, path: &std::path::Path) -> io::Result<()>;
    /// Free and total bytes of the file system.
    fn space(&self) -> io::Result<(u64, u64)>;
}
