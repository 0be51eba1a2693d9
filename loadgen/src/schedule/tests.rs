//! Due times against the arithmetic they stand for.

use std::time::Duration;

use proptest::prelude::*;

use super::course::{Step, Steps};
use super::*;

const SECOND: u64 = 1_000_000_000;

/// The first `each` due times of every part, together, in order, from a start at 1,000.
fn merged(
    arrival: Arrival,
    profile: &PreparedProfile,
    rate: f64,
    parts: usize,
    each: usize,
    seed: u64,
) -> Vec<u64> {
    let mut all = Vec::new();
    for part in 0..parts {
        let mut schedule = Schedule::new(arrival, profile, rate, part, parts, 1_000, seed);
        for _ in 0..each {
            all.push(schedule.next_ns().saturating_sub(1_000));
            schedule.advance();
        }
    }
    all.sort_unstable();
    all
}

fn c2(due: &[u64]) -> f64 {
    let mut gaps = Gaps::default();
    due.iter().for_each(|at| gaps.add(*at));
    gaps.c2().unwrap()
}

/// Due times of each of `parts` until `until_ns`, pooled.
fn pooled(
    arrival: Arrival,
    profile: &PreparedProfile,
    rate: f64,
    parts: usize,
    until_ns: u64,
) -> Gaps {
    let mut pooled = Gaps::default();
    for part in 0..parts {
        let mut schedule = Schedule::new(arrival, profile, rate, part, parts, 0, 42);
        let mut gaps = Gaps::default();
        while schedule.next_ns() < until_ns {
            gaps.add(schedule.next_ns());
            schedule.advance();
        }
        pooled.merge(&gaps);
    }
    pooled
}

/// When record `k` is due along `steps`, by adding up one step after the other.
fn by_hand(steps: &Steps, k: u64) -> u64 {
    let mut wanted = u128::from(k) * RECORD;
    let mut begin = 0u64;
    for step in steps.steps().iter().cycle() {
        let whole = u128::from(step.length_ns) * u128::from(step.rate);
        if wanted < whole {
            return begin + (wanted / u128::from(step.rate)) as u64;
        }
        wanted -= whole;
        begin += step.length_ns;
    }
    unreachable!("steps repeat for ever")
}

fn flat() -> PreparedProfile {
    PreparedProfile::flat()
}

fn burst(peak: f64, on_ms: u64, every_ms: u64) -> PreparedProfile {
    let (on, every) = (Duration::from_millis(on_ms), Duration::from_millis(every_ms));
    Profile::Burst(Burst { peak, on, every }).prepare().unwrap()
}

fn steps() -> impl Strategy<Value = Steps> {
    let rate = prop_oneof![Just(0.0), 0.0..1e3f64, 1e3..1e9f64];
    let step = (1u64..5_000_000, rate).prop_map(|(length, rate)| Step::new(length, rate));
    prop::collection::vec(step, 1..6)
        .prop_filter_map("nothing due", Steps::new)
        // By hand, a record every few thousand periods takes too long.
        .prop_filter("hardly anything due", |steps| steps.mean_rate() > 10.0)
}

#[test]
fn the_kth_due_time_is_exact_where_an_interval_in_whole_nanoseconds_drifts() {
    // 7 M/s: an interval rounded to 143 ns is off by 0.1 %, a second in a quarter of an hour.
    let day = 7_000_000 * 86_400;
    let mut schedule = Schedule::new(Arrival::Constant, &flat(), 7e6, day - 1, 1, 0, 0);
    schedule.advance();
    assert_eq!(schedule.next_ns(), 86_400 * SECOND);
    let mut schedule = Schedule::new(Arrival::Constant, &flat(), 7e6, 0, 1, 0, 0);
    for k in 0..7_000_000u128 {
        assert_eq!(u128::from(schedule.next_ns()), k * 1_000 / 7);
        schedule.advance();
    }
}

#[test]
fn parts_of_a_constant_run_interleave_to_the_one_exact_sequence() {
    let due = merged(Arrival::Constant, &flat(), 30_000.0, 7, 100, 0);
    let exact: Vec<u64> = (0..700u64).map(|k| k * 100_000 / 3).collect();
    assert_eq!(due, exact);
}

#[test]
fn constant_arrivals_have_no_variation() {
    for (rate, parts) in [(1e3, 1), (30_000.0, 7), (1e6, 3), (25e6, 1)] {
        let gaps = pooled(Arrival::Constant, &flat(), rate, parts, (1e6 / rate * 1e9) as u64);
        assert!(gaps.count() > 900_000, "{}", gaps.count());
        let c2 = gaps.c2().unwrap();
        assert!(c2 < 0.01, "c² {c2} at {rate}/s");
    }
    assert_eq!(flat().intended_c2(Arrival::Constant, 5.0, 9), Some(0.0));
}

#[test]
fn poisson_parts_add_up_to_a_poisson_stream_of_the_whole_rate() {
    for parts in [1, 8] {
        let each = 1_100_000 / parts;
        let mut due = merged(Arrival::Poisson, &flat(), 100_000.0, parts, each, 42);
        // Parts end at different times: judge only where all are still there.
        due.truncate(1_000_001);
        let mean = (due[1_000_000] - due[0]) as f64 / 1e6;
        assert!((mean / 10_000.0 - 1.0).abs() < 0.005, "mean {mean} with {parts} parts");
        let c2 = c2(&due);
        assert!((0.95..=1.05).contains(&c2), "c² {c2} with {parts} parts");
        // And so is each of them, which is what a report measures.
        let gaps = pooled(Arrival::Poisson, &flat(), 100_000.0, parts, 10 * SECOND);
        let c2 = gaps.c2().unwrap();
        assert!((0.95..=1.05).contains(&c2), "pooled c² {c2} with {parts} parts");
    }
    assert_eq!(flat().intended_c2(Arrival::Poisson, 5.0, 9), Some(1.0));
}

#[test]
fn bursts_have_exactly_the_records_of_their_rate() {
    // 2.5 times 300/s for the first 10 s of every minute, and 300/s for the rest.
    let profile = burst(2.5, 10_000, 60_000);
    let mut counts = [[0u32; 2]; 3];
    for part in 0..4 {
        let mut schedule = Schedule::new(Arrival::Constant, &profile, 300.0, part, 4, 77, 0);
        while schedule.next_ns() < 77 + 180 * SECOND {
            let offset = schedule.next_ns() - 77;
            let on = usize::from(profile.in_burst(offset));
            assert_eq!(on == 1, offset % (60 * SECOND) < 10 * SECOND);
            counts[(offset / (60 * SECOND)) as usize][on] += 1;
            schedule.advance();
        }
    }
    assert_eq!(counts, [[15_000, 7_500]; 3]);
    assert_eq!(profile.mean_rate(300.0), 375.0);
    assert_eq!(profile.length(), None);
}

#[test]
fn poisson_follows_bursts() {
    let profile = burst(10.0, 100, 1_000);
    let mut counts = [0u64; 2];
    for part in 0..3 {
        let mut schedule = Schedule::new(Arrival::Poisson, &profile, 1_000.0, part, 3, 0, 5);
        while schedule.next_ns() < 200 * SECOND {
            counts[usize::from(profile.in_burst(schedule.next_ns()))] += 1;
            schedule.advance();
        }
    }
    // 180,000 and 200,000 expected: standard deviations of 424 and 447.
    assert!(
        counts[0].abs_diff(180_000) < 2_200 && counts[1].abs_diff(200_000) < 2_300,
        "{counts:?}"
    );
}

#[test]
fn the_intended_variation_is_the_one_that_is_measured() {
    let bursts = burst(5.0, 200, 2_000);
    let silence = {
        let steps = [(SECOND / 2, 20_000.0), (SECOND / 4, 0.0), (SECOND / 4, 3_000.0)];
        let steps = steps.map(|(length, rate)| Step::new(length, rate)).to_vec();
        PreparedProfile::stepped(Steps::new(steps).unwrap())
    };
    for profile in [bursts, silence] {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            for parts in [1, 5] {
                let intended = profile.intended_c2(arrival, 2_000.0, parts).unwrap();
                let gaps = pooled(arrival, &profile, 2_000.0, parts, 100 * SECOND);
                let c2 = gaps.c2().unwrap();
                assert!((c2 / intended - 1.0).abs() < 0.05, "{arrival} {parts}: {c2} {intended}");
            }
        }
    }
    // Less than a record per burst: no simple answer.
    assert_eq!(burst(5.0, 200, 2_000).intended_c2(Arrival::Constant, 0.5, 1), None);
}

#[test]
fn a_trace_of_times_is_dealt_in_turn_and_ends() {
    let times = [0, 5, 5, 7, 20, 21, 90];
    let profile = PreparedProfile::timed(&times);
    for parts in 1..9 {
        let mut due = merged(Arrival::Poisson, &profile, 1.0, parts, 7, 0);
        due.retain(|at| *at < u64::MAX - 1_000);
        assert_eq!(due, times, "{parts} parts");
    }
    let mut schedule = Schedule::new(Arrival::Constant, &profile, 1.0, 1, 2, 100, 0);
    assert_eq!((schedule.due_before(100 + 21), schedule.due_before(100 + 22)), (2, 3));
    (0..4).for_each(|_| schedule.advance());
    assert_eq!((schedule.next_ns(), schedule.due_before(u64::MAX)), (u64::MAX, 0));
    assert_eq!(profile.length(), Some(Duration::from_nanos(90)));
    let alone = profile.intended_c2(Arrival::Poisson, 0.0, 1).unwrap();
    assert_eq!(alone, c2(&times));
}

#[test]
fn a_stream_is_its_seeds() {
    let with = |seed| merged(Arrival::Poisson, &burst(3.0, 1, 9), 1e5, 3, 500, seed);
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn bursts_that_are_none_are_refused() {
    let seconds = Duration::from_secs;
    for (peak, on, every, field) in [
        (1.0, seconds(1), seconds(2), "peak is 1"),
        (f64::NAN, seconds(1), seconds(2), "peak is NaN"),
        (2.0, seconds(0), seconds(2), "on is 0ns"),
        (2.0, seconds(2), seconds(2), "on is 2s of every 2s"),
        (2.0, seconds(2), Duration::MAX, "every is"),
    ] {
        let error = Profile::Burst(Burst { peak, on, every }).prepare().unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
    let spec = TraceSpec { file: "none".into(), speed: 0.0 };
    let said = Profile::Trace(spec).prepare().unwrap_err().to_string();
    assert!(said.starts_with("speed is 0; it must be more than 0"), "{said}");
}

#[test]
fn a_trace_file_is_followed() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"rate\n100\n0\n300\n").unwrap();
    let spec = TraceSpec { file: file.path().to_owned(), speed: 2.0 };
    let profile = Profile::Trace(spec).prepare().unwrap();
    assert_eq!(profile.length(), Some(Duration::from_millis(1_500)));
    assert!((profile.mean_rate(7.0) - 800.0 / 3.0).abs() < 1e-9);
    let due = merged(Arrival::Constant, &profile, 7.0, 1, 800, 0);
    let within = |from: u64, to: u64| due.iter().filter(|at| (from..to).contains(*at)).count();
    let half = SECOND / 2;
    let found: Vec<usize> = (0..6).map(|i| within(i * half, (i + 1) * half)).collect();
    assert_eq!(found, [100, 0, 300, 100, 0, 300]);
}

#[test]
fn profiles_are_written_as_they_are_read() {
    let profiles = [
        Profile::Flat,
        Profile::Burst(Burst::default()),
        Profile::Trace(TraceSpec { file: "a.csv".into(), speed: 2.0 }),
    ];
    for profile in profiles {
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile, "{text}");
    }
    assert_eq!(
        serde_json::to_string(&Profile::Burst(Burst::default())).unwrap(),
        r#"{"kind":"burst","peak":2.5,"on_s":10.0,"every_s":60.0}"#
    );
}

proptest! {
    #[test]
    fn every_due_time_is_exact_along_any_profile(
        steps in steps(), parts in 1usize..5, part in 0usize..5,
    ) {
        let profile = PreparedProfile::stepped(steps.clone());
        let part = part % parts;
        let mut schedule = Schedule::new(Arrival::Constant, &profile, 1.0, part, parts, 0, 0);
        for i in 0..300u64 {
            let k = part as u64 + i * parts as u64;
            prop_assert_eq!(schedule.next_ns(), by_hand(&steps, k), "record {}", k);
            schedule.advance();
        }
    }

    #[test]
    fn merged_parts_are_the_whole(steps in steps(), parts in 1usize..9) {
        let profile = PreparedProfile::stepped(steps);
        let whole = merged(Arrival::Constant, &profile, 1.0, 1, parts * 50, 0);
        prop_assert_eq!(merged(Arrival::Constant, &profile, 1.0, parts, 50, 0), whole);
    }

    #[test]
    fn what_is_left_is_counted_exactly(
        steps in steps(), parts in 1usize..5, part in 0usize..5,
        done in 0u64..50, more in 0u64..500,
    ) {
        let profile = PreparedProfile::stepped(steps);
        let mut schedule =
            Schedule::new(Arrival::Constant, &profile, 1.0, part % parts, parts, 77, 0);
        (0..done).for_each(|_| schedule.advance());
        let mut walk = schedule.clone();
        (0..more).for_each(|_| walk.advance());
        let due = schedule.due_before(walk.next_ns());
        // Above one record per nanosecond several share a due time.
        prop_assert!(due <= more);
        let mut recount = schedule.clone();
        (0..due).for_each(|_| recount.advance());
        prop_assert_eq!(recount.next_ns(), walk.next_ns());
        let mut last = schedule.clone();
        (1..due).for_each(|_| last.advance());
        prop_assert!(due == 0 || last.next_ns() < walk.next_ns());
    }

    #[test]
    fn poisson_never_goes_back_along_any_profile(steps in steps(), parts in 1usize..5) {
        let profile = PreparedProfile::stepped(steps.clone());
        let mut schedule = Schedule::new(Arrival::Poisson, &profile, 1.0, 0, parts, 5, 1);
        let mut last = 5;
        for _ in 0..300 {
            let next = schedule.next_ns();
            prop_assert!(next >= last);
            // Nothing is due while the rate is 0.
            let mut into = (next - 5) % steps.length_ns();
            let step = steps.steps().iter().find(|step| {
                let found = into < step.length_ns;
                into = into.saturating_sub(step.length_ns);
                found
            });
            prop_assert!(step.is_some_and(|step| step.rate > 0));
            last = next;
            schedule.advance();
        }
    }

    #[test]
    fn no_rate_or_position_overflows(
        rate in 1e-12..1e10f64, part in 0usize..16_384, poisson in any::<bool>(),
        peak in 1.1..1000.0f64, bursts in any::<bool>(),
    ) {
        let arrival = if poisson { Arrival::Poisson } else { Arrival::Constant };
        let profile = if bursts { burst(peak, 1, 3_000_000_000) } else { flat() };
        let start = u64::MAX / 2;
        let mut schedule = Schedule::new(arrival, &profile, rate, part, 16_384, start, 0);
        let mut last = 0;
        for _ in 0..10 {
            prop_assert!(schedule.next_ns() >= last);
            last = schedule.next_ns();
            schedule.due_before(u64::MAX);
            schedule.advance();
        }
    }
}
