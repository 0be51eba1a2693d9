//! Tells the target how far the groups of this worker have read, so that whoever watches the target sees them fall
//! behind and catch up. Beside the path of records: readers leave a number, a task of its own sends it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use highwater_wire::Position;

use crate::plan::Plan;
use crate::target::Link;

/// How often a group's positions are told, at most.
const EVERY: Duration = Duration::from_secs(1);
/// However many groups and streams there are, there is this long between two commits of a worker: each makes the
/// target write something durably.
const APART: Duration = Duration::from_millis(100);
/// How long the target has to take them at the end.
const FINISH: Duration = Duration::from_secs(2);

/// How far a reader has come; shared with it.
pub type Reached = Rc<Cell<u64>>;

/// One reader's position, and what the target knows of it.
struct Told {
    shard: u32,
    reached: Reached,
    told: u64,
}

/// The positions of a worker's readers, by group and stream.
#[derive(Default)]
pub struct Positions(BTreeMap<(usize, String), Vec<Told>>);

/// The name of a run's group number `group`, from 0.
pub fn group_name(group: usize) -> String {
    format!("load-{}", group + 1)
}

impl Positions {
    /// A reader of `place` for `group`, where it begins.
    pub fn reader(&mut self, plan: &Plan, group: usize, place: usize) -> Reached {
        let reached = Reached::new(Cell::new(plan.from[place]));
        let shard = plan.places[place].shard;
        // Nothing is told before the first record is read: a group that never reads is none.
        let told = Told { shard, reached: Rc::clone(&reached), told: plan.from[place] };
        if plan.options.commit {
            self.0.entry((group, plan.stream(place).name.clone())).or_default().push(told);
        }
        reached
    }

    /// Tells the target about once a second what has changed, until dropped.
    pub async fn keep<L: Link>(&mut self, link: &L) -> Infallible {
        let each = EVERY.max(APART * u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        let mut turn =
            tokio::time::interval(each / u32::try_from(self.0.len().max(1)).unwrap_or(1));
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for (key, readers) in &mut self.0 {
                turn.tick().await;
                tell(link, key, readers).await;
            }
            if self.0.is_empty() {
                return std::future::pending().await;
            }
        }
    }

    /// Tells it a last time, unless it cannot be reached.
    pub async fn finish<L: Link>(&mut self, link: &L) {
        let all = async {
            for (key, readers) in &mut self.0 {
                tell(link, key, readers).await;
            }
        };
        let _unreachable = tokio::time::timeout(FINISH, all).await;
    }
}

/// Commits what has changed. What the target does not take now it is told the next time: the run does not depend on
/// it.
async fn tell<L: Link>(link: &L, (group, stream): &(usize, String), readers: &mut [Told]) {
    let moved = |r: &&mut Told| r.reached.get() != r.told;
    let position = |r: &mut Told| Position { shard: r.shard, sequence: r.reached.get() };
    let positions: Vec<Position> = readers.iter_mut().filter(moved).map(position).collect();
    if positions.is_empty() || link.commit(&group_name(*group), stream, &positions).await.is_err() {
        return;
    }
    for reader in readers {
        if let Some(told) = positions.iter().find(|p| p.shard == reader.shard) {
            reader.told = told.sequence;
        }
    }
}
