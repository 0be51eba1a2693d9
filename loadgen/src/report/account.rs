//! What the target's own account says of a run: what it refused, held back, dropped, and by which bounds.

use highwater_wire::{Backpressure, Quota};
use serde::{Deserialize, Serialize};

use super::figures::{bytes, counted, whole};

/// Records by what the target says became of them, from before the first record to the end of the run, and whoever
/// wrote them: `offered` = `acknowledged` + `refused` + `dropped` + `sampled_out` + `duplicates_recognised`. A record that
/// was refused and is sent again is offered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What came to the shards.
    pub offered: u64,
    /// Stored.
    pub acknowledged: u64,
    /// Refused, most of it for a time: over a quota, or the target was busy.
    pub refused: u64,
    /// Of all these, held back for a while.
    pub buffered: u64,
    /// Dropped, as the stream's backpressure says.
    pub dropped: u64,
    /// Not in its sample.
    pub sampled_out: u64,
    /// Recognised as stored before.
    pub duplicates_recognised: u64,
    /// What each shard lets pass; of the first stream, as the next two.
    pub quota: Quota,
    /// What all shards together let pass.
    pub stream_quota: Quota,
    /// What happens beyond.
    pub backpressure: Backpressure,
}

impl Account {
    /// Whether there is more to say than that everything was stored.
    pub(super) fn says_something(&self) -> bool {
        self.acknowledged != self.offered || self.buffered > 0 || self.bounds().is_some()
    }

    /// `1,000 records/s and 1.00 MB/s a shard; backpressure reduce`; `None` without a quota.
    pub(super) fn bounds(&self) -> Option<String> {
        let of = [(&self.quota, "a shard"), (&self.stream_quota, "over all shards")];
        let rates: Vec<String> = of
            .into_iter()
            .filter_map(|(quota, what)| Some(format!("{} {what}", rates(quota)?)))
            .collect();
        let way = way(&self.backpressure);
        (!rates.is_empty()).then(|| format!("{}; backpressure {way}", rates.join(", ")))
    }

    /// In a line of the report.
    pub(super) fn in_words(&self) -> String {
        let mut parts = vec![format!("{} acknowledged", whole(self.acknowledged))];
        let others = [
            (self.refused, "refused"),
            (self.dropped, "dropped"),
            (self.sampled_out, "sampled out"),
            (self.duplicates_recognised, "recognised as repeated"),
        ];
        let others = others.into_iter().filter(|(count, _)| *count > 0);
        parts.extend(others.map(|(count, what)| format!("{} {what}", whole(count))));
        let mut words = format!(
            "the target was offered {}: {}",
            counted(self.offered, "record"),
            parts.join(", ")
        );
        if self.refused > 0 {
            words += " (what was refused and sent again was offered again)";
        }
        if self.buffered > 0 {
            words += &format!("; {} of them held back for a while", whole(self.buffered));
        }
        if let Some(bounds) = self.bounds() {
            words += &format!("; quota {bounds}");
        }
        words
    }
}

/// What a quota lets in a second; `None` if that is not bounded.
fn rates(quota: &Quota) -> Option<String> {
    let records = (quota.records_in > 0).then(|| format!("{} records/s", whole(quota.records_in)));
    let volume = (quota.bytes_in > 0).then(|| format!("{}/s", bytes(quota.bytes_in as f64)));
    let both: Vec<String> = records.into_iter().chain(volume).collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

/// Its name.
pub(super) fn way(backpressure: &Backpressure) -> &'static str {
    match backpressure {
        Backpressure::Reduce => "reduce",
        Backpressure::Scale { .. } => "scale",
        Backpressure::Buffer { .. } => "buffer",
        Backpressure::DropOldest { .. } => "drop-oldest",
        Backpressure::DropNewest => "drop-newest",
        Backpressure::Sample { .. } => "sample",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_in_words() {
        let all = Account { offered: 8_000, acknowledged: 8_000, ..Account::default() };
        assert!(!all.says_something());
        assert_eq!(all.in_words(), "the target was offered 8,000 records: 8,000 acknowledged");
        let account = Account {
            offered: 11_136,
            refused: 3_000,
            buffered: 500,
            dropped: 136,
            quota: Quota { records_in: 1_000, bytes_in: 1_000_000, ..Quota::default() },
            stream_quota: Quota { records_in: 3_000, ..Quota::default() },
            backpressure: Backpressure::Buffer { bytes: 1, age_ms: 1 },
            ..all
        };
        assert!(account.says_something());
        assert_eq!(
            account.in_words(),
            "the target was offered 11,136 records: 8,000 acknowledged, 3,000 refused, 136 dropped (what was refused and \
             sent again was offered again); 500 of them held back for a while; quota 1,000 records/s and 1.00 MB/s a shard, \
             3,000 records/s over all shards; backpressure buffer"
        );
    }
}
