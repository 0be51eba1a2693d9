//! Deals a producer's records to its lanes: when each is due, what it is, and where it goes.
//!
//! Records are dealt a little ahead of their time, so that a lane can see which of them share a batch. A lane
//! that is held up by its shard holds up nobody else: its records wait in its queue. What waits is bounded;
//! at the bound dealing stops, and goes on with the same due times when there is room: nothing is skipped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use highwater_wire::BatchBuilder;
use tokio::sync::Notify;

use crate::plan::Plan;
use crate::schedule::{Gaps, Schedule};
use crate::workload::{Draw, Source};

/// Most bytes of memory that records dealt and not sent may take, over the run.
const MAX_WAITING: usize = 256 << 20;

/// Most records dealt in one go: the producer's lanes, on the same thread, wait meanwhile.
const SLICE: usize = 4096;

/// A record to be made.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// When it is due; 0 if it is due when it is sent.
    pub intended_ns: u64,
    /// What it is.
    pub draw: Draw,
}

/// Records of one lane that are dealt and not sent.
#[derive(Debug, Default)]
struct Queue {
    records: RefCell<VecDeque<Planned>>,
    /// What they take in batches.
    bytes: Cell<usize>,
    more: Notify,
}

/// The lanes' side of a dealer.
#[derive(Debug)]
pub struct Hand {
    queues: Vec<Queue>,
    /// Memory for batches that no lane is making one in.
    builders: RefCell<Vec<BatchBuilder>>,
    /// Bytes of a record in a batch beside its payload.
    overhead: usize,
    waiting: Cell<usize>,
    room: Notify,
    /// Every record due before this time is dealt.
    dealt_ns: Cell<u64>,
    over: Cell<bool>,
}

/// Records at the head of a queue that will make a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch {
    /// How many.
    pub records: usize,
    /// What they take.
    pub bytes: usize,
    /// When the last of them is due.
    pub close_ns: u64,
}

impl Hand {
    fn len_of(&self, draw: &Draw) -> usize {
        BatchBuilder::record_len(self.overhead, 0, draw.len as usize)
    }

    /// When the next record of a lane is due; waits until there is one. `None` after the last.
    pub async fn first(&self, lane: usize) -> Option<u64> {
        let queue = &self.queues[lane];
        loop {
            if let Some(first) = queue.records.borrow().front() {
                return Some(first.intended_ns);
            }
            if self.over.get() {
                return None;
            }
            queue.more.notified().await;
        }
    }

    /// Waits until a lane's records fill a batch of `room` bytes; whether they do: not if no more will come.
    pub async fn filled(&self, lane: usize, room: usize) -> bool {
        let queue = &self.queues[lane];
        while queue.bytes.get() < room {
            if self.over.get() {
                return false;
            }
            queue.more.notified().await;
        }
        true
    }

    /// Whether every record due up to `ns` is dealt.
    pub fn dealt_to(&self, ns: u64) -> bool {
        self.dealt_ns.get() > ns || self.over.get()
    }

    /// Adds to a batch what follows it in the queue, is due up to `last_ns` and fits into `room`; the
    /// first record always does.
    pub fn extend(&self, lane: usize, batch: &mut Batch, last_ns: u64, room: usize) {
        let records = self.queues[lane].records.borrow();
        for record in records.range(batch.records.min(records.len())..) {
            let bytes = batch.bytes + self.len_of(&record.draw);
            if record.intended_ns > last_ns || (bytes > room && batch.records > 0) {
                break;
            }
            (batch.bytes, batch.close_ns) = (bytes, record.intended_ns);
            batch.records += 1;
        }
    }

    /// Takes the records of a batch out of a queue, one by one.
    pub fn take<E>(
        &self,
        lane: usize,
        batch: &Batch,
        mut make: impl FnMut(Planned) -> Result<(), E>,
    ) -> Result<(), E> {
        let queue = &self.queues[lane];
        let mut records = queue.records.borrow_mut();
        let count = batch.records.min(records.len());
        let (front, back) = records.as_slices();
        let made = front.iter().chain(back).take(count).try_for_each(|record| make(*record));
        records.drain(..count);
        queue.bytes.set(queue.bytes.get().saturating_sub(batch.bytes));
        self.waiting.set(self.waiting.get().saturating_sub(count));
        self.room.notify_one();
        made
    }

    /// Memory to make a batch in: what was given back last, for it is still in the CPU's cache. A builder for
    /// each lane would not fit there.
    pub fn builder(&self) -> BatchBuilder {
        self.builders.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes memory back that is not used any more.
    pub fn give_back(&self, mut builder: BatchBuilder) {
        builder.clear();
        self.builders.borrow_mut().push(builder);
    }

    /// Puts a record into a lane's queue; returns what the queue takes then.
    #[inline]
    pub fn put(&self, lane: usize, record: Planned) -> usize {
        let queue = &self.queues[lane];
        let bytes = queue.bytes.get() + self.len_of(&record.draw);
        queue.bytes.set(bytes);
        self.waiting.set(self.waiting.get() + 1);
        queue.records.borrow_mut().push_back(record);
        bytes
    }

    /// How many records not sent were due in each of these times.
    fn left(&self, before_ns: u64, window: &std::ops::Range<u64>) -> (u64, u64) {
        let (mut all, mut measured) = (0, 0);
        for queue in &self.queues {
            for record in queue.records.borrow().iter().filter(|r| r.intended_ns < before_ns) {
                all += 1;
                measured += u64::from(window.contains(&record.intended_ns));
            }
        }
        (all, measured)
    }
}

/// How dealing ended for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dealt {
    /// Everything that is due soon.
    Ahead,
    /// Some of that: the lanes have their turn.
    Slice,
    /// As much as may wait.
    Full,
    /// Everything.
    All,
}

/// Deals one producer's records.
#[derive(Debug)]
pub struct Dealer {
    plan: Arc<Plan>,
    producer: usize,
    hand: Rc<Hand>,
    source: Source,
    /// `None` without a rate.
    schedule: Option<Schedule>,
    warming: bool,
    /// Stream of the next record.
    turn: usize,
    gaps: Gaps,
    most_waiting: usize,
}

impl Dealer {
    /// Of a producer's records. The plan need not have begun.
    pub fn new(plan: &Arc<Plan>, producer: u32) -> Dealer {
        let material = &plan.material;
        let hand = Hand {
            queues: plan.places.iter().map(|_| Queue::default()).collect(),
            builders: RefCell::default(),
            overhead: material.max_record().saturating_sub(material.max_payload()),
            waiting: Cell::new(0),
            room: Notify::new(),
            dealt_ns: Cell::new(0),
            over: Cell::new(false),
        };
        let most = MAX_WAITING / size_of::<Planned>() / plan.producers;
        Dealer {
            plan: Arc::clone(plan),
            producer: producer as usize,
            hand: Rc::new(hand),
            source: plan.source(producer),
            schedule: None,
            warming: true,
            turn: 0,
            gaps: Gaps::default(),
            most_waiting: most.max(1),
        }
    }

    /// The lanes' side.
    pub fn hand(&self) -> &Rc<Hand> {
        &self.hand
    }

    /// The plan has begun: due times are known.
    pub fn begin(&mut self) {
        self.schedule = self.plan.warm_up(self.producer);
    }

    /// Draws the next record; returns its place as well.
    // Always inlined: handed over in memory, the draw costs as much as all the rest of dealing it.
    #[inline(always)]
    pub fn draw(&mut self) -> (usize, Draw) {
        let draw = self.source.next();
        let place = self.plan.routes.place(self.turn, &draw);
        self.turn += 1;
        if self.turn == self.plan.routes.streams() {
            self.turn = 0;
        }
        (place, draw)
    }

    /// When the next record is due, if there is a rate, and goes on to the one after.
    pub fn due(&mut self) -> Option<u64> {
        self.open(self.schedule.as_ref()?.next_ns());
        let schedule = self.schedule.as_mut()?;
        let due = schedule.next_ns();
        schedule.advance();
        Some(due)
    }

    /// Goes on to the measured window's own due times when those of the warm-up have come to `ns`.
    fn open(&mut self, ns: u64) -> bool {
        let opens = self.warming && ns >= self.plan.times().window_ns;
        if opens {
            self.schedule = self.plan.measured(self.producer);
            if self.plan.material.begins_with_window() {
                self.source = self.plan.source(self.producer as u32);
            }
            self.warming = false;
        }
        opens
    }

    /// Deals what falls due soon.
    pub fn deal_due(&mut self) -> Dealt {
        loop {
            let times = self.plan.times();
            let horizon = self.plan.clock.now_ns().saturating_add(self.plan.horizon_ns());
            let until = horizon.min(times.end_ns);
            let until = if self.warming { until.min(times.window_ns) } else { until };
            if let Some(short) = self.deal_until(until) {
                return short;
            }
            self.hand.dealt_ns.set(until);
            if self.open(until) {
                continue;
            }
            let next = self.schedule.as_ref().map_or(u64::MAX, Schedule::next_ns);
            return if next >= times.end_ns || until >= times.end_ns || next == u64::MAX {
                Dealt::All
            } else {
                Dealt::Ahead
            };
        }
    }

    /// Deals what is due before `until_ns`, or says why not all of it.
    fn deal_until(&mut self, until_ns: u64) -> Option<Dealt> {
        let mut schedule = self.schedule.take()?;
        let hand = Rc::clone(&self.hand);
        let free = self.most_waiting.saturating_sub(hand.waiting.get());
        let mut room = free.min(SLICE);
        while schedule.next_ns() < until_ns && room > 0 {
            let intended_ns = schedule.next_ns();
            schedule.advance();
            if !self.warming {
                self.gaps.add(intended_ns);
            }
            let (place, draw) = self.draw();
            hand.put(place, Planned { intended_ns, draw });
            room -= 1;
        }
        let short = match free {
            _ if schedule.next_ns() >= until_ns => None,
            0..=SLICE => Some(Dealt::Full),
            _ => {
                hand.dealt_ns.set(schedule.next_ns());
                Some(Dealt::Slice)
            }
        };
        self.schedule = Some(schedule);
        self.tell();
        short
    }

    /// Deals until a lane has two batches of `batch` bytes waiting: it is the slowest, and the others must
    /// not run ahead of it.
    pub fn deal_full(&mut self, batch: usize) {
        let hand = Rc::clone(&self.hand);
        let most = 2 * batch;
        if hand.queues.iter().any(|queue| queue.bytes.get() >= most) {
            return;
        }
        let mut room = self.most_waiting.saturating_sub(hand.waiting.get());
        while room > 0 {
            let (place, draw) = self.draw();
            if hand.put(place, Planned { intended_ns: 0, draw }) >= most {
                break;
            }
            room -= 1;
        }
        self.tell();
    }

    /// Waits until a lane has taken something.
    pub async fn room(&self) {
        self.hand.room.notified().await;
    }

    /// Nothing more will be dealt.
    pub fn end(&self) {
        self.hand.over.set(true);
        self.tell();
    }

    fn tell(&self) {
        let over = self.hand.over.get();
        for queue in self.hand.queues.iter().filter(|queue| over || queue.bytes.get() > 0) {
            queue.more.notify_one();
        }
    }

    /// At the end: how many records were due and are not sent, and how many of these in the measured
    /// window. With the gaps between the window's due times.
    pub fn unsent(&self) -> (u64, u64, &Gaps) {
        let times = self.plan.times();
        let window = times.window();
        let (mut all, mut measured) = self.hand.left(times.end_ns, &window);
        if let Some(schedule) = &self.schedule {
            if self.warming {
                all += schedule.due_before(times.end_ns.min(window.start));
                let never = self.plan.measured(self.producer).filter(|_| !window.is_empty());
                measured += never.map_or(0, |schedule| schedule.due_before(window.end));
                all += measured;
            } else {
                let left = schedule.due_before(times.end_ns);
                (all, measured) = (all + left, measured + left);
            }
        }
        (all, measured, &self.gaps)
    }
}

#[cfg(test)]
mod tests;
