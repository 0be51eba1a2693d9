//! Searches on targets of known truth, and on targets made up for one case each.

use super::controller::Outcome;
use super::file::{Backlog, Block, Bound, Ended, Goal, SearchResult, SearchSettings, Stage};
use super::fit::PROMISE_S;
use super::sim::{Kind, Target, truth};
use super::{Next, Search, Step};

const ALLOWED: f64 = 0.01;
const CAPACITY: f64 = 1e6;
const BOUND_S: f64 = 0.02;

fn goal(of: &str, bound_us: f64, allowed: f64) -> Goal {
    Goal { of: of.to_owned(), bound_us, allowed }
}

fn settings(budget_s: f64, seed: u64) -> SearchSettings {
    SearchSettings {
        goals: vec![goal("response.p99", BOUND_S * 1e6, ALLOWED)],
        stable: 0.005,
        budget_s,
        precision: 0.1,
        trial_s: budget_s / 30.0,
        start_rate: 50_000.0,
        max_rate: 1e9,
        seed,
    }
}

fn carry_out(settings: SearchSettings, mut make: impl FnMut(&Step) -> Outcome) -> Search {
    let mut search = Search::new(settings);
    for _ in 0..1_000 {
        let Next::Trial(step) = search.next() else { return search };
        search.record(make(&step));
    }
    panic!("a search without an end");
}

/// What `count` searches of a kind came to: bias, coefficient of variation, share of published rates that held.
fn measured(kind: Kind, budget_s: f64, count: u64) -> (f64, f64, f64) {
    let truth = truth(kind, CAPACITY, BOUND_S, ALLOWED, 20_000.0);
    let (mut ratios, mut held) = (Vec::new(), 0u32);
    for seed in 0..count {
        let mut target = Target::new(kind, CAPACITY, BOUND_S, 1_000 + seed);
        let search = carry_out(settings(budget_s, seed), |step| target.trial(step));
        assert!(search.spent_s() < budget_s * 1.05, "{kind:?} {seed}: {} s", search.spent_s());
        let result = search.result();
        ratios.push(result.estimate.unwrap().value / truth);
        let published = result.published_rate.unwrap();
        // The machine again, on another day.
        let mut later = Target::new(kind, CAPACITY, BOUND_S, 900_000 + seed);
        held += u32::from(later.confirm(published, PROMISE_S) <= ALLOWED);
    }
    let n = ratios.len() as f64;
    let mean = ratios.iter().sum::<f64>() / n;
    let variance = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean - 1.0, variance.sqrt() / mean, f64::from(held) / n)
}

/// What a search promises: 8 minutes, 200 searches of each kind.
#[test]
fn searches_find_the_truth_and_publish_what_holds() {
    for kind in [Kind::Knee, Kind::Stalls, Kind::Ceiling] {
        let (bias, spread, held) = measured(kind, 480.0, 200);
        assert!(bias.abs() <= 0.03, "{kind:?}: bias {bias}");
        assert!(spread <= 0.15, "{kind:?}: spread {spread}");
        assert!(held >= 0.95, "{kind:?}: {held} of the published rates held");
    }
}

/// The stalls' truth is known in closed form: at load ρ the time beyond the bound is f E[(D - B)+] / (1 - ρ).
#[test]
fn the_simulated_stalls_are_what_they_are_said_to_be() {
    let beyond = 0.030 * (-(0.020f64 - 0.005) / 0.030).exp() / 5.0;
    let expected = CAPACITY * (1.0 - beyond / ALLOWED);
    let found = truth(Kind::Stalls, CAPACITY, BOUND_S, ALLOWED, 100_000.0);
    assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
}

/// A trial of a target whose share beyond each bound is `shares(rate)`, and that can do `capacity` at most.
fn made_up(step: &Step, capacity: f64, shares: &[f64]) -> Outcome {
    let records = (step.rate * step.seconds) as u64;
    let over = shares.iter().map(|share| (share.min(1.0) * records as f64) as u64).collect();
    let growth = (1.0 - capacity / step.rate).max(0.0);
    Outcome {
        measured_s: step.seconds,
        spent_s: step.seconds + step.settle_s,
        blocks: vec![Block { seconds: step.seconds, records, over }],
        backlog: Some(Backlog { growth, significant: growth > 0.0, at_end: 0.0 }),
        ..Outcome::default()
    }
}

/// `share` at `at` of a smooth target that can do a million a second.
fn smooth(rate: f64, at: f64, share: f64) -> f64 {
    let left = |rate: f64| (1.0 - rate / CAPACITY).max(0.001);
    share * (left(at) / left(rate)).powi(3)
}

#[test]
fn several_goals_are_found_from_the_same_trials_and_the_first_to_give_out_decides() {
    let goals = vec![goal("response.p99", 1e4, 0.01), goal("response.p99.9", 5e4, 0.001)];
    let asked = SearchSettings { goals, ..settings(480.0, 3) };
    let search = carry_out(asked, |step| {
        let shares = [smooth(step.rate, 8e5, 0.01), smooth(step.rate, 6e5, 0.001)];
        made_up(step, CAPACITY, &shares)
    });
    let result = search.result();
    let found = |at: usize| result.goals[at].estimate.unwrap().value;
    assert!((found(0) / 8e5 - 1.0).abs() < 0.05, "{}", found(0));
    assert!((found(1) / 6e5 - 1.0).abs() < 0.03, "{}", found(1));
    // Stability is a bound of its own, as precise as the growth of the backlog is.
    assert!((found(2) / CAPACITY - 1.0).abs() < 0.02, "{}", found(2));
    assert_eq!(result.binding.as_deref(), Some("response.p99.9"));
    assert!(result.published_rate.unwrap() < found(1));
}

#[test]
fn a_goal_met_all_the_way_leaves_stability_as_the_bound() {
    let search = carry_out(settings(480.0, 4), |step| {
        let share = if step.rate > CAPACITY { 0.9 } else { 0.0 };
        made_up(step, CAPACITY, &[share])
    });
    let result = search.result();
    assert_eq!(result.binding.as_deref(), Some("stable"));
    assert_eq!(result.goals[0].bound, Bound::NotReached);
    assert!((result.estimate.unwrap().value / CAPACITY - 1.0).abs() < 0.02);
    assert!(result.soak.unwrap().held);
}

#[test]
fn what_is_out_of_reach_is_said_with_the_best_that_was_seen() {
    let search =
        carry_out(settings(480.0, 5), |step| made_up(step, CAPACITY, &[0.2 + step.rate / 1e8]));
    let result = search.result();
    assert_eq!((result.estimate, result.published_rate), (None, None));
    assert_eq!(result.goals[0].bound, Bound::Unreachable);
    let (share, _) = result.goals[0].best.unwrap();
    assert!((0.2..0.201).contains(&share), "{share}");
    let said = result.in_words();
    assert!(said.contains("missed at every rate tried; at best 20.0 %"), "{said}");
}

#[test]
fn a_target_that_can_do_more_than_may_be_tried_is_not_estimated() {
    let asked = SearchSettings { max_rate: 300_000.0, ..settings(480.0, 6) };
    let search = carry_out(asked, |step| {
        assert!(step.rate <= 300_000.0);
        made_up(step, CAPACITY, &[0.0])
    });
    let result = search.result();
    assert_eq!((result.ended, result.estimate), (Ended::NotReached, None));
    assert_eq!(result.published_rate, Some(300_000.0));
    assert!(result.soak.unwrap().held);
}

fn void(step: &Step) -> Outcome {
    let spent_s = step.seconds + step.settle_s;
    Outcome { void: Some("late".to_owned()), spent_s, ..Outcome::default() }
}

#[test]
fn void_trials_are_repeated_and_only_void_trials_end_the_search() {
    let mut rates = Vec::new();
    let search = carry_out(settings(480.0, 7), |step| {
        rates.push(step.rate);
        if rates.len() == 2 { void(step) } else { made_up(step, CAPACITY, &[0.0]) }
    });
    assert_eq!(rates[1], rates[2], "the same again");
    assert_ne!(search.result().ended, Ended::Void);

    let search = carry_out(settings(480.0, 7), void);
    let result = search.result();
    assert_eq!((result.ended, result.published_rate), (Ended::Void, None));
}

/// The generator's limit is not the target's.
#[test]
fn a_rate_that_cannot_be_offered_bounds_what_is_tried() {
    let mut highest = 0.0f64;
    let search = carry_out(settings(480.0, 8), |step| {
        if step.rate > 250_000.0 {
            return void(step);
        }
        highest = highest.max(step.rate);
        made_up(step, CAPACITY, &[0.0])
    });
    let result = search.result();
    assert_eq!((result.ended, result.estimate), (Ended::NotReached, None));
    assert!(highest >= 200_000.0 && result.published_rate.unwrap() <= highest);
    assert!(search.limited().unwrap().0 > 250_000.0);
}

/// An interrupted search is told its trials again, and goes on as if nothing had been.
#[test]
fn the_same_history_leads_to_the_same_next_trial() {
    let mut target = Target::new(Kind::Stalls, CAPACITY, BOUND_S, 9);
    let mut made = Vec::new();
    let whole = carry_out(settings(480.0, 9), |step| {
        let outcome = target.trial(step);
        made.push((*step, outcome.clone()));
        outcome
    });
    for cut in [1, 7, 15, made.len() - 1] {
        let mut again = Search::new(settings(480.0, 9));
        for (_, outcome) in &made[..cut] {
            again.record(outcome.clone());
        }
        assert_eq!(again.next(), Next::Trial(made[cut].0), "after {cut}");
    }
    assert!(whole.result().soak.is_some());
}

fn after_overload(broken: bool, seed: u64) -> SearchResult {
    let mut overloaded = false;
    let search = carry_out(settings(480.0, seed), |step| {
        overloaded |= step.stage == Stage::Overload;
        let factor = if broken && overloaded { 30.0 } else { 1.0 };
        made_up(step, CAPACITY, &[factor * smooth(step.rate, 8e5, 0.01)])
    });
    search.result()
}

#[test]
fn a_target_that_does_not_recover_from_overload_is_told_from_one_that_does() {
    let sound = after_overload(false, 10).hysteresis.unwrap();
    assert!(sound.recovers && sound.steps.len() == 3, "{sound:?}");
    assert!(sound.steps.windows(2).all(|pair| pair[0].rate > pair[1].rate), "downwards");
    assert!(!after_overload(true, 10).hysteresis.unwrap().recovers);
}

/// A soak that misses the goal takes the published rate down.
#[test]
fn a_rate_whose_soak_failed_is_not_published() {
    let mut soaked = None;
    let search = carry_out(settings(480.0, 11), |step| {
        let fails = step.stage == Stage::Soak && soaked.is_none();
        if fails {
            soaked = Some(step.rate);
        }
        let share = if fails { 0.02 } else { smooth(step.rate, 8e5, 0.01) };
        made_up(step, CAPACITY, &[share])
    });
    let published = search.result().published_rate.unwrap();
    assert!(published <= 0.5 * soaked.unwrap() + 1.0, "{published}");
}
