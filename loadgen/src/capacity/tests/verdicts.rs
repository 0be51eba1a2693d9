//! Which measurement counts where several say different things, and that the answers of one plan agree.

use super::*;

/// A search that met its goals nowhere.
fn unreachable(name: &str) -> Sustained {
    Sustained {
        estimate: None,
        safe: None,
        unreachable: true,
        remark: "response.p99 was missed at every rate tried".into(),
        ..sustained(name, setup(), 1.0)
    }
}

fn with_bound(name: &str, bound_us: f64, rate: f64) -> Sustained {
    Sustained {
        goals: format!("response.p99 within {} ms", bound_us / 1e3),
        bounds: vec![("response.p99".into(), bound_us)],
        ..sustained(name, setup(), rate)
    }
}

/// The curve may be of overload, of which nobody promises anything: only its shape counts.
#[test]
fn shards_and_average_agree_about_what_was_measured() {
    let curve = |n: f64| 20e3 * n / (1.0 + 0.05 * (n - 1.0));
    for (n0, skew) in [(1u32, 0.0), (4, 0.0), (4, 1.31)] {
        let mut evidence = measured();
        let here = Setup { shards: n0, skew, ..setup() };
        let mut search = sustained("search", here, curve(f64::from(n0)));
        search.safe = Some(curve(f64::from(n0)) / 9.0);
        evidence.ceilings = [1u32, 2, 3, 4, 6, 8]
            .map(|shards| Ceiling {
                from: format!("sweep/{shards}"),
                setup: Setup { shards, skew: 0.0, ..setup() },
                rate: Range::exactly(curve(f64::from(shards))),
                lasted_s: 10.0,
                generator_busy: None,
            })
            .into();
        let safe = search.safe.unwrap();
        evidence.sustained = vec![search];
        for (share, enough) in [(0.3, true), (0.69, true), (0.71, false), (0.99, false)] {
            let demand = Demand { groups: 3, ..Demand::of(safe * share) };
            let plan = planned(&evidence, &demand);
            assert_eq!(plan.scaling.as_ref().unwrap().of, "delivered under overload");
            let fits = answer(&plan, Question::Headroom).verdict == Verdict::Fits;
            let shards = answer(&plan, Question::ShardsAndCores);
            let needed = figure(shards, formula::SHARDS_BY_CURVE).0;
            let name = format!("{n0} shards, skew {skew}, {share}: {needed}");
            assert_eq!((fits, needed <= f64::from(n0)), (enough, enough), "{name}");
        }
        // Five times what is safe on average: more than the curve has of what is safe within reach, or more shards.
        let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(safe * 5.0) });
        let shards = answer(&plan, Question::ShardsAndCores);
        let needed = shards.figures.iter().find(|f| f.formula == formula::SHARDS_BY_CURVE.id);
        let more = needed.is_some_and(|f| f.value.unwrap() > 7.0);
        assert!(shards.verdict == Verdict::No || more, "{shards:?}");
        // Ten times as much is too much; where nothing gave out at what is safe, nobody knows of what is delivered (nine times
        // as much).
        let verdicts = |evidence: &Evidence, times: f64| {
            let plan = planned(evidence, &Demand { groups: 3, ..Demand::of(safe * times) });
            [Question::Headroom, Question::ShardsAndCores].map(|q| answer(&plan, q).verdict)
        };
        assert_eq!(verdicts(&evidence, 10.0), [Verdict::No; 2]);
        evidence.sustained[0].estimate = None;
        assert_eq!(verdicts(&evidence, 8.0), [Verdict::BeyondMeasured; 2]);
    }
}

#[test]
fn the_tightest_goals_count_and_the_others_are_named() {
    let tight = || with_bound("tight", 50e3, 2e3);
    let loose = || with_bound("loose", 500e3, 19e3);
    let again = || with_bound("again", 50e3, 3e3);
    let never = || Sustained { bounds: tight().bounds, ..unreachable("never") };
    for (searches, from) in [
        (vec![tight(), loose()], Some("tight")),
        (vec![loose(), tight()], Some("tight")),
        (vec![tight(), loose(), again()], Some("again")),
        (vec![loose(), never()], None),
        (vec![never(), again()], Some("again")),
    ] {
        let mut evidence = measured();
        evidence.sustained = searches;
        let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(1e3) });
        assert_eq!(plan.sustains.as_ref().map(|s| s.from.as_str()), from);
        let average = answer(&plan, Question::Headroom);
        match from {
            None => assert_eq!(average.verdict, Verdict::No, "{average:?}"),
            Some(_) => {
                let other = evidence.sustained.iter().any(|s| s.from == "loose");
                let named = average.notes.iter().any(|note| note.contains("loose (response.p99"));
                assert_eq!(named, other, "{:?}", average.notes);
            }
        }
    }
    // Of goals that cannot be compared the careful one.
    let mut evidence = measured();
    let median = Sustained { bounds: vec![("response.p50".into(), 1e3)], ..again() };
    evidence.sustained = vec![median, tight()];
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(1e3) });
    assert_eq!(plan.sustains.unwrap().from, "tight");
}

/// A resource that is far from its end is not what gave out.
#[test]
fn what_gave_out_is_not_said_of_what_had_room() {
    // 900k/s are read at most: 66.7 % at 600k, 94.4 % at 850k, 111 % at 1M; 571k are safe.
    for (rate, verdict) in [
        (400e3, Verdict::Known),
        (600e3, Verdict::NotMeasured),
        (850e3, Verdict::Known),
        (1e6, Verdict::No),
    ] {
        let plan = planned(&measured(), &Demand { groups: 3, ..Demand::of(rate) });
        let limit = answer(&plan, Question::FirstLimit);
        assert_eq!(limit.verdict, verdict, "{rate}: {limit:?}");
        if verdict == Verdict::NotMeasured {
            let words = "none of what was measured is near its end at 600,000 records/s";
            assert!(limit.says.starts_with(words), "{}", limit.says);
            assert!(limit.says.contains("not known: run highwater record"), "{}", limit.says);
            assert!(!limit.figures.is_empty());
        }
    }
    // That nothing above was tried is no sign that anything gave out.
    let mut open = measured();
    open.sustained[0].estimate = None;
    let plan = planned(&open, &Demand { groups: 3, ..Demand::of(600e3) });
    assert_eq!(answer(&plan, Question::FirstLimit).verdict, Verdict::Known);
}

/// That nothing is known about how far a figure may be off is no interval of no width.
#[test]
fn a_peak_over_a_single_figure_has_no_interval() {
    let mut evidence = measured();
    evidence.ceilings[0].rate = Range::exactly(650e3);
    let plan = planned(&evidence, &asked());
    let peak = answer(&plan, Question::Peak);
    for of in [formula::PEAK_BACKLOG, formula::PEAK_DELAY, formula::PEAK_CLEAR] {
        let (_, low, high) = figure(peak, of);
        assert_eq!((low, high), (None, None), "{}", of.id);
    }
    assert!(!peak.says.contains('['), "{}", peak.says);
}

#[test]
fn fewer_groups_than_asked_for_are_told_wherever_a_rate_is() {
    let more = Demand { groups: 4, ..asked() };
    let words = "; but measured with 3 groups where 4 are asked for";
    for rate in [100e3, 400e3, 600e3] {
        let plan = planned(&measured(), &Demand { rate, ..more.clone() });
        for question in [Question::Headroom, Question::Peak, Question::ShardsAndCores] {
            let answer = answer(&plan, question);
            assert!(answer.says.ends_with(words), "{rate}: {}", answer.says);
            assert_ne!(answer.verdict, Verdict::Fits, "{rate} {question:?}");
        }
    }
    let plan = planned(&measured(), &asked());
    assert!(plan.answers.iter().all(|answer| !answer.says.contains("but measured with")));
    // Without the capacity, it has nothing to say.
    let none = Evidence { sources: vec![source("r", SourceKind::Run)], ..Evidence::default() };
    assert!(!answer(&planned(&none, &more), Question::Headroom).says.contains("but measured"));
}

#[test]
fn another_version_read_by_force_is_on_the_page() {
    let mut evidence = measured();
    evidence.sources[0].schema = "highwater-search/0".into();
    let plan = planned(&evidence, &asked());
    assert_eq!(plan.trust.verdict, "poor");
    let text = plan.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("POOR: search is of schema highwater-search/0, and read by --force"),
        "{text}"
    );
}

#[test]
fn a_plan_says_which_machine_it_is_of() {
    let mut evidence = measured();
    let machine = Environment {
        cpus: 32,
        cpu_model: Some("AMD EPYC".into()),
        kernel: "linux 6.18".into(),
        virtualisation: Some("KVM".into()),
        ..Environment::default()
    };
    for source in &mut evidence.sources {
        source.environment = Some(machine.clone());
    }
    let words = "32 CPUs, AMD EPYC, linux 6.18, virtual (KVM)";
    let plan = planned(&evidence, &asked());
    assert!(plan.to_string().contains(&format!("\n  on {words}\n")), "{plan}");
    let kept = serde_json::to_value(&plan).unwrap();
    assert_eq!(kept["sources"][0]["environment"]["cpu_model"], "AMD EPYC");
    let place = Place { file_system: Some("tmpfs".into()), ..Place::default() };
    for source in &mut evidence.sources {
        source.target = "10.0.0.5:7411".into();
        source.environment.as_mut().unwrap().data_dir = Some(place.clone());
    }
    let plan = planned(&evidence, &asked());
    let text = plan.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains(&format!("{words} (the generator's; the server is on 10.0.0.5)")),
        "{text}"
    );
    assert!(text.contains("POOR: the data was kept in memory (tmpfs)"), "{text}");
}

/// Why so much less is safe than may be, a reader has to be told.
#[test]
fn a_rate_known_roughly_is_told_to_be() {
    for (low, high, safe, told) in [
        (571e3, 702e3, 571e3, false),
        (300e3, 800e3, 320e3, false),
        (7.5e3, 637.5e3, 400e3, true),
        (571e3, 702e3, 100e3, true),
    ] {
        let mut evidence = measured();
        evidence.sustained[0].estimate = Some(Range { value: 637e3, low, high });
        evidence.sustained[0].safe = Some(safe);
        let trust = planned(&evidence, &asked()).trust;
        let found = trust.reasons.iter().find(|reason| reason.contains("a longer one says more"));
        assert_eq!((found.is_some(), trust.verdict == "fair"), (told, told), "{low}: {trust:?}");
        if low == 7.5e3 {
            assert!(found.unwrap().contains("factor of 85 only"), "{found:?}");
        }
    }
}

#[test]
fn what_an_overload_leaves_behind_is_told() {
    for (recovers, slower, words) in [
        (None, None, None),
        (Some(true), None, None),
        (Some(true), Some(3.04), Some("p99 was 3.0 times what it had been")),
        (Some(false), Some(3.04), Some("does not recover by itself")),
    ] {
        let mut evidence = measured();
        (evidence.sustained[0].recovers, evidence.sustained[0].slower) = (recovers, slower);
        let plan = planned(&evidence, &asked());
        let notes = &answer(&plan, Question::Headroom).notes;
        let after: Vec<&String> =
            notes.iter().filter(|note| note.starts_with("After an overload")).collect();
        assert_eq!(after.len(), usize::from(words.is_some()), "{notes:?}");
        assert!(words.is_none_or(|words| after[0].contains(words)), "{notes:?}");
    }
}

#[test]
fn a_recording_of_another_server_is_told() {
    let mut evidence = measured();
    let mut other = source("prod.rec", SourceKind::Recording);
    (other.target, other.environment, other.load) = ("10.0.0.9:7411".into(), None, None);
    evidence.sources.push(other);
    evidence.recorded.push(("prod.rec".into(), Recorded::default()));
    let plan = planned(&evidence, &asked());
    let words = "prod.rec is of the server on 10.0.0.9, search of that on 127.0.0.1";
    assert!(plan.trust.reasons.iter().any(|reason| reason == words), "{:?}", plan.trust);
}
