//! A worker thread: pinned if asked, with a runtime of its own, its share of the lanes and consumers, and
//! nothing shared with the others on the path of a record.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use core_affinity::CoreId;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet, LocalSet, spawn_local};

use crate::LoadError;
use crate::busy::Thread;
use crate::dealer::Dealer;
use crate::lane::Lane;
use crate::latency::Meter;
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::positions::Positions;
use crate::producer::Producer;
use crate::readers::{Reached, Readers};
use crate::run::Orders;
use crate::schedule::mix;
use crate::stage::{Stage, keep};
use crate::target::{LaneOptions, Link, Refusal, Target};

/// What a worker tells the controlling thread, with its number.
#[derive(Debug)]
pub enum Event {
    /// Connected and ready to begin.
    Ready,
    /// All its lanes are done.
    Produced,
    /// All its readers are done: how far each came. Nothing follows.
    Done(Reached),
    /// It could not begin, or not go on. Nothing follows.
    Failed(LoadError),
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

/// A producer on a link.
type LinkProducer<L> = Producer<<L as Link>::Sink, <L as Link>::Outcomes>;

/// Readers at work.
type Reading = JoinHandle<Result<Reached, JoinError>>;

/// Seeds of the workers' fillers count down from here; producers' count up from 0.
const WRITER_SEED: u64 = u64::MAX;

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
    pub fn start(self) -> Result<std::thread::JoinHandle<()>, LoadError> {
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

    fn run(self) -> Result<Reached, LoadError> {
        if let Some(core) = self.core
            && !core_affinity::set_for_current(CoreId { id: core })
        {
            return Err(LoadError::Core { core });
        }
        self.meter.lock().thread = Thread::own();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| LoadError::System { doing: "start a worker's runtime", source })?;
        LocalSet::new().block_on(&runtime, self.work())
    }

    async fn work(self) -> Result<Reached, LoadError> {
        let plan = &self.plan;
        let link = self.target.link().await.map_err(self.refused("connecting"))?;
        let link = Rc::new(link);
        let pacer = Pacer::new(plan.clock, plan.options.spin);
        let producers = self.producers(&link, &pacer).await?;
        let positions = Positions::default();
        let readers = self.readers(&link, &positions).await?;
        self.tell(Event::Ready);

        // They are told for as long as anybody reads, and a last time at the end.
        let reached = tokio::select! {
            reached = self.produce(pacer, producers, readers) => reached?,
            never = positions.keep(&*link) => match never {},
        };
        positions.finish(&*link).await;
        Ok(reached)
    }

    /// Sends all there is to send; then how far the readers came.
    async fn produce(
        &self,
        pacer: Rc<Pacer>,
        producers: Vec<LinkProducer<T::Link>>,
        readers: Reading,
    ) -> Result<Reached, LoadError> {
        let plan = &self.plan;

        let mut begin = self.orders.begin.clone();
        if begin.wait_for(|begin| *begin).await.is_err() {
            return Err(LoadError::Stopped);
        }
        let (stage, stages) = watch::channel(Stage::Going);
        let keeper = spawn_local(keep(Arc::clone(plan), self.orders.stop.clone(), stage));
        let mut production = JoinSet::new();
        for producer in producers {
            production.spawn_local(producer.run(stages.clone()));
        }
        let panicked = |_: JoinError| LoadError::Worker { worker: self.index };
        let finished = async {
            while let Some(producer) = production.join_next().await {
                producer.map_err(panicked)?.map_err(panicked)?;
            }
            Ok::<_, LoadError>(())
        };
        tokio::select! {
            finished = finished => finished?,
            failed = pacer.drive() => {
                let source = failed.err().unwrap_or_else(|| std::io::ErrorKind::Other.into());
                return Err(LoadError::System { doing: "use a kernel timer", source });
            }
        }
        keeper.abort();
        self.tell(Event::Produced);

        readers.await.map_err(panicked)?.map_err(panicked)
    }

    /// This worker's producers, with everything they need open.
    async fn producers(
        &self,
        link: &T::Link,
        pacer: &Rc<Pacer>,
    ) -> Result<Vec<LinkProducer<T::Link>>, LoadError> {
        let plan = &self.plan;
        let seed = mix(plan.options.seed, WRITER_SEED - self.index as u64);
        let writer = Rc::new(RefCell::new(plan.material.writer(seed)));
        let mut producers = Vec::new();
        for number in (self.index..plan.producers).step_by(self.of) {
            let dealer = Dealer::new(plan, number as u32);
            let mut lanes = Vec::with_capacity(plan.places.len());
            for (place, at) in plan.places.iter().enumerate() {
                let index = number * plan.places.len() + place;
                let lane = LaneOptions { number: index, inflight: plan.inflight() };
                let sink = link.sink(plan.stream(place), at.shard, lane).await;
                let (sink, outcomes) = sink.map_err(self.refused("starting to append"))?;
                let (timer, hand) = (pacer.timer(), dealer.hand());
                let lane = Lane::new(plan, index, sink, timer, &writer, hand, &self.meter);
                lanes.push((lane, outcomes));
            }
            producers.push(Producer::new(plan, &self.meter, dealer, pacer.timer(), lanes));
        }
        Ok(producers)
    }

    /// This worker's readers: they read already.
    async fn readers(
        &self,
        link: &Rc<T::Link>,
        positions: &Positions,
    ) -> Result<Reading, LoadError> {
        let goal = self.orders.goal.clone();
        let mut readers = Readers::new(link, &self.plan, &self.meter, goal, positions);
        for (group, place) in self.plan.readers_of(self.index, self.of) {
            readers.begin(group, place).await.map_err(self.refused("starting to read"))?;
        }
        Ok(spawn_local(readers.finish()))
    }

    fn refused(&self, doing: &'static str) -> impl FnOnce(Refusal) -> LoadError {
        let target = self.target.address().to_owned();
        move |why| LoadError::Target { target, doing, message: why.0 }
    }

    fn tell(&self, event: Event) {
        // If the controlling thread is gone, so is everything the event could change.
        let _nobody_waits = self.events.send((self.index, event));
    }
}
