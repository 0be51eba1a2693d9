//! Acting at a due time, precisely, on a thread that also has acknowledgements to read.
//!
//! A runtime's timer ticks in milliseconds, a sleeping thread wakes 50 to 100 µs late, and a thread that
//! spins takes the CPU from a server on the same machine. So: one task per worker sleeps on a kernel timer
//! (microseconds, and in the same wait as the sockets) until shortly before the earliest due time, and then
//! yields to the runtime over and over. Every yield polls the sockets, so that acknowledgements are read,
//! and stamped, as they come.
//!
//! How late the thread was after all is measured, reported, and can void the run.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use crate::alarm::Alarm;
use crate::clock::{Clock, nanos};

/// The due times of one worker thread.
#[derive(Debug)]
pub struct Pacer {
    clock: Clock,
    spin_ns: u64,
    /// Due time and owner. An entry whose owner waits for another time by now is void.
    due: RefCell<BinaryHeap<Reverse<(u64, usize)>>>,
    timers: RefCell<Vec<TimerState>>,
    /// Until when the driver sleeps.
    asleep_until: Cell<u64>,
    sooner: Notify,
}

#[derive(Debug, Default)]
struct TimerState {
    armed: Option<u64>,
    waker: Option<Waker>,
}

/// The right of one task to wait for a due time.
#[derive(Debug)]
pub struct Timer {
    pacer: Rc<Pacer>,
    index: usize,
}

impl Pacer {
    /// Spins for the last `spin` before each due time. Nothing is woken unless [`Pacer::drive`] runs.
    pub fn new(clock: Clock, spin: Duration) -> Rc<Pacer> {
        Rc::new(Pacer {
            clock,
            spin_ns: nanos(spin),
            due: RefCell::default(),
            timers: RefCell::default(),
            asleep_until: Cell::new(0),
            sooner: Notify::new(),
        })
    }

    /// One more timer.
    pub fn timer(self: &Rc<Pacer>) -> Timer {
        let mut timers = self.timers.borrow_mut();
        timers.push(TimerState::default());
        Timer { pacer: Rc::clone(self), index: timers.len() - 1 }
    }

    /// Wakes the timers, for ever.
    pub async fn drive(&self) -> io::Result<()> {
        let alarm = Alarm::new()?;
        loop {
            let Some(due) = self.earliest() else {
                self.asleep_until.set(u64::MAX);
                self.sooner.notified().await;
                continue;
            };
            let now = self.clock.now_ns();
            if due <= now {
                self.wake(now);
                tokio::task::yield_now().await;
            } else if due - now <= self.spin_ns {
                tokio::task::yield_now().await;
            } else {
                self.asleep_until.set(due);
                let wait = Duration::from_nanos(due - now - self.spin_ns);
                tokio::select! {
                    rang = alarm.after(wait) => rang?,
                    () = self.sooner.notified() => {}
                }
            }
            self.asleep_until.set(0);
        }
    }

    /// The earliest due time somebody waits for.
    fn earliest(&self) -> Option<u64> {
        let (mut due, timers) = (self.due.borrow_mut(), self.timers.borrow());
        while let Some(&Reverse((ns, index))) = due.peek() {
            if timers[index].armed == Some(ns) {
                return Some(ns);
            }
            due.pop();
        }
        None
    }

    fn wake(&self, now: u64) {
        let (mut due, mut timers) = (self.due.borrow_mut(), self.timers.borrow_mut());
        while let Some(&Reverse((ns, index))) = due.peek() {
            if ns > now {
                break;
            }
            due.pop();
            let timer = &mut timers[index];
            if timer.armed == Some(ns) {
                timer.armed = None;
                if let Some(waker) = timer.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

impl Timer {
    /// Returns at `due_ns`, or at once if that has passed.
    pub async fn until(&mut self, due_ns: u64) {
        let pacer = &self.pacer;
        poll_fn(|cx| {
            let timer = &mut pacer.timers.borrow_mut()[self.index];
            if pacer.clock.now_ns() >= due_ns {
                // An earlier wait may have been given up, or something else have woken the task.
                timer.armed = None;
                return Poll::Ready(());
            }
            timer.waker.get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
            if timer.armed.replace(due_ns) != Some(due_ns) {
                pacer.due.borrow_mut().push(Reverse((due_ns, self.index)));
                if due_ns < pacer.asleep_until.get() {
                    pacer.sooner.notify_one();
                }
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    fn paced<F: Future>(spin: Duration, run: impl FnOnce(Rc<Pacer>, Clock) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = Clock::start();
        let pacer = Pacer::new(clock, spin);
        LocalSet::new().block_on(&runtime, async {
            let driver = Rc::clone(&pacer);
            tokio::task::spawn_local(async move { driver.drive().await });
            run(pacer, clock).await
        })
    }

    #[test]
    fn nothing_is_woken_early_and_everything_in_order() {
        for spin in [Duration::ZERO, Duration::from_micros(60), Duration::from_millis(50)] {
            let order = paced(spin, async |pacer, clock| {
                let order = Rc::new(RefCell::new(Vec::new()));
                let start = clock.now_ns();
                let tasks: Vec<_> = [9u64, 3, 0, 6, 3]
                    .into_iter()
                    .map(|ms| {
                        let (mut timer, order) = (pacer.timer(), Rc::clone(&order));
                        tokio::task::spawn_local(async move {
                            let due = start + ms * 1_000_000;
                            timer.until(due).await;
                            assert!(clock.now_ns() >= due);
                            order.borrow_mut().push(ms);
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
                Rc::into_inner(order).unwrap().into_inner()
            });
            assert_eq!(order, [0, 3, 3, 6, 9]);
        }
    }

    #[test]
    fn a_sooner_due_time_shortens_a_sleep_already_begun() {
        paced(Duration::ZERO, async |pacer, clock| {
            let (mut far, mut near) = (pacer.timer(), pacer.timer());
            let now = clock.now_ns();
            tokio::select! {
                biased;
                () = far.until(now + 3_600_000_000_000) => panic!("an hour has not passed"),
                () = async {
                    // Let the driver fall asleep for the far one first.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    near.until(now + 2_000_000).await;
                } => {}
            }
        });
    }

    #[test]
    fn a_wait_given_up_leaves_no_trace() {
        paced(Duration::ZERO, async |pacer, clock| {
            let mut timer = pacer.timer();
            let now = clock.now_ns();
            tokio::select! {
                biased;
                () = timer.until(now + 3_600_000_000_000) => panic!("an hour has not passed"),
                () = tokio::task::yield_now() => {}
            }
            timer.until(now + 1_000_000).await;
            assert!(pacer.earliest().is_none());
        });
    }
}
