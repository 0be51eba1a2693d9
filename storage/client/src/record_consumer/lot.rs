//! Records to work on, and what becomes of them.

use std::ops::Range;

use highwater_wire::{BatchView, Outcome, Portion, RecordView, Settlement};
use tokio::time::Instant;

use super::Held;
use crate::Delivery;

/// Records of one shard to work on, one after the other. Say what became of them with
/// [`RecordConsumer::settle`](super::RecordConsumer::settle): dropped, they count as failed when their time is over, or
/// as untried if the consumer is closed before.
#[derive(Debug)]
#[must_use = "records that are not settled are handed out again"]
pub struct Lot {
    held: Held,
    pub(super) from: u64,
    pub(super) to: u64,
    attempt: u32,
    again: bool,
    pub(super) deadline: Instant,
    parts: Vec<Delivery>,
}

impl Lot {
    pub(super) fn new(
        held: Held,
        portion: Portion,
        deadline: Instant,
        parts: Vec<Delivery>,
    ) -> Lot {
        let Portion { from, to, attempt, again, .. } = portion;
        Lot { held, from, to, attempt, again, deadline, parts }
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// The shard.
    pub fn shard(&self) -> u32 {
        self.held.shard
    }

    /// Their sequence numbers.
    pub fn range(&self) -> Range<u64> {
        self.from..self.to
    }

    /// Which attempt at these records it is, from 1. (Of several records together attempts are not counted.)
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether they were handed out before.
    pub fn again(&self) -> bool {
        self.again
    }

    /// They have to be settled until then.
    pub fn deadline(&self) -> std::time::Instant {
        self.deadline.into_std()
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        let range = self.range();
        let records = self.parts.iter().flat_map(Delivery::records);
        records.filter(move |record| range.contains(&record.sequence))
    }

    /// The batches that hold them, which say when they arrived; the first may begin before the first record, the last may
    /// end after the last.
    pub fn batches(&self) -> impl Iterator<Item = BatchView<'_>> {
        self.parts.iter().flat_map(Delivery::batches)
    }

    /// What became of every record: of those that are not named, that they are released. Those beyond the lot are left
    /// out.
    pub(super) fn complete(&self, settlements: Vec<Settlement>) -> Vec<(u64, u64, Outcome)> {
        let mut settlements = settlements;
        settlements.sort_by_key(|settlement| settlement.from);
        let mut complete = Vec::new();
        let mut next = self.from;
        for Settlement { from, to, outcome } in settlements {
            let (from, to) = (from.max(next), to.min(self.to));
            if from >= to {
                continue;
            }
            if from > next {
                complete.push((next, from, Outcome::Released));
            }
            complete.push((from, to, outcome));
            next = to;
        }
        if next < self.to {
            complete.push((next, self.to, Outcome::Released));
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_released() {
        let portion = Portion { from: 10, to: 20, attempt: 1, again: false, timeout_ms: 1 };
        let held = Held { shard: 0, lease: 1 };
        let lot = Lot::new(held, portion, Instant::now(), Vec::new());
        let failed = Outcome::Failed { reason: "r".to_owned() };
        let one = |from, to, outcome: &Outcome| Settlement { from, to, outcome: outcome.clone() };
        let settlements =
            vec![one(15, 16, &failed), one(0, 12, &Outcome::Done), one(18, 99, &Outcome::Done)];
        let wanted = vec![
            (10, 12, Outcome::Done),
            (12, 15, Outcome::Released),
            (15, 16, failed.clone()),
            (16, 18, Outcome::Released),
            (18, 20, Outcome::Done),
        ];
        assert_eq!(lot.complete(settlements), wanted);
        assert_eq!(lot.complete(Vec::new()), [(10, 20, Outcome::Released)]);
        let twice = vec![one(10, 20, &Outcome::Done), one(12, 13, &failed)];
        assert_eq!(lot.complete(twice), [(10, 20, Outcome::Done)], "the first word counts");
    }
}
