//! Telemetry outside the data path: each core publishes its figures once a second; this thread merges them
//! into one snapshot and serves it as Prometheus text. It never touches a disk, so that a stalled device
//! does not blind whoever looks.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_wire::telemetry::{CoreSnapshot, GroupSnapshot, ShardSnapshot, Snapshot, VERSION};
use highwater_wire::{ControlReply, encode_control_reply};
use tokio::sync::watch;

use crate::clock::{thread_cpu_ns, wall_ns};
use crate::control_thread::StoreView;
use crate::core_thread::Phase;
use crate::prometheus::Exporter;
use crate::publisher::Pace;

/// How often cores publish and this thread merges.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// What a core publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoreReport {
    pub core: CoreSnapshot,
    pub shards: Vec<ShardSnapshot>,
    pub groups: Vec<GroupSnapshot>,
}

/// A value written by one thread and read by others, replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Slot<T>(Mutex<Arc<T>>);

impl<T> Slot<T> {
    pub fn new(value: T) -> Slot<T> {
        Slot(Mutex::new(Arc::new(value)))
    }

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
    pub snapshot: Snapshot,
    /// As a control reply, so that a core only copies it.
    pub encoded: Vec<u8>,
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
    pub facts: Facts,
    pub cost: Cost,
    pub reports: Vec<Arc<Slot<CoreReport>>>,
    pub view: Arc<Slot<StoreView>>,
    pub published: Arc<Published>,
    pub http: Option<TcpListener>,
    pub phase: watch::Receiver<Phase>,
}

impl TelemetryThread {
    /// Merges what the cores published last, and publishes that.
    pub fn publish(&mut self) {
        let reports = self.reports.iter().map(|slot| slot.get());
        let mut snapshot = merge(&self.facts, self.cost, &self.view.get(), reports);
        // Numbered by what it says: the same figures again are the same snapshot.
        let new = u64::from(snapshot.uptime_ns > self.cost.uptime_ns);
        (self.cost.published, self.cost.uptime_ns) =
            (self.cost.published + new, snapshot.uptime_ns.max(self.cost.uptime_ns));
        snapshot.serial = self.cost.published;
        let reply = ControlReply::Snapshot(Box::new(snapshot));
        let encoded = encode_control_reply(&reply);
        let ControlReply::Snapshot(snapshot) = reply else { return };
        self.published.set(Latest { snapshot: *snapshot, encoded });
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
        let mut phase = self.phase.clone();
        let (start, pace) = (tokio::time::Instant::now(), Pace::default());
        loop {
            tokio::select! {
                at = tick.tick() => {
                    let at_ns = (at - start).as_nanos() as u64;
                    if !pace.due(at_ns) {
                        continue;
                    }
                    let before = thread_cpu_ns();
                    self.publish();
                    if http {
                        exporter.feed(&self.published.get().snapshot);
                    }
                    let spent = thread_cpu_ns().saturating_sub(before);
                    self.cost.cpu_ns += spent;
                    pace.spent(at_ns, spent);
                }
                _ = phase.wait_for(|phase| *phase == Phase::Over) => return Ok(()),
            }
        }
    }
}

fn merge(
    facts: &Facts,
    cost: Cost,
    view: &StoreView,
    reports: impl Iterator<Item = Arc<CoreReport>>,
) -> Snapshot {
    let mut snapshot = Snapshot {
        version: VERSION,
        taken_ns: wall_ns(),
        started_ns: facts.started_ns,
        server: env!("CARGO_PKG_VERSION").to_owned(),
        durability: facts.durability.clone(),
        durable: facts.durable,
        warnings: facts.warnings.iter().chain(&view.warnings).cloned().collect(),
        disk_free: view.free,
        disk_total: view.total,
        resident: view.resident,
        snapshot_cost_us: cost.cpu_ns / 1_000,
        ..Snapshot::default()
    };
    // As old as its oldest part: whoever takes differences then divides by the time that really passed, and
    // sees no second snapshot where a core has not published again.
    let mut oldest: Option<(u64, u64)> = None;
    for report in reports {
        let taken = (report.core.uptime_ns, report.core.taken_ns);
        oldest = Some(oldest.map_or(taken, |oldest| oldest.min(taken)));
        snapshot.cores.push(report.core.clone());
        snapshot.shards.extend_from_slice(&report.shards);
        snapshot.groups.extend_from_slice(&report.groups);
    }
    if let Some((uptime_ns, taken_ns)) = oldest.filter(|(_, taken_ns)| *taken_ns > 0) {
        (snapshot.uptime_ns, snapshot.taken_ns) = (uptime_ns, taken_ns);
    }
    snapshot.shards.sort_by(|a, b| (&a.stream, a.shard).cmp(&(&b.stream, b.shard)));
    snapshot
        .groups
        .sort_by(|a, b| (&a.group, &a.stream, a.shard).cmp(&(&b.group, &b.stream, b.shard)));
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_all_cores_make_one_snapshot_in_order() {
        let report = |core, shard| CoreReport {
            core: CoreSnapshot {
                core,
                taken_ns: 500 + u64::from(core),
                uptime_ns: 9 - u64::from(core),
                ..CoreSnapshot::default()
            },
            shards: vec![ShardSnapshot {
                stream: "s".into(),
                shard,
                core,
                ..ShardSnapshot::default()
            }],
            groups: vec![GroupSnapshot { group: "g".into(), shard, ..GroupSnapshot::default() }],
        };
        let facts = Facts { durable: true, ..Facts::default() };
        let reports = [Arc::new(report(0, 1)), Arc::new(report(1, 0))];
        let snapshot = merge(
            &facts,
            Cost { cpu_ns: 7_500, ..Cost::default() },
            &StoreView { free: 1, total: 2, resident: 3, warnings: vec!["w".into()] },
            reports.into_iter(),
        );
        assert_eq!(snapshot.cores.len(), 2);
        assert_eq!(snapshot.shards.iter().map(|s| s.shard).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(snapshot.groups.iter().map(|g| g.shard).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((snapshot.durable, snapshot.disk_free, snapshot.disk_total), (true, 1, 2));
        assert_eq!((snapshot.snapshot_cost_us, snapshot.resident), (7, 3));
        assert_eq!((snapshot.uptime_ns, snapshot.taken_ns), (8, 501), "as old as its oldest part");
    }
}
