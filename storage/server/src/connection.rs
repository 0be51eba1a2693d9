//! One connection: a reader task that is never cancelled (a dropped read would swallow bytes), a writer
//! task, and what both share. To end a connection early its socket is shut down.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater_engine::Chunk;
use highwater_engine::quota::{Meters, Quotas};
use highwater_wire::{Decoded, ErrorCode, Frame, Kind, WireError, decode_frame, encode_error};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use crate::core_state::CoreState;
use crate::filter::Filtering;
use crate::flow::Flow;
use crate::options::bounds::{
    APPEND_WAIT_MS, FRAME_SLOW_S, FRAME_STALL_S, GREETING_MS, LINGER_MS, OUT_HIGH, OUT_PRESSED,
    OUT_SHARE, PENDING,
};
use crate::outgoing::{Common, Outgoing, Queued, Sent, Way, advance};
use crate::patience::{Patience, Peer};
use crate::receipts::Receipts;
use crate::receive::{Exhausted, ReceiveBuffer};
use crate::request::frame_error;
use crate::router::RemoteCredit;
use crate::session::{self, Step};

/// Buffers of one `writev`: IOV_MAX.
const WRITE_BUFS: usize = 1024;
/// Bytes of one `writev`, about.
const WRITE_BYTES: usize = 1 << 20;

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
    /// Of these, those for the control thread.
    pub controls: Cell<usize>,
    /// Bytes reserved for fetches under way.
    pub fetching: Cell<usize>,
    pub greeted: Cell<bool>,
    /// What the peer calls itself.
    name: RefCell<String>,
    /// The meters of that name, as of so many changes.
    meters: RefCell<(u64, Option<Arc<Meters>>)>,
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
            controls: Cell::new(0),
            fetching: Cell::new(0),
            greeted: Cell::new(false),
            name: RefCell::default(),
            meters: RefCell::default(),
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
        let mut delivered = false;
        {
            let mut out = self.out.borrow_mut();
            let mut subscriptions = self.subscriptions.borrow_mut();
            let now = core.clock.now();
            for Sent { subscription, next, bytes, held } in out.sent(n) {
                core.held.set(core.held.get().saturating_sub(held));
                if let Some(subscription) = subscriptions.get_mut(&subscription) {
                    subscription.flow.sent(bytes as u64);
                    let count = |arrivals, at_ns| core.handed_over(arrivals, at_ns);
                    subscription.receipts.handed(next, now.wall_ns, count);
                    delivered = true;
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
        // What a full queue held back goes on, whoever's bytes have left it.
        if delivered || (full && !self.full()) {
            core.top_up(self);
        }
        self.wake_reader();
        core.relieve();
    }
}

/// Serves a connection until it is over.
pub(crate) async fn serve(core: Rc<CoreState>, connection: Rc<Connection>) {
    let _registered = core.register(&connection);
    let writer = tokio_uring::spawn(write(Rc::clone(&core), Rc::clone(&connection)));
    read(&core, &connection).await;
    core.unsubscribe_all(&connection);
    connection.out_ready.notify_one();
    if writer.await.is_err() {
        // It panicked; the connection's accounts are not to be trusted.
        core.fail("a connection's writer panicked");
    }
    let held = connection.out.borrow_mut().clear();
    core.held.set(core.held.get().saturating_sub(held));
    core.relieve();
}

/// Refuses a connection beyond the bound.
pub(crate) async fn turn_away(core: Rc<CoreState>, connection: Rc<Connection>, error: WireError) {
    connection.refuse(&core, 0, &error);
    connection.finish(core.clock.now().mono_ns);
    serve(core, connection).await;
}

async fn read(core: &Rc<CoreState>, connection: &Connection) {
    let mut buffer = ReceiveBuffer::new(Rc::clone(&core.receive_budget));
    let mut need = 0;
    loop {
        while !connection.may_read() {
            connection.readable.notified().await;
        }
        let Ok(buf) = lend(core, connection, &mut buffer, need).await else {
            end(core, connection, &session::receive_memory_spent(need));
            return discard(connection).await;
        };
        let filled = buf.len();
        connection.frame_ticks.set(0);
        connection.unfinished.set(filled > 0);
        let (result, slice) = connection.socket.read(buf.slice(filled..)).await;
        connection.unfinished.set(false);
        let read = match result {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                buffer.give_back(slice.into_inner(), 0);
                continue;
            }
            Err(_) => return connection.cut(),
        };
        buffer.give_back(slice.into_inner(), read);
        if read == 0 {
            if connection.state.get() == State::Open {
                connection.state.set(State::Answering);
            }
            return;
        }
        if connection.state.get() > State::Open {
            return discard(connection).await;
        }
        match frames(core, connection, &mut buffer).await {
            Ok(bytes) => need = bytes,
            Err(error) => {
                if error.code != ErrorCode::UnsupportedVersion {
                    core.figures.malformed();
                }
                end(core, connection, &error);
                return discard(connection).await;
            }
        }
    }
}

/// The receive buffer with room for the next frame. Where there is no memory for that the peer waits until
/// others have had theirs, as long as they may take for it.
async fn lend(
    core: &CoreState,
    connection: &Connection,
    buffer: &mut ReceiveBuffer,
    need: usize,
) -> Result<Vec<u8>, Exhausted> {
    let deadline = Instant::now() + Duration::from_secs(2 * u64::from(FRAME_STALL_S));
    loop {
        // From here on nothing that comes back is missed.
        let returned = core.receive_budget.returned();
        match buffer.lend(need) {
            Err(Exhausted) if connection.state.get() == State::Open => tokio::select! {
                () = returned => {}
                // It is to end.
                () = connection.readable.notified() => {}
                () = tokio::time::sleep_until(deadline) => return Err(Exhausted),
            },
            result => return result,
        }
    }
}

/// Handles all whole frames in the buffer; how many bytes the next one needs.
async fn frames(
    core: &Rc<CoreState>,
    connection: &Connection,
    buffer: &mut ReceiveBuffer,
) -> Result<usize, WireError> {
    let mut worked = false;
    let need = loop {
        // One read may bring many requests with long replies.
        while !connection.may_read() {
            if std::mem::take(&mut worked) {
                core.poll();
            }
            connection.readable.notified().await;
        }
        if connection.state.get() > State::Open {
            // The next read looks after it.
            break 0;
        }
        let (step, used, correlation) = match decode_frame(buffer.bytes(), core.max_frame) {
            Ok(Decoded::Frame(frame, used)) => {
                connection.slow_ticks.set(0);
                core.figures.requested();
                let mut step = session::handle(core, connection, &frame);
                if let Step::Full { wait_ms, .. } = step {
                    core.figures.stalled();
                    let wait_ms = wait_ms.min(APPEND_WAIT_MS);
                    step = wait_for_memory(core, connection, &frame, wait_ms).await;
                    if matches!(step, Step::Full { .. }) {
                        session::give_up(core, &frame);
                    }
                }
                (step, used, frame.correlation)
            }
            Ok(Decoded::Need(need)) => break need,
            Err(error) => {
                if worked {
                    core.poll();
                }
                return Err(frame_error(&error));
            }
        };
        buffer.consume(used);
        match step {
            Step::Done => {}
            Step::Worked => worked = true,
            Step::Full { error, .. } => connection.refuse(core, correlation, &error),
            Step::End(error) => {
                if worked {
                    core.poll();
                }
                return Err(error);
            }
        }
    };
    // Submit what this read brought as one, and reap what is there: under load the eventfd hardly ever
    // has to wake anybody.
    if worked {
        core.poll();
    }
    Ok(need)
}

/// Rather than refuse an append for want of memory at once, leave it in the receive buffer until a commit
/// group has given some back: the peer feels it as TCP backpressure.
async fn wait_for_memory(
    core: &Rc<CoreState>,
    connection: &Connection,
    frame: &Frame<'_>,
    wait_ms: u64,
) -> Step {
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    loop {
        // What came before it in this read is submitted, or it would wait for itself.
        core.poll();
        let step = session::handle(core, connection, frame);
        let Step::Full { error, .. } = &step else { return step };
        let now = Instant::now();
        if now >= deadline {
            return step;
        }
        let again = now + Duration::from_millis(error.retry_after_ms.max(1).into());
        // Not a socket operation: its wait may be given up.
        let _ = tokio::time::timeout_at(deadline.min(again), core.space.notified()).await;
    }
}

/// Says why, and begins to end.
fn end(core: &CoreState, connection: &Connection, error: &WireError) {
    connection.refuse(core, 0, error);
    connection.finish(core.clock.now().mono_ns);
}

/// Reads on without looking, until the peer has closed: closing a socket with bytes unread would reset it,
/// and the peer might never see the last reply.
async fn discard(connection: &Connection) {
    let mut buf = vec![0; 16 << 10];
    loop {
        let (result, back) = connection.socket.read(buf).await;
        buf = back;
        match result {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return connection.cut(),
        }
    }
}

async fn write(core: Rc<CoreState>, connection: Rc<Connection>) {
    let mut bufs = Vec::new();
    loop {
        if bufs.is_empty() {
            connection.out.borrow_mut().take(WRITE_BUFS, WRITE_BYTES, &mut bufs);
        }
        if connection.state.get() == State::Over {
            return;
        }
        if bufs.is_empty() {
            match connection.state.get() {
                State::Answering if connection.pending.get() == 0 => break,
                State::Flushing => break,
                _ => connection.out_ready.notified().await,
            }
            continue;
        }
        let (result, back) = connection.socket.writev(bufs).await;
        bufs = back;
        match result {
            Ok(n) if n > 0 => {
                advance(&mut bufs, n);
                connection.sent(&core, n);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return connection.cut(),
        }
    }
    // All is out. The peer reads the end and closes; it has a while for that.
    connection.state.set(State::Flushing);
    let _ = connection.socket.shutdown(Shutdown::Write);
    let linger = core.clock.now().mono_ns + LINGER_MS * 1_000_000;
    connection.deadline.set(Some(linger));
}
