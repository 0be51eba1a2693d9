//! What is taken out of the queue, by when everybody was heard then, and how many transactions it takes.

use std::sync::mpsc::sync_channel;

use highwater_wire::{LeasedPosition, Outcome, Settlement};

use super::*;

/// A request that came now.
fn job(tag: u64, request: ControlRequest) -> ControlJob {
    ControlJob { request, tag, at: Instant::now() }
}

fn beat(tag: u64, released: &[u32]) -> ControlJob {
    let (group, stream, released) = ("g".to_owned(), "s".to_owned(), released.to_vec());
    job(tag, ControlRequest::Heartbeat { group, stream, member: tag, released })
}

fn claim(tag: u64) -> ControlJob {
    let (group, stream) = ("g".to_owned(), "s".to_owned());
    let (member, shard, lease, from, to, most) = (tag, 0, 1, 0, 10, 10);
    job(tag, ControlRequest::Claim { group, stream, member, shard, lease, from, to, most })
}

fn settle(tag: u64) -> ControlJob {
    let (group, stream) = ("g".to_owned(), "s".to_owned());
    let (member, shard, lease) = (tag, 0, 1);
    let settlements = vec![Settlement { from: tag, to: tag + 1, outcome: Outcome::Done }];
    job(tag, ControlRequest::Settle { group, stream, member, shard, lease, settlements })
}

fn commit(tag: u64) -> ControlJob {
    let (group, stream) = ("h".to_owned(), "s".to_owned());
    let positions = vec![LeasedPosition { shard: 0, sequence: tag, lease: 1 }];
    job(tag, ControlRequest::CommitLeased { group, stream, member: tag, positions })
}

fn tags_of(stretch: &Stretch) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
    let singles = stretch.singles.iter().map(|job| job.tag).collect();
    (singles, stretch.commits.tags.clone(), stretch.commits.settle_tags.clone())
}

fn tags(turn: &Turn) -> Vec<u64> {
    turn.jobs.iter().map(|job| job.tag).collect()
}

#[test]
fn whoever_waits_in_the_queue_counts_as_not_heard() {
    let (queue, jobs) = sync_channel(2 * GATHER);
    let count = GATHER as u64;
    (0..count + 3).for_each(|tag| queue.send(beat(tag, &[])).unwrap());
    let filled = Instant::now();
    let turn = Turn::take(&jobs, Duration::ZERO).unwrap();
    assert_eq!(tags(&turn), (0..count).collect::<Vec<_>>());
    assert_eq!(turn.heard, turn.jobs[GATHER - 1].at, "three of them wait");
    let turn = Turn::take(&jobs, Duration::ZERO).unwrap();
    assert_eq!(tags(&turn), [count, count + 1, count + 2]);
    assert!(turn.heard >= filled, "all of them are there");
    let turn = Turn::take(&jobs, Duration::ZERO).unwrap();
    assert!(turn.jobs.is_empty() && turn.heard >= filled, "time passes though nobody comes");
    drop(queue);
    assert!(Turn::take(&jobs, Duration::ZERO).is_none());
}

/// Each heartbeat between two settlements had made a transaction of its own of what came before it.
#[test]
fn what_came_together_is_one_transaction_whoever_beats_and_claims_among_it() {
    let turn: Vec<ControlJob> = (0..GATHER as u64)
        .map(|tag| match tag % 4 {
            0 => settle(tag),
            1 => beat(tag, &[]),
            2 => commit(tag),
            _ => claim(tag),
        })
        .collect();
    let done = stretches(turn);
    assert_eq!(done.len(), 1);
    let (singles, commits, settles) = tags_of(&done[0]);
    assert_eq!((commits.len(), settles.len(), singles.len()), (GATHER / 4, GATHER / 4, GATHER / 2));
    let ordered = |tags: &[u64]| tags.is_sorted();
    assert!(ordered(&singles) && ordered(&commits) && ordered(&settles));
}

#[test]
fn what_a_request_may_depend_on_is_kept_before_it() {
    // The next owner is told what the last one committed.
    let done = stretches(vec![commit(1), beat(2, &[]), beat(3, &[0]), claim(4), settle(5)]);
    let all: Vec<_> = done.iter().map(tags_of).collect();
    assert_eq!(all, [(vec![2], vec![1], vec![]), (vec![3, 4], vec![], vec![5])]);
    let list = || job(7, ControlRequest::ListStreams);
    // What has nothing before it to be kept makes no stretch of its own.
    let done = stretches(vec![list(), beat(8, &[0]), settle(9), list(), list()]);
    let all: Vec<_> = done.iter().map(tags_of).collect();
    assert_eq!(all, [(vec![7, 8], vec![], vec![9]), (vec![7, 7], vec![], vec![])]);
}
