//! Plans from made-up evidence, with every figure computed by hand.

use super::answer::Answer;
use super::*;
use crate::{Environment, LoadOptions, Place};

mod bounds;
mod files;
mod limits;
mod verdicts;

/// 16 shards, durable, 512 B records, 3 groups.
pub(super) fn setup() -> Setup {
    Setup {
        shards: 16,
        groups: 3,
        ack: "durable".into(),
        record_bytes: 512.0,
        batch_bytes: 262_144,
        linger_us: 200.0,
        producers: 4,
        skew: 1.31,
    }
}

pub(super) fn source(name: &str, kind: SourceKind) -> Source {
    Source {
        name: name.into(),
        kind,
        schema: kind.schema().into(),
        target: "127.0.0.1:7411".into(),
        server: "0.1.0".into(),
        began_ns: 1_780_000_000_000_000_000,
        counted: 47,
        void: vec![],
        command: vec![],
        lints: vec![],
        environment: Some(Environment { cpus: 32, ..Environment::default() }),
        load: Some(Box::new(LoadOptions { shards: 16, ..LoadOptions::default() })),
    }
}

fn sustained(name: &str, setup: Setup, rate: f64) -> Sustained {
    Sustained {
        from: name.into(),
        in_sweep: false,
        setup,
        goals: "response.p99 within 10.0 ms".into(),
        bounds: vec![("response.p99".into(), 10_000.0)],
        estimate: Some(Range { value: rate, low: rate * 0.9, high: rate * 1.1 }),
        safe: Some(rate * 0.9),
        binding: Some("response.p99".into()),
        remark: String::new(),
        unreachable: false,
        longer: None,
        trials: 48,
        void: 0,
        soak: Some((1_200.0, true)),
        wanted_s: Some(1_200.0),
        notes: vec![],
        recovers: Some(true),
        slower: None,
    }
}

fn point(setup: Setup, offered: f64, p99_us: f64) -> Point {
    Point {
        from: format!("run-{offered}"),
        consumed: offered * f64::from(setup.groups),
        setup,
        offered,
        delivered: offered,
        response_us: [Some(p99_us / 3.0), Some(p99_us), None],
        propagation_us: [None; 3],
        met: None,
        kept_up: true,
        stands: true,
    }
}

/// The example of the design: 637k [571k, 702k], 900k/s read while writing.
fn measured() -> Evidence {
    let mut search = sustained("search", setup(), 637e3);
    search.estimate = Some(Range { value: 637e3, low: 571e3, high: 702e3 });
    search.safe = Some(571e3);
    Evidence {
        sources: vec![source("search", SourceKind::Search), source("backlog", SourceKind::Run)],
        sustained: vec![search],
        ceilings: vec![Ceiling {
            from: "search".into(),
            setup: setup(),
            rate: Range { value: 650e3, low: 600e3, high: 700e3 },
            lasted_s: 900.0,
            generator_busy: Some(0.4),
        }],
        drains: vec![Drain {
            from: "backlog".into(),
            what: "a group away for 300 s".into(),
            setup: Some(setup()),
            paused: 1,
            rate: Range { value: 900e3, low: 850e3, high: 950e3 },
            measured_interval: true,
            arrival: 400e3,
            outage_s: 300.0,
            took_s: Some(240.0),
            live_us: Some((3_900.0, 6_200.0)),
            generator_busy: Some(0.5),
        }],
        ..Evidence::default()
    }
}

fn asked() -> Demand {
    Demand {
        peak: Some(Peak { factor: 2.0, time_s: 600.0 }),
        retention_s: Some(86_400.0),
        outage_s: Some(1_800.0),
        groups: 3,
        ..Demand::of(400e3)
    }
}

fn planned(evidence: &Evidence, demand: &Demand) -> Plan {
    plan(evidence, demand, &PlanOptions::default()).unwrap()
}

#[track_caller]
fn answer(plan: &Plan, question: Question) -> &Answer {
    plan.answers.iter().find(|answer| answer.question == question).unwrap()
}

/// Value, low and high of the first figure with this formula.
#[track_caller]
fn figure(answer: &Answer, formula: Formula) -> (f64, Option<f64>, Option<f64>) {
    let figure = answer.figures.iter().find(|figure| figure.formula == formula.id);
    let figure = figure.unwrap_or_else(|| panic!("{} is not in {answer:?}", formula.id));
    (figure.value.unwrap_or(f64::INFINITY), figure.low, figure.high)
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-3, "{found} is not {expected}");
}

fn probe(bytes_per_s: f64) -> ProbeFile {
    let write = |bytes, depth, p50_us, bytes_per_s| WriteFigure {
        bytes,
        depth,
        p50_us,
        p99_us: 2.0 * p50_us,
        bytes_per_s,
        count: 100,
    };
    ProbeFile {
        schema: PROBE_SCHEMA.into(),
        durable_write: vec![write(4_096, 1, 100.0, 40e6), write(262_144, 4, 400.0, bytes_per_s)],
        environment: Environment { cpus: 32, ..Environment::default() },
        ..ProbeFile::default()
    }
}

#[test]
fn an_average_fits_below_seven_tenths_of_what_is_safe() {
    let evidence = measured();
    // 571k safe: 70 % is 399.7k.
    for (rate, verdict) in [
        (399e3, Verdict::Fits),
        (401e3, Verdict::Tight),
        (571e3, Verdict::Tight),
        (600e3, Verdict::No),
        (800e3, Verdict::No),
    ] {
        let plan = planned(&evidence, &Demand::of(rate));
        assert_eq!(answer(&plan, Question::Headroom).verdict, verdict, "{rate}");
    }
    let plan = planned(&evidence, &asked());
    let headroom = answer(&plan, Question::Headroom);
    let (used, low, high) = figure(headroom, formula::HEADROOM);
    near(used, 0.7005);
    assert_eq!((low, high), (None, None), "the interval is that of R*");
    // 400/702 to 400/571.
    let (_, low, high) = figure(headroom, formula::OF_ESTIMATE);
    near(low.unwrap(), 0.5698);
    near(high.unwrap(), 0.7005);
}

#[test]
fn a_peak_above_what_is_delivered_waits() {
    let plan = planned(&measured(), &asked());
    let peak = answer(&plan, Question::Peak);
    assert_eq!(peak.verdict, Verdict::No, "{peak:?}");
    // (800k - 650k) x 600; with 700k and 600k delivered 60M to 120M.
    let (backlog, low, high) = figure(peak, formula::PEAK_BACKLOG);
    assert_eq!((backlog, low, high), (90e6, Some(60e6), Some(120e6)));
    let (delay, low, high) = figure(peak, formula::PEAK_DELAY);
    near(delay, 90e6 / 650e3);
    near(low.unwrap(), 60e6 / 700e3);
    near(high.unwrap(), 120e6 / 600e3);
    let (clear, low, high) = figure(peak, formula::PEAK_CLEAR);
    assert_eq!((clear, low, high), (360.0, Some(200.0), Some(600.0)));
    // One that is safe, and one that is merely delivered.
    for (factor, verdict) in [(1.4, Verdict::Fits), (1.45, Verdict::Tight)] {
        let demand = Demand { peak: Some(Peak { factor, time_s: 60.0 }), ..asked() };
        let plan = planned(&measured(), &demand);
        assert_eq!(answer(&plan, Question::Peak).verdict, verdict, "{factor}");
    }
    let demand = Demand { peak: None, ..asked() };
    assert_eq!(answer(&planned(&measured(), &demand), Question::Peak).verdict, Verdict::NotAsked);
    // Never cleared: an average of what is delivered at worst.
    let demand = Demand { rate: 660e3, ..asked() };
    let plan = planned(&measured(), &demand);
    let (clear, low, high) = figure(answer(&plan, Question::Peak), formula::PEAK_CLEAR);
    assert_eq!((clear, high), (f64::INFINITY, None));
    // 1.32M - 700k over 600 s, at 40k/s.
    near(low.unwrap(), 9_300.0);
}

#[test]
fn an_outage_is_caught_up_at_what_is_left_of_the_drain() {
    let plan = planned(&measured(), &asked());
    let outage = answer(&plan, Question::CatchUp);
    assert_eq!(outage.verdict, Verdict::Fits, "{outage:?}");
    let (takes, low, high) = figure(outage, formula::CATCH_UP);
    // 720M / 500k; / 550k and / 450k.
    assert_eq!(takes, 1_440.0);
    near(low.unwrap(), 1_309.09);
    assert_eq!(high, Some(1_600.0));
    let (away, ..) = figure(outage, formula::SURVIVABLE);
    near(away, 48_000.0);
    assert!(
        outage.says.contains("meanwhile response p99 6.20 ms instead of 3.90 ms"),
        "{}",
        outage.says
    );
    let verdict =
        |demand: Demand| answer(&planned(&measured(), &demand), Question::CatchUp).verdict;
    // Longer than leaves room for catching up, longer than is kept, and beside more than was measured.
    assert_eq!(verdict(Demand { outage_s: Some(50_000.0), ..asked() }), Verdict::Tight);
    assert_eq!(verdict(Demand { outage_s: Some(90_000.0), ..asked() }), Verdict::No);
    assert_eq!(verdict(Demand { rate: 450e3, ..asked() }), Verdict::BeyondMeasured);
    assert_eq!(verdict(Demand { outage_s: None, ..asked() }), Verdict::NotAsked);
    let mut slow = measured();
    slow.drains[0].rate = Range::exactly(390e3);
    let plan = planned(&slow, &asked());
    assert_eq!(answer(&plan, Question::CatchUp).verdict, Verdict::No);
    assert_eq!(figure(answer(&plan, Question::CatchUp), formula::CATCH_UP).0, f64::INFINITY);
    // Beside many more arrivals than are asked for, that says nothing.
    slow.drains[0].arrival = 800e3;
    assert_eq!(
        answer(&planned(&slow, &asked()), Question::CatchUp).verdict,
        Verdict::BeyondMeasured
    );
}

#[test]
fn of_several_drains_the_one_beside_the_nearest_arrivals_counts() {
    let mut evidence = measured();
    let drain = |from: &str, arrival: f64| Drain {
        from: from.into(),
        arrival,
        ..measured().drains[0].clone()
    };
    evidence.drains =
        vec![drain("a", 100e3), drain("b", 500e3), drain("c", 420e3), drain("d", 390e3)];
    for (rate, from) in [(90e3, "a"), (300e3, "d"), (400e3, "d"), (425e3, "c"), (500e3, "b")] {
        let plan = planned(&evidence, &Demand { rate, ..asked() });
        let used = answer(&plan, Question::CatchUp);
        let input = used.figures[0].inputs.iter().find(|i| i.name.starts_with("drain")).unwrap();
        assert_eq!(input.from, from, "{rate}");
    }
}

#[test]
fn disk_and_wear_are_of_what_is_written() {
    let mut evidence = measured();
    let recorded = Recorded {
        mean: Window {
            records_in: 100.0,
            bytes_in: 54_000.0,
            disk_bytes: 54_272.0,
            ..Window::default()
        },
        disk_total: 30_720_000_000_000,
        disk_free: 24_000_000_000_000,
        stored: 1_000_000_000_000,
        ..Recorded::default()
    };
    evidence.sources.push(source("load.rec", SourceKind::Recording));
    evidence.recorded.push(("load.rec".into(), recorded));
    let plan = planned(&evidence, &asked());
    let retention = answer(&plan, Question::Retention);
    // 542.72 B on disk for 512: 6 % over. 18.7564 TB / 0.8 and 16 segments.
    let (disk, ..) = figure(retention, formula::RETENTION);
    near(disk, 23.4498e12);
    near(figure(retention, formula::ENDURANCE).0, 0.6106);
    near(figure(retention, formula::DISK_LASTS).0, 24e12 / (400e3 * 542.72));
    assert_eq!(retention.verdict, Verdict::Fits);
    // What others have of the disk is not there.
    evidence.recorded[0].1.disk_free = 20_000_000_000_000;
    let plan = planned(&evidence, &asked());
    let retention = answer(&plan, Question::Retention);
    assert_eq!(retention.verdict, Verdict::No);
    // (21 TB - 16 segments) x 0.8 / 217.088 MB/s = 77,372 s.
    assert!(
        retention.says.contains("21.0 TB of 30.7 TB are free or theirs, enough for 21 h 30 min"),
        "{}",
        retention.says
    );
    // Without a recording the least that the format adds: 16 and 12 bytes.
    let plan = planned(&measured(), &asked());
    let retention = answer(&plan, Question::Retention);
    assert_eq!(retention.verdict, Verdict::Known);
    near(
        figure(retention, formula::RETENTION).0,
        400e3 * 540.0 * 86_400.0 / 0.8 + 16.0 * 268_435_456.0,
    );
    assert!(retention.command.as_deref().unwrap().contains("record"));
}

#[test]
fn kinesis_is_bound_by_records_here_and_refuses_half_of_the_peak() {
    let plan = planned(&measured(), &asked());
    let kinesis = answer(&plan, Question::Kinesis);
    let values: Vec<f64> = kinesis.figures.iter().map(|f| f.value.unwrap()).collect();
    // 400 on average, 800 at the peak; half of the peak refused; 16 take 16,000 of 400,000.
    assert_eq!(values, [400.0, 800.0, 0.5, 0.96]);
    assert!(
        kinesis
            .says
            .starts_with("400 shards bound by records (400 by records, 205 by bytes in, 308 by")
    );
}

#[test]
fn shards_that_scale_by_the_law_are_read_off_the_curve() {
    // a = 0.05, b = 0.001, g = 50k: X(1) = 50k, X(2) = 95.06k, X(16) = 402.0k.
    let curve = |n: f64| 50e3 * n / (1.0 + 0.05 * (n - 1.0) + 0.001 * n * (n - 1.0));
    let mut evidence = measured();
    evidence.sustained = [1.0, 2.0, 4.0, 8.0, 12.0, 16.0]
        .map(|n| {
            let setup = Setup { shards: n as u32, skew: 0.0, ..setup() };
            sustained(&format!("sweep/{n}"), setup, curve(n))
        })
        .into();
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(200e3) });
    let more = answer(&plan, Question::OneMoreShard);
    let fit = plan.scaling.as_ref().unwrap().fit.as_ref().unwrap();
    near(fit.alpha, 0.05);
    near(fit.beta, 0.001);
    near(fit.gamma, 50e3);
    assert_eq!(more.verdict, Verdict::Known, "{more:?}");
    near(more.figures[0].value.unwrap(), curve(17.0));
    near(more.figures[1].value.unwrap(), curve(17.0) - curve(16.0));
    assert!(more.figures.iter().all(|figure| !figure.inputs.is_empty()), "{:?}", more.figures);
    // The peak, sqrt(0.95 / 0.001) = 30.8, lies within twice 16.
    assert_eq!(more.figures[2].value, Some(31.0));
    let shards = answer(&plan, Question::ShardsAndCores);
    // 200k / 0.7 = 285.7k, safe rate of a shard 45k: 6.3 if they added up. Nine tenths of the curve are safe, and it
    // comes to 317.5k at 10 (324.7k; 305.7k at 9).
    near(figure(shards, formula::SHARDS).0, 7.0);
    assert!(shards.says.starts_with("10 by the curve"), "{}", shards.says);
    assert_eq!(figure(shards, formula::SHARDS_BY_CURVE).0, 10.0);
    // More than the curve's most.
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(400e3) });
    assert_eq!(answer(&plan, Question::ShardsAndCores).verdict, Verdict::No);
    // With three sizes nothing is fitted, and the sweep is proposed.
    evidence.sustained.truncate(3);
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(200e3) });
    let more = answer(&plan, Question::OneMoreShard);
    assert_eq!(more.verdict, Verdict::NotMeasured);
    assert!(more.command.as_deref().unwrap().contains("sweep --vary shards="));
}

#[test]
fn nothing_is_extrapolated_beyond_what_was_measured() {
    let mut evidence = measured();
    evidence.sustained.clear();
    evidence.ceilings.clear();
    evidence.points = vec![point(setup(), 300e3, 2_000.0)];
    let plan = planned(&evidence, &asked());
    for question in [Question::Headroom, Question::Peak] {
        let answer = answer(&plan, question);
        assert_eq!(answer.verdict, Verdict::BeyondMeasured);
        assert!(answer.says.contains("nothing is extrapolated"), "{}", answer.says);
    }
    // What was tried and did not hold is an answer.
    let failed = Point { kept_up: false, delivered: 310e3, ..point(setup(), 390e3, 2e6) };
    evidence.points.push(failed);
    assert_eq!(answer(&planned(&evidence, &asked()), Question::Headroom).verdict, Verdict::No);
    // Larger records than those measured.
    let demand = Demand { record_bytes: Some(1_024.0), ..asked() };
    let plan = planned(&measured(), &demand);
    assert_eq!(answer(&plan, Question::Headroom).verdict, Verdict::BeyondMeasured);
    // A search that met its goals at all rates it tried.
    let mut open = measured();
    open.sustained[0].estimate = None;
    open.ceilings.clear();
    let plan = planned(&open, &Demand::of(800e3));
    assert_eq!(answer(&plan, Question::Headroom).verdict, Verdict::BeyondMeasured);
}

#[test]
fn a_goal_that_is_never_met_says_the_best_seen() {
    let mut evidence = measured();
    let search = &mut evidence.sustained[0];
    (search.safe, search.estimate, search.unreachable) = (None, None, true);
    search.remark =
        "response.p99 was missed at every rate tried; the best seen was 4 % beyond".into();
    let plan = planned(&evidence, &asked());
    let headroom = answer(&plan, Question::Headroom);
    assert_eq!(headroom.verdict, Verdict::No);
    assert!(headroom.says.contains("best seen"), "{}", headroom.says);
}

#[test]
fn uneven_keys_take_from_everything() {
    let plan = planned(&measured(), &Demand { skew: Some(2.62), ..asked() });
    // 1.31 measured, 2.62 asked: half of 571k.
    near(plan.sustains.as_ref().unwrap().safe, 285.5e3);
    assert_eq!(answer(&plan, Question::Headroom).verdict, Verdict::No);
    let even = planned(&measured(), &Demand { skew: Some(1.0), ..asked() });
    near(even.sustains.unwrap().safe, 571e3);
}

#[test]
fn what_is_missing_is_answered_with_its_command_and_printed() {
    let evidence = Evidence { sources: vec![source("r", SourceKind::Run)], ..Evidence::default() };
    let plan = planned(&evidence, &asked());
    let text = plan.to_string();
    for (question, words) in [
        (Question::Headroom, "load search --slo p99=10ms --groups 3 --shards 16 -t 127.0.0.1:7411"),
        (Question::OneMoreShard, "load sweep --vary shards=1,2,4,8,12,16 --slo p99=10ms"),
        (Question::CatchUp, "load backlog -r 400000 --outage 60s --groups 3"),
        (Question::Durability, "load sweep --vary ack=durable,written"),
        (Question::BatchAndLinger, "load sweep --vary batch="),
        (Question::Machine, "highwater probe ./data --json"),
        (Question::FirstLimit, "highwater record -t 127.0.0.1:7411"),
    ] {
        let answer = answer(&plan, question);
        assert_eq!(answer.verdict, Verdict::NotMeasured, "{question:?}");
        assert!(answer.says.starts_with("run ") && answer.says.contains(words), "{}", answer.says);
        let known = plan.proposals();
        let by = known.iter().find(|known| known.questions.contains(&question)).unwrap();
        assert!(text.contains(&format!("not measured: run ({}) below", by.number)), "{text}");
        assert!(text.contains(&format!("\n      {}\n", by.command)), "{text}");
    }
    let numbers: Vec<usize> = plan.proposals().iter().map(|known| known.number).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

#[test]
fn machines_that_differ_are_not_mixed_unless_forced() {
    let mut evidence = measured();
    evidence.sources[1].environment = Some(Environment { cpus: 8, ..Environment::default() });
    let error = plan(&evidence, &asked(), &PlanOptions::default()).unwrap_err().to_string();
    assert!(error.contains("environment.cpus is 32 in search and 8 in backlog"), "{error}");
    let options = PlanOptions { force: true, ..PlanOptions::default() };
    let plan = plan(&evidence, &asked(), &options).unwrap();
    assert_eq!((plan.mixed.len(), plan.trust.verdict), (1, "poor"));
    assert!(plan.to_string().contains("MIXED BY --force"));
    assert!(matches!(
        super::plan(&Evidence::default(), &asked(), &options),
        Err(PlanError::Nothing)
    ));
    assert!(matches!(
        super::plan(&evidence, &Demand::of(-1.0), &options),
        Err(PlanError::Demand(_))
    ));
}

/// What the generator could not do is no figure of the target: the first page says so.
#[test]
fn a_generator_at_its_end_is_cautioned_against() {
    let mut evidence = measured();
    let plan = planned(&evidence, &asked());
    assert!(
        plan.answers.iter().all(|answer| answer.caution.is_none())
            && !plan.to_string().contains("CAUTION")
    );
    let said = |plan: &Plan, words: &str| {
        answer(plan, Question::Peak).notes.iter().any(|note| note.contains(words))
    };
    assert!(said(&plan, "the generator had 60.0 % of its time to spare"));
    evidence.ceilings[0].generator_busy = None;
    assert!(said(&planned(&evidence, &asked()), "is not known"));
    evidence.ceilings[0].generator_busy = Some(0.99);
    evidence.ceilings[0].lasted_s = 4.0;
    evidence.drains[0].generator_busy = Some(0.95);
    let plan = planned(&evidence, &asked());
    let caution = answer(&plan, Question::Peak).caution.as_deref().unwrap();
    assert!(caution.contains("C = 650,000 records/s, is what the generator could do"), "{caution}");
    assert!(said(&plan, "C was measured for 4.00 s at once, the peak lasts 10 min"));
    let caution = answer(&plan, Question::CatchUp).caution.as_deref().unwrap();
    assert!(caution.contains("900,000 records/s") && caution.contains("95.0 %"), "{caution}");
    let text = plan.to_string();
    let first = text.split("\nHOW EACH FIGURE").next().unwrap();
    assert_eq!(first.matches("CAUTION").count(), 2, "{first}");
    assert!(answer(&plan, Question::FirstLimit).says.contains("group of this generator"));
    assert_eq!(plan.trust.verdict, "fair");
}

#[test]
fn every_figure_has_a_formula_and_inputs_with_their_source() {
    let mut evidence = measured();
    evidence.add_probe("probe.json", probe(1e9));
    let plan = planned(&evidence, &asked());
    for figure in plan.answers.iter().flat_map(|answer| &answer.figures) {
        assert!(plan.formulas.iter().any(|formula| formula.id == figure.formula), "{figure:?}");
        assert!(
            !figure.inputs.is_empty() && figure.inputs.iter().all(|input| !input.from.is_empty()),
            "{figure:?}"
        );
        assert!(
            figure.low.is_none_or(|low| figure.value.is_none_or(|value| low <= value)),
            "{figure:?}"
        );
        assert!(
            figure.high.is_none_or(|high| figure.value.is_none_or(|value| high >= value)),
            "{figure:?}"
        );
    }
}

#[test]
fn the_first_page_fits_a_screen() {
    let mut evidence = measured();
    evidence.add_probe("probe.json", probe(1.2e9));
    let text = planned(&evidence, &asked()).to_string();
    let first: Vec<&str> = text.split("\nTO KNOW MORE").next().unwrap().lines().collect();
    assert!(first.len() <= 30, "{text}");
    for word in [
        "CAPACITY  16 shards, durable, 512 B records, 3 groups    (search)",
        "sustains 637,000 records/s [571,000, 702,000] with response.p99 within 10.0 ms (48 trials, soak of",
        "safe: 571,000 records/s (292 MB/s); delivers 650,000 when more is offered",
        "average 400k/s       TIGHT  70.1 % of the safe rate",
        "peak 800k/s          NO     800,000 records/s for 10 min: 90,000,000 records wait (46.1 GB)",
        "outage of 30 min     FITS   away for 30 min: caught up 24 min [21 min 49 s, 26 min 40 s]",
        "Kinesis equivalent",
        "trust",
    ] {
        assert!(text.contains(word), "{word:?} is missing in\n{text}");
    }
}
