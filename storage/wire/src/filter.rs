//! What a filter found: how many records it looked at, how many matched, and of how many it could not say.

use crate::le::u64_ule;
use crate::portable_header;

/// Why a filter has no answer for a record, in the order of [`FilterTally::unanswered`]; in the words people read.
pub const UNANSWERED: [&str; 9] = [
    "missing field",
    "wrong type",
    "division by zero",
    "overflow",
    "index out of range",
    "not convertible",
    "payload not JSON or text",
    "payload too large",
    "too expensive",
];

portable_header! {
    /// What a filter found since the last frame of the subscription that told, or in a fetch. Records without an answer
    /// do not match.
    pub struct FilterCounts, 88 bytes {
        /// Records looked at.
        looked: u64_ule,
        /// Of these, records that matched.
        matched: u64_ule,
        /// Without an answer: a field that is not there.
        missing_field: u64_ule,
        /// Without an answer: a value of a type that the operation does not take.
        wrong_type: u64_ule,
        /// Without an answer: a whole number divided by zero.
        division_by_zero: u64_ule,
        /// Without an answer: a result beyond 64 bits.
        overflow: u64_ule,
        /// Without an answer: an index outside of its list.
        out_of_range: u64_ule,
        /// Without an answer: a text that is no number, time or duration.
        not_convertible: u64_ule,
        /// Without an answer: a payload that is no JSON document, or no text.
        not_json: u64_ule,
        /// Without an answer: a payload that is too large to be read as JSON.
        too_large: u64_ule,
        /// Without an answer: more steps than one evaluation may take.
        too_expensive: u64_ule,
    }
}

/// [`FilterCounts`] as numbers that can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterTally {
    /// Records looked at.
    pub looked: u64,
    /// Of these, records that matched.
    pub matched: u64,
    /// Of these, records without an answer (which do not match), by reason: see [`UNANSWERED`].
    pub unanswered: [u64; UNANSWERED.len()],
}

impl FilterTally {
    /// Adds what another says.
    pub fn add(&mut self, other: &FilterTally) {
        self.looked = self.looked.saturating_add(other.looked);
        self.matched = self.matched.saturating_add(other.matched);
        for (sum, more) in self.unanswered.iter_mut().zip(other.unanswered) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Records without an answer.
    pub fn without_answer(&self) -> u64 {
        self.unanswered.iter().fold(0, |sum, more| sum.saturating_add(*more))
    }

    /// Why records had no answer, in words, with how many; reasons that there were none of are left out.
    pub fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        UNANSWERED.into_iter().zip(self.unanswered).filter(|(_, count)| *count > 0)
    }

    /// As it crosses the wire.
    pub fn to_array(&self) -> [u8; FilterCounts::LEN] {
        let [missing, types, zero, overflow, range, convertible, json, large, expensive] =
            self.unanswered;
        FilterCounts {
            looked: self.looked.into(),
            matched: self.matched.into(),
            missing_field: missing.into(),
            wrong_type: types.into(),
            division_by_zero: zero.into(),
            overflow: overflow.into(),
            out_of_range: range.into(),
            not_convertible: convertible.into(),
            not_json: json.into(),
            too_large: large.into(),
            too_expensive: expensive.into(),
        }
        .to_array()
    }
}

impl From<&FilterCounts> for FilterTally {
    fn from(counts: &FilterCounts) -> FilterTally {
        let unanswered = [
            counts.missing_field,
            counts.wrong_type,
            counts.division_by_zero,
            counts.overflow,
            counts.out_of_range,
            counts.not_convertible,
            counts.not_json,
            counts.too_large,
            counts.too_expensive,
        ];
        FilterTally {
            looked: counts.looked.to_native(),
            matched: counts.matched.to_native(),
            unanswered: unanswered.map(|count| count.to_native()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_crosses_the_wire_and_adds_up() {
        let mut tally =
            FilterTally { looked: 50, matched: 5, unanswered: [1, 2, 3, 4, 5, 6, 7, 8, 9] };
        let bytes = tally.to_array();
        let read = FilterTally::from(FilterCounts::view(&bytes).unwrap());
        assert_eq!(read, tally);
        tally.add(&read);
        assert_eq!((tally.looked, tally.matched, tally.without_answer()), (100, 10, 90));
        assert_eq!(tally.reasons().next(), Some(("missing field", 2)));
        tally.unanswered[0] = u64::MAX;
        tally.add(&read);
        assert_eq!(tally.unanswered[0], u64::MAX);
        assert_eq!(FilterTally::default().reasons().count(), 0);
    }
}
