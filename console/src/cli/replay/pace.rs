//! When a record is due, and how late it was. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::units::{self, UnitError};

/// How fast.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// As fast as it goes.
    #[default]
    Max,
}

/// Why a word is no speed.
#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    /// Not a factor.
    #[error("write original, max, or a factor like 10x")]
    Form(#[from] UnitError),
    /// Out of bounds.
    #[error("{0} is outside 0.001x to 1000000x")]
    Range(String),
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Speed, SpeedError> {
        match text {
            "original" => Ok(Speed::Times(1.0)),
            "max" => Ok(Speed::Max),
            text => match units::factor(text)? {
                factor if (1e-3..=1e6).contains(&factor) => Ok(Speed::Times(factor)),
                _ => Err(SpeedError::Range(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speed::Max => f.write_str("max"),
            Speed::Times(1.0) => f.write_str("original"),
            Speed::Times(factor) => write!(f, "{factor}x"),
        }
    }
}

impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The schedule: each due time is reckoned from the first record's, so that no error gathers.
#[derive(Clone, Debug)]
pub struct Pace {
    factor: f64,
    max_gap_ns: u64,
    /// When the first was recorded.
    first_ns: Option<u64>,
    /// ... and the last; it never goes back.
    last_ns: u64,
    /// Of the time since the first, what was cut out.
    cut_ns: u64,
}

impl Pace {
    /// At this speed ([`Speed::Max`] is the recorded one: what it would have taken), with longer times without a record
    /// cut to `max_gap`.
    pub fn new(speed: Speed, max_gap: Option<Duration>) -> Pace {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Pace {
            factor: if let Speed::Times(factor) = speed { factor } else { 1.0 },
            max_gap_ns: max_gap.map_or(u64::MAX, nanos),
            first_ns: None,
            last_ns: 0,
            cut_ns: 0,
        }
    }

    /// When the record that was recorded at `at_ns` is due, in nanoseconds after the first.
    pub fn due(&mut self, at_ns: u64) -> u64 {
        let first_ns = *self.first_ns.get_or_insert(at_ns);
        self.last_ns = self.last_ns.max(first_ns);
        let at_ns = at_ns.max(self.last_ns);
        self.cut_ns += (at_ns - self.last_ns).saturating_sub(self.max_gap_ns);
        self.last_ns = at_ns;
        let since_ns = at_ns - first_ns - self.cut_ns;
        if self.factor == 1.0 {
            return since_ns;
        }
        // Below 104 days a float holds every nanosecond.
        (since_ns as f64 / self.factor).round() as u64
    }
}

/// How late records were, and how far off the times between them.
#[derive(Debug)]
pub struct Lateness {
    late: Histogram<u64>,
    gaps: Histogram<u64>,
    last: Option<Duration>,
}

/// Longest time told apart: a day.
const MOST_NS: u64 = 86_400_000_000_000;

/// Some percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        let ms = |ns: u64| ns as f64 / 1e6;
        Percentiles {
            p50: ms(histogram.value_at_quantile(0.5)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

impl Lateness {
    /// Nothing yet.
    pub fn new() -> Result<Lateness, hdrhistogram::CreationError> {
        let histogram = || Histogram::new_with_bounds(1, MOST_NS, 3);
        Ok(Lateness { late: histogram()?, gaps: histogram()?, last: None })
    }

    /// A record that went out so long after it was due. The time since the one before it is off by how much later (or
    /// less late) it was than that.
    pub fn add(&mut self, late: Duration) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.late.saturating_record(nanos(late));
        if let Some(last) = self.last.replace(late) {
            self.gaps.saturating_record(nanos(late.abs_diff(last)));
        }
    }

    /// How late records were, and how far off the times between them; `None` if none was added.
    pub fn figures(&self) -> Option<(Percentiles, Percentiles)> {
        self.last.map(|_| (Percentiles::of(&self.late), Percentiles::of(&self.gaps)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn due_times_keep_their_distance_at_every_speed() {
        let recorded = [5_000 * MS, 5_000 * MS, 5_010 * MS, 6_000 * MS, 65_000 * MS];
        for (speed, due_ms) in [
            ("original", [0.0, 0.0, 10.0, 1_000.0, 60_000.0]),
            ("10x", [0.0, 0.0, 1.0, 100.0, 6_000.0]),
            ("0.5x", [0.0, 0.0, 20.0, 2_000.0, 120_000.0]),
            // What it would have taken.
            ("max", [0.0, 0.0, 10.0, 1_000.0, 60_000.0]),
        ] {
            let mut pace = Pace::new(speed.parse().unwrap(), None);
            for (at, due) in recorded.iter().zip(due_ms) {
                assert_eq!(pace.due(*at), (due * MS as f64) as u64, "{speed} {at}");
            }
        }
    }

    #[test]
    fn no_error_gathers() {
        let mut pace = Pace::new("3x".parse().unwrap(), None);
        let due: Vec<u64> = (0..1_000_000u64).map(|k| pace.due(7 + k * 10)).collect();
        assert_eq!(due[999_999], 3_333_330);
        assert!(due.iter().zip(0u64..).all(|(due, k)| due.abs_diff(k * 10 / 3) <= 1));
    }

    #[test]
    fn long_gaps_are_cut_and_time_never_goes_back() {
        let mut pace = Pace::new("2x".parse().unwrap(), Some(Duration::from_millis(100)));
        let due: Vec<u64> = [10, 30, 5_030, 4_000, 5_050, 9_000]
            .iter()
            .map(|ms| pace.due(ms * MS) / 1_000)
            .collect();
        // In microseconds: 20, 120 (cut), 120 (went back), 140, 240 (cut), at twice the speed.
        assert_eq!(due, [0, 10_000, 60_000, 60_000, 70_000, 120_000]);
    }

    #[test]
    fn speeds_are_read_as_they_are_written() {
        for text in ["original", "max", "10x", "0.25x"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        assert_eq!("1x".parse::<Speed>().unwrap(), Speed::Times(1.0));
        for (text, wanted) in
            [("fast", "write original"), ("0x", "factor"), ("2000000x", "outside")]
        {
            let said = text.parse::<Speed>().unwrap_err().to_string();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }

    #[test]
    fn lateness_is_told_by_record_and_by_gap() {
        let mut lateness = Lateness::new().unwrap();
        assert_eq!(lateness.figures(), None);
        for ms in [1, 1, 4, 2] {
            lateness.add(Duration::from_millis(ms));
        }
        let (late, gaps) = lateness.figures().unwrap();
        let near = |found: f64, wanted: f64| (found - wanted).abs() < wanted / 500.0 + 1e-9;
        assert!(near(late.p50, 1.0) && near(late.p99, 4.0) && near(late.max, 4.0), "{late:?}");
        // 0, 3 and 2.
        assert!(near(gaps.p50, 2.0) && near(gaps.max, 3.0), "{gaps:?}");
    }
}
