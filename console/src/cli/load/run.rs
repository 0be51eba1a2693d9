//! `highwater load run`, and what all runs have in common: watched, reported, judged.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use highwater_loadgen::{Observer, RunDir, RunDirError, Stop, Tick};

use super::flags::{ArrivalFlags, Kind, LoadFlags, Request};
use super::lines::Lines;
use super::{echo, live, plan, refusal, verdict};
use crate::dashboard::{self, StyleArgs};
use crate::failure::{Failure, chain};
use crate::{output, signals};

/// `highwater load run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten, next_help_heading = "Arrivals")]
    arrival: ArrivalFlags,
    #[command(flatten, next_help_heading = "Results")]
    results: ResultFlags,
}

/// Where results go.
#[derive(Debug, Args)]
pub struct ResultFlags {
    /// Write the report as JSON; alone or with - on standard output, instead of the table
    #[arg(long, value_name = "FILE|-", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Keep everything in this directory: run.json, samples.jsonl, latency.hlog, report.md, report.html
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// What to show meanwhile [default: live on a terminal, otherwise lines]
    #[arg(long, value_enum)]
    view: Option<View>,
    #[command(flatten, next_help_heading = "The screen of --view live")]
    pub style: StyleArgs,
    /// Say what would be done and how long it would take, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What is shown while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// The console, on its Load screen
    Live,
    /// A line a second, on standard error
    Lines,
    /// Nothing
    None,
}

impl View {
    /// What to do if nothing was said: whoever sends our output elsewhere wants lines.
    fn fitting() -> View {
        let both = dashboard::possible() && std::io::stderr().is_terminal();
        if both { View::Live } else { View::Lines }
    }
}

impl ResultFlags {
    /// What to show meanwhile.
    pub fn view(&self) -> Result<View, Failure> {
        let view = self.view.unwrap_or_else(View::fitting);
        if view == View::Live && !dashboard::possible() {
            let what = "--view live needs a terminal; use --view lines";
            return Err(Failure::Usage(what.to_owned()));
        }
        Ok(view)
    }
}

impl RunArgs {
    /// What it asks of a run.
    pub fn request(&self) -> Result<Request, Failure> {
        self.load.request(Kind::Run(&self.arrival))
    }
}

/// Carries it out.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    carry_out(args.request()?, &args.results)
}

/// Any run.
pub fn carry_out(request: Request, results: &ResultFlags) -> Result<(), Failure> {
    if results.dry_run {
        return output::text(plan::text(&request)?);
    }
    let view = results.view()?;
    let stop = stop_on_signals()?;
    let words = echo::words(&request);
    let mut watch = Watch {
        lines: (view == View::Lines).then_some(Lines),
        dir: match &results.output {
            Some(path) => Some(RunDir::create(path).map_err(no_directory)?),
            None => None,
        },
    };
    note!("{}", echo::line(&words));
    let ran = match view {
        View::Live => live::run(&request, &results.style, &mut watch, &stop)?,
        View::Lines | View::None => {
            highwater_loadgen::run(request.options.clone(), &mut watch, &stop)
        }
    };
    let mut report = ran.map_err(refusal::failure)?;
    report.slo = request.slo.iter().map(|slo| slo.judge(&report)).collect();
    report.command = words;
    let kept = match watch.dir {
        Some(dir) => {
            dir.describe(&mut report);
            dir.finish(&report).map_err(|e| Failure::failed(chain(&e)))
        }
        None => Ok(()),
    };
    let told = tell(&report, results.json.as_deref());
    // What the run found goes before what became of its files.
    verdict::of(&report).inspect_err(|_| {
        for failure in [&kept, &told].into_iter().filter_map(|done| done.as_ref().err()) {
            // Said, but the exit code is the verdict's.
            let _ = failure.report();
        }
    })?;
    kept.and(told)
}

/// The first signal ends production, the second the wait for what is under way, the third the process.
pub fn stop_on_signals() -> Result<Stop, Failure> {
    let stop = Stop::default();
    let on_signal = stop.clone();
    signals::on_each(move || {
        let over = on_signal.level() == 2;
        on_signal.request();
        !over
    })?;
    Ok(stop)
}

/// Who looks on.
struct Watch {
    lines: Option<Lines>,
    dir: Option<RunDir>,
}

impl Observer for Watch {
    fn tick(&mut self, tick: &Tick<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.tick(tick);
        }
        if let Some(dir) = &mut self.dir {
            dir.tick(tick);
        }
    }
}

/// The report as text, as JSON, or both.
pub fn tell<T: serde::Serialize + std::fmt::Display>(
    report: &T,
    json: Option<&Path>,
) -> Result<(), Failure> {
    let Some(path) = json else { return output::text(report) };
    if path.as_os_str() == "-" {
        return output::json(report);
    }
    // First where it cannot fail.
    output::text(report)?;
    let doing = || format!("cannot write {}", path.display());
    let mut file = File::create(path).map_err(|e| Failure::doing(doing(), e))?;
    serde_json::to_writer_pretty(&mut file, report).map_err(|e| Failure::doing(doing(), e))?;
    writeln!(file).map_err(|e| Failure::doing(doing(), e))
}

/// A run directory that cannot be had: wrong usage if something else is there.
fn no_directory(error: RunDirError) -> Failure {
    let text = format!("--output: {}", chain(&error));
    match error {
        RunDirError::NotADirectory { .. }
        | RunDirError::NotEmpty { .. }
        | RunDirError::InUse { .. } => Failure::Usage(text),
        _ => Failure::Failed(text),
    }
}
