//! `--slo p99=10ms`: a bound on a percentile.

use std::str::FromStr;
use std::time::Duration;

use highwater_loadgen::search::Goal;
use highwater_loadgen::{Distribution, Distributions, Report, Slo as Judged};

use crate::failure::Failure;
use crate::{human, units};

/// A bound on a percentile of a latency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slo {
    /// As typed.
    text: String,
    /// A name of [`Distributions::named`].
    latency: &'static str,
    percentile: Percentile,
    limit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Percentile {
    /// An index of [`Distribution::PERCENTILES`].
    At(usize),
    Max,
}

/// Share of records beyond each of [`Distribution::PERCENTILES`].
const BEYOND: [f64; 5] = [0.5, 0.1, 0.01, 0.001, 0.0001];

/// Not a bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write p99=10ms or propagation.p99.9=50ms: p50, p90, p99, p99.9, p99.99 or max, of response, propagation, \
     send_lag, service, visibility or delivery"
)]
pub struct SloError;

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Slo, SloError> {
        let (name, limit) = text.split_once('=').ok_or(SloError)?;
        let names = Distributions::default().named().map(|(name, _)| name);
        let (latency, percentile) = match name.split_once('.') {
            Some((latency, percentile)) if names.contains(&latency) => (latency, percentile),
            _ => ("response", name),
        };
        let latency = names.into_iter().find(|name| *name == latency).ok_or(SloError)?;
        let percentile = match percentile {
            "max" => Percentile::Max,
            "p999" => Percentile::At(3),
            "p9999" => Percentile::At(4),
            other => {
                let at = Distribution::PERCENTILES.iter().position(|name| *name == other);
                Percentile::At(at.ok_or(SloError)?)
            }
        };
        let limit = units::duration(limit).map_err(|_| SloError)?;
        Ok(Slo { text: text.to_owned(), latency, percentile, limit })
    }
}

impl std::fmt::Display for Slo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The generator may itself be late by a tenth of the tightest bound, and no more.
pub fn tighten(late_bound: &mut Duration, slos: &[Slo]) {
    if let Some(tightest) = slos.iter().map(|slo| slo.limit / 10).min() {
        *late_bound = (*late_bound).min(tightest.max(Duration::from_micros(1)));
    }
}

impl Slo {
    /// As a search asks for it; `None` for the maximum, of which no share can be allowed beyond.
    pub fn goal(&self) -> Option<Goal> {
        let Percentile::At(at) = self.percentile else { return None };
        Some(Goal {
            of: format!("{}.{}", self.latency, Distribution::PERCENTILES.get(at)?),
            bound_us: self.limit.as_secs_f64() * 1e6,
            allowed: *BEYOND.get(at)?,
        })
    }

    /// The bound in microseconds, if it is one on the response's 99th percentile.
    pub fn response_p99_us(&self) -> Option<f64> {
        let p99 = Percentile::At(2);
        let of_response = self.latency == "response" && self.percentile == p99;
        of_response.then_some(self.limit.as_secs_f64() * 1e6)
    }

    /// What came of it.
    pub fn judge(&self, found: &Report) -> Judged {
        let named = found.latency_us.named();
        let of = named.iter().find(|(name, _)| *name == self.latency).map(|(_, of)| *of);
        let (name, measured_us) = match self.percentile {
            Percentile::At(at) => (
                Distribution::PERCENTILES.get(at).copied().unwrap_or_default(),
                of.and_then(|of| of.percentiles().get(at).copied().flatten()),
            ),
            Percentile::Max => ("max", of.and_then(Distribution::largest)),
        };
        let bound_us = self.limit.as_secs_f64() * 1e6;
        let met = measured_us.filter(|_| found.valid).map(|us| us <= bound_us);
        Judged { of: format!("{}.{name}", self.latency), bound_us, measured_us, met }
    }
}

/// Whether all bounds are met; says so on stderr.
pub fn check(report: &Report) -> Result<(), Failure> {
    let us = |us: f64| human::nanos((us * 1e3) as u64);
    for slo in &report.slo {
        let bound = format!("SLO {} <= {}", slo.of, us(slo.bound_us));
        match (slo.measured_us, slo.met) {
            (None, _) => {
                let what = format!("{bound}: too few records to tell");
                return Err(Failure::Unmeasured(what));
            }
            (Some(found), Some(true)) => note!("{bound} met: {}", us(found)),
            (Some(found), Some(false)) => {
                return Err(Failure::Failed(format!("{bound} not met: {}", us(found))));
            }
            (Some(found), None) => {
                let what = format!("{bound}: {}, but not a valid measurement", us(found));
                return Err(Failure::Unmeasured(what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let slo = |text: &str| text.parse::<Slo>();
        assert_eq!(slo("p99=10ms").unwrap().percentile, Percentile::At(2));
        let propagation = slo("propagation.p99.9=1s").unwrap();
        assert_eq!(
            (propagation.latency, propagation.percentile),
            ("propagation", Percentile::At(3))
        );
        assert_eq!(slo("delivery.max=1s").unwrap().latency, "delivery");
        for wrong in ["p99", "p98=1ms", "p99=10", "=", "other.p99=1s", "p99.9.9=1s"] {
            assert_eq!(slo(wrong), Err(SloError), "{wrong}");
        }
    }

    #[test]
    fn the_generator_may_be_late_by_a_tenth_of_the_tightest() {
        let tightened = |bounds: &[&str]| {
            let slos: Vec<Slo> = bounds.iter().map(|text| text.parse().unwrap()).collect();
            let mut bound = Duration::from_millis(1);
            tighten(&mut bound, &slos);
            bound
        };
        assert_eq!(tightened(&[]), Duration::from_millis(1));
        assert_eq!(tightened(&["p99=1s"]), Duration::from_millis(1));
        assert_eq!(tightened(&["p99=1s", "p50=2ms"]), Duration::from_micros(200));
        assert_eq!(tightened(&["max=1ns"]), Duration::from_micros(1));
    }
}
