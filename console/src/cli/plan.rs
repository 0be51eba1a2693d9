//! `highwater plan`: from measured runs to a plan one can sign.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use highwater_loadgen::capacity::{
    self, Demand, Evidence, EvidenceError, OtherVersion, Peak, PlanError, PlanOptions, Recorded,
    Watch,
};

use crate::dashboard::recording::{Tape, TapeError};
use crate::dashboard::source::{self, What};
use crate::failure::{Failure, chain};
use crate::{output, units};

/// `highwater plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --demand the load is that of the recording: its mean, its busiest minute, its groups.\n\
    What was not measured is answered with the command that measures it; the exit code is 0 all the same."
)]
pub struct PlanArgs {
    /// Directories of load run, burst, backlog, search or sweep; recordings of highwater record
    #[arg(value_name = "RUN", required_unless_present = "probe")]
    runs: Vec<PathBuf>,
    /// What this machine can do by itself: the output of highwater probe DIR --json; may be given several times
    #[arg(long, value_name = "FILE")]
    probe: Vec<PathBuf>,
    #[command(flatten, next_help_heading = "What is asked")]
    asked: AskedFlags,
    #[command(flatten, next_help_heading = "Results")]
    results: PlanResultFlags,
}

/// What is asked of the machine.
#[derive(Debug, Args)]
struct AskedFlags {
    /// Records a second on average, all producers together [default: as recorded]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    demand: Option<f64>,
    /// Payload of a record [default: as measured]
    #[arg(long, value_name = "BYTES", value_parser = units::record_size)]
    record_size: Option<u64>,
    /// The highest load, as times the average, and how long it lasts [default: as recorded]
    #[arg(long, value_name = "FACTOR/TIME", value_parser = peak)]
    peak: Option<Peak>,
    /// How long records are kept
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    retention: Option<Duration>,
    /// How long a consumer group may be away
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    outage: Option<Duration>,
    /// Consumer groups, each of which reads everything [default: as recorded, otherwise 1]
    #[arg(long, value_name = "N")]
    groups: Option<u32>,
    /// Busiest shard over the mean of all shards, for the keys in use: 1 is even [default: as measured]
    #[arg(long, value_name = "RATIO", value_parser = units::factor)]
    skew: Option<f64>,
}

/// Where the plan goes.
#[derive(Debug, Args)]
struct PlanResultFlags {
    /// Write plan.json, report.md and report.html (one file, offline) to this directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Mix runs of different machines, targets or schema versions
    #[arg(long)]
    force: bool,
}

fn rate(text: &str) -> Result<f64, units::UnitError> {
    match units::rate(text)? {
        units::Rate::PerSecond(rate) => Ok(rate),
        units::Rate::Max => Err(units::UnitError::Form { what: "rate", examples: "400k or 1.5M" }),
    }
}

/// `2x/10m`.
fn peak(text: &str) -> Result<Peak, units::UnitError> {
    let form = units::UnitError::Form {
        what: "peak",
        examples: "2x/10m: twice the average for ten minutes",
    };
    let (factor, time) = text.split_once('/').ok_or(form)?;
    Ok(Peak { factor: units::factor(factor)?, time_s: units::duration(time)?.as_secs_f64() })
}

/// Carries it out.
pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let evidence = gather(args)?;
    let demand = demand(&args.asked, &evidence)?;
    let options = PlanOptions {
        force: args.results.force,
        command: std::env::args_os()
            .enumerate()
            // The name, not where it lies.
            .map(
                |(i, word)| {
                    if i == 0 { "highwater".into() } else { word.to_string_lossy().into_owned() }
                },
            )
            .collect(),
        now_ns: source::now_ns(),
    };
    let plan = capacity::plan(&evidence, &demand, &options).map_err(refusal)?;
    if let Some(dir) = &args.results.output {
        let files = capacity::write_plan(dir, &plan).map_err(Failure::failed)?;
        for file in files {
            note!("wrote {}", file.display());
        }
    }
    match args.results.json {
        true => output::json(&plan),
        false => output::text(&plan),
    }
}

fn refusal(error: PlanError) -> Failure {
    match error {
        PlanError::Mixed { .. } => {
            Failure::Usage(format!("{error} (--force plans with them all the same)"))
        }
        PlanError::Demand(_) | PlanError::Nothing => Failure::Usage(error.to_string()),
    }
}

/// Everything named on the command line.
fn gather(args: &PlanArgs) -> Result<Evidence, Failure> {
    let mut evidence = Evidence::default();
    let other = if args.results.force { OtherVersion::Try } else { OtherVersion::Refuse };
    for path in &args.runs {
        if path.is_dir() {
            evidence.add_directory(path, other).map_err(unreadable)?;
        } else {
            add_file(&mut evidence, path)?;
        }
    }
    for path in &args.probe {
        let probe = capacity::read_probe(path).map_err(unreadable)?;
        evidence.add_probe(&path.display().to_string(), probe);
    }
    Ok(evidence)
}

fn unreadable(error: EvidenceError) -> Failure {
    match error {
        EvidenceError::Schema { .. } => {
            Failure::Usage(format!("{error} (--force reads other versions of it as far as it can)"))
        }
        error => Failure::Failed(chain(&error)),
    }
}

/// A recording; or a probe, by its schema.
fn add_file(evidence: &mut Evidence, path: &Path) -> Result<(), Failure> {
    let name = path.display().to_string();
    match Tape::open(path) {
        Ok(tape) => {
            let recorded = watched(&tape).ok_or_else(|| {
                Failure::Failed(format!(
                    "{name}: no two samples of one server with time between them"
                ))
            })?;
            let target = match &tape {
                Tape::Recorded(recorded) => recorded.head.target.clone(),
                Tape::Live(_) => String::new(),
            };
            evidence.add_recording(&name, &target, recorded);
            Ok(())
        }
        Err(TapeError::Foreign) => match capacity::read_probe(path) {
            Ok(probe) => {
                evidence.add_probe(&name, probe);
                Ok(())
            }
            Err(_) => Err(Failure::Failed(format!(
                "{name}: neither a directory of load run, search or sweep, nor a recording of highwater record, nor \
                 the output of highwater probe --json"
            ))),
        },
        Err(error) => Err(Failure::doing(name, error)),
    }
}

fn watched(tape: &Tape) -> Option<Recorded> {
    let mut watch = Watch::default();
    for index in tape.first()..tape.end() {
        if let Some(What::Snapshot(snapshot)) = tape.get(index).map(|sample| sample.what) {
            watch.take(&snapshot);
        }
    }
    watch.finish()
}

/// What is asked for, and for the rest what is recorded.
fn demand(asked: &AskedFlags, evidence: &Evidence) -> Result<Demand, Failure> {
    let recorded = evidence
        .recorded
        .iter()
        .max_by(|(_, a), (_, b)| a.mean.records_in.total_cmp(&b.mean.records_in));
    let mut demand = match (asked.demand, recorded) {
        (Some(rate), _) => Demand::of(rate),
        (None, Some((name, recorded))) => recorded.demand(name),
        (None, None) => {
            return Err(Failure::Usage(
                "--demand is missing: records a second on average, as 400k (only a recording has a load of its own)"
                    .to_owned(),
            ));
        }
    };
    demand.record_bytes = asked.record_size.map(|bytes| bytes as f64);
    demand.peak = asked.peak.or(demand.peak);
    demand.retention_s = asked.retention.map(|time| time.as_secs_f64());
    demand.outage_s = asked.outage.map(|time| time.as_secs_f64());
    demand.groups = asked.groups.unwrap_or(demand.groups);
    demand.skew = asked.skew.or(demand.skew);
    Ok(demand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_a_factor_and_a_time() {
        assert_eq!(peak("2x/10m"), Ok(Peak { factor: 2.0, time_s: 600.0 }));
        assert_eq!(peak("2.5/90s"), Ok(Peak { factor: 2.5, time_s: 90.0 }));
        for wrong in ["2x", "/10m", "2x/", "x/1s", "2x/10", "0x/1s"] {
            assert!(peak(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_demand_is_a_number() {
        assert_eq!(rate("400k"), Ok(400_000.0));
        assert!(rate("max").unwrap_err().to_string().contains("400k"));
    }
}
