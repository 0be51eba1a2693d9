//! The way of records through a filter, on the core of the connection: held, given to the filter threads turn by turn,
//! sent as found.

use std::sync::Arc;

use highwater_engine::{Chunk, ReaderId, Sifted};
use highwater_wire::{ErrorCode, FilterTally, Kind, ShardId, WireError};

use super::{
    Due, Fetching, Filtered, Filtering, Flaw, Found, Frame, Kept, Known, Lot, Program, Span, Turn,
    Turned, Waiter, Wanted, Whose, Work,
};
use crate::clock::wall_ns;
use crate::connection::{Connection, Subscription};
use crate::core_state::CoreState;
use crate::options::bounds::FILTER_PIECE;
use crate::outgoing::Way;
use crate::router::{Answer, Signal, address, number_of};
use crate::session;

/// What a filter found in a fetch.
#[derive(Debug)]
pub(crate) struct FoundByFetch {
    pub data: Vec<u8>,
    pub tally: FilterTally,
    pub next: u64,
    pub high_water: u64,
    pub oldest: u64,
    /// Bytes that were read for it.
    pub read: u64,
}

impl CoreState {
    /// The filter of this text. `None`: it is being compiled; what is `wanted` is begun then.
    pub fn program(
        &self,
        connection: &Connection,
        correlation: u64,
        source: &str,
        wanted: Wanted,
    ) -> Result<Option<Arc<Program>>, WireError> {
        let known = self.filters.programs.borrow_mut().ask(source)?;
        if let Known::Ready(program) = known {
            return Ok(Some(program));
        }
        if let Known::Compile(source) = known {
            self.filters.list(Due::Work(Work::Compile { core: self.index, source }));
        }
        connection.pending.set(connection.pending.get() + 1);
        let waiter = Waiter { connection: connection.id, correlation, wanted };
        self.filters.programs.borrow_mut().wait(source, waiter);
        self.give_due();
        Ok(None)
    }

    /// Something came back from a filter thread.
    pub fn filtered(&self, filtered: Filtered) {
        self.filters.came_back();
        match filtered {
            Filtered::Compiled { source, result } => self.compiled(&source, result),
            Filtered::Turned(turned) => {
                let Turned { whose, lot, found } = *turned;
                match whose {
                    Whose::Subscription(reader) => self.turned(reader, lot, found),
                    Whose::Fetch(tag) => self.fetch_turned(number_of(tag), found),
                }
            }
        }
        self.give_due();
        self.relieve();
    }

    fn compiled(&self, source: &Arc<str>, result: Result<Arc<Program>, String>) {
        let (waiters, result) = self.filters.programs.borrow_mut().compiled(source, result);
        for Waiter { connection, correlation, wanted } in waiters {
            let connection = self.connections.borrow().get(&connection).cloned();
            let Some(connection) = connection else { continue };
            connection.answered(0);
            match (wanted, result.clone()) {
                (Wanted::Subscription(opening), Ok(program)) => {
                    session::open(self, &connection, correlation, opening, Some(program));
                }
                (Wanted::Fetch { shard, fetch }, Ok(program)) => {
                    session::begin_fetch(
                        self,
                        &connection,
                        correlation,
                        shard,
                        fetch,
                        Some(program),
                    );
                }
                (Wanted::Subscription(opening), Err(error)) => {
                    self.forget(&connection, correlation, opening.reader);
                    connection.refuse(self, correlation, &error);
                }
                (Wanted::Fetch { .. }, Err(error)) => {
                    connection.refuse(self, correlation, &error);
                }
            }
        }
        self.progress.notify_one();
    }

    /// Whether every request that came has its answer.
    pub fn at_rest(&self) -> bool {
        self.pending.borrow().len() == 0 && self.filters.programs.borrow().waiting() == 0
    }

    /// A subscription was not begun.
    pub fn forget(&self, connection: &Connection, correlation: u64, reader: ReaderId) {
        self.readers.borrow_mut().remove(&reader);
        let mut subscriptions = connection.subscriptions.borrow_mut();
        if subscriptions.get(&correlation).is_some_and(|known| known.flow.reader == reader) {
            subscriptions.remove(&correlation);
        }
    }

    /// Gives the filter threads what waits for them, as far as they may have it.
    pub fn give_due(&self) {
        while let Some(due) = self.filters.next_due() {
            let work = match due {
                Due::Work(work) => Some(work),
                Due::Subscription(reader) => {
                    self.turn_of(reader).map(|turn| Work::Turn(Box::new(turn)))
                }
                Due::Fetch(slot) => self.turn_of_fetch(slot).map(|turn| Work::Turn(Box::new(turn))),
            };
            if work.is_some_and(|work| !self.filters.give(work)) {
                return;
            }
        }
    }

    fn turn_of(&self, reader: ReaderId) -> Option<Turn> {
        let (connection, correlation) = self.subscriber(reader)?;
        let mut subscriptions = connection.subscriptions.borrow_mut();
        let window = self.window(subscriptions.len());
        let Subscription { flow, filtering, .. } = subscriptions.get_mut(&correlation)?;
        let filtering = filtering.as_mut()?;
        // Of a peer that does not take what it has nothing more is looked at; it is listed again when it does.
        let room = if connection.full() { 0 } else { flow.room(window) };
        let room =
            usize::try_from(room).unwrap_or(usize::MAX).min(FILTER_PIECE).min(filtering.most);
        let whose = Whose::Subscription(reader);
        let reserved = || Kept::new(&self.queued, &self.held, room, 0);
        filtering.turn(whose, room, self.limits.max_batch, reserved)
    }

    fn turn_of_fetch(&self, slot: u64) -> Option<Turn> {
        let mut fetches = self.filters.fetches.borrow_mut();
        let fetching = fetches.get_mut(&slot)?;
        let lot = fetching.lot.take()?;
        Some(Turn {
            whose: Whose::Fetch(address(self.index, slot)),
            program: Arc::clone(&fetching.program),
            lot,
            span: Span { next: fetching.from, since_ns: 0, until: u64::MAX },
            room: fetching.room,
            max_batch: self.limits.max_batch,
        })
    }

    /// Records for a subscription with a filter.
    pub fn hold(&self, connection: &Connection, correlation: u64, reader: ReaderId, chunk: Chunk) {
        if let Some(subscription) = connection.subscriptions.borrow_mut().get_mut(&correlation)
            && let Some(filtering) = &mut subscription.filtering
        {
            let (lot, kept) = self.keep(chunk);
            subscription.flow.read(lot.bytes as u64);
            if let Some(lot) = filtering.hold(lot, kept) {
                subscription.flow.sifted(lot.bytes as u64);
            }
            self.list(reader, filtering);
        }
        self.give_due();
    }

    fn keep(&self, chunk: Chunk) -> (Lot, Kept) {
        // What waits for a filter must not keep commit groups from their memory.
        let share = self.may_hold(&chunk);
        let (lot, capacity) = Lot::of(chunk, share);
        let kept = Kept::new(&self.queued, &self.held, lot.bytes, capacity);
        (lot, kept)
    }

    fn list(&self, reader: ReaderId, filtering: &mut Filtering) {
        if filtering.lists() {
            self.filters.list(Due::Subscription(reader));
        }
    }

    /// Lists a subscription of a connection, if it has something to be looked at.
    pub fn list_one(&self, connection: &Connection, correlation: u64) {
        if let Some(subscription) = connection.subscriptions.borrow_mut().get_mut(&correlation)
            && let Some(filtering) = &mut subscription.filtering
        {
            self.list(subscription.flow.reader, filtering);
        } else {
            return;
        }
        self.give_due();
    }

    /// Lists those subscriptions of a connection that have something to be looked at: there may be room for it now.
    pub fn list_all(&self, connection: &Connection) {
        let mut listed = false;
        for subscription in connection.subscriptions.borrow_mut().values_mut() {
            if let Some(filtering) = &mut subscription.filtering {
                self.list(subscription.flow.reader, filtering);
                listed = true;
            }
        }
        if listed {
            self.give_due();
        }
    }

    /// Tells the owner of a shard what became of its records.
    fn sifted(&self, shard: ShardId, found: &Found) {
        let FilterTally { looked, matched, .. } = found.tally;
        let sifted = Sifted { shard, looked, matched, bytes: found.data.len() as u64 };
        match self.owner(shard) {
            here if here == self.index => self.engine.borrow_mut().sifted(&sifted),
            there => self.signal(there, Signal::Sifted(sifted)),
        }
    }

    /// A subscription's turn is over.
    fn turned(&self, reader: ReaderId, lot: Lot, mut found: Found) {
        // Of one that has gone nobody asks any more.
        let Some((connection, correlation)) = self.subscriber(reader) else { return };
        let mut ends = None;
        if let Some(subscription) = connection.subscriptions.borrow_mut().get_mut(&correlation)
            && let Some(filtering) = &mut subscription.filtering
        {
            self.sifted(filtering.shard, &found);
            let durable_ns = lot.durable_ns;
            let done = filtering.turned(lot, &found);
            subscription.flow.sifted(done as u64);
            let (shard, matched) = (filtering.shard, found.tally.matched);
            let frame = filtering.news(!found.data.is_empty());
            let flaw = found.flaw.take().map(|flaw| flawed(shard, found.span.next, &flaw));
            ends = flaw.or_else(|| filtering.ends());
            self.list(reader, filtering);
            if let Some(frame) = frame {
                let way = (durable_ns, matched);
                self.send_found(&connection, correlation, subscription, frame, found, way);
            }
        }
        if let Some(error) = ends {
            self.end(reader, &connection, correlation, &error);
        } else {
            self.top_up_one(&connection, correlation);
        }
    }

    fn send_found(
        &self,
        connection: &Connection,
        correlation: u64,
        subscription: &mut Subscription,
        frame: Frame,
        mut found: Found,
        (since_ns, records): (u64, u64),
    ) {
        let shard = subscription.filtering.as_ref().map(|filtering| filtering.shard);
        let arrivals = shard.and_then(|shard| found.arrivals_of(shard));
        let sent_ns = wall_ns();
        subscription.flow.found(found.data.len() as u64);
        let arrivals = arrivals
            .filter(|_| connection.answers())
            .and_then(|a| subscription.receipts.delivered(frame.next, sent_ns, a));
        let way = Way { since_ns, records, ..Way::delivery(arrivals) };
        let control = frame.control(sent_ns);
        let kind = Kind::DeliverFiltered;
        connection.send_found(kind, correlation, &control, found.data, frame.next, way);
    }

    /// Tells a connection's consumers how far their filters are, if they do not know.
    pub fn tell_progress(&self, connection: &Connection) {
        if connection.full() {
            return;
        }
        for (correlation, subscription) in connection.subscriptions.borrow_mut().iter_mut() {
            let filtering = subscription.filtering.as_mut();
            if let Some(frame) = filtering.and_then(|filtering| filtering.progress()) {
                tell(connection, *correlation, &frame);
            }
        }
    }

    /// A fetch for a filter was answered by the engine; the answer itself where there is nothing to look at.
    pub fn fetch_read(&self, slot: u64, chunk: Chunk) -> Option<Answer> {
        let mut fetches = self.filters.fetches.borrow_mut();
        let Some(fetching) = fetches.get_mut(&slot) else {
            return Some(Answer::Read(Ok(chunk)));
        };
        (fetching.high_water, fetching.oldest) = (chunk.high_water, chunk.oldest);
        fetching.read = chunk.bytes as u64;
        if chunk.slices.is_empty() {
            let next = chunk.next;
            let fetching = fetches.remove(&slot)?;
            return Some(Answer::Found(Ok(Box::new(fetching.found(next)))));
        }
        let (lot, kept) = self.keep(chunk);
        (fetching.lot, fetching.kept) = (Some(lot), Some(kept));
        drop(fetches);
        self.filters.list(Due::Fetch(slot));
        self.give_due();
        None
    }

    fn fetch_turned(&self, slot: u64, found: Found) {
        let Some(fetching) = self.filters.fetches.borrow_mut().remove(&slot) else { return };
        self.sifted(fetching.shard, &found);
        let shard = fetching.shard;
        let result = match found.flaw {
            Some(flaw) => Err(flawed(shard, found.span.next, &flaw)),
            None => {
                let whole = fetching.found(found.span.next);
                Ok(Box::new(FoundByFetch { data: found.data, tally: found.tally, ..whole }))
            }
        };
        self.answered(slot, Answer::Found(result));
    }
}

impl Fetching {
    /// An answer without records.
    fn found(&self, next: u64) -> FoundByFetch {
        FoundByFetch {
            data: Vec::new(),
            tally: FilterTally::default(),
            next,
            high_water: self.high_water,
            oldest: self.oldest,
            read: self.read,
        }
    }
}

/// Tells a consumer how far its filter is.
pub(crate) fn tell(connection: &Connection, correlation: u64, frame: &Frame) {
    connection.reply(Kind::DeliverFiltered, correlation, &frame.control(wall_ns()));
}

fn flawed(shard: ShardId, sequence: u64, flaw: &Flaw) -> WireError {
    let code = match flaw {
        Flaw::Batch(_) => ErrorCode::ShardDamaged,
        Flaw::Panicked => ErrorCode::Internal,
    };
    let message =
        format!("the batch of record {sequence} of shard {shard} cannot be looked at: {flaw}");
    WireError::new(code, message)
}
