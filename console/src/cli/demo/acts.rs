//! What is played: three workloads, each with its stream and its readers, one of which goes away for a while.

use std::time::Duration;

use highwater_loadgen::schedule::Burst;
use highwater_loadgen::{LoadOptions, Profile, Rate, WarmUpRule, Workload};
use highwater_wire::AckMode;

use super::DemoArgs;
use crate::units;

/// Kept of each stream: enough to fall behind by a minute, not enough to fill a disk.
pub const KEPT: u64 = 1 << 30;
/// "Until q", as far as a load run is concerned.
const FOR_EVER: Duration = Duration::from_secs(300 * 24 * 3600);
/// Records a second of the other two workloads if the first one saturates.
const BESIDE_MAX: f64 = 20_000.0;

/// One workload with its stream and its readers.
#[derive(Clone, Debug)]
pub struct Act {
    /// The stream.
    pub stream: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Its shards.
    pub shards: u32,
    /// The consumer group that reads it.
    pub group: &'static str,
    /// When that group is away.
    pub lapse: Option<Lapse>,
    /// Its load, but for the server's address.
    pub load: LoadOptions,
}

/// A consumer group's absences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// From the beginning to the first.
    pub after: Duration,
    /// How long each is.
    pub away: Duration,
    /// From the end of one to the next.
    pub back: Duration,
}

/// All of them: the steady one first. `duration`: how long it is played; `None` until somebody quits.
pub fn acts(args: &DemoArgs, duration: Option<Duration>) -> [Act; 3] {
    let (rate, rest) = match args.rate {
        units::Rate::Max => (Rate::Max, BESIDE_MAX),
        units::Rate::PerSecond(rate) => (Rate::PerSecond(rate), rate),
    };
    let whole = duration.unwrap_or(FOR_EVER);
    let warmup = (whole / 10).min(Duration::from_secs(1));
    let load = |stream: &str, shards, rate, workload| LoadOptions {
        stream: stream.to_owned(),
        shards,
        ack: AckMode::Durable,
        retention_bytes: KEPT,
        rate,
        workload,
        duration: whole.saturating_sub(warmup),
        warmup: WarmUpRule::Fixed(warmup),
        // The demo's own readers are its groups.
        commit: false,
        ..LoadOptions::default()
    };
    let workload = match args.size {
        None => Workload::Clickstream { users: 50_000 },
        Some(size) => Workload::Fixed { size: size as usize },
    };
    let clicks = Act {
        stream: "clicks",
        about: if args.size.is_none() { "page views" } else { "a steady stream" },
        shards: args.shards,
        group: "analytics",
        lapse: None,
        load: load("clicks", args.shards, rate, workload),
    };
    let fleet = Rate::PerSecond((rest / 20.0).max(1.0));
    let mut sensors = Act {
        stream: "sensors",
        about: "a fleet that reports in bursts",
        shards: 2,
        group: "alerts",
        lapse: None,
        load: load("sensors", 2, fleet, Workload::Iot { devices: 10_000 }),
    };
    sensors.load.profile = Profile::Burst(bursts(duration));
    let log = Rate::PerSecond((rest / 10.0).max(1.0));
    let access = Act {
        stream: "access",
        about: "an access log",
        shards: 1,
        group: "archive",
        lapse: Some(lapse(duration)),
        load: load("access", 1, log, Workload::ApacheLog { file: None }),
    };
    [clicks, sensors, access]
}

/// Ten times the calm rate for a quarter of the time; several times even in a short demo.
fn bursts(duration: Option<Duration>) -> Burst {
    let every = duration.map_or(Duration::MAX, |d| d / 4).min(Duration::from_secs(16));
    let every = every.max(Duration::from_millis(4));
    Burst { peak: 10.0, on: every / 4, every }
}

/// Away for twelve seconds, and then back for thirty; once, and shorter, in a short demo.
fn lapse(duration: Option<Duration>) -> Lapse {
    match duration.filter(|duration| *duration < Duration::from_secs(60)) {
        Some(short) => Lapse { after: short / 4, away: short / 4, back: Duration::MAX },
        None => Lapse {
            after: Duration::from_secs(8),
            away: Duration::from_secs(12),
            back: Duration::from_secs(30),
        },
    }
}
