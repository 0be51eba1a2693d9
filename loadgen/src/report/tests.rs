//! Reports of a made-up run: the figures that must be in them, and what must never be.

use hdrhistogram::Histogram;

use super::fixture::{self, Run};
use super::*;
use crate::Progress;

fn texts(run: &Run) -> (String, String, String) {
    let document = pages::document(&run.report, &run.samples, |name| run.histogram(name));
    (run.report.to_string(), markdown::markdown(&document), html::html(&document))
}

/// All figures that are somewhere in a report, as they are printed.
fn figures_of(r: &Report) -> Vec<String> {
    let mut all = vec![
        figures::rate(r.offered_rate),
        figures::rate(r.achieved_rate),
        figures::rate(r.records_per_s),
        figures::bytes(r.bytes_per_s),
        figures::rate(r.consumed_per_s),
        figures::time(r.generator_late.p99_us),
        figures::time(r.generator_late.max_us),
        figures::time(r.generator_late.bound_us),
        figures::seconds(r.warmup.duration_s),
        figures::moment(r.started_ns),
        r.seed.to_string(),
        format!("{:.2} times the mean", r.workload.shard_skew),
        format!("{:.3}", r.arrivals.scheduled_c2.unwrap()),
    ];
    let counts = [
        r.acked_records,
        r.consumed_records,
        r.checked_records,
        r.lost,
        r.duplicated,
        r.reordered,
        r.corrupted,
        r.trimmed,
        r.unread,
        r.refused,
        r.refused_but_read,
        r.dropped,
        r.sampled_out,
        r.shed_but_read,
        r.unknown,
        r.unknown_but_read,
        r.unsent,
        r.errors,
        r.workload.keys,
    ];
    all.extend(counts.map(figures::whole));
    let pauses = &r.ack_pause_ms;
    all.extend([pauses.max, pauses.p99, pauses.p50].map(|ms| figures::time(ms * 1e3)));
    let mut distributions: Vec<Distribution> =
        r.latency_us.named().into_iter().map(|(_, d)| *d).collect();
    if let Some(b) = &r.burst {
        // What text leaves out for its 80 columns is in the pages; this is what all three have.
        distributions.extend([b.calm.response, b.burst.response, b.calm.propagation]);
        distributions.extend([b.burst.propagation, b.calm.service, b.burst.service]);
        all.extend([figures::rate(b.base_rate), figures::rate(b.peak_rate)]);
        all.extend([figures::whole(b.backlog_peak), figures::seconds(b.recovery_s.unwrap())]);
        all.extend([figures::seconds(b.on_s), figures::seconds(b.every_s)]);
    }
    if let Some(b) = &r.backlog {
        distributions.extend([b.before, b.outage, b.draining].map(|live| live.response));
        distributions.extend([b.before, b.outage, b.draining].map(|live| live.propagation));
        distributions.push(b.paused_propagation);
        all.extend([figures::seconds(b.outage_s), figures::seconds(b.drain_s.unwrap())]);
        all.extend([figures::rate(b.drain_rate), figures::rate(b.arrival_rate)]);
        all.extend([figures::whole(b.backlog_records), figures::bytes(b.backlog_bytes as f64)]);
        all.push(figures::bytes(b.drain_bytes_per_s));
    }
    for d in distributions {
        all.push(figures::whole(d.count));
        all.extend(d.percentiles().into_iter().chain([d.largest()]).flatten().map(figures::time));
    }
    all.extend(r.slo.iter().map(|slo| figures::time(slo.bound_us)));
    all.extend(r.slo.iter().filter_map(|slo| slo.measured_us).map(figures::time));
    all
}

/// Without line breaks and with units as the terminal has them, so that wrapping hides nothing.
fn flat(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace("µs", "us")
}

#[test]
fn every_figure_is_in_every_form_of_the_report() {
    for run in fixture::all() {
        let (text, markdown, html) = texts(&run);
        for (form, text) in [("text", text), ("markdown", markdown), ("html", html)] {
            let text = flat(&text);
            for figure in figures_of(&run.report) {
                assert!(text.contains(&figure), "{figure} is not in the {form}: {text}");
            }
        }
    }
}

#[test]
fn text_fits_a_terminal_and_begins_with_the_verdict() {
    for run in fixture::all() {
        let text = run.report.to_string();
        assert!(text.starts_with("verdict     "), "{text}");
        for line in text.lines() {
            let columns = line.chars().count();
            // A word that is longer than a line stays whole.
            let breakable = line.split_whitespace().all(|word| word.chars().count() <= 68);
            assert!(columns <= 80 || !breakable, "{columns} columns: {line}");
        }
    }
}

#[test]
fn a_page_fetches_nothing_runs_nothing_and_is_well_formed() {
    for run in fixture::all() {
        let html = texts(&run).2;
        let small = html.to_lowercase();
        let foreign = [
            "<script", "http:", "https:", "url(", "@import", "<link", "src=", "href=", "onload",
            "nan",
        ];
        for word in foreign {
            assert!(!small.contains(word), "{word} in the page");
        }
        balanced(&html);
    }
}

/// Whether every element that is opened is closed, in order, and attributes are quoted.
fn balanced(html: &str) {
    let mut open = Vec::new();
    // A style sheet has no markup.
    let (head, rest) = html.split_once("<style>").unwrap();
    let body = rest.split_once("</style>").unwrap().1;
    for page in [format!("{head}</head></html>"), format!("<html>{body}")] {
        for tag in page.split('<').skip(1) {
            let tag = tag.split_once('>').expect("a tag is closed").0;
            let name: String = tag
                .chars()
                .skip_while(|c| *c == '/')
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '!')
                .collect();
            if tag.starts_with('/') {
                while open.last().is_some_and(|last| *last == "head" && name == "html") {
                    open.pop();
                }
                if name == "head" && !open.iter().any(|last| *last == "head") {
                    continue;
                }
                assert_eq!(open.pop(), Some(name), "closed out of order");
            } else if !tag.ends_with('/') && name != "meta" && name != "!DOCTYPE" {
                open.push(name);
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        }
        assert!(open.is_empty(), "{open:?} left open");
    }
}

#[test]
fn what_a_target_or_an_error_says_is_never_markup() {
    let mut run = fixture::steady();
    let evil = "<script>alert('x')</script> | *b* \u{1b}[31m";
    run.report.first_error = Some(evil.to_owned());
    run.report.server = evil.to_owned();
    run.report.notes = vec![evil.to_owned()];
    run.report.stream = evil.to_owned();
    let (_, markdown, html) = texts(&run);
    assert!(!html.contains("<script>") && !html.contains('\u{1b}'));
    assert!(!markdown.replace(r"\<", "").contains('<'), "{markdown}");
    assert!(!markdown.contains('\u{1b}'));
    balanced(&html);
}

#[test]
fn an_empty_run_is_reported_as_well() {
    let mut run = fixture::steady();
    run.samples.clear();
    run.histograms.clear();
    run.report.latency_us = Distributions::default();
    run.report.void_reason = Some("nothing due in the measured window was acknowledged".into());
    run.report.valid = false;
    let (text, markdown, html) = texts(&run);
    assert!(text.starts_with("verdict     NOT VALID"), "{text}");
    assert!(markdown.contains("NOT VALID") && !markdown.contains("in detail"), "{markdown}");
    assert!(html.contains("Not valid") && !html.contains("<figure"));
}

#[test]
fn verdicts_name_what_is_wrong_first() {
    let mut run = fixture::steady();
    run.report.lost = 3;
    run.report.ended_early = Some("nothing answered for 10 s".into());
    run.report.interrupted = true;
    run.report.slo[0].met = Some(false);
    let text = run.report.to_string();
    let first = text.lines().next().unwrap();
    assert_eq!(first, "verdict     valid, RECORDS DAMAGED OR LOST, SLO NOT MET");
    assert!(text.contains("ENDED EARLY: nothing answered for 10 s"), "{text}");
    assert!(text.contains("INTERRUPTED"));
    let (_, markdown, html) = texts(&run);
    assert!(
        markdown.contains("**RECORDS DAMAGED OR LOST**") && markdown.contains("**ENDED EARLY**")
    );
    assert!(html.contains("Records damaged or lost") && html.contains("SLO not met"));
}

#[test]
fn a_report_reads_back_as_it_was_written() {
    for run in fixture::all() {
        let json = serde_json::to_string(&run.report).unwrap();
        let back: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        for sample in &run.samples {
            let json = serde_json::to_string(sample).unwrap();
            assert_eq!(&serde_json::from_str::<Progress>(&json).unwrap(), sample);
        }
    }
}

#[test]
fn a_long_run_makes_no_longer_lines() {
    let mut run = fixture::steady();
    let one = run.samples[50].clone();
    run.samples =
        (0..86_400).map(|i| Progress { t_s: f64::from(i) + 1.0, ..one.clone() }).collect();
    // A single second's stall is still seen.
    run.samples[43_210].acked_per_s = 0.0;
    let charts = series::over_time(&run.report, &run.samples);
    let acked = &charts[0].plot.lines[0];
    let points: usize = acked.pieces.iter().map(Vec::len).sum();
    assert!(points < 2_000, "{points}");
    assert!(acked.pieces.iter().flatten().any(|(_, rate)| *rate == 0.0));
}

/// Beyond a quota a stream may drop half of what is offered: nothing of that waits.
#[test]
fn records_that_were_shed_are_no_backlog() {
    let mut run = fixture::steady();
    let last = run.samples.len() - 1;
    for sample in &mut run.samples {
        (sample.acked, sample.unanswered) = (sample.offered / 2, Some(7));
    }
    let line = |run: &Run| {
        let charts = series::over_time(&run.report, &run.samples);
        let backlog = charts.into_iter().find(|chart| chart.title == "Backlog over time").unwrap();
        let lines = backlog.plot.lines.into_iter();
        lines.map(|line| (line.name, line.pieces.concat())).find(|(name, _)| name.contains("due"))
    };
    let (name, points) = line(&run).unwrap();
    assert_eq!(name, "due, not answered");
    assert!(points.len() == last + 1 && points.iter().all(|(_, waits)| *waits == 7.0));
    // Samples of before it was counted have no such line, rather than a wrong one.
    run.samples.iter_mut().for_each(|sample| sample.unanswered = None);
    assert!(line(&run).is_none());
}

#[test]
fn percentiles_with_too_few_records_are_left_out() {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    histogram.record_n(50_000, 100_000).unwrap();
    let d = Distribution::of(&histogram);
    assert_eq!(d.percentiles().iter().flatten().count(), 5);
    let d = Distribution { count: 99_999, ..d };
    assert_eq!(d.percentiles()[4], None);
    assert_eq!(Distribution::default().largest(), None);
}

/// Leaves the pages of all made-up runs where the variable says, to be looked at.
#[test]
fn pages_to_look_at() {
    let Some(dir) = std::env::var_os("HIGHWATER_TEST_PAGES") else {
        println!("skipped: HIGHWATER_TEST_PAGES names no directory");
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    for (run, name) in fixture::all().iter().zip(fixture::NAMES) {
        let (text, markdown, html) = texts(run);
        for (end, text) in [("txt", text), ("md", markdown), ("html", html)] {
            std::fs::write(dir.join(format!("{name}.{end}")), text).unwrap();
        }
    }
}
