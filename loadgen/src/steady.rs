//! When a warm-up may end: rate and latency have stopped going anywhere.
//!
//! A warm-up by the clock is too short for one target and too long for the next. [`Steady`] looks at the
//! last [`Rule::samples`] intervals instead, as fio's `steadystate` does: a straight line through the
//! acknowledged rate, and one through p50 and p99 of the response. A line is settled if
//! what it rises over the window is small, or cannot be told from scatter at 95 %. The run is steady once
//! all of them are.
//!
//! What this cannot see: a swing much longer than the window looks flat at its turning points, and a drift
//! within the scatter of three seconds looks like scatter. It ends a warm-up; it does not prove a run
//! stationary.

use std::collections::VecDeque;

use crate::stats::Slope;

/// When a run counts as steady.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Intervals looked at, at least 3. 12 of 250 ms: 3 s.
    pub samples: usize,
    /// Largest change of the acknowledged rate over the window, as a share of its mean. 2 %.
    pub rate_drift: f64,
    /// ... of p50 and of p99 of the response. 20 %: a p99 of a quarter of a second is rough.
    pub latency_drift: f64,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule { samples: 12, rate_drift: 0.02, latency_drift: 0.20 }
    }
}

/// One interval of a warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its end, in seconds from any fixed point.
    pub t_s: f64,
    /// Acknowledged records per second.
    pub rate: f64,
    /// Median response of what was acknowledged, in microseconds; `None` if nothing was.
    pub p50_us: Option<f64>,
    /// Its 99th percentile.
    pub p99_us: Option<f64>,
}

/// The test, fed interval by interval.
#[derive(Clone, Debug)]
pub struct Steady {
    rule: Rule,
    window: VecDeque<Sample>,
    reached: bool,
}

impl Steady {
    /// Nothing seen yet.
    pub fn new(rule: Rule) -> Steady {
        let rule = Rule { samples: rule.samples.max(3), ..rule };
        Steady { rule, window: VecDeque::with_capacity(rule.samples), reached: false }
    }

    /// Takes the next interval; whether the run is, or was already, steady. Samples that do not lie after
    /// the one before, or are no numbers, are passed over.
    pub fn push(&mut self, sample: Sample) -> bool {
        let after = self.window.back().is_none_or(|last| sample.t_s > last.t_s);
        if self.reached || !after || !sample.t_s.is_finite() || !sample.rate.is_finite() {
            return self.reached;
        }
        if self.window.len() == self.rule.samples {
            self.window.pop_front();
        }
        self.window.push_back(sample);
        self.reached = self.window.len() == self.rule.samples && self.settled();
        self.reached
    }

    fn settled(&self) -> bool {
        let rate: Vec<_> = self.window.iter().map(|sample| (sample.t_s, sample.rate)).collect();
        // A target that acknowledges nothing is not steady, it is not there.
        let answers = Slope::of(&rate).is_some_and(|line| line.mean > 0.0);
        answers
            && flat(&rate, self.rule.rate_drift)
            && flat(&self.latency(|sample| sample.p50_us), self.rule.latency_drift)
            && flat(&self.latency(|sample| sample.p99_us), self.rule.latency_drift)
    }

    fn latency(&self, of: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
        self.window.iter().filter_map(|sample| Some((sample.t_s, of(sample)?))).collect()
    }
}

/// Whether a line through the points rises by less than `drift` of its mean, or by no more than scatter
/// explains. Fewer than three points show no line, and none that contradicts.
fn flat(points: &[(f64, f64)], drift: f64) -> bool {
    Slope::of(points).is_none_or(|line| line.drift() < drift || !line.significant())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many samples of 250 ms the run is steady; `None`: not within 200.
    fn steady_after(mut at: impl FnMut(f64) -> (f64, f64)) -> Option<usize> {
        let mut steady = Steady::new(Rule::default());
        (1..=200).find(|n| {
            let t_s = *n as f64 * 0.25;
            let (rate, us) = at(t_s);
            let p50_us = (us > 0.0).then_some(us / 3.0);
            steady.push(Sample { t_s, rate, p50_us, p99_us: (us > 0.0).then_some(us) })
        })
    }

    #[test]
    fn what_is_level_is_steady_as_soon_as_the_window_is_full() {
        assert_eq!(steady_after(|_| (1000.0, 500.0)), Some(12));
        // 1 % in 3 s, and 10 %: small enough.
        assert_eq!(steady_after(|t| (1000.0 + 3.0 * t, 500.0 + 15.0 * t)), Some(12));
    }

    #[test]
    fn noise_alone_is_steady() {
        let mut soon = 0;
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let after = steady_after(|_| {
                (1000.0 * (0.9 + 0.2 * random.f64()), 500.0 / (0.05 + random.f64()))
            });
            soon += usize::from(after.is_some_and(|after| after <= 16));
        }
        assert!(soon >= 90, "{soon} of 100 within a second of the window");
    }

    #[test]
    fn what_climbs_is_not_steady() {
        assert_eq!(steady_after(|t| (100.0 * t, 500.0)), None, "rate");
        assert_eq!(steady_after(|t| (1000.0, 100.0 * 1.1f64.powf(t))), None, "latency");
        // 5 % per window, beneath 1 % of noise.
        let mut random = fastrand::Rng::with_seed(7);
        let after = steady_after(|t| {
            let noise = 0.995 + 0.01 * random.f64();
            (1000.0 * (1.0 + 0.05 / 3.0 * t) * noise, 500.0)
        });
        assert!(after.is_none_or(|after| after > 40), "{after:?}");
    }

    #[test]
    fn a_climb_that_ends_is_steady_a_window_later() {
        // A cold target: the latency falls for 5 s (20 samples), then rests.
        let after = steady_after(|t| (1000.0, 500.0 + 2000.0 * (5.0 - t).max(0.0)));
        assert!(after.is_some_and(|after| (25..=32).contains(&after)), "{after:?}");
    }

    #[test]
    fn a_step_is_not_steady_until_the_window_is_past_it() {
        // The rate doubles at 2.5 s: the window that begins there ends with sample 22.
        let after = steady_after(|t| if t <= 2.5 { (500.0, 100.0) } else { (1000.0, 100.0) });
        assert!(after.is_some_and(|after| (20..=22).contains(&after)), "{after:?}");
    }

    #[test]
    fn a_sawtooth_shorter_than_the_window_is_its_scatter() {
        let after = steady_after(|t| (1000.0 + 200.0 * (t % 1.0), 500.0 + 400.0 * (t % 1.0)));
        assert!(after.is_some_and(|after| after <= 14), "{after:?}");
        // Longer than the window it is a climb, but for the moment it falls.
        let after = steady_after(|t| (1000.0 + 100.0 * (t % 20.0), 500.0));
        assert!(after.is_none_or(|after| after > 75), "{after:?}");
    }

    #[test]
    fn a_target_that_answers_nothing_is_never_steady() {
        assert_eq!(steady_after(|_| (0.0, 0.0)), None);
        // One that answers every second is, though most intervals have no latency.
        let mut n = 0;
        let after = steady_after(|_| {
            n += 1;
            if n % 4 == 0 { (4.0, 300.0) } else { (0.0, 0.0) }
        });
        assert!(after.is_some(), "{after:?}");
    }

    #[test]
    fn samples_out_of_order_and_no_numbers_are_passed_over() {
        let mut steady = Steady::new(Rule::default());
        let sample = |t_s, rate| Sample { t_s, rate, p50_us: Some(1.0), p99_us: Some(2.0) };
        for n in 0..11 {
            assert!(!steady.push(sample(n as f64, 10.0)));
        }
        assert!(!steady.push(sample(5.0, 10.0)));
        assert!(!steady.push(sample(f64::NAN, 10.0)));
        assert!(!steady.push(sample(11.0, f64::INFINITY)));
        assert!(steady.push(sample(11.0, 10.0)));
        assert!(steady.push(sample(12.0, 99.0)), "once reached it stays");
    }
}
