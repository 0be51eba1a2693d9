//! The engine in this process: pipelined appends, and lone ones.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater_engine::{
    Clock, Core, Engine, EngineOptions, Idle, Output, ShardSpec, Store, StoreOptions,
};
use highwater_ring::UringDisk;
use highwater_wire::{BatchBuilder, ProducerStamp, ShardId, StreamConfig};

type Failure = Box<dyn std::error::Error>;

/// Bytes of the batches of the throughput runs.
pub const BATCH: usize = 64 << 10;
/// Batches under way.
pub const WINDOW: usize = 64;
/// What the stream keeps: enough segments to go round in.
const RETENTION: u64 = 2 << 30;

/// Two engines, one that blocks and one that spins a little before it blocks, each with one core.
pub struct Bench {
    blocking: Engine,
    spinning: Engine,
    shard: ShardId,
    spinning_shard: ShardId,
}

/// The defaults, with one core on `cpu`.
pub fn options(cpu: usize) -> EngineOptions {
    let mut options = EngineOptions::default();
    options.store.cores = vec![cpu];
    options
}

/// Figures of a run.
pub struct Throughput {
    /// Payload bytes acknowledged per second.
    pub bytes_per_s: f64,
    /// Records acknowledged per second.
    pub records_per_s: f64,
}

impl Bench {
    /// Opens both in `dir`, their cores on `cpu`.
    pub fn open(dir: &Path, cpu: usize) -> Result<Bench, Failure> {
        let open = |name: &str, idle| -> Result<(Engine, ShardId), Failure> {
            let engine = Engine::open(&dir.join(name), EngineOptions { idle, ..options(cpu) })?;
            let config = StreamConfig {
                shards: 1,
                retention_ms: 0,
                retention_bytes: RETENTION,
                ack: Default::default(),
                ..StreamConfig::default()
            };
            let stream = engine.create_stream("bench", config)?;
            Ok((engine, ShardId { stream: stream.id, shard: 0 }))
        };
        let (blocking, shard) = open("blocking", Idle::Block)?;
        let (spinning, spinning_shard) =
            open("spinning", Idle::SpinThenBlock(Duration::from_micros(200)))?;
        Ok(Bench { blocking, spinning, shard, spinning_shard })
    }

    pub fn durability(&self) -> String {
        self.blocking.store().durability()
    }

    /// Writes until segments go round: budgets hold for recycled segments.
    pub fn warm_up(&self) -> Result<(), Failure> {
        let mut written = 0.0;
        while written < 2.0 * RETENTION as f64 {
            written += self.throughput(1024, Duration::from_secs(1))?.bytes_per_s;
        }
        Ok(())
    }

    /// Pipelined appends of records of `size` bytes for `span`.
    pub fn throughput(&self, size: usize, span: Duration) -> Result<Throughput, Failure> {
        self.throughput_of(size, BATCH, span)
    }

    /// The same in batches of `bytes`.
    pub fn throughput_of(
        &self,
        size: usize,
        bytes: usize,
        span: Duration,
    ) -> Result<Throughput, Failure> {
        let (batch, records) = batch_of(size, bytes)?;
        let (mut under_way, mut acked) = (VecDeque::new(), 0u64);
        let started = Instant::now();
        while started.elapsed() < span {
            under_way.push_back(self.blocking.append(self.shard, batch.clone())?);
            if under_way.len() >= WINDOW
                && let Some(oldest) = under_way.pop_front()
            {
                oldest.wait()?;
                acked += 1;
            }
        }
        let elapsed = started.elapsed().as_secs_f64();
        for rest in under_way {
            rest.wait()?;
        }
        let records_per_s = (acked * records) as f64 / elapsed;
        Ok(Throughput { bytes_per_s: records_per_s * size as f64, records_per_s })
    }

    /// The engine that blocks, and its shard.
    pub fn blocking(&self) -> (&Engine, ShardId) {
        (&self.blocking, self.shard)
    }

    /// One append at a time: median, microseconds.
    pub fn lone(&self, span: Duration) -> Result<f64, Failure> {
        lone(&self.blocking, self.shard, span)
    }

    /// The same with a core that spins before it blocks.
    pub fn lone_spinning(&self, span: Duration) -> Result<f64, Failure> {
        lone(&self.spinning, self.spinning_shard, span)
    }
}

/// A core driven by the application's own thread: no hand-over, no wake-up, as a latency-bound embedder would.
pub struct Direct {
    core: Core<UringDisk>,
    shard: ShardId,
    clock: Clock,
    _store: Store,
}

impl Direct {
    /// Opens it in `dir`.
    pub fn open(dir: &Path) -> Result<Direct, Failure> {
        let (store, mut seeds) = Store::open(dir, StoreOptions::default())?;
        let mut core = seeds.remove(0).build()?;
        let shard = ShardId { stream: 1, shard: 0 };
        core.add_shard(ShardSpec {
            id: shard,
            stream: "direct".into(),
            ack: Default::default(),
            retention_ms: 0,
            retention_bytes: 64 << 20,
            ..ShardSpec::default()
        });
        Ok(Direct { core, shard, clock: Clock::default(), _store: store })
    }

    /// One append at a time: median, microseconds.
    pub fn lone(&mut self, span: Duration) -> Result<f64, Failure> {
        let batch = lone_batch()?;
        let mut latency = Histogram::<u64>::new(3)?;
        let started = Instant::now();
        let mut said = Vec::new();
        while started.elapsed() < span {
            let sent = Instant::now();
            self.core.append(self.clock.now(), self.shard, &batch, 1)?;
            loop {
                self.core.poll(self.clock.now(), &mut said);
                if let Some(Output::Appended { result, .. }) = said.pop() {
                    result?;
                    break;
                }
                self.core.disk().wait(Some(Duration::from_millis(100)))?;
            }
            latency.record(sent.elapsed().as_nanos() as u64)?;
        }
        Ok(latency.value_at_quantile(0.5) as f64 / 1e3)
    }
}

/// One record of 1 KiB.
pub fn lone_batch() -> Result<Vec<u8>, Failure> {
    let mut builder = BatchBuilder::default();
    builder.push(b"", &[], &[7; 1024], 1)?;
    Ok(builder.finish(ProducerStamp::default()).to_vec())
}

fn lone(engine: &Engine, shard: ShardId, span: Duration) -> Result<f64, Failure> {
    let batch = lone_batch()?;
    let mut latency = Histogram::<u64>::new(3)?;
    let started = Instant::now();
    while started.elapsed() < span {
        let sent = Instant::now();
        engine.append(shard, batch.clone())?.wait()?;
        latency.record(sent.elapsed().as_nanos() as u64)?;
    }
    Ok(latency.value_at_quantile(0.5) as f64 / 1e3)
}

/// Records of `size` bytes, as many as [`BATCH`] has room for, and how many.
pub fn batch(size: usize) -> Result<(Vec<u8>, u64), Failure> {
    batch_of(size, BATCH)
}

fn batch_of(size: usize, bytes: usize) -> Result<(Vec<u8>, u64), Failure> {
    let mut builder = BatchBuilder::default();
    let payload = vec![0xab; size];
    let mut records = 0;
    while records == 0 || builder.len() + BatchBuilder::record_len(0, 0, size) <= bytes {
        builder.push(b"", &[], &payload, 1)?;
        records += 1;
    }
    Ok((builder.finish(ProducerStamp::default()).to_vec(), records))
}
