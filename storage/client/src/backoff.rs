//! When to try again: exponential back-off with full jitter, so that clients refused together do not
//! come back together.

use std::time::Duration;

/// How long to wait between attempts, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the first wait; it doubles with every attempt. Default 10 ms.
    pub first: Duration,
    /// Upper bound of any wait. Default 1 s.
    pub max: Duration,
    /// Bound of one operation, all its attempts together; of what is appended, of the time in which nothing of its shard
    /// is acknowledged. Default 120 s.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            first: Duration::from_millis(10),
            max: Duration::from_secs(1),
            deadline: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// The longest wait before attempt number `attempt` + 1 (the first failure is attempt 0).
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }

    /// A wait chosen evenly between nothing and [`ceiling`](Self::ceiling).
    pub fn backoff(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let ceiling = u64::try_from(self.ceiling(attempt).as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.u64(0..=ceiling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let policy = RetryPolicy::default();
        let table = [
            (0, ms(10)),
            (1, ms(20)),
            (2, ms(40)),
            (5, ms(320)),
            (6, ms(640)),
            (7, ms(1000)),
            (31, ms(1000)),
            (32, ms(1000)),
            (u32::MAX, ms(1000)),
        ];
        for (attempt, ceiling) in table {
            assert_eq!(policy.ceiling(attempt), ceiling, "attempt {attempt}");
        }
        let endless = RetryPolicy { first: ms(1), max: Duration::MAX, deadline: Duration::MAX };
        assert_eq!(endless.ceiling(99), ms(u64::from(u32::MAX)));
    }

    #[test]
    fn jitter_fills_the_whole_range_and_never_leaves_it() {
        let policy = RetryPolicy::default();
        let mut rng = fastrand::Rng::with_seed(7);
        for attempt in [0, 3, 10] {
            let ceiling = policy.ceiling(attempt);
            let waits: Vec<_> = (0..1000).map(|_| policy.backoff(attempt, &mut rng)).collect();
            assert!(waits.iter().all(|w| *w <= ceiling));
            assert!(waits.iter().any(|w| *w < ceiling / 10));
            assert!(waits.iter().any(|w| *w > ceiling / 10 * 9));
        }
    }
}
