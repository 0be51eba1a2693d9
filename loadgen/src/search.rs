//! The highest rate a target sustains under a goal, found by trials; and the same over a grid of settings.

mod file;

pub use file::{
    AxisValues, Backlog, Block, Bound, Curve, Ended, Goal, GoalResult, Hysteresis, Interval,
    SEARCH_FILE, SEARCH_SCHEMA, SWEEP_FILE, SWEEP_SCHEMA, SearchFile, SearchResult, SearchSettings,
    Setting, Soak, Stage, SweepFile, SweepMode, SweepPoint, TrialRecord, Walk,
};
