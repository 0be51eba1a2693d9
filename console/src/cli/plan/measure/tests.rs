//! The steps: commands that can be typed, within the budget, on CPUs of their own.

use clap::Parser as _;

use super::done::Done;
use super::steps::{Job, Places, Times};
use super::*;
use crate::cli::Cli;

fn job(cpus: &[usize]) -> Job {
    Job {
        dir: "m".into(),
        wanted: Wanted { rate: 20e3, record_bytes: Some(512), groups: 3 },
        slo: vec!["p99=10ms".into(), "p99.9=50ms".into()],
        bounds: ["--late-bound", "5000us", "--steal-bound", "0.1"].map(String::from).to_vec(),
        times: Times::of(BUDGET_S),
        places: Places::of(cpus),
    }
}

/// What it says it runs can be typed.
#[test]
fn every_step_is_a_command() {
    for job in [job(&[0]), job(&[0, 1]), job(&[2, 3, 5, 7])] {
        let serve = job.serve("127.0.0.1:0");
        let steps = [vec![job.probe(), job.search("h:1")], job.others("h:1", 17e3)].concat();
        let lines = steps
            .iter()
            .map(|step| ["highwater".to_owned()].into_iter().chain(step.words.clone()).collect());
        for words in lines.chain([serve]) {
            let words: Vec<String> = words;
            let parsed = Cli::try_parse_from(&words);
            assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().unwrap());
        }
    }
}

#[test]
fn server_and_generator_share_no_cpu() {
    let places = |cpus: &[usize]| {
        let places = Places::of(cpus);
        (places.server.map(|c| c.0), places.load.map(|c| c.0))
    };
    assert_eq!(places(&[0]), (None, None));
    assert_eq!(places(&[0, 1]), (Some(vec![0]), Some(vec![1])));
    assert_eq!(places(&[0, 2, 4]), (Some(vec![0]), Some(vec![2, 4])));
}

/// The longest all of it takes: measured windows, warm-up, and 4 s around each for streams and draining.
#[test]
fn the_steps_fit_into_the_budget() {
    for budget_s in [10.0 * 60.0, BUDGET_S, 3600.0] {
        let t = Times::of(budget_s);
        let sweeps = (2.0 + 4.0) * (t.point + 6.0) + 6.0 * (t.overload + 6.0);
        // Catching up at twice what arrives takes as long as the outage.
        let all = t.probe + t.search + t.steady + 7.0 + 8.0 + 2.0 * t.outage + sweeps + 5.0;
        assert!(all <= budget_s, "{all} of {budget_s} s");
    }
}

#[test]
fn what_is_done_is_known_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DONE);
    let step = job(&[0, 1]).probe();
    let mut done = Done::open(&path).unwrap();
    assert!(!done.has(&step) && done.address.is_none());
    done.add(&step).unwrap();
    done.at("127.0.0.1:4711").unwrap();
    let again = Done::open(&path).unwrap();
    assert!(again.has(&step) && again.address.as_deref() == Some("127.0.0.1:4711"));
    // Asked otherwise, it is another step.
    assert!(!again.has(&Job { dir: "n".into(), ..job(&[0, 1]) }.probe()));
}
