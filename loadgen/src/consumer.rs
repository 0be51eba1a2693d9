//! Reads one shard from the run's first record on, verifies every record and times it.

use std::ops::Range;
use std::sync::Arc;

use highwater_wire::RecordView;
use tokio::sync::watch;

use crate::integrity::Reach;
use crate::latency::{Meter, Readings, record};
use crate::payload::{Verdict, verify};
use crate::plan::Plan;
use crate::target::{Chunk, Source, Trouble};

/// Up to where consumers read.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Records are still being made.
    Open,
    /// To these shard sequences, by shard, but not for longer than until this instant.
    Until(Arc<Vec<u64>>, tokio::time::Instant),
    /// No further: nobody can say where the end is.
    Here,
}

/// How long to wait before a source that failed is asked again; it has retried for long itself.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

/// Reads shard `shard` until `goal`; returns how far it came.
pub async fn consume<S: Source>(
    plan: Arc<Plan>,
    shard: usize,
    mut source: S,
    meter: Arc<Meter>,
    mut goal: watch::Receiver<Goal>,
) -> Reach {
    let mut reach = Reach { position: source.position(), ..Reach::default() };
    let mut gone = source.trimmed();
    let mut damaged_at = None;
    let mut note = |source: &S, reach: &mut Reach| {
        let trimmed = source.trimmed() - gone;
        gone += trimmed;
        // What is missing lies right after what was read last.
        reach.trimmed.insert(reach.position..reach.position + trimmed);
        reach.position = source.position();
    };
    loop {
        note(&source, &mut reach);
        let deadline = match &*goal.borrow_and_update() {
            Goal::Open => None,
            Goal::Until(ends, _) if ends.get(shard).is_none_or(|end| reach.position >= *end) => {
                reach.at_end = true;
                break;
            }
            Goal::Until(_, deadline) => Some(*deadline),
            Goal::Here => break,
        };
        let next = tokio::select! {
            biased;
            // The channel closes only if the controlling thread is gone.
            changed = goal.changed() => if changed.is_ok() { continue } else { break },
            next = source.next() => next,
            () = until(deadline) => break,
        };
        let read_ns = plan.clock.now_ns();
        match next {
            Ok(Some(chunk)) => read(&plan, shard, &chunk, &meter, read_ns),
            Ok(None) => break,
            Err(why) => {
                let position = Some(source.position());
                // Once, however often it is asked for again.
                let damaged = matches!(why, Trouble::Damaged(_)) && damaged_at != position;
                if damaged {
                    damaged_at = position;
                }
                trouble(&meter, shard, &why, damaged);
                match why {
                    // What was left out is lost if it was acknowledged: the ledgers know.
                    Trouble::Gap { found, .. } => source.resume(found),
                    Trouble::Damaged(_) | Trouble::Failed(_) => tokio::time::sleep(RETRY).await,
                }
            }
        }
        // Producers on the same thread have their turn even while there is always more to read.
        tokio::task::yield_now().await;
    }
    note(&source, &mut reach);
    reach
}

/// Counts a failure to read.
fn trouble(meter: &Meter, shard: usize, why: &Trouble, damaged: bool) {
    let mut readings = meter.lock();
    readings.failed(|| format!("reading shard {shard}: {why}"));
    readings.counts.read_errors += 1;
    readings.counts.corrupted += u64::from(damaged);
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Records of one lane, one after the other, met in one chunk.
struct Stretch {
    lane: usize,
    records: Range<u64>,
    intended_ns: u64,
}

fn read<C: Chunk>(plan: &Plan, shard: usize, chunk: &C, meter: &Meter, read_ns: u64) {
    let window = plan.window();
    let mut readings = meter.lock();
    let mut stretch: Option<Stretch> = None;
    chunk.each(|view: RecordView<'_>| {
        let header = match verify(view.payload, plan.run) {
            Verdict::Own(header) => header,
            Verdict::Foreign => return,
            Verdict::Corrupt => {
                readings.counts.corrupted += 1;
                return;
            }
        };
        let Some(lane) = plan.lane_of(header.producer, shard) else {
            readings.counts.corrupted += 1;
            return;
        };
        let set = readings.set(&window, header.intended_ns);
        record(&mut set.propagation, header.intended_ns, read_ns, 1);
        match &mut stretch {
            // A stretch ends where the measured window does, so that what counts as in it is exact.
            Some(s)
                if s.lane == lane
                    && s.records.end == header.sequence
                    && window.contains(&s.intended_ns) == window.contains(&header.intended_ns) =>
            {
                s.records.end += 1;
            }
            other => {
                let next = Stretch {
                    lane,
                    // A number at the very end of its range was never given out; an empty range is ignored.
                    records: header.sequence..header.sequence.saturating_add(1),
                    intended_ns: header.intended_ns,
                };
                if let Some(done) = other.replace(next) {
                    settle(plan, &mut readings, &window, done, read_ns);
                }
            }
        }
    });
    if let Some(done) = stretch {
        settle(plan, &mut readings, &window, done, read_ns);
    }
}

/// Enters a stretch into its lane's ledger.
fn settle(plan: &Plan, readings: &mut Readings, window: &Range<u64>, s: Stretch, read_ns: u64) {
    let set = readings.set(window, s.intended_ns);
    let new = plan.ledger(s.lane).read(s.records, |acked_ns, records| {
        record(&mut set.visibility, acked_ns, read_ns, records);
    });
    readings.counts.consumed += new;
    if window.contains(&s.intended_ns) {
        readings.counts.window_consumed += new;
    }
}
