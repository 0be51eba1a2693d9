//! How the rate runs over time: what was asked, and what it comes to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::course::{RECORD, Step, Steps};
use super::{Gaps, trace};
use crate::Arrival;

/// How the rate runs over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Profile {
    /// The base rate throughout.
    #[default]
    Flat,
    /// The base rate, and regularly a multiple of it.
    Burst(Burst),
    /// What a file says; the base rate is not used.
    Trace(TraceSpec),
}

/// `peak` times the base rate during the first `on` of every `every`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Multiple of the base rate: more than 1, at most 1,000.
    pub peak: f64,
    /// Length of a burst: at least 1 ms, and less than `every`.
    #[serde(rename = "on_s", with = "seconds")]
    pub on: Duration,
    /// From the beginning of a burst to that of the next: at most 366 days.
    #[serde(rename = "every_s", with = "seconds")]
    pub every: Duration,
}

impl Default for Burst {
    /// 2.5 times for 10 s of every minute.
    fn default() -> Burst {
        Burst { peak: 2.5, on: Duration::from_secs(10), every: Duration::from_secs(60) }
    }
}

/// A recorded rate, recorded times, or records with their times. See `docs/load.md` for the format of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSpec {
    /// The file.
    pub file: PathBuf,
    /// Divides the file's times and multiplies its rates; more than 0, at most 10⁶. Default 1.
    #[serde(default = "one")]
    pub speed: f64,
}

fn one() -> f64 {
    1.0
}

/// Why a profile cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// A field of the profile out of its range.
    #[error("{field} is {value}; it must be {limit}")]
    Field {
        /// Which.
        field: &'static str,
        /// What was asked.
        value: String,
        /// What is allowed.
        limit: &'static str,
    },
    /// The trace file cannot be read.
    #[error("trace {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The trace file says something that is not in the format.
    #[error("trace {}, line {line}: {field} is {value:?}; it must be {limit}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, or the header.
        field: &'static str,
        /// What is there.
        value: String,
        /// What is allowed.
        limit: &'static str,
    },
    /// The trace is a file of records, which cannot be followed.
    #[error(transparent)]
    Recording(#[from] crate::RecordingError),
    /// The trace file as a whole is not usable.
    #[error("trace {}: {problem}", file.display())]
    Whole {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Longest time a profile may take: as of all options.
const MAX_EVERY: Duration = crate::options::MAX_TIME;

impl Profile {
    /// Checks it; reads the file of a trace.
    pub fn prepare(&self) -> Result<PreparedProfile, ScheduleError> {
        Ok(PreparedProfile(match self {
            Profile::Flat => Prepared::Flat,
            Profile::Burst(burst) => {
                burst.check()?;
                Prepared::Burst(*burst)
            }
            Profile::Trace(spec) => {
                if !(spec.speed > 0.0 && spec.speed <= 1e6) {
                    return Err(ScheduleError::Field {
                        field: "speed",
                        value: spec.speed.to_string(),
                        limit: "more than 0 and at most 1000000",
                    });
                }
                match trace::read(spec)? {
                    trace::Trace::Rates(steps) => Prepared::Rates(Arc::new(steps)),
                    trace::Trace::Times(times) => Prepared::Times(times.into()),
                }
            }
        }))
    }

    /// What it is called in reports: `burst`, `trace`, or nothing for a flat one.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Profile::Flat => None,
            Profile::Burst(_) => Some("burst"),
            Profile::Trace(_) => Some("trace"),
        }
    }
}

impl Burst {
    fn check(&self) -> Result<(), ScheduleError> {
        let field = |field, value: String, limit| Err(ScheduleError::Field { field, value, limit });
        if !(self.peak > 1.0 && self.peak <= 1000.0) {
            return field("peak", self.peak.to_string(), "more than 1 and at most 1000");
        }
        if self.on < Duration::from_millis(1) {
            return field("on", format!("{:?}", self.on), "at least 1 ms");
        }
        if self.every > MAX_EVERY {
            return field("every", format!("{:?}", self.every), "at most 366 days");
        }
        if self.on >= self.every {
            let value = format!("{:?} of every {:?}", self.on, self.every);
            return field("on", value, "less than every");
        }
        Ok(())
    }

    fn steps(&self, base: f64) -> Steps {
        let (on, every) = (nanos(self.on), nanos(self.every));
        let steps = vec![Step::new(on, base * self.peak), Step::new(every - on, base)];
        Steps::new(steps).unwrap_or_else(|| Steps::flat(base))
    }
}

/// A profile that was checked, its trace read. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedProfile(Prepared);

#[derive(Clone, Debug, PartialEq)]
enum Prepared {
    Flat,
    Burst(Burst),
    Rates(Arc<Steps>),
    /// Sorted, the first 0 and the last more than that.
    Times(Arc<[u64]>),
}

impl PreparedProfile {
    /// The base rate throughout.
    pub fn flat() -> PreparedProfile {
        PreparedProfile(Prepared::Flat)
    }

    /// Along these steps.
    #[cfg(test)]
    pub(super) fn stepped(steps: Steps) -> PreparedProfile {
        PreparedProfile(Prepared::Rates(Arc::new(steps)))
    }

    /// At these times.
    #[cfg(test)]
    pub(super) fn timed(times: &[u64]) -> PreparedProfile {
        PreparedProfile(Prepared::Times(times.into()))
    }

    /// Records per second over its whole length, if the base rate is `base`.
    pub fn mean_rate(&self, base: f64) -> f64 {
        match &self.0 {
            Prepared::Flat => base,
            Prepared::Burst(burst) => burst.steps(base).mean_rate(),
            Prepared::Rates(steps) => steps.mean_rate(),
            Prepared::Times(times) => {
                times.len() as f64 * 1e9 / times.last().copied().unwrap_or(1).max(1) as f64
            }
        }
    }

    /// How long a trace is, its speed included; `None` if it is no trace.
    pub fn length(&self) -> Option<Duration> {
        match &self.0 {
            Prepared::Flat | Prepared::Burst(_) => None,
            Prepared::Rates(steps) => Some(Duration::from_nanos(steps.length_ns())),
            Prepared::Times(times) => times.last().map(|last| Duration::from_nanos(*last)),
        }
    }

    /// Whether a burst is on so long after the start.
    pub fn in_burst(&self, offset_ns: u64) -> bool {
        match &self.0 {
            Prepared::Burst(burst) => offset_ns % nanos(burst.every).max(1) < nanos(burst.on),
            _ => false,
        }
    }

    /// The squared coefficient of variation that the gaps of `parts` producers, pooled, should have.
    /// `None` where it has no simple answer: rates that change faster than a producer's records come.
    pub fn intended_c2(&self, arrival: Arrival, base: f64, parts: usize) -> Option<f64> {
        let parts = parts.max(1);
        let spread = match arrival {
            Arrival::Constant => 1.0,
            // The mean of the square of an exponential gap is twice the square of its mean.
            Arrival::Poisson => 2.0,
        };
        match &self.0 {
            Prepared::Flat => Some(spread - 1.0),
            Prepared::Burst(burst) => stepped_c2(&burst.steps(base), spread, parts),
            Prepared::Rates(steps) => stepped_c2(steps, spread, parts),
            Prepared::Times(times) => {
                let mut pooled = Gaps::default();
                for part in 0..parts.min(times.len()) {
                    let mut gaps = Gaps::default();
                    times.iter().skip(part).step_by(parts).for_each(|at| gaps.add(*at));
                    pooled.merge(&gaps);
                }
                pooled.c2()
            }
        }
    }

    /// The rate over time; not for times.
    pub(super) fn steps(&self, base: f64) -> Arc<Steps> {
        match &self.0 {
            Prepared::Flat | Prepared::Times(_) => Arc::new(Steps::flat(base)),
            Prepared::Burst(burst) => Arc::new(burst.steps(base)),
            Prepared::Rates(steps) => Arc::clone(steps),
        }
    }

    /// The due times of a trace of times.
    pub(super) fn times(&self) -> Option<Arc<[u64]>> {
        match &self.0 {
            Prepared::Times(times) => Some(Arc::clone(times)),
            _ => None,
        }
    }
}

/// Fewest records of a producer per step for which the gaps across steps do not count.
const MANY: f64 = 10.0;

/// The c² of gaps along steps: within a step of n records in time t the gaps are t/n in the mean; a time
/// without any is one long gap.
fn stepped_c2(steps: &Steps, spread: f64, parts: usize) -> Option<f64> {
    let (mut count, mut time, mut squares, mut busy) = (0.0, 0.0, 0.0, 0u32);
    let mut idle = 0.0;
    let mut last_gap = 0.0;
    // The last step's idle time goes on into the next period: twice around, the second counts.
    for round in 0..2 {
        if round == 1 {
            (count, time, squares, busy) = (0.0, 0.0, 0.0, 0);
        }
        for step in steps.steps() {
            let length = step.length_ns as f64;
            time += length;
            if step.rate == 0 {
                idle += length;
                continue;
            }
            let records = length * step.rate as f64 / RECORD as f64 / parts as f64;
            let gap = length / records;
            if idle > 0.0 {
                let usual = if last_gap > 0.0 { (gap + last_gap) / 2.0 } else { gap };
                squares += idle * (idle + 2.0 * usual);
                idle = 0.0;
            }
            squares += spread * records * gap * gap;
            count += records;
            busy += 1;
            last_gap = gap;
        }
    }
    if count < MANY * f64::from(busy) {
        return None;
    }
    let mean = time / count;
    Some((squares / count / (mean * mean) - 1.0).max(0.0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Durations as seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
