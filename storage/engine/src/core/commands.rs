//! What other threads ask of a core, and those who wait for an answer.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use highwater_ring::Disk;
use highwater_wire::{HashRange, ShardId};

use super::Core;
use crate::balance::ShardLoad;
use crate::hotkeys::SplitPoint;
use crate::lag::Lag;
use crate::shard::Shard;
use crate::types::{Located, Now, ReadError, ShardSpec, ShardStatus, Start};

/// Marks tags of removals that came as commands.
const REMOVAL: u64 = 1 << 63;

/// Something another thread asks of a core.
#[derive(Debug)]
pub enum CoreCommand {
    /// Where a shard lies; for all cores.
    Place {
        /// Which.
        shard: ShardId,
        /// Its core, modulo the number of cores.
        home: u32,
    },
    /// Serve a new, empty shard.
    AddShard(ShardSpec),
    /// Have the first segment of a new shard ready.
    Prepare {
        /// Which.
        shard: ShardId,
        /// Told when it is, or cannot be had.
        done: Sender<()>,
    },
    /// Take no more appends for a shard, and finish what it has.
    CloseShard {
        /// Which.
        shard: ShardId,
        /// Told when nothing more will change.
        done: Sender<ShardStatus>,
    },
    /// Other settings of a shard.
    Respec(ShardSpec),
    /// What the hash keys of its latest records say about a split.
    SplitPoint {
        /// Which.
        shard: ShardId,
        /// Its part of the hash-key space.
        range: HashRange,
        /// Told; `None` without such a shard.
        reply: Sender<Option<SplitPoint>>,
    },
    /// What is known of its load.
    Load {
        /// Which.
        shard: ShardId,
        /// Its part of the hash-key space.
        range: HashRange,
        /// Told; `None` without such a shard.
        reply: Sender<Option<ShardLoad>>,
    },
    /// Turn a start into a sequence number.
    Locate {
        /// Which.
        shard: ShardId,
        /// From where.
        start: Start,
        /// Told.
        reply: Sender<Result<Located, ReadError>>,
    },
    /// Another lease on a shard is in force.
    Lease {
        /// Which.
        shard: ShardId,
        /// The one that is not any more: what reads under it ends. 0 for none.
        old: u64,
        /// The one that is now; 0 for none.
        new: u64,
        /// Told when it is so.
        done: Sender<()>,
    },
    /// Whether the file system is so full that nothing is to be stored.
    DiskLow(bool),
    /// A named producer gets a new epoch: refuse the older ones, and take this one.
    Fence {
        /// The producer.
        id: u64,
        /// The epoch given out last, which alone may append.
        epoch: u32,
        /// Told when it is in force.
        done: Sender<()>,
    },
    /// Remove a shard and its files.
    RemoveShard {
        /// Which.
        shard: ShardId,
        /// Told how it went.
        done: Sender<Result<(), Arc<str>>>,
    },
    /// All shards in brief.
    Status {
        /// Told.
        reply: Sender<Vec<ShardStatus>>,
    },
    /// How far groups are behind; answered once their next records have been looked up.
    Lags {
        /// Which.
        asks: Vec<LagAsk>,
        /// Told, in their order; `None` without such a shard.
        reply: Sender<Vec<Option<Lag>>>,
    },
    /// The first record that arrived at a time or later.
    Since {
        /// Which shard's.
        shard: ShardId,
        /// Nanoseconds since 1970 UTC.
        time_ns: u64,
        /// Told; the high-water mark if there is none.
        reply: Sender<Result<u64, ReadError>>,
    },
    /// A group's position, to be followed.
    SetPosition {
        /// Which.
        shard: ShardId,
        /// Whose.
        group: String,
        /// Next sequence number to read; `None`: it has none any more.
        position: Option<u64>,
    },
}

/// A group on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LagAsk {
    /// The shard.
    pub shard: ShardId,
    /// The group's name.
    pub group: String,
    /// Next sequence number to read.
    pub position: u64,
}

/// Those who wait for look-ups.
#[derive(Debug, Default)]
pub(super) struct Looking {
    pub(super) lags: Vec<LagsAsked>,
    pub(super) since: Vec<SinceAsked>,
}

/// Asked, and not answered yet.
#[derive(Debug)]
pub(super) struct SinceAsked {
    shard: ShardId,
    /// The look-up's number there.
    number: u64,
    reply: Sender<Result<u64, ReadError>>,
}

/// Asked, and not answered yet.
#[derive(Debug)]
pub(super) struct LagsAsked {
    asks: Vec<LagAsk>,
    /// Of these so many from the front have not been seen to be settled.
    open: usize,
    /// Answered then with what is known, monotonic.
    until_ns: u64,
    reply: Sender<Vec<Option<Lag>>>,
}

/// Longest time that somebody waits for look-ups, ns.
const LOOK_NS: u64 = 5_000_000_000;

impl<D: Disk> Core<D> {
    /// Carries out a command from another thread.
    pub fn command(&mut self, now: Now, command: CoreCommand) {
        // Whoever asked may have gone: then nobody wants the answer.
        match command {
            CoreCommand::Place { shard, home } => self.routes.place(shard, home),
            CoreCommand::AddShard(spec) => self.add_shard(spec),
            CoreCommand::Prepare { shard, done } => {
                if let Some(found) = self.shards.get_mut(&shard) {
                    found.prepare_first(now, &mut self.io);
                }
                self.preparations.push((shard, done));
            }
            CoreCommand::CloseShard { shard, done } => {
                self.close_shard(now, shard);
                self.closings.push((shard, done));
            }
            CoreCommand::Respec(spec) => self.respec(now, spec),
            CoreCommand::SplitPoint { shard, range, reply } => {
                let found = self.shards.get(&shard).map(|s| s.stats.keys.split_point(range));
                let _ = reply.send(found);
            }
            CoreCommand::Load { shard, range, reply } => {
                let found = self.shards.get_mut(&shard);
                let _ = reply.send(found.map(|s| s.stats.keys.load(now.mono_ns, range)));
            }
            CoreCommand::Locate { shard, start, reply } => {
                let _ = reply.send(self.locate(shard, start));
            }
            CoreCommand::Lease { shard, old, new, done } => {
                if let Some(found) = self.shards.get_mut(&shard) {
                    found.set_lease(old, new, &mut self.io);
                }
                let _ = done.send(());
            }
            CoreCommand::DiskLow(low) => self.set_disk_low(low),
            CoreCommand::Fence { id, epoch, done } => {
                self.fence(id, epoch);
                let _ = done.send(());
            }
            CoreCommand::RemoveShard { shard, done } => {
                self.next_number += 1;
                let tag = REMOVAL | self.next_number;
                self.removals.insert(tag, done);
                self.remove_shard(shard, tag);
            }
            CoreCommand::Status { reply } => {
                let _ = reply.send(self.status(now));
            }
            CoreCommand::Lags { asks, reply } => {
                for ask in &asks {
                    if let Some(shard) = self.shards.get_mut(&ask.shard) {
                        shard.want(now, ask.position, &mut self.io);
                    }
                }
                let (open, until_ns) = (asks.len(), now.mono_ns + LOOK_NS);
                self.looking.lags.push(LagsAsked { asks, open, until_ns, reply });
            }
            CoreCommand::Since { shard, time_ns, reply } => match self.shards.get_mut(&shard) {
                Some(found) => {
                    let number = found.look_since(now, time_ns, &mut self.io);
                    self.looking.since.push(SinceAsked { shard, number, reply });
                }
                None => drop(reply.send(Err(ReadError::UnknownShard(shard)))),
            },
            CoreCommand::SetPosition { shard, group, position } => {
                self.set_position(shard, &group, position);
            }
        }
    }

    /// Answers those who wait for a shard to end, or for its first segment.
    pub(super) fn tell_who_waits(&mut self, now: Now) {
        let shards = &self.shards;
        self.closings.retain(|(id, done)| match shards.get(id) {
            Some(shard) if !shard.at_rest() => true,
            Some(shard) => {
                // Whoever asked may have gone.
                let _ = done.send(shard.status(now));
                false
            }
            None => false,
        });
        self.preparations.retain(|(id, done)| {
            let wait = shards.get(id).is_some_and(Shard::preparing);
            if !wait {
                let _ = done.send(());
            }
            wait
        });
    }

    /// Answers those whose look-ups are done.
    pub(super) fn tell_who_looks(&mut self, now: Now) {
        let shards = &mut self.shards;
        self.looking.since.retain(|asked| {
            let found = match shards.get_mut(&asked.shard) {
                Some(shard) => shard.found_since(asked.number),
                None => Some(Err(ReadError::UnknownShard(asked.shard))),
            };
            // Whoever asked may have gone.
            found.map(|found| drop(asked.reply.send(found))).is_none()
        });
        self.looking.lags.retain_mut(|asked| {
            let settled = |ask: &LagAsk| {
                shards.get(&ask.shard).is_none_or(|shard| shard.settled(ask.position))
            };
            while asked.open > 0 && settled(&asked.asks[asked.open - 1]) {
                asked.open -= 1;
            }
            if asked.open > 0 && now.mono_ns < asked.until_ns {
                return true;
            }
            let lag =
                |ask: &LagAsk| Some(shards.get(&ask.shard)?.lag(now, &ask.group, ask.position));
            let _ = asked.reply.send(asked.asks.iter().map(lag).collect());
            false
        });
    }
}
