//! Figures for people: four significant places at most, always with a unit, always short enough for a column.

use std::time::Duration;

use jiff::tz::TimeZone;

/// A count or rate with a decimal prefix: `412`, `20.0k`, `1.24M`.
pub fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T"], "")
}

/// Bytes with a decimal prefix: `512 B`, `21.1 MB`.
pub fn bytes(value: f64) -> String {
    scaled(value, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], " ")
}

/// Bytes with a binary prefix, as sizes are typed: `512 B`, `64 KiB`, `4 GiB`.
pub fn binary(value: u64) -> String {
    scaled(value as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], " ")
}

/// Bytes to the last one, in the largest unit that keeps them whole, as sizes are typed: `64MiB`, `1MB`, `1500B`.
pub fn exact(bytes: u64) -> String {
    let units: [(&str, u64); 8] = [
        ("TiB", 1 << 40),
        ("TB", 1_000_000_000_000),
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("kB", 1_000),
    ];
    let whole = |(_, size): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*size);
    // Below ten thousand a number is as short as its unit.
    match units.iter().find(whole).filter(|(_, size)| bytes >= 10_000 || bytes == *size) {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => format!("{bytes}B"),
    }
}

/// A short time in nanoseconds: `420 ns`, `81.0 us`, `3.90 ms`, `1.20 s`, `5m10s`.
pub fn nanos(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", places(ns as f64 / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", places(ns as f64 / 1e6)),
        1_000_000_000..60_000_000_000 => format!("{} s", places(ns as f64 / 1e9)),
        _ => duration(Duration::from_nanos(ns)),
    }
}

/// A long time: `42s`, `5m10s`, `3h04m`, `2d03h`.
pub fn duration(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// A span of the charts, without what is zero: `30s`, `5m`, `1h`.
pub fn span(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// The time of day at `ns` nanoseconds since 1970 UTC, in the local zone: `10:42:07`.
pub fn clock(ns: u64) -> String {
    clock_in(&TimeZone::system(), ns)
}

/// The same in `zone`.
pub fn clock_in(zone: &TimeZone, ns: u64) -> String {
    timestamp(ns).map_or_else(
        || "--:--:--".to_owned(),
        |t| t.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string(),
    )
}

/// `ns` nanoseconds since 1970 UTC as RFC 3339, in UTC.
pub fn rfc3339(ns: u64) -> String {
    timestamp(ns).map_or_else(|| ns.to_string(), |t| t.to_string())
}

/// `1 core`, `2 cores`.
pub fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `1 record`, `10,000 records`.
pub fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// With thousands separators: `10,000`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn timestamp(ns: u64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).ok()
}

/// `text` on lines of at most `width` characters, broken between words; a word longer than that is broken too.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.len() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut()
            && !line.is_empty()
        {
            line.push(' ');
        }
        while let Some(line) = lines.last_mut() {
            let room = width.saturating_sub(line.chars().count());
            let rest = word.split_off(word.len().min(room));
            line.extend(word);
            if rest.is_empty() {
                break;
            }
            word = rest;
            lines.push(String::new());
        }
    }
    lines
}

fn scaled(value: f64, base: f64, units: &[&str], space: &str) -> String {
    // Adding zero takes the sign of a negative one.
    let mut value = value.max(0.0) + 0.0;
    let mut unit = 0;
    // 999.5 would print as 1000.
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let number = if unit == 0 { format!("{value:.0}") } else { places(value) };
    format!("{number}{space}{}", units[unit])
}

fn places(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([count(0.0), count(-0.0), count(-0.2)], ["0", "0", "0"]);
        assert_eq!(bytes(-0.0), "0 B");
        assert_eq!(count(412.4), "412");
        assert_eq!(count(999.7), "1.00k");
        assert_eq!(count(20_000.0), "20.0k");
        assert_eq!(count(1_240_000.0), "1.24M");
        assert_eq!(bytes(21_100_000.0), "21.1 MB");
        assert_eq!(binary(4 << 30), "4.00 GiB");
        assert_eq!(nanos(420), "420 ns");
        assert_eq!(nanos(81_000), "81.0 us");
        assert_eq!(nanos(3_900_000), "3.90 ms");
        assert_eq!(nanos(61_000_000_000), "1m01s");
        assert_eq!(duration(Duration::from_secs(3 * 86_400 + 4 * 3600)), "3d04h");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(100), "100");
        assert_eq!([counted(1, "record"), counted(0, "record")], ["1 record", "0 records"]);
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(clock_in(&TimeZone::UTC, 3_723_000_000_000), "01:02:03");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(clock_in(&east, 3_723_000_000_000), "03:02:03");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrap("abcdef g", 3), ["abc", "def", "g"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }
}
