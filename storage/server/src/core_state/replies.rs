//! Answers to requests: to the core that has the connection, and there into its queue.

use highwater_engine::quota::Meters;
use highwater_engine::{Appended, Chunk, Parts, ReaderId};
use highwater_wire::{
    AppendReply, ErrorCode, FetchReply, Kind, LocateReply, RecordOutcome, SubscribeReply, WireError,
};

use super::CoreState;
use crate::connection::Connection;
use crate::filter::FoundByFetch;
use crate::options::bounds::{FETCH_BYTES, OUT_HIGH, RETRY_MS};
use crate::outgoing::Way;
use crate::pending::Pending;
use crate::router::{Answer, Signal, core_of, number_of};

impl CoreState {
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
        } else if pending.waits {
            self.waits.set(self.waits.get().saturating_sub(1));
        }
        self.control_bytes.set(self.control_bytes.get().saturating_sub(pending.control));
        self.progress.notify_one();
        let connection = self.connections.borrow().get(&pending.connection).cloned();
        if let Answer::Subscribed(reader, result) = &answer {
            self.subscribed(*reader, result.is_ok(), &pending, connection.as_deref());
        }
        if let Some(connection) = connection {
            if matches!(answer, Answer::Control(_)) {
                connection.controls.set(connection.controls.get().saturating_sub(1));
            }
            if pending.waits {
                connection.waits.borrow_mut().remove(&slot);
            }
            self.reply(&connection, pending.correlation, answer);
            connection.answered(pending.reserved);
        }
    }

    /// A subscription has begun, or could not.
    fn subscribed(
        &self,
        reader: ReaderId,
        begun: bool,
        pending: &Pending,
        connection: Option<&Connection>,
    ) {
        let alive = self.readers.borrow().contains_key(&reader);
        match (begun, connection, pending.forwarded) {
            // Given up meanwhile, and the order to end it may have come before it began.
            (true, _, Some((owner, _))) if !alive => self.unsubscribe(reader, owner),
            (false, Some(connection), _) => {
                self.readers.borrow_mut().remove(&reader);
                // Another may have its name by now.
                let mut subscriptions = connection.subscriptions.borrow_mut();
                if subscriptions
                    .get(&pending.correlation)
                    .is_some_and(|subscription| subscription.flow.reader == reader)
                {
                    subscriptions.remove(&pending.correlation);
                }
            }
            _ => {}
        }
    }

    /// Writes an answer to a connection's queue.
    pub fn reply(&self, connection: &Connection, correlation: u64, answer: Answer) {
        let refusal = match answer {
            Answer::Appended { result: Ok(appended), since_ns } => {
                return reply_appended(connection, correlation, &appended, since_ns);
            }
            Answer::Read(Ok(chunk)) => match self.room(connection, chunk.bytes) {
                Ok(()) => return self.reply_read(connection, correlation, chunk),
                Err(refusal) => refusal,
            },
            Answer::Found(Ok(found)) => match self.room(connection, found.data.len()) {
                Ok(()) => return self.reply_found(connection, correlation, *found),
                Err(refusal) => refusal,
            },
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

    fn reply_read(&self, connection: &Connection, correlation: u64, chunk: Chunk) {
        self.pay(connection, chunk.bytes as u64);
        let reply = FetchReply {
            high_water: chunk.high_water.into(),
            oldest: chunk.oldest.into(),
            next: chunk.next.into(),
        };
        connection.send_chunk(self, Kind::FetchReply, correlation, &reply.to_array(), chunk);
    }

    fn reply_found(&self, connection: &Connection, correlation: u64, found: FoundByFetch) {
        self.pay(connection, found.read);
        let reply = FetchReply {
            high_water: found.high_water.into(),
            oldest: found.oldest.into(),
            next: found.next.into(),
        };
        let mut control = reply.to_array().to_vec();
        control.extend_from_slice(&found.tally.to_array());
        let (kind, way) = (Kind::FetchReply, Way::delivery(None));
        connection.send_found(kind, correlation, &control, found.data, found.next, way);
    }

    /// What a fetch has read is at its client's expense.
    fn pay(&self, connection: &Connection, bytes: u64) {
        if let Some(out) = connection.meters(&self.quotas).as_deref().and_then(Meters::out) {
            out.take(self.clock.now(), bytes);
        }
    }

    /// Whether what a fetch brought can be queued: with few bytes asked for one batch comes all the same, and what was
    /// reserved then bounds nothing.
    fn room(&self, connection: &Connection, bytes: usize) -> Result<(), WireError> {
        let (queued, all) = (connection.queued(), self.queued.bytes());
        if queued + bytes <= OUT_HIGH + FETCH_BYTES && !(self.queued.spent() && queued > 0) {
            return Ok(());
        }
        let message = format!(
            "{queued} bytes are queued for this connection and {all} for this core; a fetch of {bytes} bytes \
             finds no room"
        );
        Err(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS))
    }
}

fn reply_appended(connection: &Connection, correlation: u64, appended: &Appended, since_ns: u64) {
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
    let data: Vec<u8> =
        outcomes.iter().flat_map(|outcome: &RecordOutcome| outcome.to_array()).collect();
    // What was stored before says nothing about the way from the device.
    let records = if appended.duplicate { 0 } else { u64::from(appended.record_count) };
    connection.acknowledge(correlation, &reply.to_array(), &data, since_ns, records);
}
