//! What is at its end first, and what durability and batches cost.

use super::*;

#[test]
fn a_device_that_is_full_is_no_matter_of_shards() {
    let mut evidence = measured();
    // 540 B a record: 200k records/s are 108 MB/s, all that the device takes.
    let rates = [50e3, 90e3, 130e3, 160e3, 199e3, 200e3];
    evidence.sustained = [1u32, 2, 3, 4, 8, 16]
        .into_iter()
        .zip(rates)
        .map(|(shards, rate)| {
            sustained(&format!("s{shards}"), Setup { shards, skew: 0.0, ..setup() }, rate)
        })
        .collect();
    evidence.add_probe("probe.json", probe(108e6));
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(100e3) });
    let scaling = plan.scaling.as_ref().unwrap();
    assert_eq!(scaling.at_device, [8.0, 16.0]);
    near(scaling.device.as_ref().unwrap().0, 200e3);
    assert_eq!(scaling.fit.as_ref().unwrap().residuals.len(), 4);
}

/// Where the device binds, the rate of one more was told with an interval above what the device does.
#[test]
fn what_the_device_bounds_it_bounds_with_its_interval() {
    let mut evidence = measured();
    // 100k a shard without costs, and some scatter: 6 shards would do 600k, the device 500k (270 MB/s of 540 B).
    evidence.sustained = [(1u32, 101e3), (2, 198e3), (3, 303e3), (4, 396e3)]
        .map(|(shards, rate)| {
            let setup = Setup { shards, skew: 0.0, ..setup() };
            Sustained { safe: None, ..sustained(&format!("s{shards}"), setup, rate) }
        })
        .into();
    let here = Setup { shards: 5, skew: 0.0, ..setup() };
    evidence.sustained.push(sustained("s5", here, 490e3));
    evidence.add_probe("probe.json", probe(270e6));
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(100e3) });
    let more = answer(&plan, Question::OneMoreShard);
    let (value, low, high) = figure(more, formula::USL);
    near(value, 500e3);
    assert!(low.unwrap() <= value && high.unwrap() <= value + 1.0, "{low:?} {high:?}");
    let gain = more.figures[1].value.unwrap();
    let share = format!("({:+.1} %)", gain / (value - gain) * 100.0);
    assert!(more.says.contains(&share), "{share} is not in {}", more.says);
}

/// A curve that falls from the first shard on has its most there, and not at the end of what it says something about.
#[test]
fn shards_that_only_cost_are_best_left_at_one() {
    let curve = |n: f64| 100e3 * n / (1.0 + 1.5 * (n - 1.0));
    let mut evidence = measured();
    evidence.sustained = [1u32, 2, 4, 8]
        .map(|shards| {
            let setup = Setup { shards, skew: 0.0, ..setup() };
            sustained(&format!("s{shards}"), setup, curve(f64::from(shards)))
        })
        .into();
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(200e3) });
    let shards = answer(&plan, Question::ShardsAndCores);
    assert_eq!(shards.verdict, Verdict::No);
    // Nine tenths of 100k are safe.
    assert!(shards.says.contains("safe by the curve is 90,000 records/s"), "{}", shards.says);
    let more = answer(&plan, Question::OneMoreShard);
    assert!(more.says.contains("most is 100,000 records/s at 1"), "{}", more.says);
}

/// Windows within the limit of records may be beyond that of bytes.
#[test]
fn kinesis_refuses_bursts_of_bytes_as_well() {
    let window = |records_in: f64, bytes_in: f64| Window {
        records_in,
        bytes_in,
        span_s: 10.0,
        ..Window::default()
    };
    for (windows, refused) in [
        // 4 MB/s on average, four shards; in the burst 8 MB/s of 2,000 records/s: half of half of the records.
        ([window(2e3, 0.0), window(2e3, 8e6)], "25.0 %"),
        // 4 shards by bytes, and 6,000 records/s in the burst: a third of three quarters of the records.
        ([window(2e3, 4e6), window(6e3, 4e6)], "25.0 %"),
        ([window(2e3, 4e6), window(2e3, 4e6)], "0.00 %"),
    ] {
        let mean = |of: fn(&Window) -> f64| windows.iter().map(of).sum::<f64>() / 2.0;
        let mean = window(mean(|w| w.records_in), mean(|w| w.bytes_in));
        let recorded = Recorded { mean, windows: windows.into(), ..Recorded::default() };
        let mut evidence = Evidence::default();
        evidence.add_recording("live.rec", "10.0.0.9:7411", recorded.clone());
        let plan = planned(&evidence, &recorded.demand("live.rec"));
        let kinesis = answer(&plan, Question::Kinesis);
        let words = format!("4 shards for the average would have refused {refused}");
        assert!(kinesis.notes[0].contains(&words), "{kinesis:?}");
    }
}

#[test]
fn the_probe_says_how_much_room_the_device_leaves() {
    let mut evidence = measured();
    // 571k x 540 B = 308.34 MB/s.
    evidence.add_probe("probe.json", probe(1_233.36e6));
    evidence.points.push(point(setup(), 100e3, 600.0));
    let plan = planned(&evidence, &asked());
    let machine = answer(&plan, Question::Machine);
    near(figure(machine, formula::DEVICE_ROOM).0, 4.0);
    assert!(machine.says.starts_with("yes"), "{}", machine.says);
    // Median 200 us over 100 us.
    near(figure(machine, formula::RATIO).0, 2.0);
    assert_eq!(machine.tables[0].rows[1][0], "256 KiB");
    let limit = answer(&plan, Question::FirstLimit);
    // A group reads 900k/s at most: 44.4 %; the device: 216 MB/s of 1,233.
    assert!(limit.says.contains("reading 44.4 %; device, durable writes 17.5 %"), "{}", limit.says);
}

#[test]
fn resources_are_used_in_proportion_to_the_rate() {
    let mut evidence = measured();
    let window = Window {
        records_in: 300e3,
        bytes_in: 300e3 * 540.0,
        busy: 0.6,
        cores_busy: 2.4,
        span_s: 10.0,
        ..Window::default()
    };
    let recorded = Recorded {
        mean: window,
        windows: vec![window],
        cores: 4,
        core_skew: 1.0,
        ..Recorded::default()
    };
    evidence.sources.push(source("load.rec", SourceKind::Recording));
    evidence.recorded.push(("load.rec".into(), recorded));
    let plan = planned(&evidence, &asked());
    let limit = answer(&plan, Question::FirstLimit);
    near(figure(limit, formula::UTILISATION).0, 0.8);
    near(figure(limit, formula::BOUND).0, 500e3);
    // Four cores 60 % busy at 300k; the target is the peak, 800k: 6.4 cores.
    assert_eq!(figure(answer(&plan, Question::ShardsAndCores), formula::CORES).0, 7.0);
    let far = planned(&evidence, &Demand { groups: 3, ..Demand::of(601e3) });
    assert_eq!(answer(&far, Question::FirstLimit).verdict, Verdict::BeyondMeasured);
}

/// One shard that keeps one core of eight busy needs one core, not eight.
#[test]
fn cores_are_of_all_the_work_and_not_of_the_busiest() {
    let mut evidence = measured();
    let window =
        Window { records_in: 300e3, busy: 0.9, cores_busy: 1.1, span_s: 10.0, ..Window::default() };
    let recorded = Recorded {
        mean: window,
        windows: vec![window],
        cores: 8,
        core_skew: 0.9 * 8.0 / 1.1,
        ..Recorded::default()
    };
    evidence.sources.push(source("load.rec", SourceKind::Recording));
    evidence.recorded.push(("load.rec".into(), recorded));
    // 1.1 s of CPU a second at 300k; at the target of 210k / 0.7 as much.
    let plan = planned(&evidence, &Demand { groups: 3, ..Demand::of(210e3) });
    let cores = answer(&plan, Question::ShardsAndCores);
    assert_eq!(figure(cores, formula::CORES).0, 2.0);
    assert!(cores.says.contains("2 cores by the recording"), "{}", cores.says);
}

#[test]
fn groups_follow_where_as_many_followed_as_much() {
    let mut evidence = measured();
    evidence.points.push(point(setup(), 420e3, 5_000.0));
    let verdict = |evidence: &Evidence, groups: u32| {
        answer(&planned(evidence, &Demand { groups, ..asked() }), Question::Groups).verdict
    };
    assert_eq!(verdict(&evidence, 3), Verdict::Fits);
    // The drain: 900k by the one that caught up and 2 x 400k by the others, 1.7M: four groups read 1.6M.
    assert_eq!(verdict(&evidence, 4), Verdict::Tight);
    assert_eq!(verdict(&evidence, 5), Verdict::BeyondMeasured);
    // Two that catch up, each at 900k, and one that follows: 2.2M.
    evidence.drains[0].paused = 2;
    assert_eq!(verdict(&evidence, 5), Verdict::Tight);
    assert_eq!(verdict(&evidence, 6), Verdict::BeyondMeasured);
    evidence.points.clear();
    evidence.drains.clear();
    assert_eq!(verdict(&evidence, 3), Verdict::NotMeasured);
}

#[test]
fn durability_costs_what_the_pair_differs_by() {
    let mut evidence = measured();
    let written = Setup { ack: "written".into(), ..setup() };
    evidence.sustained.push(sustained("written", written.clone(), 800e3));
    evidence.points.extend([point(setup(), 100e3, 3_000.0), point(written, 102e3, 1_000.0)]);
    let plan = planned(&evidence, &asked());
    let cost = answer(&plan, Question::Durability);
    // 571k over 720k, and three times the latency.
    near(cost.figures[0].value.unwrap(), 571.0 / 720.0);
    near(cost.figures[1].value.unwrap(), 3.0);
    assert!(cost.says.contains("20.7 % of the rate"), "{}", cost.says);
    assert_eq!(plan.sustains.unwrap().from, "search", "a plan is made with what is durable");
}

#[test]
fn the_frontier_is_what_nothing_beats() {
    let mut evidence = measured();
    let with = |batch: u64, linger: f64, rate: f64, p99: f64| {
        let setup = Setup { batch_bytes: batch, linger_us: linger, ..setup() };
        Point { delivered: rate, ..point(setup, 400e3, p99) }
    };
    evidence.points = vec![
        with(16_384, 0.0, 399e3, 4_000.0),
        with(65_536, 200.0, 400e3, 2_000.0),
        with(262_144, 1_000.0, 400e3, 3_000.0),
        Point { kept_up: false, ..with(4_096, 0.0, 300e3, 1_000.0) },
    ];
    let plan = planned(&evidence, &asked());
    let choice = answer(&plan, Question::BatchAndLinger);
    let marks: Vec<&str> = choice.tables[0].rows.iter().map(|row| row[5].as_str()).collect();
    assert_eq!(marks, ["did not keep up", "", "yes", ""]);
    assert_eq!(figure(choice, formula::MEASURED).0, 2_000.0);
    evidence.points.truncate(1);
    assert_eq!(
        answer(&planned(&evidence, &asked()), Question::BatchAndLinger).verdict,
        Verdict::NotMeasured
    );
}
