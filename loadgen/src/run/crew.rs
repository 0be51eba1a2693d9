//! The worker threads, as the controlling thread sees them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::LoadError;
use crate::consumer::Way;
use crate::environment::cpus;
use crate::integrity::Reach;
use crate::latency::Meter;
use crate::pauses::Longest;
use crate::plan::Plan;
use crate::schedule::Gaps;
use crate::target::Target;
use crate::worker::{Event, Worker};

use super::Stop;
use super::orders::Command;

/// The crew of a run.
pub struct Crew {
    threads: Vec<JoinHandle<()>>,
    /// What each measures.
    pub meters: Vec<Arc<Meter>>,
    events: mpsc::Receiver<(usize, Event)>,
    /// What they are told.
    pub command: Command,
    /// Workers whose lanes are not done.
    pub producing: usize,
    /// Workers whose readers are not done.
    pub working: usize,
    /// How far each reader came.
    pub reached: BTreeMap<Way, Reach>,
}

impl Crew {
    /// Starts the threads; they connect at once.
    pub fn start<T: Target>(target: &T, plan: &Arc<Plan>) -> Result<Crew, LoadError> {
        let cores = &plan.options.cores;
        let known = core_affinity::get_core_ids().unwrap_or_default();
        if let Some(&core) = cores.iter().find(|core| known.iter().all(|id| id.id != **core)) {
            return Err(LoadError::Core { core });
        }
        let workers = match cores.len() {
            // One CPU is left to everything else.
            0 => plan.producers.min(cpus().saturating_sub(1)).max(1),
            pinned => pinned,
        };
        let (tell, events) = mpsc::channel();
        let command = Command::new();
        let (mut threads, mut meters) = (Vec::new(), Vec::new());
        for index in 0..workers {
            let meter = Meter::new(plan.marks.classes(), plan.readers());
            let meter = Arc::new(meter.map_err(|_| LoadError::Worker { worker: index })?);
            meters.push(Arc::clone(&meter));
            let worker = Worker {
                index,
                of: workers,
                core: cores.get(index).copied(),
                target: target.clone(),
                plan: Arc::clone(plan),
                meter,
                orders: command.orders(),
                events: tell.clone(),
            };
            threads.push(worker.start()?);
        }
        let reached = BTreeMap::new();
        let (producing, working) = (workers, workers);
        Ok(Crew { threads, meters, events, command, producing, working, reached })
    }

    /// Worker threads.
    pub fn workers(&self) -> usize {
        self.meters.len()
    }

    /// Waits for an event at most `wait`. A worker's failure is the run's: the others end when the crew is
    /// dropped.
    pub fn hear(&mut self, wait: Duration) -> Result<Option<Event>, LoadError> {
        match self.events.recv_timeout(wait) {
            Ok((_, Event::Failed(error))) => Err(error),
            Ok((_, Event::Done(reached))) => {
                self.working = self.working.saturating_sub(1);
                self.reached.extend(reached);
                Ok(None)
            }
            Ok((_, event)) => {
                if matches!(event, Event::Produced) {
                    self.producing = self.producing.saturating_sub(1);
                }
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            // Every worker reports before it ends.
            Err(RecvTimeoutError::Disconnected) if self.working == 0 => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(LoadError::Worker { worker: 0 }),
        }
    }

    /// Waits until every worker is ready to begin, or until somebody wants to stop.
    pub fn ready(&mut self, stop: &Stop, look: Duration) -> Result<(), LoadError> {
        let mut missing = self.threads.len();
        while missing > 0 {
            if stop.level() > 0 {
                return Err(LoadError::Stopped);
            }
            if matches!(self.hear(look)?, Some(Event::Ready)) {
                missing -= 1;
            }
        }
        Ok(())
    }

    /// Counts a failure to read that is no worker's.
    pub fn unreadable(&self, why: String) {
        if let Some(meter) = self.meters.first() {
            let mut readings = meter.lock();
            readings.counts.read_errors += 1;
            readings.failed(|| why);
        }
    }

    /// The gaps between the due times of every producer that is done.
    pub fn gaps(&self) -> Gaps {
        let mut gaps = Gaps::default();
        for meter in &self.meters {
            gaps.merge(&meter.lock().gaps);
        }
        gaps
    }

    /// The longest pauses in acknowledgements that any producer saw that is done.
    pub fn pauses(&self) -> Longest {
        let mut longest = Longest::new();
        for meter in &self.meters {
            for (shard, pause) in &meter.lock().pauses {
                let known = longest.entry(*shard).or_default();
                *known = (*known).max(*pause);
            }
        }
        longest
    }

    /// Waits for the threads, which have reported their end.
    pub fn join(&mut self) -> Result<(), LoadError> {
        for (worker, thread) in self.threads.drain(..).enumerate() {
            thread.join().map_err(|_| LoadError::Worker { worker })?;
        }
        Ok(())
    }
}
