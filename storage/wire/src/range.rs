//! Ranges of settings: which are within them, and what is told of one that is not. None of this is on the wire.

use std::ops::RangeInclusive;

use crate::DeliveryConfig;

/// A setting outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}; {} to {} are allowed", range.start(), range.end())]
pub struct OutOfRange {
    /// Its name here.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What it may be.
    pub range: RangeInclusive<u64>,
}

impl DeliveryConfig {
    /// Whether every number is within its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let window = if self.breaker_permille > 0 { 1_000..=3_600_000 } else { 0..=u64::MAX };
        let ranges = [
            ("timeout_ms", u64::from(self.timeout_ms), 100..=43_200_000),
            ("attempts", self.attempts.into(), 1..=1_000),
            ("retry_after_ms", self.retry_after_ms.into(), 0..=3_600_000),
            ("breaker_permille", self.breaker_permille.into(), 0..=1_000),
            ("breaker_window_ms", self.breaker_window_ms.into(), window),
        ];
        match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((field, value, range)) => Err(OutOfRange { field, value, range }),
            None => Ok(()),
        }
    }
}
