//! `highwater load` from outside: what it refuses, what it reports, how it ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Server, highwater, refused, said, scratch, text};

/// `load` with these words, at no target in particular.
fn load(args: &[&str]) -> Command {
    let mut command = highwater();
    command.arg("load").args(args);
    command
}

#[test]
fn what_cannot_be_asked_for_is_refused_before_anything_is_tried() {
    for (args, words) in [
        (&["run", "-r", "0"][..], &["--rate", "0 records per second", "more than 0"][..]),
        (&["run", "-r", "max", "--arrival", "poisson"], &["--arrival", "poisson", "max"]),
        (&["run", "--groups", "3", "--consumers", "2"], &["--consumers", "2", "3 groups"]),
        (&["run", "--clients", "2", "--batch", "1K"], &["--clients", "--batch"]),
        (&["run", "-w", "iott"], &["--workload", "iott", "iot"]),
        (&["run", "-w", "nowhere.toml"], &["--workload", "nowhere.toml", "No such file"]),
        (&["run", "--trace", "nowhere"], &["nowhere", "No such file"]),
        (&["burst", "--on", "2s", "--every", "1s"], &["--on", "2s of every 1s"]),
        (&["backlog", "--paused-groups", "2"], &["--paused-groups", "2"]),
        (&["run", "-t", "null:stall=2s/1s"], &["--target", "stall"]),
        (&["compare", "a", "b", "--margin", "300%"], &["--margin", "100%"]),
    ] {
        refused(&load(args).output().unwrap(), 2, words);
    }
}

#[test]
fn a_workload_file_is_checked_field_by_field() {
    let dir = scratch();
    let file = dir.path().join("w.toml");
    let run = |content: &str, more: &[&str]| {
        std::fs::write(&file, content).unwrap();
        let args = ["run", "-w", file.to_str().unwrap(), "--dry-run"];
        load(&[&args[..], more].concat()).output().unwrap()
    };
    refused(&run("raet = 5\n", &[]), 2, &["w.toml", "raet", "rate"]);
    let good = run("rate = 500\nduration = \"7s\"\nsize = 200\n", &[]);
    assert!(good.status.success(), "{}", said(&good));
    assert!(text(&good).contains("-r 500 -d 7s"), "{}", text(&good));
    let over = run("rate = 500\nduration = \"7s\"\n", &["-r", "600"]);
    assert!(text(&over).contains("-r 600 -d 7s"), "{}", text(&over));
}

#[test]
fn a_dry_run_says_what_it_would_do_and_touches_nothing() {
    let args = ["backlog", "-t", "127.0.0.1:1", "--outage", "5s", "-d", "10s", "--dry-run"];
    let dry = load(&args).output().unwrap();
    assert!(dry.status.success(), "{}", said(&dry));
    for word in ["highwater load backlog -t 127.0.0.1:1", "5s outage", "nothing was sent"] {
        assert!(text(&dry).contains(word), "{word}: {}", text(&dry));
    }
}

#[test]
fn a_target_that_is_not_there_is_named() {
    let gone = load(&["run", "-t", "127.0.0.1:1", "-d", "1s"]).output().unwrap();
    refused(&gone, 1, &["127.0.0.1:1", "connecting"]);
}

#[test]
fn records_over_the_servers_limit_are_refused() {
    let dir = scratch();
    let args = ["--listen", "127.0.0.1:0", "--max-record", "4KiB"];
    let server = Server::start_with(&dir.path().join("data"), &args);
    let run = server.run(&["load", "run", "--size", "8KiB", "-d", "1s"]);
    refused(&run, 2, &["--workload", "8192", "4096"]);
}

#[test]
fn a_report_has_every_field_it_promises() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let args = ["load", "run", "-r", "2k", "-d", "1s", "--warmup", "200ms", "--size", "100"];
    let report = server.json(&[&args[..], &["--seed", "7", "--json", "-"]].concat());
    assert_eq!((&report["schema"], &report["seed"]), (&"highwater-load/1".into(), &7.into()));
    for count in ["lost", "duplicated", "reordered", "corrupted", "refused", "errors", "unknown"] {
        assert_eq!(report[count], 0, "{count}");
    }
    for number in ["offered_rate", "achieved_rate", "records_per_s", "bytes_per_s", "trimmed"] {
        assert!(report[number].is_number(), "{number}");
    }
    assert!(report["valid"].is_boolean());
    assert_eq!(report["valid"].as_bool().unwrap(), report["void_reason"].is_null());
    let names = ["response", "propagation", "send_lag", "service", "visibility", "delivery"];
    for latency in names {
        for field in ["p50", "p90", "p99", "p999", "p9999", "max", "count"] {
            assert!(report["latency_us"][latency][field].is_number(), "{latency}.{field}");
        }
    }
    assert_eq!(report["arrivals"]["intended_c2"], 0.0);
    let command: Vec<&str> =
        report["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(command[..3], ["highwater", "load", "run"]);
    assert!(command.contains(&"--drain-timeout"));
}

/// 2,000 records a second for a second into an engine in the same process.
fn embedded(dir: &Path, target: &str, more: &[&str]) -> Output {
    let args = ["run", "-t", target, "-r", "2k", "-d", "1s", "--warmup", "100ms", "--json", "-"];
    let small = ["--size", "100", "--retention-bytes", "16MiB", "--stream", "s"];
    load(&[&args[..], &small, more].concat()).current_dir(dir).output().unwrap()
}

#[test]
fn an_embedded_run_goes_from_end_to_end() {
    let dir = scratch();
    let path = dir.path();
    let run = embedded(path, "embedded:a/data", &["--shards", "2", "--groups", "2", "-o", "run"]);
    assert!(run.status.success(), "{}", said(&run));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&report["lost"], &report["checked"]), (&0.into(), &true.into()));
    let (acked, read) = (&report["acked_records"], &report["consumed_records"]);
    assert_eq!(2 * acked.as_u64().unwrap(), read.as_u64().unwrap());
    for name in ["run.json", "samples.jsonl", "latency.hlog", "report.md", "report.html"] {
        assert!(path.join("run").join(name).metadata().unwrap().len() > 0, "{name}");
    }
    // The data is what an engine leaves.
    let inspect = highwater().args(["inspect", "a/data", "--json"]).current_dir(path).output();
    let inspected: Value = serde_json::from_slice(&inspect.unwrap().stdout).unwrap();
    assert_eq!(inspected["records"], report["checked_records"]);

    std::fs::remove_file(path.join("run/report.md")).unwrap();
    let again = load(&["report", "run"]).current_dir(path).output().unwrap();
    assert!(again.status.success() && text(&again).contains("response"), "{}", said(&again));
    assert!(path.join("run/report.md").exists());
    // A second says nothing about a difference of 3 %.
    let compared = load(&["compare", "run", "run"]).current_dir(path).output().unwrap();
    refused(&compared, 4, &["cannot tell"]);
    let missing = load(&["compare", "run", "nowhere"]).current_dir(path).output().unwrap();
    refused(&missing, 1, &["nowhere"]);
    // Not over somebody's files.
    let into = embedded(path, "null", &["-o", "a"]);
    refused(&into, 2, &["--output", "data"]);
}

#[test]
fn a_temporary_engine_leaves_nothing_behind() {
    let dir = scratch();
    let run = embedded(dir.path(), "embedded", &[]);
    assert!(run.status.success(), "{}", said(&run));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_under_the_run_directory_does_not_stop_the_run() {
    let dir = scratch();
    // No file may grow beyond a few KiB: what a full file system says, without needing one. The signal that
    // comes with it is ignored, so that writes fail instead.
    let script = "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\"";
    let mut run = Command::new("sh");
    run.args(["-c", script, env!("CARGO_BIN_EXE_highwater")]);
    run.args(["load", "run", "-t", "null", "-r", "1k", "-d", "2s", "--warmup", "0s"]);
    let run = run.args(["-o", "run", "--json", "-"]).current_dir(dir.path()).output().unwrap();
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(report["acked_records"].as_u64().unwrap() > 0);
    refused(&run, 1, &["run/", "too large"]);
}

#[test]
fn the_first_interrupt_ends_the_load_and_the_second_the_wait() {
    // Nothing is ever answered: the drain would last as long as its timeout.
    let mut run = load(&["run", "-t", "null:service=1h", "-r", "1k", "-d", "1h", "--warmup", "0s"])
        .args(["--target-timeout", "1h", "--drain-timeout", "1h", "--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(run.id() as i32).unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("measure")));
    kill_process(pid, Signal::INT).unwrap();
    assert!(lines.any(|line| line.contains("drain")));
    kill_process(pid, Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    let output = run.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    assert!(report["unknown"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(output.status.code(), Some(1), "nothing was measured: {rest:?}");
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let args = ["load", "run", "-r", "1k", "-d", "1h", "--warmup", "0s", "--size", "100"];
    let mut run = server.begin(&[&args[..], &["--json", "-"]].concat());
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("measure")));
    let pid = Pid::from_raw(run.id() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    lines.by_ref().for_each(drop);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["interrupted"], &report["lost"]), (&true.into(), &0.into()));
    assert_eq!(report["consumed_records"], report["acked_records"]);
}

#[test]
fn check_says_whether_the_generator_can() {
    let args = ["check", "-r", "100", "-d", "200ms", "--size", "100", "--json"];
    let check = load(&args).output().unwrap();
    // 1 if this machine was too busy even for that.
    assert!(matches!(check.status.code(), Some(0 | 1)), "{}", said(&check));
    let report: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(report["schema"], "highwater-check/1");
    assert_eq!(report["ok"].as_bool().unwrap(), check.status.success());
    assert!(report["ceiling_records_per_s"].as_f64().unwrap() > 0.0);
    let more = load(&["check", "-r", "1G", "-d", "200ms"]).output().unwrap();
    refused(&more, 1, &["2,000,000,000"]);
}
