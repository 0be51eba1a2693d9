//! One core: its engine, its connections, and the way between the two. Everything here runs on the core's
//! thread and never waits.

mod credit;
mod replies;
mod subscriptions;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use highwater_engine::quota::Quotas;
use highwater_engine::{Core, Output, ReaderId};
use highwater_ring::UringDisk;
use highwater_wire::{Limits, ShardId};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::connection::Connection;
use crate::control_thread::ControlJob;
use crate::figures::Figures;
use crate::filter::{FilterLink, Filters};
use crate::handover::Admitted;
use crate::memory::MemoryShares;
use crate::options::bounds::RECEIVE_MIN;
use crate::outgoing::Queued;
use crate::pending::PendingTable;
use crate::receive::ReceiveBudget;
use crate::router::{Answer, CoreLink, Signal, core_of};
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
    /// Fetches of its connections that may wait here.
    pub waits: Cell<usize>,
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
            waits: Cell::new(0),
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
