//! Reads trace files: rates over time, or the due times themselves.
//!
//! The first line that is neither empty nor a `#` comment names the columns, and so says which of three:
//!
//! * `rate`: a rate per line, each for one second.
//! * `time_s,rate`: the rate from that time on; the last line's lasts as long as the one's before it.
//! * `time_s`: a record is due then.
//!
//! Times are decimal seconds and count from the first line's; rates are records per second.
//!
//! A file that begins with `{` has whole records instead, which were due when they arrived.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::course::{Step, Steps};
use super::profile::{ScheduleError, TraceSpec};

/// What a file says.
#[derive(Debug)]
pub enum Trace {
    /// A rate that changes by steps, and repeats.
    Rates(Steps),
    /// Due times from the first on, sorted.
    Times(Vec<u64>),
}

/// Most lines: what is read is held in memory.
const MAX_LINES: usize = 20_000_000;
/// Longest line.
const MAX_LINE: usize = 4096;

const RATE: &str = "a number of records per second, 0 to 1000000000";
const TIME: &str = "a number of seconds, 0 or more, with at most 9 decimals";
const NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq)]
enum Columns {
    Rate,
    TimeRate,
    Time,
}

impl Columns {
    /// By a header line.
    fn named(line: &str) -> Option<Columns> {
        let names: Vec<&str> = line.split(',').map(str::trim).collect();
        match &names[..] {
            ["rate"] => Some(Columns::Rate),
            ["time_s", "rate"] => Some(Columns::TimeRate),
            ["time_s"] => Some(Columns::Time),
            _ => None,
        }
    }
}

/// Reads the file of `spec`, its speed applied.
pub fn read(spec: &TraceSpec) -> Result<Trace, ScheduleError> {
    if crate::has_records(&spec.file)? {
        let mut times = crate::recorded::arrivals(&spec.file)?;
        let first = times.first().copied().unwrap_or(0);
        times.iter_mut().for_each(|at| *at = sooner(*at - first, spec.speed));
        return times_of(times, &spec.file);
    }
    let unreadable = |source| ScheduleError::Read { file: spec.file.clone(), source };
    let file = File::open(&spec.file).map_err(unreadable)?;
    parse(BufReader::new(file), &spec.file, spec.speed)
}

/// Due times, from the first on.
fn times_of(times: Vec<u64>, file: &Path) -> Result<Trace, ScheduleError> {
    let problem = match times.last() {
        None | Some(0) => "fewer than two different times",
        Some(_) if times.len() > MAX_LINES => "more than 20000000 lines; split it",
        Some(_) => return Ok(Trace::Times(times)),
    };
    Err(ScheduleError::Whole { file: file.to_owned(), problem })
}

fn parse(mut text: impl BufRead, file: &Path, speed: f64) -> Result<Trace, ScheduleError> {
    let wrong = |line, field, value: &str, limit| ScheduleError::Line {
        file: file.to_owned(),
        line,
        field,
        value: value.chars().take(80).collect(),
        limit,
    };
    let whole = |problem| ScheduleError::Whole { file: file.to_owned(), problem };
    let mut columns = None;
    // Times from the first line's on, and rates; both or one of them.
    let (mut times, mut rates) = (Vec::new(), Vec::new());
    let mut first = None;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = std::io::Read::take(&mut text, MAX_LINE as u64 + 1);
        let read = limited.read_until(b'\n', &mut line);
        if read.map_err(|source| ScheduleError::Read { file: file.to_owned(), source })? == 0 {
            break;
        }
        let shown = String::from_utf8_lossy(&line);
        let shown = shown.trim();
        if line.len() > MAX_LINE {
            return Err(wrong(number, "line", shown, "at most 4096 bytes long"));
        }
        let Ok(content) = std::str::from_utf8(&line) else {
            return Err(wrong(number, "line", shown, "text"));
        };
        let content = content.trim().trim_start_matches('\u{feff}');
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let Some(kind) = columns else {
            let limit = "rate, time_s or time_s,rate";
            let named = Columns::named(content);
            columns = Some(named.ok_or_else(|| wrong(number, "header", content, limit))?);
            continue;
        };
        let (time, rate) = match (kind, content.split_once(',')) {
            (Columns::Rate, None) => (None, Some(content)),
            (Columns::Time, None) => (Some(content), None),
            (Columns::TimeRate, Some((time, rate))) => (Some(time.trim()), Some(rate.trim())),
            _ => return Err(wrong(number, "line", content, "as many values as the header names")),
        };
        if times.len().max(rates.len()) == MAX_LINES {
            return Err(whole("more than 20000000 lines; split it"));
        }
        if let Some(text) = time {
            let at = nanoseconds(text).ok_or_else(|| wrong(number, "time_s", text, TIME))?;
            let offset = at.checked_sub(*first.get_or_insert(at));
            // A step must take some time; records may be due at the same.
            let after = |last: u64, at: u64| if rate.is_some() { at > last } else { at >= last };
            match (offset, times.last()) {
                (Some(offset), None) => times.push(offset),
                (Some(offset), Some(last)) if after(*last, offset) => times.push(offset),
                _ => return Err(wrong(number, "time_s", text, "later than the line's before it")),
            }
        }
        if let Some(text) = rate {
            match text.parse::<f64>() {
                Ok(rate) if (0.0..=1e9).contains(&rate) => rates.push(rate),
                _ => return Err(wrong(number, "rate", text, RATE)),
            }
        }
    }
    times.iter_mut().for_each(|at| *at = sooner(*at, speed));
    match columns {
        None => Err(whole("no header line; the first line must be rate, time_s or time_s,rate")),
        Some(Columns::Time) => times_of(times, file),
        Some(kind) => {
            if kind == Columns::Rate {
                times = (0..rates.len() as u64).map(|i| sooner(i * NS, speed)).collect();
            }
            rates_of(&times, &rates, speed)
                .ok_or_else(|| whole("no rate above 0, or longer than 584 years: nothing is due"))
        }
    }
}

/// Rates that hold from these times on; `None` if nothing is due.
fn rates_of(times: &[u64], rates: &[f64], speed: f64) -> Option<Trace> {
    let lengths = lengths(times, sooner(NS, speed));
    let steps = lengths.zip(rates).map(|(length, rate)| Step::new(length, rate * speed));
    // Steps can become shorter than a nanosecond by speed: they vanish.
    let steps: Vec<Step> = steps.filter(|step| step.length_ns > 0).collect();
    Steps::new(steps).map(Trace::Rates)
}

/// Distances of successive times; the last as long as the one before it, or `alone` if it is the only.
fn lengths(times: &[u64], alone: u64) -> impl Iterator<Item = u64> + '_ {
    let last = match times {
        [.., before, last] => last - before,
        _ => alone,
    };
    times.windows(2).map(|pair| pair[1] - pair[0]).chain(std::iter::once(last))
}

fn sooner(at_ns: u64, speed: f64) -> u64 {
    // Times a run can reach are far below 2⁵³ ns, where a float holds each.
    if speed == 1.0 { at_ns } else { (at_ns as f64 / speed).round() as u64 }
}

/// Decimal seconds, exactly.
fn nanoseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10u64.pow(9 - fraction.len() as u32);
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(NS)?
        .checked_add(fraction.parse::<u64>().ok()?.checked_mul(scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str, speed: f64) -> Result<Trace, ScheduleError> {
        parse(text.as_bytes(), Path::new("t.csv"), speed)
    }

    fn steps(text: &str, speed: f64) -> Vec<(u64, u64)> {
        match trace(text, speed).unwrap() {
            Trace::Rates(steps) => steps.steps().iter().map(|s| (s.length_ns, s.rate)).collect(),
            Trace::Times(_) => panic!("times"),
        }
    }

    #[test]
    fn rates_by_the_second() {
        let text = "# made by hand\nrate\n100\n\n 0 \n2.5\n";
        assert_eq!(steps(text, 1.0), [(NS, 100 * NS), (NS, 0), (NS, 2_500_000_000)]);
        let half = NS / 2;
        assert_eq!(steps(text, 2.0), [(half, 200 * NS), (half, 0), (half, 5 * NS)]);
    }

    #[test]
    fn steps_and_times_count_from_the_first_line() {
        let text = "time_s,rate\n1700000000.25, 10\n1700000001, 20\r\n1700000003,30";
        let wanted = [(750_000_000, 10 * NS), (2 * NS, 20 * NS), (2 * NS, 30 * NS)];
        assert_eq!(steps(text, 1.0), wanted);
        match trace("time_s\n1700000000.000000001\n1700000000.000000001\n1700000001\n", 1.0) {
            Ok(Trace::Times(times)) => assert_eq!(times, [0, 0, NS - 1]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_line_value_and_limit() {
        let cases = [
            ("", "no header line"),
            ("# nothing\n", "no header line"),
            ("qps\n5\n", "line 1: header is \"qps\"; it must be rate, time_s or time_s,rate"),
            ("rate\n5\nfast\n", "line 3: rate is \"fast\""),
            ("rate\n-1\n", "line 2: rate is \"-1\"; it must be a number of records per second"),
            ("rate\nNaN\n", "line 2: rate is \"NaN\""),
            ("rate\n2000000000\n", "0 to 1000000000"),
            ("rate\n1,2\n", "as many values as the header names"),
            ("time_s,rate\n0,1\n0,2\n", "line 3: time_s is \"0\"; it must be later"),
            ("time_s\n3\n2\n", "line 3: time_s is \"2\""),
            ("time_s\n1e3\n", "at most 9 decimals"),
            ("time_s\n1\n", "fewer than two different times"),
            ("rate\n0\n0\n", "nothing is due"),
            ("rate\n", "nothing is due"),
        ];
        for (text, wanted) in cases {
            let said = trace(text, 1.0).unwrap_err().to_string();
            assert!(said.starts_with("trace t.csv") && said.contains(wanted), "{text:?}: {said}");
        }
        let long = format!("rate\n{}\n", "1".repeat(5000));
        assert!(trace(&long, 1.0).unwrap_err().to_string().contains("at most 4096 bytes"));
        assert!(parse(&b"rate\n\xff\n"[..], Path::new("t"), 1.0).is_err());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let spec = TraceSpec { file: "/nonexistent/trace.csv".into(), speed: 1.0 };
        let said = read(&spec).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/trace.csv"), "{said}");
    }
}
