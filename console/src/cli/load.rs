//! `highwater load`: load, measured; and what was measured, reported and compared.

mod abba;
mod backlog;
mod burst;
mod check;
mod compare;
mod echo;
mod file;
mod flags;
mod lines;
mod live;
mod plan;
mod refusal;
mod report;
mod run;
mod search;
mod slo;
mod sweep;
mod trace;
mod typed;
mod verdict;
mod words;

use clap::{Args, Subcommand};

use crate::failure::Failure;

pub use echo::line as shell_line;
#[cfg(test)]
pub use echo::of_options as words_of;
pub use lines::line;
pub use refusal::failure;
pub use slo::Slo;

/// `highwater load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(subcommand)]
    command: LoadCommand,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Offer load at a rate, measure it, and check that everything arrives once and in order
    Run(Box<run::RunArgs>),
    /// The same with regular bursts: what they cost, and how soon they are over
    Burst(Box<burst::BurstArgs>),
    /// Keep a consumer group away for a while: how fast it catches up, and at whose cost
    Backlog(Box<backlog::BacklogArgs>),
    /// Find the highest rate it sustains under goals, with an interval, and one that can be relied on
    Search(Box<search::SearchArgs>),
    /// A search, or a run, at every point of a grid of settings: what each of them is worth
    Sweep(Box<sweep::SweepArgs>),
    /// Try this generator alone: whether it can do twice the rate
    Check(Box<check::CheckArgs>),
    /// Write the reports of a run directory again
    Report(report::ReportArgs),
    /// Two runs side by side, or two builds in turn: is the second worse? Exit codes: 0 no, 3 yes, 4 cannot tell
    Compare(Box<compare::CompareArgs>),
}

/// Carries it out.
pub fn run(args: LoadArgs) -> Result<(), Failure> {
    match args.command {
        LoadCommand::Run(args) => run::run(&args),
        LoadCommand::Burst(args) => burst::run(&args),
        LoadCommand::Backlog(args) => backlog::run(&args),
        LoadCommand::Search(args) => search::run(&args),
        LoadCommand::Sweep(args) => sweep::run(&args),
        LoadCommand::Check(args) => check::run(&args),
        LoadCommand::Report(args) => report::run(&args),
        LoadCommand::Compare(args) => compare::run(&args),
    }
}

#[cfg(test)]
impl LoadArgs {
    /// Whether what was typed can be carried out.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.command {
            LoadCommand::Search(args) => args.asked().map(drop),
            LoadCommand::Sweep(args) => args.asked().map(drop),
            command => command.request().map(drop),
        }
    }
}

#[cfg(test)]
impl LoadCommand {
    /// What it asks of a run.
    fn request(&self) -> Result<flags::Request, Failure> {
        match self {
            LoadCommand::Run(args) => args.request(),
            LoadCommand::Burst(args) => args.request(),
            LoadCommand::Backlog(args) => args.request(),
            _ => Err(Failure::Failed("no run".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
