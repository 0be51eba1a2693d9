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
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use crate::LATE_P99_MAX;
use crate::Mode;
use crate::clock::nanos;
use crate::latency::{Meter, record};
use crate::pacer::Timer;
use crate::payload::{Filler, Header};
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::target::{Failure, Outcomes, Sink};

/// Records that fell due before the end may still be sent this long after it: a hiccup in the last moment
/// is caught up with, an overload is not.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A saturating or closed lane whose batch failed waits this long, lest it hammer a target that refuses.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A batch sent and not yet answered.
#[derive(Debug, Default)]
struct Slot {
    /// The lane's number of its first record.
    first: u64,
    sent_ns: u64,
    /// Intended send times, one per record. Empty: the slot is free.
    intended: Vec<u64>,
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
        self.slots.borrow_mut()[slot].intended.clear();
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
struct Ticket {
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
struct Common {
    plan: Arc<Plan>,
    meter: Arc<Meter>,
    index: usize,
    shard: usize,
    window: Window,
}

/// A lane that has not begun.
pub struct Lane<S> {
    common: Rc<Common>,
    sink: S,
    timer: Timer,
    filler: Rc<RefCell<Filler>>,
    producer: u32,
    batch: BatchBuilder,
    schedule: Option<Schedule>,
    /// Due times of the batch being gathered.
    due: Vec<u64>,
    /// Records made so far.
    made: u64,
    key: usize,
    /// When the target last let go of this lane: until then its lateness is the target's.
    held_until: u64,
}

impl<S: Sink> Lane<S> {
    /// Lane `index` of the plan.
    pub fn new(
        plan: &Arc<Plan>,
        index: usize,
        sink: S,
        timer: Timer,
        filler: Rc<RefCell<Filler>>,
        meter: &Arc<Meter>,
    ) -> Lane<S> {
        let (producer, shard) = plan.lane(index);
        let common = Common {
            plan: Arc::clone(plan),
            meter: Arc::clone(meter),
            index,
            shard,
            window: Window::new(plan.inflight()),
        };
        Lane {
            common: Rc::new(common),
            sink,
            timer,
            filler,
            producer,
            batch: BatchBuilder::default(),
            schedule: None,
            due: Vec::new(),
            made: 0,
            key: 0,
            held_until: 0,
        }
    }

    /// Sends until the end of the run (or `stop`), and returns when everything is answered or the
    /// drain timeout has passed.
    pub async fn run<O: Outcomes>(mut self, outcomes: O, stop: watch::Receiver<bool>) {
        let common = Rc::clone(&self.common);
        let plan = &common.plan;
        let listener = spawn_local(listen(Rc::clone(&common), outcomes));
        self.schedule = plan.schedule(common.index);
        if let Err(error) = self.produce(stop).await {
            common.meter.lock().failed(|| format!("making a batch: {error}"));
        }
        self.count_unsent();
        // The sink must live until everything is answered.
        let _in_time = timeout(plan.options.drain_timeout, common.window.emptied()).await;
        listener.abort();
        common.abandon();
    }

    async fn produce(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), BatchError> {
        let common = Rc::clone(&self.common);
        let (plan, drain) = (&*common.plan, common.plan.options.drain_timeout);
        let cutoff_ns = plan.end_ns().saturating_add(nanos(CATCH_UP));
        let cutoff = Instant::from_std(plan.clock.instant(cutoff_ns));
        let mut cutoff = pin!(async {
            tokio::select! {
                () = tokio::time::sleep_until(cutoff) => {}
                // The channel closes only if the controlling thread is gone.
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
        loop {
            // Only waiting is cut off, never sending: a batch is either made and sent, or not made.
            let next = tokio::select! {
                biased;
                next = self.next() => next,
                () = &mut cutoff => break,
            };
            let Some((ticket, close_ns)) = next else { return Ok(()) };
            self.send(ticket, close_ns).await?;
            // Lets the other lanes and the sockets have their turn even if nothing here had to wait.
            tokio::task::yield_now().await;
        }
        // A stop finds records that were already due waiting for the rest of their batch.
        self.due.retain(|due| *due < plan.end_ns());
        if plan.mode == Mode::Open
            && !self.due.is_empty()
            && plan.clock.now_ns() < cutoff_ns
            && let Ok(ticket) = timeout(drain.min(CATCH_UP), self.admitted()).await
        {
            self.send(ticket, plan.clock.now_ns()).await?;
        }
        Ok(())
    }

    /// Waits for the next batch to be due and admitted, and for its records' due times to be known.
    /// Returns also when it should have been sent; `None` after the last.
    async fn next(&mut self) -> Option<(Ticket, u64)> {
        let common = Rc::clone(&self.common);
        let plan = &*common.plan;
        if plan.mode == Mode::Open {
            let close_ns = self.gather()?;
            self.timer.until(close_ns).await;
            let ticket = self.admitted().await;
            self.catch_up(plan.clock.now_ns());
            return Some((ticket, close_ns));
        }
        if common.window.failed.replace(false) {
            self.timer.until(plan.clock.now_ns().saturating_add(nanos(AFTER_FAILURE))).await;
        }
        let ticket = self.admitted().await;
        if let (Mode::Closed, Some(schedule)) = (plan.mode, &mut self.schedule) {
            let due = schedule.next_ns();
            schedule.advance();
            self.timer.until(due.min(plan.end_ns())).await;
        } else {
            self.timer.until(plan.start_ns()).await;
        }
        let now = plan.clock.now_ns();
        if now >= plan.end_ns() {
            return None;
        }
        self.due.clear();
        self.due.resize(plan.batch_records, now);
        Some((ticket, now))
    }

    /// Plans the next batch: the records due within the linger after the first, as far as they fit.
    /// Returns when it is complete (so a lone record does not wait); `None` if nothing is due any more.
    fn gather(&mut self) -> Option<u64> {
        let plan = &*self.common.plan;
        let schedule = self.schedule.as_mut()?;
        let (first, end) = (schedule.next_ns(), plan.end_ns());
        if first >= end {
            return None;
        }
        let last = first.saturating_add(nanos(plan.options.linger)).min(end - 1);
        let mut close = first;
        while self.due.len() < plan.batch_records && schedule.next_ns() <= last {
            close = schedule.next_ns();
            self.due.push(close);
            schedule.advance();
        }
        Some(close)
    }

    /// Adds what has fallen due since: a late lane skips nothing.
    fn catch_up(&mut self, now: u64) {
        let plan = &*self.common.plan;
        let Some(schedule) = self.schedule.as_mut() else { return };
        let last = now.min(plan.end_ns().saturating_sub(1));
        while self.due.len() < plan.batch_records && schedule.next_ns() <= last {
            self.due.push(schedule.next_ns());
            schedule.advance();
        }
    }

    /// Waits until the target takes another batch, and notes if it did not at once.
    async fn admitted(&mut self) -> Ticket {
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

    /// Makes the records gathered and sends them.
    async fn send(&mut self, mut ticket: Ticket, close_ns: u64) -> Result<(), BatchError> {
        let common = Rc::clone(&self.common);
        let plan = &*common.plan;
        self.fill()?;
        let first = self.made;
        self.made += self.due.len() as u64;
        let sent_ns = plan.clock.now_ns();
        self.count_sent(sent_ns, close_ns);
        {
            let slot = &mut common.window.slots.borrow_mut()[ticket.slot];
            (slot.first, slot.sent_ns) = (first, sent_ns);
            // The slot's old memory comes back to gather the next batch in.
            std::mem::swap(&mut slot.intended, &mut self.due);
        }
        ticket.used = true;
        let (taken, held) = held_up(self.sink.append(&mut self.batch, ticket.slot as u64)).await;
        if held {
            self.held_until = plan.clock.now_ns();
        }
        if let Err(failure) = taken {
            common.failed(ticket.slot, &failure);
            self.batch.clear();
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), BatchError> {
        let plan = &*self.common.plan;
        let keys = &plan.keys[self.common.shard];
        let mut filler = self.filler.borrow_mut();
        for (sequence, &intended_ns) in (self.made..).zip(&self.due) {
            let header = Header { producer: self.producer, run: plan.run, sequence, intended_ns };
            let key = &keys[self.key];
            self.key = (self.key + 1) % keys.len();
            filler.with(&header, |payload| self.batch.push(key, &[], payload, intended_ns))?;
        }
        Ok(())
    }

    fn count_sent(&self, sent_ns: u64, close_ns: u64) {
        let plan = &*self.common.plan;
        let window = plan.window();
        let sent_by = window
            .end
            .saturating_add(nanos(plan.options.linger))
            .saturating_add(nanos(LATE_P99_MAX));
        let mut readings = self.common.meter.lock();
        let readings = &mut *readings;
        readings.counts.sent += self.due.len() as u64;
        let could = close_ns.max(self.held_until);
        for &intended in &self.due {
            let set = readings.set(&window, intended);
            record(&mut set.send_lag, intended, sent_ns, 1);
            if plan.mode == Mode::Open {
                // What fell due after the batch should have closed is late from its own time on.
                record(&mut set.late, could.max(intended), sent_ns, 1);
            }
            if window.contains(&intended) {
                readings.counts.window_due += 1;
                readings.counts.window_sent += u64::from(sent_ns <= sent_by);
            }
        }
    }

    /// At the end: what was due and is not sent.
    fn count_unsent(&mut self) {
        let plan = &*self.common.plan;
        let Some(schedule) = &self.schedule else { return };
        if plan.mode != Mode::Open {
            return;
        }
        let window = plan.window();
        let end = window.end;
        // A batch that was cut off while it waited for the target is among what was made, or here.
        let gathered = |from: u64| self.due.iter().filter(|due| (from..end).contains(due)).count();
        let left = schedule.due_before(end);
        let before = schedule.due_before(window.start);
        let mut readings = self.common.meter.lock();
        readings.counts.unsent += gathered(0) as u64 + left;
        readings.counts.window_due += gathered(window.start) as u64 + left.saturating_sub(before);
    }
}

/// Hears what became of a lane's batches, until there is nothing more to hear.
async fn listen<O: Outcomes>(common: Rc<Common>, mut outcomes: O) {
    while let Some(outcome) = outcomes.next().await {
        let now = common.plan.clock.now_ns();
        let Ok(slot) = usize::try_from(outcome.tag) else { continue };
        match outcome.result {
            Ok(base) => common.acknowledged(slot, base, now),
            Err(failure) => common.failed(slot, &failure),
        }
    }
}

impl Common {
    /// The records in a slot.
    fn records(&self, slot: usize) -> Range<u64> {
        let slots = self.window.slots.borrow();
        slots.get(slot).map_or(0..0, |s| s.first..s.first + s.intended.len() as u64)
    }

    fn acknowledged(&self, slot: usize, base: Option<u64>, now: u64) {
        let records = self.records(slot);
        let count = records.end - records.start;
        if count == 0 {
            return;
        }
        let watched = self.plan.read(self.shard);
        let early = if watched {
            self.plan.ledger(self.index).acked(records, base, now)
        } else {
            self.plan.ledger(self.index).acked_unwatched(records);
            0
        };
        {
            let window = self.plan.window();
            let slots = self.window.slots.borrow();
            let slot = &slots[slot];
            let mut readings = self.meter.lock();
            let readings = &mut *readings;
            readings.counts.acked += count;
            readings.counts.acked_watched += if watched { count } else { 0 };
            if window.contains(&now) {
                readings.counts.acked_within += count;
            }
            for &intended in &slot.intended {
                let set = readings.set(&window, intended);
                record(&mut set.response, intended, now, 1);
                record(&mut set.service, slot.sent_ns, now, 1);
                readings.counts.window_acked += u64::from(window.contains(&intended));
            }
            if let Some(&first) = slot.intended.first() {
                // Read before the acknowledgement came: visible at once.
                record(&mut readings.set(&window, first).visibility, now, now, early);
            }
        }
        self.window.give_back(slot);
    }

    fn failed(&self, slot: usize, failure: &Failure) {
        let records = self.records(slot);
        let count = records.end - records.start;
        if count == 0 {
            return;
        }
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
        self.window.give_back(slot);
    }

    /// At the end: what is not answered by now never will be.
    fn abandon(&self) {
        let size = self.window.slots.borrow().len();
        for slot in 0..size {
            let message = "not answered before the drain timeout".to_owned();
            self.failed(slot, &Failure { unknown: true, message });
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
