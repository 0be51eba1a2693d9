//! Tests of the window: by table, and against a model of the server with faults.

use std::collections::HashMap;
use std::time::Duration;

use highwater_wire::{ErrorCode, ProducerStamp, WireError};
use proptest::prelude::*;

use super::*;

const SECOND: Time = Duration::from_secs(1);
const PRODUCER: ProducerStamp = ProducerStamp { id: 1, epoch: 1, sequence: 0 };

fn config(inflight: usize, idempotent: bool) -> Config {
    Config { inflight, idempotent, request_timeout: 30 * SECOND, retry: RetryPolicy::default() }
}

fn window(inflight: usize, idempotent: bool) -> Window<&'static str> {
    Window::new(config(inflight, idempotent), PRODUCER, fastrand::Rng::with_seed(1))
}

/// A tag and what became of its batch.
type Outcome = (u64, Result<AppendAck, AppendError>);

fn ack(base_sequence: u64) -> AppendAck {
    AppendAck { base_sequence, record_count: 1, arrival_ns: 0, duplicate: false }
}

fn refusal(code: ErrorCode) -> ClientError {
    ClientError::Refused(WireError::new(code, "no"))
}

fn cut() -> ClientError {
    ClientError::Disconnected { address: "a".into(), reason: "cut".into() }
}

/// Sends all that may go: (index, attempt, stamp's id and sequence).
fn sent(window: &mut Window<&'static str>, now: Time) -> Vec<(u64, u32, u64, u64)> {
    std::iter::from_fn(|| {
        window.next_send(now).map(|s| (s.index, s.attempt, s.stamp.id, s.stamp.sequence))
    })
    .collect()
}

fn popped(window: &mut Window<&'static str>) -> Vec<Outcome> {
    std::iter::from_fn(|| window.pop_done().map(|(tag, result, _)| (tag, result))).collect()
}

fn three_in_flight(idempotent: bool) -> Window<&'static str> {
    let mut w = window(3, idempotent);
    for (tag, body) in [(10, "a"), (11, "b"), (12, "c")] {
        assert!(w.has_room());
        w.push(body, tag, 5, Time::ZERO);
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
    w.acked(2, ack(10), SECOND);
    w.acked(1, ack(5), SECOND);
    assert_eq!(popped(&mut w), []);
    w.acked(0, ack(0), SECOND);
    assert_eq!(popped(&mut w), [(10, Ok(ack(0))), (11, Ok(ack(5))), (12, Ok(ack(10)))]);
    assert!(w.is_empty());
}

#[test]
fn a_refused_flight_is_one_episode_and_is_sent_again_from_the_first_failure() {
    let mut w = three_in_flight(true);
    w.failed(1, 1, refusal(ErrorCode::Busy), SECOND);
    assert_eq!(sent(&mut w, SECOND), [], "nothing while others are in flight");
    w.acked(0, ack(0), SECOND);
    assert_eq!(w.next_tick(), Some(30 * SECOND), "not backing off yet");
    w.failed(2, 1, refusal(ErrorCode::OutOfSequence), SECOND);
    let until = w.next_tick().unwrap();
    assert!(until <= SECOND + Duration::from_millis(10), "one back-off, the first: {until:?}");
    w.tick(until);
    assert_eq!(sent(&mut w, until), [(1, 2, 1, 5), (2, 2, 1, 10)]);
    w.failed(1, 1, refusal(ErrorCode::Busy), until);
    w.acked(1, ack(5), until);
    w.acked(2, ack(10), until);
    assert_eq!(popped(&mut w).len(), 3);
}

#[test]
fn the_wait_is_at_least_what_the_server_asks_for() {
    let mut w = window(1, true);
    w.push("a", 1, 1, Time::ZERO);
    sent(&mut w, Time::ZERO);
    let busy = WireError::new(ErrorCode::Busy, "no").retry_after(700);
    w.failed(0, 1, ClientError::Refused(busy), Time::ZERO);
    assert_eq!(w.next_tick(), Some(Duration::from_millis(700)));
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
        w.push("a", 1, 1, Time::ZERO);
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
    assert!(w.wants_producer() && !w.wants_to_send());
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
    w.push("a", 1, 1, Time::ZERO);
    w.push("b", 2, 1, Time::ZERO);
    w.unreachable(&cut(), Time::ZERO);
    assert!(w.next_tick().unwrap() < SECOND);
    w.tick(deadline);
    let outcomes = popped(&mut w);
    assert!(outcomes.iter().all(|o| matches!(o.1, Err(AppendError::NotStored(_)))));
    assert_eq!(outcomes.len(), 2);

    w.push("c", 3, 1, deadline);
    w.tick(deadline);
    assert_eq!(sent(&mut w, deadline), [(2, 1, 1, 0)], "the place of what was never sent");
    w.tick(2 * deadline);
    assert!(matches!(popped(&mut w)[..], [(3, Err(AppendError::FateUnknown(_)))]));
}

#[test]
fn an_attempt_without_reply_is_over_and_its_late_acknowledgement_still_counts() {
    let mut w = window(1, true);
    w.push("a", 1, 1, Time::ZERO);
    sent(&mut w, Time::ZERO);
    assert_eq!(w.next_tick(), Some(30 * SECOND));
    assert!(!w.tick(29 * SECOND));
    assert!(w.tick(30 * SECOND));
    let until = w.next_tick().unwrap();
    w.tick(until);
    assert_eq!(sent(&mut w, until), [(0, 2, 1, 0)]);
    w.acked(0, ack(4), until);
    assert_eq!(popped(&mut w), [(1, Ok(ack(4)))]);
    w.failed(0, 2, cut(), until);
    assert!(w.is_empty());
}

/// A server's shard as the window sees it.
#[derive(Default)]
struct Model {
    log: Vec<u64>,
    /// By producer: next sequence expected, and where each batch went.
    producers: HashMap<u64, (u64, HashMap<u64, u64>)>,
}

impl Model {
    fn append(&mut self, stamp: ProducerStamp, tag: u64) -> Result<AppendAck, ClientError> {
        let (next, known) = self.producers.entry(stamp.id).or_default();
        if let Some(base) = known.get(&stamp.sequence) {
            return Ok(AppendAck { duplicate: true, ..ack(*base) });
        }
        if stamp.sequence != *next {
            return Err(refusal(ErrorCode::OutOfSequence));
        }
        let base = self.log.len() as u64;
        self.log.push(tag);
        known.insert(stamp.sequence, base);
        *next += 1;
        Ok(ack(base))
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Refuse(ErrorCode),
    /// Stored, but the reply is lost with the connection.
    CutAfter,
    CutBefore,
    /// Neither stored nor answered.
    Silence,
    /// The server forgets every producer.
    Forget,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Refuse(ErrorCode::Busy)),
        1 => Just(Fault::Refuse(ErrorCode::DiskFull)),
        1 => Just(Fault::CutAfter),
        1 => Just(Fault::CutBefore),
        1 => Just(Fault::Silence),
    ]
}

fn fault_or_loss() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => fault(),
        1 => Just(Fault::Refuse(ErrorCode::CorruptBatch)),
        1 => Just(Fault::Refuse(ErrorCode::ShardFailed)),
        1 => Just(Fault::Forget),
    ]
}

/// Drives `batches` one-record batches through a window against the model; the log and the outcomes.
fn run(batches: u64, inflight: usize, faults: &[Fault], seed: u64) -> (Vec<u64>, Vec<Outcome>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // However many attempts meet with silence: the deadline has tests of its own.
    let retry = RetryPolicy { deadline: Time::MAX, ..RetryPolicy::default() };
    let config = Config { retry, ..config(inflight, true) };
    let mut w: Window<()> = Window::new(config, PRODUCER, rng.fork());
    let mut faults = faults.iter().copied().chain(std::iter::repeat(Fault::None));
    let (mut model, mut now, mut pushed, mut ids) = (Model::default(), Time::ZERO, 0, 1);
    let mut outcomes = Vec::new();
    for _ in 0..100_000 {
        while pushed < batches && w.has_room() {
            w.push((), pushed, 1, now);
            pushed += 1;
        }
        let mut replies = Vec::new();
        let mut broken = false;
        while let Some(send) = w.next_send(now) {
            let (index, attempt, stamp) = (send.index, send.attempt, send.stamp);
            // Indices and tags count alike.
            let reply = match (broken, faults.next().unwrap_or(Fault::None)) {
                (true, _) | (_, Fault::CutBefore) => {
                    broken = true;
                    Some(Err(cut()))
                }
                (_, Fault::None) => Some(model.append(stamp, index)),
                (_, Fault::Refuse(code)) => Some(Err(refusal(code))),
                (_, Fault::CutAfter) => {
                    broken = true;
                    let _lost = model.append(stamp, index);
                    Some(Err(cut()))
                }
                (_, Fault::Silence) => None,
                (_, Fault::Forget) => {
                    model.producers.clear();
                    Some(Err(refusal(ErrorCode::UnknownProducer)))
                }
            };
            replies.extend(reply.map(|r| (index, attempt, r)));
        }
        rng.shuffle(&mut replies);
        for (index, attempt, reply) in replies {
            match reply {
                Ok(ack) => w.acked(index, ack, now),
                Err(cause) => w.failed(index, attempt, cause, now),
            }
        }
        while let Some((tag, result, ())) = w.pop_done() {
            outcomes.push((tag, result));
        }
        if outcomes.len() as u64 == batches {
            return (model.log, outcomes);
        }
        if w.wants_producer() {
            ids += 1;
            w.renewed(ids, 1);
        } else if !w.wants_to_send()
            && let Some(next) = w.next_tick()
        {
            now = now.max(next);
            w.tick(now);
        }
    }
    panic!("{} of {batches} outcomes: the window is stuck: {w:?}", outcomes.len());
}

proptest! {
    #[test]
    fn with_passing_faults_every_batch_is_stored_once_in_order_and_acknowledged_where_it_is(
        batches in 1u64..40, inflight in 1usize..10, seed: u64,
        faults in prop::collection::vec(fault(), 0..30),
    ) {
        let (log, outcomes) = run(batches, inflight, &faults, seed);
        prop_assert_eq!(&log, &(0..batches).collect::<Vec<_>>());
        for (at, (tag, result)) in outcomes.iter().enumerate() {
            prop_assert_eq!(*tag, at as u64);
            prop_assert_eq!(result.as_ref().map(|a| a.base_sequence), Ok(*tag));
        }
    }

    #[test]
    fn whatever_happens_outcomes_tell_the_truth_and_nothing_is_stored_twice(
        batches in 1u64..40, inflight in 1usize..10, seed: u64,
        faults in prop::collection::vec(fault_or_loss(), 0..40),
    ) {
        let (log, outcomes) = run(batches, inflight, &faults, seed);
        let mut stored = log.clone();
        stored.sort_unstable();
        stored.dedup();
        prop_assert_eq!(stored.len(), log.len(), "twice: {:?}", log);
        prop_assert!(log.is_sorted(), "out of order: {:?}", log);
        for (at, (tag, result)) in outcomes.iter().enumerate() {
            prop_assert_eq!(*tag, at as u64);
            match result {
                Ok(ack) => prop_assert_eq!(log.get(ack.base_sequence as usize), Some(tag)),
                Err(AppendError::FateUnknown(_)) => {}
                Err(_) => prop_assert!(!log.contains(tag), "{} is stored: {:?}", tag, log),
            }
        }
    }
}
