//! Flow control of one subscription: the client's credit is handed to the engine a window at a time, and
//! no more of it while the connection's queue is long, so that a peer that does not read costs no memory.

use highwater_engine::ReaderId;

/// One subscription of a connection.
#[derive(Debug)]
pub(crate) struct Flow {
    /// The engine's name for it.
    pub reader: ReaderId,
    /// Core that serves it.
    pub owner: usize,
    /// Given by the client, not yet handed to the engine; bytes.
    credit: u64,
    /// Handed to the engine, nothing delivered for it yet.
    granted: u64,
    /// Delivered, not yet sent.
    queued: u64,
}

impl Flow {
    pub fn new(reader: ReaderId, owner: usize, credit: u64) -> Flow {
        Flow { reader, owner, credit, granted: 0, queued: 0 }
    }

    /// More credit from the client.
    pub fn add_credit(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Credit to hand to the engine now, if `window` bytes may be granted or queued. Dribbles are held
    /// back while the engine has any (it delivers at least a batch on whatever it has): with little credit
    /// it would read large stretches of disk for little.
    pub fn grant(&mut self, window: u64) -> u64 {
        let room = window.saturating_sub(self.granted).saturating_sub(self.queued);
        let bytes = room.min(self.credit);
        if self.granted > 0 && bytes < window / 4 {
            return 0;
        }
        self.credit -= bytes;
        self.granted += bytes;
        bytes
    }

    /// The engine delivered `bytes`; they are queued.
    pub fn delivered(&mut self, bytes: u64) {
        // One batch may be larger than what was left of the credit.
        let over = bytes.saturating_sub(self.granted);
        self.granted -= bytes - over;
        self.credit = self.credit.saturating_sub(over);
        self.queued += bytes;
    }

    /// `bytes` of it went to the peer.
    pub fn sent(&mut self, bytes: u64) {
        self.queued = self.queued.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_handed_on_a_window_at_a_time() {
        let mut flow = Flow::new(ReaderId(1), 0, 250);
        assert_eq!(flow.grant(100), 100);
        assert_eq!(flow.grant(100), 0);
        flow.delivered(60);
        assert_eq!(flow.grant(100), 0, "queued bytes count");
        flow.sent(60);
        assert_eq!(flow.grant(100), 60);
        flow.delivered(100);
        flow.sent(100);
        assert_eq!(flow.grant(100), 90, "no more than the client gave");
        flow.add_credit(5);
        assert_eq!(flow.grant(100), 0, "too little to bother");
        flow.delivered(90);
        assert_eq!(flow.grant(100), 5, "unless the engine has none");
    }

    #[test]
    fn a_batch_beyond_the_credit_is_paid_from_what_comes_next() {
        let mut flow = Flow::new(ReaderId(1), 0, 10);
        assert_eq!(flow.grant(100), 10);
        flow.add_credit(50);
        flow.delivered(40);
        flow.sent(40);
        assert_eq!(flow.grant(100), 20);
    }
}
