//! The control plane: streams and positions, kept in the catalogue and told to the cores. Blocking; runs
//! on a thread of its own, never on a core's.

mod commit;
mod cores;
mod deliveries;
mod error;
mod groups;
mod members;
mod requests;
mod reshard;
mod settings;
mod streams;
mod tend;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use highwater_wire::ShardId;

use crate::catalogue::{Catalogue, StreamRecord};
use crate::deliveries::Deliveries;
use crate::members::Members;
use crate::quota::Quotas;
use crate::routes::Routes;
use crate::store::Store;
pub use commit::Committed;
pub use cores::CoreLink;
pub use deliveries::{Claim, Settle};
pub use error::ControlError;
use error::{group_name, unknown_shard};
pub use groups::GroupReset;
pub use members::{Commit, Join};
pub use tend::Tended;

/// How long a core may take to answer before the control plane gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The control plane of an open store.
pub struct Control {
    catalogue: Arc<Mutex<Catalogue>>,
    streams: BTreeMap<String, StreamRecord>,
    positions: BTreeMap<(String, u32, u32), u64>,
    links: Vec<CoreLink>,
    routes: Routes,
    /// What cores meter by, together.
    quotas: Arc<Quotas>,
    tending: tend::Tending,
    /// Who reads what for a group.
    members: Members,
    /// What is settled of groups that settle record by record.
    deliveries: Deliveries,
    /// Where closed shards end, as far as somebody has asked.
    ends: BTreeMap<ShardId, u64>,
    started: Instant,
    /// What settings are held against.
    bounds: settings::Bounds,
    /// How long a split or merge waits for a core, all in all.
    reshard_patience: Duration,
}

impl Control {
    /// Over the cores of `store`; `links[i]` reaches core `i`.
    pub fn new(store: &Store, links: Vec<CoreLink>) -> Control {
        Control {
            catalogue: store.catalogue(),
            streams: store.streams().iter().cloned().collect(),
            positions: store
                .positions()
                .iter()
                .cloned()
                .map(|(g, st, sh, p)| ((g, st, sh), p))
                .collect(),
            links,
            routes: store.routes().clone(),
            quotas: Arc::clone(store.quotas()),
            tending: tend::Tending::default(),
            members: Members::new(store.epoch()),
            deliveries: {
                let kept = store.deliveries().clone();
                Deliveries::restore(kept.configs, kept.shards)
            },
            ends: BTreeMap::new(),
            started: Instant::now(),
            bounds: settings::Bounds::of(store),
            reshard_patience: reshard::PATIENCE,
        }
    }

    /// A producer id never given before, and the epoch to use.
    pub fn new_producer(&mut self) -> Result<(u64, u32), ControlError> {
        Ok((self.catalogue().new_producer()?, 0))
    }

    /// Monotonic, nanoseconds since it began.
    fn mono_ns(&self) -> u64 {
        self.mono_ns_at(Instant::now())
    }

    /// The same of a time other than now; 0 before it began.
    fn mono_ns_at(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<&StreamRecord, ControlError> {
        self.streams.get(name).ok_or_else(|| ControlError::UnknownStream(name.to_owned()))
    }
}

/// Wall clock, nanoseconds since 1970 UTC.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
