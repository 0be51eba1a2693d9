//! Where the consumers may end, once nothing more is sent.

use std::sync::Arc;
use std::time::Duration;

use highwater_wire::AckMode;
use tokio::time::{Instant, sleep, timeout_at};

use crate::plan::Plan;
use crate::target::{Link, Refusal};

/// Up to where consumers read.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Records are still being made.
    Open,
    /// To these shard sequences, by place, but not for longer than until this instant.
    Until(Arc<Vec<u64>>, Instant),
    /// No further: nobody can say where the end is, or nobody wants to know.
    Here,
}

/// Twice what a `written` stream's mark may be behind its acknowledgements, by the protocol.
const FLUSH: Duration = Duration::from_millis(20);

/// How long to wait before a target that may come back is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// The high-water mark of every place, now that nothing more is sent, known within `patience`; consumers
/// then have as long again. Why, if nobody can say.
pub async fn find<L: Link>(control: &L, plan: &Plan, patience: Duration) -> Result<Goal, String> {
    let give_up = Instant::now() + patience;
    let acked = plan.acked_ends();
    let written = |stream: usize| plan.streams[stream].config.ack != AckMode::Durable;
    // The mark of a `written` stream follows its acknowledgements by a flush: until it rests.
    let mut rests = !plan.places.iter().any(|place| written(place.stream));
    let mut known: Option<Vec<u64>> = None;
    let mut why = format!("not told within {patience:?}");
    loop {
        let pause = match timeout_at(give_up, marks(control, plan)).await {
            Ok(Ok(ends)) => {
                rests |= known.as_ref() == Some(&ends);
                // What is acknowledged beyond the mark is lost, but only once the mark had time to get there.
                let covers = ends.iter().zip(&acked).all(|(end, acked)| end >= acked);
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

/// The high-water mark of every place.
pub async fn marks<L: Link>(control: &L, plan: &Plan) -> Result<Vec<u64>, Refusal> {
    let mut marks = Vec::with_capacity(plan.places.len());
    for place in &plan.places {
        marks.push(control.high_water(&plan.streams[place.stream], place.shard).await?);
    }
    Ok(marks)
}
