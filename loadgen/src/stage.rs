//! How far the end of a run has come, as its producers must know it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::plan::Plan;
use crate::run::Halt;

/// Records that fell due before the end may still be sent this long after it: a hiccup in the last moment
/// is caught up with, an overload is not.
pub const CATCH_UP: Duration = Duration::from_secs(1);

/// How often to look for an end that is not known yet.
const LOOK: Duration = Duration::from_millis(10);

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not yet.
    #[default]
    Going,
    /// Nothing more falls due; what has may still be sent.
    Ended,
    /// Nothing more is sent.
    Over,
    /// Nobody waits for answers any more.
    Abandoned,
}

/// Tells a worker's producers of the end as it comes. Returns after the last stage, or if the controlling
/// thread is gone.
pub async fn keep(plan: Arc<Plan>, mut halt: watch::Receiver<Halt>, stage: watch::Sender<Stage>) {
    loop {
        let end_ns = plan.times().end_ns;
        let end = tokio::time::Instant::from_std(plan.clock.instant(end_ns));
        let now = tokio::time::Instant::now();
        let asked = *halt.borrow_and_update();
        let reached = match asked {
            Halt::Abandon => Stage::Abandoned,
            Halt::Cut => Stage::Over,
            Halt::No if end_ns == u64::MAX || now < end => Stage::Going,
            Halt::No if now < end + CATCH_UP => Stage::Ended,
            Halt::No => Stage::Over,
        };
        stage.send_if_modified(|stage| {
            let later = reached > *stage;
            *stage = reached.max(*stage);
            later
        });
        let look = match reached {
            Stage::Abandoned => return,
            Stage::Going => end.min(now + LOOK),
            Stage::Ended => end + CATCH_UP,
            Stage::Over => now + CATCH_UP,
        };
        tokio::select! {
            () = tokio::time::sleep_until(look) => {}
            changed = halt.changed() => if changed.is_err() { return },
        }
    }
}
