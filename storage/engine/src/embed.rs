//! The engine in an application's own process: pinned core threads behind a handle, no network.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater_ring::{PinError, UringDisk, Waker, pin_thread};
use highwater_wire::{ShardId, StreamConfig, StreamDescription};

use crate::control::{Control, ControlError, CoreLink, now_ns};
use crate::core::{Core, CoreCommand, placement};
use crate::shard::ReadRequest;
use crate::store::{OpenError, Store, StoreOptions};
use crate::types::{AppendError, Appended, Chunk, Located, Now, Output, ReadError, Start};

/// Requests that may wait in front of one core.
const MAILBOX: usize = 4096;

/// How long an append may wait for memory before it is refused as busy, and how often it is tried.
const HOLD: Duration = Duration::from_millis(100);
const HOLD_STEP: Duration = Duration::from_millis(2);

/// Why an engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A core's CPU.
    #[error("core {core}: {source}")]
    Pin {
        /// Which.
        core: usize,
        /// The cause.
        source: PinError,
    },
    /// A thread.
    #[error("starting the thread of core {core}: {source}")]
    Thread {
        /// Which.
        core: usize,
        /// The cause.
        source: std::io::Error,
    },
    /// A core's thread ended before it served.
    #[error("core {0} ended while starting")]
    Ended(usize),
}

/// What a core's thread does when it has nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Block until something comes.
    #[default]
    Block,
    /// Look for work this long first, giving way to other threads, then block; who waits for a reply does
    /// the same. Saves the wake-ups between requests that follow each other closely, at the price of CPU
    /// time.
    SpinThenBlock(Duration),
}

/// How an engine is opened.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// The data directory's options, the CPUs among them.
    pub store: StoreOptions,
    /// What idle cores do.
    pub idle: Idle,
}

enum Message {
    Append {
        shard: ShardId,
        batch: Vec<u8>,
        reply: SyncSender<Result<Appended, AppendError>>,
    },
    Read {
        shard: ShardId,
        request: ReadRequest,
        wait: Duration,
        reply: SyncSender<Result<Chunk, ReadError>>,
    },
    Locate {
        shard: ShardId,
        start: Start,
        reply: SyncSender<Result<Located, ReadError>>,
    },
    Command(CoreCommand),
    Stop,
}

struct Link {
    sender: SyncSender<Message>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// A running engine. Dropping it stops it gracefully, as [`Engine::close`] does.
///
/// ```
/// use highwater_engine::{Engine, EngineOptions, Start};
/// use highwater_wire::{BatchBuilder, BatchView, ProducerStamp, StreamConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir_in(".")?;
/// # let dir = scratch.path();
/// let engine = Engine::open(dir, EngineOptions::default())?;
/// let config = StreamConfig { shards: 1, retention_ms: 0, retention_bytes: 0, ack: Default::default() };
/// let stream = engine.create_stream("clicks", config)?;
/// let shard = highwater_wire::ShardId { stream: stream.id, shard: 0 };
///
/// let mut batch = BatchBuilder::default();
/// batch.push(b"user-1", &[], b"hello", 0)?;
/// let stored = engine.append(shard, batch.finish(ProducerStamp::default()).to_vec())?.wait()?;
/// assert_eq!(stored.base_sequence, 0); // durable now
///
/// let from = engine.locate(shard, Start::Oldest)?.sequence;
/// let chunk = engine.read(shard, from, 1 << 20)?;
/// let first = BatchView::parse(chunk.slices[0].bytes())?.records().next();
/// assert_eq!(first.map(|record| record.payload), Some(&b"hello"[..]));
/// # engine.close();
/// # Ok(()) }
/// ```
pub struct Engine {
    store: Store,
    control: Mutex<Control>,
    cores: Vec<Link>,
    idle: Idle,
}

/// An answer under way.
#[derive(Debug)]
pub struct Reply<T, E> {
    receiver: Receiver<Result<T, E>>,
    gone: fn() -> E,
    idle: Idle,
}

impl<T, E> Reply<T, E> {
    /// Blocks until it is there. When the engine stops meanwhile: the error for that.
    pub fn wait(self) -> Result<T, E> {
        if let Idle::SpinThenBlock(bound) = self.idle {
            let began = Instant::now();
            while began.elapsed() < bound {
                match self.receiver.try_recv() {
                    Ok(result) => return result,
                    Err(TryRecvError::Empty) => std::thread::yield_now(),
                    Err(TryRecvError::Disconnected) => return Err((self.gone)()),
                }
            }
        }
        self.receiver.recv().unwrap_or_else(|_| Err((self.gone)()))
    }
}

impl Engine {
    /// Opens a data directory (made if missing) and starts a pinned thread for each core.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Engine, StartError> {
        let (store, seeds) = Store::open(dir, options.store)?;
        let mut cores = Vec::new();
        let mut starting = Vec::new();
        for seed in seeds {
            let core = seed.core;
            let (sender, mailbox) = sync_channel(MAILBOX);
            let (ready, started) = channel();
            let idle = options.idle;
            let thread = std::thread::Builder::new()
                .name(format!("hw-core-{core}"))
                .spawn(move || {
                    let made = pin_thread(seed.cpu)
                        .map_err(|source| StartError::Pin { core, source })
                        .and_then(|()| Ok(seed.build()?));
                    match made {
                        Ok(mut made) => {
                            // Whoever opens has gone: then there is nobody to serve.
                            if ready.send(Ok(made.disk().waker())).is_ok() {
                                Runner::new(made, mailbox, idle).run();
                            }
                        }
                        Err(error) => {
                            let _ = ready.send(Err(error));
                        }
                    }
                })
                .map_err(|source| StartError::Thread { core, source })?;
            starting.push((core, sender, thread, started));
        }
        for (core, sender, thread, started) in starting {
            let waker = started.recv().map_err(|_| StartError::Ended(core))??;
            cores.push(Link { sender, waker, thread: Some(thread) });
        }
        store.started().map_err(|source| OpenError::Io {
            doing: "tidying up after the start".into(),
            source,
        })?;
        let links = cores.iter().map(|link| {
            let (sender, waker) = (link.sender.clone(), link.waker.clone());
            Box::new(move |command| {
                let sent = sender.send(Message::Command(command)).is_ok();
                waker.wake();
                sent
            }) as CoreLink
        });
        let control = Mutex::new(Control::new(&store, links.collect()));
        Ok(Engine { store, control, cores, idle: options.idle })
    }

    /// The data directory: durability, warnings, space.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The control plane: streams, groups, positions.
    pub fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a stream.
    pub fn create_stream(
        &self,
        name: &str,
        config: StreamConfig,
    ) -> Result<StreamDescription, ControlError> {
        self.control().create_stream(name, config)
    }

    /// Appends a batch; the reply comes when it is durable. Several may be under way.
    ///
    /// # Errors
    /// [`AppendError::Busy`] when the core's mailbox is full.
    pub fn append(
        &self,
        shard: ShardId,
        batch: Vec<u8>,
    ) -> Result<Reply<Appended, AppendError>, AppendError> {
        let (reply, receiver) = sync_channel(1);
        match self.send(shard, Message::Append { shard, batch, reply }) {
            Ok(()) => Ok(Reply { receiver, gone: || AppendError::Closing, idle: self.idle }),
            Err(TrySendError::Full(_)) => Err(AppendError::Busy { retry_after_ms: 1 }),
            Err(TrySendError::Disconnected(_)) => Err(AppendError::Closing),
        }
    }

    /// Reads what is there from a sequence number on; an empty chunk at the high-water mark.
    pub fn read(&self, shard: ShardId, from: u64, max_bytes: usize) -> Result<Chunk, ReadError> {
        self.read_wait(shard, from, max_bytes, 0, Duration::ZERO)
    }

    /// Reads, waiting up to `wait` until `min_bytes` are there.
    pub fn read_wait(
        &self,
        shard: ShardId,
        from: u64,
        max_bytes: usize,
        min_bytes: usize,
        wait: Duration,
    ) -> Result<Chunk, ReadError> {
        let (reply, receiver) = sync_channel(1);
        let request = ReadRequest { from, max_bytes, min_bytes, deadline_ns: 0 };
        self.send(shard, Message::Read { shard, request, wait, reply })
            .map_err(|e| read_refused(&e))?;
        Reply { receiver, gone: || ReadError::Closing, idle: self.idle }.wait()
    }

    /// Turns a start into a sequence number.
    pub fn locate(&self, shard: ShardId, start: Start) -> Result<Located, ReadError> {
        let (reply, receiver) = sync_channel(1);
        self.send(shard, Message::Locate { shard, start, reply }).map_err(|e| read_refused(&e))?;
        Reply { receiver, gone: || ReadError::Closing, idle: self.idle }.wait()
    }

    fn send(&self, shard: ShardId, message: Message) -> Result<(), TrySendError<Message>> {
        let link = &self.cores[placement(shard, self.cores.len())];
        let sent = link.sender.try_send(message);
        link.waker.wake();
        sent
    }

    /// Stops: what was accepted is acknowledged, segments are sealed, threads end.
    pub fn close(self) {
        drop(self);
    }
}

fn read_refused(error: &TrySendError<Message>) -> ReadError {
    match error {
        TrySendError::Full(_) => ReadError::Busy { retry_after_ms: 1 },
        TrySendError::Disconnected(_) => ReadError::Closing,
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for link in &self.cores {
            // A core that is gone has stopped.
            let _ = link.sender.send(Message::Stop);
            link.waker.wake();
        }
        for link in &mut self.cores {
            if let Some(thread) = link.thread.take() {
                // A panic in it has been reported by the thread itself.
                let _ = thread.join();
            }
        }
    }
}

/// Reads both clocks.
pub struct Clock {
    started: Instant,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { started: Instant::now() }
    }
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Now {
        Now { mono_ns: self.started.elapsed().as_nanos() as u64, wall_ns: now_ns() }
    }
}

enum Waiter {
    Append(SyncSender<Result<Appended, AppendError>>),
    Read(SyncSender<Result<Chunk, ReadError>>),
}

/// Drives one core on its own thread.
struct Runner {
    core: Core<UringDisk>,
    mailbox: Receiver<Message>,
    idle: Idle,
    clock: Clock,
    waiters: Vec<Option<Waiter>>,
    free: Vec<usize>,
    outputs: Vec<Output>,
    /// An append the core had no memory for: it waits here, and the mailbox behind it, for a while.
    held: Option<(Message, Instant)>,
}

impl Runner {
    fn new(core: Core<UringDisk>, mailbox: Receiver<Message>, idle: Idle) -> Runner {
        Runner {
            core,
            mailbox,
            idle,
            clock: Clock::default(),
            waiters: Vec::new(),
            free: Vec::new(),
            outputs: Vec::new(),
            held: None,
        }
    }

    fn run(mut self) {
        let mut idle_since = Instant::now();
        loop {
            let mut busy = false;
            if let Some((message, since)) = self.held.take() {
                self.take(message, since);
            }
            while self.held.is_none() {
                match self.mailbox.try_recv() {
                    Ok(message) => {
                        busy = true;
                        self.take(message, Instant::now());
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.core.begin_stop();
                        break;
                    }
                }
            }
            let now = self.clock.now();
            self.core.poll(now, &mut self.outputs);
            busy |= !self.outputs.is_empty();
            self.answer();
            if self.core.stopped() || self.core.failure().is_some() {
                return;
            }
            if busy && self.held.is_none() {
                idle_since = Instant::now();
                continue;
            }
            if let Idle::SpinThenBlock(bound) = self.idle
                && idle_since.elapsed() < bound
            {
                // Giving way lets the kernel thread run that completes the write.
                std::thread::yield_now();
                continue;
            }
            let until = self
                .core
                .next_wake()
                .map(|at| Duration::from_nanos(at.saturating_sub(now.mono_ns)));
            let until = match self.held {
                Some(_) => Some(until.map_or(HOLD_STEP, |u| u.min(HOLD_STEP))),
                None => until,
            };
            if self.core.disk().wait(until).is_err() {
                return;
            }
            idle_since = Instant::now();
        }
    }

    fn take(&mut self, message: Message, since: Instant) {
        let now = self.clock.now();
        match message {
            Message::Append { shard, batch, reply } => {
                let tag = self.keep(Waiter::Append(reply));
                match self.core.append(now, shard, &batch, tag) {
                    Ok(()) => {}
                    Err(AppendError::Busy { .. }) if since.elapsed() < HOLD => {
                        if let Some(Waiter::Append(reply)) = self.waiter(tag) {
                            self.held = Some((Message::Append { shard, batch, reply }, since));
                        }
                    }
                    Err(error) => self.resolve_append(tag, Err(error)),
                }
            }
            Message::Read { shard, mut request, wait, reply } => {
                request.deadline_ns = now.mono_ns + wait.as_nanos() as u64;
                let tag = self.keep(Waiter::Read(reply));
                self.core.read(now, shard, request, tag);
            }
            Message::Locate { shard, start, reply } => {
                let _ = reply.send(self.core.locate(shard, start));
            }
            Message::Command(command) => self.core.command(now, command),
            Message::Stop => self.core.begin_stop(),
        }
    }

    fn keep(&mut self, waiter: Waiter) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.waiters.push(None);
            self.waiters.len() - 1
        });
        self.waiters[slot] = Some(waiter);
        slot as u64
    }

    fn waiter(&mut self, tag: u64) -> Option<Waiter> {
        let slot = tag as usize;
        let waiter = self.waiters.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(waiter)
    }

    fn resolve_append(&mut self, tag: u64, result: Result<Appended, AppendError>) {
        // Whoever asked may have stopped waiting.
        if let Some(Waiter::Append(reply)) = self.waiter(tag) {
            let _ = reply.send(result);
        }
    }

    fn answer(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Appended { tag, result } => self.resolve_append(tag, result),
                Output::Read { tag, result } => {
                    if let Some(Waiter::Read(reply)) = self.waiter(tag) {
                        let _ = reply.send(result);
                    }
                }
                // Neither is asked for through this handle.
                Output::Deliver { .. } | Output::Ended { .. } | Output::Removed { .. } => {}
            }
        }
        self.outputs = outputs;
    }
}
