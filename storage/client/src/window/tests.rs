//! Tests of the window, by table.

use std::time::Duration;

use highwater_wire::{ErrorCode, ProducerStamp, WireError};

use super::*;
use crate::outcome::{Decision, Fate};

const SECOND: Time = Duration::from_secs(1);
const PRODUCER: ProducerStamp = ProducerStamp { id: 1, epoch: 1, sequence: 0 };

pub(super) fn config(inflight: usize, idempotent: bool) -> Config {
    let retry = RetryPolicy::default();
    let request_timeout = 30 * SECOND;
    Config { shard: 0, inflight, idempotent, partial: true, request_timeout, retry }
}

fn window(inflight: usize, idempotent: bool) -> Window<u64> {
    Window::new(config(inflight, idempotent), Some(PRODUCER), fastrand::Rng::with_seed(1))
}

/// A tag and what became of its batch: where it is, or why nobody can say.
type Outcome = (u64, Result<u64, AppendError>);

/// The reply to a batch of so many records that is stored whole.
fn stored(base_sequence: u64, records: u32) -> Decision {
    Decision { base_sequence, stored: records, decided: records, ..Decision::default() }
}

/// Records from the front are stored, those behind are put off for a second.
fn put_off(base_sequence: u64, decided: u32) -> Decision {
    Decision { retry_after_ms: 1000, ..stored(base_sequence, decided) }
}

/// A batch with this tag.
fn push(window: &mut Window<u64>, tag: u64, records: u32, now: Time) {
    let stamp = window.next_stamp();
    window.push(tag, records, stamp, now);
}

pub(super) fn refusal(code: ErrorCode) -> ClientError {
    ClientError::Refused(WireError::new(code, "no"))
}

pub(super) fn cut() -> ClientError {
    ClientError::Disconnected { address: "a".into(), reason: "cut".into() }
}

/// Sends all that may go: (index, attempt, stamp's id and sequence).
fn sent(window: &mut Window<u64>, now: Time) -> Vec<(u64, u32, u64, u64)> {
    std::iter::from_fn(|| {
        window.next_send(now).map(|s| (s.index, s.attempt, s.stamp.id, s.stamp.sequence))
    })
    .collect()
}

fn outcome(settled: &Settled<u64>) -> Outcome {
    assert_eq!(settled.moved, None);
    let ack = crate::Ack { tag: settled.body, runs: settled.runs.clone() };
    let result = ack.whole().map_err(|fate| match fate {
        Fate::Failed(error) => error,
        fate => panic!("{fate:?}"),
    });
    (ack.tag, result)
}

fn popped(window: &mut Window<u64>) -> Vec<Outcome> {
    std::iter::from_fn(|| window.pop_settled().map(|settled| outcome(&settled))).collect()
}

fn three_in_flight(idempotent: bool) -> Window<u64> {
    let mut w = window(3, idempotent);
    for tag in [10, 11, 12] {
        assert!(w.has_room());
        push(&mut w, tag, 5, Time::ZERO);
    }
    assert!(!w.has_room());
    let id = u64::from(idempotent);
    let step = 5 * id;
    let expected = [(0, 1, id, 0), (1, 1, id, step), (2, 1, id, 2 * step)];
    assert_eq!(sent(&mut w, Time::ZERO), expected);
    w
}

#[test]
fn outcomes_come_in_order_of_sending_whatever_the_order_of_replies() {
    let mut w = three_in_flight(true);
    w.replied(2, 1, &stored(10, 5), SECOND);
    w.replied(1, 1, &stored(5, 5), SECOND);
    assert_eq!(popped(&mut w), []);
    w.replied(0, 1, &stored(0, 5), SECOND);
    assert_eq!(popped(&mut w), [(10, Ok(0)), (11, Ok(5)), (12, Ok(10))]);
    assert!(w.is_empty());
}

#[test]
fn a_refused_flight_is_one_episode_and_is_sent_again_from_the_first_failure() {
    let mut w = three_in_flight(true);
    w.failed(1, 1, refusal(ErrorCode::Busy), SECOND);
    assert_eq!(sent(&mut w, SECOND), [], "nothing while others are in flight");
    w.replied(0, 1, &stored(0, 5), SECOND);
    assert_eq!(w.next_tick(), Some(30 * SECOND), "not backing off yet");
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    let until = w.next_tick().unwrap();
    assert!(until <= SECOND + Duration::from_millis(10), "one back-off, the first: {until:?}");
    w.tick(until);
    assert_eq!(sent(&mut w, until), [(1, 2, 1, 5), (2, 2, 1, 10)]);
    w.failed(1, 1, refusal(ErrorCode::Busy), until);
    w.replied(1, 2, &stored(5, 5), until);
    w.replied(2, 2, &stored(10, 5), until);
    assert_eq!(popped(&mut w).len(), 3);
}

#[test]
fn the_wait_is_at_least_what_the_server_asks_for() {
    let mut w = window(1, true);
    push(&mut w, 1, 1, Time::ZERO);
    sent(&mut w, Time::ZERO);
    let busy = WireError::new(ErrorCode::Busy, "no").retry_after(700);
    w.failed(0, 1, ClientError::Refused(busy), Time::ZERO);
    assert_eq!(w.next_tick(), Some(Duration::from_millis(700)));
}

#[test]
fn what_was_put_off_is_sent_again_from_there_one_batch_at_a_time() {
    let mut w = three_in_flight(true);
    w.replied(0, 1, &put_off(0, 2), SECOND);
    w.failed(1, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    let until = w.next_tick().unwrap();
    let asked = 2 * SECOND;
    assert!((asked..=asked + Duration::from_millis(10)).contains(&until), "as asked: {until:?}");
    w.tick(until);
    let until = w.next_tick().unwrap();
    assert!(until < asked + SECOND / 10, "a little slower than that: {until:?}");
    let send = w.next_send(until).unwrap();
    assert_eq!((send.index, send.attempt, send.cut, send.restamp), (0, 2, 2, true));
    assert_eq!(send.stamp.sequence, 2, "behind what is decided");
    assert!(w.next_due().is_none(), "one, to see whether there is room");
    // The first attempt again, and late: it tells nothing new.
    let replied = until + SECOND;
    w.replied(0, 1, &put_off(0, 2), replied);
    w.replied(0, 2, &stored(2, 3), replied);
    assert_eq!(sent(&mut w, replied), [], "at the pace that was asked for: three in a second");
    let then = w.next_tick().unwrap();
    assert!(then > until + SECOND && then <= until + 2 * SECOND, "{:?}", then - until);
    assert_eq!(sent(&mut w, then), [(1, 2, 1, 5)]);
    w.replied(1, 2, &stored(5, 5), then + SECOND);
    push(&mut w, 1, 3, then + SECOND);
    // The quota may be another by then: no pace any more.
    let later = then + 20 * SECOND;
    assert_eq!(
        sent(&mut w, later),
        [(2, 2, 1, 10), (3, 1, 1, 15)],
        "two acknowledged: two at a time"
    );
    let settled = w.pop_settled().unwrap();
    assert_eq!(outcome(&settled), (10, Ok(0)));
    assert_eq!(settled.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn what_is_decided_of_the_oldest_batch_is_told_before_the_rest_of_it_is() {
    let mut w = three_in_flight(true);
    assert!(w.take_decided().is_none() && w.held_up_by().is_none());
    w.replied(0, 1, &put_off(0, 2), SECOND);
    let (runs, tag) = w.take_decided().unwrap();
    let told: Vec<_> = runs.iter().map(|run| (run.first, run.count)).collect();
    assert_eq!((*tag, told), (10, vec![(0, 2)]));
    assert!(w.take_decided().is_none(), "once");
    let code = |w: &Window<u64>| w.held_up_by().and_then(|(_, cause)| cause.code());
    assert_eq!(code(&w), Some(ErrorCode::QuotaExceeded));
    w.failed(1, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    let until = 3 * SECOND;
    w.tick(until);
    assert_eq!(sent(&mut w, until), [(0, 2, 1, 2)]);
    assert_eq!(code(&w), None, "its reply is awaited");
    w.replied(0, 2, &stored(2, 3), until + SECOND);
    let settled = w.pop_settled().unwrap();
    assert_eq!(settled.runs.iter().map(|r| (r.first, r.count)).collect::<Vec<_>>(), [(2, 3)]);
    assert_eq!(code(&w), Some(ErrorCode::OutOfSequence), "now the next is");
}

#[test]
fn as_long_as_something_is_decided_before_the_deadline_nothing_is_given_up() {
    let deadline = RetryPolicy::default().deadline;
    let mut w = window(1, true);
    push(&mut w, 10, 5, Time::ZERO);
    push(&mut w, 11, 5, Time::ZERO);
    let mut now = Time::ZERO;
    for sequence in 0..3 {
        w.tick(now);
        assert_eq!(popped(&mut w), [], "{now:?}");
        assert_eq!(sent(&mut w, now), [(0, 1 + sequence as u32, 1, sequence)]);
        w.replied(0, 1 + sequence as u32, &put_off(sequence, 1), now);
        now += deadline - SECOND;
    }
    w.tick(now);
    assert_eq!(popped(&mut w), []);
    w.tick(now + SECOND);
    let given_up: Vec<u64> = std::iter::from_fn(|| w.pop_settled().map(|s| s.body)).collect();
    assert_eq!(given_up, [10, 11]);
}

#[test]
fn a_closed_shard_is_asked_for_what_may_be_stored_and_the_rest_moves() {
    let mut w = three_in_flight(true);
    w.failed(0, 1, cut(), SECOND);
    w.failed(1, 1, refusal(ErrorCode::ShardClosed), SECOND);
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    assert!(w.is_closed() && !w.has_room() && w.pop_settled().is_none());
    push(&mut w, 13, 5, SECOND);
    w.tick(2 * SECOND);
    assert_eq!(sent(&mut w, 2 * SECOND), [(0, 2, 1, 0)], "with its own stamp");
    w.replied(0, 2, &stored(0, 5), 2 * SECOND);
    assert_eq!(w.pop_settled().map(|settled| outcome(&settled)), Some((10, Ok(0))));
    for tag in [11, 12, 13] {
        let settled = w.pop_settled().unwrap();
        assert_eq!((settled.body, settled.moved), (tag, Some(Moved { first: 0, cut: 0 })));
    }
    assert!(w.is_empty() && !w.wants_producer());
}

#[test]
fn of_a_batch_in_parts_the_rest_is_moved() {
    let mut w = window(1, true);
    push(&mut w, 1, 5, Time::ZERO);
    sent(&mut w, Time::ZERO);
    w.replied(0, 1, &put_off(7, 2), Time::ZERO);
    w.tick(2 * SECOND);
    sent(&mut w, 2 * SECOND);
    w.replied(0, 2, &put_off(9, 1), 2 * SECOND);
    w.tick(8 * SECOND);
    sent(&mut w, 8 * SECOND);
    w.failed(0, 3, refusal(ErrorCode::ShardClosed), 8 * SECOND);
    let settled = w.pop_settled().unwrap();
    assert_eq!(settled.moved, Some(Moved { first: 3, cut: 0 }));
    assert_eq!(settled.runs.fate_of(2), Some(Fate::Stored { shard: 0, sequence: 9 }));
    assert_eq!(settled.runs.fate_of(3), None);
}

#[test]
fn a_fenced_producer_is_at_its_end() {
    let mut w = three_in_flight(true);
    w.failed(0, 1, cut(), SECOND);
    w.failed(1, 1, ClientError::Refused(fenced(4)), SECOND);
    w.failed(2, 1, ClientError::Refused(fenced(5)), SECOND);
    assert!(matches!(popped(&mut w)[..], [(10, Err(AppendError::FateUnknown(_)))]));
    w.tick(2 * SECOND);
    assert!(w.wants_producer());
    assert_eq!(w.fenced_by(), 5);
    w.abandon(&ClientError::Refused(fenced(5)), true);
    push(&mut w, 13, 5, 2 * SECOND);
    let fenced = popped(&mut w);
    assert_eq!(fenced.iter().map(|o| o.0).collect::<Vec<_>>(), [11, 12, 13]);
    assert!(fenced.iter().all(|o| matches!(o.1, Err(AppendError::NotStored(_)))));
    assert!(!w.wants_producer() && w.next_due().is_none());
}

fn fenced(epoch: u64) -> WireError {
    WireError::new(ErrorCode::ProducerFenced, "no").detail(epoch)
}

#[test]
fn every_kind_of_failure_has_its_answer() {
    type Is = fn(&AppendError) -> bool;
    let unknown: Is = |e| matches!(e, AppendError::FateUnknown(_));
    let not_stored: Is = |e| matches!(e, AppendError::NotStored(_));
    let stored: Is = |e| matches!(e, AppendError::StoredBefore);
    // Cause; idempotent; what the batch ends as, or `None` if it is sent again.
    let table: &[(ClientError, bool, Option<Is>)] = &[
        (cut(), true, None),
        (cut(), false, Some(unknown)),
        (ClientError::TimedOut { after: SECOND }, true, None),
        (ClientError::TimedOut { after: SECOND }, false, Some(unknown)),
        (refusal(ErrorCode::TimedOut), true, None),
        (refusal(ErrorCode::TimedOut), false, Some(unknown)),
        (refusal(ErrorCode::Busy), true, None),
        (refusal(ErrorCode::Busy), false, None),
        (refusal(ErrorCode::OutOfMemory), true, None),
        (refusal(ErrorCode::DiskFull), true, None),
        (refusal(ErrorCode::Unavailable), true, None),
        (refusal(ErrorCode::OutOfSequence), true, None),
        (refusal(ErrorCode::UnknownProducer), true, None),
        (refusal(ErrorCode::ProducerFenced), true, None),
        (refusal(ErrorCode::UnknownProducer), false, Some(not_stored)),
        (refusal(ErrorCode::DuplicateSequence), true, Some(stored)),
        (refusal(ErrorCode::ShardFailed), true, Some(unknown)),
        (refusal(ErrorCode::Internal), true, Some(unknown)),
        (refusal(ErrorCode::ShardDamaged), true, Some(not_stored)),
        (refusal(ErrorCode::UnknownStream), true, Some(not_stored)),
        (refusal(ErrorCode::CorruptBatch), false, Some(not_stored)),
    ];
    for (cause, idempotent, expected) in table {
        let mut w = window(1, *idempotent);
        push(&mut w, 1, 1, Time::ZERO);
        sent(&mut w, Time::ZERO);
        w.failed(0, 1, cause.clone(), Time::ZERO);
        let outcome = popped(&mut w);
        match (expected, &outcome[..]) {
            (None, []) => {}
            (Some(is), [(1, Err(error))]) => assert!(is(error), "{cause}: {error:?}"),
            other => panic!("{cause}, idempotent {idempotent}: {other:?}"),
        }
    }
}

#[test]
fn batches_move_up_when_one_is_refused_for_good_and_nothing_is_ambiguous() {
    let mut w = three_in_flight(true);
    w.failed(0, 1, refusal(ErrorCode::RecordTooLarge), SECOND);
    w.failed(1, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    assert!(matches!(popped(&mut w)[..], [(10, Err(AppendError::NotStored(_)))]));
    w.tick(2 * SECOND);
    assert!(!w.wants_producer());
    assert_eq!(sent(&mut w, 2 * SECOND), [(1, 2, 1, 0), (2, 2, 1, 5)]);
    assert_eq!(w.next_stamp().sequence, 10);
}

#[test]
fn a_batch_before_the_one_refused_for_good_keeps_its_place() {
    let mut w = three_in_flight(true);
    w.failed(1, 1, refusal(ErrorCode::CorruptBatch), SECOND);
    w.failed(0, 1, refusal(ErrorCode::Busy), SECOND);
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    w.tick(2 * SECOND);
    assert_eq!(sent(&mut w, 2 * SECOND), [(0, 2, 1, 0), (2, 2, 1, 5)]);
}

#[test]
fn a_forgotten_producer_gets_a_new_id_and_ambiguous_batches_are_given_up() {
    let mut w = three_in_flight(true);
    // The first two may be stored; the third is known not to be.
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    w.failed(0, 1, cut(), SECOND);
    w.failed(1, 1, cut(), SECOND);
    w.tick(2 * SECOND);
    assert_eq!(sent(&mut w, 2 * SECOND).len(), 3);
    for index in 0..3 {
        w.failed(index, 2, refusal(ErrorCode::UnknownProducer), 2 * SECOND);
    }
    let outcomes = popped(&mut w);
    assert_eq!(outcomes.iter().map(|o| o.0).collect::<Vec<_>>(), [10, 11]);
    assert!(outcomes.iter().all(|o| matches!(o.1, Err(AppendError::FateUnknown(_)))));
    w.tick(4 * SECOND);
    assert!(w.wants_producer() && w.next_due().is_none());
    w.unreachable(&cut(), 4 * SECOND);
    assert!(!w.wants_producer());
    w.tick(6 * SECOND);
    assert!(w.wants_producer());
    w.renewed(7, 1);
    assert_eq!(sent(&mut w, 6 * SECOND), [(2, 3, 7, 0)]);
}

#[test]
fn the_deadline_tells_what_was_never_sent_from_what_may_be_stored() {
    let deadline = RetryPolicy::default().deadline;
    let mut w = window(3, true);
    push(&mut w, 1, 1, Time::ZERO);
    push(&mut w, 2, 1, Time::ZERO);
    w.unreachable(&cut(), Time::ZERO);
    assert!(w.next_tick().unwrap() < SECOND);
    w.tick(deadline);
    let outcomes = popped(&mut w);
    assert!(outcomes.iter().all(|o| matches!(o.1, Err(AppendError::NotStored(_)))));
    assert_eq!(outcomes.len(), 2);

    push(&mut w, 3, 1, deadline);
    w.tick(deadline);
    assert_eq!(sent(&mut w, deadline), [(2, 1, 1, 0)], "the place of what was never sent");
    w.tick(2 * deadline);
    assert!(matches!(popped(&mut w)[..], [(3, Err(AppendError::FateUnknown(_)))]));
}

#[test]
fn an_attempt_without_reply_is_over_and_its_late_acknowledgement_still_counts() {
    let mut w = window(1, true);
    push(&mut w, 1, 1, Time::ZERO);
    sent(&mut w, Time::ZERO);
    assert_eq!(w.next_tick(), Some(30 * SECOND));
    assert!(!w.tick(29 * SECOND));
    assert!(w.tick(30 * SECOND));
    let until = w.next_tick().unwrap();
    w.tick(until);
    assert_eq!(sent(&mut w, until), [(0, 2, 1, 0)]);
    w.replied(0, 1, &stored(4, 1), until);
    assert_eq!(popped(&mut w), [(1, Ok(4))]);
    w.failed(0, 2, cut(), until);
    assert!(w.is_empty());
}
