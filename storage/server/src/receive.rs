//! A connection's receive buffer: frames are decoded in place at its front, what is left of an incomplete
//! one is moved there before the next read.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::options::bounds::{RECEIVE_BUSY, RECEIVE_MIN, RECEIVE_MODEST};

/// Receive memory of one core beyond what every connection has.
#[derive(Debug)]
pub(crate) struct ReceiveBudget {
    all: usize,
    left: Cell<usize>,
    returned: Notify,
}

impl ReceiveBudget {
    pub fn new(bytes: usize) -> Rc<ReceiveBudget> {
        let (left, returned) = (Cell::new(bytes), Notify::new());
        Rc::new(ReceiveBudget { all: bytes, left, returned })
    }

    fn take(&self, bytes: usize, leave: usize) -> bool {
        let left = self.left.get();
        let there = bytes.saturating_add(leave) <= left;
        if there {
            self.left.set(left - bytes);
        }
        there
    }

    fn give(&self, bytes: usize) {
        if bytes > 0 {
            self.left.set(self.left.get() + bytes);
            self.returned.notify_waiters();
        }
    }

    /// Bytes given out.
    pub fn used(&self) -> usize {
        self.all - self.left.get()
    }

    /// Completes when some is given back after this call.
    pub fn returned(&self) -> Notified<'_> {
        self.returned.notified()
    }

    /// Whether `bytes` may be taken for a buffer of `capacity` that works without: half of all is for frames that
    /// need it, and half of the rest for buffers that are modest.
    fn spares(&self, capacity: usize, bytes: usize) -> bool {
        let for_others = if capacity > RECEIVE_MODEST { self.all / 4 * 3 } else { self.all / 2 };
        self.left.get() >= for_others + bytes
    }

    /// Whether there is so little left that large frames may have to wait.
    pub fn short(&self) -> bool {
        self.left.get() < self.all / 4
    }
}

/// Reads of less than a quarter in a row after which a grown buffer is halved.
const CALM: u32 = 64;

/// Bytes received and not yet consumed.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    buf: Vec<u8>,
    /// Where the first byte not consumed is.
    start: usize,
    /// Capacity wanted.
    target: usize,
    /// Charged to the budget.
    charged: usize,
    calm: u32,
    budget: Rc<ReceiveBudget>,
}

/// The memory set aside for receiving is spent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl ReceiveBuffer {
    pub fn new(budget: Rc<ReceiveBudget>) -> ReceiveBuffer {
        ReceiveBuffer {
            buf: Vec::new(),
            start: 0,
            target: RECEIVE_MIN,
            charged: 0,
            calm: 0,
            budget,
        }
    }

    /// Received and not consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// Drops `n` bytes from the front.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.buf.len());
    }

    /// Makes room for a frame of `need` bytes in all (0 when that is not known) and lends the buffer for
    /// one read into `buf[buf.len()..]`, which is not empty.
    pub fn lend(&mut self, need: usize) -> Result<Vec<u8>, Exhausted> {
        let left = self.buf.len() - self.start;
        // At least one byte of room, whatever is asked for.
        let need = need.max(left + 1);
        let capacity = self.buf.capacity();
        // Rounded, so that frames of about the same size find the buffer right.
        let large = if need > RECEIVE_BUSY { need.next_multiple_of(RECEIVE_BUSY) } else { 0 };
        let mut want = self.target.max(large).max(need);
        let least = need.max(RECEIVE_MIN);
        // More than the least is a wish. Once part of the budget is given out, wishes become modest, and end at half:
        // connections which were busy once do not keep what frames need.
        for modest in [RECEIVE_MODEST.max(least), least] {
            let more = want.saturating_sub(RECEIVE_MIN + self.charged);
            if want > least && !self.budget.spares(want, more) {
                want = want.min(modest);
                self.target = self.target.min(modest).max(RECEIVE_MIN);
            }
        }
        // Given back only between frames.
        let fits = capacity >= want && (left > 0 || capacity == want);
        if !fits && !self.resize(want) && capacity < need {
            return Err(Exhausted);
        }
        if self.start > 0 {
            self.buf.copy_within(self.start.., 0);
            self.buf.truncate(left);
            self.start = 0;
        }
        Ok(std::mem::take(&mut self.buf))
    }

    /// Moves to a buffer of `capacity` bytes, if the budget allows.
    fn resize(&mut self, capacity: usize) -> bool {
        let extra = capacity.saturating_sub(RECEIVE_MIN);
        // The last quarter is not for large frames, so that whoever sends many of them slowly does not keep out the rest.
        let leave = if capacity > RECEIVE_BUSY { self.budget.all / 4 } else { 0 };
        if extra > self.charged && !self.budget.take(extra - self.charged, leave) {
            return false;
        }
        self.budget.give(self.charged.saturating_sub(extra));
        self.charged = extra;
        // Not reallocated: that would copy what is consumed already.
        let mut buf = Vec::with_capacity(capacity);
        buf.extend_from_slice(self.bytes());
        (self.buf, self.start) = (buf, 0);
        true
    }

    /// Takes the buffer back after a read of `read` bytes, and adapts its size to the traffic.
    pub fn give_back(&mut self, buf: Vec<u8>, read: usize) {
        self.buf = buf;
        if self.buf.len() == self.buf.capacity() && self.target < RECEIVE_BUSY {
            self.target = (self.target * 2).min(RECEIVE_BUSY);
            self.calm = 0;
        } else if read < self.target / 4 && self.target > RECEIVE_MIN {
            self.calm += 1;
            if self.calm >= CALM {
                self.target = (self.target / 2).max(RECEIVE_MIN);
                self.calm = 0;
            }
        } else {
            self.calm = 0;
        }
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        self.budget.give(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut ReceiveBuffer, need: usize, bytes: &[u8]) {
        let mut buf = buffer.lend(need).unwrap();
        assert!(buf.capacity() - buf.len() >= bytes.len());
        buf.extend_from_slice(bytes);
        buffer.give_back(buf, bytes.len());
    }

    #[test]
    fn what_is_left_moves_to_the_front() {
        let mut buffer = ReceiveBuffer::new(ReceiveBudget::new(0));
        fill(&mut buffer, 0, b"abcdef");
        buffer.consume(4);
        assert_eq!(buffer.bytes(), b"ef");
        fill(&mut buffer, 0, b"gh");
        assert_eq!(buffer.bytes(), b"efgh");
        assert_eq!(buffer.start, 0);
    }

    #[test]
    fn grows_for_a_frame_within_the_budget_and_shrinks_back() {
        let budget = ReceiveBudget::new(4 << 20);
        let mut buffer = ReceiveBuffer::new(Rc::clone(&budget));
        fill(&mut buffer, 0, &[1; 100]);
        fill(&mut buffer, 500_000, &[2; 400_000]);
        assert_eq!(buffer.bytes().len(), 400_100);
        assert_eq!(budget.left.get(), (4 << 20) - (2 * RECEIVE_BUSY - RECEIVE_MIN));
        assert_eq!(buffer.lend(9 << 20), Err(Exhausted));
        buffer.consume(400_000);
        fill(&mut buffer, 0, b"");
        assert!(budget.left.get() < 4 << 20, "not in the middle of a frame");
        buffer.consume(100);
        fill(&mut buffer, 0, b"x");
        assert_eq!((budget.left.get(), buffer.bytes()), (4 << 20, &b"x"[..]));
    }

    #[test]
    fn doubles_while_reads_fill_it_and_gives_back_when_dropped() {
        let budget = ReceiveBudget::new(1 << 20);
        let mut buffer = ReceiveBuffer::new(Rc::clone(&budget));
        for doubled in 0..9 {
            let size = (RECEIVE_MIN << doubled).min(RECEIVE_BUSY);
            fill(&mut buffer, 0, &vec![0; size]);
            buffer.consume(size);
        }
        assert_eq!(budget.left.get(), (1 << 20) - (RECEIVE_BUSY - RECEIVE_MIN));
        for _ in 0..=6 * CALM {
            fill(&mut buffer, 0, b"y");
            buffer.consume(1);
        }
        assert_eq!(budget.left.get(), 1 << 20);
        fill(&mut buffer, 200_000, b"z");
        drop(buffer);
        assert_eq!(budget.left.get(), 1 << 20);
    }

    #[test]
    fn busy_connections_leave_half_for_frames_that_need_it() {
        let all = 16 * (RECEIVE_BUSY - RECEIVE_MIN);
        let budget = ReceiveBudget::new(all);
        let mut buffers: Vec<_> = (0..60).map(|_| ReceiveBuffer::new(Rc::clone(&budget))).collect();
        for _ in 0..9 {
            for buffer in &mut buffers {
                let mut buf = buffer.lend(0).unwrap();
                let room = buf.capacity();
                buf.resize(room, 0);
                buffer.give_back(buf, room);
                buffer.consume(room);
            }
        }
        let left = budget.left.get();
        assert!((all / 2..all / 4 * 3).contains(&left) && !budget.short(), "{left} of {all}");
        let large = |buffer: &ReceiveBuffer| buffer.buf.capacity() > RECEIVE_MODEST;
        assert!(!buffers.iter().all(large), "wishes have become modest");
        let mut needy = ReceiveBuffer::new(Rc::clone(&budget));
        fill(&mut needy, RECEIVE_MIN + all / 4, b"a");
        // Whoever comes by now gives back what it only wished for.
        for buffer in &mut buffers {
            fill(buffer, 0, b"b");
        }
        assert!(budget.left.get() >= all / 2, "{} of {all}", budget.left.get());
    }

    #[test]
    fn large_frames_leave_a_quarter_for_small_ones() {
        let all = 8 * RECEIVE_BUSY;
        let budget = ReceiveBudget::new(all);
        let mut slow: Vec<_> = (0..8).map(|_| ReceiveBuffer::new(Rc::clone(&budget))).collect();
        let got = slow.iter_mut().filter_map(|b| b.lend(2 * RECEIVE_BUSY).ok()).count();
        assert_eq!(got, 3);
        assert!(!budget.short());
        let mut small = ReceiveBuffer::new(Rc::clone(&budget));
        assert!(small.lend(RECEIVE_BUSY).is_ok() && budget.short());
    }

    #[test]
    fn without_budget_a_busy_connection_stays_small() {
        let mut buffer = ReceiveBuffer::new(ReceiveBudget::new(0));
        for _ in 0..4 {
            fill(&mut buffer, 0, &vec![0; RECEIVE_MIN]);
            buffer.consume(RECEIVE_MIN);
        }
        assert_eq!(buffer.lend(0).unwrap().capacity(), RECEIVE_MIN);
    }
}
