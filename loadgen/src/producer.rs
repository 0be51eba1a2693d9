//! One producer at work: it deals its records to its lanes, or, in a closed loop, makes one after the other
//! and waits for the fate of each.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::Mode;
use crate::dealer::{Batch, Dealer, Dealt, Planned};
use crate::lane::{Common, Lane, Ticket, listen};
use crate::latency::Meter;
use crate::pacer::Timer;
use crate::plan::Plan;
use crate::stage::Stage;
use crate::target::{Outcomes, Sink};
use crate::workload::Draw;

/// How often records are dealt: together with a late timer well within [`AHEAD`](crate::plan::AHEAD).
const DEAL: Duration = Duration::from_millis(4);

/// A producer that has not begun.
pub struct Producer<S, O> {
    plan: Arc<Plan>,
    meter: Arc<Meter>,
    dealer: Dealer,
    timer: Timer,
    /// One per place, with what tells of it.
    lanes: Vec<(Lane<S>, O)>,
}

impl<S: Sink, O: Outcomes> Producer<S, O> {
    /// With a lane for each place, all fed by `dealer`.
    pub fn new(
        plan: &Arc<Plan>,
        meter: &Arc<Meter>,
        dealer: Dealer,
        timer: Timer,
        lanes: Vec<(Lane<S>, O)>,
    ) -> Producer<S, O> {
        Producer { plan: Arc::clone(plan), meter: Arc::clone(meter), dealer, timer, lanes }
    }

    /// Sends until the end of the run, and returns when everything is answered, or nobody waits for it any
    /// more.
    pub async fn run(mut self, stage: watch::Receiver<Stage>) -> Result<(), JoinError> {
        self.dealer.begin();
        let (mut lanes, mut listeners) = (Vec::new(), JoinSet::new());
        let mut heard: Vec<Rc<Common>> = Vec::new();
        for (lane, outcomes) in self.lanes.drain(..) {
            heard.push(Rc::clone(lane.common()));
            listeners.spawn_local(listen(Rc::clone(lane.common()), outcomes));
            lanes.push(lane);
        }
        if self.plan.mode == Mode::Closed {
            self.call(lanes, stage).await?;
        } else {
            let mut sending = JoinSet::new();
            for lane in lanes {
                sending.spawn_local(lane.run(stage.clone()));
            }
            self.deal(stage).await;
            while let Some(lane) = sending.join_next().await {
                lane?;
            }
        }
        listeners.abort_all();
        self.count();
        let mut readings = self.meter.lock();
        heard.iter().for_each(|lane| lane.pauses(&mut readings.pauses));
        Ok(())
    }

    /// Keeps the lanes' queues filled.
    async fn deal(&mut self, mut stage: watch::Receiver<Stage>) {
        let open = self.plan.mode == Mode::Open;
        let last = if open { Stage::Over } else { Stage::Ended };
        let mut over = pin!(async { stage.wait_for(|stage| *stage >= last).await.is_ok() });
        if !open {
            self.timer.until(self.plan.times().start_ns).await;
        }
        loop {
            let dealt = match open {
                true => self.dealer.deal_due(),
                false => {
                    self.dealer.deal_full(self.plan.batch_room);
                    Dealt::Full
                }
            };
            let pause = async {
                match dealt {
                    Dealt::Ahead => tokio::time::sleep(DEAL).await,
                    Dealt::Slice => tokio::task::yield_now().await,
                    _ => self.dealer.room().await,
                }
            };
            if dealt == Dealt::All {
                break;
            }
            tokio::select! {
                biased;
                _ = &mut over => break,
                () = pause => {}
            }
        }
        self.dealer.end();
    }

    /// The closed loop.
    async fn call(
        &mut self,
        mut lanes: Vec<Lane<S>>,
        mut stage: watch::Receiver<Stage>,
    ) -> Result<(), JoinError> {
        let plan = Arc::clone(&self.plan);
        {
            let mut over = pin!(async { stage.wait_for(|s| *s >= Stage::Ended).await.is_ok() });
            let mut last = None;
            loop {
                let next = tokio::select! {
                    biased;
                    next = self.next_call(&mut lanes, last) => next,
                    _ = &mut over => break,
                };
                let Some((ticket, place, draw)) = next else { break };
                let hand = self.dealer.hand();
                hand.put(place, Planned { intended_ns: 0, draw });
                let mut batch = Batch::default();
                hand.extend(place, &mut batch, u64::MAX, 0);
                batch.close_ns = plan.clock.now_ns();
                if let Err(error) = lanes[place].send(ticket, batch).await {
                    self.meter.lock().failed(|| format!("making a record: {error}"));
                    break;
                }
                last = Some(place);
                tokio::task::yield_now().await;
            }
        }
        let mut draining = JoinSet::new();
        for lane in lanes {
            draining.spawn_local(lane.drain(stage.clone()));
        }
        while let Some(drained) = draining.join_next().await {
            drained?;
        }
        Ok(())
    }

    /// Waits until the record before is answered and the next one due and admitted. `None` after the last.
    async fn next_call(
        &mut self,
        lanes: &mut [Lane<S>],
        last: Option<usize>,
    ) -> Option<(Ticket, usize, Draw)> {
        if let Some(last) = last {
            lanes[last].answered().await;
            lanes[last].recover().await;
        }
        let plan = &self.plan;
        let due = self.dealer.due().unwrap_or(plan.times().start_ns);
        self.timer.until(due.min(plan.times().end_ns)).await;
        let (place, draw) = self.dealer.draw();
        let ticket = lanes[place].admitted().await;
        (plan.clock.now_ns() < plan.times().end_ns).then_some((ticket, place, draw))
    }

    /// At the end: what was due and is not sent, and how the due times were spaced.
    fn count(&self) {
        if self.plan.mode != Mode::Open {
            return;
        }
        let (unsent, measured, gaps) = self.dealer.unsent();
        let mut readings = self.meter.lock();
        readings.counts.unsent += unsent;
        readings.counts.window_due += measured;
        readings.gaps.merge(gaps);
    }
}
