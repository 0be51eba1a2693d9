//! Groups that settle record by record: what [`crate::deliveries`] decides, joined to members, catalogue and cores.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use highwater_wire::telemetry::DeliverySnapshot;
use highwater_wire::{
    Claimed, ControlRequest, DeliveryConfig, GroupDelivery, MAX_CLAIM, OutOfRange, Redriven,
    SequenceRange, Settlement, ShardId, StreamName,
};

use super::{Control, ControlError, group_name, now_ns, unknown_shard};
use crate::catalogue::PositionRecord;
use crate::deliveries::{Ask, DeliveryError};
use crate::types::{Now, Start};

/// What became of records of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The group.
    pub group: String,
    /// The stream.
    pub stream: String,
    /// The member.
    pub member: u64,
    /// The shard.
    pub shard: u32,
    /// The lease they were claimed under.
    pub lease: u64,
    /// By sequence number.
    pub settlements: Vec<Settlement>,
}

impl Settle {
    /// The settlement in a request, if it is one.
    pub fn of(request: ControlRequest) -> Option<Settle> {
        match request {
            ControlRequest::Settle { group, stream, member, shard, lease, settlements } => {
                Some(Settle { group, stream, member, shard, lease, settlements })
            }
            _ => None,
        }
    }
}

/// A member's claim on records of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The group.
    pub group: &'a str,
    /// The stream.
    pub stream: &'a str,
    /// The member.
    pub member: u64,
    /// The shard.
    pub shard: u32,
    /// The lease.
    pub lease: u64,
    /// Of the records it has at hand, the first sequence number.
    pub from: u64,
    /// And the one after the last.
    pub to: u64,
    /// Records wanted.
    pub most: u32,
}

/// Group and shard.
pub(super) type Place = (String, ShardId);

fn within(field: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<(), ControlError> {
    if range.contains(&value) {
        return Ok(());
    }
    let limit = format!("{} to {} are allowed", range.start(), range.end());
    Err(ControlError::Argument { field, value, limit })
}

/// Whether settings are within their ranges.
fn check(config: &DeliveryConfig, group: &str, stream: &str) -> Result<(), ControlError> {
    if let Err(OutOfRange { field, value, range }) = config.check() {
        return within(field, value, range);
    }
    let name = config.dead_letters_of(group, stream);
    if name == stream {
        return Err(ControlError::OwnDeadLetters(name));
    }
    StreamName::new(&name).map(drop).map_err(|reason| ControlError::Name {
        field: "dead_letters",
        name,
        reason,
    })
}

impl Control {
    pub(super) fn now(&self) -> Now {
        Now { mono_ns: self.mono_ns(), wall_ns: now_ns() }
    }

    /// Has a group settle a stream's records one by one, or go back to positions: then those it has settled beyond its
    /// position are read again.
    ///
    /// # Errors
    /// While the group has members in the stream, unless only the settings change.
    pub fn set_group(
        &mut self,
        group: &str,
        stream: &str,
        delivery: Option<DeliveryConfig>,
    ) -> Result<(), ControlError> {
        group_name(group)?;
        let id = self.find(stream)?.id;
        if let Some(config) = &delivery {
            check(config, group, stream)?;
        }
        if self.deliveries.config(group, id).is_some() != delivery.is_some() {
            let what = "how it settles can be changed once they have left";
            self.members.must_rest(group, id, what)?;
        }
        self.catalogue().set_delivery(group, id, delivery.as_ref())?;
        self.deliveries.configure(group, id, delivery);
        Ok(())
    }

    /// Hands records out to a member.
    pub fn claim(&mut self, claim: &Claim<'_>) -> Result<Claimed, ControlError> {
        let Claim { group, stream, member, shard, lease, from, to, most } = *claim;
        within("most", most.into(), 0..=MAX_CLAIM.into())?;
        if from > to {
            return Err(DeliveryError::Range { from, to }.into());
        }
        let id = ShardId { stream: self.find(stream)?.id, shard };
        let now = self.now();
        let config = self.deliveries.config(group, id.stream);
        let config = config.ok_or_else(|| DeliveryError::Positions(group.to_owned()))?;
        let dead_letters = config.dead_letters_of(group, stream);
        self.members.may_commit(group, id.stream, member, (shard, lease))?;
        self.begin_deliveries(group, stream, id)?;
        let ask = Ask { lease, fresh: from..to, most };
        let claimed = self.deliveries.claim(now, group, id, &ask)?;
        Ok(Claimed { dead_letters, ..claimed })
    }

    /// Where a group is on a shard that it has not claimed from since the server started.
    fn begin_deliveries(
        &mut self,
        group: &str,
        stream: &str,
        id: ShardId,
    ) -> Result<(), ControlError> {
        if self.deliveries.has_position(group, id.stream, id.shard) {
            return Ok(());
        }
        let known = self.positions.get(&(group.to_owned(), id.stream, id.shard)).copied();
        let position = match known {
            Some(position) => position,
            None => self.locate(stream, id, Start::Oldest)?.oldest,
        };
        self.deliveries.set_position(group, id.stream, id.shard, position);
        Ok(())
    }

    /// Takes note of what became of records; it is kept with what else is to be kept.
    pub(super) fn settle(&mut self, settle: &Settle) -> Result<Place, ControlError> {
        let Settle { group, stream, member, shard, lease, settlements } = settle;
        let record = self.find(stream)?;
        if record.shard(*shard).is_none() {
            return Err(unknown_shard(stream, record, *shard));
        }
        let id = ShardId { stream: record.id, shard: *shard };
        within("settlements", settlements.len() as u64, 0..=MAX_CLAIM.into())?;
        if self.deliveries.config(group, id.stream).is_none() {
            return Err(DeliveryError::Positions(group.clone()).into());
        }
        self.members.may_commit(group, id.stream, *member, (*shard, *lease))?;
        self.deliveries.settle(self.now(), group, id, *lease, settlements)?;
        Ok((group.clone(), id))
    }

    /// Hands settled records out again to a group, from the first attempt. Durable when it returns.
    ///
    /// # Errors
    /// For records that are not there yet, and for more ranges than are kept.
    pub fn redrive(
        &mut self,
        group: &str,
        stream: &str,
        shard: u32,
        ranges: &[SequenceRange],
    ) -> Result<Redriven, ControlError> {
        group_name(group)?;
        let record = self.find(stream)?;
        if record.shard(shard).is_none() {
            return Err(unknown_shard(stream, record, shard));
        }
        let id = ShardId { stream: record.id, shard };
        let bounds = self.locate(stream, id, Start::Oldest)?;
        if let Some(odd) = ranges.iter().map(|range| range.to).find(|to| *to > bounds.high_water) {
            let limit = format!("shard {shard} ends at {}", bounds.high_water);
            return Err(ControlError::Argument { field: "to", value: odd, limit });
        }
        let known = self.positions.contains_key(&(group.to_owned(), id.stream, shard));
        if known && self.deliveries.config(group, id.stream).is_some() {
            self.begin_deliveries(group, stream, id)?;
        }
        let redriven = self.deliveries.redrive(group, id, ranges, bounds.oldest)?;
        self.keep(Vec::new())?;
        Ok(redriven)
    }

    /// Keeps positions and what groups have settled beyond theirs, in one durable transaction; of which shards that was.
    pub(super) fn keep(
        &mut self,
        mut records: Vec<PositionRecord>,
    ) -> Result<BTreeSet<Place>, ControlError> {
        let changed = self.deliveries.changed();
        for (group, stream, shard, kept) in &changed {
            let known = self.positions.get(&(group.clone(), *stream, *shard));
            if known != Some(&kept.position) {
                records.push((group.clone(), *stream, *shard, kept.position));
            }
        }
        if records.is_empty() && changed.is_empty() {
            return Ok(BTreeSet::new());
        }
        let kept = self.catalogue().commit(&records, &changed);
        if let Err(error) = kept {
            self.deliveries.not_kept(&changed);
            return Err(error.into());
        }
        let place =
            |group: &String, stream: u32, shard: u32| (group.clone(), ShardId { stream, shard });
        let moved = records.iter().map(|(group, stream, shard, _)| place(group, *stream, *shard));
        let settled = changed.iter().map(|(group, stream, shard, _)| place(group, *stream, *shard));
        let places = moved.chain(settled).collect();
        self.moved(records);
        Ok(places)
    }

    /// What groups settle by themselves: what retention has removed, what was not settled in time.
    pub(super) fn tend_deliveries(&mut self) -> Result<(), ControlError> {
        let streams: BTreeSet<u32> = self.deliveries.groups().map(|(_, stream)| stream).collect();
        if streams.is_empty() {
            return Ok(());
        }
        for (id, status) in self.status()? {
            if streams.contains(&id.stream) {
                self.deliveries.trimmed(id, status.oldest);
            }
        }
        self.deliveries.pass(self.now());
        let places = self.keep(Vec::new())?;
        self.finish_shards(&places);
        Ok(())
    }

    /// How the records of a group fare that settles record by record.
    pub(super) fn delivery_of(
        &self,
        now: Now,
        group: &str,
        stream: u32,
        name: &str,
    ) -> Option<GroupDelivery> {
        let figures = self.deliveries.figures(now, group, stream)?;
        let dead_letters = figures.config.dead_letters_of(group, name);
        Some(GroupDelivery { dead_letters, ..figures })
    }

    /// The same of all, for telemetry.
    pub fn deliveries(&self) -> Vec<DeliverySnapshot> {
        let now = self.now();
        let name = |id| {
            let found = self.streams.iter().find(|(_, record)| record.id == id);
            found.map(|(name, _)| name.clone())
        };
        let one = |(group, stream): (&str, u32)| {
            let figures = self.deliveries.figures(now, group, stream)?;
            Some(DeliverySnapshot {
                group: group.to_owned(),
                stream: name(stream)?,
                in_hand: figures.in_hand,
                waiting: figures.waiting,
                to_bury: figures.to_bury,
                done: figures.done,
                redelivered: figures.redelivered,
                buried: figures.buried,
                lost: figures.lost,
                breaker: figures.breaker,
            })
        };
        let mut all: Vec<DeliverySnapshot> = self.deliveries.groups().filter_map(one).collect();
        all.sort_by(|a, b| (&a.group, &a.stream).cmp(&(&b.group, &b.stream)));
        all
    }
}
