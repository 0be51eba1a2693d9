//! Searches and sweeps as text, for a terminal.

use std::fmt;
use std::time::Duration;

use super::file::{Bound, Ended, GoalResult, SearchFile, SearchResult, SweepFile};
use crate::report::figures::{bytes, counted, percent, rate, seconds, time};
use crate::report::shell_words;

/// `command` with another budget, as it can be typed.
pub(crate) fn longer(command: &[String], budget_s: f64) -> String {
    let budget = humantime::format_duration(Duration::from_secs_f64(budget_s.round()));
    shell_words(&with_flag(command, "--budget", budget.to_string().replace(' ', "")))
}

/// `command` with another `value` for `flag`.
pub(super) fn with_flag(command: &[String], flag: &str, value: String) -> Vec<String> {
    let mut words = command.to_vec();
    match words.iter().position(|word| word == flag).and_then(|at| words.get_mut(at + 1)) {
        Some(before) => *before = value,
        None => words.extend([flag.to_owned(), value]),
    }
    words
}

/// A rate with as many digits as an estimate has: three.
pub fn about(per_second: f64) -> String {
    if per_second < 1000.0 {
        return rate(per_second);
    }
    let unit = 10f64.powf(per_second.log10().floor() - 2.0);
    rate((per_second / unit).round() * unit)
}

/// An interval is wide from so many times the precision asked for on.
const ROUGH: f64 = 3.0;

impl SearchResult {
    /// The answer in a sentence: what a reader takes away.
    pub fn in_words(&self) -> String {
        let binding = self.binding.as_deref().unwrap_or_default();
        if let (Some(proof), Some(needs_s)) = (self.proof, self.needs_s) {
            return format!(
                "every goal was met at every rate tried, but at {}/s for {} only: too short to rely on. Budget too \
                 short: needs about {} more",
                about(proof.rate),
                seconds(proof.seconds),
                seconds(needs_s)
            );
        }
        match (self.estimate, self.published_rate, self.ended) {
            (Some(e), Some(published), _) => format!(
                "sustains about {}/s [{}, {}], limited by {binding}; rely on {}/s",
                about(e.value),
                about(e.low),
                about(e.high),
                about(published)
            ),
            (Some(e), None, _) => {
                format!(
                    "sustains about {}/s, limited by {binding}; no rate can be relied on",
                    about(e.value)
                )
            }
            (None, Some(published), _) => format!(
                "every goal was met at every rate tried; rely on {}/s, kept up for {}",
                about(published),
                seconds(self.proof.map_or(0.0, |proof| proof.seconds))
            ),
            (None, None, Ended::Void) => "no trial counts".to_owned(),
            (None, None, _) => {
                let missed = self.goals.iter().filter(|goal| goal.bound == Bound::Unreachable);
                let missed: Vec<String> = missed.map(GoalResult::missed).collect();
                match missed.is_empty() {
                    true => "no answer".to_owned(),
                    false => missed.join("; "),
                }
            }
        }
    }

    /// Whether the answer is a rough one: an interval of which half the width is more than three times the `precision`
    /// asked for, or a rate to rely on of less than half the estimate.
    pub fn is_rough(&self, precision: f64) -> bool {
        self.estimate.is_some_and(|e| {
            let half = (e.high - e.low) / 2.0;
            let far = self.published_rate.is_some_and(|published| published < e.value / 2.0);
            half > ROUGH * precision * e.value || far
        })
    }

    /// Why it ended, in words.
    pub fn ended_in_words(&self) -> &'static str {
        match self.ended {
            Ended::Precision => "the interval is as narrow as was asked",
            Ended::Budget => "the budget was spent",
            Ended::Unreachable => "a goal is missed at the lowest rate tried",
            Ended::NotReached => "every goal is met at the highest rate that could be tried",
            Ended::Void => "too many trials in a row did not count",
        }
    }
}

impl GoalResult {
    /// `response.p99 <= 10 ms`, or `backlog growth <= 0.5 %`.
    pub fn asked(&self) -> String {
        match self.bound_us {
            Some(us) => format!("{} <= {}", self.of, time(us)),
            None => format!("backlog growth <= {}", percent(self.allowed)),
        }
    }

    /// That it is missed, and the best that was seen.
    pub fn missed(&self) -> String {
        let best = match (self.best_us, self.best) {
            (Some(us), Some((_, trial))) => {
                format!("; the best seen is {} (trial {trial})", time(us))
            }
            (None, Some((share, trial))) => {
                format!("; at best {} are beyond it (trial {trial})", percent(share))
            }
            _ => String::new(),
        };
        format!("{} is missed at every rate tried{best}", self.asked())
    }
}

/// Rows with columns aligned, the first to the left; so is the last if it is called a remark.
pub(crate) fn aligned(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let sentence = rows.first().and_then(|head| head.last()).is_some_and(|last| last == "remark");
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // The first names the row, the last may be a sentence.
            line += &match at {
                0 => format!("  {cell:<width$}"),
                _ if sentence && at + 1 == columns => format!("  {cell}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Columns of the table of goals.
pub(crate) fn goals(result: &SearchResult) -> Vec<Vec<String>> {
    let dash = || "-".to_owned();
    let of = |goal: &GoalResult| {
        let (estimate, interval) = match (goal.bound, goal.estimate) {
            (_, Some(e)) => {
                (format!("{}/s", about(e.value)), format!("{} .. {}", about(e.low), about(e.high)))
            }
            (Bound::Unreachable, None) => ("missed".to_owned(), dash()),
            // No trial counts.
            (_, None) if goal.best.is_none() => ("not measured".to_owned(), dash()),
            (_, None) => ("not reached".to_owned(), dash()),
        };
        let safe = goal.safe_rate.map_or_else(dash, |rate| format!("{}/s", about(rate)));
        vec![goal.asked(), estimate, interval, safe]
    };
    let head = ["goal", "gives out at", "95 % interval", "kept for 2 min with 95 %"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(result.goals.iter().map(of));
    rows
}

/// Columns of the table of trials.
pub(crate) fn trials(file: &SearchFile) -> Vec<Vec<String>> {
    let mut head: Vec<String> =
        ["trial", "for", "offered", "delivered"].map(str::to_owned).to_vec();
    head.extend(file.settings.goals.iter().map(|goal| format!("over {}", time(goal.bound_us))));
    head.extend(["p99", "growth", "drain", "remark"].map(str::to_owned));
    let mut rows = vec![head];
    for (at, trial) in file.trials.iter().enumerate() {
        let void = trial.void_reason.is_some();
        let mut row = vec![
            (at + 1).to_string(),
            format!("{:?}", trial.stage).to_lowercase(),
            about(trial.rate),
            about(trial.delivered_rate),
        ];
        row.extend((0..file.settings.goals.len()).map(|goal| {
            let share = trial.share_over(goal).filter(|_| !void);
            share.map_or_else(|| "-".to_owned(), percent)
        }));
        let growth = trial.backlog.filter(|_| !void);
        row.push(time(trial.response.p99));
        row.push(growth.map_or_else(|| "-".to_owned(), |b| percent(b.growth)));
        row.push(seconds(trial.drain_s));
        row.push(trial.void_reason.as_ref().map_or_else(String::new, |why| format!("void: {why}")));
        rows.push(row);
    }
    rows
}

impl fmt::Display for SearchFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let void = self.trials.iter().filter(|trial| trial.void_reason.is_some()).count();
        let trials = counted(self.trials.len() as u64, "trial");
        let Some(result) = &self.result else {
            return writeln!(
                f,
                "not finished: {trials} ({void} void) in {}",
                seconds(self.spent_s)
            );
        };
        let mut words = result.in_words();
        if let Some(first) = words.get(..1).map(str::to_uppercase) {
            words.replace_range(..1, &first);
        }
        writeln!(f, "{words}.")?;
        writeln!(
            f,
            "{trials}, {void} void, in {}: {}.\n",
            seconds(self.spent_s),
            result.ended_in_words()
        )?;
        aligned(f, &goals(result))?;
        if let Some(soak) = &result.soak {
            let held = if soak.held { "held" } else { "NOT held" };
            writeln!(
                f,
                "\nSoak of {} at {}/s: {held} (wanted: {}).",
                seconds(soak.seconds),
                about(soak.rate),
                seconds(soak.wanted_s)
            )?;
        }
        if let Some(hysteresis) = &result.hysteresis {
            let word = match (hysteresis.recovers, hysteresis.slower) {
                (true, None) => "as before".to_owned(),
                (true, Some(factor)) => format!("goals as before, but slower (x{factor:.1})"),
                (false, _) => "NOT as before".to_owned(),
            };
            write!(f, "After an overload: {word};")?;
            for step in &hysteresis.steps {
                let (down, up) = (time(step.down_us), time(step.up_us));
                write!(f, " {}/s p99 {down} (before {up})", about(step.rate))?;
            }
            writeln!(f, ".")?;
        }
        writeln!(f)?;
        aligned(f, &self::trials(self))?;
        for note in &result.notes {
            writeln!(f, "\n  {note}")?;
        }
        Ok(())
    }
}

/// Columns of the table of points.
pub(crate) fn points(file: &SweepFile) -> Vec<Vec<String>> {
    let mut head: Vec<String> = file.vary.iter().map(|axis| axis.name.clone()).collect();
    head.extend(["rate", "95 % interval", "rely on", "volume", "p99", "remark"].map(str::to_owned));
    let place = |point: &super::file::SweepPoint| -> Vec<usize> {
        let of = |(axis, setting): (&super::file::AxisValues, &super::file::Setting)| {
            axis.values.iter().position(|value| *value == setting.value).unwrap_or(0)
        };
        file.vary.iter().zip(&point.settings).map(of).collect()
    };
    let mut points: Vec<_> = file.points.iter().collect();
    points.sort_by_key(|point| place(point));
    let dash = || "-".to_owned();
    let mut rows = vec![head];
    rows.extend(points.into_iter().map(|point| {
        let mut row: Vec<String> =
            point.settings.iter().map(|setting| setting.value.clone()).collect();
        let interval = point.rate.filter(|rate| rate.high > rate.low);
        row.push(point.rate.map_or_else(dash, |rate| format!("{}/s", about(rate.value))));
        row.push(interval.map_or_else(dash, |e| format!("{} .. {}", about(e.low), about(e.high))));
        row.push(point.published_rate.map_or_else(dash, |rate| format!("{}/s", about(rate))));
        row.push(point.bytes_per_s.map_or_else(dash, |value| format!("{}/s", bytes(value))));
        row.push(if point.response.count > 0 { time(point.response.p99) } else { dash() });
        row.push(match (&point.void_reason, &point.missed, point.done) {
            (Some(why), ..) => format!("void: {why}"),
            (None, Some(why), _) => why.clone(),
            (None, None, false) => "not yet measured".to_owned(),
            (None, None, true) => String::new(),
        });
        row
    }));
    rows
}

impl fmt::Display for SweepFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.points.iter().filter(|point| point.done).count();
        writeln!(f, "{done} of {} measured.\n", counted(self.points.len() as u64, "point"))?;
        aligned(f, &points(self))
    }
}
