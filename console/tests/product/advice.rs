//! A split that a shard's load suggests reaches whoever watches.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{Server, scratch, until};

#[test]
fn watch_advises_to_split_a_shard_beyond_its_quota_that_may_scale() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let quota = ["--quota-in", "500rec/s", "--quota-burst", "100ms", "--backpressure", "scale"];
    server.ok(&[&["stream", "create", "s", "--shards", "1"][..], &quota].concat());
    let load = ["load", "run", "--stream", "s", "-r", "2k", "-d", "120s", "--warmup", "0s"];
    let mut load = server.command(&load);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut text = String::new();
    until(|| {
        let measured = server.run(&["top", "--once", "--json"]);
        let measured: Value = serde_json::from_slice(&measured.stdout).unwrap();
        let notices = measured["watch"].as_array().unwrap().iter();
        let advice = notices.into_iter().find(|notice| notice["rule"] == "split-advice");
        text = advice.map_or_else(String::new, |notice| notice["text"].as_str().unwrap().into());
        !text.is_empty()
    });
    let described = server.json(&["stream", "describe", "s", "--json"]);
    load.kill().unwrap();
    load.wait().unwrap();
    assert_eq!(text, format!("s/0: {}", described["shards"][0]["advice"].as_str().unwrap()));
    assert!(text.contains("split"), "{text}");
}
