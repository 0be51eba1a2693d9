//! A comparison as people read it.

use std::fmt;

use super::{Comparison, Estimate, Metric, Row, Side, Verdict, Which};
use crate::report::figures::{counted, moment, rate, seconds, time};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::NotWorse => "not worse",
            Verdict::CannotTell => "cannot tell",
            Verdict::Worse => "WORSE",
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 0.07 is 7 %, not 7.000000000000001.
        let margin = (self.margin * 1e6).round() / 1e4;
        match self.verdict {
            Verdict::NotWorse => writeln!(f, "B is not worse than A by more than {margin} %")?,
            Verdict::CannotTell => {
                writeln!(f, "Cannot tell whether B is worse than A by more than {margin} %")?;
            }
            Verdict::Worse => writeln!(f, "B is WORSE than A by more than {margin} %")?,
        }
        for reason in &self.reasons {
            writeln!(f, "  {reason}")?;
        }
        for row in &self.rows {
            if let (Some(verdict), reason) = (row.verdict, &row.reason) {
                let reason = reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
                writeln!(f, "  {} {verdict}{reason}", row.metric)?;
            }
        }
        for difference in &self.differences {
            let (field, a, b) = (&difference.field, &difference.a, &difference.b);
            writeln!(f, "  compared all the same, though {field} is {a} in A and {b} in B")?;
        }
        writeln!(f)?;
        which(f, "A", &self.a)?;
        which(f, "B", &self.b)?;
        writeln!(f)?;
        writeln!(f, "{:<18}{:>17}{:>17}{:>8}  95 % of B/A", "", "A", "B", "B/A")?;
        self.rows.iter().try_for_each(|row| line(f, row))?;
        writeln!(f)?;
        writeln!(
            f,
            "± and B/A: 95 % intervals, resampled from 10 s blocks (seed {}); * is judged",
            self.seed
        )
    }
}

fn which(f: &mut fmt::Formatter<'_>, name: &str, which: &Which) -> fmt::Result {
    writeln!(
        f,
        "{name}  {}{}: {} from {}, {}, {} {}",
        which.path.display(),
        match which.runs {
            0 | 1 => String::new(),
            runs => format!(" and {} more", runs - 1),
        },
        seconds(which.duration_s),
        moment(which.started_ns),
        counted(which.blocks as u64, "block"),
        which.target,
        // What an engine says of its cores and its disk is in the report.
        which.server.split([',', ';']).next().unwrap_or_default(),
    )
}

fn line(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let judged = if row.verdict.is_some() { "*" } else { " " };
    let (a, b) = (side(row.metric, &row.a), side(row.metric, &row.b));
    write!(f, "{judged}{:<17}{a:>17}{b:>17}", row.metric)?;
    match row.ratio {
        Some(Estimate { value, low: Some(low), high: Some(high) }) => {
            writeln!(f, "{value:>8.3}  {low:.3} to {high:.3}")
        }
        Some(Estimate { value, .. }) => writeln!(f, "{value:>8.3}"),
        None => writeln!(f, "{:>8}", "-"),
    }
}

/// `1.23 ms ±4.5%`: the farther end of the interval.
fn side(metric: Metric, side: &Side) -> String {
    let Some(estimate) = side.estimate else {
        return side.why.unwrap_or("-").to_owned();
    };
    let value = match metric {
        Metric::Latency { .. } => time(estimate.value),
        Metric::AckedRate | Metric::ConsumedRate => rate(estimate.value),
    };
    match estimate.low.zip(estimate.high) {
        Some((low, high)) => {
            let off = (high - estimate.value).max(estimate.value - low) / estimate.value * 100.0;
            let digits = usize::from(off < 9.95);
            format!("{value} ±{off:.digits$}%")
        }
        None => value,
    }
}
