//! The pictures of a plan: latency by rate, rate by shards, and what waits in an outage.

use super::formula;
use super::plan::{Plan, Seen};
use super::questions::Scaling;
use super::usl::{REACH, Usl};
use crate::report::chart::{Axis, Band, BandKind, Line, Plot};
use crate::report::document::Chart;

/// Points of a curve.
const STEPS: usize = 120;

/// All that there is something to draw for.
pub fn charts(plan: &Plan) -> Vec<Chart> {
    [response(plan), plan.scaling.as_ref().and_then(scaling), outage(plan)]
        .into_iter()
        .flatten()
        .collect()
}

fn line(name: &str, style: usize, pieces: Vec<Vec<(f64, f64)>>) -> Line {
    Line { name: name.to_owned(), style, pieces }
}

/// A short stroke for each point, `half` to both sides.
fn strokes(points: impl Iterator<Item = (f64, f64)>, half: f64) -> Vec<Vec<(f64, f64)>> {
    points.map(|(x, y)| vec![(x - half, y), (x + half, y)]).collect()
}

fn response(plan: &Plan) -> Option<Chart> {
    let known = |of: fn(&Seen) -> Option<f64>| {
        plan.seen.iter().filter_map(move |seen| Some((seen.offered, of(seen)?)))
    };
    let (p99, p50): (Vec<_>, Vec<_>) =
        (known(|s| s.p99_us).collect(), known(|s| s.p50_us).collect());
    if p99.len() < 2 {
        return None;
    }
    let bounds: Vec<&(String, f64)> = plan
        .sustains
        .iter()
        .flat_map(|s| &s.bounds)
        .filter(|(of, _)| of.starts_with("response"))
        .collect();
    let all = p99.iter().chain(&p50).map(|(_, us)| *us).chain(bounds.iter().map(|b| b.1));
    let (least, most) =
        all.fold((f64::INFINITY, 0.0), |(a, b), us| (f64::min(a, us), f64::max(b, us)));
    let top = plan
        .seen
        .iter()
        .map(|seen| seen.offered)
        .fold(plan.demand.peak_rate().min(p99[p99.len() - 1].0 * 1.5), f64::max);
    let half = top / 150.0;
    let mut lines = vec![
        line("response p99", 0, strokes(p99.into_iter(), half)),
        line("response p50", 2, strokes(p50.into_iter(), half)),
    ];
    for (i, (of, bound)) in bounds.iter().enumerate() {
        lines.push(line(
            &format!("bound on {of}"),
            [1, 3, 4][i % 3],
            vec![vec![(0.0, *bound), (top, *bound)]],
        ));
    }
    let demand = plan.demand.rate.min(top);
    lines.push(line("average asked for", 5, vec![vec![(demand, least), (demand, most)]]));
    let band = plan.sustains.as_ref().and_then(|sustains| {
        let range = sustains.estimate?;
        Some(Band { kind: BandKind::Estimate, from: range.low, to: range.high.min(top) })
    });
    Some(Chart {
        title: "Latency by rate".to_owned(),
        caption: "Each stroke is a trial or a run of the setup the plan is made with; the shaded stretch is the interval of the \
                  sustained rate."
            .to_owned(),
        plot: Plot {
            x: Axis::count("records/s offered", top),
            y: Axis::latency(least, most),
            bands: band.into_iter().collect(),
            lines,
        },
    })
}

fn scaling(scaling: &Scaling) -> Option<Chart> {
    let largest = scaling.points.iter().map(|(n, _, _)| *n).fold(0.0, f64::max);
    let end = scaling.fit.as_ref().map_or(largest, |fit| fit.largest() * REACH);
    let curve = |fit: &Usl, from: f64, to: f64| -> Vec<(f64, f64)> {
        let at = |i: usize| from + (to - from) * i as f64 / STEPS as f64;
        (0..=STEPS).filter_map(|i| Some((at(i), fit.at(at(i)).ok()?.0))).collect()
    };
    let mut lines = Vec::new();
    if let Some(fit) = &scaling.fit {
        lines.push(line("USL", 0, vec![curve(fit, 1.0, fit.largest())]));
        lines.push(line("USL, beyond what was measured", 5, vec![curve(fit, fit.largest(), end)]));
    }
    let marks = strokes(scaling.points.iter().map(|(n, x, _)| (*n, *x)), end / 100.0);
    lines.push(line("measured", 1, marks));
    if let Some((most, _)) = &scaling.device {
        let highest = scaling.points.iter().map(|(_, x, _)| *x).fold(0.0, f64::max);
        if *most < highest * 3.0 {
            lines.push(line("what the device takes", 3, vec![vec![(0.0, *most), (end, *most)]]));
        }
    }
    let most =
        lines.iter().flat_map(|l| l.pieces.iter().flatten()).map(|(_, y)| *y).fold(0.0, f64::max);
    Some(Chart {
        title: "Rate by shards".to_owned(),
        caption: "What was measured and the curve through it, up to twice the largest number of shards measured.".to_owned(),
        plot: Plot { x: Axis::count("shards", end), y: Axis::count("records/s", most), bands: vec![], lines },
    })
}

/// What waits for a group that is away and comes back.
fn outage(plan: &Plan) -> Option<Chart> {
    let outage = plan.demand.outage_s?;
    let answer = plan.answers.iter().find(|a| a.question == super::Question::CatchUp)?;
    let figure = answer.figures.iter().find(|f| f.formula == formula::CATCH_UP.id)?;
    let (takes, waits) = (figure.value?, plan.demand.rate * outage);
    let end = (outage + takes) * 1.1;
    let back = (outage, waits);
    let mut lines =
        vec![line("expected", 0, vec![vec![(0.0, 0.0), back, (outage + takes, 0.0), (end, 0.0)]])];
    if let Some(high) = figure.high {
        lines.push(line("slowest in the interval", 5, vec![vec![back, (outage + high, 0.0)]]));
    }
    let end =
        lines.iter().flat_map(|l| l.pieces.iter().flatten()).map(|(x, _)| *x).fold(end, f64::max);
    Some(Chart {
        title: "What waits for a group that was away".to_owned(),
        caption: "Unread records of that group: they gather while it is away, and are read while new ones arrive.".to_owned(),
        plot: Plot {
            x: Axis::seconds("time since it went away", 0.0, end),
            y: Axis::count("records", waits),
            bands: vec![
                Band { kind: BandKind::Outage, from: 0.0, to: outage },
                Band { kind: BandKind::CatchUp, from: outage, to: outage + takes },
            ],
            lines,
        },
    })
}
