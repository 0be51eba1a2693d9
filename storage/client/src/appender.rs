//! The appender: ready batches of one shard, pipelined, sent again where needed, acknowledged in order.
//!
//! [`Window`] decides; this file carries out. On the way without failures the caller of
//! [`Appender::append`] queues the frame itself and the connection's reader hands over the reply, so no
//! further task is woken; the driver task only connects, backs off and renews.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_wire::{
    AppendRequest, BatchBuilder, BatchHeader, Kind, ProducerStamp, ShardId, StreamDescription,
    crc32c,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::find;
use crate::connection::{AppendSink, Connection, Slot};
use crate::window::{Config, Time, Window};
use crate::writer::Control;
use crate::{AppendError, AppenderOptions, Client, ClientError};

/// Outcomes kept for [`Acks`] beyond the window; with more unread, [`Appender::append`] waits.
const UNREAD: usize = 4096;

/// What the server said about a stored batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendAck {
    /// Sequence number of the first record.
    pub base_sequence: u64,
    /// Records in the batch.
    pub record_count: u32,
    /// When the server received it, nanoseconds since 1970 UTC.
    pub arrival_ns: u64,
    /// An earlier attempt had stored it.
    pub duplicate: bool,
}

/// The outcome of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// As given to [`Appender::append`].
    pub tag: u64,
    /// The outcome.
    pub result: Result<AppendAck, AppendError>,
}

/// Sends batches to one shard, several at a time, in order. After it is dropped, what was appended is
/// still sent and its outcomes still come.
#[derive(Debug)]
pub struct Appender {
    shared: Arc<Shared>,
}

/// The outcomes of an [`Appender`]'s batches, in order of sending.
#[derive(Debug)]
pub struct Acks {
    shared: Arc<Shared>,
}

/// Memory of a batch: the window keeps it to send it again, the connection's writer while it writes.
type Body = Arc<Vec<u8>>;

struct Shared {
    client: Client,
    control: [u8; AppendRequest::LEN],
    port: u16,
    max_batch: u32,
    started: Instant,
    state: Mutex<State>,
    /// Wakes the driver.
    work: Notify,
    /// Wakes the appender: there is room.
    room: Notify,
    /// Wakes the reader of outcomes.
    unread: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("port", &self.port).finish_non_exhaustive()
    }
}

struct State {
    window: Window<Body>,
    connection: Option<Connection>,
    results: VecDeque<Ack>,
    spare: Vec<Body>,
    spares: usize,
    /// When the driver looks again by itself.
    alarm: Option<Time>,
    /// The appender is gone.
    closed: bool,
    /// The outcomes interest nobody.
    unwatched: bool,
}

/// What the driver is to do next.
enum Step {
    Connect,
    Renew,
    /// The connection's queue is full.
    AwaitQueue(Connection, Option<Time>),
    Sleep(Option<Time>),
    Exit,
}

impl Appender {
    pub(crate) async fn start(
        client: Client,
        stream: &StreamDescription,
        shard: u32,
        options: AppenderOptions,
    ) -> Result<(Appender, Acks), ClientError> {
        let port = find(stream, shard)?.port;
        let producer = match options.idempotent {
            true => client.new_producer().await?,
            false => ProducerStamp::default(),
        };
        let config = Config {
            inflight: options.inflight.max(1),
            idempotent: options.idempotent,
            request_timeout: client.options().request_timeout,
            retry: client.options().retry,
        };
        let timeout = u32::try_from(config.request_timeout.as_millis()).unwrap_or(u32::MAX);
        let request = AppendRequest::new(ShardId { stream: stream.id, shard }, timeout);
        let state = State {
            connection: None,
            results: VecDeque::new(),
            spare: Vec::new(),
            spares: config.inflight.saturating_add(2),
            alarm: None,
            closed: false,
            unwatched: false,
            window: Window::new(config, producer, fastrand::Rng::new()),
        };
        let shared = Arc::new(Shared {
            control: request.to_array(),
            port,
            max_batch: client.pool().info().max_batch,
            started: Instant::now(),
            state: Mutex::new(state),
            work: Notify::new(),
            room: Notify::new(),
            unread: Notify::new(),
            client,
        });
        tokio::spawn(drive(Arc::clone(&shared)));
        Ok((Appender { shared: Arc::clone(&shared) }, Acks { shared }))
    }

    /// Waits until [`append`](Self::append) would not wait.
    pub async fn ready(&mut self) {
        loop {
            if self.has_room() {
                return;
            }
            self.shared.room.notified().await;
        }
    }

    /// Whether [`append`](Self::append) would not wait.
    pub fn has_room(&self) -> bool {
        self.shared.state().has_room()
    }

    /// Sends the batch in `builder`, which starts anew with recycled memory. Waits while the window is
    /// full, or while 4,096 outcomes are unread; cancelled there, it has done nothing. The outcome comes
    /// from [`Acks`] under `tag`.
    ///
    /// Fails at once, leaving the batch as it is, if it is empty or larger than the server's limit.
    pub async fn append(
        &mut self,
        builder: &mut BatchBuilder,
        tag: u64,
    ) -> Result<(), AppendError> {
        if builder.is_empty() {
            return Err(AppendError::Empty);
        }
        let (bytes, limit) = (builder.len(), self.shared.max_batch);
        if bytes > limit as usize {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        self.ready().await;
        self.shared.push(builder, tag);
        Ok(())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.work.notify_one();
        self.shared.unread.notify_one();
    }
}

impl Acks {
    /// The next outcome; `None` when the appender is gone and every outcome was given out. Cancelled, it
    /// loses nothing.
    pub async fn recv(&mut self) -> Option<Ack> {
        loop {
            {
                let mut state = self.shared.state();
                if let Some(ack) = state.take_result() {
                    self.shared.after_take(state);
                    return Some(ack);
                }
                if state.closed && state.window.is_empty() {
                    return None;
                }
            }
            self.shared.unread.notified().await;
        }
    }

    /// The next outcome if it is there.
    pub fn try_recv(&mut self) -> Option<Ack> {
        let mut state = self.shared.state();
        let ack = state.take_result()?;
        self.shared.after_take(state);
        Some(ack)
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.unwatched = true;
        state.results.clear();
        drop(state);
        self.shared.room.notify_one();
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.window.has_room() && self.results.len() < UNREAD
    }

    fn take_result(&mut self) -> Option<Ack> {
        self.results.pop_front()
    }

    /// Memory nobody else holds. (The writer may still hold a batch whose reply came very quickly.)
    fn spare(&mut self) -> Body {
        let free = self.spare.iter_mut().position(|body| Arc::get_mut(body).is_some());
        free.map(|at| self.spare.swap_remove(at)).unwrap_or_default()
    }

    /// Moves outcomes from the window to their reader; whether there were any.
    fn collect(&mut self) -> bool {
        let mut any = false;
        while let Some((tag, result, body)) = self.window.pop_done() {
            any = true;
            if self.spare.len() < self.spares {
                self.spare.push(body);
            }
            if !self.unwatched {
                self.results.push_back(Ack { tag, result });
            }
        }
        any
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        self.started.elapsed()
    }

    /// Waits until just after `alarm`; for ever without one.
    async fn until(&self, alarm: Option<Time>) {
        match alarm {
            Some(alarm) => {
                let after = alarm.saturating_add(Duration::from_micros(1));
                tokio::time::sleep_until(self.started + after).await;
            }
            None => std::future::pending().await,
        }
    }

    fn push(self: &Arc<Self>, builder: &mut BatchBuilder, tag: u64) {
        let now = self.now();
        let mut state = self.state();
        let records = builder.record_count();
        let mut body = state.spare();
        let stamp = state.window.next_stamp();
        if let Some(memory) = Arc::get_mut(&mut body) {
            let next = std::mem::take(memory);
            *memory = builder.finish_into(stamp, next);
        }
        state.window.push(body, tag, records, now);
        self.pump(&mut state, now);
        // The driver sleeps until the oldest attempt or batch may time out, which is before this one's; so
        // it is only woken if it sleeps without an alarm.
        if state.alarm.is_none() {
            self.work.notify_one();
        }
    }

    /// Sends what is to be sent now, as far as the connection takes it; the driver sees to the rest.
    fn pump(self: &Arc<Self>, state: &mut State, now: Time) {
        let State { window, connection, .. } = state;
        while window.wants_to_send() {
            let Some(open) = connection.as_ref() else { return self.work.notify_one() };
            // Full or broken: the driver waits or connects anew.
            let Ok(permit) = open.try_permit() else { return self.work.notify_one() };
            let Some(send) = window.next_send(now) else { return };
            if send.restamp {
                let bytes: &mut Vec<u8> = Arc::make_mut(send.body);
                restamp(bytes, send.stamp);
            }
            let (index, attempt, body) = (send.index, send.attempt, Arc::clone(send.body));
            let sink = Arc::<Shared>::clone(self);
            let slot = Slot::Append { sink, index, attempt };
            let control = Control::fixed(self.control);
            if permit.submit(slot, Kind::Append, control, Some(body)).is_err() {
                window.unsent(index);
                return self.work.notify_one();
            }
        }
    }

    /// After events: hands out outcomes, sends what may now go, wakes whom it concerns.
    fn advance(self: &Arc<Self>, state: &mut State, now: Time) {
        let any = state.collect();
        self.pump(state, now);
        if any {
            self.unread.notify_one();
            if state.has_room() {
                self.room.notify_one();
            }
            if state.closed && state.window.is_empty() {
                self.work.notify_one();
            }
        }
    }

    fn after_take(&self, state: MutexGuard<'_, State>) {
        if state.results.len() + 1 == UNREAD {
            drop(state);
            self.room.notify_one();
        }
    }

    /// What the driver is to do; it is not woken for less than that.
    fn step(self: &Arc<Self>) -> Step {
        let now = self.now();
        let mut state = self.state();
        let silence = self.client.options().request_timeout;
        if state.window.tick(now)
            && let Some(connection) = &state.connection
            && connection.silent_for(silence)
        {
            connection.end();
        }
        if state.connection.as_ref().is_some_and(Connection::is_dead) {
            state.connection = None;
        }
        self.advance(&mut state, now);
        if state.closed && state.window.is_empty() {
            return Step::Exit;
        }
        if state.window.wants_producer() {
            return Step::Renew;
        }
        if state.window.wants_to_send() {
            let alarm = state.window.next_tick();
            return match &state.connection {
                Some(connection) => Step::AwaitQueue(connection.clone(), alarm),
                None => Step::Connect,
            };
        }
        state.alarm = state.window.next_tick();
        Step::Sleep(state.alarm)
    }

    /// Tells the window what came of a step.
    fn report(self: &Arc<Self>, event: impl FnOnce(&mut State, Time)) {
        let now = self.now();
        let mut state = self.state();
        event(&mut state, now);
        self.advance(&mut state, now);
        if state.window.in_trouble() {
            self.work.notify_one();
        }
    }
}

impl AppendSink for Shared {
    fn replied(self: Arc<Self>, index: u64, attempt: u32, result: Result<AppendAck, ClientError>) {
        self.report(|state, now| match result {
            Ok(ack) => state.window.acked(index, ack, now),
            Err(cause) => state.window.failed(index, attempt, cause, now),
        });
    }
}

/// Connects, backs off, renews the producer, watches the time; ends when nothing is left to do.
async fn drive(shared: Arc<Shared>) {
    loop {
        match shared.step() {
            Step::Exit => {
                shared.unread.notify_one();
                return;
            }
            Step::Connect => match shared.client.pool().to_core(shared.port).await {
                Ok(connection) => shared.report(|state, _| state.connection = Some(connection)),
                Err(error) => shared.report(|state, now| {
                    state.window.unreachable(&ClientError::Connect(error), now);
                }),
            },
            Step::Renew => match shared.client.new_producer_once().await {
                Ok(stamp) => {
                    shared.report(|state, _| state.window.renewed(stamp.id, stamp.epoch));
                }
                Err(error) => shared.report(|state, now| state.window.unreachable(&error, now)),
            },
            Step::AwaitQueue(connection, alarm) => tokio::select! {
                // Whether there is room now or the connection ended: look again.
                _room = connection.permit() => {}
                // Time passes for the window although the connection stands still.
                () = shared.until(alarm) => {}
            },
            Step::Sleep(alarm) => tokio::select! {
                () = shared.work.notified() => {}
                () = shared.until(alarm) => {}
            },
        }
    }
}

/// Gives a finished batch another stamp.
fn restamp(bytes: &mut [u8], stamp: ProducerStamp) {
    let Some(mut header) = BatchHeader::view(bytes).copied() else { return };
    header.producer_id = stamp.id.into();
    header.producer_epoch = stamp.epoch.into();
    header.producer_sequence = stamp.sequence.into();
    header.write_to(bytes);
    // The producer's part begins with the magic.
    let crc = crc32c(&bytes[std::mem::offset_of!(BatchHeader, magic)..]);
    header.crc = crc.into();
    header.write_to(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{BatchView, Limits};

    #[test]
    fn a_batch_with_another_stamp_is_the_batch_built_with_it() {
        let mut builder = BatchBuilder::default();
        builder.push(b"k", &[], b"payload", 5).unwrap();
        let other = ProducerStamp { id: 9, epoch: 8, sequence: 7 };
        let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
        restamp(&mut bytes, other);
        assert_eq!(bytes, builder.finish(other));
        BatchView::parse(&bytes).unwrap().check(&Limits::default()).unwrap();
    }
}
