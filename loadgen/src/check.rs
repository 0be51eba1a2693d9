//! Whether this machine can offer a rate at all: the generator alone, against a target that costs nothing.
//!
//! A generator that can only just keep its schedule measures itself. So it must reach twice the rate that is
//! to be tried, twice over: as fast as it can, and on time at that rate.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::figures::{counted, rate, time};
use crate::target::Null;
use crate::{
    Environment, Lint, LoadError, LoadOptions, Observer, Profile, Rate, Report, Scenario, Stop,
    WarmUpRule, run_on,
};

/// Version of the JSON layout: fields may be added under the same name, none change meaning.
pub const CHECK_SCHEMA: &str = "highwater-check/1";

/// How many times the rate to be tried the generator must reach.
pub const HEADROOM: f64 = 2.0;

/// Shortest and longest measurement; in between it is as long as the run would be.
const LENGTH: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// Before each of them.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a generator alone came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckReport {
    /// [`CHECK_SCHEMA`].
    pub schema: String,
    /// Whether the rate may be tried.
    pub ok: bool,
    /// Why not.
    pub why: Option<String>,
    /// Most records per second, sent as fast as possible.
    pub ceiling_records_per_s: f64,
    /// Highest rate that was to be tried, bursts included.
    pub asked_rate: f64,
    /// [`HEADROOM`] times that.
    pub needed_rate: f64,
    /// Whether the schedule was kept at that rate.
    pub held: bool,
    /// How late the generator was at that rate, 99th percentile in microseconds; absent if it was not tried
    /// because the ceiling is lower.
    pub late_p99_us: Option<f64>,
    /// Bound on it, in microseconds.
    pub late_bound_us: f64,
    /// Worker threads.
    pub workers: usize,
    /// What about the machine makes figures worse, or not comparable.
    pub lints: Vec<Lint>,
    /// The machine.
    pub environment: Environment,
    /// What the records were.
    pub options: LoadOptions,
}

/// Calibrates the generator for a run with these options, without touching their target. Takes two to a
/// dozen seconds; tells `observer` of both runs.
///
/// For `--rate max` and closed loops there is nothing to hold: only the ceiling is measured.
pub fn check(
    options: &LoadOptions,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<CheckReport, LoadError> {
    options.validate()?;
    let asked = asked(options)?;
    let needed = asked * HEADROOM;
    let saturated = run_on(Null::default(), alone(options, Rate::Max), observer, stop)?;
    let ceiling = saturated.records_per_s;
    let reached = ceiling >= needed;
    let on_time = match reached && asked > 0.0 {
        true => {
            let options = alone(options, Rate::PerSecond(needed));
            Some(run_on(Null::default(), options, observer, stop)?)
        }
        false => None,
    };
    let why = why(&saturated, on_time.as_ref(), needed);
    let last = on_time.as_ref().unwrap_or(&saturated);
    Ok(CheckReport {
        schema: CHECK_SCHEMA.to_owned(),
        ok: why.is_none(),
        ceiling_records_per_s: ceiling,
        asked_rate: asked,
        needed_rate: needed,
        held: why.is_none(),
        late_p99_us: on_time.as_ref().map(|report| report.generator_late.p99_us),
        late_bound_us: options.late_bound.as_secs_f64() * 1e6,
        workers: last.workers,
        lints: last.lints.clone(),
        environment: last.environment.clone(),
        options: options.clone(),
        why,
    })
}

/// The highest rate of a run; 0 if it has none.
fn asked(options: &LoadOptions) -> Result<f64, LoadError> {
    let Rate::PerSecond(rate) = options.rate else { return Ok(0.0) };
    Ok(match &options.profile {
        _ if options.clients.is_some() => 0.0,
        Profile::Flat => rate,
        Profile::Burst(burst) => rate * burst.peak.max(1.0),
        // Of a trace the mean: its peaks may be single seconds.
        trace @ Profile::Trace(_) => trace.prepare()?.mean_rate(rate),
    })
}

/// The same records at this rate, to nobody.
fn alone(options: &LoadOptions, rate: Rate) -> LoadOptions {
    let usual = LoadOptions::default();
    LoadOptions {
        scenario: Scenario::Run,
        target: "null".to_owned(),
        rate,
        arrival: if rate == Rate::Max { usual.arrival } else { options.arrival },
        profile: Profile::Flat,
        duration: options.duration.clamp(LENGTH[0], LENGTH[1]),
        warmup: WarmUpRule::Fixed(WARM_UP),
        groups: usual.groups,
        consumers: Some(0),
        clients: None,
        engine_cores: Vec::new(),
        // What compressing costs is not in it.
        compression: usual.compression,
        producer: None,
        tolerate_restart: false,
        ..options.clone()
    }
}

fn why(saturated: &Report, on_time: Option<&Report>, needed: f64) -> Option<String> {
    if saturated.interrupted || on_time.is_some_and(|report| report.interrupted) {
        return Some("stopped before it was done".to_owned());
    }
    if saturated.records_per_s < needed {
        return Some(format!(
            "the generator alone makes {} records/s here; twice the rate to be tried is {}",
            rate(saturated.records_per_s),
            rate(needed)
        ));
    }
    let reason = on_time?.void_reason.as_ref()?;
    let needed = rate(needed);
    Some(format!("at {needed} records/s, twice the rate to be tried, {reason}"))
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "ceiling     {} records/s with {}",
            rate(self.ceiling_records_per_s),
            counted(self.workers as u64, "worker")
        )?;
        if self.asked_rate > 0.0 {
            let (asked, needed) = (rate(self.asked_rate), rate(self.needed_rate));
            writeln!(f, "asked       {asked} records/s, and so needed {needed}")?;
        }
        if let Some(late) = self.late_p99_us {
            let (late, bound) = (time(late), time(self.late_bound_us));
            writeln!(f, "late        {late} at p99 at that rate, bound {bound}")?;
        }
        for lint in &self.lints {
            writeln!(f, "machine     {}: {}", lint.message, lint.remedy)?;
        }
        match &self.why {
            None => writeln!(f, "verdict     ok"),
            Some(why) => writeln!(f, "verdict     NOT OK: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Burst;

    fn options() -> LoadOptions {
        LoadOptions {
            rate: Rate::PerSecond(100.0),
            duration: Duration::from_millis(200),
            // However busy the machine of the tests is.
            late_bound: Duration::from_secs(10),
            ..LoadOptions::default()
        }
    }

    #[test]
    fn a_low_rate_can_be_tried_and_an_absurd_one_not() {
        let report = check(&options(), &mut (), &Stop::new()).unwrap();
        assert!(report.ceiling_records_per_s > report.needed_rate, "{report}");
        assert_eq!((report.asked_rate, report.needed_rate), (100.0, 200.0));
        assert!(report.late_p99_us.is_some() && report.to_string().contains("ceiling"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], CHECK_SCHEMA);

        let absurd = LoadOptions { rate: Rate::PerSecond(1e9), ..options() };
        let report = check(&absurd, &mut (), &Stop::new()).unwrap();
        assert!(!report.ok && !report.held && report.late_p99_us.is_none(), "{report}");
        assert!(report.why.as_ref().is_some_and(|why| why.contains("2,000,000,000")), "{report}");
    }

    #[test]
    fn bursts_are_asked_for_at_their_peak_and_closed_loops_for_nothing() {
        let second = Duration::from_secs(1);
        let burst = Burst { peak: 2.5, on: second, every: 2 * second };
        let bursts = LoadOptions { profile: Profile::Burst(burst), ..options() };
        assert_eq!(asked(&bursts).unwrap(), 250.0);
        assert_eq!(asked(&LoadOptions { rate: Rate::Max, ..options() }).unwrap(), 0.0);
        assert_eq!(asked(&LoadOptions { clients: Some(3), ..options() }).unwrap(), 0.0);
        // What is tried is a run of its own, whatever the options asked for.
        alone(&bursts, Rate::Max).validate().unwrap();
    }
}
