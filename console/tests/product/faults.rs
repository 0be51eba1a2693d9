//! Replies that are lost on the way: nothing is stored twice, nothing is lost, nothing changes places.

use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use crate::support::proxy::{Faults, Proxy};
use crate::support::{Server, report, scratch, until};

const FAULTS: Faults = Faults {
    seed: 20_260_517,
    lost: 0.05,
    cut: 0.002,
    delayed: 0.02,
    longest: Duration::from_millis(20),
};

/// The ports of the cores, as a client learns them.
fn core_ports(server: &Server, stream: &str) -> Vec<u16> {
    let described = server.json(&["stream", "describe", stream, "--json"]);
    let shards = described["shards"].as_array().unwrap();
    let mut ports: Vec<u16> = shards.iter().map(|s| s["port"].as_u64().unwrap() as u16).collect();
    ports.dedup();
    ports
}

/// `load run` through the proxy, its report to come as JSON.
fn load(proxy: &Proxy, server: &Server, args: &[&str]) -> Child {
    let usual = ["load", "run", "-t", &proxy.addr, "--stream", "logs", "--size", "200"];
    let more = ["--warmup", "0s", "--json", "-"];
    server.begin(&[&usual[..], &more, args].concat())
}

/// Nothing lost, doubled, reordered or given up, and the server has exactly what the generator believes.
fn sound(report: &Value, server: &Server) {
    for count in ["lost", "duplicated", "reordered", "corrupted", "refused", "unread", "trimmed"] {
        assert_eq!(report[count], 0, "{count}: {report:#}");
    }
    assert_eq!((&report["checked"], &report["ended_early"]), (&true.into(), &Value::Null));
    let resolved = report["unknown_but_read"].as_u64().unwrap();
    let checked = report["checked_records"].as_u64().unwrap();
    assert_eq!(checked + resolved, server.records("logs"), "{report:#}");
}

#[test]
fn five_percent_of_the_replies_lost_lose_and_double_nothing() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 2);
    let proxy = Proxy::before(&server.addr, &core_ports(&server, "logs"), FAULTS);
    let report = report(load(&proxy, &server, &["-r", "2k", "-d", "5s"]));
    sound(&report, &server);
    let (came, lost) = proxy.replies();
    assert!(lost > 0 && proxy.delayed() > 0, "{came} came, {lost} were lost");
    // What was stored before its answer was lost came again, and was known.
    let described = server.json(&["stream", "describe", "logs", "--json"]);
    assert!(described["counters"]["duplicates_recognised"].as_u64() > Some(0), "{described:#}");
}

#[test]
fn replies_lost_over_three_kills_lose_and_double_nothing() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    server.create("logs", 2);
    let ports = core_ports(&server, "logs");
    let proxy = Proxy::before(&server.addr, &ports, FAULTS);
    let load = load(&proxy, &server, &["-r", "1k", "-d", "8s", "--tolerate-restart"]);
    let mut records = 0;
    for _ in 0..3 {
        // Some were stored since it was last started, so batches are on their way now.
        until(|| server.records("logs") > records);
        let addr = server.addr.clone();
        server.kill();
        let port = ports[0].to_string();
        server = Server::start_with(&data, &["--listen", &addr, "--core-port-base", &port]);
        records = server.records("logs");
    }
    let report = report(load);
    sound(&report, &server);
    assert!(report["checked_records"].as_u64().unwrap() > records, "{report:#}");
    assert!(proxy.replies().1 > 0);
}
