//! Plans from files, and to files.

use std::fs;
use std::path::Path;

use super::{asked, near};
use crate::capacity::*;
use crate::search::{
    AxisValues, Backlog, Bound, Ended, Goal, GoalResult, Interval, Proof, SEARCH_SCHEMA,
    SWEEP_SCHEMA, SearchFile, SearchResult, SearchSettings, Setting, Soak, Stage, SweepFile,
    SweepMode, SweepPoint, TrialRecord,
};
use crate::{Distribution, Environment, LoadOptions, Mode};

fn json(path: &Path, value: &impl serde::Serialize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
}

fn trial(number: u32, rate: f64, delivered: f64, growth: f64) -> TrialRecord {
    let p99 = 1_000.0 * rate / 1_000.0;
    TrialRecord {
        number,
        stage: Stage::Coarse,
        dir: format!("trials/{number}"),
        started_ns: 1,
        rate,
        void_reason: None,
        measured_s: 10.0,
        spent_s: 12.0,
        drain_s: 0.1,
        offered_rate: rate,
        delivered_rate: delivered,
        bytes_per_s: delivered * 1_024.0,
        blocks: vec![],
        measured_us: vec![Some(p99)],
        backlog: Some(Backlog { growth, significant: growth > 0.01, at_end: 0.0 }),
        response: Distribution { p50: p99 / 4.0, p99, count: 100_000, ..Distribution::default() },
        propagation: Distribution::default(),
        generator_late_us: 20.0,
        generator_busy: None,
        delivered_seconds: None,
        steal: None,
        shard_skew: 1.0,
    }
}

/// A search that found 10k [9k, 11k] and delivered 12k of 20k offered.
fn search() -> SearchFile {
    let goal = |of: &str| GoalResult {
        of: of.into(),
        bound_us: Some(10_000.0),
        allowed: 0.01,
        bound: Bound::Found,
        estimate: Some(Interval { value: 10e3, low: 9e3, high: 11e3 }),
        safe_rate: Some(9e3),
        best: None,
        best_us: None,
        curve: vec![],
    };
    SearchFile {
        schema: SEARCH_SCHEMA.into(),
        command: ["highwater", "load", "search", "--slo", "p99=10ms"].map(str::to_owned).into(),
        target: "127.0.0.1:7411".into(),
        server: "0.1.0".into(),
        started_ns: 1,
        spent_s: 60.0,
        settings: SearchSettings {
            goals: vec![Goal { of: "response.p99".into(), bound_us: 10_000.0, allowed: 0.01 }],
            stable: 0.005,
            budget_s: 300.0,
            precision: 0.1,
            trial_s: 10.0,
            start_rate: 1e3,
            max_rate: 1e9,
            seed: 1,
        },
        load: LoadOptions::default(),
        shards: 2,
        groups: 1,
        ack: "durable".into(),
        mean_payload_bytes: 1_024.0,
        environment: Environment::default(),
        lints: vec![],
        trials: vec![
            trial(1, 5e3, 5e3, 0.0),
            trial(2, 9e3, 9e3, 0.0),
            trial(3, 20e3, 12e3, 0.4),
            TrialRecord { void_reason: Some("generator late".into()), ..trial(4, 6e3, 1e3, 0.9) },
        ],
        result: Some(SearchResult {
            ended: Ended::Precision,
            goals: vec![goal("response.p99")],
            estimate: Some(Interval { value: 10e3, low: 9e3, high: 11e3 }),
            binding: Some("response.p99".into()),
            published_rate: Some(9e3),
            proof: None,
            needs_s: None,
            delivered_share: Some(1.0),
            soak: Some(Soak { rate: 9e3, seconds: 600.0, wanted_s: 600.0, held: true }),
            hysteresis: None,
            notes: vec![],
        }),
    }
}

/// A search of a sweep over one setting, which is kept in its summary only.
fn swept(name: &str, value: &str, shards: u32, rate: Interval) -> SweepPoint {
    SweepPoint {
        turn: 1,
        settings: vec![Setting { name: name.into(), value: value.into() }],
        dir: format!("point-{value}"),
        done: true,
        void_reason: None,
        missed: None,
        damaged: false,
        shards,
        groups: 1,
        ack: "durable".into(),
        mean_payload_bytes: 1_024.0,
        rate: Some(rate),
        published_rate: Some(rate.low),
        bytes_per_s: None,
        response: Distribution::default(),
        propagation: Distribution::default(),
    }
}

fn sweep(points: Vec<SweepPoint>) -> SweepFile {
    let values = points.iter().map(|point| point.settings[0].value.clone()).collect();
    let of = search();
    SweepFile {
        schema: SWEEP_SCHEMA.into(),
        command: vec![],
        target: of.target,
        server: of.server,
        started_ns: 1,
        seed: 1,
        vary: vec![AxisValues { name: points[0].settings[0].name.clone(), values }],
        mode: SweepMode::Search { settings: of.settings },
        load: of.load,
        environment: of.environment,
        lints: vec![],
        points,
    }
}

fn read(paths: &[&Path]) -> Result<Evidence, EvidenceError> {
    let mut evidence = Evidence::default();
    for path in paths {
        evidence.add_directory(path, OtherVersion::Refuse)?;
    }
    Ok(evidence)
}

#[test]
fn a_search_is_read_and_planned_with() {
    let dir = tempfile::tempdir().unwrap();
    json(&dir.path().join("search.json"), &search());
    let evidence = read(&[dir.path()]).unwrap();
    assert_eq!((evidence.points.len(), evidence.sources[0].counted), (3, 3));
    assert_eq!(evidence.sources[0].void, ["trial 4: generator late"]);
    let plan = plan(&evidence, &Demand::of(6e3), &PlanOptions::default()).unwrap();
    let sustains = plan.sustains.as_ref().unwrap();
    assert_eq!((sustains.safe, sustains.overload.unwrap().value), (9e3, 12e3));
    assert_eq!(plan.answers[0].verdict, Verdict::Fits);
    near(plan.answers[0].figures[0].value.unwrap(), 2.0 / 3.0);
}

#[test]
fn an_interrupted_search_and_a_void_one_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("search.json");
    json(&path, &SearchFile { result: None, ..search() });
    let evidence = read(&[dir.path()]).unwrap();
    assert!(evidence.left_out[0].contains("interrupted"), "{:?}", evidence.left_out);
    // Its trials are no more of a promise than those of one that came to its end.
    let plan = plan(&evidence, &Demand::of(6e3), &PlanOptions::default()).unwrap();
    assert!(plan.sustains.is_none());
    let average = &plan.answers[0];
    assert_eq!(average.verdict, Verdict::NotMeasured);
    let goes_on = format!("run highwater load search --slo p99=10ms -o {}", dir.path().display());
    assert_eq!(average.says, goes_on);
    let mut void = search();
    void.trials.iter_mut().for_each(|trial| trial.void_reason = Some("late".into()));
    json(&path, &void);
    let evidence = read(&[dir.path()]).unwrap();
    assert!(evidence.sustained[0].safe.is_none() && evidence.points.is_empty());
    assert!(evidence.left_out[0].contains("none of its 4 trials"), "{:?}", evidence.left_out);
}

/// Trials of a few seconds stand for no safe rate just because their search had no time to find one.
#[test]
fn a_search_with_too_short_a_budget_answers_with_the_budget_that_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut short = search();
    short.command.extend(["--budget", "1m"].map(str::to_owned));
    short.settings.budget_s = 60.0;
    let result = short.result.as_mut().unwrap();
    (result.estimate, result.published_rate, result.needs_s) = (None, None, Some(420.0));
    result.proof = Some(Proof { rate: 9e3, seconds: 31.0, needed_s: Some(232.0) });
    json(&dir.path().join("search.json"), &short);
    let evidence = read(&[dir.path()]).unwrap();
    assert!(evidence.left_out[0].contains("promises no rate"), "{:?}", evidence.left_out);
    let plan = plan(&evidence, &Demand::of(6e3), &PlanOptions::default()).unwrap();
    assert!(plan.sustains.is_none());
    let average = &plan.answers[0];
    assert_eq!(average.verdict, Verdict::NotMeasured);
    let command = "run highwater load search --slo p99=10ms --budget 8m -o search-longer";
    assert_eq!(average.says, command);
    assert!(average.notes[0].contains("needs about 7 min 00 s more"), "{:?}", average.notes);
}

/// What a search does not promise, a run without its goals does not either.
#[test]
fn a_run_beside_a_search_that_promises_nothing_stands_for_no_rate() {
    let dir = tempfile::tempdir().unwrap();
    let (searched, ran) = (dir.path().join("s"), dir.path().join("r"));
    let mut report = crate::report::fixture::plain();
    (report.target, report.server) = (search().target, search().server);
    report.environment = Environment::default();
    report.slo.clear();
    json(&ran.join("run.json"), &report);
    let rate = report.records_per_s / 2.0;
    type Change = fn(&mut SearchFile);
    let table: [(&str, Change, Verdict); 5] = [
        ("interrupted", |s| s.result = None, Verdict::NotMeasured),
        (
            "void",
            |s| s.trials.iter_mut().for_each(|t| t.void_reason = Some("late".into())),
            Verdict::NotMeasured,
        ),
        (
            "short",
            |s| {
                let result = s.result.as_mut().unwrap();
                (result.published_rate, result.needs_s) = (None, Some(60.0));
            },
            Verdict::NotMeasured,
        ),
        (
            "nothing published",
            |s| s.result.as_mut().unwrap().published_rate = None,
            Verdict::NotMeasured,
        ),
        ("unreachable", |s| s.result.as_mut().unwrap().ended = Ended::Unreachable, Verdict::No),
    ];
    for (name, change, verdict) in table {
        let mut file = search();
        change(&mut file);
        json(&searched.join("search.json"), &file);
        let evidence = read(&[&searched, &ran]).unwrap();
        let found = plan(&evidence, &Demand::of(rate), &PlanOptions::default()).unwrap();
        assert!(found.sustains.is_none(), "{name}");
        let average = &found.answers[0];
        assert_eq!(average.verdict, verdict, "{name}");
        let note = average.notes.iter().any(|note| note.contains("no rate to rely on"));
        assert!(note, "{name}: {:?}", average.notes);
        let said = found.trust.reasons.iter().any(|reason| reason == "the search promises no rate");
        assert_eq!(said, verdict == Verdict::NotMeasured, "{name}: {:?}", found.trust);
    }
    // Without the search, the run is what there is.
    let alone = plan(&read(&[&ran]).unwrap(), &Demand::of(rate), &PlanOptions::default()).unwrap();
    assert_eq!(alone.answers[0].verdict, Verdict::Fits);
}

/// C is what overload delivered, with the slowest and the fastest second of it.
#[test]
fn overload_has_the_extent_of_its_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let mut found = search();
    let overload = &mut found.trials[2];
    overload.delivered_seconds = Some((8e3, 15e3));
    overload.generator_busy = Some(0.97);
    json(&dir.path().join("search.json"), &found);
    let ceiling = &read(&[dir.path()]).unwrap().ceilings[0];
    assert_eq!(ceiling.rate, Range { value: 12e3, low: 8e3, high: 15e3 });
    assert_eq!((ceiling.lasted_s, ceiling.generator_busy), (10.0, Some(0.97)));
}

/// Where nothing gave out, the summary has the published rate in the place of an estimate: that was taken for one.
#[test]
fn a_point_of_which_only_the_summary_is_left_is_as_open_as_its_search() {
    let dir = tempfile::tempdir().unwrap();
    for (rate, open, verdict) in [
        (Interval { value: 9e3, low: 9e3, high: 9e3 }, true, Verdict::BeyondMeasured),
        (Interval { value: 10e3, low: 9e3, high: 11e3 }, false, Verdict::No),
    ] {
        json(&dir.path().join("sweep.json"), &sweep(vec![swept("shards", "2", 2, rate)]));
        let evidence = read(&[dir.path()]).unwrap();
        let found = &evidence.sustained[0];
        assert_eq!((found.estimate.is_none(), found.safe), (open, Some(9e3)));
        let plan = plan(&evidence, &Demand::of(20e3), &PlanOptions::default()).unwrap();
        assert_eq!(plan.answers[0].verdict, verdict);
    }
}

/// Every point had the streams of the first then.
#[test]
fn streams_that_were_varied_are_known_from_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let rate = Interval { value: 10e3, low: 9e3, high: 11e3 };
    let points = ["1", "4", "all"].map(|streams| swept("streams", streams, 2, rate));
    json(&dir.path().join("sweep.json"), &sweep(points.into()));
    let evidence = read(&[dir.path()]).unwrap();
    let shards: Vec<u32> = evidence.sustained.iter().map(|found| found.setup.shards).collect();
    assert_eq!(shards, [2, 8]);
    assert!(evidence.left_out[0].contains("streams=all"), "{:?}", evidence.left_out);
}

/// Anything wrong with any file of a run took its seconds away without a word.
#[test]
fn the_seconds_of_a_run_need_nothing_else_and_are_missed_aloud() {
    let dir = tempfile::tempdir().unwrap();
    let [.., backlog] = crate::report::fixture::all();
    let path = dir.path().join("b");
    json(&path.join("run.json"), &backlog.report);
    fs::write(path.join("latency.hlog"), "damaged").unwrap();
    let lines = backlog.samples.iter().map(|sample| serde_json::to_string(sample).unwrap() + "\n");
    let lines = lines.collect::<String>();
    let mut known = Evidence::default();
    known.add_run("b", String::new(), &backlog.report, &backlog.samples);
    let known = known.drains[0].rate;
    assert!(known.low < known.high, "{known:?}");
    for (samples, missing) in [
        (Some(lines.clone()), None),
        (Some(format!("{{}}\n{lines}")), Some("samples.jsonl: line 1")),
        (None, Some("it has no samples.jsonl")),
    ] {
        match &samples {
            Some(text) => fs::write(path.join("samples.jsonl"), text).unwrap(),
            None => fs::remove_file(path.join("samples.jsonl")).unwrap(),
        }
        let evidence = read(&[&path]).unwrap();
        let (found, left_out) = (evidence.drains[0].rate, &evidence.left_out);
        match missing {
            None => {
                near(found.low, known.low);
                near(found.high, known.high);
                assert!(left_out.is_empty(), "{left_out:?}");
            }
            Some(why) => {
                assert_eq!(found, Range::exactly(found.value));
                assert!(left_out[0].contains(why), "{left_out:?}");
                let demand = Demand::of(evidence.drains[0].arrival);
                let plan = plan(&evidence, &demand, &PlanOptions::default()).unwrap();
                let mut notes = plan.answers.iter().flat_map(|answer| &answer.notes);
                assert!(notes.any(|note| note.contains("there is no interval")), "{plan}");
            }
        }
    }
}

#[test]
fn runs_are_points_drains_and_ceilings() {
    let dir = tempfile::tempdir().unwrap();
    let [steady, _, backlog] = crate::report::fixture::all();
    json(&dir.path().join("steady/run.json"), &steady.report);
    json(&dir.path().join("backlog/run.json"), &backlog.report);
    let mut saturated = steady.report.clone();
    (saturated.mode, saturated.records_per_s) = (Mode::Saturating, 77e3);
    json(&dir.path().join("max/run.json"), &saturated);
    let names = ["steady", "backlog", "max"].map(|name| dir.path().join(name));
    let evidence = read(&names.each_ref().map(|path| path.as_path())).unwrap();
    assert_eq!(evidence.ceilings[0].rate.value, 77e3);
    let found = backlog.report.backlog.unwrap();
    near(evidence.drains[0].rate.value, found.drain_rate / f64::from(found.groups_paused));
    assert_eq!(evidence.drains[0].arrival, found.arrival_rate);
    assert_eq!(evidence.drains[0].paused, found.groups_paused);
    assert!(evidence.points.iter().any(|p| p.offered == steady.report.offered_rate));
    // With its seconds, the drain has an interval.
    let mut with_seconds = Evidence::default();
    with_seconds.add_run("b", String::new(), &backlog.report, &backlog.samples);
    let drain = &with_seconds.drains[0];
    assert!(drain.rate.low <= drain.rate.value && drain.rate.value <= drain.rate.high);
}

#[test]
fn what_is_no_run_and_what_is_of_another_version_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = read(&[dir.path()]).unwrap_err().to_string();
    assert!(error.contains("no run.json, search.json or sweep.json"), "{error}");
    let path = dir.path().join("run.json");
    fs::write(&path, "{\"schema\":").unwrap();
    let error = read(&[dir.path()]).unwrap_err();
    assert!(matches!(error, EvidenceError::Json { .. }));
    assert_eq!(error.to_string().matches("line 1").count(), 1, "{error}");
    let mut report = crate::report::fixture::plain();
    report.schema = "highwater-load/0".into();
    json(&path, &report);
    let error = read(&[dir.path()]).unwrap_err().to_string();
    assert!(error.contains("highwater-load/0") && error.contains("highwater-load/1"), "{error}");
    let mut evidence = Evidence::default();
    evidence.add_directory(dir.path(), OtherVersion::Try).unwrap();
    assert_eq!(evidence.sources[0].schema, "highwater-load/0");
    // Another kind of file is not another version.
    report.schema = "something-else/1".into();
    json(&path, &report);
    assert!(Evidence::default().add_directory(dir.path(), OtherVersion::Try).is_err());
}

#[test]
fn a_directory_that_is_named_twice_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    json(&dir.path().join("s/search.json"), &search());
    let again = dir.path().join("s/../s");
    let evidence = read(&[&dir.path().join("s"), &again]).unwrap();
    assert_eq!((evidence.sources.len(), evidence.sustained.len()), (1, 1));
    assert!(evidence.left_out[0].contains("named more than once"), "{:?}", evidence.left_out);
}

#[test]
fn a_plan_is_written_as_json_text_and_a_page_that_fetches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    json(&dir.path().join("s/search.json"), &search());
    let mut evidence = read(&[&dir.path().join("s")]).unwrap();
    let [.., backlog] = crate::report::fixture::all();
    evidence.add_run("<backlog> & co", String::new(), &backlog.report, &backlog.samples);
    let demand = Demand { rate: backlog.report.backlog.unwrap().arrival_rate, ..asked() };
    let options = PlanOptions { force: true, ..PlanOptions::default() };
    let plan = plan(&evidence, &demand, &options).unwrap();
    let out = dir.path().join("plan");
    let files = write_plan(&out, &plan).unwrap();
    assert_eq!(files.len(), 3);
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("plan.json")).unwrap()).unwrap();
    assert_eq!(written["schema"], "highwater-plan/1");
    assert_eq!(written["answers"].as_array().unwrap().len(), 12);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for word in [
        "<svg",
        "prefers-color-scheme",
        "Latency by rate",
        "What waits for a group",
        "&lt;backlog&gt; &amp; co",
    ] {
        assert!(page.contains(word), "{word} is missing");
    }
    for word in ["<script", "http://", "https://", "<link", "NaN", "inf "] {
        assert!(!page.contains(word), "{word} is there");
    }
    let text = fs::read_to_string(out.join("report.md")).unwrap();
    assert!(text.contains("## Formulas") && text.contains("What was assumed"));
    // Again into its own directory, and not into another's.
    write_plan(&out, &plan).unwrap();
    fs::write(out.join("mine.txt"), "x").unwrap();
    let error = write_plan(&out, &plan).unwrap_err().to_string();
    assert!(error.contains("mine.txt"), "{error}");
}
