//! A worker thread: pinned if asked, with a runtime of its own, its share of the lanes and consumers, and
//! nothing shared with the others on the path of a record.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use core_affinity::CoreId;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, LocalSet, spawn_local};

use crate::LoadError;
use crate::consumer::consume;
use crate::dealer::Dealer;
use crate::integrity::Reach;
use crate::lane::Lane;
use crate::latency::Meter;
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::positions::Positions;
use crate::producer::Producer;
use crate::run::Orders;
use crate::schedule::mix;
use crate::stage::{Stage, keep};
use crate::target::{Link, Refusal, Target};

/// How far each reader came, by group and place.
pub type Reached = Vec<((usize, usize), Reach)>;

/// What a worker tells the controlling thread, with its number.
#[derive(Debug)]
pub enum Event {
    /// Connected and ready to begin.
    Ready,
    /// All its lanes are done.
    Produced,
    /// All its readers are done: how far each came, by group and place. Nothing follows.
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

/// Readers by group and place, each of which ends with how far it came.
type Readers = JoinSet<((usize, usize), Reach)>;

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

    fn run(self) -> Result<Reached, LoadError> {
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

    async fn work(self) -> Result<Reached, LoadError> {
        let plan = &self.plan;
        let link = self.target.link().await.map_err(self.refused("connecting"))?;
        let pacer = Pacer::new(plan.clock, plan.options.spin);
        let producers = self.producers(&link, &pacer).await?;
        let mut positions = Positions::default();
        let readers = self.readers(&link, &mut positions).await?;
        self.tell(Event::Ready);

        // They are told for as long as anybody reads, and a last time at the end.
        let reached = tokio::select! {
            reached = self.produce(pacer, producers, readers) => reached?,
            never = positions.keep(&link) => match never {},
        };
        positions.finish(&link).await;
        Ok(reached)
    }

    /// Sends all there is to send; then how far the readers came.
    async fn produce(
        &self,
        pacer: Rc<Pacer>,
        producers: Vec<LinkProducer<T::Link>>,
        mut readers: Readers,
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

        let mut reached = Vec::new();
        while let Some(reader) = readers.join_next().await {
            reached.push(reader.map_err(panicked)?);
        }
        Ok(reached)
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
                let sink = link.sink(plan.stream(place), at.shard, plan.inflight()).await;
                let (sink, outcomes) = sink.map_err(self.refused("starting to append"))?;
                let index = number * plan.places.len() + place;
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
        link: &T::Link,
        positions: &mut Positions,
    ) -> Result<Readers, LoadError> {
        let plan = &self.plan;
        let mut readers = JoinSet::new();
        for (group, place) in plan.readers_of(self.index, self.of) {
            let (stream, shard) = (plan.stream(place), plan.places[place].shard);
            let source = link.source(stream, shard, plan.from[place]).await;
            let source = source.map_err(self.refused("starting to read"))?;
            let (plan, meter) = (Arc::clone(plan), Arc::clone(&self.meter));
            let goal = self.orders.goal.clone();
            let reached = positions.reader(&plan, group, place);
            readers.spawn_local(async move {
                ((group, place), consume(plan, group, place, source, meter, goal, reached).await)
            });
        }
        Ok(readers)
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
