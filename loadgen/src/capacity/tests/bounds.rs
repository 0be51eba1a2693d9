//! What is only a bound, or was measured on much less than is asked: it is said, and promised nowhere.

use super::*;

/// A search whose generator was at its end before anything gave out.
fn open() -> Evidence {
    let mut evidence = measured();
    let search = &mut evidence.sustained[0];
    (search.estimate, search.safe) = (None, Some(10e3));
    (search.trials, search.void) = (4, 9);
    (search.soak, search.wanted_s) = (Some((278.0, true)), Some(600.0));
    search.notes =
        vec!["12,700/s could not be offered: this machine bounds what was tried.".into()];
    evidence
}

#[test]
fn a_bound_from_below_is_called_one_and_the_reason_is_on_the_first_page() {
    let plan = planned(&open(), &Demand { groups: 3, ..Demand::of(8e3) });
    let text = plan.to_string();
    for words in [
        "at least 10,000 records/s with response.p99 within 10.0 ms; NO LIMIT WAS FOUND",
        "(4 trials, 9 more void, soak of 4 min 38 s of 10 min",
        "delivers 650,000 when more is offered",
        "No limit was found. 12,700/s could not be offered",
        "9 of 13 trials of search are void",
    ] {
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words), "{words:?} is missing in\n{text}");
    }
    assert_eq!(plan.trust.verdict, "poor");
    let average = answer(&plan, Question::Headroom);
    assert_eq!(average.verdict, Verdict::Tight);
    assert!(average.says.contains("80.0 % of the safe rate") && average.says.contains("or less"));
    assert!(plan.sustains.unwrap().open);
    assert!(!planned(&measured(), &asked()).sustains.unwrap().open);
}

#[test]
fn more_than_is_delivered_at_all_does_not_fit() {
    // C is 700k at most.
    for (rate, verdict) in [(690e3, Verdict::BeyondMeasured), (710e3, Verdict::No)] {
        let plan = planned(&open(), &Demand { groups: 3, ..Demand::of(rate) });
        assert_eq!(answer(&plan, Question::Headroom).verdict, verdict, "{rate}");
    }
}

/// A bound from below says what is enough, and not that a shard more is needed.
#[test]
fn shards_are_not_added_to_a_rate_at_which_nothing_gave_out() {
    let mut evidence = open();
    evidence.ceilings.extend([1u32, 2, 4, 8, 16, 32].map(|shards| Ceiling {
        from: format!("sweep/{shards}"),
        setup: Setup { shards, skew: 0.0, ..setup() },
        rate: Range::exactly(40e3 * f64::from(shards) / (1.0 + 0.01 * f64::from(shards - 1))),
        lasted_s: 10.0,
        generator_busy: None,
    }));
    for (rate, verdict) in [(5e3, Verdict::Known), (9e3, Verdict::BeyondMeasured)] {
        let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(rate) });
        let shards = answer(&plan, Question::ShardsAndCores);
        assert_eq!(shards.verdict, verdict, "{rate}: {}", shards.says);
    }
}

/// The minimum that the format adds was taken for what is written.
#[test]
fn an_overhead_that_was_not_measured_never_fits() {
    let mut evidence = measured();
    let place = Place { size_bytes: Some(1 << 50), fill: Some(0.5), ..Place::default() };
    let machine = Environment { data_dir: Some(place), ..Environment::default() };
    for source in &mut evidence.sources {
        source.environment = Some(machine.clone());
    }
    let plan = planned(&evidence, &asked());
    let retention = answer(&plan, Question::Retention);
    assert_eq!(retention.verdict, Verdict::Tight);
    assert!(retention.says.starts_with("at least "), "{}", retention.says);
    assert!(retention.says.contains("overhead (not measured)"), "{}", retention.says);
    assert!(retention.command.is_some());
}

#[test]
fn a_line_to_the_end_of_a_core_is_refuted_by_what_was_delivered() {
    let mut evidence = measured();
    let window = Window {
        records_in: 5e3,
        bytes_in: 5e3 * 540.0,
        busy: 0.25,
        span_s: 10.0,
        ..Window::default()
    };
    let recorded =
        Recorded { mean: window, windows: vec![window], cores: 1, ..Recorded::default() };
    evidence.sources.push(source("load.rec", SourceKind::Recording));
    evidence.recorded.push(("load.rec".into(), recorded));
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(8e3) });
    let limit = answer(&plan, Question::FirstLimit);
    // 5k at 25 %: used up at 20k; 600k and more were delivered.
    assert_eq!(limit.verdict, Verdict::Known);
    assert!(limit.says.contains("used up at 20,000, but 650,000 were delivered"), "{}", limit.says);
}

#[test]
fn a_short_drain_of_what_was_in_memory_is_cautioned_against() {
    for (outage_s, took_s, told) in [
        (300.0, Some(240.0), false),
        (300.0, Some(3.0), true),
        (100.0, Some(240.0), true),
        (1_800.0, Some(3.0), false),
    ] {
        let mut evidence = measured();
        (evidence.drains[0].outage_s, evidence.drains[0].took_s) = (outage_s, took_s);
        let plan = planned(&evidence, &asked());
        let caution = &answer(&plan, Question::CatchUp).caution;
        assert_eq!(caution.is_some(), told, "{outage_s} {took_s:?}: {caution:?}");
    }
}

/// A group that drains beside next to no arrivals says nothing of as many that follow.
#[test]
fn groups_are_not_counted_by_a_drain_beside_fewer_arrivals() {
    let mut evidence = measured();
    evidence.drains[0].arrival = 5e3;
    let plan = planned(&evidence, &asked());
    assert_eq!(answer(&plan, Question::Groups).verdict, Verdict::NotMeasured);
}
