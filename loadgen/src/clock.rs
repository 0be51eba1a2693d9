//! One clock for all threads of a run: it never goes back, and reads as nanoseconds since 1970 UTC.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The system's time when the run began, carried on by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_ns: u64,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { origin: Instant::now(), origin_ns: nanos(unix) }
    }

    /// Nanoseconds since 1970 UTC.
    pub fn now_ns(&self) -> u64 {
        self.origin_ns.saturating_add(nanos(self.origin.elapsed()))
    }

    /// The instant at which this clock shows `ns`; its start for earlier times.
    pub fn instant(&self, ns: u64) -> Instant {
        let since = Duration::from_nanos(ns.saturating_sub(self.origin_ns));
        // A time beyond what the system can express is as good as never.
        self.origin.checked_add(since).unwrap_or_else(|| self.origin + crate::options::MAX_TIME)
    }
}

/// Whole nanoseconds; 584 years and more are `u64::MAX`.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
