//! Targets whose sustainable rate is known, to try searches on: in seconds, what would take days on a machine.
//!
//! What a trial leaves is simulated, not each of its records. Time above a bound is computed exactly, and what makes a
//! real target hard to measure is there: slow records come in clusters, neighbouring seconds are alike, a
//! target that was overloaded has a backlog to get rid of first.
//!
//! For tests only: those of this module, and `loadgen/examples/search.rs`, which includes this file.

use super::Block;
use super::controller::{Outcome, Step, growth};

/// What limits the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Every record takes longer the nearer the rate is to the capacity; the level wanders from second to second.
    Knee,
    /// All is fast but for a stall every few seconds, at random: a flush, a pause.
    Stalls,
    /// A device that takes so many bytes per second and no more, give or take a little.
    Ceiling,
}

/// A target.
#[derive(Clone, Debug)]
pub struct Target {
    kind: Kind,
    /// Records per second it could do if nothing got in the way.
    capacity: f64,
    /// The bound of the goal, in seconds.
    bound_s: f64,
    random: fastrand::Rng,
    /// How long a record that came now would wait.
    wait_s: f64,
    /// Level of service times, or of the device: deviation from the mean.
    level: f64,
    /// Until the next stall.
    stall_in_s: f64,
    spent_s: f64,
}

/// Mean time from one stall to the next.
const STALLS_S: f64 = 5.0;
/// A stall takes this, and an exponential time on top.
const STALL_LEAST_S: f64 = 0.005;
const STALL_MORE_S: f64 = 0.030;
/// Median service time of the knee when idle, spread of service times, and of their level.
const KNEE_MEDIAN_S: f64 = 0.001;
const KNEE_SIGMA: f64 = 0.5;
const KNEE_LEVEL: f64 = 0.15;
/// How much of its level a second passes on to the next.
const KNEE_MEMORY: f64 = 0.8;
/// The device's level: spread, and memory from one step of [`STEP_S`] to the next.
const DEVICE_LEVEL: f64 = 0.004;
const DEVICE_MEMORY: f64 = 0.9;
const STEP_S: f64 = 0.1;
/// Setting up a trial and asking the readers whether they are done.
const SET_UP_S: f64 = 0.4;
/// Share of records that are slow whatever the rate.
const ALWAYS: f64 = 1e-5;

/// What a stretch of time came to.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    seconds: f64,
    /// Of the time, weighted by the rate it is the records.
    over_s: f64,
}

impl Target {
    /// One that has not been loaded yet. Goals bound the latency at `bound_s`.
    pub fn new(kind: Kind, capacity: f64, bound_s: f64, seed: u64) -> Target {
        let mut random = fastrand::Rng::with_seed(seed);
        let stall_in_s = exponential(&mut random) * STALLS_S;
        Target {
            kind,
            capacity,
            bound_s,
            random,
            wait_s: 0.0,
            level: 0.0,
            stall_in_s,
            spent_s: 0.0,
        }
    }

    /// Share of records over the bound in a run of `seconds` at `rate`, after a settling time.
    pub fn confirm(&mut self, rate: f64, seconds: f64) -> f64 {
        self.pass(rate, 2.0);
        let found = self.pass(rate, seconds);
        found.over_s / found.seconds
    }

    /// Carries out a trial.
    pub fn trial(&mut self, step: &Step) -> Outcome {
        let before = self.spent_s;
        self.spent_s += SET_UP_S;
        self.pass(step.rate, step.settle_s);
        let mut blocks = Vec::new();
        let mut waits = Vec::new();
        let seconds = step.seconds.round().max(1.0) as usize;
        let mut block = Stretch::default();
        for second in 0..seconds {
            let more = self.pass(step.rate, 1.0);
            block.seconds += more.seconds;
            block.over_s += more.over_s;
            // What waits takes so long because the capacity is what it is.
            waits.push((second as f64 + 1.0, self.wait_s * self.capacity));
            if block.seconds >= 9.5 && seconds - second > 5 || second + 1 == seconds {
                blocks.push(self.counted(step.rate, std::mem::take(&mut block)));
            }
        }
        let backlog = growth(&waits, step.rate);
        // What waits is worked off before the next trial.
        self.pass(0.0, self.wait_s + 0.1);
        Outcome {
            void: None,
            measured_s: seconds as f64,
            spent_s: self.spent_s - before,
            p99_us: 0.0,
            blocks,
            backlog,
        }
    }

    /// Records of a stretch, with the noise of counting them.
    fn counted(&mut self, rate: f64, stretch: Stretch) -> Block {
        let records = rate * stretch.seconds;
        let expected = rate * stretch.over_s;
        let over = (expected + expected.sqrt() * self.normal()).round().clamp(0.0, records);
        Block { seconds: stretch.seconds, records: records as u64, over: vec![over as u64] }
    }

    fn normal(&mut self) -> f64 {
        normal(&mut self.random)
    }

    /// Lets `seconds` go by at `rate`.
    fn pass(&mut self, rate: f64, seconds: f64) -> Stretch {
        self.spent_s += seconds;
        let load = rate / self.capacity;
        match self.kind {
            Kind::Stalls => self.stalls(load, seconds),
            Kind::Knee => self.steps(seconds, 1.0, |target, step_s| target.knee(load, step_s)),
            Kind::Ceiling => {
                self.steps(seconds, STEP_S, |target, step_s| target.device(load, step_s))
            }
        }
    }

    fn steps(
        &mut self,
        seconds: f64,
        step_s: f64,
        mut each: impl FnMut(&mut Target, f64) -> f64,
    ) -> Stretch {
        let (mut left, mut over_s) = (seconds, 0.0);
        while left > 1e-9 {
            let step_s = step_s.min(left);
            over_s += each(self, step_s).max(ALWAYS) * step_s;
            left -= step_s;
        }
        Stretch { seconds, over_s }
    }

    /// Share over the bound in a step.
    fn knee(&mut self, load: f64, step_s: f64) -> f64 {
        let memory = KNEE_MEMORY.powf(step_s);
        self.level = memory * self.level
            + KNEE_LEVEL * (1.0 - memory * memory).sqrt() * normal(&mut self.random);
        let waited = self.wait(load - 1.0, step_s);
        let median = KNEE_MEDIAN_S / (1.0 - load).max(0.01);
        let z = ((self.bound_s / median).ln() - self.level) / KNEE_SIGMA;
        waited.max(beyond(z))
    }

    fn device(&mut self, load: f64, step_s: f64) -> f64 {
        let memory = DEVICE_MEMORY.powf(step_s / STEP_S);
        self.level = memory * self.level
            + DEVICE_LEVEL * (1.0 - memory * memory).sqrt() * normal(&mut self.random);
        self.wait(load / (1.0 + self.level) - 1.0, step_s)
    }

    /// Lets the waiting time grow by `growth` seconds a second; the share of the time it was beyond the bound.
    fn wait(&mut self, growth: f64, step_s: f64) -> f64 {
        let (from, to) = (self.wait_s, self.wait_s + growth * step_s);
        self.wait_s = to.max(0.0);
        let (low, high) = (from.min(to), from.max(to));
        if high <= low {
            f64::from(u8::from(low > self.bound_s))
        } else {
            ((high - self.bound_s) / (high - low)).clamp(0.0, 1.0)
        }
    }

    /// Between stalls what waits becomes less at a steady pace, so the time above the bound is exact.
    fn stalls(&mut self, load: f64, seconds: f64) -> Stretch {
        let (mut left, mut over_s) = (seconds, 0.0);
        while left > 1e-9 {
            let piece = left.min(self.stall_in_s);
            if piece > 0.0 {
                over_s += self.wait(load - 1.0, piece) * piece;
            }
            left -= piece;
            self.stall_in_s -= piece;
            if self.stall_in_s <= 1e-12 {
                self.wait_s += STALL_LEAST_S + STALL_MORE_S * exponential(&mut self.random);
                self.stall_in_s = STALLS_S * exponential(&mut self.random);
            }
        }
        Stretch { seconds, over_s: over_s.max(ALWAYS * seconds) }
    }
}

/// The rate at which just the share `allowed` is over the bound in the long run: by halving, each rate for
/// `seconds`.
pub fn truth(kind: Kind, capacity: f64, bound_s: f64, allowed: f64, seconds: f64) -> f64 {
    let (mut low, mut high) = (0.05 * capacity, 1.2 * capacity);
    for round in 0..16 {
        let middle = (low + high) / 2.0;
        let mut target = Target::new(kind, capacity, bound_s, 77 + round);
        if target.confirm(middle, seconds) <= allowed { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

fn exponential(random: &mut fastrand::Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// Share of a normal distribution beyond `z`; by Abramowitz and Stegun 7.1.26, to 1.5e-7.
fn beyond(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = 0.5 * poly * (-x * x).exp();
    if z >= 0.0 { tail } else { 1.0 - tail }
}
