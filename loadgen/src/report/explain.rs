//! What a reader must know to read the figures of a report right, in sentences with those figures in them.
//!
//! Pure: the same report gives the same sentences. Each rule is a function that says nothing where nothing
//! needs saying.

use hdrhistogram::Histogram;

use super::figures::{counted, percent, rate, seconds, time, times, whole};
use super::{Distribution, Mode, Report};
use crate::Rate;
use crate::busy::AT_END;

mod pressure;
#[cfg(test)]
mod tests;

/// A difference between two latencies matters from this factor on ...
const FACTOR: f64 = 2.0;
/// ... and from this many microseconds on.
const MATTERS_US: f64 = 100.0;
/// The generator's own lateness is told beside a difference if it is more than this share of it.
const OWN_SHARE: f64 = 0.1;
/// A target that acknowledges less than this share of what is due does not keep up. Some of what is due in the
/// last moments is always acknowledged after the window.
pub(crate) const KEEPS_UP: f64 = 0.98;
/// Steps in which the correction of a closed run fills in what one answer held up: bounds its time, and is
/// still finer than any percentile of it needs.
const STEPS: u64 = 256;

/// The sentences. `response` is the histogram behind `report.latency_us.response`, in nanoseconds: a closed
/// run is corrected with it.
pub fn notes(report: &Report, response: Option<&Histogram<u64>>) -> Vec<String> {
    [
        durability(report),
        kept_stream(report),
        warm_up(report),
        at_its_end(report),
        waiting(report),
        closed(report, response),
        unkept(report),
        saturating(report),
        behind(report),
        put_off(report),
        readers_behind(report),
        schedule(report),
        burst(report),
        backlog(report),
        skew(report),
        unknown(report),
        clocks(report),
        few(report),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn durability(r: &Report) -> Option<String> {
    (r.ack != "durable").then(|| {
        format!(
            "NOT DURABLE: this stream acknowledges a record when it is {}, not when the device has it. A crash \
             or power cut can take back what was acknowledged; do not compare these latencies with those of a \
             durable stream.",
            r.ack
        )
    })
}

fn kept_stream(r: &Report) -> Option<String> {
    let (asked, ack) = (r.options.shards, r.options.ack.to_string());
    let mut kept = Vec::new();
    if r.shards != asked {
        kept.push(format!("{} instead of {asked}", counted(u64::from(r.shards), "shard")));
    }
    if r.ack != ack {
        kept.push(format!("acknowledgement when {} instead of {ack}", r.ack));
    }
    (!kept.is_empty()).then(|| {
        format!(
            "The stream {} existed already and kept what it was created with: {}.",
            r.stream,
            kept.join(", ")
        )
    })
}

fn warm_up(r: &Report) -> Option<String> {
    (r.warmup.steady == Some(false)).then(|| {
        format!(
            "Rate and latency had not become steady when the warm-up ended after {}, its limit: the figures \
             include a target that was still changing.",
            seconds(r.warmup.duration_s)
        )
    })
}

/// The percentile of both that is the highest both have enough records for, with its name.
fn highest_common(a: &Distribution, b: &Distribution) -> Option<(&'static str, f64, f64)> {
    let (a, b) = (a.percentiles(), b.percentiles());
    (0..3).rev().find_map(|i| Some((Distribution::PERCENTILES[i], a[i]?, b[i]?)))
}

fn matters(larger_us: f64, smaller_us: f64) -> bool {
    larger_us > smaller_us * FACTOR && larger_us - smaller_us > MATTERS_US
}

/// Whether the generator had no time left.
fn no_time_left(r: &Report) -> bool {
    r.generator_busy.is_some_and(|busy| busy >= AT_END)
}

fn at_its_end(r: &Report) -> Option<String> {
    let busy = r.generator_busy.filter(|_| no_time_left(r))?;
    Some(format!(
        "The generator did all it could: its busiest worker had a CPU, or waited for one, for {} of the window. What \
         was delivered may be its bound and not the target's: give it more CPUs (--cores), or let fewer groups read; \
         load check says what it can do.",
        percent(busy)
    ))
}

/// Coordinated omission, seen from an open run.
fn waiting(r: &Report) -> Option<String> {
    if r.mode != Mode::Open {
        return None;
    }
    let l = &r.latency_us;
    let (name, response, service) = highest_common(&l.response, &l.service)?;
    // A batch is kept open for the linger on purpose: that wait is no stall.
    let linger_us = r.options.linger.as_secs_f64() * 1e6;
    if !matters(response - linger_us, service) {
        return None;
    }
    // What a small part of the difference explains is no reason to doubt the rest.
    let late = &r.generator_late;
    if late.p99_us > late.bound_us && late.p99_us > (response - service) * OWN_SHARE {
        return Some(format!(
            "{name} of response is {}, of service {}. Part of the difference is this generator's own: it was late \
             by {} at p99.",
            time(response),
            time(service),
            time(late.p99_us)
        ));
    }
    let who = match no_time_left(r) {
        true => "this generator had no time for them or the target did not take them",
        false => "the target did not take them",
    };
    Some(format!(
        "{name} of response is {}, of service {}: records that fell due while {who} waited \
         to be sent (its longest answer took {}), and response counts that wait. A tool that times from the actual \
         send would have shown {}.",
        time(response),
        time(service),
        time(l.service.max),
        time(service),
    ))
}

/// Coordinated omission, seen from a closed run: what arrivals that do not wait would have met.
fn closed(r: &Report, response: Option<&Histogram<u64>>) -> Option<String> {
    if r.mode != Mode::Closed {
        return None;
    }
    let callers = r.options.clients.unwrap_or(1).max(1);
    let who = counted(callers as u64, "caller");
    let opening = format!(
        "Closed loop: {who} waited for each answer before sending on, and latencies count from the actual send. A \
         stall of the target then delays one record per caller, not all that would have come in meanwhile."
    );
    let d = &r.latency_us.response;
    let corrected = response.filter(|_| d.count > 0).map(|response| {
        // The pace of one caller: what it was to keep, or what it keeps as a rule.
        let pace_us = match r.options.rate {
            Rate::PerSecond(rate) if rate > 0.0 => callers as f64 / rate * 1e6,
            _ => d.p50,
        }
        .max(1e-3);
        let corrected = correct(response, pace_us * 1e3);
        (pace_us, corrected)
    });
    let Some((pace_us, corrected)) = corrected else { return Some(opening) };
    let corrected = Distribution::of(&corrected);
    let missed = (d.max / pace_us) as u64;
    let (Some(raw), Some(fair)) = (d.percentiles()[2], corrected.percentiles()[2]) else {
        return Some(opening);
    };
    let longest = format!("{opening} The longest answer took {}", time(d.max));
    if !matters(fair, raw) {
        return Some(format!(
            "{longest}. Corrected for what was not sent meanwhile, p99 is {}, not {}: hardly a difference here.",
            time(fair),
            time(raw)
        ));
    }
    Some(format!(
        "{longest}: at the usual pace of one record every {} per caller, {} would have fallen due in it, and none \
         of them is in these figures. Corrected for them, p99 of response is {}, not {}. It is the corrected figure \
         that an open-loop run shows.",
        time(pace_us),
        counted(missed, "record"),
        time(fair),
        time(raw)
    ))
}

/// A closed run that was to keep a rate, and did not: nothing of it was due, so nothing else tells.
fn unkept(r: &Report) -> Option<String> {
    let (Mode::Closed, Rate::PerSecond(asked)) = (r.mode, r.options.rate) else { return None };
    let callers = counted(r.options.clients.unwrap_or(1) as u64, "caller");
    (r.duration_s > 0.0 && r.achieved_rate < asked * KEEPS_UP).then(|| {
        format!(
            "{callers} could not keep the rate of {} records/s that was asked for: waiting for answers they sent {}.",
            rate(asked),
            rate(r.achieved_rate)
        )
    })
}

/// What arrivals every `pace_ns` would have met: for each answer also the waits of those that would have come
/// while it was awaited, as HdrHistogram corrects for coordinated omission.
fn correct(response: &Histogram<u64>, pace_ns: f64) -> Histogram<u64> {
    let mut corrected = Histogram::new_from(response);
    for value in response.iter_recorded() {
        let (ns, count) = (value.value_iterated_to(), value.count_at_value());
        corrected.saturating_record_n(ns, count);
        let missed = (ns as f64 / pace_ns) as u64;
        let missed = missed.saturating_sub(1);
        let steps = missed.min(STEPS);
        let until = |step: u64| (u128::from(missed) * u128::from(step) / u128::from(steps)) as u64;
        for step in 0..steps {
            // The middle of the step: waits are spread evenly between none and the whole answer.
            let wait = ns as f64 * (step as f64 + 0.5) / steps as f64;
            let here = (until(step + 1) - until(step)).saturating_mul(count);
            corrected.saturating_record_n(wait as u64, here);
        }
    }
    corrected
}

fn saturating(r: &Report) -> Option<String> {
    (r.mode == Mode::Saturating).then(|| {
        "Records were made as fast as the target took them: latencies show the queue this builds, which grows with \
         the records and batches in flight. Read the rates; for latencies, run at a rate below."
            .to_owned()
    })
}

/// A queue that grows all along, or what is thrown away instead of it.
fn behind(r: &Report) -> Option<String> {
    let due = r.offered_rate;
    if r.mode != Mode::Open || due <= 0.0 || r.records_per_s >= due * KEEPS_UP {
        return None;
    }
    let found = format!(
        "of {} records/s due it acknowledged {} within the window",
        rate(due),
        rate(r.records_per_s)
    );
    if let Some(shed) = pressure::shed(r, (due - r.records_per_s) * r.duration_s) {
        return Some(format!(
            "The target took less than was due: {found}. The bound was {shed}, over the whole run. Nothing queued up: \
             latencies are those of the records that were stored."
        ));
    }
    Some(match pressure::put_off(r) {
        Some(bound) => format!(
            "The target took less than was due: {found}. The bound was {bound}. What had to wait queued up, so latencies \
             grow with the length of the run and say nothing of the target's speed."
        ),
        None => format!(
            "The target did not keep up: {found}. The rest queued up, so latencies grow with the length of the run and \
             are no property of the target."
        ),
    })
}

/// Refusals of which the rates alone do not tell.
fn put_off(r: &Report) -> Option<String> {
    let bound = pressure::put_off(r).filter(|_| behind(r).is_none())?;
    Some(format!(
        "Records had to wait for {bound}. What is refused so is sent again when the target says; response counts that wait."
    ))
}

fn readers_behind(r: &Report) -> Option<String> {
    let due = r.records_per_s * f64::from(r.groups);
    (r.consumers > 0 && r.checked && r.backlog.is_none() && r.consumed_per_s < due * 0.95).then(|| {
        format!(
            "The consumers did not keep up: they read {} records/s of {}. Propagation and visibility grow with the \
             length of the run.",
            rate(r.consumed_per_s),
            rate(due)
        )
    })
}

/// A generator that did not keep to the process it claims.
fn schedule(r: &Report) -> Option<String> {
    let a = &r.arrivals;
    let (should, was) = (a.intended_c2?, a.scheduled_c2?);
    let allowed = match a.process.as_str() {
        "constant" => 0.01,
        // Five standard errors: the variance of c2 over n exponential gaps is about 4/n.
        "poisson" => 0.01 + 5.0 * 2.0 / (a.gaps.max(1) as f64).sqrt(),
        _ => return None,
    };
    ((was - should).abs() > allowed).then(|| {
        format!(
            "The gaps between due times have c2 {was:.3} over {}; {} arrivals should have {should:.3}. Take no \
             latencies from this run.",
            counted(a.gaps, "gap"),
            a.process
        )
    })
}

fn burst(r: &Report) -> Option<String> {
    let burst = r.burst.as_ref()?;
    if burst.recovery_s.is_none() {
        return Some(
            "After at least one burst the queue had not gone back to what it was before: the next burst came \
             first, or the run ended. Bursts this high or this close are more than the target takes."
                .to_owned(),
        );
    }
    (burst.bursts < 3).then(|| {
        format!(
            "Only {} began in the window: too few to say what is usual.",
            counted(burst.bursts, "burst")
        )
    })
}

fn backlog(r: &Report) -> Option<String> {
    let b = r.backlog.as_ref()?;
    if !b.drained {
        return Some(format!(
            "The paused consumers did not catch up: they read {} records/s while {} came in.",
            rate(b.drain_rate),
            rate(b.arrival_rate)
        ));
    }
    let compare = |what: &str, before: &Distribution, draining: &Distribution| {
        let (name, before, draining) = highest_common(before, draining)?;
        let factor = draining / before.max(1e-3);
        let change = match factor {
            f if f > 1.1 => format!("rose to {}", times(f)),
            f if f < 0.9 => format!("fell to {}", percent(f)),
            _ => "stayed about the same".to_owned(),
        };
        Some(format!(
            "{name} of live {what} {change} ({} before, {})",
            time(before),
            time(draining)
        ))
    };
    let changes: Vec<String> = [
        compare("response", &b.before.response, &b.draining.response),
        compare("propagation", &b.before.propagation, &b.draining.propagation),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!changes.is_empty()).then(|| format!("While the backlog was read, {}.", changes.join("; ")))
}

fn skew(r: &Report) -> Option<String> {
    let shards = u64::from(r.shards) * u64::from(r.streams.max(1));
    let skew = r.workload.shard_skew;
    (shards > 1 && skew >= 1.25).then(|| {
        format!(
            "The busiest of {} took {} its even share: with these keys it is full long before the others.",
            counted(shards, "shard"),
            times(skew)
        )
    })
}

fn unknown(r: &Report) -> Option<String> {
    (r.unknown > 0).then(|| {
        // Only who read to the end knows what is not there.
        let to_the_end = r.checked
            && r.unread == 0
            && r.read_errors == 0
            && r.ended_early.is_none()
            && !r.interrupted;
        let rest = if to_the_end {
            format!("{} of them were read back and so are stored; the others are not", whole(r.unknown_but_read))
        } else {
            format!(
                "{} of them were read back; whether the others are stored cannot be said",
                whole(r.unknown_but_read)
            )
        };
        format!(
            "The target never told what became of {} (it went away, or the wait for an answer ended): {rest}. They \
             count neither as lost nor as acknowledged.",
            counted(r.unknown, "record")
        )
    })
}

fn clocks(r: &Report) -> Option<String> {
    (r.delivery_before_arrival > 0).then(|| {
        format!(
            "{} of {} reads came before the target's own arrival stamp: its clock and this one differ. Delivery counts \
             them as 0 and is wrong by that difference; the other latencies use one clock.",
            whole(r.delivery_before_arrival),
            whole(r.latency_us.delivery.count.max(r.delivery_before_arrival))
        )
    })
}

/// Percentiles that are left out.
fn few(r: &Report) -> Option<String> {
    let (least, name) = r
        .latency_us
        .named()
        .into_iter()
        .filter(|(_, d)| d.count > 0)
        .map(|(name, d)| (d, name.replace('_', " ")))
        .min_by_key(|(d, _)| d.count)?;
    let missing: Vec<&str> = Distribution::PERCENTILES
        .into_iter()
        .zip(least.percentiles())
        .filter_map(|(name, value)| value.is_none().then_some(name))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} records are too few for {} (of {name}): a percentile is shown only with at least 10 records beyond \
             it.",
            whole(least.count),
            missing.join(" and "),
        )
    })
}
