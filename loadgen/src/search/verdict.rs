//! What follows from the trials of a search: each goal's curve and crossing, and the rate that may be relied on.

use super::controller::Search;
use super::file::{Bound, Curve, Ended, GoalResult, Interval, SearchFile, SearchResult, Stage};
use super::fit::{Crossing, Fit, crossing};
use super::text::about;

/// Points of a curve as it is kept.
const POINTS: usize = 32;

/// All of it.
pub(super) fn result(search: &Search) -> SearchResult {
    let goals = search.settings().goals.len();
    let goals: Vec<GoalResult> = (0..=goals).map(|goal| of_goal(search, goal)).collect();
    let lowest = goals
        .iter()
        .filter_map(|goal| goal.estimate.map(|estimate| (estimate, goal)))
        .min_by(|a, b| a.0.value.total_cmp(&b.0.value));
    let unreachable = goals.iter().any(|goal| goal.bound == Bound::Unreachable);
    let safe = goals.iter().map(|goal| goal.safe_rate.unwrap_or(0.0)).fold(f64::INFINITY, f64::min);
    let soak = search.soak();
    let estimate = lowest.map(|(estimate, _)| estimate).filter(|_| !unreachable);
    // Where the curve promises nothing at all, half of what it says at least has to do.
    let floor =
        estimate.map_or(0.0, |estimate| (estimate.low * PRUDENT).max(estimate.value * LEAST));
    let tried = match soak {
        Some(soak) if soak.held => soak.rate,
        Some(soak) => soak.rate * PRUDENT,
        None => f64::INFINITY,
    };
    let proven = safe.max(floor).min(tried);
    let published = (!unreachable && proven > 0.0 && proven.is_finite()).then_some(proven);
    SearchResult {
        ended: search.ended().unwrap_or(Ended::Budget),
        estimate,
        binding: lowest.map(|(_, goal)| goal.of.clone()).filter(|_| !unreachable),
        published_rate: published,
        delivered_share: None,
        soak,
        hysteresis: search.hysteresis(),
        notes: Vec::new(),
        goals,
    }
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
    if floor {
        notes.push(
            "Slow records are so rare and come so clustered that the trials promise no rate with 95 %. The published one \
             is a share of the estimate; a longer search says more."
                .to_owned(),
        );
    }
    notes
}

/// Where no rate can be relied on by the curve alone, this share of the interval's lower end is published; and of a rate
/// at which a soak failed at most this share.
const PRUDENT: f64 = 0.5;
/// But no less than this share of the estimate: where the lower end is 0, half of it is no rate.
const LEAST: f64 = 0.2;

fn of_goal(search: &Search, goal: usize) -> GoalResult {
    let asked = search.settings().goals.get(goal);
    let rates = || search.made().iter().map(|made| made.step.rate);
    let (lowest, highest) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    let known = search.capacity();
    let interval = |value, (low, high)| Some(Interval { value, low, high });
    let safe = |safe: f64| Some(safe).filter(|safe| *safe > 0.0);
    let allowed = asked.map_or(search.settings().stable, |goal| goal.allowed);
    let (bound, estimate, safe_rate, curve) = match (asked, known) {
        (None, Some(known)) => {
            (Bound::Found, interval(known.rate, known.interval), safe(known.safe), Vec::new())
        }
        (None, None) => (Bound::NotReached, None, safe(highest), Vec::new()),
        (Some(_), _) => {
            let (points, allowed) = search.points(goal);
            match crossing(&points, allowed, search.assumed_capacity()) {
                Crossing::At(fit) => (
                    Bound::Found,
                    interval(fit.rate, fit.interval),
                    safe(fit.safe),
                    curve(&fit, lowest, highest),
                ),
                Crossing::Above | Crossing::Nothing => {
                    // Met at every rate the target can do at all.
                    let highest = known.map_or(highest, |known| known.rate);
                    (Bound::NotReached, None, safe(highest), Vec::new())
                }
                Crossing::Below => (Bound::Unreachable, None, None, Vec::new()),
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
    GoalResult {
        of: asked.map_or_else(|| "stable".to_owned(), |goal| goal.of.clone()),
        bound_us: asked.map(|goal| goal.bound_us),
        allowed,
        bound,
        estimate,
        safe_rate,
        best,
        best_us: None,
        curve,
    }
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
