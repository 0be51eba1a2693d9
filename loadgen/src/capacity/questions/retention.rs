//! Disk and wear.

use crate::capacity::answer::{Answer, Figure, Question, Unit, Verdict, span};
use crate::capacity::facts::Facts;
use crate::capacity::formula;
use crate::report::figures::{bytes, percent, rate};

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
    let (least, unknown) = if measured { ("", "") } else { ("at least ", " (not measured)") };
    let says = format!(
        "{least}{} for {}: {} of data, {} overhead{unknown}, {} fill",
        bytes(needed),
        span(retention_s),
        bytes(demand.rate * payload * retention_s),
        percent(overhead),
        percent(FILL)
    );
    // What others have of the disk is not ours to fill.
    let (verdict, says) = match &size {
        Some(Disk { total, free, .. }) if needed > *free => {
            let room = (free - f64::from(shards) * SEGMENT).max(0.0) * FILL;
            let fits = span(room / bytes_per_s);
            let of = format!(
                "{} of {} are free or theirs, enough for {fits}",
                bytes(*free),
                bytes(*total)
            );
            (Verdict::No, format!("{says}; {of}"))
        }
        Some(Disk { free, .. }) => {
            let verdict = if measured { Verdict::Fits } else { Verdict::Tight };
            (verdict, format!("{says}; {} are free or theirs", bytes(*free)))
        }
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
    if let Some(Disk { total, from, .. }) = &size {
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
        answer.says += &format!("; {writes:.2} writes of the whole disk a day");
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
        let at = facts.recording().map_or(0.0, |(_, recorded)| recorded.mean.records_in);
        return answer.note(format!(
            "The overhead is that of {weighed_by}, at {} records/s: headers, and blocks filled up to 4,096 bytes. More records \
             in a block, at a higher rate or with a longer linger, take less.",
            rate(at)
        ));
    }
    answer
        .note(
            "The overhead is the least the format adds (a header for each record, no padding of blocks to 4,096 \
             bytes); small groups take more. A recording under load measures it.",
        )
        .better(facts.commands.record())
}

/// The disk that holds the data, in bytes.
struct Disk {
    total: f64,
    /// For streams: what is free, and what they have.
    free: f64,
    /// Who says so.
    from: String,
}

fn disk(facts: &Facts<'_>) -> Option<Disk> {
    let recorded = facts.recording().map(|(from, r)| Disk {
        total: r.disk_total as f64,
        // What the streams have already is for them.
        free: r.disk_free.saturating_add(r.stored) as f64,
        from: from.to_owned(),
    });
    let embedded = || {
        facts.evidence.sources.iter().find_map(|source| {
            let place = source.environment.as_ref()?.data_dir.as_ref()?;
            let total = place.size_bytes? as f64;
            let free = total * (1.0 - place.fill.unwrap_or(0.0));
            Some(Disk { total, free, from: source.name.clone() })
        })
    };
    recorded.filter(|disk| disk.total > 0.0).or_else(embedded)
}
