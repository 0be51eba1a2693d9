//! `highwater plan --measure DIR`: carries out on this machine what a plan needs, one command after the other, each of
//! which can be typed as well: a probe, a server, a search against it, an outage, and the sweeps. What is done is noted
//! in `DIR/done`, so that the same command goes on where it was interrupted.

mod done;
mod steps;
#[cfg(test)]
mod tests;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use self::done::Done;
use self::steps::{BUDGET_S, Job, Places, Times};
use self::work::{RECORDING, Worker};
use crate::cli::load::{Slo, shell_line};
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{output, units};

/// What `--measure` needs to know besides what is asked of the machine.
#[derive(Debug, Args)]
pub struct MeasureFlags {
    /// Measure first, on this machine: probe the device of DIR, serve from it, search for the rate, let a group stay
    /// away, sweep. Everything is kept in DIR, the plan in DIR/plan. Goes on where it was interrupted
    #[arg(long, value_name = "DIR", conflicts_with_all = ["runs", "probe"], requires = "demand")]
    pub measure: Option<PathBuf>,
    /// With --measure: what the rate has to meet [default: p99=10ms]
    #[arg(long, value_name = "p99=10ms", requires = "measure")]
    slo: Vec<Slo>,
    /// With --measure: time for all of it, more than half of which is the search's [default: 14m]
    #[arg(long, value_name = "DURATION", value_parser = units::duration, requires = "measure")]
    budget: Option<Duration>,
    /// With --measure: how late the generator may be at p99 [default: 1ms, or a tenth of the tightest --slo where that
    /// is less]
    #[arg(long, value_name = "DURATION", value_parser = units::duration, requires = "measure")]
    late_bound: Option<Duration>,
    /// With --measure: how much of the CPU time the hypervisor may give to others [default: 2%]
    #[arg(long, value_name = "PERCENT", value_parser = units::share, requires = "measure")]
    steal_bound: Option<f64>,
    /// With --measure: only say what would be run
    #[arg(long, requires = "measure")]
    pub dry_run: bool,
}

/// What is measured for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Records a second on average.
    pub rate: f64,
    /// Payload bytes of a record.
    pub record_bytes: Option<u64>,
    /// Groups that read everything.
    pub groups: u32,
}

/// What a plan is then made from.
#[derive(Debug)]
pub struct Measured {
    /// Directories and recordings.
    pub runs: Vec<PathBuf>,
    /// The probe.
    pub probe: PathBuf,
}

/// The least and the most of a budget, seconds.
const LEAST_S: f64 = 60.0;
const MOST_S: f64 = 12.0 * 3600.0;
/// Where what is done is noted.
const DONE: &str = "done";

impl MeasureFlags {
    fn job(&self, dir: &Path, wanted: Wanted) -> Result<Job, Failure> {
        let budget_s = self.budget.map_or(BUDGET_S, |budget| budget.as_secs_f64());
        if !(LEAST_S..=MOST_S).contains(&budget_s) {
            return Err(Failure::Usage(format!(
                "--budget is {budget_s} s; it must be {LEAST_S} to {MOST_S} s"
            )));
        }
        let slo = self.slo.iter().map(ToString::to_string).collect::<Vec<_>>();
        let late =
            self.late_bound.map(|late| ["--late-bound".into(), format!("{}us", late.as_micros())]);
        let steal = self.steal_bound.map(|share| ["--steal-bound".into(), format!("{share}")]);
        Ok(Job {
            dir: dir.to_owned(),
            wanted,
            slo: if slo.is_empty() { vec!["p99=10ms".to_owned()] } else { slo },
            bounds: late.into_iter().chain(steal).flatten().collect(),
            times: Times::of(budget_s),
            places: Places::of(&usable_cpus()?),
        })
    }

    /// `--dry-run`.
    pub fn print(&self, dir: &Path, wanted: Wanted) -> Result<(), Failure> {
        let job = self.job(dir, wanted)?;
        output::line(job.probe().line())?;
        output::line(shell_line(&job.serve("127.0.0.1:0")))?;
        for step in
            std::iter::once(job.search("HOST:PORT")).chain(job.others("HOST:PORT", wanted.rate))
        {
            output::line(step.line())?;
        }
        output::line("\nDry run: nothing was measured.")
    }

    /// Carries out what is not done yet.
    pub fn run(&self, dir: &Path, wanted: Wanted) -> Result<Measured, Failure> {
        let job = self.job(dir, wanted)?;
        let stop = Stop::on_signals()?;
        let doing = |what: &str| format!("cannot {what} {}", dir.display());
        fs::create_dir_all(dir).map_err(|e| Failure::doing(doing("make"), e))?;
        let mut done = Done::open(&dir.join(DONE))?;
        let program = std::env::current_exe().map_err(|e| Failure::doing("this program", e))?;
        let mut worker = Worker { job: &job, program: &program, stop: &stop, done: &mut done };
        worker.carry_out(&job.probe())?;
        worker.with_server()?;
        let mut runs: Vec<PathBuf> =
            ["search", "steady", "backlog", "durability", "batches", "shards"]
                .map(|name| dir.join(name))
                .to_vec();
        runs.push(dir.join(RECORDING));
        Ok(Measured { runs, probe: dir.join("probe.json") })
    }
}

#[cfg(target_os = "linux")]
fn usable_cpus() -> Result<Vec<usize>, Failure> {
    highwater_ring::usable_cpus().map_err(|e| Failure::doing("cannot serve", e))
}

#[cfg(not(target_os = "linux"))]
fn usable_cpus() -> Result<Vec<usize>, Failure> {
    Err(Failure::Failed("--measure starts a server, which needs Linux".to_owned()))
}
