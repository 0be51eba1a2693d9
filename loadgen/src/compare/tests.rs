//! Comparisons of runs that are made up: what they say is known.

use hdrhistogram::Histogram;

use super::*;
use crate::rundir::tests::{report, tick};
use crate::{Report, RunDir};

/// How a made-up run behaves.
#[derive(Clone, Copy)]
struct Shape {
    seconds: u64,
    /// Median response, microseconds.
    us: f64,
    /// How much the level of a second may be off, as a share.
    noise: f64,
    records: u64,
    rate: f64,
    seed: u64,
}

const GOOD: Shape =
    Shape { seconds: 60, us: 500.0, noise: 0.02, records: 1000, rate: 1000.0, seed: 1 };

fn run(shape: Shape, change: impl FnOnce(&mut Report)) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut dir = RunDir::create(root.path()).unwrap();
    let mut random = fastrand::Rng::with_seed(shape.seed);
    for second in 1..=shape.seconds {
        let mut response = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        let level = 1.0 + shape.noise * (2.0 * random.f64() - 1.0);
        for _ in 0..shape.records {
            let ns = 1e3 * shape.us * level * (0.5 + random.f64());
            response.saturating_record(ns as u64);
        }
        tick(&mut dir, second, shape.rate, &response);
    }
    let mut report = report(shape.seconds as f64);
    // Of this directory nothing is asked, and the reports are another's to test.
    report.environment.cpu_model = Some("Some CPU".to_owned());
    change(&mut report);
    dir.finish(&report).unwrap();
    root
}

fn compared(a: Shape, b: Shape) -> Comparison {
    let (a, b) = (run(a, |_| {}), run(b, |_| {}));
    compare(a.path(), b.path(), &CompareOptions::default()).unwrap()
}

fn of<'a>(comparison: &'a Comparison, metric: &str) -> &'a Row {
    comparison.rows.iter().find(|row| row.metric.to_string() == metric).unwrap()
}

#[test]
fn what_is_slower_is_worse_and_the_other_way_round_is_not() {
    let slow = Shape { us: 600.0, seed: 2, ..GOOD };
    let found = compared(GOOD, slow);
    assert_eq!(found.verdict, Verdict::Worse);
    let p99 = of(&found, "response.p99");
    assert_eq!((p99.verdict, p99.unit), (Some(Verdict::Worse), "us"));
    let ratio = p99.ratio.unwrap();
    assert!((ratio.value - 1.2).abs() < 0.03, "{ratio:?}");
    assert!(ratio.low.unwrap() <= 1.2 && 1.2 <= ratio.high.unwrap(), "{ratio:?}");
    assert_eq!(of(&found, "acknowledged.rate").verdict, Some(Verdict::NotWorse));
    assert_eq!(of(&found, "response.p50").verdict, None, "not judged by default");
    assert!(found.rows.iter().all(|row| !row.metric.to_string().starts_with("service")));
    assert_eq!(compared(slow, GOOD).verdict, Verdict::NotWorse, "faster is never worse");
}

#[test]
fn what_is_alike_is_not_worse_if_the_runs_can_tell() {
    let quiet = Shape { noise: 0.005, ..GOOD };
    let found = compared(quiet, Shape { seed: 3, ..quiet });
    assert_eq!(found.verdict, Verdict::NotWorse, "{found}");
    let noisy = Shape { noise: 0.6, us: 505.0, ..GOOD };
    let found = compared(noisy, Shape { seed: 4, ..noisy });
    assert_eq!(found.verdict, Verdict::CannotTell, "{found}");
    let reason = of(&found, "response.p99").reason.clone().unwrap();
    assert!(reason.contains("more of each run") || reason.contains("on the margin"), "{reason}");
}

#[test]
fn fewer_records_are_worse() {
    let found = compared(GOOD, Shape { rate: 900.0, ..GOOD });
    assert_eq!(of(&found, "acknowledged.rate").verdict, Some(Verdict::Worse));
    assert_eq!(found.verdict, Verdict::Worse);
    assert_eq!(compared(Shape { rate: 900.0, ..GOOD }, GOOD).verdict, Verdict::NotWorse);
    let none = compared(GOOD, Shape { rate: 0.0, ..GOOD });
    let row = of(&none, "acknowledged.rate");
    assert_eq!((row.verdict, row.b.why), (Some(Verdict::CannotTell), Some("not measured")));
}

#[test]
fn short_void_and_thin_runs_cannot_tell() {
    let short = compared(GOOD, Shape { seconds: 29, us: 5000.0, ..GOOD });
    assert_eq!(short.verdict, Verdict::CannotTell);
    assert!(short.reasons[0].contains("B is 29 s long"), "{:?}", short.reasons);

    let (a, b) = (
        run(GOOD, |_| {}),
        run(GOOD, |report| {
            report.valid = false;
            report.void_reason = Some("the generator was late".to_owned());
        }),
    );
    let void = compare(a.path(), b.path(), &CompareOptions::default()).unwrap();
    assert_eq!(void.verdict, Verdict::CannotTell);
    assert!(void.reasons[0].contains("B is void: the generator was late"));

    let thin = Shape { records: 10, ..GOOD };
    let metrics = vec!["response.p99".parse().unwrap(), "response.p50".parse().unwrap()];
    let options = CompareOptions { metrics, ..CompareOptions::default() };
    let (a, b) = (run(thin, |_| {}), run(thin, |_| {}));
    let found = compare(a.path(), b.path(), &options).unwrap();
    let p99 = of(&found, "response.p99");
    assert_eq!((p99.verdict, p99.a.why), (Some(Verdict::CannotTell), Some("n too small")));
    assert_eq!((p99.a.estimate, p99.ratio), (None, None));
    assert!(of(&found, "response.p50").ratio.is_some());
    assert_eq!(of(&found, "acknowledged.rate").verdict, None, "not asked for");
}

#[test]
fn losing_records_is_worse_whatever_the_latency() {
    let (a, b) = (run(GOOD, |_| {}), run(Shape { us: 50.0, ..GOOD }, |report| report.lost = 1));
    let found = compare(a.path(), b.path(), &CompareOptions::default()).unwrap();
    assert_eq!(found.verdict, Verdict::Worse);
    let found = compare(b.path(), a.path(), &CompareOptions::default()).unwrap();
    assert_eq!(found.verdict, Verdict::CannotTell);
}

#[test]
fn runs_of_different_machines_or_loads_are_refused_unless_forced() {
    let a = run(GOOD, |_| {});
    let b = run(GOOD, |report| {
        report.environment.cpu_model = Some("Other CPU".to_owned());
        report.environment.steal = Some(0.5);
        report.environment.version = "9.9.9".to_owned();
        report.server = "9.9.9".to_owned();
        report.options.stream = "another".to_owned();
        report.options.seed += 1;
        report.options.inflight += 1;
        report.target = "embedded:/data".to_owned();
    });
    let error = compare(a.path(), b.path(), &CompareOptions::default()).unwrap_err();
    let said = error.to_string();
    let CompareError::Differ { differences } = error else { panic!("{said}") };
    let fields: Vec<&str> = differences.iter().map(|d| d.field.as_str()).collect();
    assert_eq!(fields, ["target kind", "options.inflight", "environment.cpu_model"]);
    assert!(said.contains("environment.cpu_model is \"Some CPU\" in A and \"Other CPU\" in B"));
    let forced = CompareOptions { force: true, ..CompareOptions::default() };
    let found = compare(a.path(), b.path(), &forced).unwrap();
    assert_eq!(found.differences, differences);
    assert!(found.to_string().contains("all the same, though options.inflight is 16 in A"));
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let a = run(Shape { seconds: 1, ..GOOD }, |_| {});
    let margin = |margin| CompareOptions { margin, ..CompareOptions::default() };
    for wrong in [-0.1, f64::NAN, 11.0] {
        let error = compare(a.path(), a.path(), &margin(wrong)).unwrap_err();
        assert!(error.to_string().starts_with("margin is"), "{error}");
    }
    let error = compare(a.path(), &a.path().join("x"), &margin(0.0)).unwrap_err();
    assert!(matches!(error, CompareError::Read(_)), "{error}");
}

#[test]
fn a_comparison_is_its_runs_and_seed_and_is_written_down() {
    let (a, b) = (run(GOOD, |_| {}), run(Shape { seed: 9, ..GOOD }, |_| {}));
    let options = CompareOptions::default();
    let found = compare(a.path(), b.path(), &options).unwrap();
    assert_eq!(found, compare(a.path(), b.path(), &options).unwrap());
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["schema"], "highwater-compare/1");
    assert_eq!(json["rows"][0]["metric"], "acknowledged.rate");
    let text = found.to_string();
    let table = text.lines().skip_while(|line| !line.ends_with("95 % of B/A"));
    assert!(table.clone().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("*response.p99"), "{text}");
}

#[test]
fn how_much_longer_grows_with_the_square_of_the_width() {
    let more = |low, high| more_seconds(1.0, (low, high), 1.03, 60.0);
    let (narrow, wide) = (more(0.96, 1.04), more(0.92, 1.08));
    assert!(narrow.contains("50 s more"), "{narrow}");
    assert!(wide.contains("350 s more"), "{wide}");
    assert!(more_seconds(1.03, (0.9, 1.2), 1.03, 60.0).contains("on the margin"));
}

/// Made in turn, a machine that grows slower meanwhile is on both sides; and a void run costs only itself.
#[test]
fn many_runs_of_each_side_are_judged_together() {
    let drift = |n: u64, b: f64| Shape {
        seconds: 20,
        us: 500.0 * (1.0 + 0.01 * n as f64) * b,
        seed: 20 + n,
        ..GOOD
    };
    let sides = |b: f64| {
        // A B B A A B B A.
        let order = [0, 3, 4, 7].map(|n| run(drift(n, 1.0), |_| {}));
        let other = [1, 2, 5, 6].map(|n| run(drift(n, b), |_| {}));
        let paths = |runs: &[tempfile::TempDir]| -> Vec<PathBuf> {
            runs.iter().map(|run| run.path().to_owned()).collect()
        };
        let options = CompareOptions { margin: 0.06, ..CompareOptions::default() };
        compare_many(&paths(&order), &paths(&other), &options).unwrap()
    };
    let alike = sides(1.0);
    assert_eq!(alike.verdict, Verdict::NotWorse, "{alike}");
    assert_eq!((alike.a.runs, alike.a.blocks), (4, 8));
    assert_eq!(sides(1.25).verdict, Verdict::Worse);

    let (sound, other) = (run(GOOD, |_| {}), run(Shape { seed: 5, ..GOOD }, |_| {}));
    let void = run(Shape { us: 5_000.0, ..GOOD }, |report| {
        report.valid = false;
        report.void_reason = Some("late".to_owned());
    });
    let (a, b) = (vec![sound.path().to_owned()], [other.path(), void.path()].map(Path::to_owned));
    let found = compare_many(&a, &b, &CompareOptions::default()).unwrap();
    assert_eq!(found.verdict, Verdict::NotWorse, "{found}");
    assert_eq!(found.reasons, ["1 of 2 runs of B are void and left out"]);
    assert!(matches!(
        compare_many(&a, &[], &CompareOptions::default()),
        Err(CompareError::Nothing)
    ));
}
