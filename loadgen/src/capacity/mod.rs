//! From measured runs to a plan one can sign.
//!
//! [`Evidence`] is what was measured: runs, searches, sweeps, recordings, probes, read from their files. [`plan()`] turns
//! it and a [`Demand`] into a [`Plan`]: a verdict for each of twelve questions, with every figure's interval, formula,
//! inputs and source. It is pure; what was not measured is not guessed, but answered with the command that
//! would measure it, and nothing is extrapolated beyond what was measured.
//!
//! docs/planning.md has the questions and formulas for users.

mod answer;
mod charts;
mod commands;
mod demand;
mod dir;
mod evidence;
mod facts;
pub mod formula;
mod from_run;
mod from_search;
mod mixed;
mod pages;
mod plan;
mod probe;
mod proposals;
mod questions;
mod read;
mod recorded;
#[cfg(test)]
mod tests;
mod text;
pub mod usl;

pub use answer::{Answer, Figure, Input, Question, Rows, Unit, Verdict};
pub use demand::{Demand, DemandError, Peak};
pub use dir::{PlanDirError, write_plan};
pub use evidence::{Ceiling, Drain, Evidence, Point, Range, Setup, Source, SourceKind, Sustained};
pub use formula::Formula;
pub use mixed::Mixed;
pub use plan::{PLAN_SCHEMA, Plan, PlanError, PlanOptions, Seen, Sustains, Trust, plan};
pub use probe::{PROBE_SCHEMA, ProbeFile, ReadFigure, RoundTrip, WriteFigure};
pub use read::{EvidenceError, OtherVersion, read_probe};
pub use recorded::{CaughtUp, Recorded, Watch, Window};
