//! Placing a batch under quotas: as a whole, in part, or not now.

use highwater_wire::{Backpressure, BatchError, BatchView, SampleBy, select};

use super::Shard;
use super::append::{Ask, NoPlace, with_body};
use super::held::quota_error;
use super::part::Fates;
use crate::admit::{self, Admission, Next};
use crate::io::Io;
use crate::producers::{Claim, Stored};
use crate::quota::{Demand, Meters, retry_ms};
use crate::types::{AppendError, Appended, Now, Parts};

/// What is left out of a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    /// Only the sample stays, and what there is room for besides: of a million, and which.
    sample: Option<(u32, SampleBy)>,
    /// No more than so many records from the front.
    front: Option<u32>,
    /// Those behind are dropped, not refused.
    drop: bool,
}

/// Whether its producer takes an answer for part of a batch, and it can be had without inflating and packing again.
fn partial(ask: &Ask<'_>) -> bool {
    ask.terms.partial && !ask.batch.compressed()
}

impl Shard {
    /// Gives a batch its place as far as the quotas let it.
    pub(super) fn place_metered(
        &mut self,
        now: Now,
        claim: Claim,
        ask: &Ask<'_>,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        let demand = ask.demand();
        let fits = match self.spec.policy.backpressure {
            Backpressure::Sample { .. } => demand.within(self.metering.spare(now, None)),
            _ => self.metering.fits(now, demand, self.may_cut(ask)),
        };
        let over = |client: &Meters| !client.fits(now, demand, partial(ask));
        let own = fits && ask.client().is_some_and(over);
        let admission = self.admission(now, ask, fits, own, io);
        if admission == Admission::Store && fits && !own && !ask.faulty {
            self.store(now, ask, &ask.batch, None, io)?;
            self.metering.take(now, demand, ask.client());
            return Ok(());
        }
        let plan = Plan::default();
        match admission {
            Admission::Store => self.store_part(now, claim, ask, plan, own, io),
            Admission::Hold { drop } => {
                let wait_ns = self.metering.wait_ns(now, Demand::default(), demand, None);
                Err(NoPlace::Held { wait_ns, drop })
            }
            Admission::Refuse { front: 0, wait_ns } => {
                Err(NoPlace::Refused(quota_error(own, wait_ns)))
            }
            Admission::Refuse { front, .. } => {
                let plan = Plan { front: Some(front), ..plan };
                self.store_part(now, claim, ask, plan, own, io)
            }
            Admission::Drop { front } => {
                let plan = Plan { front: Some(front), drop: true, ..plan };
                self.store_part(now, claim, ask, plan, own, io)
            }
            Admission::Sample { ppm, by } => {
                let plan = Plan { sample: Some((ppm, by)), ..plan };
                self.store_part(now, claim, ask, plan, own, io)
            }
        }
    }

    fn admission(&self, now: Now, ask: &Ask<'_>, fits: bool, own: bool, io: &Io) -> Admission {
        let strategy = self.spec.policy.backpressure;
        if ask.queued && !own && admit::holds(strategy) {
            // What waited for something else is as good as just come.
            let waited_ns = match ask.held {
                true => now.mono_ns.saturating_sub(ask.arrived_mono_ns),
                false => 0,
            };
            let wait_ns = self.metering.wait_ns(now, Demand::default(), ask.demand(), None);
            return match admit::next(strategy, fits, waited_ns) {
                Next::Store => Admission::Store,
                Next::Stay => Admission::Hold { drop: 0 },
                Next::Refuse => Admission::Refuse { front: 0, wait_ns },
                Next::Drop => Admission::Drop { front: 0 },
            };
        }
        if fits && !own {
            return Admission::Store;
        }
        let offer = self.offer(now, ask, io);
        // With batches held this one was taken from their front: none stands before it.
        let held_bytes = if ask.queued { 0 } else { offer.held_bytes };
        let front = self.front(now, ask);
        admit::admit(strategy, &admit::Offer { fits: false, front, own, held_bytes, ..offer })
    }

    /// Whether part of a batch may be stored now, and the rest be sent again. Where batches are held they wait whole.
    pub(super) fn may_cut(&self, ask: &Ask<'_>) -> bool {
        partial(ask) && !admit::holds(self.spec.policy.backpressure)
    }

    /// Records from the front of a batch that fit, if it may be cut.
    fn front(&self, now: Now, ask: &Ask<'_>) -> u32 {
        if !partial(ask) {
            return 0;
        }
        let room = self.metering.room(now, ask.client());
        let (header, body) = (ask.batch.header(), ask.batch.body());
        let front = select::front(header, body, room.records, room.bytes);
        // Even a record larger than the burst has to pass some time.
        front.max(u32::from(self.metering.full(now, ask.client())))
    }

    fn store_part(
        &mut self,
        now: Now,
        claim: Claim,
        ask: &Ask<'_>,
        plan: Plan,
        own: bool,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        let max_record = io.options.limits.max_record;
        let placed = with_body(&ask.batch, io, |body, io| {
            let mut fates = Fates::new(ask.offered);
            if ask.faulty {
                fates.find_faults(body, max_record)?;
            }
            if let Some((ppm, by)) = plan.sample {
                fates.sample(body, &claim, ppm, by);
                let (room, spare) =
                    (self.metering.room(now, ask.client()), self.metering.spare(now, ask.client()));
                // Even a record larger than the burst has to pass some time.
                let least = u32::from(self.metering.full(now, ask.client()));
                fates.fill(body, room, spare, least);
            }
            if let Some(front) = plan.front {
                let room = Demand { records: front.into(), bytes: u64::MAX };
                fates.limit(body, room, 0, plan.drop);
                return Ok(self.store_fates(now, ask, body, &fates, own, io));
            }
            let demand = fates.demand(body);
            if !self.metering.fits(now, demand, self.may_cut(ask)) {
                // What is left of it by sample or for its faults is too much, too.
                let may_cut = partial(ask);
                let (room, least) = match may_cut {
                    true => {
                        let full = self.metering.full(now, ask.client());
                        (self.metering.room(now, ask.client()), u64::from(full))
                    }
                    false => (Demand::default(), 0),
                };
                fates.limit(body, room, least, false);
                if !may_cut {
                    let wait_ns =
                        self.metering.wait_ns(now, Demand::default(), demand, ask.client());
                    return Ok(Err(NoPlace::Refused(quota_error(own, wait_ns))));
                }
            }
            Ok(self.store_fates(now, ask, body, &fates, own, io))
        });
        placed.unwrap_or_else(|error: BatchError| Err(NoPlace::Refused(error.into())))
    }

    /// Stores what is left of a batch.
    fn store_fates(
        &mut self,
        now: Now,
        ask: &Ask<'_>,
        body: &[u8],
        fates: &Fates,
        own: bool,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        if fates.whole() {
            self.store(now, ask, &ask.batch, None, io)?;
            self.metering.take(now, ask.demand(), ask.client());
            return Ok(());
        }
        let demand = fates.demand(body);
        let wait_ns = match fates.decided() < ask.offered {
            true => self.metering.wait_ns(now, demand, fates.rest(body), ask.client()),
            false => 0,
        };
        if fates.decided() == 0 {
            return Err(NoPlace::Refused(quota_error(own, wait_ns)));
        }
        let retry_after_ms = if wait_ns > 0 { retry_ms(wait_ns) } else { 0 };
        let parts = fates.parts(ask.terms.tell, retry_after_ms);
        if demand.records == 0 {
            return self.store_none(now, ask, parts, io);
        }
        let left = select::cut(ask.batch.header(), body, fates.decided(), |i| fates.stored(i));
        let left = BatchView::parse(&left).map_err(|e| NoPlace::Refused(e.into()))?;
        self.store(now, ask, &left, Some(parts), io)?;
        self.metering.take(now, demand, ask.client());
        Ok(())
    }

    /// Nothing of a batch is stored: its producer's window goes on all the same, durably.
    fn store_none(
        &mut self,
        now: Now,
        ask: &Ask<'_>,
        parts: Box<Parts>,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        let header = ask.batch.header();
        if header.producer_id.to_native() == 0 {
            let (base_sequence, arrival_ns) = (self.next_sequence, now.wall_ns);
            let parts = Some(parts);
            let appended = Appended { base_sequence, arrival_ns, parts, ..Appended::default() };
            self.answer(ask.tag, ask.offered, Ok(appended), io);
            return Ok(());
        }
        let none = select::cut(header, &[], parts.decided, |_| false);
        let none = BatchView::parse(&none).map_err(|e| NoPlace::Refused(e.into()))?;
        self.store(now, ask, &none, Some(parts), io)
    }

    /// A batch that was held is dropped, in its turn.
    pub(super) fn drop_whole(
        &mut self,
        now: Now,
        ask: &Ask<'_>,
        io: &mut Io,
    ) -> Result<(), NoPlace> {
        let mut fates = Fates::new(ask.offered);
        fates.drop_all();
        self.store_none(now, ask, fates.parts(ask.terms.tell, 0), io)
    }

    /// What became of the records of a batch that was stored in part, for its retry.
    pub(super) fn recalled(
        &self,
        now: Now,
        stored: Stored,
        ask: &Ask<'_>,
        io: &mut Io,
    ) -> Result<Option<Box<Parts>>, AppendError> {
        if stored.records == ask.offered {
            return Ok(None);
        }
        if ask.doomed {
            // Its records are gone: which of them are stored it is told when it comes once more.
            return Err(quota_error(false, 0));
        }
        let mut fates = Fates::new(ask.offered);
        let max_record = io.options.limits.max_record;
        let claim = Claim { records: ask.offered, ..super::claim_of(ask.batch.header()) };
        let strategy = self.spec.policy.backpressure;
        let parts = with_body(&ask.batch, io, |body, _| {
            if ask.faulty {
                fates.find_faults(body, max_record)?;
            }
            if let Backpressure::Sample { ppm, by } = strategy
                && stored.records < stored.decided
            {
                fates.sample(body, &claim, ppm, by);
            }
            fates.recall(stored.decided, stored.records);
            let wait_ns = match stored.decided < ask.offered {
                true => {
                    self.metering.wait_ns(now, Demand::default(), fates.rest(body), ask.client())
                }
                false => 0,
            };
            let retry_after_ms = if stored.decided < ask.offered { retry_ms(wait_ns) } else { 0 };
            Ok(fates.parts(ask.terms.tell, retry_after_ms))
        })?;
        Ok(Some(parts))
    }
}
