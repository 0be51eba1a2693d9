//! `highwater load report`: the reports of a run, a search or a sweep, written again.

use std::fmt::Display;
use std::path::PathBuf;

use clap::Args;
use highwater_loadgen::search::{self, SEARCH_FILE, SWEEP_FILE};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;

/// `highwater load report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A directory that `-o` of run, burst, backlog, search or sweep made
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(args: &ReportArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    if dir.join(SEARCH_FILE).exists() {
        args.told(&search::rebuild_search(dir).map_err(Failure::failed)?)
    } else if dir.join(SWEEP_FILE).exists() {
        args.told(&search::rebuild_sweep(dir).map_err(Failure::failed)?)
    } else {
        let files = highwater_loadgen::read_run(dir).map_err(Failure::failed)?;
        highwater_loadgen::rebuild(dir).map_err(Failure::failed)?;
        args.told(&files.report)
    }
}

impl ReportArgs {
    fn told(&self, report: &(impl Serialize + Display)) -> Result<(), Failure> {
        for name in ["report.md", "report.html"] {
            note!("wrote {}", self.dir.join(name).display());
        }
        match self.json {
            true => output::json(report),
            false => output::text(report),
        }
    }
}
