//! The preparer's thread: takes jobs of the rings, opens the files, and fills the pool when it may.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;

use super::{Counts, JobDone, Preparer, PreparerOptions};
use crate::files::OsFiles;
use crate::uring::Waker;
use crate::vocab::{Job, OpenMode, Token};

/// What is in the pool of prepared files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Files ready, by size in bytes.
    pub ready: BTreeMap<u64, usize>,
    /// Bytes of all pool files, ready or not.
    pub bytes: u64,
    /// Bytes of files that are out of use and being removed in steps.
    pub gone_bytes: u64,
    /// What was done so far.
    pub counts: Counts,
    /// The last error met while filling the pool.
    pub last_error: Option<String>,
}

/// Writes and syncs a ring has begun and ended. Written by the ring's thread only, read by the preparer.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) begun: AtomicU64,
    pub(crate) ended: AtomicU64,
}

/// A job's result on its way to the ring that asked.
#[derive(Debug)]
pub(crate) enum Opened {
    Segment { fd: OwnedFd, capacity: u64, cold: bool },
    Gone,
}

/// Where the preparer leaves the results of one ring's jobs.
#[derive(Debug)]
pub(crate) struct JobPort {
    pub(crate) results: SegQueue<(Token, io::Result<Opened>)>,
    pub(crate) waker: Waker,
    pub(crate) gauge: Gauge,
}

enum Message {
    Attach(Weak<JobPort>),
    Do(Token, Job, Arc<JobPort>),
}

/// A running preparer. Clones share it; the thread ends, after the jobs it has, with the last of them.
#[derive(Clone, Debug)]
pub struct PreparerHandle {
    inner: Arc<HandleInner>,
}

#[derive(Debug)]
struct HandleInner {
    /// `None` only while it is being dropped.
    sender: Option<Sender<Message>>,
    status: Arc<Mutex<PoolStatus>>,
    thread: Option<JoinHandle<()>>,
}

impl PreparerHandle {
    /// What was in the pool after the last thing the preparer did.
    pub fn status(&self) -> PoolStatus {
        self.inner.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn attach(&self, port: &Arc<JobPort>) {
        self.send(Message::Attach(Arc::downgrade(port)));
    }

    /// Passes a job on; false if the thread is gone.
    pub(crate) fn send_job(&self, token: Token, job: Job, port: &Arc<JobPort>) -> bool {
        self.send(Message::Do(token, job, Arc::clone(port)))
    }

    fn send(&self, message: Message) -> bool {
        self.inner.sender.as_ref().is_some_and(|sender| sender.send(message).is_ok())
    }
}

impl Drop for HandleInner {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Starts a preparer thread. It opens the pool first; see [`Preparer::new`]. Call it on a thread that is not pinned:
/// the new one inherits the CPUs it may use. One preparer serves any number of rings.
///
/// # Errors
/// When the pool cannot be opened or the thread not be started.
pub fn spawn_preparer(files: OsFiles, options: PreparerOptions) -> io::Result<PreparerHandle> {
    let rate = options.busy_bytes_per_sec.max(1);
    let preparer = Preparer::new(files, options)?;
    let (sender, receiver) = channel();
    let status = Arc::new(Mutex::new(preparer.status()));
    let shown = Arc::clone(&status);
    let thread = std::thread::Builder::new()
        .name("hw-preparer".into())
        .spawn(move || run(preparer, &receiver, &shown, rate))?;
    Ok(PreparerHandle {
        inner: Arc::new(HandleInner { sender: Some(sender), status, thread: Some(thread) }),
    })
}

fn run(
    mut preparer: Preparer<OsFiles>,
    receiver: &Receiver<Message>,
    status: &Mutex<PoolStatus>,
    busy_rate: u64,
) {
    let mut load = Load { ports: Vec::new(), seen: 0, quiet_since: Instant::now() };
    let mut more = true;
    // When the next step of zeroing may start.
    let mut next_step = Instant::now();
    loop {
        let message = if more {
            receiver.recv_timeout(next_step.saturating_duration_since(Instant::now()))
        } else {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match message {
            Ok(Message::Attach(port)) => load.ports.push(port),
            Ok(Message::Do(token, job, port)) => {
                let result = preparer.handle(job).and_then(|done| open(&mut preparer, done));
                port.results.push((token, result));
                port.waker.wake();
                more = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                let started = Instant::now();
                let loaded = load.is_busy(started);
                let step = preparer.idle(loaded);
                more = step.more;
                let pace = if loaded { step.cost.saturating_mul(1_000_000) / busy_rate } else { 0 };
                next_step = started + Duration::from_micros(pace);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        *status.lock().unwrap_or_else(PoisonError::into_inner) = preparer.status();
    }
    preparer.finish();
}

fn open(preparer: &mut Preparer<OsFiles>, done: JobDone) -> io::Result<Opened> {
    match done {
        JobDone::Gone => Ok(Opened::Gone),
        JobDone::Segment { path, capacity, cold, write, new } => {
            let mode = if write { OpenMode::Write } else { OpenMode::Read };
            match preparer.files().open_file(&path, mode) {
                Ok(fd) => Ok(Opened::Segment { fd, capacity, cold }),
                Err(e) => {
                    if new {
                        preparer.forsake(&path);
                    }
                    Err(e)
                }
            }
        }
    }
}

/// Whether the rings are writing just now.
struct Load {
    ports: Vec<Weak<JobPort>>,
    /// Sum of the gauges when last looked at.
    seen: u64,
    quiet_since: Instant,
}

/// After the last write, zeroing goes on slowly for this long.
const QUIET: Duration = Duration::from_millis(5);

impl Load {
    fn is_busy(&mut self, now: Instant) -> bool {
        let (mut sum, mut in_flight) = (0u64, false);
        self.ports.retain(|port| {
            let Some(port) = port.upgrade() else { return false };
            let ended = port.gauge.ended.load(Ordering::Relaxed);
            let begun = port.gauge.begun.load(Ordering::Relaxed);
            sum = sum.wrapping_add(begun).wrapping_add(ended);
            in_flight |= begun != ended;
            true
        });
        if in_flight || sum != self.seen {
            self.seen = sum;
            self.quiet_since = now;
            return true;
        }
        now.duration_since(self.quiet_since) < QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_make_it_busy_until_it_was_quiet_for_a_while() {
        let port = Arc::new(JobPort {
            results: SegQueue::new(),
            waker: Waker::new().unwrap(),
            gauge: Gauge::default(),
        });
        let start = Instant::now();
        let mut load =
            Load { ports: vec![Arc::downgrade(&port)], seen: 0, quiet_since: start - QUIET };
        assert!(!load.is_busy(start));
        port.gauge.begun.store(1, Ordering::Relaxed);
        assert!(load.is_busy(start), "in flight");
        assert!(load.is_busy(start + 9 * QUIET), "still in flight");
        port.gauge.ended.store(1, Ordering::Relaxed);
        assert!(load.is_busy(start + 9 * QUIET), "just ended");
        assert!(load.is_busy(start + 9 * QUIET + QUIET / 2));
        assert!(!load.is_busy(start + 10 * QUIET));
        port.gauge.begun.store(2, Ordering::Relaxed);
        drop(port);
        load.is_busy(start + 20 * QUIET); // its going is noticed
        assert!(!load.is_busy(start + 21 * QUIET), "a ring that is gone does not count");
        assert!(load.ports.is_empty());
    }
}
