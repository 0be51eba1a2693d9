//! A member of a group that settles record by record: it asks the server for records to work on, says what became of
//! each, and carries those that are given up into the dead-letter stream. Built on [`GroupConsumer`], which knows the
//! leases and reads what is fresh; what the server hands out again is fetched.

mod lot;
mod options;
mod place;
mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use highwater_wire::{
    Claimed, ErrorCode, MAX_CLAIM, Outcome, Portion, Settlement, StreamDescription,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use lot::Lot;
pub use options::RecordOptions;
use place::Place;
pub(crate) use requests::{Held, Source, fetch, settle};

use crate::burial::Burier;
use crate::membership::View;
use crate::{Client, ClientError, ConsumeError, Delivery, GroupConsumer, GroupEvent, GroupOptions};

/// Deliveries that wait for a shard's claims; with more nothing is taken from the server.
const BUFFERED: usize = 4;

/// After a failure that may pass the server is not asked before this time again.
const AGAIN: Duration = Duration::from_millis(200);

/// A claim as it was made.
#[derive(Debug)]
struct Asked {
    at: Instant,
    /// What was at hand.
    fresh: Range<u64>,
}

/// What a task has done.
#[derive(Debug)]
enum Done {
    Claimed {
        asked: Asked,
        result: Result<Claimed, ClientError>,
    },
    Fetched {
        portion: Portion,
        deadline: Instant,
        result: Result<Vec<Delivery>, ClientError>,
    },
    /// Dead letters, or a lot of which the filter leaves nothing.
    Settled(Result<(), ClientError>),
}

/// Reads a stream as a member of a group that settles record by record.
#[derive(Debug)]
pub struct RecordConsumer {
    group: GroupConsumer,
    view: watch::Receiver<View>,
    most: u32,
    filter: Option<Arc<str>>,
    places: BTreeMap<u32, Place>,
    tasks: JoinSet<(Held, Done)>,
    /// One claim at a time: what is handed out must not wait here while its time runs.
    claiming: bool,
    /// The shard asked for last.
    turn: u32,
    /// Claimed while nobody waited for it any more.
    ready: VecDeque<Lot>,
    /// Heartbeats that were taken note of.
    beats: u64,
    /// The breaker is open until then.
    breaker: Option<Instant>,
    /// All it holds was read to where it is to end.
    at_end: bool,
    burier: Burier,
}

impl Client {
    /// Joins a group that settles record by record as a reader of a stream.
    pub async fn record_consumer(
        &self,
        group: &str,
        stream: &str,
        options: RecordOptions,
    ) -> Result<RecordConsumer, ClientError> {
        let RecordOptions { name, fixed, session_timeout, start, most, consumer, until } = options;
        let (auto_commit, filter) = (None, consumer.filter.as_deref().map(Arc::from));
        let options =
            GroupOptions { name, fixed, session_timeout, start, auto_commit, consumer, until };
        let group = self.group_consumer(group, stream, options).await?;
        Ok(RecordConsumer {
            view: group.view(),
            group,
            most: most.clamp(1, MAX_CLAIM),
            filter,
            places: BTreeMap::new(),
            tasks: JoinSet::new(),
            claiming: false,
            turn: 0,
            ready: VecDeque::new(),
            beats: 0,
            breaker: None,
            at_end: false,
            burier: Burier::default(),
        })
    }
}

impl RecordConsumer {
    /// The next records to work on; waits for them. Several lots may be open at a time. `None` once all it holds was
    /// read to where [`RecordOptions::until`] says, and is settled. Cancelled, it loses nothing.
    ///
    /// A shard that is to go to another member is given up when its lots are settled and this is called again; after the
    /// time of a session it is taken away. So work on a lot should be done within that.
    ///
    /// # Errors
    /// When the server cannot be reached until the retry deadline or a shard cannot be read. With the code
    /// [`ErrorCode::BreakerOpen`] once when nothing is handed out any more, because too many records became dead
    /// letters; with [`ErrorCode::WrongDelivery`] if the group does not settle record by record. Asked again after an
    /// error, it goes on.
    pub async fn next(&mut self) -> Result<Option<Lot>, ConsumeError> {
        loop {
            while let Some(lot) = self.ready.pop_front() {
                if self.hand_out(&lot) {
                    return Ok(Some(lot));
                }
            }
            self.look_at_leases();
            self.claim();
            if self.at_end && self.places.values().all(Place::at_rest) {
                return Ok(None);
            }
            let wake = self.wake();
            let due = async move {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.places.values().all(|place| place.fresh.len() < BUFFERED);
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    // A task that was cut short by the runtime's end has nothing to tell.
                    if let Ok((held, done)) = done {
                        self.take(held, done)?;
                    }
                }
                event = self.group.step(room), if !self.at_end => match event? {
                    Some(event) => self.follow(event),
                    None => self.at_end = true,
                },
                // Perhaps something is due, or it holds something else by now. (That it has ended is found above.)
                changed = self.view.changed() => match changed {
                    Ok(()) => self.at_end = false,
                    // Nobody sends heartbeats any more.
                    Err(_) => return Err(self.group.failed().into()),
                },
                () = due => {}
            }
        }
    }

    /// Says what became of a lot, durably.
    ///
    /// # Errors
    /// With the code [`ErrorCode::NotInHand`] when its deadline has passed, [`ErrorCode::LeaseLost`] or
    /// [`ErrorCode::UnknownMember`] when its shard has gone to another member: then it is handed out again, whatever was
    /// done. When the server cannot be reached it is not known whether it was settled; if not, it is handed out
    /// again.
    pub async fn settle(&mut self, lot: Lot, outcome: Outcome) -> Result<(), ClientError> {
        let settlement = Settlement { from: lot.from, to: lot.to, outcome };
        self.settle_each(lot, vec![settlement]).await
    }

    /// The same record by record; what is not named is released.
    pub async fn settle_each(
        &mut self,
        lot: Lot,
        settlements: Vec<Settlement>,
    ) -> Result<(), ClientError> {
        let settlements = lot.complete(settlements);
        let all_done = settlements.iter().all(|(_, _, outcome)| *outcome == Outcome::Done);
        let held = lot.held();
        let result = settle(self.group.identity(), held, settlements).await;
        let code = result.as_ref().err().and_then(ClientError::code);
        let gone = [ErrorCode::LeaseLost, ErrorCode::UnknownMember];
        if code.is_some_and(|code| gone.contains(&code)) {
            self.group.look();
        }
        let place = self.places.get_mut(&held.shard).filter(|place| place.lease == held.lease);
        if let Some(place) = place {
            // If it is not known what became of it, it is open until its deadline.
            if result.is_ok() || code.is_some_and(|code| !code.retriable()) {
                place.open.remove(&lot.from);
            }
            if !all_done || result.is_err() {
                place.again = Some(Instant::now());
                place.unsettled = place.again;
            }
        }
        self.let_go(held.shard);
        result
    }

    /// Leaves the group, so that others need not wait for the session to run out; lots that are not settled are given
    /// back. A member with a fixed name keeps its leases for the session.
    pub async fn close(mut self) -> Result<(), ClientError> {
        while let Some(done) = self.tasks.join_next().await {
            if let Ok((held, done)) = done {
                // What it failed at others will do.
                let _ = self.take(held, done);
            }
        }
        let ready = self.ready.iter().map(|lot| (lot.held(), lot.from, lot.to));
        let open = self.places.iter().flat_map(|(shard, place)| {
            let held = Held { shard: *shard, lease: place.lease };
            place.open.iter().map(move |(from, (to, _))| (held, *from, *to))
        });
        let unsettled: BTreeSet<_> = ready.chain(open).collect();
        for (held, from, to) in unsettled {
            let released = vec![(from, to, Outcome::Released)];
            // What does not get there is handed out again when the lease ends.
            let _ = settle(self.group.identity(), held, released).await;
        }
        self.group.close().await
    }

    /// The stream, as it was described last.
    pub fn stream(&self) -> &StreamDescription {
        self.group.stream()
    }

    /// Whether a lot may still be worked on; it counts as open then.
    fn hand_out(&mut self, lot: &Lot) -> bool {
        let held = lot.held();
        let place = self.places.get_mut(&held.shard).filter(|place| place.lease == held.lease);
        let Some(place) = place else { return false };
        if Instant::now() >= lot.deadline {
            place.again = Some(Instant::now());
            return false;
        }
        place.open.insert(lot.from, (lot.to, lot.deadline));
        true
    }

    /// Takes note of what heartbeats say is due, and of lots that were never settled.
    fn look_at_leases(&mut self) {
        let now = Instant::now();
        let view = self.view.borrow();
        // What was due then has been asked for since.
        let news = view.beats != self.beats;
        self.beats = view.beats;
        for lease in view.leases.iter().filter(|lease| lease.due && news) {
            if let Some(place) = self.places.get_mut(&lease.shard)
                && place.lease == lease.lease
            {
                place.again = Some(place.again.map_or(now, |again| again.min(now)));
            }
        }
        drop(view);
        for place in self.places.values_mut() {
            let before = place.open.len();
            place.open.retain(|_, (_, deadline)| *deadline > now);
            if place.open.len() < before {
                place.again = Some(now);
            }
        }
        let leaving: Vec<u32> =
            self.places.iter().filter(|(_, p)| p.leaving).map(|(shard, _)| *shard).collect();
        leaving.into_iter().for_each(|shard| self.let_go(shard));
    }

    /// When something is to be done though nothing happens.
    fn wake(&self) -> Option<Instant> {
        let deadline = |place: &Place| place.open.values().map(|(_, deadline)| *deadline).min();
        let deadlines = self.places.values().filter_map(deadline);
        let now = Instant::now();
        let asks = self.places.values().filter_map(|place| place.worth_asking(now));
        let asks = asks.map(|at| self.breaker.map_or(at, |breaker| breaker.max(at)));
        let asks = asks.filter(|_| !self.claiming);
        deadlines.chain(asks).min()
    }

    /// Asks for something to work on, if there may be something: one shard after the other.
    fn claim(&mut self) {
        let now = Instant::now();
        if self.claiming || self.breaker.is_some_and(|until| until > now) {
            return;
        }
        let worth =
            |(_, place): &(&u32, &Place)| place.worth_asking(now).is_some_and(|at| at <= now);
        let mut later = self.places.range(self.turn + 1..).filter(worth);
        let next = later.next().or_else(|| self.places.iter().find(worth));
        let Some((&shard, place)) = next else { return };
        let (held, range) = (Held { shard, lease: place.lease }, place.at_hand());
        let most = if self.filter.is_some() { place.span(self.most) } else { self.most };
        (self.turn, self.claiming) = (shard, true);
        let identity = self.group.identity().clone();
        self.spawn(held, async move {
            let asked = Asked { at: Instant::now(), fresh: range.clone() };
            let result = requests::claim(&identity, held, range, most).await;
            Done::Claimed { asked, result }
        });
    }

    fn spawn(&mut self, held: Held, work: impl Future<Output = Done> + Send + 'static) {
        if let Some(place) = self.places.get_mut(&held.shard) {
            place.tasks += 1;
        }
        self.tasks.spawn(async move { (held, work.await) });
    }

    /// What a task brought.
    fn take(&mut self, held: Held, done: Done) -> Result<(), ConsumeError> {
        self.claiming &= !matches!(done, Done::Claimed { .. });
        let place = self.places.get_mut(&held.shard).filter(|place| place.lease == held.lease);
        let Some(place) = place else { return Ok(()) };
        place.tasks = place.tasks.saturating_sub(1);
        let result = match done {
            Done::Claimed { asked, result: Ok(claimed) } => {
                self.breaker = None;
                self.claimed(held, &asked, claimed);
                Ok(())
            }
            Done::Fetched { portion, deadline, result: Ok(parts) } => {
                // What was too much for one lot waits.
                place.again = Some(Instant::now());
                // None if retention was faster.
                if let (Some(first), Some(last)) = (parts.first(), parts.last()) {
                    let (from, to) = (first.from.max(portion.from), last.next.min(portion.to));
                    let portion = Portion { from, to, ..portion };
                    self.make_ready(Lot::new(held, portion, deadline, parts));
                }
                Ok(())
            }
            Done::Settled(Ok(())) => Ok(()),
            Done::Claimed { result: Err(error), .. }
            | Done::Fetched { result: Err(error), .. }
            | Done::Settled(Err(error)) => self.failed(held, error),
        };
        self.let_go(held.shard);
        result
    }

    fn claimed(&mut self, held: Held, asked: &Asked, claimed: Claimed) {
        let Claimed { portion, burials, dead_letters, next_fresh, again_ms } = claimed;
        let Some(place) = self.places.get_mut(&held.shard) else { return };
        let after = |ms: u32| asked.at + Duration::from_millis(ms.into());
        place.again = again_ms.map(after);
        if place.unsettled.is_some_and(|at| at >= asked.at) {
            place.again = Some(Instant::now());
        }
        let (mut lot, mut fetched) = (None, None);
        if let Some(portion) = portion {
            let deadline = after(portion.timeout_ms);
            match requests::within(&place.fresh, &portion) {
                Some(parts) => lot = Some(Lot::new(held, portion, deadline, parts)),
                None => fetched = Some((portion, deadline)),
            }
        }
        // Fresh, and yet not handed out: too much is unsettled.
        let stuck = portion.is_none() && next_fresh < asked.fresh.end;
        place.stuck_until = stuck.then(|| Instant::now() + AGAIN);
        place.pass(next_fresh);
        lot.into_iter().for_each(|lot| self.make_ready(lot));
        if let Some((portion, deadline)) = fetched {
            let (identity, stream) = (self.group.identity().clone(), self.group.stream().clone());
            let filter = self.filter.clone();
            self.spawn(held, async move {
                let source = Source { stream: &stream, filter: filter.as_deref() };
                let result = requests::bring(&identity, source, held, &portion).await;
                Done::Fetched { portion, deadline, result }
            });
        }
        if !burials.is_empty() {
            let (identity, stream) = (self.group.identity().clone(), self.group.stream().clone());
            let (burier, filter) = (self.burier.clone(), self.filter.clone());
            self.spawn(held, async move {
                let source = Source { stream: &stream, filter: filter.as_deref() };
                Done::Settled(burier.bury(&identity, source, held, &dead_letters, burials).await)
            });
        }
    }

    /// To be handed out, unless the filter leaves nothing of it.
    fn make_ready(&mut self, lot: Lot) {
        if self.filter.is_none() || lot.records().next().is_some() {
            return self.ready.push_back(lot);
        }
        let (identity, held) = (self.group.identity().clone(), lot.held());
        let settled = vec![(lot.from, lot.to, Outcome::Done)];
        self.spawn(held, async move { Done::Settled(settle(&identity, held, settled).await) });
    }

    fn failed(&mut self, held: Held, error: ClientError) -> Result<(), ConsumeError> {
        let now = Instant::now();
        let Some(place) = self.places.get_mut(&held.shard) else { return Ok(()) };
        place.again = Some(now + AGAIN);
        place.stuck_until = Some(now + AGAIN);
        match error.code() {
            Some(ErrorCode::LeaseLost | ErrorCode::UnknownMember) => {
                self.places.remove(&held.shard);
                self.group.look();
                Ok(())
            }
            Some(ErrorCode::BreakerOpen) => {
                let known = self.breaker.is_some();
                self.breaker = Some(now + error.retry_after());
                (place.again, place.stuck_until) = (Some(now), None);
                // It is told once.
                if known { Ok(()) } else { Err(error.into()) }
            }
            // The membership's own patience decides when to give up.
            _ if error.retriable() => Ok(()),
            _ => Err(error.into()),
        }
    }

    /// What the membership brings.
    fn follow(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned { shard, .. } => {
                let Some(lease) = self.group.lease(shard) else { return };
                let place = Place {
                    lease,
                    fresh: VecDeque::new(),
                    // Something may be left of whoever had it before.
                    again: Some(Instant::now()),
                    unsettled: None,
                    stuck_until: None,
                    open: BTreeMap::new(),
                    tasks: 0,
                    leaving: false,
                };
                self.places.insert(shard, place);
            }
            GroupEvent::Records { shard, delivery } => {
                // One that only tells what was trimmed has nothing to be claimed.
                if let Some(place) = self.places.get_mut(&shard)
                    && delivery.next > delivery.from
                {
                    place.fresh.push_back(delivery);
                }
            }
            GroupEvent::Revoked { shard } => {
                let Some(place) = self.places.get_mut(&shard) else { return };
                place.leaving = true;
                place.fresh.clear();
                self.group.detain(shard, true);
                self.let_go(shard);
            }
            GroupEvent::Lost { shard } => {
                self.places.remove(&shard);
            }
            // The server knows where it ends.
            GroupEvent::Ended { .. } => {}
        }
    }

    /// Gives a shard up that is to go to another member, once nothing of it is open.
    fn let_go(&mut self, shard: u32) {
        let Some(place) = self.places.get(&shard).filter(|place| place.leaving) else { return };
        let ready = self.ready.iter().any(|lot| lot.held().shard == shard);
        if place.open.is_empty() && place.tasks == 0 && !ready {
            self.places.remove(&shard);
            self.group.detain(shard, false);
        }
    }
}
