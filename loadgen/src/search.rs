//! The highest rate a target sustains under a goal, found by trials; and the same over a grid of settings.
//!
//! [`search`] carries trials out, [`controller`] chooses them and is pure, [`fit`] is the statistics, `sim` has
//! targets of known truth for the tests of both.

mod conduct;
pub mod controller;
mod file;
pub mod fit;
mod measure;
mod promise;
#[cfg(test)]
mod sim;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod verdict;

pub use conduct::{SearchError, SearchRequest, Spectator, kept, search, validate};
pub use controller::{Next, Search, Step};
pub use file::{
    AxisValues, Backlog, Block, Bound, Curve, Ended, Goal, GoalResult, Hysteresis, Interval, Proof,
    SEARCH_FILE, SEARCH_SCHEMA, SWEEP_FILE, SWEEP_SCHEMA, SearchFile, SearchResult, SearchSettings,
    Setting, Soak, Stage, SweepFile, SweepMode, SweepPoint, TrialRecord, Walk,
};
pub use store::{StoreError, read_search, read_sweep, rebuild_search, rebuild_sweep};
pub use sweep::{PointRequest, SweepRequest, SweepSpectator, grid, sweep};
pub use text::about;
