//! What was written is found and read again: starts, catch-up from the disk, and the tail.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater_engine::{Engine, EngineOptions, Start};
use highwater_wire::{ShardId, StreamConfig};

use crate::engine::{BATCH, WINDOW, batch, lone_batch, options};

type Failure = Box<dyn std::error::Error>;

/// Bytes of a read.
const READ: usize = 1 << 20;
/// The only shard.
const SHARD: ShardId = ShardId { stream: 1, shard: 0 };

/// Writes `bytes` of records of 1 KiB into a new directory, and dies without a word, as of `kill -9`: with batches under
/// way and nothing sealed. Called in a process of its own.
///
/// # Errors
/// Something kept it from getting so far.
pub fn fill_and_die(dir: &Path, bytes: u64, cpu: usize) -> Result<(), Failure> {
    let engine = Engine::open(dir, options(cpu))?;
    let config =
        StreamConfig { shards: 1, retention_ms: 0, retention_bytes: 0, ..StreamConfig::default() };
    engine.create_stream("bench", config)?;
    let (batch, _) = batch(1024)?;
    let (mut under_way, mut written) = (std::collections::VecDeque::new(), 0);
    while written < bytes {
        under_way.push_back(engine.append(SHARD, batch.clone())?);
        written += BATCH as u64;
        if under_way.len() > WINDOW
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.wait()?;
        }
    }
    std::process::abort()
}

/// A directory with data in it.
pub struct Reads {
    dir: PathBuf,
    bytes: u64,
    cpu: usize,
}

impl Reads {
    /// Data goes to `dir`, made anew in every round.
    pub fn new(dir: &Path, bytes: u64, cpu: usize) -> Reads {
        Reads { dir: dir.join("reads"), bytes, cpu }
    }

    /// Starts, catch-up and tail.
    ///
    /// # Errors
    /// The engine's, or the child's that writes.
    pub fn round(&self) -> Result<Vec<(String, f64)>, Failure> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        let child = Command::new(std::env::current_exe()?)
            .arg("--fill")
            .arg(self.dir.as_os_str())
            .args(["--gib", &(self.bytes >> 30).to_string(), "--cpu", &self.cpu.to_string()])
            .output()?;
        if child.status.code().is_some() {
            return Err(format!("the writer did not get so far: {child:?}").into());
        }
        let gib = self.bytes >> 30;
        let mut row = Vec::new();
        let (engine, killed) = open(&self.dir, options(self.cpu))?;
        row.push((format!("start after a kill, {gib} GiB, ms"), killed));
        engine.close();
        let (engine, clean) = open(&self.dir, options(self.cpu))?;
        row.push((format!("start after a clean stop, {gib} GiB, ms"), clean));
        row.push((CATCH_UP.to_owned(), catch_up(&engine)? / 1e6));
        row.push(("append to a reader that waits, p50 us".to_owned(), tail(&engine)?));
        engine.close();
        Ok(row)
    }
}

/// The name of the figure that is compared with fio's.
pub const CATCH_UP: &str = "catch-up, one reader, MB/s";

fn open(dir: &Path, options: EngineOptions) -> Result<(Engine, f64), Failure> {
    let begun = Instant::now();
    let engine = Engine::open(dir, options)?;
    Ok((engine, begun.elapsed().as_secs_f64() * 1e3))
}

/// Everything from the oldest record on, read one after the other: bytes per second.
fn catch_up(engine: &Engine) -> Result<f64, Failure> {
    let end = engine.locate(SHARD, Start::Latest)?.sequence;
    let mut at = engine.locate(SHARD, Start::Oldest)?.sequence;
    let (begun, mut bytes) = (Instant::now(), 0);
    while at < end {
        let chunk = engine.read(SHARD, at, READ)?;
        if chunk.next <= at {
            return Err(format!("nothing was read at {at} of {end}").into());
        }
        (at, bytes) = (chunk.next, bytes + chunk.bytes);
    }
    Ok(bytes as f64 / begun.elapsed().as_secs_f64())
}

/// From an append to a reader on another thread that waits for it: median, microseconds.
fn tail(engine: &Engine) -> Result<f64, Failure> {
    const TIMES: usize = 1000;
    let batch = lone_batch()?;
    let mut at = engine.locate(SHARD, Start::Latest)?.sequence;
    let mut latency = Histogram::<u64>::new(3)?;
    std::thread::scope(|scope| {
        let (wanted, ask) = std::sync::mpsc::channel::<u64>();
        let (answer, read) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for from in ask {
                let chunk = engine.read_wait(SHARD, from, READ, 1, Duration::from_secs(10));
                if answer.send((Instant::now(), chunk)).is_err() {
                    break;
                }
            }
        });
        for _ in 0..TIMES {
            wanted.send(at)?;
            let sent = Instant::now();
            let acknowledged = engine.append(SHARD, batch.clone())?;
            let (when, chunk) = read.recv()?;
            at = chunk?.next;
            latency.record(when.saturating_duration_since(sent).as_nanos() as u64)?;
            acknowledged.wait()?;
        }
        Ok(latency.value_at_quantile(0.5) as f64 / 1e3)
    })
}
