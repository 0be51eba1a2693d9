//! The highwater executable: server, client commands, load generator and the terminal dashboard.

#[macro_use]
mod output;

mod cli;
mod config;
mod dashboard;
mod failure;
mod human;
mod input;
mod policy;
mod signals;
mod units;
mod when;

use std::process::ExitCode;

use cli::Command;
use config::Settings;
use failure::Failure;

/// Exit codes: 0 success, 1 the thing asked for failed, 2 wrong usage (clap's as well), 5 no valid measurement.
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<(), Failure> {
    let typed: Vec<_> = std::env::args_os().collect();
    let settings = Settings::load(&typed)?;
    match settings.parse(&typed)?.command {
        Command::Serve(args) => cli::serve::run(args),
        Command::Stream(args) => cli::stream::run(args),
        Command::Group(args) => cli::group::run(args),
        Command::Dlq(args) => cli::dlq::run(args),
        Command::Quota(args) => cli::quota::run(args),
        Command::Put(args) => cli::put::run(args),
        Command::Tail(args) => cli::tail::run(args),
        Command::Replay(args) => cli::replay::run(args),
        Command::Load(args) => cli::load::run(args),
        Command::Plan(args) => cli::plan::run(&args),
        Command::Doctor(args) => cli::doctor::run(&args),
        Command::Probe(args) => cli::probe::run(&args),
        Command::Top(args) => cli::top::run(&args),
        Command::Record(args) => cli::record::run(&args),
        Command::Demo(args) => cli::demo::run(args),
        Command::Inspect(args) => cli::inspect::run(args),
        Command::Config(args) => cli::config::run(&args, &settings),
        Command::Completions(args) => cli::config::completions(&args),
        Command::Man(args) => cli::config::man(&args),
    }
}
