//! The ways from a core to the other cores and to the control thread, and what comes back over them.
//! Everything handed over is counted until it is answered, so that no queue grows without bound.

use std::cell::Cell;
use std::sync::mpsc::TrySendError;
use std::time::Instant;

use highwater_engine::AppendError;
use highwater_wire::{ControlRequest, ErrorCode, ShardId, WireError};
use tokio::sync::mpsc::error::TrySendError as HandoverError;

use crate::connection::Connection;
use crate::control_thread::ControlJob;
use crate::core_state::CoreState;
use crate::options::bounds::{CONTROL_EACH, FORWARDED, FORWARDED_WAITS, RETRY_MS};
use crate::pending::Pending;
use crate::router::{Answer, Ask, Handover, Signal, address, number_of};

/// What is handed over to one other core and not answered.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    requests: Cell<usize>,
    bytes: Cell<usize>,
    /// Of the requests, fetches that may wait.
    waits: Cell<usize>,
}

impl Admitted {
    fn enter(&self, bytes: usize, waits: bool) {
        self.waits.set(self.waits.get() + usize::from(waits));
        self.requests.set(self.requests.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// A request with a batch of `bytes` was answered.
    pub fn leave(&self, bytes: usize, waits: bool) {
        self.waits.set(self.waits.get().saturating_sub(usize::from(waits)));
        self.requests.set(self.requests.get().saturating_sub(1));
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }
}

impl CoreState {
    /// Sends a signal to another core; one that is gone needs none.
    pub fn signal(&self, core: usize, signal: Signal) {
        if let Some(link) = self.links.get(core) {
            let _ = link.signals.send(signal);
        }
    }

    /// Whether another core may be handed a request with `bytes` of batch; `waits`: one that may wait long,
    /// of which there is room for fewer, so that they do not keep out the rest.
    pub fn may_forward(&self, core: usize, bytes: usize, waits: bool) -> Result<(), WireError> {
        let admitted = &self.admitted[core];
        let (requests, held) = (admitted.requests.get(), admitted.bytes.get());
        let waiting = admitted.waits.get();
        if waits && waiting >= FORWARDED_WAITS {
            let message = format!(
                "{waiting} fetches wait on core {core} for records; the limit is {FORWARDED_WAITS}: connect \
                 to the core's own port"
            );
            return Err(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
        }
        let most = self.memory.forwarded;
        if requests >= FORWARDED || (held > 0 && held + bytes > most) {
            let message = format!(
                "{requests} requests with {held} bytes wait for core {core}; the limits are {FORWARDED} and {most}: \
                 connect to the core's own port"
            );
            return Err(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
        }
        Ok(())
    }

    /// Hands a request to the core that owns the shard; its answer comes by [`Signal::Answer`]. The slot it waits in.
    pub fn forward(
        &self,
        connection: &Connection,
        pending: Pending,
        core: usize,
        shard: ShardId,
        ask: Ask,
    ) -> Result<u64, WireError> {
        let bytes = pending.forwarded.map_or(0, |(_, bytes)| bytes);
        let waits = pending.waits;
        self.may_forward(core, bytes, waits)?;
        let slot = self.pending.borrow_mut().insert(pending);
        let handover = Handover { tag: address(self.index, slot), shard, ask };
        if let Err(error) = self.links[core].handovers.try_send(handover) {
            self.pending.borrow_mut().remove(slot);
            return Err(match error {
                HandoverError::Full(_) => {
                    let message =
                        format!("the queue to core {core} is full ({FORWARDED} requests)");
                    WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS)
                }
                HandoverError::Closed(_) => {
                    WireError::new(ErrorCode::Unavailable, format!("core {core} is gone"))
                        .retry_after(1000)
                }
            });
        }
        self.admitted[core].enter(bytes, waits);
        connection.pending.set(connection.pending.get() + 1);
        self.figures.forwarded();
        Ok(slot)
    }

    /// Hands a request to the control thread.
    pub fn ask_control(
        &self,
        connection: &Connection,
        correlation: u64,
        request: ControlRequest,
        bytes: usize,
    ) -> Result<(), WireError> {
        let controls = connection.controls.get();
        if controls >= CONTROL_EACH {
            let message = format!(
                "{controls} control requests of this connection are under way; the limit is {CONTROL_EACH}"
            );
            return Err(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
        }
        let (held, most) = (self.control_bytes.get(), self.memory.control);
        if held > 0 && held + bytes > most {
            let message =
                format!("control requests of {held} bytes are under way; the limit is {most}");
            return Err(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
        }
        let pending = Pending {
            connection: connection.id,
            correlation,
            control: bytes,
            ..Pending::default()
        };
        let slot = self.pending.borrow_mut().insert(pending);
        let job = ControlJob { request, tag: address(self.index, slot), at: Instant::now() };
        if let Err(error) = self.control.try_send(job) {
            self.pending.borrow_mut().remove(slot);
            return Err(match error {
                TrySendError::Full(_) => {
                    WireError::new(ErrorCode::Busy, "the control thread's queue is full")
                        .retry_after(50)
                }
                TrySendError::Disconnected(_) => {
                    WireError::new(ErrorCode::Unavailable, "the control thread is gone")
                        .retry_after(1000)
                }
            });
        }
        connection.pending.set(connection.pending.get() + 1);
        connection.controls.set(controls + 1);
        self.control_bytes.set(held + bytes);
        Ok(())
    }

    /// A request from another core, for a shard of this one.
    pub fn take_over(&self, handover: Handover) {
        let Handover { tag, shard, ask } = handover;
        let now = self.clock.now();
        match ask {
            Ask::Append { batch, terms } => {
                let result = self.engine.borrow_mut().append_on(now, shard, &batch, &terms, tag);
                if let Err(error) = result {
                    if matches!(error, AppendError::Busy { .. }) {
                        self.engine.borrow_mut().given_up(shard, &batch);
                    }
                    self.answer(
                        tag,
                        Answer::Appended { result: Err(error), since_ns: now.mono_ns },
                    );
                }
            }
            Ask::Fetch(fetch) => self.engine_read(shard, fetch, tag),
            Ask::Subscribe { reader, from, max_bytes, credit, terms } => {
                let bytes = credit.take();
                let result = self.engine_subscribe(shard, reader, from, bytes, max_bytes, terms);
                self.answer(tag, Answer::Subscribed(reader, result));
            }
            Ask::Locate(start) => {
                let located = self.engine.borrow().locate(shard, start);
                self.answer(tag, Answer::Located(located));
            }
        }
    }

    /// A signal from another core or the control thread.
    pub fn heed(&self, signal: Signal) {
        match signal {
            Signal::Answer { tag, answer } => self.answered(number_of(tag), answer),
            Signal::Deliver { reader, chunk } => self.deliver(reader, chunk),
            Signal::Ended { reader, error } => self.ended(reader, &error.to_wire()),
            Signal::Credit { reader, credit } => {
                let bytes = credit.take();
                self.engine.borrow_mut().credit(self.clock.now(), reader, bytes);
            }
            Signal::Limit { reader, client } => self.limit(reader, client),
            Signal::Unsubscribe { reader } => self.engine.borrow_mut().unsubscribe(reader),
            Signal::Hurry { shard, tags } => {
                self.engine.borrow_mut().hurry(self.clock.now(), shard, &tags);
            }
            Signal::Filtered(filtered) => self.filtered(filtered),
            Signal::Sifted(sifted) => self.engine.borrow_mut().sifted(&sifted),
            Signal::HandedOver { arrivals, at_ns } => self.handed_over(arrivals, at_ns),
        }
    }
}
