//! How far time has come, with several shards that are read at their own pace.

use std::collections::BTreeMap;

/// The time before which nothing more is expected. Shards are read side by side: the slowest decides, unless it has
/// nothing to read at the moment.
#[derive(Debug, Default)]
pub struct Watermark {
    lateness: u64,
    sources: BTreeMap<u32, Source>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    /// Latest time seen, nanoseconds.
    at: u64,
    /// Everything that there is was read.
    caught_up: bool,
}

impl Watermark {
    /// One that lags `lateness` nanoseconds behind, for records out of order.
    pub fn new(lateness: u64) -> Watermark {
        Watermark { lateness, sources: BTreeMap::new() }
    }

    /// A shard will be read; it holds the watermark until something was, or it is said to be caught up.
    pub fn expect(&mut self, shard: u32) {
        self.sources.entry(shard).or_default();
    }

    /// A record of `shard` has this time.
    pub fn saw(&mut self, shard: u32, at_ns: u64) {
        let source = self.sources.entry(shard).or_default();
        source.at = source.at.max(at_ns);
    }

    /// Whether all that there is of `shard` was read.
    pub fn caught_up(&mut self, shard: u32, is: bool) {
        self.sources.entry(shard).or_default().caught_up = is;
    }

    /// Nothing from before this is expected. `now_ns` is a time from before which nothing can be on its way any more;
    /// `None` if that cannot be known, as with times that records bring along.
    pub fn now(&self, now_ns: Option<u64>) -> u64 {
        let behind = self.sources.values().filter(|source| !source.caught_up).map(|s| s.at).min();
        let seen = self.sources.values().map(|source| source.at).max().unwrap_or(0);
        let at = match (behind, now_ns) {
            // What one shard shows may be ahead of what is on its way from another.
            (Some(behind), Some(now)) => behind.min(now),
            (None, Some(now)) => now,
            (behind, None) => behind.unwrap_or(seen),
        };
        at.saturating_sub(self.lateness)
    }
}
