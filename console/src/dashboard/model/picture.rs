//! Everything measured, as it stands at one moment: what a screen is drawn from.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use highwater_wire::telemetry::{Distribution, Snapshot};

use super::ladder::Ladder;
use super::point::{HEAT_ROWS, Peaks, Point};
use crate::dashboard::figures::{self, Figures, GroupFigures, Measured, Tail};
use crate::dashboard::series::{self, Slope, Trace};

/// Points kept: the longest window at a sample a second.
pub const MAX_POINTS: usize = 3600;

/// Headline percentiles and the tables are over this time: long enough for a p99.9, short enough to be "now".
pub const HEADLINE: Duration = Duration::from_secs(10);

/// Shards and groups whose series are kept; more are shown without.
const MAX_TRACES: usize = 512;

/// What tells how fast a backlog grows, nanoseconds: long enough for groups that commit every few seconds.
const TREND_NS: u64 = 30_000_000_000;

/// However rare samples are, so many tell it.
const TREND_LEAST: usize = 6;

/// A group that is no further behind than this keeps up.
const KEEPS_UP: Duration = Duration::from_secs(1);

/// Whoever is further behind does not just commit its positions rarely: of such a group fewer samples will do.
const RARELY: Duration = Duration::from_secs(6);

/// Columns of a heat map that one sample fills at most: the next one may have come that much later.
const HEAT_SPREAD: u64 = 8;

/// The server.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Its release.
    pub server: String,
    /// How writes are made durable, and on what.
    pub durability: String,
    /// False on a volatile file system.
    pub durable: bool,
    /// How long it has been up.
    pub uptime: Duration,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Free share of the file system, 0 to 1; `None` if not known.
    pub disk_free: Option<f64>,
}

impl About {
    pub(super) fn of(snapshot: &Snapshot) -> About {
        About {
            server: snapshot.server.clone(),
            durability: snapshot.durability.clone(),
            durable: snapshot.durable,
            uptime: Duration::from_nanos(snapshot.uptime_ns),
            warnings: snapshot.warnings.clone(),
            disk_free: (snapshot.disk_total > 0)
                .then(|| snapshot.disk_free as f64 / snapshot.disk_total as f64),
        }
    }
}

/// Something over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series<'a> {
    /// Records a second into all shards.
    TpsIn,
    /// Records a second out of them.
    TpsOut,
    /// Median propagation delay, nanoseconds.
    P50,
    /// Its 99th percentile.
    P99,
    /// A core, 0 to 1.
    CoreBusy(u32),
    /// Records a second into a shard of a stream.
    ShardIn(&'a str, u32),
    /// Unread records of a group in a stream.
    GroupRecords(&'a str, &'a str),
    /// Records a second that come in for it.
    GroupArrival(&'a str, &'a str),
    /// Records a second that it reads.
    GroupRead(&'a str, &'a str),
}

/// Whether a backlog will end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlook {
    /// Less than a second behind.
    KeepsUp,
    /// Shrinking: empty after this time.
    Drains(Duration),
    /// Neither.
    Holds,
    /// Growing: never empty.
    Grows,
}

#[derive(Clone, Debug, Default)]
struct GroupTraces {
    records: Trace,
    /// With those that were removed unread.
    behind: Trace,
    arrival: Trace,
    read: Trace,
}

/// Everything measured. Pausing keeps a copy.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The last snapshot in brief.
    pub about: About,
    /// What the last two snapshots say.
    pub figures: Option<Figures>,
    /// What the last [`HEADLINE`] says: the tables show this.
    pub headline: Option<Figures>,
    /// Propagation delay over [`HEADLINE`].
    pub propagation: Tail,
    /// Durable writes over [`HEADLINE`].
    pub write: Tail,
    /// The charts, oldest first: one a sample, for an hour.
    pub points: VecDeque<Point>,
    /// The largest values so far.
    pub peaks: Peaks,
    /// Server restarts noticed.
    pub restarts: u32,
    /// Samples of the server that were never seen.
    pub missed: u64,
    pub(super) ladder: Ladder,
    cores: BTreeMap<u32, Trace>,
    shards: BTreeMap<(String, u32), Trace>,
    groups: BTreeMap<(String, String), GroupTraces>,
}

impl Picture {
    /// After a restart the old figures describe a process that has gone; the charts keep their past.
    pub(super) fn forget_server(&mut self) {
        (self.figures, self.headline) = (None, None);
        (self.propagation, self.write) = (Tail::default(), Tail::default());
        self.ladder.clear();
    }

    pub(super) fn add(&mut self, figures: Figures, delays: &Distribution, missed: u64) {
        let point = Point::new(&figures, delays, missed);
        self.missed += missed;
        self.peaks.see(&point);
        if self.points.len() == MAX_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.trace(&figures);
        self.figures = Some(figures);
    }

    /// Moves the series on; those of cores, shards and groups that are gone go too.
    fn trace(&mut self, figures: &Figures) {
        let at = figures.at_ns;
        let mut old = std::mem::take(&mut self.cores);
        for core in &figures.cores {
            let mut trace = old.remove(&core.core).unwrap_or_default();
            trace.push(at, core.busy);
            self.cores.insert(core.core, trace);
        }
        let mut old = std::mem::take(&mut self.shards);
        for shard in figures.shards.iter().take(MAX_TRACES) {
            let key = (shard.stream.clone(), shard.shard);
            let mut trace = old.remove(&key).unwrap_or_default();
            trace.push(at, shard.into.records);
            self.shards.insert(key, trace);
        }
        let mut old = std::mem::take(&mut self.groups);
        for group in figures.groups.iter().take(MAX_TRACES) {
            let key = (group.group.clone(), group.stream.clone());
            let mut traces = old.remove(&key).unwrap_or_else(|| {
                // Where it was when the figures began is known too.
                let mut new = GroupTraces::default();
                if let Some(before) = group.behind_before {
                    let span = u64::try_from(figures.span.as_nanos()).unwrap_or(u64::MAX);
                    new.behind.push(at.saturating_sub(span), before as f64);
                }
                new
            });
            traces.records.push(at, group.records as f64);
            traces.behind.push(at, group.behind() as f64);
            traces.arrival.push(at, group.arrival);
            traces.read.push(at, group.read);
            self.groups.insert(key, traces);
        }
    }

    fn group(&self, group: &str, stream: &str) -> Option<&GroupTraces> {
        self.groups.get(&(group.to_owned(), stream.to_owned()))
    }

    /// The last `window` of a series in `n` columns, oldest first; see [`series::columns`].
    pub fn series(&self, what: Series<'_>, window: Duration, n: usize) -> Vec<Option<f64>> {
        let end = self.points.back().map_or(0, |p| p.at_ns);
        let trace = match what {
            Series::CoreBusy(core) => self.cores.get(&core),
            Series::ShardIn(stream, shard) => self.shards.get(&(stream.to_owned(), shard)),
            Series::GroupRecords(group, stream) => self.group(group, stream).map(|t| &t.records),
            Series::GroupArrival(group, stream) => self.group(group, stream).map(|t| &t.arrival),
            Series::GroupRead(group, stream) => self.group(group, stream).map(|t| &t.read),
            of_all => {
                let points = self.points.iter().filter_map(|p| Some((p.at_ns, value(p, of_all)?)));
                return series::columns(points, end, window, n);
            }
        };
        trace.map_or_else(|| vec![None; n], |trace| trace.columns(end, window, n))
    }

    /// What was measured over the last `window`, of all cores together.
    pub fn distribution(&self, what: Measured, window: Duration) -> Distribution {
        self.ladder.over(what, window)
    }

    /// Records by propagation delay over the last `window`, in `n` columns, oldest first; rows as
    /// [`super::heat_bound`] says.
    pub fn heat(&self, window: Duration, n: usize) -> Vec<[u64; HEAT_ROWS]> {
        let mut heat = vec![[0; HEAT_ROWS]; n];
        let width = (window.as_nanos() as u64 / n.max(1) as u64).max(1);
        let end = self.points.back().map_or(0, |p| p.at_ns);
        let first = (end / width).saturating_sub(n as u64) + 1;
        let mut from = None;
        for point in self.points.iter().filter(|p| p.at_ns <= end) {
            let column = point.at_ns / width;
            // What a sample counted came since the one before: it lies in all columns between, but not across a gap.
            let since = from.replace(column + 1).unwrap_or(column).min(column);
            let since = if column - since > HEAT_SPREAD { column } else { since };
            let columns = column - since + 1;
            for column in (since..=column).filter_map(|column| column.checked_sub(first)) {
                if let Some(column) = heat.get_mut(column as usize) {
                    let part = |n: u32| u64::from(n).div_ceil(columns);
                    column.iter_mut().zip(point.heat).for_each(|(sum, n)| *sum += part(n));
                }
            }
        }
        heat
    }

    /// How the group's backlog went lately, oldest first. What retention removes from it unread is still not read: a
    /// group that stands still has a backlog that grows.
    fn lately(&self, group: &GroupFigures) -> Vec<(u64, f64)> {
        let Some(traces) = self.group(&group.group, &group.stream) else { return Vec::new() };
        let newest = traces.behind.fine().next_back().map_or(0, |(at, _)| at);
        let since = newest.saturating_sub(TREND_NS);
        let values = traces.behind.fine().rev().enumerate();
        let values = values.take_while(|(n, (at, _))| *n < TREND_LEAST || *at >= since);
        let mut values: Vec<(u64, f64)> = values.map(|(_, value)| value).collect();
        values.reverse();
        values
    }

    /// How fast the group's backlog grows, in records a second: a straight line through the last half minute, or, of a
    /// backlog that has turned since, through what came after.
    pub fn slope(&self, group: &GroupFigures) -> Slope {
        series::trend(&self.lately(group)).unwrap_or_default()
    }

    /// The same without its error; 0 for a group that keeps up, whose backlog is what it has yet to commit.
    pub fn growth(&self, group: &GroupFigures) -> f64 {
        if group.age < KEEPS_UP { 0.0 } else { self.slope(group).per_s }
    }

    /// Whether the group's backlog will end.
    pub fn outlook(&self, group: &GroupFigures) -> Outlook {
        let lately = self.lately(group);
        let Slope { per_s, error } = series::trend(&lately).unwrap_or_default();
        // Below one record in 200 of what comes in, or of the same size as its error, a slope means nothing.
        let noise = (group.arrival / 200.0).max(2.0 * error);
        let told = lately.len() >= TREND_LEAST || group.age > RARELY;
        if group.age < KEEPS_UP {
            Outlook::KeepsUp
        } else if !told {
            Outlook::Holds
        } else if per_s > noise {
            Outlook::Grows
        } else if per_s < -noise {
            let seconds = (group.records as f64 / -per_s).min(1e9);
            Outlook::Drains(Duration::from_secs_f64(seconds))
        } else {
            Outlook::Holds
        }
    }

    /// The points of the last `window`.
    pub fn within(&self, window: Duration) -> impl DoubleEndedIterator<Item = &Point> {
        let end = self.points.back().map_or(0, |p| p.at_ns);
        let start = end.saturating_sub(window.as_nanos() as u64);
        self.points.iter().filter(move |p| p.at_ns >= start)
    }

    /// The slowest propagation of the last `window`, and when it was.
    pub fn slowest(&self, window: Duration) -> Option<(u64, u64)> {
        self.within(window)
            .filter(|p| p.propagation.count > 0)
            .map(|p| (p.propagation.max, p.at_ns))
            .max()
    }

    /// The most uneven streams, from the headline.
    pub fn skews(&self) -> Vec<(&str, f64)> {
        self.headline.as_ref().map_or_else(Vec::new, |f| figures::stream_skews(&f.shards))
    }
}

/// A point's part of a series over everything; `None` when nothing was measured, or for others.
fn value(point: &Point, what: Series<'_>) -> Option<f64> {
    let delay =
        |of: fn(&Tail) -> u64| (point.propagation.count > 0).then(|| of(&point.propagation) as f64);
    Some(match what {
        Series::TpsIn => point.into.records,
        Series::TpsOut => point.out.records,
        Series::P50 => return delay(|t| t.p50),
        Series::P99 => return delay(|t| t.p99),
        _ => return None,
    })
}
