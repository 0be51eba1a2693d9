//! `highwater load burst`: a base rate, and regularly a multiple of it.

use clap::{Args, ValueEnum};
use highwater_loadgen::Arrival;

use super::flags::{BurstFlags, Kind, LoadFlags, Request};
use super::run::{ResultFlags, carry_out};
use crate::failure::Failure;

/// `highwater load burst`.
#[derive(Debug, Args)]
#[command(mut_arg("duration", |arg| arg.help("How long to measure [default: three times --every]")))]
pub struct BurstArgs {
    #[command(flatten)]
    load: LoadFlags,
    /// How records are spaced [default: constant]
    #[arg(long, value_enum, help_heading = "Arrivals")]
    arrival: Option<BurstSpacing>,
    #[command(flatten, next_help_heading = "Arrivals")]
    burst: BurstFlags,
    #[command(flatten, next_help_heading = "Results")]
    results: ResultFlags,
}

/// How records are spaced, in bursts and between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BurstSpacing {
    /// Evenly
    Constant,
    /// As independent producers behave
    Poisson,
}

impl From<BurstSpacing> for Arrival {
    fn from(spacing: BurstSpacing) -> Arrival {
        match spacing {
            BurstSpacing::Constant => Arrival::Constant,
            BurstSpacing::Poisson => Arrival::Poisson,
        }
    }
}

impl BurstArgs {
    /// What it asks of a run.
    pub fn request(&self) -> Result<Request, Failure> {
        self.load.request(Kind::Burst(self.arrival, &self.burst))
    }
}

/// Carries it out.
pub fn run(args: &BurstArgs) -> Result<(), Failure> {
    carry_out(args.request()?, &args.results)
}
