//! Turns what was measured and seen into the report.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use highwater_wire::AckMode;

use crate::consumer::Way;
use crate::environment::{Before, Environment, Setting, lint};
use crate::integrity::{Reach, Verdict};
use crate::latency::{Counts, Reads, Set};
use crate::pauses::Longest;
use crate::plan::Plan;
use crate::report::notes;
use crate::schedule::{Gaps, Profile};
use crate::timeline::{BUSY, CALM, DRAINING, PAUSED, Timeline};
use crate::{
    Account, AckPauses, Arrivals, BacklogReport, BurstReport, Distribution, Lateness, Lint,
    LiveLatency, LoadError, LoadOptions, Mode, Rate, Report, SCHEMA, Scenario, ScenarioKind,
    WarmUp, Workload, WorkloadSummary,
};

use super::totals::Totals;
use super::void;
use super::watcher::Watcher;

/// A run that is over.
pub struct Case<'a> {
    /// What all threads knew.
    pub plan: &'a Plan,
    /// The target's address.
    pub target: String,
    /// Its release.
    pub server: String,
    /// What was measured.
    pub watcher: &'a Watcher,
    /// Gaps between the due times of each producer.
    pub gaps: Gaps,
    /// The longest pauses in acknowledgements, by stream and shard.
    pub pauses: Longest,
    /// How far each reader came.
    pub reached: BTreeMap<Way, Reach>,
    /// What was decided.
    pub timeline: &'a Timeline,
    /// The counters when the paused groups returned, and when production ended.
    pub outage: Option<(Totals, Totals)>,
    /// Worker threads.
    pub workers: usize,
    /// Whether somebody stopped it.
    pub interrupted: bool,
    /// Why it gave up the target.
    pub ended_early: Option<String>,
    /// What the target says became of what it was offered.
    pub account: Option<Account>,
    /// The machine before it.
    pub before: &'a Before,
}

/// The report.
pub fn judge(case: Case<'_>) -> Result<Report, LoadError> {
    let window = case.watcher.window()?;
    let mut report = report(case, &window);
    report.void_reason = void::reason(&report);
    report.valid = report.void_reason.is_none();
    report.notes = notes(&report, Some(&window.response));
    Ok(report)
}

/// What was found, not yet judged. Every field in its place, once: long, and nothing is forgotten.
fn report(case: Case<'_>, window: &Set) -> Report {
    let Case { plan, watcher, .. } = case;
    let (o, c, verdict) = (&plan.options, watcher.now().counts, verdict(plan, &case.reached));
    let (ack, first) = (ack(plan), plan.streams.first());
    let (measured, consumed) = (plan.times().window(), Consumed::of(watcher.now()));
    let per_second = |count: u64| per_second(count, &measured);
    let (environment, lints) = machine(o, ack, case.before);
    Report {
        schema: SCHEMA.to_owned(),
        valid: true,
        void_reason: None,
        slo: Vec::new(),
        interrupted: case.interrupted,
        ended_early: case.ended_early,
        scenario: scenario(o.scenario),
        mode: plan.mode,
        target: case.target,
        server: case.server,
        stream: first.map(|stream| stream.name.clone()).unwrap_or_default(),
        streams: o.streams,
        shards: first.map_or(0, |stream| stream.shards.len() as u32),
        ack: ack.to_string(),
        groups: plan.readers() as u32,
        consumers: plan.consumers as u32,
        seed: o.seed,
        run_id: plan.run,
        started_ns: started_ns(plan),
        warmup: warm_up(plan, case.timeline),
        duration_s: seconds(&measured),
        workload: workload(plan, &c),
        arrivals: arrivals(plan, &case.gaps),
        offered_rate: per_second(c.window_due),
        achieved_rate: per_second(c.window_sent),
        acked_records: c.window_acked,
        records_per_s: per_second(c.acked_within),
        bytes_per_s: per_second(c.acked_within_bytes),
        consumed_records: consumed.records,
        consumed_per_s: per_second(consumed.within),
        checked: plan.read(),
        checked_records: if plan.read() { verdict.acked } else { 0 },
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        reordered: verdict.reordered,
        corrupted: c.corrupted,
        trimmed: verdict.trimmed,
        unread: verdict.unread,
        refused: verdict.refused,
        refused_but_read: verdict.refused_but_read,
        dropped: verdict.dropped,
        sampled_out: verdict.sampled_out,
        shed_but_read: verdict.shed_but_read,
        // One that was restarted has forgotten some of it.
        account: case.account.filter(|a| a.acknowledged + a.duplicates_recognised >= c.acked),
        unknown: verdict.unknown,
        unknown_but_read: verdict.unknown_but_read,
        unsent: c.unsent,
        errors: c.errors,
        read_errors: c.read_errors,
        first_error: watcher.first_error().map(str::to_owned),
        latency_us: window.distributions(),
        ack_pause_ms: AckPauses::of(&case.pauses, &plan.streams),
        delivery_before_arrival: c.delivery_before_arrival,
        generator_late: lateness(o, window),
        generator_busy: watcher.busy(),
        steal: environment.steal,
        workers: case.workers,
        burst: burst(plan, watcher),
        backlog: backlog(plan, watcher, case.timeline, case.outage.as_ref()),
        notes: Vec::new(),
        environment,
        lints,
        command: Vec::new(),
        options: o.clone(),
    }
}

fn scenario(scenario: Scenario) -> ScenarioKind {
    match scenario {
        Scenario::Run => ScenarioKind::Run,
        Scenario::Burst => ScenarioKind::Burst,
        Scenario::Backlog { .. } => ScenarioKind::Backlog,
    }
}

/// What a stretch of time in nanoseconds comes to in seconds.
fn seconds(stretch: &Range<u64>) -> f64 {
    (stretch.end - stretch.start) as f64 / 1e9
}

/// 0 in no time.
fn per_second(count: u64, stretch: &Range<u64>) -> f64 {
    let seconds = seconds(stretch);
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// When the measured window began.
fn started_ns(plan: &Plan) -> u64 {
    let times = plan.times();
    // Without a window, when it would have begun is unknown: the run's own beginning stands for it.
    Some(times.window().start).filter(|start| *start != u64::MAX).unwrap_or(times.start_ns)
}

fn warm_up(plan: &Plan, timeline: &Timeline) -> WarmUp {
    let times = plan.times();
    let end_ns = times.window().start.min(times.end_ns);
    WarmUp {
        duration_s: end_ns.saturating_sub(times.start_ns) as f64 / 1e9,
        steady: timeline.steady(),
    }
}

/// What all streams promise: as little as the one that promises least.
fn ack(plan: &Plan) -> AckMode {
    let durable = plan.streams.iter().all(|stream| stream.config.ack == AckMode::Durable);
    if durable { AckMode::Durable } else { AckMode::Written }
}

fn workload(plan: &Plan, counts: &Counts) -> WorkloadSummary {
    WorkloadSummary {
        name: plan.material.name().to_owned(),
        mean_payload_bytes: match counts.acked {
            0 => 0.0,
            records => counts.acked_bytes as f64 / records as f64,
        },
        keys: u64::from(plan.material.key_count()),
        key_distribution: key_distribution(&plan.options),
        shard_skew: shard_skew(plan),
    }
}

/// Records of the window that were read, over all groups.
struct Consumed {
    /// Whenever they were.
    records: u64,
    /// Within it.
    within: u64,
}

impl Consumed {
    fn of(now: &Totals) -> Consumed {
        let sum = |of: fn(&Reads) -> u64| now.reads.iter().map(of).sum();
        Consumed {
            records: sum(|reads| reads.window_consumed),
            within: sum(|reads| reads.consumed_within),
        }
    }
}

fn lateness(options: &LoadOptions, window: &Set) -> Lateness {
    let late = Distribution::of(&window.late);
    let bound_us = options.late_bound.as_secs_f64() * 1e6;
    Lateness { p99_us: late.p99, max_us: late.max, bound_us }
}

/// The machine, and what about it makes figures of such a run worse.
fn machine(options: &LoadOptions, ack: AckMode, before: &Before) -> (Environment, Vec<Lint>) {
    let environment = Environment::read(data_dir(&options.target), before);
    let setting = Setting {
        cores: &options.cores,
        engine_cores: &options.engine_cores,
        embedded: options.target.starts_with("embedded"),
        ack,
    };
    let lints = lint(&environment, &setting);
    (environment, lints)
}

/// Where an engine in this process keeps its data; without a name, below the current directory.
fn data_dir(target: &str) -> Option<&Path> {
    match target.strip_prefix("embedded")? {
        "" => Some(Path::new(".")),
        named => named.strip_prefix(':').map(Path::new),
    }
}

/// How records choose among the keys: as was asked, unless the workload brings keys of its own.
fn key_distribution(options: &LoadOptions) -> String {
    match &options.workload {
        Workload::Fixed { .. } | Workload::Uniform { .. } | Workload::LogNormal { .. } => {
            return options.keys.distribution.to_string();
        }
        Workload::ApacheLog { file: Some(_) } => "as in the log",
        Workload::Recorded { .. } => "as recorded",
        Workload::Iot { .. } | Workload::Video { .. } => "in turn",
        Workload::ApacheLog { file: None } | Workload::Clickstream { .. } => "by Zipf's law",
        Workload::Mixed { .. } => "as each part has it",
    }
    .to_owned()
}

/// What became of all records.
fn verdict(plan: &Plan, reached: &BTreeMap<Way, Reach>) -> Verdict {
    let mut verdict = Verdict::default();
    for lane in 0..plan.lanes() {
        let stream = plan.places[plan.lane(lane).1].stream;
        let reach = |group, shard| reached.get(&Way { group, stream, shard });
        verdict.add(&plan.ledger(lane).verdict(reach));
    }
    verdict
}

/// Acknowledged records of the busiest place over the mean of all; 1 if there are none.
fn shard_skew(plan: &Plan) -> f64 {
    let mut acked = vec![0u64; plan.places.len()];
    for lane in 0..plan.lanes() {
        acked[plan.lane(lane).1] += plan.ledger(lane).acked_count();
    }
    let (sum, most) = (acked.iter().sum::<u64>(), acked.iter().max().copied().unwrap_or(0));
    if sum == 0 { 1.0 } else { most as f64 * acked.len() as f64 / sum as f64 }
}

fn arrivals(plan: &Plan, gaps: &Gaps) -> Arrivals {
    let o = &plan.options;
    let intended = match (plan.mode, o.rate) {
        (Mode::Open, Rate::PerSecond(rate)) => {
            plan.profile.intended_c2(o.arrival, rate, plan.producers)
        }
        _ => None,
    };
    Arrivals {
        process: match o.profile {
            Profile::Flat => o.arrival.to_string(),
            Profile::Burst(_) => "burst".to_owned(),
            Profile::Trace(_) => "trace".to_owned(),
        },
        intended_c2: intended,
        scheduled_c2: gaps.c2(),
        gaps: gaps.count(),
    }
}

fn burst(plan: &Plan, watcher: &Watcher) -> Option<BurstReport> {
    let recovered = watcher.recovered()?;
    let Profile::Burst(burst) = &plan.options.profile else { return None };
    let Rate::PerSecond(base_rate) = plan.options.rate else { return None };
    let of = |class: usize| watcher.total().get(class).map(Set::distributions).unwrap_or_default();
    Some(BurstReport {
        base_rate,
        peak_rate: base_rate * burst.peak,
        on_s: burst.on.as_secs_f64(),
        every_s: burst.every.as_secs_f64(),
        bursts: recovered.bursts,
        calm: of(CALM),
        burst: of(BUSY),
        backlog_peak: recovered.peak,
        recovery_s: recovered.longest_ns.map(|ns| ns as f64 / 1e9),
    })
}

fn backlog(
    plan: &Plan,
    watcher: &Watcher,
    timeline: &Timeline,
    outage: Option<&(Totals, Totals)>,
) -> Option<BacklogReport> {
    let Scenario::Backlog { outage: away, paused_groups, .. } = plan.options.scenario else {
        return None;
    };
    let live = |class: usize| {
        watcher.total().get(class).map_or_else(LiveLatency::default, |set| LiveLatency {
            response: Distribution::of(&set.response),
            propagation: Distribution::of(&set.propagation),
        })
    };
    let mut report = BacklogReport {
        outage_s: away.as_secs_f64(),
        groups_paused: paused_groups,
        before: live(CALM),
        outage: live(BUSY),
        draining: live(DRAINING),
        paused_propagation: live(PAUSED).propagation,
        ..BacklogReport::default()
    };
    // Stopped before they returned: there was no catch-up to time.
    let Some((returned, ended)) = outage else { return Some(report) };
    let paused = plan.paused();
    report.backlog_records = returned.backlog_of(paused.clone());
    report.backlog_bytes = returned.backlog_bytes_of(paused.clone());
    report.drained = timeline.caught_up_ns().is_some();
    let seconds = ended.at_ns.saturating_sub(returned.at_ns) as f64 / 1e9;
    report.drain_s = report.drained.then_some(seconds);
    let rate = |of: &dyn Fn(&Totals) -> u64| {
        let count = of(ended).saturating_sub(of(returned));
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    };
    report.drain_rate = rate(&|totals| totals.consumed_by(paused.clone()));
    report.drain_bytes_per_s = rate(&|totals| totals.consumed_bytes_by(paused.clone()));
    report.arrival_rate = rate(&|totals| totals.counts.acked);
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_a_directory_keeps_its_data_below_the_current_one() {
        assert_eq!(data_dir("embedded"), Some(Path::new(".")));
        assert_eq!(data_dir("embedded:/data/x"), Some(Path::new("/data/x")));
        assert_eq!((data_dir("embeddedx"), data_dir("127.0.0.1:7411")), (None, None));
    }

    #[test]
    fn a_workload_with_its_own_keys_does_not_report_a_distribution_nobody_used() {
        let options = LoadOptions::default();
        assert_eq!(key_distribution(&options), "uniform");
        let iot = LoadOptions { workload: Workload::Iot { devices: 9 }, ..options };
        assert_eq!(key_distribution(&iot), "in turn");
    }
}
