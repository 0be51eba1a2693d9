//! Each rule fires when it should, and is silent when it should not.

use highwater_wire::telemetry::{DeliverySnapshot, Distribution, Refusals, Snapshot};
use highwater_wire::{BreakerState, ErrorCode};

use super::*;
use crate::dashboard::fixture;
use crate::dashboard::model::Model;

/// A made-up server with nothing wrong, changed; the texts of `rule` after `seconds`.
fn texts(rule: &str, change: impl Fn(u64, &mut Snapshot)) -> Vec<String> {
    let mut model = Model::new();
    for at in 1..16 {
        let mut snapshot = fixture::snapshot(at);
        snapshot.groups.retain(|g| g.group == "billing");
        // As much as the others.
        snapshot.shards[3].records_in = snapshot.shards[0].records_in;
        change(at, &mut snapshot);
        model.take(Box::new(snapshot));
    }
    let all = notices(model.picture());
    assert!(all.is_sorted_by_key(|notice| notice.level), "{all:?}");
    all.into_iter().filter(|n| n.rule == rule).map(|n| n.text).collect()
}

#[test]
fn a_sound_server_gives_no_reason_to_look() {
    for rule in &RULES {
        assert_eq!(texts(rule.name, |_, _| {}), [""; 0], "{}", rule.name);
    }
    assert!(notices(&Picture::default()).is_empty() && healthy(&[]));
}

#[test]
fn not_durable_fires_and_is_said_once() {
    let volatile = |_, s: &mut Snapshot| {
        s.durable = false;
        s.warnings = vec!["NOT DURABLE: tmpfs".into()];
    };
    assert_eq!(texts("not-durable", volatile), ["NOT DURABLE: tmpfs"]);
    assert_eq!(texts("server-warning", volatile), [""; 0]);
}

#[test]
fn shard_stopped_fires() {
    let failed = |_, s: &mut Snapshot| s.shards[1].state = "failed: EIO".into();
    assert_eq!(texts("shard-stopped", failed), ["orders/1 failed: EIO"]);
}

#[test]
fn backlog_grows_fires_unless_it_is_short_or_drains() {
    let backlog = |records: fn(u64) -> u64, age_ns: u64| {
        move |at: u64, s: &mut Snapshot| {
            (s.groups[0].backlog_records, s.groups[0].backlog_ns) = (records(at), age_ns);
        }
    };
    let (second, long) = (1_000_000_000, 9_000_000_000);
    let grows = texts("backlog-grows", backlog(|at| 1_000 * at, long));
    assert_eq!(grows, ["backlog of billing grows by 1.00k/s"]);
    assert!(texts("backlog-grows", backlog(|at| 1_000 * at, second / 2)).is_empty());
    assert!(texts("backlog-grows", backlog(|at| 90_000 - 1_000 * at, long)).is_empty());
}

#[test]
fn a_group_that_stands_still_is_told_of_also_when_nothing_comes() {
    let stands = |age_s: u64| {
        move |at: u64, s: &mut Snapshot| {
            // All that there will be is there, and some of it was read, once.
            (s.shards[0].high_water, s.groups[0].position) = (90_000, 80_000);
            s.groups[0].backlog_records = 10_000;
            s.groups[0].backlog_ns = (age_s + at) * 1_000_000_000;
        }
    };
    let told = texts("standstill", stands(60));
    assert_eq!(told, ["billing reads nothing of orders: 10,000 records wait, 1m15s old"]);
    assert!(texts("standstill", stands(30)).is_empty(), "not for long");
    let reads = |at: u64, s: &mut Snapshot| {
        stands(60)(at, s);
        s.groups[0].position = 80_000 + at;
    };
    assert!(texts("standstill", reads).is_empty());
}

#[test]
fn retention_fires_before_and_after_it_is_too_late() {
    let ageing = |retention_ms: u64| {
        move |at: u64, s: &mut Snapshot| {
            s.groups[0].backlog_ns = 60_000_000_000 + at * 1_000_000_000;
            s.shards[0].retention_ms = retention_ms;
        }
    };
    let soon = texts("retention", ageing(675_000));
    assert_eq!(soon, ["retention by age passes billing on shard 0 in 10m00s"]);
    assert!(texts("retention", ageing(86_400_000)).is_empty());
    let late = |_, s: &mut Snapshot| s.shards[0].oldest = s.groups[0].position + 1_234;
    assert_eq!(texts("retention", late), ["billing lost 1,234 records of orders unread"]);
}

#[test]
fn breaker_fires_until_it_is_closed_again() {
    let breaker = |breaker: BreakerState| {
        move |_, s: &mut Snapshot| {
            let (group, stream) = ("billing".to_owned(), "orders".to_owned());
            let delivery =
                DeliverySnapshot { group, stream, buried: 1_234, breaker, ..Default::default() };
            s.deliveries = vec![delivery];
        }
    };
    let open = texts("breaker", breaker(BreakerState::Open));
    assert_eq!(open, ["breaker of billing on orders is open: 1,234 dead letters"]);
    let half = texts("breaker", breaker(BreakerState::HalfOpen));
    assert_eq!(half, ["breaker of billing on orders is half-open: 1,234 dead letters"]);
    assert!(texts("breaker", breaker(BreakerState::Closed)).is_empty());
}

#[test]
fn hot_shard_names_core_shard_and_key() {
    let busy = |percent: u64| {
        move |at: u64, s: &mut Snapshot| s.cores[1].busy_ns = at * percent * 10_000_000
    };
    let hot = texts("hot-shard", busy(97));
    assert_eq!(hot, ["core 1 is 97 % busy: orders/3 is 50 % of it (key user-17: 40 %)"]);
    assert!(texts("hot-shard", busy(90)).is_empty());
}

#[test]
fn skew_names_shard_and_key() {
    let more = |factor: u64| move |_: u64, s: &mut Snapshot| s.shards[2].records_in *= factor;
    assert_eq!(texts("skew", more(3)), ["orders: skew 2.0, shard 2 (key user-17: 30 %)"]);
    // 8,000 beside three times 4,000 is 1.6 times the mean, 6,000 would be 1.3.
    assert_eq!(texts("skew", more(2)).len(), 1);
    let some = |_: u64, s: &mut Snapshot| s.shards[2].records_in += s.shards[2].records_in / 2;
    assert!(texts("skew", some).is_empty());
}

#[test]
fn write_tail_wants_slow_writes_and_enough_of_them() {
    let slow = |count: u64| {
        move |at: u64, s: &mut Snapshot| {
            s.cores.truncate(1);
            s.cores[0].write = Distribution::of([(30_000_000, at * count)], 30_000_000);
        }
    };
    assert_eq!(texts("write-tail", slow(100)), ["durable writes: p99 30.0 ms"]);
    assert!(texts("write-tail", slow(5)).is_empty());
}

fn refused(code: ErrorCode, per_second: u64) -> impl Fn(u64, &mut Snapshot) {
    move |at, s| {
        s.cores[0].refusals = vec![Refusals { code: code as u16, count: at * per_second }];
    }
}

#[test]
fn queue_full_and_other_refusals_are_told_apart() {
    assert_eq!(texts("queue-full", refused(ErrorCode::Busy, 20)), ["Busy: 20/s refused"]);
    assert!(texts("refusals", refused(ErrorCode::Busy, 20)).is_empty());
    let few = |at: u64, s: &mut Snapshot| refused(ErrorCode::Busy, 1)(at / 6, s);
    assert_eq!(texts("queue-full", few), ["Busy: 2 refused in 10 s"]);
    let other = refused(ErrorCode::RecordTooLarge, 2);
    assert_eq!(texts("refusals", other), ["RecordTooLarge: 2/s refused"]);
    assert!(texts("queue-full", refused(ErrorCode::RecordTooLarge, 2)).is_empty());
    assert!(texts("refusals", refused(ErrorCode::RecordTooLarge, 1)).is_empty());
    let quota = || refused(ErrorCode::QuotaExceeded, 3);
    assert_eq!(texts("quota", quota()), ["QuotaExceeded: 3/s refused"]);
    assert!(texts("queue-full", quota()).is_empty() && texts("refusals", quota()).is_empty());
    let full = |_: u64, s: &mut Snapshot| s.cores[1].buffer_used = s.cores[1].buffer_capacity;
    assert_eq!(texts("queue-full", full), ["core 1: its buffers are full"]);
}

#[test]
fn what_a_quota_refuses_drops_and_samples_out_is_told_by_shard() {
    let refuses = |at: u64, s: &mut Snapshot| s.shards[1].counters.refused = at * 500;
    assert_eq!(texts("quota", refuses), ["orders/1 refuses 500 records/s"]);
    let hardly = |at: u64, s: &mut Snapshot| s.shards[1].counters.refused = at / 5;
    assert!(texts("quota", hardly).is_empty());
    // The requests refused for it are the same thing.
    assert!(texts("refusals", refused(ErrorCode::QuotaExceeded, 20)).is_empty());
    let drops = |at: u64, s: &mut Snapshot| {
        s.shards[0].counters.dropped = at * 20;
        s.shards[2].counters.sampled_out = at * 3_000;
    };
    let told = ["orders/0 drops 20 records/s", "orders/2 samples out 3.00k records/s"];
    assert_eq!(texts("records-dropped", drops), told);
    let advised = |_: u64, s: &mut Snapshot| s.shards[3].advice = "split at 7f".into();
    assert_eq!(texts("split-advice", advised), ["orders/3: split at 7f"]);
}

#[test]
fn a_shard_closed_by_a_split_has_not_stopped_and_is_no_part_of_the_skew() {
    let closed = |at: u64, s: &mut Snapshot| {
        s.shards[1].state = "closed".into();
        s.shards[1].records_in = 4_000;
        s.shards[2].records_in = at * 5_500;
    };
    assert!(texts("shard-stopped", closed).is_empty());
    // 5,500 beside twice 4,000 is 1.2 times the mean; with a shard of nothing it would be 1.6.
    assert!(texts("skew", closed).is_empty());
}

#[test]
fn clock_and_missing_samples() {
    let jump = |at: u64, s: &mut Snapshot| s.cores[0].clock_jumps = u64::from(at > 5);
    assert_eq!(texts("clock", jump), ["the server's clock jumped 1 x"]);
    // One of 15 is many, one of 30 is not.
    let skip = |at: u64, s: &mut Snapshot| s.serial += u64::from(at > 5);
    assert_eq!(texts("samples-dropped", skip), ["1 of 15 samples were not seen"]);
    let mut model = Model::new();
    for at in (1..31).filter(|&at| at != 5) {
        model.take(Box::new(fixture::snapshot(at)));
    }
    assert_eq!(model.picture().missed, 1);
    assert!(notices(model.picture()).iter().all(|n| n.rule != "samples-dropped"));
}

#[test]
fn disk_warnings_and_restarts() {
    let full = |_: u64, s: &mut Snapshot| s.disk_free = s.disk_total / 25;
    assert_eq!(texts("disk", full), ["disk: 4.0 % free"]);
    let warned = |_: u64, s: &mut Snapshot| s.warnings = vec!["RLIMIT_MEMLOCK is low".into()];
    assert_eq!(texts("server-warning", warned), ["RLIMIT_MEMLOCK is low"]);
    let restarts = |at: u64, s: &mut Snapshot| s.started_ns += u64::from(at > 8);
    assert_eq!(texts("restarted", restarts), ["server was restarted 1 x"]);
}

#[test]
fn only_what_is_good_to_know_is_healthy() {
    let notice = |level| Notice { rule: "disk", level, text: String::new() };
    assert!(healthy(&[notice(Level::Info)]));
    assert!(!healthy(&[notice(Level::Info), notice(Level::Warn)]));
}

#[test]
fn every_rule_is_documented() {
    let manual = include_str!("../../../../docs/operating.md");
    for rule in &RULES {
        let Rule { name, threshold, cause, remedy, .. } = rule;
        let row =
            format!("| `{name}` | {} | {threshold} | {cause} | {remedy} |", rule.level.name());
        assert!(manual.lines().any(|line| line == row), "docs/operating.md lacks:\n{row}");
        assert!(super::rule(name).is_some_and(|found| found.threshold == *threshold));
    }
    let rows = manual.lines().filter(|l| l.starts_with("| `") && l.matches(" | ").count() == 4);
    assert_eq!(rows.count(), RULES.len(), "a rule that does not exist");
}
