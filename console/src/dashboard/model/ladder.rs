//! Cumulative distributions of the last hour, dense where they are new and sparse where they are old: what was
//! measured over any window is the difference of two of them.

use std::sync::Arc;
use std::time::Duration;

use highwater_wire::telemetry::{Distribution, Snapshot};

use crate::dashboard::figures::Measured;

/// Nothing older is kept: an hour, and the spacing of what is that old.
const OLDEST_NS: u64 = 4_000_000_000_000;

/// A state may be as far from its neighbours as an hour's `1 / SPACING`: a window is off by that share of its
/// length at most.
const SPACING: u64 = 20;

/// However fast a server publishes.
const MOST: usize = 512;

#[derive(Debug)]
struct Rung {
    uptime_ns: u64,
    measured: [Distribution; Measured::ALL.len()],
}

/// The states, oldest first; copies share them.
#[derive(Clone, Debug, Default)]
pub struct Ladder(Vec<Arc<Rung>>);

impl Ladder {
    /// Takes in the distributions of `snapshot`, of the same server and later than the one before.
    pub fn push(&mut self, snapshot: &Snapshot) {
        let measured = Measured::ALL.map(|what| what.merged(snapshot));
        self.0.push(Arc::new(Rung { uptime_ns: snapshot.uptime_ns, measured }));
        self.thin(snapshot.uptime_ns);
    }

    /// Drops what its neighbours can stand for.
    fn thin(&mut self, now: u64) {
        let old = self.0.partition_point(|r| now.saturating_sub(r.uptime_ns) > OLDEST_NS);
        self.0.drain(..old.max(self.0.len().saturating_sub(MOST)));
        let mut at = 1;
        while at + 1 < self.0.len() {
            let gap = self.0[at + 1].uptime_ns.saturating_sub(self.0[at - 1].uptime_ns);
            let age = now.saturating_sub(self.0[at].uptime_ns);
            if gap <= age / SPACING {
                self.0.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// What was measured over the last `window`, or since there are measurements.
    pub fn over(&self, what: Measured, window: Duration) -> Distribution {
        let Some(newest) = self.0.last() else { return Distribution::default() };
        let since = newest.uptime_ns.saturating_sub(window.as_nanos() as u64);
        let at = self.0.partition_point(|r| r.uptime_ns <= since).saturating_sub(1);
        newest.measured[what as usize].since(&self.0[at].measured[what as usize])
    }

    /// Forgets all: the server has begun to count again.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture;

    #[test]
    fn windows_of_any_length_at_bounded_memory() {
        let mut ladder = Ladder::default();
        let last = 5_000;
        (1..=last).for_each(|at| ladder.push(&fixture::snapshot(at)));
        assert!(ladder.0.len() < 200, "{}", ladder.0.len());
        // Two cores, a thousand values a second each.
        for seconds in [1, 10, 60, 300, 3_600] {
            let window = Duration::from_secs(seconds);
            let count = ladder.over(Measured::Propagation, window).count() / 2_000;
            let most = seconds + (seconds / SPACING).max(1);
            assert!((seconds..=most).contains(&count), "{count} of {seconds} s");
        }
        assert_eq!(Measured::ALL.map(|m| m as usize), [0, 1, 2, 3, 4, 5], "in their order");
        ladder.clear();
        assert_eq!(ladder.over(Measured::Write, Duration::MAX), Distribution::default());
    }
}
