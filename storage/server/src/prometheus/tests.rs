//! What the Prometheus endpoint says.

use highwater_wire::ShardCounters;
use highwater_wire::telemetry::{CoreSnapshot, GroupSnapshot, ShardSnapshot};

use super::*;

fn snapshot(records: u64, write: &[(u64, u64)]) -> Snapshot {
    let write = Distribution::of(write.iter().copied(), 0);
    Snapshot {
        cores: vec![CoreSnapshot { connections: 3, ..CoreSnapshot::default() }],
        shards: vec![ShardSnapshot {
            stream: "s".into(),
            records_in: records,
            high_water: records,
            write,
            state: "closed".into(),
            counters: ShardCounters { offered: 40, dropped: 15, ..ShardCounters::default() },
            ..ShardSnapshot::default()
        }],
        groups: vec![GroupSnapshot {
            group: "g".into(),
            stream: "s".into(),
            backlog_records: 9,
            ..GroupSnapshot::default()
        }],
        deliveries: vec![DeliverySnapshot {
            group: "r".into(),
            stream: "s".into(),
            waiting: 4,
            buried: 7,
            breaker: BreakerState::Open,
            ..DeliverySnapshot::default()
        }],
        ..Snapshot::default()
    }
}

fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
}

#[test]
fn counters_gauges_and_histograms_follow_the_snapshots() {
    let mut exporter = Exporter::new();
    exporter.feed(&snapshot(10, &[(60_000, 2)]));
    exporter.feed(&snapshot(25, &[(60_000, 3), (3_000_000, 5_000_000)]));
    let text = exporter.handle().render();
    assert_line(&text, "# HELP highwater_appended_records_total Records acknowledged");
    assert_line(&text, "# TYPE highwater_durable_write_seconds histogram");
    assert_line(&text, "highwater_appended_records_total{stream=\"s\",shard=\"0\"} 25");
    assert_line(&text, "highwater_records_offered_total{stream=\"s\",shard=\"0\"} 40");
    assert_line(&text, "highwater_records_dropped_total{stream=\"s\",shard=\"0\"} 15");
    assert_line(&text, "highwater_shard_open{stream=\"s\",shard=\"0\"} 1");
    assert_line(&text, "highwater_connections{core=\"0\"} 3");
    assert_line(&text, "highwater_backlog_records{group=\"g\",stream=\"s\",shard=\"0\"} 9");
    let of = "{group=\"r\",stream=\"s\"}";
    assert_line(&text, &format!("highwater_group_records_waiting{of} 4"));
    assert_line(&text, &format!("highwater_group_records_buried_total{of} 7"));
    assert_line(&text, &format!("highwater_group_breaker{of} 2"));
    let name = "highwater_durable_write_seconds";
    assert_line(&text, &format!("{name}_bucket{{stream=\"s\",shard=\"0\",le=\"0.0001\"}} 3"));
    assert_line(&text, &format!("{name}_bucket{{stream=\"s\",shard=\"0\",le=\"+Inf\"}} 5000003"));
    assert_line(&text, &format!("{name}_count{{stream=\"s\",shard=\"0\"}} 5000003"));
}

#[test]
fn series_of_streams_and_groups_that_are_gone_disappear() {
    let mut exporter = Exporter::new();
    exporter.feed(&snapshot(1, &[(60_000, 1)]));
    let other = ShardSnapshot { stream: "t".into(), stream_id: 2, ..ShardSnapshot::default() };
    exporter.feed(&Snapshot { shards: vec![other], ..Snapshot::default() });
    let text = exporter.handle().render();
    assert!(!text.contains("stream=\"s\"") && !text.contains("group="), "{text}");
    assert_line(&text, "highwater_appended_records_total{stream=\"t\",shard=\"0\"} 0");
    assert_line(&text, "# HELP highwater_appended_records_total Records acknowledged");
}
