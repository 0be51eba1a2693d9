//! The load generator: an open-loop producer with consumers that prove what arrived.
//!
//! [`run`] drives one trial against a server: pinned worker threads send records at the times a
//! [`schedule`] demands, whatever the target does; consumers read them back, check every byte and time
//! it; the [`Report`] says what was reached, how long it took from the *intended* send time, what was lost,
//! doubled, out of order or damaged, and whether the generator itself was good enough for the figures to
//! mean anything.
//!
//! A run warms up (until it is steady, or for a time), is measured, in a backlog scenario goes on while some
//! consumer groups are away and then catch up, and is drained; see [`Scenario`] and [`Phase`]. It survives the
//! target: one that hangs or refuses everything ends it early, with what was measured; one that may restart
//! ([`LoadOptions::tolerate_restart`]) is waited for. [`check`] tries the generator alone.
//!
//! Other systems are loaded through a [`Target`] and [`run_on`]. Records describe themselves: see [`proof`]
//! for how.

mod alarm;
mod busy;
pub mod capacity;
mod check;
mod clock;
mod compare;
mod consumer;
mod dealer;
mod descent;
mod environment;
mod error;
mod file;
pub mod hlog;
pub mod integrity;
pub mod intervals;
mod lane;
mod latency;
mod nearest;
mod options;
mod pacer;
mod pauses;
mod plan;
mod positions;
#[cfg(target_os = "linux")]
mod probe;
mod producer;
mod progress;
pub mod proof;
mod readers;
mod recorded;
mod report;
mod routes;
mod run;
mod rundir;
pub mod schedule;
pub mod search;
mod stage;
pub mod stats;
pub mod steady;
pub mod target;
#[cfg(test)]
mod tests;
mod timeline;
pub mod units;
mod worker;
pub mod workload;

pub use alarm::Alarm;
pub use check::{CHECK_SCHEMA, CheckReport, HEADROOM, check};
pub use compare::{
    COMPARE_SCHEMA, CompareError, CompareOptions, Comparison, Difference, Estimate, Metric,
    MetricError, Quantile, Row, Side, Verdict, Which, compare, compare_many,
};
pub use environment::{Environment, Lint, Place, Severity, doctor};
pub use error::LoadError;
pub use file::{FileError, FileWarmUp, WorkloadFile};
pub use options::{Arrival, LoadOptions, Rate, Scenario, WarmUpRule};
#[cfg(target_os = "linux")]
pub use probe::{PROBE_TIME, ProbeError, ProbeOptions, probe};
pub use progress::{Observer, Phase, Progress, Tick};
pub use recorded::{RecordingError, has_records};
pub use report::{
    ACHIEVED_MIN, Account, AckPause, AckPauses, Arrivals, BEYOND_MIN, BacklogReport, BurstReport,
    Distribution, Distributions, LATE_P99_MAX, Lateness, LiveLatency, Mode, Report, SCHEMA,
    STEAL_MAX, ScenarioKind, Slo, WarmUp, WorkloadSummary, shell_words,
};
pub use run::{DOUBT_MAX, Stop, run, run_on};
pub use rundir::{RunDir, RunDirError, RunFiles, RunReadError, read_run, rebuild, write_whole};
pub use schedule::Profile;
pub use target::{Highwater, Null, Target};
pub use workload::{Keys, Workload};
