//! kill -9, SIGTERM and a flipped bit.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Server, access_log, highwater, said, scratch, text, until};

fn inspect(data: &Path) -> (Option<i32>, Value) {
    let output = highwater().arg("inspect").arg(data).arg("--json").output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("no report: {}", said(&output))))
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

#[test]
fn a_put_survives_the_server_being_killed_under_it() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("logs", 1);
    let (first, second) = (access_log(2, 3_000), access_log(3, 3_000));
    let mut put = server.begin(&["put", "logs"]);
    let mut stdin = put.stdin.take().unwrap();
    stdin.write_all(&first).unwrap();
    until(|| server.records("logs") > 0);
    let addr = server.addr.clone();
    server.kill();
    // Whatever was acknowledged is there once, whatever was not is sent again, and the order is kept.
    let server = Server::start_with(&data, &["--listen", &addr]);
    stdin.write_all(&second).unwrap();
    drop(stdin);
    let put = put.wait_with_output().unwrap();
    assert!(put.status.success(), "{}", said(&put));
    assert!(text(&put).contains("stored 6,000 records"), "{}", text(&put));
    assert_eq!(server.ok(&["tail", "logs"]), [first, second].concat());
}

#[test]
fn everything_acknowledged_is_there_after_many_kills() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut expected = Vec::new();
    for round in 0..4 {
        let server = Server::start(&data);
        if round == 0 {
            server.create("logs", 1);
        }
        let log = access_log(round, 500);
        assert!(server.put("logs", &log, &[]).status.success());
        expected.extend(log);
        server.kill();
    }
    assert_eq!(Server::start(&data).ok(&["tail", "logs"]), expected);
}

#[test]
fn a_stop_on_sigterm_is_clean() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("logs", 1);
    let log = access_log(5, 2_000);
    assert!(server.put("logs", &log, &[]).status.success());
    assert_eq!(server.terminate().code(), Some(0));
    let (code, report) = inspect(&data);
    assert_eq!((code, &report["damaged"], &report["records"]), (Some(0), &0.into(), &2_000.into()));
    assert_eq!(Server::start(&data).ok(&["tail", "logs"]), log);
}

#[test]
fn inspect_tells_a_kill_from_damage() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.create("logs", 1);
    server.create("other", 1);
    let needle = b"a needle that is nowhere else";
    assert!(server.put("logs", needle, &[]).status.success());
    assert!(server.put("logs", &access_log(6, 1_000), &[]).status.success());
    assert!(server.put("other", b"untouched", &[]).status.success());
    server.kill();
    let (code, report) = inspect(&data);
    assert_eq!((code, &report["damaged"], &report["records"]), (Some(0), &0.into(), &1_002.into()));
    assert!(report["segments"].as_u64() >= Some(2) && report["batches"].as_u64() >= Some(3));

    let found = files_below(&data).into_iter().find_map(|file| {
        let bytes = fs::read(&file).ok()?;
        let at = bytes.windows(needle.len()).position(|window| window == needle)?;
        Some((file, bytes, at))
    });
    let (file, mut bytes, at) = found.expect("the record is in a segment");
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, report) = inspect(&data);
    assert_eq!(code, Some(1));
    assert!(report["damaged"].as_u64() >= Some(1), "{report}");

    // The server says so and does not serve what is damaged; other shards go on.
    let server = Server::start(&data);
    assert_eq!(server.ok(&["tail", "other"]), b"untouched\n");
    let tail = server.run(&["tail", "logs"]);
    assert!(!tail.stdout.starts_with(needle), "damage was served as if it were sound");
    assert_eq!(tail.status.code(), Some(1), "{}", text(&tail));
    let described = text(&server.run(&["stream", "describe", "logs"]));
    assert!(described.contains("damaged"), "{described}");
}

#[test]
fn inspect_needs_a_data_directory() {
    let dir = scratch();
    let output = highwater().arg("inspect").arg(dir.path().join("none")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("none"), "{}", said(&output));
}
