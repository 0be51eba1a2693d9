//! `highwater inspect`: verify a data directory offline, read-only.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// `highwater inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out; damage is a failure.
#[cfg(target_os = "linux")]
pub fn run(args: InspectArgs) -> Result<(), Failure> {
    let report = highwater_engine::inspect::inspect(&args.dir)
        .map_err(|e| Failure::doing(format!("cannot inspect {}", args.dir.display()), e))?;
    if args.json {
        crate::output::json(&report)?;
    } else {
        tell(&report)?;
    }
    match report.damaged {
        0 => Ok(()),
        places => {
            let places = crate::human::counted(places, "place");
            Err(Failure::Failed(format!("durable data is damaged in {places}")))
        }
    }
}

#[cfg(target_os = "linux")]
fn tell(report: &highwater_engine::inspect::InspectReport) -> Result<(), Failure> {
    use crate::{human, output};

    let rows: Vec<_> = report
        .shards
        .iter()
        .map(|shard| {
            vec![
                format!("{}/{}", shard.stream, shard.shard),
                shard.segments.to_string(),
                shard.batches.to_string(),
                human::grouped(shard.records),
                format!("{}..{}", shard.oldest, shard.end),
                // What is wrong is among the findings below, in full.
                if shard.state == "sound" { "sound" } else { "DAMAGED" }.to_owned(),
            ]
        })
        .collect();
    output::table(
        &["stream/shard", "segments", "batches", "records", "sequences", "state"],
        &rows,
    )?;
    for finding in &report.findings {
        output::line(finding)?;
    }
    output::line(format!(
        "{}, {}, {}, {}: {} damaged, {} torn",
        human::counted(report.segments, "segment"),
        if report.batches == 1 {
            "1 batch".to_owned()
        } else {
            format!("{} batches", human::grouped(report.batches))
        },
        human::counted(report.records, "record"),
        human::binary(report.bytes),
        report.damaged,
        report.torn
    ))
}

/// Carries it out elsewhere.
#[cfg(not(target_os = "linux"))]
pub fn run(_: InspectArgs) -> Result<(), Failure> {
    let what = "inspect reads with O_DIRECT, which needs Linux";
    Err(Failure::Failed(what.to_owned()))
}
