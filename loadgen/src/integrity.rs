//! The judge of what became of records: pure bookkeeping, no clock and no I/O.
//!
//! A [`Ledger`] follows one *lane*, the records of one producer for one shard, numbered densely in the
//! order they were made. It is told of every acknowledgement and of everything read, in any order of the
//! two, and says at the end which records are lost, exactly: sets of numbers, not counts, decide.

use std::collections::VecDeque;
use std::ops::Range;

use crate::intervals::{Intervals, common};

/// What a lane's history comes to. Numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged.
    pub acked: u64,
    /// Read, each once.
    pub read: u64,
    /// Acknowledged and never read, though the consumer went past their place, or to the end.
    pub lost: u64,
    /// Read again.
    pub duplicated: u64,
    /// Read after a later one.
    pub reordered: u64,
    /// Acknowledged and removed by retention before they were read.
    pub trimmed: u64,
    /// Acknowledged, and the consumer had not come to them yet.
    pub unread: u64,
    /// Not stored, said the target.
    pub refused: u64,
    /// ... and read nevertheless.
    pub refused_but_read: u64,
    /// Of unknown fate.
    pub unknown: u64,
    /// ... and read: they are stored.
    pub unknown_but_read: u64,
}

impl Verdict {
    /// Adds another lane's.
    pub fn add(&mut self, other: &Verdict) {
        self.acked += other.acked;
        self.read += other.read;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.trimmed += other.trimmed;
        self.unread += other.unread;
        self.refused += other.refused;
        self.refused_but_read += other.refused_but_read;
        self.unknown += other.unknown;
        self.unknown_but_read += other.unknown_but_read;
    }
}

/// How far the consumer of a shard came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Next shard sequence it would have read.
    pub position: u64,
    /// Shard sequences it had to skip because retention had removed them.
    pub trimmed: Intervals,
    /// Whether that is the end of the shard: nothing acknowledged can be behind it.
    pub at_end: bool,
}

/// Acknowledged and not read when the acknowledgement came.
#[derive(Clone, Debug)]
struct Waiting {
    records: Range<u64>,
    /// Shard sequence of the first of them; `None` if the target did not know it any more.
    base: Option<u64>,
    acked_ns: u64,
}

impl Waiting {
    /// The part of it that is `records`.
    fn part(&self, records: Range<u64>) -> Waiting {
        let base = self.base.map(|base| base + (records.start - self.records.start));
        Waiting { records, base, acked_ns: self.acked_ns }
    }
}

/// The history of one lane.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    read: Intervals,
    /// After the latest record read.
    read_end: u64,
    /// Acknowledged, not read, in order of acknowledgement: those the consumer has not come to.
    waiting: VecDeque<Waiting>,
    /// Acknowledged, not read, and a later one was read.
    passed: Vec<Waiting>,
    refused: Intervals,
    unknown: Intervals,
    acked: u64,
    /// After the last shard sequence acknowledged.
    acked_end: u64,
    duplicated: u64,
    reordered: u64,
}

impl Ledger {
    /// Records `records` are acknowledged, and the first has shard sequence `base`. Returns how many
    /// of them had been read by then.
    pub fn acked(&mut self, records: Range<u64>, base: Option<u64>, acked_ns: u64) -> u64 {
        self.acked += records.end - records.start;
        if let Some(base) = base {
            let end = base.saturating_add(records.end - records.start);
            self.acked_end = self.acked_end.max(end);
        }
        let whole = Waiting { records: records.clone(), base, acked_ns };
        let before = self.waiting.len();
        if self.read.count(&records) == 0 {
            self.waiting.push_back(whole);
            return 0;
        }
        let gaps = self.read.gaps(records.clone());
        self.waiting.extend(gaps.map(|gap| whole.part(gap)));
        let unread: u64 =
            self.waiting.range(before..).map(|w| w.records.end - w.records.start).sum();
        records.end - records.start - unread
    }

    /// The acknowledgement of `records`, kept nowhere: nobody reads this shard.
    pub fn acked_unwatched(&mut self, records: Range<u64>) {
        self.acked += records.end - records.start;
    }

    /// The shard sequence after the last one acknowledged; 0 if none is known.
    pub fn acked_end(&self) -> u64 {
        self.acked_end
    }

    /// The target says it did not store `records`.
    pub fn refused(&mut self, records: Range<u64>) {
        self.refused.insert(records);
    }

    /// Nobody knows whether `records` are stored.
    pub fn unknown(&mut self, records: Range<u64>) {
        self.unknown.insert(records);
    }

    /// `records` were read, one after the other. Returns how many were new, after giving each
    /// acknowledgement that waited for some of them to `acked(acked_ns, records)`.
    pub fn read(&mut self, records: Range<u64>, mut acked: impl FnMut(u64, u64)) -> u64 {
        if records.is_empty() {
            return 0;
        }
        let count = records.end - records.start;
        // Only what is new and lies before something read earlier came late.
        let late = records.start..records.end.min(self.read_end);
        let late_known = self.read.count(&late);
        let new = self.read.insert(records.clone());
        self.duplicated += count - new;
        self.reordered += late.end.saturating_sub(late.start) - late_known;
        self.read_end = self.read_end.max(records.end);
        while let Some(front) = self.waiting.front_mut() {
            if front.records.start >= records.end {
                break;
            }
            let here = common(&front.records, &records);
            if here > 0 {
                acked(front.acked_ns, here);
            }
            if front.records.start < records.start {
                let end = front.records.end.min(records.start);
                let passed = front.part(front.records.start..end);
                self.passed.push(passed);
            }
            if front.records.end > records.end {
                *front = front.part(records.end..front.records.end);
                break;
            }
            self.waiting.pop_front();
        }
        new
    }

    /// What it all comes to. `reach`: how far the shard's consumer came; `None` if it had none (then
    /// nothing is lost, as nobody looked).
    pub fn verdict(&self, reach: Option<&Reach>) -> Verdict {
        let read_of = |set: &Intervals| set.runs().iter().map(|run| self.read.count(run)).sum();
        let mut verdict = Verdict {
            acked: self.acked,
            read: self.read.len(),
            duplicated: self.duplicated,
            reordered: self.reordered,
            refused: self.refused.len(),
            refused_but_read: read_of(&self.refused),
            unknown: self.unknown.len(),
            unknown_but_read: read_of(&self.unknown),
            ..Verdict::default()
        };
        let Some(reach) = reach else {
            return verdict;
        };
        for entry in self.passed.iter().chain(&self.waiting) {
            // A record passed by may still have been read later.
            for gap in self.read.gaps(entry.records.clone()) {
                let count = gap.end - gap.start;
                let Some(base) = entry.part(gap).base else {
                    verdict.lost += count;
                    continue;
                };
                let place = base..base + count;
                let behind = common(&place, &(reach.position..u64::MAX));
                let unread = if reach.at_end { 0 } else { behind };
                let trimmed = reach.trimmed.count(&place);
                verdict.unread += unread;
                verdict.trimmed += trimmed;
                verdict.lost += count.saturating_sub(unread + trimmed);
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records 0 to 100 acknowledged in batches of 10, stored from shard sequence 1,000 on.
    fn acknowledged() -> Ledger {
        let mut ledger = Ledger::default();
        for batch in 0..10 {
            assert_eq!(
                ledger.acked(batch * 10..batch * 10 + 10, Some(1_000 + batch * 10), batch),
                0
            );
        }
        ledger
    }

    fn read(ledger: &mut Ledger, ranges: impl IntoIterator<Item = Range<u64>>) {
        for range in ranges {
            ledger.read(range, |_, _| ());
        }
    }

    fn judge(ledger: &Ledger) -> Verdict {
        ledger.verdict(Some(&Reach { position: 1_100, ..Reach::default() }))
    }

    const CLEAN: Verdict = Verdict {
        acked: 100,
        read: 100,
        lost: 0,
        duplicated: 0,
        reordered: 0,
        trimmed: 0,
        unread: 0,
        refused: 0,
        refused_but_read: 0,
        unknown: 0,
        unknown_but_read: 0,
    };

    #[test]
    fn a_clean_history_is_clean() {
        let mut ledger = acknowledged();
        read(&mut ledger, [0..7, 7..33, 33..100]);
        assert_eq!(judge(&ledger), CLEAN);
        assert!(ledger.waiting.is_empty() && ledger.passed.is_empty());
    }

    #[test]
    fn a_record_never_read_is_lost() {
        let mut ledger = acknowledged();
        read(&mut ledger, [0..41, 42..98]);
        assert_eq!(judge(&ledger), Verdict { read: 97, lost: 3, ..CLEAN });
    }

    #[test]
    fn equal_counts_do_not_hide_a_loss() {
        let mut ledger = acknowledged();
        read(&mut ledger, [0..50, 49..50, 51..100]);
        assert_eq!(judge(&ledger), Verdict { read: 99, lost: 1, duplicated: 1, ..CLEAN });
    }

    #[test]
    fn a_record_read_twice_is_duplicated() {
        let mut ledger = acknowledged();
        read(&mut ledger, [0..60, 55..100]);
        assert_eq!(judge(&ledger), Verdict { duplicated: 5, ..CLEAN });
    }

    #[test]
    fn a_record_read_after_a_later_one_is_reordered_and_not_lost() {
        let mut ledger = acknowledged();
        read(&mut ledger, [0..20, 23..40, 20..23, 40..100]);
        assert_eq!(judge(&ledger), Verdict { reordered: 3, ..CLEAN });
    }

    #[test]
    fn what_retention_removed_is_trimmed_and_the_rest_of_a_gap_is_lost() {
        let mut ledger = acknowledged();
        read(&mut ledger, [0..20, 50..100]);
        let mut reach = Reach { position: 1_100, ..Reach::default() };
        reach.trimmed.insert(1_010..1_045);
        let verdict = ledger.verdict(Some(&reach));
        assert_eq!(verdict, Verdict { read: 70, trimmed: 25, lost: 5, ..CLEAN });
    }

    #[test]
    fn what_the_consumer_did_not_reach_is_unread() {
        let mut ledger = acknowledged();
        read(&mut ledger, [0..15, 15..30]);
        let mut reach = Reach { position: 1_035, ..Reach::default() };
        let verdict = ledger.verdict(Some(&reach));
        assert_eq!(verdict, Verdict { read: 30, unread: 65, lost: 5, ..CLEAN });
        // Unless there is nothing more to reach.
        reach.at_end = true;
        let verdict = ledger.verdict(Some(&reach));
        assert_eq!(verdict, Verdict { read: 30, lost: 70, ..CLEAN });
    }

    #[test]
    fn refused_and_unknown_records_are_resolved_by_what_was_read() {
        let mut ledger = acknowledged();
        ledger.refused(100..110);
        ledger.unknown(110..120);
        read(&mut ledger, [0..100, 104..105, 110..114]);
        assert_eq!(
            judge(&ledger),
            Verdict {
                read: 105,
                refused: 10,
                refused_but_read: 1,
                unknown: 10,
                unknown_but_read: 4,
                ..CLEAN
            }
        );
    }

    #[test]
    fn without_a_consumer_nothing_is_judged() {
        assert_eq!(acknowledged().verdict(None), Verdict { read: 0, ..CLEAN });
    }

    #[test]
    fn reading_before_the_acknowledgement_is_told_apart() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.read(0..4, |_, _| panic!("nothing is acknowledged yet")), 4);
        assert_eq!(ledger.acked(0..10, Some(0), 77), 4);
        let mut told = Vec::new();
        assert_eq!(ledger.read(4..10, |acked_ns, records| told.push((acked_ns, records))), 6);
        assert_eq!(told, [(77, 6)]);
        assert!(ledger.waiting.is_empty());
    }

    proptest! {
        /// Whatever is read in whatever order: every acknowledged record is read or lost, never both.
        #[test]
        fn read_and_lost_make_up_what_was_acknowledged(
            steps in prop::collection::vec((0u64..100, 1u64..30, any::<bool>()), 0..60)
        ) {
            let mut ledger = Ledger::default();
            let mut acked = 0;
            let mut seen = Intervals::default();
            for (start, len, ack) in steps {
                if ack && acked < 100 {
                    ledger.acked(acked..acked + len, Some(acked), 0);
                    acked += len;
                } else {
                    seen.insert(start..start + len);
                    ledger.read(start..start + len, |_, _| ());
                }
            }
            let verdict = ledger.verdict(Some(&Reach { position: u64::MAX, ..Reach::default() }));
            prop_assert_eq!(verdict.read, seen.len());
            prop_assert_eq!(verdict.lost, acked - seen.count(&(0..acked)));
        }
    }
}
