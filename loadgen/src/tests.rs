//! Whole runs against the target in memory: sound, broken in every way, stopped, stalled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::memory::{Fault, Memory};
use crate::run::trial;
use crate::{Arrival, LoadError, LoadOptions, Mode, Phase, Rate, Report};

/// 2,000 records/s for 0.3 s without warm-up, one record a batch.
fn options() -> LoadOptions {
    LoadOptions {
        stream: "s".into(),
        rate: Rate::PerSecond(2_000.0),
        duration: Duration::from_millis(300),
        warmup: Duration::ZERO,
        record_size: 100,
        linger: Duration::ZERO,
        // One record of 100 bytes and its framing fill a batch.
        batch_bytes: 200,
        seed: 1,
        drain_timeout: Duration::from_millis(500),
        ..LoadOptions::default()
    }
}

fn run(target: Memory, options: LoadOptions) -> Report {
    let report = trial(target, options, |_| (), &AtomicBool::new(false)).unwrap();
    // Both forms of a report must come out of any run.
    assert!(report.to_string().contains("response"));
    let json = serde_json::to_value(&report).unwrap();
    for field in ["p50", "p90", "p99", "p999", "p9999", "max", "count"] {
        for name in ["response", "propagation", "send_lag", "service", "visibility"] {
            assert!(json["latency_us"][name][field].is_number(), "{name} {field}");
        }
    }
    report
}

fn with_fault(fault: Fault) -> Report {
    run(Memory::with_faults(&[(7, fault)]), options())
}

#[test]
fn a_sound_run_accounts_for_every_record() {
    let sound = || Memory::with_faults(&[]);
    for change in [
        |_: &mut LoadOptions| {},
        |o: &mut LoadOptions| o.shards = 5,
        |o: &mut LoadOptions| (o.producers, o.shards) = (3, 2),
        |o: &mut LoadOptions| (o.batch_bytes, o.linger) = (64 << 10, Duration::from_millis(5)),
        |o: &mut LoadOptions| o.spin = Duration::ZERO,
        |o: &mut LoadOptions| o.warmup = Duration::from_millis(100),
    ] {
        let mut options = options();
        change(&mut options);
        let warmup = (options.warmup.as_secs_f64() * 2_000.0) as u64;
        let report = run(sound(), options);
        assert!(report.intact() && report.checked && !report.interrupted, "{report}");
        assert_eq!(report.mode, Mode::Open);
        assert_eq!((report.acked_records, report.consumed_records), (600, 600), "{report}");
        assert_eq!(report.checked_records, 600 + warmup);
        assert_eq!((report.offered_rate.round(), report.unsent), (2_000.0, 0), "{report}");
        let l = report.latency_us;
        for d in [l.response, l.propagation, l.send_lag, l.service, l.visibility] {
            assert_eq!(d.count, 600, "{report}");
        }
        assert_eq!((report.errors, report.refused, report.unknown), (0, 0, 0));
    }
}

#[test]
fn poisson_arrivals_are_the_seeds() {
    let mut options = options();
    options.arrival = Arrival::Poisson;
    options.shards = 3;
    let first = run(Memory::with_faults(&[]), options.clone());
    let second = run(Memory::with_faults(&[]), options);
    assert!(first.intact() && first.acked_records > 0, "{first}");
    assert_eq!(first.acked_records, second.acked_records);
}

#[test]
fn saturating_and_closed_runs_are_checked_too() {
    let mut saturating = options();
    (saturating.rate, saturating.shards) = (Rate::Max, 2);
    saturating.duration = Duration::from_millis(50);
    let report = run(Memory::with_faults(&[]), saturating);
    assert_eq!(report.mode, Mode::Saturating);
    assert!(report.intact() && report.checked_records > 0, "{report}");
    assert_eq!(report.checked_records, report.latency_us.propagation.count, "{report}");

    let mut closed = options();
    (closed.clients, closed.shards) = (Some(3), 2);
    let report = run(Memory::with_faults(&[]), closed);
    assert_eq!(report.mode, Mode::Closed);
    assert!(report.intact() && report.checked_records > 0, "{report}");
}

#[test]
fn every_way_to_break_a_promise_is_found() {
    assert_eq!(with_fault(Fault::Lose).lost, 1);
    assert_eq!(with_fault(Fault::Double).duplicated, 1);
    assert_eq!(with_fault(Fault::Swap).reordered, 1);
    let corrupt = with_fault(Fault::Corrupt);
    assert_eq!((corrupt.corrupted, corrupt.lost), (1, 1), "{corrupt}");
    let refused = with_fault(Fault::RefuseAndStore);
    assert_eq!((refused.refused, refused.refused_but_read), (1, 1));
    for broken in [Fault::Lose, Fault::Double, Fault::Corrupt, Fault::RefuseAndStore] {
        assert!(!with_fault(broken).intact());
    }
}

#[test]
fn a_loss_at_the_very_end_is_a_loss() {
    let report = run(Memory::with_faults(&[(599, Fault::Lose)]), options());
    assert_eq!((report.lost, report.unread), (1, 0), "{report}");
    assert!(!report.intact());
}

#[test]
fn what_a_source_leaves_out_is_lost_and_the_rest_is_read() {
    let report = with_fault(Fault::Skip);
    assert_eq!((report.lost, report.unread, report.read_errors), (1, 0, 1), "{report}");
    assert_eq!(report.consumed_records, 599, "{report}");
    assert!(!report.intact());
}

#[test]
fn records_in_shards_nobody_reads_are_no_backlog() {
    let mut options = options();
    (options.shards, options.consumers) = (2, Some(1));
    let mut backlog = None;
    let stop = AtomicBool::new(false);
    trial(Memory::with_faults(&[]), options, |p| backlog = Some(p.backlog), &stop).unwrap();
    assert_eq!(backlog, Some(0));
}

#[test]
fn refusals_and_doubts_are_counted_apart_and_resolved() {
    let refused = with_fault(Fault::Refuse);
    assert_eq!((refused.refused, refused.errors, refused.lost), (1, 1, 0), "{refused}");
    assert_eq!(refused.first_error.as_deref(), Some("as the test wants it"));
    assert!(refused.intact());
    let doubt = with_fault(Fault::Doubt);
    assert_eq!((doubt.unknown, doubt.unknown_but_read, doubt.lost), (1, 1, 0), "{doubt}");
    let forgotten = with_fault(Fault::Forget);
    assert_eq!((forgotten.unknown, forgotten.unknown_but_read), (1, 0), "{forgotten}");
    assert!(forgotten.intact());
}

#[test]
fn what_retention_took_is_trimmed_not_lost() {
    // Whether the consumer was there first is chance: what it missed must be called trimmed.
    let report = with_fault(Fault::Trim);
    assert_eq!(report.lost, 0, "{report}");
    assert_eq!(report.consumed_records + report.trimmed, 600, "{report}");
}

#[test]
fn without_consumers_nothing_is_judged() {
    let mut options = options();
    options.consumers = Some(0);
    let report = run(Memory::with_faults(&[(7, Fault::Lose)]), options);
    assert!(!report.checked && report.checked_records == 0 && report.lost == 0);
    assert_eq!((report.acked_records, report.consumed_records), (600, 0));
    assert!(report.to_string().contains("not checked"), "{report}");
}

#[test]
fn shards_nobody_reads_are_left_out_of_the_judgement() {
    let mut options = options();
    (options.shards, options.consumers) = (2, Some(1));
    let report = run(Memory::with_faults(&[(7, Fault::Lose)]), options);
    assert!(!report.checked, "{report}");
    assert_eq!((report.checked_records, report.lost), (300, 1), "{report}");
}

#[test]
fn records_of_an_earlier_run_are_ignored() {
    let target = Memory::with_faults(&[]);
    run(target.clone(), options());
    let report = run(target, options());
    assert!(report.intact(), "{report}");
    assert_eq!((report.acked_records, report.consumed_records), (600, 600), "{report}");
}

#[test]
fn a_target_that_takes_no_more_voids_the_run_and_nothing_is_skipped_silently() {
    let report = run(Memory::stalling_after(100, Duration::from_secs(3600)), options());
    assert_eq!((report.acked_records, report.unsent), (100, 500), "{report}");
    assert_eq!(report.offered_rate.round(), 2_000.0, "{report}");
    assert!(!report.valid && report.void_reason.as_ref().is_some_and(|r| r.contains("offered")));
    assert!(report.intact(), "{report}");
}

#[test]
fn a_stall_shows_in_every_record_that_was_due_in_it() {
    let stall = Duration::from_millis(150);
    let report = run(Memory::stalling_after(100, stall), options());
    assert_eq!((report.acked_records, report.unsent), (600, 0), "{report}");
    // 200 of 600 records fell due in the first 100 ms of it, and so waited 50 ms or more.
    let l = report.latency_us;
    assert!(l.response.p90 >= 50_000.0 && l.propagation.p90 >= 50_000.0, "{report}");
    // Timed from the actual send, the usual record would not have noticed.
    assert!(l.service.p50 < l.response.p90, "{report}");
}

#[test]
fn stopping_reports_what_was_sent() {
    let mut options = options();
    options.duration = Duration::from_secs(3600);
    let stop = AtomicBool::new(false);
    let mut phases = Vec::new();
    let report = trial(
        Memory::with_faults(&[]),
        options,
        |progress| {
            phases.push(progress.phase);
            stop.store(true, Ordering::Relaxed);
        },
        &stop,
    )
    .unwrap();
    assert!(report.interrupted && report.intact() && report.acked_records > 0, "{report}");
    assert_eq!(report.acked_records, report.consumed_records, "{report}");
    assert!(report.duration_s < 3600.0);
    assert_eq!((phases.first(), phases.last()), (Some(&Phase::Measure), Some(&Phase::Drain)));
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let refusal = |change: fn(&mut LoadOptions)| {
        let mut options = options();
        change(&mut options);
        trial(Memory::with_faults(&[]), options, |_| (), &AtomicBool::new(false)).unwrap_err()
    };
    assert!(matches!(
        refusal(|o| o.consumers = Some(2)),
        LoadError::Consumers { consumers: 2, shards: 1 }
    ));
    assert!(matches!(
        refusal(|o| o.record_size = 1 << 20),
        LoadError::RecordTooLarge { overhead: 8, .. }
    ));
    assert!(matches!(refusal(|o| o.cores = vec![9_999]), LoadError::Core { core: 9_999 }));
    assert!(matches!(refusal(|o| o.record_size = 1), LoadError::OutOfRange { .. }));
    assert!(matches!(
        refusal(|o| (o.inflight, o.shards, o.batch_bytes) = (4096, 64, 1 << 20)),
        LoadError::Memory { .. }
    ));
    // A port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = LoadOptions { target: nobody.to_string(), ..options() };
    let refused = crate::run(unreachable, |_| (), Arc::default()).unwrap_err();
    assert!(matches!(&refused, LoadError::Target { doing: "connecting", .. }), "{refused}");
    assert!(refused.to_string().contains(&nobody.to_string()), "{refused}");
    let stopped = trial(Memory::with_faults(&[]), options(), |_| (), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(LoadError::Stopped)));
}
