//! The server's clocks; the engine is told the time, it never asks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use highwater_engine::Now;

/// Monotonic time since the server started, and wall time. Copied to every thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    pub fn now(&self) -> Now {
        Now { mono_ns: self.mono_ns(), wall_ns: wall_ns() }
    }

    /// Nanoseconds since the server started.
    pub fn mono_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The instant of a monotonic time.
    pub fn instant(&self, mono_ns: u64) -> Instant {
        // A far future is as good as never.
        self.start + Duration::from_nanos(mono_ns.min(u64::MAX / 4))
    }
}

/// Nanoseconds since 1970 UTC.
pub(crate) fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64)
}

/// CPU time of the calling thread, nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
