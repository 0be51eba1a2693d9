//! Files of records, one a line as JSON: what `replay --to FILE` keeps of a stream. A load run follows one: its times are
//! when records are due, its records are what is sent.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use highwater_process::record_line::{RecordLineError, arrival};
use highwater_wire::MAX_RECORD_CEILING;

/// Why a file of records cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("trace {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is held in memory.
    #[error("trace {} has {bytes} bytes; a file of records may have 1 GiB", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A line is no record.
    #[error("trace {}, line {line}: {error}", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        error: RecordLineError,
    },
    /// A line does not say when its record arrived, or is too long.
    #[error("trace {}, line {line}: it must be {limit}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is allowed.
        limit: &'static str,
    },
}

/// Most bytes of a file.
const MAX_FILE: u64 = 1 << 30;
/// Longest line: a largest record all of whose bytes are escaped, and what is around it.
const MAX_LINE: u64 = 6 * MAX_RECORD_CEILING as u64 + 4096;

/// Whether a file begins as one of records does, and not with the header of a trace of rates or times.
///
/// # Errors
/// When it cannot be read.
pub fn has_records(file: &Path) -> Result<bool, RecordingError> {
    let unreadable = |source| RecordingError::Read { file: file.to_owned(), source };
    let mut first = [0];
    let read = File::open(file).and_then(|mut open| open.read(&mut first)).map_err(unreadable)?;
    Ok(first[..read] == *b"{")
}

/// Calls `take` with the arrival (nanoseconds since 1970 UTC) and text of each line of a file of records.
pub(crate) fn each(
    file: &Path,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), RecordLineError>,
) -> Result<(), RecordingError> {
    let unreadable = |source| RecordingError::Read { file: file.to_owned(), source };
    let open = File::open(file).map_err(unreadable)?;
    let bytes = open.metadata().map_err(unreadable)?.len();
    if bytes > MAX_FILE {
        return Err(RecordingError::TooLarge { file: file.to_owned(), bytes });
    }
    // Should it grow under us.
    let mut text = BufReader::with_capacity(256 << 10, open).take(MAX_FILE);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = (&mut text).take(MAX_LINE + 1);
        if limited.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            break;
        }
        let wrong = |limit| RecordingError::Line { file: file.to_owned(), line: number, limit };
        if line.len() as u64 > MAX_LINE {
            return Err(wrong("a record of at most 10 MiB"));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let named = |error| RecordingError::Record { file: file.to_owned(), line: number, error };
        let at = arrival(line).map_err(named)?;
        let at = at.ok_or_else(|| wrong("a record that says when it arrived (\"arrival\")"))?;
        take(at, line).map_err(named)?;
    }
    Ok(())
}

/// When the records of a file arrived, in order.
pub(crate) fn arrivals(file: &Path) -> Result<Vec<u64>, RecordingError> {
    let mut times = Vec::new();
    each(file, |at, _| {
        times.push(at);
        Ok(())
    })?;
    // What was read of several shards at once is in no order; the records are put in the same one.
    times.sort_unstable();
    Ok(times)
}
