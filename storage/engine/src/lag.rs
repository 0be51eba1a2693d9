//! How far a consumer group is behind, how that changes, and what it comes to: a backlog that empties, holds or grows,
//! and retention that passes it. Pure: readings in, figures out.

use highwater_wire::Trend;

use crate::types::Backlog;

/// Readings weigh less with age: after so many seconds 1/e of what they did.
const FADE_S: f64 = 10.0;

/// A group that is no further behind than this keeps up, nanoseconds.
const KEEPS_UP_NS: u64 = 1_000_000_000;

/// A backlog that changes by less than this share of what arrives holds.
const STEADY_SHARE: f64 = 1.0 / 200.0;

/// A backlog whose age grows by less than this, seconds a second, is as good as steady.
const STEADY_AGE: f64 = 0.01;

/// Past a hundred years nobody waits, seconds.
const FOR_EVER_S: f64 = 3.2e9;

/// The change of something a second, averaged over about the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    sum: f64,
    weight: f64,
}

impl Rate {
    /// It changed by `per_s` a second over the last `seconds`.
    pub fn add(&mut self, per_s: f64, seconds: f64) {
        let keep = (-seconds / FADE_S).exp();
        self.sum = self.sum * keep + per_s * (1.0 - keep);
        self.weight = self.weight * keep + (1.0 - keep);
    }

    /// The average; 0 before the first reading.
    pub fn get(self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

/// A count that only grows, read now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Growth {
    last: Option<(u64, u64)>,
    rate: Rate,
}

impl Growth {
    /// It is `count` at `mono_ns`.
    pub fn read(&mut self, mono_ns: u64, count: u64) {
        if let Some((at_ns, before)) = self.last
            && mono_ns > at_ns
        {
            let seconds = (mono_ns - at_ns) as f64 / 1e9;
            self.rate.add((count as f64 - before as f64) / seconds, seconds);
        }
        self.last = Some((mono_ns, count));
    }

    /// By how much it grows, a second.
    pub fn per_s(&self) -> f64 {
        self.rate.get()
    }
}

/// A group on one shard, followed from second to second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Follow {
    position: Growth,
    bytes: Growth,
    age: Growth,
}

impl Follow {
    /// What it is at `mono_ns`. Its age counts only where it is known exactly.
    pub fn read(&mut self, mono_ns: u64, position: u64, backlog: &Backlog) {
        if self.position.last.is_some_and(|(_, before)| position < before) {
            // Set back: what was is no guide.
            *self = Follow::default();
        }
        self.position.read(mono_ns, position);
        self.bytes.read(mono_ns, backlog.bytes);
        if backlog.exact {
            self.age.read(mono_ns, backlog.age_ns);
        }
    }

    /// Records its position advances by, a second.
    pub fn read_per_s(&self) -> f64 {
        self.position.per_s()
    }
}

/// What retention leaves of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    /// Age in milliseconds after which segments go; 0 keeps.
    pub retention_ms: u64,
    /// Bytes the shard may keep; 0 for no bound.
    pub retention_bytes: u64,
    /// Bytes of its segments that are not written.
    pub empty_bytes: u64,
}

/// What comes of a backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Records that come into the shard, a second.
    pub rate_in: f64,
    /// Records the group's position advances by, a second.
    pub rate_out: f64,
    /// Which way it goes.
    pub trend: Trend,
    /// Milliseconds until it is empty, if it gets smaller; 0 if it is.
    pub empty_ms: Option<u64>,
    /// Milliseconds until retention reaches the next record to be read, if that is to be expected. Whole segments go,
    /// so it may take longer.
    pub loss_ms: Option<u64>,
}

/// What comes of `backlog` if all goes on as `group` was followed, on a shard into which `rate_in` records come a second.
pub(crate) fn outlook(backlog: &Backlog, group: &Follow, rate_in: f64, kept: &Kept) -> Outlook {
    let rate_in = rate_in.max(0.0);
    let rate_out = group.read_per_s();
    let net = rate_in - rate_out;
    let behind = backlog.records > 0 && backlog.age_ns >= KEEPS_UP_NS;
    let trend = match net {
        _ if !behind => Trend::KeepsUp,
        net if net < -STEADY_SHARE * rate_in => Trend::Drains,
        net if net > STEADY_SHARE * rate_in => Trend::Grows,
        _ => Trend::Holds,
    };
    let empty_ms = match trend {
        _ if backlog.records == 0 => Some(0),
        Trend::Drains => Some(millis(backlog.records as f64 / -net)),
        Trend::KeepsUp if net < 0.0 => Some(millis(backlog.records as f64 / -net)),
        _ => None,
    };
    let loss_ms = behind.then(|| loss(backlog, group, kept)).flatten();
    Outlook { rate_in, rate_out, trend, empty_ms, loss_ms }
}

/// By age once the next record is older than what is kept, by bytes once what lies behind it fills what is kept.
fn loss(backlog: &Backlog, group: &Follow, kept: &Kept) -> Option<u64> {
    let ageing = group.age.per_s() / 1e9;
    let growth = group.bytes.per_s();
    let by_age = (kept.retention_ms > 0 && ageing > STEADY_AGE).then(|| {
        let left = kept.retention_ms as f64 / 1e3 - backlog.age_ns as f64 / 1e9;
        millis(left.max(0.0) / ageing)
    });
    let by_bytes = (kept.retention_bytes > 0 && growth > 0.0).then(|| {
        // What is prepared and not yet written counts against the limit too.
        let held = backlog.bytes.saturating_add(kept.empty_bytes);
        millis((kept.retention_bytes as f64 - held as f64).max(0.0) / growth)
    });
    by_age.into_iter().chain(by_bytes).min()
}

fn millis(seconds: f64) -> u64 {
    (seconds.min(FOR_EVER_S) * 1e3).round() as u64
}

/// A group on one shard, now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// How far it is behind.
    pub backlog: Backlog,
    /// What comes of that.
    pub outlook: Outlook,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark.
    pub high_water: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    /// A group that reads `read` of `arrive` records a second, each 100 bytes, for a minute from `behind` records.
    fn follow(arrive: u64, read: u64, behind: u64) -> (Backlog, Follow, f64) {
        let (mut group, mut shard) = (Follow::default(), Growth::default());
        let mut backlog = Backlog::default();
        for second in 0..60 {
            let (position, high_water) = (read * second, behind + arrive * second);
            let records = high_water.saturating_sub(position);
            let age_ns = (records * SECOND).checked_div(arrive).unwrap_or(5 * SECOND);
            backlog = Backlog { records, bytes: records * 100, age_ns, exact: true };
            shard.read(second * SECOND, high_water);
            group.read(second * SECOND, position, &backlog);
        }
        (backlog, group, shard.per_s())
    }

    fn kept(retention_ms: u64, retention_bytes: u64) -> Kept {
        Kept { retention_ms, retention_bytes, empty_bytes: 0 }
    }

    #[test]
    fn what_comes_of_a_backlog() {
        // Arrive, read, behind, trend, empty in s.
        let table = [
            (1_000, 1_000, 0, Trend::KeepsUp, Some(0.0)),
            (1_000, 1_000, 5_000, Trend::Holds, None),
            (1_000, 0, 0, Trend::Grows, None),
            (1_000, 1_500, 60_000, Trend::Drains, Some(61.0)),
            (0, 100, 10_000, Trend::Drains, Some(41.0)),
            (0, 0, 10_000, Trend::Holds, None),
        ];
        for (arrive, read, behind, trend, empty_s) in table {
            let (backlog, group, rate_in) = follow(arrive, read, behind);
            let found = outlook(&backlog, &group, rate_in, &Kept::default());
            assert_eq!(found.trend, trend, "{arrive} {read} {behind}: {found:?}");
            let empty = found.empty_ms.map(|ms| ms as f64 / 1e3);
            match (empty, empty_s) {
                (Some(a), Some(b)) => assert!((a - b).abs() < 0.5, "{arrive} {read}: {a} {b}"),
                (a, b) => assert_eq!(a, b, "{arrive} {read}"),
            }
            assert!((found.rate_in - arrive as f64).abs() < 1e-6 * arrive as f64 + 1e-6);
            assert!((found.rate_out - read as f64).abs() < 1e-6 * read as f64 + 1e-6);
            assert_eq!(found.loss_ms, None, "everything is kept");
        }
    }

    #[test]
    fn retention_passes_a_group_that_stands_still() {
        let (backlog, group, rate_in) = follow(1_000, 0, 0);
        // It is 59 s behind, older by a second each second, and by 100 kB.
        let found = |kept| outlook(&backlog, &group, rate_in, &kept).loss_ms;
        assert_eq!(found(kept(100_000, 0)), Some(41_000));
        assert_eq!(found(kept(0, 6_900_000)), Some(10_000));
        assert_eq!(found(kept(100_000, 6_900_000)), Some(10_000), "whichever comes first");
        assert_eq!(found(kept(10_000, 0)), Some(0), "it has");
        let (backlog, group, rate_in) = follow(1_000, 1_000, 5_000);
        let steady = outlook(&backlog, &group, rate_in, &kept(6_000, 1_000_000));
        assert_eq!(steady.loss_ms, None, "as far behind as ever");
    }

    #[test]
    fn a_group_that_was_set_back_begins_anew() {
        let (backlog, mut group, _) = follow(1_000, 2_000, 100_000);
        group.read(60 * SECOND, 0, &backlog);
        assert_eq!(group.read_per_s(), 0.0);
        group.read(61 * SECOND, 500, &backlog);
        assert!((group.read_per_s() - 500.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn no_reading_makes_nonsense(
            readings in prop::collection::vec((any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..20),
            rate_in in 0.0..1e12f64, retention in any::<(u64, u64)>(),
        ) {
            let (mut group, mut at) = (Follow::default(), 0u64);
            let mut backlog = Backlog::default();
            for (step, position, bytes, age_ns) in readings {
                at += u64::from(step);
                backlog = Backlog { records: position, bytes, age_ns, exact: step % 2 == 0 };
                group.read(at, position, &backlog);
            }
            let found = outlook(&backlog, &group, rate_in, &kept(retention.0, retention.1));
            prop_assert!(found.rate_out.is_finite() && found.rate_in >= 0.0);
        }
    }
}
