//! What came of the runs, as Markdown: medians over the rounds with their range, and ratios within rounds.

mod aims;

use std::fmt::Write as _;

use aims::Aim;
use highwater_loadgen::{Report, units};

use crate::rivals::{Contender, Durability, Place};
use crate::rounds::{Load, Rounds, Shape};

/// The whole table.
pub struct Table<'a> {
    /// What the runs had in common.
    pub shape: &'a Shape,
    /// Where they were made.
    pub place: &'a Place,
    /// Highwater first.
    pub systems: &'a [Contender],
    /// What is not among them, and why.
    pub absent: &'a [(String, String)],
    /// All runs, and who failed in them.
    pub rounds: &'a Rounds<'a>,
}

/// Figures of the rounds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Figures(Vec<f64>);

impl Figures {
    fn of(values: impl IntoIterator<Item = f64>) -> Figures {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Figures(values)
    }

    /// The middle one; the mean of the two of them, if they are of an even number.
    fn median(&self) -> Option<f64> {
        let (n, middle) = (self.0.len(), self.0.len() / 2);
        match n {
            0 => None,
            n if n % 2 == 1 => self.0.get(middle).copied(),
            _ => Some((self.0[middle - 1] + self.0[middle]) / 2.0),
        }
    }

    /// The median and the range, each as `show` has it.
    fn text(&self, show: impl Fn(f64) -> String) -> String {
        match (self.median(), self.0.first(), self.0.last()) {
            (Some(median), Some(least), Some(most)) if self.0.len() > 1 => {
                format!("{} ({} to {})", show(median), show(*least), show(*most))
            }
            (Some(median), ..) => show(median),
            _ => "–".to_owned(),
        }
    }
}

impl Table<'_> {
    /// Rounds, the last of them perhaps not to its end.
    fn numbers(&self) -> impl Iterator<Item = usize> {
        0..self.shape.rounds
    }

    /// The run of a system at a load in a round, that compared it with `rival`.
    fn find(
        &self,
        round: usize,
        system: usize,
        rival: usize,
        size: usize,
        load: impl Fn(Load) -> bool,
    ) -> Option<&Report> {
        let run = self.rounds.runs.iter().find(|run| {
            (run.round, run.system, run.rival, run.size) == (Some(round), system, rival, size)
                && load(run.load)
        });
        run.map(|run| &run.report)
    }

    /// `figure` of a system's runs, one a round.
    fn figures(
        &self,
        (system, rival, size): (usize, usize, usize),
        load: impl Fn(Load) -> bool + Copy,
        figure: impl Fn(&Report) -> f64,
    ) -> Figures {
        Figures::of(
            self.numbers()
                .filter_map(|round| self.find(round, system, rival, size, load).map(&figure)),
        )
    }

    /// The same of two systems' runs, the first's divided by the second's of the same round.
    fn ratios(
        &self,
        (system, other, rival, size): (usize, usize, usize, usize),
        load: impl Fn(Load) -> bool + Copy,
        figure: impl Fn(&Report) -> f64,
    ) -> Figures {
        // At a rate both are of the rival; otherwise each run is its own system's.
        let own = |system| if rival == usize::MAX { system } else { rival };
        Figures::of(self.numbers().filter_map(|round| {
            let a = self.find(round, system, own(system), size, load)?;
            let b = self.find(round, other, own(other), size, load)?;
            Some(figure(a) / figure(b))
        }))
    }

    fn size(size: usize) -> String {
        units::size_text(size)
    }

    /// Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        self.machine(&mut out);
        self.settings(&mut out);
        self.aims(&mut out);
        self.max(&mut out);
        self.half(&mut out);
        self.lone(&mut out);
        self.trust(&mut out);
        out
    }

    fn machine(&self, out: &mut String) {
        let Shape { rounds: asked, within, length, warmup, producers, batch, inflight, .. } =
            self.shape;
        let Some(first) = self.rounds.runs.first() else { return };
        let machine = &first.report.environment;
        let rounds = match (self.rounds.made, within) {
            (made, _) if made == *asked => format!("{made} rounds"),
            (made, Some(within)) => format!("{made} of {asked} rounds (no more within {within:?})"),
            (made, None) => format!("{made} of {asked} rounds"),
        };
        let steal = Figures::of(self.rounds.runs.iter().filter_map(|run| run.report.steal));
        let _ = writeln!(
            out,
            "{} CPUs ({}), kernel {}. {rounds} in turn, {length:?} measured after {warmup:?} in each run, {producers} \
             producers with {inflight} batches of {} unanswered each, servers on CPU {}, generator on CPU {:?}; {} of the \
             CPU time was stolen by the hypervisor. Medians of the rounds, in brackets the range; a ratio is the median of \
             the rounds' ratios.\n",
            machine.cpus,
            machine.cpu_model.as_deref().unwrap_or("unknown"),
            machine.kernel,
            units::size_text(*batch),
            self.place.server_cpus,
            self.shape.load_cpus,
            steal.text(|share| format!("{:.1} %", share * 100.0)),
        );
    }

    fn settings(&self, out: &mut String) {
        let _ = writeln!(out, "| | release | acknowledged | settings |\n|---|---|---|---|");
        for (index, system) in self.systems.iter().enumerate() {
            let server = self.rounds.runs.iter().find(|run| run.system == index);
            let acknowledged = match system.durability {
                Durability::Synced => "on the device",
                Durability::Default => "as by default",
            };
            let _ = writeln!(
                out,
                "| {} | {} | {acknowledged} | `{}` |",
                system.name,
                server.map_or("", |run| &run.report.server),
                system.settings,
            );
        }
        for (name, why) in self.absent {
            let _ = writeln!(out, "| {name} | – | not measured | {} |", one_line(why));
        }
        for (index, why) in &self.rounds.failed {
            let name = &self.systems[*index].name;
            let _ =
                writeln!(out, "\n{name} failed, and was left out from then on: {}", one_line(why));
        }
        let _ = writeln!(out);
    }

    fn max(&self, out: &mut String) {
        let _ = writeln!(out, "### As fast as it takes records\n");
        let _ = writeln!(
            out,
            "| | records | records/s | payload MB/s | Highwater is | {} |",
            Aim::Rate
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|");
        let max = |load| load == Load::Max;
        for &size in &self.shape.sizes {
            for (index, system) in self.systems.iter().enumerate() {
                let rate = self.figures((index, index, size), max, |r| r.records_per_s);
                let bytes = self.figures((index, index, size), max, |r| r.bytes_per_s / 1e6);
                let ratio = self.ratios((0, index, usize::MAX, size), max, |r| r.records_per_s);
                let _ = writeln!(
                    out,
                    "| {} | {} | {} | {} | {} | {} |",
                    system.name,
                    Table::size(size),
                    rate.text(thousands),
                    bytes.median().map_or("–".to_owned(), thousands),
                    if index == 0 { String::new() } else { ratio.text(times) },
                    self.verdict(Aim::Rate, index, size),
                );
            }
        }
        let _ = writeln!(out);
    }

    fn half(&self, out: &mut String) {
        let _ = writeln!(out, "### At half the other's own highest rate, everything read\n");
        let _ = writeln!(
            out,
            "| | records | rate | its p50 | its p99 | Highwater's p50 | Highwater's p99 | of its p99 | {} |",
            Aim::Tail
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|---|---|");
        let half = |load| matches!(load, Load::Rate(_));
        for &size in &self.shape.sizes {
            for (index, system) in self.systems.iter().enumerate().skip(1) {
                let rate = self.rounds.runs.iter().find_map(|run| match run.load {
                    Load::Rate(rate) if (run.rival, run.size) == (index, size) => Some(rate),
                    _ => None,
                });
                let own = |system, figure: fn(&Report) -> f64| {
                    self.figures((system, index, size), half, figure).text(time)
                };
                let p50 = |r: &Report| r.latency_us.response.p50;
                let p99 = |r: &Report| r.latency_us.response.p99;
                let ratio = self.ratios((0, index, index, size), half, p99);
                let _ = writeln!(
                    out,
                    "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                    system.name,
                    Table::size(size),
                    rate.map_or("–".to_owned(), |rate| format!("{}/s", thousands(rate))),
                    own(index, p50),
                    own(index, p99),
                    own(0, p50),
                    own(0, p99),
                    ratio.text(share),
                    self.verdict(Aim::Tail, index, size),
                );
            }
        }
        let _ = writeln!(out);
    }

    fn lone(&self, out: &mut String) {
        let Some(&size) = self.shape.sizes.first() else { return };
        let _ = writeln!(out, "### One producer, one record of {} at a time\n", Table::size(size));
        let _ = writeln!(out, "| | p50 | p99 | records/s | Highwater's p50 is | {} |", Aim::Lone);
        let _ = writeln!(out, "|---|---|---|---|---|---|");
        let lone = |load| load == Load::Lone;
        for (index, system) in self.systems.iter().enumerate() {
            let of = |figure: fn(&Report) -> f64| self.figures((index, index, size), lone, figure);
            let p50 = |r: &Report| r.latency_us.response.p50;
            let ratio = self.ratios((0, index, usize::MAX, size), lone, p50);
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                system.name,
                of(p50).text(time),
                of(|r| r.latency_us.response.p99).text(time),
                of(|r| r.records_per_s).median().map_or("–".to_owned(), thousands),
                if index == 0 { String::new() } else { ratio.text(times) },
                self.verdict(Aim::Lone, index, size),
            );
        }
        let _ = writeln!(out);
    }

    /// What was checked, and which runs are not to be trusted.
    fn trust(&self, out: &mut String) {
        let _ = writeln!(out, "### What was checked\n");
        let _ = writeln!(
            out,
            "| | records checked | lost | read again | out of order | damaged | unread | refused | of unknown fate | void runs |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|---|---|---|");
        for (index, system) in self.systems.iter().enumerate() {
            let runs =
                || self.rounds.runs.iter().filter(|run| run.system == index).map(|run| &run.report);
            let sum = |count: fn(&Report) -> u64| runs().map(count).sum::<u64>();
            let void = runs().filter(|report| !report.valid).count();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {void} of {} |",
                system.name,
                thousands(sum(|r| r.checked_records) as f64),
                sum(|r| r.lost),
                sum(|r| r.duplicated),
                sum(|r| r.reordered),
                sum(|r| r.corrupted),
                sum(|r| r.unread),
                sum(|r| r.refused),
                sum(|r| r.unknown),
                runs().count(),
            );
        }
        let mut reasons: Vec<String> = Vec::new();
        for run in &self.rounds.runs {
            if let Some(why) = &run.report.void_reason {
                let name = &self.systems[run.system].name;
                let round = run.round.map_or(0, |round| round + 1);
                let size = Table::size(run.size);
                reasons.push(format!("- {name}, {size}, {}, round {round}: {why}", run.load));
            }
        }
        if !reasons.is_empty() {
            let _ =
                writeln!(out, "\nVoid, though counted in the medians:\n\n{}", reasons.join("\n"));
        }
    }
}

/// 12,345,678, with two digits behind the point below 10.
fn thousands(value: f64) -> String {
    if value.abs() < 10.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds, or milliseconds where those would be many.
fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e5 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.0} ms", us / 1e3),
    }
}

/// What share.
fn share(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// What may have several lines, for a cell: one line, and not all of a long one.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let line = text.lines().map(str::trim).collect::<Vec<_>>().join(" / ").replace('|', "/");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

/// How many times.
fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 10.0 => format!("{ratio:.2}x"),
        ratio => format!("{ratio:.0}x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_numbers_are_written_for_people() {
        let show = |value: f64| format!("{value}");
        assert_eq!(Figures::of([3.0, 1.0, f64::NAN, 2.0]).text(show), "2 (1 to 3)");
        assert_eq!(Figures::of([1.0, 4.0]).median(), Some(2.5));
        assert_eq!(Figures::of([7.0]).text(show), "7");
        assert_eq!(Figures::default().text(show), "–");
        for (value, text) in [(0.0, "0"), (9.0, "9"), (1.25, "1.25"), (123.0, "123")] {
            assert_eq!(thousands(value), text);
        }
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert_eq!([time(87.4), time(1_234.0), time(250_000.0)], ["87 us", "1.23 ms", "250 ms"]);
        assert_eq!(one_line("it ended:\n  a | b\n"), "it ended: / a / b");
        assert_eq!(one_line(&"ä".repeat(400)).chars().count(), 302);
        assert_eq!([times(3.456), times(42.4)], ["3.46x", "42x"]);
    }
}
