//! Tells the target how far the groups of this worker have read, so that whoever watches the target sees them fall
//! behind and catch up. Beside the path of records: readers leave a number, a task of its own sends it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use highwater_wire::Position;

use crate::consumer::Way;
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

/// The readers of a group's streams.
type Readers = BTreeMap<(usize, String), Vec<Told>>;

/// The positions of a worker's readers, by group and stream; clones share them.
#[derive(Clone, Default)]
pub struct Positions(Rc<RefCell<Readers>>);

/// The name of a run's group number `group`, from 0.
pub fn group_name(group: usize) -> String {
    format!("load-{}", group + 1)
}

impl Positions {
    /// A further reader, which begins at `from`.
    pub fn reader(&self, plan: &Plan, way: Way, from: u64) -> Reached {
        let reached = Reached::new(Cell::new(from));
        // Nothing is told before the first record is read: a group that never reads is none.
        let told = Told { shard: way.shard, reached: Rc::clone(&reached), told: from };
        if plan.options.commit {
            let key = (way.group, plan.streams[way.stream].name.clone());
            self.0.borrow_mut().entry(key).or_default().push(told);
        }
        reached
    }

    /// Tells the target about once a second what has changed, until dropped.
    pub async fn keep<L: Link>(&self, link: &L) -> Infallible {
        // Shards come up under way, of streams that are read already.
        let keys = self.keys();
        if keys.is_empty() {
            return std::future::pending().await;
        }
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let mut turn = tokio::time::interval(EVERY.max(APART * count) / count);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for key in &keys {
                turn.tick().await;
                self.tell(link, key).await;
            }
        }
    }

    /// Tells it a last time, unless it cannot be reached.
    pub async fn finish<L: Link>(&self, link: &L) {
        let all = async {
            for key in self.keys() {
                self.tell(link, &key).await;
            }
        };
        let _unreachable = tokio::time::timeout(FINISH, all).await;
    }

    fn keys(&self) -> Vec<(usize, String)> {
        self.0.borrow().keys().cloned().collect()
    }

    /// Commits what has changed. What the target does not take now it is told the next time: the run does not depend
    /// on it.
    async fn tell<L: Link>(&self, link: &L, key: &(usize, String)) {
        let moved = |r: &&Told| r.reached.get() != r.told;
        let position = |r: &Told| Position { shard: r.shard, sequence: r.reached.get() };
        let positions: Vec<Position> = match self.0.borrow().get(key) {
            Some(readers) => readers.iter().filter(moved).map(position).collect(),
            None => return,
        };
        let (group, stream) = (group_name(key.0), &key.1);
        if positions.is_empty() || link.commit(&group, stream, &positions).await.is_err() {
            return;
        }
        for reader in self.0.borrow_mut().get_mut(key).into_iter().flatten() {
            if let Some(told) = positions.iter().find(|p| p.shard == reader.shard) {
                reader.told = told.sequence;
            }
        }
    }
}
