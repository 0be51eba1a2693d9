//! What follows from the trials of a search: each goal's curve and crossing, and the rate that may be relied on.

use super::controller::Search;
use super::file::{
    Bound, Curve, Ended, GoalResult, Interval, Proof, SearchFile, SearchResult, Stage,
};
use super::fit::{Crossing, Fit, PROMISE_S};
use super::text::{about, longer};
use crate::report::figures::seconds;

/// Points of a curve as it is kept.
const POINTS: usize = 32;

/// Of a budget, the share that the soak of a search without a curve gets if that is enough for a promise.
pub(super) const PROOF_SHARE: f64 = 0.5;
/// A budget that is asked for is a multiple of this, in seconds, and so much above what it would just do with.
const BUDGET_STEP_S: f64 = 30.0;
const BUDGET_SLACK: f64 = 1.05;
/// A longer search than one that left much open is twice as long and takes so long at least, in seconds: the default.
const LONG_S: f64 = 900.0;

/// All of it.
pub(super) fn result(search: &Search) -> SearchResult {
    let Judged { mut goals, estimate, binding, candidate } = judged(search);
    let proof = candidate.filter(|_| estimate.is_none()).map(|rate| search.proof(rate));
    let published = match &proof {
        Some(proof) => proof.holds().then_some(proof.rate),
        None => candidate,
    };
    if proof.is_some() {
        // It was kept up at that rate with all goals met, or else there would be a curve.
        goals.iter_mut().for_each(|goal| goal.safe_rate = published);
    }
    let short = proof.filter(|_| published.is_none() && search.over());
    SearchResult {
        ended: search.ended().unwrap_or(Ended::Budget),
        estimate,
        binding,
        published_rate: published,
        proof,
        needs_s: short.map(|proof| needs_s(search, &proof)),
        delivered_share: None,
        soak: search.soak(),
        hysteresis: search.hysteresis(),
        notes: Vec::new(),
        goals,
    }
}

/// The rate that is published if it is kept up for long enough: what a soak is for.
pub(super) fn candidate(search: &Search) -> Option<f64> {
    judged(search).candidate
}

/// What the trials say, before anything is published.
struct Judged {
    goals: Vec<GoalResult>,
    estimate: Option<Interval>,
    binding: Option<String>,
    candidate: Option<f64>,
}

fn judged(search: &Search) -> Judged {
    let goals = search.settings().goals.len();
    let goals: Vec<(GoalResult, f64)> = (0..=goals).map(|goal| of_goal(search, goal)).collect();
    let safe = goals.iter().map(|(_, most)| *most).fold(f64::INFINITY, f64::min);
    let goals: Vec<GoalResult> = goals.into_iter().map(|(goal, _)| goal).collect();
    let lowest = goals
        .iter()
        .filter_map(|goal| goal.estimate.map(|estimate| (estimate, goal)))
        .min_by(|a, b| a.0.value.total_cmp(&b.0.value));
    let unreachable = goals.iter().any(|goal| goal.bound == Bound::Unreachable);
    let estimate = lowest.map(|(estimate, _)| estimate).filter(|_| !unreachable);
    let proven = match estimate {
        Some(estimate) => by_curve(search, &estimate, safe),
        None => without_curve(search, safe),
    };
    Judged {
        estimate,
        binding: lowest.map(|(_, goal)| goal.of.clone()).filter(|_| !unreachable),
        candidate: (!unreachable && proven > 0.0 && proven.is_finite()).then_some(proven),
        goals,
    }
}

/// What may be relied on below an `estimate`; the curves promise `safe`.
fn by_curve(search: &Search, estimate: &Interval, safe: f64) -> f64 {
    let rests_on_s = search.rests_on_s(estimate.value);
    // Where the curve promises nothing at all, a part of what it says has to do.
    let least = estimate.value * LEAST;
    let floor = match rests_on_s >= SETTLED * PROMISE_S {
        true => least.max(estimate.low * PRUDENT),
        false => least,
    };
    // And where it rests on less time than it promises, it does not know what is rare, nor how well it knows the rest.
    let proven = match rests_on_s >= PROMISE_S {
        true => safe.max(floor),
        false if safe > 0.0 => safe.min(floor),
        false => floor,
    };
    match search.soak() {
        Some(soak) if soak.held => proven.min(soak.rate),
        Some(soak) => proven.min(soak.rate * PRUDENT),
        None => proven,
    }
}

/// What a soak may prove where every trial met every goal, up to `highest`.
fn without_curve(search: &Search, highest: f64) -> f64 {
    match search.soak() {
        Some(soak) if soak.held && search.proof(soak.rate).needed_s.is_some() => soak.rate,
        // It held, and too much was late for a promise; or it did not.
        Some(soak) => soak.rate * PRUDENT,
        None => highest,
    }
}

/// How much longer the budget has to be for a promise, about, in seconds.
fn needs_s(search: &Search, proof: &Proof) -> f64 {
    let needed_s = proof.needed_s.unwrap_or_else(|| search.proof_s());
    let budget_s = search.settings().budget_s;
    let all_s = match search.ended() {
        // Nothing is left to be tried: all else took the time it takes.
        Some(Ended::NotReached) => {
            let soak_s = search.soak().map_or(0.0, |soak| soak.seconds);
            BUDGET_SLACK * (search.spent_s() - soak_s + needed_s)
        }
        _ => needed_s / PROOF_SHARE,
    };
    let steps = (all_s.max(budget_s) / BUDGET_STEP_S).ceil() * BUDGET_STEP_S;
    (steps - budget_s).max(BUDGET_STEP_S)
}

/// With what only the trials' records tell, and what a reader has to know.
pub(super) fn finished(result: SearchResult, search: &Search, file: &SearchFile) -> SearchResult {
    let mut result = result;
    for (at, goal) in result.goals.iter_mut().enumerate() {
        let trial = goal.best.and_then(|(_, number)| file.trials.get(number as usize - 1));
        goal.best_us = trial.and_then(|trial| trial.measured_us.get(at).copied().flatten());
    }
    result.delivered_share = result.published_rate.and_then(|published| {
        let counted = file.trials.iter().filter(|trial| trial.void_reason.is_none());
        let off = |rate: f64| (rate / published).ln().abs();
        let nearest = counted.min_by(|a, b| off(a.rate).total_cmp(&off(b.rate)))?;
        (nearest.offered_rate > 0.0).then(|| nearest.delivered_rate / nearest.offered_rate)
    });
    result.notes = notes(&result, search, file);
    result
}

fn notes(result: &SearchResult, search: &Search, file: &SearchFile) -> Vec<String> {
    let mut notes = Vec::new();
    let void = file.trials.iter().filter(|trial| trial.void_reason.is_some()).count();
    if let Some((rate, why)) = search.limited() {
        notes.push(format!(
            "{}/s could not be offered ({why}): this machine is what bounds what was tried, not the target. See load check.",
            about(*rate)
        ));
    }
    if let (Some(proof), Some(needs_s)) = (&result.proof, result.needs_s) {
        let why = match proof.needed_s {
            Some(needed_s) => format!(
                "a run of {} is promised after {} at its rate, and {}/s was kept up for {}",
                seconds(PROMISE_S),
                seconds(needed_s),
                about(proof.rate),
                seconds(proof.seconds)
            ),
            None => "at the highest rate tried too much is late, though within the goal".to_owned(),
        };
        let needs = seconds(needs_s);
        notes.push(format!(
            "Budget too short: needs about {needs} more, for {why}. Run: {}",
            longer(&file.command, file.settings.budget_s + needs_s)
        ));
    }
    if void * 4 > file.trials.len() {
        notes.push(format!(
            "{void} of {} trials were void and cost their time: what is left is less exact than the budget would allow.",
            file.trials.len()
        ));
    }
    match &result.soak {
        Some(soak) if !soak.held => notes.push(format!(
            "The soak at {}/s missed a goal: the published rate is lower and was not soaked.",
            about(soak.rate)
        )),
        Some(soak) if soak.seconds < soak.wanted_s * 0.99 => notes.push(format!(
            "The soak lasted {:.0} s of the {:.0} s that \"sustains\" should mean; a larger budget has room for it.",
            soak.seconds, soak.wanted_s
        )),
        Some(_) => {}
        None if result.published_rate.is_some() => {
            let void = file.trials.iter().any(|trial| trial.stage == Stage::Soak);
            let why = if void { "The soak was void" } else { "There was no time for a soak" };
            notes.push(format!("{why}: the published rate rests on short trials."));
        }
        None => {}
    }
    let floor = result.estimate.zip(result.published_rate).is_some_and(|(estimate, published)| {
        let curve = result.goals.iter().filter_map(|goal| goal.safe_rate);
        let curve = curve.fold(f64::INFINITY, f64::min);
        let none =
            result.goals.iter().any(|goal| goal.estimate.is_some() && goal.safe_rate.is_none());
        none || (curve < published && published < estimate.low)
    });
    let more = longer(&file.command, (2.0 * file.settings.budget_s).max(LONG_S));
    let rests_on_s = result.estimate.map(|estimate| search.rests_on_s(estimate.value));
    if let Some(short_s) = rests_on_s.filter(|rests_on_s| *rests_on_s < PROMISE_S) {
        notes.push(format!(
            "Trials and soak up to the estimate measured {}, less than the {} that are promised: the published rate is a fifth \
             of the estimate at most. A longer search says more: {more}",
            seconds(short_s),
            seconds(PROMISE_S)
        ));
    } else if floor {
        notes.push(format!(
            "Slow records are so rare and come so clustered that the trials promise no rate with 95 %. The published one \
             is a share of the estimate. A longer search says more: {more}"
        ));
    } else if let Some((e, published)) = result.estimate.zip(result.published_rate)
        && result.is_rough(file.settings.precision)
    {
        notes.push(format!(
            "It gives out somewhere from {}/s to {}/s, and {}/s can be relied on: far apart. A longer search says more: {more}",
            about(e.low),
            about(e.high),
            about(published)
        ));
    }
    notes
}

/// Where no rate can be relied on by the curve alone, this share of the interval's lower end is published; and of a rate
/// at which a soak failed at most this share.
const PRUDENT: f64 = 0.5;
/// But no less than this share of the estimate: where the lower end is 0, half of it is no rate.
const LEAST: f64 = 0.2;
/// The interval's lower end is taken for one if the trials measured so many times what is promised.
const SETTLED: f64 = 2.0;

/// What the trials say about a goal, and the highest rate that is not against it: as its curve promises, or as far as
/// it was met.
fn of_goal(search: &Search, goal: usize) -> (GoalResult, f64) {
    let asked = search.settings().goals.get(goal);
    let rates = || search.made().iter().map(|made| made.step.rate);
    let (lowest, highest) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    let known = search.capacity();
    let interval = |value, (low, high)| Some(Interval { value, low, high });
    let safe = |safe: f64| Some(safe).filter(|safe| *safe > 0.0);
    let allowed = asked.map_or(search.settings().stable, |goal| goal.allowed);
    let (bound, estimate, safe_rate, most, curve) = match (asked, known) {
        (None, Some(known)) => (
            Bound::Found,
            interval(known.rate, known.interval),
            safe(known.safe),
            known.safe,
            Vec::new(),
        ),
        (None, None) => (Bound::NotReached, None, None, highest, Vec::new()),
        (Some(_), _) => {
            match search.crossing(goal) {
                Crossing::At(fit) => (
                    Bound::Found,
                    interval(fit.rate, fit.interval),
                    safe(fit.safe),
                    fit.safe,
                    curve(&fit, lowest, highest),
                ),
                Crossing::Above | Crossing::Nothing => {
                    // Met at every rate the target can do at all.
                    let highest = known.map_or(highest, |known| known.rate);
                    (Bound::NotReached, None, None, highest, Vec::new())
                }
                Crossing::Below => (Bound::Unreachable, None, None, 0.0, Vec::new()),
            }
        }
    };
    let best = search
        .made()
        .iter()
        .filter_map(|made| match asked {
            Some(_) => Some((made.share(goal)?, made.number)),
            None => Some((made.outcome.backlog?.growth, made.number)),
        })
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let result = GoalResult {
        of: asked.map_or_else(|| "stable".to_owned(), |goal| goal.of.clone()),
        bound_us: asked.map(|goal| goal.bound_us),
        allowed,
        bound,
        estimate,
        safe_rate,
        best,
        best_us: None,
        curve,
    };
    (result, most)
}

fn curve(fit: &Fit, lowest: f64, highest: f64) -> Vec<Curve> {
    let (low, high) = (lowest.max(fit.rate / 2.5), highest.min(fit.rate * 1.6));
    (0..POINTS)
        .map(|n| {
            let rate = low * (high / low).powf(n as f64 / (POINTS - 1) as f64);
            let (share, low, high) = fit.share(rate);
            Curve { rate, share, low, high }
        })
        .collect()
}
