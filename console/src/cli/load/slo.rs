//! `--slo p99=10ms`: a bound on a percentile.

use std::str::FromStr;
use std::time::Duration;

use highwater_loadgen::{Distribution, Distributions};

use crate::failure::Failure;
use crate::{human, units};

/// A bound on a percentile of a latency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slo {
    text: String,
    latency: Latency,
    percentile: Percentile,
    limit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latency {
    Response,
    Propagation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Percentile {
    P50,
    P90,
    P99,
    P999,
    P9999,
    Max,
}

/// Not a bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write p99=10ms or propagation.p99.9=50ms: p50, p90, p99, p99.9, p99.99 or max, of response or propagation"
)]
pub struct SloError;

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Slo, SloError> {
        let (name, limit) = text.split_once('=').ok_or(SloError)?;
        let (latency, percentile) = match name.split_once('.') {
            Some(("response", percentile)) => (Latency::Response, percentile),
            Some(("propagation", percentile)) => (Latency::Propagation, percentile),
            _ => (Latency::Response, name),
        };
        let percentile = match percentile {
            "p50" => Percentile::P50,
            "p90" => Percentile::P90,
            "p99" => Percentile::P99,
            "p99.9" | "p999" => Percentile::P999,
            "p99.99" | "p9999" => Percentile::P9999,
            "max" => Percentile::Max,
            _ => return Err(SloError),
        };
        let limit = units::duration(limit).map_err(|_| SloError)?;
        Ok(Slo { text: text.to_owned(), latency, percentile, limit })
    }
}

impl Slo {
    /// Whether it is met; says so on stderr.
    pub fn check(&self, measured: &Distributions) -> Result<(), Failure> {
        let of: Distribution = match self.latency {
            Latency::Response => measured.response,
            Latency::Propagation => measured.propagation,
        };
        if of.count == 0 {
            return Err(Failure::Unmeasured(format!("SLO {}: nothing was measured", self.text)));
        }
        let us = match self.percentile {
            Percentile::P50 => of.p50,
            Percentile::P90 => of.p90,
            Percentile::P99 => of.p99,
            Percentile::P999 => of.p999,
            Percentile::P9999 => of.p9999,
            Percentile::Max => of.max,
        };
        let found = human::nanos((us * 1e3) as u64);
        if us > self.limit.as_secs_f64() * 1e6 {
            return Err(Failure::Failed(format!("SLO {} not met: {found}", self.text)));
        }
        eprintln!("SLO {} met: {found}", self.text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let slo = |text: &str| text.parse::<Slo>();
        assert_eq!(slo("p99=10ms").unwrap().percentile, Percentile::P99);
        let propagation = slo("propagation.p99.9=1s").unwrap();
        assert_eq!(
            (propagation.latency, propagation.percentile),
            (Latency::Propagation, Percentile::P999)
        );
        for wrong in ["p99", "p98=1ms", "p99=10", "=", "other.p99=1s", "p99.9.9=1s"] {
            assert_eq!(slo(wrong), Err(SloError), "{wrong}");
        }
        let mut measured = Distributions::default();
        let unmeasured = slo("p99=10ms").unwrap().check(&measured);
        assert!(matches!(unmeasured, Err(Failure::Unmeasured(_))));
        (measured.response.count, measured.response.p99) = (1, 10_000.0);
        assert!(slo("p99=10ms").unwrap().check(&measured).is_ok());
        measured.response.p99 = 10_001.0;
        assert!(matches!(slo("p99=10ms").unwrap().check(&measured), Err(Failure::Failed(_))));
    }
}
