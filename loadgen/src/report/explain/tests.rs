//! Each sentence by the figures that call for it, and by those that do not.

use hdrhistogram::Histogram;
use highwater_wire::{Backpressure, Quota};

use super::*;
use crate::Arrival;
use crate::report::{Account, BacklogReport, BurstReport, LiveLatency, fixture};

fn said(report: &Report) -> Vec<String> {
    notes(report, None)
}

/// The only note, which has all of `words`.
fn only(report: &Report, words: &[&str]) -> String {
    let notes = said(report);
    let [note] = &notes[..] else { panic!("not one note: {notes:#?}") };
    for word in words {
        assert!(note.contains(word), "{word:?} is not in {note:?}");
    }
    note.clone()
}

#[test]
fn of_a_plain_run_nothing_is_said() {
    assert_eq!(said(&fixture::plain()), [""; 0]);
}

#[test]
fn an_open_run_explains_a_response_far_above_service() {
    let mut r = fixture::plain();
    r.latency_us.response.p99 = 910_000.0;
    r.latency_us.service.max = 1_000_000.0;
    only(
        &r,
        &["p99 of response is 910 ms, of service 375 us", "took 1.00 s", "would have shown 375 us"],
    );

    // A generator that was late itself does not blame the target.
    r.generator_late.p99_us = 200_000.0;
    only(&r, &["this generator's own", "late by 200 ms"]);
    // ... and one that was late by a little, which voids the run, does not take the blame for the rest.
    r.generator_late.p99_us = 5_000.0;
    only(&r, &["would have shown 375 us"]);
}

/// With no time left the generator does not say that the target kept it waiting.
#[test]
fn a_generator_at_its_end_says_so() {
    let mut r = fixture::plain();
    r.generator_busy = Some(0.987);
    only(&r, &["did all it could", "98.7 % of the window", "may be its bound"]);
    r.latency_us.response.p99 = 910_000.0;
    let notes = said(&r);
    assert!(notes.iter().any(|note| note.contains("had no time for them or")), "{notes:?}");
    r.generator_busy = None;
    only(&r, &["while the target did not take them"]);
}

#[test]
fn a_closed_run_below_the_rate_it_was_to_keep_says_so() {
    let mut r = closed_run().0;
    r.options.rate = Rate::PerSecond(1_000.0);
    (r.offered_rate, r.achieved_rate) = (665.0, 665.0);
    let note = "1 caller could not keep the rate of 1,000 records/s";
    assert!(said(&r).iter().any(|said| said.contains(note)), "{:?}", said(&r));
    r.achieved_rate = 1_000.0;
    assert!(!said(&r).iter().any(|said| said.contains("could not keep")), "{:?}", said(&r));
}

#[test]
fn records_of_unknown_fate_are_not_called_missing_by_readers_that_did_not_get_to_the_end() {
    let mut r = fixture::plain();
    (r.unknown, r.unknown_but_read, r.read_errors) = (21, 0, 0);
    assert!(said(&r).iter().any(|said| said.contains("the others are not")), "{:?}", said(&r));
    r.ended_early = Some("it hung".into());
    assert!(said(&r).iter().any(|said| said.contains("cannot be said")), "{:?}", said(&r));
    // A server that was killed and did not come back: the end was never found.
    (r.ended_early, r.read_errors) = (None, 1);
    assert!(said(&r).iter().any(|said| said.contains("cannot be said")), "{:?}", said(&r));
}

#[test]
fn waiting_for_the_linger_is_no_stall() {
    let mut r = fixture::plain();
    r.options.linger = std::time::Duration::from_millis(5);
    r.latency_us.service.p99 = 300.0;
    r.latency_us.response.p99 = 5_400.0;
    assert_eq!(said(&r), [""; 0]);
    r.latency_us.response.p99 = 12_000.0;
    assert_eq!(said(&r).len(), 1);
}

/// One caller, 20 us for each answer but one of 1 s, over 11 s: p99 hides the stall.
fn closed_run() -> (Report, Histogram<u64>) {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
    histogram.record_n(20_000, 500_000).unwrap();
    histogram.record(1_000_000_000).unwrap();
    let mut r = fixture::plain();
    r.mode = Mode::Closed;
    r.options.clients = Some(1);
    r.options.rate = Rate::Max;
    r.arrivals.intended_c2 = None;
    r.arrivals.scheduled_c2 = None;
    r.latency_us.response = Distribution::of(&histogram);
    (r, histogram)
}

#[test]
fn a_closed_run_says_what_arrivals_on_schedule_would_have_met() {
    let (r, histogram) = closed_run();
    let notes = notes(&r, Some(&histogram));
    let note = notes.iter().find(|note| note.starts_with("Closed loop: 1 caller")).unwrap();
    // 1 s at one record each 20 us; these take up to 1 s: a tenth of all 550,000, so p99 is 890 ms.
    for words in ["1.00 s", "every 20.0 us", "records would have fallen due", "not 20.0 us"] {
        assert!(note.contains(words), "{words:?} is not in {note:?}");
    }
    let number = |behind: &str| -> f64 {
        let text = note.rsplit(behind).next().unwrap();
        text.split(' ').next().unwrap().replace(',', "").parse().unwrap()
    };
    let (missed, corrected) = (number("caller, "), number("p99 of response is "));
    assert!((missed - 50_000.0).abs() < 100.0, "{note}");
    assert!((corrected - 890.0).abs() < 3.0, "{note}");
}

#[test]
fn a_closed_run_at_a_rate_is_corrected_by_that_rate() {
    let (mut r, histogram) = closed_run();
    r.options.clients = Some(4);
    r.options.rate = Rate::PerSecond(4_000.0);
    let notes = notes(&r, Some(&histogram));
    let note = notes.iter().find(|note| note.starts_with("Closed loop: 4 callers")).unwrap();
    // One each 1 ms: a thousand of half a million are no hundredth of it.
    assert!(note.contains("hardly a difference"), "{note}");
}

#[test]
fn a_closed_run_without_its_histogram_is_still_explained() {
    let (r, _) = closed_run();
    assert!(said(&r)[0].contains("not all that would have come in"), "{:?}", said(&r));
}

#[test]
fn a_long_stall_of_a_fast_target_is_corrected_in_bounded_time() {
    let (mut r, mut histogram) = closed_run();
    histogram.record(3_600_000_000_000).unwrap();
    histogram.record_n(100, 2_000_000).unwrap();
    r.latency_us.response = Distribution::of(&histogram);
    assert!(notes(&r, Some(&histogram))[0].contains("caller"));
}

#[test]
fn what_is_not_durable_says_so() {
    let mut r = fixture::plain();
    r.ack = "written".into();
    r.options.ack = highwater_wire::AckMode::Written;
    assert!(only(&r, &["NOT DURABLE", "when it is written"]).starts_with("NOT DURABLE"));
}

#[test]
fn a_stream_that_existed_keeps_its_own() {
    let mut r = fixture::plain();
    r.options.shards = 8;
    only(&r, &["orders existed already", "4 shards instead of 8"]);
}

#[test]
fn a_target_that_is_still_changing_is_named() {
    let mut r = fixture::plain();
    r.warmup.steady = Some(false);
    r.warmup.duration_s = 30.0;
    only(&r, &["30.0 s", "steady"]);
    r.warmup.steady = None;
    assert_eq!(said(&r), [""; 0]);
}

fn account() -> Account {
    Account {
        offered: 700_000,
        acknowledged: 492_000,
        refused: 208_000,
        quota: Quota { records_in: 4_100, ..Quota::default() },
        ..Account::default()
    }
}

#[test]
fn a_quota_that_bounds_the_rate_is_named() {
    let mut r = fixture::plain();
    (r.records_per_s, r.consumed_per_s) = (4_100.0, 4_100.0);
    r.account = Some(account());
    let quota = "a quota (4,100 records/s a shard; backpressure reduce)";
    let refused = "208,000 records refused for the time being";
    let note = only(&r, &["of 5,000 records/s due it acknowledged 4,100", quota, refused]);
    assert!(!note.contains("did not keep up"), "{note}");
    // The rate was kept all the same.
    r = Report { account: r.account, ..fixture::plain() };
    only(&r, &["Records had to wait", quota, refused]);
    // A quota of the client is not the stream's.
    let quota = Quota::default();
    r.account = Some(Account { quota, buffered: 0, ..account() });
    only(&r, &["a quota of this client, or a target that was busy or full"]);
    // Nothing was refused, so it is not why.
    r.account = Some(Account { refused: 0, ..account() });
    assert_eq!(said(&r), [""; 0]);
}

#[test]
fn where_records_are_shed_nothing_is_said_to_queue() {
    let mut r = fixture::plain();
    (r.records_per_s, r.consumed_per_s) = (4_000.0, 4_000.0);
    (r.dropped, r.sampled_out) = (125_000, 0);
    r.account =
        Some(Account { backpressure: Backpressure::DropNewest, dropped: 125_000, ..account() });
    let words = ["backpressure (drop-newest): 125,000 dropped", "Nothing queued up"];
    let note = only(&r, &words);
    assert!(!note.contains("latencies grow"), "{note}");
    // A few are not why so many are missing.
    r.dropped = 1_000;
    r.account = None;
    only(&r, &["did not keep up", "queued up"]);
}

#[test]
fn queues_that_grow_are_named() {
    let mut r = fixture::plain();
    r.records_per_s = 4_100.0;
    r.consumed_per_s = 4_100.0;
    only(&r, &["did not keep up", "of 5,000 records/s due", "4,100"]);
    let mut r = fixture::plain();
    r.consumed_per_s = 3_000.0;
    only(&r, &["consumers did not keep up", "3,000 records/s of 4,998"]);
    let mut r = fixture::plain();
    r.mode = Mode::Saturating;
    only(&r, &["Read the rates"]);
}

#[test]
fn a_schedule_that_is_not_what_it_claims_is_named() {
    let mut r = fixture::plain();
    assert_eq!(r.arrivals.process, "poisson");
    r.arrivals.scheduled_c2 = Some(0.9);
    only(&r, &["c2 0.900 over 599,999 gaps", "poisson arrivals should have 1.000"]);
    // Few gaps scatter.
    r.arrivals.gaps = 2_000;
    assert_eq!(said(&r), [""; 0]);
    r.arrivals.process = Arrival::Constant.to_string();
    r.arrivals.intended_c2 = Some(0.0);
    r.arrivals.scheduled_c2 = Some(0.02);
    only(&r, &["c2 0.020", "constant"]);
}

#[test]
fn bursts_that_never_end_or_are_too_few_are_named() {
    let mut r = fixture::plain();
    r.burst = Some(BurstReport { bursts: 5, recovery_s: Some(0.2), ..BurstReport::default() });
    assert_eq!(said(&r), [""; 0]);
    r.burst = Some(BurstReport { bursts: 5, recovery_s: None, ..BurstReport::default() });
    only(&r, &["After at least one burst"]);
    r.burst = Some(BurstReport { bursts: 1, recovery_s: Some(0.2), ..BurstReport::default() });
    only(&r, &["Only 1 burst"]);
}

#[test]
fn catching_up_is_compared_with_before() {
    let mut r = fixture::plain();
    let live = |factor: f64| {
        let d = r.latency_us.response;
        let d = Distribution { p999: d.p999 * factor, p99: d.p99 * factor, count: 20_000, ..d };
        LiveLatency { response: d, propagation: Distribution::default() }
    };
    let backlog = BacklogReport {
        drained: true,
        before: live(1.0),
        draining: live(2.5),
        drain_rate: 6_000.0,
        arrival_rate: 5_000.0,
        ..BacklogReport::default()
    };
    r.backlog = Some(backlog);
    only(&r, &["p99 of live response rose to 2.5 times (600 us before, 1.50 ms)"]);
    r.backlog = Some(BacklogReport { drained: false, ..backlog });
    only(&r, &["did not catch up", "6,000 records/s while 5,000 came in"]);
}

#[test]
fn skew_unknown_fates_clocks_and_low_counts_are_named() {
    let mut r = fixture::plain();
    r.workload.shard_skew = 2.31;
    only(&r, &["busiest of 4 shards took 2.3 times"]);
    let mut r = fixture::plain();
    (r.unknown, r.unknown_but_read, r.read_errors) = (56, 50, 0);
    only(&r, &["56 records", "50 of them were read back", "the others are not"]);
    r.checked = false;
    only(&r, &["cannot be said"]);
    let mut r = fixture::plain();
    r.delivery_before_arrival = 7;
    only(&r, &["7 of 1,000,000 reads"]);
    let mut r = fixture::plain();
    r.latency_us.propagation.count = 9_999;
    only(&r, &["9,999 records are too few for p99.9 and p99.99 (of propagation)"]);
}
