//! What is known of a key in a window, in bounded memory, mergeable.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::mem::size_of;

use sketches_ddsketch::{Config, DDSketch};

/// What to find out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregate {
    /// Records.
    Count,
    /// Records a second, over the length of the window.
    Rate,
    /// Sum of numbers.
    Sum,
    /// Smallest number.
    Min,
    /// Largest number.
    Max,
    /// Mean of numbers.
    Mean,
    /// The number below which this share of them lies, 0 to 1, within 1 % of its value.
    Percentile(f64),
    /// How many different values. Exact up to [`EXACT`], an estimate within a few percent beyond.
    Distinct,
    /// The most frequent values, so many.
    Top(usize),
}

/// Different values that are told apart exactly.
pub const EXACT: usize = 1_024;

/// Most values of [`Aggregate::Top`].
pub const MAX_TOP: usize = 100;

/// Values counted for each that is asked for: the more, the surer.
const TOP_SPARE: usize = 10;

/// Longest value that [`Aggregate::Top`] keeps, in bytes; longer ones are cut.
const TOP_VALUE: usize = 256;

/// What a record has for an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// That it is there.
    Here,
    /// A number.
    Number(f64),
    /// A value, as JSON.
    Value(String),
    /// Nothing: it does not count.
    Nothing,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A number of records or values, exact.
    Count(u64),
    /// A number of values, estimated.
    About(u64),
    /// A number; `None` if there was none.
    Number(Option<f64>),
    /// The most frequent first.
    Top(Top),
}

/// The most frequent values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// Value, as JSON, and how often it came.
    pub values: Vec<(String, u64)>,
    /// By how much each count may be too high: 0 is exact.
    pub over: u64,
}

/// An aggregate under way.
#[derive(Clone, Debug)]
pub(super) enum State {
    Count(u64),
    Rate(u64),
    Sum(f64, u64),
    Min(Option<f64>),
    Max(Option<f64>),
    Mean(f64, u64),
    Percentile(f64, Option<Box<Sketch>>),
    Distinct(Distinct),
    Top(Frequent),
}

impl State {
    pub fn new(of: &Aggregate) -> State {
        match *of {
            Aggregate::Count => State::Count(0),
            Aggregate::Rate => State::Rate(0),
            Aggregate::Sum => State::Sum(0.0, 0),
            Aggregate::Min => State::Min(None),
            Aggregate::Max => State::Max(None),
            Aggregate::Mean => State::Mean(0.0, 0),
            Aggregate::Percentile(share) => State::Percentile(share, None),
            Aggregate::Distinct => State::Distinct(Distinct::default()),
            Aggregate::Top(k) => State::Top(Frequent::new(k)),
        }
    }

    /// Whether its memory depends on what comes.
    pub fn grows(&self) -> bool {
        matches!(self, State::Percentile(..) | State::Distinct(_) | State::Top(_))
    }

    /// Memory, about.
    pub fn bytes(&self) -> usize {
        size_of::<State>()
            + match self {
                // A sketch has two rows of at most 2,048 counters, begun with 128 and made longer as needed.
                State::Percentile(_, Some(sketch)) => size_of::<Sketch>() + sketch.0.length() * 8,
                State::Distinct(distinct) => distinct.smallest.len() * 16,
                State::Top(top) => top.bytes,
                _ => 0,
            }
    }

    pub fn add(&mut self, sample: &Sample) {
        let number = match *sample {
            Sample::Number(number) if !number.is_nan() => Some(number),
            _ => None,
        };
        match (self, number) {
            (State::Count(n) | State::Rate(n), _) if *sample != Sample::Nothing => *n += 1,
            (State::Sum(sum, n) | State::Mean(sum, n), Some(number)) => {
                *sum += number;
                *n += 1;
            }
            (State::Min(min), Some(number)) => *min = Some(min.map_or(number, |m| m.min(number))),
            (State::Max(max), Some(number)) => *max = Some(max.map_or(number, |m| m.max(number))),
            (State::Percentile(_, sketch), Some(number)) if number.is_finite() => {
                sketch.get_or_insert_default().0.add(number);
            }
            (State::Distinct(distinct), _) => {
                if let Sample::Value(value) = sample {
                    distinct.add(hash(value));
                }
            }
            (State::Top(top), _) => {
                if let Sample::Value(value) = sample {
                    top.add(cut(value), 1);
                }
            }
            _ => {}
        }
    }

    /// Adds what another of the same kind has.
    pub fn merge(&mut self, other: &State) {
        match (self, other) {
            (State::Count(n) | State::Rate(n), State::Count(m) | State::Rate(m)) => *n += m,
            (
                State::Sum(sum, n) | State::Mean(sum, n),
                State::Sum(more, m) | State::Mean(more, m),
            ) => {
                *sum += more;
                *n += m;
            }
            (State::Min(min), State::Min(Some(other))) => {
                *min = Some(min.map_or(*other, |m| m.min(*other)));
            }
            (State::Max(max), State::Max(Some(other))) => {
                *max = Some(max.map_or(*other, |m| m.max(*other)));
            }
            (State::Percentile(_, sketch), State::Percentile(_, Some(other))) => {
                // Sketches of one configuration always merge.
                let _same = sketch.get_or_insert_default().0.merge(&other.0);
            }
            (State::Distinct(distinct), State::Distinct(other)) => {
                other.smallest.iter().for_each(|hash| distinct.add(*hash));
                distinct.more |= other.more;
            }
            (State::Top(top), State::Top(other)) => top.merge(other),
            _ => {}
        }
    }

    /// What it says of a span of so many nanoseconds.
    pub fn outcome(&self, span_ns: u64) -> Outcome {
        match self {
            State::Count(n) => Outcome::Count(*n),
            State::Rate(n) => {
                let seconds = span_ns as f64 / 1e9;
                Outcome::Number((seconds > 0.0).then(|| *n as f64 / seconds))
            }
            State::Sum(sum, n) => Outcome::Number((*n > 0).then_some(*sum)),
            State::Min(number) | State::Max(number) => Outcome::Number(*number),
            State::Mean(sum, n) => Outcome::Number((*n > 0).then(|| sum / *n as f64)),
            State::Percentile(share, sketch) => {
                let number = sketch.as_ref().and_then(|s| s.0.quantile(*share).ok().flatten());
                Outcome::Number(number)
            }
            State::Distinct(distinct) => distinct.outcome(),
            State::Top(top) => Outcome::Top(top.top()),
        }
    }
}

/// Numbers, each within 1 % of its value, with at most 2,048 counters for positive and as many for negative ones
/// (DDSketch, Masson and others, 2019).
#[derive(Clone)]
pub(super) struct Sketch(DDSketch);

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch(DDSketch::new(Config::new(0.01, 2_048, 1.0e-9)))
    }
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketch").field("count", &self.0.count()).finish_non_exhaustive()
    }
}

fn hash(value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value.as_bytes());
    hasher.finish()
}

fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(TOP_VALUE)]
}

/// Different values by the smallest of their hashes (Bar-Yossef and others, "Counting distinct elements in a data
/// stream", 2002): exact while there is room for all, and beyond it the more values the closer together they lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct {
    smallest: BTreeSet<u64>,
    /// Some were left out.
    more: bool,
}

impl Distinct {
    fn add(&mut self, hash: u64) {
        self.smallest.insert(hash);
        if self.smallest.len() > EXACT {
            self.smallest.pop_last();
            self.more = true;
        }
    }

    fn outcome(&self) -> Outcome {
        let n = self.smallest.len();
        match self.smallest.last() {
            Some(&largest) if self.more && largest > 0 => {
                let share = largest as f64 / u64::MAX as f64;
                Outcome::About(((n - 1) as f64 / share).round() as u64)
            }
            _ => Outcome::Count(n as u64),
        }
    }
}

/// Frequent values by the Space-Saving algorithm (Metwally and others, "Efficient computation of frequent and top-k
/// elements in data streams", 2005): when there is no counter left, the smallest goes to the new value with its count.
#[derive(Clone, Debug)]
pub(super) struct Frequent {
    k: usize,
    counts: HashMap<String, u64>,
    /// No count is higher than the truth by more.
    over: u64,
    /// Memory, about.
    bytes: usize,
}

impl Frequent {
    fn new(k: usize) -> Frequent {
        Frequent { k, counts: HashMap::new(), over: 0, bytes: 0 }
    }

    fn add(&mut self, value: &str, times: u64) {
        if let Some(count) = self.counts.get_mut(value) {
            *count += times;
            return;
        }
        let mut inherited = 0;
        if self.counts.len() >= self.k * TOP_SPARE {
            // The smallest of equal counts by name, so that the same records always give the same.
            let smallest = self.counts.iter().min_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)));
            if let Some((gone, count)) = smallest.map(|(value, count)| (value.clone(), *count)) {
                self.counts.remove(&gone);
                self.bytes = self.bytes.saturating_sub(gone.len() + 64);
                inherited = count;
                self.over = self.over.max(count);
            }
        }
        self.bytes += value.len() + 64;
        self.counts.insert(value.to_owned(), inherited + times);
    }

    fn merge(&mut self, other: &Frequent) {
        let over = self.over + other.over;
        for (value, count) in other.sorted() {
            self.add(value, count);
        }
        self.over = self.over.max(over);
    }

    /// The most frequent first; of equal counts by name.
    fn sorted(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(value, count)| (&**value, *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all
    }

    fn top(&self) -> Top {
        let values = self.sorted().into_iter().take(self.k);
        Top { values: values.map(|(v, n)| (v.to_owned(), n)).collect(), over: self.over }
    }
}
