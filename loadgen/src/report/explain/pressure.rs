//! Whether a quota, or what a stream does beyond one, is why a run is as it is.

use super::super::account::way;
use super::super::figures::{counted, whole};
use crate::Report;

/// What was shed explains what is missing if it is at least this share of that: some is of the warm-up, some of what is
/// missing is still on its way.
const EXPLAINS: f64 = 0.9;

/// What the stream's backpressure threw away, if that and not a queue is why `missing` records were not acknowledged.
pub fn shed(r: &Report, missing: f64) -> Option<String> {
    let shed = r.dropped + r.sampled_out;
    if shed == 0 || (shed as f64) < missing * EXPLAINS {
        return None;
    }
    let named = r.account.as_ref().map(|account| format!(" ({})", way(&account.backpressure)));
    let parts = [(r.dropped, "dropped"), (r.sampled_out, "left out of the sample")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> =
        parts.map(|(count, what)| format!("{} {what}", whole(count))).collect();
    Some(format!("the stream's backpressure{}: {}", named.unwrap_or_default(), parts.join(", ")))
}

/// What put records off, if anything did.
pub fn put_off(r: &Report) -> Option<String> {
    let account = r.account.as_ref().filter(|a| a.refused > 0 || a.buffered > 0)?;
    let refused = (account.refused > 0)
        .then(|| format!("{} refused for the time being", counted(account.refused, "record")));
    let held = (account.buffered > 0).then(|| format!("{} held back", whole(account.buffered)));
    let done: Vec<String> = refused.into_iter().chain(held).collect();
    let why = match account.bounds() {
        Some(bounds) => format!("a quota ({bounds})"),
        None => "a quota of this client, or a target that was busy or full".to_owned(),
    };
    Some(format!("{why}: {}", done.join(", ")))
}
