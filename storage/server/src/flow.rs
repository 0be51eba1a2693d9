//! Flow control of one subscription: the client's credit is handed to the engine a window at a time, and
//! no more of it while the connection's queue is long, so that a peer that does not read costs no memory.
//!
//! A subscription begins with a small window, which grows with what its peer takes: of a peer that takes nothing
//! no more than that is ever on its way, however much room there was when it came.
//!
//! With a filter what is read is not what is delivered: reading goes on by the window, whatever credit there is; what is
//! found is delivered as credit allows.

use highwater_engine::ReaderId;

use crate::options::bounds::{FILTER_AHEAD, OUT_HIGH, WINDOW_MIN};

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
    /// Its window, as far as the peer has earned one by taking what it got.
    earned: u64,
    /// What is read goes to a filter.
    filtered: bool,
    /// Read for the filter and not looked at to the end.
    in_hand: u64,
    /// Found and delivered beyond the credit there was: paid from what comes next.
    owed: u64,
}

impl Flow {
    pub fn new(reader: ReaderId, owner: usize, credit: u64) -> Flow {
        Flow {
            reader,
            owner,
            credit,
            granted: 0,
            queued: 0,
            earned: WINDOW_MIN as u64,
            filtered: false,
            in_hand: 0,
            owed: 0,
        }
    }

    /// Of a subscription with a filter.
    pub fn filtered(reader: ReaderId, owner: usize, credit: u64) -> Flow {
        Flow { filtered: true, ..Flow::new(reader, owner, credit) }
    }

    /// More credit from the client.
    pub fn add_credit(&mut self, bytes: u64) {
        let paid = self.owed.min(bytes);
        self.owed -= paid;
        self.credit = self.credit.saturating_add(bytes - paid);
    }

    /// Credit to hand to the engine now, if `window` bytes may be granted or queued. Dribbles are held
    /// back while the engine has any (it delivers at least a batch on whatever it has): with little credit
    /// it would read large stretches of disk for little.
    pub fn grant(&mut self, window: u64) -> u64 {
        if self.filtered {
            return self.grant_ahead(window.min(FILTER_AHEAD));
        }
        let window = window.min(self.earned);
        let room = window.saturating_sub(self.granted).saturating_sub(self.queued);
        let bytes = room.min(self.credit);
        if self.granted > 0 && bytes < window / 4 {
            return 0;
        }
        self.credit -= bytes;
        self.granted += bytes;
        bytes
    }

    /// The same for a filter, which always has a good part of its window to read.
    fn grant_ahead(&mut self, window: u64) -> u64 {
        let room = window.saturating_sub(self.granted + self.in_hand + self.queued);
        if room < (window / 4).max(1) {
            return 0;
        }
        self.granted += room;
        room
    }

    /// The engine read `bytes` for the filter.
    pub fn read(&mut self, bytes: u64) {
        self.granted = self.granted.saturating_sub(bytes);
        self.in_hand += bytes;
    }

    /// Of these, `bytes` are looked at to the end.
    pub fn sifted(&mut self, bytes: u64) {
        self.in_hand = self.in_hand.saturating_sub(bytes);
    }

    /// Bytes that the filter may find now: as far as credit and the window allow.
    pub fn room(&self, window: u64) -> u64 {
        window.saturating_sub(self.queued).min(self.credit)
    }

    /// The filter found `bytes`; they are queued.
    pub fn found(&mut self, bytes: u64) {
        let paid = self.credit.min(bytes);
        self.credit -= paid;
        self.owed += bytes - paid;
        self.queued += bytes;
    }

    /// Bytes read for the filter that are still here.
    pub fn in_hand(&self) -> u64 {
        self.in_hand
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
        self.earned = self.earned.saturating_add(bytes).min(OUT_HIGH as u64);
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
    fn a_window_grows_with_what_the_peer_takes() {
        let (window, least) = (8 * WINDOW_MIN as u64, WINDOW_MIN as u64);
        let mut flow = Flow::new(ReaderId(1), 0, u64::MAX);
        assert_eq!(flow.grant(window), least);
        flow.delivered(least);
        assert_eq!(flow.grant(window), 0, "it took nothing");
        let mut sizes = Vec::new();
        let mut queued = least;
        for _ in 0..5 {
            flow.sent(queued);
            queued = flow.grant(window);
            flow.delivered(queued);
            sizes.push(queued / least);
        }
        assert_eq!(sizes, [2, 4, 8, 8, 8]);
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

    #[test]
    fn a_filter_reads_by_the_window_and_delivers_by_the_credit() {
        let mut flow = Flow::filtered(ReaderId(1), 0, 10);
        assert_eq!(flow.grant(100), 100, "not the client's credit");
        flow.read(40);
        assert_eq!(flow.grant(100), 0, "what is in hand counts");
        flow.read(60);
        assert_eq!((flow.room(100), flow.in_hand()), (10, 100));
        flow.found(30);
        flow.sifted(100);
        assert_eq!(flow.room(100), 0);
        assert_eq!(flow.grant(100), 70, "what is queued counts");
        flow.add_credit(15);
        assert_eq!(flow.room(100), 0, "it has had 20 too many");
        flow.add_credit(10);
        assert_eq!(flow.room(100), 5);
        flow.add_credit(1_000);
        assert_eq!(flow.room(100), 70);
        flow.sent(30);
        assert_eq!(flow.room(100), 100);
        assert_eq!(flow.grant(100), 30);
    }
}
