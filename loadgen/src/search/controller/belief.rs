//! What the trials of a search say: at which rate the first goal gives out, what the target can do at all, how long a soak
//! should be, and whether it is as before after an overload.

use super::{Made, SOAK_S, Search};
use crate::search::file::{Block, Hysteresis, Proof, Stage, Walk};
use crate::search::fit::{Capacity, Crossing, Growth, PROMISE_S, Point, capacity, crossing};
use crate::search::promise::Kept;

/// Where it gives out at a goal's bound, nothing beyond this share of that is tried.
const NEAR: f64 = 0.97;
/// If nothing tried was too much, what the target can do is taken to be this much more than the most tried.
const MORE: f64 = 1.25;
/// A trial of which so many times the allowed share is beyond the bound has missed the goal clearly.
const CLEAR: f64 = 5.0;
/// So many times the records to be expected may be late on the way down, with three standard errors on top.
const WORSE: f64 = 3.0;
/// A soak should have so many of the times between slow stretches.
const SOAK_PERIODS: f64 = 20.0;
/// Trials within this share of a rate are at it.
const SAME_RATE: f64 = 0.01;

/// What the trials say about all goals together.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Belief {
    /// They are met wherever it was tried.
    Above,
    /// One of them is missed wherever it was tried.
    Below,
    At(Found),
}

/// The rate at which the first of them gives out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    pub rate: f64,
    pub interval: (f64, f64),
    /// Beyond this no trial tells more.
    pub most: f64,
}

impl Found {
    pub fn precise(&self, precision: f64) -> bool {
        self.interval.1 - self.interval.0 <= 2.0 * precision * self.rate
    }

    /// Half the interval's width, as a share.
    pub fn reach(&self) -> f64 {
        (self.interval.1 - self.interval.0) / 2.0 / self.rate
    }
}

impl Search {
    /// How long a soak should be.
    pub(super) fn soak_wanted_s(&self) -> f64 {
        let slow = |block: &&Block| {
            let mut goals = self.settings.goals.iter().enumerate();
            goals.any(|(at, goal)| {
                let over = block.over.get(at).copied().unwrap_or(0) as f64;
                over > goal.allowed / 4.0 * block.records as f64
            })
        };
        let (estimate, least) = match self.belief() {
            Belief::At(found) => (found.rate, SOAK_S),
            // All that will be known of the rate is what the soak says.
            Belief::Above => (f64::INFINITY, SOAK_S.max(self.proof_s())),
            Belief::Below => (f64::INFINITY, SOAK_S),
        };
        let blocks = || {
            let below = self.made.iter().filter(|made| made.step.rate <= estimate);
            below.flat_map(|made| &made.outcome.blocks)
        };
        let seconds: f64 = blocks().map(|block| block.seconds).sum();
        let slow = blocks().filter(slow).count();
        if slow == 0 { least } else { least.max(SOAK_PERIODS * seconds / slow as f64) }
    }

    /// How long a rate has to be kept up, with nothing late, for a promise without a curve.
    pub(in crate::search) fn proof_s(&self) -> f64 {
        let goals = self.settings.goals.iter();
        let needed = goals.filter_map(|goal| Kept::default().needed_s(goal.allowed));
        needed.fold(PROMISE_S, f64::max)
    }

    /// What the trials at `rate` prove without a curve.
    pub(in crate::search) fn proof(&self, rate: f64) -> Proof {
        let blocks = || {
            let at = |made: &&Made| (made.step.rate / rate - 1.0).abs() <= SAME_RATE;
            let blocks = self.made.iter().filter(at).flat_map(|made| &made.outcome.blocks);
            blocks.filter(|block| block.records > 0)
        };
        let seconds = blocks().map(|block| block.seconds).sum();
        let mut goals = self.settings.goals.iter().enumerate();
        let needed_s = goals.try_fold(PROMISE_S, |most, (at, goal)| {
            let mut kept = Kept::default();
            for block in blocks() {
                let over = block.over.get(at).copied().unwrap_or(0);
                kept.add(block.seconds, over as f64 / block.records as f64);
            }
            Some(most.max(kept.needed_s(goal.allowed)?))
        });
        Proof { rate, seconds, needed_s }
    }

    /// How long trials at up to `rate` measured, with the soak that there is time for, if it is still to be made.
    pub(in crate::search) fn rests_on_s(&self, rate: f64) -> f64 {
        let below = self.made.iter().filter(|made| made.step.rate <= rate);
        let measured: f64 = below.map(|made| made.outcome.measured_s).sum();
        let open = self.soak.is_none() && !self.over();
        measured + if open { self.soak_s() } else { 0.0 }
    }

    /// What the trials say about all goals together.
    pub(super) fn belief(&self) -> Belief {
        let known = self.capacity();
        let mut belief = known.map_or(Belief::Above, |known| {
            Belief::At(Found { rate: known.rate, interval: known.interval, most: f64::INFINITY })
        });
        for goal in 0..self.settings.goals.len() {
            match self.crossing(goal) {
                Crossing::Nothing | Crossing::Above => {}
                Crossing::Below => return Belief::Below,
                Crossing::At(fit) => {
                    let higher = matches!(&belief, Belief::At(found) if found.rate <= fit.rate);
                    if !higher {
                        let most = known.map_or(f64::INFINITY, |known| known.rate * NEAR);
                        let most = most.max(fit.rate);
                        belief = Belief::At(Found { rate: fit.rate, interval: fit.interval, most });
                    }
                }
            }
        }
        belief
    }

    /// At which rate what waits begins to grow; `None` if it did not anywhere.
    pub(in crate::search) fn capacity(&self) -> Option<Capacity> {
        let trials: Vec<Growth> = self
            .made
            .iter()
            .filter_map(|made| {
                let backlog = made.outcome.backlog?;
                let share = if backlog.significant { backlog.growth.max(0.0) } else { 0.0 };
                Some(Growth { rate: made.offered(), share })
            })
            .collect();
        capacity(&trials, self.settings.stable)
    }

    /// The same, or a guess.
    pub(in crate::search) fn assumed_capacity(&self) -> f64 {
        let highest = self.made.iter().map(|made| made.step.rate).fold(0.0, f64::max);
        self.capacity().map_or(highest * MORE, |known| known.rate)
    }

    /// Where a goal gives out.
    pub(in crate::search) fn crossing(&self, goal: usize) -> Crossing {
        let (points, allowed) = self.points(goal);
        let found = crossing(&points, allowed, self.assumed_capacity());
        let tried = self.made.iter().map(|made| made.step.rate).fold(0.0, f64::max);
        match found {
            // Beyond all that was tried a curve knows nothing, unless it is known where all ends.
            Crossing::At(fit) if fit.rate > tried && self.capacity().is_none() => Crossing::Above,
            found => found,
        }
    }

    /// The points of a goal, and what is allowed.
    pub(in crate::search) fn points(&self, goal: usize) -> (Vec<Point>, f64) {
        let Some(asked) = self.settings.goals.get(goal) else { return (Vec::new(), 0.5) };
        let cap = (CLEAR * asked.allowed).min(0.5);
        let points = self.made.iter().flat_map(|made| {
            let unstable = made.unstable(self.settings.stable);
            let blocks = made.outcome.blocks.iter().filter(|block| block.records > 0);
            blocks.map(move |block| {
                let over = block.over.get(goal).copied().unwrap_or(0);
                let share = over as f64 / block.records as f64;
                // How much of an overload is late depends on how long it is, not on the rate.
                let share = if unstable { share.min(cap) } else { share };
                Point { rate: made.step.rate, seconds: block.seconds, share }
            })
        });
        (points.collect(), asked.allowed)
    }

    /// What came of walking down.
    pub(in crate::search) fn hysteresis(&self) -> Option<Hysteresis> {
        let steps: Vec<Walk> = self
            .made
            .iter()
            .filter(|made| made.step.stage == Stage::Descent)
            .filter_map(|down| {
                let up_us = self.p99_on_the_way_up(down)?;
                Some(Walk {
                    rate: down.step.rate,
                    down_us: down.outcome.p99_us,
                    up_us,
                    trial: down.number,
                })
            })
            .collect();
        (!steps.is_empty()).then(|| Hysteresis::new(self.recovers(), steps))
    }

    /// p99 of the response before the overload at the rate of a trial after it, in microseconds.
    fn p99_on_the_way_up(&self, down: &Made) -> Option<f64> {
        let up = |stage: Stage| matches!(stage, Stage::Ramp | Stage::Coarse | Stage::Refine);
        let before = self.made.iter().filter(|made| made.number < down.number);
        let before = || before.clone().filter(|made| up(made.step.stage));
        let rate = down.step.rate;
        let below = before().filter(|made| made.step.rate <= rate);
        let below = below.max_by(|a, b| a.step.rate.total_cmp(&b.step.rate));
        let above = before().filter(|made| made.step.rate >= rate);
        let above = above.min_by(|a, b| a.step.rate.total_cmp(&b.step.rate));
        let of = |made: &Made| (made.step.rate.ln(), made.outcome.p99_us);
        match (below.map(of), above.map(of)) {
            (Some((from, low)), Some((to, high))) if low > 0.0 && high > 0.0 && to > from => {
                let share = (rate.ln() - from) / (to - from);
                Some(low * (high / low).powf(share))
            }
            (Some((_, p99_us)), _) | (None, Some((_, p99_us))) => Some(p99_us),
            (None, None) => None,
        }
    }

    /// Whether the shares on the way down are what the curve of the trials before says, as far as can be told.
    fn recovers(&self) -> bool {
        (0..self.settings.goals.len()).all(|goal| {
            let before = Search {
                made: self
                    .made
                    .iter()
                    .filter(|made| !matches!(made.step.stage, Stage::Descent | Stage::Soak))
                    .cloned()
                    .collect(),
                ..self.clone()
            };
            let Crossing::At(fit) = before.crossing(goal) else { return true };
            let down = self.made.iter().filter(|made| made.step.stage == Stage::Descent);
            let (mut seen, mut expected, mut variance) = (0.0, 0.0, 0.0);
            for made in down {
                let (rate, seconds) = (made.step.rate, made.outcome.measured_s);
                seen += made.share(goal).unwrap_or(0.0) * seconds;
                expected += fit.share(rate).0 * seconds;
                variance += (fit.scatter(rate, seconds) * seconds).powi(2);
            }
            seen <= WORSE * expected + 3.0 * variance.sqrt()
        })
    }
}
