//! Snapshots as Prometheus text, through the `metrics` facade. Each server has a recorder of its own, so
//! that several in one process do not mix their figures.
//!
//! Counters and gauges go to the Prometheus exporter. Its histograms keep every single value until the
//! next look, which at millions of records a second is too many: those are counted into their buckets here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_wire::BreakerState;
use highwater_wire::telemetry::{DeliverySnapshot, Distribution, Snapshot};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::formatting::sanitize_label_value;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Upper bounds of the buckets, seconds.
const BUCKETS: [f64; 18] = [
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3,
    1.0, 2.0, 5.0, 10.0, 60.0,
];

/// Counts by bucket; the last is everything above.
#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS.len() + 1],
    /// Nanoseconds.
    sum: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        self.record_many(seconds, 1);
    }

    fn record_many(&self, seconds: f64, count: usize) {
        let bucket = BUCKETS.partition_point(|&bound| bound < seconds);
        self.counts[bucket].fetch_add(count as u64, Ordering::Relaxed);
        self.sum.fetch_add((seconds * 1e9 * count as f64) as u64, Ordering::Relaxed);
    }
}

/// One series: its labels as text, and when it was fed last.
#[derive(Debug)]
struct Series {
    buckets: Arc<Buckets>,
    turn: u64,
}

#[derive(Debug, Default)]
struct Histograms {
    turn: u64,
    help: BTreeMap<String, String>,
    /// By name and labels.
    series: BTreeMap<String, BTreeMap<String, Series>>,
}

impl Histograms {
    /// Drops what was not fed this turn.
    fn forget_idle(&mut self) {
        let turn = self.turn;
        for by_labels in self.series.values_mut() {
            by_labels.retain(|_, series| series.turn == turn);
        }
        self.series.retain(|_, by_labels| !by_labels.is_empty());
    }

    fn render(&self, text: &mut String) {
        for (name, by_labels) in &self.series {
            // Writing to a string does not fail.
            if let Some(help) = self.help.get(name) {
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let _ = writeln!(text, "# TYPE {name} histogram");
            for (labels, Series { buckets, .. }) in by_labels {
                let mut seen = 0;
                for (i, count) in buckets.counts.iter().enumerate() {
                    seen += count.load(Ordering::Relaxed);
                    let _ = match BUCKETS.get(i) {
                        Some(bound) => {
                            writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {seen}")
                        }
                        None => writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {seen}"),
                    };
                }
                let sum = buckets.sum.load(Ordering::Relaxed) as f64 / 1e9;
                let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}");
                let _ = writeln!(text, "{name}_count{{{labels}}} {seen}");
            }
            text.push('\n');
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The recorder: the exporter's, with histograms of our own.
struct Recording {
    exporter: PrometheusRecorder,
    histograms: Arc<Mutex<Histograms>>,
}

impl Recorder for Recording {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        lock(&self.histograms).help.insert(key.as_str().to_owned(), description.into_owned());
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.exporter.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.exporter.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}=\"{}\"", label.key(), sanitize_label_value(label.value())))
            .collect();
        let mut histograms = lock(&self.histograms);
        let turn = histograms.turn;
        let by_labels = histograms.series.entry(key.name().to_owned()).or_default();
        let series = by_labels
            .entry(labels.join(","))
            .or_insert_with(|| Series { buckets: Arc::default(), turn });
        series.turn = turn;
        Histogram::from_arc(Arc::clone(&series.buckets))
    }
}

/// Renders the figures fed last.
#[derive(Clone)]
pub(crate) struct Handle {
    exporter: Arc<Mutex<PrometheusHandle>>,
    histograms: Arc<Mutex<Histograms>>,
}

impl Handle {
    /// Prometheus text, version 0.0.4.
    pub fn render(&self) -> String {
        let exporter = lock(&self.exporter).clone();
        let mut text = exporter.render();
        lock(&self.histograms).render(&mut text);
        text
    }
}

/// Feeds snapshots into a recorder.
pub(crate) struct Exporter {
    recording: Recording,
    handle: Handle,
    /// Distributions as fed last: the facade takes differences.
    fed: BTreeMap<(u32, u32), Fed>,
    /// Groups fed last.
    groups: BTreeSet<(String, String, u32)>,
    /// Those of them that settle record by record.
    deliveries: BTreeSet<(String, String)>,
}

#[derive(Default)]
struct Fed {
    write: Distribution,
    propagation: Distribution,
}

fn recorder() -> PrometheusRecorder {
    let exporter = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&exporter, describe);
    exporter
}

impl Exporter {
    pub fn new() -> Exporter {
        let exporter = recorder();
        let handle = Handle {
            exporter: Arc::new(Mutex::new(exporter.handle())),
            histograms: Arc::default(),
        };
        let recording = Recording { exporter, histograms: Arc::clone(&handle.histograms) };
        metrics::with_local_recorder(&recording, describe_histograms);
        Exporter {
            recording,
            handle,
            fed: BTreeMap::new(),
            groups: BTreeSet::new(),
            deliveries: BTreeSet::new(),
        }
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Brings every figure up to the snapshot. Series that it does not have disappear.
    pub fn feed(&mut self, snapshot: &Snapshot) {
        let shards: BTreeSet<_> = snapshot.shards.iter().map(|s| (s.stream_id, s.shard)).collect();
        let groups: BTreeSet<_> =
            snapshot.groups.iter().map(|g| (g.group.clone(), g.stream.clone(), g.shard)).collect();
        let deliveries: BTreeSet<_> =
            snapshot.deliveries.iter().map(|g| (g.group.clone(), g.stream.clone())).collect();
        if self.fed.keys().any(|key| !shards.contains(key))
            || !self.groups.is_subset(&groups)
            || !self.deliveries.is_subset(&deliveries)
        {
            // The exporter forgets nothing; and since totals are fed, a new one takes over seamlessly.
            self.recording.exporter = recorder();
            *lock(&self.handle.exporter) = self.recording.exporter.handle();
        }
        (self.groups, self.deliveries) = (groups, deliveries);
        lock(&self.recording.histograms).turn += 1;
        let before = std::mem::take(&mut self.fed);
        self.fed = metrics::with_local_recorder(&self.recording, || record(snapshot, before));
        lock(&self.recording.histograms).forget_idle();
        self.recording.exporter.handle().run_upkeep();
    }
}

/// Gives a snapshot to the recorder in force; the distributions given.
fn record(snapshot: &Snapshot, mut before: BTreeMap<(u32, u32), Fed>) -> BTreeMap<(u32, u32), Fed> {
    gauge!("highwater_started_seconds").set(snapshot.started_ns as f64 / 1e9);
    gauge!("highwater_durable").set(f64::from(u8::from(snapshot.durable)));
    gauge!("highwater_disk_free_bytes").set(snapshot.disk_free as f64);
    gauge!("highwater_disk_total_bytes").set(snapshot.disk_total as f64);
    gauge!("highwater_resident_bytes").set(snapshot.resident as f64);
    gauge!("highwater_memory_bound_bytes").set(snapshot.memory as f64);
    gauge!("highwater_filter_busy_seconds").set(snapshot.filter_busy_ns as f64 / 1e9);
    for core in &snapshot.cores {
        let labels = [("core", core.core.to_string())];
        gauge!("highwater_connections", &labels).set(f64::from(core.connections));
        gauge!("highwater_ring_in_flight", &labels).set(f64::from(core.ring_in_flight));
        gauge!("highwater_buffer_used_bytes", &labels).set(core.buffer_used as f64);
        gauge!("highwater_buffer_capacity_bytes", &labels).set(core.buffer_capacity as f64);
        gauge!("highwater_core_busy_seconds", &labels).set(core.busy_ns as f64 / 1e9);
        counter!("highwater_requests_total", &labels).absolute(core.requests);
        counter!("highwater_requests_refused_total", &labels).absolute(core.refused);
        counter!("highwater_appends_stalled_total", &labels).absolute(core.stalled);
        counter!("highwater_clock_jumps_total", &labels).absolute(core.clock_jumps);
        gauge!("highwater_receive_used_bytes", &labels).set(core.receive_used as f64);
        gauge!("highwater_queued_bytes", &labels).set(core.queued as f64);
        gauge!("highwater_snapshot_cost_seconds", &labels).set(core.snapshot_cost_us as f64 / 1e6);
        counter!("highwater_requests_forwarded_total", &labels).absolute(core.forwarded);
        counter!("highwater_malformed_total", &labels).absolute(core.malformed);
    }
    let mut fed = BTreeMap::new();
    for shard in &snapshot.shards {
        let labels = [("stream", shard.stream.clone()), ("shard", shard.shard.to_string())];
        counter!("highwater_appended_records_total", &labels).absolute(shard.records_in);
        counter!("highwater_appended_bytes_total", &labels).absolute(shard.bytes_in);
        counter!("highwater_appended_batches_total", &labels).absolute(shard.batches_in);
        counter!("highwater_delivered_records_total", &labels).absolute(shard.records_out);
        counter!("highwater_delivered_bytes_total", &labels).absolute(shard.bytes_out);
        counter!("highwater_filter_looked_records_total", &labels).absolute(shard.filter_looked);
        counter!("highwater_filter_matched_records_total", &labels).absolute(shard.filter_matched);
        counter!("highwater_duplicates_total", &labels).absolute(shard.duplicates);
        counter!("highwater_refused_total", &labels).absolute(shard.refused);
        let counters = &shard.counters;
        counter!("highwater_records_offered_total", &labels).absolute(counters.offered);
        counter!("highwater_records_acknowledged_total", &labels).absolute(counters.acknowledged);
        counter!("highwater_records_refused_total", &labels).absolute(counters.refused);
        counter!("highwater_records_buffered_total", &labels).absolute(counters.buffered);
        counter!("highwater_records_dropped_total", &labels).absolute(counters.dropped);
        counter!("highwater_records_sampled_out_total", &labels).absolute(counters.sampled_out);
        counter!("highwater_records_duplicates_recognised_total", &labels)
            .absolute(counters.duplicates_recognised);
        counter!("highwater_producers_evicted_total", &labels).absolute(counters.evictions);
        gauge!("highwater_records_pending", &labels).set(counters.pending as f64);
        gauge!("highwater_held_bytes", &labels).set(counters.held_bytes as f64);
        counter!("highwater_commit_groups_total", &labels).absolute(shard.groups);
        counter!("highwater_disk_written_bytes_total", &labels).absolute(shard.disk_bytes);
        counter!("highwater_cold_segments_total", &labels).absolute(shard.cold_segments);
        gauge!("highwater_high_water", &labels).set(shard.high_water as f64);
        gauge!("highwater_oldest", &labels).set(shard.oldest as f64);
        gauge!("highwater_stored_bytes", &labels).set(shard.stored_bytes as f64);
        gauge!("highwater_segments", &labels).set(f64::from(shard.segments));
        gauge!("highwater_commit_groups_in_flight", &labels).set(f64::from(shard.in_flight));
        // A shard that a split or merge closed is as it should be.
        let sound = matches!(shard.state.as_str(), "open" | "closed");
        gauge!("highwater_shard_open", &labels).set(f64::from(u8::from(sound)));
        let closed = shard.state == "closed";
        gauge!("highwater_shard_closed", &labels).set(f64::from(u8::from(closed)));
        let key = (shard.stream_id, shard.shard);
        let old = before.remove(&key).unwrap_or_default();
        add(&histogram!("highwater_durable_write_seconds", &labels), &shard.write, &old.write);
        let propagation = histogram!("highwater_propagation_seconds", &labels);
        add(&propagation, &shard.propagation, &old.propagation);
        fed.insert(key, Fed { write: shard.write.clone(), propagation: shard.propagation.clone() });
    }
    for group in &snapshot.groups {
        let labels = [
            ("group", group.group.clone()),
            ("stream", group.stream.clone()),
            ("shard", group.shard.to_string()),
        ];
        gauge!("highwater_position", &labels).set(group.position as f64);
        gauge!("highwater_backlog_records", &labels).set(group.backlog_records as f64);
        gauge!("highwater_backlog_bytes", &labels).set(group.backlog_bytes as f64);
        gauge!("highwater_backlog_seconds", &labels).set(group.backlog_ns as f64 / 1e9);
        gauge!("highwater_group_records_in_per_second", &labels).set(group.rate_in);
        gauge!("highwater_group_records_out_per_second", &labels).set(group.rate_out);
        // What is not to be expected takes for ever.
        let seconds = |ms: Option<u64>| ms.map_or(f64::INFINITY, |ms| ms as f64 / 1e3);
        gauge!("highwater_backlog_empty_in_seconds", &labels).set(seconds(group.empty_ms));
        gauge!("highwater_backlog_lost_in_seconds", &labels).set(seconds(group.loss_ms));
    }
    snapshot.deliveries.iter().for_each(record_delivery);
    fed
}

/// A group that settles record by record.
fn record_delivery(group: &DeliverySnapshot) {
    let labels = [("group", group.group.clone()), ("stream", group.stream.clone())];
    gauge!("highwater_group_records_in_hand", &labels).set(group.in_hand as f64);
    gauge!("highwater_group_records_waiting", &labels).set(group.waiting as f64);
    gauge!("highwater_group_records_to_bury", &labels).set(group.to_bury as f64);
    counter!("highwater_group_records_done_total", &labels).absolute(group.done);
    counter!("highwater_group_records_redelivered_total", &labels).absolute(group.redelivered);
    counter!("highwater_group_records_buried_total", &labels).absolute(group.buried);
    counter!("highwater_group_records_lost_total", &labels).absolute(group.lost);
    let breaker = match group.breaker {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    gauge!("highwater_group_breaker", &labels).set(breaker);
}

fn add(histogram: &Histogram, now: &Distribution, before: &Distribution) {
    for (ns, count) in now.since(before).buckets() {
        histogram.record_many(ns as f64 / 1e9, count as usize);
    }
}

fn describe() {
    let gauges = [
        ("highwater_started_seconds", "When the server started, seconds since 1970 UTC"),
        ("highwater_durable", "1 if acknowledged records survive a power cut"),
        ("highwater_disk_free_bytes", "Free bytes of the data file system"),
        ("highwater_disk_total_bytes", "Size of the data file system"),
        ("highwater_resident_bytes", "Memory of the process"),
        ("highwater_memory_bound_bytes", "Bound of the server's buffers, over all cores"),
        ("highwater_filter_busy_seconds", "CPU time of the filter threads since they started"),
        ("highwater_receive_used_bytes", "Memory beyond its least that connections receive into"),
        ("highwater_queued_bytes", "Bytes queued for clients"),
        (
            "highwater_snapshot_cost_seconds",
            "CPU time the core spent on its figures since it started",
        ),
        ("highwater_connections", "Open connections"),
        ("highwater_ring_in_flight", "Log I/O operations in flight"),
        ("highwater_buffer_used_bytes", "Pooled buffer memory in use"),
        ("highwater_buffer_capacity_bytes", "Pooled buffer memory in all"),
        ("highwater_core_busy_seconds", "CPU time of the core's thread since it started"),
        ("highwater_high_water", "Every record below this sequence number is durable"),
        ("highwater_oldest", "Oldest sequence number kept"),
        ("highwater_stored_bytes", "Bytes of the shard's segments on disk"),
        ("highwater_segments", "Segments on disk"),
        ("highwater_commit_groups_in_flight", "Commit groups being written"),
        ("highwater_shard_open", "1 while the shard does its work, 0 after a failure"),
        ("highwater_shard_closed", "1 for a shard that a split or merge closed"),
        ("highwater_records_pending", "Records offered and not answered yet"),
        ("highwater_held_bytes", "Bytes of batches held back by the stream's backpressure"),
        ("highwater_position", "Next sequence number the group will read"),
        (
            "highwater_backlog_records",
            "Records between the group's position and the high-water mark",
        ),
        (
            "highwater_backlog_bytes",
            "Bytes of the log from the batch of the next record on, padding included",
        ),
        ("highwater_backlog_seconds", "Age of the group's next unread record"),
        ("highwater_group_records_in_per_second", "Records that come into a group's shard"),
        ("highwater_group_records_out_per_second", "Records a group's position advances by"),
        (
            "highwater_backlog_empty_in_seconds",
            "Until the backlog is empty; +Inf if it does not shrink",
        ),
        (
            "highwater_backlog_lost_in_seconds",
            "Until retention reaches the group's position; +Inf if that is not to be expected",
        ),
        ("highwater_group_records_in_hand", "Records handed out to the group and not settled"),
        ("highwater_group_records_waiting", "Records to be handed out to the group again"),
        ("highwater_group_records_to_bury", "Records given up, not stored as dead letters yet"),
        ("highwater_group_breaker", "1 while the group gets one record at a time, 2 while none"),
    ];
    let counters = [
        ("highwater_requests_total", "Frames received"),
        ("highwater_requests_refused_total", "Requests refused, for whatever reason"),
        ("highwater_appends_stalled_total", "Appends that waited for buffer memory"),
        ("highwater_clock_jumps_total", "Jumps of the wall clock by more than 10 ms"),
        ("highwater_requests_forwarded_total", "Requests handed over to another core"),
        ("highwater_malformed_total", "Connections ended for malformed frames"),
        ("highwater_appended_records_total", "Records acknowledged"),
        ("highwater_appended_bytes_total", "Bytes of acknowledged batches"),
        ("highwater_appended_batches_total", "Batches acknowledged"),
        ("highwater_delivered_records_total", "Records handed to consumers"),
        ("highwater_delivered_bytes_total", "Bytes handed to consumers"),
        ("highwater_filter_looked_records_total", "Records that filters looked at"),
        ("highwater_filter_matched_records_total", "Of these, records that matched"),
        ("highwater_duplicates_total", "Batches recognised as stored before"),
        ("highwater_refused_total", "Appends refused"),
        ("highwater_records_offered_total", "Records in sound batches that came for the shard"),
        ("highwater_records_acknowledged_total", "Of these, stored and acknowledged"),
        ("highwater_records_refused_total", "Of these, refused, for whatever reason"),
        ("highwater_records_buffered_total", "Of these, held back for a while"),
        ("highwater_records_dropped_total", "Of these, dropped by the stream's backpressure"),
        ("highwater_records_sampled_out_total", "Of these, left out of the sample"),
        ("highwater_records_duplicates_recognised_total", "Of these, stored by an earlier attempt"),
        ("highwater_producers_evicted_total", "Producers forgotten for want of room"),
        ("highwater_commit_groups_total", "Commit groups written"),
        ("highwater_disk_written_bytes_total", "Bytes written to the device, padding included"),
        ("highwater_cold_segments_total", "Segments that had to be written cold"),
        ("highwater_group_records_done_total", "Records the group has processed, one by one"),
        ("highwater_group_records_redelivered_total", "Records handed out to the group again"),
        ("highwater_group_records_buried_total", "Records stored as dead letters of the group"),
        ("highwater_group_records_lost_total", "Records removed before the group settled them"),
    ];
    for (name, help) in gauges {
        describe_gauge!(name, help);
    }
    for (name, help) in counters {
        describe_counter!(name, help);
    }
}

fn describe_histograms() {
    describe_histogram!("highwater_durable_write_seconds", "Duration of durable writes");
    describe_histogram!(
        "highwater_propagation_seconds",
        "From arrival of a record to its hand-over to a subscriber"
    );
}

#[cfg(test)]
mod tests;
