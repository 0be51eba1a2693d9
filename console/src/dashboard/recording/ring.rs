//! The flight recorder's file: a recording of bounded size that is never rewritten, only overwritten from the front.
//!
//! Lines are appended until the oldest one is no longer wanted, then they take the places of the oldest. An
//! overwritten line leaves a rest behind that is no sample (the tail of a JSON object is none), which readers pass
//! over; their order comes from the numbers. A kill leaves one unfinished line at most.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use super::tape::{TapeError, next_line};
use super::{Head, RecordError, VERSION, line, parse_marks, peek};
use crate::dashboard::source::Sample;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Samples younger than this are not overwritten while `bytes` allows it.
    pub time: Duration,
    /// Size of the file at most, bytes.
    pub bytes: u64,
}

/// The file.
#[derive(Debug)]
pub struct Ring {
    file: File,
    keep: Keep,
    /// After the head.
    start: u64,
    /// Where the next line goes.
    cursor: u64,
    /// End of the file.
    end: u64,
    next: u64,
    /// Lines from `cursor` on, by place: those that will be overwritten, each with its offset and time.
    ahead: VecDeque<(u64, u64)>,
    /// Lines before `cursor`, by place.
    behind: VecDeque<(u64, u64)>,
}

/// Why a flight recorder's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// It is there and is no recording, or cannot be read.
    #[error(transparent)]
    Tape(#[from] TapeError),
    /// It cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Another recorder writes it.
    #[error("another recorder writes this file")]
    Busy,
}

impl From<io::Error> for RingError {
    fn from(error: io::Error) -> RingError {
        RingError::Record(error.into())
    }
}

impl Ring {
    /// The file at `path`, which goes on if it is there. Locked for as long as this value lives.
    pub fn open(path: &Path, head: &Head, keep: Keep) -> Result<Ring, RingError> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.try_lock().is_err() {
            return Err(RingError::Busy);
        }
        let mut ring = Ring {
            file,
            keep,
            start: 0,
            cursor: 0,
            end: 0,
            next: 0,
            ahead: VecDeque::new(),
            behind: VecDeque::new(),
        };
        if ring.file.metadata()?.len() == 0 {
            let line = head.line().map_err(RecordError::from)?;
            ring.file.write_all_at(&line, 0)?;
            (ring.start, ring.cursor, ring.end) =
                (line.len() as u64, line.len() as u64, line.len() as u64);
        } else {
            ring.scan()?;
        }
        Ok(ring)
    }

    /// Finds the lines of a file that is there; the next one goes after the newest.
    fn scan(&mut self) -> Result<(), RingError> {
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let mut bytes = Vec::new();
        let mut offset = next_line(&mut reader, &mut bytes)? as u64;
        let head: Head = serde_json::from_slice(&bytes).map_err(|_| TapeError::Foreign)?;
        if head.highwater_recording != VERSION {
            return Err(TapeError::Newer { found: head.highwater_recording }.into());
        }
        self.start = offset;
        let mut newest = None;
        let mut lines = Vec::new();
        loop {
            let length = next_line(&mut reader, &mut bytes)? as u64;
            if length == 0 {
                break;
            }
            if let Some((n, at)) = peek(&bytes).filter(|_| bytes.ends_with(b"}\n")) {
                if newest.is_none_or(|(newest, _)| n > newest) {
                    newest = Some((n, offset + length));
                }
                lines.push((offset, at));
            } else if let Some((_, end)) = &mut newest
                && *end == offset
                && parse_marks(&bytes).is_some()
            {
                // Marks put behind the newest sample stay until their place is needed.
                *end = offset + length;
            }
            offset += length;
        }
        drop(reader);
        self.end = offset;
        (self.next, self.cursor) = newest.map_or((0, self.start), |(n, end)| (n + 1, end));
        // An unfinished line at the end has no newline; what follows must not become part of it.
        let split = lines.partition_point(|(offset, _)| *offset < self.cursor);
        self.ahead = lines.split_off(split).into();
        self.behind = lines.into();
        if self.ahead.is_empty() {
            self.file.set_len(self.cursor)?;
            self.end = self.cursor;
        }
        Ok(())
    }

    /// Stores `sample`.
    pub fn store(&mut self, sample: &Sample) -> Result<(), RecordError> {
        let line = line(self.next, sample)?;
        let length = line.len() as u64;
        let horizon = sample.at.saturating_sub(as_ns(self.keep.time));
        self.place(length, horizon);
        // The rest of what is overwritten in part begins in mid-line: no sample, and its newline ends it.
        while self.ahead.front().is_some_and(|(offset, _)| *offset < self.cursor + length) {
            self.ahead.pop_front();
        }
        self.file.write_all_at(&line, self.cursor)?;
        self.behind.push_back((self.cursor, sample.at));
        self.cursor += length;
        self.end = self.end.max(self.cursor);
        self.next += 1;
        Ok(())
    }

    /// Where a line of this length goes: on from here while the place is free or taken by what is old enough; else on
    /// at the end while the file may grow; and back to the front when what is there is old enough, or no more room.
    fn place(&mut self, length: u64, horizon: u64) {
        let limit = self.start.saturating_add(self.keep.bytes);
        let fits = |at: u64| at.saturating_add(length) <= limit;
        if self.cursor < self.end
            && fits(self.end)
            && young(&self.ahead, self.cursor + length, horizon)
        {
            self.behind.append(&mut self.ahead);
            self.cursor = self.end;
        }
        let round = match self.cursor < self.end {
            true => !fits(self.cursor),
            false => {
                let front = self.start + length;
                !fits(self.cursor)
                    || (!self.behind.is_empty() && !young(&self.behind, front, horizon))
            }
        };
        if round {
            self.behind.append(&mut self.ahead);
            std::mem::swap(&mut self.ahead, &mut self.behind);
            self.cursor = self.start;
        }
    }
}

/// Whether one of `lines` that begin before `end` is too young to lose.
fn young(lines: &VecDeque<(u64, u64)>, end: u64, horizon: u64) -> bool {
    lines.iter().take_while(|(offset, _)| *offset < end).any(|(_, at)| *at >= horizon)
}

fn as_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::recording::Tape;
    use crate::dashboard::source::What;

    const SECOND: u64 = 1_000_000_000;

    fn sample(second: u64, size: usize) -> Sample {
        Sample { at: second * SECOND, what: What::Lost("x".repeat(size)) }
    }

    fn seconds(path: &Path) -> Vec<u64> {
        let tape = Tape::open(path).unwrap();
        (0..tape.end()).map(|i| tape.get(i).unwrap().at / SECOND).collect()
    }

    fn keep(seconds: u64, bytes: u64) -> Keep {
        Keep { time: Duration::from_secs(seconds), bytes }
    }

    #[test]
    fn it_keeps_the_time_asked_for_and_little_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let head = Head::new("test", 0);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut now = 0;
        // Stopped and started again now and then; lines of all sizes.
        for _ in 0..20 {
            let mut ring = Ring::open(file.path(), &head, keep(50, 1 << 20)).unwrap();
            for _ in 0..rng.u64(1..60) {
                now += 1;
                ring.store(&sample(now, rng.usize(0..300))).unwrap();
            }
            let kept = seconds(file.path());
            assert!(kept.is_sorted() && kept.last() == Some(&now), "{kept:?}");
            // Every sample younger than what is to be kept is there.
            let from = now.saturating_sub(50).max(1);
            for second in from + 1..=now {
                assert!(kept.contains(&second), "{second} is missing at {now}: {kept:?}");
            }
        }
        let size = std::fs::metadata(file.path()).unwrap().len();
        assert!(now > 300 && size < 60_000, "{size} bytes after {now} samples");
    }

    #[test]
    fn its_size_is_bounded_and_the_newest_survive() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let head = Head::new("test", 0);
        let mut ring = Ring::open(file.path(), &head, keep(1_000_000, 4_000)).unwrap();
        let mut rng = fastrand::Rng::with_seed(8);
        for now in 1..500 {
            ring.store(&sample(now, rng.usize(0..400))).unwrap();
            let kept = seconds(file.path());
            assert!(kept.is_sorted() && kept.last() == Some(&now));
        }
        assert!(std::fs::metadata(file.path()).unwrap().len() < 4_600);
    }

    #[test]
    fn a_kill_costs_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let head = Head::new("test", 0);
        let mut ring = Ring::open(file.path(), &head, keep(1_000, 1 << 20)).unwrap();
        (1..5).for_each(|now| ring.store(&sample(now, 50)).unwrap());
        assert!(matches!(
            Ring::open(file.path(), &head, keep(1_000, 1 << 20)),
            Err(RingError::Busy)
        ));
        drop(ring);
        let length = std::fs::metadata(file.path()).unwrap().len();
        File::options().write(true).open(file.path()).unwrap().set_len(length - 7).unwrap();
        let mut ring = Ring::open(file.path(), &head, keep(1_000, 1 << 20)).unwrap();
        ring.store(&sample(9, 50)).unwrap();
        drop(ring);
        assert_eq!(seconds(file.path()), [1, 2, 3, 9]);
        std::fs::write(file.path(), "something else\n").unwrap();
        assert!(matches!(
            Ring::open(file.path(), &head, keep(1, 1)),
            Err(RingError::Tape(TapeError::Foreign))
        ));
    }
}
