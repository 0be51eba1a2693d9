//! Words only the load commands know: targets, warm-ups, sizes of payloads, workloads.

use std::path::PathBuf;
use std::str::FromStr;

use highwater_loadgen::WarmUpRule;
use highwater_loadgen::target::Null;
use highwater_loadgen::workload::Workload;

use crate::units::{self, UnitError};

/// Why a word was refused. The flag and the value are named by the parser of the command line.
#[derive(Debug, thiserror::Error)]
pub enum WordError {
    /// A number, a size or a time in it.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A workload nobody knows.
    #[error(transparent)]
    Workload(#[from] highwater_loadgen::workload::WorkloadError),
    /// A null target that cannot be.
    #[error(transparent)]
    Null(#[from] highwater_loadgen::target::NullError),
    /// Not a target.
    #[error(
        "not HOST:PORT, embedded[:DIR] or null[:stall=1s/10s][,service=20us]; write 127.0.0.1:7411 or embedded"
    )]
    Target,
    /// `embedded:` and nothing after it.
    #[error("no directory after the colon; write embedded:DIR, or embedded for a temporary one")]
    Directory,
    /// The engine needs io_uring.
    #[cfg(not(target_os = "linux"))]
    #[error("the engine needs Linux (O_DIRECT and io_uring)")]
    NotHere,
    /// Not a size of payloads.
    #[error("not a size; write 1KiB, 100..1KiB or lognormal:1KiB,0.5")]
    Size,
}

/// What is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTarget(String);

impl std::fmt::Display for LoadTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// `HOST:PORT`, `embedded`, `embedded:DIR`, `null` or `null:SETTINGS`.
pub fn load_target(text: &str) -> Result<LoadTarget, WordError> {
    match text.split_once(':') {
        None if text == "null" => {}
        // A host of that name would have a port behind it.
        Some(("null", rest)) if rest.parse::<u16>().is_err() => drop(text.parse::<Null>()?),
        #[cfg(not(target_os = "linux"))]
        None if text == "embedded" => return Err(WordError::NotHere),
        #[cfg(not(target_os = "linux"))]
        Some(("embedded", _)) => return Err(WordError::NotHere),
        None if text == "embedded" => {}
        Some(("embedded", "")) => return Err(WordError::Directory),
        Some(("embedded", _)) => {}
        _ => drop(units::target(text).map_err(|_| WordError::Target)?),
    }
    Ok(LoadTarget(text.to_owned()))
}

/// `steady`, `steady:30s` or a duration.
pub fn warmup(text: &str) -> Result<WarmUpRule, UnitError> {
    let most = match text.split_once(':') {
        None if text == "steady" => return Ok(highwater_loadgen::LoadOptions::default().warmup),
        Some(("steady", most)) => most,
        _ => return Ok(WarmUpRule::Fixed(units::duration(text)?)),
    };
    Ok(WarmUpRule::Steady { most: units::duration(most)? })
}

/// A warm-up as it is typed.
pub fn warmup_word(rule: WarmUpRule) -> String {
    match rule {
        WarmUpRule::Fixed(time) => super::echo::duration(time),
        WarmUpRule::Steady { most } => format!("steady:{}", super::echo::duration(most)),
    }
}

/// Sizes of payloads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PayloadSize {
    /// All the same.
    Fixed(u64),
    /// From the one to the other, all equally often.
    Uniform(u64, u64),
    /// Around a median, with a long tail.
    LogNormal(u64, f64),
}

/// What is usual for sizes of messages: a 99th percentile of ten times the median.
const SIGMA: f64 = 1.0;

impl FromStr for PayloadSize {
    type Err = WordError;

    fn from_str(text: &str) -> Result<PayloadSize, WordError> {
        if let Some((least, most)) = text.split_once("..") {
            let (least, most) = (units::record_size(least)?, units::record_size(most)?);
            return if least <= most {
                Ok(PayloadSize::Uniform(least, most))
            } else {
                Err(WordError::Size)
            };
        }
        let Some(rest) = text.strip_prefix("lognormal:") else {
            return Ok(PayloadSize::Fixed(units::record_size(text)?));
        };
        let (median, sigma) = match rest.split_once(',') {
            Some((median, sigma)) => (median, sigma.parse().map_err(|_| WordError::Size)?),
            None => (rest, SIGMA),
        };
        Ok(PayloadSize::LogNormal(units::record_size(median)?, sigma))
    }
}

impl PayloadSize {
    /// Filler of these sizes.
    pub fn workload(self) -> Workload {
        // Sizes fit: none is over 10 MiB.
        match self {
            PayloadSize::Fixed(size) => Workload::Fixed { size: size as usize },
            PayloadSize::Uniform(least, most) => {
                Workload::Uniform { least: least as usize, most: most as usize }
            }
            PayloadSize::LogNormal(median, sigma) => Workload::LogNormal {
                median: median as usize,
                sigma,
                most: highwater_wire::MAX_RECORD_CEILING as usize,
            },
        }
    }

    /// The sizes of a workload of filler; `None` for the others.
    pub fn of(workload: &Workload) -> Option<PayloadSize> {
        match *workload {
            Workload::Fixed { size } => Some(PayloadSize::Fixed(size as u64)),
            Workload::Uniform { least, most } => {
                Some(PayloadSize::Uniform(least as u64, most as u64))
            }
            Workload::LogNormal { median, sigma, .. } => {
                Some(PayloadSize::LogNormal(median as u64, sigma))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for PayloadSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PayloadSize::Fixed(size) => write!(f, "{size}"),
            PayloadSize::Uniform(least, most) => write!(f, "{least}..{most}"),
            PayloadSize::LogNormal(median, sigma) => write!(f, "lognormal:{median},{sigma}"),
        }
    }
}

/// A workload by its name, or a file that describes one.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkloadName {
    /// As typed, and what it means.
    Named(String, Workload),
    /// A file.
    File(PathBuf),
}

impl FromStr for WorkloadName {
    type Err = WordError;

    fn from_str(text: &str) -> Result<WorkloadName, WordError> {
        // A name may carry a file of its own (apache-log:access.toml is a log).
        if text.ends_with(".toml") && !text.contains(':') {
            return Ok(WorkloadName::File(text.into()));
        }
        Ok(WorkloadName::Named(text.to_owned(), text.parse()?))
    }
}

impl std::fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WorkloadName::Named(text, _) => f.write_str(text),
            WorkloadName::File(path) => write!(f, "{}", path.display()),
        }
    }
}
