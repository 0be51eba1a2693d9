//! Where the consumers may end, once nothing more is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_wire::AckMode;
use tokio::time::{Instant, sleep, timeout_at};

use crate::plan::Plan;
use crate::target::{Link, Refusal};

/// Where a shard ends, as far as the run is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// After its last sequence.
    pub sequence: u64,
    /// Whether it was closed by a split or merge: others may come of it that have records of the run.
    pub closed: bool,
}

/// The ends of all shards that may have records of the run, by stream and shard.
pub type Ends = BTreeMap<(usize, u32), End>;

/// Up to where consumers read.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Records are still being made.
    Open,
    /// To these shard sequences, but not for longer than until this instant. A shard that is not named came of others
    /// when nothing more was sent.
    Until(Arc<Ends>, Instant),
    /// No further: nobody can say where the end is, or nobody wants to know.
    Here,
}

/// Twice what a `written` stream's mark may be behind its acknowledgements, by the protocol.
const FLUSH: Duration = Duration::from_millis(20);

/// How long to wait before a target that may come back is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// The high-water mark of every shard, now that nothing more is sent, known within `patience`; consumers
/// then have as long again. Why, if nobody can say.
pub async fn find<L: Link>(control: &L, plan: &Plan, patience: Duration) -> Result<Goal, String> {
    let give_up = Instant::now() + patience;
    let acked = plan.acked_ends();
    let written = |stream: usize| plan.streams[stream].config.ack != AckMode::Durable;
    // The mark of a `written` stream follows its acknowledgements by a flush: until it rests.
    let mut rests = !plan.places.iter().any(|place| written(place.stream));
    let mut known: Option<Ends> = None;
    let mut why = format!("not told within {patience:?}");
    loop {
        let pause = match timeout_at(give_up, marks(control, plan)).await {
            Ok(Ok(ends)) => {
                rests |= known.as_ref() == Some(&ends);
                // What is acknowledged beyond the mark is lost, but only once the mark had time to get there.
                // A shard that retention has emptied may not be told of any more.
                let covers = acked
                    .iter()
                    .all(|(shard, acked)| ends.get(shard).is_none_or(|end| end.sequence >= *acked));
                known = Some(ends);
                if rests && covers {
                    break;
                }
                FLUSH
            }
            Ok(Err(refusal)) => {
                why = refusal.0;
                if !plan.options.tolerate_restart {
                    break;
                }
                RETRY
            }
            Err(_) => break,
        };
        if timeout_at(give_up, sleep(pause)).await.is_err() {
            break;
        }
    }
    match known {
        Some(ends) => Ok(Goal::Until(Arc::new(ends), Instant::now() + patience)),
        None => Err(format!("finding the high-water marks: {why}")),
    }
}

/// The high-water mark of every shard that may have records of the run.
async fn marks<L: Link>(control: &L, plan: &Plan) -> Result<Ends, Refusal> {
    let mut ends = Ends::new();
    for (number, stream) in plan.streams.iter().enumerate() {
        let now = plan.descent.of_run(number, &control.describe(stream).await?);
        for shard in &now.shards {
            let sequence = control.high_water(&now, shard.shard).await?;
            ends.insert((number, shard.shard), End { sequence, closed: shard.closed });
        }
    }
    Ok(ends)
}
