//! One lane at work: the records of one producer for one shard, made when they are due, sent in
//! batches, and timed when their acknowledgements come.
//!
//! Lanes of a producer do not wait for each other: a shard that does not answer holds up its own records
//! only. After the first batches a lane allocates nothing: batches, due times and slots are used again.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use highwater_wire::{BatchBuilder, BatchError};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::LATE_P99_MAX;
use crate::Mode;
use crate::clock::nanos;
use crate::dealer::{Batch, Hand};
use crate::latency::{Meter, record, record_each};
use crate::pacer::Timer;
use crate::pauses::{Longest, Pauses};
use crate::plan::Plan;
use crate::proof::Proof;
use crate::stage::{CATCH_UP, Stage};
use crate::target::{At, Failure, Fate, Outcomes, Sink};
use crate::timeline::{OUTSIDE, PAUSED};
use crate::workload::Writer;

/// A saturating or closed lane whose batch failed waits this long, lest it hammer a target that refuses.
pub const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A batch sent and not yet answered.
#[derive(Debug, Default)]
struct Slot {
    /// The lane's number of its first record.
    first: u64,
    sent_ns: u64,
    /// Payload bytes.
    bytes: u64,
    /// Intended send times, one per record, ascending. Empty: the slot is free.
    intended: Vec<u64>,
    /// Which records are answered, if not all of them are at once; none of these before.
    answered: Answered,
}

/// Records of a batch by index, those that are answered marked.
#[derive(Debug, Default)]
struct Answered {
    marks: Vec<bool>,
    count: usize,
}

impl Answered {
    /// Marks the first run of unmarked records within `within`, of a batch of so many; `None` if there is none.
    fn mark(&mut self, records: usize, within: Range<usize>) -> Option<Range<usize>> {
        self.marks.resize(records, false);
        let marks = self.marks.get_mut(within.clone())?;
        let first = marks.iter().position(|marked| !marked)?;
        let marks = &mut marks[first..];
        let count = marks.iter().position(|marked| *marked).unwrap_or(marks.len());
        marks[..count].fill(true);
        self.count += count;
        Some(within.start + first..within.start + first + count)
    }

    /// Marks none, keeping the memory.
    fn clear(&mut self) {
        self.marks.clear();
        self.count = 0;
    }
}

/// Batches sent and not yet answered; shared by the two tasks of a lane.
struct Window {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    freed: Notify,
    failed: Cell<bool>,
}

impl Window {
    fn new(size: usize) -> Window {
        Window {
            slots: RefCell::new((0..size).map(|_| Slot::default()).collect()),
            free: RefCell::new((0..size).rev().collect()),
            freed: Notify::new(),
            failed: Cell::new(false),
        }
    }

    /// Waits for a free slot and takes it.
    async fn take(&self) -> usize {
        loop {
            if let Some(slot) = self.free.borrow_mut().pop() {
                return slot;
            }
            self.freed.notified().await;
        }
    }

    fn give_back(&self, slot: usize) {
        {
            let slot = &mut self.slots.borrow_mut()[slot];
            slot.intended.clear();
            slot.answered.clear();
        }
        self.free.borrow_mut().push(slot);
        self.freed.notify_one();
    }

    async fn emptied(&self) {
        let size = self.slots.borrow().len();
        while self.free.borrow().len() < size {
            self.freed.notified().await;
        }
    }
}

/// A slot taken and not used yet; goes back if the wait it belongs to is given up.
pub struct Ticket {
    common: Rc<Common>,
    slot: usize,
    used: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.used {
            self.common.window.give_back(self.slot);
        }
    }
}

/// What a lane shares with the task that hears of its batches.
pub struct Common {
    plan: Arc<Plan>,
    meter: Arc<Meter>,
    index: usize,
    window: Window,
    pauses: RefCell<Pauses>,
}

/// A lane that has not begun.
pub struct Lane<S> {
    common: Rc<Common>,
    sink: S,
    timer: Timer,
    writer: Rc<RefCell<Writer>>,
    hand: Rc<Hand>,
    producer: u32,
    place: usize,
    /// Intended times of the batch being made.
    intended: Vec<u64>,
    /// Records made so far.
    made: u64,
    /// When the target last let go of this lane, or when the last of what had gathered by then was sent: until
    /// then its lateness is the target's.
    held_until: u64,
}

impl<S: Sink> Lane<S> {
    /// Lane `index` of the plan, with the records in `hand`.
    pub fn new(
        plan: &Arc<Plan>,
        index: usize,
        sink: S,
        timer: Timer,
        writer: &Rc<RefCell<Writer>>,
        hand: &Rc<Hand>,
        meter: &Arc<Meter>,
    ) -> Lane<S> {
        let (producer, place) = plan.lane(index);
        let common = Common {
            plan: Arc::clone(plan),
            meter: Arc::clone(meter),
            index,
            window: Window::new(plan.inflight()),
            pauses: RefCell::default(),
        };
        Lane {
            common: Rc::new(common),
            sink,
            timer,
            writer: Rc::clone(writer),
            hand: Rc::clone(hand),
            producer,
            place,
            intended: Vec::new(),
            made: 0,
            held_until: 0,
        }
    }

    /// What hears of its batches must know.
    pub fn common(&self) -> &Rc<Common> {
        &self.common
    }

    /// Sends what is dealt to it until there is no more or the run is over, and returns when everything is
    /// answered, or nobody waits for it any more.
    pub async fn run(mut self, stage: watch::Receiver<Stage>) {
        if let Err(error) = self.send_all(stage.clone()).await {
            self.common.meter.lock().failed(|| format!("making a batch: {error}"));
        }
        self.drain(stage).await;
    }

    async fn send_all(&mut self, mut stage: watch::Receiver<Stage>) -> Result<(), BatchError> {
        let common = Rc::clone(&self.common);
        let plan = &*common.plan;
        let last = if plan.mode == Mode::Open { Stage::Over } else { Stage::Ended };
        {
            // The channel closes only if the worker is gone.
            let mut over = pin!(async { stage.wait_for(|stage| *stage >= last).await.is_ok() });
            loop {
                // Only waiting is cut off, never sending: a batch is either made and sent, or not made.
                let next = tokio::select! {
                    biased;
                    next = self.next() => next,
                    _ = &mut over => break,
                };
                let Some((ticket, batch)) = next else { return Ok(()) };
                self.send(ticket, batch).await?;
                // Lets the other lanes and the sockets have their turn even if nothing here had to wait.
                tokio::task::yield_now().await;
            }
        }
        // A stop finds records that were already due waiting for the rest of their batch.
        let end_ns = plan.times().end_ns;
        let mut batch = Batch::default();
        self.hand.extend(self.place, &mut batch, end_ns.saturating_sub(1), plan.batch_room);
        let drain = plan.options.drain_timeout.min(CATCH_UP);
        if plan.mode == Mode::Open
            && batch.records > 0
            && plan.clock.now_ns() < end_ns.saturating_add(nanos(CATCH_UP))
            && let Ok(ticket) = timeout(drain, self.admitted()).await
        {
            batch.close_ns = plan.clock.now_ns();
            self.send(ticket, batch).await?;
        }
        Ok(())
    }

    /// Waits until everything is answered, but not for ever.
    pub async fn drain(self, mut stage: watch::Receiver<Stage>) {
        let common = &self.common;
        tokio::select! {
            // The sink must live until then.
            _ = timeout(common.plan.options.drain_timeout, common.window.emptied()) => {}
            _ = stage.wait_for(|stage| *stage >= Stage::Abandoned) => {}
        }
        common.abandon();
    }

    /// Waits for the next batch to be due and admitted, and for its records to be known. `None` after the
    /// last.
    async fn next(&mut self) -> Option<(Ticket, Batch)> {
        let common = Rc::clone(&self.common);
        let plan = &*common.plan;
        let (room, mut batch) = (plan.batch_room, Batch::default());
        if plan.mode != Mode::Open {
            self.recover().await;
            if !self.hand.filled(self.place, room).await {
                return None;
            }
            let ticket = self.admitted().await;
            if plan.clock.now_ns() >= plan.times().end_ns {
                return None;
            }
            self.hand.extend(self.place, &mut batch, u64::MAX, room);
            return Some((ticket, batch));
        }
        let first = self.hand.first(self.place).await?;
        let last = first.saturating_add(nanos(plan.options.linger));
        if !self.hand.dealt_to(last) {
            // By then all that may share its batch has been dealt.
            self.timer.until(first).await;
        }
        // The batch is complete with the last record due within the linger: a lone one does not wait.
        let before_end = || plan.times().end_ns.saturating_sub(1);
        self.hand.extend(self.place, &mut batch, last.min(before_end()), room);
        if batch.records == 0 || batch.close_ns > before_end() {
            return None;
        }
        self.timer.until(batch.close_ns).await;
        let ticket = self.admitted().await;
        // A late lane skips nothing: what has fallen due since comes along.
        let (now, close_ns) = (plan.clock.now_ns(), batch.close_ns);
        self.hand.extend(self.place, &mut batch, now.min(before_end()), room);
        batch.close_ns = close_ns;
        Some((ticket, batch))
    }

    /// Waits a little if a batch has failed.
    pub async fn recover(&mut self) {
        if self.common.window.failed.replace(false) {
            let now = self.common.plan.clock.now_ns();
            self.timer.until(now.saturating_add(nanos(AFTER_FAILURE))).await;
        }
    }

    /// Waits until the target takes another batch, and notes if it did not at once.
    pub async fn admitted(&mut self) -> Ticket {
        let common = Rc::clone(&self.common);
        let sink = &mut self.sink;
        let (ticket, held) = held_up(async move {
            let slot = common.window.take().await;
            let ticket = Ticket { common, slot, used: false };
            sink.ready().await;
            ticket
        })
        .await;
        if held {
            self.held_until = self.common.plan.clock.now_ns();
        }
        ticket
    }

    /// Waits until the fate of everything sent is known.
    pub async fn answered(&self) {
        self.common.window.emptied().await;
    }

    /// Makes the records of a batch and sends them.
    pub async fn send(&mut self, mut ticket: Ticket, batch: Batch) -> Result<(), BatchError> {
        let common = Rc::clone(&self.common);
        let plan = &*common.plan;
        let first = self.made;
        let mut builder = self.hand.builder();
        let bytes = self.fill(&batch, &mut builder)?;
        let sent_ns = plan.clock.now_ns();
        self.count_sent(sent_ns, batch.close_ns);
        if batch.close_ns < self.held_until {
            // What gathered while the target held this lane goes out batch after batch: none of these could
            // have gone before the one in front of it.
            self.held_until = sent_ns;
        }
        {
            let slot = &mut common.window.slots.borrow_mut()[ticket.slot];
            (slot.first, slot.sent_ns, slot.bytes) = (first, sent_ns, bytes);
            // The slot's old memory comes back to gather the next batch in.
            std::mem::swap(&mut slot.intended, &mut self.intended);
        }
        ticket.used = true;
        let (taken, held) = held_up(self.sink.append(&mut builder, ticket.slot as u64)).await;
        self.hand.give_back(builder);
        if held {
            self.held_until = plan.clock.now_ns();
        }
        if let Err(failure) = taken {
            let now = plan.clock.now_ns();
            common.answered(ticket.slot, &(0..u32::MAX), &Fate::Failed(failure), now);
        }
        Ok(())
    }

    /// Returns how many payload bytes it made.
    fn fill(&mut self, batch: &Batch, builder: &mut BatchBuilder) -> Result<u64, BatchError> {
        let plan = &*self.common.plan;
        // Without a schedule a record is due when it is made.
        let open = plan.mode == Mode::Open;
        let now = if open { 0 } else { plan.clock.now_ns() };
        let intended = &mut self.intended;
        intended.clear();
        intended.reserve(batch.records);
        let mut writer = self.writer.borrow_mut();
        let mut proof =
            Proof { producer: self.producer, run: plan.run, sequence: self.made, intended_ns: now };
        let mut bytes = 0;
        self.hand.take(self.place, batch, |record| {
            if open {
                proof.intended_ns = record.intended_ns;
            }
            writer.push(builder, &record.draw, &proof)?;
            intended.push(proof.intended_ns);
            bytes += u64::from(record.draw.len);
            proof.sequence += 1;
            Ok::<_, BatchError>(())
        })?;
        self.made = proof.sequence;
        Ok(bytes)
    }

    fn count_sent(&self, sent_ns: u64, close_ns: u64) {
        let plan = &*self.common.plan;
        let times = plan.times();
        let sent_by = times
            .end_ns
            .saturating_add(nanos(plan.options.linger))
            .saturating_add(nanos(LATE_P99_MAX));
        let mut readings = self.common.meter.lock();
        let readings = &mut *readings;
        readings.counts.sent += self.intended.len() as u64;
        let could = close_ns.max(self.held_until);
        for (class, intended) in times.split(&self.intended) {
            let set = &mut readings.sets[class];
            record_each(&mut set.send_lag, intended, sent_ns);
            if plan.mode == Mode::Open {
                // What fell due after the batch should have closed is late from its own time on.
                let (by_then, after) =
                    intended.split_at(intended.partition_point(|ns| *ns <= could));
                record(&mut set.late, could, sent_ns, by_then.len() as u64);
                record_each(&mut set.late, after, sent_ns);
            }
            if class != OUTSIDE {
                let count = intended.len() as u64;
                readings.counts.window_due += count;
                readings.counts.window_sent += if sent_ns <= sent_by { count } else { 0 };
            }
        }
    }
}

/// Hears what became of a lane's batches, until there is nothing more to hear.
pub async fn listen<O: Outcomes>(common: Rc<Common>, mut outcomes: O) {
    while let Some(outcome) = outcomes.next().await {
        let now = common.plan.clock.now_ns();
        let Ok(slot) = usize::try_from(outcome.tag) else { continue };
        common.answered(slot, &outcome.records, &outcome.fate, now);
    }
}

impl Common {
    /// Some records of a slot are answered; each counts once.
    fn answered(&self, slot: usize, records: &Range<u32>, fate: &Fate, now: u64) {
        let slots = self.window.slots.borrow();
        let Some(all) = slots.get(slot).map(|s| s.intended.len()) else { return };
        let index = |index: u32| usize::try_from(index).unwrap_or(usize::MAX).min(all);
        let records = index(records.start)..index(records.end);
        if records.is_empty() {
            return;
        }
        if slots[slot].answered.count == 0 && records == (0..all) {
            self.settle(&slots[slot], records, fate, now);
            drop(slots);
            return self.window.give_back(slot);
        }
        drop(slots);
        let mark = || self.window.slots.borrow_mut()[slot].answered.mark(all, records.clone());
        while let Some(run) = mark() {
            // Where a part of what was told lies, if some of it was told before.
            let mut fate = fate.clone();
            if let Fate::Stored(Some(at)) = &mut fate {
                at.sequence += (run.start - records.start) as u64;
            }
            self.settle(&self.window.slots.borrow()[slot], run, &fate, now);
        }
        if self.window.slots.borrow()[slot].answered.count == all {
            self.window.give_back(slot);
        }
    }

    /// Records with these indices in their batch have their fate.
    fn settle(&self, slot: &Slot, records: Range<usize>, fate: &Fate, now: u64) {
        let numbers = slot.first + records.start as u64..slot.first + records.end as u64;
        let count = numbers.end - numbers.start;
        match fate {
            Fate::Stored(at) => self.acknowledged(slot, records, *at, now),
            Fate::Dropped | Fate::SampledOut => {
                let sampled = matches!(fate, Fate::SampledOut);
                self.plan.ledger(self.index).shed(numbers, sampled);
                let counts = &mut self.meter.lock().counts;
                counts.dropped += if sampled { 0 } else { count };
                counts.sampled_out += if sampled { count } else { 0 };
            }
            Fate::Failed(failure) => self.failed(numbers, failure),
        }
    }

    fn acknowledged(&self, slot: &Slot, records: Range<usize>, at: Option<At>, now: u64) {
        let (paused, times) = (self.plan.paused(), self.plan.times());
        let first = slot.first + records.start as u64;
        let intended = &slot.intended[records];
        let count = intended.len() as u64;
        // Of a part, its share.
        let bytes = slot.bytes * count / (slot.intended.len() as u64).max(1);
        let mut readings = self.meter.lock();
        let readings = &mut *readings;
        let counts = &mut readings.counts;
        counts.acked += count;
        counts.acked_bytes += bytes;
        if times.window().contains(&now) {
            counts.acked_within += count;
            counts.acked_within_bytes += bytes;
        }
        let mut passed = 0;
        for (class, intended) in times.split(intended) {
            let (count, first) = (intended.len() as u64, first + passed);
            if let (Some(at), Some(due)) = (at, intended.first()) {
                self.pauses.borrow_mut().acked(at.shard, *due, now, class != OUTSIDE);
            }
            let at = at.map(|at| At { sequence: at.sequence + passed, ..at });
            passed += count;
            let set = &mut readings.sets[class];
            record_each(&mut set.response, intended, now);
            record(&mut set.service, slot.sent_ns, now, count);
            if class != OUTSIDE {
                counts.window_acked += count;
            }
            let mut ledger = self.plan.ledger(self.index);
            ledger.acked(first..first + count, at, now, |group, early| {
                // Read before the acknowledgement came: visible at once.
                let class = if paused.contains(&group) { PAUSED } else { class };
                if let Some(set) = readings.sets.get_mut(class) {
                    record(&mut set.visibility, now, now, early);
                }
            });
        }
    }

    fn failed(&self, records: Range<u64>, failure: &Failure) {
        let count = records.end - records.start;
        let mut ledger = self.plan.ledger(self.index);
        if failure.unknown {
            ledger.unknown(records)
        } else {
            ledger.refused(records)
        }
        drop(ledger);
        let mut readings = self.meter.lock();
        readings.failed(|| failure.message.clone());
        if failure.unknown {
            readings.counts.unknown += count;
        } else {
            readings.counts.refused += count;
        }
        drop(readings);
        self.window.failed.set(true);
    }

    /// Adds the longest pauses of this lane's shards.
    pub fn pauses(&self, longest: &mut Longest) {
        let stream = self.plan.places[self.plan.lane(self.index).1].stream;
        self.pauses.borrow().add_to(stream, longest);
    }

    /// At the end: what is not answered by now never will be.
    fn abandon(&self) {
        let size = self.window.slots.borrow().len();
        for slot in 0..size {
            let message = "not answered before the drain timeout".to_owned();
            let fate = Fate::Failed(Failure { unknown: true, message });
            self.answered(slot, &(0..u32::MAX), &fate, self.plan.clock.now_ns());
        }
    }
}

/// Runs `future`; also says whether it had to wait.
async fn held_up<F: Future>(future: F) -> (F::Output, bool) {
    let mut future = pin!(future);
    let mut held = false;
    let output = std::future::poll_fn(|cx| {
        let poll = future.as_mut().poll(cx);
        held |= poll.is_pending();
        match poll {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    (output, held)
}
