//! `--filter`: what the broker says it found, in words.

use highwater_client::Delivery;
use highwater_process::Filter;
use highwater_wire::FilterTally;

use crate::failure::Failure;
use crate::human::{counted, grouped};

/// Adds up what the filter found.
pub struct Found {
    filtered: bool,
    tally: FilterTally,
    /// Records of deliveries that were not taken to their end, of which it is not known why they did not match.
    unexplained: u64,
}

impl Found {
    /// By this expression, which is checked here so that it is refused without a server, too.
    pub fn new(filter: Option<&str>) -> Result<Found, Failure> {
        if let Some(source) = filter {
            Filter::compile(source)
                .map_err(|error| Failure::Usage(format!("--filter: {error}")))?;
        }
        let tally = FilterTally::default();
        Ok(Found { filtered: filter.is_some(), tally, unexplained: 0 })
    }

    /// All of a delivery was taken. How far the shard is by that, if not only its records say so.
    pub fn took(&mut self, delivery: &Delivery) -> Option<u64> {
        let tally = delivery.filtered.as_ref()?;
        self.tally.add(tally);
        Some(delivery.next)
    }

    /// Only `taken` records of a delivery were, those before the sequence number `next`.
    pub fn took_part(&mut self, delivery: &Delivery, taken: u64, next: u64) {
        let Some(tally) = &delivery.filtered else { return };
        let looked = next.saturating_sub(delivery.from()).min(tally.looked);
        self.tally.looked += looked;
        self.tally.matched += taken;
        if tally.without_answer() > 0 {
            self.unexplained += looked.saturating_sub(taken);
        }
    }

    /// Says on stderr what became of the records.
    pub fn report(&self) {
        if self.filtered {
            note!("filter: {}", self.words());
        }
    }

    fn words(&self) -> String {
        let all = counted(self.tally.looked, "record");
        let mut words = format!("{} of {all} matched", grouped(self.tally.matched));
        let unanswered = self.tally.without_answer();
        if unanswered > 0 {
            let reasons = self.tally.reasons().map(|(why, n)| format!("{why} {}", grouped(n)));
            let reasons = reasons.collect::<Vec<_>>().join(", ");
            let unanswered = grouped(unanswered);
            words += &format!("; {unanswered} had no answer and did not: {reasons}");
        }
        if self.unexplained > 0 {
            let last = counted(self.unexplained, "record");
            words += &format!("; whether the last {last} that did not had an answer is not known");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_in_words() {
        let found = |looked, matched, unanswered, unexplained| {
            let tally = FilterTally { looked, matched, unanswered };
            Found { filtered: true, tally, unexplained }.words()
        };
        assert_eq!(found(1, 1, [0; 9], 0), "1 of 1 record matched");
        let unanswered = [2, 0, 1_000, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            found(5_000, 1, unanswered, 0),
            "1 of 5,000 records matched; 1,002 had no answer and did not: missing field 2, division by zero 1,000"
        );
        assert_eq!(
            found(9, 1, [0; 9], 8),
            "1 of 9 records matched; whether the last 8 records that did not had an answer is not known"
        );
    }
}
