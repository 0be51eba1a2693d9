//! Durable writes and reads through the engine's own ring.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater_ring::{
    AlignedBuf, BufferPool, Completion, Disk as _, Done, Durability, FileId, Files as _, Op,
    OpenMode, OsFiles, SharedBuf, UringDisk, UringOptions,
};

use super::{FILE, ProbeError, Slices};
use crate::Stop;
use crate::capacity::{ReadFigure, WriteFigure};

/// Sizes of writes, in bytes.
const SIZES: [u32; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Writes in flight.
const DEPTHS: [u32; 3] = [1, 4, 8];
/// Reads: bytes and how many in flight.
const READS: [(u32, u32); 4] = [(64 << 10, 4), (256 << 10, 1), (256 << 10, 4), (1 << 20, 4)];
/// Everything that gets a slice of the time.
pub const CELLS: usize = SIZES.len() * DEPTHS.len() + SIZES.len() + READS.len();
/// Each cell is measured so often, all cells in turn: a device that drifts drifts for all.
const ROUNDS: u32 = 2;
/// Of each turn the first operations do not count: what came before them is still being dealt with.
const SETTLE: u64 = 4;
/// Longest time told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// What was found.
#[derive(Debug)]
pub struct Device {
    pub written: Vec<WriteFigure>,
    pub unwritten: Vec<WriteFigure>,
    pub read: Vec<ReadFigure>,
    pub registered: bool,
    pub notes: Vec<String>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write,
    Read,
}

/// A size and a depth, with what was measured so far.
#[derive(Debug)]
struct Cell {
    kind: Kind,
    file: FileId,
    bytes: u32,
    depth: u32,
    /// Where in the file: from, and how much of it. Around and around, or once.
    start: u64,
    room: u64,
    once: bool,
    /// Bytes from `start`: the next operation's place.
    at: u64,
    times: Histogram<u64>,
    /// Bytes in the time that counts, and that time.
    moved: u64,
    spent: Duration,
}

impl Cell {
    fn new(kind: Kind, file: FileId, bytes: u32, depth: u32) -> Result<Cell, ProbeError> {
        let times = Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(|e| {
            ProbeError::io("making a histogram", Path::new(""), io::Error::other(e.to_string()))
        })?;
        Ok(Cell {
            kind,
            file,
            bytes,
            depth,
            start: 0,
            room: FILE,
            once: false,
            at: 0,
            times,
            moved: 0,
            spent: Duration::ZERO,
        })
    }

    /// The next place; `None` when all of it was used and that may be done once only.
    fn place(&mut self) -> Option<u64> {
        let bytes = u64::from(self.bytes);
        if self.at + bytes > self.room {
            if self.once {
                return None;
            }
            self.at = 0;
        }
        let place = self.start + self.at;
        self.at += bytes;
        Some(place)
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }

    fn bytes_per_s(&self) -> f64 {
        self.moved as f64 / self.spent.as_secs_f64().max(1e-9)
    }

    fn write_figure(&self) -> WriteFigure {
        WriteFigure {
            bytes: u64::from(self.bytes),
            depth: self.depth,
            p50_us: self.micros(0.5),
            p99_us: self.micros(0.99),
            bytes_per_s: self.bytes_per_s(),
            count: self.times.len(),
        }
    }

    fn read_figure(&self) -> ReadFigure {
        ReadFigure {
            bytes: u64::from(self.bytes),
            depth: self.depth,
            p50_us: self.micros(0.5),
            bytes_per_s: self.bytes_per_s(),
            count: self.times.len(),
        }
    }
}

/// Measures every cell.
pub fn measure(
    files: &OsFiles,
    pool: &BufferPool,
    durability: Durability,
    slices: &Slices,
    stop: &Stop,
) -> Result<Device, ProbeError> {
    let options = UringOptions {
        entries: 32,
        max_in_flight: 32,
        max_files: 16,
        durability,
        register_buffers: true,
        ..UringOptions::default()
    };
    let mut disk = UringDisk::new(pool, None, options)?;
    let written = nameless(files, &mut disk, "written", true)?;
    let fresh = nameless(files, &mut disk, "allocated", false)?;
    let mut cells = Vec::with_capacity(CELLS);
    for bytes in SIZES {
        for depth in DEPTHS {
            cells.push(Cell::new(Kind::Write, written, bytes, depth)?);
        }
    }
    let share = FILE / SIZES.len() as u64 / (1 << 20) * (1 << 20);
    for (i, bytes) in SIZES.into_iter().enumerate() {
        let cell = Cell::new(Kind::Write, fresh, bytes, 1)?;
        cells.push(Cell { start: i as u64 * share, room: share, once: true, ..cell });
    }
    for (bytes, depth) in READS {
        cells.push(Cell::new(Kind::Read, written, bytes, depth)?);
    }
    for _ in 0..ROUNDS {
        for cell in &mut cells {
            if stop.level() > 0 {
                return Err(ProbeError::Stopped);
            }
            turn(&mut disk, pool, cell, slices.cell / ROUNDS)
                .map_err(|source| ProbeError::io(doing(cell.kind), files.root(), source))?;
        }
    }
    let notes = disk.warnings().to_vec();
    let registered = disk.has_fixed_buffers();
    let (writes, rest) = cells.split_at(SIZES.len() * DEPTHS.len());
    let (fresh, reads) = rest.split_at(SIZES.len());
    Ok(Device {
        written: writes.iter().map(Cell::write_figure).collect(),
        unwritten: fresh.iter().map(Cell::write_figure).collect(),
        read: reads.iter().map(Cell::read_figure).collect(),
        registered,
        notes,
    })
}

fn doing(kind: Kind) -> &'static str {
    match kind {
        Kind::Write => "writing",
        Kind::Read => "reading",
    }
}

/// A file that loses its name as soon as it is open: whatever becomes of this process, nothing is left.
fn nameless(
    files: &OsFiles,
    disk: &mut UringDisk,
    what: &str,
    written: bool,
) -> Result<FileId, ProbeError> {
    let name = PathBuf::from(format!(".highwater-probe-{what}-{}", std::process::id()));
    let made = files.remove(&name).and_then(|()| files.create(&name, FILE, written));
    let opened = made.and_then(|()| files.open_file(&name, OpenMode::Write));
    let removed = files.remove(&name);
    let open = opened.map_err(|source| ProbeError::io("making a file", files.root(), source))?;
    removed.map_err(|source| ProbeError::io("removing a file", files.root(), source))?;
    disk.register_file(open)
        .map_err(|source| ProbeError::io("registering a file", files.root(), source))
}

/// One turn of a cell: keeps its depth of operations in flight for `time`, at least a few of them.
fn turn(
    disk: &mut UringDisk,
    pool: &BufferPool,
    cell: &mut Cell,
    time: Duration,
) -> io::Result<()> {
    let mut buffers: Vec<Buffer> = (0..cell.depth)
        .map(|i| Buffer::of(pool, cell.kind, cell.bytes as usize, i))
        .collect::<io::Result<_>>()?;
    let began = Instant::now();
    // From where on it counts.
    let mut counted: Option<Instant> = None;
    let mut starts = vec![began; buffers.len()];
    let (mut in_flight, mut done) = (0u32, 0u64);
    for (slot, buffer) in buffers.iter_mut().enumerate() {
        in_flight += u32::from(submit(disk, cell, buffer, slot)?);
    }
    let mut last = began;
    let mut out: Vec<Completion> = Vec::with_capacity(16);
    while in_flight > 0 {
        disk.wait(None)?;
        disk.reap(&mut out);
        let now = Instant::now();
        for completion in out.drain(..) {
            in_flight -= 1;
            done += 1;
            let slot = completion.token as usize;
            let took = now.duration_since(starts[slot]);
            match completion.result? {
                Done::Read { buf, len } if len == cell.bytes => {
                    buffers[slot] = Buffer::Read(Some(buf))
                }
                Done::Read { .. } => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
            if counted.is_some() {
                cell.times.saturating_record(took.as_nanos() as u64);
                cell.moved += u64::from(cell.bytes);
                last = now;
            } else if done >= SETTLE {
                (counted, last) = (Some(now), now);
            }
            // A device that needs longer than the slice for a few operations is given that.
            let over = now.duration_since(began) >= time && cell.times.len() >= SETTLE;
            if !over {
                starts[slot] = Instant::now();
                in_flight += u32::from(submit(disk, cell, &mut buffers[slot], slot)?);
            }
        }
    }
    cell.spent += counted.map_or(Duration::ZERO, |from| last.duration_since(from));
    Ok(())
}

/// What an operation moves. A read's buffer is away while it is in flight.
enum Buffer {
    Write(SharedBuf),
    Read(Option<AlignedBuf>),
}

impl Buffer {
    fn of(pool: &BufferPool, kind: Kind, bytes: usize, seed: u32) -> io::Result<Buffer> {
        let mut buffer = pool.take(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        match kind {
            Kind::Write => {
                // Nothing that a device could compress, or know already.
                fastrand::Rng::with_seed(u64::from(seed) + 1).fill(&mut buffer);
                Ok(Buffer::Write(buffer.freeze()))
            }
            Kind::Read => Ok(Buffer::Read(Some(buffer))),
        }
    }
}

/// Starts the next operation of `cell`; false if there is no place left for it.
fn submit(
    disk: &mut UringDisk,
    cell: &mut Cell,
    buffer: &mut Buffer,
    slot: usize,
) -> io::Result<bool> {
    let Some(offset) = cell.place() else { return Ok(false) };
    let (file, len) = (cell.file, cell.bytes);
    let op = match buffer {
        Buffer::Write(buf) => Op::Write { file, offset, buf: buf.clone(), len, durable: true },
        Buffer::Read(buf) => {
            let Some(buf) = buf.take() else { return Ok(false) };
            Op::Read { file, offset, buf, len }
        }
    };
    disk.submit(slot as u64, op);
    disk.flush()?;
    Ok(true)
}
