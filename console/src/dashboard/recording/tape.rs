//! The samples a player can go to: those of a recording, or the last ones of a live session.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Head, MAX_LINE, VERSION, line, parse, parse_marks, peek};
use crate::dashboard::source::Sample;

/// A live session remembers at most this much of itself.
const LIVE_BYTES: usize = 64 << 20;
/// And at most this many samples: an hour of them.
const LIVE_SAMPLES: usize = 3_600;

/// Why a recording cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// The first line is not that of a recording.
    #[error("no recording of highwater: its first line does not say so")]
    Foreign,
    /// Written by a later release.
    #[error("recording version {found} is newer than {VERSION}, the newest known here")]
    Newer {
        /// The version it has.
        found: u32,
    },
    /// Nothing in it.
    #[error("there is no sample in it")]
    Empty,
}

/// Samples by index. Indices do not change: a live session that forgets its oldest samples begins later.
#[derive(Debug)]
pub enum Tape {
    /// What a live session remembers of itself.
    Live(Live),
    /// A recording.
    Recorded(Recorded),
}

/// See [`Tape::Live`].
#[derive(Debug, Default)]
pub struct Live {
    first: usize,
    /// Received when, and stored as this line.
    lines: VecDeque<(u64, Box<[u8]>)>,
    bytes: usize,
}

/// See [`Tape::Recorded`].
#[derive(Debug)]
pub struct Recorded {
    /// What the recording says of itself.
    pub head: Head,
    /// Lines that were no samples, such as one that a killed process left unfinished.
    pub skipped: usize,
    /// The samples that were marked, by when they were received, nanoseconds since 1970 UTC.
    pub marks: Vec<u64>,
    file: File,
    /// In the order of their numbers.
    index: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    n: u64,
    at: u64,
    offset: u64,
    length: usize,
}

impl Tape {
    /// An empty one for a live session.
    pub fn live() -> Tape {
        Tape::Live(Live::default())
    }

    /// The recording at `path`; `-` is standard input, which is read to its end first.
    pub fn open(path: &Path) -> Result<Tape, TapeError> {
        if path == Path::new("-") {
            let mut file = tempfile::tempfile()?;
            io::copy(&mut io::stdin().lock(), &mut file)?;
            file.flush()?;
            return Recorded::read(file).map(Tape::Recorded);
        }
        Recorded::read(File::open(path)?).map(Tape::Recorded)
    }

    /// Index of the oldest sample.
    pub fn first(&self) -> usize {
        match self {
            Tape::Live(live) => live.first,
            Tape::Recorded(_) => 0,
        }
    }

    /// Index after the newest one.
    pub fn end(&self) -> usize {
        match self {
            Tape::Live(live) => live.first + live.lines.len(),
            Tape::Recorded(recorded) => recorded.index.len(),
        }
    }

    /// When the sample of this index was received, nanoseconds since 1970 UTC.
    pub fn at(&self, index: usize) -> Option<u64> {
        match self {
            Tape::Live(live) => live.lines.get(index.checked_sub(live.first)?).map(|line| line.0),
            Tape::Recorded(recorded) => recorded.index.get(index).map(|entry| entry.at),
        }
    }

    /// The sample of this index; `None` if there is none, or it cannot be read any more.
    pub fn get(&self, index: usize) -> Option<Sample> {
        match self {
            Tape::Live(live) => parse(&live.lines.get(index.checked_sub(live.first)?)?.1),
            Tape::Recorded(recorded) => recorded.get(index),
        }
    }

    /// When the marked samples of a recording were received, nanoseconds since 1970 UTC.
    pub fn marks(&self) -> &[u64] {
        match self {
            Tape::Live(_) => &[],
            Tape::Recorded(recorded) => &recorded.marks,
        }
    }

    /// Index of the last sample received at or before `at`, or the oldest.
    pub fn find(&self, at: u64) -> usize {
        let (mut low, mut high) = (self.first(), self.end());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle).is_some_and(|t| t <= at) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1).max(self.first())
    }

    /// Adds the newest sample of a live session; a recording stays as it is.
    pub fn push(&mut self, sample: &Sample) {
        let Tape::Live(live) = self else { return };
        // A snapshot is JSON by its type; if it were not, it would only be missing when going back.
        let Ok(line) = line(0, sample) else { return };
        live.bytes += line.len();
        live.lines.push_back((sample.at, line.into_boxed_slice()));
        while live.bytes > LIVE_BYTES || live.lines.len() > LIVE_SAMPLES {
            let Some((_, oldest)) = live.lines.pop_front() else { return };
            live.bytes -= oldest.len();
            live.first += 1;
        }
    }
}

impl Recorded {
    /// Reads the whole file once to know where its samples are.
    fn read(mut file: File) -> Result<Recorded, TapeError> {
        file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut bytes = Vec::new();
        let mut offset = next_line(&mut reader, &mut bytes)? as u64;
        let head: Head = serde_json::from_slice(&bytes).map_err(|_| TapeError::Foreign)?;
        if head.highwater_recording > VERSION {
            return Err(TapeError::Newer { found: head.highwater_recording });
        }
        let (mut index, mut skipped, mut marks) = (Vec::new(), 0, Vec::new());
        loop {
            let length = next_line(&mut reader, &mut bytes)?;
            if length == 0 {
                break;
            }
            // Whole lines only: what comes after an unfinished one is looked at by itself.
            match peek(&bytes).filter(|_| bytes.ends_with(b"}\n")) {
                Some((n, at)) => index.push(Entry { n, at, offset, length }),
                None => match parse_marks(&bytes) {
                    Some(last) => marks = last,
                    None => skipped += usize::from(bytes != b"\n"),
                },
            }
            offset += length as u64;
        }
        index.sort_by_key(|entry| entry.n);
        if index.is_empty() {
            return Err(TapeError::Empty);
        }
        drop(reader);
        Ok(Recorded { head, skipped, marks, file, index })
    }

    fn get(&self, index: usize) -> Option<Sample> {
        let entry = self.index.get(index)?;
        let mut line = vec![0; entry.length];
        self.file.read_exact_at(&mut line, entry.offset).ok()?;
        parse(&line)
    }
}

/// The next line into `bytes`, and its length; 0 at the end. What is longer than a line can be ends there.
pub(super) fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<usize> {
    bytes.clear();
    reader.take(MAX_LINE as u64).read_until(b'\n', bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture;
    use crate::dashboard::player::Player;
    use crate::dashboard::recording::{Recorder, keep_marks};
    use crate::dashboard::source::What;

    fn sample(at: u64) -> Sample {
        Sample { at, what: What::Snapshot(Box::new(fixture::snapshot(at))) }
    }

    fn recording(samples: u64) -> (tempfile::NamedTempFile, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut recorder = Recorder::new(&mut bytes, &Head::new("test", 1)).unwrap();
        (1..=samples).for_each(|at| recorder.store(&sample(at)).unwrap());
        (tempfile::NamedTempFile::new().unwrap(), bytes)
    }

    #[test]
    fn a_recording_cut_anywhere_keeps_its_whole_samples() {
        let (file, bytes) = recording(3);
        let ends: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
        for cut in (0..bytes.len()).step_by(97).chain(ends.iter().copied()) {
            std::fs::write(file.path(), &bytes[..cut]).unwrap();
            let whole = ends[1..].iter().filter(|end| **end <= cut).count();
            match Tape::open(file.path()) {
                Ok(tape) => {
                    assert_eq!(tape.end(), whole);
                    for index in 0..whole {
                        assert_eq!(tape.get(index), Some(sample(index as u64 + 1)));
                    }
                }
                Err(TapeError::Empty) => assert_eq!(whole, 0),
                Err(TapeError::Foreign) => assert!(cut < ends[0]),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn what_is_no_recording_is_said_to_be_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"highwater_recording\":2}\n").unwrap();
        assert!(matches!(Tape::open(file.path()), Err(TapeError::Newer { found: 2 })));
        std::fs::write(file.path(), "hello\n").unwrap();
        assert!(matches!(Tape::open(file.path()), Err(TapeError::Foreign)));
        assert!(matches!(Tape::open(Path::new("/nonexistent")), Err(TapeError::Io(_))));
    }

    #[test]
    fn damaged_lines_are_passed_over_and_samples_are_found_by_time() {
        let (file, mut bytes) = recording(9);
        bytes.extend_from_slice(b"{\"n\":9,\"at\":10,\"snaps");
        let damaged = String::from_utf8(bytes).unwrap().replacen("{\"n\":4,", "{\"x\":4,", 1);
        std::fs::write(file.path(), damaged).unwrap();
        let tape = Tape::open(file.path()).unwrap();
        let Tape::Recorded(recorded) = &tape else { panic!() };
        assert_eq!((tape.end(), recorded.skipped), (8, 2));
        assert_eq!(tape.at(tape.find(4)), Some(4));
        assert_eq!(tape.at(tape.find(5)), Some(4));
        assert_eq!(tape.at(tape.find(0)), Some(1));
        assert_eq!(tape.at(tape.find(u64::MAX)), Some(9));
    }

    #[test]
    fn marks_are_kept_behind_whatever_is_there() {
        let (file, mut bytes) = recording(4);
        bytes.extend_from_slice(b"{\"n\":9,\"at\":10,\"snaps");
        std::fs::write(file.path(), bytes).unwrap();
        keep_marks(file.path(), vec![2]).unwrap();
        keep_marks(file.path(), vec![1, 3]).unwrap();
        let tape = Tape::open(file.path()).unwrap();
        let Tape::Recorded(recorded) = &tape else { panic!() };
        assert_eq!((tape.end(), recorded.skipped, tape.marks()), (4, 1, [1, 3].as_slice()));
        let player = Player::replay(tape);
        assert_eq!(player.marks().collect::<Vec<_>>(), [1, 3]);
        let recorder = File::open(file.path()).unwrap();
        recorder.try_lock().unwrap();
        assert!(keep_marks(file.path(), vec![]).is_err(), "it is being recorded");
    }

    #[test]
    fn a_live_session_forgets_its_oldest() {
        let mut tape = Tape::live();
        assert_eq!(tape.find(3), 0);
        for at in 0..LIVE_SAMPLES as u64 + 10 {
            tape.push(&Sample { at, what: What::Lost("x".into()) });
        }
        assert_eq!((tape.first(), tape.end()), (10, LIVE_SAMPLES + 10));
        assert_eq!(tape.get(9), None);
        assert_eq!(tape.get(10).map(|s| s.at), Some(10));
    }
}
