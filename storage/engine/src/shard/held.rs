//! Batches that wait for their place: for a segment, for memory, or (held by the stream's backpressure) for quota.
//! One queue, so that order holds whatever a batch waits for.

use std::collections::VecDeque;

use highwater_wire::{BatchView, select};

use super::append::{Ask, NoPlace};
use super::{Shard, State};
use crate::admit::{self, Admission, Offer};
use crate::io::Io;
use crate::producers::{Claim, Verdict};
use crate::quota::{Demand, retry_ms};
use crate::types::{AppendError, AppendTerms, Now, Output};

/// Soonest time after which what is held is looked at again, ns: what has become free by then passes as one.
const LOOK_NS: u64 = 1_000_000;

/// A batch that waits, checked and not yet given a place.
#[derive(Debug)]
struct Waiting {
    batch: Vec<u8>,
    terms: AppendTerms,
    tag: u64,
    arrived_mono_ns: u64,
    /// Its records, as sent.
    offered: u32,
    /// Some of them are at fault by themselves.
    faulty: bool,
    /// Held by backpressure; otherwise it waits for a segment or memory.
    held: bool,
    /// To be dropped when its turn comes: only what tells so is left of it.
    doomed: bool,
}

impl Waiting {
    fn demand(&self) -> Demand {
        match self.doomed {
            true => Demand::default(),
            false => Demand { records: self.offered.into(), bytes: self.batch.len() as u64 },
        }
    }
}

/// The queue of a shard.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Waiting>,
    /// What all of them will ask of the meters.
    demand: Demand,
    /// Bytes of those held by backpressure.
    held_bytes: u64,
    /// When the first of them may fit the quota, monotonic; `None` if it waits for something else.
    pub until: Option<u64>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held by backpressure.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Records in it.
    pub fn records(&self) -> u64 {
        self.entries.iter().map(|w| u64::from(w.offered)).sum()
    }

    fn push_back(&mut self, waiting: Waiting, io: &mut Io) {
        self.demand = self.demand.and(waiting.demand());
        self.count(&waiting, io, true);
        self.entries.push_back(waiting);
    }

    fn pop_front(&mut self, io: &mut Io) -> Option<Waiting> {
        let first = self.entries.pop_front()?;
        let demand = first.demand();
        self.demand.records -= demand.records;
        self.demand.bytes -= demand.bytes;
        self.count(&first, io, false);
        Some(first)
    }

    fn push_front(&mut self, waiting: Waiting, io: &mut Io) {
        self.demand = self.demand.and(waiting.demand());
        self.count(&waiting, io, true);
        self.entries.push_front(waiting);
    }

    fn count(&mut self, waiting: &Waiting, io: &mut Io, enters: bool) {
        let bytes = waiting.batch.len();
        let used = if waiting.held { &mut io.held_used } else { &mut io.waiting_used };
        *used = if enters { *used + bytes } else { *used - bytes };
        if waiting.held {
            let bytes = bytes as u64;
            self.held_bytes =
                if enters { self.held_bytes + bytes } else { self.held_bytes - bytes };
        }
    }

    /// Dooms batches from the front until `bytes` bytes less are held; those doomed before stay as they are.
    fn doom(&mut self, mut bytes: u64, io: &mut Io) {
        for waiting in self.entries.iter_mut().filter(|w| w.held && !w.doomed) {
            if bytes == 0 {
                return;
            }
            let before = waiting.batch.len();
            self.demand.records -= u64::from(waiting.offered);
            self.demand.bytes -= before as u64;
            waiting.doom();
            let freed = before - waiting.batch.len();
            io.held_used -= freed;
            self.held_bytes -= freed as u64;
            bytes = bytes.saturating_sub(freed as u64);
        }
    }
}

impl Waiting {
    /// Leaves only a batch without records that says how many were decided.
    fn doom(&mut self) {
        // Checked when it came.
        if let Ok(view) = BatchView::parse(&self.batch) {
            self.batch = select::cut(view.header(), &[], self.offered, |_| false);
        }
        self.doomed = true;
    }
}

impl Shard {
    /// A batch comes while others wait: what is known of it already is said at once, otherwise it waits behind them.
    pub(super) fn queue_behind(
        &mut self,
        now: Now,
        claim: Claim,
        ask: &Ask<'_>,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        match self.producers.judge(claim) {
            Verdict::Repeat(stored) => return self.repeat(now, stored, ask, io),
            // Not what those before it in the queue could change.
            Verdict::Refuse(error @ AppendError::Fenced { .. }) => return Err(error),
            Verdict::Refuse(_) | Verdict::Fresh => {}
        }
        let strategy = self.spec.policy.backpressure;
        if !admit::holds(strategy) || !self.metering.appends {
            return self.wait(ask, false, io);
        }
        let own = ask.client().is_some_and(|client| !client.fits(now, ask.demand(), false));
        let offer = Offer { own, front: 0, ..self.offer(now, ask, io) };
        match admit::admit(strategy, &offer) {
            Admission::Hold { drop } => self.hold(drop, ask, io),
            Admission::Refuse { wait_ns, .. } => Err(quota_error(own, wait_ns)),
            Admission::Store | Admission::Drop { .. } | Admission::Sample { .. } => {
                self.wait(ask, false, io)
            }
        }
    }

    /// A batch is held by backpressure, once `drop` bytes of what is held have been given up.
    pub(super) fn hold(
        &mut self,
        drop: u64,
        ask: &Ask<'_>,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        self.queue.doom(drop, io);
        self.wait(ask, true, io)
    }

    /// What stands in the way of a batch.
    pub(super) fn offer(&self, now: Now, ask: &Ask<'_>, io: &Io) -> Offer {
        let (demand, client) = (ask.demand(), ask.client());
        let held_bytes = self.queue.held_bytes();
        Offer {
            fits: self.metering.fits(now, demand, self.may_cut(ask)),
            front: 0,
            own: false,
            wait_ns: self.metering.wait_ns(now, Demand::default(), demand, client),
            held_wait_ns: self.metering.wait_ns(now, self.queue.demand, demand, client),
            bytes: demand.bytes,
            held_bytes,
            memory: io.left_to_hold(held_bytes),
        }
    }

    /// Puts a batch at the end of the queue.
    pub(super) fn wait(
        &mut self,
        ask: &Ask<'_>,
        held: bool,
        io: &mut Io,
    ) -> Result<(), AppendError> {
        let bytes = ask.batch.bytes();
        let most = io.options.waiting_bytes.max(bytes.len());
        if !held && io.waiting_used + bytes.len() > most {
            return Err(AppendError::Busy { retry_after_ms: 5 });
        }
        if held {
            self.stats.counters.buffered += u64::from(ask.offered);
        }
        let waiting = Waiting {
            batch: bytes.to_vec(),
            terms: ask.terms.clone(),
            tag: ask.tag,
            arrived_mono_ns: ask.arrived_mono_ns,
            offered: ask.offered,
            faulty: ask.faulty,
            held,
            doomed: false,
        };
        self.queue.push_back(waiting, io);
        Ok(())
    }

    /// Gives the batches that wait their place, in order, as far as there is room and quota.
    pub(super) fn drain_waiting(&mut self, now: Now, io: &mut Io) {
        self.queue.until = None;
        while let Some(mut first) = self.queue.pop_front(io) {
            let placed = match BatchView::parse(&first.batch) {
                Ok(batch) => {
                    let ask = Ask {
                        batch,
                        terms: &first.terms,
                        tag: first.tag,
                        arrived_mono_ns: first.arrived_mono_ns,
                        offered: first.offered,
                        faulty: first.faulty,
                        queued: true,
                        held: first.held,
                        doomed: first.doomed,
                    };
                    self.place(now, &ask, io)
                }
                // Checked when it came.
                Err(error) => Err(NoPlace::Refused(error.into())),
            };
            match placed {
                Ok(()) => {}
                Err(NoPlace::Later) | Err(NoPlace::Refused(AppendError::Busy { .. })) => {
                    self.queue.push_front(first, io);
                    return;
                }
                Err(NoPlace::Held { wait_ns, .. }) => {
                    if !std::mem::replace(&mut first.held, true) {
                        self.stats.counters.buffered += u64::from(first.offered);
                    }
                    let wait_ns = wait_ns.max(LOOK_NS);
                    self.queue.until = Some(self.look_at(now, first.arrived_mono_ns, wait_ns));
                    self.queue.push_front(first, io);
                    return;
                }
                Err(NoPlace::Refused(error)) => {
                    self.stats.refused += 1;
                    self.answer(first.tag, first.offered, Err(error), io);
                }
            }
        }
    }

    /// When to look at the first of those held, which came at `arrived_ns`: when it may fit, or is not to wait any
    /// longer.
    pub(super) fn look_at(&self, now: Now, arrived_ns: u64, wait_ns: u64) -> u64 {
        let fits_ns = now.mono_ns.saturating_add(wait_ns);
        let patience_ns = admit::patience_ns(self.spec.policy.backpressure);
        let late_ns =
            patience_ns.map_or(u64::MAX, |most| arrived_ns.saturating_add(most).saturating_add(1));
        fits_ns.min(late_ns.max(now.mono_ns + LOOK_NS))
    }

    /// Whether a look at the queue may help.
    pub(super) fn may_drain(&self, now: Now) -> bool {
        let due = match self.queue.until {
            Some(until) => until <= now.mono_ns,
            None => !self.taking,
        };
        due && self.state == State::Open && !self.queue.is_empty()
    }

    pub(super) fn refuse_waiting(&mut self, error: &AppendError, io: &mut Io) {
        self.queue.until = None;
        while let Some(waiting) = self.queue.pop_front(io) {
            self.stats.refused += 1;
            self.answer(waiting.tag, waiting.offered, Err(error.clone()), io);
        }
    }

    /// A batch of `offered` records is answered: counted and said, in this one place.
    pub(super) fn answer(
        &mut self,
        tag: u64,
        offered: u32,
        result: Result<crate::types::Appended, AppendError>,
        io: &mut Io,
    ) {
        self.stats.count(offered, &result);
        io.outputs.push(Output::Appended { tag, result });
    }
}

/// A refusal by quota: the client's own, or else the shard's or stream's.
pub(super) fn quota_error(own: bool, wait_ns: u64) -> AppendError {
    let whose = if own { "client" } else { "shard or stream" };
    AppendError::Quota { whose, retry_after_ms: retry_ms(wait_ns) }
}
