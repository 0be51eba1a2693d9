//! Telemetry outside the data path: each core publishes its figures once a second; this thread merges them
//! into one snapshot and serves it as Prometheus text. It never touches a disk, so that a stalled device
//! does not blind whoever looks.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_engine::CoreReport;
use highwater_wire::telemetry::{GroupSnapshot, ShardSnapshot, Snapshot, VERSION};
use highwater_wire::{ControlReply, ShardId, encode_control_reply_into};
use tokio::sync::watch;

use crate::clock::{Clock, thread_cpu_ns, wall_ns};
use crate::control_thread::StoreView;
use crate::core_thread::Phase;
use crate::filter::FilterGauge;
use crate::outgoing::Common;
use crate::prometheus::Exporter;
use crate::publisher::Pace;

/// How often cores publish and this thread merges.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Where a core leaves its report for the telemetry thread.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    report: Mutex<Option<CoreReport>>,
    /// When the telemetry thread looks next, nanoseconds since the server started.
    wanted_at: AtomicU64,
}

impl Handed {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<CoreReport>> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last one was taken.
    pub fn is_taken(&self) -> bool {
        self.lock().is_none()
    }

    /// Leaves one. Where the last was not taken it has to be complete.
    pub fn put(&self, report: CoreReport) {
        // The old one is dropped outside the lock.
        let _old = self.lock().replace(report);
    }

    fn take(&self) -> Option<CoreReport> {
        self.lock().take()
    }

    /// When it will be taken at the earliest, nanoseconds since the server started.
    pub fn wanted_at(&self) -> u64 {
        self.wanted_at.load(Ordering::Relaxed)
    }
}

/// A value written by one thread and read by others, replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Slot<T>(Mutex<Arc<T>>);

impl<T> Slot<T> {
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set(&self, value: T) {
        let value = Arc::new(value);
        // The old one is dropped outside the lock.
        let _old =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), value);
    }
}

/// The latest snapshot.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    pub serial: u64,
    /// As a control reply, for all who ask.
    pub encoded: Common,
}

/// Where it is found.
pub(crate) type Published = Slot<Latest>;

/// What does not change while the server runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub started_ns: u64,
    pub durability: String,
    pub durable: bool,
    /// Of the server itself; the store's come with [`StoreView`].
    pub warnings: Vec<String>,
    /// The bound of its memory, bytes.
    pub memory: u64,
}

/// How often there was something new to publish, and what that has cost this thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    published: u64,
    /// Age of the server at the last one, nanoseconds.
    uptime_ns: u64,
    /// CPU time, nanoseconds.
    cpu_ns: u64,
}

/// What the thread works with.
pub(crate) struct TelemetryThread {
    facts: Facts,
    cost: Cost,
    clock: Clock,
    reports: Vec<Arc<Handed>>,
    view: Arc<Slot<StoreView>>,
    published: Arc<Published>,
    http: Option<TcpListener>,
    phase: watch::Receiver<Phase>,
    filters: FilterGauge,
    merged: Merged,
    /// Memory of the encoding before the last: it serves again, once all who were sent it have it.
    spare: Arc<Vec<u8>>,
}

impl TelemetryThread {
    #[allow(
        clippy::too_many_arguments,
        reason = "one call site; a struct would only rename the arguments"
    )]
    pub fn new(
        facts: Facts,
        clock: Clock,
        reports: Vec<Arc<Handed>>,
        view: Arc<Slot<StoreView>>,
        published: Arc<Published>,
        http: Option<TcpListener>,
        phase: watch::Receiver<Phase>,
        filters: FilterGauge,
    ) -> TelemetryThread {
        let merged = Merged::new(&facts, reports.len());
        let (cost, spare) = (Cost::default(), Arc::default());
        TelemetryThread {
            facts,
            cost,
            clock,
            reports,
            view,
            published,
            http,
            phase,
            filters,
            merged,
            spare,
        }
    }

    /// Merges what the cores have reported, and publishes all that is known.
    pub fn publish(&mut self) {
        for report in self.reports.iter().filter_map(|handed| handed.take()) {
            self.merged.add(report);
        }
        let snapshot = self.merged.tell(&self.facts, self.cost, &self.view.get());
        snapshot.filter_busy_ns = self.filters.busy_ns();
        // Numbered by what it says: the same figures again are the same snapshot.
        let new = u64::from(snapshot.uptime_ns > self.cost.uptime_ns);
        (self.cost.published, self.cost.uptime_ns) =
            (self.cost.published + new, snapshot.uptime_ns.max(self.cost.uptime_ns));
        snapshot.serial = self.cost.published;
        let memory = Arc::try_unwrap(std::mem::take(&mut self.spare)).unwrap_or_default();
        let reply = ControlReply::Snapshot(std::mem::take(&mut self.merged.snapshot));
        let encoded = Common::new(encode_control_reply_into(&reply, memory));
        if let ControlReply::Snapshot(snapshot) = reply {
            self.merged.snapshot = snapshot;
        }
        self.spare = Arc::clone(&self.published.get().encoded.bytes);
        self.published.set(Latest { serial: self.cost.published, encoded });
    }

    /// Works until the server is over.
    pub async fn run(mut self) -> std::io::Result<()> {
        let mut exporter = Exporter::new();
        let mut server = tokio::task::JoinSet::new();
        if let Some(listener) = self.http.take() {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let handle = exporter.handle();
            let text = axum::routing::get(move || {
                let text = handle.render();
                async move { ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
            });
            let app = axum::Router::new().route("/metrics", text);
            server.spawn(async move { axum::serve(listener, app).await });
        }
        let http = !server.is_empty();
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut phase, pace) = (self.phase.clone(), Pace::default());
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let at_ns = self.clock.mono_ns();
                    if !pace.due(at_ns) {
                        continue;
                    }
                    let before = thread_cpu_ns();
                    self.publish();
                    if http {
                        exporter.feed(&self.merged.snapshot);
                    }
                    let spent = thread_cpu_ns().saturating_sub(before);
                    self.cost.cpu_ns += spent;
                    pace.spent(at_ns, spent);
                    let next = (at_ns + EVERY.as_nanos() as u64).max(pace.not_before());
                    self.reports.iter().for_each(|handed| handed.wanted_at.store(next, Ordering::Relaxed));
                }
                _ = phase.wait_for(|phase| *phase == Phase::Over) => return Ok(()),
            }
        }
    }
}

/// All that cores have reported. Only what is new moves.
struct Merged {
    snapshot: Box<Snapshot>,
    /// By core.
    groups: Vec<Vec<GroupSnapshot>>,
}

impl Merged {
    fn new(facts: &Facts, cores: usize) -> Merged {
        let snapshot = Snapshot {
            version: VERSION,
            started_ns: facts.started_ns,
            server: env!("CARGO_PKG_VERSION").to_owned(),
            durability: facts.durability.clone(),
            durable: facts.durable,
            memory: facts.memory,
            ..Snapshot::default()
        };
        Merged { snapshot: Box::new(snapshot), groups: vec![Vec::new(); cores] }
    }

    fn add(&mut self, report: CoreReport) {
        let number = report.core.core;
        if let Some(groups) = self.groups.get_mut(number as usize) {
            *groups = report.groups;
        }
        let Snapshot { cores, shards, .. } = &mut *self.snapshot;
        match cores.binary_search_by_key(&number, |core| core.core) {
            Ok(at) => cores[at] = report.core,
            Err(at) => cores.insert(at, report.core),
        }
        if report.complete {
            shards.retain(|shard| shard.core != number);
        }
        let place = |shard: &ShardSnapshot, of: &ShardSnapshot| {
            (&shard.stream, shard.shard).cmp(&(&of.stream, of.shard))
        };
        let mut new = false;
        for shard in report.shards {
            // What is appended lies behind what is in order.
            match shards.binary_search_by(|known| place(known, &shard)) {
                Ok(at) if !new => shards[at] = shard,
                _ => {
                    shards.push(shard);
                    new = true;
                }
            }
        }
        if new {
            shards.sort_by(place);
            // Of a stream that was made again under its old name, the new one.
            shards.dedup_by(|later, earlier| {
                let same = place(later, earlier).is_eq();
                if same {
                    std::mem::swap(later, earlier);
                }
                same
            });
        }
    }

    /// Everything, as of now.
    fn tell(&mut self, facts: &Facts, cost: Cost, view: &StoreView) -> &mut Snapshot {
        let mut groups: Vec<GroupSnapshot> = self.groups.iter().flatten().cloned().collect();
        groups.sort_by(|a, b| (&a.group, &a.stream, a.shard).cmp(&(&b.group, &b.stream, b.shard)));
        let snapshot = &mut *self.snapshot;
        snapshot.groups = groups;
        snapshot.deliveries.clone_from(&view.deliveries);
        snapshot.warnings = facts.warnings.iter().chain(&view.warnings).cloned().collect();
        (snapshot.disk_free, snapshot.disk_total) = (view.free, view.total);
        (snapshot.resident, snapshot.snapshot_cost_us) = (view.resident, cost.cpu_ns / 1_000);
        for shard in &mut snapshot.shards {
            let id = ShardId { stream: shard.stream_id, shard: shard.shard };
            match view.advice.get(&id) {
                Some(advice) => shard.advice.clone_from(advice),
                None => shard.advice.clear(),
            }
        }
        // As old as its oldest part: whoever takes differences then divides by the time that really passed, and
        // sees no second snapshot where a core has not published again.
        let oldest = snapshot.cores.iter().map(|core| (core.uptime_ns, core.taken_ns)).min();
        (snapshot.uptime_ns, snapshot.taken_ns) =
            oldest.filter(|(_, taken_ns)| *taken_ns > 0).unwrap_or((0, wall_ns()));
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use highwater_wire::telemetry::CoreSnapshot;

    use super::*;

    fn report(core: u32, complete: bool, shards: &[(&str, u32, u64)]) -> CoreReport {
        let shard = |&(stream, shard, records_in): &(&str, u32, u64)| ShardSnapshot {
            stream: stream.into(),
            shard,
            core,
            records_in,
            ..ShardSnapshot::default()
        };
        CoreReport {
            core: CoreSnapshot {
                core,
                taken_ns: 500 + u64::from(core),
                uptime_ns: 9 - u64::from(core),
                ..CoreSnapshot::default()
            },
            shards: shards.iter().map(shard).collect(),
            complete,
            groups: vec![GroupSnapshot {
                group: "g".into(),
                shard: 5 - core,
                ..Default::default()
            }],
        }
    }

    fn shards(merged: &Merged) -> Vec<(String, u32, u64)> {
        let shards = merged.snapshot.shards.iter();
        shards.map(|s| (s.stream.clone(), s.shard, s.records_in)).collect()
    }

    #[test]
    fn reports_of_all_cores_make_one_snapshot_in_order() {
        let facts = Facts { durable: true, ..Facts::default() };
        let mut merged = Merged::new(&facts, 2);
        merged.add(report(1, true, &[("s", 0, 1)]));
        merged.add(report(0, true, &[("s", 1, 2), ("r", 0, 3)]));
        let cost = Cost { cpu_ns: 7_500, ..Cost::default() };
        let view = StoreView {
            free: 1,
            total: 2,
            resident: 3,
            warnings: vec!["w".into()],
            ..StoreView::default()
        };
        let snapshot = merged.tell(&facts, cost, &view);
        assert_eq!(snapshot.cores.iter().map(|core| core.core).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(snapshot.groups.iter().map(|g| g.shard).collect::<Vec<_>>(), [4, 5]);
        assert_eq!((snapshot.durable, snapshot.disk_free, snapshot.disk_total), (true, 1, 2));
        assert_eq!((snapshot.snapshot_cost_us, snapshot.resident), (7, 3));
        assert_eq!((snapshot.uptime_ns, snapshot.taken_ns), (8, 501), "as old as its oldest part");
        let all = [("r".into(), 0, 3), ("s".into(), 0, 1), ("s".into(), 1, 2)];
        assert_eq!(shards(&merged), all);
    }

    #[test]
    fn advice_of_the_control_plane_is_told_while_it_holds() {
        let mut merged = Merged::new(&Facts::default(), 1);
        merged.add(report(0, true, &[("s", 0, 1), ("s", 1, 1)]));
        let advised = |merged: &mut Merged, advice: &[(u32, &str)]| {
            let advice = advice
                .iter()
                .map(|(shard, text)| (ShardId { stream: 0, shard: *shard }, (*text).to_owned()));
            let view = StoreView { advice: advice.collect(), ..StoreView::default() };
            let told = merged.tell(&Facts::default(), Cost::default(), &view);
            told.shards.iter().map(|s| s.advice.clone()).collect::<Vec<_>>()
        };
        assert_eq!(advised(&mut merged, &[(1, "split it")]), ["", "split it"]);
        // A shard that has nothing new to tell loses it all the same, and one that has gets it again.
        merged.add(report(0, false, &[("s", 1, 2)]));
        assert_eq!(advised(&mut merged, &[(0, "here"), (1, "split it")]), ["here", "split it"]);
        assert_eq!(advised(&mut merged, &[]), ["", ""]);
    }

    #[test]
    fn only_what_has_changed_is_reported_again() {
        let mut merged = Merged::new(&Facts::default(), 2);
        merged.add(report(0, true, &[("a", 0, 1), ("b", 0, 1), ("c", 0, 1)]));
        merged.add(report(1, true, &[("a", 1, 1)]));
        merged.add(report(0, false, &[("b", 0, 7)]));
        let kept = [("a".into(), 0, 1), ("a".into(), 1, 1), ("b".into(), 0, 7), ("c".into(), 0, 1)];
        assert_eq!(shards(&merged), kept);
        // One has gone, one has come, one was made again on the other core.
        merged.add(report(1, true, &[("a", 1, 1), ("c", 0, 0), ("d", 0, 0)]));
        merged.add(report(0, true, &[("b", 0, 8)]));
        let now = [("a".into(), 1, 1), ("b".into(), 0, 8), ("c".into(), 0, 0), ("d".into(), 0, 0)];
        assert_eq!(shards(&merged), now);
    }
}
