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
    /// Outcomes are told in parts.
    in_parts: bool,
    /// Then: numbers of batches with outcomes to tell, in the order in which these came.
    news: VecDeque<u64>,
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
        self.take(State::take)
    }

    /// What became of some records of some batch, as soon as that is known: in each [`Ack`] those runs of its batch
    /// that were not told yet. Of a batch whose shard was split there may be several, and others in between: none
    /// waits for another shard. `None` as from [`recv`](Self::recv); whoever uses this should use it alone. Cancelled,
    /// it loses nothing.
    pub async fn recv_part(&mut self) -> Option<Ack> {
        self.ledger.state().tell_in_parts();
        loop {
            if let Some(ack) = self.take(State::take_part) {
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

    fn take(&mut self, take: impl FnOnce(&mut State) -> Option<Ack>) -> Option<Ack> {
        let mut state = self.ledger.state();
        let was_full = state.batches.len() >= UNREAD;
        let ack = take(&mut state);
        let has_room = was_full && state.batches.len() < UNREAD;
        drop(state);
        if has_room {
            self.ledger.room.notify_waiters();
        }
        ack
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
        let State { batches, news, in_parts, unwatched, .. } = &mut *state;
        let Some(of) = at.and_then(|at| batches.get_mut(at)) else { return };
        of.open = of.open.saturating_sub(run.count);
        let is_news = of.runs.is_empty();
        of.runs.push(run);
        if *in_parts && !*unwatched {
            if is_news {
                news.push_back(batch);
            }
            drop(state);
            return self.unread.notify_one();
        }
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

    fn tell_in_parts(&mut self) {
        if !std::mem::replace(&mut self.in_parts, true) {
            let told = (self.first..).zip(&self.batches).filter(|(_, b)| !b.runs.is_empty());
            self.news = told.map(|(number, _)| number).collect();
        }
    }

    fn take_part(&mut self) -> Option<Ack> {
        loop {
            let at = self.news.pop_front()?.checked_sub(self.first);
            let at = at.and_then(|at| usize::try_from(at).ok());
            // One that was told of as a whole meanwhile is not there any more.
            let Some(batch) = at.and_then(|at| self.batches.get_mut(at)) else { continue };
            let mut runs = std::mem::take(&mut batch.runs);
            let tag = batch.tag;
            runs.sort();
            let told = |batch: &mut Batch| batch.open == 0 && batch.runs.is_empty();
            while self.batches.pop_front_if(told).is_some() {
                self.first += 1;
            }
            return Some(Ack { tag, runs });
        }
    }

    fn discard(&mut self) {
        while self.take().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Fate;

    fn stored(first: u32, count: u32, shard: u32) -> Run {
        Run { first, count, fate: Fate::Stored { shard, sequence: u64::from(first) } }
    }

    #[tokio::test]
    async fn told_in_parts_no_shard_waits_for_another_and_as_a_whole_batches_keep_their_order() {
        let ledger = Arc::new(Ledger::default());
        let mut acks = Acks { ledger: Arc::clone(&ledger) };
        let batches: Vec<u64> = (0..3).map(|tag| ledger.begin(10 + tag, 4)).collect();
        // Of the first a part lies in a shard that is slow.
        ledger.settled(batches[0], stored(2, 2, 7));
        ledger.settled(batches[1], stored(0, 4, 7));
        assert_eq!(acks.try_recv(), None);
        let told = |ack: Option<Ack>| {
            let ack = ack.unwrap();
            (ack.tag, ack.runs.iter().map(|run| (run.first, run.count)).collect::<Vec<_>>())
        };
        assert_eq!(told(acks.recv_part().await), (10, vec![(2, 2)]));
        assert_eq!(told(acks.recv_part().await), (11, vec![(0, 4)]));
        ledger.settled(batches[2], stored(3, 1, 7));
        ledger.settled(batches[2], stored(0, 3, 8));
        assert_eq!(told(acks.recv_part().await), (12, vec![(0, 3), (3, 1)]));
        ledger.settled(batches[0], stored(0, 2, 8));
        assert_eq!(told(acks.recv_part().await), (10, vec![(0, 2)]));
        ledger.state().closed = true;
        assert_eq!(acks.recv_part().await, None);
    }
}
