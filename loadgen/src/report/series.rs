//! The charts of a report: from the samples of a run and its histograms.

use hdrhistogram::Histogram;

use super::chart::{Axis, Band, BandKind, Line, Plot};
use super::document::{Chart, Table};
use super::figures::{rate, time, whole};
use super::{BEYOND_MIN, Distribution, Report};
use crate::{Phase, Progress};

/// Most stretches of time a line is drawn in: beyond that a picture shows no more, and only grows.
const STRETCHES: usize = 600;
/// Points of a spectrum per nine.
const PER_NINE: f64 = 48.0;
/// Rows of the table that says the same in figures.
const ROWS: usize = 12;
/// More bursts than this would only be stripes.
const BURSTS: u64 = 60;

/// Latency by percentile, one line per distribution. From the histograms (nanoseconds, by their JSON names)
/// where there are any, otherwise from the percentiles of the report.
pub fn spectrum<'a>(
    report: &Report,
    histogram: impl Fn(&str) -> Option<&'a Histogram<u64>>,
) -> Option<Chart> {
    let mut lines = Vec::new();
    for (style, (name, d)) in report.latency_us.named().into_iter().enumerate() {
        let points = match histogram(name) {
            Some(histogram) if !histogram.is_empty() => quantiles(histogram),
            _ => percentiles(d),
        };
        if points.len() > 1 {
            lines.push(Line { name: name.replace('_', " "), style, pieces: vec![points] });
        }
    }
    let points = || lines.iter().flat_map(|line| line.pieces.iter().flatten());
    let last = points().map(|(q, _)| *q).fold(0.0, f64::max);
    let (least, most) = range(points().map(|(_, us)| *us))?;
    let plot =
        Plot { x: Axis::quantiles(last), y: Axis::latency(least, most), bands: vec![], lines };
    Some(Chart {
        title: "Latency by percentile".to_owned(),
        caption: "How many of the records took at most how long; each further nine has the same width. A line ends \
                  where fewer than 10 records lie beyond. Values under 1 µs lie on the bottom edge."
            .to_owned(),
        plot,
    })
}

/// Up to the quantile beyond which too few values lie.
fn quantiles(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let nines = (histogram.len() as f64 / BEYOND_MIN).log10();
    let steps = (nines * PER_NINE).floor().max(0.0) as u32;
    (0..=steps)
        .map(|step| 1.0 - 10f64.powf(-f64::from(step) / PER_NINE))
        .map(|q| (q, histogram.value_at_quantile(q) as f64 / 1e3))
        .collect()
}

fn percentiles(d: &Distribution) -> Vec<(f64, f64)> {
    let places = [0.5, 0.9, 0.99, 0.999, 0.9999];
    places.into_iter().zip(d.percentiles()).filter_map(|(q, us)| Some((q, us?))).collect()
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((least, most)) => Some((least.min(value), most.max(value))),
    })
}

/// Rates, latencies and backlog over time; nothing if there were no samples.
pub fn over_time(report: &Report, samples: &[Progress]) -> Vec<Chart> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Vec::new() };
    let (from, to) = (first.t_s - first.interval_s, last.t_s);
    let bands = bands(report, samples, to);
    let thinned = if samples.len() > 2 * STRETCHES {
        " Many samples share a point here: the smallest and the largest of each are drawn."
    } else {
        ""
    };
    let chart = |title: &str, caption: &str, y: Axis, lines: Vec<Line>| Chart {
        title: title.to_owned(),
        caption: format!("{caption}{thinned}"),
        plot: Plot { x: Axis::time(from, to), y, bands: bands.clone(), lines },
    };
    let mut charts = Vec::new();

    let mut lines = vec![line("acknowledged", 0, samples, |p| Some(p.acked_per_s))];
    if report.consumers > 0 {
        lines.push(line("read", 1, samples, |p| Some(p.consumed_per_s)));
    }
    lines.push(line("offered", 2, samples, |p| Some(p.offered_per_s)));
    if let Some((_, most)) = values(&lines) {
        let groups = match report.groups {
            0 | 1 => "",
            _ => " What is read counts once for each group.",
        };
        charts.push(chart(
            "Records per second",
            &format!("Due by the schedule, acknowledged and read, each second.{groups}"),
            Axis::count("records/s", most),
            lines,
        ));
    }

    let shown = |i: usize| move |d: &Distribution| d.percentiles()[i];
    let lines: Vec<Line> = [
        line("response p99", 0, samples, |p| shown(2)(&p.response)),
        line("propagation p99", 1, samples, |p| shown(2)(&p.propagation)),
        line("response p50", 2, samples, |p| shown(0)(&p.response)),
        line("response max", 5, samples, |p| p.response.largest()),
    ]
    .into_iter()
    .filter(|line| !line.pieces.is_empty())
    .collect();
    if let Some((least, most)) = values(&lines) {
        charts.push(chart(
            "Latency over time",
            "Of the records acknowledged or read in each second, from their intended time. A percentile is left out \
             where fewer than 10 records lie beyond it.",
            Axis::latency(least, most),
            lines,
        ));
    }

    let unanswered = |p: &Progress| p.unanswered.map(|records| records as f64);
    let mut lines = vec![line("due, not answered", 0, samples, unanswered)];
    lines.retain(|line| !line.pieces.is_empty());
    if report.consumers > 0 {
        lines.push(line("acknowledged, not read", 1, samples, |p| Some(p.backlog as f64)));
    }
    if let Some((_, most)) = values(&lines) {
        charts.push(chart(
            "Backlog over time",
            "Records that wait, at the end of each second.",
            Axis::count("records", most),
            lines,
        ));
    }
    charts
}

fn values(lines: &[Line]) -> Option<(f64, f64)> {
    range(lines.iter().flat_map(|line| line.pieces.iter().flatten()).map(|(_, value)| *value))
}

/// A line of one figure of each sample, broken where there is none.
fn line(
    name: &str,
    style: usize,
    samples: &[Progress],
    figure: impl Fn(&Progress) -> Option<f64>,
) -> Line {
    let stretch = samples.len().div_ceil(STRETCHES);
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    // The smallest and the largest of a stretch, so that no stall and no peak is lost.
    for stretch in samples.chunks(if stretch > 2 { stretch } else { 1 }) {
        let known = stretch.iter().filter_map(|p| Some((p.t_s, figure(p)?)));
        let least = known.clone().min_by(|a, b| a.1.total_cmp(&b.1));
        let most = known.max_by(|a, b| a.1.total_cmp(&b.1));
        match (least, most) {
            (Some(a), Some(b)) if a.0 < b.0 => piece.extend([a, b]),
            (Some(a), Some(b)) if a.0 > b.0 => piece.extend([b, a]),
            (Some(a), _) => piece.push(a),
            (None, _) if !piece.is_empty() => pieces.push(std::mem::take(&mut piece)),
            (None, _) => {}
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    Line { name: name.to_owned(), style, pieces }
}

/// What happened when.
fn bands(report: &Report, samples: &[Progress], to: f64) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    for sample in samples {
        let kind = match sample.phase {
            Phase::Warmup => BandKind::WarmUp,
            Phase::Outage => BandKind::Outage,
            Phase::Catchup => BandKind::CatchUp,
            Phase::Measure | Phase::Drain => continue,
        };
        let (from, to) = (sample.t_s - sample.interval_s, sample.t_s);
        match bands.last_mut() {
            Some(band) if band.kind == kind && from - band.to < sample.interval_s / 2.0 => {
                band.to = to;
            }
            _ => bands.push(Band { kind, from, to }),
        }
    }
    if let Some(burst) = report.burst.filter(|b| b.every_s > 0.0 && b.bursts <= BURSTS) {
        bands.extend((0..burst.bursts).map(|k| k as f64 * burst.every_s).map(|from| Band {
            kind: BandKind::Burst,
            from,
            to: (from + burst.on_s).min(to),
        }));
    }
    bands
}

/// The same in figures: a dozen rows, for readers without pictures.
pub fn table(samples: &[Progress]) -> Option<Table> {
    if samples.is_empty() {
        return None;
    }
    let mut table = Table::new(
        Some("Over time"),
        ["until", "phase", "offered/s", "acked/s", "read/s", "response p99", "max", "backlog"],
    );
    table.folded = true;
    for rows in samples.chunks(samples.len().div_ceil(ROWS)) {
        let Some(last) = rows.last() else { continue };
        let seconds: f64 = rows.iter().map(|p| p.interval_s).sum();
        let mean = |of: fn(&Progress) -> f64| {
            let total: f64 = rows.iter().map(|p| of(p) * p.interval_s).sum();
            rate(total / seconds.max(1e-9))
        };
        let worst = |of: fn(&Progress) -> Option<f64>| {
            rows.iter().filter_map(of).max_by(f64::total_cmp).map_or("-".to_owned(), time)
        };
        let (first, end) = (rows.first().map_or(last.phase, |p| p.phase), last.phase);
        table.rows.push(vec![
            format!("{:.0} s", last.t_s),
            if first == end {
                word(end).to_owned()
            } else {
                format!("{} to {}", word(first), word(end))
            },
            mean(|p| p.offered_per_s),
            mean(|p| p.acked_per_s),
            mean(|p| p.consumed_per_s),
            worst(|p| p.response.percentiles()[2]),
            worst(|p| p.response.largest()),
            whole(rows.iter().map(|p| p.backlog).max().unwrap_or_default()),
        ]);
    }
    Some(table)
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Warmup => "warm-up",
        Phase::Measure => "measure",
        Phase::Outage => "group away",
        Phase::Catchup => "catch-up",
        Phase::Drain => "drain",
    }
}
