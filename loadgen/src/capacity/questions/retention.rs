//! Disk and wear.

use crate::capacity::answer::{Answer, Figure, Question, Unit, Verdict, span};
use crate::capacity::facts::Facts;
use crate::capacity::formula;
use crate::report::figures::{bytes, percent};

/// A file system is filled up to this share.
pub const FILL: f64 = 0.8;
/// The largest segment by default (docs/format.md): retention takes whole segments.
pub const SEGMENT: f64 = 268_435_456.0;

/// How much disk, and how much wear?
pub fn retention(facts: &Facts<'_>) -> Answer {
    let question = Question::Retention;
    let Some(retention_s) = facts.demand.retention_s else {
        return Answer::new(question, Verdict::NotAsked, "add --retention 24h");
    };
    let Some((payload, sized_by)) = facts.record_bytes() else {
        return Answer::not_measured(question, facts.commands.search());
    };
    let Some((on_disk, weighed_by, measured)) = facts.disk_bytes() else {
        return Answer::not_measured(question, facts.commands.record());
    };
    let demand = facts.demand;
    let (shards, counted_by) = facts.shards().unwrap_or((1, "assumed".to_owned()));
    let bytes_per_s = demand.rate * on_disk;
    let needed =
        formula::retention_disk(bytes_per_s, retention_s, FILL, f64::from(shards), SEGMENT);
    let overhead = (on_disk / payload - 1.0).max(0.0);
    let size = disk(facts);
    let says = format!(
        "{} for {}: {} of data, {} overhead, {} fill",
        bytes(needed),
        span(retention_s),
        bytes(demand.rate * payload * retention_s),
        percent(overhead),
        percent(FILL)
    );
    let (verdict, says) = match &size {
        Some((total, _)) if needed > *total => {
            (Verdict::No, format!("{says}; the disk has {}", bytes(*total)))
        }
        Some((total, _)) => (Verdict::Fits, format!("{says}; the disk has {}", bytes(*total))),
        None => (Verdict::Known, says),
    };
    let mut answer = Answer::new(question, verdict, says).figure(
        Figure::new("disk", needed, Unit::Bytes, formula::RETENTION)
            .from("demand", demand.rate, Unit::RecordsPerS, &demand.from)
            .from("payload of a record", payload, Unit::Bytes, &sized_by)
            .from("overhead", overhead, Unit::Share, &weighed_by)
            .from("retention", retention_s, Unit::Seconds, &demand.from)
            .from("fill limit", FILL, Unit::Share, "assumed")
            .from("shards", f64::from(shards), Unit::Count, &counted_by)
            .from("segment", SEGMENT, Unit::Bytes, "docs/format.md, default"),
    );
    if let Some((total, from)) = &size {
        let writes = formula::drive_writes_per_day(bytes_per_s, *total);
        answer = answer.figure(
            Figure::new("wear", writes, Unit::DriveWritesPerDay, formula::ENDURANCE)
                .from("bytes on disk a second", bytes_per_s, Unit::BytesPerS, &weighed_by)
                .from(
                    "write amplification",
                    1.0,
                    Unit::Ratio,
                    "each byte is written once; padding is in the overhead",
                )
                .from("capacity", *total, Unit::Bytes, from),
        );
        answer.says += &format!("; {writes:.2} writes of it a day");
    } else {
        answer = answer.note("The size of the server's disk is not known: a recording tells it.");
    }
    if let Some((from, recorded)) = facts.recording() {
        answer = answer.figure(
            Figure::new(
                "full without retention in",
                recorded.disk_free as f64 / bytes_per_s,
                Unit::Seconds,
                formula::DISK_LASTS,
            )
            .from("free", recorded.disk_free as f64, Unit::Bytes, from)
            .from("bytes on disk a second", bytes_per_s, Unit::BytesPerS, &weighed_by),
        );
    }
    if measured {
        return answer;
    }
    answer
        .note(
            "The overhead is the least the format adds (a header for each record, no padding of blocks to 4,096 \
             bytes); small groups take more. A recording under load measures it.",
        )
        .better(facts.commands.record())
}

/// The size of the disk that holds the data, and who says so.
fn disk(facts: &Facts<'_>) -> Option<(f64, String)> {
    let recorded = facts.recording().map(|(from, r)| (r.disk_total as f64, from.to_owned()));
    let embedded = || {
        facts.evidence.sources.iter().find_map(|source| {
            let place = source.environment.as_ref()?.data_dir.as_ref()?;
            Some((place.size_bytes? as f64, source.name.clone()))
        })
    };
    recorded.filter(|(total, _)| *total > 0.0).or_else(embedded)
}
