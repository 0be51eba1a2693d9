//! Chooses the trials of a search, and says what follows from them. Pure: it is told what a trial came to, and answers
//! with the next one or the end; the same history and seed give the same answers, which is how an
//! interrupted search goes on.
//!
//! A search goes up in doublings until what waits grows, which tells what the target can do at all; looks over the range
//! below that in shuffled order; then tries rates around the estimate of [`super::fit`], spread evenly over an interval
//! that shrinks with what is known. All goals are judged by all trials. When
//! the estimate is as good as was asked, or the time left is what the rest needs, it overloads the target
//! on purpose and comes down again in three steps, each begun once nothing waits any more: one that recovers behaves
//! as before. The rest of the time is one long trial at the rate to be published.

mod belief;

use self::belief::Belief;
use super::file::{Backlog, Block, Ended, SearchResult, SearchSettings, Soak, Stage};
use super::verdict;
use crate::stats::Slope;

/// A trial to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What for.
    pub stage: Stage,
    /// Records per second.
    pub rate: f64,
    /// Length of the measured window.
    pub seconds: f64,
    /// Before it, not measured.
    pub settle_s: f64,
    /// The settling may end sooner, once rate and latency are steady.
    pub until_steady: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// A trial.
    Trial(Step),
    /// Nothing.
    Done(Ended),
}

/// What a trial came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Why it does not count.
    pub void: Option<String>,
    /// Length of the measured window.
    pub measured_s: f64,
    /// With everything around it.
    pub spent_s: f64,
    /// Its stretches.
    pub blocks: Vec<Block>,
    /// What waited.
    pub backlog: Option<Backlog>,
    /// 99th percentile of the response.
    pub p99_us: f64,
}

/// A trial that counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub step: Step,
    pub outcome: Outcome,
    /// From 1, void ones counted.
    pub number: u32,
}

impl Made {
    /// Share of records beyond a goal's bound; `None` without records.
    pub fn share(&self, goal: usize) -> Option<f64> {
        share(&self.outcome.blocks, goal)
    }

    /// Records that were due per second: with random arrivals a little more or less than asked.
    fn offered(&self) -> f64 {
        let records: u64 = self.outcome.blocks.iter().map(|block| block.records).sum();
        let seconds: f64 = self.outcome.blocks.iter().map(|block| block.seconds).sum();
        if seconds > 0.0 { records as f64 / seconds } else { self.step.rate }
    }

    /// Whether what waited grew by more than `stable`, beyond doubt.
    pub fn unstable(&self, stable: f64) -> bool {
        self.outcome.backlog.is_some_and(|b| b.significant && b.growth > stable)
    }
}

fn share(blocks: &[Block], goal: usize) -> Option<f64> {
    let records: u64 = blocks.iter().map(|block| block.records).sum();
    let over: u64 = blocks.iter().filter_map(|block| block.over.get(goal)).sum();
    (records > 0).then(|| over as f64 / records as f64)
}

/// How what waits changed: its growth over the last two thirds of `waits`, or the last four if these are more, each a time in
/// seconds and a number of records, at `rate` records per second offered. `None` with fewer than three of them.
pub fn growth(waits: &[(f64, f64)], rate: f64) -> Option<Backlog> {
    // Three points have one degree of freedom: whatever scatters at all could be no growth.
    let from = (waits.len() / 3).min(waits.len().saturating_sub(4));
    let late = waits.get(from..).filter(|late| late.len() >= 3)?;
    let slope = Slope::of(late)?;
    let at_end = late.last().map_or(0.0, |(_, waits)| *waits);
    Some(Backlog { growth: slope.slope / rate, significant: slope.significant(), at_end })
}

/// Where the search is.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Next at this rate.
    Ramp(f64),
    /// These are left, the last one next.
    Coarse(Vec<f64>),
    Refine,
    Overload(f64),
    /// These are left, the last one next.
    Descent(Vec<f64>),
    Soak {
        rate: f64,
        seconds: f64,
    },
    Done,
}

/// Each rate of the ramp is the one before times this.
const RAMP: f64 = 2.0;
/// Rates of the coarse look, as shares of what the target can do at all.
const COARSE: [f64; 5] = [0.3, 0.45, 0.6, 0.75, 0.9];
/// A trial of which this share is beyond a bound needs no growing backlog to be too much.
const HOPELESS: f64 = 0.5;
/// Refining goes on this far around the estimate: at least and at most, as a share of it.
const AROUND: (f64, f64) = (0.02, 0.25);
/// Refining takes so many trials at least: a narrow interval may be luck while there are few.
const REFINE_LEAST: usize = 6;
/// Overload is this much more than the estimate, and the steps down are these shares of it.
const OVERLOAD: f64 = 1.3;
const DOWN: [f64; 3] = [0.5, 0.7, 0.9];
/// Share of the budget that the soak gets at least.
const SOAK_SHARE: f64 = 0.3;
/// A soak should be so long; or 20 times the time between slow stretches.
pub const SOAK_S: f64 = 600.0;
/// Less is no soak.
const SOAK_LEAST_S: f64 = 20.0;
/// Share of the budget for the first warm-up, and the most it gets.
const WARM_UP: (f64, f64) = (0.04, 30.0);
/// Of a trial's window, what goes before it.
const SETTLE: f64 = 0.2;
/// Void trials in a row: at one rate, and before the search gives up.
const VOID_AT_RATE: u32 = 3;
const VOID_IN_ROW: u32 = 8;
/// A rate that cannot be offered so close above one that can bounds the search at the latter.
const CLOSE: f64 = 1.1;
/// So often what could not be offered is tried once more, when everything below is done.
const AGAIN: u32 = 3;
/// Below the first rate divided by this nothing is tried.
const LOWEST: f64 = 1024.0;

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    settings: SearchSettings,
    phase: Phase,
    made: Vec<Made>,
    trials: u32,
    void_at_rate: u32,
    void_in_row: u32,
    spent_s: f64,
    /// Time trials take beyond settling and measuring: total and number.
    around: (f64, u32),
    /// No trial goes beyond.
    highest: f64,
    /// The rate that could not be offered, and why, if there was one.
    limited: Option<(f64, String)>,
    /// How often the way up was tried again nevertheless.
    again: u32,
    ended: Option<Ended>,
    soak: Option<Soak>,
    random: fastrand::Rng,
    turn: f64,
}

impl Search {
    /// Nothing tried yet.
    pub fn new(settings: SearchSettings) -> Search {
        let mut random = fastrand::Rng::with_seed(settings.seed);
        Search {
            phase: Phase::Ramp(settings.start_rate.min(settings.max_rate)),
            highest: settings.max_rate,
            limited: None,
            again: 0,
            turn: random.f64(),
            random,
            settings,
            made: Vec::new(),
            trials: 0,
            void_at_rate: 0,
            void_in_row: 0,
            spent_s: 0.0,
            around: (0.0, 0),
            ended: None,
            soak: None,
        }
    }

    /// What was asked.
    pub fn settings(&self) -> &SearchSettings {
        &self.settings
    }

    /// Time spent so far.
    pub fn spent_s(&self) -> f64 {
        self.spent_s
    }

    /// What to do now; the same until an outcome is recorded.
    pub fn next(&self) -> Next {
        let trial_s = self.settings.trial_s;
        let of = |stage, rate, seconds| Step {
            stage,
            rate,
            seconds,
            settle_s: (seconds.min(trial_s) * SETTLE).max(1.0),
            until_steady: false,
        };
        Next::Trial(match &self.phase {
            Phase::Ramp(rate) => {
                let step = of(Stage::Ramp, *rate, (trial_s / 2.0).max(4.0));
                if self.made.is_empty() {
                    let (share, most) = WARM_UP;
                    let settle_s = (self.settings.budget_s * share).min(most);
                    Step { settle_s, until_steady: true, ..step }
                } else {
                    step
                }
            }
            Phase::Coarse(left) => match left.last() {
                Some(rate) => of(Stage::Coarse, *rate, trial_s),
                None => return Next::Done(Ended::Budget),
            },
            Phase::Refine => of(Stage::Refine, self.refined(), trial_s),
            Phase::Overload(rate) => of(Stage::Overload, *rate, (trial_s / 2.0).max(4.0)),
            Phase::Descent(left) => match left.last() {
                Some(rate) => of(Stage::Descent, *rate, (trial_s / 2.0).max(4.0)),
                None => return Next::Done(Ended::Budget),
            },
            Phase::Soak { rate, seconds } => of(Stage::Soak, *rate, *seconds),
            Phase::Done => return Next::Done(self.ended.unwrap_or(Ended::Budget)),
        })
    }

    /// Takes in what the trial that [`Search::next`] asked for came to.
    pub fn record(&mut self, outcome: Outcome) {
        let Next::Trial(step) = self.next() else { return };
        self.trials += 1;
        self.spent_s += outcome.spent_s;
        if outcome.void.is_some() {
            return self.again(&step, &outcome);
        }
        (self.void_at_rate, self.void_in_row) = (0, 0);
        let around = outcome.spent_s - outcome.measured_s - step.settle_s;
        self.around = (self.around.0 + around.max(0.0), self.around.1 + 1);
        self.made.push(Made { step, outcome, number: self.trials });
        self.advance(&step);
    }

    /// A trial did not count: the same again, or something else if it never does.
    fn again(&mut self, step: &Step, outcome: &Outcome) {
        self.void_at_rate += 1;
        self.void_in_row += 1;
        if self.void_in_row >= VOID_IN_ROW || self.left_s() < outcome.spent_s {
            return self.give_up();
        }
        if self.void_at_rate < VOID_AT_RATE {
            return;
        }
        self.void_at_rate = 0;
        let best = self.made.iter().map(|made| made.step.rate).fold(0.0, f64::max);
        if step.rate > best {
            // What cannot be offered cannot be tried: nothing beyond it either.
            self.limited = outcome.void.clone().map(|why| (step.rate, why));
            self.highest = match best {
                0.0 => step.rate / RAMP.sqrt(),
                best if step.rate < best * CLOSE => best,
                best => (step.rate * best).sqrt(),
            };
        }
        match &mut self.phase {
            Phase::Ramp(rate) if best == 0.0 => *rate = self.highest,
            Phase::Ramp(_) => self.phase = self.coarse(self.highest),
            Phase::Coarse(left) | Phase::Descent(left) => {
                left.pop();
                self.advance(step);
            }
            Phase::Refine => self.turn = self.random.f64(),
            Phase::Overload(_) => self.phase = self.soaking(),
            Phase::Soak { .. } | Phase::Done => self.end(Ended::Void),
        }
    }

    /// Nothing counts any more. What is known by now is soaked, if anything is and nothing was.
    fn give_up(&mut self) {
        let before = matches!(self.phase, Phase::Ramp(_) | Phase::Coarse(_) | Phase::Refine);
        if !before || self.made.is_empty() {
            return self.end(Ended::Void);
        }
        self.void_in_row = 0;
        self.ended = Some(match self.belief() {
            Belief::Above => Ended::NotReached,
            Belief::At(_) | Belief::Below => Ended::Void,
        });
        self.phase = self.soaking();
    }

    fn end(&mut self, why: Ended) {
        self.phase = Phase::Done;
        self.ended.get_or_insert(why);
    }

    fn left_s(&self) -> f64 {
        self.settings.budget_s - self.spent_s
    }

    /// What a trial with a window of `seconds` takes.
    fn cost_s(&self, seconds: f64) -> f64 {
        let (total, number) = self.around;
        let around = if number == 0 { 1.0 } else { total / f64::from(number) };
        seconds + (seconds.min(self.settings.trial_s) * SETTLE).max(1.0) + around
    }

    /// What overload, descent and soak need.
    fn reserve_s(&self) -> f64 {
        let short = (self.settings.trial_s / 2.0).max(4.0);
        let budget_s = self.settings.budget_s;
        let soak = (budget_s * SOAK_SHARE).min(SOAK_S);
        // Without a curve only the soak promises anything.
        let proof = self.proof_s();
        let proves = proof <= budget_s * verdict::PROOF_SHARE && self.belief() == Belief::Above;
        let soak = if proves { soak.max(proof) } else { soak };
        soak + (DOWN.len() + 1) as f64 * self.cost_s(short)
    }

    /// Where to go after a trial that counts.
    fn advance(&mut self, step: &Step) {
        match &mut self.phase {
            Phase::Ramp(rate) => {
                let rate = *rate;
                if self.gave_out() || rate >= self.highest || self.left_s() < self.reserve_s() {
                    self.phase = self.coarse(rate);
                } else {
                    self.phase = Phase::Ramp((rate * RAMP).min(self.highest));
                }
            }
            Phase::Coarse(left) => {
                left.retain(|rate| *rate != step.rate);
                let empty = left.is_empty();
                if empty || self.left_s() < self.reserve_s() + self.cost_s(self.settings.trial_s) {
                    self.phase = Phase::Refine;
                    self.refine_or_go_on();
                }
            }
            Phase::Refine => self.refine_or_go_on(),
            Phase::Overload(_) => {
                let estimate = step.rate / OVERLOAD;
                self.phase = Phase::Descent(DOWN.map(|share| share * estimate).to_vec());
            }
            Phase::Descent(left) => {
                left.retain(|rate| *rate != step.rate);
                if left.is_empty() {
                    self.phase = self.soaking();
                }
            }
            Phase::Soak { rate, .. } => {
                let rate = *rate;
                self.soaked(rate);
            }
            Phase::Done => {}
        }
    }

    /// Whether the last trial was too much beyond doubt.
    fn gave_out(&self) -> bool {
        let Some(last) = self.made.last() else { return false };
        let mut goals = 0..self.settings.goals.len();
        let hopeless = |goal| last.share(goal).is_some_and(|share| share > HOPELESS);
        last.unstable(self.settings.stable) || goals.any(hopeless)
    }

    /// Rates over the range below `top`, which the target cannot do, or is the highest there is.
    fn coarse(&mut self, top: f64) -> Phase {
        let top = self.capacity().map_or(top, |known| known.rate);
        let mut rates = COARSE.map(|share| share * top).to_vec();
        self.random.shuffle(&mut rates);
        Phase::Coarse(rates)
    }

    /// Goes on refining unless it is enough, there is no time, or there is nothing to refine.
    fn refine_or_go_on(&mut self) {
        let time = self.left_s() > self.reserve_s() + self.cost_s(self.settings.trial_s);
        let highest = self.made.iter().map(|made| made.step.rate).fold(0.0, f64::max);
        let lowest = self.made.iter().map(|made| made.step.rate).fold(f64::INFINITY, f64::min);
        let enough = match self.belief() {
            Belief::At(found) => {
                let refined = self.made.iter().filter(|made| made.step.stage == Stage::Refine);
                let enough = refined.count() >= REFINE_LEAST;
                let precise = enough && found.precise(self.settings.precision);
                precise.then_some(Ended::Precision)
            }
            Belief::Above if highest >= self.highest * 0.999 => {
                // What disturbed the machine may be over: with time left, the way up is tried again.
                let again = time && self.highest < self.settings.max_rate;
                if again && self.again < AGAIN {
                    self.again += 1;
                    self.highest = self.settings.max_rate;
                    None
                } else {
                    Some(Ended::NotReached)
                }
            }
            Belief::Above => None,
            Belief::Below => {
                (lowest <= self.settings.start_rate / LOWEST).then_some(Ended::Unreachable)
            }
        };
        // What the generator cannot offer ended the way up; the time was only what was left to look closer.
        let spent = match self.belief() {
            Belief::Above if self.limited.is_some() => Ended::NotReached,
            _ => Ended::Budget,
        };
        let Some(why) = enough.or((!time).then_some(spent)) else {
            self.turn = (self.turn + GOLDEN).fract();
            return;
        };
        self.ended = Some(why);
        self.phase = match self.belief() {
            Belief::At(found) => Phase::Overload(found.rate * OVERLOAD),
            Belief::Above => self.soaking(),
            Belief::Below => Phase::Done,
        };
    }

    /// The next rate to try around the estimate; above or below all that was tried if there is none.
    fn refined(&self) -> f64 {
        let rates = self.made.iter().map(|made| made.step.rate);
        let rate = match self.belief() {
            Belief::At(found) => {
                let around = (1.5 * found.reach()).clamp(AROUND.0, AROUND.1);
                let rate = found.rate * (1.0 + around * (2.0 * self.turn - 1.0));
                // Beyond what it can do at all, nothing is learnt about a goal.
                rate.min(found.most)
            }
            Belief::Above => rates.fold(0.0, f64::max) * RAMP.sqrt(),
            Belief::Below => rates.fold(f64::INFINITY, f64::min) / RAMP,
        };
        rate.min(self.highest)
    }

    /// The soak that there is time for, if there is a rate to soak at.
    fn soaking(&mut self) -> Phase {
        let Some(rate) = verdict::candidate(self) else { return Phase::Done };
        let seconds = self.soak_s();
        if seconds > 0.0 { Phase::Soak { rate, seconds } } else { Phase::Done }
    }

    /// How long a soak would be now; 0 if there is no time for one.
    fn soak_s(&self) -> f64 {
        let seconds = (self.left_s() - self.cost_s(0.0)).min(self.soak_wanted_s());
        if seconds < SOAK_LEAST_S { 0.0 } else { seconds }
    }

    fn soaked(&mut self, rate: f64) {
        let Some(last) = self.made.last() else { return };
        let mut goals = self.settings.goals.iter().enumerate();
        let kept = |(at, goal): (usize, &super::file::Goal)| {
            last.share(at).is_some_and(|share| share <= goal.allowed)
        };
        let held = goals.all(kept) && !last.unstable(self.settings.stable);
        let seconds = last.outcome.measured_s;
        self.soak = Some(Soak { rate, seconds, wanted_s: self.soak_wanted_s(), held });
        // Held, and yet too much was late for a promise: a lower rate may do.
        let lower = || verdict::candidate(self).is_some_and(|candidate| candidate < rate);
        let again = !held || self.belief() == Belief::Above && lower();
        self.phase = if again { self.soaking() } else { Phase::Done };
        if self.phase == Phase::Done {
            self.ended.get_or_insert(Ended::Budget);
        }
    }

    /// What follows from the trials so far.
    pub fn result(&self) -> SearchResult {
        verdict::result(self)
    }

    pub(super) fn made(&self) -> &[Made] {
        &self.made
    }

    /// The rate that could not be offered, and why.
    pub(crate) fn limited(&self) -> Option<&(f64, String)> {
        self.limited.as_ref()
    }

    pub(super) fn soak(&self) -> Option<Soak> {
        self.soak
    }

    /// Whether nothing follows.
    pub(super) fn over(&self) -> bool {
        self.phase == Phase::Done
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended
    }
}

/// The golden ratio's fraction: its multiples are spread evenly however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;
