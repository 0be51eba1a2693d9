//! `highwater load search`, `sweep` and `compare --abba` from outside: refusals, interruption, what is kept.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{highwater, refused, said, scratch, text};

fn load(args: &[&str]) -> Command {
    let mut command = highwater();
    command.arg("load").args(args);
    command
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_cannot_be_searched_is_refused_with_field_value_and_limit() {
    for (args, words) in [
        (&["search", "--slo", "max=5ms"][..], &["--slo max=5ms", "percentile"][..]),
        (&["search", "--slo", "p99=10"], &["--slo", "p99=10ms"]),
        (&["search", "-r", "max"], &["--rate max", "first trial"]),
        (&["search", "--clients", "2"], &["--clients", "closed loop"]),
        (&["search", "--budget", "5s"], &["--budget", "5 s", "20 to"]),
        (&["search", "-d", "1m", "--budget", "2m"], &["--duration", "60 s", "2 to 12 s"]),
        (&["search", "--precision", "0%"], &["--precision", "0.01 to 1"]),
        (&["search", "--warmup", "5s"], &["--warmup", "--budget"]),
        (
            &["search", "--slo", "propagation.p99=1ms", "--consumers", "0"],
            &["propagation", "consumers"],
        ),
        (&["sweep", "--vary", "shards=1,2"], &["--output"]),
        (&["sweep", "-o", "x", "--vary", "shard=1"], &["shard", "shards"]),
        (&["sweep", "-o", "x", "--vary", "ack=never"], &["--vary", "never", "durable"]),
        (&["sweep", "-o", "x", "--vary", "shards=0"], &["--shards", "0"]),
        (&["sweep", "-o", "x", "--vary", "size=1K", "--vary", "size=2K"], &["size", "twice"]),
        (
            &["sweep", "-o", "x", "--vary", "shards=1,2", "--budget", "10s", "--dry-run"],
            &["--budget", "10 s", "20 to"],
        ),
        (
            &["sweep", "-o", "x", "--vary", "consumers=0,1", "--slo", "propagation.p99=1ms"],
            &["propagation", "consumers"],
        ),
        // What would be ignored is refused.
        (
            &["sweep", "-o", "x", "--vary", "shards=1,2", "-r", "10k", "--budget", "60s"],
            &["--budget", "searches", "rate"],
        ),
        (&["sweep", "-o", "x", "--vary", "rate=1k,2k", "--precision", "5%"], &["--precision"]),
        (&["sweep", "-o", "x", "--vary", "rate=1k,2k", "--slo", "p99=1ms"], &["--slo"]),
        (&["compare", "a", "b", "-r", "5k"], &["--rate", "--abba"]),
        (&["compare", "a", "b", "--delete-stream"], &["--delete-stream", "--abba"]),
        (&["compare", "--abba", "null", "null"], &["--output"]),
        (&["compare", "--abba", "null", "no/such", "-o", "x"], &["no/such", "no program"]),
        (
            &["compare", "--abba", "null", "null", "-o", "x", "--pairs", "1"],
            &["--pairs", "1", "2 to"],
        ),
    ] {
        refused(&load(args).output().unwrap(), 2, words);
    }
}

/// Without an end in sight it took all memory: 25.6 thousand million points.
#[test]
fn a_grid_that_is_too_large_is_counted_and_not_made() {
    let numbers: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    let names = "batch connections groups inflight keys producers shards streams";
    let vary = names.split(' ').map(|name| format!("--vary={name}={}", numbers.join(",")));
    let grid = load(&["sweep", "-o", "x", "--dry-run"]).args(vary).output().unwrap();
    refused(&grid, 2, &["--vary", "25,600,000,000 points", "at most 1000"]);
}

#[test]
fn dry_runs_of_searches_and_sweeps_touch_nothing() {
    let dry =
        load(&["search", "--slo", "p99=10ms", "--budget", "8m", "--dry-run"]).output().unwrap();
    assert!(dry.status.success(), "{}", said(&dry));
    for word in
        ["load search", "--budget 8m", "-d 16s", "response.p99 within 10", "nothing was sent"]
    {
        assert!(text(&dry).contains(word), "{word:?} is missing in {}", text(&dry));
    }
    let args =
        ["sweep", "--vary", "shards=1,2,4", "--vary", "size=100,1KiB", "-o", "x", "--dry-run"];
    let dry = load(&args).output().unwrap();
    assert!(dry.status.success(), "{}", said(&dry));
    assert!(text(&dry).contains("6, at most 8m00s each, 48m00s in all"), "{}", text(&dry));
}

/// Stopped in its second trial, it keeps the first, refuses to go on with something else, and goes on with the same.
#[test]
fn an_interrupted_search_goes_on_where_it_was() {
    let root = scratch();
    let dir = root.path().join("search");
    let args = |more: &[&'static str]| {
        let mut args =
            vec!["search", "-t", "null", "-r", "300", "--max-rate", "600", "--slo", "p99=1s"];
        args.extend(["--budget", "26s", "-d", "2s", "--size", "100", "-o", dir.to_str().unwrap()]);
        args.extend(more);
        load(&args)
    };
    let mut first =
        args(&["--view", "lines"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    let second = lines.find(|line| line.as_ref().unwrap().starts_with("trial   2"));
    assert!(second.is_some(), "no second trial");
    kill_process(Pid::from_child(&first), Signal::INT).unwrap();
    lines.for_each(drop);
    assert_eq!(first.wait().unwrap().code(), Some(1));
    let kept = json(&dir.join("search.json"));
    assert_eq!(kept["schema"], "highwater-search/1");
    assert_eq!((kept["trials"].as_array().unwrap().len(), &kept["result"]), (1, &Value::Null));
    let trial = &kept["trials"][0];
    assert!(dir.join(trial["dir"].as_str().unwrap()).join("run.json").exists());

    refused(
        &args(&["--shards", "2"]).output().unwrap(),
        2,
        &["load.shards was 1 there and is 2 now"],
    );
    let other = args(&["--stable", "1%"]).output().unwrap();
    refused(&other, 2, &["settings.stable"]);
    assert!(
        !said(&other).contains("goes on after"),
        "one that is refused does not: {}",
        said(&other)
    );

    let done = args(&["--view", "none", "--json"]).output().unwrap();
    // On a busy machine every trial may be void.
    assert!(matches!(done.status.code(), Some(0 | 5)), "{}", said(&done));
    let found = json(&dir.join("search.json"));
    assert_eq!(found["trials"][0], *trial, "the first trial is the first trial");
    assert!(found["trials"].as_array().unwrap().len() > 1);
    assert!(found["result"]["goals"].as_array().unwrap().len() == 2, "{}", found["result"]);
    let printed: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(printed["result"], found["result"]);
    let html = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(!html.contains("<script") && !html.contains("http"), "one file, offline");
    assert!(std::fs::read_to_string(dir.join("report.md")).unwrap().contains("## Trials"));
    // Of a search that is done there is nothing to do again.
    let trials = found["trials"].as_array().unwrap().len();
    let again = args(&["--view", "none"]).output().unwrap();
    assert_eq!(again.status.code(), done.status.code(), "{}", said(&again));
    assert!(said(&again).contains("is done, with"), "{}", said(&again));
    assert_eq!(json(&dir.join("search.json"))["trials"].as_array().unwrap().len(), trials);
    // Its reports can be written again, as those of a run.
    std::fs::remove_file(dir.join("report.html")).unwrap();
    let report = load(&["report", dir.to_str().unwrap()]).output().unwrap();
    assert!(report.status.success(), "{}", said(&report));
    assert_eq!(std::fs::read_to_string(dir.join("report.html")).unwrap(), html);
}

#[test]
fn a_sweep_keeps_every_point_and_measures_none_twice() {
    let root = scratch();
    let dir = root.path().join("sweep");
    let sweep = |vary: &str| {
        let mut args = vec!["sweep", "-t", "null", "-r", "500", "-d", "1s", "--warmup", "100ms"];
        args.extend(["--vary", vary, "--vary", "ack=durable,written", "-o", dir.to_str().unwrap()]);
        load(&args).output().unwrap()
    };
    let first = sweep("shards=1,2");
    assert!(matches!(first.status.code(), Some(0 | 5)), "{}", said(&first));
    let kept = json(&dir.join("sweep.json"));
    assert_eq!(kept["schema"], "highwater-sweep/1");
    let points = kept["points"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    for point in points {
        assert_eq!(point["done"], true, "{point}");
        assert_eq!(point["shards"].to_string(), point["settings"][0]["value"].as_str().unwrap());
        assert_eq!(point["ack"], point["settings"][1]["value"]);
        assert!(dir.join(point["dir"].as_str().unwrap()).join("run.json").exists());
    }
    assert!(dir.join("report.html").exists());
    let again = sweep("shards=1,2");
    assert_eq!(again.status.code(), first.status.code(), "{}", said(&again));
    assert_eq!(json(&dir.join("sweep.json"))["points"], kept["points"]);
    refused(&sweep("shards=1,2,4"), 2, &["sweep.vary"]);
}

/// Two seconds a side have no interval, so nothing can be said; but the runs were made, in turn.
#[test]
fn runs_in_turn_are_compared_together() {
    let root = scratch();
    let dir = root.path().join("runs");
    let out = dir.to_str().unwrap();
    let args =
        ["compare", "--abba", "null", "null:service=1ms", "--pairs", "2", "-r", "500", "-d", "1s"];
    let more = ["--warmup", "100ms", "-o", out, "--json"];
    let found = load(&[&args[..], &more].concat()).output().unwrap();
    refused(&found, 4, &["cannot tell"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["verdict"], "cannot-tell");
    for run in ["run-001-A", "run-002-B", "run-003-B", "run-004-A"] {
        assert!(dir.join(run).join("run.json").exists(), "{run}");
    }
}
