//! Receipts: one shared completion for each batch, and a number in it for each record.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Semaphore;

use crate::SendError;
use crate::outcome::{Fate, Run, Runs};
use crate::parcel::Owner;

/// Where a record is stored, durably (or written, if the stream is so).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The shard.
    pub shard: u32,
    /// Its sequence number there.
    pub sequence: u64,
}

/// What became of the records of one batch, shared by all of them.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Gets back what was set aside for the records.
    memory: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Records gathered.
    records: u32,
    /// Memory set aside for them.
    bytes: usize,
    /// Records with an outcome.
    settled: u32,
    /// No record will be added.
    sealed: bool,
    runs: Runs,
    wakers: Vec<Waker>,
}

impl State {
    fn is_done(&self) -> bool {
        self.sealed && self.settled >= self.records
    }
}

impl Completion {
    pub(crate) fn new(memory: Arc<Semaphore>) -> Completion {
        Completion { memory, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another record, for which so much memory was set aside; its index.
    pub(crate) fn add(&self, bytes: usize) -> u32 {
        let mut state = self.state();
        state.records += 1;
        state.bytes += bytes;
        state.records - 1
    }

    /// The batch is complete.
    pub(crate) fn seal(&self) {
        self.state().sealed = true;
    }

    /// Whether every record has its outcome.
    pub(crate) fn is_done(&self) -> bool {
        self.state().is_done()
    }

    /// Waits for all of it; the first failure, if any.
    pub(crate) async fn done(self: Arc<Self>) -> Result<(), SendError> {
        let mut receipt = Receipt::new(Arc::clone(&self), u32::MAX);
        std::future::poll_fn(|context| receipt.look(context).map(|_| ())).await;
        let state = self.state();
        let failure = state.runs.iter().find_map(|run| match &run.fate {
            Fate::Failed(error) => Some(error.clone()),
            _ => None,
        });
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Owner for Completion {
    fn settled(&self, _batch: u64, run: Run) {
        let mut state = self.state();
        state.settled += run.count;
        state.runs.push(run);
        if !state.is_done() {
            // Whoever is not concerned looks in vain. (Their places stay.)
            return state.wakers.iter().for_each(Waker::wake_by_ref);
        }
        state.runs.sort();
        let wakers = std::mem::take(&mut state.wakers);
        let bytes = std::mem::take(&mut state.bytes);
        drop(state);
        self.memory.add_permits(bytes);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Resolves when the record is acknowledged or has failed. It may be dropped: the record is sent all the
/// same. Of a stream that drops records beyond its quota, or keeps only a sample, [`SendError::Shed`] tells that this
/// is one of them.
#[derive(Debug)]
pub struct Receipt {
    completion: Arc<Completion>,
    /// The record's number in its batch.
    index: u32,
    /// Place of this receipt's waker.
    waker: Option<usize>,
}

impl Receipt {
    pub(crate) fn new(completion: Arc<Completion>, index: u32) -> Receipt {
        Receipt { completion, index, waker: None }
    }

    /// The record's fate once it has one; `None` when the batch is decided without it.
    fn look(&mut self, context: &mut Context<'_>) -> Poll<Option<Fate>> {
        let mut state = self.completion.state();
        let fate = state.runs.fate_of(self.index);
        if fate.is_some() || state.is_done() {
            return Poll::Ready(fate);
        }
        match self.waker.and_then(|place| state.wakers.get_mut(place)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                self.waker = Some(state.wakers.len());
                state.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Future for Receipt {
    type Output = Result<Acked, SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().look(context).map(|fate| match fate {
            Some(Fate::Stored { shard, sequence }) => Ok(Acked { shard, sequence }),
            Some(Fate::Dropped) => Err(SendError::Shed { sampled: false }),
            Some(Fate::SampledOut) => Err(SendError::Shed { sampled: true }),
            Some(Fate::Failed(error)) => Err(error.into()),
            // Every record of a batch has its outcome when the batch has.
            None => Err(SendError::Closed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_receipt_of_a_batch_learns_its_own_fate_when_it_is_decided() {
        let memory = Arc::new(Semaphore::new(0));
        let completion = Arc::new(Completion::new(Arc::clone(&memory)));
        let mut receipts: Vec<_> =
            (0..4).map(|_| Receipt::new(Arc::clone(&completion), completion.add(10))).collect();
        completion.seal();
        let mut context = Context::from_waker(Waker::noop());
        for receipt in &mut receipts {
            assert!(Pin::new(&mut *receipt).poll(&mut context).is_pending());
            assert!(Pin::new(receipt).poll(&mut context).is_pending());
        }
        assert_eq!(completion.state().wakers.len(), 4, "polling twice registers once");
        let mut result = |n: usize| Pin::new(&mut receipts[n]).poll(&mut context);
        completion.settled(0, Run { first: 2, count: 2, fate: Fate::Dropped });
        assert_eq!(result(2), Poll::Ready(Err(SendError::Shed { sampled: false })));
        assert!(!completion.is_done() && memory.available_permits() == 0);
        // The front comes late, and from another shard.
        assert_eq!(result(0), Poll::Pending);
        let fate = Fate::Stored { shard: 4, sequence: 10 };
        completion.settled(0, Run { first: 0, count: 2, fate });
        assert!(completion.is_done() && memory.available_permits() == 40);
        assert_eq!(result(0), Poll::Ready(Ok(Acked { shard: 4, sequence: 10 })));
        assert_eq!(result(1), Poll::Ready(Ok(Acked { shard: 4, sequence: 11 })));
        assert_eq!(result(3), Poll::Ready(Err(SendError::Shed { sampled: false })));
    }
}
