use std::collections::BTreeMap;

use highwater_wire::{BatchBuilder, BatchView, ProducerStamp};
use proptest::prelude::*;

use super::aggregate::EXACT;
use super::*;
use crate::expression::{EvalError, Record};

const S: u64 = 1_000_000_000;

fn fixed(size: u64, every: u64, aggregates: &[Aggregate]) -> Windows {
    Windows::new(Spec::new(Kind::Fixed { size, every }, aggregates.to_vec()).unwrap())
}

/// Start and end in seconds, key and first outcome of each row.
fn rows(out: &[Row]) -> Vec<(u64, u64, String, Outcome)> {
    let key = |row: &Row| row.key.as_deref().unwrap_or("-").to_owned();
    out.iter().map(|r| (r.start_ns / S, r.end_ns / S, key(r), r.outcomes[0].clone())).collect()
}

fn row(start: u64, end: u64, key: &str, n: u64) -> (u64, u64, String, Outcome) {
    (start, end, key.to_owned(), Outcome::Count(n))
}

#[test]
fn tumbling_windows_close_when_time_has_passed() {
    let mut windows = fixed(10 * S, 10 * S, &[Aggregate::Count]);
    let mut out = Vec::new();
    for (at, key) in [(3, "a"), (9, "b"), (10, "a"), (4, "a"), (19, "a")] {
        assert_eq!(windows.observe(at * S, Some(key), &[Sample::Here]), Fate::Counted);
    }
    windows.advance(10 * S - 1, true, &mut out);
    assert!(out.is_empty());
    windows.advance(10 * S, true, &mut out);
    assert_eq!(rows(&out), [row(0, 10, "a", 2), row(0, 10, "b", 1)]);
    assert_eq!(windows.observe(9 * S, Some("a"), &[Sample::Here]), Fate::Late);
    out.clear();
    windows.finish(true, &mut out);
    assert_eq!(rows(&out), [row(10, 20, "a", 2)]);
    assert_eq!(windows.counts(), Counts { counted: 5, late: 1, dropped: 0 });
}

#[test]
fn sliding_windows_overlap_and_skip_what_is_empty() {
    let mut windows = fixed(3 * S, S, &[Aggregate::Count]);
    let mut out = Vec::new();
    windows.observe(5 * S, None, &[Sample::Here]);
    windows.observe(6 * S, None, &[Sample::Here]);
    // Decades later: nothing in between is walked through.
    windows.observe(2_000_000_000 * S, None, &[Sample::Here]);
    windows.advance(1_999_999_999 * S, false, &mut out);
    let expected = [row(3, 6, "-", 1), row(4, 7, "-", 2), row(5, 8, "-", 2), row(6, 9, "-", 1)];
    assert_eq!(rows(&out), expected);
    out.clear();
    windows.advance(2_000_000_002 * S, false, &mut out);
    assert_eq!(out.len(), 2);
    // In the one window that is still open.
    assert_eq!(windows.observe(2_000_000_001 * S, None, &[Sample::Here]), Fate::Counted);
    out.clear();
    windows.finish(false, &mut out);
    let at = 2_000_000_000;
    assert_eq!(rows(&out), [row(at, at + 3, "-", 2), row(at + 1, at + 4, "-", 1)]);
}

#[test]
fn sessions_join_across_a_record_that_comes_late() {
    let spec = Spec::new(Kind::Session { gap: 5 * S }, vec![Aggregate::Count]).unwrap();
    let mut windows = Windows::new(spec);
    let mut out = Vec::new();
    for (at, key) in [(10, "a"), (20, "a"), (11, "b"), (30, "a")] {
        windows.observe(at * S, Some(key), &[Sample::Here]);
    }
    // Closes the gap between 10 and 20.
    windows.observe(15 * S, Some("a"), &[Sample::Here]);
    windows.advance(24 * S, true, &mut out);
    assert_eq!(rows(&out), [row(11, 11, "b", 1)]);
    windows.advance(25 * S, true, &mut out);
    assert_eq!(rows(&out)[1..], [row(10, 20, "a", 3)]);
    assert_eq!(windows.observe(20 * S, Some("a"), &[Sample::Here]), Fate::Late);
    assert_eq!(
        windows.observe(26 * S, Some("a"), &[Sample::Here]),
        Fate::Counted,
        "joins the one from 30 on"
    );
    out.clear();
    windows.finish(true, &mut out);
    assert_eq!(rows(&out), [row(26, 30, "a", 2)]);
    assert_eq!(windows.bytes, 0, "nothing is left behind");
}

#[test]
fn aggregates_by_table() {
    let number = |n: f64| Outcome::Number(Some(n));
    let of = |aggregate, samples: &[Sample]| {
        let mut windows = fixed(10 * S, 10 * S, &[aggregate]);
        for sample in samples {
            windows.observe(0, None, std::slice::from_ref(sample));
        }
        let mut out = Vec::new();
        windows.finish(false, &mut out);
        out[0].outcomes[0].clone()
    };
    let numbers = [3.0, -1.5, 4.0, f64::NAN].map(Sample::Number);
    let nothing = [Sample::Nothing];
    assert_eq!(of(Aggregate::Count, &[Sample::Here, Sample::Nothing]), Outcome::Count(1));
    assert_eq!(of(Aggregate::Rate, &[Sample::Here, Sample::Here]), number(0.2));
    assert_eq!(of(Aggregate::Sum, &numbers), number(5.5));
    assert_eq!(of(Aggregate::Min, &numbers), number(-1.5));
    assert_eq!(of(Aggregate::Max, &numbers), number(4.0));
    assert_eq!(of(Aggregate::Mean, &numbers[..2]), number(0.75));
    for aggregate in [Aggregate::Min, Aggregate::Mean, Aggregate::Sum, Aggregate::Percentile(0.5)] {
        assert_eq!(of(aggregate, &nothing), Outcome::Number(None));
    }
    let hundred: Vec<_> = (1..=1_000).map(|n| Sample::Number(f64::from(n))).collect();
    for (share, truth) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
        let Outcome::Number(Some(found)) = of(Aggregate::Percentile(share), &hundred) else {
            panic!()
        };
        assert!((found / truth - 1.0).abs() < 0.02, "p{share}: {found}");
    }
    let values = |n: u32| (0..n).map(|n| Sample::Value(n.to_string())).collect::<Vec<_>>();
    assert_eq!(of(Aggregate::Distinct, &[values(900), values(900)].concat()), Outcome::Count(900));
    assert_eq!(of(Aggregate::Distinct, &values(EXACT as u32)), Outcome::Count(EXACT as u64));
    let Outcome::About(about) = of(Aggregate::Distinct, &values(100_000)) else { panic!() };
    assert!((90_000..110_000).contains(&about), "{about}");
    let named =
        |names: &[&str]| names.iter().map(|n| Sample::Value((*n).into())).collect::<Vec<_>>();
    let top = of(Aggregate::Top(2), &named(&["b", "a", "c", "a", "b", "a"]));
    let values = vec![("a".to_owned(), 3), ("b".to_owned(), 2)];
    assert_eq!(top, Outcome::Top(Top { values, over: 0 }));
}

#[test]
fn what_is_frequent_is_found_among_many_and_never_counted_too_low() {
    let mut windows = fixed(S, S, &[Aggregate::Top(3)]);
    for round in 0..2_000u32 {
        for name in ["often".to_owned(), format!("once {round}")] {
            windows.observe(0, None, &[Sample::Value(name)]);
        }
    }
    let mut out = Vec::new();
    windows.finish(false, &mut out);
    let Outcome::Top(top) = &out[0].outcomes[0] else { panic!() };
    let (name, count) = &top.values[0];
    assert!(name == "often" && *count >= 2_000 && *count - top.over <= 2_000, "{top:?}");
    assert!(top.over > 0 && top.values.len() == 3);
}

#[test]
fn beyond_the_memory_new_keys_are_dropped_and_known_ones_stay_exact() {
    let kind = Kind::Fixed { size: S, every: S };
    let spec = |aggregate, memory| Spec::new(kind, vec![aggregate]).unwrap().with_memory(memory);
    let mut windows = Windows::new(spec(Aggregate::Count, 20_000));
    let mut dropped = 0;
    for n in 0..1_000 {
        match windows.observe(0, Some(&format!("key {n}")), &[Sample::Here]) {
            Fate::Dropped => dropped += 1,
            fate => assert_eq!(fate, Fate::Counted),
        }
        assert_eq!(windows.observe(0, Some("key 0"), &[Sample::Here]), Fate::Counted);
    }
    assert!(dropped > 500 && windows.bytes < 21_000, "{dropped} {}", windows.bytes);
    let mut out = Vec::new();
    windows.finish(true, &mut out);
    let zero = out.iter().find(|row| row.key.as_deref() == Some("key 0")).unwrap();
    assert_eq!(zero.outcomes, [Outcome::Count(1_001)]);
    assert_eq!((windows.counts().dropped, windows.bytes), (dropped, 0));
    assert_eq!(
        windows.observe(S, Some("new"), &[Sample::Here]),
        Fate::Counted,
        "there is room again"
    );

    let mut windows = Windows::new(spec(Aggregate::Distinct, 10_000));
    let mut fates = Vec::new();
    for n in 0..5_000 {
        fates.push(windows.observe(0, Some("k"), &[Sample::Value(n.to_string())]));
    }
    assert!(windows.bytes < 11_000 && fates.contains(&Fate::Dropped));
}

/// The aggregates of a new key took the last of the memory: the record counted, and its sample was in none of them.
#[test]
fn a_record_that_counts_is_in_its_aggregates() {
    for kind in [Kind::Fixed { size: S, every: S }, Kind::Session { gap: S }] {
        let spec = Spec::new(kind, vec![Aggregate::Distinct]).unwrap().with_memory(1);
        let mut windows = Windows::new(spec);
        let value = |value: &str| [Sample::Value(value.to_owned())];
        assert_eq!(windows.observe(0, Some("k"), &value("one")), Fate::Counted);
        assert_eq!(windows.observe(0, Some("k"), &value("two")), Fate::Dropped);
        let mut out = Vec::new();
        windows.finish(true, &mut out);
        assert_eq!(out[0].outcomes, [Outcome::Count(1)], "{kind:?}");
        assert_eq!(windows.bytes, 0);
    }
}

#[test]
fn the_slowest_shard_that_has_something_to_read_decides() {
    let mut watermark = Watermark::new(5);
    watermark.expect(0);
    watermark.expect(1);
    assert_eq!(watermark.now(Some(1_000)), 0);
    watermark.saw(0, 100);
    assert_eq!(watermark.now(Some(1_000)), 0, "nothing is known of the other");
    watermark.saw(1, 50);
    assert_eq!(watermark.now(Some(1_000)), 45);
    watermark.saw(1, 40);
    assert_eq!(watermark.now(Some(1_000)), 45, "it does not go back");
    watermark.caught_up(1, true);
    assert_eq!(watermark.now(Some(1_000)), 95);
    watermark.caught_up(0, true);
    assert_eq!((watermark.now(Some(1_000)), watermark.now(None)), (995, 95));
    assert_eq!(
        watermark.now(Some(70)),
        65,
        "what is on its way to the other shard may be from then"
    );
    watermark.caught_up(1, false);
    assert_eq!((watermark.now(Some(1_000)), watermark.now(Some(30))), (45, 25));
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let refused = |kind| Spec::new(kind, vec![]).map(drop).unwrap_err().to_string();
    assert!(refused(Kind::Fixed { size: 0, every: 0 }).contains("more than nothing"));
    assert!(refused(Kind::Session { gap: 0 }).contains("more than nothing"));
    assert!(refused(Kind::Fixed { size: 10, every: 3 }).contains("10 ns is none of 3 ns"));
    assert!(refused(Kind::Fixed { size: 5 * S, every: 10 * S }).contains("multiple"));
    assert!(refused(Kind::Fixed { size: 3_601 * S, every: S }).contains("3601 steps"));
    assert!(refused(Kind::Session { gap: u64::MAX }).contains("100 years"));
}

#[test]
fn queries_are_read_as_typed() {
    let query = |text| Query::parse(text, None, None).map(|q| (q.aggregates(), q.keyed()));
    let table = [
        ("", vec![Aggregate::Count], false),
        ("max(json.temp) by json.deviceid", vec![Aggregate::Max], true),
        (
            "count(), p99.5(json.ms),top( json.p , 5)",
            vec![Aggregate::Count, Aggregate::Percentile(0.995), Aggregate::Top(5)],
            false,
        ),
        ("percentile(json.ms, 50) by [json.a, 'by']", vec![Aggregate::Percentile(0.5)], true),
        ("distinct(json.query.contains(' by ') ? 'a,b' : key)", vec![Aggregate::Distinct], false),
        ("count(json.status == 404) by json.by", vec![Aggregate::Count], true),
    ];
    for (text, aggregates, keyed) in table {
        assert_eq!(query(text), Ok((aggregates, keyed)), "{text}");
    }
    for (text, words) in [
        ("median(json.a)", "\"median(json.a)\" is no aggregate"),
        ("max", "is no aggregate"),
        ("max(json.a", "is no aggregate"),
        ("max()", "max() needs an expression"),
        ("p101(json.a)", "the percentile is \"101\""),
        ("top(json.a, 0)", "from 1 to 100"),
        ("max(json.)", "in \"json.\": column "),
        ("max(json.a) by jsn.a", "there is no \"jsn\""),
        ("max(json.a),", "is no aggregate"),
    ] {
        let error = query(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    let two = Query::parse("count() by key", Some("json.a"), None).map(drop).unwrap_err();
    assert_eq!(two, QueryError::TwoKeys("key".into()));
    let many = vec!["count()"; 17].join(",");
    assert!(matches!(query(&many), Err(QueryError::TooMany(17))));
}

#[test]
fn records_give_samples_or_say_why_not() {
    let query = Query::parse(
        "max(json.t), distinct(json.q), count(json.t > 1) by json.id",
        None,
        Some("json.time"),
    )
    .unwrap();
    let of = |payload: &str| {
        let mut builder = BatchBuilder::default();
        builder.push(b"k", &[], payload.as_bytes(), 0).unwrap();
        let batch = builder.finish(ProducerStamp::default()).to_vec();
        let view = BatchView::parse(&batch).unwrap().records().next().unwrap();
        query.samples(&Record::new(view, 0, query.wanted()))
    };
    let samples = of(r#"{"time":"1970-01-01T00:00:01Z","id":7,"t":2.5,"q":null}"#).unwrap();
    assert_eq!((samples.at_ns, samples.key.as_deref()), (Some(S), Some("7")));
    assert_eq!(samples.samples, [Sample::Number(2.5), Sample::Value("null".into()), Sample::Here]);
    let samples = of(r#"{"time":1.5,"id":"7","t":"hot"}"#).unwrap();
    assert_eq!((samples.at_ns, samples.key.as_deref()), (Some(S + S / 2), Some("\"7\"")));
    assert_eq!(samples.samples, [Sample::Nothing, Sample::Nothing, Sample::Nothing]);
    assert_eq!(
        samples.errors,
        [EvalError::WrongType, EvalError::MissingField, EvalError::WrongType]
    );
    assert_eq!(of(r#"{"time":"noon","id":1}"#), Err(EvalError::NotConvertible));
    assert_eq!(of(r#"{"time":1}"#), Err(EvalError::MissingField));
    assert_eq!(of("plain"), Err(EvalError::NotJson));
}

/// A record: when (in seconds) and of which key.
type Event = (u64, u8);

proptest! {
    #[test]
    fn windows_agree_with_counting_by_hand(
        mut events in prop::collection::vec((0u64..120, 0u8..4), 0..80), every in 1u64..6, steps in 1u64..5,
        lateness in 0u64..20,
    ) {
        // As late as they may be, not later.
        let order: Vec<u64> = events.iter().enumerate().map(|(i, e)| e.0 * 100 + (i as u64 * 7919) % (lateness * 100 + 1)).collect();
        let mut sorted: Vec<(u64, Event)> = order.into_iter().zip(events.drain(..)).collect();
        sorted.sort_by_key(|(at, _)| *at);
        let size = every * steps;
        let mut windows = fixed(size, every, &[Aggregate::Count, Aggregate::Min]);
        let mut watermark = Watermark::new(lateness);
        let mut out = Vec::new();
        let mut expected: BTreeMap<(u64, String), u64> = BTreeMap::new();
        for (_, (at, key)) in &sorted {
            let key = key.to_string();
            for end in (at / every + 1)..=(at / every + steps) {
                *expected.entry((end * every, key.clone())).or_default() += 1;
            }
            prop_assert_eq!(windows.observe(*at, Some(&key), &[Sample::Here, Sample::Number(*at as f64)]), Fate::Counted);
            watermark.saw(0, *at);
            windows.advance(watermark.now(None), true, &mut out);
        }
        windows.finish(true, &mut out);
        let got: BTreeMap<(u64, String), u64> = out.iter().map(|row| {
            let Outcome::Count(n) = row.outcomes[0] else { panic!() };
            ((row.end_ns, row.key.as_deref().unwrap().to_owned()), n)
        }).collect();
        prop_assert_eq!(got.len(), out.len(), "each once");
        prop_assert!(out.windows(2).all(|pair| pair[0].end_ns <= pair[1].end_ns), "in order");
        prop_assert_eq!(got, expected);
        prop_assert_eq!(windows.bytes, 0);
    }

    #[test]
    fn sessions_agree_with_sorting_first(mut events in prop::collection::vec((0u64..200, 0u8..3), 0..60), gap in 1u64..12) {
        let spec = Spec::new(Kind::Session { gap }, vec![Aggregate::Count]).unwrap();
        let mut windows = Windows::new(spec);
        for (at, key) in &events {
            windows.observe(*at, Some(&key.to_string()), &[Sample::Here]);
        }
        let mut out = Vec::new();
        windows.finish(true, &mut out);
        let mut got: Vec<(String, u64, u64, Outcome)> = out.iter()
            .map(|row| (row.key.as_deref().unwrap().to_owned(), row.start_ns, row.end_ns, row.outcomes[0].clone())).collect();
        got.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        events.sort_by_key(|(at, key)| (*key, *at));
        let mut expected: Vec<(String, u64, u64, u64)> = Vec::new();
        for (at, key) in &events {
            let key = key.to_string();
            match expected.last_mut() {
                Some(last) if last.0 == key && *at <= last.2 + gap => { last.2 = *at; last.3 += 1; }
                _ => expected.push((key, *at, *at, 1)),
            }
        }
        let expected: Vec<_> = expected.into_iter().map(|(k, s, e, n)| (k, s, e, Outcome::Count(n))).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(windows.bytes, 0);
    }

    #[test]
    fn no_time_panics(times in prop::collection::vec(any::<u64>(), 1..20), every in 1u64.., steps in 1u64..100, gap in 1u64..1 << 60) {
        let kinds = [Kind::Fixed { size: every.saturating_mul(steps), every }, Kind::Session { gap }];
        for kind in kinds {
            let Ok(spec) = Spec::new(kind, vec![Aggregate::Distinct, Aggregate::Top(1)]) else { continue };
            let mut windows = Windows::new(spec);
            let mut out = Vec::new();
            for at in &times {
                let value = Sample::Value(at.to_string());
                windows.observe(*at, None, &[value.clone(), value]);
                windows.advance(at / 2, false, &mut out);
            }
            windows.finish(false, &mut out);
        }
    }
}
