//! Synthetic snapshots in, what is shown out.

use super::*;
use crate::dashboard::fixture::{self, STARTED};

fn after(seconds: std::ops::Range<u64>) -> Model {
    let mut model = Model::new();
    for at in seconds {
        model.take(Box::new(fixture::snapshot(at)));
    }
    model
}

#[test]
fn samples_become_points_and_headlines() {
    let model = after(1..31);
    let picture = model.picture();
    assert_eq!(picture.points.len(), 29);
    assert_eq!(picture.peaks.tps_in.value, 20_000.0);
    assert_eq!(picture.propagation.count, 20_000, "ten seconds of two cores");
    assert_eq!(picture.propagation.p99, 3_900_000);
    assert_eq!(picture.slowest(WINDOWS[1]).unwrap().0, 9_000_000);
    assert_eq!(picture.within(Duration::from_secs(5)).count(), 6);
    assert_eq!(picture.about.uptime, Duration::from_secs(30));
    let headline = picture.headline.as_ref().unwrap();
    assert_eq!((headline.span, headline.into.records), (HEADLINE, 20_000.0));
    assert_eq!(model.snapshot().unwrap().serial, 30);
}

#[test]
fn series_distributions_and_heat() {
    let mut model = after(1..31);
    let mut spike = fixture::snapshot(31);
    spike.shards[0].records_in += 500_000;
    model.take(Box::new(spike));
    let picture = model.picture();
    let minute = picture.series(Series::TpsIn, WINDOWS[1], 6);
    assert_eq!((minute[5], minute[0]), (Some(520_000.0), None), "nothing is known of before");
    let peak = picture.peaks.tps_in;
    assert_eq!((peak.value, peak.at_ns), (520_000.0, STARTED + 31_000_000_000));
    assert_eq!(picture.series(Series::ShardIn("orders", 0), WINDOWS[1], 6)[5], Some(504_000.0));
    assert_eq!(picture.series(Series::CoreBusy(1), WINDOWS[0], 2)[1], Some(0.41));
    let unread = picture.series(Series::GroupRecords("audit", "orders"), WINDOWS[0], 10);
    assert_eq!(unread[9], Some(31_001.0));
    assert_eq!(picture.series(Series::CoreBusy(9), WINDOWS[0], 3), [None, None, None]);
    let delays = picture.distribution(Measured::Propagation, WINDOWS[0]);
    assert_eq!((delays.count(), delays.max), (20_000, 9_000_000));
    let heat = picture.heat(WINDOWS[0], 10);
    let row = |ns| (0..HEAT_ROWS).find(|&r| heat_bound(r).is_none_or(|b| ns <= b)).unwrap();
    assert_eq!(heat[9][row(400_000)], 1_960, "two cores");
    assert_eq!(heat[9][row(9_000_000)], 4);
    assert_eq!(heat.iter().flatten().sum::<u64>(), 20_000);
}

#[test]
fn a_snapshot_seen_before_is_no_sample() {
    let mut model = after(1..5);
    assert!(!model.take(Box::new(fixture::snapshot(4))));
    assert_eq!(model.picture().points.len(), 3);
    // Two went by unseen.
    assert!(model.take(Box::new(fixture::snapshot(7))));
    assert_eq!(model.picture().missed, 2);
    assert_eq!(model.picture().points.back().unwrap().missed, 2);
}

#[test]
fn a_restart_starts_the_differences_over() {
    let mut model = after(1..5);
    let mut restarted = fixture::snapshot(1);
    restarted.started_ns = STARTED + 8_000_000_000;
    restarted.taken_ns += 8_000_000_000;
    model.take(Box::new(restarted.clone()));
    assert_eq!((model.picture().restarts, model.picture().points.len()), (1, 3));
    assert_eq!(model.picture().figures, None, "those of the old server are no news");
    assert_eq!(model.picture().propagation, Tail::default());
    let unread = model.picture().series(Series::GroupRecords("audit", "orders"), WINDOWS[0], 1);
    assert!(unread[0].is_some(), "charts keep their past");
    restarted.taken_ns += 1_000_000_000;
    restarted.uptime_ns += 1_000_000_000;
    restarted.serial += 1;
    model.take(Box::new(restarted));
    let figures = model.picture().figures.as_ref().unwrap();
    assert_eq!((figures.into.records, model.picture().missed), (0.0, 0));
    assert_eq!(model.picture().peaks.tps_in.value, 20_000.0, "of the session");
}

#[test]
fn a_clock_set_back_stops_nothing() {
    let mut model = after(1..5);
    let mut jumped = fixture::snapshot(5);
    jumped.taken_ns -= 3_600_000_000_000;
    assert!(model.take(Box::new(jumped)));
    assert_eq!(model.picture().points.len(), 4);
}

#[test]
fn a_copy_goes_its_own_way() {
    let mut model = after(1..5);
    let still = model.clone();
    model.take(Box::new(fixture::snapshot(5)));
    assert_eq!((model.picture().points.len(), still.picture().points.len()), (4, 3));
    assert_eq!(still.snapshot().unwrap().serial, 4);
}

#[test]
fn rings_are_bounded() {
    let model = after(1..4_000);
    assert_eq!(model.picture().points.len(), picture::MAX_POINTS);
    assert!(model.recent.len() < 16);
}

/// A group whose backlog is `records(at)` and three seconds old.
fn behind(records: impl Fn(u64) -> u64) -> Outlook {
    let mut model = Model::new();
    for at in 1..31 {
        let mut snapshot = fixture::snapshot(at);
        for group in snapshot.groups.iter_mut().filter(|g| g.shard == 0) {
            (group.backlog_records, group.backlog_ns) = (records(at), 3_000_000_000);
        }
        model.take(Box::new(snapshot));
    }
    let picture = model.picture();
    picture.outlook(&picture.figures.as_ref().unwrap().groups[0])
}

#[test]
fn outlooks() {
    let model = after(1..31);
    let picture = model.picture();
    let groups = &picture.figures.as_ref().unwrap().groups;
    assert_eq!(picture.outlook(&groups[0]), Outlook::Grows);
    assert!((picture.growth(&groups[0]) - 1_000.0).abs() < 1e-6);
    assert_eq!(picture.outlook(&groups[1]), Outlook::KeepsUp);
    let Outlook::Drains(eta) = behind(|at| 200_000 - 5_000 * at) else { panic!() };
    assert_eq!(eta.as_secs(), 10);
    assert_eq!(behind(|_| 50_000), Outlook::Holds);
    // Positions committed every five seconds: up and down around the same.
    assert_eq!(behind(|at| 50_000 + 1_000 * (at % 5)), Outlook::Holds);
}

#[test]
fn a_backlog_that_turns_is_told_within_seconds() {
    // Away for four seconds in a half minute in which it had fallen as much.
    let stops = |at: u64| if at < 27 { 54_000 - 2_000 * at } else { 2_000 * (at - 26) };
    assert_eq!(behind(stops), Outlook::Grows);
    let Outlook::Drains(eta) = behind(|at| 2_000 * at - 7_000 * at.saturating_sub(26)) else {
        panic!("it goes down since four seconds")
    };
    assert_eq!(eta.as_secs_f64().round(), 6.0);
}

/// Two samples a second apart, of a group that has read nothing in between.
fn two_samples(backlog_ns: u64) -> (f64, Outlook) {
    let mut model = Model::new();
    for at in 1..3 {
        let mut snapshot = fixture::snapshot(at);
        for group in snapshot.groups.iter_mut().filter(|g| g.shard == 0) {
            (group.backlog_records, group.backlog_ns) = (20_000 + 2_000 * at, backlog_ns);
        }
        model.take(Box::new(snapshot));
    }
    let picture = model.picture();
    let group = &picture.figures.as_ref().unwrap().groups[0];
    (picture.growth(group), picture.outlook(group))
}

#[test]
fn two_samples_tell_of_a_group_that_stands_still() {
    assert_eq!(two_samples(12_000_000_000), (2_000.0, Outlook::Grows));
    // So far behind may be whoever commits every five seconds.
    assert_eq!(two_samples(4_000_000_000), (2_000.0, Outlook::Holds));
}

#[test]
fn what_retention_takes_unread_makes_no_backlog_shrink() {
    let mut model = Model::new();
    for at in 1..31 {
        let mut snapshot = fixture::snapshot(at);
        // Stands at 0 while 1,000 records a second come; every ten seconds what is older than fifteen goes.
        let oldest = if at < 15 { 0 } else { 1_000 * (at / 10 * 10 - 5) };
        let high_water = 1_000 * at;
        for shard in snapshot.shards.iter_mut().filter(|s| s.stream == "orders" && s.shard == 0) {
            (shard.high_water, shard.oldest) = (high_water, oldest);
        }
        snapshot.groups.retain(|g| g.group == "audit" && g.shard == 0);
        snapshot.groups[0].position = 0;
        snapshot.groups[0].backlog_records = high_water - oldest;
        snapshot.groups[0].backlog_ns = 15_000_000_000;
        model.take(Box::new(snapshot));
        let picture = model.picture();
        let Some(group) = picture.figures.as_ref().map(|f| &f.groups[0]) else { continue };
        assert_eq!(
            (picture.growth(group).round(), picture.outlook(group)),
            (1_000.0, Outlook::Grows)
        );
    }
}

#[test]
fn a_group_seen_first_within_the_headline_has_rates() {
    let mut model = after(1..5);
    for at in 5..8 {
        let mut snapshot = fixture::snapshot(at);
        let mut new = snapshot.groups[0].clone();
        (new.group, new.position) = ("new".into(), 700 * at);
        snapshot.groups.push(new);
        model.take(Box::new(snapshot));
    }
    let headline = model.picture().headline.as_ref().unwrap();
    let new = headline.groups.iter().find(|g| g.group == "new").unwrap();
    assert_eq!((new.read, new.arrival > 0.0), (700.0, true));
}

#[test]
fn a_heat_map_has_no_holes_where_samples_are_rarer_than_columns() {
    let mut model = Model::new();
    for n in 0..20 {
        model.take(Box::new(fixture::snapshot(1 + 3 * n)));
    }
    let heat = model.picture().heat(Duration::from_secs(30), 30);
    assert!(heat.iter().all(|column| column.iter().any(|n| *n > 0)), "{heat:?}");
    let once: u64 = model.picture().heat(Duration::from_secs(30), 10).iter().flatten().sum();
    let spread: u64 = heat.iter().flatten().sum();
    assert!(spread.abs_diff(once) < once / 50, "{spread} of {once}");
}
