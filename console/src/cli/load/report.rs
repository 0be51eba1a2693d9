//! `highwater load report`: the reports of a run directory, written again.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::output;

/// `highwater load report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A directory that `-o` made
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(args: &ReportArgs) -> Result<(), Failure> {
    let files = highwater_loadgen::read_run(&args.dir).map_err(Failure::failed)?;
    highwater_loadgen::rebuild(&args.dir).map_err(Failure::failed)?;
    for name in ["report.md", "report.html"] {
        note!("wrote {}", args.dir.join(name).display());
    }
    match args.json {
        true => output::json(&files.report),
        false => output::text(&files.report),
    }
}
