//! What is kept, and for how much room: retention, trimming, and a file system that fills up.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Server, access_log, refused, said, scratch, text, until};

/// Inode and allocated bytes of every file of the log below `dir`: segments and those prepared for them.
fn log_files(dir: &Path) -> BTreeSet<(u64, u64)> {
    let mut files = BTreeSet::new();
    let Ok(entries) = fs::read_dir(dir) else { return files };
    // Files come and go meanwhile.
    for entry in entries.filter_map(Result::ok) {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => files.extend(log_files(&entry.path())),
            Ok(meta) if meta.len() >= 1 << 20 && entry.file_name() != "control.redb" => {
                files.insert((meta.ino(), meta.blocks() * 512));
            }
            _ => {}
        }
    }
    files
}

fn stored(server: &Server) -> u64 {
    let described = server.json(&["stream", "describe", "s", "--json"]);
    let shards = described["shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["stored_bytes"].as_u64().unwrap()).sum()
}

/// The largest segment that retention by 32 MiB allows: an eighth of it.
const SEGMENT: u64 = 4 << 20;

#[test]
fn retention_by_bytes_holds_while_much_more_is_written_and_files_are_used_again() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.ok(&["stream", "create", "s", "--retention-bytes", "32MiB"]);
    let load = ["load", "run", "--stream", "s", "-r", "40k", "-d", "8s", "--warmup", "0s"];
    let mut load = server
        .command(&[&load[..], &["--size", "1KiB", "--consumers", "0", "--json", "-"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Once it has gone round, no file is new: the same ones are written again.
    until(|| server.records("s") > 64 << 10);
    let mut known = log_files(&data);
    let (mut most, mut rounds, mut new) = (0, 0, BTreeSet::new());
    while load.try_wait().unwrap().is_none() {
        most = most.max(stored(&server));
        let now = log_files(&data);
        if rounds > 20 {
            new.extend(now.difference(&known).copied());
        }
        known.extend(now);
        rounds += 1;
    }
    let mut report = String::new();
    std::io::Read::read_to_string(&mut load.stdout.take().unwrap(), &mut report).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let written = report["acked_records"].as_u64().unwrap() << 10;
    assert!(written > 4 * (32 << 20), "{written} bytes written");
    assert!(most <= (32 << 20) + 2 * SEGMENT, "{most} bytes kept after {written}");
    assert!(new.is_empty(), "files or blocks allocated in the steady state: {new:?}");
}

#[test]
fn retention_changes_live_and_trim_gives_up_records() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let log = access_log(11, 3_000);
    assert!(server.put("s", &log, &[]).status.success());
    let trimmed = text(&server.run(&["stream", "trim", "s", "--before", "2000"]));
    assert!(trimmed.contains("oldest 2000, 1,000 records kept"), "{trimmed}");
    let kept: Vec<u8> =
        log.split_inclusive(|b| *b == b'\n').skip(2_000).collect::<Vec<_>>().concat();
    assert_eq!(server.ok(&["tail", "s"]), kept);
    // Who asks for what is gone is told what is the oldest.
    let from_five = ["tail", "s", "--from", "5", "--shard", "0"];
    refused(&server.run(&from_five), 1, &["5", "2000", "--on-trimmed oldest"]);
    let went_on = server.run(&[&from_five[..], &["--on-trimmed", "oldest"]].concat());
    assert!(went_on.status.success() && went_on.stdout == kept, "{}", said(&went_on));
    let gap = "1,995 records of shard 0, from 5 on, were removed";
    assert!(said(&went_on).contains(gap), "{}", said(&went_on));
    refused(&server.run(&["stream", "trim", "s", "--before", "99999"]), 1, &["99999"]);
    refused(&server.run(&["stream", "trim", "s", "--before", "soon"]), 2, &["--before", "soon"]);
    // All that arrived before this moment.
    server.ok(&["stream", "trim", "s", "--before", "-0s"]);
    assert_eq!(server.ok(&["tail", "s"]), b"");

    // Much is there, and then a bound is set.
    let much = vec![b'x'; 1_000_000];
    for _ in 0..12 {
        let put = server.put("s", &much, &["--format", "raw"]);
        assert!(put.status.success(), "{}", said(&put));
    }
    server.ok(&["stream", "set", "s", "--retention-bytes", "8MiB"]);
    until(|| stored(&server) <= 2 * (8 << 20));
}

/// An ext4 of its own in a file, mounted; unmounted with the value. `None` if this machine does not let us.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(dir: &Path, mib: u64) -> Option<Mounted> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may mount");
            return None;
        }
        let (image, at) = (dir.join("image"), dir.join("mounted"));
        fs::create_dir(&at).unwrap();
        let file = fs::File::create(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        let done =
            |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = done(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        if !made || !done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)) {
            eprintln!("skipped: no loop-mounted file system here");
            return None;
        }
        Some(Mounted { at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

#[test]
fn a_full_file_system_refuses_appends_serves_reads_and_recovers_by_itself() {
    let dir = scratch();
    let Some(mounted) = Mounted::new(dir.path(), 256) else { return };
    let server = Server::start(&mounted.at.join("data"));
    server.create("s", 1);
    // A megabyte each, told apart by their first bytes.
    let record = |n: u32| {
        let mut record = format!("{n:08}").into_bytes();
        record.resize(900 << 10, b'.');
        record
    };
    let put = |n: u32, patience: &str| {
        server.put("s", &record(n), &["--format", "raw", "--timeout", patience])
    };
    assert!(put(0, "30s").status.success());
    let ballast = mounted.at.join("ballast");
    let fill = Command::new("fallocate").args(["-l", "150MiB"]).arg(&ballast).output().unwrap();
    assert!(fill.status.success(), "{}", said(&fill));
    // Until there is no room for more; the error says what it is.
    let mut stored = 1;
    let full = loop {
        let output = put(stored, "1s");
        if !output.status.success() {
            break output;
        }
        stored += 1;
        assert!(stored < 256, "never full");
    };
    refused(&full, 1, &["full"]);
    let state = server.json(&["stream", "describe", "s", "--json"])["shards"][0]["state"].clone();
    assert!(state.as_str().unwrap().contains("full") || state == "open", "{state}");
    // Reads go on, and the file system itself still has room.
    let lengths = |server: &Server| {
        let tail = server.ok(&["tail", "s"]);
        tail.split(|b| *b == b'\n').filter(|r| !r.is_empty()).count() as u32
    };
    let there = lengths(&server);
    assert!(there >= stored, "{there} of {stored}");
    // Stderr has a line that it began and one that it ended.
    let lines = |words: &str| server.said().lines().filter(|line| line.contains(words)).count();
    assert_ne!(lines("the file system is full: "), 0, "{}", server.said());
    // Space returns: appends go on, nobody restarts anything.
    fs::remove_file(&ballast).unwrap();
    assert!(put(9_999, "60s").status.success());
    until(|| lines("the file system has room again: ") >= 1);
    server.kill();
    let server = Server::start(&mounted.at.join("data"));
    let all = server.ok(&["tail", "s"]);
    let numbers: BTreeSet<&[u8]> =
        all.split(|b| *b == b'\n').filter_map(|record| record.get(..8)).collect();
    for n in (0..stored).chain([9_999]) {
        assert!(numbers.contains(format!("{n:08}").as_bytes()), "record {n} is missing");
    }
    server.terminate();
}
