//! When deliveries were handed to the application: noted for the server, which tells propagation by it.

use std::sync::Arc;
use std::time::Duration;

use highwater_wire::DeliveryReceipt;
use tokio::time::Instant;

/// The server hears of a delivery this long after it was handed out, at the latest: figures taken once a second
/// stay fresh.
const WITHIN: Duration = Duration::from_millis(400);
/// Receipts sent together, at most: what the writer still copies beside the frame's header.
const MOST: usize = 512;

/// Receipts not yet sent, as they go over the wire.
#[derive(Debug, Default)]
pub(crate) struct DeliveryReceipts {
    bytes: Vec<u8>,
    /// When they have to go.
    due: Option<Instant>,
}

impl DeliveryReceipts {
    /// The delivery up to `next` is handed out `now`, which is `received_ns` nanoseconds since 1970 UTC; `true`
    /// if it is the first to be told of.
    pub(crate) fn note(&mut self, next: u64, received_ns: u64, now: Instant) -> bool {
        let receipt = DeliveryReceipt { next: next.into(), received_ns: received_ns.into() };
        self.bytes.extend_from_slice(&receipt.to_array());
        let first = self.due.is_none();
        if first {
            self.due = now.checked_add(WITHIN);
        }
        first
    }

    /// When they have to go; `None` if there are none.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether they have to go `now`.
    pub(crate) fn are_due(&self, now: Instant) -> bool {
        self.bytes.len() >= MOST * DeliveryReceipt::LEN || self.due.is_some_and(|due| due <= now)
    }

    /// There is no room for them now: they become due again in a while.
    pub(crate) fn put_off(&mut self, now: Instant) {
        self.due = now.checked_add(WITHIN);
    }

    /// All of them, to be sent; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Arc<Vec<u8>>> {
        self.due = None;
        (!self.bytes.is_empty()).then(|| Arc::new(std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_go_together_and_soon() {
        let mut receipts = DeliveryReceipts::default();
        let now = Instant::now();
        assert_eq!((receipts.take(), receipts.due(), receipts.are_due(now)), (None, None, false));
        assert!(receipts.note(10, 1, now) && !receipts.note(20, 2, now + WITHIN / 2));
        assert!(!receipts.are_due(now + WITHIN / 2) && receipts.are_due(now + WITHIN));
        receipts.put_off(now + WITHIN);
        assert!(!receipts.are_due(now + WITHIN));
        let sent = receipts.take().unwrap();
        let told = DeliveryReceipt::each(&sent).map(|r| (r.next.into(), r.received_ns.into()));
        assert_eq!(told.collect::<Vec<(u64, u64)>>(), [(10, 1), (20, 2)]);
        assert_eq!((receipts.take(), receipts.due()), (None, None));
        for next in 0..MOST as u64 {
            receipts.note(next, 3, now);
        }
        assert!(receipts.are_due(now), "many of them do not wait");
    }
}
