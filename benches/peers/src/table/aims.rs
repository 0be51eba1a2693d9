//! What Highwater is to reach beside each rival, and whether it does.
//!
//! A rival is held against it at equal durability; one that cannot sync before it acknowledges is held against it as it
//! is by default. Of the others the defaults are shown, and no target is set beside them.

use std::fmt::Write as _;

use highwater_loadgen::Report;

use super::{Figures, Table, share, times};
use crate::rivals::Durability;
use crate::rounds::Load;

/// A target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Records per second, as fast as it takes them: three times the rival's at least.
    Rate,
    /// p99 at half the rival's own highest rate: a third of the rival's at most.
    Tail,
    /// p50 of one producer that waits for each record: below the rival's.
    Lone,
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Aim::Rate => "target: 3x or more",
            Aim::Tail => "target: 1/3 or less",
            Aim::Lone => "target: below 1x",
        })
    }
}

impl Aim {
    /// Whether a ratio of Highwater's figure to the rival's reaches it.
    fn met(self, ratio: f64) -> bool {
        match self {
            Aim::Rate => ratio >= 3.0,
            Aim::Tail => ratio <= 1.0 / 3.0,
            Aim::Lone => ratio < 1.0,
        }
    }

    fn is_load(self, load: Load) -> bool {
        match self {
            Aim::Rate => load == Load::Max,
            Aim::Tail => matches!(load, Load::Rate(_)),
            Aim::Lone => load == Load::Lone,
        }
    }

    fn figure(self, report: &Report) -> f64 {
        match self {
            Aim::Rate => report.records_per_s,
            Aim::Tail => report.latency_us.response.p99,
            Aim::Lone => report.latency_us.response.p50,
        }
    }

    fn show(self, ratio: f64) -> String {
        match self {
            Aim::Tail => share(ratio),
            Aim::Rate | Aim::Lone => times(ratio),
        }
    }
}

/// What a median of ratios says of an aim.
fn said(aim: Aim, ratio: Option<f64>) -> &'static str {
    match ratio {
        Some(ratio) if aim.met(ratio) => "met",
        Some(_) => "missed",
        None => "not measured",
    }
}

impl Table<'_> {
    /// Whether a system is held against Highwater.
    fn is_held(&self, index: usize) -> bool {
        let this = &self.systems[index];
        let synced = || {
            self.systems
                .iter()
                .any(|other| (other.system, other.durability) == (this.system, Durability::Synced))
        };
        this.system.is_some() && (this.durability == Durability::Synced || !synced())
    }

    /// Highwater's figure in each round as a multiple of the system's.
    fn beside(&self, aim: Aim, index: usize, size: usize) -> Figures {
        let rival = if aim == Aim::Tail { index } else { usize::MAX };
        self.ratios((0, index, rival, size), |load| aim.is_load(load), |r| aim.figure(r))
    }

    /// Rounds in which Highwater's run or the system's is not to be trusted.
    fn doubtful(&self, aim: Aim, index: usize, size: usize) -> usize {
        let void = |round, system, rival| {
            let report = self.find(round, system, rival, size, |load| aim.is_load(load));
            report.is_some_and(|report| !report.valid)
        };
        let own = if aim == Aim::Tail { index } else { 0 };
        self.numbers().filter(|&round| void(round, 0, own) || void(round, index, index)).count()
    }

    /// Whether it is met beside the system at `index`, for a table's last column.
    pub fn verdict(&self, aim: Aim, index: usize, size: usize) -> &'static str {
        match index {
            0 => "",
            _ if !self.is_held(index) => "none",
            _ => said(aim, self.beside(aim, index, size).median()),
        }
    }

    /// All targets at a glance.
    pub fn aims(&self, out: &mut String) {
        let sizes = &self.shape.sizes;
        let mut aims: Vec<(Aim, usize)> = Vec::new();
        aims.extend(sizes.iter().map(|size| (Aim::Rate, *size)));
        aims.extend(sizes.iter().map(|size| (Aim::Tail, *size)));
        aims.extend(sizes.first().map(|size| (Aim::Lone, *size)));
        let names = aims.iter().map(|(aim, size)| {
            let (size, what) = (
                Table::size(*size),
                match aim {
                    Aim::Rate => "records/s",
                    Aim::Tail => "p99 at half its rate",
                    Aim::Lone => "p50 of one at a time",
                },
            );
            format!(" {what}, {size}; {aim} |")
        });
        let _ = writeln!(out, "### Targets\n\nHighwater's figure beside the other's.\n");
        let _ = writeln!(out, "| |{}", names.collect::<String>());
        let _ = writeln!(out, "|---|{}", "---|".repeat(aims.len()));
        let (mut met, mut all) = (0, 0);
        let mut notes = Vec::new();
        for index in (1..self.systems.len()).filter(|index| self.is_held(*index)) {
            let system = &self.systems[index];
            let cells = aims.iter().map(|&(aim, size)| {
                let ratio = self.beside(aim, index, size).median();
                met += usize::from(ratio.is_some_and(|ratio| aim.met(ratio)));
                all += 1;
                let shown = ratio.map_or(String::new(), |ratio| format!("{}: ", aim.show(ratio)));
                let doubt = match self.doubtful(aim, index, size) {
                    0 => String::new(),
                    rounds => format!(" (void in {rounds})"),
                };
                format!(" {shown}{}{doubt} |", said(aim, ratio))
            });
            let _ = writeln!(out, "| {} |{}", system.name, cells.collect::<String>());
            if system.durability == Durability::Default {
                notes.push(format!(
                    "{} is not at equal durability (above: why not); it is held against Highwater's durable figures.",
                    system.name
                ));
            }
        }
        let _ = writeln!(out, "\n{met} of {all} met. {}\n", notes.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_met_or_missed_and_none_is_neither() {
        for (aim, ratio, expected) in [
            (Aim::Rate, Some(3.0), "met"),
            (Aim::Rate, Some(2.99), "missed"),
            (Aim::Tail, Some(0.33), "met"),
            (Aim::Tail, Some(0.34), "missed"),
            (Aim::Lone, Some(0.99), "met"),
            (Aim::Lone, Some(1.0), "missed"),
            (Aim::Lone, None, "not measured"),
        ] {
            assert_eq!(said(aim, ratio), expected, "{aim} {ratio:?}");
        }
    }
}
