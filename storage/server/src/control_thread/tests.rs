//! What is taken out of the queue, and by when everybody was heard then.

use std::sync::mpsc::{SyncSender, sync_channel};

use super::*;

/// A heartbeat that was put into the queue now.
fn put(queue: &SyncSender<ControlJob>, tag: u64) {
    let request = ControlRequest::Heartbeat {
        group: "g".to_owned(),
        stream: "s".to_owned(),
        member: tag,
        released: Vec::new(),
    };
    queue.send(ControlJob { request, tag, at: Instant::now() }).unwrap();
}

fn tags(turn: &Turn) -> Vec<u64> {
    turn.jobs.iter().map(|job| job.tag).collect()
}

#[test]
fn whoever_waits_in_the_queue_counts_as_not_heard() {
    let (queue, jobs) = sync_channel(2 * GATHER);
    let count = GATHER as u64;
    (0..count + 3).for_each(|tag| put(&queue, tag));
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
