//! The router: batches on their way to the shards of a stream, several at a time for each, sent again where needed,
//! and sent on to a closed shard's heirs.
//!
//! A shard has a *leaf* here. Its [`Window`] decides; this file and `router/drive.rs` carry out. On the way without
//! failures whoever pushes a batch queues the frame itself, and the connection's reader hands over the reply, so
//! that no further task is woken; a leaf's driver task only connects, backs off, renews, and follows when the shard
//! was closed: once everything in flight there is decided, what is left goes to its heirs in the order it had, in
//! front of anything newer. So the records of a key keep their order.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_wire::{
    ANY_SEQUENCE, APPEND_PARTIAL, APPEND_TELL, AppendRequest, HashRange, Kind, ProducerStamp,
    ShardDescription, ShardId, StreamDescription, Unpacker, restamp,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::{AppendSink, Connection, Slot};
use crate::identity::Identity;
use crate::outcome::{Decision, Fate};
use crate::parcel::{Body, Parcel, cut_front, keep_front};
use crate::window::{Config, Moved, Time, Window};
use crate::writer::Control;
use crate::{AppendError, AppenderOptions, Client, ClientError};

mod drive;

/// Shards that took over, each with its part of the hash-key space.
pub(crate) type Heirs = Vec<(u32, Vec<HashRange>)>;

/// A handle; when the last is dropped, what was pushed is still sent.
#[derive(Debug)]
pub(crate) struct Router {
    shared: Arc<Shared>,
}

/// What a leaf is started with.
#[derive(Clone, Debug)]
pub(crate) struct LeafStart {
    pub shard: u32,
    pub port: u16,
    pub ranges: Vec<HashRange>,
    /// `None`: the driver asks for one.
    pub producer: Option<ProducerStamp>,
}

impl LeafStart {
    pub(crate) fn of(shard: &ShardDescription, producer: Option<ProducerStamp>) -> LeafStart {
        let ranges = vec![HashRange { start: shard.hash_start, end: shard.hash_end }];
        LeafStart { shard: shard.shard, port: shard.port, ranges, producer }
    }
}

struct Shared {
    client: Client,
    stream: String,
    stream_id: u32,
    options: AppenderOptions,
    identity: Arc<Identity>,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    leaves: BTreeMap<u32, Leaf>,
    /// Shards that had a leaf once, and who has taken over since.
    left: BTreeMap<u32, Heirs>,
    /// Nobody will push any more.
    closed: bool,
    spare: Vec<Body>,
    unpacker: Unpacker,
}

/// One shard.
struct Leaf {
    window: Window<Parcel>,
    sink: Arc<LeafSink>,
    connection: Option<Connection>,
    port: u16,
    ranges: Vec<HashRange>,
    /// When the driver looks again by itself.
    alarm: Option<Time>,
    /// Of the closed shard: what goes to its heirs, in order.
    moved: Vec<(Parcel, Moved)>,
    /// Its heirs could not be found.
    lost: bool,
    /// The sequence number to be expected by the next batch.
    expect: Option<u64>,
    /// Wakes whoever waits for room.
    room: Arc<Notify>,
}

/// Where replies to a leaf's batches go.
struct LeafSink {
    shared: Arc<Shared>,
    shard: u32,
    /// Wakes the driver.
    work: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Router {
    /// For a stream, without any leaf.
    pub(crate) fn new(
        client: Client,
        stream: &StreamDescription,
        mut options: AppenderOptions,
        identity: Arc<Identity>,
    ) -> Router {
        options.inflight = options.inflight.max(1);
        if options.expect.is_some() {
            // What the one behind is to expect is known when the one in front is answered.
            options.inflight = 1;
        }
        Router {
            shared: Arc::new(Shared {
                client,
                stream: stream.name.clone(),
                stream_id: stream.id,
                options,
                identity,
                started: Instant::now(),
                state: Mutex::default(),
            }),
        }
    }

    /// Begins to take batches for a shard, if it does not yet.
    pub(crate) fn open(&self, start: LeafStart) {
        let mut state = self.shared.state();
        let known =
            state.leaves.contains_key(&start.shard) || state.left.contains_key(&start.shard);
        if !known {
            self.shared.open(&mut state, start);
        }
    }

    /// Waits until a batch for this shard (or its heirs) would be sent, or at least not wait for long.
    pub(crate) async fn ready(&self, shard: u32) {
        while let Some(room) = self.full(shard) {
            let mut notified = pin!(room.notified());
            notified.as_mut().enable();
            // From here on it is woken; and it need not be, if there is room by now.
            if self.full(shard).is_some_and(|still| Arc::ptr_eq(&still, &room)) {
                notified.await;
            }
        }
    }

    /// Whether [`ready`](Self::ready) would not wait.
    pub(crate) fn has_room(&self, shard: u32) -> bool {
        self.full(shard).is_none()
    }

    /// Who has taken over from a shard that was left.
    pub(crate) fn heirs(&self, shard: u32) -> Option<Heirs> {
        self.shared.state().left.get(&shard).cloned()
    }

    /// The stamp that a batch pushed now had best carry.
    pub(crate) fn next_stamp(&self, shard: u32) -> ProducerStamp {
        let state = self.shared.state();
        state.leaves.get(&shard).map_or_else(ProducerStamp::default, |l| l.window.next_stamp())
    }

    /// Memory for a batch, used before if there is some.
    pub(crate) fn spare(&self) -> Body {
        let mut state = self.shared.state();
        // The writer may still hold a batch whose reply came very quickly.
        let free = state.spare.iter_mut().position(|body| Arc::get_mut(body).is_some());
        free.map(|at| state.spare.swap_remove(at)).unwrap_or_default()
    }

    /// Sends a batch, which carries `stamp`, to a shard or to those that took over from it.
    pub(crate) fn push(&self, shard: u32, parcel: Parcel, stamp: ProducerStamp) {
        let shared = &self.shared;
        let now = shared.now();
        shared.push(&mut shared.state(), shard, parcel, stamp, now);
    }

    /// Why the oldest batch that is held up was last refused, of all shards; `None` if none is.
    pub(crate) fn held_up_by(&self) -> Option<ClientError> {
        let state = self.shared.state();
        let causes = state.leaves.values().filter_map(|leaf| leaf.window.held_up_by());
        causes.min_by_key(|(since, _)| *since).map(|(_, cause)| cause.clone())
    }

    /// What wakes whoever waits for room, if there is none.
    fn full(&self, shard: u32) -> Option<Arc<Notify>> {
        let state = self.shared.state();
        let full = |shard: &u32| {
            let leaf = state.leaves.get(shard)?;
            // What cannot be sent on is refused at once.
            let refuses = leaf.window.is_closed() && (leaf.lost || !self.shared.follows());
            (!leaf.window.has_room() && !refuses).then(|| Arc::clone(&leaf.room))
        };
        match state.left.get(&shard) {
            Some(heirs) => heirs.iter().find_map(|(shard, _)| full(shard)),
            None => full(&shard),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.wake_drivers();
    }
}

impl Leaf {
    /// Whether the driver sleeps beyond the time when the next batch may go.
    fn oversleeps(&self) -> bool {
        let due = self.window.next_due();
        due.is_some_and(|due| self.alarm.is_none_or(|alarm| due < alarm))
    }
}

impl State {
    /// Whether there is nothing left to be decided, of any shard: one may still become another's heir.
    fn is_idle(&self) -> bool {
        self.leaves.values().all(|leaf| leaf.window.is_empty() && leaf.moved.is_empty())
    }

    fn wake_drivers(&self) {
        self.leaves.values().for_each(|leaf| leaf.sink.work.notify_one());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        self.started.elapsed()
    }

    /// A batch that expects a sequence number expects it of this very shard.
    fn follows(&self) -> bool {
        self.options.expect.is_none()
    }

    fn open(self: &Arc<Self>, state: &mut State, start: LeafStart) {
        let client = self.client.options();
        let config = Config {
            shard: start.shard,
            inflight: self.options.inflight,
            idempotent: self.options.idempotent,
            partial: self.options.partial,
            request_timeout: client.request_timeout,
            retry: client.retry,
        };
        let sink = LeafSink { shared: Arc::clone(self), shard: start.shard, work: Notify::new() };
        let sink = Arc::new(sink);
        let leaf = Leaf {
            window: Window::new(config, start.producer, fastrand::Rng::new()),
            sink: Arc::clone(&sink),
            connection: None,
            port: start.port,
            ranges: start.ranges,
            alarm: None,
            moved: Vec::new(),
            lost: false,
            expect: self.options.expect,
            room: Arc::default(),
        };
        state.leaves.insert(start.shard, leaf);
        tokio::spawn(drive::drive(sink));
    }

    fn push(
        self: &Arc<Self>,
        state: &mut State,
        shard: u32,
        parcel: Parcel,
        stamp: ProducerStamp,
        now: Time,
    ) {
        if let Some(leaf) = state.leaves.get_mut(&shard) {
            let records = parcel.records;
            leaf.window.push(parcel, records, stamp, now);
            self.advance(state, shard, now);
            // A driver sleeps until the oldest attempt or batch may time out, which is before this one's; so it is
            // only woken if it sleeps without an alarm, or if the pace of a quota is what keeps this one.
            let due = |leaf: &&Leaf| leaf.alarm.is_none() || leaf.oversleeps();
            if let Some(leaf) = state.leaves.get(&shard).filter(due) {
                leaf.sink.work.notify_one();
            }
            return;
        }
        let heirs = state.left.get(&shard).cloned().unwrap_or_default();
        self.divide(state, parcel, Moved { first: 0, cut: 0 }, &heirs, now);
    }

    /// Sends what is left of a batch on to those who took over.
    fn divide(
        self: &Arc<Self>,
        state: &mut State,
        parcel: Parcel,
        moved: Moved,
        heirs: &Heirs,
        now: Time,
    ) {
        let whole = parcel.clone();
        match parcel.divide(moved, heirs, &mut state.unpacker) {
            Ok(parts) if !parts.is_empty() => {
                for (shard, part) in parts {
                    let unlike_any =
                        ProducerStamp { sequence: u64::MAX, ..ProducerStamp::default() };
                    self.push(state, shard, part, unlike_any, now);
                }
            }
            divided => {
                let reason = match divided {
                    Err(error) => format!("a batch cannot be divided: {error}"),
                    Ok(_) => "nobody has taken over from the shard".to_owned(),
                };
                let error = AppendError::NotStored(ClientError::Protocol(reason));
                whole.settle_from(moved.first, Fate::Failed(error));
            }
        }
    }

    /// After events: tells outcomes, sends what may now go, wakes whom it concerns.
    fn advance(self: &Arc<Self>, state: &mut State, shard: u32, now: Time) {
        let State { leaves, spare, unpacker, closed, .. } = &mut *state;
        let Some(leaf) = leaves.get_mut(&shard) else { return };
        let any = self.collect(leaf, spare);
        self.pump(leaf, unpacker, now);
        if any {
            leaf.room.notify_waiters();
            if leaf.window.is_empty() && leaf.window.is_closed() {
                leaf.sink.work.notify_one();
            }
        }
        if any && *closed && state.is_idle() {
            state.wake_drivers();
        }
    }

    /// Takes decided batches out of the window; whether there were any. Of the one that is decided in parts, those.
    fn collect(&self, leaf: &mut Leaf, spare: &mut Vec<Body>) -> bool {
        let mut any = false;
        while let Some(settled) = leaf.window.pop_settled() {
            any = true;
            let parcel = settled.body;
            settled.runs.iter().for_each(|run| parcel.settle(run));
            match settled.moved {
                Some(moved) if self.follows() => leaf.moved.push((parcel, moved)),
                Some(moved) => {
                    parcel.settle_from(moved.first, Fate::Failed(AppendError::ShardClosed));
                }
                None if spare.len() < self.options.inflight + 2 => spare.push(parcel.body),
                None => {}
            }
        }
        if let Some((runs, parcel)) = leaf.window.take_decided() {
            runs.iter().for_each(|run| parcel.settle(run));
        }
        any
    }

    /// Sends what is to be sent now, as far as the connection takes it; the driver sees to the rest.
    fn pump(&self, leaf: &mut Leaf, unpacker: &mut Unpacker, now: Time) {
        let Leaf { window, connection, sink, expect, .. } = leaf;
        while window.wants_to_send(now) {
            let Some(open) = connection.as_ref() else { return sink.work.notify_one() };
            // Full or broken: the driver waits or connects anew.
            let Ok(permit) = open.try_permit() else { return sink.work.notify_one() };
            let Some(send) = window.next_send(now) else { return };
            let body = &mut send.body.body;
            if send.cut > 0
                && let Ok(rest) = cut_front(body, send.cut, unpacker)
            {
                *body = Arc::new(rest);
            }
            if send.restamp {
                let bytes: &mut Vec<u8> = Arc::make_mut(body);
                restamp(bytes, send.stamp);
            }
            let piece = send.piece.map(|records| keep_front(body, records, unpacker));
            let body = match piece {
                Some(Ok(piece)) => Arc::new(piece),
                _ => Arc::clone(body),
            };
            let (index, attempt) = (send.index, send.attempt);
            let slot = Slot::Append { sink: Arc::<LeafSink>::clone(sink), index, attempt };
            let control = Control::fixed(self.request(sink.shard, *expect).to_array());
            if permit.submit(slot, Kind::Append, control, Some(body)).is_err() {
                window.unsent(index);
                return sink.work.notify_one();
            }
        }
    }

    fn request(&self, shard: u32, expect: Option<u64>) -> AppendRequest {
        let timeout = self.client.options().request_timeout;
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let mut request = AppendRequest::new(ShardId { stream: self.stream_id, shard }, timeout_ms);
        let partial = if self.options.partial { APPEND_PARTIAL } else { 0 };
        request.flags = (partial | APPEND_TELL).into();
        request.expected_sequence = expect.unwrap_or(ANY_SEQUENCE).into();
        request
    }

    /// Tells a leaf's window of an event.
    fn report(self: &Arc<Self>, shard: u32, event: impl FnOnce(&mut Leaf, Time)) {
        let now = self.now();
        let mut state = self.state();
        let Some(leaf) = state.leaves.get_mut(&shard) else { return };
        event(leaf, now);
        self.advance(&mut state, shard, now);
        let due = |leaf: &&Leaf| leaf.window.in_trouble() || leaf.oversleeps();
        if let Some(leaf) = state.leaves.get(&shard).filter(due) {
            leaf.sink.work.notify_one();
        }
    }

    /// Waits until just after `alarm`; for ever without one.
    async fn until(&self, alarm: Option<Time>) {
        let after = alarm.map(|alarm| alarm.saturating_add(Duration::from_micros(1)));
        // Later than there is time for is never.
        match after.and_then(|after| self.started.checked_add(after)) {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl AppendSink for LeafSink {
    fn replied(self: Arc<Self>, index: u64, attempt: u32, result: Result<Decision, ClientError>) {
        self.shared.report(self.shard, |leaf, now| match result {
            Ok(reply) => {
                if leaf.expect.is_some() && reply.stored > 0 {
                    leaf.expect = Some(reply.base_sequence + u64::from(reply.stored));
                }
                leaf.window.replied(index, attempt, &reply, now);
            }
            Err(cause) => leaf.window.failed(index, attempt, cause, now),
        });
    }
}
