//! What was seen, said at the end of the demo.

use highwater_loadgen::{Distribution, Report};

use crate::failure::Failure;
use crate::{human, output};

/// In front of the way writes are made durable.
pub fn label(durable: bool) -> &'static str {
    if durable { "durable: " } else { "NOT DURABLE: " }
}

/// Prints it; an error if a record was lost, doubled or out of order.
pub fn tell(report: &Report, durable: bool, durability: &str) -> Result<(), Failure> {
    output::text(text(report, durable, durability))?;
    if !report.checked || !report.intact() {
        let what = if report.checked {
            "records are not as they were sent"
        } else {
            "nothing was checked"
        };
        return Err(Failure::failed(what));
    }
    if report.unread > 0 && report.read_errors > 0 {
        let why = report.first_error.as_deref().unwrap_or("reading failed");
        return Err(Failure::Failed(format!("not everything could be read: {why}")));
    }
    if report.checked_records == 0 {
        let why = report.first_error.as_deref().unwrap_or("stopped too soon");
        return Err(Failure::Failed(format!("nothing was acknowledged: {why}")));
    }
    Ok(())
}

fn text(report: &Report, durable: bool, durability: &str) -> String {
    let size = report.options.record_size;
    let mut lines = vec![
        String::new(),
        format!(
            "{} records of {size} B in {:.1} s into {} shards: {} records/s, {}/s",
            human::grouped(report.acked_records),
            report.duration_s,
            report.shards,
            human::count(report.records_per_s),
            human::bytes(report.bytes_per_s),
        ),
        format!("{}{durability}", label(durable)),
        format!("response     {}", tail(&report.latency_us.response)),
        format!("propagation  {}", tail(&report.latency_us.propagation)),
        format!(
            "checked {} records: lost {} duplicated {} reordered {}",
            human::grouped(report.checked_records),
            report.lost,
            report.duplicated,
            report.reordered
        ),
    ];
    let odd = [
        ("corrupted", report.corrupted),
        ("trimmed by retention before they were read", report.trimmed),
        ("not read in time", report.unread),
        ("refused", report.refused),
        ("of unknown fate", report.unknown),
    ];
    lines.extend(
        odd.iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("{} records {what}", human::grouped(*n))),
    );
    if let Some(reason) = &report.void_reason {
        lines.push(format!("latencies are not to be trusted: {reason}"));
    }
    let next = [
        "",
        "Try next:",
        "  highwater serve --data ./data",
        "  highwater load run -r 20k -d 10s --shards 4",
        "  highwater top",
        "",
    ];
    lines.extend(next.map(str::to_owned));
    lines.join("\n")
}

fn tail(of: &Distribution) -> String {
    let us = |us: f64| human::nanos((us * 1e3) as u64);
    format!("p50 {}  p99 {}  p99.9 {}  max {}", us(of.p50), us(of.p99), us(of.p999), us(of.max))
}
