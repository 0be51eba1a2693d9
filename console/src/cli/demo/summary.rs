//! What was seen, said at the end of the demo.

use highwater_loadgen::{Distribution, Report};

use super::acts::Act;
use super::readers::Story;
use crate::failure::Failure;
use crate::{human, output};

/// One act, played.
pub struct Played {
    /// What it was.
    pub act: Act,
    /// What its load found.
    pub report: Report,
    /// What became of its readers.
    pub story: Story,
}

/// In front of the way writes are made durable.
pub fn label(durable: bool) -> &'static str {
    if durable { "durable: " } else { "NOT DURABLE: " }
}

/// Prints it, with the rules of Watch that `fired`; an error if a record was lost, doubled or out of order.
pub fn tell(
    played: &[Played],
    fired: &[&str],
    durable: bool,
    durability: &str,
) -> Result<(), Failure> {
    output::text(text(played, fired, durable, durability))?;
    played.iter().try_for_each(|p| sound(&p.report))
}

/// Whether everything is as it was sent.
fn sound(report: &Report) -> Result<(), Failure> {
    let stream = &report.stream;
    if !report.checked || !report.intact() {
        let what = if report.checked {
            "records are not as they were sent"
        } else {
            "nothing was checked"
        };
        return Err(Failure::Failed(format!("{stream}: {what}")));
    }
    if report.unread > 0 && report.read_errors > 0 {
        let why = report.first_error.as_deref().unwrap_or("reading failed");
        return Err(Failure::Failed(format!("{stream}: not everything could be read: {why}")));
    }
    if report.checked_records == 0 {
        let why = report.first_error.as_deref().unwrap_or("stopped too soon");
        return Err(Failure::Failed(format!("{stream}: nothing was acknowledged: {why}")));
    }
    Ok(())
}

/// Columns of the summary.
const WIDTH: usize = 80;
/// Where what belongs to a name begins.
const INDENT: usize = 12;

fn text(played: &[Played], fired: &[&str], durable: bool, durability: &str) -> String {
    let mut lines = vec![String::new(), "What you saw".to_owned()];
    for Played { act, report, .. } in played {
        let shards = human::counted(u64::from(report.shards), "shard");
        lines.extend(hanging(act.stream, &format!("{}, {shards}", act.about)));
        let stored = format!(
            "stored       {} records in {:.1} s, {} records/s, {}/s",
            human::grouped(report.acked_records),
            report.duration_s,
            human::count(report.records_per_s),
            human::bytes(report.bytes_per_s),
        );
        let of = |name: &str, tail: &Distribution| format!("{name:<13}{}", self::tail(tail));
        let latency = &report.latency_us;
        let more =
            [stored, of("response", &latency.response), of("propagation", &latency.propagation)];
        lines.extend(more.into_iter().chain(odd(report)).flat_map(|line| beside("", &line)));
    }
    for (group, what) in played.iter().filter_map(absence) {
        lines.extend(hanging(group, &what));
    }
    if !fired.is_empty() {
        lines.extend(hanging("watch", &format!("said: {}", fired.join(", "))));
    }
    let sum = |of: fn(&Report) -> u64| played.iter().map(|p| of(&p.report)).sum::<u64>();
    let checked = format!(
        "{} records: lost {} duplicated {} reordered {}",
        human::grouped(sum(|r| r.checked_records)),
        sum(|r| r.lost),
        sum(|r| r.duplicated),
        sum(|r| r.reordered),
    );
    lines.extend(hanging("checked", &checked));
    lines.extend(hanging(label(durable).trim_end_matches(": "), durability));
    let reasons = played.iter().filter_map(|p| p.report.void_reason.as_ref());
    if let Some(reason) = reasons.into_iter().next() {
        lines.extend(hanging("note", &format!("latencies are not to be trusted: {reason}")));
    }
    let next = [
        "",
        "Try next",
        "  highwater serve --data ./data",
        "  highwater load run -r 20k -d 10s --shards 4 -o ./run   # then open run/report.html",
        "  highwater top",
        "",
    ];
    lines.extend(next.map(str::to_owned));
    lines.join("\n")
}

/// A name, and what there is to say of it: beside it, or below where it is a long one.
fn hanging(name: &str, text: &str) -> Vec<String> {
    if name.len() + 3 > INDENT {
        let mut lines = vec![format!("  {name}")];
        lines.extend(beside("", text));
        return lines;
    }
    beside(name, text)
}

fn beside(name: &str, text: &str) -> Vec<String> {
    // Columns are laid out with blanks, which are kept where nothing has to be broken.
    let lines = match text.len() <= WIDTH - INDENT {
        true => vec![text.to_owned()],
        false => human::wrap(text, WIDTH - INDENT),
    };
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    lines.iter().zip(names).map(|(line, name)| format!("  {name:<10}{line}")).collect()
}

/// What a reader should know of, if there was any.
fn odd(report: &Report) -> impl Iterator<Item = String> {
    let odd = [
        ("corrupted", report.corrupted),
        ("trimmed by retention before they were read", report.trimmed),
        ("not read in time", report.unread),
        ("refused", report.refused),
        ("of unknown fate", report.unknown),
        ("due, but never sent", report.unsent),
    ];
    let seen = odd.into_iter().filter(|(_, n)| *n > 0);
    seen.map(|(what, n)| format!("{} records {what}", human::grouped(n)))
}

/// The group that was away, and how it came back.
fn absence(played: &Played) -> Option<(&'static str, String)> {
    let (group, times) = (played.act.group, played.story.absences());
    let away = played.act.lapse.filter(|_| times > 0)?.away.as_secs_f64();
    let came_back = match played.story.last() {
        Some((behind, took)) => format!(
            "came back to {} records and had read them within {}",
            human::grouped(behind),
            human::nanos(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
        ),
        None => "has not caught up yet".to_owned(),
    };
    let times = if times > 1 { format!(", {times} times; last it") } else { ",".to_owned() };
    Some((group, format!("reads {}: away for {away:.1} s{times} {came_back}", played.act.stream)))
}

fn tail(of: &Distribution) -> String {
    let us = |us: f64| human::nanos((us * 1e3) as u64);
    format!("p50 {}  p99 {}  p99.9 {}  max {}", us(of.p50), us(of.p99), us(of.p999), us(of.max))
}
