//! Splits and merges while records come: nothing is lost, and the records of a key stay in order.

use std::collections::HashMap;
use std::io::Write as _;

use serde_json::Value;

use crate::support::{Server, refused, report, said, scratch, text, until};

/// Lines of JSON: 40 keys, each with numbers of its own from 0.
fn numbered(range: std::ops::Range<u64>) -> Vec<u8> {
    let line = |n: u64| format!("{{\"key\":\"k{}\",\"n\":{}}}\n", n % 40, n / 40);
    range.map(line).collect::<String>().into_bytes()
}

fn described(server: &Server) -> Value {
    server.json(&["stream", "describe", "s", "--json"])
}

fn open_shards(server: &Server) -> u64 {
    described(server)["open_shards"].as_u64().unwrap()
}

/// The shards, every parent before its children.
fn parents_first(described: &Value) -> Vec<u64> {
    let mut shards: Vec<&Value> = described["shards"].as_array().unwrap().iter().collect();
    // Numbers grow, so a child's is larger than its parents'.
    shards.sort_by_key(|shard| shard["shard"].as_u64());
    for shard in &shards {
        let parents = shard["parents"].as_array().unwrap();
        assert!(parents.iter().all(|p| p.as_u64() < shard["shard"].as_u64()), "{shard:#}");
    }
    shards.iter().map(|shard| shard["shard"].as_u64().unwrap()).collect()
}

/// Every record of the stream, read shard by shard: of each key 0, 1, 2 … to `each`.
fn every_key_in_order(server: &Server, each: u64) {
    let mut next: HashMap<String, u64> = HashMap::new();
    for shard in parents_first(&described(server)) {
        let lines = server.ok(&["tail", "s", "--shard", &shard.to_string()]);
        for line in String::from_utf8(lines).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let at = next.entry(record["key"].as_str().unwrap().to_owned()).or_default();
            assert_eq!(record["n"].as_u64(), Some(*at), "shard {shard}: {record}");
            *at += 1;
        }
    }
    assert_eq!(next.len(), 40);
    assert!(next.values().all(|n| *n == each), "{next:?}");
}

#[test]
fn one_shard_becomes_four_and_eight_and_two_under_a_producer_that_notices_nothing() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("s", 1);
    let mut put = server.begin(&["put", "s", "--format", "json", "--key", "key"]);
    let mut stdin = put.stdin.take().unwrap();
    let mut sent = 0;
    let mut feed = |records: u64| {
        stdin.write_all(&numbered(sent..sent + records)).unwrap();
        sent += records;
    };
    feed(4_000);
    until(|| server.records("s") > 0);
    for shards in [4, 8, 2] {
        // Some before, some during, some after.
        feed(4_000);
        server.ok(&["stream", "reshard", "s", "--shards", &shards.to_string()]);
        assert_eq!(open_shards(&server), shards);
        feed(4_000);
    }
    drop(stdin);
    let put = put.wait_with_output().unwrap();
    assert!(put.status.success(), "{}", said(&put));
    assert!(text(&put).contains("stored 28,000 records"), "{}", text(&put));
    every_key_in_order(&server, 700);

    // The open shards divide the whole space, and the same is there after a kill.
    let before = described(&server);
    let mut open: Vec<String> = before["shards"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|shard| shard["closed"] == false)
        .map(|shard| shard["hash_range"].as_str().unwrap().to_owned())
        .collect();
    open.sort();
    assert!(open[0].starts_with(&"0".repeat(32)) && open[1].ends_with(&"f".repeat(32)), "{open:?}");
    server.kill();
    let server = Server::start(&data);
    assert_eq!(open_shards(&server), 2);
    every_key_in_order(&server, 700);
    assert!(
        server
            .put("s", &numbered(28_000..28_400), &["--format", "json", "--key", "key"])
            .status
            .success()
    );
    every_key_in_order(&server, 710);
}

/// Resharded while it loads, from one shard to four, eight and two; what it found.
fn loaded_meanwhile(server: &Server, args: &[&str]) -> Value {
    server.create("s", 1);
    let usual = ["load", "run", "--stream", "s", "-d", "8s", "--warmup", "0s", "--size", "200"];
    let load = server.begin(&[&usual[..], &["--keys", "1000", "--json", "-"], args].concat());
    until(|| server.records("s") > 0);
    for shards in ["4", "8", "2"] {
        let stored = server.records("s");
        server.ok(&["stream", "reshard", "s", "--shards", shards]);
        until(|| server.records("s") > stored);
    }
    let report = report(load);
    for count in ["lost", "duplicated", "reordered", "corrupted", "refused", "unread", "unknown"] {
        assert_eq!(report[count], 0, "{count}: {report:#}");
    }
    assert_eq!((&report["checked"], &report["ended_early"]), (&true.into(), &Value::Null));
    let (checked, unsent) = (report["checked_records"].as_u64(), &report["unsent"]);
    assert_eq!(checked, Some(server.records("s")), "unsent {unsent}: {report:#}");
    // 1, 4 and 8 that were left, and 2; more on the way from one number to the next.
    let pauses = &report["ack_pause_ms"];
    let shards = pauses["shards"].as_u64().unwrap();
    assert!(shards >= 15 && shards <= described(server)["shards"].as_array().unwrap().len() as u64);
    assert!(pauses["p99"].as_f64().unwrap() <= pauses["max"].as_f64().unwrap(), "{pauses:#}");
    report
}

#[test]
fn a_generator_under_resharding_finds_nothing_lost_and_every_key_in_order() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let report = loaded_meanwhile(&server, &["-r", "5k", "--groups", "2"]);
    let checked = report["checked_records"].as_u64().unwrap();
    assert_eq!(report["consumed_records"].as_u64(), Some(2 * checked), "{report:#}");
    // The groups have committed that they read everything, in the shards that came up too.
    for group in ["load-1", "load-2"] {
        assert_eq!(server.ok(&["tail", "s", "--group", group]), b"", "{group}");
    }
}

#[test]
fn several_named_producers_that_compress_are_resharded_as_well() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let named = ["--compression", "lz4", "--producer", "p", "--client-name", "tester"];
    let several = ["-r", "2k", "--producers", "3", "--linger", "5ms"];
    let report = loaded_meanwhile(&server, &[&named[..], &several].concat());
    let options = &report["options"];
    assert_eq!(options["compression"], "lz4");
    assert_eq!((&options["producer"], &options["client_name"]), (&"p".into(), &"tester".into()));
    let command = report["command"].as_array().unwrap();
    assert!(command.contains(&"--compression".into()) && command.contains(&"tester".into()));
}

#[test]
fn what_cannot_be_split_or_merged_is_told_why() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("one", 1);
    assert!(server.put("one", &b"x\n".repeat(2_000), &["--key", "const"]).status.success());
    // All its load has one hash key: no split could halve it.
    refused(&server.run(&["stream", "split", "one", "--shard", "0"]), 1, &["one", "shard 0"]);
    // That is seen in compressed batches too.
    server.create("packed", 1);
    let packed = ["--key", "const", "--compression", "zstd"];
    assert!(server.put("packed", &b"x\n".repeat(2_000), &packed).status.success());
    refused(&server.run(&["stream", "split", "packed", "--shard", "0"]), 1, &["one key"]);
    let keys = server.run(&["stream", "top-keys", "one", "--json"]);
    let keys: Value = serde_json::from_slice(&keys.stdout).unwrap();
    assert_eq!(keys["stream"], "one");
    server.create("s", 4);
    refused(&server.run(&["stream", "split", "s", "--shard", "9"]), 1, &["9"]);
    refused(&server.run(&["stream", "merge", "s", "--shards", "0,2"]), 1, &["0", "2"]);
    refused(&server.run(&["stream", "merge", "s", "--shards", "0"]), 1, &["s"]);
    let split = |at: &str| {
        let words = ["stream", "split", "s", "--shard", "0", "--at", at];
        server.run(&words)
    };
    // Shard 0 has the hash keys up to 3fff…
    refused(&split("f0000000000000000000000000000000"), 1, &["s", "shard 0", "0xf0"]);
    refused(&split("zz"), 2, &["--at", "zz"]);
    let done = split("10000000000000000000000000000000");
    assert!(done.status.success(), "{}", said(&done));
    server.ok(&["stream", "merge", "s", "--shards", "2,3"]);
    assert_eq!(open_shards(&server), 4);
    // A closed shard takes part in nothing any more.
    refused(&server.run(&["stream", "split", "s", "--shard", "0"]), 1, &["0"]);
}
