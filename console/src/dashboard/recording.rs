//! Recordings: what a source brought, one JSON object a line, so that other tools can read them and a killed
//! process costs one line at most.
//!
//! The first line says what the file is: `{"highwater_recording":1,"target":"…","server":"…","began_ns":…}`. Every
//! other line is a sample and stands for itself: `{"n":7,"at":…,"snapshot":{…}}`, or `{"n":8,"at":…,"lost":"…"}` when the
//! server did not answer. A line `{"marks":[…]}` names the samples that were marked, by when they were received; the last
//! one counts. `n` counts up, `at` is when the sample was received, nanoseconds since 1970 UTC. Lines are
//! not always in order: see [`ring`]. A line that is no sample is passed over and counted.

pub mod ring;
mod tape;

pub use tape::{Tape, TapeError};

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use highwater_wire::telemetry::Snapshot;
use serde::{Deserialize, Serialize};

use super::source::{Sample, What};

/// Version of the format. Newer ones are refused; fields unknown or missing in a snapshot are no new version.
pub const VERSION: u32 = 1;

/// Longest line: a snapshot of the largest server is far below it.
pub const MAX_LINE: usize = 64 << 20;

/// What a recording says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`VERSION`].
    pub highwater_recording: u32,
    /// What was watched.
    #[serde(default)]
    pub target: String,
    /// When the recording began, nanoseconds since 1970 UTC.
    #[serde(default)]
    pub began_ns: u64,
}

impl Head {
    /// Of a recording of `target` that begins at `began_ns`.
    pub fn new(target: impl Into<String>, began_ns: u64) -> Head {
        Head { highwater_recording: VERSION, target: target.into(), began_ns }
    }

    /// The first line, with its newline.
    pub fn line(&self) -> Result<Vec<u8>, serde_json::Error> {
        with_newline(self)
    }
}

/// A line as it is stored. `n` comes first: [`ring`] looks for it without reading the rest.
#[derive(Serialize)]
struct Out<'a> {
    n: u64,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'a Snapshot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<&'a str>,
}

#[derive(Deserialize)]
struct In {
    // Every sample has its number, also where it is not asked for.
    #[serde(rename = "n")]
    _n: u64,
    at: u64,
    snapshot: Option<Box<Snapshot>>,
    lost: Option<String>,
}

/// The line that stores `sample` as the `n`th, with its newline.
pub fn line(n: u64, sample: &Sample) -> Result<Vec<u8>, serde_json::Error> {
    let (snapshot, lost) = match &sample.what {
        What::Snapshot(snapshot) => (Some(&**snapshot), None),
        What::Lost(reason) => (None, Some(reason.as_str())),
    };
    with_newline(&Out { n, at: sample.at, snapshot, lost })
}

/// The sample that `line` stores; `None` if it stores none.
pub fn parse(line: &[u8]) -> Option<Sample> {
    let In { at, snapshot, lost, .. } = serde_json::from_slice(line).ok()?;
    let what = match (snapshot, lost) {
        (Some(snapshot), None) => What::Snapshot(snapshot),
        (None, Some(reason)) => What::Lost(reason),
        _ => return None,
    };
    Some(Sample { at, what })
}

/// The samples that were marked, by when they were received, nanoseconds since 1970 UTC.
#[derive(Serialize, Deserialize)]
struct Marks {
    marks: Vec<u64>,
}

/// The marks that `line` stores; `None` if it stores none.
fn parse_marks(line: &[u8]) -> Option<Vec<u64>> {
    let line = line.starts_with(b"{\"marks\":").then_some(line)?;
    serde_json::from_slice(line).ok().map(|Marks { marks }| marks)
}

/// Adds marks to the recording at `path`, in place of those it has. Not while it is still being recorded.
pub fn keep_marks(path: &Path, marks: Vec<u64>) -> Result<(), RecordError> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    file.try_lock().map_err(std::io::Error::from)?;
    let mut line = with_newline(&Marks { marks })?;
    // What a killed recorder left unfinished must not swallow it.
    let mut last = [0];
    let end = file.metadata()?.len();
    if end > 0 && file.read_at(&mut last, end - 1)? == 1 && last != *b"\n" {
        line.insert(0, b'\n');
    }
    Ok(file.write_all(&line)?)
}

/// The number and the time of the sample that `line` begins to store, without reading all of it.
fn peek(line: &[u8]) -> Option<(u64, u64)> {
    let rest = line.strip_prefix(b"{\"n\":")?;
    let (n, rest) = number(rest)?;
    let (at, _) = number(rest.strip_prefix(b",\"at\":")?)?;
    Some((n, at))
}

/// Leading digits as a number, and what follows.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = bytes.split_at(digits);
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

fn with_newline(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Numbers readings and stores them, each in one write, as they come.
#[derive(Debug)]
pub struct Recorder<W> {
    out: W,
    next: u64,
}

/// Why a recording cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file does not take it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A snapshot that cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl<W: Write> Recorder<W> {
    /// A new recording in `out`.
    pub fn new(mut out: W, head: &Head) -> Result<Recorder<W>, RecordError> {
        out.write_all(&head.line()?)?;
        out.flush()?;
        Ok(Recorder { out, next: 0 })
    }

    /// Stores `sample`.
    pub fn store(&mut self, sample: &Sample) -> Result<(), RecordError> {
        let line = line(self.next, sample)?;
        self.next += 1;
        self.out.write_all(&line)?;
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture;

    #[test]
    fn a_line_says_what_was_sampled() {
        let snapshot = Box::new(fixture::snapshot(7));
        for what in [What::Snapshot(snapshot), What::Lost("gone: \"x\"\n".into())] {
            let sample = Sample { at: 1_760_000_000_123_456_789, what };
            let line = line(12, &sample).unwrap();
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            assert_eq!(peek(&line), Some((12, sample.at)));
            assert_eq!(parse(&line), Some(sample));
        }
    }

    #[test]
    fn what_is_no_sample_is_none() {
        let whole = line(1, &Sample { at: 2, what: What::Lost("x".into()) }).unwrap();
        for cut in 1..whole.len() - 1 {
            assert_eq!(parse(&whole[..cut]), None, "a head of a line");
            assert_eq!(parse(&whole[cut..]), None, "a tail of a line");
        }
        assert_eq!(parse(b"{\"n\":1,\"at\":2}"), None);
        assert_eq!(peek(b"{\"n\":99999999999999999999,\"at\":1"), None);
    }
}
