//! `highwater load compare --abba A B`: two servers, or two configurations, run in turn on this machine: A B B A A B B A.
//! What drifts meanwhile (a device that ages, a CPU that heats) is then on both sides.

use std::path::{Path, PathBuf};

use clap::Args;
use highwater_loadgen::{LoadOptions, Report, RunDir, Stop};

use super::flags::{ArrivalFlags, Kind, LoadFlags};
use super::lines::Lines;
use super::words::{WorkloadName, load_target};
use super::{echo, refusal};
use crate::cli::child::Server;
use crate::failure::{Failure, chain};

/// With `--abba`.
#[derive(Debug, Args)]
pub struct AbbaFlags {
    /// Make the runs now, in turn. A and B are each a highwater program (its server is started for every run), a workload
    /// file (.toml), or a target (HOST:PORT or embedded:DIR)
    #[arg(long)]
    pub abba: bool,
    /// Pairs of runs, at least 2
    #[arg(long, value_name = "N", default_value_t = 5, requires = "abba")]
    pairs: u32,
    /// Where the runs are kept, one directory each
    #[arg(short, long, value_name = "DIR", requires = "abba")]
    output: Option<PathBuf>,
}

/// A side.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Party {
    /// A program whose `serve` is loaded.
    Program(PathBuf),
    /// A workload file over which flags count.
    Config(PathBuf),
    /// A target.
    Target(String),
}

impl Party {
    fn of(word: &Path) -> Result<Party, Failure> {
        if word.extension().is_some_and(|extension| extension == "toml") {
            return Ok(Party::Config(word.to_owned()));
        }
        if word.is_file() {
            // A name alone would be looked for in the PATH.
            let path = word.canonicalize().map_err(|e| Failure::doing(word.display(), e))?;
            return Ok(Party::Program(path));
        }
        let text = word.to_string_lossy();
        match load_target(&text) {
            Ok(target) => Ok(Party::Target(target.to_string())),
            Err(_) => Err(Failure::Usage(format!(
                "--abba: {text} is no program, no workload file (.toml) and no target (HOST:PORT or embedded:DIR)"
            ))),
        }
    }
}

/// A void run is made again so often.
const AGAIN: u32 = 2;
/// Most pairs.
const MOST: u32 = 100;
/// Unless it is said how long: three blocks.
const SECONDS: u64 = 30;

/// Whose turn it is: A B B A A B B A ...
fn turn(run: u32) -> usize {
    usize::from(matches!(run % 4, 1 | 2))
}

/// Makes the runs; the directories of A's and of B's.
pub fn run(
    flags: &AbbaFlags,
    load: &LoadFlags,
    words: [&Path; 2],
) -> Result<[Vec<PathBuf>; 2], Failure> {
    let parties = [Party::of(words[0])?, Party::of(words[1])?];
    if !(2..=MOST).contains(&flags.pairs) {
        return Err(Failure::Usage(format!("--pairs is {}; it must be 2 to {MOST}", flags.pairs)));
    }
    let Some(dir) = &flags.output else {
        return Err(Failure::Usage(
            "--abba needs a directory for the runs: --output DIR".to_owned(),
        ));
    };
    let options = [request(load, &parties[0])?, request(load, &parties[1])?];
    let stop = super::run::stop_on_signals()?;
    let mut done = [Vec::new(), Vec::new()];
    for run in 0..2 * flags.pairs {
        let side = turn(run);
        let letter = ["A", "B"][side];
        let path = dir.join(format!("run-{:03}-{letter}", run + 1));
        for again in 0..=AGAIN {
            note!("run {} of {}: {letter}", run + 1, 2 * flags.pairs);
            let report = one(&parties[side], &options[side], &path, &stop)?;
            if stop.level() > 0 {
                return Err(Failure::Failed(format!(
                    "interrupted in run {} of {}",
                    run + 1,
                    2 * flags.pairs
                )));
            }
            match &report.void_reason {
                Some(why) if again < AGAIN => note!("void, once more: {why}"),
                _ => break,
            }
        }
        done[side].push(path);
    }
    Ok(done)
}

/// What a run of a side is asked. Both have the same seed.
fn request(load: &LoadFlags, party: &Party) -> Result<LoadOptions, Failure> {
    let file = match party {
        Party::Config(path) => Some(WorkloadName::File(path.clone())),
        _ => None,
    };
    let over = file.map(LoadFlags::of_workload);
    let arrival = ArrivalFlags::default();
    let mut options = load.request_with(Kind::Run(&arrival), over.as_ref())?.options;
    if load.duration().is_none() {
        options.duration = options.duration.max(std::time::Duration::from_secs(SECONDS));
    }
    if load.by_chance().contains(&"seed") {
        options.seed = 1;
    }
    if let Party::Target(target) = party {
        options.target = target.clone();
    }
    Ok(options)
}

/// One run, its server started and stopped if the side is a program.
fn one(party: &Party, options: &LoadOptions, path: &Path, stop: &Stop) -> Result<Report, Failure> {
    let mut options = options.clone();
    // Each run has a stream of its own: what a run finds must not depend on the ones before it.
    options.stream = format!("{}-{:08x}", options.stream, fastrand::u32(..));
    let served = match party {
        Party::Program(program) => {
            // A server of another build, with a data directory below the current one; both are gone after the run.
            let data = tempfile::Builder::new().prefix("highwater-abba-").tempdir_in(".");
            let data = data.map_err(|e| Failure::doing("no temporary directory here", e))?;
            let stopped = || stop.level() > 0;
            let server = Server::start(program, data.path(), &["--allow-buffered"], stopped)?;
            Some((server, data))
        }
        _ => None,
    };
    if let Some((server, _)) = &served {
        options.target.clone_from(&server.address);
    }
    let mut dir =
        RunDir::create(path).map_err(|e| Failure::Usage(format!("--output: {}", chain(&e))))?;
    let mut lines = Lines;
    let ran = highwater_loadgen::run(options, &mut (&mut lines, &mut dir), stop);
    let mut report = ran.map_err(refusal::failure)?;
    report.command = echo::of_options(&report.options);
    dir.describe(&mut report);
    dir.finish(&report).map_err(|e| Failure::failed(chain(&e)))?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_balanced_against_drift() {
        let order: Vec<usize> = (0..8).map(turn).collect();
        assert_eq!(order, [0, 1, 1, 0, 0, 1, 1, 0]);
        // The mean place of both sides is the same after every second pair.
        let places = |side| (0..8u32).filter(|run| turn(*run) == side).sum::<u32>();
        assert_eq!(places(0), places(1));
    }

    #[test]
    fn sides_are_told_by_what_they_are() {
        let party = |word: &str| Party::of(Path::new(word));
        assert_eq!(party("a.toml").unwrap(), Party::Config("a.toml".into()));
        assert_eq!(party("h:7411").unwrap(), Party::Target("h:7411".to_owned()));
        let this = std::env::current_exe().unwrap();
        assert_eq!(Party::of(&this).unwrap(), Party::Program(this.canonicalize().unwrap()));
        assert!(
            party("no/such/thing").unwrap_err().to_string().contains("no/such/thing is no program")
        );
    }
}
