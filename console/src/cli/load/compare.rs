//! `highwater load compare`: two runs side by side, or two builds or configurations in turn.

use std::path::PathBuf;

use clap::Args;
use highwater_loadgen::{CompareError, CompareOptions, Metric, Verdict};

use super::abba::{self, AbbaFlags};
use super::flags::LoadFlags;
use super::typed::Typed;
use crate::failure::{Failure, chain};
use crate::{output, units};

/// `highwater load compare`.
#[derive(Debug, Args)]
#[command(mut_arg("seed", |arg| arg.help("Seed of the resampling; with --abba also of arrivals, keys and payloads [default: 1]")))]
#[command(mut_arg("duration", |arg| arg.help("How long to measure each run [default: 30s]")))]
#[command(mut_arg("slo", |arg| arg.hide(true)))]
pub struct CompareArgs {
    /// Run directory of the run to compare with; see --abba for what else
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
    /// Compare although the runs were not alike
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Runs made in turn")]
    abba: AbbaFlags,
    #[command(flatten, next_help_heading = "Runs made in turn: the load")]
    load: Typed<LoadFlags>,
}

impl CompareArgs {
    /// Runs that were kept are as they are: a load that is typed all the same was meant for others.
    fn refuse_load(&self) -> Result<(), Failure> {
        // The seed is the resampling's as well.
        let typed = self.load.names().find(|flag| *flag != "--seed");
        match typed.filter(|_| !self.abba.abba) {
            Some(flag) => Err(Failure::Usage(format!(
                "{flag} is for runs that are made, by --abba; {} and {} are there already",
                self.a.display(),
                self.b.display()
            ))),
            None => Ok(()),
        }
    }
}

/// Carries it out.
pub fn run(args: &CompareArgs) -> Result<(), Failure> {
    args.refuse_load()?;
    let options = CompareOptions {
        margin: args.margin,
        metrics: args.on.clone(),
        seed: args.load.seed().unwrap_or(1),
        // Two configurations differ in what is compared.
        force: args.force || args.abba.abba,
    };
    let comparison = if args.abba.abba {
        let [a, b] = abba::run(&args.abba, &args.load, [&args.a, &args.b])?;
        highwater_loadgen::compare_many(&a, &b, &options)
    } else {
        highwater_loadgen::compare(&args.a, &args.b, &options)
    };
    let comparison = comparison.map_err(refusal)?;
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
        CompareError::Nothing => Failure::Unclear(error.to_string()),
        CompareError::Margin { .. } => Failure::Usage(format!("--margin: {error}")),
        CompareError::Differ { .. } => {
            Failure::Usage(format!("{error} (--force compares them all the same)"))
        }
    }
}
