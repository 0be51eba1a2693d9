//! The load generator: an open-loop producer with consumers that prove what arrived.
//!
//! [`run`] drives one trial against a server: pinned worker threads send records at the times a
//! [`schedule`] demands, whatever the target does; consumers read them back, check every byte and time
//! it; the [`Report`] says what was reached, how long it took from the *intended* send time, what was lost,
//! doubled, out of order or damaged, and whether the generator itself was good enough for the figures to
//! mean anything.
//!
//! Records describe themselves: see [`payload`] for their layout.

mod clock;
mod consumer;
mod environment;
mod error;
pub mod integrity;
pub mod intervals;
mod keys;
mod lane;
mod latency;
#[cfg(test)]
mod memory;
mod options;
mod pacer;
pub mod payload;
mod plan;
mod progress;
mod report;
mod run;
pub mod schedule;
mod target;
#[cfg(test)]
mod tests;
mod worker;

pub use environment::Environment;
pub use error::LoadError;
pub use options::{Arrival, LoadOptions, Rate};
pub use progress::{Phase, Progress};
pub use report::{
    ACHIEVED_MIN, Distribution, Distributions, LATE_P99_MAX, Lateness, Mode, Report, SCHEMA,
    STEAL_MAX,
};
pub use run::run;
