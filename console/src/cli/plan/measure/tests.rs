//! The steps: commands that can be typed, within the budget, on CPUs of their own.

use std::process::Command;

use clap::Parser as _;
use highwater_loadgen::search::controller::Outcome;
use highwater_loadgen::search::{
    Backlog, Block, Ended, Goal, Next, SEARCH_FILE, SEARCH_SCHEMA, Search, SearchFile,
    SearchResult, SearchSettings, Stage, Step, TrialRecord,
};
use highwater_loadgen::{Distribution, Environment, LoadOptions};

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
        let backlog = 8.0 + t.outage + t.drain();
        let all = t.probe + t.search + t.steady + 7.0 + backlog + sweeps + 5.0;
        assert!(all <= budget_s, "{all} of {budget_s} s");
        assert!((Times::budget_for(t.search) - budget_s).abs() < 1.0, "{budget_s}");
    }
}

/// A trial of a target that is never late, by a generator that cannot offer more than `limit`.
fn offered_up_to(limit: f64, step: &Step) -> Outcome {
    let records = (step.rate * step.seconds) as u64;
    Outcome {
        void: (step.rate > limit).then(|| "the generator was late".to_owned()),
        measured_s: step.seconds,
        // Setting up, and asking the readers whether they are done.
        spent_s: step.settle_s + step.seconds + 1.5,
        blocks: vec![Block { seconds: step.seconds, records, over: vec![0] }],
        backlog: Some(Backlog::default()),
        p99_us: 1e3,
    }
}

fn settings(budget_s: f64) -> SearchSettings {
    SearchSettings {
        goals: vec![Goal { of: "response.p99".into(), bound_us: 1e4, allowed: 0.01 }],
        stable: 0.005,
        budget_s,
        precision: 0.1,
        trial_s: (budget_s / 30.0).clamp(4.0, 30.0),
        start_rate: 10e3,
        max_rate: 1e9,
        seed: 1,
    }
}

/// Where one CPU is the server's and one the generator's, the generator may give out first: time alone then promises a rate.
#[test]
fn the_search_has_time_for_a_promise_where_the_generator_gives_out_first() {
    for limit in [15e3, 50e3, 100e3, 150e3, 300e3] {
        let mut search = Search::new(settings(Times::of(BUDGET_S).search));
        while let Next::Trial(step) = search.next() {
            search.record(offered_up_to(limit, &step));
        }
        let result = search.result();
        assert!(
            result.published_rate.is_some_and(|rate| rate > limit / 3.0),
            "{limit}: {result:?}"
        );
    }
}

/// A search of a server that keeps up with 20,000 a second, and at which `late` of the records are.
fn found(late: f64, answer: impl FnOnce(SearchResult) -> SearchResult) -> SearchFile {
    let trial = |number: u32, rate: f64, grows: f64| TrialRecord {
        number,
        stage: Stage::Ramp,
        dir: format!("trial-{number:03}"),
        started_ns: 1,
        rate,
        void_reason: None,
        measured_s: 4.0,
        spent_s: 5.0,
        drain_s: 0.1,
        offered_rate: rate,
        delivered_rate: rate * (1.0 - grows),
        bytes_per_s: rate * 1024.0,
        blocks: vec![Block {
            seconds: 4.0,
            records: (rate * 4.0) as u64,
            over: vec![(rate * 4.0 * late) as u64],
        }],
        measured_us: vec![None],
        backlog: Some(Backlog { growth: grows, significant: grows > 0.0, at_end: 0.0 }),
        response: Distribution::default(),
        propagation: Distribution::default(),
        generator_late_us: 10.0,
        generator_busy: None,
        delivered_seconds: None,
        steal: None,
        shard_skew: 1.0,
    };
    let void = Some("the generator was late".to_owned());
    let nothing = Search::new(settings(470.0)).result();
    SearchFile {
        schema: SEARCH_SCHEMA.into(),
        command: vec![],
        target: "h:1".into(),
        server: "0.1.0".into(),
        started_ns: 1,
        spent_s: 470.0,
        settings: settings(470.0),
        load: LoadOptions::default(),
        shards: 1,
        groups: 1,
        ack: "durable".into(),
        mean_payload_bytes: 1024.0,
        environment: Environment::default(),
        lints: vec![],
        trials: vec![
            trial(1, 10e3, 0.0),
            trial(2, 20e3, 0.0),
            trial(3, 40e3, 0.3),
            TrialRecord { void_reason: void, ..trial(4, 30e3, 0.0) },
        ],
        result: Some(answer(nothing)),
    }
}

/// A program that keeps the words it is started with in `calls`, leaves `found` where a search is asked for, and ends that
/// with `code`. Asked to record, it does until it is interrupted, or fails at once while there is a file `full`; what is
/// recorded begins when that does.
fn pretending(dir: &Path, found: &SearchFile, code: i32) -> PathBuf {
    let kept = dir.join("found.json");
    fs::write(&kept, serde_json::to_vec(found).unwrap()).unwrap();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = record ]; then [ ! -e '{0}/full' ] || exit 1\n\
         trap 'rm \"$5.on\"; exit 0' INT; : >\"$5\"; : >\"$5.on\"; while :; do sleep 0.01; done; fi\n\
         echo \"$*\" >>'{0}/calls'\nkind=$2\n\
         case $kind in run|backlog) until [ -e '{0}/m/{RECORDING}.on' ] || [ -e '{0}/full' ]; do sleep 0.01; done; esac\n\
         while [ $# -gt 0 ]; do [ \"$1\" != -o ] || mkdir -p \"$2\"; [ \"$1\" != -o ] || out=$2; shift; done\n\
         [ \"$kind\" = search ] || exit 0\ncp '{1}' \"$out/{SEARCH_FILE}\"\nexit {code}\n",
        dir.display(),
        kept.display()
    );
    fs::write(dir.join("script"), script).unwrap();
    let program = dir.join("program");
    // By another process: a file this one has open for writing, in whatever thread, cannot be started.
    let (mut install, script) = (Command::new("install"), dir.join("script"));
    let made = install.args(["-m", "755"]).arg(script).arg(&program).status().unwrap();
    assert!(made.success());
    program
}

/// Whatever a search found, and if it found nothing, everything else is measured: the plan has gaps, but there is one.
#[test]
fn a_search_without_a_rate_does_not_end_the_measurement() {
    let open = |result: SearchResult| SearchResult { needs_s: Some(120.0), ..result };
    let ended = |ended| move |result: SearchResult| SearchResult { ended, ..result };
    let all_void = {
        let mut file = found(0.0, ended(Ended::Void));
        file.trials.iter_mut().for_each(|trial| trial.void_reason = Some("late".into()));
        file
    };
    let published = |result: SearchResult| SearchResult { published_rate: Some(18e3), ..result };
    for (found, code, rate) in [
        (found(0.0, published), 0, 12_600),
        // 70 % of what was kept up.
        (found(0.0, open), 5, 14_000),
        (found(0.5, ended(Ended::Unreachable)), 1, 14_000),
        // Nothing is known: what is asked for.
        (all_void, 5, 20_000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let job = Job { dir: dir.path().join("m"), ..job(&[0, 1]) };
        fs::create_dir(&job.dir).unwrap();
        let program = pretending(dir.path(), &found, code);
        let (stop, mut done) = (Stop::new(), Done::open(&job.dir.join(DONE)).unwrap());
        let mut worker = Worker { job: &job, program: &program, stop: &stop, done: &mut done };
        worker.against("h:1").unwrap();
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        let kinds: Vec<&str> = calls.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(kinds, ["search", "run", "backlog", "sweep", "sweep", "sweep"], "{calls}");
        let at = format!(" -r {rate} ");
        assert_eq!(calls.matches(&at).count(), 4, "{rate}: {calls}");
        // All of them read as much as the search did.
        assert_eq!(calls.matches(" --groups 3").count(), 6, "{calls}");
    }
}

/// One that was interrupted has no answer, and goes on the next time.
#[test]
fn a_search_that_was_not_finished_ends_the_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job { dir: dir.path().join("m"), ..job(&[0, 1]) };
    fs::create_dir(&job.dir).unwrap();
    let file = SearchFile { result: None, ..found(0.0, |result| result) };
    let program = pretending(dir.path(), &file, 1);
    let (stop, mut done) = (Stop::new(), Done::open(&job.dir.join(DONE)).unwrap());
    let mut worker = Worker { job: &job, program: &program, stop: &stop, done: &mut done };
    let said = worker.against("h:1").unwrap_err().to_string();
    assert!(said.contains("load search") && said.contains("goes on where it was"), "{said}");
    assert!(!worker.done.has(&job.search("h:1")));
}

/// A step was done though nothing was recorded: no later try made up for it, and the plan ended at the missing file.
#[test]
fn a_step_without_its_recording_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job { dir: dir.path().join("m"), ..job(&[0, 1]) };
    fs::create_dir(&job.dir).unwrap();
    let file = found(0.0, |result| SearchResult { published_rate: Some(18e3), ..result });
    let program = pretending(dir.path(), &file, 0);
    let (stop, mut done) = (Stop::new(), Done::open(&job.dir.join(DONE)).unwrap());
    let mut worker = Worker { job: &job, program: &program, stop: &stop, done: &mut done };
    let runs = || {
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        calls.lines().filter(|line| line.starts_with("load run ")).count()
    };
    fs::write(dir.path().join("full"), "").unwrap();
    let said = worker.against("h:1").unwrap_err().to_string();
    assert!(said.contains("the recorder failed") && said.contains("record -t h:1"), "{said}");
    assert_eq!(runs(), 1);
    fs::remove_file(dir.path().join("full")).unwrap();
    worker.against("h:1").unwrap();
    assert_eq!(runs(), 2);
    worker.against("h:1").unwrap();
    assert_eq!(runs(), 2, "all is done");
    fs::remove_file(job.dir.join(RECORDING)).unwrap();
    worker.against("h:1").unwrap();
    assert_eq!(runs(), 3, "the recording is missing");
}

/// What is noted replaces what was, whole: an address that is cut short is one to listen on, too.
#[test]
fn what_is_done_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (path, before) = (dir.path().join(DONE), dir.path().join("before"));
    let mut done = Done::open(&path).unwrap();
    done.at("127.0.0.1:4711").unwrap();
    fs::hard_link(&path, &before).unwrap();
    done.add(&job(&[0, 1]).probe()).unwrap();
    assert_eq!(fs::read_to_string(before).unwrap(), "server 127.0.0.1:4711\n");
    assert!(Done::open(&path).unwrap().has(&job(&[0, 1]).probe()));
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
