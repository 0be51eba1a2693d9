//! `--filter`: what the broker says it found, in words.

use highwater_client::Delivery;
use highwater_process::{CompileError, Filter};
use highwater_wire::FilterTally;
use ratatui::text::Span;

use crate::failure::Failure;
use crate::human::{counted, grouped};

/// An expression that is none: what is wrong, and where.
pub fn wrong(flag: &str, source: &str, error: &CompileError) -> Failure {
    let place = error.column().map(|column| format!("\n{}", pointed(source, column)));
    Failure::Usage(format!("{flag}: {error}{}", place.unwrap_or_default()))
}

/// Characters of an expression shown around a place in it.
const SHOWN: usize = 100;

/// An expression in a line, and below it a caret under the character of this column, counted from 1.
fn pointed(source: &str, column: usize) -> String {
    let line: Vec<char> = source.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let at = column.saturating_sub(1).min(line.len());
    let from = if line.len() <= SHOWN { 0 } else { at.saturating_sub(SHOWN / 2) };
    let part = |from: usize, to: usize| line.iter().skip(from).take(to - from).collect::<String>();
    let before = (if from > 0 { "..." } else { "" }).to_owned() + &part(from, at);
    let end = line.len().min(from + SHOWN);
    let after = part(at, end.max(at)) + if end < line.len() { "..." } else { "" };
    // Wide characters take two columns.
    let indent = " ".repeat(Span::raw(&before).width());
    format!("    {before}{after}\n    {indent}^")
}

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
            Filter::compile(source).map_err(|error| wrong("--filter", source, &error))?;
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
    fn a_caret_stands_under_what_is_wrong() {
        let told = |source: &str| Found::new(Some(source)).map(drop).unwrap_err().to_string();
        assert_eq!(
            told("json.status = 404"),
            "--filter: column 13: '=' alone means nothing; write == to compare\n    json.status = 404\n                ^"
        );
        assert!(told("json.a ==").ends_with("\n    json.a ==\n             ^"));
        let wide = told("key == 'ö日本' && jsn");
        assert!(wide.ends_with(&format!("jsn\n{}^", " ".repeat(22))), "{wide}");
        let long = format!("{}jsn == 1", "json.a == 1 && ".repeat(20));
        let told = told(&long);
        let lines: Vec<&str> = told.lines().collect();
        let caret = lines[2].find('^').unwrap();
        assert!(lines[1].starts_with("    ...") && lines[1][caret..].starts_with("jsn"), "{told}");
        assert!(lines[1].len() < 120, "{told}");
    }

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
