//! `put --follow`: files that grow and rotate, over crashes of either side; nothing is missing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Server, highwater, refused, scratch, until};

fn append(path: &Path, text: &str) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn follow(addr: &str, files: &[&Path], state: &Path, more: &[&str]) -> Command {
    let mut command = highwater();
    command.args(["put", "logs", "--target", addr, "--state"]).arg(state).args(more);
    command.arg("--follow").args(files).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// SIGTERM, and what it printed; it has to end well.
fn stop(child: Child) -> String {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn lines(server: &Server) -> Vec<String> {
    let all = String::from_utf8(server.ok(&["tail", "logs"])).unwrap();
    all.lines().map(str::to_owned).collect()
}

#[test]
fn several_files_grow_are_rotated_and_taken_up_where_they_were_left() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 1);
    let (a, b, state) =
        (dir.path().join("a.log"), dir.path().join("b.log"), dir.path().join("state"));
    append(&a, "a1\na2\na3 is not");
    let agent = follow(&server.addr, &[&a, &b], &state, &[]).spawn().unwrap();
    until(|| server.records("logs") == 2);
    append(&b, "b1\n");
    append(&a, " whole\n");
    until(|| server.records("logs") == 4);
    fs::rename(&a, dir.path().join("a.log.1")).unwrap();
    append(&dir.path().join("a.log.1"), "a4 after the rename\n");
    append(&a, "a5\n");
    until(|| server.records("logs") == 6);
    let told = stop(agent);
    assert!(told.contains("stored 6 records"), "{told}");
    // While nobody looks, one grows and is renamed, the other grows.
    append(&a, "a6\n");
    fs::rename(&a, dir.path().join("a.log.2")).unwrap();
    append(&a, "a7\n");
    append(&b, "b2\n");
    let agent = follow(&server.addr, &[&a, &b], &state, &[]).spawn().unwrap();
    until(|| server.records("logs") == 9);
    stop(agent);
    let all = lines(&server);
    let of =
        |file: char| all.iter().filter(|line| line.starts_with(file)).cloned().collect::<Vec<_>>();
    assert_eq!(of('a'), ["a1", "a2", "a3 is not whole", "a4 after the rename", "a5", "a6", "a7"]);
    assert_eq!(of('b'), ["b1", "b2"]);
}

/// Killed in the middle, again and again, and the server too: every line is there, in order but for what came again.
#[test]
fn nothing_is_missing_after_crashes_of_either_side() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    server.create("logs", 1);
    let addr = server.addr.clone();
    let (log, state) = (dir.path().join("log"), dir.path().join("state"));
    let mut written = 0u32;
    let mut write = |lines: u32| {
        let text: String = (written..written + lines).map(|n| format!("line {n}\n")).collect();
        append(&log, &text);
        written += lines;
    };
    let again = ["--timeout", "1s"];
    for round in 0..3u64 {
        write(4_000);
        let before = server.records("logs");
        let mut agent = follow(&addr, &[&log], &state, &again).spawn().unwrap();
        until(|| server.records("logs") > before + 100);
        if round == 1 {
            server.kill();
            write(500);
            // On the same port, which the agent goes on trying.
            server = Server::start_with(&data, &["--listen", &addr]);
            let mark = server.records("logs");
            write(500);
            until(|| server.records("logs") > mark);
        }
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    write(10);
    let agent = follow(&addr, &[&log], &state, &again).spawn().unwrap();
    let last = format!("line {}", written - 1);
    until(|| server.records("logs") >= u64::from(written) && lines(&server).last() == Some(&last));
    stop(agent);
    let distinct: BTreeSet<u32> = lines(&server)
        .iter()
        .map(|line| line.strip_prefix("line ").unwrap().parse().unwrap())
        .collect();
    assert_eq!(distinct.len() as u32, written);
}

#[test]
fn formats_dead_letters_and_what_cannot_be_followed() {
    let dir = scratch();
    let server = Server::start_with(
        &dir.path().join("data"),
        &["--listen", "127.0.0.1:0", "--max-record", "4KiB"],
    );
    let (log, state) = (dir.path().join("log"), dir.path().join("state"));
    let missing =
        follow(&server.addr, &[&log], &state, &[]).stderr(Stdio::piped()).output().unwrap();
    refused(&missing, 1, &["logs"]);
    server.create("logs", 1);
    let good = "h - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1\n";
    append(&log, &format!("{good}\nno line\n{}\n{good}", "x".repeat(5_000)));
    let agent = follow(&server.addr, &[&log], &state, &["--format", "access-log"]).spawn().unwrap();
    until(|| server.records("logs") == 2);
    let second = follow(&server.addr, &[&log], &state, &[]).stderr(Stdio::piped()).output();
    refused(&second.unwrap(), 1, &["state", "another put --follow has it"]);
    let told = stop(agent);
    assert!(
        told.contains("2 dead letters in logs.dead; the first is line 3: not a line of access-log"),
        "{told}"
    );
    assert_eq!(server.ok(&["tail", "logs"]), good.repeat(2).as_bytes());
    let long = ["tail", "logs.dead", "--filter", "headers['reason'].contains('5000 bytes')"];
    let begins = server.ok(&long);
    assert!(begins.starts_with(&[b'x'; 3_000]) && begins.len() < 4_096, "as much as fits");
    server.create("other", 1);
    let mut other = server.command(&["put", "other", "--state"]);
    refused(
        &other.arg(&state).arg("--follow").arg(&log).output().unwrap(),
        1,
        &["state", "logs", "--state"],
    );
    refused(
        &server.run(&["put", "logs", "--follow", "x", "--format", "raw"]),
        2,
        &["--follow", "raw"],
    );
    refused(&server.run(&["put", "logs", "--follow", "x", "--file", "y"]), 2, &["--file"]);
}

/// It went on, ended well when it was asked to, and the next one stored the same lines again.
#[test]
fn an_agent_that_cannot_keep_its_places_fails() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 1);
    let (log, state) = (dir.path().join("log"), dir.path().join("state"));
    append(&log, "one\n");
    // In the way of the file that is to take the state's place.
    fs::create_dir(dir.path().join("state.new")).unwrap();
    let failed = follow(&server.addr, &[&log], &state, &[]).stderr(Stdio::piped()).output();
    refused(&failed.unwrap(), 1, &["state file"]);
    assert_eq!(lines(&server), ["one"]);
}
