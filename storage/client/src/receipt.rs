//! Receipts: one shared completion for each batch, and a number in it for each record.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::SendError;

/// Where a record is stored, durably (or written, if the stream is so).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The shard.
    pub shard: u32,
    /// Its sequence number there.
    pub sequence: u64,
}

/// The outcome of one record's batch, shared by all its records.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<Acked, SendError>>,
    wakers: Vec<Waker>,
}

impl Completion {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the outcome: where the batch's first record is. The first call counts.
    pub(crate) fn complete(&self, outcome: Result<Acked, SendError>) {
        let mut state = self.state();
        state.outcome.get_or_insert(outcome);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Resolves when the record is acknowledged or has failed. It may be dropped: the record is sent all the
/// same.
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
}

impl Future for Receipt {
    type Output = Result<Acked, SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let receipt = self.get_mut();
        let mut state = receipt.completion.state();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone().map(|first| Acked {
                sequence: first.sequence + u64::from(receipt.index),
                ..first
            }));
        }
        match receipt.waker.and_then(|place| state.wakers.get_mut(place)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                receipt.waker = Some(state.wakers.len());
                state.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_receipt_of_a_batch_learns_its_own_place() {
        let completion = Arc::new(Completion::default());
        let mut receipts: Vec<_> =
            (0..3).map(|i| Receipt::new(Arc::clone(&completion), i)).collect();
        let mut context = Context::from_waker(Waker::noop());
        for receipt in &mut receipts {
            assert!(Pin::new(&mut *receipt).poll(&mut context).is_pending());
            assert!(Pin::new(receipt).poll(&mut context).is_pending());
        }
        assert_eq!(completion.state().wakers.len(), 3, "polling twice registers once");
        completion.complete(Ok(Acked { shard: 4, sequence: 10 }));
        completion.complete(Err(SendError::Closed));
        for (receipt, sequence) in receipts.iter_mut().zip(10..) {
            let acked = Acked { shard: 4, sequence };
            assert_eq!(Pin::new(receipt).poll(&mut context), Poll::Ready(Ok(acked)));
        }
    }
}
