//! Numbers as people write them in workload files and names: sizes (`64KiB`), rates (`20k`), times (`10s`).
//!
//! Sizes follow GNU: `K` and `KiB` are 1,024 bytes, `kB` and `KB` 1,000. In rates `k` is 1,000.

use std::time::Duration;

/// What a size looks like, for messages.
pub const SIZE: &str = "a size such as 100, 64KiB or 10MB";
/// What a rate looks like.
pub const RATE: &str = "a rate such as 500, 20k, 1.5M or \"max\"";
/// What a time looks like.
pub const TIME: &str = "a number of seconds, or a time such as \"500ms\", \"10s\" or \"1h\"";

/// A size in bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = number * size_unit(unit)?;
    // Above 2⁵³ a float no longer holds every byte; nothing here is that large.
    (bytes <= (1u64 << 53) as f64).then(|| bytes.round() as u64)
}

/// A number of records per second; not yet checked for its range.
pub fn rate(text: &str) -> Option<f64> {
    let (number, unit) = split(text)?;
    Some(number * rate_unit(unit)?)
}

/// Bytes in a unit of size; `None` if there is no such unit.
pub fn size_unit(unit: &str) -> Option<f64> {
    Some(match unit {
        "" | "B" => 1.0,
        "k" | "K" | "KiB" | "Ki" => 1024.0,
        "M" | "MiB" | "Mi" => 1024.0 * 1024.0,
        "G" | "GiB" | "Gi" => 1024.0 * 1024.0 * 1024.0,
        "T" | "TiB" | "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    })
}

/// Records per second in a unit of rate; `None` if there is no such unit.
pub fn rate_unit(unit: &str) -> Option<f64> {
    Some(match unit.trim_end_matches("/s") {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        "g" | "G" => 1e9,
        _ => return None,
    })
}

/// A time.
pub fn time(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Bytes as [`size`] reads them, in the largest unit that keeps them whole.
pub fn size_text(bytes: usize) -> String {
    match bytes {
        b if b != 0 && b.is_multiple_of(1 << 20) => format!("{}MiB", b >> 20),
        b if b != 0 && b.is_multiple_of(1 << 10) => format!("{}KiB", b >> 10),
        b => b.to_string(),
    }
}

/// A decimal number without sign or exponent, and what follows it.
pub fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rates_and_times() {
        for (text, bytes) in [("17", 17), ("17B", 17), ("64k", 65_536), ("1.5MiB", 1_572_864)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        assert_eq!((size("10MB"), size("4 GiB")), (Some(10_000_000), Some(4 << 30)));
        assert_eq!((rate("20k"), rate("1.5M/s")), (Some(20_000.0), Some(1_500_000.0)));
        assert_eq!(time("1m 30s"), Some(Duration::from_secs(90)));
        for wrong in ["", "K", "-1", "1e3", "1..2", ".5", "1Q", "9999TiB", "x"] {
            assert_eq!((size(wrong), time(wrong)), (None, None), "{wrong}");
        }
        for bytes in [1, 100, 1024, 1 << 20, 1536, 3 << 20] {
            assert_eq!(size(&size_text(bytes)), Some(bytes as u64));
        }
    }
}
