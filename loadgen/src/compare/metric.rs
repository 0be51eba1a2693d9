//! What can be compared, and its name: `response.p99`, `acknowledged.rate`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Distributions that are compared: what a user of the target sees.
pub(super) const SERIES: [&str; 4] = ["response", "propagation", "service", "delivery"];

/// A percentile that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// The median.
    P50,
    /// 90 %.
    P90,
    /// 99 %.
    P99,
    /// 99.9 %.
    P999,
}

impl Quantile {
    /// All of them, ascending.
    pub const ALL: [Quantile; 4] = [Quantile::P50, Quantile::P90, Quantile::P99, Quantile::P999];

    /// The share of values that are not above it.
    pub fn share(self) -> f64 {
        match self {
            Quantile::P50 => 0.5,
            Quantile::P90 => 0.9,
            Quantile::P99 => 0.99,
            Quantile::P999 => 0.999,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Quantile::P50 => "p50",
            Quantile::P90 => "p90",
            Quantile::P99 => "p99",
            Quantile::P999 => "p99.9",
        }
    }
}

/// One figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Records acknowledged per second: `acknowledged.rate`.
    AckedRate,
    /// Records read per second: `consumed.rate`.
    ConsumedRate,
    /// A percentile of a distribution: `response.p99`.
    Latency {
        /// As in `latency_us`: `response`, `propagation`, `service` or `delivery`.
        name: &'static str,
        /// Which percentile.
        quantile: Quantile,
    },
}

impl Metric {
    /// What is judged unless told otherwise.
    pub const DEFAULT: [Metric; 3] = [
        Metric::Latency { name: "response", quantile: Quantile::P99 },
        Metric::Latency { name: "propagation", quantile: Quantile::P99 },
        Metric::AckedRate,
    ];

    /// Everything, in the order of the table.
    pub fn all() -> impl Iterator<Item = Metric> {
        let latency = |name| Quantile::ALL.map(|quantile| Metric::Latency { name, quantile });
        [Metric::AckedRate, Metric::ConsumedRate]
            .into_iter()
            .chain(SERIES.into_iter().flat_map(latency))
    }

    /// Whether runs may do without: not every run has consumers.
    pub(super) fn optional(&self) -> bool {
        matches!(self, Metric::Latency { name: "propagation", .. })
    }

    /// `us`, or `records/s`.
    pub fn unit(&self) -> &'static str {
        match self {
            Metric::AckedRate | Metric::ConsumedRate => "records/s",
            Metric::Latency { .. } => "us",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::AckedRate => f.pad("acknowledged.rate"),
            Metric::ConsumedRate => f.pad("consumed.rate"),
            Metric::Latency { name, quantile } => f.pad(&format!("{name}.{}", quantile.name())),
        }
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name that is no metric's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no figure that can be compared: acknowledged.rate, consumed.rate, or one of response, \
     propagation, service and delivery with p50, p90, p99 or p99.9, as response.p99"
)]
pub struct MetricError {
    /// What was given.
    pub given: String,
}

impl FromStr for Metric {
    type Err = MetricError;

    /// By its name; `p999` is taken for `p99.9`, as JSON names it.
    fn from_str(given: &str) -> Result<Metric, MetricError> {
        let name = if let Some(name) = given.strip_suffix(".p999") {
            format!("{name}.p99.9")
        } else {
            given.to_owned()
        };
        Metric::all()
            .find(|metric| metric.to_string() == name)
            .ok_or_else(|| MetricError { given: given.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_read_by_its_name() {
        assert_eq!(Metric::all().count(), 18);
        for metric in Metric::all() {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        let p999 = Metric::Latency { name: "service", quantile: Quantile::P999 };
        assert_eq!("service.p999".parse(), Ok(p999));
        for wrong in ["", "response", "response.p98", "p99", "response.p99.p99"] {
            let said = wrong.parse::<Metric>().unwrap_err().to_string();
            assert!(said.starts_with(&format!("{wrong:?} is no figure")), "{said}");
        }
    }
}
