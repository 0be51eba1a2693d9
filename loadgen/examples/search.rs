//! What a search is worth: many of them on simulated targets whose sustainable rate is known.
//!
//! ```text
//! cargo run --release -p highwater-loadgen --example search -- [SEARCHES] [BUDGET_S] [TRIAL_S]
//! ```
//!
//! Defaults: `200 480 16`. For each kind of target: the truth, bias and spread (coefficient of variation) of the estimate,
//! how often its 95 % interval holds the truth, how many searches publish a rate, the published rate as a share of the
//! truth, and how often a later run of two minutes at it keeps the goal.

// What it is included for is seen from it as the modules around it are in the library.
#[path = "../src/search/sim.rs"]
mod sim;

use std::error::Error;

use highwater_loadgen::search::fit::PROMISE_S;
use highwater_loadgen::search::{Block, Goal, Next, Search, SearchSettings, controller};

use sim::{Kind, Target, truth};

const CAPACITY: f64 = 1e6;
const BOUND_S: f64 = 0.02;
const ALLOWED: f64 = 0.01;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: f64| arguments.next().map_or(Ok(default), |word| word.parse::<f64>());
    let (searches, budget_s, trial_s) = (next(200.0)? as u64, next(480.0)?, next(16.0)?);
    println!("target    truth     bias   spread  holds  promises  published  kept");
    for kind in [Kind::Knee, Kind::Stalls, Kind::Ceiling] {
        let truth = truth(kind, CAPACITY, BOUND_S, ALLOWED, 50_000.0);
        let (mut ratios, mut holds, mut published) = (Vec::new(), 0u32, 0.0);
        let (mut promised, mut kept) = (0u32, 0u32);
        for seed in 0..searches {
            let result = {
                let mut target = Target::new(kind, CAPACITY, BOUND_S, 1_000 + seed);
                let bound_us = BOUND_S * 1e6;
                let goal = Goal { of: "response.p99".to_owned(), bound_us, allowed: ALLOWED };
                let mut search = Search::new(SearchSettings {
                    goals: vec![goal],
                    stable: 0.005,
                    budget_s,
                    precision: 0.1,
                    trial_s,
                    start_rate: 50_000.0,
                    max_rate: 1e9,
                    seed,
                });
                while let Next::Trial(step) = search.next() {
                    search.record(target.trial(&step));
                }
                search.result()
            };
            if let Some(found) = result.estimate {
                ratios.push(found.value / truth);
                holds += u32::from((found.low..=found.high).contains(&truth));
            }
            if let Some(rate) = result.published_rate {
                promised += 1;
                published += rate / truth;
                let mut later = Target::new(kind, CAPACITY, BOUND_S, 900_000 + seed);
                kept += u32::from(later.confirm(rate, PROMISE_S) <= ALLOWED);
            }
        }
        let n = ratios.len().max(2) as f64;
        let mean = ratios.iter().sum::<f64>() / n;
        let variance = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let percent = |count: u32, of: f64| 100.0 * f64::from(count) / of.max(1.0);
        let of_promised = f64::from(promised);
        println!(
            "{:<9}{truth:>6.0}  {:>+5.1} %  {:>4.1} %  {:>3.0} %    {:>3.0} %      {:>3.0} %   {:>4.1} %",
            format!("{kind:?}").to_lowercase(),
            (mean - 1.0) * 100.0,
            variance.sqrt() / mean * 100.0,
            percent(holds, ratios.len() as f64),
            percent(promised, searches as f64),
            100.0 * published / of_promised.max(1.0),
            percent(kept, of_promised),
        );
    }
    Ok(())
}
