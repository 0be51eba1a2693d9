//! `highwater plan` and `highwater probe` from outside: runs in, verdicts out.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Server, highwater, refused, said, scratch, text};

/// `plan` with these words.
fn plan(args: &[&str]) -> Command {
    let mut command = highwater();
    command.arg("plan").args(args);
    command
}

fn planned(dir: &Path, args: &[&str]) -> Output {
    plan(args).current_dir(dir).output().unwrap()
}

#[track_caller]
fn json(dir: &Path, args: &[&str]) -> Value {
    let output = planned(dir, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_str(&text(&output)).unwrap()
}

#[track_caller]
fn verdict<'a>(plan: &'a Value, question: &str) -> &'a str {
    let answers = plan["answers"].as_array().unwrap();
    let answer = answers.iter().find(|answer| answer["question"] == question).unwrap();
    answer["verdict"].as_str().unwrap()
}

/// A run directory: 2,000 records of 100 B a second for a second, into an engine in the process.
fn run(dir: &Path, name: &str) {
    let args = ["load", "run", "-t", "embedded:data", "-r", "2k", "-d", "1s", "--warmup", "100ms"];
    let small = ["--size", "100", "--retention-bytes", "16MiB", "--seed", "7", "-o", name];
    let output = highwater().args(args).args(small).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // Whether generator and engine were late on this machine is not what is tested here.
    edit(dir, name, |report| {
        report["valid"] = true.into();
        report["void_reason"] = Value::Null;
        for rate in ["offered_rate", "records_per_s", "consumed_per_s"] {
            report[rate] = 2_000.0.into();
        }
    });
}

fn edit(dir: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let path = dir.join(name).join("run.json");
    let mut report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut report);
    std::fs::write(path, serde_json::to_vec(&report).unwrap()).unwrap();
}

#[test]
fn a_plan_over_a_run_answers_what_it_can_and_names_what_is_missing() {
    let dir = scratch();
    let path = dir.path();
    run(path, "run");
    let asked = ["--demand", "1k", "--peak", "1.2x/10s", "--retention", "1h", "--outage", "30s"];
    let output = planned(path, &[&["run"][..], &asked, &["-o", "plan"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let page = text(&output);
    for words in [
        "CAPACITY  1 shard, durable, 100 B records, 1 group    (run)",
        "average 1,000/s",
        "not measured: run (1) below",
        "  (1) ",
        "\n      highwater load backlog -r 1000 --outage 60s --groups 2 --shards 1 -t embedded:data --size 100 -o",
        "\n      highwater load sweep --vary ack=durable,written",
        "\n      highwater probe data --json",
        "demand / safe rate",
        "ASSUMED",
    ] {
        assert!(page.contains(words), "{words:?} is missing in\n{page}");
    }
    let report = std::fs::read_to_string(path.join("plan/report.html")).unwrap();
    assert!(report.contains("prefers-color-scheme") && !report.contains("<script"));
    assert!(path.join("plan/report.md").exists());
    let kept: Value =
        serde_json::from_slice(&std::fs::read(path.join("plan/plan.json")).unwrap()).unwrap();
    assert_eq!(kept["schema"], "highwater-plan/1");
    assert_eq!(kept["answers"].as_array().unwrap().len(), 12);
    assert_eq!(verdict(&kept, "headroom"), "fits");
    assert_eq!(verdict(&kept, "peak"), "fits");
    assert_eq!(verdict(&kept, "catch-up"), "not-measured");
    assert_eq!(kept["demand"]["rate"], 1000.0);
    // Lints of the machine are on the page: a debug build is one.
    assert!(kept["lints"].as_array().unwrap().iter().any(|lint| lint["name"] == "debug-build"));
    assert!(page.contains("debug-build") && report.contains("debug-build"));
}

#[test]
fn more_than_was_measured_is_not_extrapolated() {
    let dir = scratch();
    run(dir.path(), "run");
    let found = json(dir.path(), &["run", "--demand", "1M", "--peak", "3x/1h"]);
    assert_eq!(verdict(&found, "headroom"), "beyond-measured");
    assert_eq!(verdict(&found, "peak"), "beyond-measured");
    let page = text(&planned(dir.path(), &["run", "--demand", "1M"]));
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let beyond = "BEYOND MEASURED: nothing above 2,000 records/s was shown to hold, and nothing is extrapolated";
    assert!(words.contains(beyond), "{page}");
}

#[test]
fn where_nothing_counts_the_plan_says_so_and_ends_with_5() {
    let dir = scratch();
    run(dir.path(), "void");
    edit(dir.path(), "void", |report| {
        report["valid"] = false.into();
        report["void_reason"] = "the generator was late".into();
    });
    let output = planned(dir.path(), &["void", "--demand", "1k", "--json"]);
    refused(&output, 5, &["nothing that was measured counts", "the generator was late"]);
    // It is printed all the same: it says what to run.
    let found: Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(verdict(&found, "headroom"), "not-measured");
}

#[test]
fn what_would_be_measured_is_said_without_measuring_it() {
    let dir = scratch();
    let dry = ["--measure", "m", "--demand", "20k", "--groups", "3", "--dry-run"];
    let output = planned(dir.path(), &dry);
    assert!(output.status.success(), "{}", said(&output));
    for words in
        ["highwater probe m", "serve --data m/data", "load search", "--outage", "--vary shards="]
    {
        assert!(text(&output).contains(words), "{words:?} is missing in {}", text(&output));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    refused(&planned(dir.path(), &["--measure", "m"]), 2, &["--demand"]);
    let short = ["--measure", "m", "--demand", "1k", "--budget", "10s"];
    refused(&planned(dir.path(), &short), 2, &["--budget is 10 s", "60 to"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn runs_that_do_not_belong_together_are_named_and_not_mixed() {
    let dir = scratch();
    let path = dir.path();
    run(path, "a");
    run(path, "b");
    edit(path, "b", |report| report["environment"]["cpu_model"] = "another CPU".into());
    let mixed = ["a", "b", "--demand", "1k"];
    refused(&planned(path, &mixed), 2, &["cpu_model", "another CPU", "in b", "--force"]);
    let forced = json(path, &[&mixed[..], &["--force"]].concat());
    assert_eq!(forced["trust"]["verdict"], "poor");
    assert_eq!(forced["mixed"][0]["field"], "environment.cpu_model");

    edit(path, "b", |report| report["schema"] = "highwater-load/0".into());
    refused(&planned(path, &mixed), 2, &["b/run.json", "highwater-load/0", "highwater-load/1"]);
    assert!(planned(path, &[&mixed[..], &["--force"]].concat()).status.success());

    // What --force does not change is not said to be changed by it.
    edit(path, "b", |report| report["schema"] = "something/1".into());
    for more in [&[][..], &["--force"]] {
        let other = planned(path, &[&mixed[..], more].concat());
        refused(&other, 2, &["b/run.json", "something/1"]);
        assert!(!said(&other).contains("--force"), "{}", said(&other));
    }
}

#[test]
fn what_cannot_be_planned_with_is_refused() {
    let dir = scratch();
    let path = dir.path();
    std::fs::create_dir(path.join("empty")).unwrap();
    std::fs::write(path.join("text"), "no recording\n").unwrap();
    for (args, code, words) in [
        (
            &["empty", "--demand", "1k"][..],
            1,
            &["empty has no run.json, search.json or sweep.json"][..],
        ),
        (&["missing", "--demand", "1k"], 1, &["missing", "No such file"]),
        (&["text", "--demand", "1k"], 1, &["text", "neither a directory"]),
        (&["--demand", "1k"], 2, &["RUN"]),
        (&["empty", "--demand", "0"], 2, &["--demand", "more than 0"]),
        (&["empty", "--demand", "1k", "--peak", "2x"], 2, &["--peak", "2x/10m"]),
        (&["empty", "--demand", "1k", "--retention", "1"], 2, &["--retention"]),
        (&["empty", "--demand", "1k", "--skew", "0x"], 2, &["--skew"]),
    ] {
        refused(&planned(path, args), code, words);
    }
    run(path, "run");
    let file = planned(path, &["run/run.json", "--demand", "1k"]);
    refused(&file, 2, &["run/run.json alone", "give the directory"]);
    refused(&planned(path, &["run"]), 2, &["--demand is missing"]);
    refused(
        &planned(path, &["run", "--demand", "1k", "--peak", "0.5x/1s"]),
        2,
        &["--peak is 0.5", "1x to"],
    );
    // Its own run is not overwritten.
    refused(
        &planned(path, &["run", "--demand", "1k", "-o", "run"]),
        1,
        &["no earlier plan's directory"],
    );
}

#[test]
fn a_recording_brings_its_own_demand() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let file = dir.path().join("prod.rec");
    let load = ["load", "run", "-r", "2k", "-d", "4s", "--warmup", "100ms", "--size", "200"];
    let mut load = server.command(&load).spawn().unwrap();
    server.ok(&["record", "-o", file.to_str().unwrap(), "--duration", "3500ms"]);
    load.wait().unwrap();
    let found = json(dir.path(), &["prod.rec", "--retention", "1h"]);
    assert_eq!(found["demand"]["from"], "recorded in prod.rec");
    assert!(found["demand"]["rate"].as_f64().unwrap() > 0.0);
    assert_eq!(found["sources"][0]["kind"], "recording");
    assert_eq!(verdict(&found, "kinesis"), "known");
    assert_eq!(verdict(&found, "catch-up"), "not-measured");
    // The size of the disk is recorded.
    assert_ne!(verdict(&found, "retention"), "not-measured");
}

#[test]
fn a_probe_says_what_it_is_of() {
    let missing = highwater().args(["probe", "/nonexistent", "--json"]).output().unwrap();
    refused(&missing, 1, &["/nonexistent", "no such directory"]);
    let short = highwater().args(["probe", "/", "--for", "10ms"]).output().unwrap();
    refused(&short, 2, &["--for", "1s to 10m"]);
    // In memory: that is said. Half a gigabyte of it is needed for a moment.
    let shm = Path::new("/dev/shm");
    let space = rustix::fs::statvfs(shm).map(|fs| fs.f_bavail * fs.f_frsize).unwrap_or_default();
    if space < 1 << 30 {
        return;
    }
    let home = tempfile::tempdir_in(shm).unwrap();
    let probe =
        highwater().args(["probe", "--for", "1s", "--json"]).arg(home.path()).output().unwrap();
    assert!(probe.status.success(), "{}", said(&probe));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
    let found: Value = serde_json::from_str(&text(&probe)).unwrap();
    assert_eq!((&found["schema"], &found["volatile"]), (&"highwater-probe/1".into(), &true.into()));
    assert!(found["notes"].to_string().contains("VOLATILE"), "{}", found["notes"]);
    let dir = scratch();
    std::fs::write(dir.path().join("probe.json"), &probe.stdout).unwrap();
    let plan = json(dir.path(), &["--probe", "probe.json", "--demand", "1k"]);
    assert_eq!(verdict(&plan, "machine"), "known");
    assert_eq!(verdict(&plan, "headroom"), "not-measured");
}
