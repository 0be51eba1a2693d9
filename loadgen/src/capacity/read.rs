//! Reading what a plan is made from: run directories, searches, sweeps, probes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::evidence::{Drain, Evidence, RECORDING_SCHEMA, Range, Setup, Source, SourceKind};
use super::probe::{PROBE_SCHEMA, ProbeFile};
use super::recorded::Recorded;
use super::{from_run, from_search};
use crate::report::figures::whole;
use crate::rundir::read_samples;
use crate::search::{SEARCH_FILE, SEARCH_SCHEMA, SWEEP_FILE, SWEEP_SCHEMA, SearchFile, SweepFile};
use crate::{LoadOptions, Progress, Report, RunReadError, SCHEMA};

/// What a run directory's report is called.
const RUN_FILE: &str = "run.json";
/// None of these files comes near.
const LONGEST: u64 = 64 << 20;

/// Why something cannot be planned from.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A directory without any of the files.
    #[error(
        "{path} has no {RUN_FILE}, {SEARCH_FILE} or {SWEEP_FILE}: it is no directory of load run, search or sweep, or what \
         wrote it did not come to its end"
    )]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Too large for what it says it is.
    #[error("{path} has more than {LONGEST} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file means something else.
    #[error("{path}: schema {found:?}; this program reads {expected:?}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says it is; empty if it does not say.
        found: String,
        /// What is read here.
        expected: &'static str,
    },
}

/// What is to be done with a file of another schema version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherVersion {
    /// Nothing.
    Refuse,
    /// Read as if it were of ours, if that is possible.
    Try,
}

/// A JSON object that names its schema, and the one it named.
fn versioned<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
    other: OtherVersion,
) -> Result<(T, String), EvidenceError> {
    let io = |source| EvidenceError::Io { path: path.to_owned(), source };
    let json = |source| EvidenceError::Json { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text)).map_err(io)?;
    if text.len() as u64 > LONGEST {
        return Err(EvidenceError::TooLong { path: path.to_owned() });
    }
    // First what it is, then what it says: another schema is better told than a missing field.
    let any: serde_json::Value = serde_json::from_slice(&text).map_err(json)?;
    let found = any.get("schema").and_then(|schema| schema.as_str()).unwrap_or_default().to_owned();
    let family = |schema: &str| schema.split('/').next().map(str::to_owned);
    let readable = found == expected
        || (other == OtherVersion::Try && !found.is_empty() && family(&found) == family(expected));
    if !readable {
        return Err(EvidenceError::Schema { path: path.to_owned(), found, expected });
    }
    let value = serde_json::from_slice(&text).map_err(json)?;
    Ok((value, found))
}

/// Reads the probe in `path`.
///
/// # Errors
/// When it cannot be read, or is something else.
pub fn read_probe(path: &Path) -> Result<ProbeFile, EvidenceError> {
    versioned(path, PROBE_SCHEMA, OtherVersion::Refuse).map(|(probe, _)| probe)
}

impl Evidence {
    /// Adds what the directory `path` holds, under that name.
    ///
    /// # Errors
    /// When it holds none of the files, or one that cannot be read.
    pub fn add_directory(&mut self, path: &Path, other: OtherVersion) -> Result<(), EvidenceError> {
        let name = path.display().to_string();
        if self.sources.iter().any(|source| is_same(Path::new(&source.name), path)) {
            self.left_out.push(format!("{name} was named more than once, and counts once"));
            return Ok(());
        }
        if path.join(SEARCH_FILE).exists() {
            let (file, schema) = versioned(&path.join(SEARCH_FILE), SEARCH_SCHEMA, other)?;
            self.sources.push(search_source(&name, schema, &file));
            from_search::search(self, &name, &file, false);
        } else if path.join(SWEEP_FILE).exists() {
            let (file, schema) = versioned(&path.join(SWEEP_FILE), SWEEP_SCHEMA, other)?;
            self.add_sweep(path, &name, schema, &file, other)?;
        } else if path.join(RUN_FILE).exists() {
            let (report, schema) = versioned(&path.join(RUN_FILE), SCHEMA, other)?;
            let samples = self.seconds_of(&name, path);
            self.add_run(&name, schema, &report, &samples);
        } else {
            return Err(EvidenceError::Nothing { path: path.to_owned() });
        }
        Ok(())
    }

    /// The seconds of the run `name` in `dir`; none where they cannot be read, which is told: they narrow intervals down.
    fn seconds_of(&mut self, name: &str, dir: &Path) -> Vec<Progress> {
        read_samples(dir).unwrap_or_else(|error| {
            let why = match error {
                RunReadError::Missing { file, .. } => format!("it has no {file}"),
                error => error.to_string(),
            };
            self.left_out
                .push(format!("the seconds of {name} and the intervals of its rates: {why}"));
            vec![]
        })
    }

    /// Adds a run with its seconds.
    pub fn add_run(&mut self, name: &str, schema: String, report: &Report, samples: &[Progress]) {
        self.sources.push(run_source(name, schema, report));
        from_run::run(self, name, report, samples);
    }

    /// Adds what was recorded of the server `target`.
    pub fn add_recording(&mut self, name: &str, target: &str, recorded: Recorded) {
        self.sources.push(Source {
            name: name.to_owned(),
            kind: SourceKind::Recording,
            schema: RECORDING_SCHEMA.to_owned(),
            target: target.to_owned(),
            server: recorded.server.clone(),
            began_ns: recorded.began_ns,
            counted: recorded.samples,
            void: vec![],
            command: vec![],
            lints: vec![],
            environment: None,
            load: None,
        });
        let drains = recorded.caught_up.iter().map(|seen| Drain {
            from: name.to_owned(),
            what: format!(
                "group {} on {} caught up from {} records",
                seen.group,
                seen.stream,
                whole(seen.backlog as u64)
            ),
            setup: None,
            paused: 1,
            rate: Range::exactly(seen.read),
            measured_interval: false,
            arrival: seen.arrival,
            outage_s: 0.0,
            took_s: Some(seen.took_s),
            live_us: None,
            generator_busy: None,
        });
        self.drains.extend(drains);
        self.recorded.push((name.to_owned(), recorded));
    }

    /// Adds what a probe found.
    pub fn add_probe(&mut self, name: &str, probe: ProbeFile) {
        self.sources.push(Source {
            name: name.to_owned(),
            kind: SourceKind::Probe,
            schema: probe.schema.clone(),
            target: probe.dir.clone(),
            server: String::new(),
            began_ns: probe.started_ns,
            counted: probe.durable_write.len(),
            void: vec![],
            command: probe.command.clone(),
            lints: vec![],
            environment: Some(probe.environment.clone()),
            load: None,
        });
        self.probes.push((name.to_owned(), probe));
    }

    fn add_sweep(
        &mut self,
        path: &Path,
        name: &str,
        schema: String,
        file: &SweepFile,
        other: OtherVersion,
    ) -> Result<(), EvidenceError> {
        let at = self.sources.len();
        self.sources.push(sweep_source(name, schema, file));
        for point in file.points.iter().filter(|point| point.done && point.void_reason.is_none()) {
            let dir = path.join(&point.dir);
            let label = format!("{name}/{}", point.dir);
            // The directory of a point says most. Without it (only sweep.json was kept) the summary has to do.
            if dir.join(SEARCH_FILE).exists() {
                let (search, found) = versioned(&dir.join(SEARCH_FILE), SEARCH_SCHEMA, other)?;
                self.sources[at].other_schema(found, SEARCH_SCHEMA);
                from_search::search(self, &label, &search, true);
            } else if dir.join(RUN_FILE).exists() {
                let (report, found) = versioned(&dir.join(RUN_FILE), SCHEMA, other)?;
                self.sources[at].other_schema(found, SCHEMA);
                let samples = self.seconds_of(&label, &dir);
                from_run::run(self, &label, &report, &samples);
            } else {
                from_search::point(self, &label, file, point);
            }
        }
        Ok(())
    }
}

/// Whether both are the same directory or file, by whatever path.
fn is_same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

impl Source {
    /// A part of it has the schema `found`, where `expected` is what this program writes: then so has all of it.
    fn other_schema(&mut self, found: String, expected: &str) {
        if found != expected {
            self.schema = found;
        }
    }
}

fn run_source(name: &str, schema: String, report: &Report) -> Source {
    Source {
        name: name.to_owned(),
        kind: SourceKind::Run,
        schema,
        target: report.target.clone(),
        server: report.server.clone(),
        began_ns: report.started_ns,
        counted: usize::from(report.valid),
        void: report.void_reason.iter().cloned().collect(),
        command: report.command.clone(),
        lints: report.lints.clone(),
        environment: Some(report.environment.clone()),
        load: Some(Box::new(report.options.clone())),
    }
}

fn search_source(name: &str, schema: String, file: &SearchFile) -> Source {
    let void: Vec<String> = file
        .trials
        .iter()
        .filter_map(|trial| {
            Some(format!("trial {}: {}", trial.number, trial.void_reason.as_ref()?))
        })
        .collect();
    Source {
        name: name.to_owned(),
        kind: SourceKind::Search,
        schema,
        target: file.target.clone(),
        server: file.server.clone(),
        began_ns: file.started_ns,
        counted: file.trials.len() - void.len(),
        void,
        command: file.command.clone(),
        lints: file.lints.clone(),
        environment: Some(file.environment.clone()),
        load: Some(Box::new(file.load.clone())),
    }
}

fn sweep_source(name: &str, schema: String, file: &SweepFile) -> Source {
    let void = |point: &crate::search::SweepPoint| {
        let reason = match (&point.void_reason, point.done) {
            (Some(reason), _) => reason.clone(),
            (None, true) => return None,
            (None, false) => "not carried out yet".to_owned(),
        };
        let settings: Vec<String> =
            point.settings.iter().map(|s| format!("{}={}", s.name, s.value)).collect();
        Some(format!("{}: {reason}", settings.join(" ")))
    };
    let void: Vec<String> = file.points.iter().filter_map(void).collect();
    Source {
        name: name.to_owned(),
        kind: SourceKind::Sweep,
        schema,
        target: file.target.clone(),
        server: file.server.clone(),
        began_ns: file.started_ns,
        counted: file.points.len() - void.len(),
        void,
        command: file.command.clone(),
        lints: file.lints.clone(),
        environment: Some(file.environment.clone()),
        load: Some(Box::new(file.load.clone())),
    }
}

/// What `options` come to with what was found of the stream.
pub(super) fn setup(
    options: &LoadOptions,
    shards: u32,
    groups: u32,
    ack: &str,
    record_bytes: f64,
    skew: f64,
) -> Setup {
    Setup {
        shards: shards.saturating_mul(options.streams.max(1)),
        groups,
        ack: ack.to_owned(),
        record_bytes,
        batch_bytes: options.batch_bytes as u64,
        linger_us: options.linger.as_secs_f64() * 1e6,
        producers: options.clients.unwrap_or(options.producers),
        skew,
    }
}
