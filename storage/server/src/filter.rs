//! Filters of subscriptions and fetches: what is looked at, by whom, and what comes of it.
//!
//! Records go one way: the engine reads, the core of the connection holds what was read for a filter as a [`Lot`] and
//! gives it to the filter threads for a [`Turn`]; what matched comes back as batches, which go to the socket like any
//! others. No core evaluates anything, and none waits: a turn ends after a few milliseconds or when it has found as
//! much as may be sent, whatever is left of its lot has another. A subscription has one turn at a time, so its records
//! stay in order whichever thread has it, and an expensive filter holds up nobody for longer than a turn.

mod filtering;
mod passing;
mod programs;
mod threads;
mod turn;

pub(crate) use filtering::{Filtering, Frame, Kept};
pub(crate) use passing::{FoundByFetch, tell};
pub(crate) use programs::{Known, Programs};
pub(crate) use threads::{FilterGauge, FilterLink, Work, filter_threads};
pub(crate) use turn::{Flaw, Found, Lot, Program, Span, Turn, Whose};

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use highwater_engine::ReaderId;
use highwater_wire::ShardId;

use crate::options::bounds::FILTER_TURNS;
use crate::request::Fetch;
use crate::session::Opening;

/// What comes back from a filter thread.
#[derive(Debug)]
pub(crate) enum Filtered {
    /// An expression was compiled.
    Compiled { source: Arc<str>, result: Result<Arc<Program>, String> },
    /// A turn is over.
    Turned(Box<Turned>),
}

/// A turn that is over, and its lot.
#[derive(Debug)]
pub(crate) struct Turned {
    pub whose: Whose,
    pub lot: Lot,
    pub found: Found,
}

/// A request that was put off until its filter is compiled.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// The connection that asked.
    pub connection: u64,
    /// Its name for the request.
    pub correlation: u64,
    pub wanted: Wanted,
}

/// What is to be begun then.
#[derive(Debug)]
pub(crate) enum Wanted {
    Subscription(Opening),
    Fetch { shard: ShardId, fetch: Fetch },
}

/// A fetch whose records go to a filter.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub shard: ShardId,
    pub from: u64,
    /// Most bytes to return.
    pub room: usize,
    pub program: Arc<Program>,
    /// What was read, until a filter thread has it.
    pub lot: Option<Lot>,
    pub kept: Option<Kept>,
    /// Of the reply: the mark, the oldest kept, and bytes that were read.
    pub high_water: u64,
    pub oldest: u64,
    pub read: u64,
}

impl Fetching {
    /// One that has not been read yet.
    pub fn new(shard: ShardId, from: u64, room: usize, program: Arc<Program>) -> Fetching {
        let (lot, kept) = (None, None);
        Fetching { shard, from, room, program, lot, kept, high_water: 0, oldest: 0, read: 0 }
    }
}

/// What waits for a filter thread.
#[derive(Debug)]
pub(crate) enum Due {
    Work(Work),
    Subscription(ReaderId),
    /// By the slot of the request.
    Fetch(u64),
}

/// What a core has to do with filters.
#[derive(Debug)]
pub(crate) struct Filters {
    pub link: Arc<FilterLink>,
    pub programs: RefCell<Programs>,
    /// By slot.
    pub fetches: RefCell<HashMap<u64, Fetching>>,
    /// In the order it came up.
    due: RefCell<VecDeque<Due>>,
    /// Given to the threads and not come back.
    out: Cell<usize>,
}

impl Filters {
    /// Nothing yet; compiled filters may take `bytes`.
    pub fn new(link: Arc<FilterLink>, bytes: usize) -> Filters {
        Filters {
            link,
            programs: RefCell::new(Programs::new(bytes)),
            fetches: RefCell::default(),
            due: RefCell::default(),
            out: Cell::new(0),
        }
    }

    /// Something waits for a filter thread. Bounded by subscriptions and requests: each waits once.
    pub fn list(&self, due: Due) {
        self.due.borrow_mut().push_back(due);
    }

    /// What is next to be given to the threads, unless they have enough of this core.
    pub fn next_due(&self) -> Option<Due> {
        if self.out.get() >= FILTER_TURNS { None } else { self.due.borrow_mut().pop_front() }
    }

    /// Gives work to the threads; whether they took it. (Their queue has room for what all cores together may give.)
    pub fn give(&self, work: Work) -> bool {
        match self.link.give(work) {
            Ok(()) => {
                self.out.set(self.out.get() + 1);
                true
            }
            Err(work) => {
                self.due.borrow_mut().push_front(Due::Work(work));
                false
            }
        }
    }

    /// Work came back.
    pub fn came_back(&self) {
        self.out.set(self.out.get().saturating_sub(1));
    }
}
