//! `--filter`: which records pass, and what became of the others.

use std::collections::BTreeMap;

use highwater_process::{EvalError, Filter, Record, Wanted};
use highwater_wire::RecordView;

use crate::failure::Failure;
use crate::human::{counted, grouped};

/// Lets records pass, and counts.
pub struct Sieve {
    filter: Option<Filter>,
    wanted: Wanted,
    passed: u64,
    filtered: u64,
    /// Records for which nothing could be said: they do not pass.
    undecided: BTreeMap<EvalError, u64>,
}

impl Sieve {
    /// For this expression; without one everything passes.
    pub fn new(filter: Option<&str>) -> Result<Sieve, Failure> {
        let filter = filter.map(Filter::compile).transpose();
        let filter = filter.map_err(|error| Failure::Usage(format!("--filter: {error}")))?;
        let wanted = Wanted::of(filter.iter().map(Filter::expression));
        Ok(Sieve { filter, wanted, passed: 0, filtered: 0, undecided: BTreeMap::new() })
    }

    /// Whether `record`, which reached the server at `arrival_ns`, passes.
    pub fn lets_pass(&mut self, record: &RecordView<'_>, arrival_ns: u64) -> bool {
        let Some(filter) = &self.filter else { return true };
        let matches = filter.matches(&Record::new(*record, arrival_ns, &self.wanted));
        match matches {
            Ok(true) => self.passed += 1,
            Ok(false) => self.filtered += 1,
            Err(error) => *self.undecided.entry(error).or_default() += 1,
        }
        matches == Ok(true)
    }

    /// Says on stderr what became of the records.
    pub fn report(&self) {
        if self.filter.is_none() {
            return;
        }
        let undecided: u64 = self.undecided.values().sum();
        let all = counted(self.passed + self.filtered + undecided, "record");
        if undecided == 0 {
            note!("filter: {} of {all} matched", grouped(self.passed));
            return;
        }
        let reasons = self.undecided.iter().map(|(why, n)| format!("{why} {}", grouped(*n)));
        note!(
            "filter: {} of {all} matched; {} had no answer and did not: {}",
            grouped(self.passed),
            grouped(undecided),
            reasons.collect::<Vec<_>>().join(", ")
        );
    }
}
