//! `highwater plan`: from measured runs to a plan one can sign.

mod measure;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use highwater_loadgen::capacity::{
    self, Demand, Evidence, EvidenceError, OtherVersion, Peak, Plan, PlanError, PlanOptions,
    Recorded, SourceKind, Watch,
};
use highwater_loadgen::search::{SEARCH_SCHEMA, SWEEP_SCHEMA};

use self::measure::{MeasureFlags, Measured, Wanted};
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
    #[arg(value_name = "RUN", required_unless_present_any = ["probe", "measure"])]
    runs: Vec<PathBuf>,
    /// What this machine can do by itself: the output of highwater probe DIR --json; may be given several times
    #[arg(long, value_name = "FILE")]
    probe: Vec<PathBuf>,
    #[command(flatten)]
    measure: MeasureFlags,
    #[command(flatten, next_help_heading = "What is asked")]
    asked: AskedFlags,
    #[command(flatten, next_help_heading = "Results")]
    results: PlanResultFlags,
}

/// What is asked of the machine.
#[derive(Debug, Args)]
struct AskedFlags {
    /// Records a second on average, all producers together [default: as recorded]
    #[arg(long, value_name = "RATE", value_parser = rate, allow_hyphen_values = true)]
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
    let measured = match &args.measure.measure {
        Some(dir) if args.measure.dry_run => return args.measure.print(dir, args.wanted()),
        Some(dir) => Some(args.measured(dir)?),
        None => None,
    };
    let evidence = gather(args, measured.as_ref())?;
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
    let below = args.measure.measure.as_ref().map(|dir| dir.join("plan"));
    if let Some(dir) = args.results.output.as_ref().or(below.as_ref()) {
        let files = capacity::write_plan(dir, &plan).map_err(Failure::failed)?;
        for file in files {
            note!("wrote {}", file.display());
        }
    }
    match args.results.json {
        true => output::json(&plan)?,
        false => output::text(&plan)?,
    }
    // What was recorded of the server beside void loads says no more than they do, and the machine is not the server.
    let only_loads = measured.is_some();
    counts(&plan, only_loads)
}

/// A plan with gaps is a plan; one in which nothing counts (of the loads, or at all) is none.
fn counts(plan: &Plan, only_loads: bool) -> Result<(), Failure> {
    let mut void = plan.sources.iter().flat_map(|source| &source.void);
    let load = |kind| matches!(kind, SourceKind::Run | SourceKind::Search | SourceKind::Sweep);
    let mut judged = plan.sources.iter().filter(|source| !only_loads || load(source.kind));
    match void.next() {
        Some(why) if judged.all(|source| source.counted == 0) => {
            Err(Failure::Unmeasured(format!("nothing that was measured counts; {why}")))
        }
        _ => Ok(()),
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

impl PlanArgs {
    /// What has to be measured for it.
    fn wanted(&self) -> Wanted {
        Wanted {
            rate: self.asked.demand.unwrap_or_default(),
            record_bytes: self.asked.record_size,
            groups: self.asked.groups.unwrap_or(1),
        }
    }

    /// What is measured for it now.
    fn measured(&self, dir: &Path) -> Result<Measured, Failure> {
        // What cannot be planned is said now, and not in a quarter of an hour.
        let demand = demand(&self.asked, &Evidence::default())?;
        demand.validate().map_err(|e| Failure::Usage(e.to_string()))?;
        self.measure.run(dir, self.wanted())
    }
}

/// Everything named on the command line, and what was measured now.
fn gather(args: &PlanArgs, measured: Option<&Measured>) -> Result<Evidence, Failure> {
    let mut evidence = Evidence::default();
    let other = if args.results.force { OtherVersion::Try } else { OtherVersion::Refuse };
    for path in args.runs.iter().chain(measured.iter().flat_map(|measured| &measured.runs)) {
        if path.is_dir() {
            evidence
                .add_directory(path, other)
                .map_err(|e| unreadable(e, other == OtherVersion::Refuse))?;
        } else {
            add_file(&mut evidence, path)?;
        }
    }
    for path in args.probe.iter().chain(measured.map(|measured| &measured.probe)) {
        let probe = capacity::read_probe(path);
        // Of a probe no other version is read.
        let probe = probe.map_err(|e| unreadable(e, false))?;
        evidence.add_probe(&path.display().to_string(), probe);
    }
    Ok(evidence)
}

/// Whether --force would change it: it was not given, and what was read can be of another version.
fn unreadable(error: EvidenceError, force_may: bool) -> Failure {
    match error {
        EvidenceError::Schema { ref found, expected, .. } => {
            let ours = |schema: &str| schema.split('/').next() == expected.split('/').next();
            let more = " (--force reads other versions of it as far as it can)";
            let more = if force_may && ours(found) { more } else { "" };
            Failure::Usage(format!("{error}{more}"))
        }
        error => Failure::Failed(chain(&error)),
    }
}

/// Whether a file of that schema is one of a directory that `load` made.
fn of_load(schema: &str) -> bool {
    let ours = [highwater_loadgen::SCHEMA, SEARCH_SCHEMA, SWEEP_SCHEMA];
    ours.iter().any(|ours| schema.split('/').next() == ours.split('/').next())
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
            Err(EvidenceError::Schema { found, .. }) if of_load(&found) => {
                Err(Failure::Usage(format!(
                    "{name} alone ({found}) is not enough: give the directory that load made with -o"
                )))
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
    use clap::Parser as _;
    use highwater_loadgen::capacity::{Point, Setup, Source, SourceKind, Verdict};
    use highwater_loadgen::{Arrival, LoadOptions, Workload};

    use super::*;
    use crate::cli::load::words_of;
    use crate::cli::{Cli, Command};

    fn source(options: &LoadOptions) -> Source {
        Source {
            name: "run".into(),
            kind: SourceKind::Run,
            schema: "highwater-load/1".into(),
            target: options.target.clone(),
            server: String::new(),
            began_ns: 0,
            counted: 1,
            void: vec![],
            command: words_of(options),
            lints: vec![],
            environment: None,
            load: Some(Box::new(options.clone())),
        }
    }

    /// A run of `options` that kept up.
    fn kept_up(options: &LoadOptions) -> Point {
        let setup = Setup {
            shards: options.shards,
            groups: options.groups as u32,
            ack: options.ack.to_string(),
            record_bytes: 512.0,
            batch_bytes: options.batch_bytes as u64,
            linger_us: options.linger.as_secs_f64() * 1e6,
            producers: options.producers,
            skew: 1.0,
        };
        Point {
            from: "run".into(),
            setup,
            offered: 1e3,
            delivered: 1e3,
            consumed: 1e3,
            response_us: [None; 3],
            propagation_us: [None; 3],
            met: None,
            kept_up: true,
            stands: true,
        }
    }

    /// Where every load was void, the recording made beside them and the probe let `--measure` end as if all was well.
    #[test]
    fn a_recording_and_a_probe_do_not_stand_for_loads_that_are_void() {
        let void = Source {
            counted: 0,
            void: vec!["the generator was late".into()],
            ..source(&LoadOptions::default())
        };
        let beside = |kind| Source { kind, void: vec![], counted: 9, ..void.clone() };
        for (beside, only_loads, enough) in [
            (vec![], false, false),
            (vec![], true, false),
            (vec![beside(SourceKind::Recording)], false, true),
            (vec![beside(SourceKind::Recording)], true, false),
            (vec![beside(SourceKind::Recording), beside(SourceKind::Probe)], true, false),
            (vec![beside(SourceKind::Sweep)], true, true),
        ] {
            let kinds: Vec<SourceKind> = beside.iter().map(|source| source.kind).collect();
            let sources = std::iter::once(void.clone()).chain(beside).collect();
            let evidence = Evidence { sources, ..Evidence::default() };
            let options = PlanOptions { force: true, ..PlanOptions::default() };
            let plan = capacity::plan(&evidence, &Demand::of(1e3), &options).unwrap();
            match counts(&plan, only_loads) {
                Ok(()) => assert!(enough, "{kinds:?} {only_loads}"),
                Err(Failure::Unmeasured(why)) => {
                    assert!(!enough && why.contains("the generator was late"), "{kinds:?}: {why}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A command as a shell takes it apart: without what is redirected and the comment.
    fn words(command: &str) -> Vec<&str> {
        let command = command.split("  #").next().unwrap_or_default();
        command.split_whitespace().filter(|word| !word.starts_with('>')).collect()
    }

    /// Whatever the runs at hand were, what a plan tells to run can be run.
    #[test]
    fn every_command_a_plan_proposes_is_one() {
        let plain = LoadOptions::default();
        let special = LoadOptions {
            target: "embedded:data".into(),
            shards: 4,
            groups: 3,
            streams: 2,
            producers: 8,
            batch_bytes: 65_536,
            linger: Duration::from_millis(2),
            inflight: 4,
            connections: 2,
            cores: vec![0],
            engine_cores: vec![1],
            arrival: Arrival::Poisson,
            workload: Workload::Fixed { size: 512 },
            ..LoadOptions::default()
        };
        let (mut proposed, mut asked) = (Vec::new(), 0);
        for options in [plain, special.clone()] {
            for points in [vec![], vec![kept_up(&options)]] {
                let evidence =
                    Evidence { sources: vec![source(&options)], points, ..Evidence::default() };
                for rate in [0.5, 900.0, 1e6] {
                    let demand = Demand {
                        peak: Some(Peak { factor: 3.0, time_s: 60.0 }),
                        groups: 3,
                        ..Demand::of(rate)
                    };
                    let plan = capacity::plan(&evidence, &demand, &PlanOptions::default()).unwrap();
                    let missing = |v| matches!(v, Verdict::NotMeasured);
                    asked += plan.answers.iter().filter(|a| missing(a.verdict)).count();
                    let commands = plan.answers.into_iter().filter_map(|answer| answer.command);
                    proposed.extend(commands);
                }
            }
        }
        assert!(asked > 50 && proposed.len() > asked, "{asked} {}", proposed.len());
        for kind in ["search", "sweep", "backlog", "run", "run -r max"] {
            let kind = format!("highwater load {kind} ");
            assert!(proposed.iter().any(|command| command.starts_with(&kind)), "{kind}");
        }
        for command in &proposed {
            let parsed = Cli::try_parse_from(words(command));
            let parsed = parsed.unwrap_or_else(|e| panic!("{command}: {e}"));
            match parsed.command {
                Command::Load(args) => args.check().unwrap_or_else(|e| panic!("{command}: {e}")),
                Command::Record(_) | Command::Probe(_) => {}
                _ => panic!("{command}"),
            }
        }
        // What makes a measurement another one goes along.
        let searches = || proposed.iter().filter(|c| c.contains("load search"));
        let own = "--size 512 --arrival poisson --streams 2 --producers 8 --batch 65536 --linger 2ms --inflight 4 \
                   --connections 2 --cores 0 --engine-cores 1";
        assert!(searches().any(|c| c.contains(own)), "{:?}", searches().collect::<Vec<_>>());
        let varied = |c: &&String| c.contains("--vary batch") && c.contains("--batch ");
        assert_eq!(proposed.iter().find(varied), None, "what is varied is not also set");
    }

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
