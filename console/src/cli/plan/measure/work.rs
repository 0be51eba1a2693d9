//! Carrying out the steps, with a server where they need one.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use highwater_loadgen::search::{self, Ended, SearchFile, TrialRecord};

use super::done::Done;
use super::steps::{Job, Step, Times};
use crate::cli::child::{Running, Server};
use crate::cli::load::shell_line;
use crate::failure::Failure;
use crate::human;
use crate::signals::Stop;

/// What follows the search is measured at this share of what it publishes, if more is asked for.
const OF_SAFE: f64 = 0.7;

/// What the server's figures are recorded in.
pub(super) const RECORDING: &str = "load.rec";

/// What a step that failed is told with.
const GOES_ON: &str = "the same command goes on where it was";

/// Exit code of a measurement that does not count.
const VOID: i32 = 5;
/// Exit code of a command that failed, and of a measurement whose answer is no.
const FAILED: i32 = 1;

pub(super) struct Worker<'a> {
    pub job: &'a Job,
    pub program: &'a Path,
    pub stop: &'a Stop,
    pub done: &'a mut Done,
}

impl Worker<'_> {
    /// Everything that needs a server. Its data is worth nothing afterwards.
    pub fn with_server(&mut self) -> Result<(), Failure> {
        let data = self.job.dir.join("data");
        let gone = |()| match fs::remove_dir_all(&data) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::doing(format!("cannot remove {}", data.display()), e))
            }
            _ => Ok(()),
        };
        gone(())?;
        // A search that goes on does so at the same address.
        let listen = self.done.address.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let words = self.job.serve(&listen);
        note!("{}", shell_line(&words));
        let more: Vec<&str> = words[4..].iter().map(String::as_str).collect();
        let server = Server::start(self.program, &data, &more, || self.stop.requested())?;
        self.done.at(&server.address)?;
        let all = self.against(&server.address);
        drop(server);
        all.and_then(|()| gone(()))
    }

    /// Everything but the probe, on the server at `target`.
    pub fn against(&mut self, target: &str) -> Result<(), Failure> {
        self.carry_out(&self.job.search(target))?;
        let dir = self.job.dir.join("search");
        let found = search::read_search(&dir).map_err(|e| Failure::doing("the search", e))?;
        let (rate, why) = goes_on_at(&found, self.job.wanted.rate);
        if let Some(why) = why {
            note!("{why}: what follows is measured at {}/s", human::count(rate));
        }
        for step in self.job.others(target, rate) {
            match step.recorded {
                true => self.recorded(&step, target)?,
                false => self.carry_out(&step)?,
            }
        }
        Ok(())
    }

    /// Runs a step unless it is done.
    pub fn carry_out(&mut self, step: &Step) -> Result<(), Failure> {
        if self.is_done(step) {
            return Ok(());
        }
        self.measure(step)?;
        self.done.add(step)
    }

    /// The same, and records the server at `target` meanwhile. Without the recording the step is not done.
    fn recorded(&mut self, step: &Step, target: &str) -> Result<(), Failure> {
        if self.is_done(step) {
            return Ok(());
        }
        let file = self.job.path(RECORDING);
        let words = ["record", "-t", target, "-o", &file].map(str::to_owned);
        let recorder = Running::start(self.program, &words, Stdio::null())?;
        self.measure(step)?;
        let status = recorder.stop()?;
        if !status.success() {
            let line = shell_line(&words);
            return Err(Failure::Failed(format!(
                "the recorder failed ({status}): highwater {line}; {GOES_ON}"
            )));
        }
        self.done.add(step)
    }

    /// Somebody who removes what a step left wants it again.
    fn is_done(&self, step: &Step) -> bool {
        let has = |name: &str| self.job.dir.join(name).exists();
        self.done.has(step) && has(step.leaves) && (!step.recorded || has(RECORDING))
    }

    /// Runs a step. A void measurement is one, and so is one whose answer is no: the plan says so.
    fn measure(&self, step: &Step) -> Result<(), Failure> {
        let path = self.job.dir.join(step.leaves);
        note!("{}", step.line());
        let partly = self.job.dir.join("unfinished");
        let stdout = if step.printed {
            fs::File::create(&partly)
                .map_err(|e| Failure::doing(format!("cannot write {}", partly.display()), e))?
                .into()
        } else {
            Stdio::null()
        };
        let status = Running::start(self.program, &step.words, stdout)?.wait(self.stop)?;
        if self.stop.requested() {
            return Err(Failure::Failed(format!("interrupted; {GOES_ON}")));
        }
        match status.code() {
            Some(0 | VOID) => {}
            Some(FAILED) if answered(&path) => {}
            _ => {
                return Err(Failure::Failed(format!(
                    "this step failed ({status}): {}; {GOES_ON}",
                    step.line()
                )));
            }
        }
        if step.printed {
            fs::rename(&partly, &path)
                .map_err(|e| Failure::doing(format!("cannot write {}", path.display()), e))?;
        }
        Ok(())
    }
}

/// Whether a command that ended with [`FAILED`] has measured to its end what was asked all the same: a goal that is out of
/// reach, a group that did not catch up. Records that are not as they were sent are no measurement.
fn answered(dir: &Path) -> bool {
    if let Ok(search) = search::read_search(dir) {
        return search.result.is_some();
    }
    if let Ok(sweep) = search::read_sweep(dir) {
        return sweep.points.iter().all(|point| point.done);
    }
    highwater_loadgen::read_run(dir).is_ok_and(|run| run.report.intact())
}

/// The rate at which everything else is measured if `demand` is asked for, and why it is not that, or has to be taken
/// without a safe one.
fn goes_on_at(found: &SearchFile, demand: f64) -> (f64, Option<String>) {
    let published = found.result.as_ref().and_then(|result| result.published_rate);
    let (most, why) = match (published, kept_up(found)) {
        (Some(safe), _) => {
            let (asked, rely_on) = (human::count(demand), human::count(safe));
            (safe, format!("{asked}/s are asked for and {rely_on}/s are safe"))
        }
        (None, Some(most)) => (most, unsafe_because(found)),
        (None, None) => (demand / OF_SAFE, unsafe_because(found)),
    };
    let rate = demand.min(most * OF_SAFE);
    (rate, (published.is_none() || rate < demand).then_some(why))
}

/// The highest rate of a trial that counts at which every goal was met and nothing piled up; if no trial met the goals, of
/// one at which nothing piled up.
fn kept_up(found: &SearchFile) -> Option<f64> {
    let counts = |trial: &&TrialRecord| trial.void_reason.is_none();
    let steady = found.trials.iter().filter(counts).filter(|t| t.kept_up(found.settings.stable));
    let steady: Vec<&TrialRecord> = steady.collect();
    let met = steady.iter().filter(|trial| trial.meets(&found.settings.goals) == Some(true));
    let highest = met.map(|trial| trial.rate).max_by(f64::total_cmp);
    highest.or_else(|| steady.iter().map(|trial| trial.rate).max_by(f64::total_cmp))
}

/// Why a search has no rate to rely on, and what would help.
fn unsafe_because(found: &SearchFile) -> String {
    let Some(result) = &found.result else { return "the search has no answer".to_owned() };
    let remedy = match (result.needs_s, result.ended) {
        (Some(more_s), _) => {
            let longer_s = Times::budget_for(found.settings.budget_s + more_s);
            let minutes = (longer_s / 60.0).ceil();
            format!("--budget {minutes}m and another directory have time for one")
        }
        (None, Ended::Void) => "end other work on this machine, or on a virtual one add --slo p99=100ms --late-bound 10ms \
            --steal-bound 15%"
            .to_owned(),
        (None, _) => "a wider --slo and another directory may have one".to_owned(),
    };
    format!("the search promises no rate ({}; {remedy})", result.in_words())
}
