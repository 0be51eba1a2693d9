//! Consumer groups: positions kept by the broker, and the backlog that follows from them.

use serde_json::Value;

use crate::support::{Server, scratch, until};

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
