//! Histories of a lane, sound and broken in every way.

use super::*;
use proptest::prelude::*;

/// Acknowledges; returns how many had been read before.
fn acked(ledger: &mut Ledger, records: Range<u64>, base: Option<u64>, acked_ns: u64) -> u64 {
    let mut early = 0;
    let at = base.map(|sequence| At { shard: 0, sequence });
    ledger.acked(records, at, acked_ns, |_, records| early += records);
    early
}

/// Records 0 to 100 acknowledged in batches of 10, stored from shard sequence 1,000 on.
fn acknowledged() -> Ledger {
    let mut ledger = Ledger::new(1);
    for batch in 0..10 {
        assert_eq!(
            acked(&mut ledger, batch * 10..batch * 10 + 10, Some(1_000 + batch * 10), batch),
            0
        );
    }
    ledger
}

fn read(ledger: &mut Ledger, ranges: impl IntoIterator<Item = Range<u64>>) {
    for range in ranges {
        ledger.read(0, 0, range, Order::ByNumber, |_, _| ());
    }
}

fn judge(ledger: &Ledger) -> Verdict {
    let reach = Reach { position: 1_100, ..Reach::default() };
    ledger.verdict(|_, _| Some(&reach))
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
    dropped: 0,
    sampled_out: 0,
    shed_but_read: 0,
};

#[test]
fn a_clean_history_is_clean() {
    let mut ledger = acknowledged();
    read(&mut ledger, [0..7, 7..33, 33..100]);
    assert_eq!(judge(&ledger), CLEAN);
    let unread = &ledger.groups[0].shards[0].1;
    assert!(unread.waiting.is_empty() && unread.passed.is_empty());
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
    let verdict = ledger.verdict(|_, _| Some(&reach));
    assert_eq!(verdict, Verdict { read: 70, trimmed: 25, lost: 5, ..CLEAN });
}

#[test]
fn what_the_consumer_did_not_reach_is_unread() {
    let mut ledger = acknowledged();
    read(&mut ledger, [0..15, 15..30]);
    let mut reach = Reach { position: 1_035, ..Reach::default() };
    let verdict = ledger.verdict(|_, _| Some(&reach));
    assert_eq!(verdict, Verdict { read: 30, unread: 65, lost: 5, ..CLEAN });
    // Unless there is nothing more to reach.
    reach.at_end = true;
    let verdict = ledger.verdict(|_, _| Some(&reach));
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
    let mut ledger = Ledger::new(0);
    assert_eq!(acked(&mut ledger, 0..100, Some(0), 1), 0);
    assert_eq!(ledger.verdict(|_, _| None), Verdict { read: 0, ..CLEAN });
}

#[test]
fn of_a_consumer_that_never_said_how_far_it_came_the_rest_is_unread() {
    let mut ledger = acknowledged();
    ledger.read(0, 0, 0..40, Order::ByNumber, |_, _| ());
    assert_eq!(ledger.verdict(|_, _| None), Verdict { read: 40, unread: 60, ..CLEAN });
}

#[test]
fn every_group_must_see_every_record_and_each_loss_counts_once() {
    let mut ledger = Ledger::new(3);
    assert_eq!(acked(&mut ledger, 0..100, Some(0), 1), 0);
    for (group, range) in [(0, 0..100), (1, 0..50), (1, 52..100), (2, 0..50), (2, 51..90)] {
        ledger.read(group, 0, range, Order::ByNumber, |_, _| ());
    }
    let reaches = [100, 100, 90].map(|position| Reach { position, ..Reach::default() });
    let verdict = ledger.verdict(|group, _| reaches.get(group));
    // 50 and 51 by the second group, 50 by the third, which has yet to come to the last ten.
    assert_eq!(verdict, Verdict { read: 287, lost: 2, unread: 10, ..CLEAN });
}

#[test]
fn what_is_read_by_one_group_of_an_unknown_fate_is_stored() {
    let mut ledger = Ledger::new(2);
    ledger.unknown(0..10);
    ledger.read(0, 0, 0..4, Order::ByNumber, |_, _| ());
    ledger.read(1, 0, 2..6, Order::ByNumber, |_, _| ());
    let verdict = ledger.verdict(|_, _| None);
    assert_eq!((verdict.unknown, verdict.unknown_but_read), (10, 6));
}

#[test]
fn a_group_far_behind_costs_no_memory_by_the_batch_and_loses_nothing_of_the_account() {
    let mut ledger = Ledger::new(1);
    let batches = WAITING as u64 + 1_000;
    for batch in 0..batches {
        acked(&mut ledger, batch * 2..batch * 2 + 2, Some(500 + batch * 2), batch);
    }
    assert_eq!(ledger.groups[0].shards[0].1.waiting.len(), WAITING);
    let reach = Reach { position: 500 + batches * 2, ..Reach::default() };
    assert_eq!(ledger.verdict(|_, _| Some(&reach)).lost, batches * 2);
    let mut told = 0;
    ledger.read(0, 0, 0..batches * 2 - 3, Order::ByNumber, |_, records| told += records);
    assert_eq!((told, ledger.verdict(|_, _| Some(&reach)).lost), (batches * 2 - 3, 3));
}

#[test]
fn reading_before_the_acknowledgement_is_told_apart() {
    let mut ledger = Ledger::new(1);
    assert_eq!(
        ledger.read(0, 0, 0..4, Order::ByNumber, |_, _| panic!("nothing is acknowledged yet")),
        4
    );
    assert_eq!(acked(&mut ledger, 0..10, Some(0), 77), 4);
    let mut told = Vec::new();
    assert_eq!(
        ledger
            .read(0, 0, 4..10, Order::ByNumber, |acked_ns, records| told.push((acked_ns, records))),
        6
    );
    assert_eq!(told, [(77, 6)]);
    assert!(ledger.groups[0].shards[0].1.waiting.is_empty());
}

#[test]
fn each_group_that_read_early_is_told_of_for_itself() {
    let mut ledger = Ledger::new(3);
    ledger.read(0, 0, 0..4, Order::ByNumber, |_, _| ());
    ledger.read(2, 0, 0..10, Order::ByNumber, |_, _| ());
    let mut early = Vec::new();
    ledger.acked(0..10, Some(At { shard: 0, sequence: 0 }), 77, |group, records| {
        early.push((group, records))
    });
    assert_eq!(early, [(0, 4), (2, 10)]);
}

/// A lane whose shard 0 had 0 to 10, and then split into 1 (even numbers) and 2, acknowledged there one by one. The
/// keys are the numbers modulo 4.
fn split() -> Ledger {
    let mut ledger = Ledger::new(1);
    ledger.acked(0..10, Some(At { shard: 0, sequence: 0 }), 1, |_, _| ());
    for number in 10..30u64 {
        let at = At { shard: 1 + (number % 2) as u32, sequence: (number - 10) / 2 };
        ledger.acked(number..number + 1, Some(at), number, |_, _| ());
    }
    ledger.read(0, 0, 0..10, Order::ByNumber, |_, _| ());
    ledger
}

/// Reads these numbers one by one in a shard that came of the first; how often an acknowledgement was told.
fn read_by_key(ledger: &mut Ledger, shard: u32, numbers: impl IntoIterator<Item = u64>) -> u64 {
    let mut told = 0;
    for number in numbers {
        let key = Order::ByKey(u128::from(number % 4));
        ledger.read(0, shard, number..number + 1, key, |_, records| told += records);
    }
    told
}

fn judge_split(ledger: &Ledger) -> Verdict {
    let reaches = [10, 10, 10].map(|position| Reach { position, at_end: true, ..Reach::default() });
    let verdict = ledger.verdict(|_, shard| reaches.get(shard as usize));
    assert_eq!(verdict.acked, 30);
    verdict
}

const CLEAN_SPLIT: Verdict = Verdict { acked: 30, read: 30, ..CLEAN };

#[test]
fn after_a_split_each_shard_has_its_keys_in_order_and_says_nothing_of_the_others() {
    let mut ledger = split();
    // One is read to the end before the other is begun.
    assert_eq!(read_by_key(&mut ledger, 2, (11..30).step_by(2)), 10);
    assert_eq!(read_by_key(&mut ledger, 1, (10..30).step_by(2)), 10);
    assert_eq!(judge_split(&ledger), CLEAN_SPLIT);
    // Keys change places, as they may where shards merge: 0 before 2, then 2 before 0.
    let mut ledger = split();
    read_by_key(&mut ledger, 1, [10, 14, 12, 16, 18, 22, 20, 24, 26, 28]);
    read_by_key(&mut ledger, 2, (11..30).step_by(2));
    assert_eq!(judge_split(&ledger), CLEAN_SPLIT);
}

#[test]
fn after_a_split_what_is_lost_doubled_or_late_is_found_key_by_key() {
    let odd = || (11..30u64).step_by(2);
    for (even, wanted) in [
        // 16 and 20 have one key.
        (&[10, 12, 14, 20, 16, 18, 22, 24, 26, 28][..], Verdict { reordered: 1, ..CLEAN_SPLIT }),
        (&[10, 12, 14, 16, 18, 20, 22, 26, 28], Verdict { read: 29, lost: 1, ..CLEAN_SPLIT }),
        (&[10, 12, 14, 14, 16, 18, 20, 22, 24, 26, 28], Verdict { duplicated: 1, ..CLEAN_SPLIT }),
        // What the first shard had comes again in the second.
        (&[8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28], Verdict { duplicated: 1, ..CLEAN_SPLIT }),
    ] {
        let mut ledger = split();
        read_by_key(&mut ledger, 1, even.iter().copied());
        read_by_key(&mut ledger, 2, odd());
        assert_eq!(judge_split(&ledger), wanted, "{even:?}");
    }
    // What the first shard never had comes in the second, after later ones of the lane.
    let mut ledger = Ledger::new(1);
    ledger.acked(0..10, Some(At { shard: 0, sequence: 0 }), 1, |_, _| ());
    ledger.read(0, 0, 0..3, Order::ByNumber, |_, _| ());
    ledger.read(0, 0, 4..10, Order::ByNumber, |_, _| ());
    read_by_key(&mut ledger, 1, [3]);
    assert_eq!(judge_of(&ledger).reordered, 1);
}

fn judge_of(ledger: &Ledger) -> Verdict {
    ledger.verdict(|_, _| None)
}

#[test]
fn what_is_not_read_in_a_shard_is_unread_until_its_reader_comes_to_its_end() {
    let mut ledger = split();
    read_by_key(&mut ledger, 1, (10..30).step_by(2));
    read_by_key(&mut ledger, 2, [11, 13]);
    let came = Reach { position: 2, ..Reach::default() };
    let whole = Reach { position: 10, ..Reach::default() };
    let verdict = ledger.verdict(|_, shard| match shard {
        2 => Some(&came),
        _ => Some(&whole),
    });
    assert_eq!(verdict, Verdict { read: 22, unread: 8, ..CLEAN_SPLIT });
    // Nobody reads it at all.
    let verdict = ledger.verdict(|_, shard| (shard < 2).then_some(&whole));
    assert_eq!((verdict.unread, verdict.lost), (8, 0));
}

proptest! {
    /// Whatever is read in whatever order: every acknowledged record is read or lost, never both.
    #[test]
    fn read_and_lost_make_up_what_was_acknowledged(
        steps in prop::collection::vec((0u64..100, 1u64..30, any::<bool>()), 0..60)
    ) {
        let mut ledger = Ledger::new(1);
        let mut made = 0;
        let mut seen = Intervals::default();
        for (start, len, ack) in steps {
            if ack && made < 100 {
                acked(&mut ledger, made..made + len, Some(made), 0);
                made += len;
            } else {
                seen.insert(start..start + len);
                ledger.read(0, 0, start..start + len, Order::ByNumber, |_, _| ());
            }
        }
        let reach = Reach { position: u64::MAX, ..Reach::default() };
        let verdict = ledger.verdict(|_, _| Some(&reach));
        prop_assert_eq!(verdict.read, seen.len());
        prop_assert_eq!(verdict.lost, made - seen.count(&(0..made)));
    }
}
