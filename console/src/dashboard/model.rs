//! What the dashboard knows: rings of what was measured, and how it is to be shown. No I/O, no clock, no
//! terminal; `update` changes it, `view` draws it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use highwater_wire::telemetry::{Distribution, Snapshot};

use super::figures::{self, Figures, Flow, GroupFigures, Tail};

/// What the charts can show.
pub const WINDOWS: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
    Duration::from_secs(3600),
];

/// Points kept: the longest window at a sample a second.
const MAX_POINTS: usize = 3600;

/// Headline percentiles are over this time: long enough for a p99.9, short enough to be "now".
pub const HEADLINE: Duration = Duration::from_secs(10);

/// Samples of each group's backlog kept for its trend.
const TREND_POINTS: usize = 60;

/// Groups whose trend is kept; more are shown without.
const MAX_TRENDS: usize = 1024;

/// Data older than this is called stale.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// One sample of the charts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// The server's clock, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Into all shards.
    pub into: Flow,
    /// Out of all shards.
    pub out: Flow,
    /// Propagation delay.
    pub propagation: Tail,
}

/// The connection to the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// Nothing has come yet.
    Connecting,
    /// The last attempt brought a snapshot.
    Live,
    /// It did not.
    Lost {
        /// Why.
        reason: String,
    },
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
    /// Growing.
    Grows,
}

/// Everything measured, as it stands at one moment. Pausing keeps a copy.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The last snapshot but for its distributions.
    pub about: About,
    /// What the last two snapshots say.
    pub figures: Option<Figures>,
    /// Propagation delay over [`HEADLINE`].
    pub propagation: Tail,
    /// Durable writes over [`HEADLINE`].
    pub write: Tail,
    /// The charts, oldest first.
    pub points: VecDeque<Point>,
    /// Largest records/s into all shards ever seen.
    pub peak_in: f64,
    trends: BTreeMap<(String, String), VecDeque<(u64, u64)>>,
}

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

/// The dashboard's whole state.
#[derive(Debug)]
pub struct Model {
    /// What is watched, for the header.
    pub target: String,
    /// Whether colours may be used.
    pub color: bool,
    /// The connection.
    pub link: Link,
    /// Whether the help is open.
    pub help: bool,
    /// First line shown of the list of groups, or of the help.
    pub scroll: u16,
    /// Server restarts noticed.
    pub restarts: u32,
    /// Time since the dashboard started.
    pub now: Duration,
    received: Option<Duration>,
    window: usize,
    live: Picture,
    paused: Option<Box<Picture>>,
    last: Option<Box<Snapshot>>,
    /// Cumulative distributions of the last [`HEADLINE`], oldest first.
    recent: VecDeque<Cumulative>,
}

#[derive(Debug)]
struct Cumulative {
    at_ns: u64,
    propagation: Distribution,
    write: Distribution,
}

impl Model {
    /// Nothing known yet.
    pub fn new(target: impl Into<String>, color: bool) -> Model {
        Model {
            target: target.into(),
            color,
            link: Link::Connecting,
            help: false,
            scroll: 0,
            restarts: 0,
            now: Duration::ZERO,
            received: None,
            window: 0,
            live: Picture::default(),
            paused: None,
            last: None,
            recent: VecDeque::new(),
        }
    }

    /// What is to be shown.
    pub fn picture(&self) -> &Picture {
        self.paused.as_deref().unwrap_or(&self.live)
    }

    /// Whether the view stands still.
    pub fn paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Stops the view, or lets it go on. Sampling goes on in either case.
    pub fn toggle_pause(&mut self) {
        self.paused = match self.paused {
            Some(_) => None,
            None => Some(Box::new(self.live.clone())),
        };
    }

    /// Span of the charts.
    pub fn window(&self) -> Duration {
        WINDOWS[self.window]
    }

    /// The next longer (or shorter) span; whether there was one.
    pub fn change_window(&mut self, longer: bool) -> bool {
        let next = if longer { self.window + 1 } else { self.window.wrapping_sub(1) };
        let there = next < WINDOWS.len();
        if there {
            self.window = next;
        }
        there
    }

    /// Time since the newest figures came; `None` before there are any.
    pub fn age(&self) -> Option<Duration> {
        self.received.map(|at| self.now.saturating_sub(at))
    }

    /// Whether the figures are too old to be called live.
    pub fn stale(&self) -> bool {
        matches!(self.link, Link::Lost { .. }) || self.age().is_some_and(|age| age > STALE_AFTER)
    }

    /// Takes in a snapshot. One that was seen before changes nothing.
    pub fn take(&mut self, snapshot: Box<Snapshot>) {
        self.link = Link::Live;
        if let Some(last) = &self.last {
            if last.started_ns != snapshot.started_ns {
                self.restarts += 1;
                self.recent.clear();
                self.live.forget_server();
            } else if last.taken_ns >= snapshot.taken_ns {
                return;
            }
        }
        self.received = Some(self.now);
        self.keep_cumulative(&snapshot);
        let figures = self.last.as_ref().and_then(|last| figures::between(last, &snapshot));
        self.live.about = about(&snapshot);
        self.last = Some(snapshot);
        if let Some(figures) = figures {
            self.live.add(figures);
        }
    }

    fn keep_cumulative(&mut self, snapshot: &Snapshot) {
        let new = Cumulative {
            at_ns: snapshot.taken_ns,
            propagation: figures::propagation(snapshot),
            write: figures::write(snapshot),
        };
        let since = new.at_ns.saturating_sub(HEADLINE.as_nanos() as u64);
        // Keep one that is just old enough to be the beginning of the window.
        while self.recent.get(1).is_some_and(|c| c.at_ns <= since) {
            self.recent.pop_front();
        }
        if let Some(old) = self.recent.front() {
            self.live.propagation = Tail::of(&new.propagation.since(&old.propagation));
            self.live.write = Tail::of(&new.write.since(&old.write));
        }
        // A server that publishes faster than asked must not make this grow.
        if self.recent.len() > 64 {
            self.recent.pop_front();
        }
        self.recent.push_back(new);
    }
}

impl Picture {
    /// After a restart the old figures describe a process that has gone; the charts keep their past.
    fn forget_server(&mut self) {
        self.figures = None;
        (self.propagation, self.write) = (Tail::default(), Tail::default());
        self.trends.clear();
    }

    fn add(&mut self, figures: Figures) {
        self.peak_in = self.peak_in.max(figures.into.records);
        if self.points.len() == MAX_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            at_ns: figures.at_ns,
            into: figures.into,
            out: figures.out,
            propagation: figures.propagation,
        });
        let mut old = std::mem::take(&mut self.trends);
        for group in figures.groups.iter().take(MAX_TRENDS) {
            let key = (group.group.clone(), group.stream.clone());
            let mut trend = old.remove(&key).unwrap_or_default();
            if trend.len() == TREND_POINTS {
                trend.pop_front();
            }
            trend.push_back((figures.at_ns, group.records));
            self.trends.insert(key, trend);
        }
        self.figures = Some(figures);
    }

    /// The group's backlog in records over the last minute, oldest first.
    pub fn trend(&self, group: &GroupFigures) -> impl Iterator<Item = u64> {
        self.trends
            .get(&(group.group.clone(), group.stream.clone()))
            .into_iter()
            .flat_map(|trend| trend.iter().map(|&(_, records)| records))
    }

    /// How fast the group's backlog grows, in records a second, over the last ten samples.
    pub fn growth(&self, group: &GroupFigures) -> f64 {
        let key = (group.group.clone(), group.stream.clone());
        let Some(trend) = self.trends.get(&key) else { return 0.0 };
        let first = trend.get(trend.len().saturating_sub(10));
        match (first, trend.back()) {
            (Some(&(t0, r0)), Some(&(t1, r1))) if t1 > t0 => {
                (r1 as f64 - r0 as f64) * 1e9 / (t1 - t0) as f64
            }
            _ => 0.0,
        }
    }

    /// Whether the group's backlog will end.
    pub fn outlook(&self, group: &GroupFigures) -> Outlook {
        let growth = self.growth(group);
        // Below one record in 200 of what comes in a backlog neither grows nor shrinks.
        let noise = self.figures.as_ref().map_or(0.0, |f| f.into.records) / 200.0;
        if group.age < Duration::from_secs(1) {
            Outlook::KeepsUp
        } else if growth > noise {
            Outlook::Grows
        } else if growth < -noise {
            let seconds = (group.records as f64 / -growth).min(1e9);
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
}

fn about(snapshot: &Snapshot) -> About {
    About {
        server: snapshot.server.clone(),
        durability: snapshot.durability.clone(),
        durable: snapshot.durable,
        uptime: Duration::from_nanos(snapshot.taken_ns.saturating_sub(snapshot.started_ns)),
        warnings: snapshot.warnings.clone(),
        disk_free: (snapshot.disk_total > 0)
            .then(|| snapshot.disk_free as f64 / snapshot.disk_total as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture::{self, STARTED};

    fn after(seconds: std::ops::Range<u64>) -> Model {
        let mut model = Model::new("test", false);
        for at in seconds {
            model.now = Duration::from_secs(at);
            model.take(Box::new(fixture::snapshot(at)));
        }
        model
    }

    #[test]
    fn samples_become_points_and_headlines() {
        let model = after(1..31);
        let picture = model.picture();
        assert_eq!(picture.points.len(), 29);
        assert_eq!(picture.peak_in, 20_000.0);
        assert_eq!(picture.propagation.count, 20_000, "ten seconds of two cores");
        assert_eq!(picture.propagation.p99, 3_900_000);
        assert_eq!(picture.slowest(WINDOWS[0]).unwrap().0, 9_000_000);
        assert_eq!(picture.within(Duration::from_secs(5)).count(), 6);
        assert_eq!(picture.about.uptime, Duration::from_secs(30));
    }

    #[test]
    fn a_snapshot_seen_before_is_no_sample() {
        let mut model = after(1..5);
        model.now = Duration::from_secs(6);
        model.take(Box::new(fixture::snapshot(4)));
        assert_eq!(model.picture().points.len(), 3);
        assert_eq!(model.age(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_restart_starts_the_differences_over() {
        let mut model = after(1..5);
        let mut restarted = fixture::snapshot(9);
        restarted.started_ns = STARTED + 8_000_000_000;
        model.take(Box::new(restarted.clone()));
        assert_eq!((model.restarts, model.picture().points.len()), (1, 3));
        assert_eq!(model.picture().figures, None, "those of the old server are no news");
        assert_eq!(model.picture().propagation, Tail::default());
        restarted.taken_ns += 1_000_000_000;
        model.take(Box::new(restarted));
        assert!(model.picture().figures.is_some());
    }

    #[test]
    fn a_pause_stops_the_view_and_not_the_sampling() {
        let mut model = after(1..5);
        model.toggle_pause();
        model.take(Box::new(fixture::snapshot(5)));
        assert_eq!((model.paused(), model.picture().points.len()), (true, 3));
        model.toggle_pause();
        assert_eq!(model.picture().points.len(), 4);
    }

    #[test]
    fn rings_are_bounded() {
        let model = after(1..4_000);
        assert_eq!(model.picture().points.len(), MAX_POINTS);
        assert!(model.recent.len() < 16);
        assert!(model.live.trends.values().all(|t| t.len() <= TREND_POINTS));
    }

    #[test]
    fn data_goes_stale() {
        let mut model = after(1..5);
        assert!(!model.stale());
        model.now += Duration::from_secs(4);
        assert!(model.stale());
        model.now -= Duration::from_secs(4);
        model.link = Link::Lost { reason: "gone".into() };
        assert!(model.stale());
    }

    #[test]
    fn outlooks() {
        let model = after(1..31);
        let picture = model.picture();
        let groups = &picture.figures.as_ref().unwrap().groups;
        assert_eq!(picture.outlook(&groups[0]), Outlook::Grows);
        assert_eq!(picture.growth(&groups[0]), 1_000.0);
        assert_eq!(picture.outlook(&groups[1]), Outlook::KeepsUp);
        let mut model = Model::new("test", false);
        for at in 1..11 {
            let mut snapshot = fixture::snapshot(at);
            for group in snapshot.groups.iter_mut().filter(|g| g.shard == 0) {
                (group.backlog_records, group.backlog_ns) = (100_000 - 5_000 * at, 3_000_000_000);
            }
            model.take(Box::new(snapshot));
        }
        let picture = model.picture();
        let group = &picture.figures.as_ref().unwrap().groups[0];
        let Outlook::Drains(eta) = picture.outlook(group) else { panic!("{group:?}") };
        assert_eq!(eta.as_secs(), 10);
    }

    #[test]
    fn the_window_has_ends() {
        let mut model = Model::new("test", false);
        assert!(!model.change_window(false));
        assert!(
            model.change_window(true) && model.change_window(true) && model.change_window(true)
        );
        assert!(!model.change_window(true));
        assert_eq!(model.window(), Duration::from_secs(3600));
    }
}
