//! How a data directory is used.

use super::OpenError;
use crate::options::CoreOptions;

/// How a data directory is used.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// CPUs, one core thread each.
    pub cores: Vec<usize>,
    /// Registered buffer memory of each core, in bytes.
    pub pool_bytes: usize,
    /// Memory of each core for batches larger than 1 MiB, in bytes.
    pub large_bytes: usize,
    /// What shards obey.
    pub core: CoreOptions,
    /// Bytes of prepared segment files to keep ready.
    pub prepared_bytes: u64,
    /// Bytes of the file system that no segment may take; `None` for [`crate::reserve_of`] its size.
    pub reserve_bytes: Option<u64>,
    /// Use a file system without O_DIRECT (labelled).
    pub allow_buffered: bool,
    /// Measure the way to durability again although it is remembered.
    pub calibrate_again: bool,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cores: vec![0],
            pool_bytes: 32 << 20,
            large_bytes: 64 << 20,
            core: CoreOptions::default(),
            prepared_bytes: 1 << 30,
            reserve_bytes: None,
            allow_buffered: false,
            calibrate_again: false,
        }
    }
}

pub(super) fn check(options: &StoreOptions) -> Result<(), OpenError> {
    let refuse = |field, value: String, limit| Err(OpenError::Option { field, value, limit });
    if options.cores.is_empty() {
        return refuse("cores", "empty".into(), "at least one CPU is needed");
    }
    if options.pool_bytes < 4 << 20 {
        return refuse(
            "pool_bytes",
            options.pool_bytes.to_string(),
            "at least 4 MiB per core are needed",
        );
    }
    let sizes = options.core.segments;
    if sizes.min < 64 << 10
        || sizes.max < sizes.min
        || !sizes.min.is_multiple_of(4096)
        || !sizes.max.is_multiple_of(4096)
    {
        let value = format!("{} to {}", sizes.min, sizes.max);
        return refuse(
            "segments",
            value,
            "sizes are multiples of 4 KiB, at least 64 KiB, min at most max",
        );
    }
    if !(1..=64).contains(&options.core.depth) {
        return refuse("depth", options.core.depth.to_string(), "1 to 64 groups may be in flight");
    }
    Ok(())
}
