//! Made-up runs for tests, the same each time: a target with a stall now and then, bursts, and a group that was
//! away.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::*;
use crate::{Phase, Progress, Severity};

/// A run without its directory.
pub struct Run {
    pub report: Report,
    pub samples: Vec<Progress>,
    pub histograms: BTreeMap<&'static str, Histogram<u64>>,
}

impl Run {
    pub fn histogram(&self, name: &str) -> Option<&Histogram<u64>> {
        self.histograms.get(name)
    }
}

/// Of [`all`].
pub const NAMES: [&str; 3] = ["run", "burst", "backlog"];

/// One of each scenario.
pub fn all() -> [Run; 3] {
    [steady(), burst(), backlog()]
}

const RATE: f64 = 5_000.0;
const SECONDS: u32 = 120;
const WARM_UP: u32 = 6;

struct Second {
    phase: Phase,
    due_per_s: f64,
    read_per_s: f64,
    backlog: u64,
    stall_ms: f64,
}

/// Six histograms in nanoseconds of one second.
fn second(random: &mut fastrand::Rng, records: u64, s: &Second) -> [Histogram<u64>; 6] {
    let mut all = [(); 6].map(|()| Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap());
    for k in 0..records {
        // Log-normal-like service, with a rare long tail; what is due in a stall waits for its end.
        let normal = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let tail = if random.f64() < 0.002 { random.f64() * 3e6 } else { 0.0 };
        let service = 180e3 * (normal * 0.25).exp() + tail;
        let waits = (s.stall_ms * 1e6 - 1e9 * k as f64 / records as f64).max(0.0);
        let lag = 60e3 + random.f64() * 180e3 + waits;
        let visible = 40e3 + random.f64() * 90e3 + 250.0 * s.backlog as f64 / 10.0;
        let delivery = service * 0.4 + visible;
        let values = [lag + service, lag + service + visible, lag, service, visible, delivery];
        for (histogram, value) in all.iter_mut().zip(values) {
            histogram.record(value as u64).unwrap();
        }
    }
    all
}

fn run(seconds: impl Fn(i64) -> Second) -> Run {
    let mut random = fastrand::Rng::with_seed(7);
    let names = Distributions::default().named().map(|(name, _)| name);
    let mut total = names
        .map(|name| (name, Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).unwrap()));
    let (mut samples, mut offered, mut acked, mut consumed) = (Vec::new(), 0, 0, 0);
    let size = 1024;
    for i in 0..WARM_UP + SECONDS {
        let t = i64::from(i) - i64::from(WARM_UP);
        let s = seconds(t);
        let ratio = 1.0 - s.stall_ms / 2000.0 + random.f64() * 0.01;
        let due = s.due_per_s as u64;
        let done = (s.due_per_s * ratio) as u64;
        let read = (s.read_per_s * ratio) as u64;
        let histograms = second(&mut random, done / 4, &s);
        offered += due;
        acked += done.min(offered - acked);
        consumed += read;
        let of = |i: usize| Distribution::of(&histograms[i]);
        samples.push(Progress {
            phase: s.phase,
            t_s: (t + 1) as f64,
            elapsed_s: f64::from(i + 1),
            total_s: Some(f64::from(WARM_UP + SECONDS)),
            interval_s: 1.0,
            offered,
            sent: offered,
            acked,
            acked_bytes: acked * size,
            consumed,
            consumed_bytes: consumed * size,
            refused: 0,
            errors: 0,
            unsent: 0,
            unanswered: Some(offered - acked),
            backlog: s.backlog,
            offered_per_s: due as f64,
            sent_per_s: due as f64,
            acked_per_s: done as f64,
            acked_bytes_per_s: (done * size) as f64,
            consumed_per_s: read as f64,
            consumed_bytes_per_s: (read * size) as f64,
            response: of(0),
            propagation: of(1),
            send_lag: of(2),
            service: of(3),
            delivery: of(5),
            steal: Some(0.001),
            generator_busy: Some(0.42),
        });
        if t >= 0 {
            for ((_, sum), histogram) in total.iter_mut().zip(&histograms) {
                sum.add(histogram).unwrap();
            }
        }
    }
    let of = |i: usize| Distribution::of(&total[i].1);
    let latency_us = Distributions {
        response: of(0),
        propagation: of(1),
        send_lag: of(2),
        service: of(3),
        visibility: of(4),
        delivery: of(5),
    };
    let records = latency_us.response.count;
    let mut report = report(latency_us);
    report.acked_records = records;
    report.consumed_records = records;
    report.checked_records = records + 30_000;
    Run { report, samples, histograms: total.into_iter().collect() }
}

fn report(latency_us: Distributions) -> Report {
    let options =
        LoadOptions { shards: 4, seed: 42, stream: "orders".into(), ..LoadOptions::default() };
    let lint = |name: &str, severity, message: &str, remedy: &str| Lint {
        name: name.into(),
        severity,
        message: message.into(),
        remedy: remedy.into(),
    };
    Report {
        schema: SCHEMA.into(),
        valid: true,
        void_reason: None,
        slo: vec![
            Slo {
                of: "response.p99".into(),
                bound_us: 1e6,
                measured_us: Some(latency_us.response.p99),
                met: Some(true),
            },
            Slo {
                of: "propagation.p99.9".into(),
                bound_us: 2e6,
                measured_us: Some(latency_us.propagation.p999),
                met: Some(true),
            },
        ],
        interrupted: false,
        ended_early: None,
        scenario: ScenarioKind::Run,
        mode: Mode::Open,
        target: "127.0.0.1:7411".into(),
        server: "highwater 0.1.0".into(),
        stream: options.stream.clone(),
        streams: 1,
        shards: 4,
        ack: "durable".into(),
        groups: 1,
        consumers: 4,
        seed: 42,
        run_id: 1_234_567_890_123,
        started_ns: 1_795_391_479_000_000_000,
        warmup: WarmUp { duration_s: f64::from(WARM_UP), steady: Some(true) },
        duration_s: f64::from(SECONDS),
        workload: WorkloadSummary {
            name: "fixed".into(),
            mean_payload_bytes: 1024.0,
            keys: 10_000,
            key_distribution: "zipf:1.1".into(),
            shard_skew: 1.37,
        },
        arrivals: Arrivals {
            process: "poisson".into(),
            intended_c2: Some(1.0),
            scheduled_c2: Some(1.002),
            gaps: 599_999,
        },
        offered_rate: RATE,
        achieved_rate: RATE - 1.5,
        acked_records: 0,
        records_per_s: RATE - 2.25,
        bytes_per_s: (RATE - 2.25) * 1024.0,
        consumed_records: 0,
        consumed_per_s: RATE - 3.0,
        checked: true,
        checked_records: 0,
        lost: 0,
        duplicated: 0,
        reordered: 0,
        corrupted: 0,
        trimmed: 12,
        unread: 0,
        refused: 34,
        refused_but_read: 0,
        dropped: 12,
        sampled_out: 13,
        shed_but_read: 0,
        account: None,
        unknown: 56,
        unknown_but_read: 50,
        unsent: 0,
        errors: 3,
        read_errors: 1,
        first_error: Some("append to shard 2: the connection was closed by the server".into()),
        latency_us,
        ack_pause_ms: AckPauses::of(&[((0, 0), 4_200_000), ((0, 1), 12_700_000)].into(), &[]),
        delivery_before_arrival: 7,
        generator_late: Lateness { p99_us: 31.2, max_us: 612.0, bound_us: 1000.0 },
        generator_busy: Some(0.417),
        steal: Some(0.0012),
        workers: 1,
        burst: None,
        backlog: None,
        notes: Vec::new(),
        environment: Environment {
            version: "0.1.0".into(),
            kernel: "linux 6.12.9".into(),
            cpu_model: Some("Example CPU 3.0 GHz".into()),
            cpus: 8,
            cpus_online: Some("0-7".into()),
            governors: vec!["powersave".into()],
            turbo: Some(true),
            smt: Some(true),
            siblings: vec!["0,4".into(), "1,5".into(), "2,6".into(), "3,7".into()],
            numa_nodes: Some(1),
            clock_source: Some("tsc".into()),
            memory_bytes: Some(33_554_432_000),
            load_average: Some(0.31),
            steal: Some(0.0012),
            ..Environment::default()
        },
        lints: vec![
            lint(
                "turbo",
                Severity::Info,
                "the CPU may go above its nominal frequency, for as long as it stays cool",
                "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo",
            ),
            lint(
                "governor",
                Severity::Warning,
                "the frequency governor is powersave: CPUs run slower than they could",
                "cpupower frequency-set -g performance",
            ),
        ],
        command: [
            "highwater",
            "load",
            "run",
            "-t",
            "127.0.0.1:7411",
            "-r",
            "5000",
            "-d",
            "2m",
            "--arrival",
            "poisson",
            "--key-distribution",
            "zipf:1.1",
            "--shards",
            "4",
            "--stream",
            "orders",
            "--seed",
            "42",
            "--slo",
            "p99=1s",
            "--slo",
            "propagation.p99.9=2s",
        ]
        .map(str::to_owned)
        .to_vec(),
        options,
    }
}

/// Of a run about which nothing needs to be said: a million records, all as they should be.
pub fn plain() -> Report {
    let d = |p50: f64| Distribution {
        p50,
        p90: p50 * 1.2,
        p99: p50 * 1.5,
        p999: p50 * 2.0,
        p9999: p50 * 3.0,
        max: p50 * 4.0,
        count: 1_000_000,
    };
    let mut report = report(Distributions {
        response: d(400.0),
        propagation: d(500.0),
        send_lag: d(150.0),
        service: d(250.0),
        visibility: d(100.0),
        delivery: d(200.0),
    });
    (report.unknown, report.unknown_but_read, report.delivery_before_arrival) = (0, 0, 0);
    report.workload.shard_skew = 1.02;
    report.slo.clear();
    report
}

fn explained(mut run: Run) -> Run {
    run.report.notes = notes(&run.report, run.histogram("response"));
    run
}

/// A target that stands still for most of a second every 40 seconds.
pub fn steady() -> Run {
    explained(run(|t| Second {
        phase: if t < 0 { Phase::Warmup } else { Phase::Measure },
        due_per_s: RATE,
        read_per_s: RATE,
        backlog: 40,
        stall_ms: if t % 40 == 25 { 800.0 } else { 0.0 },
    }))
}

/// 10 s of 2.5 times the rate every 60 s.
pub fn burst() -> Run {
    let in_burst = |t: i64| t >= 0 && t % 60 < 10;
    let mut run = run(|t| Second {
        phase: if t < 0 { Phase::Warmup } else { Phase::Measure },
        due_per_s: if in_burst(t) { RATE * 2.5 } else { RATE },
        read_per_s: if in_burst(t) { RATE * 2.5 } else { RATE },
        backlog: if in_burst(t) { 900 } else { 45 },
        stall_ms: if in_burst(t) { 120.0 } else { 0.0 },
    });
    let all = run.report.latency_us;
    let of = |d: Distribution, factor: f64, share: f64| Distribution {
        p50: (d.p50 * factor).round(),
        p90: (d.p90 * factor).round(),
        p99: (d.p99 * factor).round(),
        p999: (d.p999 * factor).round(),
        p9999: (d.p9999 * factor).round(),
        max: (d.max * factor).round(),
        count: (d.count as f64 * share) as u64,
    };
    let scaled = |factor, share| Distributions {
        response: of(all.response, factor, share),
        propagation: of(all.propagation, factor, share),
        send_lag: of(all.send_lag, factor, share),
        service: of(all.service, factor, share),
        visibility: of(all.visibility, factor, share),
        delivery: of(all.delivery, factor, share),
    };
    run.report.scenario = ScenarioKind::Burst;
    run.report.arrivals.process = "burst".into();
    run.report.arrivals.intended_c2 = Some(1.31);
    run.report.burst = Some(BurstReport {
        base_rate: RATE,
        peak_rate: RATE * 2.5,
        on_s: 10.0,
        every_s: 60.0,
        bursts: 2,
        calm: scaled(0.4, 0.66),
        burst: scaled(1.0, 0.34),
        backlog_peak: 1_912,
        recovery_s: Some(0.31),
    });
    explained(run)
}

/// One of two groups away from 30 s to 60 s, caught up at 84 s.
pub fn backlog() -> Run {
    let phase = |t: i64| match t {
        t if t < 0 => Phase::Warmup,
        30..60 => Phase::Outage,
        60..84 => Phase::Catchup,
        _ => Phase::Measure,
    };
    let mut run = run(|t| Second {
        phase: phase(t),
        due_per_s: RATE,
        read_per_s: RATE
            * match phase(t) {
                Phase::Outage => 1.0,
                Phase::Catchup => 3.25,
                _ => 2.0,
            },
        backlog: match phase(t) {
            Phase::Outage => (t - 29) as u64 * RATE as u64,
            Phase::Catchup => (84 - t) as u64 * 6_250,
            _ => 80,
        },
        stall_ms: 0.0,
    });
    let all = run.report.latency_us;
    let slower = |d: Distribution, factor: f64| Distribution {
        p50: (d.p50 * factor).round(),
        p90: (d.p90 * factor).round(),
        p99: (d.p99 * factor).round(),
        count: 30_000,
        ..d
    };
    let live = |factor: f64| LiveLatency {
        response: slower(all.response, factor),
        propagation: slower(all.propagation, factor),
    };
    run.report.scenario = ScenarioKind::Backlog;
    run.report.groups = 2;
    run.report.consumers = 8;
    run.report.backlog = Some(BacklogReport {
        outage_s: 30.0,
        groups_paused: 1,
        backlog_records: 150_000,
        backlog_bytes: 153_600_000,
        drained: true,
        drain_s: Some(24.1),
        drain_rate: 11_250.0,
        drain_bytes_per_s: 11_520_000.0,
        arrival_rate: 4_998.0,
        before: live(1.0),
        outage: live(0.97),
        draining: live(1.43),
        paused_propagation: Distribution {
            max: 30.4e6,
            p99: 29e6,
            p90: 26e6,
            p999: 30e6,
            ..slower(all.propagation, 1e4)
        },
    });
    explained(run)
}
