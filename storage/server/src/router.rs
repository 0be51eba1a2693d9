//! What cores say to each other. A request that arrives on a core which does not own the shard is handed
//! over by a bounded queue; a full queue is a refusal. What comes back needs no bound of its own: answers
//! are bounded by the requests admitted, deliveries by the credit granted, signals by subscriptions, what filter
//! threads send by what they were given.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_engine::quota::Meters;
use highwater_engine::{
    AppendError, AppendTerms, Appended, Arrivals, Chunk, CoreCommand, Located, ReadError, ReaderId,
    Sifted, Start,
};
use highwater_wire::{ShardId, WireError};
use tokio::sync::mpsc;

use crate::filter::{Filtered, FoundByFetch};
use crate::options::bounds::FORWARDED;
use crate::request::Fetch;

/// Tags of requests and numbers of readers carry the core they belong to in their upper bits, so that the
/// owner of a shard needs no table to send an answer back.
const CORE_SHIFT: u32 = 48;

/// A tag or reader number of a core.
pub(crate) fn address(core: usize, number: u64) -> u64 {
    (core as u64) << CORE_SHIFT | number
}

/// The core of a tag or reader number.
pub(crate) fn core_of(address: u64) -> usize {
    (address >> CORE_SHIFT) as usize
}

/// The number without its core.
pub(crate) fn number_of(address: u64) -> u64 {
    address & ((1 << CORE_SHIFT) - 1)
}

/// A request for the owner of a shard; answered by [`Signal::Answer`] with its tag.
#[derive(Debug)]
pub(crate) struct Handover {
    pub tag: u64,
    pub shard: ShardId,
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    Append { batch: Vec<u8>, terms: AppendTerms },
    Fetch(Fetch),
    Subscribe { reader: ReaderId, from: u64, max_bytes: usize, credit: RemoteCredit, terms: Terms },
    Locate(Start),
}

/// On what terms a subscription is served.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The meters of whoever reads, if there is a quota for them.
    pub client: Option<Arc<Meters>>,
    /// 0 for none.
    pub lease: u64,
    /// What is read goes to a filter.
    pub filtered: bool,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Appended {
        result: Result<Appended, AppendError>,
        /// When the engine said so, right after the device did, monotonic.
        since_ns: u64,
    },
    Read(Result<Chunk, ReadError>),
    /// What a filter found in what was read.
    Found(Result<Box<FoundByFetch>, WireError>),
    Subscribed(ReaderId, Result<Located, ReadError>),
    Located(Result<Located, ReadError>),
    /// An encoded control reply.
    Control(Result<Vec<u8>, WireError>),
}

/// What needs no admission.
#[derive(Debug)]
pub(crate) enum Signal {
    Answer {
        tag: u64,
        answer: Answer,
    },
    Deliver {
        reader: ReaderId,
        chunk: Chunk,
    },
    Ended {
        reader: ReaderId,
        error: ReadError,
    },
    Credit {
        reader: ReaderId,
        credit: RemoteCredit,
    },
    /// The quota of whoever reads has changed.
    Limit {
        reader: ReaderId,
        client: Option<Arc<Meters>>,
    },
    Unsubscribe {
        reader: ReaderId,
    },
    /// Fetches are to wait no longer.
    Hurry {
        shard: ShardId,
        tags: BTreeSet<u64>,
    },
    /// From a filter thread.
    Filtered(Filtered),
    /// What a filter made of records of a shard.
    Sifted(Sifted),
    /// At `at_ns`, nanoseconds since 1970 UTC, to the socket.
    HandedOver {
        arrivals: Arrivals,
        at_ns: u64,
    },
}

/// Credit on its way to the core that serves a subscription. However often the client adds to it, at most
/// one signal is under way.
#[derive(Clone, Debug)]
pub(crate) struct RemoteCredit(Arc<AtomicU64>);

/// Set until the owner has the subscription, so that no credit overtakes it.
const OPENING: u64 = 1 << 63;

impl RemoteCredit {
    /// For a subscription about to be handed over, with its first credit.
    pub fn opening(bytes: u64) -> RemoteCredit {
        RemoteCredit(Arc::new(AtomicU64::new(OPENING | bytes.min(OPENING - 1))))
    }

    /// Adds; true if the owner has to be told.
    pub fn add(&self, bytes: u64) -> bool {
        self.0.fetch_add(bytes, Ordering::AcqRel) == 0
    }

    /// The owner takes what is there.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::AcqRel) & !OPENING
    }
}

/// The way to a core, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct CoreLink {
    pub handovers: mpsc::Sender<Handover>,
    pub signals: mpsc::UnboundedSender<Signal>,
    pub commands: mpsc::Sender<CoreCommand>,
}

/// The core's end of it.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub handovers: mpsc::Receiver<Handover>,
    pub signals: mpsc::UnboundedReceiver<Signal>,
    pub commands: mpsc::Receiver<CoreCommand>,
}

/// Commands of the control thread that may wait for a core.
const COMMANDS: usize = 1024;

/// A link and its inbox.
pub(crate) fn link() -> (CoreLink, Inbox) {
    let (handovers, handovers_in) = mpsc::channel(FORWARDED);
    let (signals, signals_in) = mpsc::unbounded_channel();
    let (commands, commands_in) = mpsc::channel(COMMANDS);
    let inbox = Inbox { handovers: handovers_in, signals: signals_in, commands: commands_in };
    (CoreLink { handovers, signals, commands }, inbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_core() {
        let tag = address(3, 77);
        assert_eq!((core_of(tag), number_of(tag)), (3, 77));
    }

    #[test]
    fn credit_is_signalled_once_and_never_overtakes_its_subscription() {
        let credit = RemoteCredit::opening(0);
        assert!(!credit.add(5), "the owner looks when it opens the subscription");
        assert_eq!(credit.take(), 5);
        assert!(credit.add(1));
        assert!(!credit.add(2));
        assert_eq!(credit.take(), 3);
        assert!(credit.add(4));
    }
}
