//! What a machine can do by itself: durable writes by size and depth, reads, copies, checksums, a round trip over
//! loopback; with the engine's own means (io_uring, O_DIRECT, registered buffers, durable the way that is faster here).
//!
//! The answer is a [`ProbeFile`], which a capacity plan reads.

mod device;
mod memory;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use highwater_ring::{
    BufferPool, CalibrationError, Files as _, FilesError, FilesOptions, OsFiles, UringError,
    calibrate,
};

use crate::Stop;
use crate::capacity::{PROBE_SCHEMA, ProbeFile};
use crate::clock::Clock;
use crate::environment::{Before, Environment, lint_place};

/// How large the file is that is written, and the one that is only allocated, in bytes.
const FILE: u64 = 256 << 20;
/// Left free beside them.
const SPARE: u64 = 64 << 20;
/// Registered for writes and reads: eight of the largest, and their smaller fellows.
const BUFFERS: usize = 32 << 20;

/// How a probe is done.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// How long to measure, all parts together; 1 s to 10 min. Making the files comes on top.
    pub time: Duration,
    /// The command that repeats it.
    pub command: Vec<String>,
    /// Ends it before its time, with nothing left behind.
    pub stop: Stop,
}

/// Shortest and longest time.
pub const PROBE_TIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(600);

/// Why there is no probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A time that is too short or too long.
    #[error("the time is {0:?}; it has to be 1s to 10m")]
    Time(Duration),
    /// There is no such directory.
    #[error("{path}: no such directory; name one on the file system to be probed")]
    Directory {
        /// As named.
        path: PathBuf,
    },
    /// This user may not write there.
    #[error(
        "{path}: this user may not write there; use another directory on the same file system, or another user"
    )]
    Permission {
        /// The directory.
        path: PathBuf,
    },
    /// Not enough free space.
    #[error(
        "{path}: {free} bytes are free; the probe needs {needed} for its files, which it removes afterwards"
    )]
    Space {
        /// The directory.
        path: PathBuf,
        /// What is free.
        free: u64,
        /// What is needed.
        needed: u64,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Neither way to durability could be tried.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// There is no ring.
    #[error(transparent)]
    Ring(#[from] UringError),
    /// The system, or the device, refused.
    #[error("{doing} in {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Loopback does not work.
    #[error("a round trip over 127.0.0.1: {0}")]
    Loopback(io::Error),
    /// It was asked to end.
    #[error("stopped before its end; its files are gone")]
    Stopped,
}

impl ProbeError {
    /// What the system refused, with what can be done about it.
    fn io(doing: &'static str, path: &Path, source: io::Error) -> ProbeError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ProbeError::Permission { path },
            _ => ProbeError::Io { doing, path, source },
        }
    }
}

/// Probes the file system of `dir` and this machine. Blocks; what it writes has no name while it is measured, so
/// that nothing is left behind whatever happens.
///
/// # Errors
/// When the directory cannot be written, there is too little space or no io_uring, or it was stopped.
pub fn probe(dir: &Path, options: &ProbeOptions) -> Result<ProbeFile, ProbeError> {
    if !PROBE_TIME.contains(&options.time) {
        return Err(ProbeError::Time(options.time));
    }
    if !dir.is_dir() {
        return Err(ProbeError::Directory { path: dir.to_owned() });
    }
    let (began, started_ns, before) = (Instant::now(), Clock::start().now_ns(), Before::read());
    let files = OsFiles::open(dir, FilesOptions { allow_buffered: true }).map_err(|e| match e {
        FilesError::Io { path, source } => ProbeError::io("opening the directory", &path, source),
        other => other.into(),
    })?;
    let io = |doing| move |source| ProbeError::io(doing, dir, source);
    let (free, _) = files.space().map_err(io("looking for space"))?;
    let needed = 2 * FILE + SPARE;
    if free < needed {
        return Err(ProbeError::Space { path: dir.to_owned(), free, needed });
    }
    let calibration = calibrate(dir).map_err(|error| match error {
        CalibrationError::Io { source, .. } => ProbeError::io("trying durable writes", dir, source),
        other => other.into(),
    })?;
    let slices = Slices::of(options.time);
    let pool = BufferPool::new(BUFFERS, 0).map_err(io("allocating buffers"))?;
    let device = device::measure(&files, &pool, calibration.durability, &slices, &options.stop)?;
    let memory = memory::measure(&slices, &options.stop)?;
    let loopback = memory::loopback(&slices, &options.stop)?;
    let environment = Environment::read(Some(dir), &before);
    let mut notes = device.notes;
    if files.volatile() {
        notes.push(format!(
            "VOLATILE: {} is a {}, which lives in memory; nothing written there survives a power cut, and its figures say \
             nothing about a device.",
            dir.display(),
            files.filesystem()
        ));
    }
    if !files.direct() {
        notes.push(
            "The file system refuses O_DIRECT: writes and reads go through the page cache."
                .to_owned(),
        );
    }
    let full = environment.data_dir.as_ref().and_then(lint_place);
    notes.extend(full.map(|lint| format!("{}: {}.", lint.message, lint.remedy)));
    Ok(ProbeFile {
        schema: PROBE_SCHEMA.to_owned(),
        command: options.command.clone(),
        started_ns,
        spent_s: began.elapsed().as_secs_f64(),
        dir: dir.display().to_string(),
        filesystem: files.filesystem().to_owned(),
        volatile: files.volatile(),
        direct: files.direct(),
        registered_buffers: device.registered,
        durability: calibration.durability.name().to_owned(),
        durable_write: device.written,
        unwritten: device.unwritten,
        read: device.read,
        copy_bytes_per_s: memory.copy,
        crc_bytes_per_s: memory.crc,
        loopback: Some(loopback),
        notes,
        environment,
    })
}

/// How long each part is measured, over all its rounds.
#[derive(Clone, Copy, Debug)]
struct Slices {
    /// A size and depth.
    cell: Duration,
    /// Copies, checksums, round trips.
    other: Duration,
}

impl Slices {
    fn of(time: Duration) -> Slices {
        let parts = device::CELLS as u32 + 3;
        Slices { cell: time / parts, other: time / parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(time: Duration) -> ProbeOptions {
        ProbeOptions { time, command: vec![], stop: Stop::new() }
    }

    #[test]
    fn everything_is_measured_and_nothing_left_behind() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let found = probe(dir.path(), &options(Duration::from_secs(1))).unwrap();
        assert_eq!(found.schema, PROBE_SCHEMA);
        let cells: Vec<_> = found.durable_write.iter().map(|w| (w.bytes >> 10, w.depth)).collect();
        let sizes = [4, 16, 64, 256, 1024];
        let wanted: Vec<_> = sizes.iter().flat_map(|s| [1, 4, 8].map(|d| (*s, d))).collect();
        assert_eq!(cells, wanted);
        for w in found.durable_write.iter().chain(&found.unwritten) {
            assert!(
                w.count > 0 && w.bytes_per_s > 0.0 && w.p50_us > 0.0 && w.p50_us <= w.p99_us,
                "{w:?}"
            );
        }
        assert!(found.read.iter().all(|r| r.count > 0 && r.bytes_per_s > 0.0));
        assert!(found.copy_bytes_per_s > 0.0 && found.crc_bytes_per_s > 0.0);
        let loopback = found.loopback.unwrap();
        assert!(loopback.count > 0 && loopback.p50_us > 0.0 && loopback.p50_us <= loopback.p99_us);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_probed_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let second = options(Duration::from_secs(1));
        assert!(matches!(probe(&missing, &second), Err(ProbeError::Directory { .. })));
        assert!(matches!(probe(dir.path(), &options(Duration::ZERO)), Err(ProbeError::Time(_))));
        let stopped = options(Duration::from_secs(600));
        stopped.stop.request();
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert!(matches!(probe(dir.path(), &stopped), Err(ProbeError::Stopped)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_refusal_by_the_system_names_what_can_be_done() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = ProbeError::io("writing", Path::new("/x"), denied);
        assert!(error.to_string().contains("may not write"), "{error}");
        let space = ProbeError::Space { path: "/x".into(), free: 1, needed: 2 };
        assert!(space.to_string().contains("1 bytes are free; the probe needs 2"));
    }
}
