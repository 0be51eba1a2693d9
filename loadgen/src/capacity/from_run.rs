//! A run as evidence: what it offered and delivered, and how a group caught up in it.

use super::evidence::{Ceiling, Drain, Evidence, Point, Range};
use super::read::setup;
use crate::report::KEEPS_UP;
use crate::report::figures::seconds;
use crate::stats::{BLOCK_S, Resampled};
use crate::{Mode, Phase, Progress, Report};

/// A shorter interval, in seconds, says nothing about what a second can be like.
const WHOLE_S: f64 = 0.75;

/// Adds what the run `name` says. Of a void one nothing counts.
pub fn run(evidence: &mut Evidence, name: &str, report: &Report, samples: &[Progress]) {
    // The source says that it is, and why.
    if report.void_reason.is_some() {
        return;
    }
    let setup = setup(
        &report.options,
        report.shards,
        report.groups,
        &report.ack,
        report.workload.mean_payload_bytes,
        report.workload.shard_skew,
    );
    match report.mode {
        // As fast as it goes: what is delivered when more is offered.
        Mode::Saturating => {
            let acked = |p: &Progress| p.acked_per_s;
            let interval = rate(samples, Phase::Measure, acked);
            evidence.ceilings.push(Ceiling {
                from: name.to_owned(),
                setup,
                rate: interval.unwrap_or_else(|| {
                    extremes(samples, Phase::Measure, acked, report.records_per_s)
                }),
                lasted_s: report.duration_s,
                generator_busy: report.generator_busy,
            });
        }
        // Callers that wait say nothing about arrivals that do not.
        Mode::Closed => {
            evidence.left_out.push(format!("{name} is a closed loop, which offers no rate"));
        }
        Mode::Open => {
            evidence.drains.extend(drain(name, report, samples, &setup));
            evidence.points.push(point(name, report, setup));
        }
    }
}

fn point(name: &str, report: &Report, setup: super::evidence::Setup) -> Point {
    let three = |d: &crate::Distribution| {
        let all = d.percentiles();
        [all[0], all[2], all[3]]
    };
    let read = report.consumers == 0
        || report.consumed_per_s
            >= KEEPS_UP * report.records_per_s * f64::from(report.groups)
        // A group that was away reads less in the window; the backlog report judges it.
        || report.backlog.is_some();
    Point {
        from: name.to_owned(),
        setup,
        offered: report.offered_rate,
        delivered: report.records_per_s,
        consumed: report.consumed_per_s,
        response_us: three(&report.latency_us.response),
        propagation_us: three(&report.latency_us.propagation),
        met: judged(report),
        kept_up: read && report.records_per_s >= KEEPS_UP * report.offered_rate,
        stands: true,
    }
}

/// Whether every bound was met; absent without bounds, or if one could not be judged.
fn judged(report: &Report) -> Option<bool> {
    if report.slo.iter().any(|slo| slo.met == Some(false)) {
        return Some(false);
    }
    (!report.slo.is_empty() && report.slo.iter().all(|slo| slo.met == Some(true))).then_some(true)
}

fn drain(
    name: &str,
    report: &Report,
    samples: &[Progress],
    setup: &super::evidence::Setup,
) -> Option<Drain> {
    let backlog = report.backlog.as_ref()?;
    let paused = f64::from(backlog.groups_paused.max(1));
    let live = f64::from(report.groups.saturating_sub(backlog.groups_paused));
    let mean = backlog.drain_rate / paused;
    if mean <= 0.0 {
        return None;
    }
    // The seconds tell what all groups read; those that were never away read what arrives.
    let read = |p: &Progress| (p.consumed_per_s - live * p.acked_per_s) / paused;
    let interval = rate(samples, Phase::Catchup, read);
    let busy: Vec<f64> =
        of_phase(samples, Phase::Catchup).filter_map(|p| p.generator_busy).collect();
    let p99 = |d: &crate::Distribution| d.percentiles()[2];
    let away = if backlog.groups_paused == 1 { "a group" } else { "groups" };
    Some(Drain {
        from: name.to_owned(),
        what: format!("{away} away for {}", seconds(backlog.outage_s)),
        setup: Some(setup.clone()),
        paused: backlog.groups_paused.max(1),
        // The interval of the seconds around the mean that was counted.
        rate: match interval {
            Some(range) => {
                Range { value: mean, low: range.low.min(mean), high: range.high.max(mean) }
            }
            None => extremes(samples, Phase::Catchup, read, mean),
        },
        measured_interval: interval.is_some(),
        arrival: backlog.arrival_rate,
        outage_s: backlog.outage_s,
        took_s: backlog.drain_s,
        live_us: p99(&backlog.before.response).zip(p99(&backlog.draining.response)),
        generator_busy: (!busy.is_empty()).then(|| busy.iter().sum::<f64>() / busy.len() as f64),
    })
}

fn of_phase(samples: &[Progress], phase: Phase) -> impl Iterator<Item = &Progress> {
    samples.iter().filter(move |sample| sample.phase == phase)
}

/// `mean` with the slowest and the fastest second of a phase. The last one of catching up does not count: it ended in it.
fn extremes(samples: &[Progress], phase: Phase, of: impl Fn(&Progress) -> f64, mean: f64) -> Range {
    let mut seconds: Vec<&Progress> = of_phase(samples, phase).collect();
    if phase == Phase::Catchup {
        seconds.pop();
    }
    let whole = || {
        let whole = seconds.iter().filter(|second| second.interval_s >= WHOLE_S);
        whole.map(|second| of(second)).filter(|rate| *rate > 0.0)
    };
    Range { value: mean, low: whole().fold(mean, f64::min), high: whole().fold(mean, f64::max) }
}

/// A rate over the seconds of a phase, with its 95 % interval from whole blocks; `None` with fewer than three.
fn rate(samples: &[Progress], phase: Phase, of: impl Fn(&Progress) -> f64) -> Option<Range> {
    let mut blocks: Vec<(f64, f64)> = Vec::new();
    for sample in of_phase(samples, phase) {
        let (count, seconds) = (of(sample) * sample.interval_s, sample.interval_s);
        match blocks.last_mut().filter(|(_, length)| *length < BLOCK_S - 0.5) {
            Some(block) => *block = (block.0 + count, block.1 + seconds),
            None => blocks.push((count, seconds)),
        }
    }
    let resampled = Resampled::rate(&blocks, 1)?;
    let (low, high) = resampled.interval()?;
    Some(Range { value: resampled.value, low, high })
}
