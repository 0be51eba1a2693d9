//! How much of its time a worker thread wants a CPU: whether the generator, and not the target, is at its end.
//!
//! A generator that has as much to do as it can delivers no more however fast the target is. Its lateness does not tell: what waits
//! because a window is full is not late. Time on a CPU alone does not either, where others want the same one: so time
//! spent waiting for it counts as well.

use std::path::{Path, PathBuf};

/// A thread that wants a CPU for more than this share of the time is at its end.
pub const AT_END: f64 = 0.9;

/// A thread whose time others can read.
#[derive(Clone, Debug)]
pub struct Thread(PathBuf);

impl Thread {
    /// The one that asks; `None` where the system does not tell (other than Linux, or without scheduler statistics).
    pub fn own() -> Option<Thread> {
        // PID/task/TID.
        let own = std::fs::read_link("/proc/thread-self").ok()?;
        let thread = Thread(Path::new("/proc").join(own).join("schedstat"));
        thread.wanted_ns().map(|_| thread)
    }

    /// For how long it had a CPU or waited for one since it began, nanoseconds; `None` once it has ended.
    pub fn wanted_ns(&self) -> Option<u64> {
        parse(&std::fs::read_to_string(&self.0).ok()?)
    }
}

/// Of `ran waited slices`, the first two together: Documentation/scheduler/sched-stats.rst. A kernel that does not
/// keep them says 0 for all; a thread that has only begun may have run for 0, in its first slice.
fn parse(schedstat: &str) -> Option<u64> {
    let mut fields = schedstat.split_ascii_whitespace().map_while(|field| field.parse().ok());
    let (ran, waited, slices): (u64, u64, u64) = (fields.next()?, fields.next()?, fields.next()?);
    (slices > 0).then_some(ran + waited)
}

/// The share, 0 to 1, of `passed_ns` for which the busiest of several threads wanted a CPU, by what they had wanted before
/// and have now; `None` if that is not known of any.
pub fn busiest(before: &[Option<u64>], now: &[Option<u64>], passed_ns: u64) -> Option<f64> {
    let wanted = before.iter().zip(now).filter_map(|(before, now)| now.zip(*before));
    let most = wanted.map(|(now, before)| now.saturating_sub(before)).max()?;
    // What is read one after the other is not of the same moment.
    (passed_ns > 0).then(|| (most as f64 / passed_ns as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_and_waiting_both_count() {
        assert_eq!(parse("231504 1407997 2\n"), Some(1_639_501));
        assert_eq!(parse("0 116258 1\n"), Some(116_258));
        for none in ["0 0 0", "", "5", "5 6", "x 1 2"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn the_busiest_thread_counts_and_never_more_than_all_of_the_time() {
        let before = [Some(100), None, Some(1_000)];
        assert_eq!(busiest(&before, &[Some(400), Some(9_000), Some(1_900)], 1_000), Some(0.9));
        assert_eq!(busiest(&before, &[Some(1_200), None, None], 1_000), Some(1.0));
        assert_eq!(busiest(&[None], &[Some(5)], 1_000), None);
        assert_eq!(busiest(&[], &[], 1_000), None);
    }

    /// Where there is a `/proc`, a thread that worked was busy, as others see it too.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_can_be_read_from_another() {
        let Some(own) = Thread::own() else { return };
        let before = own.wanted_ns().unwrap();
        // The kernel accounts at each switch and tick: work until it shows.
        let mut sum = 0u64;
        while own.wanted_ns().unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let seen = std::thread::spawn(move || own.wanted_ns()).join().unwrap();
        assert!(seen.unwrap() > before);
    }
}
