//! Logs in, the same lines out; what is no line of its log is kept beside; filters find what grep finds.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Server, refused, said, scratch, text};

/// `lines` lines of an access log of `seed`, all well-formed: times in order within a minute, some queries, some
/// escapes, some in the common format.
pub fn combined_log(seed: u64, lines: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut log = String::new();
    for n in 0..lines {
        let second = n / 4 + rng.usize(0..30);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let client = format!("10.0.{}.{}", rng.u8(0..3), rng.u8(1..20));
        let user = rng.choice(["-", "-", "frank", "zo\u{eb}"]).unwrap();
        let query = rng.choice(["", "", "?id=404", "?q=a b"]).unwrap().replace(' ', "%20");
        let path: String = (0..rng.usize(1..30)).map(|_| rng.alphanumeric()).collect();
        let status = rng.choice([200, 200, 304, 404, 500]).unwrap();
        let bytes = rng.choice(["-", "404", "20117"]).unwrap();
        log += &format!(
            "{client} - {user} [17/May/2015:{hour:02}:{minute:02}:{second:02} +0000] \"GET /{path}{query} HTTP/1.1\" \
             {status} {bytes}"
        );
        if rng.u8(0..10) > 0 {
            let agent =
                rng.choice(["curl/7", "Mozilla/5.0 (\\\"q\\\" 404)", "\\xe4\\xf6"]).unwrap();
            log += &format!(" \"http://example.com/{n}\" \"{agent}\"");
        }
        log.push('\n');
    }
    log.into_bytes()
}

/// The lines of `log` for which `wanted` is true, with their newlines.
pub fn lines_where(log: &[u8], wanted: impl Fn(&str) -> bool) -> Vec<u8> {
    let lines = log.split_inclusive(|b| *b == b'\n');
    lines.filter(|line| wanted(&String::from_utf8_lossy(line))).flatten().copied().collect()
}

/// The log that everybody has, beside the workspace.
pub fn real_log() -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/apache_access.log");
    file.exists().then_some(file).or_else(|| {
        eprintln!("skipped: no apache_access.log beside the workspace");
        None
    })
}

fn is_404(line: &str) -> bool {
    // As grep '\" 404 ' does; in this log nothing else looks like that.
    line.contains("\" 404 ")
}

#[test]
fn an_access_log_comes_back_line_by_line_and_a_filter_finds_what_grep_finds() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 1);
    let log = combined_log(6, 4_000);
    let put = server.put("logs", &log, &["--format", "access-log"]);
    assert!(put.status.success(), "{}", said(&put));
    assert!(text(&put).contains("stored 4,000 records"), "{}", text(&put));
    assert_eq!(server.ok(&["tail", "logs", "--from", "oldest"]), log);
    let filter = |filter: &str, more: &[&str]| {
        let args = [&["tail", "logs", "--from", "oldest", "--filter", filter], more].concat();
        server.run(&args)
    };
    let found = filter("json.status == 404", &["--format", "text"]);
    assert!(found.status.success(), "{}", said(&found));
    let expected = lines_where(&log, is_404);
    assert!(found.stdout == expected && !expected.is_empty(), "as grep has it");
    let matched = expected.iter().filter(|b| **b == b'\n').count();
    assert!(
        said(&found).contains(&format!("filter: {matched} of 4,000 records matched")),
        "{}",
        said(&found)
    );
    // What follows what does not match is read too, and a limit counts what matches.
    let two = filter("json.status == 404", &["--limit", "2"]);
    let first_two: Vec<u8> =
        expected.split_inclusive(|b| *b == b'\n').take(2).flatten().copied().collect();
    assert_eq!(two.stdout, first_two);
    let none = filter("json.status == 999", &[]);
    assert!(none.status.success() && none.stdout.is_empty());
    let found =
        filter("has(json.query) && json.query == 'id=404' && headers.format == 'access-log'", &[]);
    assert_eq!(found.stdout, lines_where(&log, |line| line.contains("?id=404 ")));
}

#[test]
fn documents_have_the_fields_of_their_log() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 2);
    let line =
        "::1 - - [17/May/2015:10:05:03 +0200] \"GET /a?b=c HTTP/1.1\" 404 5 \"-\" \"curl\"\n";
    let put = server.put("logs", line.as_bytes(), &["--format", "access-log", "--key", "client"]);
    assert!(put.status.success(), "{}", said(&put));
    let record = server.json(&["tail", "logs", "--format", "json"]);
    assert_eq!(record["key"], "::1");
    let document: Value = serde_json::from_str(record["payload"].as_str().unwrap()).unwrap();
    let expected = json!({
        "client": "::1", "user": null, "time": "2015-05-17T10:05:03+02:00", "method": "GET", "path": "/a",
        "query": "b=c", "protocol": "HTTP/1.1", "status": 404, "bytes": 5, "referer": null, "agent": "curl",
    });
    assert_eq!(document, expected);
    assert_eq!(server.json(&["tail", "logs", "--format", "payload"]), expected);
    server.create("sys", 1);
    let lines = "<34>1 2003-10-11T22:14:15.003Z host su - ID47 - 'su root' failed\n\
                 <13>Feb  5 17:32:18 10.0.0.99 cron[7]: no year\nOct 11 22:14:15 h kernel: no priority\n";
    assert!(server.put("sys", lines.as_bytes(), &["--format", "syslog"]).status.success());
    assert_eq!(server.ok(&["tail", "sys"]), lines.as_bytes());
    let found = server.ok(&["tail", "sys", "--filter", "json.severity == 2 || json.app == 'cron'"]);
    assert_eq!(found, lines_where(lines.as_bytes(), |line| !line.contains("kernel")));
}

#[test]
fn what_is_no_line_of_the_log_is_a_dead_letter_and_no_stop() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 2);
    let log = combined_log(7, 100);
    let mut broken = log.clone();
    broken.extend(b"no log line at all\n\xff\xfe\n");
    broken.extend(&log);
    let file = dir.path().join("access.log");
    std::fs::write(&file, &broken).unwrap();
    let put =
        server.run(&["put", "logs", "--format", "access-log", "--file", file.to_str().unwrap()]);
    assert!(put.status.success(), "{}", said(&put));
    let told = text(&put);
    assert!(told.contains("stored 200 records"), "{told}");
    assert!(
        told.contains(
            "2 dead letters in logs.dead; the first is line 101: not a line of access-log: "
        ),
        "{told}"
    );
    assert_eq!(server.ok(&["tail", "logs.dead"]), b"no log line at all\n\xff\xfe\n");
    let letters = server.ok(&["tail", "logs.dead", "--format", "json"]);
    let first: Value =
        serde_json::from_slice(letters.split(|b| *b == b'\n').next().unwrap()).unwrap();
    let header = |name: &str| {
        let headers = first["headers"].as_array().unwrap();
        let found = headers.iter().find(|header| header["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {first}"))["value"].as_str().unwrap().to_owned()
    };
    assert!(header("reason").contains("user at column 8"), "{}", header("reason"));
    assert_eq!(
        (header("origin-file"), header("origin-line")),
        (file.to_str().unwrap().into(), "101".into())
    );
    assert_eq!(
        (header("origin-stream"), header("origin-format")),
        ("logs".into(), "access-log".into())
    );
    // The same with documents: those that are none, and those without the key.
    let put = server.put(
        "logs",
        b"{\"a\":{\"b\":1}}\nnot json\n{}\n",
        &["--format", "json", "--key", "a.b"],
    );
    assert!(put.status.success(), "{}", said(&put));
    assert!(
        text(&put).contains("stored 1 record,") && text(&put).contains("2 dead letters"),
        "{}",
        text(&put)
    );
    assert_eq!(server.records("logs.dead"), 4);
    // Pieces that fit any format have no dead letters, and no stream for them.
    server.create("plain", 1);
    assert!(server.put("plain", b"\xff\n", &[]).status.success());
    refused(&server.run(&["stream", "describe", "plain.dead"]), 1, &["plain.dead"]);
}

#[test]
fn a_filter_that_cannot_be_or_has_no_answer() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    for (filter, words) in [
        ("json.status = 404", &["--filter", "column 13"][..]),
        ("jsn.status == 404", &["--filter", "column 1", "jsn"]),
        ("json.a + 1", &["--filter", "true or false"]),
        ("key.matches('(')", &["--filter", "column 5", "pattern"]),
    ] {
        refused(&server.run(&["tail", "s", "--filter", filter]), 2, words);
    }
    let numbers: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let many = format!("{{\"l\":[{}]}}", numbers.join(","));
    let input =
        format!("{{\"a\":1,\"b\":0}}\n{{\"a\":2}}\nplain\n{{\"a\":\"text\",\"b\":1}}\n{many}\n");
    assert!(server.put("s", input.as_bytes(), &[]).status.success());
    let line = |n: usize| input.split_inclusive('\n').nth(n).unwrap().to_owned();
    for (filter, lines, words) in [
        (
            "json.a == 2",
            vec![1],
            "1 of 5 records matched; 2 had no answer and did not: missing field 1, ",
        ),
        ("json.a / json.b == 1", vec![], "division by zero 1"),
        ("json.a > 1", vec![1], "wrong type 1"),
        ("has(json.a) && json.a != 1", vec![1, 3], "payload not JSON or text 1"),
        ("json.l.all(x, !json.l.exists(y, x == y + 5000))", vec![], "too expensive 1"),
    ] {
        let tail = server.run(&["tail", "s", "--filter", filter]);
        assert!(tail.status.success(), "{filter}: {}", said(&tail));
        let expected: String = lines.into_iter().map(line).collect();
        assert_eq!(text(&tail), expected, "{filter}");
        assert!(said(&tail).contains(words), "{filter}: {}", said(&tail));
    }
}

#[test]
fn a_filter_follows_and_a_group_moves_past_what_does_not_match() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let input: String = (0..1_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert!(server.put("s", input.as_bytes(), &[]).status.success());
    let tail = ["tail", "s", "--group", "g", "--filter"];
    assert_eq!(server.ok(&[&tail[..], &["json.n == 500"]].concat()), b"{\"n\":500}\n");
    assert_eq!(server.ok(&[&tail[..], &["true"]].concat()), b"", "the group has read everything");
    let mut command =
        server.command(&["tail", "s", "--follow", "--limit", "1", "--filter", "json.n == 1500"]);
    let follower = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let more: String = (1_000..2_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert!(server.put("s", more.as_bytes(), &[]).status.success());
    assert_eq!(follower.wait_with_output().unwrap().stdout, b"{\"n\":1500}\n");
}

#[test]
fn what_is_refused_at_the_door_can_be_kept() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let long = "x".repeat((1 << 20) + 5);
    let input = format!("first\n{long}\nlast\n");
    refused(&server.put("s", input.as_bytes(), &[]), 1, &["line 2", "1048581 bytes"]);
    let put = server.put("s", input.as_bytes(), &["--keep-refused"]);
    assert!(put.status.success(), "{}", said(&put));
    assert!(
        text(&put).contains("1 dead letter in s.dead; the first is line 2: line of 1048581 bytes"),
        "{}",
        text(&put)
    );
    assert_eq!(server.ok(&["tail", "s"]), b"first\nfirst\nlast\n");
    let letter = server.json(&["tail", "s.dead", "--format", "json"]);
    let kept = letter["payload"].as_str().unwrap();
    assert!(long.starts_with(kept) && kept.len() > 1_000_000, "as much as fits: {}", kept.len());
    let header = |name: &str| {
        let headers = letter["headers"].as_array().unwrap();
        headers.iter().find(|h| h["name"] == name).map(|h| h["value"].clone())
    };
    assert_eq!(header("origin-size"), Some("1048581".into()));
    assert_eq!(header("origin-line"), Some("2".into()));
    // A whole record whose key or size no server takes.
    let size = |n: usize| format!("{{\"payload\":\"{}\"}}\n", "y".repeat(n));
    let input = size((1 << 20) + 1)
        + &size(3)
        + &format!("{{\"key\":\"{}\",\"payload\":\"\"}}\n", "k".repeat(300));
    let put = server.put("s", input.as_bytes(), &["--format", "records", "--keep-refused"]);
    assert!(put.status.success(), "{}", said(&put));
    assert!(
        text(&put).contains("stored 1 record") && text(&put).contains("2 dead letters"),
        "{}",
        text(&put)
    );
    refused(&server.put("s", size(1 << 21).as_bytes(), &["--format", "records"]), 1, &["2097152"]);
}

#[test]
fn the_real_access_log() {
    let Some(file) = real_log() else { return };
    let log = std::fs::read(&file).unwrap();
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 1);
    let put =
        server.run(&["put", "logs", "--format", "access-log", "--file", file.to_str().unwrap()]);
    assert!(put.status.success(), "{}", said(&put));
    // One line of it is cut off in the middle.
    assert!(text(&put).contains("stored 9,999 records"), "{}", text(&put));
    assert!(
        text(&put).contains("1 dead letter in logs.dead; the first is line 8899: "),
        "{}",
        text(&put)
    );
    let cut = log.split_inclusive(|b| *b == b'\n').nth(8_898).unwrap();
    assert_eq!(server.ok(&["tail", "logs.dead"]), cut);
    let whole: Vec<u8> = log
        .split_inclusive(|b| *b == b'\n')
        .filter(|line| *line != cut)
        .flatten()
        .copied()
        .collect();
    assert!(server.ok(&["tail", "logs", "--from", "oldest", "--format", "text"]) == whole);
    let args =
        ["tail", "logs", "--from", "oldest", "--format", "text", "--filter", "json.status == 404"];
    assert!(server.ok(&args) == lines_where(&log, is_404), "exactly what grep finds");
}
