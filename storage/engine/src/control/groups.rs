//! Consumer groups for who operates them: where they are, how far behind, and their positions set or forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Receiver;

use highwater_wire::{
    GroupDescription, GroupMember, GroupShard, Position, ResetPosition, ResetTo, ShardId,
};

use super::{Control, ControlError, PATIENCE, group_name, unknown_shard};
use crate::catalogue::{PositionRecord, StreamRecord};
use crate::core::{CoreCommand, LagAsk};
use crate::lag::Lag;
use crate::types::{Located, Start};

/// How positions are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupReset {
    /// Of one shard; of all of them if `None`.
    pub shard: Option<u32>,
    /// Where to.
    pub to: ResetTo,
    /// And then on by so many records, or back.
    pub shift: i64,
    /// Only tell what would be done.
    pub dry_run: bool,
}

impl Control {
    /// The positions a group committed in a stream.
    pub fn fetch_positions(
        &self,
        group: &str,
        stream: &str,
    ) -> Result<Vec<Position>, ControlError> {
        group_name(group)?;
        let id = self.find(stream)?.id;
        let ours = self.positions_of(group, id);
        Ok(ours.map(|(shard, sequence)| Position { shard, sequence }).collect())
    }

    pub(super) fn positions_of(
        &self,
        group: &str,
        stream: u32,
    ) -> impl Iterator<Item = (u32, u64)> + use<'_> {
        let range = (group.to_owned(), stream, 0)..=(group.to_owned(), stream, u32::MAX);
        self.positions.range(range).map(|((_, _, shard), sequence)| (*shard, *sequence))
    }

    /// All groups with their backlog; of one stream, or of all if `stream` is empty.
    pub fn list_groups(&self, stream: &str) -> Result<Vec<GroupDescription>, ControlError> {
        let only = if stream.is_empty() { None } else { Some(self.find(stream)?.id) };
        self.describe_groups(|_, id| only.is_none_or(|only| only == id))
    }

    /// One group with its backlog, in all streams where it has positions.
    pub fn describe_group(&self, group: &str) -> Result<Vec<GroupDescription>, ControlError> {
        group_name(group)?;
        let found = self.describe_groups(|name, _| name == group)?;
        if found.is_empty() {
            let (group, stream) = (group.to_owned(), String::new());
            return Err(ControlError::UnknownGroup { group, stream });
        }
        Ok(found)
    }

    /// The groups that are wanted, by name and stream number. Each core is asked once, whatever their number.
    fn describe_groups(
        &self,
        wanted: impl Fn(&str, u32) -> bool,
    ) -> Result<Vec<GroupDescription>, ControlError> {
        let records: BTreeMap<u32, (&str, &StreamRecord)> =
            self.streams.iter().map(|(name, r)| (r.id, (name.as_str(), r))).collect();
        let groups: BTreeSet<(&str, u32)> = self
            .positions
            .keys()
            .map(|(group, stream, _)| (group.as_str(), *stream))
            .chain(self.deliveries.groups())
            .filter(|(group, stream)| wanted(group, *stream))
            .collect();
        let now = self.now();
        let mut asks = Vec::new();
        let mut described = Vec::new();
        for (group, stream) in groups {
            let Some((name, record)) = records.get(&stream) else { continue };
            let positions: BTreeMap<u32, u64> = self.positions_of(group, stream).collect();
            let members = self.group_members(group, stream);
            let owner = |shard: u32| {
                let holds = |member: &&GroupMember| member.shards.contains(&shard);
                members.iter().find(holds).map_or_else(String::new, |member| member.name.clone())
            };
            let mut shards = Vec::new();
            for shard in shards_of(record, &positions) {
                let position = positions.get(&shard).copied();
                asks.push(LagAsk {
                    shard: ShardId { stream, shard },
                    group: group.to_owned(),
                    position: position.unwrap_or(0),
                });
                let owner = owner(shard);
                shards.push(GroupShard { shard, position, owner, ..GroupShard::default() });
            }
            let delivery = self.delivery_of(now, group, stream, name);
            let (group, stream) = (group.to_owned(), (*name).to_owned());
            described.push(GroupDescription { group, stream, shards, members, delivery });
        }
        let lags = self.lags(asks)?;
        let shards = described.iter_mut().flat_map(|group| &mut group.shards);
        shards.zip(lags).for_each(|(shard, lag)| fill(shard, lag.unwrap_or_default()));
        Ok(described)
    }

    /// How far groups are behind, in the order asked.
    fn lags(&self, asks: Vec<LagAsk>) -> Result<Vec<Option<Lag>>, ControlError> {
        type Wait = Receiver<Vec<Option<Lag>>>;
        let count = asks.len();
        let mut by_core: BTreeMap<usize, (Vec<usize>, Vec<LagAsk>)> = BTreeMap::new();
        for (at, ask) in asks.into_iter().enumerate() {
            let (places, asks) = by_core.entry(self.routes.core_of(ask.shard)).or_default();
            places.push(at);
            asks.push(ask);
        }
        let mut waits: Vec<(usize, Vec<usize>, Wait)> = Vec::new();
        for (core, (places, asks)) in by_core {
            let (reply, wait) = std::sync::mpsc::channel();
            if !(self.links[core])(CoreCommand::Lags { asks, reply }) {
                return Err(ControlError::CoreGone(core));
            }
            waits.push((core, places, wait));
        }
        let mut lags = vec![None; count];
        for (core, places, wait) in waits {
            let told = wait.recv_timeout(PATIENCE).map_err(|_| ControlError::CoreGone(core))?;
            places.into_iter().zip(told).for_each(|(at, lag)| lags[at] = lag);
        }
        Ok(lags)
    }

    /// Sets a group's positions: in one stream, or in all where it has some.
    ///
    /// # Errors
    /// For a group that has no positions, unless a stream is named, and for a shard that is not there.
    pub fn reset_group(
        &mut self,
        group: &str,
        stream: &str,
        reset: &GroupReset,
    ) -> Result<Vec<ResetPosition>, ControlError> {
        group_name(group)?;
        let names = self.streams_of(group, stream)?;
        for name in &names {
            let what = "its positions can be set once they have left";
            self.members.must_rest(group, self.find(name)?.id, what)?;
        }
        self.set_positions(group, &names, reset)
    }

    /// Sets positions, of whomever.
    pub(super) fn set_positions(
        &mut self,
        group: &str,
        names: &[String],
        reset: &GroupReset,
    ) -> Result<Vec<ResetPosition>, ControlError> {
        let mut told = Vec::new();
        let mut records: Vec<PositionRecord> = Vec::new();
        for name in names {
            let record = self.find(name)?;
            if let Some(odd) = reset.shard.filter(|s| record.shard(*s).is_none()) {
                return Err(unknown_shard(name, record, odd));
            }
            let positions: BTreeMap<u32, u64> = self.positions_of(group, record.id).collect();
            let wanted = record.shards.iter().map(|s| s.shard);
            for shard in wanted.filter(|s| reset.shard.is_none_or(|only| only == *s)) {
                let id = ShardId { stream: record.id, shard };
                let from = positions.get(&shard).copied();
                let Some(to) = self.target(name, id, from, reset)? else { continue };
                records.push((group.to_owned(), record.id, shard, to));
                told.push(ResetPosition { stream: name.clone(), shard, from, to });
            }
        }
        if told.is_empty() {
            let (group, stream) = (group.to_owned(), String::new());
            return Err(ControlError::UnknownGroup { group, stream });
        }
        if !reset.dry_run {
            for (group, stream, shard, position) in &records {
                self.deliveries.set_position(group, *stream, *shard, *position);
            }
            self.keep(records)?;
        }
        Ok(told)
    }

    /// Where a position is to be; `None` for one that stays as it is because there is none.
    fn target(
        &self,
        name: &str,
        shard: ShardId,
        from: Option<u64>,
        reset: &GroupReset,
    ) -> Result<Option<u64>, ControlError> {
        let bounds: Located = self.locate(name, shard, Start::Oldest)?;
        let base = match reset.to {
            ResetTo::Current => match from {
                Some(from) => from,
                None => return Ok(None),
            },
            ResetTo::Oldest => bounds.oldest,
            ResetTo::Latest => bounds.high_water,
            ResetTo::Time(time_ns) => self.since(name, shard, time_ns)?,
            ResetTo::Sequence(sequence) => sequence,
        };
        let moved = i128::from(base) + i128::from(reset.shift);
        let (oldest, high_water) = (i128::from(bounds.oldest), i128::from(bounds.high_water));
        Ok(u64::try_from(moved.clamp(oldest, high_water)).ok())
    }

    /// The first record of a shard that arrived at a time or later.
    fn since(&self, name: &str, shard: ShardId, time_ns: u64) -> Result<u64, ControlError> {
        let (core, wait) = self.ask(shard, |reply| CoreCommand::Since { shard, time_ns, reply })?;
        let found = wait.recv_timeout(PATIENCE).map_err(|_| ControlError::CoreGone(core))?;
        found.map_err(|reason| ControlError::Locate {
            stream: name.to_owned(),
            shard: shard.shard,
            reason,
        })
    }

    /// Forgets a group's positions: in one stream, or in all.
    pub fn delete_group(&mut self, group: &str, stream: &str) -> Result<(), ControlError> {
        group_name(group)?;
        let names = self.streams_of(group, stream)?;
        for name in &names {
            let what = "it can be deleted once they have left";
            self.members.must_rest(group, self.find(name)?.id, what)?;
        }
        let mut found = false;
        for name in names {
            let id = self.find(&name)?.id;
            let shards: Vec<u32> = self.positions_of(group, id).map(|(shard, _)| shard).collect();
            if shards.is_empty() && self.deliveries.config(group, id).is_none() {
                continue;
            }
            found = true;
            self.catalogue().remove_group(group, id)?;
            self.deliveries.configure(group, id, None);
            for shard in shards {
                self.positions.remove(&(group.to_owned(), id, shard));
                let shard = ShardId { stream: id, shard };
                let (group, position) = (group.to_owned(), None);
                // A core that is gone shows no figures either.
                let _ = self.tell(shard, CoreCommand::SetPosition { shard, group, position });
            }
        }
        if found {
            return Ok(());
        }
        let (group, stream) = (group.to_owned(), stream.to_owned());
        Err(ControlError::UnknownGroup { group, stream })
    }

    /// The stream named, or all in which a group has positions.
    fn streams_of(&self, group: &str, stream: &str) -> Result<Vec<String>, ControlError> {
        if !stream.is_empty() {
            return self.find(stream).map(|_| vec![stream.to_owned()]);
        }
        let has = |record: &StreamRecord| {
            self.positions_of(group, record.id).next().is_some()
                || self.deliveries.config(group, record.id).is_some()
        };
        let names = self.streams.iter().filter(|(_, record)| has(record));
        Ok(names.map(|(name, _)| name.clone()).collect())
    }

    /// Positions were kept durably: noted, and told to the cores.
    pub(super) fn moved(&mut self, records: Vec<PositionRecord>) {
        for (group, stream, shard, position) in records {
            let id = ShardId { stream, shard };
            self.positions.insert((group.clone(), stream, shard), position);
            let position = Some(position);
            // A core that is gone shows no figures either.
            let _ = self.tell(id, CoreCommand::SetPosition { shard: id, group, position });
        }
    }
}

/// The shards a group is on: those it has a position in, and those that came of them and wait to be read.
fn shards_of(record: &StreamRecord, positions: &BTreeMap<u32, u64>) -> Vec<u32> {
    let mut on = BTreeSet::new();
    // A child's number is greater than its parents'.
    for shard in &record.shards {
        let inherits = shard.parents.iter().any(|parent| on.contains(parent));
        if inherits || positions.contains_key(&shard.shard) {
            on.insert(shard.shard);
        }
    }
    on.into_iter().collect()
}

fn fill(shard: &mut GroupShard, lag: Lag) {
    let Lag { backlog, outlook, oldest, high_water } = lag;
    (shard.oldest, shard.high_water) = (oldest, high_water);
    (shard.backlog_records, shard.backlog_bytes) = (backlog.records, backlog.bytes);
    (shard.backlog_ns, shard.exact) = (backlog.age_ns, backlog.exact);
    shard.lost_records = shard.position.map_or(0, |position| oldest.saturating_sub(position));
    (shard.rate_in, shard.rate_out) = (outlook.rate_in, outlook.rate_out);
    (shard.trend, shard.empty_ms, shard.loss_ms) =
        (outlook.trend, outlook.empty_ms, outlook.loss_ms);
}
