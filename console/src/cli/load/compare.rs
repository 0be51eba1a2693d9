//! `highwater load compare`: two runs side by side.

use std::path::PathBuf;

use clap::Args;
use highwater_loadgen::{CompareError, CompareOptions, Metric, Verdict};

use crate::failure::{Failure, chain};
use crate::{output, units};

/// `highwater load compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Run directory of the run to compare with
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Run directory of the run to be judged
    #[arg(value_name = "B")]
    b: PathBuf,
    /// How much worse is not worse
    #[arg(long, value_name = "SHARE", default_value = "3%", value_parser = units::share)]
    margin: f64,
    /// Judge by this: response.p99, propagation.p99.9, acknowledged.rate ...; may be given several times
    /// [default: response.p99, propagation.p99 and acknowledged.rate]
    #[arg(long, value_name = "METRIC")]
    on: Vec<Metric>,
    /// Seed of the resampling
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Compare although the runs were not alike
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(args: &CompareArgs) -> Result<(), Failure> {
    let options = CompareOptions {
        margin: args.margin,
        metrics: args.on.clone(),
        seed: args.seed,
        force: args.force,
    };
    let comparison = highwater_loadgen::compare(&args.a, &args.b, &options).map_err(refusal)?;
    match args.json {
        true => output::json(&comparison)?,
        false => output::text(&comparison)?,
    }
    let b = args.b.display();
    match comparison.verdict {
        Verdict::NotWorse => Ok(()),
        Verdict::Worse => Err(Failure::Worse(format!("{b} is worse"))),
        Verdict::CannotTell => Err(Failure::Unclear("cannot tell".to_owned())),
    }
}

fn refusal(error: CompareError) -> Failure {
    match error {
        CompareError::Read(error) => Failure::Failed(chain(&error)),
        CompareError::Margin { .. } => Failure::Usage(format!("--margin: {error}")),
        CompareError::Differ { .. } => {
            Failure::Usage(format!("{error} (--force compares them all the same)"))
        }
    }
}
