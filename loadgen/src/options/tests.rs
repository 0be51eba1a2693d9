//! Options: what is refused and why, and that they come back from JSON.

use std::time::Duration;

use super::*;

fn refused(change: impl FnOnce(&mut LoadOptions)) -> String {
    let mut options = LoadOptions::default();
    options.validate().unwrap();
    change(&mut options);
    options.validate().unwrap_err().to_string()
}

#[test]
fn fields_out_of_range_are_named_with_value_and_limit() {
    let said = refused(|o| o.streams = 2000);
    assert!(said.contains("streams") && said.contains("2000") && said.contains("1024"));
    let said = refused(|o| o.retention_bytes = (8 << 20) - 1);
    assert_eq!(
        said,
        "retention_bytes is 8388607; it must be 8388608 at least (two segments), or 0 for no bound"
    );
    for kept in [0, 8 << 20] {
        LoadOptions { retention_bytes: kept, ..LoadOptions::default() }.validate().unwrap();
    }
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(|o| o.rate = Rate::PerSecond(rate)).contains("rate"));
    }
    assert!(refused(|o| o.duration = Duration::ZERO).contains("duration"));
    assert!(refused(|o| o.warmup = WarmUpRule::Fixed(Duration::MAX)).contains("warmup"));
    assert!(refused(|o| o.target_timeout = Duration::ZERO).contains("target_timeout"));
    assert!(refused(|o| o.producers = 0).contains("producers"));
    assert!(refused(|o| o.groups = 0).contains("groups"));
    assert!(refused(|o| o.clients = Some(0)).contains("clients"));
    assert!(refused(|o| o.stream = "a/b".into()).contains("a/b"));
}

#[test]
fn contradictions_are_named_with_the_reason() {
    let said = refused(|o| (o.rate, o.arrival) = (Rate::Max, Arrival::Poisson));
    assert!(said.contains("arrival") && said.contains("poisson"), "{said}");
    for change in [
        |o: &mut LoadOptions| o.batch_bytes = 1000,
        |o: &mut LoadOptions| o.linger = Duration::ZERO,
        |o: &mut LoadOptions| o.inflight = 1,
        |o: &mut LoadOptions| o.producers = 2,
    ] {
        let said = refused(|o| {
            o.clients = Some(1);
            change(o);
        });
        assert!(said.contains("clients"), "{said}");
    }
    let away = || Scenario::backlog(Duration::from_secs(5));
    assert!(refused(|o| o.scenario = away()).contains("paused_groups"));
    let nobody = |o: &mut LoadOptions| (o.scenario, o.groups, o.consumers) = (away(), 2, Some(0));
    assert!(refused(nobody).contains("consumers"));
    assert!(refused(|o| o.scenario = Scenario::Burst).contains("scenario"));
    assert!(refused(|o| o.engine_cores = vec![1]).contains("engine_cores"));
}

#[test]
fn options_come_back_from_json_as_they_went() {
    let mut options = LoadOptions { rate: Rate::Max, ..LoadOptions::default() };
    for scenario in [Scenario::Run, Scenario::backlog(Duration::from_millis(1500))] {
        options.scenario = scenario;
        let json = serde_json::to_string(&options).unwrap();
        let back: LoadOptions = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        assert_eq!((back.scenario, back.rate, back.linger), (scenario, Rate::Max, options.linger));
    }
    options.rate = Rate::PerSecond(7.5);
    options.warmup = WarmUpRule::Fixed(Duration::from_secs(2));
    let json = serde_json::to_value(&options).unwrap();
    assert_eq!(json["warmup"], serde_json::json!({"steady": false, "most_s": 2.0}));
    let back: LoadOptions = serde_json::from_value(json).unwrap();
    assert_eq!((back.rate, back.warmup), (options.rate, options.warmup));
}
