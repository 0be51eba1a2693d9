//! Run directories: what is refused, what is left behind, and what is read back.

use std::fs;

use hdrhistogram::Histogram;

use super::*;
use crate::*;

pub(crate) const START: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A run that went well.
pub(crate) fn report(duration_s: f64) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        valid: true,
        void_reason: None,
        interrupted: false,
        ended_early: None,
        scenario: ScenarioKind::Run,
        mode: Mode::Open,
        target: "127.0.0.1:7411".to_owned(),
        server: "0.1.0".to_owned(),
        stream: "load".to_owned(),
        streams: 1,
        shards: 1,
        ack: "durable".to_owned(),
        groups: 1,
        consumers: 1,
        seed: 1,
        run_id: 1,
        started_ns: START,
        warmup: WarmUp::default(),
        duration_s,
        workload: WorkloadSummary::default(),
        arrivals: Arrivals::default(),
        offered_rate: 1000.0,
        achieved_rate: 1000.0,
        acked_records: (1000.0 * duration_s) as u64,
        records_per_s: 1000.0,
        bytes_per_s: 1e6,
        consumed_records: (1000.0 * duration_s) as u64,
        consumed_per_s: 1000.0,
        checked: true,
        checked_records: (1000.0 * duration_s) as u64,
        lost: 0,
        duplicated: 0,
        reordered: 0,
        corrupted: 0,
        trimmed: 0,
        unread: 0,
        refused: 0,
        refused_but_read: 0,
        dropped: 0,
        sampled_out: 0,
        shed_but_read: 0,
        account: None,
        unknown: 0,
        unknown_but_read: 0,
        unsent: 0,
        errors: 0,
        read_errors: 0,
        first_error: None,
        ack_pause_ms: AckPauses::default(),
        latency_us: Distributions::default(),
        delivery_before_arrival: 0,
        generator_late: Lateness::default(),
        generator_busy: None,
        steal: None,
        workers: 1,
        burst: None,
        backlog: None,
        notes: Vec::new(),
        environment: Environment::default(),
        lints: Vec::new(),
        command: Vec::new(),
        options: LoadOptions::default(),
        slo: Vec::new(),
    }
}

/// The second that ends `second` seconds after the window's beginning, at `rate` records acknowledged and
/// read per second, with such a response (nanoseconds); the other distributions are empty.
pub(crate) fn tick(dir: &mut RunDir, second: u64, rate: f64, response: &Histogram<u64>) {
    let zero = Distribution::default();
    let progress = Progress {
        phase: Phase::Measure,
        t_s: second as f64,
        elapsed_s: second as f64,
        total_s: None,
        interval_s: 1.0,
        offered: 0,
        sent: 0,
        acked: 0,
        acked_bytes: 0,
        consumed: 0,
        consumed_bytes: 0,
        refused: 0,
        errors: 0,
        unsent: 0,
        unanswered: Some(0),
        backlog: 0,
        offered_per_s: rate,
        sent_per_s: rate,
        acked_per_s: rate,
        acked_bytes_per_s: 0.0,
        consumed_per_s: rate,
        consumed_bytes_per_s: 0.0,
        response: Distribution::of(response),
        propagation: zero,
        send_lag: zero,
        service: zero,
        delivery: zero,
        steal: None,
        generator_busy: None,
    };
    let none = Histogram::new(3).unwrap();
    let names = Distributions::default().named().map(|(name, _)| name);
    dir.tick(&Tick {
        progress: &progress,
        start_ns: START + (second - 1) * SECOND,
        end_ns: START + second * SECOND,
        histograms: names.map(|name| (name, if name == "response" { response } else { &none })),
    });
}

fn response(ns: u64) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
    histogram.saturating_record_n(ns, 100);
    histogram
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_is_written_as_it_goes_and_read_back_at_its_end() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let mut dir = RunDir::create(&path).unwrap();
    assert_eq!(dir.path(), path);
    for second in 1..=25 {
        tick(&mut dir, second, 100.0, &response(1000 * second));
        let samples = fs::read_to_string(path.join(SAMPLES)).unwrap();
        assert_eq!(samples.lines().count() as u64, second, "a killed run leaves what it had");
    }
    let said = read_run(&path).unwrap_err().to_string();
    assert!(said.contains("has no run.json"), "{said}");
    dir.finish(&report(25.0)).unwrap();

    assert_eq!(
        names(&path),
        ["latency.hlog", "report.html", "report.md", "run.json", "samples.jsonl"]
    );
    let run = read_run(&path).unwrap();
    assert_eq!((run.samples.len(), run.report.duration_s), (25, 25.0));
    assert!(
        run.report.environment.run_dir.as_ref().is_some_and(|place| place.path.ends_with("a/b"))
    );
    assert_eq!(run.series.len(), 1);
    assert_eq!(run.series[0].blocks.iter().map(|b| b.count()).collect::<Vec<_>>(), [1000, 1500]);
    assert_eq!(run.histogram("response").map(Histogram::len), Some(2500));
    assert_eq!(run.histogram("service"), None);

    let markdown = fs::read(path.join(MARKDOWN)).unwrap();
    fs::remove_file(path.join(MARKDOWN)).unwrap();
    rebuild(&path).unwrap();
    assert_eq!(fs::read(path.join(MARKDOWN)).unwrap(), markdown);
}

#[test]
fn an_earlier_run_is_replaced_and_anything_else_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut dir = RunDir::create(&path).unwrap();
    tick(&mut dir, 1, 100.0, &response(1));
    let said = RunDir::create(&path).unwrap_err().to_string();
    assert!(said.contains("another run is being written"), "{said}");
    dir.finish(&report(1.0)).unwrap();
    fs::write(path.join("report.md.unfinished"), "x").unwrap();

    // A run that never begins leaves it as it is.
    let before = fs::read(path.join(LOG)).unwrap();
    drop(RunDir::create(&path).unwrap());
    assert_eq!(fs::read(path.join(LOG)).unwrap(), before);
    assert!(path.join(RUN).exists() && path.join(HTML).exists());

    let mut dir = RunDir::create(&path).unwrap();
    tick(&mut dir, 1, 100.0, &response(1));
    assert_eq!(fs::read_to_string(path.join(SAMPLES)).unwrap().lines().count(), 1);
    assert!(!path.join(RUN).exists() && !path.join(HTML).exists());
    drop(dir);

    fs::write(path.join("diary.txt"), "mine").unwrap();
    let said = RunDir::create(&path).unwrap_err().to_string();
    assert!(said.contains("not empty") && said.contains("diary.txt"), "{said}");
    let said = RunDir::create(&path.join("diary.txt")).unwrap_err().to_string();
    assert!(said.contains("is no directory"), "{said}");
    let said = RunDir::create(&path.join("diary.txt/below")).unwrap_err().to_string();
    assert!(said.contains("cannot make"), "{said}");
    assert_eq!(fs::read_to_string(path.join("diary.txt")).unwrap(), "mine");
}

#[test]
fn a_full_disk_is_told_at_the_end_and_does_not_stop_the_run() {
    let full = File::options().append(true).open("/dev/full");
    let Ok(full) = full else {
        eprintln!("skipped: no /dev/full");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let mut dir = RunDir::create(root.path()).unwrap();
    tick(&mut dir, 1, 100.0, &response(1));
    let held = std::mem::replace(&mut dir.log.file, full);
    tick(&mut dir, 2, 100.0, &response(1));
    // There is room again, but a log with a hole would say that nothing was slow in it.
    dir.log.file = held;
    tick(&mut dir, 3, 100.0, &response(1));
    let error = dir.finish(&report(3.0)).unwrap_err();
    assert!(error.to_string().contains("latency.hlog"), "{error}");
    let RunDirError::Io { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::StorageFull);
    let run = read_run(root.path()).unwrap();
    assert_eq!(run.samples.len(), 2, "the report could be written, and is there");
    assert_eq!(run.histogram("response").map(Histogram::len), Some(100));
}

#[test]
fn half_a_line_is_taken_back() {
    let root = tempfile::tempdir().unwrap();
    let mut output = Output::open(root.path().join("x")).unwrap();
    output.append(b"one\n").unwrap();
    OpenOptions::new().append(true).open(&output.path).unwrap().write_all(b"tw").unwrap();
    output.cut(output.len).unwrap();
    output.append(b"three\n").unwrap();
    assert_eq!(fs::read_to_string(&output.path).unwrap(), "one\nthree\n");
}

#[test]
fn what_cannot_be_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let mut dir = RunDir::create(path).unwrap();
    tick(&mut dir, 1, 100.0, &response(1));
    dir.finish(&report(1.0)).unwrap();
    let said = |file: &str, text: Option<&str>| {
        let file = path.join(file);
        let before = fs::read(&file).unwrap();
        match text {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let said = read_run(path).map(|run| run.samples.len()).map_err(|e| e.to_string());
        fs::write(&file, before).unwrap();
        said
    };
    let err = |file, text| said(file, text).unwrap_err();
    assert!(err(RUN, Some(r#"{"schema":"other/9"}"#)).contains("\"other/9\""));
    assert!(err(RUN, Some("[]")).contains("highwater-load/1"));
    assert!(err(RUN, Some("{")).contains("run.json: line 1"));
    assert!(err(RUN, Some(r#"{"schema":"highwater-load/1"}"#)).contains("missing field"));
    assert!(err(SAMPLES, None).contains("samples.jsonl"));
    assert!(err(SAMPLES, Some("{}\n")).contains("samples.jsonl: line 1"));
    assert!(err(LOG, None).contains("latency.hlog"));
    assert!(err(LOG, Some("x\n")).contains("latency.hlog: line 1"));
    assert_eq!(said(SAMPLES, Some("{\"half")), Ok(0), "what a full disk left of a line");
    let said = read_run(&path.join("nowhere")).unwrap_err().to_string();
    assert!(said.contains("no run directory"), "{said}");
}
