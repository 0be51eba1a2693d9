//! The filter threads: they compile filters and take turns, for all cores, at a low priority. Their queue is bounded by
//! what cores may give and lock-free: a core pushes, and wakes a thread that sleeps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc::UnboundedSender;

use super::turn::Scratch;
use super::{Filtered, Program, Turn, Turned, Whose};
use crate::clock::thread_cpu_ns;
use crate::options::bounds::{FILTER_TURN_MS, FILTER_TURNS};
use crate::router::{Signal, core_of};

/// How much less of a processor than others a filter thread gets: a core's thread has to have it first.
const NICE: i32 = 10;

/// Records looked at between two looks at the clock.
const UNTIMED: u32 = 8;

/// What a filter thread is given.
#[derive(Debug)]
pub(crate) enum Work {
    /// For the core of this number.
    Compile {
        core: usize,
        source: Arc<str>,
    },
    Turn(Box<Turn>),
}

#[derive(Debug)]
struct Queue {
    works: ArrayQueue<Work>,
    /// By thread.
    places: Vec<Place>,
    /// Nothing more comes.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Place {
    thread: OnceLock<Thread>,
    /// It sleeps, or is about to.
    asleep: AtomicBool,
    /// CPU time it has used, nanoseconds.
    busy_ns: AtomicU64,
}

/// The way to the filter threads. They end when it is dropped.
#[derive(Debug)]
pub(crate) struct FilterLink(Arc<Queue>);

impl FilterLink {
    /// Gives them work, or gives it back if there is no room.
    pub fn give(&self, work: Work) -> Result<(), Work> {
        self.0.works.push(work)?;
        // Whoever goes to sleep says so and then looks once more: one of the two sees the other.
        fence(Ordering::SeqCst);
        let sleeper = self.0.places.iter().find(|place| {
            place.asleep.load(Ordering::Relaxed) && place.asleep.swap(false, Ordering::AcqRel)
        });
        if let Some(thread) = sleeper.and_then(|place| place.thread.get()) {
            thread.unpark();
        }
        Ok(())
    }

    /// What they report to whoever looks.
    pub fn gauge(&self) -> FilterGauge {
        FilterGauge(Arc::clone(&self.0))
    }
}

impl Drop for FilterLink {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.0.places.iter().filter_map(|place| place.thread.get()).for_each(Thread::unpark);
    }
}

/// Tells how much the filter threads have to do.
#[derive(Clone, Debug)]
pub(crate) struct FilterGauge(Arc<Queue>);

impl FilterGauge {
    /// CPU time they have used, nanoseconds.
    pub fn busy_ns(&self) -> u64 {
        self.0.places.iter().map(|place| place.busy_ns.load(Ordering::Relaxed)).sum()
    }
}

/// One of the threads, before it runs.
#[derive(Debug)]
pub(crate) struct FilterThread {
    queue: Arc<Queue>,
    number: usize,
    /// By core: where results go.
    cores: Vec<UnboundedSender<Signal>>,
}

/// `threads` of them, for these cores.
pub(crate) fn filter_threads(
    threads: usize,
    cores: &[UnboundedSender<Signal>],
) -> (FilterLink, Vec<FilterThread>) {
    let queue = Arc::new(Queue {
        works: ArrayQueue::new(cores.len().max(1) * FILTER_TURNS),
        places: (0..threads).map(|_| Place::default()).collect(),
        closed: AtomicBool::new(false),
    });
    let thread = |number| FilterThread { queue: Arc::clone(&queue), number, cores: cores.to_vec() };
    let all = (0..threads).map(thread).collect();
    (FilterLink(queue), all)
}

impl FilterThread {
    /// Works until the link is gone.
    pub fn run(self) {
        // Refused only where priorities cannot be lowered: then it is one thread among others.
        let _ = rustix::process::nice(NICE);
        let place = &self.queue.places[self.number];
        place.thread.get_or_init(std::thread::current);
        let mut scratch = Scratch::default();
        loop {
            while let Some(work) = self.queue.works.pop() {
                self.work(work, &mut scratch);
                place.busy_ns.store(thread_cpu_ns(), Ordering::Relaxed);
            }
            if self.queue.closed.load(Ordering::Acquire) {
                return;
            }
            place.asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.queue.works.is_empty() && !self.queue.closed.load(Ordering::Acquire) {
                std::thread::park();
            }
            place.asleep.store(false, Ordering::Relaxed);
        }
    }

    fn work(&self, work: Work, scratch: &mut Scratch) {
        let (core, filtered) = match work {
            Work::Compile { core, source } => {
                let threads = self.queue.places.len();
                // Whoever waits has to hear of it, whatever happens here.
                let result = catch_unwind(|| Program::compile(&source, threads).map(Arc::new))
                    .unwrap_or_else(|_| {
                        Err("compiling it panicked; the server's log says where".into())
                    });
                (core, Filtered::Compiled { source, result })
            }
            Work::Turn(turn) => {
                let taken = catch_unwind(AssertUnwindSafe(|| take(&turn, scratch)));
                let found = taken.unwrap_or_else(|_| {
                    // What it was in the middle of is not known.
                    *scratch = Scratch::default();
                    turn.panicked()
                });
                let Turn { whose, lot, .. } = *turn;
                let (Whose::Subscription(highwater_engine::ReaderId(of)) | Whose::Fetch(of)) =
                    whose;
                (core_of(of), Filtered::Turned(Box::new(Turned { whose, lot, found })))
            }
        };
        if let Some(core) = self.cores.get(core) {
            // A core that is gone needs no answer.
            let _ = core.send(Signal::Filtered(filtered));
        }
    }
}

fn take(turn: &Turn, scratch: &mut Scratch) -> super::Found {
    let over = Instant::now() + Duration::from_millis(FILTER_TURN_MS);
    let mut asked = 0;
    turn.take(scratch, || {
        asked += 1;
        asked % UNTIMED == 0 && Instant::now() >= over
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_done_by_whoever_is_there_and_they_end_with_the_link() {
        let (sender, mut signals) = tokio::sync::mpsc::unbounded_channel();
        let (link, threads) = filter_threads(3, &[sender]);
        let running: Vec<_> =
            threads.into_iter().map(|thread| std::thread::spawn(|| thread.run())).collect();
        let mut done = 0;
        for round in 0..50 {
            let most = if round % 2 == 0 { 1 } else { FILTER_TURNS };
            for _ in 0..most {
                link.give(Work::Compile { core: 0, source: "key == 'a'".into() }).unwrap();
            }
            for _ in 0..most {
                let Some(Signal::Filtered(filtered)) = signals.blocking_recv() else { panic!() };
                assert!(matches!(filtered, Filtered::Compiled { result: Ok(_), .. }));
                done += 1;
            }
        }
        assert_eq!(done, 25 * (1 + FILTER_TURNS));
        assert!(link.gauge().busy_ns() > 0);
        drop(link);
        running.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(signals.blocking_recv().is_none());
    }

    #[test]
    fn the_queue_holds_what_cores_may_give_and_gives_back_the_rest() {
        let (sender, _signals) = tokio::sync::mpsc::unbounded_channel();
        let (link, _threads) = filter_threads(1, &[sender]);
        let work = || Work::Compile { core: 0, source: "true".into() };
        let taken = (0..).take_while(|_| link.give(work()).is_ok()).count();
        assert_eq!(taken, FILTER_TURNS);
    }
}
