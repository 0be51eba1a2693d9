//! Telemetry outside the data path: each core publishes its figures once a second; this thread merges them
//! into one snapshot and serves it as Prometheus text. It never touches a disk, so that a stalled device
//! does not blind whoever looks.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_wire::telemetry::{CoreSnapshot, GroupSnapshot, ShardSnapshot, Snapshot, VERSION};
use highwater_wire::{ControlReply, encode_control_reply};
use tokio::sync::watch;

use crate::clock::wall_ns;
use crate::control_thread::StoreView;
use crate::core_thread::Phase;
use crate::prometheus::Exporter;

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

/// What the thread works with.
pub(crate) struct TelemetryThread {
    pub facts: Facts,
    pub reports: Vec<Arc<Slot<CoreReport>>>,
    pub view: Arc<Slot<StoreView>>,
    pub published: Arc<Published>,
    pub http: Option<TcpListener>,
    pub phase: watch::Receiver<Phase>,
}

impl TelemetryThread {
    /// Merges what the cores published last, and publishes that.
    pub fn publish(&self) {
        let snapshot =
            merge(&self.facts, &self.view.get(), self.reports.iter().map(|slot| slot.get()));
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
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.publish();
                    if http {
                        exporter.feed(&self.published.get().snapshot);
                    }
                }
                _ = phase.wait_for(|phase| *phase == Phase::Over) => return Ok(()),
            }
        }
    }
}

fn merge(
    facts: &Facts,
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
        ..Snapshot::default()
    };
    // As old as its oldest part: whoever takes differences then divides by the time that really passed, and
    // sees no second snapshot where a core has not published again.
    let mut oldest = u64::MAX;
    for report in reports {
        oldest = oldest.min(report.core.taken_ns);
        snapshot.cores.push(report.core.clone());
        snapshot.shards.extend_from_slice(&report.shards);
        snapshot.groups.extend_from_slice(&report.groups);
    }
    if (1..u64::MAX).contains(&oldest) {
        snapshot.taken_ns = oldest;
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
            core: CoreSnapshot { core, ..CoreSnapshot::default() },
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
            &StoreView { free: 1, total: 2, warnings: vec!["w".into()] },
            reports.into_iter(),
        );
        assert_eq!(snapshot.cores.len(), 2);
        assert_eq!(snapshot.shards.iter().map(|s| s.shard).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(snapshot.groups.iter().map(|g| g.shard).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((snapshot.durable, snapshot.disk_free, snapshot.disk_total), (true, 1, 2));
    }
}
