//! The load generator, the figures and the demo.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{Server, highwater, said, scratch, text};

#[test]
fn a_load_run_reports_what_it_found() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let args = ["load", "run", "-r", "2k", "-d", "2s", "--size", "1KiB", "--shards", "2"];
    let run = server.run(&[&args[..], &["--warmup", "200ms", "--json", "-"]].concat());
    assert!(run.status.success(), "{}", said(&run));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    for count in ["lost", "duplicated", "reordered"] {
        assert_eq!(report[count], 0, "{count}");
    }
    assert_eq!(report["consumed_records"], report["acked_records"]);
    let records = report["acked_records"].as_u64().unwrap();
    assert!((1..=4_001).contains(&records), "{records}");
    assert!(report["records_per_s"].as_f64().unwrap() > 0.0);
    assert!(report["bytes_per_s"].as_f64().unwrap() > 0.0);
    for latency in ["response", "propagation"] {
        let of = |name: &str| report["latency_us"][latency][name].as_f64().unwrap();
        assert!(0.0 < of("p50") && of("p50") <= of("p99"), "{latency}");
        assert!(of("p99") <= of("p999") && of("p999") <= of("max"), "{latency}");
    }
    assert!(
        said(&run).contains("highwater load run -t "),
        "all settings are echoed: {}",
        said(&run)
    );
    assert!(said(&run).contains("--arrival constant"), "{}", said(&run));
}

#[test]
fn closed_loop_saturation_and_no_consumers() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let run = |more: &[&str]| {
        let args = ["load", "run", "-d", "500ms", "--warmup", "0s", "--size", "100", "--json", "-"];
        server.json(&[&args[..], more].concat())
    };
    let closed = run(&["--clients", "3"]);
    assert_eq!((&closed["mode"], &closed["lost"]), (&"closed".into(), &0.into()));
    let saturating = run(&["-r", "max", "--producers", "2"]);
    assert_eq!((&saturating["unknown"], &saturating["errors"]), (&0.into(), &0.into()));
    assert_eq!((&saturating["mode"], &saturating["lost"]), (&"saturating".into(), &0.into()));
    assert_eq!(run(&["-r", "1k", "--consumers", "0"])["checked"], false);
    assert_eq!(run(&["-r", "1k", "--ack", "written", "--arrival", "poisson"])["reordered"], 0);
}

#[test]
fn an_slo_sets_the_exit_code() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let args = ["load", "run", "-r", "500", "-d", "500ms", "--warmup", "0s", "--size", "100"];
    let missed = server.run(&[&args[..], &["--slo", "max=1ns"]].concat());
    // 5 if this machine was too busy to measure.
    assert!(matches!(missed.status.code(), Some(1 | 5)), "{}", said(&missed));
    let met = server.run(&[&args[..], &["--slo", "propagation.max=1h"]].concat());
    assert!(matches!(met.status.code(), Some(0 | 5)), "{}", said(&met));
    assert!(text(&met).contains("propagation"), "{}", text(&met));
}

#[test]
fn top_once_measures_and_says_when_it_cannot() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let measured = server.json(&["top", "--once", "--json"]);
    for name in ["tps_in", "tps_out", "bytes_in_per_s", "bytes_out_per_s"] {
        assert_eq!(measured[name], 0.0, "{name}");
    }
    assert!(measured["propagation_us"]["p99"].is_number() && measured["groups"].is_array());
    assert!(measured["sample_age_s"].as_f64().unwrap() >= 0.0);
    let text_form = String::from_utf8(server.ok(&["top", "--once"])).unwrap();
    assert!(text_form.contains("TPS in"), "{text_form}");
    let no_terminal = server.run(&["top"]);
    assert_eq!(no_terminal.status.code(), Some(2));
    let addr = server.addr.clone();
    drop(server);
    let gone = highwater().args(["top", "--once", "--json", "-t", &addr]).output().unwrap();
    assert_eq!(gone.status.code(), Some(5), "{}", said(&gone));
    assert!(gone.stdout.is_empty());
}

#[test]
fn metrics_are_served() {
    let dir = scratch();
    let args = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let server = Server::start_with(&dir.path().join("data"), &args);
    server.create("seen", 1);
    assert!(server.put("seen", b"a\nb\n", &[]).status.success());
    server.ok(&["tail", "seen", "--group", "g", "--limit", "1"]);
    let said = server.said();
    let line =
        said.lines().find_map(|l| l.strip_prefix("metrics on http://")).expect("its address");
    let (addr, path) = line.split_once('/').unwrap();
    let get = || {
        let mut stream = TcpStream::connect(addr).unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let mut answer = String::new();
    crate::support::until(|| {
        answer = get();
        answer.contains("stream=\"seen\"") && answer.contains("group=\"g\"")
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for series in ["records", "bytes", "propagation", "write", "backlog"] {
        assert!(
            answer.lines().any(|l| !l.starts_with('#') && l.contains(series)),
            "{series}:\n{answer}"
        );
    }
}

#[test]
fn the_demo_runs_without_a_terminal() {
    let dir = scratch();
    let args = ["demo", "--duration", "3s", "--rate", "1k"];
    let demo = highwater().args(args).current_dir(dir.path()).output().unwrap();
    assert!(demo.status.success(), "{}\n{}", text(&demo), said(&demo));
    assert!(text(&demo).contains("lost 0 duplicated 0 reordered 0"), "{}", text(&demo));
    assert!(text(&demo).lines().filter(|l| l.contains("propagation p50")).count() >= 2);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its data is gone");
}

#[test]
fn the_demo_stops_and_cleans_up_on_sigterm() {
    use std::io::BufRead as _;
    let dir = scratch();
    let mut demo = highwater()
        .args(["demo", "--duration", "1h", "--rate", "500", "--shards", "1"])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines =
        std::io::BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().is_some());
    let pid = rustix::process::Pid::from_raw(demo.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains("lost 0 duplicated 0 reordered 0")));
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its data is gone");
}
