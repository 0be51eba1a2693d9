//! How far a group may go on where windows are printed: what a window has that is not printed yet has to be read again by
//! whoever goes on after a crash.

use std::collections::VecDeque;

/// Marks of one shard. Beyond that they are kept at twice the distance, which only makes positions coarser.
const MOST: usize = 4_096;

/// A shard that is read for windows.
#[derive(Debug, Default)]
pub struct Settled {
    /// What was read: everything below `next`, none of it later than `latest_ns`. Both grow from one to the next.
    marks: VecDeque<Mark>,
    /// Of everything that was read.
    latest_ns: u64,
    /// Sequence numbers from one mark to the next, about.
    step: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    next: u64,
    latest_ns: u64,
}

impl Settled {
    /// Everything below the sequence number `next` was read; what windows have of it is no later than `latest_ns`.
    pub fn read(&mut self, next: u64, latest_ns: u64) {
        if self.marks.is_empty() {
            self.step = 1;
        }
        self.latest_ns = self.latest_ns.max(latest_ns);
        self.push(Mark { next, latest_ns: self.latest_ns });
        if self.marks.len() > MOST {
            self.step = self.step.saturating_mul(2);
            for mark in std::mem::take(&mut self.marks) {
                self.push(mark);
            }
        }
    }

    /// The later of two marks stands for both.
    fn push(&mut self, mark: Mark) {
        let step = self.step;
        match self.marks.back_mut() {
            Some(last)
                if last.latest_ns == mark.latest_ns || last.next / step == mark.next / step =>
            {
                *last = mark;
            }
            _ => self.marks.push_back(mark),
        }
    }

    /// Below which sequence number nothing is in a window that is open, if that is more than before: the oldest of these
    /// has nothing from before `open_ns` (`None`: none is open).
    pub fn settled(&mut self, open_ns: Option<u64>) -> Option<u64> {
        let mut settled = None;
        while let Some(mark) =
            self.marks.pop_front_if(|mark| open_ns.is_none_or(|open_ns| mark.latest_ns < open_ns))
        {
            settled = Some(mark.next);
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_open_window_may_have_is_not_settled() {
        let mut shard = Settled::default();
        assert_eq!(shard.settled(None), None, "nothing was read");
        for (next, latest_ns) in [(10, 100), (20, 90), (30, 200), (40, 250)] {
            shard.read(next, latest_ns);
        }
        assert_eq!(shard.settled(Some(100)), None, "something from 100 on is open");
        // What came out of order is settled with what came before it.
        assert_eq!(shard.settled(Some(101)), Some(20));
        assert_eq!(shard.settled(Some(200)), None);
        assert_eq!(shard.settled(Some(250)), Some(30));
        // Of records without a time no window has anything, but they come after some of which one has.
        shard.read(50, 0);
        assert_eq!(shard.settled(Some(250)), None);
        assert_eq!(shard.settled(None), Some(50));
        assert_eq!(shard.settled(None), None);
    }

    #[test]
    fn a_window_that_stays_open_takes_little_memory() {
        let mut shard = Settled::default();
        for n in 1..=100_000 {
            shard.read(n, n);
            assert!(shard.marks.len() <= MOST);
        }
        // Never too much, and not much too little.
        let settled = shard.settled(Some(50_000)).unwrap();
        assert!(settled < 50_000 && settled > 49_000, "{settled}");
        assert_eq!(shard.settled(None), Some(100_000));
    }
}
