//! `highwater load sweep`: a search, or a run at one rate, at every point of a grid of settings.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, FromArgMatches};
use highwater_loadgen::Rate;
use highwater_loadgen::search::{
    self, AxisValues, PointRequest, Setting, SweepFile, SweepMode, SweepPoint, SweepRequest,
    SweepSpectator, about,
};

use super::echo::{self, Made};
use super::flags::{Kind, LoadFlags, Request};
use super::live;
use super::run::{ResultFlags, View, stop_on_signals, tell};
use super::search::{Lines, SearchFlags, failure, steady};
use super::typed::Typed;
use crate::failure::Failure;
use crate::{human, output};

/// `highwater load sweep`.
#[derive(Debug, Args)]
#[command(mut_arg("rate", |arg| arg.help("Run each point at this rate; without it, each point is a search that begins at 10k")))]
#[command(mut_arg("duration", |arg| arg.help("Measured window of each run [default: 10s], or of a search's trials")))]
#[command(mut_arg("output", |arg| arg.required(true).help("Keep everything in this directory: sweep.json, a directory for each point, report.md, report.html. A \
    sweep that was interrupted goes on there")))]
pub struct SweepArgs {
    /// What is varied, over all combinations; may be given several times. Names are those of the flags: shards, size, ack,
    /// producers, groups, batch, linger, inflight, ...; rate for runs
    #[arg(long, required = true, value_name = "NAME=VALUE,VALUE...")]
    vary: Vec<Vary>,
    #[command(flatten)]
    load: Typed<LoadFlags>,
    #[command(flatten, next_help_heading = "Search")]
    search: Typed<SearchFlags>,
    #[command(flatten, next_help_heading = "Results")]
    results: ResultFlags,
}

/// Flags that can be varied: what a target or a producer may be set to.
const VARIABLE: [&str; 18] = [
    "ack",
    "batch",
    "compression",
    "connections",
    "consumers",
    "cores",
    "engine-cores",
    "groups",
    "inflight",
    "key-distribution",
    "keys",
    "linger",
    "producers",
    "rate",
    "shards",
    "size",
    "streams",
    "workload",
];
/// More points than anybody waits for are a slip.
const MOST: u64 = 1_000;

/// `shards=1,2,4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vary(AxisValues);

/// Not that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaryError {
    /// No values.
    #[error("write NAME=VALUE,VALUE as shards=1,2,4")]
    Form,
    /// Not a flag that can be varied.
    #[error("{name:?} cannot be varied; these can: {}", VARIABLE.join(", "))]
    Name {
        /// What was typed.
        name: String,
    },
    /// Twice the same.
    #[error("{value:?} comes twice")]
    Twice {
        /// Which value.
        value: String,
    },
}

impl FromStr for Vary {
    type Err = VaryError;

    fn from_str(text: &str) -> Result<Vary, VaryError> {
        let (name, values) = text.split_once('=').ok_or(VaryError::Form)?;
        if !VARIABLE.contains(&name) {
            return Err(VaryError::Name { name: name.to_owned() });
        }
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if values.iter().any(String::is_empty) {
            return Err(VaryError::Form);
        }
        let twice = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value));
        if let Some((_, value)) = twice {
            return Err(VaryError::Twice { value: value.clone() });
        }
        Ok(Vary(AxisValues { name: name.to_owned(), values }))
    }
}

impl std::fmt::Display for Vary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.0.name, self.0.values.join(","))
    }
}

/// What a search needs for a point, unless it is said otherwise: half of a search's own budget is enough for a p99 to be
/// promised where nothing gives out.
const BUDGET: Duration = Duration::from_secs(8 * 60);

impl SweepArgs {
    /// Every point, checked.
    pub fn asked(&self) -> Result<(SweepRequest, Request), Failure> {
        let vary = self.axes()?;
        let runs = self.load.has_rate() || vary.iter().any(|axis| axis.name == "rate");
        let base = self.request(runs, None)?;
        let mode = if runs { self.of_runs(&base)? } else { self.of_searches(&base)? };
        let points = self.points(&vary, &mode, &base)?;
        let made = match &mode {
            SweepMode::Search { settings } => Made::BySearches(settings),
            SweepMode::Rate { .. } => Made::ByRuns,
        };
        let mut command = echo::command(made, &base);
        for vary in &self.vary {
            command.extend(["--vary".to_owned(), vary.to_string()]);
        }
        // Without it there is no sweep.
        if let Some(dir) = &self.results.output {
            command.extend(["-o".to_owned(), dir.display().to_string()]);
        }
        let request = SweepRequest {
            vary,
            seed: base.options.seed,
            load: base.options.clone(),
            points,
            mode,
            command,
            by_chance: self.load.by_chance(),
        };
        Ok((request, base))
    }

    /// What is varied; not more than anybody waits for.
    fn axes(&self) -> Result<Vec<AxisValues>, Failure> {
        let vary: Vec<AxisValues> = self.vary.iter().map(|vary| vary.0.clone()).collect();
        let names = || vary.iter().map(|axis| axis.name.as_str());
        if let Some((_, name)) =
            names().enumerate().find(|(at, name)| names().take(*at).any(|n| n == *name))
        {
            return Err(Failure::Usage(format!("--vary {name} is given twice")));
        }
        // Counted, not made: a few axes of many values have more points than fit in memory.
        let count = vary.iter().try_fold(1u64, |points, axis| {
            points.checked_mul(u64::try_from(axis.values.len()).ok()?)
        });
        match count {
            Some(..=MOST) => Ok(vary),
            Some(points) => {
                let points = human::grouped(points);
                Err(Failure::Usage(format!("--vary: {points} points; at most {MOST}")))
            }
            None => Err(Failure::Usage(format!("--vary: too many points; at most {MOST}"))),
        }
    }

    /// What all points have in common, or with the settings of one over it.
    fn request(&self, runs: bool, over: Option<&LoadFlags>) -> Result<Request, Failure> {
        let arrival = self.search.arrival();
        let request = self.load.request_with(Kind::Run(&arrival), over)?;
        Ok(if runs { request } else { steady(request) })
    }

    /// A run at each point.
    fn of_runs(&self, base: &Request) -> Result<SweepMode, Failure> {
        let slo = self.load.names().find(|flag| *flag == "--slo");
        // Runs have arrivals as well.
        let search = self.search.names().find(|flag| *flag != "--arrival");
        if let Some(flag) = slo.or(search) {
            let what = "is for searches; with a rate each point is a run at it";
            return Err(Failure::Usage(format!("{flag} {what}")));
        }
        let rate = match base.options.rate {
            Rate::PerSecond(rate) => Some(rate),
            Rate::Max => None,
        };
        Ok(SweepMode::Rate { rate, duration_s: base.options.duration.as_secs_f64() })
    }

    /// A search at each point.
    fn of_searches(&self, base: &Request) -> Result<SweepMode, Failure> {
        self.load.refuse_warmup()?;
        let settings = self.search.settings(&self.load, base, BUDGET)?;
        search::validate(&base.options, &settings).map_err(failure)?;
        Ok(SweepMode::Search { settings })
    }

    /// The grid, each point with all its options.
    fn points(
        &self,
        vary: &[AxisValues],
        mode: &SweepMode,
        base: &Request,
    ) -> Result<Vec<PointRequest>, Failure> {
        let point = |settings: Vec<Setting>| {
            let over = flags(&settings)?;
            let mut point = self.request(matches!(mode, SweepMode::Rate { .. }), Some(&over))?;
            point.options.stream.clone_from(&base.options.stream);
            point.options.seed = base.options.seed;
            let command = match mode {
                SweepMode::Search { settings } => {
                    search::validate(&point.options, settings).map_err(failure)?;
                    echo::command(Made::BySearch(settings), &point)
                }
                SweepMode::Rate { .. } => echo::words(&point),
            };
            Ok(PointRequest { settings, load: point.options, command })
        };
        search::grid(vary).into_iter().map(point).collect()
    }
}

/// The settings of a point as flags.
fn flags(settings: &[Setting]) -> Result<LoadFlags, Failure> {
    let parser = LoadFlags::augment_args(clap::Command::new("vary").no_binary_name(true));
    let words = settings.iter().map(|setting| format!("--{}={}", setting.name, setting.value));
    let matches = parser.try_get_matches_from(words).map_err(|e| {
        let said = e.to_string();
        // What is wrong and what would be right, without the advice to try --help.
        let lines = said.lines().map(str::trim).take_while(|line| !line.is_empty());
        let lines = lines.collect::<Vec<_>>().join(" ");
        Failure::Usage(format!("--vary: {}", lines.trim_start_matches("error: ")))
    })?;
    LoadFlags::from_arg_matches(&matches).map_err(|e| Failure::Usage(format!("--vary: {e}")))
}

/// Carries it out.
pub fn run(args: &SweepArgs) -> Result<(), Failure> {
    let (request, base) = args.asked()?;
    if args.results.dry_run {
        return output::text(plan(&request));
    }
    let Some(dir) = args.results.output.as_deref() else {
        return Err(Failure::Usage("--output: a sweep needs a directory".to_owned()));
    };
    let view = args.results.view()?;
    let stop = stop_on_signals()?;
    note!("{}", echo::line(&request.command));
    let found = match view {
        View::Live => {
            let plan = match &request.mode {
                SweepMode::Search { settings } => live::searching(&base, settings),
                SweepMode::Rate { .. } => live::plan(&base),
            };
            live::watch(plan.clone(), &base, &args.results.style, &stop, |screen| {
                search::sweep(&request, dir, &mut live::Shown::new(screen, plan), &stop)
            })?
        }
        View::Lines => search::sweep(&request, dir, &mut Lines, &stop),
        View::None => search::sweep(&request, dir, &mut (), &stop),
    };
    let file = found.map_err(failure)?;
    let told = tell(&file, args.results.json.as_deref());
    verdict(&file)?;
    told
}

/// What the exit code says.
fn verdict(file: &SweepFile) -> Result<(), Failure> {
    let mut damaged = file.points.iter().filter(|point| point.damaged);
    if let Some(first) = damaged.next() {
        let (turn, points) = (first.turn, human::plural(1 + damaged.count(), "point"));
        let what = first.void_reason.as_deref().unwrap_or("lost, doubled, reordered or damaged");
        return Err(Failure::Failed(format!(
            "records are not as they were sent at {points}; point {turn}: {what}"
        )));
    }
    let done = file.points.iter().filter(|point| point.done).count();
    if done < file.points.len() {
        let points = human::plural(file.points.len(), "point");
        let what =
            format!("interrupted after {done} of {points}; the same command goes on where it was");
        return Err(Failure::Failed(what));
    }
    let none =
        file.points.iter().all(|point| point.void_reason.is_some() || point.missed.is_some());
    match (none, file.points.iter().find_map(|point| point.missed.as_deref())) {
        (false, _) => Ok(()),
        (true, None) => Err(Failure::Unmeasured("no point has a valid measurement".to_owned())),
        (true, Some(why)) => Err(Failure::Failed(format!(
            "no point meets the goals; the first that does not: {why}"
        ))),
    }
}

/// `--dry-run`.
fn plan(request: &SweepRequest) -> String {
    let points = request.points.len();
    let each = match &request.mode {
        SweepMode::Search { settings } => settings.budget_s,
        SweepMode::Rate { duration_s, .. } => duration_s + request.load.warmup.most().as_secs_f64(),
    };
    let total = human::duration(Duration::from_secs_f64((each * points as f64).min(1e9)));
    let mut text = format!("{}\n\n", echo::line(&request.command));
    for axis in &request.vary {
        text += &format!("{:<18}{}\n", axis.name, axis.values.join(", "));
    }
    let each = human::duration(Duration::from_secs_f64(each));
    text += &format!("{:<18}{}, at most {each} each, {total} in all\n", "points", points);
    text + "\nDry run: nothing was sent.\n"
}

impl SweepSpectator for Lines {
    fn point(&mut self, point: &SweepPoint, of: usize) {
        note!("point {} of {of}: {}", point.turn, words(point));
    }

    fn point_ended(&mut self, point: &SweepPoint) {
        let rate = point.rate.map_or_else(String::new, |rate| format!("{}/s", about(rate.value)));
        let why = match (&point.void_reason, &point.missed) {
            (Some(why), _) => format!("void: {why}"),
            (None, Some(why)) => why.clone(),
            (None, None) => String::new(),
        };
        let words = [rate, why].into_iter().filter(|words| !words.is_empty());
        note!("point {}: {}", point.turn, words.collect::<Vec<_>>().join("; "));
    }
}

impl SweepSpectator for live::Shown {
    fn point(&mut self, point: &SweepPoint, of: usize) {
        self.begin(format!("point {} of {of}: {}", point.turn, words(point)));
    }

    fn point_ended(&mut self, _: &SweepPoint) {}
}

/// `shards 4, size 1KiB`.
fn words(point: &SweepPoint) -> String {
    let settings = point.settings.iter();
    let words: Vec<String> =
        settings.map(|setting| format!("{} {}", setting.name, setting.value)).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use highwater_loadgen::search::SWEEP_SCHEMA;
    use highwater_loadgen::{Distribution, Environment, LoadOptions};

    use super::*;

    #[test]
    fn axes() {
        let vary = |text: &str| text.parse::<Vary>();
        assert_eq!(vary("shards=1,2,4").unwrap().to_string(), "shards=1,2,4");
        for (wrong, says) in [
            ("shards", "NAME=VALUE"),
            ("shards=", "NAME=VALUE"),
            ("shards=1,,2", "NAME=VALUE"),
            ("target=a,b", "\"target\" cannot be varied"),
            ("shards=1,1", "\"1\" comes twice"),
        ] {
            let said = vary(wrong).unwrap_err().to_string();
            assert!(said.contains(says), "{wrong}: {said}");
        }
    }

    fn point() -> SweepPoint {
        SweepPoint {
            turn: 1,
            settings: vec![],
            dir: "point-001".into(),
            done: true,
            void_reason: None,
            missed: None,
            damaged: false,
            shards: 1,
            groups: 1,
            ack: "durable".into(),
            mean_payload_bytes: 1024.0,
            rate: None,
            published_rate: None,
            bytes_per_s: None,
            response: Distribution::default(),
            propagation: Distribution::default(),
        }
    }

    fn verdict_on(points: Vec<SweepPoint>) -> Result<(), Failure> {
        verdict(&SweepFile {
            schema: SWEEP_SCHEMA.into(),
            command: vec![],
            target: "h:1".into(),
            server: "0.1.0".into(),
            started_ns: 1,
            seed: 1,
            vary: vec![],
            mode: SweepMode::Rate { rate: None, duration_s: 1.0 },
            load: LoadOptions::default(),
            environment: Environment::default(),
            lints: vec![],
            points,
        })
    }

    /// What a single run does with exit code 1 a sweep of runs does as well, however many points are sound.
    #[test]
    fn records_lost_at_one_point_fail_the_sweep() {
        let why = "lost 1 duplicated 0 reordered 0 corrupted 0, of 600 acknowledged";
        let lossy = SweepPoint { turn: 2, damaged: true, void_reason: Some(why.into()), ..point() };
        for points in [vec![point(), lossy.clone()], vec![lossy.clone()]] {
            let said = verdict_on(points);
            assert!(
                matches!(&said, Err(Failure::Failed(what)) if what.contains("point 2: lost 1 ")),
                "{said:?}"
            );
        }
    }

    /// A measured no is one: only where nothing was measured nothing can be said.
    #[test]
    fn goals_missed_at_every_point_are_a_no_and_void_points_are_none() {
        let point = |(void, missed): &(bool, bool)| SweepPoint {
            void_reason: void.then(|| "only void trials".to_owned()),
            missed: missed.then(|| "response.p99 <= 1 ms is missed at every rate tried".to_owned()),
            ..point()
        };
        let said = |points: &[(bool, bool)]| verdict_on(points.iter().map(point).collect());
        assert!(said(&[(false, false), (true, false), (false, true)]).is_ok());
        assert!(matches!(said(&[(true, false), (true, false)]), Err(Failure::Unmeasured(_))));
        let missed = said(&[(true, false), (false, true)]);
        assert!(
            matches!(&missed, Err(Failure::Failed(why)) if why.contains("missed at every rate"))
        );
    }

    #[test]
    fn a_value_that_is_none_is_refused_with_its_flag() {
        let setting = |name: &str, value: &str| Setting { name: name.into(), value: value.into() };
        assert!(flags(&[setting("shards", "4"), setting("size", "1KiB")]).is_ok());
        let error = flags(&[setting("ack", "never")]).err().unwrap().to_string();
        assert!(error.contains("--vary: invalid value 'never' for '--ack"), "{error}");
    }
}
