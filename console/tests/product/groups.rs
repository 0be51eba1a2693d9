//! Consumer groups: positions kept by the broker, and the backlog that follows from them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::ioctl_fionread;
use serde_json::Value;

use crate::support::{Server, refused, said, scratch, until};

fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
    range.map(|n| format!("{n}\n")).collect::<String>().into_bytes()
}

#[test]
fn a_group_goes_on_where_it_was_also_after_a_restart() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("s", 1);
    assert!(server.put("s", &lines(0..100), &[]).status.success());
    let first = server.ok(&["tail", "s", "--group", "g", "--limit", "30"]);
    assert_eq!(first, lines(0..30));
    server.kill();
    let server = Server::start(&data);
    assert_eq!(server.ok(&["tail", "s", "--group", "g"]), lines(30..100));
    assert_eq!(server.ok(&["tail", "s", "--group", "g"]), b"");
    assert_eq!(server.ok(&["tail", "s", "--group", "another"]), lines(0..100));
}

/// Positions were committed of records that had got no further than the memory of a process whose output failed.
#[test]
fn what_could_not_be_written_is_read_again() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    // More than is written at once.
    let all = lines(0..60_000);
    assert!(server.put("s", &all, &["--key", "const"]).status.success());
    for (group, more) in [("member", &[][..]), ("reader", &["--shard", "0"])] {
        let tail = [&["tail", "s", "--group", group][..], more].concat();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let failed = server.command(&tail).stdout(full).output().unwrap();
        refused(&failed, 1, &["standard output"]);
        let (gone, pipe) = std::io::pipe().unwrap();
        drop(gone);
        let left = server.command(&tail).stdout(pipe).output().unwrap();
        assert!(left.status.success(), "{}", said(&left));
        let read = server.ok(&tail);
        assert!(read == all, "{group}: {} of {} bytes", read.len(), all.len());
        assert_eq!(server.ok(&tail), b"");
    }
}

/// A reader of one shard that was killed had committed up to 256 KiB more than it had written.
#[test]
fn what_is_committed_has_been_written() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let (line, width) = (1_024, 1_023);
    let all: String = (0..12_000).map(|n| format!("{n:>width$}\n")).collect();
    assert!(server.put("s", all.as_bytes(), &["--key", "const"]).status.success());
    let (mut pipe, out) = std::io::pipe().unwrap();
    let tail = ["tail", "s", "--group", "g", "--shard", "0"];
    let mut tail = server.command(&tail).stdout(out).spawn().unwrap();
    let (mut read, mut commits) = (0, BTreeSet::new());
    let mut chunk = vec![0; 8 << 10];
    while commits.len() < 3 {
        // So slowly that it is always behind.
        let more = pipe.read(&mut chunk).unwrap();
        assert!(more > 0, "all was read after {} commits", commits.len());
        read += more as u64;
        // Before the first commit there is no such group.
        let described = server.run(&["group", "describe", "g", "--json"]);
        if !described.status.success() {
            continue;
        }
        let described: Value = serde_json::from_slice(&described.stdout).unwrap();
        let position = described["shards"][0]["position"].as_u64().unwrap();
        let written = read + ioctl_fionread(&pipe).unwrap();
        assert!(position * line as u64 <= written, "{position} records, {written} bytes");
        commits.insert(position);
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn a_group_whose_position_was_removed_goes_on_at_the_oldest_if_it_is_told_to() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &lines(0..100), &[]).status.success());
    let tail = ["tail", "s", "--group", "g"];
    server.ok(&[&tail[..], &["--limit", "30"]].concat());
    server.ok(&["stream", "trim", "s", "--before", "60"]);
    let hints = ["--on-trimmed oldest", "`highwater group reset g --stream s --to oldest`"];
    for again in 0..2 {
        let output = server.run(&tail);
        refused(&output, 1, &[&["30", "60"][..], &hints].concat());
        assert!(output.stdout.is_empty(), "time {again}");
    }
    let go_on = || server.run(&[&tail[..], &["--on-trimmed", "oldest"]].concat());
    let went_on = go_on();
    assert_eq!(went_on.stdout, lines(60..100), "{}", said(&went_on));
    let gap =
        "30 records of shard 0, from 30 on, were removed before they were read; going on at 60";
    assert!(went_on.status.success() && said(&went_on).contains(gap), "{}", said(&went_on));
    assert_eq!(server.ok(&tail), b"", "and that is where it is now");

    // Told as well if nothing is left to be read.
    assert!(server.put("s", &lines(100..110), &[]).status.success());
    server.ok(&["stream", "trim", "s", "--before", "110"]);
    let went_on = go_on();
    assert!(went_on.stdout.is_empty(), "{}", said(&went_on));
    assert!(said(&went_on).contains("10 records of shard 0, from 100 on,"), "{}", said(&went_on));
    assert_eq!(server.ok(&tail), b"");
}

#[test]
fn the_backlog_of_a_group_is_exact() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    assert!(server.put("s", &lines(0..1_000), &[]).status.success());
    server.ok(&["tail", "s", "--group", "g", "--limit", "400"]);
    let mut measured = Value::Null;
    // The server publishes once a second; shards the group has not begun count from their beginning or not
    // at all, which is why it is the committed shards' backlog that has to show up.
    until(|| {
        measured = server.json(&["top", "--once", "--json", "--span", "100ms"]);
        measured["groups"][0]["backlog_records"].as_u64().is_some_and(|n| n > 0)
    });
    let group = &measured["groups"][0];
    assert_eq!((&group["name"], &group["stream"]), (&"g".into(), &"s".into()));
    assert!(group["backlog_records"].as_u64().unwrap() <= 600, "{group}");
    assert!(group["backlog_seconds"].as_f64().unwrap() > 0.0, "{group}");
    server.ok(&["tail", "s", "--group", "g"]);
    until(|| {
        let measured = server.json(&["top", "--once", "--json", "--span", "100ms"]);
        measured["groups"][0]["backlog_records"] == 0
    });
}

/// Milliseconds since 1970 UTC.
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// When the record at `sequence` arrived, seconds since 1970 UTC.
fn arrival_s(server: &Server, sequence: u64) -> f64 {
    let from = sequence.to_string();
    let args = ["tail", "s", "--from", &from, "--limit", "1", "--format", "json"];
    let record = server.json(&args);
    assert_eq!(record["sequence"], sequence);
    let arrival: jiff::Timestamp = record["arrival"].as_str().unwrap().parse().unwrap();
    arrival.as_nanosecond() as f64 / 1e9
}

#[test]
fn the_lag_of_a_dead_group_is_the_age_of_its_next_record() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("s", 1);
    let count = 30_000;
    assert!(server.put("s", &lines(0..count), &[]).status.success());
    let end = u64::from(count);
    let behind = [1, 2, 100, 10_000, 29_999];
    let exact = |server: &Server| {
        for records in behind {
            let (group, arrival) = (format!("behind-{records}"), arrival_s(server, end - records));
            let before = now_s();
            let described = server.json(&["group", "describe", &group, "--json"]);
            let after = now_s();
            let shard = &described["shards"][0];
            assert_eq!((&shard["stream"], &shard["shard"]), (&"s".into(), &0.into()));
            assert_eq!(shard["position"], end - records);
            assert_eq!(shard["backlog_records"], records);
            assert!(shard["backlog_bytes"].as_u64().unwrap() >= records * 88 / 100, "{shard}");
            assert!(shard["owner"].is_null(), "{shard}");
            let seconds = shard["backlog_seconds"].as_f64().unwrap();
            let (least, most) = (before - arrival - 0.010, after - arrival + 0.010);
            assert!((least..=most).contains(&seconds), "{least} {most} {shard}");
        }
    };
    for records in behind {
        let (group, to) = (format!("behind-{records}"), (end - records).to_string());
        server.ok(&["group", "reset", &group, "--stream", "s", "--to", &to]);
    }
    exact(&server);
    server.kill();
    let server = Server::start(&data);
    exact(&server);
    let listed = server.json(&["group", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), behind.len());
    // The same figures where the console and Prometheus have theirs from.
    until(|| {
        let groups = server.json(&["top", "--once", "--json", "--span", "100ms"])["groups"].clone();
        let found = groups.as_array().unwrap().iter().find(|g| g["name"] == "behind-10000");
        found.is_some_and(|group| {
            let seconds = group["backlog_seconds"].as_f64().unwrap();
            let age = now_s() - arrival_s(&server, end - 10_000);
            // A snapshot may be a few seconds old.
            group["backlog_records"] == 10_000 && seconds <= age + 0.010 && seconds > age - 12.0
        })
    });
}

#[test]
fn positions_are_reset_and_forgotten_by_command() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &lines(0..1_000), &[]).status.success());
    server.ok(&["tail", "s", "--group", "g", "--limit", "400"]);
    let reset = |args: &[&str]| {
        let done = server.json(&[&["group", "reset", "g", "--json"], args].concat());
        (done["shards"][0]["from"].as_u64().unwrap(), done["shards"][0]["to"].as_u64().unwrap())
    };
    assert_eq!(reset(&["--to", "oldest", "--dry-run"]), (400, 0));
    assert_eq!(reset(&["--to", "-1h", "--dry-run"]), (400, 0));
    assert_eq!(reset(&["--shift-by", "-150"]), (400, 250));
    assert_eq!(reset(&["--to", "latest", "--shift-by", "-10"]), (250, 990));
    assert_eq!(server.ok(&["tail", "s", "--group", "g"]), lines(990..1_000));
    assert!(!server.ok(&["group", "describe", "g"]).is_empty());
    refused(&server.run(&["group", "reset", "g"]), 2, &["--to"]);
    refused(
        &server.run(&["group", "reset", "nobody", "--to", "oldest"]),
        1,
        &["nobody", "no positions"],
    );
    server.ok(&["group", "delete", "g"]);
    refused(&server.run(&["group", "describe", "g"]), 1, &["\"g\"", "no positions"]);
    assert_eq!(server.ok(&["tail", "s", "--group", "g"]), lines(0..1_000));
}
