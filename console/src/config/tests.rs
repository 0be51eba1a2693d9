//! Layers over each other, and files that are wrong.

use std::path::Path;

use clap::{ArgMatches, CommandFactory as _};

use super::*;

const FILE: &str = r#"
target = "top:1"

[load]
seed = 5

[load.run]
rate = "20k"
slo = ["p99=10ms", "p99.9=50ms"]
seed = 6

[serve]
data = "/srv/highwater"
allow-buffered = true
"#;

fn root() -> Command {
    layers::with_environment(Cli::command())
}

fn file(text: &str) -> Result<ConfigFile, ConfigError> {
    ConfigFile::parse(Path::new("highwater.toml"), text, &root())
}

/// The options of the innermost command.
fn matches(text: &str, typed: &str) -> ArgMatches {
    let command = layers::with_file(root(), &file(text).unwrap());
    let words = std::iter::once("highwater").chain(typed.split_whitespace());
    let mut matches = command.try_get_matches_from(words).unwrap();
    while let Some((_, inner)) = matches.remove_subcommand() {
        matches = inner;
    }
    matches
}

#[test]
fn the_file_gives_defaults_and_what_is_typed_goes_over_it() {
    let target = |typed| matches(FILE, typed).get_one::<String>("target").cloned();
    assert_eq!(target("top"), Some("top:1".into()));
    assert_eq!(target("top -t typed:2"), Some("typed:2".into()));
    let slo = |typed| matches(FILE, typed).get_raw("slo").unwrap().count();
    assert_eq!(slo("load run"), 2);
    assert_eq!(slo("load run --slo p99=1ms"), 1);
}

/// A number below zero was taken for an option: nothing was said of what it was for, nor of its limits.
#[test]
fn numbers_below_zero_are_refused_by_whom_they_are_for() {
    let root = layers::with_environment(layers::with_negative_numbers(Cli::command()));
    for (typed, option, words) in [
        ("load run -r -5", "--rate", "write more than 0, at most 1G, or max"),
        ("load run --rate -5k", "--rate", "write more than 0, at most 1G, or max"),
        ("load search --max-rate -1", "--max-rate", "write more than 0, at most 1G, or max"),
        ("demo -r -5", "--rate", "write more than 0, at most 1G, or max"),
        ("tail s --limit -5", "--limit", "not a whole number"),
        ("group set g --stream s --attempts -1", "--attempts", "-1"),
        ("stream set s --retention-bytes -1", "--retention-bytes", "not a size"),
        ("serve --data d --memory -64", "--memory", "not a size"),
    ] {
        let words_typed = std::iter::once("highwater").chain(typed.split(' '));
        let error = root.clone().try_get_matches_from(words_typed).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{typed}: {error}");
        let told = error.to_string();
        assert!(told.contains(option) && told.contains(words), "{typed}: {told}");
    }
    // Options are options still.
    let words = ["highwater", "tail", "s", "--limit", "--follow"];
    assert!(root.try_get_matches_from(words).unwrap_err().to_string().contains("--limit"));
}

#[test]
fn a_required_option_and_a_flag_can_come_from_the_file() {
    let serve = matches(FILE, "serve");
    assert!(serve.get_flag("allow_buffered"));
    assert_eq!(serve.get_raw("data").unwrap().next().unwrap(), "/srv/highwater");
}

#[test]
fn the_nearest_table_counts() {
    let file = file(FILE).unwrap();
    let seed = file.get("load run", "seed").unwrap();
    assert_eq!((seed.words.concat(), seed.table.as_str()), ("6".into(), "[load.run]"));
}

#[test]
fn what_no_command_has_is_refused_with_the_nearest_name() {
    for (text, says) in [
        ("tarket = 'h:1'", "tarket; did you mean target?"),
        ("[load.run]\nraet = 5", "load.run.raet; did you mean rate?"),
        ("[lod]\nseed = 5", "lod; did you mean load?"),
        ("[top]\nrate = 5", "no command has top.rate"),
        ("[config]\nx = 5", "no command has config.x"),
        ("[top]\nhelp = true", "no command has top.help"),
    ] {
        let said = file(text).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("highwater.toml"), "{text}: {said}");
    }
}

#[test]
fn a_wrong_value_names_file_key_and_reason() {
    for (text, says) in [
        ("[load.run]\nrate = 'fast'", "[load.run] rate: invalid value 'fast'"),
        ("[load.run]\nrate = [1, 2]", "[load.run] rate: one value is wanted"),
        ("[serve]\nallow-buffered = 'yes'", "true or false"),
        ("[load.run\nrate = 1", "highwater.toml"),
    ] {
        let said = file(text).unwrap_err().to_string();
        assert!(said.contains(says), "{text}: {said}");
    }
}

#[test]
fn every_option_has_a_variable_of_its_own_and_those_of_the_server_one_for_all() {
    let list = layers::list(&root(), None, &[]);
    let mut variables: Vec<&str> = list
        .iter()
        .filter(|s| s.option != "target" && s.option != "client-name")
        .map(|s| s.variable.as_deref().unwrap())
        .collect();
    assert!(variables.contains(&"HIGHWATER_LOAD_RUN_DRAIN_TIMEOUT"));
    let count = variables.len();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!(variables.len(), count);
    for (option, variable) in
        [("target", "HIGHWATER_TARGET"), ("client-name", "HIGHWATER_CLIENT_NAME")]
    {
        let of_all = list.iter().filter(|s| s.option == option);
        assert!(of_all.clone().count() > 5);
        assert!(of_all.map(|s| s.variable.as_deref()).all(|name| name == Some(variable)));
    }
}

#[test]
fn the_list_says_where_each_value_comes_from() {
    let file = file(FILE).unwrap();
    let list = layers::list(&root(), Some(&file), &["load".into(), "run".into()]);
    assert!(list.iter().all(|s| s.command == "load run"));
    let of = |option: &str| list.iter().find(|s| s.option == option).unwrap();
    assert_eq!(of("rate").origin, Origin::File("[load.run]".into()));
    assert_eq!(of("target").origin, Origin::File(String::new()));
    assert_eq!(
        (of("duration").origin.clone(), of("duration").default.as_deref()),
        (Origin::Default, Some("10s"))
    );
    assert_eq!(of("ack").default.as_deref(), Some("durable"));
}

#[test]
fn config_is_found_among_the_words_typed() {
    let typed = |words: &str| {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        typed(&words)
    };
    assert_eq!(typed("highwater top --config a.toml"), Some("a.toml".into()));
    assert_eq!(typed("highwater --config=a.toml top"), Some("a.toml".into()));
    assert_eq!(typed("highwater put s -- --config a.toml"), None);
}
