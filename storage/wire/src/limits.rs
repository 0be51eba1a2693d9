//! Bounds that hold before anything is allocated.

/// Longest partition key, in characters (Unicode scalar values), as in Kinesis.
pub const MAX_KEY_CHARS: usize = 256;

/// Largest record that can be configured, payload plus key plus headers, in bytes: 10 MiB.
pub const MAX_RECORD_CEILING: u32 = 10 << 20;

/// Most shards one stream may have.
pub const MAX_SHARDS_PER_STREAM: u32 = 4096;

/// The sizes a server accepts; told to clients in the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest record: payload, key and headers together, in bytes.
    pub max_record: u32,
    /// Largest batch, its header included, in bytes.
    pub max_batch: u32,
}

impl Limits {
    /// Limits for a largest record of `max_record` bytes (at most [`MAX_RECORD_CEILING`]): a batch holds one
    /// such record, or 1 MiB of smaller ones, with their headers.
    pub fn for_record(max_record: u32) -> Limits {
        let max_record = max_record.min(MAX_RECORD_CEILING);
        Limits { max_record, max_batch: max_record.max(1 << 20) + 4096 }
    }

    /// Largest frame: a batch, its frame header and control part, in bytes.
    pub fn max_frame(&self) -> usize {
        self.max_batch as usize + crate::FRAME_HEADER_LEN + (64 << 10)
    }
}

impl Default for Limits {
    /// Records up to 1 MiB.
    fn default() -> Limits {
        Limits::for_record(1 << 20)
    }
}
