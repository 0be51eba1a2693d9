//! A worker thread: pinned if asked, with a runtime of its own, its share of the lanes and consumers, and
//! nothing shared with the others on the path of a record.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use core_affinity::CoreId;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use crate::LoadError;
use crate::consumer::{Goal, consume};
use crate::integrity::Reach;
use crate::lane::Lane;
use crate::latency::Meter;
use crate::pacer::Pacer;
use crate::payload::Filler;
use crate::plan::{FILLER_SEED, Plan};
use crate::schedule::mix;
use crate::target::{Link, Refusal, Target};

/// What a worker tells the controlling thread, with its number.
#[derive(Debug)]
pub enum Event {
    /// Connected and ready to begin.
    Ready,
    /// All its lanes are done.
    Produced,
    /// All its consumers are done: how far each came, by shard. Nothing follows.
    Done(Vec<(usize, Reach)>),
    /// It could not begin, or not go on. Nothing follows.
    Failed(LoadError),
}

/// What the controlling thread tells all workers.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Begin: the plan says when.
    pub begin: watch::Receiver<bool>,
    /// Send nothing more.
    pub stop: watch::Receiver<bool>,
    /// Read up to here.
    pub goal: watch::Receiver<Goal>,
}

/// A worker about to start.
pub struct Worker<T> {
    /// Its number.
    pub index: usize,
    /// Of so many.
    pub of: usize,
    /// CPU to be pinned to.
    pub core: Option<usize>,
    /// What to load.
    pub target: T,
    /// The run.
    pub plan: Arc<Plan>,
    /// Where to count.
    pub meter: Arc<Meter>,
    /// What to wait for.
    pub orders: Orders,
    /// Where to report.
    pub events: mpsc::Sender<(usize, Event)>,
}

/// Reports a worker that ends by panicking, so that nobody waits for it.
struct Watch(usize, mpsc::Sender<(usize, Event)>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _nobody_waits =
                self.1.send((self.0, Event::Failed(LoadError::Worker { worker: self.0 })));
        }
    }
}

impl<T: Target> Worker<T> {
    /// Starts its thread.
    pub fn start(self) -> Result<JoinHandle<()>, LoadError> {
        std::thread::Builder::new()
            .name(format!("load-{}", self.index))
            .spawn(move || {
                let watch = Watch(self.index, self.events.clone());
                let event = match self.run() {
                    Ok(reached) => Event::Done(reached),
                    Err(error) => Event::Failed(error),
                };
                let _nobody_waits = watch.1.send((watch.0, event));
            })
            .map_err(|source| LoadError::System { doing: "start a worker thread", source })
    }

    fn run(self) -> Result<Vec<(usize, Reach)>, LoadError> {
        if let Some(core) = self.core
            && !core_affinity::set_for_current(CoreId { id: core })
        {
            return Err(LoadError::Core { core });
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| LoadError::System { doing: "start a worker's runtime", source })?;
        LocalSet::new().block_on(&runtime, self.work())
    }

    async fn work(self) -> Result<Vec<(usize, Reach)>, LoadError> {
        let plan = &self.plan;
        let stream = &plan.stream;
        let refused = |doing: &'static str| {
            let target = self.target.address().to_owned();
            move |why: Refusal| LoadError::Target { target, doing, message: why.0 }
        };
        let link = self.target.link().await.map_err(refused("connecting"))?;

        let pacer = Pacer::new(plan.clock, plan.options.spin);
        let seed = mix(mix(plan.options.seed, FILLER_SEED), self.index as u64);
        let filler = Rc::new(RefCell::new(Filler::new(plan.options.record_size, seed)));
        let mut lanes = Vec::new();
        for index in (self.index..plan.lanes()).step_by(self.of) {
            let shard = stream.shards[plan.lane(index).1].shard;
            let (sink, outcomes) = link
                .sink(stream, shard, plan.inflight())
                .await
                .map_err(refused("starting to append"))?;
            let (timer, filler) = (pacer.timer(), Rc::clone(&filler));
            lanes.push((Lane::new(plan, index, sink, timer, filler, &self.meter), outcomes));
        }
        let mut consumers = JoinSet::new();
        for shard in (self.index..plan.consumers).step_by(self.of) {
            let from = plan.from[shard];
            let source = link
                .source(stream, stream.shards[shard].shard, from)
                .await
                .map_err(refused("starting to read"))?;
            let (plan, meter) = (Arc::clone(plan), Arc::clone(&self.meter));
            let goal = self.orders.goal.clone();
            consumers.spawn_local(async move {
                (shard, consume(plan, shard, source, meter, goal).await)
            });
        }
        self.tell(Event::Ready);

        let mut begin = self.orders.begin.clone();
        if begin.wait_for(|begin| *begin).await.is_err() {
            return Err(LoadError::Stopped);
        }
        let mut production = JoinSet::new();
        for (lane, outcomes) in lanes {
            production.spawn_local(lane.run(outcomes, self.orders.stop.clone()));
        }
        let finished = async {
            while let Some(lane) = production.join_next().await {
                lane.map_err(|_| LoadError::Worker { worker: self.index })?;
            }
            Ok(())
        };
        tokio::select! {
            finished = finished => finished?,
            failed = pacer.drive() => {
                let source = failed.err().unwrap_or_else(|| std::io::ErrorKind::Other.into());
                return Err(LoadError::System { doing: "use a kernel timer", source });
            }
        }
        self.tell(Event::Produced);

        let mut reached = Vec::new();
        while let Some(consumer) = consumers.join_next().await {
            reached.push(consumer.map_err(|_| LoadError::Worker { worker: self.index })?);
        }
        Ok(reached)
    }

    fn tell(&self, event: Event) {
        // If the controlling thread is gone, so is everything the event could change.
        let _nobody_waits = self.events.send((self.index, event));
    }
}
