//! Twice as much as the quota lets pass, under each of the five strategies: what becomes of every record adds up.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Server, refused, said, scratch, text, until};

/// The quota, and the load: twice as much.
const QUOTA: &str = "1000rec/s";
const RATE: &str = "2000";
const SECONDS: &str = "4s";
const OFFERED: u64 = 8_000;

/// The server's memory bound, and what the manual grants on top for the process itself.
const MEMORY: &str = "64MiB";
const MOST: u64 = (64 + 64) << 20;

struct Outcome {
    report: Value,
    /// What was printed, in one line.
    table: String,
    counters: Value,
    records: u64,
}

fn count(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("no {name} in {of:#}"))
}

/// Load on a stream with this backpressure, to its end.
fn under(way: &str) -> Outcome {
    let dir = scratch();
    let args = ["--listen", "127.0.0.1:0", "--memory", MEMORY];
    let server = Server::start_with(&dir.path().join("data"), &args);
    let quota = ["--quota-in", QUOTA, "--quota-burst", "100ms", "--backpressure", way];
    server.ok(&[&["stream", "create", "s"][..], &quota].concat());
    let load = ["load", "run", "--stream", "s", "-r", RATE, "-d", SECONDS, "--warmup", "0s"];
    let file = dir.path().join("report.json");
    let json = ["--json", file.to_str().unwrap()];
    let more = ["--size", "200", "--seed", "1", "--drain-timeout", "60s"];
    let output = server.run(&[&load[..], &more, &json].concat());
    let report: Value = std::fs::read(&file)
        .ok()
        .and_then(|report| serde_json::from_slice(&report).ok())
        .unwrap_or_else(|| panic!("{way}: no report: {}", said(&output)));
    let table = text(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    let described = server.json(&["stream", "describe", "s", "--json"]);
    let counters = described["shards"][0].clone();
    let records = server.records("s");
    assert!(server.peak_memory() < MOST, "{way}: {} bytes", server.peak_memory());
    let outcome = Outcome { report, table, counters, records };
    outcome.adds_up(way);
    outcome
}

impl Outcome {
    /// What holds under every strategy.
    fn adds_up(&self, way: &str) {
        let of = |name| count(&self.counters, name);
        let decided =
            ["acknowledged", "refused", "dropped", "sampled_out", "duplicates_recognised"];
        let sum: u64 = decided.iter().map(|name| of(name)).sum();
        assert_eq!(of("offered"), sum + of("pending"), "{way}: {:#}", self.counters);
        assert_eq!((of("pending"), of("held_bytes")), (0, 0), "{way}: {:#}", self.counters);
        assert_eq!(of("acknowledged"), self.records, "{way}: {:#}", self.counters);
        // Every record of the generator ended in one of three ways, once, or was not sent by the end of the window.
        let ended = of("acknowledged") + of("dropped") + of("sampled_out");
        let unsent = count(&self.report, "unsent");
        assert_eq!(ended + unsent, OFFERED, "{way}: {:#}\n{:#}", self.counters, self.report);
        for wrong in ["lost", "duplicated", "reordered", "corrupted", "unread"] {
            assert_eq!(self.report[wrong], 0, "{way}, {wrong}: {:#}", self.report);
        }
        assert_eq!(count(&self.report, "checked_records"), self.records, "{way}");
        // The report says what the server counted, and that the quota was why.
        let account = &self.report["account"];
        for name in ["offered", "buffered"].iter().chain(&decided) {
            assert_eq!(count(account, name), of(name), "{way}, {name}: {account:#}");
        }
        assert_eq!(account["quota"]["records_in"], 1_000, "{way}: {account:#}");
        assert!(self.table.contains("account the target was offered"), "{way}: {}", self.table);
    }

    /// What the report says of why.
    fn notes(&self) -> String {
        self.report["notes"].to_string()
    }

    /// Nothing that was sent is missing, and the producer was not held up for longer than the quota demands: in the
    /// window it lets half of what is offered pass.
    fn stored_all(&self) {
        assert_eq!(self.records + count(&self.report, "unsent"), OFFERED, "{:#}", self.report);
        assert!(self.records >= OFFERED / 2, "{:#}", self.report);
    }
}

#[test]
fn reduce_refuses_until_the_client_slows_down_and_stores_everything() {
    let outcome = under("reduce");
    outcome.stored_all();
    assert!(count(&outcome.counters, "refused") > 0, "{:#}", outcome.counters);
    let why = "a quota (1,000 records/s a shard; backpressure reduce)";
    assert!(outcome.notes().contains(why), "{}", outcome.notes());
    assert!(outcome.table.contains(" refused for the time being"), "{}", outcome.table);
    assert!(!outcome.notes().contains("target did not keep up"), "{}", outcome.notes());
}

#[test]
fn scale_proposes_a_split_and_stores_everything() {
    let outcome = under("scale");
    outcome.stored_all();
    let advice = outcome.counters["advice"].as_str().unwrap();
    assert!(advice.contains("split"), "{advice:?}");
}

#[test]
fn buffer_holds_back_within_its_bounds_and_stores_everything() {
    let outcome = under("buffer:64KiB,500ms");
    outcome.stored_all();
    assert!(count(&outcome.counters, "buffered") > 0, "{:#}", outcome.counters);
}

#[test]
fn drop_newest_and_drop_oldest_drop_about_half() {
    for way in ["drop-newest", "drop-oldest:64KiB,200ms"] {
        let outcome = under(way);
        let dropped = count(&outcome.counters, "dropped");
        assert!(dropped > 0, "{way}: {:#}", outcome.counters);
        // A client that is told of success goes on at its pace, so the quota decides what is stored.
        assert!(outcome.records < OFFERED * 3 / 4, "{way}: {} stored", outcome.records);
    }
}

#[test]
fn sample_keeps_a_part_of_what_is_over_the_quota() {
    let outcome = under("sample:5%,record");
    assert!(count(&outcome.counters, "sampled_out") > 0, "{:#}", outcome.counters);
}

#[test]
fn settings_change_live() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    refused(&server.run(&["stream", "set", "s"]), 2, &["nothing to change"]);
    let shards = server.run(&["stream", "set", "s", "--shards", "3"]);
    refused(&shards, 2, &["`highwater stream reshard s --shards 3`"]);
    for (rate, words) in [
        ("99999999999999999999rec/s", "outside 1rec/s to 9007199254740992rec/s"),
        ("0.5rec/s", "0.5rec/s is outside"),
        ("-5rec/s", "-5rec/s is outside 0"),
        ("fast", "not a rate"),
    ] {
        refused(
            &server.run(&["stream", "set", "s", "--quota-in", rate]),
            2,
            &["--quota-in", words],
        );
    }
    refused(
        &server.run(&["quota", "set", "c", "--out", "-1MB/s"]),
        2,
        &["--out", "-1MB/s is outside"],
    );
    let set = ["stream", "set", "s", "--preset", "kinesis", "--backpressure", "buffer:1MiB,2s"];
    server.ok(&[&set[..], &["--retention", "1day", "--retention-bytes", "1GiB"]].concat());
    let described = server.json(&["stream", "describe", "s", "--json"]);
    let config = &described["config"];
    assert_eq!(
        (&config["quota"]["records_in"], &config["quota"]["bytes_out"]),
        (&1_000.into(), &2_000_000.into())
    );
    assert_eq!(config["backpressure"]["buffer"]["bytes"], 1 << 20);
    assert_eq!(
        (&config["retention_ms"], &config["retention_bytes"]),
        (&86_400_000.into(), &(1u64 << 30).into())
    );
    // What is not named stays; 0 takes a bound away.
    server.ok(&["stream", "set", "s", "--quota-in", "0"]);
    let quota = server.json(&["stream", "describe", "s", "--json"])["config"]["quota"].clone();
    assert_eq!((&quota["records_in"], &quota["bytes_in"]), (&0.into(), &0.into()));
    assert_eq!(quota["bytes_out"], 2_000_000);
}

#[test]
fn a_quota_for_a_client_name_bounds_all_its_connections() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("s", 1);
    server.ok(&["quota", "set", "greedy", "--in", "5rec/s,1kB/s", "--burst", "1s"]);
    let list = server.json(&["quota", "list", "--json"]);
    assert_eq!(
        (&list[0]["client"], &list[0]["quota"]["records_in"]),
        (&"greedy".into(), &5.into())
    );
    let input = b"x\n".repeat(200);
    // The second of these has to wait for ten seconds.
    let large = ["x".repeat(10_000).as_bytes(), b"\n"].concat().repeat(2);
    let greedy = server.put("s", &large, &["--client-name", "greedy", "--timeout", "1s"]);
    refused(&greedy, 1, &["quota", "1 record was stored"]);
    assert!(server.put("s", &input, &["--client-name", "modest"]).status.success());
    // It is kept over a restart, and lifted.
    assert_eq!(server.terminate().code(), Some(0));
    let server = Server::start(&data);
    assert_eq!(server.json(&["quota", "list", "--json"]).as_array().unwrap().len(), 1);
    server.ok(&["quota", "delete", "greedy"]);
    assert!(server.put("s", &input, &["--client-name", "greedy"]).status.success());
    refused(&server.run(&["quota", "delete", "greedy"]), 1, &["greedy", "no quota"]);
}

/// What was stored of a batch was acknowledged only with the rest of it, so that `put` gave up although it went on all
/// the time, and guessed at the reason.
#[test]
fn put_goes_on_as_long_as_something_is_stored_and_says_what_it_waits_for() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.ok(&["stream", "create", "s", "--quota-in", "20rec/s", "--quota-burst", "100ms"]);
    let output = server.put("s", &b"x\n".repeat(50), &["--timeout", "1s"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(server.records("s"), 50);
    // Every record takes three seconds.
    server.ok(&["stream", "create", "t", "--quota-in", "1kB/s"]);
    let large = ["x".repeat(3_000).as_bytes(), b"\n"].concat().repeat(2);
    let output = server.put("t", &large, &["--timeout", "30s"]);
    assert!(output.status.success(), "{}", said(&output));
    let words = said(&output);
    assert!(words.contains("a quota holds records up"), "{words}");
}

#[test]
fn a_reader_under_way_obeys_the_quota_its_client_has_now() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    // Three batches: what is given is whole batches, paid back afterwards.
    for line in [&b"one\n"[..], b"two\n", b"three\n"] {
        assert!(server.put("s", line, &[]).status.success());
    }
    server.ok(&["quota", "set", "slow", "--out", "1B/s", "--burst", "1s"]);
    let mut tail = server
        .command(&["tail", "s", "--follow", "--limit", "3", "--client-name", "slow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    // The next would come after a minute and more.
    assert!(tail.try_wait().unwrap().is_none());
    server.ok(&["quota", "delete", "slow"]);
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), ["two", "three"]);
    assert!(tail.wait().unwrap().success());
}

#[test]
fn a_stream_that_scales_is_split_by_itself_as_far_as_it_may() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let quota = ["--quota-in", "200rec/s", "--quota-burst", "100ms", "--backpressure", "scale:2"];
    server.ok(&[&["stream", "create", "s"][..], &quota].concat());
    let load = ["load", "run", "--stream", "s", "-r", "1000", "-d", "60s", "--warmup", "0s"];
    let mut load = server
        .command(&[&load[..], &["--size", "100", "--consumers", "0", "--json", "-"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let shards = || {
        let described = server.json(&["stream", "describe", "s", "--json"]);
        described["shards"].as_array().unwrap().clone()
    };
    until(|| shards().iter().filter(|shard| shard["state"] == "open").count() == 2);
    let parent = &shards()[0];
    assert_eq!(parent["children"].as_array().unwrap().len(), 2, "{parent:#}");
    load.kill().unwrap();
    load.wait().unwrap();
}
