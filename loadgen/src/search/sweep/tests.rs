//! What a sweep refuses, what it keeps, and what its points come to.

use std::time::Duration;

use super::*;
use crate::search::{Goal, Search, SearchSettings};
use crate::target::memory::{Fault, Memory};
use crate::{WarmUpRule, run_on};

fn settings(budget_s: f64) -> SearchSettings {
    SearchSettings {
        goals: vec![Goal { of: "response.p99".into(), bound_us: 1e4, allowed: 0.01 }],
        stable: 0.005,
        budget_s,
        precision: 0.1,
        trial_s: 2.0,
        start_rate: 1e4,
        max_rate: 1e9,
        seed: 1,
    }
}

/// A sweep over one and two shards of a target that answers at once.
fn request(mode: SweepMode) -> SweepRequest {
    let load = LoadOptions {
        target: "null".into(),
        stream: "s".into(),
        rate: Rate::PerSecond(1_000.0),
        duration: Duration::from_millis(200),
        warmup: WarmUpRule::Fixed(Duration::ZERO),
        seed: 7,
        ..LoadOptions::default()
    };
    let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let point = |shards: u32| PointRequest {
        settings: vec![Setting { name: "shards".into(), value: shards.to_string() }],
        load: LoadOptions { shards, ..load.clone() },
        command: words(&format!("highwater load run --stream s --shards {shards} --seed 7")),
    };
    SweepRequest {
        vary: vec![AxisValues { name: "shards".into(), values: vec!["1".into(), "2".into()] }],
        points: vec![point(1), point(2)],
        mode,
        seed: 7,
        command: words("highwater load sweep --vary shards=1,2 --stream s --seed 7"),
        by_chance: Vec::new(),
        load,
    }
}

/// What a run lost is lost whatever else the sweep finds: it was no more than a void point.
#[test]
fn a_point_whose_run_lost_records_is_damaged_and_says_what_it_lost() {
    let load = LoadOptions {
        // One record a batch.
        workload: crate::Workload::Fixed { size: 100 },
        batch_bytes: 200,
        ..request(SweepMode::Rate { rate: Some(1e3), duration_s: 0.2 }).load
    };
    let found = |faults: &[(usize, Fault)]| {
        let target = Memory::with_faults(faults);
        Found::of_run(run_on(target, load.clone(), &mut (), &Stop::new()).unwrap())
    };
    assert!(!found(&[]).damaged);
    let lossy = found(&[(7, Fault::Lose)]);
    assert!(lossy.damaged && lossy.void_reason.unwrap().contains("lost 1 "));
}

/// Its directory would go on with nothing but the settings that cannot be.
#[test]
fn a_sweep_whose_searches_cannot_be_leaves_no_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("sweep");
    let asked = request(SweepMode::Search { settings: settings(10.0) });
    let said = sweep(&asked, &dir, &mut (), &Stop::new()).unwrap_err().to_string();
    assert!(said.contains("budget") && said.contains("20 to"), "{said}");
    assert!(!dir.exists());
}

/// Its echo has the window of the trials, where nothing was typed and the load has that of a run.
#[test]
fn the_echoed_command_goes_on_with_what_it_is_the_echo_of() {
    let root = tempfile::tempdir().unwrap();
    let asked = request(SweepMode::Search { settings: settings(20.0) });
    let mut echoed = asked.clone();
    echoed.load.duration = Duration::from_secs(2);
    let store = Store::open_sweep(&root.path().join("sweep")).unwrap();
    store.write_sweep(&asked.new_file()).unwrap();
    assert!(echoed.resume(&store).unwrap().is_some());
    echoed.load.shards = 3;
    assert!(echoed.resume(&store).is_err());

    let of_search = |sweep: &SweepRequest| SearchRequest {
        load: sweep.load.clone(),
        settings: settings(20.0),
        command: Vec::new(),
        by_chance: Vec::new(),
    };
    let dir = root.path().join("search");
    let stopped = Stop::new();
    stopped.request();
    search(&of_search(&asked), Some(&dir), &mut (), &stopped).unwrap();
    echoed.load.shards = asked.load.shards;
    assert!(crate::search::kept(&of_search(&echoed), &dir).unwrap().is_some());
}

#[test]
fn the_report_of_a_point_has_the_command_of_that_point() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("sweep");
    let asked = request(SweepMode::Rate { rate: Some(1e3), duration_s: 0.2 });
    let file = sweep(&asked, &dir, &mut (), &Stop::new()).unwrap();
    assert_eq!(file.command, asked.command);
    for point in &file.points {
        let report = crate::read_run(&dir.join(&point.dir)).unwrap().report;
        let (turn, shards) = (point.turn, &point.settings[0].value);
        let command = format!("highwater load run --stream s-p{turn} --shards {shards} --seed 7");
        assert_eq!(report.command.join(" "), command);
    }
    let searches = request(SweepMode::Search { settings: settings(20.0) });
    let asked = searches.of_point(&searches.new_file(), &file.points[0]).unwrap();
    assert_eq!(asked.load.stream, "s-p1");
    assert!(asked.command.join(" ").contains("--stream s-p1 "), "{:?}", asked.command);
}

/// A measured no is an answer, and says something about the setting; a void point does not.
#[test]
fn a_goal_out_of_reach_is_no_void_point() {
    let nothing = Search::new(settings(480.0)).result();
    let of = |ended, needs_s, published_rate, counted| {
        let result = SearchResult { ended, needs_s, published_rate, ..nothing.clone() };
        let (void, missed) = without_rate(&result, counted);
        (void.is_some(), missed.is_some())
    };
    assert_eq!(of(Ended::Precision, None, Some(1e4), true), (false, false));
    assert_eq!(of(Ended::Unreachable, None, None, true), (false, true));
    assert_eq!(of(Ended::NotReached, Some(60.0), None, true), (true, false));
    assert_eq!(of(Ended::Void, None, None, true), (true, false));
    assert_eq!(of(Ended::Void, None, None, false), (true, false));
}
