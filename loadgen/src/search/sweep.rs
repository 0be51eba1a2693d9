//! The same question at every point of a grid of settings: a search at each, or a run at one rate. In shuffled order, so
//! that a machine that grows slower during the day does not look like a setting that is worse.

use std::path::Path;

use super::conduct::{SearchError, SearchRequest, Spectator, search, validate};
use super::file::{
    AxisValues, Ended, Interval, SWEEP_FILE, SWEEP_SCHEMA, SearchFile, SearchResult, Setting,
    SweepFile, SweepMode, SweepPoint,
};
use super::store::{Store, StoreError, read_sweep, same};
use super::text::with_flag;
use crate::report::figures::seconds;
use crate::run::Session;
use crate::{
    Distribution, Environment, Lint, LoadOptions, Observer, Rate, Report, RunDir, Stop, Tick,
};

/// Who looks on.
pub trait SweepSpectator: Spectator {
    /// A point begins: which of how many.
    fn point(&mut self, point: &SweepPoint, of: usize);

    /// It is over.
    fn point_ended(&mut self, point: &SweepPoint);
}

/// Looks away.
impl SweepSpectator for () {
    fn point(&mut self, _: &SweepPoint, _: usize) {}

    fn point_ended(&mut self, _: &SweepPoint) {}
}

/// A sweep that is asked for.
#[derive(Clone, Debug)]
pub struct SweepRequest {
    /// What is varied.
    pub vary: Vec<AxisValues>,
    /// What all points have in common.
    pub load: LoadOptions,
    /// Every point of the grid.
    pub points: Vec<PointRequest>,
    /// What is done at each.
    pub mode: SweepMode,
    /// Seed of the order.
    pub seed: u64,
    /// The command that repeats it.
    pub command: Vec<String>,
    /// As in [`SearchRequest::by_chance`].
    pub by_chance: Vec<&'static str>,
}

/// A point that is asked for.
#[derive(Clone, Debug)]
pub struct PointRequest {
    /// One setting per axis, in their order.
    pub settings: Vec<Setting>,
    /// All options. Stream and seed are not taken from here: the seed is that of the sweep, the stream one of the point's
    /// own.
    pub load: LoadOptions,
    /// The command that makes the search or the run of this point alone; stream and seed are put in as well.
    pub command: Vec<String>,
}

/// All combinations of the axes' values, the last axis changing fastest.
pub fn grid(vary: &[AxisValues]) -> Vec<Vec<Setting>> {
    vary.iter().fold(vec![Vec::new()], |points, axis| {
        let more = |point: Vec<Setting>| {
            axis.values.iter().map(move |value| {
                let mut point = point.clone();
                point.push(Setting { name: axis.name.clone(), value: value.clone() });
                point
            })
        };
        points.into_iter().flat_map(more).collect()
    })
}

impl SweepRequest {
    /// Whether it can be.
    ///
    /// # Errors
    /// The first field of a point, or of its search, that is out of its range.
    pub fn validate(&self) -> Result<(), SearchError> {
        self.points.iter().try_for_each(|point| match &self.mode {
            SweepMode::Search { settings } => validate(&point.load, settings),
            SweepMode::Rate { .. } => Ok(point.load.validate()?),
        })
    }

    /// What a point of `file` is asked for, with the stream of its own.
    fn of_point(&self, file: &SweepFile, point: &SweepPoint) -> Option<PointRequest> {
        let asked = self.points.iter().find(|asked| asked.settings == point.settings)?.clone();
        let (stream, seed) = (format!("{}-p{}", file.load.stream, point.turn), file.load.seed);
        let command = with_flag(&asked.command, "--stream", stream.clone());
        let command = with_flag(&command, "--seed", seed.to_string());
        let load = LoadOptions { stream, seed, ..asked.load };
        Some(PointRequest { load, command, ..asked })
    }

    fn new_file(&self) -> SweepFile {
        let mut order: Vec<usize> = (0..self.points.len()).collect();
        fastrand::Rng::with_seed(self.seed).shuffle(&mut order);
        let points = order.into_iter().enumerate().filter_map(|(turn, at)| {
            let PointRequest { settings, load, .. } = self.points.get(at)?;
            let turn = turn as u32 + 1;
            Some(SweepPoint {
                turn,
                settings: settings.clone(),
                dir: format!("point-{turn:03}"),
                done: false,
                void_reason: None,
                missed: None,
                damaged: false,
                shards: load.shards,
                groups: load.groups as u32,
                ack: load.ack.to_string(),
                mean_payload_bytes: 0.0,
                rate: None,
                published_rate: None,
                bytes_per_s: None,
                response: Distribution::default(),
                propagation: Distribution::default(),
            })
        });
        SweepFile {
            schema: SWEEP_SCHEMA.to_owned(),
            command: self.command.clone(),
            target: self.load.target.clone(),
            server: String::new(),
            started_ns: crate::clock::Clock::start().now_ns(),
            seed: self.seed,
            vary: self.vary.clone(),
            mode: self.mode.clone(),
            load: self.load.clone(),
            environment: Environment::default(),
            lints: Vec::new(),
            points: points.collect(),
        }
    }

    /// What is kept in the directory, if it is the same sweep.
    fn resume(&self, store: &Store) -> Result<Option<SweepFile>, StoreError> {
        let path = store.below(SWEEP_FILE);
        let Some(dir) = path.parent().filter(|_| path.exists()) else { return Ok(None) };
        let file = read_sweep(dir)?;
        let mut free = self.by_chance.clone();
        // The mode says how long.
        free.push("duration_s");
        same(&path, "load", &file.load, &self.load, &free)?;
        let seed: &[&str] = if self.by_chance.contains(&"seed") { &["seed"] } else { &[] };
        match (&file.mode, &self.mode) {
            (SweepMode::Search { settings: was }, SweepMode::Search { settings: is }) => {
                same(&path, "settings", was, is, seed)?;
            }
            (was, is) => same(&path, "mode", was, is, &[])?,
        }
        let axes = |vary: &[AxisValues]| serde_json::json!({ "vary": vary });
        same(&path, "sweep", &axes(&file.vary), &axes(&self.vary), &[])?;
        Ok(Some(file))
    }
}

/// Carries a sweep out, or goes on with the one kept in `dir`. After `stop` was requested, points are missing.
///
/// # Errors
/// See [`SearchError`]; what was measured until then is in `dir`.
pub fn sweep(
    request: &SweepRequest,
    dir: &Path,
    spectator: &mut dyn SweepSpectator,
    stop: &Stop,
) -> Result<SweepFile, SearchError> {
    // Before anything is written: what is kept goes on only as it began.
    request.validate()?;
    let store = Store::open_sweep(dir)?;
    let mut file = request.resume(&store)?.unwrap_or_else(|| request.new_file());
    store.write_sweep(&file)?;
    for at in 0..file.points.len() {
        let Some(point) = file.points.get(at).filter(|point| !point.done).cloned() else {
            continue;
        };
        let Some(asked) = request.of_point(&file, &point) else { continue };
        if stop.level() > 0 {
            break;
        }
        spectator.point(&point, file.points.len());
        let of = &store.below(&point.dir);
        let found = match &file.mode {
            SweepMode::Search { settings } => {
                let asked = SearchRequest {
                    load: asked.load,
                    settings: settings.clone(),
                    command: asked.command,
                    by_chance: Vec::new(),
                };
                searched(&asked, of, spectator, stop)
            }
            SweepMode::Rate { rate, .. } => {
                let rate = rate.map_or(Rate::Max, Rate::PerSecond);
                // A rate among the settings goes before the one for all.
                let varied = point.settings.iter().any(|setting| setting.name == "rate");
                let rate = if varied { asked.load.rate } else { rate };
                let load = LoadOptions { rate, ..asked.load };
                ran(PointRequest { load, ..asked }, of, spectator, stop)
            }
        };
        let none_yet = file.points.iter().all(|point| !point.done || point.void_reason.is_some());
        let ended = match found {
            Ok(None) => break,
            Ok(Some(mut found)) => {
                file.server = std::mem::take(&mut found.server);
                file.environment = std::mem::take(&mut found.environment);
                for lint in std::mem::take(&mut found.lints) {
                    if !file.lints.iter().any(|known| known.name == lint.name) {
                        file.lints.push(lint);
                    }
                }
                SweepPoint { done: true, ..found.fill(point) }
            }
            // One point that cannot be must not keep the others from being measured; if none can, say so.
            Err(SearchError::Load(error)) if !none_yet => {
                SweepPoint { done: true, void_reason: Some(error.to_string()), ..point }
            }
            Err(error) => return Err(error),
        };
        spectator.point_ended(&ended);
        if let Some(slot) = file.points.get_mut(at) {
            *slot = ended;
        }
        store.write_sweep(&file)?;
        store.write_sweep_reports(&file)?;
    }
    Ok(file)
}

/// What a point came to.
struct Found {
    server: String,
    environment: Environment,
    lints: Vec<Lint>,
    void_reason: Option<String>,
    missed: Option<String>,
    damaged: bool,
    shards: u32,
    groups: u32,
    ack: String,
    mean_payload_bytes: f64,
    rate: Option<Interval>,
    published_rate: Option<f64>,
    response: Distribution,
    propagation: Distribution,
}

impl Found {
    /// Of a run at one rate.
    fn of_run(report: Report) -> Found {
        let damaged = !report.intact();
        let why = damaged.then(|| report.integrity_in_words());
        let rate = report.records_per_s;
        Found {
            void_reason: why.or(report.void_reason),
            missed: None,
            damaged,
            server: report.server,
            environment: report.environment,
            lints: report.lints,
            shards: report.shards,
            groups: report.groups,
            ack: report.ack,
            mean_payload_bytes: report.workload.mean_payload_bytes,
            rate: Some(Interval { value: rate, low: rate, high: rate }),
            published_rate: None,
            response: report.latency_us.response,
            propagation: report.latency_us.propagation,
        }
    }

    fn fill(self, point: SweepPoint) -> SweepPoint {
        SweepPoint {
            void_reason: self.void_reason,
            missed: self.missed,
            damaged: self.damaged,
            shards: self.shards,
            groups: self.groups,
            ack: self.ack,
            mean_payload_bytes: self.mean_payload_bytes,
            bytes_per_s: self.rate.map(|rate| rate.value * self.mean_payload_bytes),
            rate: self.rate,
            published_rate: self.published_rate,
            response: self.response,
            propagation: self.propagation,
            ..point
        }
    }
}

fn searched(
    asked: &SearchRequest,
    dir: &Path,
    spectator: &mut dyn SweepSpectator,
    stop: &Stop,
) -> Result<Option<Found>, SearchError> {
    let file: SearchFile = search(asked, Some(dir), spectator, stop)?;
    let Some(result) = file.result else { return Ok(None) };
    let counted = || file.trials.iter().filter(|trial| trial.void_reason.is_none());
    let nearest = result.published_rate.and_then(|published| {
        let off = |rate: f64| (rate / published).ln().abs();
        counted().min_by(|a, b| off(a.rate).total_cmp(&off(b.rate)))
    });
    let (void, missed) = without_rate(&result, counted().next().is_some());
    let highest = result.published_rate.map(|rate| Interval { value: rate, low: rate, high: rate });
    Ok(Some(Found {
        server: file.server.clone(),
        environment: file.environment.clone(),
        lints: file.lints.clone(),
        void_reason: void,
        missed,
        // That would have been the end of it.
        damaged: false,
        shards: file.shards,
        groups: file.groups,
        ack: file.ack.clone(),
        mean_payload_bytes: file.mean_payload_bytes,
        // Where nothing gave out, what was tried is all that is known.
        rate: result.estimate.or(highest),
        published_rate: result.published_rate,
        response: nearest.map(|trial| trial.response).unwrap_or_default(),
        propagation: nearest.map(|trial| trial.propagation).unwrap_or_default(),
    }))
}

/// Why a search has no rate to rely on, if it has none: it says nothing, or its goals were missed. Whether any of its trials
/// `counted`.
fn without_rate(result: &SearchResult, counted: bool) -> (Option<String>, Option<String>) {
    match (result.published_rate, result.needs_s, result.ended) {
        (Some(_), ..) => (None, None),
        (None, ..) if !counted => (Some("only void trials".to_owned()), None),
        (None, Some(more_s), _) => {
            (Some(format!("budget too short: needs about {} more", seconds(more_s))), None)
        }
        (None, None, Ended::Void) => (Some(result.ended_in_words().to_owned()), None),
        (None, None, _) => (None, Some(result.in_words())),
    }
}

/// Tells the sweep's observer and the point's directory.
struct Both<'a>(&'a mut dyn SweepSpectator, RunDir);

impl Observer for Both<'_> {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.0.tick(tick);
        self.1.tick(tick);
    }
}

fn ran(
    asked: PointRequest,
    dir: &Path,
    spectator: &mut dyn SweepSpectator,
    stop: &Stop,
) -> Result<Option<Found>, SearchError> {
    let mut both = Both(spectator, RunDir::create(dir)?);
    let session = Session::open(&asked.load)?;
    let mut report: Report = session.run(asked.load, &mut both, stop)?;
    report.notes.extend(session.close());
    report.command = asked.command;
    let Both(_, dir) = both;
    dir.describe(&mut report);
    dir.finish(&report)?;
    if report.interrupted {
        return Ok(None);
    }
    Ok(Some(Found::of_run(report)))
}

#[cfg(test)]
mod tests;
