//! Settings in layers, completions and manual pages, as a user meets them.

use std::process::Output;

use serde_json::Value;

use crate::support::{highwater, said, scratch, text};

fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    highwater().args(args).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn config_print_says_what_each_setting_is_and_where_it_comes_from() {
    let dir = scratch();
    let file = dir.path().join("highwater.toml");
    std::fs::write(&file, "[top]\nspan = '3s'\n[put]\ntarget = 'file:1'\n").unwrap();
    let variables = [("HIGHWATER_CONFIG", file.to_str().unwrap()), ("HIGHWATER_TARGET", "env:2")];
    let output = run(&["config", "print", "--json"], &variables);
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |command: &str, option: &str| {
        let found = list.iter().find(|s| s["command"] == command && s["option"] == option);
        let found = found.unwrap();
        (found["values"][0].as_str().unwrap().to_owned(), found["origin"].clone())
    };
    assert_eq!(of("top", "span"), ("3s".into(), "file".into()));
    assert_eq!(of("put", "target"), ("env:2".into(), "environment".into()));
    assert_eq!(of("serve", "listen"), ("127.0.0.1:7411".into(), "default".into()));

    // What it prints for people is a configuration file again, saying the same.
    let printed = text(&run(&["config", "print"], &variables));
    assert!(printed.contains("span = \"3s\"") && printed.contains("HIGHWATER_TARGET"), "{printed}");
    let again = dir.path().join("again.toml");
    std::fs::write(&again, &printed).unwrap();
    let output = run(&["config", "print", "top", "--config", again.to_str().unwrap()], &[]);
    assert!(text(&output).contains("span = \"3s\""), "{}", said(&output));
}

#[test]
fn a_setting_from_the_file_is_in_force() {
    let dir = scratch();
    let file = dir.path().join("highwater.toml");
    std::fs::write(&file, "[load.run]\nrate = 'fast'\n").unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["--config", file, "stream", "list"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("[load.run] rate"), "{}", said(&output));

    // Nothing listens on port 1: the target of the file is the one that was tried.
    std::fs::write(file, "target = '127.0.0.1:1'\n").unwrap();
    let output = run(&["--config", file, "top", "--once"], &[]);
    assert!(said(&output).contains("127.0.0.1:1"), "{}", said(&output));
}

#[test]
fn a_named_file_must_be_there_and_a_variable_at_fault_is_named() {
    let output = run(&["--config", "/nowhere/highwater.toml", "stream", "list"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("/nowhere/highwater.toml"), "{}", said(&output));

    let output = run(&["load", "run"], &[("HIGHWATER_LOAD_RUN_RATE", "fast")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("HIGHWATER_LOAD_RUN_RATE"), "{}", said(&output));
}

#[test]
fn a_variable_forbids_no_other_use_of_its_command() {
    // What needs --once when it is typed is there for the day that it is.
    let variables = [("HIGHWATER_TOP_SPAN", "2s"), ("HIGHWATER_TOP_JSON", "1")];
    let output = run(&["top"], &variables);
    assert!(said(&output).contains("top needs a terminal"), "{}", said(&output));
    let output = run(&["top", "--jsonl", "--span", "1s"], &[]);
    assert!(said(&output).contains("cannot be used with"), "{}", said(&output));
    let output = run(&["top", "--once", "--limit", "3"], &[]);
    assert!(said(&output).contains("cannot be used with"), "{}", said(&output));
}

#[test]
fn completions_and_manual_pages_come_from_the_same_command_line() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&["completions", shell], &[]));
        assert!(script.contains("drain-timeout"), "{shell}");
    }
    assert!(text(&run(&["man"], &[])).contains(".TH highwater"));
    let dir = scratch();
    let pages = dir.path().join("man1");
    let output = run(&["man", "--dir", pages.to_str().unwrap()], &[]);
    assert!(output.status.success(), "{}", said(&output));
    let page = std::fs::read_to_string(pages.join("highwater-load-run.1")).unwrap();
    assert!(page.contains("drain\\-timeout"));
}
