//! `probe.json`: what a machine's device, memory and network stack can do by themselves, as `highwater probe` measures
//! it. A plan reads it to say whether more is possible, and what gives out next.
//!
//! Rates are bytes per second (10⁶ bytes are a MB), latencies microseconds. All numbers are finite.

use serde::{Deserialize, Serialize};

use crate::Environment;

/// Version of `probe.json`: fields may be added under the same name, none change meaning.
pub const PROBE_SCHEMA: &str = "highwater-probe/1";

/// `probe.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeFile {
    /// [`PROBE_SCHEMA`].
    pub schema: String,
    /// The command that repeats it, word by word.
    #[serde(default)]
    pub command: Vec<String>,
    /// When it began, nanoseconds since 1970 UTC.
    #[serde(default)]
    pub started_ns: u64,
    /// How long everything took.
    #[serde(default)]
    pub spent_s: f64,
    /// The directory probed.
    pub dir: String,
    /// Its file system.
    #[serde(default)]
    pub filesystem: String,
    /// Whether it lives in memory: nothing written there survives a power cut.
    #[serde(default)]
    pub volatile: bool,
    /// Whether I/O went past the page cache (O_DIRECT).
    #[serde(default)]
    pub direct: bool,
    /// Whether buffers were registered with the kernel.
    #[serde(default)]
    pub registered_buffers: bool,
    /// How writes were made durable: `dsync` or `write-then-flush`, whichever is faster here.
    #[serde(default)]
    pub durability: String,
    /// Durable writes onto blocks written before, at every size and depth.
    pub durable_write: Vec<WriteFigure>,
    /// The same onto blocks that were only allocated, at depth 1: what recycling segments saves.
    #[serde(default)]
    pub unwritten: Vec<WriteFigure>,
    /// Sequential reads.
    #[serde(default)]
    pub read: Vec<ReadFigure>,
    /// Copying within memory, one thread.
    #[serde(default)]
    pub copy_bytes_per_s: f64,
    /// CRC32C over data not in the cache, one thread.
    #[serde(default)]
    pub crc_bytes_per_s: f64,
    /// A byte to another thread over TCP on 127.0.0.1 and back.
    #[serde(default)]
    pub loopback: Option<RoundTrip>,
    /// What a reader has to know, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The machine.
    #[serde(default)]
    pub environment: Environment,
}

/// Durable writes of one size at one depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteFigure {
    /// Bytes of a write.
    pub bytes: u64,
    /// Writes in flight.
    pub depth: u32,
    /// Median from submission until it is durable.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Bytes durable per second.
    pub bytes_per_s: f64,
    /// Writes measured.
    pub count: u64,
}

/// Sequential reads of one size at one depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadFigure {
    /// Bytes of a read.
    pub bytes: u64,
    /// Reads in flight.
    pub depth: u32,
    /// Median.
    pub p50_us: f64,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// Reads measured.
    pub count: u64,
}

/// There and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// How many were measured.
    pub count: u64,
}

impl ProbeFile {
    /// The most bytes a second that were made durable, and how.
    pub fn best_write(&self) -> Option<WriteFigure> {
        self.durable_write.iter().copied().max_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s))
    }

    /// The smallest durable write, alone: what the device itself adds to a lone record.
    pub fn lone_write(&self) -> Option<WriteFigure> {
        let alone = self.durable_write.iter().filter(|figure| figure.depth == 1);
        alone.copied().min_by_key(|figure| figure.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_and_the_smallest_are_found() {
        let write = |bytes, depth, bytes_per_s| WriteFigure {
            bytes,
            depth,
            bytes_per_s,
            ..WriteFigure::default()
        };
        let probe = ProbeFile {
            durable_write: vec![
                write(65_536, 1, 5e8),
                write(4_096, 1, 4e7),
                write(262_144, 4, 2e9),
                write(4_096, 8, 1e8),
            ],
            ..ProbeFile::default()
        };
        assert_eq!(probe.best_write().unwrap().bytes, 262_144);
        assert_eq!(probe.lone_write(), Some(write(4_096, 1, 4e7)));
    }

    #[test]
    fn a_probe_of_the_first_layout_can_be_read() {
        let text = r#"{"schema":"highwater-probe/1","dir":"/data","durable_write":[
            {"bytes":4096,"depth":1,"p50_us":90.0,"p99_us":300.0,"bytes_per_s":4e7,"count":9000}]}"#;
        let probe: ProbeFile = serde_json::from_str(text).unwrap();
        assert_eq!(probe.durable_write[0].p99_us, 300.0);
        let again: ProbeFile =
            serde_json::from_str(&serde_json::to_string(&probe).unwrap()).unwrap();
        assert_eq!(again, probe);
    }
}
