//! `highwater load check`: whether the generator alone can do what a run would ask of it.

use clap::Args;
use highwater_loadgen::{Observer, Stop, Tick};

use super::flags::{ArrivalFlags, Kind, LoadFlags};
use super::lines::Lines;
use super::refusal;
use crate::failure::Failure;
use crate::{output, signals};

/// `highwater load check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten, next_help_heading = "Arrivals")]
    arrival: ArrivalFlags,
    /// Print the result as JSON
    #[arg(long, help_heading = "Results")]
    json: bool,
}

/// Lines, with a title over those of each of the two runs.
#[derive(Default)]
struct Titled {
    runs: usize,
    elapsed_s: f64,
}

impl Observer for Titled {
    fn tick(&mut self, tick: &Tick<'_>) {
        let elapsed_s = tick.progress.elapsed_s;
        if self.runs == 0 || elapsed_s < self.elapsed_s {
            note!("{}", ["as fast as it can", "on schedule at twice the rate"][self.runs.min(1)]);
            self.runs += 1;
        }
        self.elapsed_s = elapsed_s;
        Lines.tick(tick);
    }
}

/// Carries it out: the target is not touched.
pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let request = args.load.request(Kind::Run(&args.arrival))?;
    let stop = Stop::default();
    let on_signal = stop.clone();
    signals::on_each(move || {
        let first = on_signal.level() == 0;
        on_signal.request();
        first
    })?;
    let report = highwater_loadgen::check(&request.options, &mut Titled::default(), &stop)
        .map_err(refusal::failure)?;
    match args.json {
        true => output::json(&report)?,
        false => output::text(&report)?,
    }
    match &report.why {
        None => Ok(()),
        Some(why) => Err(Failure::Failed(why.clone())),
    }
}
