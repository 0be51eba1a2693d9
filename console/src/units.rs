//! Numbers as people write them: sizes (`1KiB`, `64K`), rates (`20k`, `max`), durations (`500ms`), factors (`2.5x`),
//! shares (`3%`), lists of cores.
//!
//! Sizes follow GNU: `K` and `KiB` are 1,024 bytes, `kB` and `KB` 1,000. (The usual crates read `64K` as 64,000,
//! which is not what anyone means by a buffer of 64K.) In rates `k` is 1,000.

use std::time::Duration;

use highwater_loadgen::units::{self, split};

/// Why a value was refused. The flag and the value are named by the parser of the command line.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// No number in front, or more than a number and a unit.
    #[error("not a {what}; write {examples}")]
    Form {
        /// What was expected.
        what: &'static str,
        /// What it looks like.
        examples: &'static str,
    },
    /// A unit that is not known.
    #[error("unit {unit:?} is not known; write {examples}")]
    Unit {
        /// As typed.
        unit: String,
        /// What it looks like.
        examples: &'static str,
    },
    /// Outside the limits.
    #[error("{value} is outside {min} to {max}")]
    Range {
        /// As understood.
        value: String,
        /// Smallest.
        min: String,
        /// Largest.
        max: String,
    },
    /// Not a whole number.
    #[error("not a whole number; write 10 or 1000")]
    Count,
    /// Not a rate that can be kept.
    #[error("{0} records per second; write more than 0, at most 1G, or max")]
    Rate(String),
    /// A core named twice.
    #[error("core {0} is named twice")]
    Twice(usize),
    /// Not a server's address.
    #[error("not HOST:PORT; write 127.0.0.1:7411 or [::1]:7411")]
    Target,
    /// Not a duration.
    #[error("not a duration ({0}); write 10s, 500ms or 1h")]
    Duration(#[from] humantime::DurationError),
}

const SIZES: &str = "1024, 64K, 1KiB, 4GiB or 10MB";
const RATES: &str = "20k, 1.5M, 500 or max";

/// A size in bytes.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Form { what: "size", examples: SIZES })?;
    let factor = units::size_unit(unit)
        .ok_or_else(|| UnitError::Unit { unit: unit.to_owned(), examples: SIZES })?;
    let bytes = number * factor;
    // Above 2^53 a float no longer holds every byte; nothing here is that large.
    if bytes > (1u64 << 53) as f64 {
        return Err(range(text, "0", "8PiB"));
    }
    Ok(bytes.round() as u64)
}

/// A size from 1 byte to 10 MiB: what a record may have.
pub fn record_size(text: &str) -> Result<u64, UnitError> {
    let limit = u64::from(highwater_wire::MAX_RECORD_CEILING);
    match size(text)? {
        bytes if (1..=limit).contains(&bytes) => Ok(bytes),
        bytes => Err(range(&format!("{bytes} bytes"), "1", "10MiB")),
    }
}

/// How many records a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As many as it takes.
    Max,
    /// So many.
    PerSecond(f64),
}

/// A rate in records per second, more than 0, or `max`.
pub fn rate(text: &str) -> Result<Rate, UnitError> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    // A rate has no sign; what would be one without it is outside of what is allowed.
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (number, unit) =
        split(unsigned).ok_or(UnitError::Form { what: "rate", examples: RATES })?;
    let factor = units::rate_unit(unit)
        .ok_or_else(|| UnitError::Unit { unit: unit.to_owned(), examples: RATES })?;
    let rate = number * factor;
    if rate <= 0.0 || rate > 1e9 || unsigned != text {
        Err(UnitError::Rate(text.to_owned()))
    } else {
        Ok(Rate::PerSecond(rate))
    }
}

/// A duration.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    Ok(humantime::parse_duration(text)?)
}

/// How long to go on trying: 1 s to a day.
pub fn patience(text: &str) -> Result<Duration, UnitError> {
    match duration(text)? {
        time if (1..=86_400).contains(&time.as_secs()) => Ok(time),
        _ => Err(range(text, "1s", "1day")),
    }
}

/// A time that something is measured over: 1 ms to a day.
pub fn some_time(text: &str) -> Result<Duration, UnitError> {
    match duration(text)? {
        time if (1..=86_400_000).contains(&time.as_millis()) => Ok(time),
        _ => Err(range(text, "1ms", "1day")),
    }
}

/// How many.
pub fn count(text: &str) -> Result<u64, UnitError> {
    text.parse().map_err(|_| UnitError::Count)
}

/// A buffer pool: 4 MiB, below which a core cannot work, to 1 TiB.
pub fn memory(text: &str) -> Result<u64, UnitError> {
    match size(text)? {
        bytes if (64 << 20..=1 << 40).contains(&bytes) => Ok(bytes),
        _ => Err(range(text, "64MiB", "1TiB")),
    }
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub fn target(text: &str) -> Result<String, UnitError> {
    let (host, port) = text.rsplit_once(':').ok_or(UnitError::Target)?;
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or(UnitError::Target)?,
        None if host.contains(':') => return Err(UnitError::Target),
        None => host,
    };
    match port.parse::<u16>() {
        Ok(1..) if !bare.is_empty() => Ok(text.to_owned()),
        _ => Err(UnitError::Target),
    }
}

/// Columns and rows of a screen, 1 to 1,000 each: `120x36`.
pub fn cells(text: &str) -> Result<(u16, u16), UnitError> {
    let form = UnitError::Form { what: "size in cells", examples: "120x36" };
    let (columns, rows) = text.split_once('x').ok_or(form.clone())?;
    match (columns.parse(), rows.parse()) {
        (Ok(columns @ 1..=1000), Ok(rows @ 1..=1000)) => Ok((columns, rows)),
        (Ok::<u16, _>(_), Ok::<u16, _>(_)) => Err(range(text, "1x1", "1000x1000")),
        _ => Err(form),
    }
}

/// A factor: `2.5x` or `2.5`, more than 0.
pub fn factor(text: &str) -> Result<f64, UnitError> {
    let form = UnitError::Form { what: "factor", examples: "2x or 2.5x" };
    match split(text) {
        Some((factor, "" | "x")) if factor > 0.0 => Ok(factor),
        _ => Err(form),
    }
}

/// A share, 0 to 1: `3%` or `0.03`.
pub fn share(text: &str) -> Result<f64, UnitError> {
    let form = UnitError::Form { what: "share", examples: "3% or 0.03" };
    let share = match split(text) {
        Some((share, "")) => share,
        Some((percent, "%")) => percent / 100.0,
        _ => return Err(form),
    };
    if share <= 1.0 { Ok(share) } else { Err(range(text, "0%", "100%")) }
}

/// CPU numbers: `0,1`, `0-3`, `0,4-7`; each once, at most 1,024 of them.
pub fn cores(text: &str) -> Result<Cores, UnitError> {
    let form = || UnitError::Form { what: "list of cores", examples: "0,1 or 0-3" };
    let number = |t: &str| t.trim().parse::<usize>().map_err(|_| form());
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last > 1023 {
            return Err(range(&format!("core {last}"), "0", "1023"));
        }
        if first > last {
            return Err(form());
        }
        if let Some(core) = (first..=last).find(|core| list.contains(core)) {
            return Err(UnitError::Twice(core));
        }
        list.extend(first..=last);
    }
    Ok(Cores(list))
}

/// A list of CPU numbers; a type of its own so that the command line takes it as one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&list.join(","))
    }
}

/// Refuses a value outside its limits.
pub fn range(value: &str, min: &str, max: &str) -> UnitError {
    UnitError::Range { value: value.to_owned(), min: min.to_owned(), max: max.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        let cases =
            [("0", 0), ("17", 17), ("17B", 17), ("1KiB", 1024), ("64K", 65_536), ("64k", 65_536)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("1.5MiB"), Ok(1_572_864));
        assert_eq!(size("4 GiB"), Ok(4 << 30));
        assert_eq!(size("10MB"), Ok(10_000_000));
        for wrong in ["", "K", "-1", "1e3", "1..2", ".5", "1 KiB x", "9999TiB", "1Q", "+4"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(record_size("10MiB"), Ok(10 << 20));
        assert_eq!(record_size("0").unwrap_err().to_string(), "0 bytes is outside 1 to 10MiB");
        assert!(record_size("11MiB").is_err());
    }

    #[test]
    fn rates() {
        assert_eq!(rate("20k"), Ok(Rate::PerSecond(20_000.0)));
        assert_eq!(rate("1.5M"), Ok(Rate::PerSecond(1_500_000.0)));
        assert_eq!(rate("500/s"), Ok(Rate::PerSecond(500.0)));
        assert_eq!(rate("max"), Ok(Rate::Max));
        for wrong in ["0", "", "fast", "10x", "-5", "99999G"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn factors_and_shares() {
        assert_eq!([factor("2.5x"), factor("2")], [Ok(2.5), Ok(2.0)]);
        assert_eq!([share("3%"), share("0.03"), share("100%")], [Ok(0.03), Ok(0.03), Ok(1.0)]);
        for wrong in ["", "x", "0x", "2.5y", "-1", "1e3"] {
            assert!(factor(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "%", "101%", "3 percent", "-1%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h 10s"), Ok(Duration::from_secs(3610)));
        let error = duration("10").unwrap_err().to_string();
        assert!(error.contains("10s, 500ms or 1h"), "{error}");
    }

    #[test]
    fn bounds_are_said() {
        let said = |error: UnitError| error.to_string();
        let zero = "0 records per second; write more than 0, at most 1G, or max";
        assert_eq!(said(rate("0").unwrap_err()), zero);
        let below = "-5k records per second; write more than 0, at most 1G, or max";
        assert_eq!(said(rate("-5k").unwrap_err()), below);
        assert_eq!(said(memory("1KiB").unwrap_err()), "1KiB is outside 64MiB to 1TiB");
        assert_eq!(said(patience("10ms").unwrap_err()), "10ms is outside 1s to 1day");
        assert_eq!(said(cores("0,0").unwrap_err()), "core 0 is named twice");
        assert_eq!((count("17"), count("x")), (Ok(17), Err(UnitError::Count)));
    }

    #[test]
    fn targets() {
        for right in ["localhost:1", "10.0.0.1:7411", "[::1]:7411"] {
            assert_eq!(target(right).as_deref(), Ok(right));
        }
        for wrong in ["foo", ":1", "h:", "h:0", "h:70000", "::1:7411", "[::1:7", "[]:1", ""] {
            assert_eq!(target(wrong), Err(UnitError::Target), "{wrong}");
        }
    }

    #[test]
    fn core_lists() {
        assert_eq!(cores("0,1"), Ok(Cores(vec![0, 1])));
        assert_eq!(cores("0,4-6").unwrap().to_string(), "0,4,5,6");
        for wrong in ["", "a", "1,1", "3-1", "0-99999999", "1,"] {
            assert!(cores(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_typed_panics(text in "\\PC{0,12}") {
            let _ = (size(&text), rate(&text), patience(&text), cores(&text), target(&text));
            let _ = (factor(&text), share(&text));
        }
    }

    #[test]
    fn sizes_in_cells() {
        assert_eq!(cells("120x36"), Ok((120, 36)));
        for wrong in ["120", "0x36", "120x", "x", "70000x3", "120x1001", "-1x3"] {
            assert!(cells(wrong).is_err(), "{wrong}");
        }
    }
}
