//! The window against a model of the server with faults.

use std::collections::HashMap;

use highwater_wire::{ErrorCode, ProducerStamp};
use proptest::prelude::*;

use super::tests::{config, cut, refusal};
use super::*;
use crate::outcome::{Decision, Fate};

/// A server's shard as the window sees it. Batches are of [`BATCH`] records; the log is their numbers, over all.
#[derive(Default)]
struct Model {
    log: Vec<u64>,
    /// By producer: next sequence expected, and what was said of each batch.
    producers: HashMap<u64, (u64, HashMap<u64, Decision>)>,
    closed: bool,
}

const BATCH: u32 = 5;

/// `sent` records of batch `index`, those from `from` on.
struct Request {
    stamp: ProducerStamp,
    index: u64,
    from: u32,
    sent: u32,
}

impl Model {
    /// Takes so many of the records of a batch, leaving out the one at `dropped`.
    fn append(
        &mut self,
        request: &Request,
        limit: u32,
        dropped: Option<u32>,
    ) -> Result<Decision, ClientError> {
        let Request { stamp, index, from, sent } = *request;
        let asked = |decided| 100 * u32::from(decided < sent);
        let (next, known) = self.producers.entry(stamp.id).or_default();
        if let Some(decision) = known.get(&stamp.sequence).filter(|d| d.decided <= sent) {
            return Ok(Decision { retry_after_ms: asked(decision.decided), ..decision.clone() });
        }
        if stamp.sequence < *next {
            return Err(refusal(ErrorCode::DuplicateSequence));
        }
        if self.closed {
            return Err(refusal(ErrorCode::ShardClosed));
        }
        if stamp.sequence != *next {
            return Err(refusal(ErrorCode::OutOfSequence));
        }
        let decided = sent.min(limit);
        let dropped = dropped.filter(|at| *at < decided);
        let base_sequence = self.log.len() as u64;
        let kept = (0..decided).filter(|at| Some(*at) != dropped);
        self.log.extend(kept.map(|at| index * u64::from(BATCH) + u64::from(from + at)));
        let stored = self.log.len() as u64 - base_sequence;
        let exceptions = dropped.map(|at| (at, 1, ErrorCode::RecordDropped));
        let decision = Decision {
            base_sequence,
            stored: stored as u32,
            decided,
            retry_after_ms: asked(decided),
            exceptions: exceptions.into_iter().collect(),
        };
        if decided > 0 {
            known.insert(stamp.sequence, decision.clone());
            *next += u64::from(decided);
        }
        Ok(decision)
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Refuse(ErrorCode),
    /// Only so many records are decided, and perhaps one of them is dropped.
    Part(u32, Option<u32>),
    /// The same, and the reply is lost with the connection.
    CutAfter(u32),
    CutBefore,
    /// Neither stored nor answered.
    Silence,
    /// Stored, and not answered.
    Swallowed,
    /// The server forgets every producer.
    Forget,
    /// The shard is split.
    Close,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Refuse(ErrorCode::Busy)),
        1 => Just(Fault::Refuse(ErrorCode::DiskFull)),
        1 => Just(Fault::Refuse(ErrorCode::QuotaExceeded)),
        2 => (0..BATCH, prop::option::of(0..BATCH)).prop_map(|(n, at)| Fault::Part(n, at)),
        2 => (1..=BATCH).prop_map(Fault::CutAfter),
        1 => Just(Fault::CutBefore),
        1 => Just(Fault::Silence),
        1 => Just(Fault::Swallowed),
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

fn fault_or_close() -> impl Strategy<Value = Fault> {
    prop_oneof![ 12 => fault(), 1 => Just(Fault::Close) ]
}

/// What became of the batches, in order: fates by record, and from which record on a batch was moved.
type Ended = Vec<(u64, Runs, Option<Moved>)>;

/// Drives `batches` batches through a window against the model; the model and what became of them. The window's
/// bodies are the batch's number and how many records are left out of its front.
fn run(batches: u64, inflight: usize, faults: &[Fault], seed: u64) -> (Model, Ended) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // However many attempts meet with silence: the deadline has tests of its own.
    let retry = RetryPolicy { deadline: Time::MAX, ..RetryPolicy::default() };
    let config = Config { retry, ..config(inflight, true) };
    let mut w: Window<(u64, u32)> = Window::new(config, None, rng.fork());
    let mut faults = faults.iter().copied().chain(std::iter::repeat(Fault::None));
    let (mut model, mut now, mut pushed, mut ids) = (Model::default(), Time::ZERO, 0, 0);
    let mut ended = Vec::new();
    for _ in 0..100_000 {
        while pushed < batches && (w.has_room() || w.is_closed()) {
            let stamp = if rng.bool() { w.next_stamp() } else { ProducerStamp::default() };
            w.push((pushed, 0), BATCH, stamp, now);
            pushed += 1;
        }
        let mut replies = Vec::new();
        let mut broken = false;
        while let Some(send) = w.next_send(now) {
            send.body.1 += send.cut;
            let (index, attempt, stamp, from) = (send.index, send.attempt, send.stamp, send.body.1);
            let request = Request { stamp, index, from, sent: send.piece.unwrap_or(BATCH - from) };
            // Indices and tags count alike.
            let reply = match (broken, faults.next().unwrap_or(Fault::None)) {
                (true, _) | (_, Fault::CutBefore) => {
                    broken = true;
                    Some(Err(cut()))
                }
                (_, Fault::None) => Some(model.append(&request, BATCH, None)),
                (_, Fault::Part(limit, at)) => Some(model.append(&request, limit, at)),
                (_, Fault::Refuse(code)) => Some(Err(refusal(code))),
                (_, Fault::CutAfter(limit)) => {
                    broken = true;
                    let _lost = model.append(&request, limit, None);
                    Some(Err(cut()))
                }
                (_, Fault::Silence) => None,
                (_, Fault::Swallowed) => {
                    let _lost = model.append(&request, BATCH, None);
                    None
                }
                (_, Fault::Forget) => {
                    model.producers.clear();
                    Some(Err(refusal(ErrorCode::UnknownProducer)))
                }
                (_, Fault::Close) => {
                    model.closed = true;
                    Some(model.append(&request, BATCH, None))
                }
            };
            replies.extend(reply.map(|r| (index, attempt, r)));
        }
        rng.shuffle(&mut replies);
        for (index, attempt, reply) in replies {
            match reply {
                Ok(decision) => w.replied(index, attempt, &decision, now),
                Err(cause) => w.failed(index, attempt, cause, now),
            }
        }
        while let Some(settled) = w.pop_settled() {
            ended.push((settled.body.0, settled.runs, settled.moved));
        }
        if ended.len() as u64 == batches {
            return (model, ended);
        }
        if w.wants_producer() {
            ids += 1;
            w.renewed(ids, 1);
        } else if !w.wants_to_send(now)
            && let Some(next) = w.next_tick()
        {
            now = now.max(next);
            w.tick(now);
        }
    }
    panic!("{} of {batches} batches: the window is stuck: {w:?}", ended.len());
}

/// That nothing is stored twice or out of order, and every record that is said to be somewhere is there, every one
/// said not to be stored is not. Returns the records of unknown fate.
fn truthful(log: &[u64], ended: &Ended) -> Result<Vec<u64>, TestCaseError> {
    let mut once = log.to_vec();
    once.sort_unstable();
    once.dedup();
    prop_assert_eq!(once.len(), log.len(), "twice: {:?}", log);
    prop_assert!(log.is_sorted(), "out of order: {:?}", log);
    let mut unknown = Vec::new();
    for (at, (tag, runs, moved)) in ended.iter().enumerate() {
        prop_assert_eq!(*tag, at as u64);
        let end = moved.map_or(BATCH, |moved| moved.first);
        for index in 0..BATCH {
            let record = tag * u64::from(BATCH) + u64::from(index);
            match runs.fate_of(index) {
                None => {
                    prop_assert!(index >= end, "record {} has no outcome", record);
                    prop_assert!(!log.contains(&record), "{} is stored and moved", record);
                }
                Some(Fate::Stored { sequence, .. }) => {
                    prop_assert_eq!(log.get(sequence as usize), Some(&record));
                }
                Some(Fate::Failed(AppendError::FateUnknown(_))) => unknown.push(record),
                Some(_) => prop_assert!(!log.contains(&record), "{} is stored", record),
            }
        }
    }
    Ok(unknown)
}

proptest! {
    #[test]
    fn with_passing_faults_every_record_has_one_true_outcome_and_none_is_unknown(
        batches in 1u64..30, inflight in 1usize..10, seed: u64,
        faults in prop::collection::vec(fault(), 0..40),
    ) {
        let (model, ended) = run(batches, inflight, &faults, seed);
        prop_assert_eq!(truthful(&model.log, &ended)?, Vec::<u64>::new());
        let fates = ended.iter().flat_map(|(_, runs, _)| runs.iter());
        let dropped: u32 = fates.filter(|run| run.fate == Fate::Dropped).map(|run| run.count).sum();
        let all = batches * u64::from(BATCH);
        prop_assert_eq!(model.log.len() as u64 + u64::from(dropped), all);
    }

    #[test]
    fn whatever_happens_outcomes_tell_the_truth_and_nothing_is_stored_twice(
        batches in 1u64..30, inflight in 1usize..10, seed: u64,
        faults in prop::collection::vec(fault_or_loss(), 0..50),
    ) {
        let (model, ended) = run(batches, inflight, &faults, seed);
        truthful(&model.log, &ended)?;
    }

    #[test]
    fn of_a_closed_shard_what_is_not_stored_is_moved_and_nothing_is_unknown(
        batches in 1u64..30, inflight in 1usize..10, seed: u64,
        faults in prop::collection::vec(fault_or_close(), 0..50),
    ) {
        let (model, ended) = run(batches, inflight, &faults, seed);
        prop_assert_eq!(truthful(&model.log, &ended)?, Vec::<u64>::new());
        // From the first batch moved on all are: their order holds at the heirs.
        let moved = ended.iter().skip_while(|(_, _, moved)| moved.is_none());
        prop_assert!(moved.into_iter().all(|(_, _, moved)| moved.is_some()));
    }
}
