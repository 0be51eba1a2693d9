//! What the drivers share, on a feed by hand.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use super::*;

/// Gives what it was given, and then fails.
struct Given(VecDeque<Vec<u64>>);

impl Feed for Given {
    type Payload = [u8; 1];

    async fn more(&mut self) -> Result<Vec<Message<[u8; 1]>>, String> {
        let numbers = self.0.pop_front().ok_or("no more")?;
        let message = |sequence| Message { sequence, arrival_ns: 0, payload: [sequence as u8] };
        Ok(numbers.into_iter().map(message).collect())
    }
}

fn read(source: &mut Reading<Given>) -> Result<Vec<u64>, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let chunk = runtime.block_on(source.next())?.unwrap();
    let mut numbers = Vec::new();
    chunk.each(|view, _| numbers.push(view.sequence));
    Ok(numbers)
}

#[test]
fn a_gap_is_told_once_and_what_lies_behind_it_is_kept() {
    let feed = Given([vec![3, 4], vec![5, 8, 9, 11]].into());
    let mut source = Reading::new(feed, 3);
    assert_eq!(read(&mut source).unwrap(), [3, 4]);
    assert_eq!(read(&mut source).unwrap(), [5]);
    let gap = read(&mut source).unwrap_err();
    assert_eq!(gap, Trouble::Gap { expected: 6, found: 8 });
    source.resume(8);
    assert_eq!(read(&mut source).unwrap(), [8, 9]);
    assert_eq!(source.position(), 10);
    source.resume(11);
    assert_eq!(read(&mut source).unwrap(), [11]);
    assert!(matches!(read(&mut source), Err(Trouble::Failed(_))));
}

#[test]
fn what_is_read_again_is_passed_on_and_does_not_move_the_position_back() {
    let mut source = Reading::new(Given([vec![0, 1, 2], vec![1, 2, 3]].into()), 0);
    assert_eq!(read(&mut source).unwrap(), [0, 1, 2]);
    assert_eq!(read(&mut source).unwrap(), [1, 2, 3]);
    assert_eq!(source.position(), 4);
}

#[test]
fn records_that_follow_each_other_are_told_of_together() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut teller = Teller::new(tell, 7);
    for sequence in [10, 11, 20, 21, 22] {
        teller.stored(sequence);
    }
    teller.failed(true, "hung up".to_owned());
    teller.stored(23);
    teller.flush();
    teller.flush();
    drop(teller);
    let mut all = Vec::new();
    while let Ok(Outcome { tag: 7, records, fate }) = told.try_recv() {
        let at = match fate {
            Fate::Stored(at) => at.map(|at| at.sequence),
            _ => None,
        };
        all.push((records, at));
    }
    assert_eq!(all, [(0..2, Some(10)), (2..5, Some(20)), (5..6, None), (6..7, Some(23))]);
}

#[test]
fn payloads_come_out_of_a_batch_as_they_went_in() {
    let mut batch = BatchBuilder::default();
    for payload in [&b"one"[..], b"", b"three"] {
        batch.push(b"key", &[], payload, 1).unwrap();
    }
    let bytes = taken(&mut batch);
    assert!(batch.is_empty());
    assert_eq!(payloads(&bytes).collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
}
