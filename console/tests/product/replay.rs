//! A recorded stream again: into a stream, a file and a pipe, in order, at its pace; and as the trace of a load run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::support::{Server, refused, said, scratch, text};

/// Records `range` as lines of JSON with `keys` keys, a header, and a second between one timestamp and the next.
fn lines(range: std::ops::Range<u64>, keys: u64) -> String {
    let line = |n: u64| {
        format!(
            "{{\"key\":\"k{}\",\"timestamp\":\"2026-01-01T00:{:02}:{:02}Z\",\"headers\":[{{\"name\":\"n\",\"value\":\"{n}\"}}],\
             \"payload\":\"record {n}\"}}\n",
            n % keys,
            n / 60 % 60,
            n % 60,
        )
    };
    range.map(line).collect()
}

/// The records of lines of JSON: what a replay has to keep of each, by key in order.
fn by_key(lines: &[u8]) -> BTreeMap<String, Vec<(Value, Value, Value)>> {
    let mut keys: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for line in std::str::from_utf8(lines).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let kept = ["timestamp", "headers", "payload"].map(|field| record[field].clone());
        keys.entry(record["key"].as_str().unwrap().to_owned()).or_default().push(kept.into());
    }
    keys
}

fn parsed(lines: &[u8], field: &str) -> Vec<Value> {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()[field].clone()).collect()
}

/// When the records of lines of JSON arrived.
fn arrivals(lines: &[u8]) -> Vec<Timestamp> {
    let arrivals = parsed(lines, "arrival");
    arrivals.iter().map(|at| at.as_str().unwrap().parse().unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn a_stream_that_was_split_and_merged_comes_again_whole_and_in_order() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    for (shards, range) in [("5", 0..500), ("3", 500..1_000), ("3", 1_000..1_500)] {
        let put = server.put("s", lines(range, 20).as_bytes(), &["--format", "records"]);
        assert!(put.status.success(), "{}", said(&put));
        server.ok(&["stream", "reshard", "s", "--shards", shards]);
    }
    let original = by_key(&server.ok(&["tail", "s", "--format", "json"]));
    assert_eq!(original.values().map(Vec::len).sum::<usize>(), 1_500);
    // Into a stream of another form,
    server.create("copy", 4);
    let done = server.json(&["replay", "s", "--speed", "max", "--to", "copy", "--json"]);
    assert_eq!((&done["records"], &done["to"]), (&1_500.into(), &"copy".into()));
    assert_eq!(done["lateness_ms"], Value::Null);
    assert_eq!(by_key(&server.ok(&["tail", "copy", "--format", "json"])), original);
    // through a pipe, by arrival over all shards,
    let piped = server.run(&["replay", "s", "--speed", "max"]);
    assert!(
        piped.status.success() && said(&piped).contains("replayed 1,500 records"),
        "{}",
        said(&piped)
    );
    assert_eq!(by_key(&piped.stdout), original);
    assert!(arrivals(&piped.stdout).is_sorted());
    // and into a file and back.
    let file = dir.path().join("kept.jsonl");
    server.ok(&["replay", "s", "--speed", "max", "--to", file.to_str().unwrap()]);
    assert_eq!(std::fs::read(&file).unwrap(), piped.stdout);
    server.create("back", 1);
    let args = ["put", "back", "--format", "records", "--file", file.to_str().unwrap()];
    assert!(String::from_utf8_lossy(&server.ok(&args)).contains("stored 1,500 records"));
    assert_eq!(by_key(&server.ok(&["tail", "back", "--format", "json"])), original);
}

#[test]
fn records_come_at_their_pace_and_never_early() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 3);
    // 100 s by their timestamps.
    let put = server.put("s", lines(0..101, 101).as_bytes(), &["--format", "records"]);
    assert!(put.status.success(), "{}", said(&put));
    let replay = ["replay", "s", "--by", "timestamp", "--to", "copy", "--json"];
    let run = |more: &[&str]| server.json(&[&replay, more].concat());
    server.create("copy", 1);
    let done = run(&["--speed", "500x"]);
    assert_eq!(number(&done["recorded_seconds"]), 100.0);
    assert!((number(&done["due_seconds"]) - 0.2).abs() < 1e-6, "{done}");
    assert!(number(&done["elapsed_seconds"]) >= number(&done["due_seconds"]), "{done}");
    assert!(done["lateness_ms"]["p99"].is_number() && done["gap_error_ms"]["p99"].is_number());
    // One after the other, whatever shard they were in.
    let copied = server.ok(&["tail", "copy", "--format", "payload"]);
    let wanted: String = (0..101).map(|n| format!("record {n}\n")).collect();
    assert_eq!(String::from_utf8(copied).unwrap(), wanted);
    assert!(arrivals(&server.ok(&["tail", "copy", "--format", "json"])).is_sorted());
    // Silence is cut to what was said; a dry run only says.
    let cut = run(&["--speed", "10x", "--max-gap", "10ms", "--dry-run"]);
    assert!((number(&cut["due_seconds"]) - 0.1).abs() < 1e-6, "{cut}");
    assert_eq!((&cut["records"], &cut["dry_run"]), (&101.into(), &true.into()));
    assert_eq!(server.records("copy"), 101);
    let told = server.run(&["replay", "s", "--by", "timestamp", "--speed", "10x", "--dry-run"]);
    assert!(
        text(&told).contains("would replay 101 records") && text(&told).contains("10.0 s at 10x")
    );
}

#[test]
fn a_part_of_a_stream_and_what_cannot_be_replayed() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    for range in [0..10, 10..20] {
        let put = server.put("s", lines(range, 5).as_bytes(), &["--format", "records"]);
        assert!(put.status.success(), "{}", said(&put));
    }
    let payloads = |args: &[&str]| {
        let lines = server.ok(&[&["replay", "s", "--speed", "max"], args].concat());
        parsed(&lines, "payload")
    };
    let wanted = |range: std::ops::Range<u64>| -> Vec<Value> {
        range.map(|n| format!("record {n}").into()).collect()
    };
    assert_eq!(payloads(&["--from", "5", "--until", "7"]), wanted(5..7));
    assert_eq!(payloads(&["--limit", "3"]), wanted(0..3));
    assert_eq!(
        payloads(&["--filter", "key == 'k3' && seq > 5"]),
        [8, 13, 18].map(|n| wanted(n..n + 1).remove(0))
    );
    assert_eq!(payloads(&["--shard", "0", "--from", "18"]), wanted(18..20));
    assert_eq!(payloads(&["--from", "latest"]), wanted(0..0));
    // The second ten came later than the first.
    let arrivals = arrivals(&server.ok(&["tail", "s", "--format", "json"]));
    assert!(arrivals[10] > arrivals[9]);
    let second = arrivals[10].to_string();
    assert_eq!(payloads(&["--until", &second]), wanted(0..10));
    assert_eq!(payloads(&["--from", &second]), wanted(10..20));
    for (args, code, words) in [
        (&["replay", "s", "--to", "s"][..], 2, &["--to s", "the stream itself"][..]),
        (&["replay", "s", "--filter", "key =="], 2, &["--filter", "column"]),
        (&["replay", "s", "--speed", "fast"], 2, &["--speed", "fast", "original"]),
        (&["replay", "s", "--to", "a b"], 2, &["--to", "a b"]),
        (&["replay", "s", "--to-target", "h:1"], 2, &["--to-target", "no stream"]),
        (&["replay", "s", "--to", "missing"], 1, &["missing", "--to"]),
        (&["replay", "missing"], 1, &["missing"]),
        (&["replay", "s", "--shard", "7"], 1, &["no shard 7"]),
        (&["replay", "s", "--from", "21"], 1, &["beyond"]),
        (&["replay", "s", "--to", "/missing/file"], 1, &["/missing/file"]),
    ] {
        refused(&server.run(args), code, words);
    }
    // What is no record of such a file is a dead letter.
    let put = server.put("s", b"{\"key\":\"k\"}\n", &["--format", "records"]);
    assert!(
        put.status.success() && text(&put).contains("1 dead letter in s.dead"),
        "{}",
        text(&put)
    );
    // Replayed elsewhere.
    let other = Server::start(&dir.path().join("other"));
    other.create("s", 1);
    server.ok(&["replay", "s", "--speed", "max", "--to", "s", "--to-target", &other.addr]);
    assert_eq!(other.records("s"), 20);
}

#[test]
fn a_load_run_follows_a_recorded_stream() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    for range in [0..300, 300..500] {
        let put = server.put("s", lines(range, 20).as_bytes(), &["--format", "records"]);
        assert!(put.status.success(), "{}", said(&put));
    }
    let run = |args: &[&str]| {
        let usual = ["load", "run", "--warmup", "0s", "--shards", "2", "--json", "-"];
        let output = server.command(&[&usual, args].concat()).current_dir(dir.path()).output();
        let output = output.unwrap();
        let report = serde_json::from_slice::<Value>(&output.stdout);
        report.unwrap_or_else(|e| panic!("{e}: {}", said(&output)))
    };
    let report = run(&["--trace-stream", "s", "--trace-speed", "0.5x", "--stream", "again"]);
    assert_eq!(report["workload"]["name"], "recorded", "{report:#}");
    // Its own file, which repeats it.
    run(&["--trace", "s.trace.jsonl", "--producers", "3", "--stream", "third"]);
    let payloads = |stream: &str| -> BTreeMap<String, Vec<Value>> {
        let records = by_key(&server.ok(&["tail", stream, "--format", "json"]));
        let payload = |kept: (Value, Value, Value)| kept.2;
        records.into_iter().map(|(k, all)| (k, all.into_iter().map(payload).collect())).collect()
    };
    let original = payloads("s");
    assert_eq!(payloads("again"), original, "every record of the stream, in its key's order");
    let mut third = payloads("third");
    let mut sorted = original.clone();
    for all in third.values_mut().chain(sorted.values_mut()) {
        all.sort_by_key(ToString::to_string);
    }
    assert_eq!(third, sorted, "by three producers, each with its share");
}
