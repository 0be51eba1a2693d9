//! Reading a finished run back.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use super::{LOG, RUN, SAMPLES};
use crate::hlog::{self, Grid, LogError, Series};
use crate::{Progress, Report, SCHEMA};

/// A sample is about a kilobyte; a report some tens. What is longer is neither.
const LONGEST: u64 = 16 << 20;

/// A run, read back from its directory.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// The directory.
    pub path: PathBuf,
    /// What was found.
    pub report: Report,
    /// Second by second, warm-up and drain included.
    pub samples: Vec<Progress>,
    /// The latencies, of records intended in the measured window; at most one of each name.
    pub series: Vec<Series>,
}

impl RunFiles {
    /// The distribution of this name (as in `latency_us`), if it has values.
    pub fn histogram(&self, name: &str) -> Option<&Histogram<u64>> {
        self.series.iter().find(|series| series.name == name).map(|series| &series.total)
    }
}

/// What `serde_json` says, without the place: its line is that of one line of ours.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map(|(what, _)| what.to_owned()).unwrap_or(text)
}

/// Why a run could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum RunReadError {
    /// A file is not there.
    #[error("{path} has no {file}: it is no run directory, or the run did not come to its end")]
    Missing {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The report was written by a program that means something else by it.
    #[error("{path}: schema {found:?}; this program reads {SCHEMA:?}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says it is; empty if it does not say.
        found: String,
    },
    /// A file is not the JSON it should be.
    #[error("{path}: line {line}, column {}: {}", source.column(), what(source))]
    Json {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A line, or a report, of unlikely length.
    #[error("{path}: line {line} is longer than {LONGEST} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// The latency log is damaged.
    #[error("{path}: {source}")]
    Log {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: LogError,
    },
}

/// Reads the run in the directory `path`. Needs `run.json`, so a run that was killed cannot be read.
pub fn read_run(path: &Path) -> Result<RunFiles, RunReadError> {
    let report = report(path)?;
    let samples = read_samples(path)?;
    let grid = Grid::new(report.started_ns, report.duration_s);
    let series = hlog::read(open(path, LOG)?, grid)
        .map_err(|source| RunReadError::Log { path: path.join(LOG), source })?;
    Ok(RunFiles { path: path.to_owned(), report, samples, series })
}

fn open(dir: &Path, file: &'static str) -> Result<BufReader<File>, RunReadError> {
    let path = dir.join(file);
    match File::open(&path) {
        Ok(file) => Ok(BufReader::new(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(RunReadError::Missing { path: dir.to_owned(), file })
        }
        Err(source) => Err(RunReadError::Io { path, source }),
    }
}

fn report(dir: &Path) -> Result<Report, RunReadError> {
    let path = dir.join(RUN);
    let mut text = Vec::new();
    open(dir, RUN)?
        .take(LONGEST)
        .read_to_end(&mut text)
        .map_err(|source| RunReadError::Io { path: path.clone(), source })?;
    if text.len() as u64 == LONGEST {
        return Err(RunReadError::TooLong { path, line: 1 });
    }
    let json = |source: serde_json::Error| {
        let line = source.line();
        RunReadError::Json { path: path.clone(), line, source }
    };
    // First what it is, then what it says: another schema is better told than a missing field.
    let any: serde_json::Value = serde_json::from_slice(&text).map_err(json)?;
    let found = any.get("schema").and_then(|schema| schema.as_str()).unwrap_or_default();
    if found != SCHEMA {
        return Err(RunReadError::Schema { path: path.clone(), found: found.to_owned() });
    }
    serde_json::from_slice(&text).map_err(json)
}

/// Reads what was measured second by second in the directory `dir`, of whatever schema its report is.
pub(crate) fn read_samples(dir: &Path) -> Result<Vec<Progress>, RunReadError> {
    let path = dir.join(SAMPLES);
    let mut file = open(dir, SAMPLES)?;
    let (mut samples, mut text) = (Vec::new(), Vec::new());
    for line in 1.. {
        text.clear();
        file.by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut text)
            .map_err(|source| RunReadError::Io { path: path.clone(), source })?;
        if text.len() as u64 == LONGEST {
            return Err(RunReadError::TooLong { path, line });
        }
        if text.last() != Some(&b'\n') {
            // The end, or what a full disk left of a line.
            break;
        }
        let sample = serde_json::from_slice(&text).map_err(|source| RunReadError::Json {
            path: path.clone(),
            line,
            source,
        })?;
        samples.push(sample);
    }
    Ok(samples)
}
