//! Windows: what came within spans of time, counted by key.
//!
//! [`Windows`] is a pure state machine: records go in with a time, rows come out when the [`Watermark`] says that
//! nothing older is expected. Time is whatever the caller says it is: a field of the record, or its arrival.
//!
//! - *Tumbling* windows follow each other, *sliding* ones overlap: `size` long, one ends every `every`. Both begin and end
//!   on multiples of `every` since 1970 UTC.
//! - *Session* windows belong to one key: they last as long as no two of its records are further apart than `gap`.
//!
//! Memory is bounded (see [`Spec::with_memory`]). Beyond it records are dropped and counted that would need more: those of new
//! keys, and those of aggregates that grow (distinct, top, percentiles). Counts of known keys stay exact.

mod aggregate;
mod panes;
mod query;
mod sessions;
mod watermark;

use std::collections::HashMap;
use std::rc::Rc;

pub use aggregate::{Aggregate, EXACT, MAX_TOP, Outcome, Sample, Top};
pub use query::{Query, QueryError, Samples};
pub use watermark::Watermark;

use aggregate::State;
use panes::Panes;
use sessions::Sessions;

/// Most panes of `every` that one window may have.
pub const MAX_PANES: u64 = 3_600;
/// Memory of [`Spec`] by default, in bytes.
pub const DEFAULT_MEMORY: usize = 256 << 20;

/// What kind of windows, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `size` long, one ending every `every`; the same for tumbling ones.
    Fixed {
        /// Length.
        size: u64,
        /// From one end to the next.
        every: u64,
    },
    /// Until nothing came for so long.
    Session {
        /// The longest silence within.
        gap: u64,
    },
}

/// Windows that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No length.
    #[error("the length of a window has to be more than nothing")]
    Empty,
    /// Longer than the calendar.
    #[error("the length of a window may be 100 years at most")]
    TooLong,
    /// Not a whole number of steps.
    #[error("the window has to be a multiple of its step: {size} ns is none of {every} ns")]
    Uneven {
        /// The length.
        size: u64,
        /// The step.
        every: u64,
    },
    /// Too many steps.
    #[error("the window has {panes} steps; the limit is {MAX_PANES}")]
    TooFine {
        /// How many.
        panes: u64,
    },
}

/// What to count, and how.
#[derive(Clone, Debug)]
pub struct Spec {
    kind: Kind,
    aggregates: Vec<Aggregate>,
    memory: usize,
}

impl Spec {
    /// Windows of `kind` with these aggregates, in [`DEFAULT_MEMORY`].
    ///
    /// # Errors
    /// See [`SpecError`].
    pub fn new(kind: Kind, aggregates: Vec<Aggregate>) -> Result<Spec, SpecError> {
        let longest = 100 * 366 * 86_400 * 1_000_000_000;
        match kind {
            Kind::Fixed { size: 0, .. }
            | Kind::Fixed { every: 0, .. }
            | Kind::Session { gap: 0 } => {
                return Err(SpecError::Empty);
            }
            Kind::Fixed { size, .. } | Kind::Session { gap: size } if size > longest => {
                return Err(SpecError::TooLong);
            }
            Kind::Fixed { size, every } if !size.is_multiple_of(every) => {
                return Err(SpecError::Uneven { size, every });
            }
            Kind::Fixed { size, every } if size / every > MAX_PANES => {
                return Err(SpecError::TooFine { panes: size / every });
            }
            _ => {}
        }
        Ok(Spec { kind, aggregates, memory: DEFAULT_MEMORY })
    }

    /// With another bound of memory, in bytes; approximate, within a few times what one key takes.
    pub fn with_memory(mut self, bytes: usize) -> Spec {
        self.memory = bytes;
        self
    }
}

/// What a window had of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// First nanosecond since 1970 UTC.
    pub start_ns: u64,
    /// The one after the last; of a session that of its last record.
    pub end_ns: u64,
    /// The key; `None` where none was asked for.
    pub key: Option<Rc<str>>,
    /// By aggregate.
    pub outcomes: Vec<Outcome>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In its windows, those of them that were still open.
    Counted,
    /// All its windows were closed.
    Late,
    /// It would have taken memory that is not there.
    Dropped,
}

/// What became of all records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// See [`Fate::Counted`].
    pub counted: u64,
    /// See [`Fate::Late`].
    pub late: u64,
    /// See [`Fate::Dropped`].
    pub dropped: u64,
}

/// Windows being filled.
#[derive(Debug)]
pub struct Windows {
    spec: Spec,
    shape: Shape,
    counts: Counts,
    /// Taken by keys and aggregates.
    bytes: usize,
}

#[derive(Debug)]
enum Shape {
    Fixed(Panes),
    Sessions(Sessions),
}

impl Windows {
    /// None yet.
    pub fn new(spec: Spec) -> Windows {
        let shape = match spec.kind {
            Kind::Fixed { size, every } => Shape::Fixed(Panes::new(size, every)),
            Kind::Session { gap } => Shape::Sessions(Sessions::new(gap)),
        };
        Windows { spec, shape, counts: Counts::default(), bytes: 0 }
    }

    /// A record at `at_ns` with a sample for each aggregate. All of them come to the same time for one key only if
    /// its key does.
    pub fn observe(&mut self, at_ns: u64, key: Option<&str>, samples: &[Sample]) -> Fate {
        let key = key.unwrap_or_default();
        let mut room = Room { spec: &self.spec, bytes: &mut self.bytes };
        let fate = match &mut self.shape {
            Shape::Fixed(panes) => panes.observe(at_ns, key, samples, &mut room),
            Shape::Sessions(sessions) => sessions.observe(at_ns, key, samples, &mut room),
        };
        match fate {
            Fate::Counted => self.counts.counted += 1,
            Fate::Late => self.counts.late += 1,
            Fate::Dropped => self.counts.dropped += 1,
        }
        fate
    }

    /// Nothing from before `watermark_ns` is expected any more: windows that end by then are closed, in the order of
    /// their ends. `keyed` says whether rows have keys.
    pub fn advance(&mut self, watermark_ns: u64, keyed: bool, out: &mut Vec<Row>) {
        let mut room = Room { spec: &self.spec, bytes: &mut self.bytes };
        let from = out.len();
        match &mut self.shape {
            Shape::Fixed(panes) => panes.advance(watermark_ns, &mut room, out),
            Shape::Sessions(sessions) => sessions.advance(watermark_ns, &mut room, out),
        }
        if !keyed {
            out.iter_mut().skip(from).for_each(|row| row.key = None);
        }
    }

    /// Nothing more comes: all windows are closed.
    pub fn finish(&mut self, keyed: bool, out: &mut Vec<Row>) {
        self.advance(u64::MAX, keyed, out);
    }

    /// The start of the oldest span of which something is kept: no window that is open has a record from before, in
    /// nanoseconds since 1970 UTC. `None` if none is open. Of sessions all are looked at.
    pub fn oldest_ns(&self) -> Option<u64> {
        match &self.shape {
            Shape::Fixed(panes) => panes.oldest_ns(),
            Shape::Sessions(sessions) => sessions.oldest_ns(),
        }
    }

    /// What became of the records so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Memory for keys and aggregates.
struct Room<'w> {
    spec: &'w Spec,
    bytes: &'w mut usize,
}

/// What a key costs beside its text and aggregates, in bytes: an entry of a map, and of an index.
const KEY: usize = 96;

impl Room<'_> {
    /// Whether there is any left.
    fn any(&self) -> bool {
        *self.bytes < self.spec.memory
    }

    /// New aggregates for `key`, these samples in them, if there is room.
    fn group(&mut self, key: &str, samples: &[Sample]) -> Option<Group> {
        if !self.any() {
            return None;
        }
        let mut group = Group(self.spec.aggregates.iter().map(State::new).collect());
        group.add(samples);
        *self.bytes += KEY + key.len() + group.bytes();
        Some(group)
    }

    /// Adds to a key's aggregates; false if those would grow beyond the memory there is.
    fn add(&mut self, group: &mut Group, samples: &[Sample]) -> bool {
        if !self.any() && group.0.iter().any(State::grows) {
            return false;
        }
        let before = group.bytes();
        group.add(samples);
        *self.bytes = (*self.bytes + group.bytes()).saturating_sub(before);
        true
    }

    /// A key's aggregates are gone.
    fn gone(&mut self, key: &str, group: &Group) {
        *self.bytes = self.bytes.saturating_sub(KEY + key.len() + group.bytes());
    }
}

/// The aggregates of one key in one span.
#[derive(Clone, Debug)]
struct Group(Vec<State>);

impl Group {
    fn add(&mut self, samples: &[Sample]) {
        for (state, sample) in self.0.iter_mut().zip(samples) {
            state.add(sample);
        }
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(State::bytes).sum()
    }

    fn merge(&mut self, other: &Group) {
        for (state, other) in self.0.iter_mut().zip(&other.0) {
            state.merge(other);
        }
    }

    /// What it says of a span of so many nanoseconds.
    fn outcomes(&self, span_ns: u64) -> Vec<Outcome> {
        self.0.iter().map(|state| state.outcome(span_ns)).collect()
    }
}

/// Groups by key.
type Groups = HashMap<Rc<str>, Group>;

#[cfg(test)]
mod tests;
