//! What was typed, what is echoed, and what is refused.

use std::time::Duration;

use clap::Parser as _;
use highwater_loadgen::schedule::{Burst, Profile};
use highwater_loadgen::search::{SearchRequest, SweepMode, SweepRequest};
use highwater_loadgen::{Arrival, LoadOptions, Rate, Scenario, WarmUpRule, Workload};
use proptest::prelude::*;

use super::flags::Request;
use super::*;
use crate::cli::{Cli, Command};

fn typed(words: impl IntoIterator<Item = String>) -> Result<Request, Failure> {
    let cli = Cli::try_parse_from(words).map_err(|e| Failure::Usage(e.to_string()))?;
    let Command::Load(args) = cli.command else { panic!("not a load command") };
    args.command.request()
}

fn command(words: impl IntoIterator<Item = String>) -> LoadCommand {
    let cli = Cli::try_parse_from(words).unwrap();
    let Command::Load(args) = cli.command else { panic!("not a load command") };
    args.command
}

fn search(words: impl IntoIterator<Item = String>) -> Result<SearchRequest, Failure> {
    let LoadCommand::Search(args) = command(words) else { panic!("no search") };
    args.asked().map(|asked| asked.request)
}

fn sweep(words: impl IntoIterator<Item = String>) -> SweepRequest {
    let LoadCommand::Sweep(args) = command(words) else { panic!("no sweep") };
    args.asked().unwrap_or_else(|e| panic!("{e}")).0
}

fn words(line: &str) -> Vec<String> {
    format!("highwater load {line}").split_whitespace().map(str::to_owned).collect()
}

fn parse(line: &str) -> LoadOptions {
    typed(words(line)).unwrap_or_else(|e| panic!("{line}: {e}")).options
}

#[track_caller]
fn refused(line: &str, says: &[&str]) {
    let error = typed(words(line)).err();
    let Some(Failure::Usage(said)) = error else { panic!("{line}: {error:?}") };
    for word in says {
        assert!(said.contains(word), "{line}: {word:?} is missing in: {said}");
    }
}

/// So many seconds were a panic before they were refused.
#[test]
fn a_time_beyond_all_clocks_is_refused() {
    const EVER: &str = "18446744073709551615s";
    for (line, flag) in [
        ("search --budget", Some("--budget")),
        ("search -d", Some("--duration")),
        ("sweep --vary shards=1,2 -o d --budget", None),
    ] {
        let cli = Cli::try_parse_from(words(&format!("{line} {EVER}"))).unwrap();
        let Command::Load(args) = cli.command else { panic!("not a load command") };
        match (args.check(), flag) {
            (Err(Failure::Usage(said)), Some(flag)) => assert!(said.contains(flag), "{said}"),
            // A sweep's is refused when its first search is.
            (Err(Failure::Usage(_)) | Ok(()), None) => {}
            (result, _) => panic!("{line}: {result:?}"),
        }
    }
}

fn same(a: &LoadOptions, b: &LoadOptions) {
    assert_eq!(serde_json::to_value(a).unwrap(), serde_json::to_value(b).unwrap());
}

/// The same but for the window, which the settings of a search say.
fn same_trials(a: &LoadOptions, b: &LoadOptions) {
    same(a, &LoadOptions { duration: a.duration, ..b.clone() });
}

const ALL: &str = "run -t h:1 -r 20k -d 10s --warmup 0s --size 1KiB --producers 2 --consumers 0 --stream s \
                   --streams 3 --groups 2 --shards 4 --ack written --retention-bytes 1GiB --arrival poisson \
                   --batch 64K --linger 1ms --inflight 2 --connections 2 --compression zstd \
                   --client-name shop --producer till --cores 0 --seed 9 --spin 0us \
                   --drain-timeout 1m --keys 17 --key-distribution hot:25% --tolerate-restart \
                   --target-timeout 3s --slo p99=5ms --slo propagation.max=1s";

#[test]
fn the_echoed_line_is_the_same_run() {
    for line in [
        "run",
        ALL,
        "run -r max",
        "run --clients 3 -t null:stall=1s/10s,service=20us",
        "run --size 100..1KiB --warmup steady:5s",
        "run --size lognormal:1KiB,0.7 --key-distribution zipf:1.1 -t embedded:a/b",
        "run --arrival burst --peak 3x",
        "run --arrival poisson --on 1s --every 9s",
        "burst --peak 1.5x --every 20s",
        "burst --arrival poisson -d 7s",
        "run --late-bound 10ms --steal-bound 7% --slo p99=50ms",
        "run --late-bound 1ms --slo p99=1ms",
        "backlog --outage 5s",
        "backlog --outage 1m --drain-limit 2m --paused-groups 2 --groups 3 -d 20s -r 2k",
    ] {
        let request = typed(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
        let again = typed(echo::words(&request)).unwrap_or_else(|e| panic!("{line}: {e}"));
        same(&request.options, &again.options);
        assert_eq!((request.slo, request.workload), (again.slo, again.workload), "{line}");
    }
}

#[test]
fn the_echoed_line_is_the_same_search() {
    for line in [
        "search",
        "search -r 5k --slo p99=10ms --slo propagation.p99.9=1s --budget 10m --precision 5%",
        "search -d 2500ms --stable 1.5% --max-rate 90k --budget 30s6ms -w iot --arrival poisson",
    ] {
        let asked = search(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
        let again = search(asked.command.clone()).unwrap_or_else(|e| panic!("{line}: {e}"));
        same_trials(&asked.load, &again.load);
        assert_eq!(asked.settings, again.settings, "{line}");
        assert_eq!(asked.command, again.command, "{line}");
    }
}

/// The report of a point proposed the sweep's own command, without the directory it needs.
#[test]
fn a_sweep_and_each_of_its_points_are_echoed_as_what_they_are() {
    let of_searches =
        "sweep --vary shards=1,2 --vary size=100,1KiB --budget 60s --slo p99=10ms -o d";
    let of_runs = "sweep --vary rate=1k,2k --vary ack=durable,written -d 3s --warmup 1s -o d";
    for line in [of_searches, of_runs] {
        let asked = sweep(words(line));
        let again = sweep(asked.command.clone());
        assert_eq!((&asked.mode, &asked.vary), (&again.mode, &again.vary), "{line}");
        assert_eq!((asked.points.len(), &asked.command), (4, &again.command), "{line}");
        for point in asked.points {
            match &asked.mode {
                SweepMode::Search { settings } => {
                    let alone = search(point.command).unwrap();
                    same_trials(&alone.load, &point.load);
                    assert_eq!(alone.settings, *settings);
                }
                SweepMode::Rate { .. } => same(&typed(point.command).unwrap().options, &point.load),
            }
        }
    }
}

/// A tenth of 30.006 s is 3.0006 s: rounded up to the millisecond it was more than a trial may take.
#[test]
fn whatever_the_budget_the_trials_that_follow_from_it_fit_into_it() {
    for ms in [20_006, 20_150, 29_999, 30_006, 39_999, 121_987] {
        let asked = search(words(&format!("search --budget {ms}ms")));
        let asked = asked.unwrap_or_else(|e| panic!("{ms} ms: {e}")).settings;
        assert!(asked.trial_s * 10.0 <= asked.budget_s * (1.0 + 1e-12), "{asked:?}");
    }
}

#[test]
fn what_is_typed_is_what_is_asked() {
    let options = parse(ALL);
    assert_eq!(options.rate, Rate::PerSecond(20_000.0));
    assert_eq!(options.workload, Workload::Fixed { size: 1024 });
    assert_eq!((options.batch_bytes, options.cores.as_slice()), (65_536, &[0][..]));
    assert_eq!(options.late_bound, Duration::from_micros(500));
    assert_eq!(parse("run --warmup steady").warmup, LoadOptions::default().warmup);
    assert_eq!(parse("run --warmup 5s").warmup, WarmUpRule::Fixed(Duration::from_secs(5)));
}

#[test]
fn bursts_are_measured_three_times_unless_it_is_said_otherwise() {
    let burst = parse("burst --every 20s --on 4s --peak 3x");
    assert_eq!((burst.scenario, burst.duration), (Scenario::Burst, Duration::from_secs(60)));
    let expected = Burst { peak: 3.0, on: Duration::from_secs(4), every: Duration::from_secs(20) };
    assert_eq!(burst.profile, Profile::Burst(expected));
    assert_eq!(parse("burst -d 5s").duration, Duration::from_secs(5));
    let both = parse("run --arrival poisson --peak 3x --on 4s --every 20s");
    assert_eq!((both.arrival, both.profile), (Arrival::Poisson, Profile::Burst(expected)));
}

#[test]
fn a_trace_is_followed() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let file = dir.path().join("rates");
    std::fs::write(&file, "rate\n100\n200\n").unwrap();
    let line = format!("run --arrival poisson --trace {} --speed 2x", file.display());
    let request = typed(words(&line)).unwrap();
    let Profile::Trace(trace) = &request.options.profile else { panic!("no trace") };
    assert_eq!((trace.speed, request.options.arrival), (2.0, Arrival::Poisson));
    same(&request.options, &typed(echo::words(&request)).unwrap().options);
    std::fs::write(&file, "rate\n100\nmany\n").unwrap();
    refused(&line, &["rates", "line 3", "many"]);
    let record = |second: u32| {
        format!("{{\"key\":\"k\",\"payload\":\"p\",\"arrival\":\"2026-01-01T00:00:0{second}Z\"}}\n")
    };
    std::fs::write(&file, [record(1), record(3)].concat()).unwrap();
    let request = typed(words(&line)).unwrap();
    assert_eq!(request.options.workload, Workload::Recorded { file: file.clone() });
    assert_eq!(request.options.duration, Duration::from_millis(1_001));
    same(&request.options, &typed(echo::words(&request)).unwrap().options);
    let only_times = typed(words(&format!("{line} --size 100 -d 7s"))).unwrap().options;
    assert_eq!(only_times.workload, Workload::Fixed { size: 100 });
    assert_eq!(only_times.duration, Duration::from_secs(7));
    refused(&format!("{line} --keys 5"), &["--keys", "--size"]);
    std::fs::remove_file(&file).unwrap();
    refused(&line, &["rates", "No such file"]);
}

#[test]
fn values_out_of_range_name_flag_value_and_limit() {
    for (line, says) in [
        ("run --size 8", &["--size", "8", "32"][..]),
        ("run --size 99MiB", &["--size", "99MiB"]),
        ("run --size 1KiB..100", &["--size", "100..1KiB"]),
        ("run --producers 0", &["--producers", "0", "1 to 4096"]),
        ("run -d 0s", &["--duration", "more than 0"]),
        ("run --stream a/b", &["--stream", "a/b"]),
        ("run --inflight 0", &["--inflight", "0", "4096"]),
        ("run --compression gzip", &["--compression", "gzip", "zstd"]),
        ("run --compression lz4 -t null", &["--compression", "lz4", "server's client"]),
        ("run --producer p -t embedded", &["--producer", "p", "server's client"]),
        ("run --producer a/b", &["--producer", "a/b"]),
        ("run --client-name=", &["--client-name", "1 to 128"]),
        ("run -r 0", &["--rate", "0 records per second", "more than 0"]),
        ("run -r fast", &["--rate", "fast", "20k"]),
        ("run --slo p99", &["--slo", "p99=10ms"]),
        ("run --ack never", &["--ack", "never", "durable"]),
        ("run --keys 0", &["--keys", "0"]),
        ("run --key-distribution normal", &["--key-distribution", "normal", "zipf"]),
        ("run --cores 1000", &["--cores", "1000", "available: 0"]),
        ("run -t foo", &["--target", "foo", "HOST:PORT"]),
        ("run -t null:stall=5s", &["--target", "stall"]),
        ("run -t embedded:", &["--target", "directory"]),
        ("run --peak 2y", &["--peak", "2.5x"]),
        ("run --arrival burst --peak 1x", &["--peak", "more than 1"]),
        ("burst --on 30s --every 20s", &["--on", "every"]),
        ("backlog --outage 0s", &["--outage"]),
        ("run --warmup never", &["--warmup", "never"]),
        ("run --groups 65", &["--groups", "65", "64"]),
        ("compare a b --margin 3", &["--margin", "100%"]),
    ] {
        refused(line, says);
    }
}

#[test]
fn what_contradicts_itself_is_refused_with_the_flag() {
    for (line, says) in [
        ("run -r max --arrival poisson", &["--arrival", "poisson", "max"][..]),
        ("burst -r max", &["--arrival", "max"]),
        ("run --clients 2 --batch 1K", &["--clients", "--batch"]),
        ("run --clients 2 --linger 1ms", &["--clients", "--linger"]),
        ("run --clients 2 --producers 2", &["--clients", "--producers"]),
        ("run --arrival trace", &["--arrival trace", "--trace FILE"]),
        ("run --trace f --peak 2x", &["--trace", "--peak"]),
        ("run --trace f -r 5", &["--trace", "--rate"]),
        ("run --trace f --arrival burst", &["--arrival burst", "--trace"]),
        ("run --speed 2x", &["--trace"]),
        ("run --trace f --trace-stream s", &["--trace", "--trace-stream"]),
        ("run --trace-stream s -t null", &["--trace-stream s", "null", "highwater replay s"]),
        ("run --arrival constant --peak 2x", &["--arrival constant", "--peak"]),
        ("run --engine-cores 0", &["--engine-cores", "embedded"]),
        ("backlog --groups 1", &["--paused-groups", "1"]),
        ("backlog --consumers 0", &["--consumers", "0"]),
        ("run --groups 3 --consumers 2", &["--consumers", "2", "3"]),
        ("run -w iot --size 5KiB", &["--size", "--workload iot"]),
        ("run -w iot --keys 5", &["--keys", "iot"]),
        ("run -w clickstream --key-distribution zipf", &["--key-distribution", "clickstream"]),
        ("run --trace no-such-file.csv", &["--trace", "no-such-file.csv"]),
    ] {
        refused(line, says);
    }
}

#[test]
fn a_line_can_be_pasted_into_a_shell() {
    let line =
        echo::line(&["a".into(), "it's".into(), String::new(), "x y".into(), "p=1:2".into()]);
    assert_eq!(line, r"a 'it'\''s' '' 'x y' p=1:2");
}

proptest! {
    #[test]
    fn any_run_is_echoed_faithfully(rate in 1u64..1_000_000, ms in 1u64..100_000, size in 32u64..100_000) {
        let line = format!("run -r {rate} -d {ms}ms --size {size} --linger {ms}us");
        let request = typed(words(&line)).unwrap();
        same(&request.options, &typed(echo::words(&request)).unwrap().options);
    }
}
