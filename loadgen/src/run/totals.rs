//! The counters of all workers at one moment, and what can be said from them.

use std::ops::Range;

use crate::latency::{Counts, Reads};

/// Counters since the first record.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// When, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Records due by then; in a saturating or closed run, records sent.
    pub due: u64,
    /// Of what was sent.
    pub counts: Counts,
    /// Of what was read, by group.
    pub reads: Vec<Reads>,
}

impl Totals {
    /// Records whose fate is known to the lanes, or given up.
    pub fn answered(&self) -> u64 {
        let c = &self.counts;
        c.acked + c.dropped + c.sampled_out + c.refused + c.unknown
    }

    /// Records due whose fate is not known yet.
    pub fn unanswered(&self) -> u64 {
        self.due.max(self.counts.sent).saturating_sub(self.answered())
    }

    /// Records read, over all groups.
    pub fn consumed(&self) -> u64 {
        self.consumed_by(0..self.reads.len())
    }

    /// Payload bytes read, over all groups.
    pub fn consumed_bytes(&self) -> u64 {
        self.consumed_bytes_by(0..self.reads.len())
    }

    /// Records read by these groups.
    pub fn consumed_by(&self, groups: Range<usize>) -> u64 {
        self.of(groups).iter().map(|reads| reads.consumed).sum()
    }

    /// Payload bytes read by these groups.
    pub fn consumed_bytes_by(&self, groups: Range<usize>) -> u64 {
        self.of(groups).iter().map(|reads| reads.consumed_bytes).sum()
    }

    /// Records acknowledged and not read, over all groups.
    pub fn backlog(&self) -> u64 {
        self.backlog_of(0..self.reads.len())
    }

    /// ... over these groups.
    pub fn backlog_of(&self, groups: Range<usize>) -> u64 {
        let acked = self.counts.acked;
        self.of(groups).iter().map(|reads| acked.saturating_sub(reads.consumed)).sum()
    }

    /// Payload bytes acknowledged and not read, over these groups.
    pub fn backlog_bytes_of(&self, groups: Range<usize>) -> u64 {
        let acked = self.counts.acked_bytes;
        self.of(groups).iter().map(|reads| acked.saturating_sub(reads.consumed_bytes)).sum()
    }

    /// Records in the system: unanswered, or acknowledged and not read by the slowest of these
    /// groups.
    pub fn waiting(&self, groups: Range<usize>) -> u64 {
        let acked = self.counts.acked;
        let unread = |reads: &Reads| acked.saturating_sub(reads.consumed);
        let slowest = self.of(groups).iter().map(unread).max().unwrap_or(0);
        self.unanswered() + slowest
    }

    /// Whether every one of the groups `paused` has as good as caught up: it lags behind by no more than
    /// 100 ms of the traffic since `before`, or than the slowest of the groups `live`.
    pub fn caught_up(&self, paused: Range<usize>, live: Range<usize>, before: &Totals) -> bool {
        let most = self.traffic(before).max(1);
        let acked = self.counts.acked;
        let lag = |reads: &Reads| acked.saturating_sub(reads.consumed);
        let slowest = self.of(live).iter().map(lag).max().unwrap_or(0);
        self.of(paused).iter().all(|reads| lag(reads) <= most.max(slowest))
    }

    /// Records acknowledged in 100 ms, at the rate since `before`.
    fn traffic(&self, before: &Totals) -> u64 {
        let records = self.counts.acked.saturating_sub(before.counts.acked);
        let ns = self.at_ns.saturating_sub(before.at_ns).max(1);
        (records as f64 * 1e8 / ns as f64).ceil() as u64
    }

    fn of(&self, groups: Range<usize>) -> &[Reads] {
        self.reads.get(groups).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At `at_ms`, with so many acknowledged and read by each group; 10 bytes each.
    fn totals(at_ms: u64, acked: u64, consumed: &[u64]) -> Totals {
        let counts = Counts { sent: acked, acked, acked_bytes: acked * 10, ..Counts::default() };
        let reads = consumed.iter().map(|&consumed| Reads {
            consumed,
            consumed_bytes: consumed * 10,
            ..Reads::default()
        });
        Totals { at_ns: at_ms * 1_000_000, due: acked, counts, reads: reads.collect() }
    }

    #[test]
    fn the_backlog_is_what_each_group_has_yet_to_read() {
        // A group may have read what is not acknowledged yet.
        let now = totals(0, 100, &[90, 101, 40]);
        assert_eq!(
            (now.backlog(), now.backlog_of(2..3), now.backlog_bytes_of(0..1)),
            (70, 60, 100)
        );
        assert_eq!((now.consumed(), now.consumed_bytes()), (231, 2_310));
        let late = Totals { due: 130, ..now };
        assert_eq!((late.waiting(0..2), late.waiting(0..0)), (40, 30));
    }

    /// A stream beyond its quota that drops the newest answers every record at once.
    #[test]
    fn what_was_refused_shed_or_given_up_as_unknown_waits_no_longer() {
        let counts = Counts {
            sent: 100,
            acked: 40,
            refused: 10,
            dropped: 20,
            sampled_out: 15,
            unknown: 5,
            ..Counts::default()
        };
        let now = Totals { due: 120, counts, ..Totals::default() };
        assert_eq!((now.answered(), now.unanswered(), now.waiting(0..0)), (90, 30, 30));
    }

    #[test]
    fn caught_up_is_within_a_tenth_of_a_second_of_traffic_or_as_far_as_the_others() {
        let before = totals(0, 0, &[0, 0]);
        // 1,000 in a second: 100 in 100 ms.
        for (live, paused, caught_up) in
            [(1_000, 900, true), (1_000, 899, false), (700, 700, true), (700, 699, false)]
        {
            let now = totals(1_000, 1_000, &[live, paused]);
            assert_eq!(now.caught_up(1..2, 0..1, &before), caught_up, "{live} {paused}");
        }
        // Nothing comes any more: a single record may be under way.
        let still = totals(2_000, 1_000, &[1_000, 999]);
        assert!(still.caught_up(1..2, 0..1, &totals(1_000, 1_000, &[1_000, 0])));
    }
}
