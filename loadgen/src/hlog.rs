//! The latency log of a run: histograms by interval, in HdrHistogram's own V2 log format.
//!
//! One line per interval and distribution, tagged with its name in `latency_us`; values are nanoseconds,
//! the third column (the interval's largest, for people) milliseconds. Any HdrHistogram log reader takes
//! it. Written here line by line, so that a run that is killed leaves what it had.
//!
//! Our own reader ([`read`]) merges as it goes: a histogram is a quarter of a megabyte, and a day has half
//! a million of them. What it keeps is the sum of each distribution, and its ten-second blocks.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, LogEntry,
};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::stats::{BLOCK_S, Counted};

/// Bytes of a line, and of a decoded histogram, that are believed: more than any histogram of ours has.
const LONGEST: u64 = 64 << 20;

/// Why a histogram could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode the histogram {tag}: {message}")]
pub struct EncodeError {
    /// Which distribution.
    pub tag: String,
    /// What the encoder said.
    pub message: String,
}

/// Why a log could not be read. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read.
    #[error("line {line}: {source}")]
    Io {
        /// Which line.
        line: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither a comment nor an interval.
    #[error("line {line} is no line of a histogram log")]
    Syntax {
        /// Which line.
        line: usize,
    },
    /// No start time before the first interval: nobody can say when that was.
    #[error("line {line}: there is no StartTime before the first interval")]
    NoStart {
        /// Which line.
        line: usize,
    },
    /// An interval that is not from this program: our lines are tagged.
    #[error("line {line}: the interval has no tag")]
    NoTag {
        /// Which line.
        line: usize,
    },
    /// A histogram that is damaged.
    #[error("line {line} ({tag}): {message}")]
    Histogram {
        /// Which line.
        line: usize,
        /// Its tag.
        tag: String,
        /// What the decoder said.
        message: String,
    },
}

/// Writes lines of a log.
pub struct Encoder {
    start_ns: u64,
    serializer: V2DeflateSerializer,
    encoded: Vec<u8>,
}

impl Encoder {
    /// Begins a log at `start_ns` (nanoseconds since 1970 UTC): appends its first lines to `out`.
    pub fn new(start_ns: u64, out: &mut Vec<u8>) -> Encoder {
        // The log has milliseconds. Later times count from what it says, not from what it left out.
        let start_ms = start_ns / 1_000_000;
        let start = format!("{}.{:03}", start_ms / 1000, start_ms % 1000);
        let header = format!(
            "#[Histogram log format version 1.3]\n\
             #[StartTime: {start} (seconds since epoch)]\n\
             #[BaseTime: {start} (seconds since epoch)]\n\
             #[MaxValueDivisor: 1000000.0]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
        );
        out.extend_from_slice(header.as_bytes());
        Encoder {
            start_ns: start_ms * 1_000_000,
            serializer: V2DeflateSerializer::new(),
            encoded: Vec::new(),
        }
    }

    /// Appends an interval to `out`; nothing if the histogram is empty. Times are nanoseconds since 1970
    /// UTC; `tag` has no commas, blanks or line breaks.
    pub fn interval(
        &mut self,
        tag: &str,
        start_ns: u64,
        end_ns: u64,
        histogram: &Histogram<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if histogram.is_empty() {
            return Ok(());
        }
        let failed = |message| EncodeError { tag: tag.to_owned(), message };
        self.encoded.clear();
        self.serializer
            .serialize(histogram, &mut self.encoded)
            .map_err(|error| failed(error.to_string()))?;
        let from = Duration::from_nanos(start_ns.saturating_sub(self.start_ns)).as_secs_f64();
        let length = Duration::from_nanos(end_ns.saturating_sub(start_ns)).as_secs_f64();
        let max_ms = histogram.max() as f64 / 1e6;
        let encoded = STANDARD.encode(&self.encoded);
        writeln!(out, "Tag={tag},{from:.3},{length:.3},{max_ms:.3},{encoded}")
            .map_err(|error| failed(error.to_string()))
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("start_ns", &self.start_ns).finish_non_exhaustive()
    }
}

/// One distribution of a run.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in `latency_us`.
    pub name: String,
    /// All of it, in nanoseconds.
    pub total: Histogram<u64>,
    /// By blocks of [`BLOCK_S`], from the beginning of the measured window; a block without values is empty.
    pub blocks: Vec<Counted>,
}

/// Which block an interval belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// When the measured window began, nanoseconds since 1970 UTC.
    pub start_ns: u64,
    /// How many blocks there are, at least 1. What came later (acknowledgements after the window's end)
    /// belongs to the last, what came earlier to the first.
    pub blocks: usize,
}

impl Grid {
    /// Of a window of `duration_s` seconds: its whole blocks. What is left over belongs to the last.
    pub fn new(start_ns: u64, duration_s: f64) -> Grid {
        // `as` saturates; a year has three million blocks.
        Grid { start_ns, blocks: ((duration_s / BLOCK_S) as usize).clamp(1, 1 << 22) }
    }

    /// The block of the moment `since_s` seconds after the beginning.
    pub fn block(&self, since_s: f64) -> usize {
        ((since_s / BLOCK_S).max(0.0) as usize).min(self.blocks - 1)
    }
}

/// Reads a log and merges it. Distributions come in the order in which the log first names them. A last line
/// that was cut off in the middle is left out.
pub fn read(mut log: impl BufRead, grid: Grid) -> Result<Vec<Series>, LogError> {
    let mut merger = Merger { grid, base: None, start: None, all: Vec::new() };
    let (mut decoder, mut bytes, mut line) = (Deserializer::new(), Vec::new(), 0);
    loop {
        line += 1;
        bytes.clear();
        log.by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut bytes)
            .map_err(|source| LogError::Io { line, source })?;
        if bytes.last() != Some(&b'\n') {
            // The end, or what a killed run left of a line; a line without end is neither.
            let too_long = bytes.len() as u64 == LONGEST;
            return if too_long { Err(LogError::Syntax { line }) } else { Ok(merger.finish()) };
        }
        // None for comments and the legend.
        for entry in IntervalLogIterator::new(&bytes) {
            match entry.map_err(|_| LogError::Syntax { line })? {
                LogEntry::StartTime(time) => merger.start = Some(time),
                LogEntry::BaseTime(time) => merger.base = Some(time),
                LogEntry::Interval(interval) => merger.add(line, &interval, &mut decoder)?,
            }
        }
    }
}

/// Distributions while they are being gathered.
struct Merger {
    grid: Grid,
    start: Option<Duration>,
    base: Option<Duration>,
    all: Vec<(Series, BTreeMap<usize, Tally>)>,
}

impl Merger {
    fn add(
        &mut self,
        line: usize,
        interval: &IntervalLogHistogram<'_>,
        decoder: &mut Deserializer,
    ) -> Result<(), LogError> {
        let name = interval.tag().ok_or(LogError::NoTag { line })?.as_str();
        let begin = self.base.or(self.start).ok_or(LogError::NoStart { line })?;
        let damaged = |message| LogError::Histogram { line, tag: name.to_owned(), message };
        let histogram = decode(decoder, interval.encoded_histogram()).map_err(damaged)?;

        let origin = Duration::from_nanos(self.grid.start_ns).as_secs_f64();
        // The middle: intervals and blocks do not begin at the same moment.
        let at = (begin.as_secs_f64() - origin)
            + interval.start_timestamp().as_secs_f64()
            + interval.duration().as_secs_f64() / 2.0;
        let known = self.all.iter().position(|(series, _)| series.name == name);
        let index = known.unwrap_or_else(|| {
            let total = Histogram::new_from(&histogram);
            let series = Series { name: name.to_owned(), total, blocks: Vec::new() };
            self.all.push((series, BTreeMap::new()));
            self.all.len() - 1
        });
        let (series, blocks) = &mut self.all[index];
        series.total.add(&histogram).map_err(|error| damaged(error.to_string()))?;
        blocks.entry(self.grid.block(at)).or_default().add(&histogram);
        Ok(())
    }

    fn finish(self) -> Vec<Series> {
        let whole = |(mut series, mut blocks): (Series, BTreeMap<usize, Tally>)| {
            let mut block = |index| blocks.remove(&index).unwrap_or_default().into_counted();
            series.blocks = (0..self.grid.blocks).map(&mut block).collect();
            series
        };
        self.all.into_iter().map(whole).collect()
    }
}

/// Values and how often, while they are being gathered.
#[derive(Default)]
struct Tally(BTreeMap<u64, u64>);

impl Tally {
    fn add(&mut self, histogram: &Histogram<u64>) {
        for step in histogram.iter_recorded() {
            let count = self.0.entry(step.value_iterated_to()).or_default();
            *count = count.saturating_add(step.count_at_value());
        }
    }

    fn into_counted(self) -> Counted {
        Counted::sorted(self.0.into_iter().collect())
    }
}

/// A histogram from a log's last column, in words what is wrong with it.
///
/// Unpacked here rather than by the decoder, which reserves whatever length a damaged one claims.
fn decode(decoder: &mut Deserializer, text: &str) -> Result<Histogram<u64>, String> {
    let packed = STANDARD.decode(text).map_err(|error| error.to_string())?;
    // Cookie and length of what is compressed, then that.
    let deflated = packed.get(8..).ok_or("too short")?;
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(LONGEST)
        .read_to_end(&mut plain)
        .map_err(|error| error.to_string())?;
    let claimed: [u8; 4] =
        plain.get(4..8).and_then(|bytes| bytes.try_into().ok()).ok_or("too short")?;
    if u64::from(u32::from_be_bytes(claimed)) > plain.len() as u64 {
        return Err("shorter than it says".to_owned());
    }
    decoder.deserialize(&mut plain.as_slice()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::Distribution;

    /// Begins in the middle of a millisecond, on purpose.
    const START: u64 = 1_700_000_000_123_456_789;
    const SECOND: u64 = 1_000_000_000;

    fn histogram(seed: u64, values: usize) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..values {
            let ns = 50_000.0 * (-(1.0 - random.f64()).ln() * 4.0).exp();
            histogram.saturating_record(ns as u64);
        }
        histogram
    }

    /// `seconds` of two distributions, and the sum of the first.
    fn log(seconds: u64) -> (Vec<u8>, Histogram<u64>) {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(START, &mut out);
        let mut total = histogram(0, 0);
        for second in 0..seconds {
            let (from, to) = (START + second * SECOND, START + (second + 1) * SECOND);
            let response = histogram(second, 1000);
            total.add(&response).unwrap();
            encoder.interval("response", from, to, &response, &mut out).unwrap();
            let late = histogram(second, (second % 2) as usize);
            encoder.interval("send_lag", from, to, &late, &mut out).unwrap();
        }
        (out, total)
    }

    #[test]
    fn a_log_begins_as_javas_writer_begins_it_and_has_no_empty_lines() {
        let (out, _) = log(4);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "#[Histogram log format version 1.3]");
        assert_eq!(lines[1], "#[StartTime: 1700000000.123 (seconds since epoch)]");
        assert!(lines[4].starts_with("\"StartTimestamp\",\"Interval_Length\","));
        assert_eq!(lines.len(), 5 + 4 + 2, "an interval without values is not written");
        assert!(lines[5].starts_with("Tag=response,0.000,1.000,"), "{}", lines[5]);
        assert!(lines[6].starts_with("Tag=response,1.000,1.000,"), "{}", lines[6]);
        assert!(lines[5].contains(",HISTFAAA"), "{}", lines[5]);
    }

    #[test]
    fn what_was_written_is_read_merged_by_name_and_block() {
        let (out, total) = log(35);
        let series = read(out.as_slice(), Grid::new(START, 35.0)).unwrap();
        let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["response", "send_lag"]);
        let response = &series[0];
        assert_eq!(response.total, total);
        let counts: Vec<u64> = response.blocks.iter().map(Counted::count).collect();
        assert_eq!(counts, [10_000, 10_000, 15_000], "what is left over belongs to the last");
        assert_eq!(series[1].total.len(), 17);
        let all = Counted::merged(&response.blocks);
        let of_blocks = Distribution::of(&total);
        for (quantile, us) in
            [(0.5, of_blocks.p50), (0.99, of_blocks.p99), (0.9999, of_blocks.p9999)]
        {
            assert_eq!(all.quantile(quantile).map(|ns| ns as f64 / 1e3), Some(us));
        }
    }

    #[test]
    fn intervals_outside_the_window_belong_to_its_ends() {
        let (out, _) = log(5);
        let early = read(out.as_slice(), Grid::new(START + 100 * SECOND, 30.0)).unwrap();
        assert_eq!(early[0].blocks.iter().map(Counted::count).collect::<Vec<_>>(), [5000, 0, 0]);
        let late = read(out.as_slice(), Grid::new(START - 100 * SECOND, 30.0)).unwrap();
        assert_eq!(late[0].blocks.iter().map(Counted::count).collect::<Vec<_>>(), [0, 0, 5000]);
        assert_eq!(Grid::new(0, f64::NAN).blocks, 1);
        assert_eq!(Grid::new(0, f64::INFINITY).block(f64::INFINITY), (1 << 22) - 1);
    }

    #[test]
    fn a_log_cut_off_anywhere_is_read_up_to_there() {
        let (out, _) = log(2);
        for end in 0..out.len() {
            let series = read(&out[..end], Grid::new(START, 2.0)).unwrap();
            let records: u64 = series.iter().map(|series| series.total.len()).sum();
            assert!(records <= 2001, "{records}");
        }
    }

    #[test]
    fn what_is_no_log_is_refused_with_the_place() {
        let grid = Grid::new(START, 10.0);
        let said = |log: &str| read(log.as_bytes(), grid).unwrap_err().to_string();
        assert!(said("#[x]\nhello\n").contains("line 2"));
        assert!(said("Tag=a,0.0,1.0,1.0,HISTFAAA\n").contains("StartTime"));
        let start = "#[StartTime: 1.0 (seconds since epoch)]\n";
        assert!(
            said(&format!("{start}0.0,1.0,1.0,HISTFAAA\n"))
                .contains("line 2: the interval has no tag")
        );
        for damaged in ["HISTFAAA", "!", "", "HISTFAAAAAR42g=="] {
            let said = said(&format!("{start}Tag=a,0.0,1.0,1.0,{damaged}\n"));
            assert!(said.contains("line 2 (a)"), "{said}");
        }
        assert!(read(&b""[..], grid).unwrap().is_empty());
    }

    #[test]
    fn no_flipped_byte_makes_the_reader_fail_but_by_its_error() {
        let (out, _) = log(1);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut damaged = out.clone();
            let at = random.usize(..damaged.len());
            damaged[at] = random.u8(..);
            let _any_answer = read(damaged.as_slice(), Grid::new(START, 1.0));
        }
    }

    /// The log as a public reader sees it: PyPI's `hdrhistogram`. Skipped where that is not installed.
    #[test]
    fn a_public_reader_finds_the_same_percentiles() {
        const READER: &str = "
import sys
try:
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader
except ImportError as e:
    print('missing', e); sys.exit(0)
total = HdrHistogram(1, 3600000000000, 3)
log = HistogramLogReader(sys.argv[1], total)
n = 0
while True:
    one = log.get_next_interval_histogram()
    if one is None: break
    if one.get_tag() == 'response':
        total.add(one); n += 1
print('read', n, log.get_start_time_sec(), total.get_total_count(), total.get_max_value(),
      *[total.get_value_at_percentile(p) for p in (50, 90, 99, 99.9, 99.99)])
";
        let (out, total) = log(12);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latency.hlog");
        std::fs::write(&path, out).unwrap();
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let output = match Command::new(&python).arg("-c").arg(READER).arg(&path).output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("skipped: no {}: {error}", python.display());
                return;
            }
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(what) = said.strip_prefix("missing") {
            eprintln!("skipped: PyPI's hdrhistogram is not installed:{}", what.trim_end());
            return;
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let at = |quantile| total.value_at_quantile(quantile);
        let expected = format!(
            "read 12 1700000000.123 {} {} {} {} {} {} {}\n",
            total.len(),
            total.max(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(0.9999)
        );
        assert_eq!(said, expected);
    }
}
