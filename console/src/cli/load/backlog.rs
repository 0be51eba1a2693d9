//! `highwater load backlog`: consumer groups stay away for a while, and come back while producers go on.

use std::time::Duration;

use clap::Args;
use highwater_loadgen::{Scenario, WorkloadFile};

use super::flags::{ArrivalFlags, Kind, LoadFlags, Request};
use super::run::{ResultFlags, carry_out};
use crate::failure::Failure;
use crate::units;

/// `highwater load backlog`.
#[derive(Debug, Args)]
#[command(mut_arg("duration", |arg| arg.help("How long to measure before the outage [default: 10s]")))]
pub struct BacklogArgs {
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten, next_help_heading = "Arrivals")]
    arrival: ArrivalFlags,
    #[command(flatten, next_help_heading = "Outage")]
    outage: OutageFlags,
    #[command(flatten, next_help_heading = "Results")]
    results: ResultFlags,
}

/// Who stays away, and how long.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutageFlags {
    /// How long groups stay away [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    outage: Option<Duration>,
    /// How long they may take to catch up [default: ten times the outage, at least 60s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    drain_limit: Option<Duration>,
    /// How many of the groups stay away [default: 1]
    #[arg(long, value_name = "N")]
    paused_groups: Option<u32>,
}

/// Long enough that reading from the device is what catches up, on most machines.
const OUTAGE: Duration = Duration::from_secs(30);

impl OutageFlags {
    /// These over what a workload file says.
    pub fn over(&self, file: &WorkloadFile) -> OutageFlags {
        OutageFlags {
            outage: self.outage.or(file.outage),
            drain_limit: self.drain_limit.or(file.drain_limit),
            paused_groups: self.paused_groups.or(file.paused_groups),
        }
    }

    /// The scenario they come to.
    pub fn scenario(&self) -> Scenario {
        let outage = self.outage.unwrap_or(OUTAGE);
        match Scenario::backlog(outage) {
            Scenario::Backlog { drain_limit, paused_groups, .. } => Scenario::Backlog {
                outage,
                drain_limit: self.drain_limit.unwrap_or(drain_limit),
                paused_groups: self.paused_groups.unwrap_or(paused_groups),
            },
            other => other,
        }
    }
}

impl BacklogArgs {
    /// What it asks of a run.
    pub fn request(&self) -> Result<Request, Failure> {
        self.load.request(Kind::Backlog(&self.arrival, self.outage))
    }
}

/// Carries it out.
pub fn run(args: &BacklogArgs) -> Result<(), Failure> {
    carry_out(args.request()?, &args.results)
}
