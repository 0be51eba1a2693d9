//! A plan on a terminal: a first page that can be read in a minute, and behind it how each figure came about.

use std::fmt::{self, Display, Write};

use super::answer::{Answer, Verdict, span};
use super::plan::{Plan, Sustains};
use crate::report::figures::{bytes, counted, moment, rate, seconds};

/// Columns of a page.
const WIDTH: usize = 100;
/// Of a question's title.
const TITLE: usize = 21;
/// Of a verdict.
const WORD: usize = 7;

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = String::new();
        self.first_page(&mut page)?;
        self.details(&mut page)?;
        f.write_str(&page)
    }
}

/// `text` broken at blanks to fit behind `indent` columns, of which the first line has `first` taken already.
fn wrapped(out: &mut String, first: usize, indent: usize, text: &str) -> fmt::Result {
    let mut column = first;
    for (i, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if i > 0 && column + 1 + width > WIDTH && column > indent {
            write!(out, "\n{:indent$}", "")?;
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
    Ok(())
}

impl Plan {
    fn first_page(&self, out: &mut String) -> fmt::Result {
        match &self.sustains {
            Some(sustains) => sustained(out, sustains)?,
            None => out.push_str("CAPACITY  not measured\n"),
        }
        if let Some(machine) = self.machine_words() {
            out.push_str("  on ");
            wrapped(out, 5, 4, &machine)?;
        }
        out.push('\n');
        for answer in self.by_use() {
            self.line(out, answer)?;
        }
        for caution in self.answers.iter().filter_map(|answer| answer.caution.as_deref()) {
            write!(out, "  {:<TITLE$}", "CAUTION")?;
            wrapped(out, 2 + TITLE, 2 + TITLE + WORD, caution)?;
        }
        let trust =
            format!("{}: {}", self.trust.verdict.to_uppercase(), self.trust.reasons.join("; "));
        write!(out, "  {:<TITLE$}", "trust")?;
        wrapped(out, 2 + TITLE, 2 + TITLE + WORD, &trust)
    }

    fn line(&self, out: &mut String, answer: &Answer) -> fmt::Result {
        write!(out, "  {:<TITLE$}", self.title(answer))?;
        let word = answer.verdict.word();
        let says = self.in_short(answer);
        let indent = 2 + TITLE + WORD;
        match answer.verdict {
            Verdict::Known => wrapped(out, 2 + TITLE, indent, &says),
            _ if word.len() < WORD => {
                write!(out, "{word:<WORD$}")?;
                wrapped(out, indent, indent, &says)
            }
            _ => wrapped(out, 2 + TITLE, indent, &format!("{word}: {says}")),
        }
    }

    /// The question in a few words, with what is asked.
    pub(super) fn title(&self, answer: &Answer) -> String {
        use super::answer::Question;
        match answer.question {
            Question::CatchUp => match self.demand.outage_s {
                Some(outage) => format!("outage of {}", span(outage)),
                None => answer.question.title().to_owned(),
            },
            Question::Retention => match self.demand.retention_s {
                Some(retention) => format!("retention {}", span(retention)),
                None => answer.question.title().to_owned(),
            },
            Question::Headroom => format!("average {}/s", short(self.demand.rate)),
            Question::Peak if self.demand.peak.is_some() => {
                format!("peak {}/s", short(self.demand.peak_rate()))
            }
            Question::Groups => counted(u64::from(self.demand.groups), "group"),
            question => question.title().to_owned(),
        }
    }

    fn details(&self, out: &mut String) -> fmt::Result {
        self.more(out)?;
        if self.answers.iter().any(has_details) {
            heading(out, "HOW EACH FIGURE CAME ABOUT")?;
        }
        for answer in &self.answers {
            details_of(out, answer)?;
        }
        if !self.formulas.is_empty() {
            heading(out, "FORMULAS")?;
        }
        for formula in &self.formulas {
            write!(out, "  {:<18} ", formula.id)?;
            let text =
                format!("{} [{}] Beware: {}.", formula.text, formula.source, formula.caution);
            wrapped(out, 21, 21, &text)?;
        }
        bullets(out, "ASSUMED", self.assumptions.iter().cloned())?;
        let sources = self.sources.iter().map(|source| {
            let when = if source.began_ns > 0 {
                format!(", {}", moment(source.began_ns))
            } else {
                String::new()
            };
            let void = match source.void.len() {
                0 => String::new(),
                1 | 2 => format!(", {} void ({})", source.void.len(), source.void.join("; ")),
                // The first stands for the others: most often they have one reason. The report names all.
                n => format!(", {n} void ({}; and {} more)", source.void[0], n - 1),
            };
            format!(
                "{}: {} of {}{when}; {} count{void}",
                source.name,
                source.kind.name(),
                if source.target.is_empty() { "an unnamed target" } else { &source.target },
                source.counted
            )
        });
        bullets(out, "FROM", sources)?;
        bullets(out, "LEFT OUT", self.left_out.iter().cloned())?;
        bullets(out, "MIXED BY --force", self.mixed.iter().map(ToString::to_string))?;
        let lints = self
            .lints
            .iter()
            .map(|lint| format!("{}: {}. Remedy: {}", lint.name, lint.message, lint.remedy));
        bullets(out, "WHAT THE MACHINE DOES TO THE FIGURES", lints)
    }

    /// Runs that would answer more. A command is to be copied: it stays in one piece.
    fn more(&self, out: &mut String) -> fmt::Result {
        let proposals = self.proposals();
        if proposals.is_empty() {
            return Ok(());
        }
        heading(
            out,
            "TO KNOW MORE, RUN THESE (AGAINST A SERVER AT -t) AND PLAN AGAIN WITH WHAT THEY WRITE",
        )?;
        for proposal in proposals {
            writeln!(out, "  ({}) {}", proposal.number, proposal.titles())?;
            writeln!(out, "      {}", proposal.command)?;
        }
        Ok(())
    }
}

/// A rate in few characters: `400k`, `1.5M`.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v < 10_000.0 => return rate(v.round()),
        v if v < 999_950.0 => (v / 1e3, "k"),
        v => (v / 1e6, "M"),
    };
    let text = format!("{value:.1}");
    text.trim_end_matches(".0").to_owned() + unit
}

fn heading(out: &mut String, text: &str) -> fmt::Result {
    write!(out, "\n{text}\n")
}

fn bullets(out: &mut String, title: &str, items: impl Iterator<Item = String>) -> fmt::Result {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    heading(out, title)?;
    for item in items {
        out.push_str("  - ");
        wrapped(out, 4, 4, &item)?;
    }
    Ok(())
}

fn sustained(out: &mut String, s: &Sustains) -> fmt::Result {
    let what = s.setup.as_ref().map_or_else(|| "as recorded".to_owned(), |setup| setup.words());
    writeln!(out, "CAPACITY  {what}    ({})", s.from)?;
    let mut text = match s.estimate {
        Some(range) => format!(
            "sustains {} records/s [{}, {}] with {}",
            rate(range.value),
            rate(range.low),
            rate(range.high),
            s.goals
        ),
        None if s.open => {
            format!("at least {} records/s with {}; NO LIMIT WAS FOUND", rate(s.safe), s.goals)
        }
        None => format!("kept up {} records/s with {}", rate(s.safe), s.goals),
    };
    if let Some(trials) = s.trials {
        text += &format!(" ({}", counted(trials as u64, "trial"));
        if let Some(void) = s.void.filter(|void| *void > 0) {
            text += &format!(", {void} more void");
        }
        text += &soak(s);
        text += ")";
    }
    out.push_str("  ");
    wrapped(out, 2, 4, &text)?;
    if s.estimate.is_some() {
        let size =
            s.setup.as_ref().map(|setup| format!(" ({}/s)", bytes(setup.record_bytes * s.safe)));
        let mut text = format!("safe: {} records/s{}", rate(s.safe), size.unwrap_or_default());
        if let Some(overload) = s.overload {
            text += &format!("; delivers {} when more is offered", rate(overload.value));
        }
        if s.recovers == Some(false) {
            text += "; DOES NOT RECOVER from overload";
        }
        out.push_str("  ");
        wrapped(out, 2, 4, &text)?;
    } else if let Some(overload) = s.overload {
        out.push_str("  ");
        wrapped(out, 2, 4, &format!("delivers {} when more is offered", rate(overload.value)))?;
    }
    Ok(())
}

/// How long the safe rate was kept up, of how long it should have been.
fn soak(s: &Sustains) -> String {
    let (Some(soak), Some(held)) = (s.soak_s, s.soak_held) else { return String::new() };
    let wanted = s.soak_wanted_s.filter(|wanted| soak < 0.95 * wanted);
    let wanted = wanted.map_or(String::new(), |wanted| format!(" of {}", seconds(wanted)));
    format!(", soak of {}{wanted}: {}", seconds(soak), if held { "held" } else { "NOT held" })
}

fn has_details(answer: &Answer) -> bool {
    !(answer.figures.is_empty() && answer.notes.is_empty() && answer.tables.is_empty())
}

fn details_of(out: &mut String, answer: &Answer) -> fmt::Result {
    if !has_details(answer) {
        return Ok(());
    }
    writeln!(out, "  {}", answer.question.asks())?;
    for figure in &answer.figures {
        let interval = figure.interval();
        let interval = if interval.is_empty() { interval } else { format!(" {interval}") };
        write!(out, "    {} = {}{interval}", figure.name, figure.shown())?;
        writeln!(out, "   by {}", figure.formula)?;
        let inputs: Vec<String> = figure
            .inputs
            .iter()
            .map(|input| {
                format!("{} {} ({})", input.name, input.unit.show(input.value), input.from)
            })
            .collect();
        out.push_str("      ");
        wrapped(out, 6, 8, &inputs.join(", "))?;
    }
    for rows in &answer.tables {
        table(out, rows)?;
    }
    for note in &answer.notes {
        out.push_str("    ! ");
        wrapped(out, 6, 6, note)?;
    }
    Ok(())
}

fn table(out: &mut String, rows: &super::answer::Rows) -> fmt::Result {
    let all = || std::iter::once(&rows.columns).chain(&rows.rows);
    let widths: Vec<usize> = (0..rows.columns.len())
        .map(|i| {
            all().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    writeln!(out, "    {}:", rows.caption)?;
    for row in all() {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let figure = cell.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
            line += &if figure { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        }
        writeln!(out, "      {}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_and_indented() {
        let mut out = String::from("12345678");
        wrapped(&mut out, 8, 4, &"word ".repeat(30)).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert!(
            lines.len() == 2 && lines.iter().all(|line| line.chars().count() <= WIDTH),
            "{out}"
        );
        assert!(lines[1].starts_with("    word"));
        let mut out = String::new();
        wrapped(&mut out, 0, 2, &"x".repeat(300)).unwrap();
        assert_eq!(out.len(), 301, "a word is never broken");
    }

    #[test]
    fn rates_in_titles_are_short() {
        for (value, text) in [
            (400.0, "400"),
            (9_999.4, "9,999"),
            (400e3, "400k"),
            (52_140.0, "52.1k"),
            (1.5e6, "1.5M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
