//! How far each consumer group is, how fast it reads, and whether retention will pass it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use highwater_wire::telemetry::{DeliverySnapshot, GroupSnapshot, ShardSnapshot, Snapshot};

use super::Seconds;

/// A consumer group in one stream, over its shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupFigures {
    /// The group.
    pub group: String,
    /// The stream.
    pub stream: String,
    /// Records up to the high-water marks.
    pub records: u64,
    /// These and those that retention removed unread, in the earlier snapshot; `None` if it did not have all of the
    /// group's shards.
    pub behind_before: Option<u64>,
    /// Bytes in the log from the batch on that the next record is in.
    pub bytes: u64,
    /// Age of the oldest unread record.
    pub age: Duration,
    /// Records a second that come into its shards.
    pub arrival: f64,
    /// Records a second that its positions advance by; negative after they were set back.
    pub read: f64,
    /// Records that retention removed before it read them.
    pub lost: u64,
    /// When retention will pass it if all goes on as now; the soonest of its shards.
    pub loss: Option<Loss>,
    /// By shard number.
    pub parts: Vec<GroupPart>,
    /// What became of its records, if it settles them one by one: as of the later snapshot.
    pub delivery: Option<DeliverySnapshot>,
}

/// A consumer group on one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupPart {
    /// The shard's number.
    pub shard: u32,
    /// Committed position: next sequence number to read.
    pub position: u64,
    /// Records up to the high-water mark.
    pub records: u64,
    /// Bytes in the log from the batch on that the next record is in.
    pub bytes: u64,
    /// Age of the next unread record.
    pub age: Duration,
    /// Records a second that come in.
    pub arrival: f64,
    /// Records a second that the position advances by.
    pub read: f64,
    /// Records that retention removed before they were read.
    pub lost: u64,
    /// When retention will pass it if all goes on as now.
    pub loss: Option<Loss>,
}

impl GroupFigures {
    /// Records from its positions to the high-water marks, also those that are gone: what it has not read.
    pub fn behind(&self) -> u64 {
        self.records.saturating_add(self.lost)
    }
}

/// Retention passes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// On which shard.
    pub shard: u32,
    /// In how long at the earliest. Whole segments go, so it may take longer.
    pub after: Duration,
    /// Which limit.
    pub by: Limit,
}

/// What bounds how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Age of records.
    Age,
    /// Bytes of the shard.
    Bytes,
}

/// A group that is no further behind than this keeps up, nanoseconds: retention will not pass it.
const KEEPS_UP_NS: u64 = 1_000_000_000;

/// Past a hundred years nobody waits.
const FOR_EVER_S: f64 = 3.2e9;

/// A backlog whose age grows by less than this share of the time is as good as steady.
const STEADY: f64 = 0.01;

pub(super) fn between(old: &Snapshot, new: &Snapshot, seconds: &Seconds) -> Vec<GroupFigures> {
    let parts_before: HashMap<(&str, &str, u32), &GroupSnapshot> =
        old.groups.iter().map(|g| ((g.group.as_str(), g.stream.as_str(), g.shard), g)).collect();
    let (shards_before, shards) = (shards_of(old), shards_of(new));
    let mut by_name: BTreeMap<(&str, &str), GroupFigures> = BTreeMap::new();
    for part in &new.groups {
        let id = (part.stream.as_str(), part.shard);
        let shard = shards.get(&id).copied();
        let pair = shard.map(|shard| (shards_before.get(&id).copied(), shard));
        let before = parts_before.get(&(part.group.as_str(), part.stream.as_str(), part.shard));
        let seconds = shard.map_or(seconds.all, |s| seconds.of(s.core));
        let figures = of_part(part, before.copied(), pair, seconds);
        let group = by_name.entry((&part.group, &part.stream)).or_insert_with(|| GroupFigures {
            group: part.group.clone(),
            stream: part.stream.clone(),
            behind_before: Some(0),
            ..GroupFigures::default()
        });
        let behind_before = before.zip(shards_before.get(&id)).map(|(before, shard)| {
            before.backlog_records + shard.oldest.saturating_sub(before.position)
        });
        group.behind_before = group.behind_before.zip(behind_before).map(|(sum, n)| sum + n);
        group.records += figures.records;
        group.bytes += figures.bytes;
        group.age = group.age.max(figures.age);
        group.arrival += figures.arrival;
        group.read += figures.read;
        group.lost += figures.lost;
        group.loss = group.loss.into_iter().chain(figures.loss).min_by_key(|loss| loss.after);
        group.parts.push(figures);
    }
    let mut groups: Vec<GroupFigures> = by_name.into_values().collect();
    for group in &mut groups {
        group.parts.sort_by_key(|part| part.shard);
        let own = |d: &&DeliverySnapshot| d.group == group.group && d.stream == group.stream;
        group.delivery = new.deliveries.iter().find(own).cloned();
    }
    groups.sort_by_key(|group| Reverse((group.age, group.records)));
    groups
}

fn shards_of(snapshot: &Snapshot) -> HashMap<(&str, u32), &ShardSnapshot> {
    snapshot.shards.iter().map(|s| ((s.stream.as_str(), s.shard), s)).collect()
}

fn of_part(
    new: &GroupSnapshot,
    old: Option<&GroupSnapshot>,
    shard: Option<(Option<&ShardSnapshot>, &ShardSnapshot)>,
    seconds: f64,
) -> GroupPart {
    let signed = |new: u64, old: u64| (new as i128 - old as i128) as f64 / seconds;
    let (mut arrival, mut lost, mut loss) = (0.0, 0, None);
    if let Some((before, shard)) = shard {
        // A shard that was not there before began at 0 in between.
        arrival = signed(shard.high_water, before.map_or(0, |b| b.high_water)).max(0.0);
        lost = shard.oldest.saturating_sub(new.position);
        loss = old.and_then(|old| {
            let ageing = signed(new.backlog_ns, old.backlog_ns) / 1e9;
            let growth = signed(new.backlog_bytes, old.backlog_bytes);
            time_to_loss(new, shard, ageing, growth)
        });
    }
    GroupPart {
        shard: new.shard,
        position: new.position,
        records: new.backlog_records,
        bytes: new.backlog_bytes,
        age: Duration::from_nanos(new.backlog_ns),
        arrival,
        // A group that was not there before has read all of a shard that was not there either.
        read: match (old, shard) {
            (Some(old), _) => signed(new.position, old.position),
            (None, Some((None, _))) => signed(new.position, 0),
            (None, _) => 0.0,
        },
        lost,
        loss,
    }
}

/// When the record to be read next goes: by age once it is older than what is kept, by bytes once what lies
/// behind it fills what is kept. `ageing`: seconds a second; `growth`: bytes a second.
fn time_to_loss(
    group: &GroupSnapshot,
    shard: &ShardSnapshot,
    ageing: f64,
    growth: f64,
) -> Option<Loss> {
    if group.backlog_records == 0 || group.backlog_ns < KEEPS_UP_NS {
        return None;
    }
    let loss = |left: f64, rate: f64, by| {
        let after = (left.max(0.0) / rate).min(FOR_EVER_S);
        Loss { shard: group.shard, after: Duration::from_secs_f64(after), by }
    };
    let by_age = (shard.retention_ms > 0 && ageing > STEADY).then(|| {
        let left = shard.retention_ms as f64 / 1e3 - group.backlog_ns as f64 / 1e9;
        loss(left, ageing, Limit::Age)
    });
    let by_bytes = (shard.retention_bytes > 0 && growth > 0.0).then(|| {
        // What is prepared and not yet written counts against the limit too.
        let empty = shard.stored_bytes.saturating_sub(shard.log_bytes);
        let kept = group.backlog_bytes.saturating_add(empty);
        loss(shard.retention_bytes as f64 - kept as f64, growth, Limit::Bytes)
    });
    by_age.into_iter().chain(by_bytes).min_by_key(|loss| loss.after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::{figures, fixture};

    #[test]
    fn rates_of_a_group_are_those_of_its_shards_and_positions() {
        let figures = figures::between(&fixture::snapshot(10), &fixture::snapshot(12)).unwrap();
        let [audit, billing] = figures.groups.as_slice() else { panic!("{:?}", figures.groups) };
        assert_eq!((audit.arrival, audit.read), (8_000.0, 7_000.0));
        assert_eq!(audit.parts.iter().map(|p| p.shard).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((billing.arrival, billing.read), (4_000.0, 4_000.0));
        assert_eq!((billing.loss, audit.loss, audit.lost), (None, None, 0), "nothing goes here");
    }

    fn with(change: impl Fn(&mut Snapshot)) -> GroupFigures {
        let (mut old, mut new) = (fixture::snapshot(10), fixture::snapshot(20));
        change(&mut old);
        change(&mut new);
        figures::between(&old, &new).unwrap().groups.swap_remove(0)
    }

    #[test]
    fn retention_by_age_passes_a_group_that_gets_older() {
        // It is 24 s behind and falls behind by 1.2 s a second.
        let group = with(|s| s.shards.iter_mut().for_each(|s| s.retention_ms = 84_000));
        let loss = group.loss.unwrap();
        assert_eq!((loss.shard, loss.after.as_secs(), loss.by), (0, 50, Limit::Age));
        assert_eq!(group.parts[1].loss, None, "no older than before");
    }

    #[test]
    fn retention_by_bytes_passes_a_group_whose_backlog_grows() {
        let group = with(|s| {
            for shard in &mut s.shards {
                (shard.stored_bytes, shard.log_bytes) = (30_000_000, 22_000_000);
                // 20 s at 1,000 records of 512 bytes are behind, 8 MB are empty, and as much again may come.
                shard.retention_bytes = 20 * 512_000 + 8_000_000 + 5_120_000;
            }
        });
        let loss = group.loss.unwrap();
        assert_eq!((loss.shard, loss.after.as_secs(), loss.by), (0, 10, Limit::Bytes));
    }

    #[test]
    fn what_is_gone_already_is_told() {
        let group = with(|s| {
            s.shards[0].oldest = s.groups.iter().find(|g| g.group == "audit").unwrap().position + 7;
        });
        assert_eq!(group.lost, 7);
    }
}
