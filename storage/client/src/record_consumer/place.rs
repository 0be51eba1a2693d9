//! A shard that a member works on: what is at hand of it, and when the server is worth asking for more.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use highwater_wire::MAX_CLAIM;
use tokio::time::Instant;

use crate::Delivery;

/// A shard it holds the lease on.
#[derive(Debug)]
pub(super) struct Place {
    pub lease: u64,
    /// What is fresh as far as is known, in order.
    pub fresh: VecDeque<Delivery>,
    /// When the server is to be asked for what waits; `None` if nothing does.
    pub again: Option<Instant>,
    /// Something that is to come again was settled last: what was asked for before says nothing of it.
    pub unsettled: Option<Instant>,
    /// What is fresh is not handed out before.
    pub stuck_until: Option<Instant>,
    /// Lots in the application's hands: first sequence number, the one after the last, and the deadline.
    pub open: BTreeMap<u64, (u64, Instant)>,
    /// Tasks at work for it.
    pub tasks: u32,
    /// To be given up once nothing is open.
    pub leaving: bool,
}

impl Place {
    /// Sequence numbers of what is fresh and follows on each other.
    pub fn at_hand(&self) -> Range<u64> {
        let Some(front) = self.fresh.front() else { return 0..0 };
        let mut end = front.from;
        for delivery in &self.fresh {
            if delivery.from > end {
                break;
            }
            end = delivery.next;
        }
        front.from..end
    }

    /// What is below is not fresh.
    pub fn pass(&mut self, next_fresh: u64) {
        while self.fresh.front().is_some_and(|front| front.next <= next_fresh) {
            self.fresh.pop_front();
        }
        if let Some(front) = self.fresh.front_mut() {
            front.from = front.from.max(next_fresh);
        }
    }

    /// How many sequence numbers a claim is to be for, so that about `most` records come of it.
    pub fn span(&self, most: u32) -> u32 {
        let range = self.at_hand();
        let parts = self.fresh.iter().filter(|part| part.from < range.end);
        let beyond = parts.flat_map(Delivery::records).nth(most as usize);
        let end = beyond.map_or(range.end, |record| record.sequence);
        let span = end.saturating_sub(range.start).min(MAX_CLAIM.into());
        (span as u32).max(most)
    }

    /// When it is worth asking for, `now` or later; `None` if that is not known yet.
    pub fn worth_asking(&self, now: Instant) -> Option<Instant> {
        if self.leaving {
            return None;
        }
        let fresh = self.fresh.front().map(|_| self.stuck_until.unwrap_or(now));
        fresh.into_iter().chain(self.again).min()
    }

    pub fn at_rest(&self) -> bool {
        self.fresh.is_empty() && self.again.is_none() && self.open.is_empty() && self.tasks == 0
    }
}
