//! What a core's server side counts: written by its thread only, copied once a second.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use highwater_engine::Durations;
use highwater_wire::ErrorCode;
use highwater_wire::telemetry::{CoreSnapshot, Refusals};

use crate::clock::thread_cpu_ns;
use crate::outgoing::{Stage, Way};

/// Counters and distributions.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Frames received.
    requests: Cell<u64>,
    /// Requests refused, by error code.
    refusals: RefCell<BTreeMap<u16, u64>>,
    /// Appends that waited for buffer memory.
    stalled: Cell<u64>,
    /// Requests handed to another core.
    forwarded: Cell<u64>,
    /// Connections ended for what they sent.
    malformed: Cell<u64>,
    /// CPU time of taking and serving snapshots, nanoseconds.
    snapshot_ns: Cell<u64>,
    /// Turns of the core, and how long they took.
    turns: Cell<u64>,
    turn: RefCell<Durations>,
    /// From the device to the socket.
    ack: RefCell<Durations>,
    deliver: RefCell<Durations>,
}

fn add(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get() + n);
}

impl Figures {
    /// A frame came.
    pub fn requested(&self) {
        add(&self.requests, 1);
    }

    /// A request was refused.
    pub fn refused(&self, code: ErrorCode) {
        *self.refusals.borrow_mut().entry(code as u16).or_default() += 1;
    }

    /// An append has to wait for buffer memory.
    pub fn stalled(&self) {
        add(&self.stalled, 1);
    }

    /// A request went to another core.
    pub fn forwarded(&self) {
        add(&self.forwarded, 1);
    }

    /// A connection ends for what it sent.
    pub fn malformed(&self) {
        add(&self.malformed, 1);
    }

    /// The core was turned.
    pub fn turned(&self, ns: u64) {
        add(&self.turns, 1);
        self.turn.borrow_mut().record(ns, 1);
    }

    /// Records went to the socket at `now_ns`.
    pub fn passed(&self, way: &Way, now_ns: u64) {
        let durations = match way.stage {
            Stage::Ack => &self.ack,
            Stage::Deliver => &self.deliver,
        };
        durations.borrow_mut().record(now_ns.saturating_sub(way.since_ns), way.records);
    }

    /// Does something for the sake of snapshots, and counts what it costs.
    pub fn charged<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_cpu_ns();
        let done = work();
        add(&self.snapshot_ns, thread_cpu_ns().saturating_sub(before));
        done
    }

    /// What snapshots have cost, nanoseconds.
    pub fn snapshot_ns(&self) -> u64 {
        self.snapshot_ns.get()
    }

    /// Copies everything.
    pub fn copy(&self, to: &mut CoreSnapshot) {
        let refusals = self.refusals.borrow();
        to.requests = self.requests.get();
        to.refused = refusals.values().sum();
        to.refusals = refusals.iter().map(|(&code, &count)| Refusals { code, count }).collect();
        to.stalled = self.stalled.get();
        to.forwarded = self.forwarded.get();
        to.malformed = self.malformed.get();
        to.snapshot_cost_us = self.snapshot_ns.get() / 1_000;
        to.turns = self.turns.get();
        to.turn = self.turn.borrow_mut().copy();
        to.ack = self.ack.borrow_mut().copy();
        to.deliver = self.deliver.borrow_mut().copy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_copied() {
        let figures = Figures::default();
        figures.requested();
        figures.refused(ErrorCode::DiskFull);
        figures.refused(ErrorCode::Busy);
        figures.refused(ErrorCode::Busy);
        figures.turned(5_000);
        let (stage, arrivals) = (Stage::Deliver, None);
        let way = Way { stage, end: 9, since_ns: 1_000_000, records: 40, arrivals };
        figures.passed(&way, 3_000_000);
        figures.charged(|| std::hint::black_box((0..100_000u64).fold(0, |a, b| a ^ b)));
        let mut copy = CoreSnapshot::default();
        figures.copy(&mut copy);
        let busy = Refusals { code: ErrorCode::Busy as u16, count: 2 };
        let full = Refusals { code: ErrorCode::DiskFull as u16, count: 1 };
        assert_eq!(copy.refusals, [busy, full]);
        assert_eq!((copy.requests, copy.refused, copy.turns), (1, 3, 1));
        assert_eq!((copy.deliver.count(), copy.ack.count(), copy.turn.count()), (40, 0, 1));
        assert!((1_900_000..2_100_000).contains(&copy.deliver.max), "{}", copy.deliver.max);
        assert!(figures.snapshot_ns() > 0);
    }
}
