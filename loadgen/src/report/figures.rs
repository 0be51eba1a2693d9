//! Numbers for people: always with a unit, as many digits as mean something.

/// Microseconds in the unit a reader would choose, three significant digits.
pub fn time(us: f64) -> String {
    // Limits a little below the unit, so that what rounds up to 1000 is written in the next.
    let (value, unit) = match us {
        us if us < 999.5 => (us, "us"),
        us if us < 999.5e3 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// [`time`] of what may not have been measured.
pub fn time_or_dash(us: Option<f64>) -> String {
    us.map_or_else(|| "-".to_owned(), time)
}

/// Seconds as [`time`] writes them; from two minutes on in minutes, from two hours on in hours.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 120.0 => time(s * 1e6),
        s if s < 7200.0 => {
            let whole = s.round() as u64;
            format!("{} min {:02} s", whole / 60, whole % 60)
        }
        s => {
            let minutes = (s / 60.0).round() as u64;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// A whole number with its thousands apart: `1,234,567`.
pub fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many a second, without the unit: a decimal place where it says something.
pub fn rate(per_second: f64) -> String {
    // Adding zero takes the sign of a negative one.
    let per_second = per_second + 0.0;
    if per_second < 999.95 && per_second.fract() != 0.0 {
        format!("{per_second:.1}")
    } else {
        whole(per_second.round() as u64)
    }
}

/// Bytes with a decimal prefix, three significant digits: `512 B`, `21.1 MB`.
pub fn bytes(value: f64) -> String {
    let mut value = value + 0.0;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            let digits = match value {
                _ if unit == "B" => 0,
                value if value < 9.995 => 2,
                value => usize::from(value < 99.95),
            };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1e3;
    }
    format!("{} PB", whole(value.round() as u64))
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent < 10.0 { 2 } else { 1 };
    format!("{percent:.digits$} %")
}

/// How many times one is the other: `2.3 times`.
pub fn times(factor: f64) -> String {
    if factor < 9.95 {
        format!("{factor:.1} times")
    } else {
        format!("{} times", whole(factor.round() as u64))
    }
}

/// `1 record`, `2 records`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", whole(number), if number == 1 { "" } else { "s" })
}

/// A moment, nanoseconds since 1970 UTC: `2026-11-22 23:51:19 UTC`.
pub fn moment(ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map(|moment| moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_else(|_| format!("{ns} ns after 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(time(0.123), "0.12 us");
        assert_eq!(time(85.04), "85.0 us");
        assert_eq!(time(999.7), "1.00 ms");
        assert_eq!(time(1_234.0), "1.23 ms");
        assert_eq!(time(12_345_678.0), "12.3 s");
        assert_eq!(seconds(61.5), "61.5 s");
        assert_eq!(seconds(125.2), "2 min 05 s");
        assert_eq!(seconds(7_260.0), "2 h 01 min");
        assert_eq!((whole(0), whole(999)), ("0".into(), "999".into()));
        assert_eq!(whole(1_234_567), "1,234,567");
        assert_eq!((rate(0.25), rate(10_000.4)), ("0.2".into(), "10,000".into()));
        assert_eq!((bytes(512.0), bytes(21_100_000.0)), ("512 B".into(), "21.1 MB".into()));
        assert_eq!(percent(0.0213), "2.13 %");
        assert_eq!((times(2.345), times(45_454.2)), ("2.3 times".into(), "45,454 times".into()));
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(moment(1_763_855_479_000_000_000), "2025-11-22 23:51:19 UTC");
    }
}
