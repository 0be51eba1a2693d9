//! Gathers the records of one shard into batches and passes them to its appender, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_wire::{BatchBuilder, StreamDescription};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::partition::Partitioner;
use crate::receipt::Completion;
use crate::{
    Acked, Acks, Appender, AppenderOptions, Client, ClientError, Receipt, Record, SendError,
};

/// Builders kept for reuse.
const SPARES: usize = 4;

/// What a queue is made of.
#[derive(Debug)]
pub(crate) struct Setup {
    pub client: Client,
    pub stream: Arc<StreamDescription>,
    /// Of the shard in the description.
    pub place: usize,
    pub partitioner: Arc<Partitioner>,
    pub memory: Arc<Semaphore>,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub appender: AppenderOptions,
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

/// The records of one shard, from acceptance to acknowledgement. Its length is bounded by the producer's
/// memory.
#[derive(Debug)]
pub(crate) struct Queue {
    setup: Setup,
    state: Mutex<State>,
    /// Wakes the driver.
    work: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: Batch,
    /// When the first record of the open batch came.
    since: Option<Instant>,
    ready: VecDeque<Batch>,
    sent: VecDeque<Pending>,
    spare: Vec<BatchBuilder>,
    /// The open batch is not to linger.
    hurry: bool,
    started: bool,
    closed: bool,
}

/// Records gathered, and what becomes of them.
#[derive(Debug, Default)]
struct Batch {
    builder: BatchBuilder,
    pending: Pending,
}

/// A batch without its records.
#[derive(Debug, Default)]
struct Pending {
    completion: Arc<Completion>,
    /// Memory set aside.
    bytes: usize,
}

impl Queue {
    pub(crate) fn new(setup: Setup) -> Queue {
        Queue { setup, state: Mutex::default(), work: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record to the open batch.
    pub(crate) fn push(self: &Arc<Self>, entry: Entry<'_>) -> Result<Receipt, SendError> {
        let limit = self.setup.batch_bytes;
        let mut state = self.state();
        if state.closed {
            return Err(SendError::Closed);
        }
        let mut sealed = false;
        if !state.open.builder.is_empty() && state.open.builder.len() + entry.bytes > limit {
            state.seal();
            sealed = true;
        }
        let record = entry.record;
        let index = state.open.builder.record_count();
        state
            .open
            .builder
            .push(record.key, record.headers, record.payload, entry.timestamp_ns)
            .map_err(SendError::Encode)?;
        state.open.pending.bytes += entry.bytes;
        let receipt = Receipt::new(Arc::clone(&state.open.pending.completion), index);
        state.hurry |= entry.hurry;
        if index == 0 {
            state.since = Some(Instant::now());
        }
        if state.open.builder.len() >= limit {
            state.seal();
            sealed = true;
        }
        let start = !std::mem::replace(&mut state.started, true);
        let wake = sealed || index == 0 || entry.hurry;
        drop(state);
        if sealed {
            self.setup.partitioner.turn_from(self.setup.place);
        }
        if start {
            tokio::spawn(drive(Arc::clone(self)));
        } else if wake {
            self.work.notify_one();
        }
        Ok(receipt)
    }

    /// Sends the open batch without lingering.
    pub(crate) fn hurry(&self) {
        let mut state = self.state();
        if !state.open.builder.is_empty() {
            state.hurry = true;
            self.work.notify_one();
        }
    }

    /// The same; receipts of everything not yet acknowledged.
    pub(crate) fn flush(&self) -> Vec<Receipt> {
        self.hurry();
        let state = self.state();
        let open = (!state.open.builder.is_empty()).then_some(&state.open.pending);
        let pending = state.sent.iter().chain(state.ready.iter().map(|b| &b.pending)).chain(open);
        pending.map(|p| Receipt::new(Arc::clone(&p.completion), 0)).collect()
    }

    /// Accepts nothing more; the driver ends when everything is sent.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.work.notify_one();
    }

    /// The next batch to send, once it is full or has lingered; `None` when closed and empty.
    async fn next_batch(&self) -> Option<BatchBuilder> {
        loop {
            let due = {
                let mut state = self.state();
                let now = Instant::now();
                if let Some(batch) = state.ready.pop_front() {
                    return Some(state.pass_on(batch));
                }
                let due = state.since.map(|since| since + self.setup.linger);
                if due.is_some_and(|due| state.hurry || state.closed || due <= now) {
                    let batch = state.take_open();
                    let builder = state.pass_on(batch);
                    drop(state);
                    self.setup.partitioner.turn_from(self.setup.place);
                    return Some(builder);
                }
                if due.is_none() && state.closed {
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

    /// Waits for work, then for an appender; `None` when closed and empty.
    async fn appender(&self) -> Option<(Appender, Acks)> {
        let policy = self.setup.client.options().retry;
        let (mut started, mut failures) = (Instant::now(), 0);
        let stream = &self.setup.stream;
        loop {
            let shard = stream.shards[self.setup.place].shard;
            let options = self.setup.appender.clone();
            match self.setup.client.appender(stream, shard, options).await {
                Ok(appender) => return Some(appender),
                Err(error) if error.retriable() && started.elapsed() < policy.deadline => {
                    let wait = policy.backoff(failures, &mut fastrand::Rng::new());
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(wait.max(error.retry_after())).await;
                }
                Err(error) => {
                    self.fail_waiting(&error);
                    let builder = self.next_batch().await?;
                    let mut state = self.state();
                    if let Some(pending) = state.sent.pop_back() {
                        state.ready.push_front(Batch { builder, pending });
                    }
                    drop(state);
                    (started, failures) = (Instant::now(), 0);
                }
            }
        }
    }

    /// Gives up everything that was not passed on.
    fn fail_waiting(&self, error: &ClientError) {
        let mut state = self.state();
        if !state.open.builder.is_empty() {
            state.seal();
        }
        let waiting = std::mem::take(&mut state.ready);
        drop(state);
        for batch in waiting {
            self.finish(batch.pending, Err(error.clone().into()));
        }
    }

    fn finish(&self, pending: Pending, outcome: Result<Acked, SendError>) {
        self.setup.memory.add_permits(pending.bytes);
        pending.completion.complete(outcome);
    }
}

impl State {
    /// The open batch is complete.
    fn seal(&mut self) {
        let batch = self.take_open();
        self.ready.push_back(batch);
    }

    /// Before the lock is given up: a flush finds it in one list or the other.
    fn pass_on(&mut self, batch: Batch) -> BatchBuilder {
        self.sent.push_back(batch.pending);
        batch.builder
    }

    fn take_open(&mut self) -> Batch {
        self.since = None;
        self.hurry = false;
        let builder = self.spare.pop().unwrap_or_default();
        std::mem::replace(&mut self.open, Batch { builder, pending: Pending::default() })
    }
}

/// Passes batches to the appender as its window has room.
async fn drive(queue: Arc<Queue>) {
    let Some((mut appender, acks)) = queue.appender().await else { return };
    tokio::spawn(confirm(Arc::clone(&queue), acks));
    loop {
        // Room first: meanwhile the open batch grows.
        appender.ready().await;
        let Some(mut builder) = queue.next_batch().await else { return };
        if let Err(error) = appender.append(&mut builder, 0).await {
            let refused = queue.state().sent.pop_back();
            if let Some(pending) = refused {
                queue.finish(pending, Err(error.into()));
            }
            builder.clear();
        }
        let mut state = queue.state();
        if state.spare.len() < SPARES {
            state.spare.push(builder);
        }
    }
}

/// Completes batches as they are acknowledged, which is in order of sending.
async fn confirm(queue: Arc<Queue>, mut acks: Acks) {
    let shard = queue.setup.stream.shards[queue.setup.place].shard;
    while let Some(ack) = acks.recv().await {
        let oldest = queue.state().sent.pop_front();
        if let Some(pending) = oldest {
            let acked = ack.result.map(|ack| Acked { shard, sequence: ack.base_sequence });
            queue.finish(pending, acked.map_err(SendError::from));
        }
    }
}
