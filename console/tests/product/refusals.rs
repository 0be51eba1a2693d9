//! Wrong usage and faults: the exit code, and an error that names the thing, its value and the limit.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{Server, highwater, refused, said, scratch, serve, text};

#[test]
fn wrong_usage_is_exit_code_2() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["serve"], &["--data"]),
        (&["fly"], &["fly"]),
        (&["put", "s", "--turbo"], &["--turbo"]),
        (&["put", "s", "--key", "user.id"], &["--key", "user.id", "--format json"]),
        (&["tail", "s", "--from", "newest"], &["--from", "newest", "oldest"]),
        (&["stream", "create", "s", "--shards", "0"], &["--shards", "0", "4096"]),
        (&["stream", "create", "s", "--retention", "10"], &["--retention", "10s"]),
        (&["load", "run", "--size", "11MiB"], &["--size", "10MiB"]),
        (&["load", "run", "--size", "8"], &["--size", "8", "32"]),
        (&["load", "run", "-r", "fast"], &["--rate", "fast", "20k"]),
        (&["top", "--json"], &["--once"]),
        (&["top", "-t", "foo"], &["--target", "foo", "HOST:PORT"]),
        (&["put", "s", "--timeout", "1ms"], &["--timeout", "1ms", "1s"]),
        (&["tail", "s", "--limit", "x"], &["--limit", "x", "whole number"]),
        (&["serve", "--data", "d", "--memory", "1KiB"], &["--memory", "1KiB", "64MiB"]),
        (&["serve", "--data", "d", "--memory", "1TiB"], &["--memory", "1.00 TiB", "available"]),
        (&["serve", "--data", "d", "--cores", "1000"], &["--cores", "1000", "available: 0"]),
        (&["serve", "--data", "d", "--cores", "0,0"], &["--cores", "0 is named twice"]),
    ];
    for (args, words) in cases {
        refused(&highwater().args(*args).output().unwrap(), 2, words);
    }
    for name in ["a/b", "", "..", "é", "with space", &"x".repeat(129)] {
        refused(&highwater().args(["stream", "create", name]).output().unwrap(), 2, &["name"]);
    }
}

/// Each was taken, or refused by a name of the wire and exit code 1, or not told what it was about.
#[test]
fn values_beyond_their_limits_are_told_by_flag_and_limit() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let there = dir.path().join("there.jsonl");
    std::fs::write(&there, "kept").unwrap();
    let there = there.to_str().unwrap();
    let group = ["group", "set", "g", "--stream", "s"];
    let with = |more: &[&'static str]| [&group[..], more].concat();
    let table: [(Vec<&str>, &[&str]); 11] = [
        (
            vec!["stream", "set", "s", "--backpressure", "buffer:100TiB,5s"],
            &["--backpressure", "100TiB is outside 1 to 256GiB"],
        ),
        (
            vec!["stream", "set", "s", "--backpressure", "drop-oldest:200GiB,5s"],
            &["--backpressure", "214748364800; at most "],
        ),
        (
            vec!["stream", "create", "t", "--retention-bytes", "1"],
            &["--retention-bytes is 1; 8388608 at least"],
        ),
        (vec!["load", "run", "-r", "-5"], &["--rate", "-5 records per second; write more than 0"]),
        (vec!["tail", "s", "--limit", "-5"], &["--limit", "-5"]),
        (with(&["--timeout", "1ms"]), &["--timeout is 1ms; 100ms to 12h are allowed"]),
        (with(&["--attempts", "0"]), &["--attempts is 0; 1 to 1000 are allowed"]),
        (with(&["--dead-letters", "s"]), &["--dead-letters is s"]),
        (
            vec!["tail", "s", "--filter", "size = 404"],
            &["--filter: column 6: ", "write ==", "\n    size = 404\n         ^"],
        ),
        (
            vec!["tail", "s", "--window", "1s", "--by", "(key"],
            &["--by: column 5: the expression ends; expected ", "\n    (key\n        ^"],
        ),
        (vec!["replay", "s", "--to", there], &["--to", "there.jsonl", "--force"]),
    ];
    for (args, words) in table {
        refused(&server.run(&args), 2, words);
    }
    assert_eq!(std::fs::read(there).unwrap(), b"kept");
    server.ok(&["replay", "s", "--to", there, "--force"]);
    assert_eq!(std::fs::read(there).unwrap(), b"");
    // Nothing was made or changed by any of that.
    refused(&server.run(&["stream", "describe", "t"]), 1, &["t"]);
    assert_eq!(server.json(&["group", "list", "--json"]), Value::Array(Vec::new()));
}

#[test]
fn help_and_version_go_to_stdout() {
    for args in [&["--help"][..], &["load", "run", "--help"], &["--version"]] {
        let output = highwater().args(args).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn unknown_streams_and_shards() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    refused(&server.put("nowhere", b"x", &[]), 1, &["nowhere"]);
    for command in ["tail nowhere", "stream describe nowhere", "stream delete nowhere"] {
        let args: Vec<&str> = command.split(' ').collect();
        refused(&server.run(&args), 1, &["nowhere"]);
    }
    server.create("s", 2);
    refused(&server.run(&["stream", "create", "s"]), 1, &["s"]);
    refused(&server.run(&["tail", "s", "--shard", "2"]), 1, &["2 shards", "no shard 2"]);
    refused(&server.run(&["tail", "s", "--from", "5", "--shard", "0"]), 1, &["5"]);
}

#[test]
fn records_over_the_limit_are_named_and_what_came_before_is_stored() {
    let dir = scratch();
    let args = ["--listen", "127.0.0.1:0", "--max-record", "4KiB"];
    let server = Server::start_with(&dir.path().join("data"), &args);
    server.create("s", 1);
    let input = [b"fine\n".as_slice(), &[b'x'; 5_000], b"\nafter\n"].concat();
    let put = server.put("s", &input, &[]);
    refused(&put, 1, &["line 2", "5000 bytes", "4096", "1 record was stored"]);
    assert!(text(&put).contains("stored 1 record,"), "{}", text(&put));
    assert_eq!(server.ok(&["tail", "s"]), b"fine\n");
    refused(&server.put("s", &[0; 5_000], &["--format", "raw"]), 1, &["4096"]);
    let key = format!("const:{}", "k".repeat(257));
    refused(&server.put("s", b"x", &["--key", &key]), 1, &["257", "256"]);
}

#[test]
fn no_server() {
    // Port 1 is privileged and unused.
    let output = highwater().args(["stream", "list", "-t", "127.0.0.1:1"]).output().unwrap();
    refused(&output, 1, &["127.0.0.1:1"]);
    let output = highwater().args(["stream", "list", "-t", "nonsense"]).output().unwrap();
    refused(&output, 2, &["nonsense", "HOST:PORT"]);
}

#[test]
fn a_port_in_use_and_a_directory_in_use() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    let other = dir.path().join("other");
    let output = serve(&other).args(["--listen", &server.addr]).output().unwrap();
    refused(&output, 1, &[&server.addr, "in use"]);
    let output = serve(&data).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    refused(&output, 1, &["data"]);
    server.create("still-served", 1);
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = scratch();
    let data = dir.path().join("data");
    assert_eq!(Server::start(&data).terminate().code(), Some(0));
    let identity = data.join("highwater.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&identity).unwrap()).unwrap();
    json["format"] = 999.into();
    std::fs::write(&identity, json.to_string()).unwrap();
    let output = serve(&data).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    refused(&output, 1, &["999", "newer"]);
}

#[test]
fn directories_that_cannot_be_used() {
    let dir = scratch();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let output = serve(&file).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    refused(&output, 1, &["file"]);
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("photo.jpg"), "mine").unwrap();
    let output = serve(&foreign).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    refused(&output, 1, &["foreign", "not empty"]);
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write anywhere");
        return;
    }
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o500)).unwrap();
    let output = serve(&closed).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    refused(&output, 1, &["closed"]);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let input = vec![b'\n'; 400_000];
    assert!(server.put("s", &input, &[]).status.success());
    let mut tail = server
        .command(&["tail", "s"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(tail.stdout.take());
    let output = tail.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
}
