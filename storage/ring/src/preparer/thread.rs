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

/// Writes and syncs a ring has begun and ended, and bytes of the former. Written by the ring's thread only, read by the
/// preparer.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) begun: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) bytes: AtomicU64,
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
    let now = Instant::now();
    let mut load = Load { ports: Vec::new(), seen: 0, quiet_since: now };
    let mut rate = Rate::new(now);
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
                rate.note(started, load.bytes());
                let per_s = if step.removed { busy_rate } else { rate.of_zeroes(busy_rate) };
                let pace = if loaded { step.cost.saturating_mul(1_000_000) / per_s } else { 0 };
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

impl Load {
    /// Bytes written so far, over all rings there were.
    fn bytes(&self) -> u64 {
        let ports = self.ports.iter().filter_map(Weak::upgrade);
        ports.map(|port| port.gauge.bytes.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Bytes a second that are written of late.
struct Rate {
    since: Instant,
    bytes: u64,
    /// Absent while that is not known.
    per_s: Option<u64>,
}

/// How long bytes are counted for a rate, at least and at most.
const SPAN: Duration = Duration::from_millis(250);
const LONGEST_SPAN: Duration = Duration::from_secs(1);
/// Zeroes are written so much faster than files are used up: the pool fills, and no step more than that needs holds up
/// a durable write. Never slower than the least, bytes a second.
const FASTER: (u64, u64) = (3, 2);
const LEAST_PER_S: u64 = 8 << 20;

impl Rate {
    fn new(now: Instant) -> Rate {
        Rate { since: now, bytes: 0, per_s: None }
    }

    /// `bytes` have been written so far.
    fn note(&mut self, now: Instant, bytes: u64) {
        let span = now.duration_since(self.since);
        if span < SPAN {
            return;
        }
        // Fewer than before: a ring is gone.
        let more = bytes.saturating_sub(self.bytes);
        let per_s = || (u128::from(more) * 1_000_000 / span.as_micros()) as u64;
        self.per_s = (span <= LONGEST_SPAN).then(per_s);
        (self.since, self.bytes) = (now, bytes);
    }

    /// Bytes a second of zeroes to write meanwhile, at most `most`; that where nothing is known.
    fn of_zeroes(&self, most: u64) -> u64 {
        let (times, by) = FASTER;
        let faster = |per_s: u64| (per_s / by).saturating_mul(times).max(LEAST_PER_S);
        self.per_s.map_or(most, faster).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_written_a_little_faster_than_files_are_used_up() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let most = 64 << 20;
        assert_eq!(rate.of_zeroes(most), most, "nothing is known yet");
        let mut bytes = 0;
        let mut after = |span: Duration, more: u64, rate: &mut Rate| {
            bytes += more;
            let now = rate.since + span;
            rate.note(now, bytes);
            rate.of_zeroes(most)
        };
        assert_eq!(after(SPAN / 2, 5 << 20, &mut rate), most, "too short to tell");
        assert_eq!(after(SPAN, 0, &mut rate), 30 << 20, "5 MiB in a quarter of a second");
        assert_eq!(after(2 * SPAN, 10 << 20, &mut rate), 30 << 20);
        assert_eq!(after(SPAN, 100 << 20, &mut rate), most);
        assert_eq!(after(2 * SPAN, 1 << 20, &mut rate), LEAST_PER_S);
        assert_eq!(after(LONGEST_SPAN + SPAN, 1 << 20, &mut rate), most, "that was long ago");
        // A ring that ends takes its count with it.
        rate.note(rate.since + SPAN, 0);
        assert_eq!(rate.of_zeroes(most), LEAST_PER_S);
        assert_eq!(rate.of_zeroes(1 << 20), 1 << 20);
    }

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
