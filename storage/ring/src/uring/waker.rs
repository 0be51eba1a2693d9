//! Waking the thread that owns a ring, from any thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the owner of a [`crate::UringDisk`]: it returns from `wait`, or its event descriptor becomes
/// readable. Wakes between two turns of the owner cost one system call together.
///
/// The rule for a queue of one's own: push, then `wake`; the owner calls `reap` and *then* empties the queue.
#[derive(Clone, Debug)]
pub struct Waker {
    pub(crate) shared: Arc<WakeShared>,
}

#[derive(Debug)]
pub(crate) struct WakeShared {
    /// A wake is under way, which the owner has not seen.
    signalled: AtomicBool,
    /// Whether the owner waits inside the ring (which polls `inside`) or for `outside` to become readable.
    waits_inside: AtomicBool,
    pub(crate) inside: OwnedFd,
    pub(crate) outside: OwnedFd,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Waker {
            shared: Arc::new(WakeShared {
                signalled: AtomicBool::new(false),
                waits_inside: AtomicBool::new(false),
                inside: eventfd(0, flags)?,
                outside: eventfd(0, flags)?,
            }),
        })
    }

    /// Wakes the owner. Never blocks; harmless when the disk is gone.
    pub fn wake(&self) {
        if self.shared.signalled.swap(true, Ordering::SeqCst) {
            return; // somebody else's wake is on its way, and the owner looks everywhere after it
        }
        let inside = self.shared.waits_inside.load(Ordering::SeqCst);
        let fd = if inside { &self.shared.inside } else { &self.shared.outside };
        // The only failure is a full counter, and then it is readable anyway.
        let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
    }

    /// Whether a wake has come since the last `clear`.
    pub(crate) fn is_signalled(&self) -> bool {
        self.shared.signalled.load(Ordering::SeqCst)
    }

    /// Notes that the owner is awake and about to look at its queues.
    pub(crate) fn clear(&self) {
        if self.shared.signalled.load(Ordering::Relaxed) {
            // A swap, not a store: it must read the waker's value to see what was pushed before it.
            self.shared.signalled.swap(false, Ordering::SeqCst);
        }
    }

    /// Sets where wakes go. Wakes that went the other way are seen by `is_signalled` afterwards.
    pub(crate) fn set_inside(&self, inside: bool) {
        if self.shared.waits_inside.load(Ordering::Relaxed) != inside {
            self.shared.waits_inside.store(inside, Ordering::SeqCst);
        }
    }
}
