//! What may be promised without a curve, from how long a rate was kept up and how much was late meanwhile.
//!
//! A curve ([`super::fit`]) needs trials on both sides of a goal. Where every trial met every goal, nothing tells how far a
//! rate is from where it gives out: all there is are the seconds at it. Slow records come in clusters, so it is not
//! records that count but disturbances: a clean half minute of five million records says nothing about what comes once a minute.
//!
//! Disturbances are taken to come at random, each to make the records of `c` seconds late. `c` is the longest time that was
//! late in one stretch, and [`UNSEEN_S`] at least: what did not happen yet may take as long. In `T` seconds, of which `L`
//! were late, there were `k = L / c` of them. With Jeffreys' prior for the rate of rare events, their number in a later
//! run of [`PROMISE_S`] is negative binomial (Gelman and others, *Bayesian Data Analysis*, section 2.6):
//!
//! ```text
//! r = k + 1/2,   q = T / (T + 120 s),   P(n) = Γ(n + r) / (Γ(r) n!) q^r (1 - q)^n
//! ```
//!
//! That run keeps the goal if no more than `m = allowed 120 s / c` of them come. The rate is promised if they do with
//! 95 %. (The rule of three, that what did not happen in `T` happens with 95 % less than three times in as long,
//! is the bound on the rate alone; here the length of the run promised counts as well.)

use super::fit::PROMISE_S;

/// What was not seen yet may make records late for so long, in seconds.
pub const UNSEEN_S: f64 = 1.0;
/// How likely a promise may be broken.
const BROKEN: f64 = 0.05;
/// No run is asked for that would take longer, in seconds: a day.
const LONGEST_S: f64 = 86_400.0;

/// What was seen at a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kept {
    /// For how long, seconds.
    pub seconds: f64,
    /// Time of which the records were late: of each stretch the share that was, times its length. Seconds.
    pub late_s: f64,
    /// The most of that in one stretch, seconds.
    pub longest_s: f64,
}

impl Kept {
    /// One more stretch, of which the share `late` was.
    pub fn add(&mut self, seconds: f64, late: f64) {
        self.seconds += seconds;
        self.late_s += late * seconds;
        self.longest_s = self.longest_s.max(late * seconds);
    }

    /// How long the rate has to be kept up, in seconds and with what was late growing likewise, before a run of
    /// [`PROMISE_S`] can be promised of which at most the share `allowed` is late; what was kept up counts. `None` if it never can: too
    /// much is late for that.
    pub fn needed_s(&self, allowed: f64) -> Option<f64> {
        let enough = |seconds: f64| {
            let factor = seconds / self.seconds.max(f64::MIN_POSITIVE);
            let late_s = if self.seconds > 0.0 { self.late_s * factor } else { 0.0 };
            broken(seconds, late_s, self.longest_s, allowed) <= BROKEN
        };
        // Nothing is promised for two minutes that was not kept up for two.
        let (mut short, mut long) = (PROMISE_S, PROMISE_S);
        if enough(long) {
            return Some(long);
        }
        while !enough(long) {
            if long >= LONGEST_S {
                return None;
            }
            (short, long) = (long, (2.0 * long).min(LONGEST_S));
        }
        while long - short > 1.0 {
            let middle = (short + long) / 2.0;
            if enough(middle) { long = middle } else { short = middle }
        }
        Some(long)
    }
}

/// How likely more than `allowed` of a later run of [`PROMISE_S`] is late, after `seconds` of which `late_s` were, at most
/// `longest_s` at once.
fn broken(seconds: f64, late_s: f64, longest_s: f64, allowed: f64) -> f64 {
    let each_s = longest_s.max(UNSEEN_S);
    let shape = late_s / each_s + 0.5;
    let none = seconds / (seconds + PROMISE_S);
    // The longest there is fits exactly, if it does.
    let most = (allowed * PROMISE_S / each_s + 1e-9).floor() as u32;
    let mut term = none.powf(shape);
    let mut kept = term;
    for n in 0..most {
        let n = f64::from(n);
        term *= (n + shape) / (n + 1.0) * (1.0 - none);
        kept += term;
    }
    1.0 - kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(seconds: f64) -> Kept {
        Kept { seconds, ..Kept::default() }
    }

    fn promises(kept: Kept, allowed: f64) -> bool {
        kept.needed_s(allowed).is_some_and(|needed_s| kept.seconds >= needed_s)
    }

    /// By the closed forms for half a disturbance: sqrt(q) for none, sqrt(q) (1 + (1 - q) / 2) for one.
    #[test]
    fn a_clean_time_promises_what_the_closed_form_says() {
        for seconds in [30.0f64, 120.0, 600.0, 3_600.0] {
            let q = seconds / (seconds + PROMISE_S);
            assert!((broken(seconds, 0.0, 0.0, 0.001) - (1.0 - q.sqrt())).abs() < 1e-12);
            let one = 1.0 - q.sqrt() * (1.0 + (1.0 - q) / 2.0);
            assert!((broken(seconds, 0.0, 0.0, 0.01) - one).abs() < 1e-12);
        }
        // Four minutes for p99, under twenty for p99.9; never less than what is promised.
        let needed = |allowed| clean(0.0).needed_s(allowed).unwrap();
        assert!((230.0..=235.0).contains(&needed(0.01)), "{}", needed(0.01));
        assert!((1_105.0..=1_115.0).contains(&needed(0.001)), "{}", needed(0.001));
        assert_eq!(needed(0.5), PROMISE_S);
        assert!(promises(clean(240.0), 0.01) && !promises(clean(220.0), 0.01));
        assert!(!promises(clean(60.0), 0.5));
    }

    #[test]
    fn what_was_late_takes_longer_and_too_much_never_does() {
        let after = |late_s: f64, longest_s: f64| Kept { seconds: 300.0, late_s, longest_s };
        let needed = |late_s, longest_s| after(late_s, longest_s).needed_s(0.01);
        let (clean, some) = (needed(0.0, 0.0).unwrap(), needed(0.3, 0.1).unwrap());
        assert!(some > clean && some < 600.0, "{clean} {some}");
        assert!(promises(after(0.0, 0.0), 0.01));
        // Half of what is allowed in the mean: one run in ten breaks it.
        assert_eq!(needed(1.5, 0.3), None);
        // One disturbance that alone takes more than is allowed in two minutes.
        assert_eq!(needed(2.0, 2.0), None);
        assert!(!promises(after(2.0, 2.0), 0.01));
    }

    /// Runs of a process that is as assumed: of the promises made, one in twenty may be broken.
    #[test]
    fn promises_are_kept_whatever_the_rate_of_disturbances() {
        let mut random = fastrand::Rng::with_seed(5);
        // Whether disturbances of a second every `every_s` leave at most `most` of them in `seconds`.
        let mut come = |every_s: f64, seconds: f64| {
            let (mut at, mut count) = (0.0, 0u32);
            loop {
                at += -every_s * (1.0 - random.f64()).ln();
                if at > seconds {
                    return count;
                }
                count += 1;
            }
        };
        let (mut promised, mut broken) = (0u32, 0u32);
        for round in 0..20_000 {
            // From one in half a minute to one in eight hours: a decade is as likely as another.
            let every_s = 30.0 * 1_000f64.powf(f64::from(round) / 20_000.0);
            let late = come(every_s, 300.0);
            let kept =
                Kept { seconds: 300.0, late_s: f64::from(late), longest_s: f64::from(late.min(1)) };
            if promises(kept, 0.01) {
                promised += 1;
                broken += u32::from(come(every_s, PROMISE_S) > 1);
            }
        }
        assert!(promised > 5_000, "{promised}");
        assert!(f64::from(broken) <= 0.05 * f64::from(promised), "{broken} of {promised}");
    }
}
