//! The appender: ready batches of one shard, pipelined, sent again where needed, acknowledged in order. The
//! [router](crate::router) carries them, also to the shards that take over when this one is split or merged.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_wire::{BatchBuilder, Packer, ProducerStamp, StreamDescription};
use tokio::sync::Notify;

use crate::client::find;
use crate::identity::Identity;
use crate::outcome::{Ack, Run, Runs};
use crate::parcel::{Owner, Parcel};
use crate::router::{LeafStart, Router};
use crate::{AppendError, AppenderOptions, Client, ClientError};

/// Outcomes kept for [`Acks`] beyond those awaited; with more unread, [`Appender::append`] waits.
const UNREAD: usize = 4096;

/// Sends batches to one shard, several at a time, in order. When the shard is split or merged, its batches go to the
/// shards that take over, record by record as their keys say; the records of a key stay in order. After it is
/// dropped, what was appended is still sent and its outcomes still come.
#[derive(Debug)]
pub struct Appender {
    router: Router,
    ledger: Arc<Ledger>,
    packer: Packer,
    shard: u32,
    max_batch: u32,
}

/// The outcomes of an [`Appender`]'s batches, in order of sending.
#[derive(Debug)]
pub struct Acks {
    ledger: Arc<Ledger>,
}

/// Batches appended and not told of.
#[derive(Debug, Default)]
struct Ledger {
    state: Mutex<State>,
    /// Wakes the appender: there is room.
    room: Notify,
    /// Wakes the reader of outcomes.
    unread: Notify,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    /// Number of the first of them.
    first: u64,
    /// The appender is gone.
    closed: bool,
    /// The outcomes interest nobody.
    unwatched: bool,
}

#[derive(Debug)]
struct Batch {
    tag: u64,
    /// Records without outcome.
    open: u32,
    runs: Runs,
}

impl Appender {
    pub(crate) async fn start(
        client: Client,
        stream: &StreamDescription,
        shard: u32,
        options: AppenderOptions,
    ) -> Result<(Appender, Acks), ClientError> {
        let described = find(stream, shard)?;
        let identity = Arc::new(Identity::new(client.clone(), options.name.clone()));
        let producer = match options.idempotent {
            true => Some(identity.first().await?),
            false => None,
        };
        let (max_batch, packer) = (client.info().max_batch, Packer::new(options.compression));
        let router = Router::new(client, stream, options, identity);
        router.open(LeafStart::of(described, producer));
        let ledger = Arc::new(Ledger::default());
        let acks = Acks { ledger: Arc::clone(&ledger) };
        Ok((Appender { router, ledger, packer, shard, max_batch }, acks))
    }

    /// Waits until [`append`](Self::append) would not wait.
    pub async fn ready(&mut self) {
        loop {
            self.router.ready(self.shard).await;
            let mut notified = pin!(self.ledger.room.notified());
            notified.as_mut().enable();
            if self.ledger.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// Whether [`append`](Self::append) would not wait.
    pub fn has_room(&self) -> bool {
        self.router.has_room(self.shard) && self.ledger.has_room()
    }

    /// Sends the batch in `builder`, which starts anew with recycled memory. Waits while the window is
    /// full, or while 4,096 outcomes are unread; cancelled there, it has done nothing. The outcome comes
    /// from [`Acks`] under `tag`.
    ///
    /// Fails at once, leaving the batch as it is, if it is empty or larger than the server's limit.
    pub async fn append(
        &mut self,
        builder: &mut BatchBuilder,
        tag: u64,
    ) -> Result<(), AppendError> {
        if builder.is_empty() {
            return Err(AppendError::Empty);
        }
        let (bytes, limit) = (builder.len(), self.max_batch);
        if bytes > limit as usize {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        self.ready().await;
        let records = builder.record_count();
        let batch = self.ledger.begin(tag, records);
        let owner: Arc<dyn Owner> = Arc::<Ledger>::clone(&self.ledger);
        let stamp = self.router.next_stamp(self.shard);
        let body = finish(builder, stamp, &mut self.packer, &self.router);
        let parcel = Parcel { body, records, owner, batch, places: None, hashes: None };
        self.router.push(self.shard, parcel, stamp);
        Ok(())
    }
}

/// Completes a batch in recycled memory.
pub(crate) fn finish(
    builder: &mut BatchBuilder,
    stamp: ProducerStamp,
    packer: &mut Packer,
    router: &Router,
) -> Arc<Vec<u8>> {
    let mut body = router.spare();
    let bytes: &mut Vec<u8> = Arc::make_mut(&mut body);
    *bytes = builder.finish_into(stamp, std::mem::take(bytes));
    packer.pack(bytes);
    body
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.ledger.state().closed = true;
        self.ledger.unread.notify_one();
    }
}

impl Acks {
    /// The next outcome; `None` when the appender is gone and every outcome was given out. Cancelled, it
    /// loses nothing.
    pub async fn recv(&mut self) -> Option<Ack> {
        loop {
            if let Some(ack) = self.try_recv() {
                return Some(ack);
            }
            {
                let state = self.ledger.state();
                if state.closed && state.batches.is_empty() {
                    return None;
                }
            }
            self.ledger.unread.notified().await;
        }
    }

    /// The next outcome if it is there.
    pub fn try_recv(&mut self) -> Option<Ack> {
        let mut state = self.ledger.state();
        let ack = state.take()?;
        let was_full = state.batches.len() + 1 == UNREAD;
        drop(state);
        if was_full {
            self.ledger.room.notify_waiters();
        }
        Some(ack)
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        state.unwatched = true;
        state.discard();
        drop(state);
        self.ledger.room.notify_waiters();
    }
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self) -> bool {
        self.state().batches.len() < UNREAD
    }

    /// A batch is appended; its number.
    fn begin(&self, tag: u64, records: u32) -> u64 {
        let mut state = self.state();
        state.batches.push_back(Batch { tag, open: records, runs: Runs::default() });
        state.first + state.batches.len() as u64 - 1
    }
}

impl Owner for Ledger {
    fn settled(&self, batch: u64, run: Run) {
        let mut state = self.state();
        let first = state.first;
        let at = batch.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let Some(batch) = at.and_then(|at| state.batches.get_mut(at)) else { return };
        batch.open = batch.open.saturating_sub(run.count);
        batch.runs.push(run);
        if state.batches.front().is_some_and(|front| front.open == 0) {
            if state.unwatched {
                state.discard();
                drop(state);
                return self.room.notify_waiters();
            }
            drop(state);
            self.unread.notify_one();
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Ack> {
        let mut batch = self.batches.pop_front_if(|batch| batch.open == 0)?;
        self.first += 1;
        batch.runs.sort();
        Some(Ack { tag: batch.tag, runs: batch.runs })
    }

    fn discard(&mut self) {
        while self.take().is_some() {}
    }
}
