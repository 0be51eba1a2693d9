//! `highwater demo`: a server, three small workloads with their readers, and the console in one process.

#[cfg(target_os = "linux")]
mod acts;
#[cfg(target_os = "linux")]
mod readers;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::dashboard::LookArgs;
use crate::failure::Failure;
use crate::units::{self, Rate};

/// `highwater demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the data goes, and stays [default: a temporary directory below the current one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// When to stop [default: with a terminal on q, without one after 10s]
    #[arg(short, long, value_parser = units::duration)]
    duration: Option<Duration>,
    /// Records a second of the steady stream, or max to saturate; the others follow it
    #[arg(short, long, value_name = "RATE|max", default_value = "20k", value_parser = units::rate)]
    #[arg(allow_hyphen_values = true)]
    rate: Rate,
    /// Payload of its records [default: page views as JSON, of about 200 bytes]
    #[arg(long, value_name = "BYTES", value_parser = units::record_size)]
    size: Option<u64>,
    /// Its shards
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: u32,
    #[command(flatten)]
    look: LookArgs,
}

/// Carries it out.
#[cfg(target_os = "linux")]
pub fn run(args: DemoArgs) -> Result<(), Failure> {
    stage::run(&args)
}

/// Carries it out elsewhere.
#[cfg(not(target_os = "linux"))]
pub fn run(_: DemoArgs) -> Result<(), Failure> {
    let what = "the demo has a server in it, which needs Linux (O_DIRECT and io_uring)";
    Err(Failure::Failed(what.to_owned()))
}
