//! Carries a search out: trial after trial against a real target, each kept in a run directory of its own, `search.json`
//! written after each, so that an interrupted search goes on where it was.

use std::path::Path;
use std::time::Instant;

use super::controller::{Next, Search, Step};
use super::file::{
    SEARCH_FILE, SEARCH_SCHEMA, SearchFile, SearchResult, SearchSettings, TrialRecord,
};
use super::measure::{self, Gauge};
use super::store::{Store, StoreError};
use super::verdict;
use crate::run::Session;
use crate::{
    Environment, LoadError, LoadOptions, Observer, Report, RunDir, RunDirError, Stop, Tick,
};

/// Why a search ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A setting that is not possible.
    #[error("{field} is {what}")]
    Setting {
        /// Which.
        field: &'static str,
        /// Its value and its limit.
        what: String,
    },
    /// A trial could not be carried out.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What is kept could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory of a trial.
    #[error(transparent)]
    Dir(#[from] RunDirError),
    /// Records were lost, doubled, reordered or damaged: no rate makes up for that.
    #[error("trial {number}, at {rate:.0} records/s: {what}")]
    Damaged {
        /// Which trial.
        number: u32,
        /// Its rate.
        rate: f64,
        /// What became of its records.
        what: String,
    },
}

/// Who looks on while a search goes on: at each second of each trial, and between trials.
pub trait Spectator: Observer {
    /// A trial begins; what the trials so far come to.
    fn begins(
        &mut self,
        number: u32,
        step: &Step,
        settings: &SearchSettings,
        so_far: &SearchResult,
    );

    /// It is over. `left_s` is what is left of the budget.
    fn ended(&mut self, trial: &TrialRecord, so_far: &SearchResult, left_s: f64);
}

/// Looks away.
impl Spectator for () {
    fn begins(&mut self, _: u32, _: &Step, _: &SearchSettings, _: &SearchResult) {}

    fn ended(&mut self, _: &TrialRecord, _: &SearchResult, _: f64) {}
}

/// A search that is asked for.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    /// What trials have in common.
    pub load: LoadOptions,
    /// What is searched.
    pub settings: SearchSettings,
    /// The command that repeats it.
    pub command: Vec<String>,
    /// Options that were left to chance: a search that goes on keeps those it had. Names of [`LoadOptions`].
    pub by_chance: Vec<&'static str>,
}

impl SearchRequest {
    /// Whether it can be.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), SearchError> {
        validate(&self.load, &self.settings)
    }
}

/// Whether a search of `load` can be.
///
/// # Errors
/// The first field that is out of its range.
pub fn validate(load: &LoadOptions, settings: &SearchSettings) -> Result<(), SearchError> {
    load.validate()?;
    match measure::check(load, settings) {
        Some((field, what)) => Err(SearchError::Setting { field, what }),
        None => Ok(()),
    }
}

/// Searches, or goes on with the search that is kept in `dir`. After `stop` was requested, the trial under way is not
/// counted and the file has no result.
///
/// # Errors
/// See [`SearchError`]; what was measured until then is in `dir`.
pub fn search(
    request: &SearchRequest,
    dir: Option<&Path>,
    spectator: &mut dyn Spectator,
    stop: &Stop,
) -> Result<SearchFile, SearchError> {
    request.validate()?;
    let store = dir.map(Store::open).transpose()?;
    let kept = store.as_ref().map(|store| store.resume(request)).transpose()?.flatten();
    let mut file = kept.unwrap_or_else(|| new(request));
    if file.result.is_some() {
        return Ok(file);
    }
    let mut search = Search::new(file.settings.clone());
    for trial in &file.trials {
        search.record(trial.outcome());
    }
    if let Some(store) = &store {
        store.write(&file)?;
    }
    let session = Session::open(&file.load)?;
    while let Next::Trial(step) = search.next() {
        if stop.level() > 0 {
            return Ok(file);
        }
        let number = file.trials.len() as u32 + 1;
        spectator.begins(number, &step, &file.settings, &search.result());
        let made = trial(&session, &file, &step, number, store.as_ref(), spectator, stop)?;
        let Some((record, report)) = made else { return Ok(file) };
        if !report.intact() {
            let (rate, what) = (step.rate, report.integrity_in_words());
            return Err(SearchError::Damaged { number, rate, what });
        }
        search.record(record.outcome());
        take_in(&mut file, record, report, search.spent_s());
        if let Some(store) = &store {
            store.write(&file)?;
        }
        let left_s = file.settings.budget_s - search.spent_s();
        if let Some(last) = file.trials.last() {
            spectator.ended(last, &search.result(), left_s);
        }
    }
    file.result = Some(verdict::finished(search.result(), &search, &file));
    // Closed before the reports say so: a temporary directory that stays behind is worth a note.
    if let (Some(why), Some(result)) = (session.close(), &mut file.result) {
        result.notes.push(why);
    }
    if let Some(store) = &store {
        store.write(&file)?;
        store.write_reports(&file)?;
    }
    Ok(file)
}

/// The search kept in `dir` that [`search`] would go on with, or give back if it is finished; `None` if it would begin one.
///
/// # Errors
/// As [`search`]: one that was asked something else, or is under way in another process.
pub fn kept(request: &SearchRequest, dir: &Path) -> Result<Option<SearchFile>, SearchError> {
    request.validate()?;
    if !dir.join(SEARCH_FILE).exists() {
        return Ok(None);
    }
    Ok(Store::open(dir)?.resume(request)?)
}

fn new(request: &SearchRequest) -> SearchFile {
    let load = request.load.clone();
    SearchFile {
        schema: SEARCH_SCHEMA.to_owned(),
        command: request.command.clone(),
        target: load.target.clone(),
        server: String::new(),
        started_ns: 0,
        spent_s: 0.0,
        settings: request.settings.clone(),
        shards: load.shards,
        groups: load.groups as u32,
        ack: load.ack.to_string(),
        mean_payload_bytes: 0.0,
        environment: Environment::default(),
        lints: Vec::new(),
        trials: Vec::new(),
        result: None,
        load,
    }
}

/// Tells the search's observer and the trial's directory.
struct Both<'a>(&'a mut dyn Spectator, Option<RunDir>);

impl Observer for Both<'_> {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.0.tick(tick);
        if let Some(dir) = &mut self.1 {
            dir.tick(tick);
        }
    }
}

/// One trial; `None` if somebody ended the search meanwhile.
fn trial(
    session: &Session,
    file: &SearchFile,
    step: &Step,
    number: u32,
    store: Option<&Store>,
    spectator: &mut dyn Spectator,
    stop: &Stop,
) -> Result<Option<(TrialRecord, Report)>, SearchError> {
    let begun = Instant::now();
    let name = format!("trial-{number:03}");
    let dir = match store {
        Some(store) => Some(RunDir::create(&store.below(&name))?),
        None => None,
    };
    let mut both = Both(spectator, dir);
    let goals = file.settings.goals.clone();
    let mut gauge = Gauge::new(&goals, step.rate, file.load.groups, stop, &mut both);
    let ends = gauge.stop();
    let options = measure::options(&file.load, step, number);
    let mut report = session.run(options, &mut gauge, &ends)?;
    let record = gauge.record(step, &report);
    let dir = both.1.take();
    let kept = match dir {
        Some(dir) => {
            dir.describe(&mut report);
            dir.finish(&report)
        }
        None => Ok(()),
    };
    if stop.level() > 0 {
        return Ok(None);
    }
    kept?;
    let spent_s = begun.elapsed().as_secs_f64();
    let over_ns = report.started_ns as f64 + report.duration_s * 1e9;
    let drain_s =
        ((crate::clock::Clock::start().now_ns() as f64 - over_ns) / 1e9).clamp(0.0, spent_s);
    let dir = if store.is_some() { name } else { String::new() };
    Ok(Some((TrialRecord { number, dir, spent_s, drain_s, ..record }, report)))
}

/// Adds a trial to the file.
fn take_in(file: &mut SearchFile, record: TrialRecord, report: Report, spent_s: f64) {
    if file.trials.is_empty() {
        file.started_ns = record.started_ns;
    }
    file.spent_s = spent_s;
    if record.void_reason.is_none() {
        let (bytes, before) = (report.workload.mean_payload_bytes, file.mean_payload_bytes);
        let counted = file.trials.iter().filter(|trial| trial.void_reason.is_none()).count() as f64;
        file.mean_payload_bytes = before + (bytes - before) / (counted + 1.0);
    }
    file.server = report.server;
    file.shards = report.shards;
    file.groups = report.groups;
    file.ack = report.ack;
    for lint in report.lints {
        if !file.lints.iter().any(|known| known.name == lint.name) {
            file.lints.push(lint);
        }
    }
    file.environment = report.environment;
    file.trials.push(record);
}
