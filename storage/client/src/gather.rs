//! Gathers the records of one shard into batches and passes them to the router, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use highwater_wire::{BatchBuilder, Compression, Packer, ProducerStamp};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::appender::finish;
use crate::parcel::{Owner, Parcel};
use crate::receipt::Completion;
use crate::router::{Heirs, LeafStart, Router};
use crate::{Receipt, Record, SendError};

/// Builders kept for reuse.
const SPARES: usize = 4;

/// What all queues of a producer share.
#[derive(Debug)]
pub(crate) struct Setup {
    pub router: Router,
    pub memory: Arc<Semaphore>,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub compression: Compression,
    /// Batches not decided, for a flush.
    pub sent: Mutex<VecDeque<Arc<Completion>>>,
}

/// Told by queues of what concerns all of them.
pub(crate) trait Table: Send + Sync {
    /// A batch of `shard` is full: records without a key go on to the next shard.
    fn turn_from(&self, shard: u32);
    /// A shard's heirs have taken over: records go to them once `queue` has given up what it holds.
    fn replace(&self, queue: &Arc<Queue>, heirs: &Heirs);
}

/// A record on its way into a batch.
pub(crate) struct Entry<'a> {
    pub record: &'a Record<'a>,
    pub timestamp_ns: u64,
    /// Memory set aside for it.
    pub bytes: usize,
    /// Others wait for memory: do not linger.
    pub hurry: bool,
}

/// Why a queue did not take a record.
pub(crate) enum Refused {
    /// Others have taken over from its shard: look again.
    Replaced,
    For(SendError),
}

/// The records of one shard, from acceptance until they are passed on. Its length is bounded by the producer's
/// memory.
pub(crate) struct Queue {
    pub shard: u32,
    /// To begin with its shard; `None`: the router has.
    start: Option<LeafStart>,
    setup: Arc<Setup>,
    table: Weak<dyn Table>,
    state: Mutex<State>,
    /// Wakes the driver.
    work: Notify,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("shard", &self.shard).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    open: Option<Batch>,
    /// When the first record of the open batch came.
    since: Option<Instant>,
    ready: VecDeque<Batch>,
    spare: Vec<BatchBuilder>,
    /// The open batch is not to linger.
    hurry: bool,
    started: bool,
    closed: bool,
    replaced: bool,
}

/// Records gathered, and what becomes of them.
#[derive(Debug)]
struct Batch {
    builder: BatchBuilder,
    completion: Arc<Completion>,
    /// Hash keys given with records, by index.
    hashes: Vec<(u32, u128)>,
}

impl Queue {
    pub(crate) fn new(
        shard: u32,
        start: Option<LeafStart>,
        setup: &Arc<Setup>,
        table: Weak<dyn Table>,
        closed: bool,
    ) -> Queue {
        let state = State { closed, ..State::default() };
        let setup = Arc::clone(setup);
        Queue { shard, start, setup, table, state: Mutex::new(state), work: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record to the open batch.
    pub(crate) fn push(self: &Arc<Self>, entry: &Entry<'_>) -> Result<Receipt, Refused> {
        let limit = self.setup.batch_bytes;
        let mut guard = self.state();
        let state = &mut *guard;
        if state.replaced {
            return Err(Refused::Replaced);
        }
        if state.closed {
            return Err(Refused::For(SendError::Closed));
        }
        let full = state.open.as_ref().is_some_and(|b| b.builder.len() + entry.bytes > limit);
        let mut sealed = full;
        if full {
            state.seal();
        }
        let record = entry.record;
        let fresh = state.open.is_none();
        let batch = match &mut state.open {
            Some(batch) => batch,
            none => none.insert(Batch {
                builder: state.spare.pop().unwrap_or_default(),
                completion: Arc::new(Completion::new(Arc::clone(&self.setup.memory))),
                hashes: Vec::new(),
            }),
        };
        let pushed =
            batch.builder.push(record.key, record.headers, record.payload, entry.timestamp_ns);
        if let Err(error) = pushed {
            if fresh {
                state.open = None;
            }
            drop(guard);
            // The batch that had no room for it goes all the same.
            if sealed {
                self.turn();
                self.work.notify_one();
            }
            return Err(Refused::For(SendError::Encode(error)));
        }
        let index = batch.completion.add(entry.bytes);
        if let Some(hash) = record.hash_key {
            batch.hashes.push((index, hash));
        }
        let receipt = Receipt::new(Arc::clone(&batch.completion), index);
        let fills = batch.builder.len() >= limit;
        state.hurry |= entry.hurry;
        if fresh {
            state.since = Some(Instant::now());
        }
        if fills {
            state.seal();
            sealed = true;
        }
        let start = !std::mem::replace(&mut state.started, true);
        let wake = sealed || fresh || entry.hurry;
        // Whoever replaces it locks the table first.
        drop(guard);
        if sealed {
            self.turn();
        }
        if start {
            if let Some(start) = &self.start {
                self.setup.router.open(start.clone());
            }
            tokio::spawn(drive(Arc::clone(self)));
        } else if wake {
            self.work.notify_one();
        }
        Ok(receipt)
    }

    fn turn(&self) {
        if let Some(table) = self.table.upgrade() {
            table.turn_from(self.shard);
        }
    }

    /// Sends the open batch without lingering.
    pub(crate) fn hurry(&self) {
        let mut state = self.state();
        if state.open.is_some() {
            state.hurry = true;
            self.work.notify_one();
        }
    }

    /// The same; the batches not passed on yet.
    pub(crate) fn flush(&self) -> Vec<Arc<Completion>> {
        self.hurry();
        let state = self.state();
        state.ready.iter().chain(&state.open).map(|b| Arc::clone(&b.completion)).collect()
    }

    /// Accepts nothing more; the driver ends when everything is passed on.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.work.notify_one();
    }

    /// The next batch to send, once it is full or has lingered; `None` when closed and empty.
    async fn next_batch(&self) -> Option<Batch> {
        loop {
            let due = {
                let mut state = self.state();
                let now = Instant::now();
                if let Some(batch) = state.ready.pop_front() {
                    self.setup.note(&batch);
                    return Some(batch);
                }
                // `None` also where it lingers for longer than there is time.
                let due = state.since.and_then(|since| since.checked_add(self.setup.linger));
                let lingered = due.is_some_and(|due| due <= now);
                if state.since.is_some() && (state.hurry || state.closed || lingered) {
                    state.seal();
                    drop(state);
                    self.turn();
                    continue;
                }
                if state.closed {
                    return None;
                }
                due
            };
            match due {
                None => self.work.notified().await,
                Some(due) => tokio::select! {
                    () = self.work.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    /// Passes on whatever it holds and takes nothing more: its heirs do.
    pub(crate) fn give_up(&self, packer: &mut Packer) {
        let mut state = self.state();
        state.seal();
        state.replaced = true;
        while let Some(batch) = state.ready.pop_front() {
            self.setup.note(&batch);
            self.setup.send(self.shard, batch, packer);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }
}

impl State {
    /// The open batch is complete.
    fn seal(&mut self) {
        self.since = None;
        self.hurry = false;
        if let Some(batch) = self.open.take() {
            batch.completion.seal();
            self.ready.push_back(batch);
        }
    }
}

impl Setup {
    /// A batch is about to be passed on: a flush finds it here. (Before its queue's lock is given up.)
    fn note(&self, batch: &Batch) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        while sent.pop_front_if(|completion| completion.is_done()).is_some() {}
        sent.push_back(Arc::clone(&batch.completion));
    }

    /// Passes a batch on; gives its builder back.
    fn send(&self, shard: u32, mut batch: Batch, packer: &mut Packer) -> BatchBuilder {
        let records = batch.builder.record_count();
        let stamp: ProducerStamp = self.router.next_stamp(shard);
        let body = finish(&mut batch.builder, stamp, packer, &self.router);
        let owner: Arc<dyn Owner> = batch.completion;
        let hashes = (!batch.hashes.is_empty()).then(|| batch.hashes.into());
        let parcel = Parcel { body, records, owner, batch: 0, places: None, hashes };
        self.router.push(shard, parcel, stamp);
        batch.builder
    }
}

/// Passes batches on as there is room for them, until others take over from the shard.
async fn drive(queue: Arc<Queue>) {
    let setup = &queue.setup;
    let mut packer = Packer::new(setup.compression);
    loop {
        // Room first: meanwhile the open batch grows.
        setup.router.ready(queue.shard).await;
        if let Some(heirs) = setup.router.heirs(queue.shard) {
            match queue.table.upgrade() {
                Some(table) => table.replace(&queue, &heirs),
                // Nobody sends any more.
                None => queue.give_up(&mut packer),
            }
            return;
        }
        let Some(batch) = queue.next_batch().await else { return };
        let builder = setup.send(queue.shard, batch, &mut packer);
        let mut state = queue.state();
        if state.spare.len() < SPARES {
            state.spare.push(builder);
        }
    }
}
