//! Calibration: which way to durability is faster on a device, by trying both.
//!
//! On most devices RWF_DSYNC is (no extra kernel worker, nothing at all where there is no volatile cache);
//! on some consumer drives FUA is slower than a flush. So it is measured once per device, and remembered.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{major, minor, stat};

use crate::buffer::{AlignedBuf, BufferPool, SharedBuf};
use crate::files::{FilesError, FilesOptions, OsFiles};
use crate::uring::{Durability, UringDisk, UringError, UringOptions};
use crate::vocab::{Completion, Disk, FileId, Files, Op, OpenMode};

const WRITE: u32 = 16 << 10;
const FILE: u64 = 1 << 20;
const ROUNDS: usize = 8;
const PER_ROUND: usize = 8;
/// Bound on all of it; enforced between writes.
const BUDGET: Duration = Duration::from_secs(1);

/// What is known about a device's durability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The faster way.
    pub durability: Durability,
    /// Median of a durable 16 KiB write by [`Durability::Dsync`], in microseconds.
    pub dsync_p50_us: u64,
    /// The same by [`Durability::WriteThenFlush`].
    pub flush_p50_us: u64,
    /// 99th percentiles of both, in microseconds.
    pub dsync_p99_us: u64,
    /// See `dsync_p99_us`.
    pub flush_p99_us: u64,
    /// The block device, as `major:minor`: what a remembered calibration belongs to.
    pub device: String,
    /// `queue/write_cache` of the device (`write back`, `write through`), where found.
    pub write_cache: Option<String>,
    /// `queue/fua` of the device (`0`, `1`), where found.
    pub fua: Option<String>,
    /// Whether the file system takes O_DIRECT.
    pub direct: bool,
    /// Whether the file system lives in memory.
    pub volatile_fs: bool,
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// The directory cannot be used.
    #[error("calibration: {0}")]
    Files(#[from] FilesError),
    /// There is no ring.
    #[error("calibration: {0}")]
    Ring(#[from] UringError),
    /// The device refused, or the disk is full.
    #[error("calibration in {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Measures the device under `dir` with a scratch file of 1 MiB: about 64 durable writes of 16 KiB each way,
/// taking turns; some 20 to 150 ms, a little over 1 s at most. Blocks; the scratch file is removed.
///
/// # Errors
/// When the directory cannot be written or there is no io_uring.
pub fn calibrate(dir: &Path) -> Result<Calibration, CalibrationError> {
    let files = OsFiles::open(dir, FilesOptions { allow_buffered: true })?;
    let name = PathBuf::from(format!(".calibration-{}", std::process::id()));
    let result = measure(&files, &name);
    let _ = files.remove(&name);
    result
}

fn measure(files: &OsFiles, name: &Path) -> Result<Calibration, CalibrationError> {
    let io = |source| CalibrationError::Io { path: files.root().to_path_buf(), source };
    files.remove(name).map_err(io)?;
    files.create(name, FILE, true).map_err(io)?;
    let pool = BufferPool::new(0, 0).map_err(io)?;
    let mut runs = Vec::new();
    for durability in [Durability::Dsync, Durability::WriteThenFlush] {
        let options = UringOptions {
            entries: 8,
            max_in_flight: 8,
            max_files: 16,
            durability,
            register_buffers: false,
            ..UringOptions::default()
        };
        let mut disk = UringDisk::new(&pool, None, options)?;
        let fd = files.open_file(name, OpenMode::Write).map_err(io)?;
        let file = disk.register_file(fd).map_err(io)?;
        runs.push((disk, file, Vec::new()));
    }
    let mut bytes = AlignedBuf::alloc(WRITE as usize);
    bytes.fill(0x5a);
    let buf = bytes.freeze();
    let started = Instant::now();
    let mut at = 0;
    'all: for round in 0..ROUNDS {
        for _ in 0..PER_ROUND {
            for (disk, file, times) in &mut runs {
                times.push(write(disk, *file, at % FILE, &buf).map_err(io)?);
                at += u64::from(WRITE);
            }
            // On a slow device the first few have to do.
            if started.elapsed() > BUDGET && (round > 0 || runs[1].2.len() >= 3) {
                break 'all;
            }
        }
    }
    let [dsync, flush] = [0, 1].map(|i| percentiles(&mut runs[i].2));
    let device = device_of(files.root()).map_err(io)?;
    Ok(Calibration {
        durability: choose(dsync.0, flush.0),
        dsync_p50_us: dsync.0,
        flush_p50_us: flush.0,
        dsync_p99_us: dsync.1,
        flush_p99_us: flush.1,
        write_cache: queue_file(&device, "write_cache"),
        fua: queue_file(&device, "fua"),
        device,
        direct: files.direct(),
        volatile_fs: files.volatile(),
    })
}

/// DSYNC, unless the flush is clearly faster: its median below three quarters of DSYNC's. DSYNC takes half the CPU
/// and one completion, a busy machine makes either look slow by chance, and on drives where FUA really is slow
/// the flush is faster by a factor of two and more.
fn choose(dsync: u64, flush: u64) -> Durability {
    if flush * 4 < dsync * 3 { Durability::WriteThenFlush } else { Durability::Dsync }
}

fn write(disk: &mut UringDisk, file: FileId, offset: u64, buf: &SharedBuf) -> io::Result<Duration> {
    let started = Instant::now();
    let buf = buf.clone();
    disk.submit(0, Op::Write { file, offset, buf, len: WRITE, durable: true });
    let mut out: Vec<Completion> = Vec::with_capacity(1);
    while out.is_empty() {
        disk.wait(None)?;
        disk.reap(&mut out);
    }
    let took = started.elapsed();
    out.pop().map_or(Ok(took), |done| done.result.map(|_| took))
}

/// Median and 99th percentile, in microseconds (at least 1).
fn percentiles(times: &mut [Duration]) -> (u64, u64) {
    times.sort_unstable();
    let at = |p: usize| {
        let index = (times.len() * p / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(1, |t| (t.as_micros() as u64).max(1))
    };
    (at(50), at(99))
}

/// The block device under a path, as `major:minor`: tells whether a remembered calibration still applies.
///
/// # Errors
/// When the path cannot be looked up.
pub fn device_of(path: &Path) -> io::Result<String> {
    let device = stat(path)?.st_dev;
    Ok(format!("{}:{}", major(device), minor(device)))
}

/// A file of the device's request queue; a partition's is in its parent.
fn queue_file(device: &str, name: &str) -> Option<String> {
    ["queue", "../queue"].iter().find_map(|queue| {
        let text =
            std::fs::read_to_string(format!("/sys/dev/block/{device}/{queue}/{name}")).ok()?;
        Some(text.trim().to_string())
    })
}

impl Calibration {
    /// As lines of `key=value`, for a file.
    pub fn to_text(&self) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!(
            "durability={}\ndsync_p50_us={}\nflush_p50_us={}\ndsync_p99_us={}\nflush_p99_us={}\ndevice={}\n\
             write_cache={}\nfua={}\ndirect={}\nvolatile_fs={}\n",
            self.durability.name(),
            self.dsync_p50_us,
            self.flush_p50_us,
            self.dsync_p99_us,
            self.flush_p99_us,
            self.device,
            text(&self.write_cache),
            text(&self.fua),
            self.direct,
            self.volatile_fs,
        )
    }

    /// The inverse of [`Calibration::to_text`]; `None` when a line is missing or makes no sense.
    pub fn from_text(text: &str) -> Option<Calibration> {
        let get =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let optional = |key| get(key).filter(|v| !v.is_empty()).map(str::to_string);
        Some(Calibration {
            durability: Durability::from_name(get("durability")?)?,
            dsync_p50_us: get("dsync_p50_us")?.parse().ok()?,
            flush_p50_us: get("flush_p50_us")?.parse().ok()?,
            dsync_p99_us: get("dsync_p99_us")?.parse().ok()?,
            flush_p99_us: get("flush_p99_us")?.parse().ok()?,
            device: get("device")?.to_string(),
            write_cache: optional("write_cache"),
            fua: optional("fua"),
            direct: get("direct")?.parse().ok()?,
            volatile_fs: get("volatile_fs")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let calibration = calibrate(dir.path()).unwrap();
        assert!(calibration.dsync_p50_us > 0 && calibration.flush_p50_us > 0);
        assert!(calibration.dsync_p50_us <= calibration.dsync_p99_us);
        assert_eq!(Calibration::from_text(&calibration.to_text()), Some(calibration));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(Calibration::from_text(""), None);
    }

    #[test]
    fn the_faster_way_is_chosen() {
        assert_eq!(choose(80, 100), Durability::Dsync);
        assert_eq!(choose(100, 90), Durability::Dsync);
        assert_eq!(choose(4000, 1700), Durability::WriteThenFlush);
    }
}
