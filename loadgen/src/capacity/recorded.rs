//! What a recording of a server's figures says about the load it was under and how it bore it.
//!
//! [`Watch`] is shown one snapshot after the other and gives [`Recorded`]. Pure. Counters are cumulative, so a
//! gap costs nothing but resolution; a restart of the server begins anew.

use std::collections::BTreeMap;

use highwater_wire::telemetry::{Distribution, ShardSnapshot, Snapshot};
use serde::Serialize;

use super::demand::{Demand, Peak};

/// Rates are taken over at least this long, in seconds: a second's is the schedule's noise.
pub const WINDOW_S: f64 = 10.0;
/// What a group's reading and its backlog are looked at over, in seconds.
const STEP_S: f64 = 2.0;
/// A backlog worth less than so many seconds of arrivals is none.
const BEHIND_S: f64 = 5.0;
/// A group catches up while it reads this many times what arrives.
const CATCHING_UP: f64 = 1.2;

/// A stretch of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Window {
    /// When it ended, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Its length in seconds.
    pub span_s: f64,
    /// Records into all shards per second.
    pub records_in: f64,
    /// Bytes of their batches per second.
    pub bytes_in: f64,
    /// Records out per second.
    pub records_out: f64,
    /// Bytes written to the device per second.
    pub disk_bytes: f64,
    /// CPU time of the busiest core over the time, 0 to 1.
    pub busy: f64,
    /// CPU time of all cores over the time: so many were busy.
    pub cores_busy: f64,
    /// Unread records of all groups at its end, less those at its start, per second; of one that is gone, as last told.
    pub backlog_growth: f64,
    /// 99th percentile of the propagation delay in microseconds; 0 if nothing was delivered.
    pub propagation_p99_us: f64,
}

/// A group that caught up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaughtUp {
    /// The group.
    pub group: String,
    /// The stream.
    pub stream: String,
    /// When it began, nanoseconds since 1970 UTC.
    pub began_ns: u64,
    /// Records that waited then.
    pub backlog: f64,
    /// How long it was seen to catch up, in seconds.
    pub took_s: f64,
    /// Records read per second meanwhile.
    pub read: f64,
    /// Records that arrived per second.
    pub arrival: f64,
}

/// What a recording says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Recorded {
    /// The server's release.
    pub server: String,
    /// How writes were made durable.
    pub durability: String,
    /// When it began and ended, nanoseconds since 1970 UTC.
    pub began_ns: u64,
    /// The same.
    pub ended_ns: u64,
    /// Time that was watched, in seconds; gaps over a restart are not in it.
    pub span_s: f64,
    /// Snapshots.
    pub samples: usize,
    /// Restarts of the server.
    pub restarts: usize,
    /// Means over the whole.
    pub mean: Window,
    /// In order.
    pub windows: Vec<Window>,
    /// Shards, at the end.
    pub shards: u32,
    /// Cores.
    pub cores: u32,
    /// Consumer groups, at the end.
    pub groups: u32,
    /// Busiest core's share over the mean of the cores; 1 is even.
    pub core_skew: f64,
    /// Busiest shard's records over the mean of its stream, the largest of all streams with a hundredth of the records;
    /// 0 without any.
    pub shard_skew: f64,
    /// Propagation delay over the whole: percentiles 50, 99 and 99.9, in microseconds.
    pub propagation_us: Option<[f64; 3]>,
    /// Durable writes, the same.
    pub write_us: Option<[f64; 3]>,
    /// Groups that caught up, the largest backlog first.
    pub caught_up: Vec<CaughtUp>,
    /// Requests refused.
    pub refused: u64,
    /// Free bytes of the file system, at the end.
    pub disk_free: u64,
    /// Bytes of it that the streams had at the end.
    pub stored: u64,
    /// Its size.
    pub disk_total: u64,
}

impl Recorded {
    /// The window with the most records in.
    pub fn busiest(&self) -> Option<&Window> {
        self.windows.iter().max_by(|a, b| a.records_in.total_cmp(&b.records_in))
    }

    /// The busiest minute (or ten seconds, of a recording of less than five minutes) as times the mean; `None` if it is
    /// no more than a tenth above it.
    pub fn peak(&self) -> Option<Peak> {
        let wanted = if self.span_s >= 300.0 { 60.0 } else { WINDOW_S };
        let mut best: Option<(f64, f64)> = None;
        for from in 0..self.windows.len() {
            let (mut records, mut time_s) = (0.0, 0.0);
            for window in &self.windows[from..] {
                records += window.records_in * window.span_s;
                time_s += window.span_s;
                if time_s >= wanted {
                    break;
                }
            }
            let rate = records / time_s;
            if time_s >= wanted && best.is_none_or(|(most, _)| rate > most) {
                best = Some((rate, time_s));
            }
        }
        let (rate, time_s) = best?;
        let factor = rate / self.mean.records_in;
        (factor.is_finite() && factor > 1.1).then_some(Peak { factor, time_s })
    }

    /// The load it was under, as a plan asks for it; `name` says where it is from.
    pub fn demand(&self, name: &str) -> Demand {
        Demand {
            peak: self.peak(),
            groups: self.groups.max(1),
            skew: (self.shard_skew >= 1.0).then_some(self.shard_skew),
            from: format!("recorded in {name}"),
            ..Demand::of(self.mean.records_in)
        }
    }

    /// Bytes on the device for a record, padding included.
    pub fn disk_bytes_per_record(&self) -> Option<f64> {
        let per = self.mean.disk_bytes / self.mean.records_in;
        (per.is_finite() && per > 0.0).then_some(per)
    }

    /// Bytes of a record in its batch, framing included.
    pub fn batch_bytes_per_record(&self) -> Option<f64> {
        let per = self.mean.bytes_in / self.mean.records_in;
        (per.is_finite() && per > 0.0).then_some(per)
    }

    /// The busiest window in which what was unread did not grow by more than 1 % of what arrived: that much was
    /// borne.
    pub fn borne(&self) -> Option<&Window> {
        let kept_up = |w: &&Window| w.backlog_growth <= 0.01 * w.records_in && w.records_in > 0.0;
        self.windows.iter().filter(kept_up).max_by(|a, b| a.records_in.total_cmp(&b.records_in))
    }
}

/// What shards have done.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    records_in: u64,
    bytes_in: u64,
    records_out: u64,
    disk_bytes: u64,
}

impl Counts {
    fn of(shard: &ShardSnapshot) -> Counts {
        Counts {
            records_in: shard.records_in,
            bytes_in: shard.bytes_in,
            records_out: shard.records_out,
            disk_bytes: shard.disk_bytes,
        }
    }

    /// What came on top of `before`; all of it if this is of another shard by the same name, which began anew.
    fn since(self, before: Counts) -> Counts {
        let of = |new: u64, old: u64| new.checked_sub(old).unwrap_or(new);
        Counts {
            records_in: of(self.records_in, before.records_in),
            bytes_in: of(self.bytes_in, before.bytes_in),
            records_out: of(self.records_out, before.records_out),
            disk_bytes: of(self.disk_bytes, before.disk_bytes),
        }
    }

    fn plus(self, more: Counts) -> Counts {
        Counts {
            records_in: self.records_in.saturating_add(more.records_in),
            bytes_in: self.bytes_in.saturating_add(more.bytes_in),
            records_out: self.records_out.saturating_add(more.records_out),
            disk_bytes: self.disk_bytes.saturating_add(more.disk_bytes),
        }
    }
}

/// A shard: name and number of its stream, and its own.
type ShardKey = (String, u32, u32);

/// What all shards did in a life of the server since it was first seen, and what groups have not read. One whose stream is
/// deleted is told no more, but what it did was done, and what was unread was not read.
#[derive(Clone, Debug, Default)]
struct Tally {
    sum: Counts,
    /// As each was last told, and its records in since it was first seen.
    shards: BTreeMap<ShardKey, (Counts, u64)>,
    /// Unread records as last told, by group and shard.
    unread: BTreeMap<(String, ShardKey), u64>,
}

impl Tally {
    /// From this moment on.
    fn from(snapshot: &Snapshot) -> Tally {
        let shards = snapshot.shards.iter().map(|shard| (key(shard), (Counts::of(shard), 0)));
        Tally {
            sum: Counts::default(),
            shards: shards.collect(),
            unread: unread(snapshot).collect(),
        }
    }

    fn take(&mut self, snapshot: &Snapshot) {
        self.unread.extend(unread(snapshot));
        for shard in &snapshot.shards {
            let (told, records) = self.shards.entry(key(shard)).or_default();
            let now = Counts::of(shard);
            let more = now.since(std::mem::replace(told, now));
            *records = records.saturating_add(more.records_in);
            self.sum = self.sum.plus(more);
        }
    }
}

fn key(shard: &ShardSnapshot) -> ShardKey {
    (shard.stream.clone(), shard.stream_id, shard.shard)
}

fn unread(snapshot: &Snapshot) -> impl Iterator<Item = ((String, ShardKey), u64)> {
    let shards = snapshot.shards.iter();
    // A stream that was made again under its name is another.
    let ids: BTreeMap<(&str, u32), u32> =
        shards.map(|shard| ((shard.stream.as_str(), shard.shard), shard.stream_id)).collect();
    snapshot.groups.iter().map(move |group| {
        let id = ids.get(&(group.stream.as_str(), group.shard)).copied().unwrap_or_default();
        let shard = (group.stream.clone(), id, group.shard);
        ((group.group.clone(), shard), group.backlog_records)
    })
}

/// Counters of a moment.
#[derive(Clone, Debug, Default)]
struct Moment {
    at_ns: u64,
    uptime_ns: u64,
    counts: Counts,
    busy_ns: BTreeMap<u32, u64>,
    backlog: u64,
    propagation: Distribution,
    write: Distribution,
    refused: u64,
}

impl Moment {
    fn of(snapshot: &Snapshot, tally: &Tally) -> Moment {
        let (mut propagation, mut write) = (Distribution::default(), Distribution::default());
        for core in &snapshot.cores {
            propagation.merge(&core.propagation);
            write.merge(&core.write);
        }
        Moment {
            at_ns: snapshot.taken_ns,
            uptime_ns: snapshot.uptime_ns,
            counts: tally.sum,
            busy_ns: snapshot.cores.iter().map(|core| (core.core, core.busy_ns)).collect(),
            backlog: tally.unread.values().copied().fold(0, u64::saturating_add),
            propagation,
            write,
            refused: snapshot.cores.iter().map(|core| core.refused).fold(0, u64::saturating_add),
        }
    }
}

/// Looks at the snapshots of a recording, in order.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    so_far: Recorded,
    started_ns: Option<u64>,
    first: Moment,
    window: Moment,
    last: Moment,
    /// Of the life of the server that goes on.
    tally: Tally,
    groups: Groups,
    /// Sums over the lives of the server before this one.
    total: Total,
}

#[derive(Clone, Debug, Default)]
struct Total {
    span_s: f64,
    records_in: f64,
    bytes_in: f64,
    records_out: f64,
    disk_bytes: f64,
    busy_s: BTreeMap<u32, f64>,
    shards: BTreeMap<ShardKey, f64>,
    propagation: Distribution,
    write: Distribution,
}

impl Watch {
    /// The next snapshot.
    pub fn take(&mut self, snapshot: &Snapshot) {
        let again = self.started_ns.is_some_and(|started| started == snapshot.started_ns);
        if again && snapshot.uptime_ns <= self.last.uptime_ns {
            return;
        }
        if again {
            self.tally.take(snapshot);
        } else {
            self.end_life();
            self.tally = Tally::from(snapshot);
        }
        let moment = Moment::of(snapshot, &self.tally);
        self.so_far.samples += 1;
        if again {
            self.groups.take(snapshot);
            if seconds(&self.window, &moment) >= WINDOW_S {
                self.so_far.windows.extend(between(&self.window, &moment));
                self.window = moment.clone();
            }
        } else {
            self.so_far.restarts += usize::from(self.started_ns.is_some());
            if self.started_ns.is_none() {
                self.so_far.began_ns = moment.at_ns;
            }
            self.groups.begin(snapshot);
            (self.first, self.window) = (moment.clone(), moment.clone());
        }
        let names: std::collections::BTreeSet<&str> =
            snapshot.groups.iter().map(|group| group.group.as_str()).collect();
        self.started_ns = Some(snapshot.started_ns);
        self.so_far.ended_ns = moment.at_ns;
        self.so_far.server.clone_from(&snapshot.server);
        self.so_far.durability.clone_from(&snapshot.durability);
        self.so_far.shards = snapshot.shards.len() as u32;
        self.so_far.cores = snapshot.cores.len() as u32;
        self.so_far.groups = names.len() as u32;
        (self.so_far.disk_free, self.so_far.disk_total) = (snapshot.disk_free, snapshot.disk_total);
        let stored = snapshot.shards.iter().map(|shard| shard.stored_bytes);
        self.so_far.stored = stored.fold(0, u64::saturating_add);
        self.last = moment;
    }

    /// Adds what a server did from the first snapshot of it to the last.
    fn end_life(&mut self) {
        let (a, b) = (&self.first, &self.last);
        let more = |old: u64, new: u64| new.saturating_sub(old) as f64;
        self.total.span_s += seconds(a, b);
        self.total.records_in += more(a.counts.records_in, b.counts.records_in);
        self.total.bytes_in += more(a.counts.bytes_in, b.counts.bytes_in);
        self.total.records_out += more(a.counts.records_out, b.counts.records_out);
        self.total.disk_bytes += more(a.counts.disk_bytes, b.counts.disk_bytes);
        for (core, busy) in &b.busy_ns {
            let before = a.busy_ns.get(core).copied().unwrap_or_default();
            *self.total.busy_s.entry(*core).or_default() += more(before, *busy) / 1e9;
        }
        for (shard, (_, records)) in std::mem::take(&mut self.tally).shards {
            *self.total.shards.entry(shard).or_default() += records as f64;
        }
        self.total.propagation.merge(&b.propagation.since(&a.propagation));
        self.total.write.merge(&b.write.since(&a.write));
        self.so_far.refused += b.refused.saturating_sub(a.refused);
        // A life too short for a window is one by itself.
        let rest = seconds(&self.window, &self.last);
        if rest >= WINDOW_S / 2.0 || (rest > 0.0 && self.so_far.windows.is_empty()) {
            self.so_far.windows.extend(between(&self.window, &self.last));
        }
    }

    /// What all of it says. `None` without two snapshots of one life.
    pub fn finish(mut self) -> Option<Recorded> {
        self.end_life();
        let Watch { mut so_far, total, groups, .. } = self;
        if total.span_s <= 0.0 {
            return None;
        }
        let per_s = |count: f64| count / total.span_s;
        let most = total.busy_s.values().copied().fold(0.0, f64::max);
        let all: f64 = total.busy_s.values().sum();
        let mean = all / total.busy_s.len().max(1) as f64;
        so_far.span_s = total.span_s;
        so_far.mean = Window {
            at_ns: so_far.ended_ns,
            span_s: total.span_s,
            records_in: per_s(total.records_in),
            bytes_in: per_s(total.bytes_in),
            records_out: per_s(total.records_out),
            disk_bytes: per_s(total.disk_bytes),
            busy: per_s(most),
            cores_busy: per_s(all),
            backlog_growth: 0.0,
            propagation_p99_us: p99_us(&total.propagation),
        };
        so_far.core_skew = if mean > 0.0 { most / mean } else { 1.0 };
        so_far.shard_skew = skew(&total.shards);
        so_far.propagation_us = percentiles(&total.propagation);
        so_far.write_us = percentiles(&total.write);
        so_far.caught_up = groups.finish();
        Some(so_far)
    }
}

fn seconds(from: &Moment, to: &Moment) -> f64 {
    to.uptime_ns.saturating_sub(from.uptime_ns) as f64 / 1e9
}

fn between(a: &Moment, b: &Moment) -> Option<Window> {
    let span_s = seconds(a, b);
    if span_s <= 0.0 {
        return None;
    }
    let per_s = |old: u64, new: u64| new.saturating_sub(old) as f64 / span_s;
    let before = |core| a.busy_ns.get(core).copied().unwrap_or_default();
    let busy = b.busy_ns.iter().map(|(core, busy)| per_s(before(core), *busy) / 1e9);
    let busy: Vec<f64> = busy.collect();
    Some(Window {
        at_ns: b.at_ns,
        span_s,
        records_in: per_s(a.counts.records_in, b.counts.records_in),
        bytes_in: per_s(a.counts.bytes_in, b.counts.bytes_in),
        records_out: per_s(a.counts.records_out, b.counts.records_out),
        disk_bytes: per_s(a.counts.disk_bytes, b.counts.disk_bytes),
        busy: busy.iter().copied().fold(0.0, f64::max),
        cores_busy: busy.iter().sum(),
        backlog_growth: (b.backlog as f64 - a.backlog as f64) / span_s,
        propagation_p99_us: p99_us(&b.propagation.since(&a.propagation)),
    })
}

fn p99_us(distribution: &Distribution) -> f64 {
    distribution.quantile(0.99).unwrap_or_default() as f64 / 1e3
}

fn percentiles(distribution: &Distribution) -> Option<[f64; 3]> {
    let at = |q| distribution.quantile(q).map(|ns| ns as f64 / 1e3);
    Some([at(0.5)?, at(0.99)?, at(0.999)?])
}

/// A stream with less than this share of all records says nothing about the keys: a single one on four shards has a skew
/// of 4.
const FEW: f64 = 0.01;

/// The largest, over streams, of the busiest shard over the mean.
fn skew(shards: &BTreeMap<ShardKey, f64>) -> f64 {
    let mut streams: BTreeMap<(&str, u32), Vec<f64>> = BTreeMap::new();
    for ((stream, number, _), records) in shards {
        streams.entry((stream, *number)).or_default().push(*records);
    }
    let few = shards.values().sum::<f64>() * FEW;
    let of = |records: &Vec<f64>| {
        let all: f64 = records.iter().sum();
        let most = records.iter().copied().fold(0.0, f64::max);
        (all > few).then_some(most / all * records.len() as f64)
    };
    streams.values().filter_map(of).fold(0.0, f64::max)
}

/// Follows every group of every stream.
#[derive(Clone, Debug, Default)]
struct Groups {
    seen: BTreeMap<(String, String), Seen>,
    done: Vec<CaughtUp>,
    at: (u64, u64),
}

/// A group on a stream, over its shards.
#[derive(Clone, Debug, Default)]
struct Seen {
    position: u64,
    high_water: u64,
    current: Option<CaughtUp>,
}

impl Groups {
    fn sums(snapshot: &Snapshot) -> BTreeMap<(String, String), (u64, u64)> {
        let mut sums = BTreeMap::new();
        for group in &snapshot.groups {
            let key = (group.group.clone(), group.stream.clone());
            let sum: &mut (u64, u64) = sums.entry(key).or_default();
            sum.0 = sum.0.saturating_add(group.position);
            let mark = group.position.saturating_add(group.backlog_records);
            sum.1 = sum.1.saturating_add(mark);
        }
        sums
    }

    fn begin(&mut self, snapshot: &Snapshot) {
        self.end_all();
        self.at = (snapshot.taken_ns, snapshot.uptime_ns);
        for (key, (position, high_water)) in Groups::sums(snapshot) {
            self.seen.insert(key, Seen { position, high_water, current: None });
        }
    }

    fn take(&mut self, snapshot: &Snapshot) {
        let span_s = snapshot.uptime_ns.saturating_sub(self.at.1) as f64 / 1e9;
        if span_s < STEP_S {
            return;
        }
        let began_ns = std::mem::replace(&mut self.at, (snapshot.taken_ns, snapshot.uptime_ns)).0;
        for (key, (position, high_water)) in Groups::sums(snapshot) {
            let Some(seen) = self.seen.get_mut(&key) else {
                self.seen.insert(key, Seen { position, high_water, current: None });
                continue;
            };
            let waited = seen.high_water.saturating_sub(seen.position) as f64;
            let read = position.saturating_sub(seen.position) as f64 / span_s;
            let arrival = high_water.saturating_sub(seen.high_water) as f64 / span_s;
            (seen.position, seen.high_water) = (position, high_water);
            let left = high_water.saturating_sub(position) as f64;
            // The last step of all ends somewhere within: its rate is too low.
            let behind = waited > arrival * BEHIND_S && left > arrival * 0.5;
            if behind && read > arrival * CATCHING_UP {
                let current = seen.current.get_or_insert_with(|| CaughtUp {
                    group: key.0.clone(),
                    stream: key.1.clone(),
                    began_ns,
                    backlog: waited,
                    took_s: 0.0,
                    read: 0.0,
                    arrival: 0.0,
                });
                let took_s = current.took_s + span_s;
                current.read += (read - current.read) * span_s / took_s;
                current.arrival += (arrival - current.arrival) * span_s / took_s;
                current.took_s = took_s;
            } else {
                self.done.extend(seen.current.take());
            }
        }
    }

    fn end_all(&mut self) {
        let left = std::mem::take(&mut self.seen);
        self.done.extend(left.into_values().filter_map(|seen| seen.current));
    }

    fn finish(mut self) -> Vec<CaughtUp> {
        self.end_all();
        self.done.sort_by(|a, b| b.backlog.total_cmp(&a.backlog));
        self.done
    }
}

#[cfg(test)]
mod tests;
