//! How the preparer keeps its pool.

use std::path::PathBuf;

/// How the preparer keeps its pool.
#[derive(Clone, Debug)]
pub struct PreparerOptions {
    /// The pool's directory, relative to the data directory. One preparer per directory.
    pub pool_dir: PathBuf,
    /// Files kept ready per size that was asked for.
    pub ready_per_class: usize,
    /// Bound on the pool's files together, in bytes.
    pub max_bytes: u64,
    /// The file system's free bytes which filling the pool leaves alone.
    pub keep_free_bytes: u64,
    /// The file system's free bytes below which no file is made at all: a request for a segment that the pool
    /// cannot meet is refused as if it were full. 0 for none.
    pub reserve_bytes: u64,
    /// Sizes to prepare from the start, before they are first asked for.
    pub prepare: Vec<u64>,
    /// Highest zeroing speed while durable writes are going on, in bytes per second: half as fast again as these are, but at
    /// least 8 MiB/s and at most this. Without any, full speed.
    pub busy_bytes_per_sec: u64,
}

impl Default for PreparerOptions {
    fn default() -> Self {
        PreparerOptions {
            pool_dir: PathBuf::from("pool"),
            ready_per_class: 2,
            max_bytes: 1 << 30,
            keep_free_bytes: 512 << 20,
            reserve_bytes: 0,
            prepare: Vec::new(),
            busy_bytes_per_sec: 64 << 20,
        }
    }
}
