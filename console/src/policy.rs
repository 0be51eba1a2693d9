//! What a stream lets pass and what happens beyond it, as people write it and as it is written back: rates
//! (`1000rec/s,1MB/s`), backpressure (`buffer:64MiB,5s`, `sample:5%`), ages (`7days`, `0` for none).
//!
//! Pure: text in, the types of the wire out, and back. Units are those of [`crate::units`].

use std::time::Duration;

use highwater_loadgen::units::{rate_unit, split};
use highwater_wire::{Backpressure, MAX_SHARDS_PER_STREAM, Quota, SampleBy};

use crate::human;
use crate::units::{UnitError, duration, range, share, size};

/// What may come in, a second; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RatesIn {
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The preset `kinesis`: what a provisioned shard of Amazon Kinesis takes and gives a second (its MB counted
/// as 1,000,000 bytes, as everywhere here).
pub const KINESIS: Quota =
    Quota { records_in: 1_000, bytes_in: 1_000_000, bytes_out: 2_000_000, burst_ms: 1_000 };

/// Bounds of `buffer` and `drop-oldest` that are not given.
const HELD_BYTES: u64 = 64 << 20;
const HELD_AGE_MS: u64 = 5_000;

/// Longest burst: an hour of the rate.
const MAX_BURST_MS: u64 = 3_600_000;
/// Longest time a batch is held back: an hour.
const MAX_HELD_MS: u64 = 3_600_000;
/// A quarter of the most memory a server may have; a server knows what it has.
const MAX_HELD_BYTES: u64 = 256 << 30;

const IN: &str = "1000rec/s, 1MB/s, both with a comma between, or 0";
/// 2^53: above it a float no longer holds every number.
const MOST_RECORDS: &str = "9007199254740992rec/s";
const MOST_IN: &str = "9007199254740992rec/s and 8PiB/s";
const OUT: &str = "2MB/s, 512KiB/s or 0";
const STRATEGIES: &str = "reduce, scale[:MAX], buffer[:64MiB,5s], drop-oldest[:64MiB,5s], drop-newest or \
    sample:5%[,key|record]";

fn form(what: &'static str, examples: &'static str) -> UnitError {
    UnitError::Form { what, examples }
}

/// What may come in a second: `1000rec/s`, `1MB/s`, both in either order, or `0` for no bound.
pub fn rates_in(text: &str) -> Result<RatesIn, UnitError> {
    let wrong = || form("rate of records or bytes", IN);
    if text.trim() == "0" {
        return Ok(RatesIn::default());
    }
    let (mut records, mut bytes) = (None, None);
    for part in text.split(',') {
        let part = positive(part.trim(), MOST_IN)?;
        let rate = part.strip_suffix("/s").ok_or_else(wrong)?;
        let slot = if rate.ends_with("rec") { &mut records } else { &mut bytes };
        let value = match rate.strip_suffix("rec") {
            Some(number) => records_of(number, part).ok_or_else(wrong)??,
            None => bytes_of(rate, IN)?,
        };
        if slot.replace(value).is_some() {
            return Err(wrong());
        }
    }
    Ok(RatesIn { records: records.unwrap_or(0), bytes: bytes.unwrap_or(0) })
}

/// What may go out a second: `2MB/s`, or `0` for no bound.
pub fn rate_out(text: &str) -> Result<u64, UnitError> {
    match text.trim() {
        "0" => Ok(0),
        text => {
            let rate = positive(text, "8PiB/s")?.strip_suffix("/s");
            bytes_of(rate.ok_or_else(|| form("rate of bytes", OUT))?, OUT)
        }
    }
}

/// A rate has no sign.
fn positive<'a>(text: &'a str, most: &str) -> Result<&'a str, UnitError> {
    let number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    if text.strip_prefix('-').is_some_and(number) { Err(range(text, "0", most)) } else { Ok(text) }
}

/// Whole records, `whole` being all of the rate; `None` if it is no number.
fn records_of(number: &str, whole: &str) -> Option<Result<u64, UnitError>> {
    let (records, unit) = split(number)?;
    let records = records * if unit.is_empty() { 1.0 } else { rate_unit(unit)? };
    // Above 2^53 a float no longer holds every number.
    if records > (1u64 << 53) as f64 || (records > 0.0 && records < 1.0) {
        return Some(Err(range(whole, "1rec/s", MOST_RECORDS)));
    }
    let whole_number = records.fract() == 0.0;
    Some(if whole_number { Ok(records as u64) } else { Err(UnitError::Count) })
}

/// Bytes with a unit: without one `1000/s` could be anything.
fn bytes_of(text: &str, examples: &'static str) -> Result<u64, UnitError> {
    match split(text) {
        Some((_, "")) | None => Err(form("rate of bytes", examples)),
        Some(_) => size(text),
    }
}

/// How long the rates may be saved up, in milliseconds: 1 ms to an hour.
pub fn burst(text: &str) -> Result<u32, UnitError> {
    match millis(duration(text)?) {
        ms if (1..=MAX_BURST_MS).contains(&ms) => Ok(u32::try_from(ms).unwrap_or(u32::MAX)),
        _ => Err(range(text, "1ms", "1h")),
    }
}

/// An age in milliseconds; `0` for none.
pub fn age(text: &str) -> Result<u64, UnitError> {
    if text.trim() == "0" {
        return Ok(0);
    }
    match millis(duration(text)?) {
        0 => Err(range(text, "1ms", "584 million years, or 0 for none")),
        ms => Ok(ms),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What happens beyond the quota.
pub fn backpressure(text: &str) -> Result<Backpressure, UnitError> {
    let wrong = || form("way of backpressure", STRATEGIES);
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    Ok(match (name, value) {
        ("reduce", None) => Backpressure::Reduce,
        ("drop-newest", None) => Backpressure::DropNewest,
        ("scale", None) => Backpressure::Scale { max_shards: 0 },
        ("scale", Some(value)) => match value.parse() {
            Ok(max_shards) if max_shards <= MAX_SHARDS_PER_STREAM => {
                Backpressure::Scale { max_shards }
            }
            _ => return Err(range(value, "0", &MAX_SHARDS_PER_STREAM.to_string())),
        },
        ("buffer", value) => {
            let (bytes, age_ms) = held(value)?;
            Backpressure::Buffer { bytes, age_ms }
        }
        ("drop-oldest", value) => {
            let (bytes, age_ms) = held(value)?;
            Backpressure::DropOldest { bytes, age_ms }
        }
        ("sample", Some(value)) => sample(value)?,
        _ => return Err(wrong()),
    })
}

/// `64MiB,5s`: bytes and age of what is held back.
fn held(value: Option<&str>) -> Result<(u64, u64), UnitError> {
    let Some(value) = value else { return Ok((HELD_BYTES, HELD_AGE_MS)) };
    let (bytes, time) =
        value.split_once(',').ok_or_else(|| form("size and age with a comma", "64MiB,5s"))?;
    let (held_bytes, age_ms) = (size(bytes)?, age(time)?);
    if !(1..=MAX_HELD_BYTES).contains(&held_bytes) {
        return Err(range(bytes, "1", "256GiB, and to what a core of the server has for it"));
    }
    if !(1..=MAX_HELD_MS).contains(&age_ms) {
        return Err(range(time, "1ms", "1h"));
    }
    Ok((held_bytes, age_ms))
}

/// `5%`, `5%,key` or `5%,record`.
fn sample(value: &str) -> Result<Backpressure, UnitError> {
    let (part, by) = match value.split_once(',') {
        None => (value, SampleBy::Key),
        Some((part, "key")) => (part, SampleBy::Key),
        Some((part, "record")) => (part, SampleBy::Record),
        Some(_) => return Err(form("sample", "5%, 5%,key or 5%,record")),
    };
    // A share is at most 1.
    match (share(part)? * 1e6).round() as u32 {
        0 => Err(range(part, "0.0001%", "100%, or drop-newest to keep none")),
        ppm => Ok(Backpressure::Sample { ppm, by }),
    }
}

/// A way of backpressure as [`backpressure`] reads it.
pub fn backpressure_text(way: &Backpressure) -> String {
    let held = |name: &str, bytes: u64, age_ms: u64| {
        let age = humantime::format_duration(Duration::from_millis(age_ms));
        format!("{name}:{},{age}", human::exact(bytes))
    };
    match *way {
        Backpressure::Reduce => "reduce".to_owned(),
        Backpressure::Scale { max_shards: 0 } => "scale".to_owned(),
        Backpressure::Scale { max_shards } => format!("scale:{max_shards}"),
        Backpressure::Buffer { bytes, age_ms } => held("buffer", bytes, age_ms),
        Backpressure::DropOldest { bytes, age_ms } => held("drop-oldest", bytes, age_ms),
        Backpressure::DropNewest => "drop-newest".to_owned(),
        Backpressure::Sample { ppm, by } => {
            let by = if by == SampleBy::Record { ",record" } else { "" };
            format!("sample:{}%{by}", f64::from(ppm) / 1e4)
        }
    }
}

/// The rates of a quota as [`rates_in`] and [`rate_out`] read them.
pub fn quota_text(quota: &Quota) -> String {
    let (into, out) = (rates_in_text(quota), rate_out_text(quota));
    let saved = match (quota.burst_ms, quota.bytes_out | quota.records_in | quota.bytes_in) {
        (0 | 1_000, _) | (_, 0) => String::new(),
        (ms, _) => {
            let time = humantime::format_duration(Duration::from_millis(u64::from(ms)));
            format!(", burst {time}")
        }
    };
    match (into.as_str(), out.as_str()) {
        ("0", "0") => "none".to_owned(),
        ("0", out) => format!("out {out}{saved}"),
        (into, "0") => format!("in {into}{saved}"),
        (into, out) => format!("in {into}, out {out}{saved}"),
    }
}

/// What may come in, as [`rates_in`] reads it.
pub fn rates_in_text(quota: &Quota) -> String {
    match (quota.records_in, quota.bytes_in) {
        (0, 0) => "0".to_owned(),
        (records, 0) => format!("{records}rec/s"),
        (0, bytes) => format!("{}/s", human::exact(bytes)),
        (records, bytes) => format!("{records}rec/s,{}/s", human::exact(bytes)),
    }
}

/// What may go out, as [`rate_out`] reads it.
pub fn rate_out_text(quota: &Quota) -> String {
    match quota.bytes_out {
        0 => "0".to_owned(),
        bytes => format!("{}/s", human::exact(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_that_come_in() {
        let cases = [
            ("1000rec/s,1MB/s", (1_000, 1_000_000)),
            ("1MiB/s, 2krec/s", (2_000, 1 << 20)),
            ("1rec/s", (1, 0)),
            ("64KiB/s", (0, 65_536)),
            ("0", (0, 0)),
        ];
        for (text, (records, bytes)) in cases {
            assert_eq!(rates_in(text), Ok(RatesIn { records, bytes }), "{text}");
        }
        for wrong in
            ["", "1000", "1000/s", "1rec", "1rec/s,2rec/s", "1MB/s,", "1.5rec/s", "-1rec/s"]
        {
            assert!(rates_in(wrong).is_err(), "{wrong}");
        }
        let told = |text: &str| rates_in(text).unwrap_err().to_string();
        let bounds = "is outside 1rec/s to 9007199254740992rec/s";
        for beyond in ["99999999999999999999rec/s", "0.5rec/s"] {
            assert_eq!(told(beyond), format!("{beyond} {bounds}"));
        }
        assert_eq!(told("1.5rec/s"), "not a whole number; write 10 or 1000");
        assert_eq!(told("-5rec/s"), "-5rec/s is outside 0 to 9007199254740992rec/s and 8PiB/s");
        assert_eq!(
            told("1rec/s,-1MB/s"),
            "-1MB/s is outside 0 to 9007199254740992rec/s and 8PiB/s"
        );
        assert_eq!(told("99999TiB/s"), "99999TiB is outside 0 to 8PiB");
        let said = rates_in("1000").unwrap_err().to_string();
        assert!(said.contains("1000rec/s") && said.contains("1MB/s"), "{said}");
    }

    #[test]
    fn rates_that_go_out() {
        assert_eq!([rate_out("2MB/s"), rate_out("0")], [Ok(2_000_000), Ok(0)]);
        assert_eq!(rate_out("-2MB/s").unwrap_err().to_string(), "-2MB/s is outside 0 to 8PiB/s");
        for wrong in ["", "-", "2MB", "100rec/s", "5/s", "2MB/s,1MB/s", "--quota-out"] {
            assert!(rate_out(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ways_of_backpressure() {
        use Backpressure::*;
        let cases = [
            ("reduce", Reduce),
            ("scale", Scale { max_shards: 0 }),
            ("scale:8", Scale { max_shards: 8 }),
            ("buffer", Buffer { bytes: 64 << 20, age_ms: 5_000 }),
            ("buffer:64MiB,5s", Buffer { bytes: 64 << 20, age_ms: 5_000 }),
            ("buffer:1000B,250ms", Buffer { bytes: 1_000, age_ms: 250 }),
            ("drop-oldest", DropOldest { bytes: 64 << 20, age_ms: 5_000 }),
            ("drop-oldest:1KiB,1m", DropOldest { bytes: 1_024, age_ms: 60_000 }),
            ("drop-newest", DropNewest),
            ("sample:5%", Sample { ppm: 50_000, by: SampleBy::Key }),
            ("sample:0.5%,key", Sample { ppm: 5_000, by: SampleBy::Key }),
            ("sample:100%,record", Sample { ppm: 1_000_000, by: SampleBy::Record }),
        ];
        for (text, way) in cases {
            assert_eq!(backpressure(text), Ok(way), "{text}");
            assert_eq!(backpressure(&backpressure_text(&way)), Ok(way), "{text}");
        }
        let wrong = [
            "",
            "slow",
            "reduce:1",
            "scale:x",
            "scale:9999",
            "buffer:64MiB",
            "buffer:5s,64MiB",
            "buffer:0,5s",
            "buffer:1MiB,0",
            "drop-oldest:",
            "drop-newest:1",
            "sample",
            "sample:101%",
            "sample:0%",
            "sample:0.00001%",
            "sample:5%,hash",
        ];
        for text in wrong {
            assert!(backpressure(text).is_err(), "{text}");
        }
        assert!(backpressure("slow").unwrap_err().to_string().contains("drop-newest"));
        let told = |text: &str| backpressure(text).unwrap_err().to_string();
        let bound = "100TiB is outside 1 to 256GiB, and to what a core of the server has for it";
        assert_eq!(told("buffer:100TiB,5s"), bound);
        assert_eq!(told("drop-oldest:1MiB,2h"), "2h is outside 1ms to 1h");
    }

    #[test]
    fn ages_and_bursts() {
        assert_eq!([age("0"), age("7days"), age("1ms")], [Ok(0), Ok(604_800_000), Ok(1)]);
        assert!(age("5us").is_err() && age("10").is_err());
        assert_eq!([burst("2s"), burst("1h")], [Ok(2_000), Ok(3_600_000)]);
        assert!(burst("0s").is_err() && burst("2h").is_err());
    }

    #[test]
    fn quotas_are_written_as_they_are_read() {
        assert_eq!(quota_text(&Quota::default()), "none");
        assert_eq!(quota_text(&KINESIS), "in 1000rec/s,1MB/s, out 2MB/s");
        let burst = Quota { bytes_in: 1 << 20, burst_ms: 250, ..Quota::default() };
        assert_eq!(quota_text(&burst), "in 1MiB/s, burst 250ms");
        assert_eq!(quota_text(&Quota { bytes_out: 1_500, ..Quota::default() }), "out 1500B/s");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(records in 0..1u64 << 50, bytes in 0..1u64 << 50) {
            let quota = Quota { records_in: records, bytes_in: bytes, bytes_out: bytes, burst_ms: 0 };
            prop_assert_eq!(rates_in(&rates_in_text(&quota)), Ok(RatesIn { records, bytes }));
            prop_assert_eq!(rate_out(&rate_out_text(&quota)), Ok(bytes));
        }

        #[test]
        fn ways_are_read_back(ppm in 1..=1_000_000u32, bytes in 1..=1u64 << 38, age_ms in 1..=3_600_000u64) {
            let ways = [
                Backpressure::Sample { ppm, by: SampleBy::Record },
                Backpressure::Buffer { bytes, age_ms },
                Backpressure::DropOldest { bytes, age_ms },
            ];
            for way in ways {
                prop_assert_eq!(backpressure(&backpressure_text(&way)), Ok(way));
            }
        }

        #[test]
        fn nothing_typed_panics(text in "\\PC{0,16}") {
            let _ = (rates_in(&text), rate_out(&text), backpressure(&text), age(&text), burst(&text));
        }
    }
}
