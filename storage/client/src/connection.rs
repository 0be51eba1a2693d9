//! One connection: a reader task, a writer task, a bounded queue between callers and the writer, and the
//! table of what waits for a reply.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use highwater_wire::{
    AppendReply, ClusterInfo, ControlReply, ControlRequest, Decoded, DeliverHeader,
    FRAME_HEADER_LEN, FilterCounts, FilterTally, Frame, Kind, PROTOCOL_VERSION, SubscribeReply,
    decode_control_reply, decode_error, decode_frame, encode_control_request, encode_frame,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::outcome::Decision;
use crate::writer::{Control, Outgoing, write_loop};
use crate::{ClientError, ClientOptions, ConnectError};

/// Frames waiting for the writer, at most.
const QUEUE: usize = 1024;
/// Largest frame taken from a server, in bytes: the largest control part and as much data.
const MAX_FRAME: usize = 64 << 20;
/// Bytes read at once, at most, unless a frame is larger.
const READ: usize = 256 << 10;
/// The receive buffer is renewed when less room than this is left.
const MIN_READ: usize = 32 << 10;
/// A connection on which nothing happens is probed after twice this time, then as often, as servers do it.
const PROBE: Duration = Duration::from_secs(15);

/// Where the fate of an append goes. Called from the connection's tasks; must not block.
pub(crate) trait AppendSink: Send + Sync {
    /// The reply to this attempt at this batch, or why there is none.
    fn replied(self: Arc<Self>, index: u64, attempt: u32, result: Result<Decision, ClientError>);
}

/// A reply as received.
#[derive(Debug)]
pub(crate) struct Reply {
    pub kind: Kind,
    pub control: Bytes,
    pub data: Bytes,
}

/// What a subscription hears. Bounded by the credit given to the server, which sends only so many deliveries without
/// records until it hears of the consumer.
#[derive(Debug)]
pub(crate) enum SubscriptionEvent {
    Started {
        high_water: u64,
    },
    /// With what a filter found, if there is one.
    Delivery {
        high_water: u64,
        next: u64,
        sent_ns: u64,
        tally: Option<FilterTally>,
        data: Bytes,
    },
    Ended(ClientError),
}

/// Who waits for the frames of a correlation id.
pub(crate) enum Slot {
    Once(oneshot::Sender<Result<Reply, ClientError>>),
    Append { sink: Arc<dyn AppendSink>, index: u64, attempt: u32 },
    Subscription(mpsc::UnboundedSender<SubscriptionEvent>),
}

impl Slot {
    fn fail(self, error: ClientError) {
        match self {
            // A caller who left needs no answer.
            Slot::Once(reply) => drop(reply.send(Err(error))),
            Slot::Append { sink, index, attempt } => sink.replied(index, attempt, Err(error)),
            Slot::Subscription(events) => drop(events.send(SubscriptionEvent::Ended(error))),
        }
    }
}

/// What callers and the reader share.
struct Shared {
    address: String,
    pending: Mutex<Pending>,
    started: Instant,
    /// When bytes came last, milliseconds since `started`.
    heard_ms: AtomicU64,
}

#[derive(Default)]
struct Pending {
    slots: HashMap<u64, Slot>,
    next: u64,
    dead: Option<ClientError>,
}

impl Shared {
    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Disconnected { address: self.address.clone(), reason: reason.into() }
    }

    /// Ends the connection for everybody who waits, outside the lock: they may ask for it again.
    fn fail_all(&self, error: &ClientError) {
        let slots = {
            let mut pending = self.pending();
            pending.dead.get_or_insert_with(|| error.clone());
            std::mem::take(&mut pending.slots)
        };
        for slot in slots.into_values() {
            slot.fail(error.clone());
        }
    }
}

/// A handle; the connection closes when the last is dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
    reader: Arc<AbortOnRequest>,
}

/// Lets a handle end the reader, and with it the connection.
struct AbortOnRequest(tokio::sync::Notify);

/// Room for one frame in the queue.
pub(crate) struct Permit<'a> {
    connection: &'a Connection,
    permit: mpsc::Permit<'a, Outgoing>,
}

/// The queue is full, or the connection has ended.
#[derive(Debug)]
pub(crate) struct NoRoom;

impl Connection {
    /// Connects to `host`:`port` and exchanges greetings.
    pub(crate) async fn open(
        host: &str,
        port: u16,
        options: &ClientOptions,
    ) -> Result<(Connection, ClusterInfo), ConnectError> {
        let address =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let after = options.connect_timeout;
        match tokio::time::timeout(after, open(host, port, &address, options)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { address, after }),
        }
    }

    /// Whether requests on it can only fail.
    pub(crate) fn is_dead(&self) -> bool {
        self.outgoing.is_closed() || self.shared.pending().dead.is_some()
    }

    /// Whether nothing at all came for this long.
    pub(crate) fn silent_for(&self, time: Duration) -> bool {
        let heard = Duration::from_millis(self.shared.heard_ms.load(Ordering::Relaxed));
        self.shared.started.elapsed().saturating_sub(heard) >= time
    }

    /// Ends it if nothing at all came for this long: whoever is there is not.
    pub(crate) fn end_if_silent(&self, time: Duration) {
        if self.silent_for(time) {
            self.end();
        }
    }

    /// Ends it; everybody who waits is told.
    pub(crate) fn end(&self) {
        self.reader.0.notify_one();
    }

    /// Waits for room in the queue.
    pub(crate) async fn permit(&self) -> Result<Permit<'_>, ClientError> {
        match self.outgoing.reserve().await {
            Ok(permit) => Ok(Permit { connection: self, permit }),
            Err(_) => Err(self.closed()),
        }
    }

    /// The same, for at most `after`.
    pub(crate) async fn permit_within(&self, after: Duration) -> Result<Permit<'_>, ClientError> {
        match tokio::time::timeout(after, self.permit()).await {
            Ok(permit) => permit,
            Err(_) => {
                self.end_if_silent(after);
                Err(ClientError::TimedOut { after })
            }
        }
    }

    /// Room in the queue if there is some now.
    pub(crate) fn try_permit(&self) -> Result<Permit<'_>, NoRoom> {
        match self.outgoing.try_reserve() {
            Ok(permit) => Ok(Permit { connection: self, permit }),
            Err(_) => Err(NoRoom),
        }
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn request(
        &self,
        kind: Kind,
        control: Control,
        body: Option<Arc<Vec<u8>>>,
        after: Duration,
    ) -> Result<Reply, ClientError> {
        let exchange = async {
            let (sender, reply) = oneshot::channel();
            let permit = self.permit().await?;
            let correlation = permit.submit(Slot::Once(sender), kind, control, body)?;
            let _forget = Forget { connection: self, correlation };
            reply.await.unwrap_or_else(|_| Err(self.closed()))
        };
        match tokio::time::timeout(after, exchange).await {
            Ok(result) => result,
            Err(_) => {
                self.end_if_silent(after);
                Err(ClientError::TimedOut { after })
            }
        }
    }

    /// No longer waits for frames of this correlation id.
    pub(crate) fn forget(&self, correlation: u64) {
        self.shared.pending().slots.remove(&correlation);
    }

    fn closed(&self) -> ClientError {
        let dead = self.shared.pending().dead.clone();
        dead.unwrap_or_else(|| self.shared.lost("connection closed"))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Permit<'_> {
    /// Queues a request; its correlation id. Fails, with nothing sent, if the connection has ended.
    pub(crate) fn submit(
        self,
        slot: Slot,
        kind: Kind,
        control: Control,
        body: Option<Arc<Vec<u8>>>,
    ) -> Result<u64, ClientError> {
        let correlation = {
            let mut pending = self.connection.shared.pending();
            if let Some(dead) = &pending.dead {
                return Err(dead.clone());
            }
            pending.next += 1;
            let correlation = pending.next;
            pending.slots.insert(correlation, slot);
            correlation
        };
        self.permit.send(Outgoing { kind, correlation, control, body });
        Ok(correlation)
    }

    /// Queues a frame that has no reply.
    pub(crate) fn send(self, kind: Kind, control: Control, body: Option<Arc<Vec<u8>>>) {
        self.permit.send(Outgoing { kind, correlation: 0, control, body });
    }
}

/// Removes the slot of a request whose caller has left.
struct Forget<'a> {
    connection: &'a Connection,
    correlation: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.forget(self.correlation);
    }
}

async fn open(
    host: &str,
    port: u16,
    address: &str,
    options: &ClientOptions,
) -> Result<(Connection, ClusterInfo), ConnectError> {
    let io_error = |error: io::Error| ConnectError::Io {
        address: address.to_owned(),
        kind: error.kind(),
        message: error.to_string(),
    };
    let mut stream = TcpStream::connect((host, port)).await.map_err(io_error)?;
    stream.set_nodelay(true).map_err(io_error)?;
    // A consumer only listens: it would never notice that the machine at the other end is gone.
    let keepalive = TcpKeepalive::new().with_time(PROBE * 2).with_interval(PROBE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(io_error)?;
    let mut buffer = BytesMut::with_capacity(READ);
    let info = greet(&mut stream, &mut buffer, address, options, io_error).await?;

    let (read, write) = stream.into_split();
    let (outgoing, queue) = mpsc::channel(QUEUE);
    let shared = Arc::new(Shared {
        address: address.to_owned(),
        // The greeting was number 1.
        pending: Mutex::new(Pending { next: 1, ..Pending::default() }),
        started: Instant::now(),
        heard_ms: AtomicU64::new(0),
    });
    let end = Arc::new(AbortOnRequest(tokio::sync::Notify::new()));
    let writer = tokio::spawn(write_loop(write, queue));
    tokio::spawn(run_reader(read, buffer, writer, Arc::clone(&shared), Arc::clone(&end)));
    Ok((Connection { shared, outgoing, reader: end }, info))
}

async fn greet(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    address: &str,
    options: &ClientOptions,
    io_error: impl Fn(io::Error) -> ConnectError,
) -> Result<ClusterInfo, ConnectError> {
    let protocol = |reason: String| ConnectError::Protocol { address: address.to_owned(), reason };
    let hello = ControlRequest::Hello { protocol: PROTOCOL_VERSION, client: options.name.clone() };
    let mut frame = Vec::new();
    encode_frame(&mut frame, Kind::Control, 1, &encode_control_request(&hello), &[]);
    stream.write_all(&frame).await.map_err(&io_error)?;
    let (used, info) = loop {
        match decode_frame(buffer, MAX_FRAME).map_err(|e| protocol(e.to_string()))? {
            Decoded::Need(_) => {
                if stream.read_buf(buffer).await.map_err(&io_error)? == 0 {
                    return Err(protocol("connection closed instead of a greeting".to_owned()));
                }
            }
            Decoded::Frame(frame, used) => match frame.kind {
                Kind::Error => {
                    let error = decode_error(frame.control);
                    return Err(ConnectError::Refused { address: address.to_owned(), error });
                }
                Kind::ControlReply => match decode_control_reply(frame.control) {
                    Ok(ControlReply::Hello(info)) => break (used, info),
                    Ok(_) => return Err(protocol("the reply is no greeting".to_owned())),
                    Err(error) => return Err(protocol(error.message)),
                },
                kind => return Err(protocol(format!("a {kind:?} frame instead of a greeting"))),
            },
        }
    };
    if info.protocol != PROTOCOL_VERSION {
        let (server, own) = (info.protocol, PROTOCOL_VERSION);
        return Err(protocol(format!("protocol version {server}, expected {own}")));
    }
    let _greeting = buffer.split_to(used);
    Ok(info)
}

async fn run_reader(
    read: OwnedReadHalf,
    buffer: BytesMut,
    mut writer: JoinHandle<io::Result<()>>,
    shared: Arc<Shared>,
    end: Arc<AbortOnRequest>,
) {
    let error = tokio::select! {
        error = read_loop(read, buffer, &shared) => error,
        written = &mut writer => match written {
            Ok(Ok(())) => shared.lost("closed by this client"),
            Ok(Err(error)) => shared.lost(error.to_string()),
            Err(error) => shared.lost(format!("the writer stopped: {error}")),
        },
        () = end.0.notified() => shared.lost("given up for want of any reply"),
    };
    writer.abort();
    shared.fail_all(&error);
}

async fn read_loop(mut read: OwnedReadHalf, mut buffer: BytesMut, shared: &Shared) -> ClientError {
    loop {
        let need = match take_frames(&mut buffer, shared) {
            Ok(need) => need,
            Err(error) => return error,
        };
        let missing = need.saturating_sub(buffer.len());
        if buffer.capacity() - buffer.len() < missing.max(MIN_READ) {
            // Reuses the memory if no delivery holds on to it.
            buffer.reserve(missing.max(READ));
        }
        match read.read_buf(&mut buffer).await {
            Ok(0) => return shared.lost("closed by the server"),
            Ok(_) => {
                let now = u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                shared.heard_ms.store(now, Ordering::Relaxed);
            }
            Err(error) => return shared.lost(error.to_string()),
        }
    }
}

/// Hands out the whole frames at the front of `buffer`; how many bytes the next will have in all.
fn take_frames(buffer: &mut BytesMut, shared: &Shared) -> Result<usize, ClientError> {
    loop {
        match decode_frame(buffer, MAX_FRAME) {
            Err(error) => return Err(shared.lost(error.to_string())),
            Ok(Decoded::Need(bytes)) => return Ok(bytes),
            Ok(Decoded::Frame(frame, used)) => {
                if frame.kind == Kind::Error && frame.correlation == 0 {
                    return Err(shared.lost(decode_error(frame.control).message));
                }
                if let Some(incoming) = Incoming::small(&frame) {
                    let correlation = frame.correlation;
                    let _frame = buffer.split_to(used);
                    incoming.hand_out(correlation, shared);
                } else {
                    let (kind, correlation) = (frame.kind, frame.correlation);
                    let control_end = FRAME_HEADER_LEN + frame.control.len();
                    let bytes = buffer.split_to(used).freeze();
                    let control = bytes.slice(FRAME_HEADER_LEN..control_end);
                    let reply = Reply { kind, control, data: bytes.slice(control_end..) };
                    Incoming::Whole(reply).hand_out(correlation, shared);
                }
            }
        }
    }
}

/// A frame on its way to whoever waits for it.
enum Incoming {
    Appended(Decision),
    Refused(ClientError),
    Whole(Reply),
}

impl Incoming {
    /// Frames that are read in place, without a share in the buffer.
    fn small(frame: &Frame<'_>) -> Option<Incoming> {
        match frame.kind {
            Kind::AppendReply => {
                let reply = AppendReply::view(frame.control)?;
                let contradiction = || {
                    let reason = "a reply to an append that contradicts itself";
                    Incoming::Refused(ClientError::Protocol(reason.to_owned()))
                };
                let decision = Decision::read(reply, frame.data).map(Incoming::Appended);
                Some(decision.unwrap_or_else(contradiction))
            }
            Kind::Error => {
                Some(Incoming::Refused(ClientError::Refused(decode_error(frame.control))))
            }
            _ => None,
        }
    }

    fn hand_out(self, correlation: u64, shared: &Shared) {
        let mut pending = shared.pending();
        if let Incoming::Whole(reply) = &self
            && let Some(Slot::Subscription(events)) = pending.slots.get(&correlation)
        {
            // A failed send: the consumer has left; the slot goes with its handle.
            drop(events.send(subscription_event(reply)));
            return;
        }
        // Nobody waits for a reply that came too late.
        let Some(slot) = pending.slots.remove(&correlation) else { return };
        drop(pending);
        match (slot, self) {
            (slot, Incoming::Refused(error)) => slot.fail(error),
            (Slot::Append { sink, index, attempt }, Incoming::Appended(decision)) => {
                sink.replied(index, attempt, Ok(decision));
            }
            (Slot::Once(sender), Incoming::Whole(reply)) => drop(sender.send(Ok(reply))),
            (slot, Incoming::Appended(_)) => slot.fail(unexpected(Kind::AppendReply)),
            (slot, Incoming::Whole(reply)) => slot.fail(unexpected(reply.kind)),
        }
    }
}

fn subscription_event(reply: &Reply) -> SubscriptionEvent {
    let event = match reply.kind {
        Kind::SubscribeReply => SubscribeReply::view(&reply.control)
            .map(|r| SubscriptionEvent::Started { high_water: r.high_water.to_native() }),
        Kind::Deliver => delivery(reply, None),
        Kind::DeliverFiltered => {
            tally(reply, DeliverHeader::LEN).and_then(|tally| delivery(reply, Some(tally)))
        }
        _ => None,
    };
    event.unwrap_or_else(|| SubscriptionEvent::Ended(unexpected(reply.kind)))
}

fn delivery(reply: &Reply, tally: Option<FilterTally>) -> Option<SubscriptionEvent> {
    let header = DeliverHeader::view(&reply.control)?;
    Some(SubscriptionEvent::Delivery {
        high_water: header.high_water.to_native(),
        next: header.next.to_native(),
        sent_ns: header.sent_ns.to_native(),
        tally,
        data: reply.data.clone(),
    })
}

/// What a filter found, as told behind the first `header` bytes of a control part.
pub(crate) fn tally(reply: &Reply, header: usize) -> Option<FilterTally> {
    FilterCounts::view(reply.control.get(header..)?).map(FilterTally::from)
}

/// A reply of the wrong kind or with a control part that is too short.
pub(crate) fn unexpected(kind: Kind) -> ClientError {
    ClientError::Protocol(format!("{kind:?} frame out of place or too short"))
}
