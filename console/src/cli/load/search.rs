//! `highwater load search`: the highest rate the target sustains.

use std::time::Duration;

use clap::Args;
use highwater_loadgen::schedule::Profile;
use highwater_loadgen::search::{
    self, Ended, Goal, SearchError, SearchFile, SearchRequest, SearchResult, SearchSettings,
    Spectator, Step, StoreError, TrialRecord, about,
};
use highwater_loadgen::{Observer, Rate, Tick};

use super::burst::BurstSpacing;
use super::echo::{self, Made};
use super::flags::{ArrivalFlags, Kind, LoadFlags, Request};
use super::run::{ResultFlags, View, stop_on_signals, tell};
use super::{live, refusal};
use crate::failure::{Failure, chain};
use crate::{human, output, units};

/// `highwater load search`.
#[derive(Debug, Args)]
#[command(mut_arg("rate", |arg| arg.value_name("RATE").help("Rate of the first trial; it goes on from there [default: 10k]")))]
#[command(mut_arg("duration", |arg| arg.help("Measured window of a trial [default: a thirtieth of --budget, 4s to 30s]")))]
#[command(mut_arg("warmup", |arg| arg.hide(true)))]
#[command(mut_arg("slo", |arg| arg.help("A goal: p50 to p99.99 of response, or of another latency (propagation.p99=20ms). Several are found from the \
    same trials; without any, only --stable is a bound")))]
#[command(mut_arg("output", |arg| arg.help("Keep everything in this directory: search.json, a run directory for each trial, report.md, report.html. A \
    search that was interrupted goes on there")))]
pub struct SearchArgs {
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten, next_help_heading = "Search")]
    search: SearchFlags,
    #[command(flatten, next_help_heading = "Results")]
    results: ResultFlags,
}

/// What is searched.
#[derive(Debug, Args)]
pub struct SearchFlags {
    /// What waits may grow by each second, as a share of the offered rate; more is not stable
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = units::share)]
    stable: f64,
    /// Time for everything: warm-up, trials, draining and the soak at the end [default: 15m; sweep: 8m a point]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    budget: Option<Duration>,
    /// Half the width of the interval at which it is enough, as a share of the rate
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = units::share)]
    precision: f64,
    /// No trial goes beyond this [default: no bound]
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_hyphen_values = true)]
    max_rate: Option<units::Rate>,
    /// How records are spaced [default: constant]
    #[arg(long, value_enum)]
    arrival: Option<BurstSpacing>,
}

/// Trials of a search: between these, unless it is said how long.
const TRIAL: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(30));
/// Trials a budget should have room for.
const TRIALS: u32 = 30;
/// No trial is longer than this part of the budget.
const LONGEST: u32 = 10;
/// The highest rate the generator knows.
pub const MAX_RATE: f64 = 1e9;

/// A search that was asked for and can be.
pub struct Asked {
    pub request: SearchRequest,
    pub base: Request,
}

impl SearchFlags {
    /// The flags a run has for its arrivals.
    pub fn arrival(&self) -> ArrivalFlags {
        self.arrival.map(ArrivalFlags::spaced).unwrap_or_default()
    }

    /// What a search of `base` comes to.
    pub fn settings(
        &self,
        load: &LoadFlags,
        base: &Request,
        budget: Duration,
    ) -> Result<SearchSettings, Failure> {
        let goal = |slo: &super::slo::Slo| {
            let why = || format!("--slo {slo}: a search needs a percentile, p50 to p99.99");
            slo.goal().ok_or_else(|| Failure::Usage(why()))
        };
        let goals = base.slo.iter().map(goal).collect::<Result<Vec<Goal>, _>>()?;
        let Rate::PerSecond(start_rate) = base.options.rate else {
            let what = "--rate max: a search finds the highest rate itself; give the rate of the first trial";
            return Err(Failure::Usage(what.to_owned()));
        };
        let max_rate = match self.max_rate {
            None | Some(units::Rate::Max) => MAX_RATE,
            Some(units::Rate::PerSecond(rate)) => rate,
        };
        let budget = self.budget.unwrap_or(budget);
        let fitting = (budget / TRIALS).clamp(TRIAL.0, TRIAL.1).min(budget / LONGEST);
        let trial = load.duration().unwrap_or(fitting);
        Ok(SearchSettings {
            goals,
            stable: self.stable,
            budget_s: budget.as_secs_f64(),
            precision: self.precision,
            // As it is echoed: nobody types nanoseconds. Never more than there is room for.
            trial_s: trial.as_millis() as f64 / 1e3,
            start_rate: start_rate.min(max_rate),
            max_rate,
            seed: base.options.seed,
        })
    }
}

/// A steady rate, whatever the workload usually does: in bursts no rate is *the* rate.
pub fn steady(mut base: Request) -> Request {
    if base.options.profile != Profile::Flat {
        note!("a search offers a steady rate: the bursts of this workload are left out");
        base.options.profile = Profile::Flat;
    }
    base
}

impl SearchArgs {
    /// What it asks.
    pub fn asked(&self) -> Result<Asked, Failure> {
        self.load.refuse_warmup()?;
        let arrival = self.search.arrival();
        let base = steady(self.load.request(Kind::Run(&arrival))?);
        let budget = Duration::from_secs(15 * 60);
        let settings = self.search.settings(&self.load, &base, budget)?;
        let request = SearchRequest {
            load: base.options.clone(),
            command: echo::command(Made::BySearch(&settings), &base),
            settings,
            by_chance: self.load.by_chance(),
        };
        request.validate().map_err(failure)?;
        Ok(Asked { request, base })
    }
}

/// Carries it out.
pub fn run(args: &SearchArgs) -> Result<(), Failure> {
    let Asked { request, base } = args.asked()?;
    if args.results.dry_run {
        return output::text(plan(&request));
    }
    let view = args.results.view()?;
    let stop = stop_on_signals()?;
    let dir = args.results.output.as_deref();
    // Of one that goes on it is what it began with that counts: its stream and its seed.
    match dir.map(|dir| search::kept(&request, dir)).transpose().map_err(failure)?.flatten() {
        Some(before) => {
            let trials = human::plural(before.trials.len(), "trial");
            let what = match &before.result {
                Some(_) => format!("is done, with {trials}"),
                None => format!("goes on after {trials}"),
            };
            note!("{what}: {}", echo::line(&before.command));
        }
        None => note!("{}", echo::line(&request.command)),
    }
    let found = match view {
        View::Live => {
            let plan = live::searching(&base, &request.settings);
            live::watch(plan.clone(), &base, &args.results.style, &stop, |screen| {
                search::search(&request, dir, &mut live::Shown::new(screen, plan), &stop)
            })?
        }
        View::Lines => search::search(&request, dir, &mut Lines, &stop),
        View::None => search::search(&request, dir, &mut (), &stop),
    };
    let file = found.map_err(failure)?;
    let told = tell(&file, args.results.json.as_deref());
    // What was found goes before what became of the output.
    verdict(&file, args.results.output.is_some())?;
    told
}

/// What the exit code says.
fn verdict(file: &SearchFile, kept: bool) -> Result<(), Failure> {
    let Some(result) = &file.result else {
        let more = if kept { "; the same command goes on where it was" } else { "" };
        let trials = human::plural(file.trials.len(), "trial");
        return Err(Failure::Failed(format!("interrupted after {trials}{more}")));
    };
    if result.published_rate.is_some() {
        return Ok(());
    }
    if result.needs_s.is_some() {
        return Err(Failure::Unmeasured(result.in_words()));
    }
    let last = file.trials.iter().rev().find_map(|trial| trial.void_reason.as_deref());
    match (result.ended, last) {
        (Ended::Void, Some(why)) => Err(Failure::Unmeasured(format!(
            "only void trials; the last: {why} (on a shared machine: a wider --slo, --late-bound, --steal-bound)"
        ))),
        _ => Err(Failure::Failed(result.in_words())),
    }
}

/// A search that could not be.
pub fn failure(error: SearchError) -> Failure {
    match error {
        SearchError::Load(error) => refusal::failure(error),
        SearchError::Setting { field, .. } => Failure::Usage(format!("--{field}: {error}")),
        SearchError::Store(
            StoreError::Differs { .. }
            | StoreError::NotADirectory { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::InUse { .. },
        ) => Failure::Usage(format!("--output: {}", chain(&error))),
        error => Failure::Failed(chain(&error)),
    }
}

/// `--dry-run`.
fn plan(request: &SearchRequest) -> String {
    let s = &request.settings;
    let span = |s: f64| human::duration(Duration::from_secs_f64(s));
    let goals: Vec<String> = s
        .goals
        .iter()
        .map(|goal| format!("{} within {}", goal.of, human::nanos((goal.bound_us * 1e3) as u64)))
        .collect();
    let mut text = format!("{}\n\n", echo::line(&request.command));
    let mut row = |name: &str, value: String| text += &format!("{name:<10}{value}\n");
    row("target", request.load.target.clone());
    row("goals", if goals.is_empty() { "none but stability".into() } else { goals.join(", ") });
    row("stable", format!("what waits grows by at most {:.2} % of the rate", s.stable * 100.0));
    row(
        "trials",
        format!("{} measured each, from {}/s on", span(s.trial_s), human::count(s.start_rate)),
    );
    row(
        "time",
        format!("at most {}, or until known to {:.0} %", span(s.budget_s), s.precision * 100.0),
    );
    text + "\nDry run: nothing was sent.\n"
}

/// A line when a trial begins, and one when it is over.
pub struct Lines;

impl Observer for Lines {
    fn tick(&mut self, _: &Tick<'_>) {}
}

impl Spectator for Lines {
    fn begins(&mut self, number: u32, step: &Step, _: &SearchSettings, _: &SearchResult) {
        let stage = format!("{:?}", step.stage).to_lowercase();
        note!("trial {number:>3} {stage:<8} {:>9}/s for {:.0} s", about(step.rate), step.seconds);
    }

    fn ended(&mut self, trial: &TrialRecord, so_far: &SearchResult, left_s: f64) {
        note!("          {}", line(trial, so_far, left_s));
    }
}

/// What a trial came to, and what is believed now.
fn line(trial: &TrialRecord, so_far: &SearchResult, left_s: f64) -> String {
    let left = human::duration(Duration::from_secs_f64(left_s.clamp(0.0, 1e9)));
    if let Some(why) = &trial.void_reason {
        return format!("void: {why}; {left} left");
    }
    let p99 = human::nanos((trial.response.p99 * 1e3) as u64);
    let over =
        (0..).map_while(|goal| trial.share_over(goal)).take(so_far.goals.len().saturating_sub(1));
    let over: Vec<String> = over.map(|share| format!("{:.2} %", share * 100.0)).collect();
    let over = if over.is_empty() { String::new() } else { format!("over {}, ", over.join(", ")) };
    let growth = trial.backlog.map_or_else(String::new, |backlog| {
        // Rounded first: adding zero takes the sign of a zero.
        format!(", backlog {:+.1} %/s", (backlog.growth * 1e3).round() / 10.0 + 0.0)
    });
    let belief = so_far.estimate.map_or_else(String::new, |e| {
        format!("; about {}/s [{}, {}]", about(e.value), about(e.low), about(e.high))
    });
    format!("{over}p99 {p99}{growth}{belief}; {left} left")
}
