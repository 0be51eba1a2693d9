//! The figures are true: what `top` says is what the load generator did and what lies in the stream.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Server, scratch, until};

/// Rates, backlogs and their ages agree to this share.
const CLOSE: f64 = 0.02;

/// How often times may be compared before they have to agree.
const ROUNDS: usize = 8;

#[track_caller]
fn close(what: &str, measured: f64, truth: f64) {
    assert!((measured - truth).abs() <= CLOSE * truth, "{what}: {measured} is not {truth}");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// When a measurement began and ended, nanoseconds since 1970 UTC.
fn times(measured: &Value) -> (f64, f64) {
    let end = number(&measured["at_ns"]);
    (end - number(&measured["span_s"]) * 1e9, end)
}

/// How many a measurement counted of what it gives as a rate.
fn count(measured: &Value, rate: &str) -> f64 {
    (number(&measured[rate]) * number(&measured["span_s"])).round()
}

fn spawn(server: &Server, args: &[&str]) -> Child {
    let mut command = server.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn json(child: Child) -> Value {
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}

/// `top --jsonl` in the background, recording as well.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    seen: Vec<String>,
}

impl Watching {
    fn start(server: &Server, args: &[&str]) -> Watching {
        let mut child = spawn(server, &[&["top", "--jsonl"], args].concat());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watching { child, lines, seen: Vec::new() }
    }

    /// The next line; waits for it.
    fn next(&mut self) -> Value {
        let line = self.lines.next().unwrap().unwrap();
        let value = serde_json::from_str(&line).unwrap();
        self.seen.push(line);
        value
    }

    /// Ends it; every line it wrote.
    fn end(mut self) -> Vec<String> {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), Signal::TERM).unwrap();
        self.seen.extend(self.lines.map(Result::unwrap));
        assert!(self.child.wait().unwrap().success());
        self.seen
    }
}

/// The width of a bucket of the server's histograms at `us`, at most: two significant digits are 128 buckets for
/// each doubling. (The generator's have three digits.)
fn bucket(us: f64) -> f64 {
    us / 128.0
}

/// A run of the generator at a known rate into a new stream, its report, and what `top` said: once over all of it,
/// and line by line. `None` if, on a busy machine, it did not lie within the measurement.
fn round(server: &Server, stream: &str) -> Option<(Value, Value, Vec<Value>)> {
    let once = spawn(server, &["top", "--once", "--json", "--span", "12s"]);
    let mut watching = Watching::start(server, &[]);
    // Two samples later, surely, the other one has its first.
    (0..2).for_each(|_| drop(watching.next()));
    let load = ["load", "run", "-r", "4k", "-d", "6s", "--warmup", "0s", "--size", "200"];
    let report =
        server.json(&[&load[..], &["--shards", "2", "--stream", stream, "--json", "-"]].concat());
    let ended_ns = number(&watching.next()["at_ns"]);
    let lines = watching.end();
    let measured = json(once);
    let (begin, end) = times(&measured);
    let covered = begin < number(&report["started_ns"]) && ended_ns <= end;
    let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    covered.then_some((measured, report, lines))
}

/// Whether the lines that lie within the run give the generator's own rates.
fn rates_agree(report: &Value, lines: &[Value]) -> bool {
    let begin = number(&report["started_ns"]);
    let end = begin + number(&report["duration_s"]) * 1e9;
    let inside = lines.iter().filter(|line| times(line).0 >= begin && times(line).1 <= end);
    let inside: Vec<&Value> = inside.collect();
    let seconds: f64 = inside.iter().map(|line| number(&line["span_s"])).sum();
    [("tps_in", "records_per_s"), ("tps_out", "consumed_per_s")].iter().all(|(rate, truth)| {
        let measured = inside.iter().map(|line| count(line, rate)).sum::<f64>() / seconds;
        let truth = number(&report[truth]);
        eprintln!("{rate}: {measured} of {truth} over {seconds} s");
        (measured - truth).abs() <= CLOSE * truth
    })
}

/// Whether the delays do, to a bucket: both end when the consumer has the record.
fn delays_agree(broker: &Value, reader: &Value) -> bool {
    eprintln!("broker {broker}\nreader {reader}");
    ["p50", "p99"].iter().all(|percentile| {
        let (seen, felt) = (number(&broker[percentile]), number(&reader[percentile]));
        (felt - seen).abs() <= bucket(felt.max(seen))
    })
}

#[test]
fn rates_and_delays_are_those_of_the_generator() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    // What is counted is exact, always. Times agree unless the machine held up one of the two processes: then
    // they are compared again.
    let agreed = (0..ROUNDS).any(|number_of| {
        let Some((measured, report, lines)) = round(&server, &format!("s{number_of}")) else {
            return false;
        };
        let (broker, reader) = (&measured["propagation_us"], &report["latency_us"]["delivery"]);
        assert_eq!(count(&measured, "tps_in"), number(&report["acked_records"]));
        assert_eq!(count(&measured, "tps_out"), number(&report["consumed_records"]));
        assert_eq!(broker["count"], reader["count"]);
        rates_agree(&report, &lines) && delays_agree(broker, reader)
    });
    assert!(agreed, "in none of {ROUNDS} rounds");
}

/// A record of `tail --format json`.
struct Stored {
    shard: usize,
    sequence: u64,
    arrival_ns: f64,
}

fn stored(tailed: &[u8]) -> Vec<Stored> {
    let lines = std::str::from_utf8(tailed).unwrap().lines();
    let record = |line| {
        let record: Value = serde_json::from_str(line).unwrap();
        let arrival: jiff::Timestamp = record["arrival"].as_str().unwrap().parse().unwrap();
        Stored {
            shard: record["shard"].as_u64().unwrap() as usize,
            sequence: record["sequence"].as_u64().unwrap(),
            arrival_ns: arrival.as_nanosecond() as f64,
        }
    };
    lines.map(record).collect()
}

#[test]
fn the_backlog_of_a_paused_group_is_what_it_has_not_read() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    let file = dir.path().join("run.rec");
    let mut watching = Watching::start(&server, &["--record", file.to_str().unwrap()]);
    drop(watching.next());
    let load = ["load", "run", "-r", "4k", "-d", "8s", "--warmup", "0s", "--size", "200"];
    let load =
        spawn(&server, &[&load[..], &["--stream", "s", "--shards", "2", "--json", "-"]].concat());
    // The group reads this much, commits, and pauses.
    let group = ["tail", "s", "--group", "g", "--follow", "--limit", "4000", "--format", "json"];
    let mut position = [0; 2];
    for record in stored(&server.ok(&group)) {
        position[record.shard] = record.sequence + 1;
    }
    assert_eq!(position.iter().sum::<u64>(), 4_000);
    let mut lines = Vec::new();
    until(|| {
        lines.push(watching.next());
        // Well after the last record.
        lines.len() > 6 && lines.iter().rev().take(2).all(|line| line["tps_in"] == 0.0)
    });
    let report = json(load);
    let all = stored(&server.ok(&["tail", "s", "--format", "json"]));
    assert_eq!(all.len() as f64, number(&report["acked_records"]));
    let unread: Vec<&Stored> =
        all.iter().filter(|record| record.sequence >= position[record.shard]).collect();
    let oldest = unread.iter().map(|record| record.arrival_ns).fold(f64::INFINITY, f64::min);
    let mut compared = 0;
    for line in &lines {
        let (_, at) = times(line);
        let group = &line["groups"][0];
        // While it is short, the records on their way to the disk would be more than a small share.
        if group["name"] != "g" || at < oldest + 3e9 {
            continue;
        }
        let arrived = unread.iter().filter(|record| record.arrival_ns <= at).count();
        close("backlog_records", number(&group["backlog_records"]), arrived as f64);
        close("backlog_seconds", number(&group["backlog_seconds"]), (at - oldest) / 1e9);
        compared += 1;
    }
    assert!(compared >= 3, "{lines:?}");
    let last = &lines[lines.len() - 1]["groups"][0];
    // By what the generator says it stored.
    assert_eq!(number(&last["backlog_records"]), number(&report["acked_records"]) - 4_000.0);

    // What was recorded meanwhile tells the same.
    let lines = watching.end();
    let replayed = server.ok(&["top", "--replay", file.to_str().unwrap(), "--jsonl"]);
    assert_eq!(lines, String::from_utf8(replayed).unwrap().lines().collect::<Vec<_>>());

    // It goes on, and is empty again.
    server.ok(&["tail", "s", "--group", "g"]);
    until(|| {
        let measured = server.run(&["top", "--once", "--json", "--span", "100ms"]);
        let measured: Value = serde_json::from_slice(&measured.stdout).unwrap();
        measured["groups"][0]["backlog_records"] == 0
    });
}
