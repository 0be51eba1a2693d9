//! One connection: a reader task that is never cancelled (a dropped read would swallow bytes), a writer
//! task, and what both share. To end a connection early its socket is shut down.

mod tasks;

pub(crate) use tasks::{serve, turn_away};

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;

use highwater_engine::Chunk;
use highwater_engine::quota::{Meters, Quotas};
use highwater_wire::{Kind, ShardId, WireError, encode_error};
use tokio::sync::Notify;
use tokio_uring::net::TcpStream;

use crate::core_state::CoreState;
use crate::filter::Filtering;
use crate::flow::Flow;
use crate::options::bounds::{
    FRAME_SLOW_S, FRAME_STALL_S, GREETING_MS, LINGER_MS, OUT_HIGH, OUT_PRESSED, OUT_SHARE, PENDING,
};
use crate::outgoing::{Common, Outgoing, Queued, Sent, Way};
use crate::patience::{Patience, Peer};
use crate::receipts::Receipts;
use crate::router::RemoteCredit;

/// A subscription and, when another core serves it, the credit on its way there.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub flow: Flow,
    pub remote: Option<RemoteCredit>,
    pub receipts: Receipts,
    /// Of one with a filter.
    pub filtering: Option<Box<Filtering>>,
}

/// What the tasks of a connection share.
pub(crate) struct Connection {
    pub id: u64,
    socket: TcpStream,
    out: RefCell<Outgoing>,
    core_queued: Rc<Queued>,
    /// The writer has something to do.
    out_ready: Notify,
    /// The reader may go on.
    readable: Notify,
    /// By correlation.
    pub subscriptions: RefCell<HashMap<u64, Subscription>>,
    /// Requests not yet answered.
    pub pending: Cell<usize>,
    /// Of these, fetches that may wait, by their numbers in the core's table.
    pub waits: RefCell<BTreeMap<u64, ShardId>>,
    /// Of these, those for the control thread.
    pub controls: Cell<usize>,
    /// Bytes reserved for fetches under way.
    pub fetching: Cell<usize>,
    pub greeted: Cell<bool>,
    /// What the peer calls itself.
    name: RefCell<String>,
    /// The meters of that name, as of so many changes.
    meters: RefCell<(u64, Option<Arc<Meters>>)>,
    /// Empty: room to note whose deliveries have left.
    delivered: RefCell<Vec<u64>>,
    state: Cell<State>,
    /// When the socket is shut down whatever its state, monotonic nanoseconds.
    deadline: Cell<Option<u64>>,
    /// The peer is in the middle of a frame.
    unfinished: Cell<bool>,
    /// Ticks since a byte of it came.
    frame_ticks: Cell<u32>,
    /// Seconds the same frame has been unfinished while others lack memory for theirs.
    slow_ticks: Cell<u32>,
    /// With a peer that leaves what is queued for it.
    patience: Cell<Patience>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Requests are served.
    Open,
    /// The peer sends no more; what it asked for is still answered.
    Answering,
    /// No more replies; what is queued goes out.
    Flushing,
    /// Nothing more goes out.
    Over,
}

impl Connection {
    pub fn new(id: u64, socket: TcpStream, queued: &Rc<Queued>, now_ns: u64) -> Connection {
        Connection {
            id,
            socket,
            out: RefCell::new(Outgoing::new(Rc::clone(queued))),
            core_queued: Rc::clone(queued),
            out_ready: Notify::new(),
            readable: Notify::new(),
            subscriptions: RefCell::default(),
            pending: Cell::new(0),
            waits: RefCell::default(),
            controls: Cell::new(0),
            fetching: Cell::new(0),
            greeted: Cell::new(false),
            name: RefCell::default(),
            meters: RefCell::default(),
            delivered: RefCell::default(),
            state: Cell::new(State::Open),
            deadline: Cell::new(Some(now_ns + GREETING_MS * 1_000_000)),
            unfinished: Cell::new(false),
            frame_ticks: Cell::new(0),
            slow_ticks: Cell::new(0),
            patience: Cell::default(),
        }
    }

    /// The greeting was right: the connection may stay.
    pub fn greet(&self, name: String) {
        self.greeted.set(true);
        self.deadline.set(None);
        self.name.replace(name);
        self.meters.take();
    }

    /// The meters of the peer's name, if it has a quota. Looked up only when some quota has changed.
    pub fn meters(&self, quotas: &Quotas) -> Option<Arc<Meters>> {
        let changes = quotas.changes();
        let mut known = self.meters.borrow_mut();
        if known.0 != changes {
            *known = (changes, quotas.client(&self.name.borrow()));
        }
        known.1.clone()
    }

    /// Bytes queued for the peer.
    pub fn queued(&self) -> usize {
        self.out.borrow().bytes()
    }

    /// Whether its peer may ask for more.
    pub fn asks(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Whether replies still go out.
    pub fn answers(&self) -> bool {
        self.state.get() <= State::Answering
    }

    /// Queues a reply.
    pub fn reply(&self, kind: Kind, correlation: u64, control: &[u8]) {
        if self.answers() {
            self.out.borrow_mut().push_frame(kind, correlation, control, 0);
            self.out_ready.notify_one();
        }
    }

    /// Queues a reply that others get as well.
    pub fn reply_common(&self, kind: Kind, correlation: u64, control: &Common) {
        if self.answers() {
            self.out.borrow_mut().push_common(kind, correlation, control);
            self.out_ready.notify_one();
        }
    }

    /// Queues the reply to an append of `records`, durable since `since_ns`; `data` tells what became of single records.
    pub fn acknowledge(
        &self,
        correlation: u64,
        control: &[u8],
        data: &[u8],
        since_ns: u64,
        records: u64,
    ) {
        if self.answers() {
            let mut out = self.out.borrow_mut();
            out.push_frame(Kind::AppendReply, correlation, control, data.len());
            out.push_data(data);
            out.note_reply(since_ns, records);
            self.out_ready.notify_one();
        }
    }

    /// Queues a refusal.
    pub fn refuse(&self, core: &CoreState, correlation: u64, error: &WireError) {
        core.figures.refused(error.code);
        self.reply(Kind::Error, correlation, &encode_error(error));
    }

    /// Queues batches, straight from the log's buffers while the peer keeps up.
    pub fn send_chunk(
        &self,
        core: &CoreState,
        kind: Kind,
        correlation: u64,
        control: &[u8],
        mut chunk: Chunk,
    ) {
        if self.answers() {
            let mut out = self.out.borrow_mut();
            // A peer that lags must not keep commit groups from their memory.
            let share = out.bytes() < OUT_SHARE && core.may_hold(&chunk);
            let (since_ns, records) = (chunk.durable_ns, chunk.records);
            let arrivals = chunk.arrivals.take();
            let held = out.push_chunk(kind, correlation, control, chunk, share);
            core.held.set(core.held.get() + held);
            // Of those that had not caught up it says nothing.
            if since_ns > 0 {
                out.note_delivery(since_ns, records, arrivals);
            }
            self.out_ready.notify_one();
        }
    }

    /// Queues batches that a filter found, and what is to be measured of their way.
    pub fn send_found(
        &self,
        kind: Kind,
        correlation: u64,
        control: &[u8],
        data: Vec<u8>,
        next: u64,
        way: Way,
    ) {
        if self.answers() {
            let mut out = self.out.borrow_mut();
            out.push_found(kind, correlation, control, data, next);
            if way.since_ns > 0 && way.records > 0 {
                out.note_delivery(way.since_ns, way.records, way.arrivals);
            }
            self.out_ready.notify_one();
        }
    }

    /// A request was answered (or will not be).
    pub fn answered(&self, reserved: usize) {
        self.pending.set(self.pending.get().saturating_sub(1));
        self.fetching.set(self.fetching.get().saturating_sub(reserved));
        if self.state.get() == State::Answering {
            self.out_ready.notify_one();
        }
        self.wake_reader();
    }

    /// Bytes that may be queued before the peer's requests and subscriptions pause.
    fn out_limit(&self) -> usize {
        // A peer that takes its replies is served on a core that is pressed, too.
        if self.core_queued.pressed() { OUT_PRESSED } else { OUT_HIGH }
    }

    /// Whether as much is queued as may be.
    pub fn full(&self) -> bool {
        self.queued() >= self.out_limit()
    }

    fn may_read(&self) -> bool {
        self.state.get() > State::Open || (self.pending.get() < PENDING && !self.full())
    }

    fn wake_reader(&self) {
        // Half-way down, so that the reader does not go back and forth at the bound.
        let low = self.pending.get() <= PENDING / 2 && self.queued() <= self.out_limit() / 2;
        if low || self.state.get() > State::Open {
            self.readable.notify_one();
        }
    }

    /// The core is no longer pressed.
    pub fn go_on(&self) {
        self.readable.notify_one();
    }

    /// Lets what is queued go out, then ends. Nothing is answered any more.
    pub fn finish(&self, now_ns: u64) {
        if self.state.get() < State::Flushing {
            self.state.set(State::Flushing);
            self.deadline.set(Some(now_ns + 5 * LINGER_MS * 1_000_000));
            self.out_ready.notify_one();
            self.readable.notify_one();
        }
    }

    /// Ends at once: reads and writes in flight come back.
    pub fn cut(&self) {
        self.state.set(State::Over);
        // Fails only when the peer was first.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.out_ready.notify_one();
        self.readable.notify_one();
    }

    /// Cuts the connection when its time is up.
    pub fn sweep(&self, now_ns: u64) {
        if self.deadline.get().is_some_and(|deadline| deadline <= now_ns) {
            self.cut();
        }
    }

    /// Once a second: cuts a peer that stopped in the middle of a frame, or that leaves what is queued for it too
    /// long. In ticks, so that a pause of the whole process is nobody's fault.
    pub fn tick(&self, now_ns: u64, memory_short: bool) {
        self.sweep(now_ns);
        let count = |counter: &Cell<u32>, stalled: bool| {
            counter.set(if stalled { counter.get() + 1 } else { 0 });
            counter.get()
        };
        let frame = count(&self.frame_ticks, self.unfinished.get());
        let slow = count(&self.slow_ticks, memory_short && self.unfinished.get());
        let gone = self.state.get() >= State::Answering && self.pending.get() == 0;
        let mut patience = self.patience.get();
        let lost = patience.tick(Peer {
            queued: self.queued() > 0,
            much: self.queued() >= OUT_PRESSED,
            gone,
            short: self.core_queued.pressed(),
        });
        self.patience.set(patience);
        if frame > FRAME_STALL_S || slow > FRAME_SLOW_S || lost {
            self.cut();
        }
    }

    /// Accounts for bytes sent; hands new credit to the engine.
    fn sent(&self, core: &CoreState, n: usize) {
        let full = self.full();
        let mut delivered = self.delivered.take();
        {
            let mut out = self.out.borrow_mut();
            let mut subscriptions = self.subscriptions.borrow_mut();
            let now = core.clock.now();
            for Sent { subscription: correlation, next, bytes, held } in out.sent(n) {
                core.held.set(core.held.get().saturating_sub(held));
                if let Some(subscription) = subscriptions.get_mut(&correlation) {
                    subscription.flow.sent(bytes as u64);
                    let count = |arrivals, at_ns| core.handed_over(arrivals, at_ns);
                    subscription.receipts.handed(next, now.wall_ns, count);
                    if delivered.last() != Some(&correlation) {
                        delivered.push(correlation);
                    }
                }
            }
            if out.has_passed() {
                for way in out.passed() {
                    core.figures.passed(&way, now.mono_ns);
                    if let Some(arrivals) = way.arrivals {
                        core.handed_over(arrivals, now.wall_ns);
                    }
                }
            }
        }
        let mut patience = self.patience.get();
        patience.took(self.queued() >= OUT_PRESSED);
        self.patience.set(patience);
        if (full && !self.full()) || core.queued.pressed() {
            // What a full queue or a core without room held back goes on, whoever's bytes have left.
            core.top_up(self);
        } else {
            for &correlation in &delivered {
                core.top_up_one(self, correlation);
            }
        }
        delivered.clear();
        self.delivered.replace(delivered);
        self.wake_reader();
        core.relieve();
    }
}
