//! What is put comes back: byte for byte, once, in order.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use crate::support::{Server, access_log, said, scratch, text};

fn lines_of(json_lines: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(json_lines).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_come_back_byte_for_byte_also_after_a_kill() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("logs", 1);
    let log = access_log(1, 10_000);
    let put = server.put("logs", &log, &["--format", "lines"]);
    assert!(put.status.success(), "{}", said(&put));
    assert!(text(&put).contains("stored 10,000 records"), "{}", text(&put));
    assert!(text(&put).contains("sequence 0 to 9999"), "{}", text(&put));
    assert_eq!(server.ok(&["tail", "logs", "--from", "oldest"]), log);
    server.kill();
    let server = Server::start(&data);
    assert_eq!(server.ok(&["tail", "logs", "--from", "oldest"]), log);
    // And it goes on where it was.
    assert!(server.put("logs", b"one more", &[]).status.success());
    assert_eq!(server.ok(&["tail", "logs", "--from", "10000"]), b"one more\n");
}

#[test]
fn a_real_access_log_comes_back() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/apache_access.log");
    let Ok(log) = std::fs::read(&file) else {
        eprintln!("skipped: no apache_access.log beside the workspace");
        return;
    };
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 1);
    server.ok(&["put", "logs", "--file", file.to_str().unwrap(), "--format", "lines"]);
    assert_eq!(server.ok(&["tail", "logs", "--from", "oldest"]), log);
}

#[test]
fn four_shards_hold_everything_once_and_each_key_in_order() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("events", 4);
    let mut rng = fastrand::Rng::with_seed(4);
    let documents: Vec<Value> =
        (0..5_000).map(|n| serde_json::json!({"n": n, "user": {"id": rng.u32(0..50)}})).collect();
    let input: Vec<String> = documents.iter().map(Value::to_string).collect();
    let put = server.put(
        "events",
        input.join("\n").as_bytes(),
        &["--format", "json", "--key", "user.id"],
    );
    assert!(put.status.success(), "{}", said(&put));
    let records = lines_of(&server.ok(&["tail", "events", "--format", "json"]));
    assert_eq!(records.len(), documents.len());
    let mut last_of_key: HashMap<String, (u64, i64)> = HashMap::new();
    let mut next_of_shard: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen = vec![false; documents.len()];
    for record in &records {
        let document: Value = serde_json::from_str(record["payload"].as_str().unwrap()).unwrap();
        let (n, shard) = (document["n"].as_i64().unwrap(), record["shard"].as_u64().unwrap());
        assert_eq!(document, documents[n as usize]);
        assert!(!std::mem::replace(&mut seen[n as usize], true), "record {n} came twice");
        let key = record["key"].as_str().unwrap();
        assert_eq!(key, document["user"]["id"].to_string());
        if let Some((home, before)) = last_of_key.insert(key.to_owned(), (shard, n)) {
            assert!(home == shard && before < n, "key {key}: {before} before {n}");
        }
        let next = next_of_shard.entry(shard).or_default();
        assert_eq!(record["sequence"].as_u64(), Some(*next), "shard {shard} is dense");
        *next += 1;
    }
    assert_eq!(next_of_shard.len(), 4);
    let one = lines_of(&server.ok(&["tail", "events", "--format", "json", "--shard", "2"]));
    assert_eq!(one.len() as u64, next_of_shard[&2]);
    assert!(one.iter().all(|record| record["shard"] == 2));
}

#[test]
fn formats_keys_and_places_to_begin() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 3);
    let bytes: Vec<u8> = (0..=255).collect();
    assert!(server.put("s", &bytes, &["--format", "raw", "--key", "const:k"]).status.success());
    assert!(server.put("s", b"a\n\nb", &["--key", "const:k"]).status.success());
    let records = lines_of(&server.ok(&["tail", "s", "--format", "json"]));
    assert_eq!(records.len(), 4, "one key is one shard");
    assert!(records[0]["payload_base64"].as_str().unwrap().starts_with("AAECAwQF"));
    let payloads: Vec<_> = records[1..].iter().map(|r| r["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, ["a", "", "b"]);
    let shard = records[0]["shard"].to_string();
    let tail = |more: &[&str]| server.ok(&[&["tail", "s", "--shard", &shard], more].concat());
    assert_eq!(tail(&["--from", "3"]), b"b\n");
    assert_eq!(tail(&["--from", "latest"]), b"");
    assert_eq!(tail(&["--from", "1", "--limit", "2"]), b"a\n\n");
    assert_eq!(tail(&["--from", records[1]["arrival"].as_str().unwrap()]), b"a\n\nb\n");
    assert_eq!(tail(&["--from", "-1h", "--limit", "1"]), [&bytes[..], b"\n"].concat());
}

#[test]
fn follow_goes_on_until_its_limit() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let mut command = server.command(&["tail", "s", "--follow", "--limit", "3"]);
    let follower = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    for line in ["one", "two", "three", "four"] {
        assert!(server.put("s", line.as_bytes(), &[]).status.success());
    }
    let followed = follower.wait_with_output().unwrap();
    assert!(followed.status.success());
    assert_eq!(followed.stdout, b"one\ntwo\nthree\n");
}

#[test]
fn streams_are_created_listed_described_and_deleted() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let create = ["stream", "create", "a.b-c_1", "--shards", "2", "--retention", "1h"];
    server.ok(&[&create[..], &["--retention-bytes", "1GiB", "--ack", "written"]].concat());
    let list = server.json(&["stream", "list", "--json"]);
    assert_eq!(list[0]["name"], "a.b-c_1");
    let config = &list[0]["config"];
    assert_eq!((&config["shards"], &config["ack"]), (&2.into(), &"written".into()));
    assert_eq!(
        (&config["retention_ms"], &config["retention_bytes"]),
        (&3_600_000.into(), &(1u64 << 30).into())
    );
    let described = String::from_utf8(server.ok(&["stream", "describe", "a.b-c_1"])).unwrap();
    for words in ["ack written\n", "retention 1h00m or 1.00 GiB; quota of each shard none"] {
        assert!(described.contains(words), "{described}");
    }
    server.ok(&["stream", "delete", "a.b-c_1"]);
    assert_eq!(server.json(&["stream", "list", "--json"]), Value::Array(vec![]));
}
