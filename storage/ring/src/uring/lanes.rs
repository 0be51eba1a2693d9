//! The ways into the kernel, each with a bound of its own: what is written waits for what is written, and finds no more
//! at the device than reads may have there, however many of them wait.

use std::collections::VecDeque;

/// Operations of one kind: those that wait for their turn, and how much of them the kernel has. Operations are known
/// by their slots; their sizes are in bytes.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: VecDeque<(u32, u32)>,
    in_kernel: u32,
    bytes: u64,
    /// Bounds: operations, at least one, and bytes, which one alone may exceed.
    most: u32,
    most_bytes: u64,
}

impl Lane {
    pub(crate) fn new(most: u32, most_bytes: u64) -> Lane {
        Lane { queue: VecDeque::new(), in_kernel: 0, bytes: 0, most: most.max(1), most_bytes }
    }

    /// Whether the bounds let one of `bytes` into the kernel.
    fn admits(&self, bytes: u32) -> bool {
        self.in_kernel == 0
            || (self.in_kernel < self.most && self.bytes + u64::from(bytes) <= self.most_bytes)
    }

    /// Whether one of `bytes` that comes now may go to the kernel before it waited.
    pub(crate) fn is_free(&self, bytes: u32) -> bool {
        self.queue.is_empty() && self.admits(bytes)
    }

    /// One waits for its turn.
    pub(crate) fn wait(&mut self, slot: u32, bytes: u32) {
        self.queue.push_back((slot, bytes));
    }

    /// Whose turn it is, if the bounds allow it.
    pub(crate) fn next(&self) -> Option<u32> {
        let &(slot, bytes) = self.queue.front()?;
        self.admits(bytes).then_some(slot)
    }

    /// Whose turn it is waits no longer; the kernel gets it.
    pub(crate) fn next_goes(&mut self) {
        if let Some((_, bytes)) = self.queue.pop_front() {
            self.enter(bytes);
        }
    }

    /// The kernel gets one.
    pub(crate) fn enter(&mut self, bytes: u32) {
        self.in_kernel += 1;
        self.bytes += u64::from(bytes);
    }

    /// The kernel has answered one.
    pub(crate) fn leave(&mut self, bytes: u32) {
        self.in_kernel = self.in_kernel.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(bytes));
    }

    /// How many the kernel has.
    pub(crate) fn in_kernel(&self) -> u32 {
        self.in_kernel
    }

    /// How many wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Nobody wants those any more that wait.
    pub(crate) fn give_up(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets in what may; their slots.
    fn let_in(lane: &mut Lane) -> Vec<u32> {
        std::iter::from_fn(|| {
            let slot = lane.next()?;
            lane.next_goes();
            Some(slot)
        })
        .collect()
    }

    #[test]
    fn as_many_as_may_go_in_turn() {
        let mut lane = Lane::new(3, u64::MAX);
        assert!(lane.is_free(1));
        (0..5).for_each(|slot| lane.wait(slot, 4096));
        assert!(!lane.is_free(1), "others wait");
        assert_eq!(let_in(&mut lane), [0, 1, 2]);
        assert_eq!((lane.in_kernel(), lane.waiting()), (3, 2));
        lane.leave(4096);
        assert_eq!(let_in(&mut lane), [3]);
        (0..3).for_each(|_| lane.leave(4096));
        assert_eq!(let_in(&mut lane), [4]);
        lane.leave(4096);
        assert!(lane.is_free(4096));
        assert_eq!((lane.in_kernel(), lane.waiting(), lane.bytes), (0, 0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_none_is_too_large() {
        let mut lane = Lane::new(32, 1000);
        for (slot, bytes) in [(0, 5000), (1, 400), (2, 400), (3, 400), (4, 100)] {
            lane.wait(slot, bytes);
        }
        assert_eq!(let_in(&mut lane), [0], "alone, whatever its size");
        lane.leave(5000);
        assert_eq!(let_in(&mut lane), [1, 2], "small ones overtake nobody");
        lane.leave(400);
        assert_eq!(let_in(&mut lane), [3, 4]);
        assert!(!lane.is_free(200));
        assert!(lane.is_free(100));
    }

    #[test]
    fn a_bound_of_none_lets_one_go() {
        let mut lane = Lane::new(0, 0);
        lane.wait(7, 1);
        lane.wait(8, 1);
        assert_eq!(let_in(&mut lane), [7]);
    }
}
