//! One core: its engine, its connections, and the way between the two. Everything here runs on the core's
//! thread and never waits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use highwater_engine::quota::{Meters, Quotas};
use highwater_engine::{Arrivals, Chunk, Core, Output, Parts, ReaderId};
use highwater_ring::UringDisk;
use highwater_wire::{
    AppendReply, DeliverHeader, ErrorCode, FetchReply, Kind, Limits, LocateReply, RecordOutcome,
    ShardId, SubscribeReply, WireError,
};
use tokio::sync::Notify;

use crate::clock::{Clock, wall_ns};
use crate::connection::Connection;
use crate::control_thread::ControlJob;
use crate::figures::Figures;
use crate::filter::{FilterLink, Filters, tell};
use crate::flow::Flow;
use crate::handover::Admitted;
use crate::memory::MemoryShares;
use crate::options::bounds::{
    FETCH_BYTES, OUT_HARD, OUT_HIGH, OUT_PRESSED, RECEIVE_MIN, RETRY_MS, WINDOW_MIN,
};
use crate::outgoing::{Queued, Way};
use crate::pending::PendingTable;
use crate::receive::ReceiveBudget;
use crate::router::{Answer, CoreLink, Signal, address, core_of, number_of};
use crate::telemetry::Published;

/// What a core is made of.
pub(crate) struct CoreParts {
    pub index: usize,
    pub engine: Core<UringDisk>,
    pub clock: Clock,
    pub limits: Limits,
    pub quotas: Arc<Quotas>,
    pub core_ports: Arc<[u16]>,
    pub links: Vec<CoreLink>,
    pub control: SyncSender<ControlJob>,
    pub published: Arc<Published>,
    /// Log buffers that queues to clients may hold, in bytes.
    pub held_limit: usize,
    /// Its memory.
    pub memory: MemoryShares,
    /// Most connections.
    pub connections: usize,
    /// The filter threads.
    pub filters: Arc<FilterLink>,
    /// Memory for compiled filters, bytes.
    pub filter_bytes: usize,
}

pub(crate) struct CoreState {
    pub index: usize,
    pub engine: RefCell<Core<UringDisk>>,
    pub clock: Clock,
    pub limits: Limits,
    pub max_frame: usize,
    /// Meters that cores share, of clients by name among them.
    pub quotas: Arc<Quotas>,
    /// Changes of them that subscriptions have been told of.
    quota_changes: Cell<u64>,
    pub core_ports: Arc<[u16]>,
    pub pending: RefCell<PendingTable>,
    pub connections: RefCell<HashMap<u64, Rc<Connection>>>,
    /// Readers of this core's connections: connection and correlation.
    pub readers: RefCell<HashMap<ReaderId, (u64, u64)>>,
    pub figures: Figures,
    pub published: Arc<Published>,
    pub receive_budget: Rc<ReceiveBudget>,
    /// Capacity of log buffers held by queues to clients.
    pub held: Rc<Cell<usize>>,
    pub held_limit: usize,
    /// What is queued for clients.
    pub queued: Rc<Queued>,
    /// What it may use for what.
    pub memory: MemoryShares,
    /// What filters look at.
    pub filters: Filters,
    /// Bytes of control requests under way.
    pub control_bytes: Cell<usize>,
    /// Batches delivered whose receipts are awaited.
    pub unreceipted: Rc<Cell<usize>>,
    /// Memory may have come back.
    pub space: Notify,
    /// The log task has something to do.
    pub log_wake: Notify,
    /// Something was answered or a connection ended.
    pub progress: Notify,
    pub stopping: Cell<bool>,
    /// Why this core cannot go on.
    pub failure: RefCell<Option<String>>,
    /// There is such a reason now.
    pub failed: Notify,
    /// When the log task wakes by itself, monotonic nanoseconds.
    pub armed: Cell<u64>,
    outputs: RefCell<Vec<Output>>,
    pub links: Vec<CoreLink>,
    /// By core: what waits there.
    pub admitted: Vec<Admitted>,
    pub control: SyncSender<ControlJob>,
    next_connection: Cell<u64>,
    next_reader: Cell<u64>,
}

impl CoreState {
    pub fn new(parts: CoreParts) -> CoreState {
        let CoreParts {
            index,
            engine,
            clock,
            limits,
            quotas,
            core_ports,
            links,
            control,
            published,
            ..
        } = parts;
        // What every connection has in any case is set aside.
        let receive = parts.memory.receive.saturating_sub(parts.connections * RECEIVE_MIN);
        CoreState {
            index,
            engine: RefCell::new(engine),
            clock,
            limits,
            max_frame: limits.max_frame(),
            quota_changes: Cell::new(quotas.changes()),
            quotas,
            core_ports,
            pending: RefCell::default(),
            connections: RefCell::default(),
            readers: RefCell::default(),
            figures: Figures::default(),
            published,
            receive_budget: ReceiveBudget::new(receive),
            held: Rc::default(),
            held_limit: parts.held_limit,
            queued: Rc::new(Queued::new(parts.memory.queued)),
            memory: parts.memory,
            filters: Filters::new(parts.filters, parts.filter_bytes),
            control_bytes: Cell::new(0),
            unreceipted: Rc::default(),
            space: Notify::new(),
            log_wake: Notify::new(),
            progress: Notify::new(),
            stopping: Cell::new(false),
            failure: RefCell::default(),
            failed: Notify::new(),
            armed: Cell::new(u64::MAX),
            outputs: RefCell::default(),
            admitted: links.iter().map(|_| Admitted::default()).collect(),
            links,
            control,
            next_connection: Cell::new(1),
            next_reader: Cell::new(1),
        }
    }

    /// The core that owns a shard.
    pub fn owner(&self, shard: ShardId) -> usize {
        self.engine.borrow().owner(shard)
    }

    /// Turns the engine once and passes on what it has to say.
    pub fn poll(&self) {
        let now = self.clock.now();
        let mut outputs = self.outputs.take();
        let wake = {
            let mut engine = self.engine.borrow_mut();
            engine.poll(now, &mut outputs);
            if let Some(reason) = engine.failure() {
                self.fail(reason);
            }
            engine.next_wake()
        };
        let said = !outputs.is_empty();
        for output in outputs.drain(..) {
            self.route(output, now.mono_ns);
        }
        self.outputs.replace(outputs);
        if said {
            self.space.notify_waiters();
        }
        if self.stopping.get() {
            self.progress.notify_one();
        }
        if wake.is_some_and(|wake| wake < self.armed.get()) {
            self.log_wake.notify_one();
        }
        self.figures.turned(self.clock.mono_ns().saturating_sub(now.mono_ns));
    }

    fn route(&self, output: Output, since_ns: u64) {
        match output {
            Output::Appended { tag, result } => {
                self.answer(tag, Answer::Appended { result, since_ns });
            }
            Output::Read { tag, result } => self.answer(tag, Answer::Read(result)),
            Output::Deliver { reader, chunk } => match core_of(reader.0) {
                here if here == self.index => self.deliver(reader, chunk),
                there => self.signal(there, Signal::Deliver { reader, chunk }),
            },
            Output::Ended { reader, error } => match core_of(reader.0) {
                here if here == self.index => self.ended(reader, &error.to_wire()),
                there => self.signal(there, Signal::Ended { reader, error }),
            },
            // Removals are commands of the control thread, which the engine answers itself.
            Output::Removed { .. } => {}
        }
    }

    /// Sends an answer to the core that has the connection.
    pub fn answer(&self, tag: u64, answer: Answer) {
        match core_of(tag) {
            here if here == self.index => self.answered(number_of(tag), answer),
            there => self.signal(there, Signal::Answer { tag, answer }),
        }
    }

    /// One of this core's requests has its answer.
    pub fn answered(&self, slot: u64, answer: Answer) {
        let answer = match answer {
            Answer::Read(Ok(chunk)) => match self.fetch_read(slot, chunk) {
                Some(answer) => answer,
                // A filter looks at it first.
                None => return,
            },
            Answer::Read(Err(error)) => {
                self.filters.fetches.borrow_mut().remove(&slot);
                Answer::Read(Err(error))
            }
            answer => answer,
        };
        let Some(pending) = self.pending.borrow_mut().remove(slot) else { return };
        if let Some((core, bytes)) = pending.forwarded {
            self.admitted[core].leave(bytes, pending.waits);
        }
        self.control_bytes.set(self.control_bytes.get().saturating_sub(pending.control));
        self.progress.notify_one();
        let connection = self.connections.borrow().get(&pending.connection).cloned();
        if let Answer::Subscribed(reader, result) = &answer {
            let alive = self.readers.borrow().contains_key(reader);
            match (result, &connection, pending.forwarded) {
                // Given up meanwhile, and the order to end it may have come before it began.
                (Ok(_), _, Some((owner, _))) if !alive => self.unsubscribe(*reader, owner),
                (Err(_), Some(connection), _) => {
                    self.readers.borrow_mut().remove(reader);
                    // Another may have its name by now.
                    let mut subscriptions = connection.subscriptions.borrow_mut();
                    if subscriptions
                        .get(&pending.correlation)
                        .is_some_and(|subscription| subscription.flow.reader == *reader)
                    {
                        subscriptions.remove(&pending.correlation);
                    }
                }
                _ => {}
            }
        }
        if let Some(connection) = connection {
            if matches!(answer, Answer::Control(_)) {
                connection.controls.set(connection.controls.get().saturating_sub(1));
            }
            self.reply(&connection, pending.correlation, answer);
            connection.answered(pending.reserved);
        }
    }

    /// Writes an answer to a connection's queue.
    pub fn reply(&self, connection: &Connection, correlation: u64, answer: Answer) {
        let refusal = match answer {
            Answer::Appended { result: Ok(appended), since_ns } => {
                let parts = appended.parts.as_deref();
                let count = |of: fn(&Parts) -> u32| parts.map_or(0, of);
                let reply = AppendReply {
                    base_sequence: appended.base_sequence.into(),
                    arrival_ns: appended.arrival_ns.into(),
                    record_count: appended.record_count.into(),
                    duplicate: u32::from(appended.duplicate).into(),
                    decided: appended.decided().into(),
                    dropped: count(|p| p.dropped).into(),
                    sampled_out: count(|p| p.sampled_out).into(),
                    retry_after_ms: count(|p| p.retry_after_ms).into(),
                };
                let outcomes = parts.map_or(&[][..], |p| &p.outcomes);
                let data: Vec<u8> = outcomes
                    .iter()
                    .flat_map(|outcome: &RecordOutcome| outcome.to_array())
                    .collect();
                // What was stored before says nothing about the way from the device.
                let records = if appended.duplicate { 0 } else { u64::from(appended.record_count) };
                let control = reply.to_array();
                return connection.acknowledge(correlation, &control, &data, since_ns, records);
            }
            // With few bytes asked for one batch comes all the same; what was reserved then bounds nothing.
            Answer::Read(Ok(chunk))
                if connection.queued() + chunk.bytes > OUT_HIGH + FETCH_BYTES
                    || (self.queued.spent() && connection.queued() > 0) =>
            {
                self.no_room(connection, chunk.bytes)
            }
            Answer::Found(Ok(found))
                if connection.queued() + found.data.len() > OUT_HIGH + FETCH_BYTES
                    || (self.queued.spent() && connection.queued() > 0) =>
            {
                self.no_room(connection, found.data.len())
            }
            Answer::Found(Ok(found)) => {
                let meters = connection.meters(&self.quotas);
                if let Some(out) = meters.as_deref().and_then(Meters::out) {
                    out.take(self.clock.now(), found.read);
                }
                let reply = FetchReply {
                    high_water: found.high_water.into(),
                    oldest: found.oldest.into(),
                    next: found.next.into(),
                };
                let mut control = reply.to_array().to_vec();
                control.extend_from_slice(&found.tally.to_array());
                let (kind, way) = (Kind::FetchReply, Way::delivery(None));
                return connection.send_found(
                    kind,
                    correlation,
                    &control,
                    found.data,
                    found.next,
                    way,
                );
            }
            Answer::Read(Ok(chunk)) => {
                if let Some(out) = connection.meters(&self.quotas).as_deref().and_then(Meters::out)
                {
                    out.take(self.clock.now(), chunk.bytes as u64);
                }
                let reply = FetchReply {
                    high_water: chunk.high_water.into(),
                    oldest: chunk.oldest.into(),
                    next: chunk.next.into(),
                };
                let control = reply.to_array();
                return connection.send_chunk(self, Kind::FetchReply, correlation, &control, chunk);
            }
            Answer::Subscribed(_, Ok(located)) => {
                let reply = SubscribeReply {
                    high_water: located.high_water.into(),
                    oldest: located.oldest.into(),
                };
                return connection.reply(Kind::SubscribeReply, correlation, &reply.to_array());
            }
            Answer::Located(Ok(located)) => {
                let reply = LocateReply {
                    sequence: located.sequence.into(),
                    oldest: located.oldest.into(),
                    high_water: located.high_water.into(),
                };
                return connection.reply(Kind::LocateReply, correlation, &reply.to_array());
            }
            Answer::Control(Ok(reply)) => {
                return connection.reply(Kind::ControlReply, correlation, &reply);
            }
            Answer::Appended { result: Err(error), .. } => error.to_wire(),
            Answer::Read(Err(error))
            | Answer::Subscribed(_, Err(error))
            | Answer::Located(Err(error)) => error.to_wire(),
            Answer::Control(Err(error)) | Answer::Found(Err(error)) => error,
        };
        connection.refuse(self, correlation, &refusal);
    }

    /// A fetch brought more than can be queued.
    fn no_room(&self, connection: &Connection, bytes: usize) -> WireError {
        let (queued, all) = (connection.queued(), self.queued.bytes());
        let message = format!(
            "{queued} bytes are queued for this connection and {all} for this core; a fetch of {bytes} bytes \
             finds no room"
        );
        WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS)
    }

    /// Records for one of this core's subscriptions.
    pub fn deliver(&self, reader: ReaderId, mut chunk: Chunk) {
        let Some((connection, correlation)) = self.subscriber(reader) else { return };
        let filtered = {
            let subscriptions = connection.subscriptions.borrow();
            let filtered = subscriptions.get(&correlation).filter(|s| s.filtering.is_some());
            filtered.map(|subscription| subscription.flow.in_hand() as usize)
        };
        let queued = connection.queued() + filtered.unwrap_or(0);
        let all = self.queued.bytes();
        if queued > OUT_HARD || (self.queued.spent() && queued > 0) {
            // Credit is handed on by the window, so only very many subscriptions come here.
            let message = format!(
                "{queued} bytes are queued for this connection (the limit is {OUT_HARD}) and {all} for this \
                 core: read faster or subscribe to less at once"
            );
            let error = WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS);
            return self.end(reader, &connection, correlation, &error);
        }
        if filtered.is_some() {
            return self.hold(&connection, correlation, reader, chunk);
        }
        let sent_ns = wall_ns();
        if let Some(subscription) = connection.subscriptions.borrow_mut().get_mut(&correlation) {
            subscription.flow.delivered(chunk.bytes as u64);
            let arrivals = chunk.arrivals.take().filter(|_| connection.answers());
            chunk.arrivals =
                arrivals.and_then(|a| subscription.receipts.delivered(chunk.next, sent_ns, a));
        }
        let header = DeliverHeader {
            high_water: chunk.high_water.into(),
            next: chunk.next.into(),
            sent_ns: sent_ns.into(),
        };
        connection.send_chunk(self, Kind::Deliver, correlation, &header.to_array(), chunk);
    }

    /// Batches were received, or went to the socket of one who does not say: told to the core whose they are.
    pub fn handed_over(&self, arrivals: Arrivals, at_ns: u64) {
        match self.owner(arrivals.shard) {
            here if here == self.index => self.engine.borrow_mut().handed_over(&arrivals, at_ns),
            there => self.signal(there, Signal::HandedOver { arrivals, at_ns }),
        }
    }

    /// The engine has ended one of this core's subscriptions.
    pub fn ended(&self, reader: ReaderId, error: &WireError) {
        let Some((connection, correlation)) = self.subscriber(reader) else { return };
        if let Some(subscription) = connection.subscriptions.borrow_mut().get_mut(&correlation)
            && let Some(filtering) = &mut subscription.filtering
            && filtering.ends_later(error)
        {
            return;
        }
        self.end(reader, &connection, correlation, error);
    }

    /// Ends one of this core's subscriptions with an error.
    pub fn end(
        &self,
        reader: ReaderId,
        connection: &Connection,
        correlation: u64,
        error: &WireError,
    ) {
        self.readers.borrow_mut().remove(&reader);
        let gone = connection.subscriptions.borrow_mut().remove(&correlation);
        if let Some(mut gone) = gone {
            let last = gone.filtering.as_mut().and_then(|filtering| filtering.last_words());
            if let Some(frame) = last {
                tell(connection, correlation, &frame);
            }
            gone.receipts.settle(|arrivals, at_ns| self.handed_over(arrivals, at_ns));
            self.unsubscribe(reader, gone.flow.owner);
        }
        connection.refuse(self, correlation, error);
    }

    /// Whose a reader is: the connection, and its name for the subscription.
    pub fn subscriber(&self, reader: ReaderId) -> Option<(Rc<Connection>, u64)> {
        let (connection, correlation) = *self.readers.borrow().get(&reader)?;
        let connection = Rc::clone(self.connections.borrow().get(&connection)?);
        Some((connection, correlation))
    }

    /// A number for a new reader of a connection.
    pub fn new_reader(&self, connection: &Connection, correlation: u64) -> ReaderId {
        let number = self.next_reader.get();
        self.next_reader.set(number + 1);
        let reader = ReaderId(address(self.index, number));
        self.readers.borrow_mut().insert(reader, (connection.id, correlation));
        reader
    }

    /// Bytes that one of `subscriptions` of a connection may have granted or queued.
    pub fn window(&self, subscriptions: usize) -> u64 {
        if self.queued.pressed() {
            return (OUT_PRESSED / subscriptions.max(1)).max(1) as u64;
        }
        let of_core = self.queued.bound() / self.readers.borrow().len().max(1);
        (OUT_HIGH / subscriptions.max(1)).min(of_core).max(WINDOW_MIN) as u64
    }

    /// Whether a connection's subscriptions get nothing for now. On a core that is pressed a peer that takes what it
    /// gets goes on, a little at a time: those that take nothing keep their share, not everybody's.
    fn paused(&self, connection: &Connection) -> bool {
        connection.full() || self.queued.spent()
    }

    /// Whether the log's buffers of a chunk may be held until it is sent: commit groups and reads need them too.
    pub fn may_hold(&self, chunk: &Chunk) -> bool {
        self.held.get() + chunk.capacity() <= self.held_limit
    }

    /// The first credit of a new subscription that goes to its engine.
    pub fn grant(&self, flow: &mut Flow, connection: &Connection, subscriptions: usize) -> u64 {
        if self.paused(connection) { 0 } else { flow.grant(self.window(subscriptions)) }
    }

    /// Ends the pressure of what is queued, if enough of it has gone: all that paused go on.
    pub fn relieve(&self) {
        if self.queued.relieved() {
            let connections: Vec<_> = self.connections.borrow().values().cloned().collect();
            for connection in connections {
                connection.go_on();
                self.top_up(&connection);
            }
        }
    }

    /// Hands credit of a connection's subscriptions to their engines as far as its queue allows; true if
    /// this core's engine got some.
    pub fn top_up(&self, connection: &Connection) -> bool {
        // Also on a core that is pressed: what is looked at is gone.
        self.list_all(connection);
        if self.paused(connection) {
            return false;
        }
        let mut here = false;
        let mut subscriptions = connection.subscriptions.borrow_mut();
        let window = self.window(subscriptions.len());
        for subscription in subscriptions.values_mut() {
            if subscription.filtering.as_ref().is_some_and(|filtering| !filtering.reads()) {
                continue;
            }
            let bytes = subscription.flow.grant(window);
            if bytes == 0 {
                continue;
            }
            let reader = subscription.flow.reader;
            match &subscription.remote {
                None => {
                    self.engine.borrow_mut().credit(self.clock.now(), reader, bytes);
                    here = true;
                }
                Some(credit) => {
                    if credit.add(bytes) {
                        let credit = credit.clone();
                        self.signal(subscription.flow.owner, Signal::Credit { reader, credit });
                    }
                }
            }
        }
        if here {
            self.log_wake.notify_one();
        }
        here
    }

    /// Has subscriptions that are under way obey the quotas that clients have now, if any has changed.
    pub fn follow_quotas(&self) {
        let changes = self.quotas.changes();
        if self.quota_changes.replace(changes) == changes {
            return;
        }
        for connection in self.connections.borrow().values() {
            let client = connection.meters(&self.quotas);
            for subscription in connection.subscriptions.borrow().values() {
                let (reader, client) = (subscription.flow.reader, client.clone());
                match subscription.flow.owner {
                    here if here == self.index => self.limit(reader, client),
                    there => self.signal(there, Signal::Limit { reader, client }),
                }
            }
        }
    }

    /// Another quota for one of this core's readers, which goes on if it waited for the old one.
    pub fn limit(&self, reader: ReaderId, client: Option<Arc<Meters>>) {
        let mut engine = self.engine.borrow_mut();
        engine.limit(reader, client);
        engine.credit(self.clock.now(), reader, 0);
        self.log_wake.notify_one();
    }

    /// Ends all subscriptions of a connection.
    pub fn unsubscribe_all(&self, connection: &Connection) {
        let subscriptions = std::mem::take(&mut *connection.subscriptions.borrow_mut());
        for mut subscription in subscriptions.into_values() {
            // Its last receipts may have been lost with the connection.
            subscription.receipts.settle(|arrivals, at_ns| self.handed_over(arrivals, at_ns));
            self.unsubscribe(subscription.flow.reader, subscription.flow.owner);
        }
    }

    /// A number for a new connection.
    pub fn new_connection(&self) -> u64 {
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        id
    }

    /// Makes a connection known until the guard is dropped.
    pub fn register(self: &Rc<Self>, connection: &Rc<Connection>) -> Registered {
        self.connections.borrow_mut().insert(connection.id, Rc::clone(connection));
        Registered { core: Rc::clone(self), id: connection.id }
    }

    /// The core cannot go on: its thread ends, and whoever waits for the server hears why.
    pub fn fail(&self, reason: &str) {
        self.failure.borrow_mut().get_or_insert_with(|| reason.to_owned());
        self.failed.notify_one();
    }
}

/// A connection that is served.
pub(crate) struct Registered {
    core: Rc<CoreState>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.core.connections.borrow_mut().remove(&self.id);
        self.core.progress.notify_one();
        if std::thread::panicking() {
            self.core.fail("a connection's task panicked");
        }
    }
}
