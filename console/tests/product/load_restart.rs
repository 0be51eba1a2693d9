//! `load run` while the server is killed under it.

use std::process::Child;

use serde_json::Value;

use crate::support::{Server, report, scratch, until};

/// `load run` at a stream of two shards that is there, its report to come as JSON.
fn load(server: &Server, args: &[&str]) -> Child {
    server.create("logs", 2);
    let usual = ["load", "run", "--stream", "logs", "-r", "2k", "--size", "200", "--json", "-"];
    server.begin(&[&usual[..], args].concat())
}

#[test]
fn a_run_that_tolerates_restarts_loses_and_doubles_nothing_when_the_server_is_killed() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    let args = ["-d", "6s", "--warmup", "0s", "--groups", "2", "--tolerate-restart"];
    let load = load(&server, &args);
    let mut records = 0;
    for _ in 0..2 {
        // Some were stored since it was last started, so batches are on their way now.
        until(|| server.records("logs") > records);
        let addr = server.addr.clone();
        server.kill();
        server = Server::start_with(&data, &["--listen", &addr]);
        records = server.records("logs");
    }
    let report = report(load);
    for count in ["lost", "duplicated", "reordered", "corrupted", "refused", "unread", "trimmed"] {
        assert_eq!(report[count], 0, "{count}: {report:#}");
    }
    assert_eq!((&report["checked"], &report["ended_early"]), (&true.into(), &Value::Null));
    // It went on after the last restart, and the account is whole: what the server has was acknowledged,
    // or was of unknown fate until it was read.
    let checked = report["checked_records"].as_u64().unwrap();
    let resolved = report["unknown_but_read"].as_u64().unwrap();
    assert!(checked > records, "{report:#}");
    assert_eq!(checked + resolved, server.records("logs"), "{report:#}");
    assert_eq!(report["consumed_records"].as_u64(), Some(2 * (checked + resolved)), "{report:#}");
}

#[test]
fn a_server_that_dies_ends_the_run_with_what_was_measured() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let load = load(&server, &["-d", "1h", "--warmup", "0s", "--target-timeout", "500ms"]);
    until(|| server.records("logs") > 100);
    server.kill();
    let report = report(load);
    assert!(report["ended_early"].is_string(), "{report:#}");
    assert_eq!((&report["valid"], &report["interrupted"]), (&false.into(), &false.into()));
    assert_eq!((&report["lost"], &report["duplicated"]), (&0.into(), &0.into()), "{report:#}");
    assert!(report["acked_records"].as_u64().unwrap() > 0, "{report:#}");
    assert!(report["duration_s"].as_f64().unwrap() < 3600.0);
}
