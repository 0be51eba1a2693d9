//! The shards of a core, and which of them has to be looked at when: kept up as they change, so that a turn costs by
//! what happens and not by how many shards there are.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};

use highwater_wire::ShardId;

use crate::io::Io;
use crate::shard::Shard;

/// A shard, and what was noted of it last.
struct Entry {
    shard: Shard,
    /// Given out to be changed since then.
    changed: bool,
    /// When it has to be looked at, monotonic.
    wake: Option<u64>,
}

/// See the module's page.
#[derive(Default)]
pub struct Shards {
    map: BTreeMap<ShardId, Entry>,
    changed: Vec<ShardId>,
    /// By time: those that have to be looked at.
    wakes: BTreeSet<(u64, ShardId)>,
    /// Those that wait for memory.
    starved: BTreeSet<ShardId>,
}

impl Shards {
    /// Adds what is not there yet.
    pub fn add(&mut self, id: ShardId, make: impl FnOnce() -> Shard) {
        if let Place::Vacant(place) = self.map.entry(id) {
            place.insert(Entry { shard: make(), changed: true, wake: None });
            self.changed.push(id);
        }
    }

    /// One of them, to be read.
    pub fn get(&self, id: &ShardId) -> Option<&Shard> {
        self.map.get(id).map(|entry| &entry.shard)
    }

    /// One of them, to be changed.
    pub fn get_mut(&mut self, id: &ShardId) -> Option<&mut Shard> {
        let entry = self.map.get_mut(id)?;
        if !std::mem::replace(&mut entry.changed, true) {
            self.changed.push(*id);
        }
        Some(&mut entry.shard)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.map.len()
    }

    /// Their names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ShardId> {
        self.map.keys()
    }

    /// All of them, to be read, by name.
    pub fn values(&self) -> impl Iterator<Item = &Shard> {
        self.map.values().map(|entry| &entry.shard)
    }

    /// All of them, to be changed, by name.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        let changed = &mut self.changed;
        self.map.iter_mut().map(|(id, entry)| {
            if !std::mem::replace(&mut entry.changed, true) {
                changed.push(*id);
            }
            &mut entry.shard
        })
    }

    /// Notes what became of those that were changed, and forgets those that are removed.
    pub fn note(&mut self, io: &Io) {
        for id in self.changed.drain(..) {
            let Some(entry) = self.map.get_mut(&id) else { continue };
            entry.changed = false;
            let removed = entry.shard.removed();
            let wake = if removed { None } else { entry.shard.next_wake(io) };
            if wake != entry.wake {
                if let Some(old) = std::mem::replace(&mut entry.wake, wake) {
                    self.wakes.remove(&(old, id));
                }
                self.wakes.extend(wake.map(|at| (at, id)));
            }
            if !removed && entry.shard.starved() {
                self.starved.insert(id);
            } else if !self.starved.is_empty() {
                self.starved.remove(&id);
            }
            if removed {
                self.map.remove(&id);
            }
        }
    }

    /// When the first of them has to be looked at, monotonic.
    pub fn next_wake(&self, io: &Io) -> Option<u64> {
        let noted = self.wakes.first().map(|(at, _)| *at);
        let changed = self.changed.iter().filter_map(|id| self.get(id)?.next_wake(io));
        changed.chain(noted).min()
    }

    /// Those that have to be looked at by `now`, as far as it is noted.
    pub fn due(&self, now: u64) -> impl Iterator<Item = ShardId> {
        self.wakes.iter().take_while(move |(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// Those that wait for memory, as far as it is noted.
    pub fn starved(&self) -> impl Iterator<Item = ShardId> {
        self.starved.iter().copied()
    }
}
