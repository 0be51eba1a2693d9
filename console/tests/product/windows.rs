//! Windows over a stream: counts that agree with an independent computation, and the scanner that gives itself away.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::formats::{combined_log, real_log};
use crate::support::{Server, refused, said, scratch, text};

/// The rows of a command that prints windows as JSON.
fn rows(server: &Server, args: &[&str]) -> Vec<Value> {
    let all = server.ok(&[args, &["--format", "json"]].concat());
    all.split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Lines and errors (5xx) of each minute of an access log, as Python sees it: `[[minute, lines, errors], …]`.
fn by_python(log: &Path) -> Option<Value> {
    let script = "import sys,re,datetime,json,collections\n\
        c=collections.defaultdict(lambda:[0,0])\n\
        for l in open(sys.argv[1],encoding='latin1'):\n\
        \x20   m=re.match(r'^\\S+ \\S+ [^\\[]+ \\[([^\\]]+)\\] \"(?:[^\"\\\\]|\\\\.)*\" (\\d+) \\S+(?: \"(?:[^\"\\\\]|\\\\.)*\" \"(?:[^\"\\\\]|\\\\.)*\")?$',l.rstrip('\\n'))\n\
        \x20   if not m: continue\n\
        \x20   t=datetime.datetime.strptime(m[1],'%d/%b/%Y:%H:%M:%S %z').astimezone(datetime.timezone.utc)\n\
        \x20   e=c[t.strftime('%Y-%m-%dT%H:%M:00Z')]; e[0]+=1; e[1]+=m[2][0]=='5'\n\
        print(json.dumps([[k]+c[k] for k in sorted(c)]))\n";
    match Command::new("python3").args(["-c", script]).arg(log).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", said(&output));
            Some(serde_json::from_slice(&output.stdout).unwrap())
        }
        Err(error) => {
            eprintln!("skipped: no python3 for the independent count: {error}");
            None
        }
    }
}

/// What windows of a minute say of a log, in the form of [`by_python`].
fn by_windows(server: &Server, stream: &str) -> Value {
    let args = ["tail", stream, "--window", "1m", "--time", "json.time", "--lateness", "5m"];
    let found =
        rows(server, &[&args[..], &["--agg", "count(), count(json.status >= 500)"]].concat());
    let line = |row: &Value| {
        json!([row["start"], row["values"]["count()"], row["values"]["count(json.status >= 500)"]])
    };
    found.iter().map(line).collect()
}

#[test]
fn counts_per_minute_agree_with_an_independent_computation() {
    let dir = scratch();
    let file = dir.path().join("access.log");
    std::fs::write(&file, combined_log(8, 3_000)).unwrap();
    let server = Server::start(&dir.path().join("data"));
    // Over several shards, whose records are read side by side.
    server.create("logs", 4);
    server.ok(&["put", "logs", "--format", "access-log", "--file", file.to_str().unwrap()]);
    let found = by_windows(&server, "logs");
    let total: u64 = found.as_array().unwrap().iter().map(|row| row[1].as_u64().unwrap()).sum();
    assert_eq!(total, 3_000);
    assert!(found.as_array().unwrap().len() > 5);
    if let Some(python) = by_python(&file) {
        assert_eq!(found, python);
    }
    if let Some(real) = real_log()
        && let Some(python) = by_python(&real)
    {
        server.create("real", 1);
        server.ok(&["put", "real", "--format", "access-log", "--file", real.to_str().unwrap()]);
        assert_eq!(by_windows(&server, "real"), python);
    }
}

#[test]
fn keys_aggregates_sessions_and_limits() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let events = [(0, "a", 1.5), (4, "b", 7.0), (5, "a", -2.0), (11, "a", 3.0), (40, "b", 1.0)];
    let lines: Vec<String> =
        events.iter().map(|(t, id, v)| json!({"t": t, "id": id, "v": v}).to_string()).collect();
    let input = lines.join("\n") + "\n{\"t\":41,\"id\":\"b\",\"v\":\"hot\"}\nplain\n";
    assert!(server.put("s", input.as_bytes(), &[]).status.success());
    let tail = ["tail", "s", "--time", "json.t", "--agg", "max(json.v), count() by json.id"];
    let tumbling = rows(&server, &[&tail[..], &["--window", "10s"]].concat());
    let row = |start: &str, end: &str, by: &str, max: f64, count: u64| {
        json!({"start": format!("1970-01-01T00:00:{start}Z"), "end": format!("1970-01-01T00:00:{end}Z"), "by": by,
            "values": {"max(json.v)": max, "count()": count}})
    };
    let expected = [
        row("00", "10", "a", 1.5, 2),
        row("00", "10", "b", 7.0, 1),
        row("10", "20", "a", 3.0, 1),
        row("40", "50", "b", 1.0, 2),
    ];
    assert_eq!(tumbling, expected);
    let sessions = rows(&server, &[&tail[..], &["--session", "6s"]].concat());
    assert_eq!(sessions[0], row("04", "04", "b", 7.0, 1));
    assert_eq!(sessions[1..], [row("00", "11", "a", 3.0, 3), row("40", "41", "b", 1.0, 2)]);
    let told = server.run(&[&tail[..], &["--window", "10s", "--limit", "1"]].concat());
    assert_eq!(
        text(&told),
        "1970-01-01T00:00:00Z  1970-01-01T00:00:10Z  a  max(json.v) 1.5  count() 2\n"
    );
    for words in
        ["6 records counted", "2 times without a value: wrong type 1, payload not JSON or text 1"]
    {
        assert!(said(&told).contains(words), "{}", said(&told));
    }
    let large = rows(&server, &[&tail[..], &["--window", "10s", "--at-least", "3"]].concat());
    assert_eq!(large, [expected[1].clone(), expected[2].clone()]);
    // By arrival everything came just now.
    let all = rows(&server, &["tail", "s", "--window", "1h"]);
    assert_eq!(all.iter().map(|row| row["values"]["count()"].as_u64().unwrap()).sum::<u64>(), 7);
    for (args, words) in [
        (&["--agg", "count()"][..], &["--agg", "--window"][..]),
        (&["--window", "10s", "--every", "3s"], &["multiple"]),
        (&["--window", "10s", "--agg", "median(json.v)"], &["median", "no aggregate"]),
        (&["--window", "10s", "--agg", "max(jsn.v)"], &["jsn", "column 1"]),
        (&["--window", "0s"], &["more than nothing"]),
        (&["--window", "10s", "--session", "1s"], &["--session"]),
    ] {
        refused(&server.run(&[&["tail", "s"], args].concat()), 2, words);
    }
}

/// The address that tries one query after the other is reported by the one-liner of the documentation, and nobody else.
#[test]
fn a_scanner_gives_itself_away() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 2);
    let mut tail =
        server.command(&["tail", "logs", "--follow", "--from", "latest", "--format", "json"]);
    tail.args(["--filter", "json.query != null", "--window", "10s", "--every", "1s"]);
    tail.args(["--agg", "distinct(json.query) by json.client", "--at-least", "10", "--limit", "1"]);
    let mut watching = tail.stdout(Stdio::piped()).spawn().unwrap();
    let mut found = BufReader::new(watching.stdout.take().unwrap());
    let mut put = server
        .command(&["put", "logs", "--format", "access-log"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = put.stdin.take().unwrap();
    let mut line = String::new();
    std::thread::scope(|scope| {
        // It goes on until it is found: begun before the watcher reads, its first requests may be missed.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            for n in 0u64.. {
                let request = |client: &str, query: &str| {
                    format!("{client} - - [17/May/2015:10:05:03 +0000] \"GET /shop?{query} HTTP/1.1\" 200 1\n")
                };
                let crowd = request(&format!("10.0.0.{}", n % 9), &format!("page={}", n % 5));
                let scanner = request("203.0.113.9", &format!("id={n}%27%20OR%201=1"));
                // Whoever reads it may have ended.
                if stdin.write_all((crowd + &scanner).as_bytes()).is_err() {
                    return;
                }
                if stopped.recv_timeout(std::time::Duration::from_millis(20)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        found.read_line(&mut line).unwrap();
        drop(stop);
    });
    let row: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(row["by"], "203.0.113.9", "{row}");
    assert!(row["values"]["distinct(json.query)"].as_u64().unwrap() >= 10);
    assert!(watching.wait().unwrap().success() && put.wait().unwrap().success());
}

/// What was in a window that nobody had seen printed was committed, and in none after the next start.
#[test]
fn a_window_cut_off_by_a_crash_is_whole_after_the_next_start() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let put = |times: &[u64]| {
        let lines: Vec<String> = times.iter().map(|t| format!("{{\"t\":{t}}}\n")).collect();
        assert!(server.put("s", lines.concat().as_bytes(), &[]).status.success());
    };
    let group = ["--group", "g", "--window", "10s", "--time", "json.t", "--format", "json"];
    let tail = |more: &[&str]| {
        let mut tail = server.command(&[&["tail", "s"], &group[..], more].concat());
        tail.stdout(Stdio::piped()).spawn().unwrap()
    };
    let committed = || {
        let group = server.run(&["group", "describe", "g", "--json"]);
        let found: Value = serde_json::from_slice(&group.stdout).unwrap_or_default();
        found.to_string().contains("\"position\":2")
    };
    // Seconds since 1970: two in the first window, one in the second, which stays open.
    put(&[1_000, 1_003, 1_012]);
    let mut first = tail(&["--follow"]);
    let mut printed = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut printed).unwrap();
    let row: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(row["values"]["count()"], 2, "{row}");
    while !committed() {
        assert!(first.try_wait().unwrap().is_none(), "it has ended");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    put(&[1_015]);
    let second = tail(&[]).wait_with_output().unwrap();
    let rows: Vec<Value> =
        text(&second).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        rows[0]["values"]["count()"], 2,
        "the record from before and the one from after: {rows:?}"
    );
}
