//! Deliveries handed to a consumer that has not said yet when it had them: how propagation is measured up to
//! the application. Pure: times come in, what can be counted goes out.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use highwater_engine::Arrivals;
use highwater_wire::DeliveryReceipt;

use crate::options::bounds::{UNRECEIPTED, UNRECEIPTED_UNTOLD};

/// One delivery.
#[derive(Debug)]
struct Outstanding {
    /// Sequence number after its last record.
    next: u64,
    /// When it was queued for the socket, nanoseconds since 1970 UTC: nobody can have had it before.
    queued_ns: u64,
    /// When the socket had taken it all.
    handed_ns: Option<u64>,
    arrivals: Arrivals,
}

/// The deliveries of one subscription that are waiting for their receipts.
#[derive(Debug)]
pub(crate) struct Receipts {
    queue: VecDeque<Outstanding>,
    /// Whether a receipt ever came: not every consumer sends them.
    told: bool,
    /// Credit without receipts came after the delivery up to here: it counts when the socket has it.
    released: u64,
    /// Batches in `queue`.
    batches: usize,
    /// The same over all subscriptions of the core.
    of_core: Rc<Cell<usize>>,
}

impl Receipts {
    pub fn new(of_core: &Rc<Cell<usize>>) -> Receipts {
        let of_core = Rc::clone(of_core);
        Receipts { queue: VecDeque::new(), told: false, released: 0, batches: 0, of_core }
    }

    /// A delivery up to `next` is queued for the socket. Gives its arrivals back if too much is waiting: it
    /// counts when the socket has it.
    pub fn delivered(&mut self, next: u64, queued_ns: u64, arrivals: Arrivals) -> Option<Arrivals> {
        let more = arrivals.batches.len();
        let untold = !self.told && self.batches + more > UNRECEIPTED_UNTOLD;
        if untold || self.of_core.get() + more > UNRECEIPTED {
            return Some(arrivals);
        }
        self.batches += more;
        self.of_core.set(self.of_core.get() + more);
        self.queue.push_back(Outstanding { next, queued_ns, handed_ns: None, arrivals });
        None
    }

    /// The socket took the delivery up to `next`.
    pub fn handed(&mut self, next: u64, at_ns: u64, count: impl FnMut(Arrivals, u64)) {
        let at = self.queue.partition_point(|delivery| delivery.next < next);
        if let Some(delivery) = self.queue.get_mut(at).filter(|delivery| delivery.next == next) {
            delivery.handed_ns = Some(at_ns);
        }
        if next <= self.released {
            self.settle(count);
        }
    }

    /// Credit came at `now_ns` with `receipts`: `count` hears of the arrivals now settled and when they were
    /// received. Without any, what the socket has taken counts as received then.
    pub fn credited(
        &mut self,
        receipts: impl Iterator<Item = DeliveryReceipt>,
        now_ns: u64,
        mut count: impl FnMut(Arrivals, u64),
    ) {
        let mut none = true;
        for receipt in receipts {
            (none, self.told) = (false, true);
            let (next, received_ns) = (receipt.next.to_native(), receipt.received_ns.to_native());
            while let Some(delivery) = self.pop_if(|delivery| delivery.next <= next) {
                // However wrong the consumer's clock is: after it was sent, before it was said.
                let received_ns = received_ns.min(now_ns).max(delivery.queued_ns);
                count(delivery.arrivals, received_ns);
            }
        }
        if none {
            self.released = self.queue.back().map_or(self.released, |delivery| delivery.next);
            self.settle(count);
        }
    }

    /// The consumer has left. One that sends receipts has said what it had.
    pub fn left(&mut self, count: impl FnMut(Arrivals, u64)) {
        if !self.told {
            self.settle(count);
        }
    }

    /// Counts all that the socket has taken as received then.
    pub fn settle(&mut self, mut count: impl FnMut(Arrivals, u64)) {
        while let Some(delivery) = self.pop_if(|delivery| delivery.handed_ns.is_some()) {
            count(delivery.arrivals, delivery.handed_ns.unwrap_or(delivery.queued_ns));
        }
    }

    fn pop_if(&mut self, wanted: impl FnOnce(&Outstanding) -> bool) -> Option<Outstanding> {
        let delivery = self.queue.pop_front_if(|delivery| wanted(delivery))?;
        self.give_back(delivery.arrivals.batches.len());
        Some(delivery)
    }

    fn give_back(&mut self, batches: usize) {
        self.batches -= batches;
        self.of_core.set(self.of_core.get() - batches);
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        self.give_back(self.batches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::ShardId;

    fn arrivals(at: &[u64]) -> Arrivals {
        let batches = at.iter().map(|&at| (at, 1)).collect();
        Arrivals { shard: ShardId { stream: 1, shard: 0 }, batches }
    }

    fn receipt(next: u64, received_ns: u64) -> DeliveryReceipt {
        DeliveryReceipt { next: next.into(), received_ns: received_ns.into() }
    }

    /// Arrival of the first batch and time of receipt of whatever is settled.
    fn credited(receipts: &mut Receipts, told: &[DeliveryReceipt], now_ns: u64) -> Vec<(u64, u64)> {
        let mut settled = Vec::new();
        let count = |a: Arrivals, at| settled.push((a.batches[0].0, at));
        receipts.credited(told.iter().copied(), now_ns, count);
        settled
    }

    #[test]
    fn a_receipt_counts_within_what_can_be_true() {
        let held = Rc::default();
        let mut receipts = Receipts::new(&held);
        for (next, at) in [(10, 100), (20, 200), (30, 300), (40, 400)] {
            assert_eq!(receipts.delivered(next, at + 5, arrivals(&[at])), None);
        }
        // Before the server has noticed that the socket took it.
        assert_eq!(credited(&mut receipts, &[receipt(10, 130)], 500), [(100, 130)]);
        receipts.handed(10, 140, |_, _| panic!("counted before"));
        let told = [receipt(20, 7), receipt(30, 9_999)];
        assert_eq!(credited(&mut receipts, &told, 600), [(200, 205), (300, 600)]);
        assert_eq!(credited(&mut receipts, &[receipt(20, 7)], 600), [], "told twice");
        assert_eq!(held.get(), 1);
        receipts.left(|a, _| panic!("{a:?} was not received"));
        drop(receipts);
        assert_eq!(held.get(), 0);
    }

    #[test]
    fn without_receipts_the_socket_counts() {
        let held = Rc::default();
        let mut receipts = Receipts::new(&held);
        for (next, at) in [(10, 100), (20, 200), (30, 300)] {
            assert_eq!(receipts.delivered(next, at, arrivals(&[at])), None);
        }
        let mut settled = Vec::new();
        let mut count = |a: Arrivals, at| settled.push((a.batches[0].0, at));
        receipts.handed(10, 150, &mut count);
        assert_eq!(credited(&mut receipts, &[], 500), [(100, 150)], "the others are on their way");
        receipts.handed(20, 250, &mut count);
        receipts.delivered(40, 400, arrivals(&[400]));
        receipts.handed(30, 350, &mut count);
        receipts.handed(40, 450, &mut count);
        receipts.left(&mut count);
        assert_eq!(settled, [(200, 250), (300, 350), (400, 450)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let held = Rc::default();
        let (mut silent, mut telling) = (Receipts::new(&held), Receipts::new(&held));
        let many = arrivals(&[1; UNRECEIPTED_UNTOLD]);
        assert_eq!(silent.delivered(1, 1, many.clone()), None);
        assert_eq!(silent.delivered(2, 1, arrivals(&[2])), Some(arrivals(&[2])), "never told");
        telling.delivered(1, 1, arrivals(&[1]));
        credited(&mut telling, &[receipt(1, 1)], 1);
        let taken = (2..).take_while(|&n| telling.delivered(n, 1, many.clone()).is_none()).count();
        assert_eq!(taken, UNRECEIPTED / UNRECEIPTED_UNTOLD - 1);
        drop(telling);
        credited(&mut silent, &[], 1);
        assert_eq!(held.get(), UNRECEIPTED_UNTOLD);
    }
}
