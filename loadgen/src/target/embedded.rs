//! The engine in this process as a target: what a stream costs without a network.
//!
//! One engine, shared by all links. Its threads are its own, each pinned to a CPU; answers come back by a
//! call on them that wakes the worker. Appends carry no producer stamp: in one process nothing is ever resent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use highwater_engine::{
    AppendError, Appended, Chunk as EngineChunk, ControlError, Engine, EngineOptions, Idle,
    NotTaken, ReadError, Start,
};
use highwater_wire::{
    BatchBuilder, BatchIter, Limits, MAX_RECORD_CEILING, ProducerStamp, RecordView, ShardId,
    StreamConfig, StreamDescription,
};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::LoadOptions;

use super::{
    At, Chunk, Failure, Fate, LaneOptions, Link, Outcome, Outcomes, Refusal, Sink, Source, Target,
    Trouble,
};

/// How long an idle core of the engine, or of the generator's view of it, stays awake.
const AWAKE: Duration = Duration::from_micros(50);
/// Longest single read at the tail; then it is asked again.
const POLL: Duration = Duration::from_secs(1);
/// Bytes of one read, as the client asks of a server.
const READ_BYTES: usize = 256 << 10;
/// Between attempts to get into a mailbox that is full.
const RETRY: Duration = Duration::from_millis(1);

/// The directory in `embedded` (`Some(None)`: a temporary one) or `embedded:DIR`; `None` for any other target.
pub fn directory(target: &str) -> Option<Option<PathBuf>> {
    let rest = target.strip_prefix("embedded")?;
    match rest.strip_prefix(':') {
        Some(dir) => Some(Some(PathBuf::from(dir))),
        None if rest.is_empty() => Some(None),
        None => None,
    }
}

/// How the engine is opened.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Its data directory, made if missing. `None`: a temporary one below the current directory, removed at
    /// the end.
    pub dir: Option<PathBuf>,
    /// CPUs of its threads, one each. Empty: one thread, on the last usable CPU the generator does not have.
    pub engine_cores: Vec<usize>,
    /// CPUs the generator's workers are pinned to, if they are.
    pub cores: Vec<usize>,
    /// What the run's stream may keep, 0 for no bound: no more is prepared ahead.
    pub retention_bytes: u64,
    /// How long an append waits for the engine's memory before it counts as refused.
    pub hold: Duration,
}

impl EmbeddedOptions {
    /// As a run asks for it.
    pub fn of(dir: Option<PathBuf>, options: &LoadOptions) -> EmbeddedOptions {
        EmbeddedOptions {
            dir,
            engine_cores: options.engine_cores.clone(),
            cores: options.cores.clone(),
            retention_bytes: options.retention_bytes,
            hold: options.target_timeout,
        }
    }
}

/// An engine in this process.
#[derive(Clone)]
pub struct Embedded(Arc<Shared>);

struct Shared {
    // Closed before its directory goes.
    engine: Engine,
    address: String,
    server: String,
    limits: Limits,
    scratch: Option<TempDir>,
}

impl Embedded {
    /// Opens the engine: takes the directory's lock, recovers what is there, starts and pins its threads.
    /// Blocks.
    ///
    /// # Errors
    /// What is wrong with the directory, its file system, or a CPU.
    pub fn open(options: EmbeddedOptions) -> Result<Embedded, Refusal> {
        let refused = |why: &dyn std::fmt::Display| Refusal(why.to_string());
        let scratch = match options.dir {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("highwater-load-")
                    .tempdir_in(".")
                    .map_err(|e| Refusal(format!("no temporary directory here: {e}")))?,
            ),
        };
        let dir = match (&options.dir, &scratch) {
            (Some(dir), _) => dir.as_path(),
            (None, Some(scratch)) => scratch.path(),
            (None, None) => Path::new("."),
        };
        let usable = highwater_ring::usable_cpus().map_err(|e| refused(&e))?;
        let cpus = cpus(&options.engine_cores, &options.cores, &usable);
        let idle = idle(&cpus, &options.cores);
        let mut engine = EngineOptions { idle, hold: options.hold, ..EngineOptions::default() };
        engine.store.cores = cpus.clone();
        // Whatever a workload makes is to be stored; the record size is the run's business.
        engine.store.core.limits = Limits::for_record(MAX_RECORD_CEILING);
        if options.retention_bytes > 0 {
            engine.store.prepared_bytes = engine.store.prepared_bytes.min(options.retention_bytes);
        }
        // It runs wherever it is tried; what is not durable is labelled.
        engine.store.allow_buffered = true;
        let limits = engine.store.core.limits;
        let engine = Engine::open(dir, engine).map_err(|e| refused(&e))?;
        let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        let durability = engine.store().durability();
        let server = format!(
            "highwater {} in this process, {} on CPU {}, idle {}; {}",
            env!("CARGO_PKG_VERSION"),
            if cpus.len() == 1 { "one core".to_owned() } else { format!("{} cores", cpus.len()) },
            list.join(","),
            match idle {
                Idle::Block => "blocks".to_owned(),
                Idle::SpinThenBlock(time) => format!("spins {time:?}, then blocks"),
            },
            // How fast it is, measured when the directory was made, is not what this run is about.
            durability.split(" (").next().unwrap_or_default(),
        );
        let address = match &options.dir {
            Some(dir) => format!("embedded:{}", dir.display()),
            None => "embedded".to_owned(),
        };
        Ok(Embedded(Arc::new(Shared { engine, address, server, limits, scratch })))
    }

    /// What whoever reads the figures should know about where they come from, in sentences.
    pub fn notes(&self) -> Vec<String> {
        self.0.engine.store().warnings()
    }

    /// Stops the engine once the last link is gone and removes a temporary directory.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn close(self) -> Result<(), Refusal> {
        // If somebody still has a link, the last of them closes.
        let Some(shared) = Arc::into_inner(self.0) else { return Ok(()) };
        shared.engine.close();
        let Some(scratch) = shared.scratch else { return Ok(()) };
        let path = scratch.path().to_owned();
        let removed = scratch.close();
        removed.map_err(|e| Refusal(format!("{} cannot be removed: {e}", path.display())))
    }
}

/// The engine's CPUs: those asked for, or the last usable one that is not the generator's.
fn cpus(wanted: &[usize], generator: &[usize], usable: &[usize]) -> Vec<usize> {
    if !wanted.is_empty() {
        return wanted.to_vec();
    }
    let free = usable.iter().rev().find(|cpu| !generator.contains(cpu));
    vec![free.or(usable.last()).copied().unwrap_or(0)]
}

/// Staying awake takes a CPU from whoever else could use it, so only when the generator has others for sure.
fn idle(engine: &[usize], generator: &[usize]) -> Idle {
    if !generator.is_empty() && engine.iter().all(|cpu| !generator.contains(cpu)) {
        Idle::SpinThenBlock(AWAKE)
    } else {
        Idle::Block
    }
}

impl Target for Embedded {
    type Link = Embedded;

    fn address(&self) -> &str {
        &self.0.address
    }

    async fn link(&self) -> Result<Embedded, Refusal> {
        Ok(self.clone())
    }
}

impl Embedded {
    fn shard(stream: &StreamDescription, shard: u32) -> ShardId {
        ShardId { stream: stream.id, shard }
    }
}

impl Link for Embedded {
    type Sink = EmbeddedSink;
    type Outcomes = EmbeddedOutcomes;
    type Source = EmbeddedSource;

    fn server(&self) -> String {
        self.0.server.clone()
    }

    fn limits(&self) -> Limits {
        self.0.limits
    }

    // Blocks, for a transaction or two: nothing is measured while streams are made.
    async fn stream(
        &self,
        name: &str,
        config: &StreamConfig,
    ) -> Result<StreamDescription, Refusal> {
        let refused = |error: ControlError| Refusal(error.to_string());
        // One lock over both, so that of two links only one creates.
        let mut control = self.0.engine.control();
        match control.describe(name) {
            Err(ControlError::UnknownStream(_)) => {
                control.create_stream(name, config.clone()).map_err(refused)
            }
            described => described.map_err(refused),
        }
    }

    async fn high_water(&self, stream: &StreamDescription, shard: u32) -> Result<u64, Refusal> {
        let shard = Embedded::shard(stream, shard);
        loop {
            let (tell, told) = oneshot::channel();
            let then = move |located| {
                // Whoever asked may have given up.
                let _ = tell.send(located);
            };
            let asked = self.0.engine.locate_then(shard, Start::Latest, then);
            let located = match asked {
                Ok(()) => told.await.unwrap_or(Err(ReadError::Closing)),
                Err(error) => Err(error),
            };
            match located {
                Ok(located) => return Ok(located.high_water),
                Err(ReadError::Busy { .. }) => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(Refusal(error.to_string())),
            }
        }
    }

    async fn sink(
        &self,
        stream: &StreamDescription,
        shard: u32,
        lane: LaneOptions,
    ) -> Result<(EmbeddedSink, EmbeddedOutcomes), Refusal> {
        let (tell, told) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(lane.inflight.clamp(1, Semaphore::MAX_PERMITS)));
        let sink = EmbeddedSink {
            shared: Arc::clone(&self.0),
            shard: Embedded::shard(stream, shard),
            room: Arc::clone(&room),
            tell,
        };
        Ok((sink, EmbeddedOutcomes { told, room }))
    }

    async fn source(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
    ) -> Result<EmbeddedSource, Refusal> {
        Ok(EmbeddedSource {
            shared: Arc::clone(&self.0),
            shard: Embedded::shard(stream, shard),
            position: from,
            trimmed: 0,
            under_way: None,
        })
    }
}

/// Appends to one shard.
pub struct EmbeddedSink {
    shared: Arc<Shared>,
    shard: ShardId,
    /// A permit for each batch that may yet be unanswered.
    room: Arc<Semaphore>,
    /// Never longer than there are permits.
    tell: mpsc::UnboundedSender<Outcome>,
}

impl Sink for EmbeddedSink {
    async fn ready(&mut self) {
        // Given back at once; it can only fail if the semaphore were closed, which nobody does.
        drop(self.room.acquire().await);
    }

    async fn append(&mut self, batch: &mut BatchBuilder, tag: u64) -> Result<(), Failure> {
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
        let next = Vec::with_capacity(batch.len());
        let mut bytes = batch.finish_into(ProducerStamp::default(), next);
        let shard = self.shard.shard;
        loop {
            let tell = self.tell.clone();
            let then = move |answer: Result<Appended, AppendError>| {
                let fate = match answer {
                    Ok(stored) => Fate::Stored(Some(At { shard, sequence: stored.base_sequence })),
                    Err(error) => Fate::Failed(failure(error)),
                };
                // Nobody listens any more once the lane has given up.
                let _ = tell.send(Outcome::whole(tag, fate));
            };
            match self.shared.engine.append_then(self.shard, bytes, then) {
                Ok(()) => return Ok(()),
                Err(NotTaken { error: AppendError::Busy { .. }, batch }) => bytes = batch,
                Err(NotTaken { error, .. }) => {
                    self.room.add_permits(1);
                    return Err(Failure { unknown: false, message: error.to_string() });
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// An accepted batch was not acknowledged.
fn failure(error: AppendError) -> Failure {
    let unknown = matches!(error, AppendError::Failed { .. } | AppendError::Closing);
    Failure { unknown, message: error.to_string() }
}

/// What became of the batches of one sink.
pub struct EmbeddedOutcomes {
    told: mpsc::UnboundedReceiver<Outcome>,
    room: Arc<Semaphore>,
}

impl Outcomes for EmbeddedOutcomes {
    async fn next(&mut self) -> Option<Outcome> {
        let outcome = self.told.recv().await?;
        self.room.add_permits(1);
        Some(outcome)
    }
}

/// Reads one shard: one long poll after the other.
pub struct EmbeddedSource {
    shared: Arc<Shared>,
    shard: ShardId,
    position: u64,
    trimmed: u64,
    /// A read asked for; it outlives a `next` that was dropped unfinished.
    under_way: Option<oneshot::Receiver<Result<EngineChunk, ReadError>>>,
}

impl EmbeddedSource {
    /// The answer to the read under way, which is asked for first if there is none.
    async fn answer(&mut self) -> Result<EngineChunk, ReadError> {
        let told = match &mut self.under_way {
            Some(told) => told,
            none => {
                let (tell, told) = oneshot::channel();
                let then = move |chunk| {
                    // A source that has gone elsewhere does not want it.
                    let _ = tell.send(chunk);
                };
                let engine = &self.shared.engine;
                engine.read_then(self.shard, self.position, READ_BYTES, 1, POLL, then)?;
                none.insert(told)
            }
        };
        let answer = told.await;
        self.under_way = None;
        answer.unwrap_or(Err(ReadError::Closing))
    }
}

impl Source for EmbeddedSource {
    type Chunk = EmbeddedChunk;

    async fn next(&mut self) -> Result<Option<EmbeddedChunk>, Trouble> {
        loop {
            match self.answer().await {
                // Nothing came for as long as a read may take.
                Ok(chunk) if chunk.next <= self.position => {}
                Ok(chunk) => {
                    let wanted = self.position..chunk.next;
                    sound(&chunk, self.position)?;
                    self.position = chunk.next;
                    return Ok(Some(EmbeddedChunk { chunk, wanted }));
                }
                Err(ReadError::Trimmed { oldest, .. }) => {
                    self.trimmed += oldest.saturating_sub(self.position);
                    self.position = self.position.max(oldest);
                }
                Err(ReadError::Busy { retry_after_ms }) => {
                    tokio::time::sleep(Duration::from_millis(retry_after_ms.max(1).into())).await;
                }
                Err(error @ ReadError::Damaged { .. }) => {
                    return Err(Trouble::Damaged(error.to_string()));
                }
                Err(error) => return Err(Trouble::Failed(error.to_string())),
            }
        }
    }

    fn resume(&mut self, at: u64) {
        self.position = at;
        self.under_way = None;
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn trimmed(&self) -> u64 {
        self.trimmed
    }
}

/// Whether the batches follow each other from `position` to the chunk's end.
fn sound(chunk: &EngineChunk, position: u64) -> Result<(), Trouble> {
    let mut next = position;
    for batch in chunk.slices.iter().flat_map(|slice| BatchIter::new(slice.bytes())) {
        let batch = batch.map_err(|error| Trouble::Damaged(error.to_string()))?;
        if batch.base_sequence() > next {
            return Err(Trouble::Gap { expected: next, found: batch.base_sequence() });
        }
        next = next.max(batch.end_sequence());
    }
    match next == chunk.next {
        true => Ok(()),
        false => Err(Trouble::Gap { expected: next, found: chunk.next }),
    }
}

/// Records read together, in the engine's memory.
pub struct EmbeddedChunk {
    chunk: EngineChunk,
    wanted: std::ops::Range<u64>,
}

impl Chunk for EmbeddedChunk {
    fn each(&self, mut take: impl FnMut(RecordView<'_>, u64)) {
        let batches = self.chunk.slices.iter().flat_map(|slice| BatchIter::new(slice.bytes()));
        for batch in batches.map_while(Result::ok) {
            let arrival_ns = batch.header().arrival_ns.to_native();
            batch
                .records()
                .filter(|record| self.wanted.contains(&record.sequence))
                .for_each(|record| take(record, arrival_ns));
        }
    }
}

#[cfg(test)]
mod tests;
