//! What is counted: each scene prepares, and puts the part in question into [`measured_part`].

use std::hint::black_box;

use highwater_engine::recovery::{Bounds, recover};
use highwater_engine::{
    Claims, Core, CoreOptions, Now, Output, ReadRequest, ReaderId, ShardSpec, Start,
    create_checkpoint, in_flight_bytes,
};
use highwater_process::{Filter, Record, Wanted};
use highwater_ring::{BufferPool, Crash, Disk, SimOptions, SimWorld};
use highwater_wire::{BatchBuilder, BatchView, Limits, ProducerStamp, ShardId};

use super::Failure;
use super::disk::QuickDisk;

/// One thing that is counted.
pub struct Scene {
    /// Its name in the list of baselines.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What it is divided by.
    pub unit: &'static str,
    /// Does it; gives how many units were counted.
    pub play: fn() -> Result<u64, Failure>,
}

/// All of them.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "door-1k",
        what: "the check of a 64 KiB batch at the door",
        unit: "record of 1 KiB",
        play: || door(1024),
    },
    Scene { name: "door-100", what: "the same", unit: "record of 100 B", play: || door(100) },
    Scene {
        name: "append-1k",
        what: "a 64 KiB batch to its place: check and copy",
        unit: "record of 1 KiB",
        play: || append(1024),
    },
    Scene { name: "append-100", what: "the same", unit: "record of 100 B", play: || append(100) },
    Scene {
        name: "group-1k",
        what: "a group of 256 KiB sealed, written, acknowledged",
        unit: "record of 1 KiB",
        play: || group(1024),
    },
    Scene { name: "group-100", what: "the same", unit: "record of 100 B", play: || group(100) },
    Scene {
        name: "lone",
        what: "one record appended, written, acknowledged",
        unit: "record of 1 KiB",
        play: lone,
    },
    Scene {
        name: "tail",
        what: "a group written and delivered to a live consumer",
        unit: "group of 64 KiB",
        play: tail,
    },
    Scene { name: "fetch", what: "64 KiB read from the tail in memory", unit: "read", play: fetch },
    Scene { name: "seek", what: "the place of a time, 64 MiB of log", unit: "look-up", play: seek },
    Scene {
        name: "filter",
        what: "json.status >= 500 && json.path.contains(\"/api\")",
        unit: "record",
        play: filter,
    },
    Scene {
        name: "recovery",
        what: "a start after kill -9: the scan of what was not sealed",
        unit: "KiB",
        play: recovery,
    },
];

/// Calls `part`. Callgrind counts what happens within this function only; it is found by this name.
#[inline(never)]
fn measured_part<R>(part: impl FnOnce() -> R) -> R {
    black_box(part())
}

const SHARD: ShardId = ShardId { stream: 1, shard: 0 };
/// Bytes of a batch.
const BATCH: usize = 64 << 10;

fn batch_of(count: usize, size: usize) -> Result<Vec<u8>, Failure> {
    let mut builder = BatchBuilder::default();
    let payload: Vec<u8> = (0..size).map(|at| (at * 31) as u8).collect();
    for _ in 0..count {
        builder.push(b"", &[], &payload, 1)?;
    }
    Ok(builder.finish(ProducerStamp::default()).to_vec())
}

/// As many records of `size` bytes as a batch has room for, and how many.
fn batch(size: usize) -> Result<(Vec<u8>, u64), Failure> {
    let count = BATCH / BatchBuilder::record_len(0, 0, size);
    Ok((batch_of(count, size)?, count as u64))
}

fn spec() -> ShardSpec {
    let (retention_bytes, stream) = (1 << 30, "counts".to_owned());
    ShardSpec { id: SHARD, stream, retention_bytes, ..ShardSpec::default() }
}

/// A core with one shard, driven by hand, and the time.
struct Stage<D: Disk> {
    core: Core<D>,
    now: Now,
    said: Vec<Output>,
}

impl Stage<QuickDisk> {
    fn new() -> Result<Stage<QuickDisk>, Failure> {
        let pool = BufferPool::new(64 << 20, 64 << 20)?;
        let options = CoreOptions::default();
        let mut core = Core::new(0, 1, QuickDisk::default(), pool, options, 1, Vec::new());
        core.add_shard(spec());
        let mut stage = Stage { core, now: start(), said: Vec::new() };
        // Files are taken, buffers are warm.
        let (batch, _) = batch(1024)?;
        for _ in 0..32 {
            stage.store(&batch)?;
        }
        Ok(stage)
    }
}

fn start() -> Now {
    Now { mono_ns: 1_000_000, wall_ns: 1_700_000_000_000_000_000 }
}

impl<D: Disk> Stage<D> {
    fn pass(&mut self) {
        self.now.mono_ns += 50_000;
        self.now.wall_ns += 50_000;
    }

    /// A turn of the core; whatever it says is kept.
    fn turn(&mut self) {
        self.pass();
        self.core.poll(self.now, &mut self.said);
    }

    fn offer(&mut self, batch: &[u8]) -> Result<(), Failure> {
        Ok(self.core.append(self.now, SHARD, batch, 1)?)
    }

    /// Whether an append was acknowledged since this was asked last.
    fn acknowledged(&mut self) -> Result<usize, Failure> {
        let mut count = 0;
        for said in self.said.drain(..) {
            if let Output::Appended { result, .. } = said {
                result?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Appends a batch and turns until it is acknowledged.
    fn store(&mut self, batch: &[u8]) -> Result<(), Failure> {
        self.offer(batch)?;
        self.until_acknowledged(1)
    }

    fn until_acknowledged(&mut self, mut count: usize) -> Result<(), Failure> {
        // More turns than anything takes: then it never comes.
        for _ in 0..1000 {
            self.turn();
            count = count.saturating_sub(self.acknowledged()?);
            if count == 0 {
                return Ok(());
            }
        }
        Err("an append was never acknowledged".into())
    }
}

fn door(size: usize) -> Result<u64, Failure> {
    const TIMES: u64 = 32;
    let (batch, records) = batch(size)?;
    let limits = Limits::default();
    for _ in 0..TIMES {
        measured_part(|| BatchView::parse(black_box(&batch)).and_then(|view| view.check(&limits)))?;
    }
    Ok(TIMES * records)
}

fn append(size: usize) -> Result<u64, Failure> {
    const TIMES: u64 = 32;
    let mut stage = Stage::new()?;
    let (batch, records) = batch(size)?;
    for _ in 0..TIMES {
        measured_part(|| stage.offer(&batch))?;
        stage.until_acknowledged(1)?;
    }
    Ok(TIMES * records)
}

fn group(size: usize) -> Result<u64, Failure> {
    const TIMES: u64 = 16;
    const TOGETHER: usize = 4;
    let mut stage = Stage::new()?;
    let (batch, records) = batch(size)?;
    for _ in 0..TIMES {
        for _ in 0..TOGETHER {
            stage.offer(&batch)?;
        }
        measured_part(|| stage.until_acknowledged(TOGETHER))?;
    }
    Ok(TIMES * TOGETHER as u64 * records)
}

fn lone() -> Result<u64, Failure> {
    const TIMES: u64 = 64;
    let mut stage = Stage::new()?;
    let batch = batch_of(1, 1024)?;
    for _ in 0..TIMES {
        measured_part(|| stage.store(&batch))?;
    }
    Ok(TIMES)
}

fn tail() -> Result<u64, Failure> {
    const TIMES: u64 = 32;
    let mut stage = Stage::new()?;
    let (batch, _) = batch(1024)?;
    let end = stage.core.locate(SHARD, Start::Latest)?.sequence;
    stage.core.subscribe(stage.now, SHARD, end, 1 << 30, 1 << 20, ReaderId(1))?;
    let mut delivered = 0;
    for _ in 0..TIMES {
        delivered += measured_part(|| deliver(&mut stage, &batch))?;
    }
    match delivered {
        TIMES => Ok(TIMES),
        other => Err(format!("{other} of {TIMES} groups were delivered").into()),
    }
}

/// Stores a batch and takes what is delivered of it; how many chunks.
fn deliver(stage: &mut Stage<QuickDisk>, batch: &[u8]) -> Result<u64, Failure> {
    let mut chunks = 0;
    stage.offer(batch)?;
    for _ in 0..1000 {
        stage.turn();
        for said in std::mem::take(&mut stage.said) {
            if let Output::Deliver { chunk, .. } = said {
                chunks += 1;
                if let Some(arrivals) = &chunk.arrivals {
                    stage.core.handed_over(arrivals, stage.now.wall_ns);
                }
            }
        }
        if chunks > 0 {
            return Ok(chunks);
        }
    }
    Err("a group was never delivered".into())
}

fn fetch() -> Result<u64, Failure> {
    const TIMES: u64 = 32;
    let mut stage = Stage::new()?;
    let (batch, records) = batch(1024)?;
    for _ in 0..TIMES {
        stage.store(&batch)?;
    }
    let end = stage.core.locate(SHARD, Start::Latest)?.sequence;
    for n in 1..=TIMES {
        let from = end - n * records;
        let read = ReadRequest {
            from,
            max_bytes: BATCH,
            min_bytes: 1,
            deadline_ns: 0,
            lease: 0,
            filtered: false,
        };
        measured_part(|| {
            stage.core.read(stage.now, SHARD, read, n);
            stage.turn();
        });
        let answer = stage.said.drain(..).find_map(|said| match said {
            Output::Read { result, .. } => Some(result),
            _ => None,
        });
        let chunk = answer.ok_or("a read was not answered at once")??;
        if chunk.records == 0 {
            return Err("a read gave nothing".into());
        }
    }
    Ok(TIMES)
}

fn seek() -> Result<u64, Failure> {
    const TIMES: u64 = 64;
    let mut stage = Stage::new()?;
    let (batch, _) = batch(1024)?;
    let begun = stage.now.wall_ns;
    for _ in 0..1024 {
        stage.store(&batch)?;
    }
    let span = stage.now.wall_ns - begun;
    for n in 0..TIMES {
        let time = begun + span * n / TIMES;
        measured_part(|| stage.core.locate(SHARD, Start::Time(time)))?;
    }
    Ok(TIMES)
}

fn filter() -> Result<u64, Failure> {
    let source = "json.status >= 500 && json.path.contains(\"/api\")";
    let filter = Filter::compile(source).map_err(|error| error.to_string())?;
    let wanted = Wanted::of([filter.expression()]);
    let mut builder = BatchBuilder::default();
    for n in 0..256_u32 {
        let (status, path) =
            (if n % 4 == 0 { 503 } else { 200 }, if n % 3 == 0 { "/api/v1/items" } else { "/" });
        let payload = format!(
            r#"{{"client":"10.0.{}.{n}","method":"GET","path":"{path}","status":{status},"bytes":{},"agent":"Mozilla/5.0 (X11; Linux x86_64)"}}"#,
            n / 256,
            n * 37
        );
        builder.push(b"", &[], payload.as_bytes(), 1)?;
    }
    let bytes = builder.finish(ProducerStamp::default());
    let mut matching = 0;
    for view in BatchView::parse(bytes)?.records() {
        let record = Record::new(view, 1, &wanted);
        matching +=
            u32::from(measured_part(|| filter.matches(&record)).map_err(|e| e.to_string())?);
    }
    match matching {
        0 => Err("no record matched".into()),
        _ => Ok(256),
    }
}

fn recovery() -> Result<u64, Failure> {
    const BATCHES: usize = 128;
    let world = SimWorld::new(1, SimOptions::default());
    let files = world.files();
    let options = CoreOptions::default();
    let bounds = Bounds {
        in_flight_bytes: in_flight_bytes(&options),
        producers: options.producers,
        read_only: false,
    };
    let (log, _) = recover(&files, SHARD, &Claims::default(), bounds)?;
    let shards = vec![(spec(), log)];
    create_checkpoint(&files, 1, 0, &shards)?;
    let pool = BufferPool::new(64 << 20, 64 << 20)?;
    let core = Core::new(0, 1, world.disk(), pool, options, 1, shards);
    let mut stage = Stage { core, now: start(), said: Vec::new() };
    let (batch, records) = batch(1024)?;
    for _ in 0..BATCHES {
        stage.offer(&batch)?;
        while stage.acknowledged()? == 0 {
            world.run_until_idle();
            stage.turn();
        }
    }
    world.crash(Crash::ProcessKill);
    let files = world.files();
    let claims = Claims::read_all(&files)?;
    let (log, _) = measured_part(|| recover(&files, SHARD, &claims, bounds))?;
    match log.next_sequence == BATCHES as u64 * records {
        true => Ok((BATCHES * batch.len()) as u64 >> 10),
        false => {
            Err(format!("{} records of {BATCHES} batches were found", log.next_sequence).into())
        }
    }
}
