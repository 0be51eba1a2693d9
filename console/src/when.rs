//! Moments as people write them: RFC 3339, or back from now.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};

/// Now, nanoseconds since 1970 UTC.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment like `2026-05-17T10:05:03Z`, or `-10m` back from `now`, in nanoseconds since 1970 UTC; `None` if it is
/// neither, or before that.
pub fn moment(text: &str, now: Timestamp) -> Option<u64> {
    let time = match text.strip_prefix('-') {
        // A second sign would turn back into the future.
        Some(ago) if ago.starts_with(['-', '+']) => return None,
        Some(ago) => now.checked_sub(ago.parse::<SignedDuration>().ok()?).ok()?,
        None => text.parse().ok()?,
    };
    u64::try_from(time.as_nanosecond()).ok()
}
