//! Deliveries record by record: for groups that ask for it, what of each shard is settled, in a member's hand, waiting
//! for another attempt, or given up. Pure: (request, now) → answer; the control plane keeps what changes, and members
//! carry what is given up into a dead-letter stream.
//!
//! Records are handed out in runs. Of a run that fails it is not known which record it was, so it is handed out again in
//! halves, and no attempt is counted (as AWS Lambda does it: `BisectBatchOnFunctionError` does not count against
//! the retry quota); a single record that fails has had an attempt, and after the last it is given up. That needs
//! at most 2 · log2(n) runs to find one bad record among n, and everybody else is processed meanwhile.

mod breaker;
mod shard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use highwater_wire::{
    Claimed, DeliveryConfig, GroupDelivery, Redriven, SequenceRange, Settlement, ShardId,
};

use crate::types::Now;
use breaker::{Admission, Breaker};
use shard::Shard;
pub(crate) use shard::{Kept, Tally};

/// Ranges that are kept of a shard, at most: with more nothing fresh is handed out.
pub const MAX_PIECES: usize = 10_000;

/// With more ranges of a shard than this none are given to a group again. All of them are kept anew with each
/// settlement, so that many of them slow everybody down.
pub const MAX_REDRIVEN: usize = 2_000;

/// What a member has at hand is not handed out before this time if there are too many ranges, milliseconds.
const FULL_AGAIN_MS: u32 = 200;

/// Why a claim, a settlement or a redrive is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The group keeps positions.
    #[error(
        "group {0:?} keeps positions in this stream: read and commit as its member, or have it settle record by record \
         first"
    )]
    Positions(String),
    /// The group settles record by record.
    #[error(
        "group {0:?} settles this stream's records one by one: claim and settle them; a reset sets its position"
    )]
    Records(String),
    /// Too many records were given up.
    #[error(
        "more than {share} % of the records that group {group:?} settled within {window_ms} ms were dead letters: the \
         breaker is open, nothing is handed out for {retry_after_ms} ms",
        share = f64::from(*permille) / 10.0
    )]
    Breaker {
        /// The group's name.
        group: String,
        /// The share that opens it, of a thousand.
        permille: u32,
        /// The time it is taken over.
        window_ms: u32,
        /// When to ask again.
        retry_after_ms: u32,
    },
    /// Their time is over, or they never were.
    #[error(
        "record {sequence} of shard {shard} is not in hand under this lease (any more): its time is over, and it is handed \
         out again"
    )]
    NotInHand {
        /// The shard.
        shard: u32,
        /// The first such record.
        sequence: u64,
    },
    /// A range without records.
    #[error("records {from} to {to} are no range")]
    Range {
        /// As given.
        from: u64,
        /// As given.
        to: u64,
    },
    /// More ranges than are kept.
    #[error(
        "the group would have {ranges} ranges of records of this shard to work off; {limit} are allowed: give it these when it          has worked some off"
    )]
    TooMany {
        /// How many.
        ranges: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// What a member asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The lease it holds.
    pub lease: u64,
    /// What it has at hand.
    pub fresh: Range<u64>,
    /// Records wanted.
    pub most: u32,
}

/// The state of a shard as it is kept: group, stream number, shard.
pub(crate) type KeptShard = (String, u32, u32, Kept);

#[derive(Debug)]
struct Group {
    config: DeliveryConfig,
    breaker: Breaker,
    shards: BTreeMap<u32, Shard>,
    counters: Tally,
}

/// All groups that settle record by record, by name and stream number.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    groups: BTreeMap<(String, u32), Group>,
}

impl Group {
    fn new(config: DeliveryConfig) -> Group {
        Group {
            config,
            breaker: Breaker::default(),
            shards: BTreeMap::new(),
            counters: Tally::default(),
        }
    }

    fn count(&mut self, now: Now, tally: &Tally) {
        self.counters.add(tally);
        self.breaker.count(now.mono_ns, &self.config, tally);
    }
}

impl Deliveries {
    /// As it was kept.
    pub fn restore(
        configs: impl IntoIterator<Item = (String, u32, DeliveryConfig)>,
        shards: impl IntoIterator<Item = KeptShard>,
    ) -> Deliveries {
        let mut deliveries = Deliveries::default();
        for (group, stream, config) in configs {
            deliveries.groups.insert((group, stream), Group::new(config));
        }
        for (group, stream, shard, kept) in shards {
            if let Some(group) = deliveries.groups.get_mut(&(group, stream)) {
                group.shards.insert(shard, Shard::restore(kept));
            }
        }
        deliveries
    }

    /// How a group settles; `None` for one that keeps positions.
    pub fn config(&self, group: &str, stream: u32) -> Option<&DeliveryConfig> {
        Some(&self.groups.get(&(group.to_owned(), stream))?.config)
    }

    /// A group settles so from now on; `None` for positions, then all else is forgotten.
    pub fn configure(&mut self, group: &str, stream: u32, config: Option<DeliveryConfig>) {
        let key = (group.to_owned(), stream);
        match config {
            None => drop(self.groups.remove(&key)),
            Some(config) => match self.groups.get_mut(&key) {
                Some(known) => known.config = config,
                None => drop(self.groups.insert(key, Group::new(config))),
            },
        }
    }

    /// The groups, with the numbers of their streams.
    pub fn groups(&self) -> impl Iterator<Item = (&str, u32)> {
        self.groups.keys().map(|(group, stream)| (group.as_str(), *stream))
    }

    /// Whether it is known where a group is on a shard.
    pub fn has_position(&self, group: &str, stream: u32, shard: u32) -> bool {
        let group = self.groups.get(&(group.to_owned(), stream));
        group.and_then(|group| group.shards.get(&shard)).is_some()
    }

    /// Everything below `position` is settled and nothing above it; whatever was known is forgotten. Does nothing to a
    /// group that keeps positions.
    pub fn set_position(&mut self, group: &str, stream: u32, shard: u32, position: u64) {
        if let Some(group) = self.groups.get_mut(&(group.to_owned(), stream)) {
            group.shards.insert(shard, Shard::at(position));
        }
    }

    fn group_mut(&mut self, group: &str, stream: u32) -> Result<&mut Group, DeliveryError> {
        let found = self.groups.get_mut(&(group.to_owned(), stream));
        found.ok_or_else(|| DeliveryError::Positions(group.to_owned()))
    }

    /// Hands records out: those that wait for another attempt first, then what of the member's is fresh. The shard's
    /// position has been set.
    pub fn claim(
        &mut self,
        now: Now,
        group: &str,
        id: ShardId,
        ask: &Ask,
    ) -> Result<Claimed, DeliveryError> {
        let name = group;
        let group = self.group_mut(name, id.stream)?;
        let (config, mut tally) = (&group.config, Tally::default());
        let Some(shard) = group.shards.get_mut(&id.shard) else {
            return Ok(Claimed { next_fresh: ask.fresh.start, ..Claimed::default() });
        };
        shard.pass(now, config, &mut tally);
        group.count(now, &tally);
        let (config, mut tally) = (&group.config, Tally::default());
        let most = match group.breaker.admit(now.mono_ns, config) {
            Admission::All => ask.most,
            Admission::One => ask.most.min(1),
            Admission::None { retry_after_ms } => {
                return Err(DeliveryError::Breaker {
                    group: name.to_owned(),
                    permille: config.breaker_permille,
                    window_ms: config.breaker_window_ms,
                    retry_after_ms,
                });
            }
        };
        let Some(shard) = group.shards.get_mut(&id.shard) else { return Ok(Claimed::default()) };
        let ask = Ask { most, ..ask.clone() };
        let mut claimed = shard.claim(now, config, &ask, &mut tally);
        if claimed.portion.is_some() {
            group.breaker.handed_out(now.mono_ns, config);
        } else if claimed.next_fresh < ask.fresh.end && claimed.again_ms.is_none() {
            claimed.again_ms = Some(FULL_AGAIN_MS);
        }
        group.count(now, &tally);
        Ok(claimed)
    }

    /// Takes note of what became of records: of all, or of none.
    pub fn settle(
        &mut self,
        now: Now,
        group: &str,
        id: ShardId,
        lease: u64,
        settlements: &[Settlement],
    ) -> Result<(), DeliveryError> {
        if let Some(odd) = settlements.iter().find(|s| s.from >= s.to) {
            return Err(DeliveryError::Range { from: odd.from, to: odd.to });
        }
        let group = self.group_mut(group, id.stream)?;
        let (config, mut tally) = (&group.config, Tally::default());
        let not_in_hand = |sequence| DeliveryError::NotInHand { shard: id.shard, sequence };
        let shard = group.shards.get_mut(&id.shard);
        let first = settlements.first().map_or(0, |s| s.from);
        let shard = shard.ok_or_else(|| not_in_hand(first))?;
        // What is late is late, whoever looks first.
        shard.pass(now, config, &mut tally);
        let settled = shard.settle(now, config, lease, settlements, &mut tally);
        group.count(now, &tally);
        settled.map_err(not_in_hand)
    }

    /// A lease is over: what was in hand under it failed.
    pub fn lease_ended(&mut self, now: Now, id: ShardId, lease: u64) {
        let groups = self.groups.iter_mut().filter(|((_, stream), _)| *stream == id.stream);
        for (_, group) in groups {
            let mut tally = Tally::default();
            if let Some(shard) = group.shards.get_mut(&id.shard) {
                shard.lease_ended(now, &group.config, lease, &mut tally);
            }
            group.count(now, &tally);
        }
    }

    /// Time passes: what was not settled in time failed.
    pub fn pass(&mut self, now: Now) {
        for group in self.groups.values_mut() {
            let mut tally = Tally::default();
            for shard in group.shards.values_mut() {
                shard.pass(now, &group.config, &mut tally);
            }
            group.count(now, &tally);
        }
    }

    /// Retention keeps what is at `oldest` and above.
    pub fn trimmed(&mut self, id: ShardId, oldest: u64) {
        let groups = self.groups.iter_mut().filter(|((_, stream), _)| *stream == id.stream);
        for (_, group) in groups {
            let mut tally = Tally::default();
            if let Some(shard) = group.shards.get_mut(&id.shard) {
                shard.trimmed(oldest, &mut tally);
            }
            group.counters.add(&tally);
        }
    }

    /// Hands records out again that are settled, from the first attempt.
    pub fn redrive(
        &mut self,
        group: &str,
        id: ShardId,
        ranges: &[SequenceRange],
        oldest: u64,
    ) -> Result<Redriven, DeliveryError> {
        if let Some(odd) = ranges.iter().find(|range| range.from >= range.to) {
            return Err(DeliveryError::Range { from: odd.from, to: odd.to });
        }
        let group = self.group_mut(group, id.stream)?;
        match group.shards.get_mut(&id.shard) {
            Some(shard) => shard.redrive(ranges, oldest),
            None => Ok(Redriven::default()),
        }
    }

    /// Whether nothing of a shard waits or is in hand.
    pub fn at_rest(&self, group: &str, id: ShardId) -> bool {
        let group = self.groups.get(&(group.to_owned(), id.stream));
        group.and_then(|group| group.shards.get(&id.shard)).is_none_or(Shard::at_rest)
    }

    /// Whether something of a shard can be claimed that is not fresh.
    pub fn due(&self, now: Now, group: &str, id: ShardId) -> bool {
        let Some(group) = self.groups.get(&(group.to_owned(), id.stream)) else { return false };
        !group.breaker.is_open(now.mono_ns)
            && group.shards.get(&id.shard).is_some_and(|shard| shard.due(now))
    }

    /// What has changed since this was asked last, to be kept.
    pub fn changed(&mut self) -> Vec<KeptShard> {
        let mut changed = Vec::new();
        for ((name, stream), group) in &mut self.groups {
            for (number, shard) in &mut group.shards {
                if let Some(kept) = shard.changed() {
                    changed.push((name.clone(), *stream, *number, kept));
                }
            }
        }
        changed
    }

    /// It could not be kept.
    pub fn not_kept(&mut self, changed: &[KeptShard]) {
        for (name, stream, number, _) in changed {
            let group = self.groups.get_mut(&(name.clone(), *stream));
            if let Some(shard) = group.and_then(|group| group.shards.get_mut(number)) {
                shard.touch();
            }
        }
    }

    /// How a group's records fare.
    pub fn figures(&self, now: Now, group: &str, stream: u32) -> Option<GroupDelivery> {
        let group = self.groups.get(&(group.to_owned(), stream))?;
        let mut figures = GroupDelivery {
            config: group.config.clone(),
            done: group.counters.done,
            redelivered: group.counters.redelivered,
            buried: group.counters.buried,
            lost: group.counters.lost,
            breaker: group.breaker.state(now.mono_ns),
            ..GroupDelivery::default()
        };
        group.shards.values().for_each(|shard| shard.add_to(&mut figures));
        Some(figures)
    }

    /// A stream is no more.
    pub fn forget_stream(&mut self, stream: u32) {
        self.groups.retain(|(_, of), _| *of != stream);
    }

    /// A shard is no more.
    pub fn forget_shard(&mut self, id: ShardId) {
        let groups = self.groups.iter_mut().filter(|((_, stream), _)| *stream == id.stream);
        groups.for_each(|(_, group)| drop(group.shards.remove(&id.shard)));
    }
}
