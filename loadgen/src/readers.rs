//! A worker's readers: one for each group and shard it has, and for each shard that comes of those.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater_wire::StreamDescription;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, sleep_until};

use crate::consumer::{Read, Way, consume};
use crate::integrity::Reach;
use crate::latency::Meter;
use crate::plan::Plan;
use crate::positions::Positions;
use crate::run::Goal;
use crate::target::{Link, Refusal};

/// How far each reader came.
pub type Reached = Vec<(Way, Reach)>;

/// While it is not known what came of a closed shard, it is asked for this often.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// The readers of a worker.
pub struct Readers<L> {
    link: Rc<L>,
    plan: Arc<Plan>,
    meter: Arc<Meter>,
    goal: watch::Receiver<Goal>,
    positions: Positions,
    tasks: JoinSet<(Way, Read)>,
}

impl<L: Link> Readers<L> {
    /// None yet.
    pub fn new(
        link: &Rc<L>,
        plan: &Arc<Plan>,
        meter: &Arc<Meter>,
        goal: watch::Receiver<Goal>,
        positions: &Positions,
    ) -> Readers<L> {
        Readers {
            link: Rc::clone(link),
            plan: Arc::clone(plan),
            meter: Arc::clone(meter),
            goal,
            positions: positions.clone(),
            tasks: JoinSet::new(),
        }
    }

    /// Begins to read a place for a group, from the run's first record on.
    pub async fn begin(&mut self, group: usize, place: usize) -> Result<(), Refusal> {
        let at = self.plan.places[place];
        let way = Way { group, stream: at.stream, shard: at.shard };
        let plan = Arc::clone(&self.plan);
        self.read(&plan.streams[at.stream], way, Some(place), plan.from[place]).await
    }

    async fn read(
        &mut self,
        stream: &StreamDescription,
        way: Way,
        place: Option<usize>,
        from: u64,
    ) -> Result<(), Refusal> {
        let source = self.link.source(stream, way.shard, from).await?;
        let reached = self.positions.reader(&self.plan, way, from);
        let (plan, meter) = (Arc::clone(&self.plan), Arc::clone(&self.meter));
        let goal = self.goal.clone();
        self.tasks.spawn_local(async move {
            (way, consume(plan, way, place, source, meter, goal, reached).await)
        });
        Ok(())
    }

    /// Reads until all readers have come to their goal, those of the shards that come up meanwhile too.
    pub async fn finish(mut self) -> Result<Reached, JoinError> {
        let mut reached = Reached::new();
        while let Some(done) = self.tasks.join_next().await {
            let (way, read) = done?;
            reached.push((way, read.reach));
            if read.ended {
                self.go_on(way).await;
            }
        }
        Ok(reached)
    }

    /// Reads on in what came of a shard that was read to its end. What it cannot begin to read is left unread.
    async fn go_on(&mut self, way: Way) {
        let Way { group, stream, shard } = way;
        let plan = Arc::clone(&self.plan);
        let mut ready = plan.descent.ended(stream, group, shard);
        let mut now = None;
        let now = loop {
            let known = plan.descent.is_continued(stream, group, shard);
            match now {
                Some(now) if known => break now,
                // Another parent is read still: whoever reads it goes on.
                None if known && ready.is_empty() => return,
                None => {}
                Some(_) if self.wait().await => {}
                Some(_) => return,
            }
            match self.link.describe(&plan.streams[stream]).await {
                Ok(described) => {
                    ready.extend(plan.descent.learn(stream, group, &described));
                    now = Some(described);
                }
                Err(why) => {
                    self.failed(way, &why);
                    if !self.wait().await {
                        return;
                    }
                }
            }
        };
        for shard in ready {
            let way = Way { shard, ..way };
            // A new shard has nothing that is older than the run.
            while let Err(why) = self.read(&now, way, None, 0).await {
                self.failed(way, &why);
                if !self.wait().await {
                    break;
                }
            }
        }
    }

    /// Waits a little; whether there is time left to try again.
    async fn wait(&mut self) -> bool {
        let deadline = match *self.goal.borrow_and_update() {
            Goal::Open => None,
            Goal::Until(_, deadline) => Some(deadline),
            Goal::Here => return false,
        };
        let over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = over => false,
            () = sleep(ASK_AGAIN) => true,
        }
    }

    fn failed(&self, way: Way, why: &Refusal) {
        let stream = &self.plan.streams[way.stream].name;
        let mut readings = self.meter.lock();
        readings.counts.read_errors += 1;
        readings.failed(|| format!("what comes of shard {} of {stream}: {why}", way.shard));
    }
}
