//! Subscriptions of this core's connections: what is delivered to them, and their end.

use std::rc::Rc;

use highwater_engine::{Arrivals, Chunk, ReaderId};
use highwater_wire::{DeliverHeader, ErrorCode, Kind, WireError};

use super::CoreState;
use crate::clock::wall_ns;
use crate::connection::Connection;
use crate::filter::tell;
use crate::options::bounds::{OUT_HARD, RETRY_MS};
use crate::router::{Signal, address};

impl CoreState {
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

    /// Ends all subscriptions of a connection.
    pub fn unsubscribe_all(&self, connection: &Connection) {
        let subscriptions = std::mem::take(&mut *connection.subscriptions.borrow_mut());
        for mut subscription in subscriptions.into_values() {
            // Its last receipts may have been lost with the connection.
            subscription.receipts.settle(|arrivals, at_ns| self.handed_over(arrivals, at_ns));
            self.unsubscribe(subscription.flow.reader, subscription.flow.owner);
        }
    }

    /// Batches were received, or went to the socket of one who does not say: told to the core whose they are.
    pub fn handed_over(&self, arrivals: Arrivals, at_ns: u64) {
        match self.owner(arrivals.shard) {
            here if here == self.index => self.engine.borrow_mut().handed_over(&arrivals, at_ns),
            there => self.signal(there, Signal::HandedOver { arrivals, at_ns }),
        }
    }
}
