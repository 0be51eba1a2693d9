//! `highwater group list` and `describe`.

use std::time::Duration;

use clap::Args;
use highwater_wire::{
    GroupDelivery, GroupDescription, GroupMember, GroupName, GroupShard, StreamName, Trend,
};
use serde::Serialize;

use super::named;
use super::set::words;
use crate::cli::Target;
use crate::failure::Failure;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<StreamName>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The group
    group: GroupName,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// A group as JSON: over all its streams, or one of them.
#[derive(Serialize)]
struct Described<'a> {
    group: &'a str,
    #[serde(flatten)]
    total: Total,
    shards: Vec<Shard<'a>>,
    members: Vec<Member<'a>>,
    /// Of the streams that it settles record by record.
    deliveries: Vec<Delivered<'a>>,
}

/// What became of records that are settled one by one, as JSON.
#[derive(Serialize)]
struct Delivered<'a> {
    stream: &'a str,
    #[serde(flatten)]
    delivery: &'a GroupDelivery,
}

/// A member as JSON.
#[derive(Serialize)]
struct Member<'a> {
    stream: &'a str,
    #[serde(flatten)]
    member: &'a GroupMember,
}

/// The figures of several shards together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Total {
    backlog_records: u64,
    backlog_bytes: u64,
    /// Of the shard furthest behind.
    backlog_seconds: f64,
    lost_records: u64,
    rate_in: f64,
    rate_out: f64,
    /// The worst of the shards.
    trend: Trend,
    /// Until the last shard is empty; null if one does not shrink.
    empty_in_seconds: Option<f64>,
    /// Until the first record is lost; null if that is not to be expected.
    loss_in_seconds: Option<f64>,
}

/// A group on one shard as JSON.
#[derive(Serialize)]
struct Shard<'a> {
    stream: &'a str,
    shard: u32,
    /// Null where nothing was committed.
    position: Option<u64>,
    oldest: u64,
    high_water: u64,
    backlog_records: u64,
    backlog_bytes: u64,
    backlog_seconds: f64,
    exact: bool,
    lost_records: u64,
    rate_in: f64,
    rate_out: f64,
    trend: Trend,
    empty_in_seconds: Option<f64>,
    loss_in_seconds: Option<f64>,
    /// Null for none.
    owner: Option<&'a str>,
}

fn seconds(ms: Option<u64>) -> Option<f64> {
    ms.map(|ms| ms as f64 / 1e3)
}

impl<'a> Shard<'a> {
    fn of(stream: &'a str, shard: &'a GroupShard) -> Shard<'a> {
        Shard {
            stream,
            shard: shard.shard,
            position: shard.position,
            oldest: shard.oldest,
            high_water: shard.high_water,
            backlog_records: shard.backlog_records,
            backlog_bytes: shard.backlog_bytes,
            backlog_seconds: shard.backlog_ns as f64 / 1e9,
            exact: shard.exact,
            lost_records: shard.lost_records,
            rate_in: shard.rate_in,
            rate_out: shard.rate_out,
            trend: shard.trend,
            empty_in_seconds: seconds(shard.empty_ms),
            loss_in_seconds: seconds(shard.loss_ms),
            owner: Some(shard.owner.as_str()).filter(|owner| !owner.is_empty()),
        }
    }
}

impl Total {
    fn of<'a>(shards: impl Iterator<Item = &'a GroupShard> + Clone) -> Total {
        let rank = |trend: Trend| match trend {
            Trend::KeepsUp => 0,
            Trend::Drains => 1,
            Trend::Holds => 2,
            Trend::Grows => 3,
        };
        let sum = |of: fn(&GroupShard) -> u64| shards.clone().map(of).sum();
        let oldest_ns = shards.clone().map(|s| s.backlog_ns).max().unwrap_or(0);
        let empty = shards.clone().map(|s| s.empty_ms).collect::<Option<Vec<u64>>>();
        Total {
            backlog_records: sum(|s| s.backlog_records),
            backlog_bytes: sum(|s| s.backlog_bytes),
            backlog_seconds: oldest_ns as f64 / 1e9,
            lost_records: sum(|s| s.lost_records),
            rate_in: shards.clone().map(|s| s.rate_in).sum(),
            rate_out: shards.clone().map(|s| s.rate_out).sum(),
            trend: shards.clone().map(|s| s.trend).max_by_key(|t| rank(*t)).unwrap_or_default(),
            empty_in_seconds: seconds(empty.and_then(|all| all.into_iter().max())),
            loss_in_seconds: seconds(shards.filter_map(|s| s.loss_ms).min()),
        }
    }
}

impl<'a> Described<'a> {
    fn of(group: &'a str, streams: &'a [GroupDescription]) -> Described<'a> {
        let shards = streams.iter().flat_map(|g| g.shards.iter().map(|s| Shard::of(&g.stream, s)));
        Described {
            group,
            total: Total::of(streams.iter().flat_map(|g| &g.shards)),
            shards: shards.collect(),
            members: streams
                .iter()
                .flat_map(|g| g.members.iter().map(|m| Member { stream: &g.stream, member: m }))
                .collect(),
            deliveries: streams
                .iter()
                .filter_map(|g| {
                    g.delivery.as_ref().map(|d| Delivered { stream: &g.stream, delivery: d })
                })
                .collect(),
        }
    }
}

/// Carries out `list`.
pub async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let groups = client
        .list_groups(named(args.stream.as_ref()))
        .await
        .map_err(|e| Failure::doing("cannot list groups", e))?;
    // The descriptions of a group stand together.
    let by_group: Vec<&[GroupDescription]> =
        groups.chunk_by(|one, other| one.group == other.group).collect();
    if args.json {
        let all = by_group.iter().map(|streams| Described::of(&streams[0].group, streams));
        return output::json(&all.collect::<Vec<_>>());
    }
    let head = [
        "group", "stream", "shards", "backlog", "bytes", "age", "in/s", "out/s", "trend",
        "empty in", "lost in",
    ];
    let rows = groups.iter().map(|group| {
        let total = Total::of(group.shards.iter());
        let shards = group.shards.len().to_string();
        [vec![group.group.clone(), group.stream.clone(), shards], total.cells()].concat()
    });
    output::table(&head, &rows.collect::<Vec<_>>())
}

/// Carries out `describe`.
pub async fn describe(args: DescribeArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let group = args.group.as_str();
    let streams = client
        .describe_group(group)
        .await
        .map_err(|e| Failure::doing(format!("cannot describe group {group}"), e))?;
    let described = Described::of(group, &streams);
    if args.json {
        return output::json(&described);
    }
    let total = described.total.cells();
    let [records, bytes, age, rate_in, rate_out, trend, empty, lost] = total.as_slice() else {
        return Ok(());
    };
    output::line(format!(
        "group {group}: {records} records behind ({bytes}, {age}), {rate_in}/s in, {rate_out}/s out; it {trend}, \
         empty in {empty}, lost in {lost}"
    ))?;
    if described.total.lost_records > 0 {
        let lost = human::counted(described.total.lost_records, "record");
        output::line(format!("retention removed {lost} before they were read"))?;
    }
    for (stream, delivery) in described.deliveries.iter().map(|d| (d.stream, d.delivery)) {
        let of = human::grouped;
        output::line(format!(
            "{stream} record by record: {}",
            words(&delivery.config, group, stream)
        ))?;
        output::line(format!(
            "{stream}: {} in hand, {} waiting, {} to bury; {} done, {} handed out again, {} buried, {} lost; breaker {}",
            of(delivery.in_hand),
            of(delivery.waiting),
            of(delivery.to_bury),
            of(delivery.done),
            of(delivery.redelivered),
            of(delivery.buried),
            of(delivery.lost),
            delivery.breaker
        ))?;
    }
    let head = [
        "stream", "shard", "position", "end", "backlog", "bytes", "age", "in/s", "out/s", "trend",
        "empty in", "lost in", "owner",
    ];
    let rows = streams.iter().flat_map(|group| {
        group.shards.iter().map(|shard| {
            let position = shard.position.map_or_else(|| "none".to_owned(), |p| p.to_string());
            let (at, end) = (shard.shard.to_string(), shard.high_water.to_string());
            let owner = if shard.owner.is_empty() { "-" } else { &shard.owner };
            [
                vec![group.stream.clone(), at, position, end],
                Total::of(std::iter::once(shard)).cells(),
                vec![owner.to_owned()],
            ]
            .concat()
        })
    });
    output::table(&head, &rows.collect::<Vec<_>>())
}

impl Total {
    /// Backlog, bytes, age, in, out, trend, empty in, lost in.
    fn cells(&self) -> Vec<String> {
        let time = |seconds: Option<f64>, without: &str| match seconds {
            Some(seconds) => human::duration(Duration::from_secs_f64(seconds)),
            None => without.to_owned(),
        };
        vec![
            human::grouped(self.backlog_records),
            human::binary(self.backlog_bytes),
            human::nanos((self.backlog_seconds * 1e9) as u64),
            human::count(self.rate_in),
            human::count(self.rate_out),
            self.trend.to_string(),
            time(self.empty_in_seconds, "-"),
            time(self.loss_in_seconds, "-"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_as_badly_off_as_its_worst_shard() {
        let shard = |backlog_ns, trend, empty_ms, loss_ms| GroupShard {
            backlog_records: 10,
            backlog_ns,
            trend,
            empty_ms,
            loss_ms,
            rate_in: 2.0,
            ..GroupShard::default()
        };
        let drains = shard(2_000_000_000, Trend::Drains, Some(500), None);
        let grows = shard(1_000_000_000, Trend::Grows, None, Some(7_000));
        let shards = [drains.clone(), grows];
        let total = Total::of(shards.iter());
        assert_eq!((total.backlog_records, total.backlog_seconds), (20, 2.0));
        assert_eq!((total.rate_in, total.trend), (4.0, Trend::Grows));
        assert_eq!((total.empty_in_seconds, total.loss_in_seconds), (None, Some(7.0)));
        assert_eq!(Total::of([drains].iter()).empty_in_seconds, Some(0.5));
    }
}
