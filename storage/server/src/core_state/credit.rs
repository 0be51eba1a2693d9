//! How much a connection's subscriptions may have: credit handed on to their engines as far as the queue to the client
//! allows, and the quotas of clients.

use std::sync::Arc;

use highwater_engine::quota::Meters;
use highwater_engine::{Chunk, ReaderId};

use super::CoreState;
use crate::connection::{Connection, Subscription};
use crate::flow::Flow;
use crate::options::bounds::{OUT_HIGH, OUT_PRESSED, WINDOW_MIN};
use crate::router::Signal;

impl CoreState {
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

    /// Hands credit of all of a connection's subscriptions to their engines as far as its queue allows: for when the
    /// queue or the core held them back, which no more than one need not. True if this core's engine got some.
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
            here |= self.hand_on(subscription, window);
        }
        if here {
            self.log_wake.notify_one();
        }
        here
    }

    /// The same of one of them, whose credit or whose part of the queue has changed: that changes nothing for the others.
    pub fn top_up_one(&self, connection: &Connection, correlation: u64) -> bool {
        self.list_one(connection, correlation);
        if self.paused(connection) {
            return false;
        }
        let mut subscriptions = connection.subscriptions.borrow_mut();
        let window = self.window(subscriptions.len());
        let subscription = subscriptions.get_mut(&correlation);
        let here = subscription.is_some_and(|subscription| self.hand_on(subscription, window));
        if here {
            self.log_wake.notify_one();
        }
        here
    }

    /// Hands on what one subscription may have of its credit; true if this core's engine got some.
    fn hand_on(&self, subscription: &mut Subscription, window: u64) -> bool {
        if subscription.filtering.as_ref().is_some_and(|filtering| !filtering.reads()) {
            return false;
        }
        let bytes = subscription.flow.grant(window);
        if bytes == 0 {
            return false;
        }
        let reader = subscription.flow.reader;
        match &subscription.remote {
            None => {
                self.engine.borrow_mut().credit(self.clock.now(), reader, bytes);
                true
            }
            Some(credit) => {
                if credit.add(bytes) {
                    let credit = credit.clone();
                    self.signal(subscription.flow.owner, Signal::Credit { reader, credit });
                }
                false
            }
        }
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
}
