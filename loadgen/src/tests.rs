//! Whole runs against the target in memory: sound, broken in every way, stopped, stalled.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::schedule::Burst;
use crate::target::memory::{Fault, Memory};
use crate::workload::{KeyDistribution, Keys};
use crate::{
    Arrival, LoadError, LoadOptions, Mode, Observer, Phase, Profile, Progress, Rate, Report,
    Scenario, ScenarioKind, Stop, Tick, WarmUpRule, Workload, run_on,
};

/// 2,000 records/s for 0.3 s without warm-up, one record a batch.
fn options() -> LoadOptions {
    LoadOptions {
        stream: "s".into(),
        rate: Rate::PerSecond(2_000.0),
        duration: Duration::from_millis(300),
        warmup: WarmUpRule::Fixed(Duration::ZERO),
        workload: Workload::Fixed { size: 100 },
        linger: Duration::ZERO,
        // One record of 100 bytes and its framing fill a batch.
        batch_bytes: 200,
        seed: 1,
        drain_timeout: Duration::from_millis(500),
        ..LoadOptions::default()
    }
}

/// Sees what happens, and may stop it.
struct Watching<F>(F);

impl<F: FnMut(&Progress)> Observer for Watching<F> {
    fn tick(&mut self, tick: &Tick<'_>) {
        (self.0)(tick.progress);
    }
}

fn run(target: Memory, options: LoadOptions) -> Report {
    let report = run_on(target, options, &mut (), &Stop::new()).unwrap();
    // Both forms of a report must come out of any run.
    assert!(report.to_string().contains("response"));
    let json = serde_json::to_value(&report).unwrap();
    for field in ["p50", "p90", "p99", "p999", "p9999", "max", "count"] {
        for (name, _) in report.latency_us.named() {
            assert!(json["latency_us"][name][field].is_number(), "{name} {field}");
        }
    }
    // ... and what was written can be read.
    let read: Report = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json);
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
        |o: &mut LoadOptions| o.warmup = WarmUpRule::Fixed(Duration::from_millis(100)),
        |o: &mut LoadOptions| (o.streams, o.shards, o.groups) = (2, 2, 3),
        |o: &mut LoadOptions| (o.shards, o.groups, o.consumers) = (3, 2, Some(4)),
    ] {
        let mut options = options();
        change(&mut options);
        let warmup = (options.warmup.most().as_secs_f64() * 2_000.0) as u64;
        let groups = options.groups as u64;
        let report = run(sound(), options);
        assert!(report.intact() && report.checked && !report.interrupted, "{report}");
        assert_eq!(report.mode, Mode::Open);
        assert_eq!(report.acked_records, 600, "{report}");
        assert_eq!(report.consumed_records, 600 * groups, "{report}");
        assert_eq!(report.checked_records, 600 + warmup);
        assert_eq!((report.offered_rate.round(), report.unsent), (2_000.0, 0), "{report}");
        let l = report.latency_us;
        for d in [l.response, l.send_lag, l.service] {
            assert_eq!(d.count, 600, "{report}");
        }
        for d in [l.propagation, l.visibility] {
            assert_eq!(d.count, 600 * groups, "{report}");
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
fn a_poisson_run_is_not_given_up_because_its_next_record_is_long_in_coming() {
    let mut options = options();
    options.arrival = Arrival::Poisson;
    // Of 2 records/s, many a gap is longer than 300 ms.
    (options.rate, options.target_timeout) = (Rate::PerSecond(2.0), Duration::from_millis(300));
    options.duration = Duration::from_secs(3);
    let report = run(Memory::with_faults(&[]), options);
    assert_eq!((report.ended_early.as_deref(), report.unsent), (None, 0), "{report}");
    assert!(report.acked_records > 0, "{report}");
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
    let usual = LoadOptions::default();
    (closed.batch_bytes, closed.linger) = (usual.batch_bytes, usual.linger);
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
fn records_of_unknown_fate_wait_no_longer_once_the_run_is_over() {
    let faults: Vec<(usize, Fault)> = (0..200).map(|batch| (batch, Fault::Doubt)).collect();
    let mut last = None;
    let mut watching = Watching(|progress: &Progress| last = Some(progress.clone()));
    let report = run_on(Memory::with_faults(&faults), options(), &mut watching, &Stop::new());
    assert_eq!(report.unwrap().unknown, 200);
    let last = last.unwrap();
    assert_eq!((last.offered, last.acked, last.unanswered), (600, 400, Some(0)));
}

#[test]
fn what_retention_took_is_trimmed_not_lost() {
    // Whether the consumer was there first is chance: what it missed must be called trimmed.
    let report = with_fault(Fault::Trim);
    assert_eq!(report.lost, 0, "{report}");
    assert_eq!(report.consumed_records + report.trimmed, 600, "{report}");
}

#[test]
fn a_stream_that_splits_and_merges_is_read_through() {
    for (groups, producers, consumers) in [(1, 1, None), (2, 3, None), (2, 2, Some(2))] {
        let options = LoadOptions { groups, producers, consumers, ..options() };
        let report = run(Memory::resharding_after(100, &[]), options);
        assert!(report.intact() && report.checked && report.errors == 0, "{report}");
        assert_eq!((report.acked_records, report.unread), (600, 0), "{report}");
        assert_eq!(report.consumed_records, 600 * groups as u64, "{report}");
        assert_eq!((report.shards, report.ack_pause_ms.shards), (1, 4), "{report}");
        assert_eq!(report.latency_us.propagation.count, 600 * groups as u64);
    }
}

#[test]
fn every_way_to_break_a_promise_is_found_behind_splits_and_merges_too() {
    // The eighth batch of each of the four shards.
    let broken = |fault, keys: u32| {
        let mut options = options();
        options.keys.count = keys;
        run(Memory::resharding_after(100, &[(7, fault)]), options)
    };
    let lost = broken(Fault::Lose, 1_000);
    assert_eq!((lost.lost, lost.unread), (4, 0), "{lost}");
    assert_eq!(broken(Fault::Double, 1_000).duplicated, 4);
    let corrupt = broken(Fault::Corrupt, 1_000);
    assert_eq!((corrupt.corrupted, corrupt.lost), (4, 4), "{corrupt}");
    // Neighbours change places: in the first shard that is against the order of a lane; in those that came of it only
    // if both have one key. One key has one of two halves, so it comes through two of the three.
    let one_key = broken(Fault::Swap, 1);
    assert!((2..=3).contains(&one_key.reordered), "{one_key}");
    let round_robin = LoadOptions {
        keys: Keys { count: 1_000, distribution: KeyDistribution::RoundRobin },
        ..options()
    };
    let many = run(Memory::resharding_after(100, &[(7, Fault::Swap)]), round_robin);
    assert_eq!((many.reordered, many.lost), (1, 0), "{many}");
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
fn an_open_loop_shows_a_stall_that_a_closed_one_hides() {
    // Stands still for the tenth second.
    let on_null = |clients: Option<usize>| {
        let options = LoadOptions {
            target: "null:stall=1s/10s".to_owned(),
            rate: Rate::PerSecond(10_000.0),
            duration: Duration::from_secs(11),
            warmup: WarmUpRule::Fixed(Duration::ZERO),
            workload: Workload::Fixed { size: 100 },
            clients,
            ..LoadOptions::default()
        };
        crate::run(options, &mut (), &Stop::new()).unwrap()
    };
    let (open, closed) = std::thread::scope(|scope| {
        let closed = scope.spawn(|| on_null(Some(1)));
        (on_null(None), closed.join().unwrap())
    });
    assert_eq!((open.mode, open.acked_records, open.unsent), (Mode::Open, 110_000, 0), "{open}");
    // 10,000 records fell due in it: the slowest hundredth of all in its first 110 ms.
    assert!(open.latency_us.response.p99 >= 700_000.0, "{open}");
    assert_eq!(closed.mode, Mode::Closed);
    assert!(closed.latency_us.response.p99 < 5_000.0, "{closed}");
    assert!(closed.latency_us.response.max >= 700_000.0, "{closed}");
    assert!(!open.checked && open.consumers == 0, "{open}");
    // Both reports say why the two differ, in figures.
    let told = |report: &Report, words: [&str; 2]| {
        let has = |note: &String| words.iter().all(|word| note.contains(word));
        assert!(report.notes.iter().any(has), "{words:?}: {report}");
    };
    told(&open, ["A tool that times from the actual send would have shown", "p99 of response is"]);
    told(&closed, ["would have fallen due in it", "Corrected for them, p99 of response is"]);
}

#[test]
fn stopping_reports_what_was_sent() {
    let mut options = options();
    options.duration = Duration::from_secs(3600);
    let stop = Stop::new();
    // The first look may be one at the end of the warm-up.
    let mut observer = Watching(|progress: &Progress| {
        if progress.phase == Phase::Measure {
            stop.request();
        }
    });
    let report = run_on(Memory::with_faults(&[]), options, &mut observer, &stop).unwrap();
    assert!(report.interrupted && report.intact() && report.acked_records > 0, "{report}");
    assert_eq!(report.acked_records, report.consumed_records, "{report}");
    assert!(report.duration_s < 3600.0);
}

#[test]
fn stopping_in_the_warm_up_leaves_no_measurement_and_says_so() {
    let mut options = options();
    options.warmup = WarmUpRule::Steady { most: Duration::from_secs(3600) };
    let stop = Stop::new();
    let mut observer = Watching(|_: &Progress| stop.request());
    let report = run_on(Memory::with_faults(&[]), options, &mut observer, &stop).unwrap();
    assert!(report.interrupted && report.intact() && !report.valid, "{report}");
    assert_eq!((report.duration_s, report.acked_records), (0.0, 0), "{report}");
    assert!(report.checked_records > 0, "{report}");
}

#[test]
fn stopping_twice_does_not_wait_for_the_target() {
    let mut options = options();
    options.duration = Duration::from_secs(3600);
    options.drain_timeout = Duration::from_secs(3600);
    let stop = Stop::new();
    let mut observer = Watching(|_: &Progress| {
        stop.request();
        stop.request();
    });
    // It keeps one batch to itself.
    let target = Memory::with_faults(&[(100, Fault::Forget)]);
    let report = run_on(target, options, &mut observer, &stop).unwrap();
    assert!(report.interrupted && report.unknown > 0, "{report}");
}

#[test]
fn a_warm_up_that_is_not_steady_in_time_is_measured_all_the_same_and_told() {
    let mut options = options();
    // The test needs three seconds to judge.
    options.warmup = WarmUpRule::Steady { most: Duration::from_millis(300) };
    let report = run(Memory::with_faults(&[]), options);
    assert!(report.intact(), "{report}");
    assert_eq!((report.acked_records, report.warmup.steady), (600, Some(false)), "{report}");
    assert!(report.warmup.duration_s >= 0.3, "{report}");
}

#[test]
fn a_target_that_goes_silent_ends_the_run_with_what_was_measured() {
    let mut options = options();
    options.duration = Duration::from_secs(3600);
    options.target_timeout = Duration::from_millis(200);
    let report = run(Memory::stalling_after(100, Duration::from_secs(7200)), options);
    assert_eq!((report.acked_records, report.interrupted), (100, false), "{report}");
    let why = report.ended_early.as_deref().unwrap();
    assert!(why.contains("answered nothing"), "{why}");
    assert!(report.void_reason.as_deref().is_some_and(|reason| reason.contains(why)), "{report}");
}

#[test]
fn a_target_that_refuses_everything_ends_the_run_and_one_that_may_restart_does_not() {
    let refusing: Vec<_> = (100..100_000).map(|n| (n, Fault::Refuse)).collect();
    let mut options = options();
    options.duration = Duration::from_secs(3600);
    options.target_timeout = Duration::from_millis(200);
    let report = run(Memory::with_faults(&refusing), options.clone());
    let why = report.ended_early.as_deref().unwrap();
    assert!(why.contains("took nothing") && why.contains("as the test wants it"), "{why}");
    options.duration = Duration::from_millis(500);
    options.tolerate_restart = true;
    let report = run(Memory::with_faults(&refusing), options);
    assert_eq!((report.ended_early.as_deref(), report.acked_records), (None, 100), "{report}");
    // ... but most of it was refused.
    assert!(report.void_reason.is_some_and(|reason| reason.contains("refused")));
}

#[test]
fn a_group_that_was_away_catches_up_while_producers_go_on() {
    let mut options = options();
    options.groups = 3;
    options.shards = 2;
    options.scenario = Scenario::Backlog {
        outage: Duration::from_millis(400),
        drain_limit: Duration::from_secs(3600),
        paused_groups: 1,
    };
    let mut phases = BTreeSet::new();
    let mut backlogs = Vec::new();
    let mut observer = Watching(|progress: &Progress| {
        phases.insert(format!("{:?}", progress.phase));
        backlogs.push(progress.backlog);
    });
    let report = run_on(Memory::with_faults(&[]), options, &mut observer, &Stop::new()).unwrap();
    assert!(report.intact() && report.ended_early.is_none(), "{report}");
    assert_eq!(report.scenario, ScenarioKind::Backlog);
    // Before, outage, and until it has caught up.
    assert!(report.duration_s >= 0.7, "{report}");
    assert_eq!(report.consumed_records, 3 * report.acked_records, "{report}");
    let backlog = report.backlog.unwrap();
    assert!(backlog.drained && backlog.drain_s.is_some(), "{backlog:?}");
    assert_eq!((backlog.groups_paused, backlog.outage_s), (1, 0.4));
    // 2,000 records/s for 0.4 s, all of which waited for it.
    assert!(backlog.backlog_records > 0, "{backlog:?}");
    assert_eq!(backlog.backlog_bytes, backlog.backlog_records * 100, "{backlog:?}");
    assert_eq!(backlog.paused_propagation.count, report.acked_records, "{backlog:?}");
    let live = [backlog.before, backlog.outage, backlog.draining];
    let propagated: u64 = live.iter().map(|phase| phase.propagation.count).sum();
    assert_eq!(propagated, 2 * report.acked_records, "{backlog:?}");
    assert_eq!((live[0].response.count, live[1].response.count), (600, 800), "{backlog:?}");
    assert_eq!(report.latency_us.propagation.count, propagated, "{report}");
    // What the paused group read before its acknowledgement is not the others'.
    assert_eq!(report.latency_us.visibility.count, propagated, "{report}");
}

#[test]
fn records_read_before_their_acknowledgement_count_where_they_were_due() {
    let mut options = options();
    options.scenario = Scenario::Burst;
    // Batches of many records, across the edges of bursts and of the window.
    (options.batch_bytes, options.linger) = (64 << 10, Duration::from_millis(20));
    options.warmup = WarmUpRule::Fixed(Duration::from_millis(70));
    let (on, every) = (Duration::from_millis(50), Duration::from_millis(130));
    options.profile = Profile::Burst(Burst { peak: 3.0, on, every });
    let report = run(Memory::with_faults(&[]), options);
    let burst = report.burst.unwrap();
    for d in [burst.calm, burst.burst, report.latency_us] {
        assert_eq!(d.visibility.count, d.propagation.count, "{report}");
        assert_eq!(d.visibility.count, d.response.count, "{report}");
    }
}

#[test]
fn a_group_that_does_not_catch_up_in_time_is_told() {
    let mut options = options();
    options.groups = 2;
    // More is left behind than the 100 ms of traffic that count as caught up.
    options.scenario = Scenario::Backlog {
        outage: Duration::from_millis(400),
        drain_limit: Duration::from_millis(300),
        paused_groups: 1,
    };
    // Whoever has been away reads 20 records a second of 2,000.
    let report = run(Memory::slow_with_old(100, Duration::from_millis(50)), options);
    let backlog = report.backlog.unwrap();
    assert_eq!((backlog.drained, backlog.drain_s), (false, None), "{backlog:?}");
    assert!(report.unread > 0 && !report.valid, "{report}");
}

#[test]
fn bursts_are_told_apart_from_the_calm_between_them() {
    let mut options = options();
    options.scenario = Scenario::Burst;
    options.profile = Profile::Burst(Burst {
        peak: 3.0,
        on: Duration::from_millis(50),
        every: Duration::from_millis(150),
    });
    let report = run(Memory::with_faults(&[]), options);
    assert!(report.intact(), "{report}");
    assert_eq!((report.scenario, report.arrivals.process.as_str()), (ScenarioKind::Burst, "burst"));
    let burst = report.burst.unwrap();
    assert_eq!((burst.base_rate, burst.peak_rate, burst.bursts), (2_000.0, 6_000.0, 2));
    assert_eq!((burst.burst.response.count, burst.calm.response.count), (600, 400), "{burst:?}");
    assert_eq!(report.acked_records, 1_000, "{report}");
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let refusal = |change: fn(&mut LoadOptions)| {
        let mut options = options();
        change(&mut options);
        run_on(Memory::with_faults(&[]), options, &mut (), &Stop::new()).unwrap_err()
    };
    assert!(matches!(
        refusal(|o| o.consumers = Some(2)),
        LoadError::OutOfRange { field: "consumers", most: 1, .. }
    ));
    assert!(matches!(
        refusal(|o| o.workload = Workload::Fixed { size: 1 << 20 }),
        LoadError::RecordTooLarge { .. }
    ));
    assert!(matches!(refusal(|o| o.cores = vec![9_999]), LoadError::Core { core: 9_999 }));
    assert!(matches!(
        refusal(|o| (o.inflight, o.shards, o.batch_bytes) = (4096, 64, 1 << 20)),
        LoadError::Memory { .. }
    ));
    // A port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = LoadOptions { target: nobody.to_string(), ..options() };
    let refused = crate::run(unreachable, &mut (), &Stop::new()).unwrap_err();
    assert!(matches!(&refused, LoadError::Target { doing: "connecting", .. }), "{refused}");
    assert!(refused.to_string().contains(&nobody.to_string()), "{refused}");
    let stop = Stop::new();
    stop.request();
    let stopped = run_on(Memory::with_faults(&[]), options(), &mut (), &stop);
    assert!(matches!(stopped, Err(LoadError::Stopped)));
}
