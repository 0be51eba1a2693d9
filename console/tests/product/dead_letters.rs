//! Dead letters: a record that cannot be processed is found, kept with the reason and given again; the others are
//! processed once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use highwater_client::{Client, ClientOptions, RecordOptions, RetryPolicy, Until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Server, refused, said, scratch, text, until};

/// A shell that takes all records of a lot into the file `done`, or none if one of them is poison.
fn worker(done: &Path) -> String {
    format!(
        "lot=$(cat); case \"$lot\" in *poison*) echo 'first words' >&2; echo 'cannot digest poison' >&2; exit 1;; esac; \
         printf '%s\\n' \"$lot\" >>'{}'",
        done.display()
    )
}

/// How often each line is in a file.
fn counts(file: &Path) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

fn work(server: &Server, command: &str, more: &[&str]) -> Output {
    let args = ["tail", "s", "--group", "g", "--format", "payload", "--exec", command];
    server.run(&[&args[..], more].concat())
}

#[test]
fn one_poison_record_in_ten_thousand_is_found_kept_and_given_again() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let line = |n: u32| if n == 4_711 { "poison\n".to_owned() } else { format!("record {n}\n") };
    let input: String = (0..10_000).map(line).collect();
    assert!(server.put("s", input.as_bytes(), &["--key", "const"]).status.success());
    let set = ["group", "set", "g", "--stream", "s", "--attempts", "3", "--retry-after", "10ms"];
    let told = String::from_utf8(server.ok(&set)).unwrap();
    assert!(
        told.contains("group g settles s record by record") && told.contains("3 attempts"),
        "{told}"
    );
    let done = dir.path().join("done");
    let worked = work(&server, &worker(&done), &["--batch", "500"]);
    assert!(worked.status.success(), "{}", said(&worked));
    assert!(said(&worked).contains("9,999 records done"), "{}", said(&worked));
    let mut wanted: BTreeMap<String, u32> =
        (0..10_000).filter(|n| *n != 4_711).map(|n| (format!("record {n}"), 1)).collect();
    assert!(counts(&done) == wanted, "each of the others once");
    // Exactly that record, with where it comes from and why.
    assert_eq!(server.ok(&["tail", "s.g.dead", "--format", "payload"]), b"poison\n");
    let letter = server.json(&["dlq", "show", "g", "--json"]);
    assert_eq!(
        (&letter["reason"], &letter["attempts"]),
        (&"cannot digest poison".into(), &3.into())
    );
    let origin = &letter["origin"];
    assert_eq!((&origin["group"], &origin["stream"]), (&"g".into(), &"s".into()));
    assert_eq!((&origin["shard"], &origin["sequence"]), (&0.into(), &4_711.into()));
    let shown = String::from_utf8(server.ok(&["dlq", "show", "s.g.dead"])).unwrap();
    assert!(
        shown.contains("g: s/0 record 4711 after 3 attempts: cannot digest poison\n    poison\n"),
        "{shown}"
    );
    let listed = server.json(&["dlq", "list", "--json"]);
    assert_eq!((&listed[0]["stream"], &listed[0]["letters"]), (&"s.g.dead".into(), &1.into()));
    assert_eq!(listed[0]["reasons"][0]["reason"], "cannot digest poison");
    let described = server.json(&["group", "describe", "g", "--json"]);
    let delivery = &described["deliveries"][0];
    assert_eq!((&delivery["buried"], &delivery["done"]), (&1.into(), &9_999.into()), "{delivery}");
    assert_eq!(described["backlog_records"], 0);
    // The consumer is mended.
    let dry = server.json(&["dlq", "redrive", "g", "--dry-run", "--json"]);
    assert_eq!((&dry["redriven"], &dry["dry_run"]), (&1.into(), &true.into()));
    assert_eq!(server.json(&["dlq", "redrive", "g", "--json"])["redriven"], 1);
    let worked = work(&server, &format!("cat >>'{}'", done.display()), &[]);
    assert!(said(&worked).contains("1 record done"), "{}", said(&worked));
    wanted.insert("poison".to_owned(), 1);
    assert!(counts(&done) == wanted, "all of them once");
    assert_eq!(server.json(&["dlq", "list", "--json"])[0]["letters"], 0, "it is empty");
    assert_eq!(server.json(&["dlq", "redrive", "g", "--json"])["redriven"], 0);
}

/// The letter's place was taken for one in the new stream: another record came twice, and the letter was gone.
#[test]
fn a_letter_of_a_stream_that_was_made_anew_is_not_given_again() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let set = ["group", "set", "g", "--stream", "s", "--attempts", "1"];
    server.create("s", 1);
    assert!(server.put("s", b"good\npoison\ngood\n", &[]).status.success());
    server.ok(&set);
    let done = dir.path().join("done");
    assert!(work(&server, &worker(&done), &["--batch", "1"]).status.success());
    server.ok(&["stream", "delete", "s"]);
    server.create("s", 1);
    assert!(server.put("s", b"0\n1\n2\n", &[]).status.success());
    server.ok(&set);
    for more in [&["--dry-run"][..], &[]] {
        let told = server.run(&[&["dlq", "redrive", "g"][..], more].concat());
        refused(&told, 1, &["1 dead letter stays"]);
        assert!(
            text(&told).contains("0 letters") && text(&told).contains("another one now"),
            "{}",
            text(&told)
        );
    }
    assert_eq!(server.ok(&["tail", "s.g.dead", "--format", "payload"]), b"poison\n");
}

#[test]
fn who_keeps_no_positions_is_told_before_anything_is_read() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    assert!(server.put("s", b"a\nb\n", &[]).status.success());
    server.ok(&["group", "set", "g", "--stream", "s"]);
    for more in [&[][..], &["--shard", "0"], &["--window", "1s", "--agg", "count()"]] {
        let told = server.run(&[&["tail", "s", "--group", "g"][..], more].concat());
        refused(&told, 1, &["record by record", "--exec"]);
        assert!(told.stdout.is_empty(), "{}", text(&told));
    }
    // And the other way round: no group comes to be by being asked for.
    let told = server.run(&["tail", "s", "--group", "new", "--exec", "cat"]);
    refused(&told, 1, &["does not settle s record by record"]);
    refused(&server.run(&["group", "describe", "new"]), 1, &["new"]);
}

#[test]
fn a_command_is_given_only_what_matches_and_the_rest_counts_as_processed() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let line = |n: u32| if n % 10 == 3 { format!("keep {n}\n") } else { format!("pass {n}\n") };
    let input: String = (0..1_000).map(line).collect();
    assert!(server.put("s", input.as_bytes(), &["--key", "const"]).status.success());
    server.ok(&["group", "set", "g", "--stream", "s"]);
    let done = dir.path().join("done");
    let command = format!(
        "lot=$(cat); test $(printf '%s\\n' \"$lot\" | wc -l) = $HIGHWATER_RECORDS && \
         test \"$(printf '%s\\n' \"$lot\" | head -n 1)\" = \"keep $HIGHWATER_SEQUENCE\" && \
         printf '%s\\n' \"$lot\" >>'{}'",
        done.display()
    );
    let filter = ["--filter", "payload.startsWith(\"keep\")", "--batch", "7"];
    let worked = work(&server, &command, &filter);
    assert!(worked.status.success(), "{}", said(&worked));
    assert!(said(&worked).contains("100 records done, 0 runs"), "{}", said(&worked));
    let wanted: BTreeMap<String, u32> =
        (0..1_000).filter(|n| n % 10 == 3).map(|n| (format!("keep {n}"), 1)).collect();
    assert!(counts(&done) == wanted, "each that matches once");
    assert_eq!(server.json(&["group", "describe", "g", "--json"])["backlog_records"], 0);
    refused(&work(&server, "cat", &["--filter", "payload ="]), 2, &["--filter"]);
}

#[test]
fn letters_of_put_are_copied_or_purged() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 1);
    server.create("raw", 2);
    let put = server.put("logs", b"{\"a\":1}\nno json\n{\n", &["--format", "json"]);
    assert!(text(&put).contains("2 dead letters in logs.dead"), "{}", text(&put));
    let shown =
        String::from_utf8(server.ok(&["dlq", "show", "logs.dead", "--limit", "1"])).unwrap();
    assert!(shown.contains("logs: - line 2: not JSON"), "{shown}");
    let nowhere = server.run(&["dlq", "redrive", "logs.dead"]);
    refused(&nowhere, 1, &["2 dead letters stay"]);
    assert!(
        text(&nowhere).contains("2 letters kept: it is no record of a group"),
        "{}",
        text(&nowhere)
    );
    let copied = server.json(&["dlq", "redrive", "logs.dead", "--to", "raw", "--json"]);
    assert_eq!(copied["copied"], 2);
    let mut lines: Vec<Value> = text(&server.run(&["tail", "raw", "--format", "json"]))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    lines.sort_by_key(|record| record["payload"].to_string());
    assert_eq!((&lines[0]["payload"], &lines[1]["payload"]), (&"no json".into(), &"{".into()));
    assert!(lines.iter().all(|record| record["headers"].as_array().unwrap().is_empty()));
    assert_eq!(server.ok(&["tail", "logs.dead"]), b"");
    server.put("logs", b"}\n]\n", &["--format", "json"]);
    assert_eq!(server.json(&["dlq", "purge", "logs.dead", "--json"])["purged"], 2);
    assert_eq!(server.json(&["dlq", "list", "--json"])[0]["letters"], 0);
    for (args, code, words) in [
        (&["dlq", "show", "logs"][..], 1, &["logs", "dlq list"][..]),
        (&["dlq", "purge", "logs"], 1, &["logs", "stream trim"]),
        (&["dlq", "redrive", "logs.dead", "--to", "logs.dead"], 2, &["--to logs.dead"]),
        (&["dlq", "redrive", "logs.dead", "--to", "missing"], 1, &["missing"]),
    ] {
        refused(&server.run(args), code, words);
    }
}

/// Purge took no group where show and redrive do.
#[test]
fn letters_are_purged_by_group_unless_others_lie_among_them() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", b"poison\n", &[]).status.success());
    for (group, more) in [
        ("alone", &[][..]),
        ("first", &["--dead-letters", "shared.dead"]),
        ("second", &["--dead-letters", "shared.dead"]),
    ] {
        let set = ["group", "set", group, "--stream", "s", "--attempts", "1"];
        server.ok(&[&set[..], more].concat());
        server.run(&["tail", "s", "--group", group, "--exec", "exit 1"]);
    }
    let purged = server.json(&["dlq", "purge", "alone", "--json"]);
    assert_eq!((&purged["purged"], &purged["stream"]), (&1.into(), &"s.alone.dead".into()));
    let shared = server.run(&["dlq", "purge", "second"]);
    refused(&shared, 1, &["shared.dead", "first: s/0 record 0", "dlq purge shared.dead"]);
    assert_eq!(server.json(&["dlq", "purge", "shared.dead", "--json"])["purged"], 2);
    refused(&server.run(&["dlq", "purge", "nobody"]), 1, &["nobody", "nor a group"]);
}

/// What stayed when others were given again looked as if it had come that moment.
#[test]
fn a_letter_that_stays_keeps_its_time() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let put = server.put("s", b"no json\n{}\n", &["--format", "json"]);
    assert!(text(&put).contains("1 dead letter in s.dead"), "{}", text(&put));
    let letter = || {
        let shown = server.ok(&["dlq", "show", "s.dead", "--json"]);
        let lines = String::from_utf8(shown).unwrap();
        let letters = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        letters.into_iter().find(|letter| letter["payload"] == "no json").unwrap()
    };
    let first = letter();
    assert_eq!((&first["since"], &first["kept"]), (&first["arrival"], &0.into()));
    let set = ["group", "set", "g", "--stream", "s", "--attempts", "1", "--dead-letters", "s.dead"];
    server.ok(&set);
    for round in 1..=2 {
        server.run(&["tail", "s", "--group", "g", "--exec", "exit 1"]);
        let redriven = server.run(&["dlq", "redrive", "s.dead", "--json"]);
        let done: Value = serde_json::from_slice(&redriven.stdout).unwrap();
        assert_eq!(done["redriven"], 1, "{}", said(&redriven));
        let stays = letter();
        assert_eq!((&stays["since"], &stays["kept"]), (&first["since"], &round.into()));
        assert_ne!(stays["arrival"], first["arrival"], "it was written again");
        assert_eq!((&stays["reason"], &stays["origin"]), (&first["reason"], &first["origin"]));
    }
    let listed = server.json(&["dlq", "list", "--json"]);
    assert_eq!((&listed[0]["oldest"], &listed[0]["letters"]), (&first["since"], &1.into()));
    let none = server.json(&["dlq", "list", "--limit", "0", "--json"]);
    assert_eq!((&none[0]["oldest"], &none[0]["looked"]), (&first["since"], &0.into()));
}

#[test]
fn a_breaker_stops_the_flood_and_watch_says_so() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let input: String = (0..500).map(|n| format!("poison {n}\n")).collect();
    assert!(server.put("s", input.as_bytes(), &[]).status.success());
    server.ok(&["group", "set", "g", "--stream", "s", "--attempts", "1", "--breaker", "50%,10m"]);
    let args = ["tail", "s", "--group", "g", "--exec", "exit 1", "--batch", "5"];
    let worker = server.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let delivery = || {
        let described = server.run(&["group", "describe", "g", "--json"]);
        let described: Value = serde_json::from_slice(&described.stdout).unwrap_or_default();
        described["deliveries"][0].clone()
    };
    until(|| delivery()["breaker"] == "open");
    let buried = delivery()["buried"].as_u64().unwrap();
    // Twenty were settled, the last of them perhaps not yet stored; and few since.
    assert!((10..100).contains(&buried), "{buried}");
    until(|| {
        let top = server.run(&["top", "--once", "--json", "--span", "1s"]);
        let top: Value = serde_json::from_slice(&top.stdout).unwrap();
        let rules = top["watch"].as_array().unwrap();
        rules.iter().any(|notice| notice["rule"] == "breaker")
    });
    kill_process(Pid::from_raw(worker.id() as i32).unwrap(), Signal::TERM).unwrap();
    let ended = worker.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", said(&ended));
    assert!(said(&ended).contains("the breaker of group g is open"), "{}", said(&ended));
}

#[test]
fn a_member_that_has_read_everything_notices_that_its_server_is_gone() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", b"one\n", &[]).status.success());
    server.ok(&["group", "set", "g", "--stream", "s", "--timeout", "10m"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let retry = RetryPolicy { deadline: Duration::from_millis(200), ..RetryPolicy::default() };
        let options = ClientOptions { retry, ..ClientOptions::default() };
        let client = Client::connect(&server.addr, options).await.unwrap();
        let until: Until = Arc::new(|shard| Some(shard.high_water));
        let options = RecordOptions { until: Some(until), ..RecordOptions::default() };
        let mut consumer = client.record_consumer("g", "s", options).await.unwrap();
        let lot = consumer.next().await.unwrap().unwrap();
        assert_eq!(lot.range(), 0..1);
        // The lot is in its hands: there is more to wait for.
        server.kill();
        let ended = consumer.next().await;
        assert!(ended.is_err(), "{ended:?}");
    });
}

#[test]
fn what_cannot_be_worked_on_is_said_and_nothing_is_buried() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", b"one\ntwo\n", &[]).status.success());
    refused(
        &work(&server, "cat", &[]),
        1,
        &["group g", "record by record", "group set g --stream s"],
    );
    server.ok(&["group", "set", "g", "--stream", "s"]);
    refused(&work(&server, "no-such-command-here", &[]), 1, &["--exec", "exit code 127"]);
    assert_eq!(server.ok(&["dlq", "list", "--json"]), b"[]\n");
    let done = dir.path().join("done");
    let worked = work(&server, &worker(&done), &["--batch", "1"]);
    assert!(worked.status.success() && counts(&done).len() == 2, "{}", said(&worked));
    refused(&server.run(&["tail", "s", "--exec", "cat"]), 2, &["--group"]);
    refused(&work(&server, "cat", &["--limit", "3"]), 2, &["--exec", "--limit"]);
    refused(&work(&server, "cat", &["--agg", "count()"]), 2, &["--agg"]);
    refused(&work(&server, "", &[]), 2, &["--exec"]);
    refused(
        &server.run(&["group", "set", "g", "--stream", "s", "--breaker", "50%"]),
        2,
        &["--breaker"],
    );
    let positions = ["group", "set", "g", "--stream", "s", "--delivery", "positions"];
    refused(&server.run(&[&positions[..], &["--attempts", "2"]].concat()), 2, &["--attempts"]);
    server.ok(&positions);
    refused(&work(&server, "cat", &[]), 1, &["record by record"]);
}
