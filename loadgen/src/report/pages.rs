//! What a report says, in the order its readers ask: can it be trusted, what came out, what to be aware of, and
//! then everything else.

use hdrhistogram::Histogram;

use super::document::{Block, Document, Headline, Remark, Table, Tone, Verdict};
use super::figures::{bytes, counted, moment, percent, rate, seconds, time, time_or_dash, whole};
use super::{
    Account, BacklogReport, BurstReport, Distribution, Distributions, Mode, Report, ScenarioKind,
    machine, series,
};
use crate::{Progress, Severity};

/// The files of a run directory, and what they are for.
const FILES: [(&str, &str); 5] = [
    (
        "run.json",
        "everything in this report as one JSON object: command, seed, environment, results",
    ),
    ("samples.jsonl", "one JSON object for each second: counters, rates, percentiles"),
    (
        "latency.hlog",
        "histograms of each second, HdrHistogram interval log (tags name the latencies)",
    ),
    ("report.md", "this report as text"),
    ("report.html", "this report with charts, in one file"),
];

/// The document of a run: `samples` once a second, `histogram` gives those of the measured window (in
/// nanoseconds) by their JSON names. Of what there is none, nothing is shown.
pub fn document<'a>(
    report: &Report,
    samples: &[Progress],
    histogram: impl Fn(&str) -> Option<&'a Histogram<u64>>,
) -> Document {
    let mut blocks = vec![Block::Heading("Rates".into()), Block::Table(rates(report))];
    if let Some(account) = report.account.filter(Account::says_something) {
        blocks.push(Block::Note(sentence(&account.in_words())));
    }
    blocks.push(Block::Heading("Latency".into()));
    blocks.push(Block::Table(latencies(&report.latency_us)));
    blocks.push(Block::Note(WHAT_COUNTS.into()));
    blocks.extend(report.pauses_in_words().map(|pauses| Block::Note(sentence(&pauses))));
    if let Some(burst) = &report.burst {
        bursts(burst, &mut blocks);
    }
    if let Some(backlog) = &report.backlog {
        self::backlog(backlog, &mut blocks);
    }
    blocks.push(Block::Heading("Integrity".into()));
    integrity(report, &mut blocks);
    blocks.push(Block::Heading("The run".into()));
    blocks.push(Block::Facts(the_run(report)));
    remarks(report, &mut blocks);
    let charts: Vec<_> = series::spectrum(report, histogram)
        .into_iter()
        .chain(series::over_time(report, samples))
        .map(|chart| Block::Chart(Box::new(chart)))
        .collect();
    if !charts.is_empty() {
        blocks.push(Block::Heading("Latency and rates in detail".into()));
        blocks.extend(charts);
        blocks.extend(series::table(samples).map(Block::Table));
    }
    blocks.push(Block::Heading("The machine".into()));
    blocks.push(Block::Facts(machine::rows(&report.environment)));
    if !report.command.is_empty() {
        blocks.push(Block::Heading("To repeat it".into()));
        blocks.push(Block::Code(shell_words(&report.command)));
    }
    blocks.push(Block::Heading("Files".into()));
    blocks.push(Block::Facts(FILES.map(|(name, what)| (name.into(), what.into())).to_vec()));
    let kind = match report.scenario {
        ScenarioKind::Run => "Load run",
        ScenarioKind::Burst => "Burst run",
        ScenarioKind::Backlog => "Backlog run",
    };
    let mut document = Document {
        title: format!("{kind} on {}", report.stream),
        subtitle: format!(
            "{} · {} · {} measured from {}",
            report.target,
            if report.server.is_empty() { "unknown server" } else { &report.server },
            seconds(report.duration_s),
            moment(report.started_ns)
        ),
        verdicts: verdicts(report),
        headline: headline(report),
        blocks,
    };
    document.each_text(&mut |text| *text = micro(text));
    document
}

const WHAT_COUNTS: &str = "Response: intended send time to acknowledgement. Propagation: intended send time to reading. \
    Send lag: intended to actual send. Service: actual send to acknowledgement. Visibility: acknowledgement to reading. \
    Delivery: the target's own arrival stamp to reading. All values count, merged over all workers; a percentile with \
    fewer than 10 records beyond it is left out.";

/// Writes `us` behind a number as the unit is printed.
pub fn micro(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(at) = rest.find(" us") {
        let (before, after) = (&rest[..at], &rest[at + 3..]);
        let number = before.ends_with(|c: char| c.is_ascii_digit());
        let whole_word = !after.starts_with(|c: char| c.is_alphanumeric());
        out.push_str(before);
        out.push_str(if number && whole_word { " µs" } else { " us" });
        rest = after;
    }
    out + rest
}

/// A command to be pasted into a shell.
pub fn shell_words(command: &[String]) -> String {
    command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// As a shell needs it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn verdicts(r: &Report) -> Vec<Verdict> {
    let verdict = |tone, word: &str, reason: String| Verdict { tone, word: word.into(), reason };
    let mut verdicts = vec![match &r.void_reason {
        None => verdict(Tone::Good, "Valid", trust(r)),
        Some(reason) => verdict(Tone::Bad, "Not valid", sentence(reason)),
    }];
    verdicts.push(match () {
        () if !r.intact() => verdict(Tone::Bad, "Records damaged or lost", r.integrity_in_words()),
        () if r.checked => verdict(Tone::Good, "Records intact", r.integrity_in_words()),
        () => verdict(Tone::Unsure, "Not all checked", r.integrity_in_words()),
    });
    for slo in &r.slo {
        let (tone, word) = match slo.met {
            Some(true) => (Tone::Good, "SLO met"),
            Some(false) => (Tone::Bad, "SLO not met"),
            None => (Tone::Unsure, "SLO not judged"),
        };
        let found = slo.measured_us.map_or_else(|| "too few records to say".to_owned(), time);
        let reason = format!("{} is {found}; the bound is {}", slo.of, time(slo.bound_us));
        verdicts.push(verdict(tone, word, reason));
    }
    if let Some(reason) = &r.ended_early {
        verdicts.push(verdict(Tone::Bad, "Ended early", sentence(reason)));
    }
    if r.interrupted {
        let reason = "Stopped before its time: this is what was measured until then.";
        verdicts.push(verdict(Tone::Unsure, "Interrupted", reason.into()));
    }
    verdicts
}

/// What the trust in a valid run rests on.
fn trust(r: &Report) -> String {
    let late = &r.generator_late;
    let steal = r.steal.map_or(String::new(), |steal| format!(", steal {}", percent(steal)));
    format!("generator late by {} at p99 (bound {}){steal}", time(late.p99_us), time(late.bound_us))
}

pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    let text: String = first.into_iter().flatten().chain(chars).collect();
    if text.ends_with('.') { text } else { text + "." }
}

fn headline(r: &Report) -> Vec<Headline> {
    let item =
        |name: &str, value: String, detail: String| Headline { name: name.into(), value, detail };
    let tail = |d: &Distribution| {
        let [p50, _, _, p999, _] = d.percentiles().map(time_or_dash);
        format!("p50 {p50} · p99.9 {p999}")
    };
    let mut items = vec![item(
        "acknowledged",
        format!("{}/s", rate(r.records_per_s)),
        if r.mode == Mode::Open {
            format!("of {}/s offered", rate(r.offered_rate))
        } else {
            format!("{} records", whole(r.acked_records))
        },
    )];
    let mean = format!("{} B records", rate(r.workload.mean_payload_bytes));
    items.push(item("volume", format!("{}/s", bytes(r.bytes_per_s)), mean));
    for (name, d) in
        [("response p99", &r.latency_us.response), ("propagation p99", &r.latency_us.propagation)]
    {
        if d.count > 0 {
            items.push(item(name, time_or_dash(d.percentiles()[2]), tail(d)));
        }
    }
    items
}

fn rates(r: &Report) -> Table {
    let mut table = Table::new(None, ["in the measured window", "records/s", "bytes/s", "records"]);
    let mut row = |name: &str, per_second: f64, bytes: String, records: String| {
        table.rows.push(vec![name.into(), rate(per_second), bytes, records]);
    };
    let dash = || "-".to_owned();
    if r.mode == Mode::Open {
        row("offered", r.offered_rate, dash(), dash());
        row("sent by the end", r.achieved_rate, dash(), dash());
    } else {
        row("sent", r.achieved_rate, dash(), dash());
    }
    row(
        "acknowledged",
        r.records_per_s,
        format!("{}/s", bytes(r.bytes_per_s)),
        whole(r.acked_records),
    );
    if r.consumers > 0 {
        row("read, all groups", r.consumed_per_s, dash(), whole(r.consumed_records));
    }
    table
}

fn columns(first: &'static str) -> Table {
    Table::new(None, [first, "p50", "p90", "p99", "p99.9", "p99.99", "max", "records"])
}

fn row(name: &str, d: &Distribution) -> Vec<String> {
    let mut row = vec![name.replace('_', " ")];
    row.extend(d.percentiles().into_iter().chain([d.largest()]).map(time_or_dash));
    row.push(whole(d.count));
    row
}

fn latencies(of: &Distributions) -> Table {
    let mut table = columns("latency");
    table.rows = of.named().into_iter().map(|(name, d)| row(name, d)).collect();
    table
}

fn bursts(burst: &BurstReport, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading("Bursts".into()));
    blocks.push(Block::Paragraph(sentence(&burst.in_words())));
    blocks.push(Block::Paragraph(sentence(&burst.outcome())));
    let mut table = columns("intended");
    for ((name, calm), (_, in_burst)) in burst.calm.named().into_iter().zip(burst.burst.named()) {
        table.rows.push(row(&format!("{name} between bursts"), calm));
        table.rows.push(row(&format!("{name} in bursts"), in_burst));
    }
    blocks.push(Block::Table(table));
}

fn backlog(backlog: &BacklogReport, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading("Backlog and catching up".into()));
    blocks.push(Block::Paragraph(sentence(&backlog.in_words())));
    blocks.push(Block::Paragraph(sentence(&backlog.outcome())));
    let mut table = columns("live latency");
    let phases = [
        ("before", &backlog.before),
        ("during the outage", &backlog.outage),
        ("while catching up", &backlog.draining),
    ];
    for (phase, live) in phases {
        table.rows.push(row(&format!("response {phase}"), &live.response));
    }
    for (phase, live) in phases {
        table.rows.push(row(&format!("propagation {phase}"), &live.propagation));
    }
    table.rows.push(row("propagation to the paused", &backlog.paused_propagation));
    blocks.push(Block::Table(table));
}

fn integrity(r: &Report, blocks: &mut Vec<Block>) {
    let mut table = Table::new(
        None,
        ["acknowledged and checked", "lost", "duplicated", "reordered", "corrupted"],
    );
    let checked = match (r.checked, r.checked_records) {
        (true, n) => counted(n, "record"),
        (false, 0) => "nothing was read back".to_owned(),
        (false, n) => format!("{}; only some shards were read", counted(n, "record")),
    };
    let found = [r.lost, r.duplicated, r.reordered, r.corrupted];
    table.rows.push(std::iter::once(checked).chain(found.map(whole)).collect());
    blocks.push(Block::Table(table));
    let mut facts: Vec<_> =
        r.oddities().map(|(name, n)| (format!("records {name}"), whole(n))).collect();
    if r.errors > 0 {
        let first = r.first_error.as_deref().unwrap_or("no reason given");
        let reads = whole(r.read_errors);
        facts.push(("errors".into(), format!("{}, {reads} of them reads", whole(r.errors))));
        facts.push(("the first error".into(), first.to_owned()));
    }
    if !facts.is_empty() {
        blocks.push(Block::Facts(facts));
    }
}

/// Notes and lints.
fn remarks(r: &Report, blocks: &mut Vec<Block>) {
    if !r.notes.is_empty() {
        blocks.push(Block::Heading("To read it right".into()));
        let note = |note: &String| Remark {
            tone: Tone::Plain,
            name: String::new(),
            message: note.clone(),
            remedy: String::new(),
        };
        blocks.push(Block::Remarks(r.notes.iter().map(note).collect()));
    }
    lints(&r.lints, blocks);
}

/// What is wrong with the machine.
pub(super) fn lints(found: &[crate::Lint], blocks: &mut Vec<Block>) {
    if !found.is_empty() {
        blocks.push(Block::Heading("What the machine does to the figures".into()));
        let mut lints: Vec<&crate::Lint> = found.iter().collect();
        lints.sort_by_key(|lint| lint.severity != Severity::Warning);
        let remark = |lint: &crate::Lint| Remark {
            tone: if lint.severity == Severity::Warning { Tone::Unsure } else { Tone::Plain },
            name: lint.name.clone(),
            message: sentence(&lint.message),
            remedy: lint.remedy.clone(),
        };
        blocks.push(Block::Remarks(lints.into_iter().map(remark).collect()));
    }
}

fn the_run(r: &Report) -> Vec<(String, String)> {
    let mut facts: Vec<(&str, String)> = vec![
        ("target", r.target.clone()),
        ("server", r.server.clone()),
        ("stream", r.streams_in_words()),
        ("load", r.load_in_words()),
        ("records", r.records_in_words()),
        ("window", r.window_in_words()),
    ];
    let a = &r.arrivals;
    if a.gaps > 0 {
        facts.push(("gaps between due times", whole(a.gaps)));
    }
    let late = &r.generator_late;
    facts.push((
        "generator",
        format!(
            "{}; late by {} at p99, {} at most (bound on p99 {}){}",
            counted(r.workers as u64, "worker"),
            time(late.p99_us),
            time(late.max_us),
            time(late.bound_us),
            r.generator_busy.map_or(String::new(), |busy| format!(
                "; the busiest had a CPU, or waited for one, for {} of the window",
                percent(busy)
            ))
        ),
    ));
    if r.delivery_before_arrival > 0 {
        facts.push(("reads before their arrival stamp", whole(r.delivery_before_arrival)));
    }
    facts.push(("run", r.run_id.to_string()));
    facts.push(("layout of run.json", r.schema.clone()));
    facts.retain(|(_, value)| !value.is_empty());
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_printed_as_such_and_words_left_alone() {
        assert_eq!(
            micro("p99 12.3 us, 4 us; tell us. 5 usual"),
            "p99 12.3 µs, 4 µs; tell us. 5 usual"
        );
    }

    #[test]
    fn commands_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("--slo"), "--slo");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
