//! `highwater doctor` on this machine, whatever it is like.

use crate::support::{highwater, said, scratch};

#[test]
fn what_is_looked_at_is_told_and_bad_is_an_exit_code() {
    let dir = scratch();
    let run =
        |words: &[&str]| highwater().arg("doctor").arg(dir.path()).args(words).output().unwrap();
    let json = run(&["--cores", "0", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let checks = told["checks"].as_array().unwrap();
    let bad = checks.iter().any(|check| check["verdict"] == "bad");
    assert_eq!(json.status.code(), Some(i32::from(bad)), "{}", said(&json));
    for check in checks {
        let fields = ["name", "verdict", "found", "costs", "set"];
        assert!(fields.iter().all(|field| check[field].is_string()), "{check}");
        let fault = !["good", "unknown"].contains(&check["verdict"].as_str().unwrap());
        assert_eq!(fault, check["set"] != "", "what is wrong has a remedy: {check}");
    }
    // In memory nothing lasts.
    let volatile = highwater().args(["doctor", "/dev/shm", "--quiet"]).output().unwrap();
    let text = String::from_utf8(volatile.stdout.clone()).unwrap();
    assert_eq!(volatile.status.code(), Some(1), "{}", said(&volatile));
    assert!(text.contains("!! file-system") && text.contains("NOT DURABLE"), "{text}");
}
