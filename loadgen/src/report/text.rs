//! A report as text: 80 columns, the verdict first.

use std::fmt::{self, Formatter};

use super::figures::{
    bytes, counted, moment, percent, rate, seconds, time, time_or_dash, times, whole,
};
use super::{Account, BacklogReport, BurstReport, Distribution, Mode, Report, ScenarioKind, Slo};
use crate::Severity;

/// Columns of a terminal that nobody has to widen.
const WIDTH: usize = 80;
/// ... of which the first so many name what follows.
const LABEL: usize = 12;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        verdict(self, f)?;
        writeln!(f)?;
        what(self, f)?;
        writeln!(f)?;
        rates(self, f)?;
        if let Some(account) = self.account.filter(Account::says_something) {
            line(f, "account", &account.in_words())?;
        }
        writeln!(f)?;
        let latencies = self.latency_us.named();
        table(f, "latency", latencies.iter().map(|(name, d)| (name.replace('_', " "), **d)))?;
        if let Some(pauses) = self.pauses_in_words() {
            line(f, "pauses", &pauses)?;
        }
        if let Some(burst) = &self.burst {
            writeln!(f)?;
            self::burst(burst, f)?;
        }
        if let Some(backlog) = &self.backlog {
            writeln!(f)?;
            self::backlog(backlog, f)?;
        }
        writeln!(f)?;
        integrity(self, f)?;
        line(f, "generator", &generator(self))?;
        if !self.notes.is_empty() || !self.lints.is_empty() {
            writeln!(f)?;
        }
        for note in &self.notes {
            line(f, "note", note)?;
        }
        let (warnings, infos): (Vec<_>, Vec<_>) =
            self.lints.iter().partition(|lint| lint.severity == Severity::Warning);
        for lint in warnings.into_iter().chain(infos) {
            let label = match lint.severity {
                Severity::Warning => "warning",
                Severity::Info => "info",
            };
            line(f, label, &remark(&lint.message, &lint.remedy))?;
        }
        Ok(())
    }
}

/// What was found, and what to do about it, as sentences.
fn remark(message: &str, remedy: &str) -> String {
    let message = message.trim_end_matches('.');
    if remedy.is_empty() { format!("{message}.") } else { format!("{message}. Remedy: {remedy}") }
}

/// A label and words, wrapped at [`WIDTH`]. Words are never broken: paths and commands stay whole.
fn line(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    write!(f, "{label:<LABEL$}")?;
    let mut column = LABEL;
    for (i, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if i > 0 && column + 1 + width > WIDTH {
            write!(f, "\n{:LABEL$}", "")?;
            column = LABEL;
        } else if i > 0 {
            f.write_str(" ")?;
            column += 1;
        }
        f.write_str(word)?;
        column += width;
    }
    writeln!(f)
}

fn verdict(report: &Report, f: &mut Formatter<'_>) -> fmt::Result {
    let intact = match () {
        () if !report.intact() => "RECORDS DAMAGED OR LOST",
        () if report.checked => "records intact",
        () if report.checked_records > 0 => "records intact as far as they were read",
        () => "records not checked",
    };
    let bounds = match report.slo_met() {
        None if report.slo.is_empty() => "",
        None => ", SLO not judged",
        Some(true) => ", SLO met",
        Some(false) => ", SLO NOT MET",
    };
    let valid = if report.valid { "valid" } else { "NOT VALID" };
    line(f, "verdict", &format!("{valid}, {intact}{bounds}"))?;
    if let Some(reason) = &report.void_reason {
        line(f, "", &format!("not valid: {reason}"))?;
    }
    if let Some(reason) = &report.ended_early {
        line(f, "", &format!("ENDED EARLY: {reason}"))?;
    }
    if report.interrupted {
        line(f, "", "INTERRUPTED: stopped before its time; this is what was measured until then")?;
    }
    report.slo.iter().try_for_each(|slo| line(f, "", &bound(slo)))
}

/// A bound and what came of it.
fn bound(slo: &Slo) -> String {
    let Slo { of, bound_us, measured_us, met } = slo;
    let found = measured_us.map_or_else(|| "too few records to say".to_owned(), time);
    let word = match met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "not judged",
    };
    format!("SLO {of} at most {}: {word}, {found}", time(*bound_us))
}

fn what(report: &Report, f: &mut Formatter<'_>) -> fmt::Result {
    let server = match &report.server {
        server if server.is_empty() => String::new(),
        server => format!(" ({server})"),
    };
    line(f, "target", &format!("{}{server}", report.target))?;
    line(f, "stream", &report.streams_in_words())?;
    line(f, "load", &report.load_in_words())?;
    line(f, "records", &report.records_in_words())?;
    line(f, "window", &report.window_in_words())
}

fn rates(report: &Report, f: &mut Formatter<'_>) -> fmt::Result {
    let mut first = "rates";
    let mut row = |name: &str, per_second: f64, rest: &str| {
        let figure = rate(per_second);
        let label = std::mem::take(&mut first);
        writeln!(f, "{label:<LABEL$}{name:<13}{figure:>14} records/s{rest}")
    };
    if report.mode == Mode::Open {
        row("offered", report.offered_rate, "")?;
        row("sent by end", report.achieved_rate, "")?;
    } else {
        row("sent", report.achieved_rate, "")?;
    }
    let volume = format!("{:>14}/s", bytes(report.bytes_per_s));
    row("acknowledged", report.records_per_s, &volume)?;
    if report.consumers > 0 {
        let groups = match report.groups {
            0 | 1 => String::new(),
            groups => format!(", {groups} groups together"),
        };
        row("read", report.consumed_per_s, &groups)?;
    }
    line(
        f,
        "",
        &format!(
            "of the window: {} acknowledged, {} read",
            counted(report.acked_records, "record"),
            whole(report.consumed_records)
        ),
    )
}

/// Distributions by name, in columns.
fn table(
    f: &mut Formatter<'_>,
    title: &str,
    rows: impl IntoIterator<Item = (String, Distribution)>,
) -> fmt::Result {
    write!(f, "{title:<LABEL$}")?;
    for column in Distribution::PERCENTILES.iter().chain(&["max"]) {
        write!(f, "{column:>9}")?;
    }
    writeln!(f, "{:>14}", "records")?;
    for (name, d) in rows {
        write!(f, "{name:<LABEL$}")?;
        for value in d.percentiles().into_iter().chain([d.largest()]) {
            write!(f, "{:>9}", time_or_dash(value))?;
        }
        writeln!(f, "{:>14}", whole(d.count))?;
    }
    Ok(())
}

fn burst(burst: &BurstReport, f: &mut Formatter<'_>) -> fmt::Result {
    line(f, "bursts", &burst.in_words())?;
    line(f, "", &burst.outcome())?;
    let mut rows = Vec::new();
    for ((name, calm), (_, in_burst)) in burst.calm.named().into_iter().zip(burst.burst.named()) {
        if matches!(name, "response" | "propagation" | "service") {
            rows.push((name.to_owned(), *calm));
            rows.push(("  in bursts".to_owned(), *in_burst));
        }
    }
    table(f, "", rows)
}

fn backlog(backlog: &BacklogReport, f: &mut Formatter<'_>) -> fmt::Result {
    line(f, "backlog", &backlog.in_words())?;
    line(f, "", &backlog.outcome())?;
    let phases =
        [("before", &backlog.before), ("outage", &backlog.outage), ("catch-up", &backlog.draining)];
    table(f, "response", phases.map(|(name, phase)| (format!("  {name}"), phase.response)))?;
    table(f, "propagation", phases.map(|(name, phase)| (format!("  {name}"), phase.propagation)))?;
    table(f, "", [("  paused".to_owned(), backlog.paused_propagation)])
}

fn integrity(report: &Report, f: &mut Formatter<'_>) -> fmt::Result {
    line(f, "integrity", &report.integrity_in_words())?;
    for (what, count) in report.oddities() {
        line(f, "", &format!("{} {what}", counted(count, "record")))?;
    }
    if report.errors > 0 {
        let first = report.first_error.as_deref().unwrap_or("no reason given");
        line(f, "errors", &format!("{}, the first: {first}", whole(report.errors)))?;
    }
    Ok(())
}

fn generator(report: &Report) -> String {
    let late = &report.generator_late;
    let mut text = format!(
        "late p99 {} (bound {}), at most {}; {}",
        time(late.p99_us),
        time(late.bound_us),
        time(late.max_us),
        counted(report.workers as u64, "worker"),
    );
    if let Some(busy) = report.generator_busy {
        text += &format!("; busy {}", percent(busy));
    }
    if let Some(steal) = report.steal {
        text += &format!("; steal {}", percent(steal));
    }
    if report.environment.debug_build {
        text += "; DEBUG BUILD";
    }
    text
}

impl Report {
    /// Whether the bounds were met; `None` if there are none, or one could not be judged.
    pub fn slo_met(&self) -> Option<bool> {
        if self.slo.iter().any(|slo| slo.met == Some(false)) {
            return Some(false);
        }
        (!self.slo.is_empty() && self.slo.iter().all(|slo| slo.met == Some(true))).then_some(true)
    }

    /// `NAME: 2 streams of 4 shards, durable`.
    pub(super) fn streams_in_words(&self) -> String {
        let shards = counted(u64::from(self.shards), "shard");
        let shape = match self.streams {
            0 | 1 => shards,
            streams => {
                format!("and {} more, {shards} each", counted(u64::from(streams - 1), "stream"))
            }
        };
        let ack = if self.ack == "durable" {
            "durable".to_owned()
        } else {
            format!("NOT DURABLE (acknowledged when {})", self.ack)
        };
        format!("{}, {shape}, {ack}", self.stream)
    }

    /// How records were offered, and by whom they were read.
    pub(super) fn load_in_words(&self) -> String {
        let scenario = match self.scenario {
            ScenarioKind::Run => "",
            ScenarioKind::Burst => "burst scenario, ",
            ScenarioKind::Backlog => "backlog scenario, ",
        };
        let mode = match self.mode {
            Mode::Open => {
                let c2 = match (self.arrivals.scheduled_c2, self.arrivals.intended_c2) {
                    (Some(was), Some(should)) => format!(" (c2 {was:.3} of {should:.3})"),
                    (Some(was), None) => format!(" (c2 {was:.3})"),
                    (None, _) => String::new(),
                };
                format!("open loop, {} arrivals{c2}", self.arrivals.process)
            }
            Mode::Saturating => {
                "saturating: latencies count from the making of a record".to_owned()
            }
            Mode::Closed => {
                let callers = self.options.clients.unwrap_or_default() as u64;
                format!(
                    "closed loop, {}: latencies count from the actual send",
                    counted(callers, "caller")
                )
            }
        };
        let readers = match self.consumers {
            0 => "no consumers".to_owned(),
            consumers => format!(
                "{} in {}",
                counted(u64::from(consumers), "consumer"),
                counted(u64::from(self.groups), "group")
            ),
        };
        format!("{scenario}{mode}; {readers}; seed {}", self.seed)
    }

    /// What the records were.
    pub(super) fn records_in_words(&self) -> String {
        let w = &self.workload;
        let mean = match w.mean_payload_bytes {
            mean if mean.fract() == 0.0 => whole(mean as u64),
            mean => format!("{mean:.1}"),
        };
        let mut text = format!("{}, {mean} B on average; {}", w.name, counted(w.keys, "key"));
        if !w.key_distribution.is_empty() {
            text += &format!(" ({})", w.key_distribution);
        }
        if self.shards > 1 || self.streams > 1 {
            text += &format!("; busiest shard {:.2} times the mean", w.shard_skew);
        }
        text
    }

    /// The measured window, and what went before it.
    pub(super) fn window_in_words(&self) -> String {
        let steady = match self.warmup.steady {
            None => "",
            Some(true) => " until steady",
            Some(false) => " and still not steady",
        };
        format!(
            "{} from {}, after {} of warm-up{steady}",
            seconds(self.duration_s),
            moment(self.started_ns),
            seconds(self.warmup.duration_s),
        )
    }

    /// How long shards acknowledged nothing, if any acknowledged something.
    pub(super) fn pauses_in_words(&self) -> Option<String> {
        let pauses = &self.ack_pause_ms;
        let worst = pauses.worst.first()?;
        let ms = |ms: f64| time(ms * 1e3);
        Some(format!(
            "at most {} without an acknowledgement while records were due (shard {}); p99 of {} {}, p50 {}",
            ms(pauses.max),
            worst.shard,
            counted(pauses.shards, "shard"),
            ms(pauses.p99),
            ms(pauses.p50),
        ))
    }

    /// What was checked and what was found.
    pub(crate) fn integrity_in_words(&self) -> String {
        if self.checked_records == 0 && !self.checked {
            return "not checked (nothing was read back)".to_owned();
        }
        let against_its_word = self.refused_but_read + self.shed_but_read;
        let against_its_word = match against_its_word {
            0 => String::new(),
            n => format!(" stored though refused {}", whole(n)),
        };
        format!(
            "lost {} duplicated {} reordered {} corrupted {}{against_its_word}, of {} acknowledged{}",
            whole(self.lost),
            whole(self.duplicated),
            whole(self.reordered),
            whole(self.corrupted),
            whole(self.checked_records),
            if self.checked { "" } else { " (only some shards were read)" },
        )
    }

    /// What became of records that were not simply acknowledged and read, where there are any.
    pub(super) fn oddities(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("trimmed by retention before they were read", self.trimmed),
            ("not reached by the consumers in time", self.unread),
            ("refused by the target", self.refused),
            ("refused by the target, but read", self.refused_but_read),
            ("dropped by the stream's backpressure", self.dropped),
            ("sampled out by the stream's backpressure", self.sampled_out),
            ("dropped or sampled out, but read", self.shed_but_read),
            ("of unknown fate", self.unknown),
            ("of unknown fate, and read", self.unknown_but_read),
            ("due, but never sent", self.unsent),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

impl BurstReport {
    /// What was asked for.
    pub(super) fn in_words(&self) -> String {
        format!(
            "{} of {} every {}: {} records/s between them, {} in them",
            counted(self.bursts, "burst"),
            seconds(self.on_s),
            seconds(self.every_s),
            rate(self.base_rate),
            rate(self.peak_rate),
        )
    }

    /// What came of it.
    pub(super) fn outcome(&self) -> String {
        let recovery = match self.recovery_s {
            Some(s) => format!("back to what it was before at most {} after a burst", seconds(s)),
            None => "NOT back to what it was before after at least one burst".to_owned(),
        };
        format!("largest backlog {}; {recovery}", counted(self.backlog_peak, "record"))
    }
}

impl BacklogReport {
    /// What was asked for.
    pub(super) fn in_words(&self) -> String {
        format!(
            "{} away for {}: {} waited on return, {}",
            counted(u64::from(self.groups_paused), "group"),
            seconds(self.outage_s),
            counted(self.backlog_records, "record"),
            bytes(self.backlog_bytes as f64),
        )
    }

    /// What came of it.
    pub(super) fn outcome(&self) -> String {
        let end = match self.drain_s {
            Some(s) if self.drained => format!("caught up in {}", seconds(s)),
            _ => "NOT caught up within the limit".to_owned(),
        };
        format!(
            "{end}, reading {} records/s ({}/s) while {} records/s came in{}",
            rate(self.drain_rate),
            bytes(self.drain_bytes_per_s),
            rate(self.arrival_rate),
            match self.drain_rate / self.arrival_rate {
                factor if factor.is_finite() => format!(", {} as fast", times(factor)),
                _ => String::new(),
            }
        )
    }
}
