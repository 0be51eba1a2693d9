//! The engine in an application's own process: pinned core threads behind a handle, no network.
//!
//! Each request comes in two forms: answered through a [`Reply`] its caller waits for, or by a function that
//! the core's thread calls (`append_then`, `read_then`, `locate_then`), for callers that must not block.

mod runner;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater_ring::{PinError, Waker, pin_thread};
use highwater_wire::{ShardId, StreamConfig, StreamDescription};

use crate::control::{Control, ControlError, CoreLink, now_ns};
use crate::core::CoreCommand;
use crate::routes::Routes;
use crate::shard::ReadRequest;
use crate::store::{OpenError, Store, StoreOptions};
use crate::types::{AppendError, Appended, Chunk, Located, Now, ReadError, Start};
use runner::{Answer, Message, Runner};

/// Requests that may wait in front of one core.
const MAILBOX: usize = 4096;

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
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The data directory's options, the CPUs among them.
    pub store: StoreOptions,
    /// What idle cores do.
    pub idle: Idle,
    /// How long an append may wait for a core's memory before it is refused as busy. What is asked of that
    /// core meanwhile waits behind it, in order.
    pub hold: Duration,
}

impl Default for EngineOptions {
    /// [`StoreOptions::default`], cores that block, 100 ms.
    fn default() -> EngineOptions {
        EngineOptions {
            store: StoreOptions::default(),
            idle: Idle::default(),
            hold: Duration::from_millis(100),
        }
    }
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
/// let config = StreamConfig { shards: 1, ..StreamConfig::default() };
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
    /// As the cores know them; written when shards are split or merged.
    routes: Arc<RwLock<Routes>>,
    idle: Idle,
}

/// A batch that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct NotTaken {
    /// Why.
    pub error: AppendError,
    /// The batch, to be tried again or given up.
    pub batch: Vec<u8>,
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
        // One for all, because cores share meters.
        let clock = Clock::default();
        let mut cores = Vec::new();
        let mut starting = Vec::new();
        for seed in seeds {
            let core = seed.core;
            let (sender, mailbox) = sync_channel(MAILBOX);
            let (ready, started) = channel();
            let (idle, hold) = (options.idle, options.hold);
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
                                Runner::new(made, mailbox, idle, hold, clock).run();
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
        let routes = Arc::new(RwLock::new(store.routes().clone()));
        let links = cores.iter().map(|link| {
            let (sender, waker) = (link.sender.clone(), link.waker.clone());
            let routes = routes.clone();
            Box::new(move |command| {
                if let CoreCommand::Place { shard, home } = command {
                    routes.write().unwrap_or_else(PoisonError::into_inner).place(shard, home);
                }
                let sent = sender.send(Message::Command(Box::new(command))).is_ok();
                waker.wake();
                sent
            }) as CoreLink
        });
        let control = Mutex::new(Control::new(&store, links.collect()));
        Ok(Engine { store, control, cores, routes, idle: options.idle })
    }

    /// The data directory: durability, warnings, space.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The control plane: streams, groups, positions. What it does by itself (splits of streams that scale, forgetting
    /// closed shards that retention has emptied) it does when [`Control::tend`] is called, about once a second.
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
        let (sender, reply) = self.reply(closing_append);
        let answer = Answer::reply(sender, closing_append);
        self.ask_to_append(shard, batch, answer).map_err(|refused| refused.error)?;
        Ok(reply)
    }

    /// [`Engine::append`] for a caller that must not block: `then` is called exactly once with the answer, on
    /// the core's thread, in the order in which batches of a shard are answered. When the engine ends before
    /// there is one: with [`AppendError::Closing`], and the batch may be stored or not.
    ///
    /// While `then` runs nothing else does on that core: it should hand the answer over and return. It must not
    /// panic, wait for this engine or drop it. It may ask for more.
    ///
    /// # Errors
    /// [`AppendError::Busy`] when the core's mailbox is full (4,096 requests), [`AppendError::Closing`] when the
    /// core has ended; the batch comes back with it, and `then` is not called.
    pub fn append_then(
        &self,
        shard: ShardId,
        batch: Vec<u8>,
        then: impl FnOnce(Result<Appended, AppendError>) + Send + 'static,
    ) -> Result<(), NotTaken> {
        self.ask_to_append(shard, batch, Answer::call(then, closing_append))
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
        let (sender, reply) = self.reply(closing_read);
        let request =
            ReadRequest { from, max_bytes, min_bytes, deadline_ns: 0, lease: 0, filtered: false };
        self.ask_to_read(shard, request, wait, Answer::reply(sender, closing_read))?;
        reply.wait()
    }

    /// [`Engine::read_wait`] for a caller that must not block: `then` is called exactly once, under the rules of
    /// [`Engine::append_then`]. The chunk holds memory of the core: drop it soon.
    ///
    /// # Errors
    /// [`ReadError::Busy`] when the core's mailbox is full, [`ReadError::Closing`] when the core has ended; `then`
    /// is not called. A core answers `Busy` as well when 4,096 reads wait in it.
    pub fn read_then(
        &self,
        shard: ShardId,
        from: u64,
        max_bytes: usize,
        min_bytes: usize,
        wait: Duration,
        then: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        let request =
            ReadRequest { from, max_bytes, min_bytes, deadline_ns: 0, lease: 0, filtered: false };
        self.ask_to_read(shard, request, wait, Answer::call(then, closing_read))
    }

    /// Turns a start into a sequence number.
    pub fn locate(&self, shard: ShardId, start: Start) -> Result<Located, ReadError> {
        let (sender, reply) = self.reply(closing_read);
        self.ask_to_locate(shard, start, Answer::reply(sender, closing_read))?;
        reply.wait()
    }

    /// [`Engine::locate`] for a caller that must not block: `then` is called exactly once, under the rules of
    /// [`Engine::append_then`].
    ///
    /// # Errors
    /// As [`Engine::read_then`].
    pub fn locate_then(
        &self,
        shard: ShardId,
        start: Start,
        then: impl FnOnce(Result<Located, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        self.ask_to_locate(shard, start, Answer::call(then, closing_read))
    }

    fn reply<T, E>(&self, gone: fn() -> E) -> (SyncSender<Result<T, E>>, Reply<T, E>) {
        let (sender, receiver) = sync_channel(1);
        (sender, Reply { receiver, gone, idle: self.idle })
    }

    fn ask_to_append(
        &self,
        shard: ShardId,
        batch: Vec<u8>,
        answer: Answer<Appended, AppendError>,
    ) -> Result<(), NotTaken> {
        self.send(shard, Message::Append { shard, batch, answer }).map_err(|(refused, message)| {
            NotTaken {
                error: match refused {
                    Refused::Full => AppendError::Busy { retry_after_ms: 1 },
                    Refused::Ended => AppendError::Closing,
                },
                batch: message.forget().unwrap_or_default(),
            }
        })
    }

    fn ask_to_read(
        &self,
        shard: ShardId,
        request: ReadRequest,
        wait: Duration,
        answer: Answer<Chunk, ReadError>,
    ) -> Result<(), ReadError> {
        let sent = self.send(shard, Message::Read { shard, request, wait, answer });
        sent.map_err(read_refused)
    }

    fn ask_to_locate(
        &self,
        shard: ShardId,
        start: Start,
        answer: Answer<Located, ReadError>,
    ) -> Result<(), ReadError> {
        self.send(shard, Message::Locate { shard, start, answer }).map_err(read_refused)
    }

    /// Hands a message over, or gives it back: whoever asked is told here and now, and not a second time.
    fn send(&self, shard: ShardId, message: Message) -> Result<(), (Refused, Message)> {
        let core = self.routes.read().unwrap_or_else(PoisonError::into_inner).core_of(shard);
        let link = &self.cores[core];
        let sent = link.sender.try_send(message);
        link.waker.wake();
        sent.map_err(|error| match error {
            TrySendError::Full(message) => (Refused::Full, message),
            TrySendError::Disconnected(message) => (Refused::Ended, message),
        })
    }

    /// Stops: what was accepted is acknowledged, segments are sealed, threads end.
    pub fn close(self) {
        drop(self);
    }
}

/// Why a core did not take a message.
enum Refused {
    Full,
    Ended,
}

fn read_refused((refused, message): (Refused, Message)) -> ReadError {
    message.forget();
    match refused {
        Refused::Full => ReadError::Busy { retry_after_ms: 1 },
        Refused::Ended => ReadError::Closing,
    }
}

fn closing_append() -> AppendError {
    AppendError::Closing
}

fn closing_read() -> ReadError {
    ReadError::Closing
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
#[derive(Clone, Copy, Debug)]
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
