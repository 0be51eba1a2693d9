//! `highwater load sweep`: a search, or a run at one rate, at every point of a grid of settings.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, FromArgMatches};
use highwater_loadgen::search::{
    self, AxisValues, Setting, SweepFile, SweepMode, SweepPoint, SweepRequest, SweepSpectator,
    about,
};
use highwater_loadgen::{LoadOptions, Rate};

use super::flags::{Kind, LoadFlags, Request};
use super::run::{ResultFlags, View, stop_on_signals, tell};
use super::search::{Lines, SearchFlags, failure, steady};
use super::{echo, live};
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
    load: LoadFlags,
    #[command(flatten, next_help_heading = "Search")]
    search: SearchFlags,
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
const MOST: usize = 1_000;

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

impl SweepArgs {
    /// Every point, checked.
    pub fn asked(&self) -> Result<(SweepRequest, Request), Failure> {
        let vary: Vec<AxisValues> = self.vary.iter().map(|vary| vary.0.clone()).collect();
        let names = || vary.iter().map(|axis| axis.name.as_str());
        if let Some(name) =
            names().enumerate().find(|(at, name)| names().take(*at).any(|n| n == *name))
        {
            return Err(Failure::Usage(format!("--vary {} is given twice", name.1)));
        }
        let runs = self.load.has_rate() || names().any(|name| name == "rate");
        let arrival = self.search.arrival();
        let kind = Kind::Run(&arrival);
        let base = self.load.request(kind)?;
        let base = if runs { base } else { steady(base) };
        let mode = if runs {
            let rate = match base.options.rate {
                Rate::PerSecond(rate) => Some(rate),
                Rate::Max => None,
            };
            SweepMode::Rate { rate, duration_s: base.options.duration.as_secs_f64() }
        } else {
            self.load.refuse_warmup()?;
            // Half of it is enough for a p99 to be promised where nothing gives out.
            let budget = Duration::from_secs(8 * 60);
            SweepMode::Search { settings: self.search.settings(&self.load, &base, budget)? }
        };
        let grid = search::grid(&vary);
        if grid.len() > MOST {
            let points = human::grouped(grid.len() as u64);
            return Err(Failure::Usage(format!("--vary: {points} points; at most {MOST}")));
        }
        let points = grid.into_iter().map(|settings| {
            let over = flags(&settings)?;
            let point = self.load.request_with(kind, Some(&over))?;
            let point = if runs { point } else { steady(point) };
            let (stream, seed) = (base.options.stream.clone(), base.options.seed);
            Ok((settings, LoadOptions { stream, seed, ..point.options }))
        });
        let points = points.collect::<Result<Vec<_>, Failure>>()?;
        let mut command = match &mode {
            SweepMode::Search { settings } => self.search.words("sweep", &base, settings),
            SweepMode::Rate { .. } => {
                let mut words = echo::words(&base);
                if let Some(word) = words.get_mut(2) {
                    *word = "sweep".to_owned();
                }
                words
            }
        };
        if matches!(mode, SweepMode::Search { .. })
            && let Some(at) = command.iter().position(|word| word == "-r")
        {
            // With a rate it would be runs.
            command.drain(at..at + 2);
        }
        for vary in &self.vary {
            command.extend(["--vary".to_owned(), vary.to_string()]);
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
    use highwater_loadgen::{Distribution, Environment};

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

    /// A measured no is one: only where nothing was measured nothing can be said.
    #[test]
    fn goals_missed_at_every_point_are_a_no_and_void_points_are_none() {
        let point = |void: bool, missed: bool| SweepPoint {
            turn: 1,
            settings: vec![],
            dir: "point-001".into(),
            done: true,
            void_reason: void.then(|| "only void trials".to_owned()),
            missed: missed.then(|| "response.p99 <= 1 ms is missed at every rate tried".to_owned()),
            shards: 1,
            groups: 1,
            ack: "durable".into(),
            mean_payload_bytes: 1024.0,
            rate: None,
            published_rate: None,
            bytes_per_s: None,
            response: Distribution::default(),
            propagation: Distribution::default(),
        };
        let said = |points: &[(bool, bool)]| {
            let file = SweepFile {
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
                points: points.iter().map(|(void, missed)| point(*void, *missed)).collect(),
            };
            verdict(&file)
        };
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
