//! What is recorded is what was seen.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Server, said, scratch, until};

#[test]
fn a_replay_tells_what_the_live_session_told() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("orders", 2);
    let file = dir.path().join("run.rec");
    let file = file.to_str().unwrap();
    let live = server.ok(&["top", "--jsonl", "--limit", "3", "--record", file]);
    assert_eq!(live.iter().filter(|b| **b == b'\n').count(), 3);
    let replayed = server.ok(&["top", "--replay", file, "--jsonl"]);
    assert_eq!(String::from_utf8(live.clone()).unwrap(), String::from_utf8(replayed).unwrap());
    // Its last sample alone, judged as a live one is; nothing here is durable in memory, so the code may be either.
    let once = server.run(&["top", "--replay", file, "--once", "--json"]);
    let last: serde_json::Value = serde_json::from_slice(&once.stdout).unwrap();
    let lines = String::from_utf8(live).unwrap();
    let told: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&last, once.status.success()), (&told, told["healthy"] == true));
    // A recording that is there is not overwritten.
    let again = server.run(&["top", "--jsonl", "--limit", "1", "--record", file]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    let none = server.run(&["top", "--replay", "/nonexistent", "--jsonl"]);
    assert_eq!(none.status.code(), Some(5), "{}", said(&none));
}

#[test]
fn a_flight_recorder_goes_on_in_its_file() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let path = dir.path().join("flight.rec");
    let file = path.to_str().unwrap();
    let lines = || std::fs::read(&path).map_or(0, |bytes| bytes.split(|b| *b == b'\n').count());
    for _ in 0..2 {
        let before = lines();
        let mut recorder = server.begin(&["record", "-o", file, "--max-size", "1MiB"]);
        // However seldom samples come on a busy machine.
        until(|| lines() > before + 4 || recorder.try_wait().unwrap().is_some());
        kill_process(Pid::from_child(&recorder), Signal::TERM).unwrap();
        assert!(recorder.wait().unwrap().success());
    }
    let lines = server.ok(&["top", "--replay", file, "--jsonl"]);
    assert!(lines.iter().filter(|b| **b == b'\n').count() >= 3);
    server.terminate();
    let gone = crate::support::highwater()
        .args(["record", "-t", "127.0.0.1:1", "-o", file, "--duration", "100ms"])
        .output()
        .unwrap();
    assert_eq!(gone.status.code(), Some(5), "{}", said(&gone));
}

/// It panicked: there is no such time to end at.
#[test]
fn a_recorder_may_be_told_to_run_for_longer_than_there_is_time() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let file = dir.path().join("flight.rec");
    let path = file.to_str().unwrap();
    let mut recorder = server.begin(&["record", "-o", path, "--duration", "300000000000years"]);
    // It is there with its head, and then with a sample.
    let lines = || std::fs::read(&file).map_or(0, |bytes| bytes.split(|b| *b == b'\n').count());
    until(|| lines() > 2 || recorder.try_wait().unwrap().is_some());
    kill_process(Pid::from_raw(recorder.id() as i32).unwrap(), Signal::TERM).unwrap();
    let ended = recorder.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", said(&ended));
}
