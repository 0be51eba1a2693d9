//! `highwater plan --measure DIR`: carries out on this machine what a plan needs, one command after the other, each of
//! which can be typed as well: a probe, a server, a search against it, an outage, and the sweeps. What is done is noted
//! in `DIR/done`, so that the same command goes on where it was interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;

use crate::cli::child::{Running, Server};
use crate::cli::load::{Slo, shell_line};
use crate::failure::Failure;
use crate::signals::Stop;
use crate::units::Cores;
use crate::{human, output, units};

/// What `--measure` needs to know besides what is asked of the machine.
#[derive(Debug, Args)]
pub struct MeasureFlags {
    /// Measure first, on this machine: probe the device of DIR, serve from it, search for the rate, let a group stay
    /// away, sweep. Everything is kept in DIR, the plan in DIR/plan. Goes on where it was interrupted
    #[arg(long, value_name = "DIR", conflicts_with_all = ["runs", "probe"], requires = "demand")]
    pub measure: Option<PathBuf>,
    /// With --measure: what the rate has to meet [default: p99=10ms]
    #[arg(long, value_name = "p99=10ms", requires = "measure")]
    slo: Vec<Slo>,
    /// With --measure: time for all of it, half of which is the search's [default: 14m]
    #[arg(long, value_name = "DURATION", value_parser = units::duration, requires = "measure")]
    budget: Option<Duration>,
    /// With --measure: how late the generator may be at p99 [default: 1ms, or a tenth of the tightest --slo where that
    /// is less]
    #[arg(long, value_name = "DURATION", value_parser = units::duration, requires = "measure")]
    late_bound: Option<Duration>,
    /// With --measure: how much of the CPU time the hypervisor may give to others [default: 2%]
    #[arg(long, value_name = "PERCENT", value_parser = units::share, requires = "measure")]
    steal_bound: Option<f64>,
    /// With --measure: only say what would be run
    #[arg(long, requires = "measure")]
    pub dry_run: bool,
}

/// What is measured for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Records a second on average.
    pub rate: f64,
    /// Payload bytes of a record.
    pub record_bytes: Option<u64>,
    /// Groups that read everything.
    pub groups: u32,
}

/// What a plan is then made from.
#[derive(Debug)]
pub struct Measured {
    /// Directories and recordings.
    pub runs: Vec<PathBuf>,
    /// The probe.
    pub probe: PathBuf,
}

/// Time for all of it, and the least and the most.
const BUDGET_S: f64 = 14.0 * 60.0;
const LEAST_S: f64 = 60.0;
const MOST_S: f64 = 12.0 * 3600.0;
/// Share of it that the search has.
const SEARCH: f64 = 0.5;
/// What follows the search is measured at this share of what it publishes, if more is asked for.
const OF_SAFE: f64 = 0.7;
/// Payload of a record, unless asked otherwise: that of `load`.
const RECORD: u64 = 1024;
/// Where what is done is noted.
const DONE: &str = "done";

/// A command, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// A path below DIR.
    leaves: &'static str,
    /// After `highwater`.
    words: Vec<String>,
    /// What it prints is what it leaves.
    printed: bool,
    /// The server is recorded meanwhile.
    recorded: bool,
}

/// How the steps of a budget are cut: seconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    probe: f64,
    search: f64,
    steady: f64,
    outage: f64,
    point: f64,
    overload: f64,
}

impl Times {
    fn of(budget_s: f64) -> Times {
        let of = |usual: f64, least: f64| (usual * budget_s / BUDGET_S).max(least);
        Times {
            probe: of(20.0, 2.0),
            search: of(BUDGET_S * SEARCH, 20.0),
            steady: of(20.0, 2.0),
            outage: of(40.0, 3.0),
            point: of(10.0, 2.0),
            overload: of(8.0, 2.0),
        }
    }
}

/// What is on which CPU: the server on the first half, the generator on the others.
#[derive(Clone, Debug)]
struct Places {
    server: Option<Cores>,
    load: Option<Cores>,
}

impl Places {
    fn of(usable: &[usize]) -> Places {
        let (server, load) = usable.split_at(usable.len() / 2);
        let some = |cpus: &[usize]| (!server.is_empty()).then(|| Cores(cpus.to_vec()));
        Places { server: some(server), load: some(load) }
    }
}

/// Everything the steps are made from.
#[derive(Clone, Debug)]
struct Job {
    dir: PathBuf,
    wanted: Wanted,
    slo: Vec<String>,
    /// Flags of every load: what it may meet without being void.
    bounds: Vec<String>,
    times: Times,
    places: Places,
}

impl Job {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// What is done before a server runs.
    fn probe(&self) -> Step {
        let time = duration(self.times.probe);
        let words = ["probe", &self.dir.display().to_string(), "--for", &time, "--json"];
        step("probe.json", words).printed()
    }

    /// What is found first: the other steps depend on it.
    fn search(&self, target: &str) -> Step {
        let mut words = self.load("search", target, "search");
        for slo in &self.slo {
            words.extend(["--slo".to_owned(), slo.clone()]);
        }
        let groups = self.wanted.groups.to_string();
        words.extend(["--groups".to_owned(), groups]);
        words.extend(["--budget".to_owned(), duration(self.times.search)]);
        step("search", words)
    }

    /// What follows, at `rate`.
    fn others(&self, target: &str, rate: f64) -> Vec<Step> {
        let t = &self.times;
        let rate_text = format!("{}", rate.max(1.0).round());
        let groups = self.wanted.groups.max(1);
        let make = |kind: &str, leaves: &'static str, more: &[&str]| {
            let mut words = self.load(kind, target, leaves);
            words.extend(more.iter().map(|word| (*word).to_owned()));
            // The disk is for the next one.
            words.push("--delete-stream".to_owned());
            step(leaves, words)
        };
        let (steady, outage) = (duration(t.steady), duration(t.outage));
        let (point, overload) = (duration(t.point), duration(t.overload));
        let (few, many) = (groups.to_string(), groups.max(2).to_string());
        // Nothing may expire while the group is away or catches up, however long that takes.
        let bytes = self.wanted.record_bytes.unwrap_or(RECORD) as f64 * 1.5 + 128.0;
        let kept = ((rate * bytes * t.outage * 6.0) as u64).max(4 << 30).to_string();
        vec![
            make(
                "run",
                "steady",
                &["-r", &rate_text, "-d", &steady, "--warmup", "3s", "--groups", &few],
            )
            .recorded(),
            make(
                "backlog",
                "backlog",
                &[
                    "-r",
                    &rate_text,
                    "-d",
                    "5s",
                    "--warmup",
                    "3s",
                    "--groups",
                    &many,
                    "--outage",
                    &outage,
                    "--drain-limit",
                    "2m",
                    "--retention-bytes",
                    &kept,
                ],
            )
            .recorded(),
            make(
                "sweep",
                "durability",
                &[
                    "--vary",
                    "ack=durable,written",
                    "-r",
                    &rate_text,
                    "-d",
                    &point,
                    "--warmup",
                    "2s",
                ],
            ),
            make(
                "sweep",
                "batches",
                &[
                    "--vary",
                    "batch=16KiB,256KiB",
                    "--vary",
                    "linger=0us,1ms",
                    "-r",
                    &rate_text,
                    "-d",
                    &point,
                    "--warmup",
                    "2s",
                ],
            ),
            make(
                "sweep",
                "shards",
                &["--vary", "shards=1,2,3,4,6,8", "-r", "max", "-d", &overload, "--warmup", "2s"],
            ),
        ]
    }

    fn load(&self, kind: &str, target: &str, leaves: &str) -> Vec<String> {
        let mut words: Vec<String> = ["load", kind, "-t", target].map(str::to_owned).to_vec();
        if let Some(bytes) = self.wanted.record_bytes {
            words.extend(["--size".to_owned(), bytes.to_string()]);
        }
        if let Some(cores) = &self.places.load {
            words.extend(["--cores".to_owned(), cores.to_string()]);
        }
        words.extend(self.bounds.iter().cloned());
        words.extend(["--view", "lines", "-o"].map(str::to_owned));
        words.push(self.path(leaves));
        words
    }
}

fn duration(s: f64) -> String {
    format!("{}s", s.round().max(1.0))
}

fn step<T: Into<String>>(leaves: &'static str, words: impl IntoIterator<Item = T>) -> Step {
    let words = words.into_iter().map(Into::into).collect();
    Step { leaves, words, printed: false, recorded: false }
}

impl Step {
    fn printed(self) -> Step {
        Step { printed: true, ..self }
    }

    fn recorded(self) -> Step {
        Step { recorded: true, ..self }
    }

    /// As it would be typed.
    fn line(&self) -> String {
        let words: Vec<String> =
            std::iter::once("highwater".to_owned()).chain(self.words.iter().cloned()).collect();
        shell_line(&words)
    }
}

impl MeasureFlags {
    fn job(&self, dir: &Path, wanted: Wanted) -> Result<Job, Failure> {
        let budget_s = self.budget.map_or(BUDGET_S, |budget| budget.as_secs_f64());
        if !(LEAST_S..=MOST_S).contains(&budget_s) {
            return Err(Failure::Usage(format!(
                "--budget is {budget_s} s; it must be {LEAST_S} to {MOST_S} s"
            )));
        }
        let slo = self.slo.iter().map(ToString::to_string).collect::<Vec<_>>();
        let late =
            self.late_bound.map(|late| ["--late-bound".into(), format!("{}us", late.as_micros())]);
        let steal = self.steal_bound.map(|share| ["--steal-bound".into(), format!("{share}")]);
        Ok(Job {
            dir: dir.to_owned(),
            wanted,
            slo: if slo.is_empty() { vec!["p99=10ms".to_owned()] } else { slo },
            bounds: late.into_iter().chain(steal).flatten().collect(),
            times: Times::of(budget_s),
            places: Places::of(&usable_cpus()?),
        })
    }

    /// `--dry-run`.
    pub fn print(&self, dir: &Path, wanted: Wanted) -> Result<(), Failure> {
        let job = self.job(dir, wanted)?;
        output::line(job.probe().line())?;
        output::line(shell_line(&job.serve("127.0.0.1:0")))?;
        for step in
            std::iter::once(job.search("HOST:PORT")).chain(job.others("HOST:PORT", wanted.rate))
        {
            output::line(step.line())?;
        }
        output::line("\nDry run: nothing was measured.")
    }

    /// Carries out what is not done yet.
    pub fn run(&self, dir: &Path, wanted: Wanted) -> Result<Measured, Failure> {
        let job = self.job(dir, wanted)?;
        let stop = Stop::on_signals()?;
        let doing = |what: &str| format!("cannot {what} {}", dir.display());
        fs::create_dir_all(dir).map_err(|e| Failure::doing(doing("make"), e))?;
        let mut done = Done::open(&dir.join(DONE))?;
        let program = std::env::current_exe().map_err(|e| Failure::doing("this program", e))?;
        let mut worker = Worker { job: &job, program: &program, stop: &stop, done: &mut done };
        worker.carry_out(&job.probe())?;
        worker.with_server()?;
        let mut runs: Vec<PathBuf> =
            ["search", "steady", "backlog", "durability", "batches", "shards"]
                .map(|name| dir.join(name))
                .to_vec();
        runs.push(dir.join(RECORDING));
        Ok(Measured { runs, probe: dir.join("probe.json") })
    }
}

/// What the server's figures are recorded in.
const RECORDING: &str = "load.rec";

impl Job {
    fn serve(&self, listen: &str) -> Vec<String> {
        let data = self.path("data");
        let mut words =
            ["highwater", "serve", "--data", &data, "--listen", listen].map(str::to_owned).to_vec();
        if let Some(cores) = &self.places.server {
            words.extend(["--cores".to_owned(), cores.to_string()]);
        }
        words
    }
}

struct Worker<'a> {
    job: &'a Job,
    program: &'a Path,
    stop: &'a Stop,
    done: &'a mut Done,
}

impl Worker<'_> {
    /// Everything that needs a server. Its data is worth nothing afterwards.
    fn with_server(&mut self) -> Result<(), Failure> {
        let data = self.job.dir.join("data");
        let gone = |()| match fs::remove_dir_all(&data) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::doing(format!("cannot remove {}", data.display()), e))
            }
            _ => Ok(()),
        };
        gone(())?;
        // A search that goes on does so at the same address.
        let listen = self.done.address.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let words = self.job.serve(&listen);
        note!("{}", shell_line(&words));
        let more: Vec<&str> = words[4..].iter().map(String::as_str).collect();
        let server = Server::start(self.program, &data, &more)?;
        self.done.at(&server.address)?;
        let all = self.against(&server.address);
        drop(server);
        all.and_then(|()| gone(()))
    }

    fn against(&mut self, target: &str) -> Result<(), Failure> {
        self.carry_out(&self.job.search(target))?;
        let safe = published(&self.job.dir.join("search"))?;
        let rate = self.job.wanted.rate.min(safe * OF_SAFE);
        if rate < self.job.wanted.rate {
            note!(
                "{}/s are asked for and {}/s are safe: what follows is measured at {}/s",
                human::count(self.job.wanted.rate),
                human::count(safe),
                human::count(rate)
            );
        }
        for step in self.job.others(target, rate) {
            let recorder = if step.recorded && !self.done.has(&step) {
                let file = self.job.path(RECORDING);
                let words = ["record", "-t", target, "-o", &file].map(str::to_owned);
                Some(Running::start(self.program, &words, Stdio::null())?)
            } else {
                None
            };
            self.carry_out(&step)?;
            if let Some(recorder) = recorder {
                recorder.stop()?;
            }
        }
        Ok(())
    }

    /// Runs a step unless it is done. A void measurement is one: the plan says so.
    fn carry_out(&mut self, step: &Step) -> Result<(), Failure> {
        let path = self.job.dir.join(step.leaves);
        // Somebody who removes what a step left wants it again.
        if self.done.has(step) && path.exists() {
            return Ok(());
        }
        note!("{}", step.line());
        let partly = self.job.dir.join("unfinished");
        let stdout = if step.printed {
            fs::File::create(&partly)
                .map_err(|e| Failure::doing(format!("cannot write {}", partly.display()), e))?
                .into()
        } else {
            Stdio::null()
        };
        let status = Running::start(self.program, &step.words, stdout)?.wait(self.stop)?;
        let on = "the same command goes on where it was";
        if self.stop.requested() {
            return Err(Failure::Failed(format!("interrupted; {on}")));
        }
        match status.code() {
            Some(0 | VOID) => {}
            _ => {
                return Err(Failure::Failed(format!(
                    "this step failed ({status}): {}; {on}",
                    step.line()
                )));
            }
        }
        if step.printed {
            fs::rename(&partly, &path)
                .map_err(|e| Failure::doing(format!("cannot write {}", path.display()), e))?;
        }
        self.done.add(step)
    }
}

/// Exit code of a measurement that does not count.
const VOID: i32 = 5;

/// The rate that a search publishes.
fn published(search: &Path) -> Result<f64, Failure> {
    let path = search.join("search.json");
    let text = fs::read(&path).map_err(|e| Failure::doing(path.display(), e))?;
    let found: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| Failure::doing(path.display(), e))?;
    found["result"]["published_rate"].as_f64().ok_or_else(|| {
        Failure::Unmeasured(format!(
            "the search found no rate to plan with, see {}; end other work on this machine, remove that directory \
             and run the same command again",
            search.join("report.md").display()
        ))
    })
}

/// What was done: a line for each step, after one with the address.
struct Done {
    path: PathBuf,
    address: Option<String>,
    steps: Vec<String>,
}

impl Done {
    fn open(path: &Path) -> Result<Done, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Failure::doing(path.display(), e)),
        };
        let mut done = Done { path: path.to_owned(), address: None, steps: vec![] };
        for line in text.lines() {
            match line.strip_prefix("server ") {
                Some(address) => done.address = Some(address.to_owned()),
                None => done.steps.push(line.to_owned()),
            }
        }
        Ok(done)
    }

    fn has(&self, step: &Step) -> bool {
        self.steps.contains(&step.line())
    }

    fn at(&mut self, address: &str) -> Result<(), Failure> {
        self.address = Some(address.to_owned());
        self.write()
    }

    fn add(&mut self, step: &Step) -> Result<(), Failure> {
        self.steps.push(step.line());
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let address = self.address.iter().map(|address| format!("server {address}"));
        let lines: Vec<String> = address.chain(self.steps.iter().cloned()).collect();
        fs::write(&self.path, lines.join("\n") + "\n")
            .map_err(|e| Failure::doing(format!("cannot write {}", self.path.display()), e))
    }
}

#[cfg(target_os = "linux")]
fn usable_cpus() -> Result<Vec<usize>, Failure> {
    highwater_ring::usable_cpus().map_err(|e| Failure::doing("cannot serve", e))
}

#[cfg(not(target_os = "linux"))]
fn usable_cpus() -> Result<Vec<usize>, Failure> {
    Err(Failure::Failed("--measure starts a server, which needs Linux".to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn job(cpus: &[usize]) -> Job {
        Job {
            dir: "m".into(),
            wanted: Wanted { rate: 20e3, record_bytes: Some(512), groups: 3 },
            slo: vec!["p99=10ms".into(), "p99.9=50ms".into()],
            bounds: ["--late-bound", "5000us", "--steal-bound", "0.1"].map(String::from).to_vec(),
            times: Times::of(BUDGET_S),
            places: Places::of(cpus),
        }
    }

    /// What it says it runs can be typed.
    #[test]
    fn every_step_is_a_command() {
        for job in [job(&[0]), job(&[0, 1]), job(&[2, 3, 5, 7])] {
            let serve = job.serve("127.0.0.1:0");
            let steps = [vec![job.probe(), job.search("h:1")], job.others("h:1", 17e3)].concat();
            let lines = steps.iter().map(|step| {
                ["highwater".to_owned()].into_iter().chain(step.words.clone()).collect()
            });
            for words in lines.chain([serve]) {
                let words: Vec<String> = words;
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().unwrap());
            }
        }
    }

    #[test]
    fn server_and_generator_share_no_cpu() {
        let places = |cpus: &[usize]| {
            let places = Places::of(cpus);
            (places.server.map(|c| c.0), places.load.map(|c| c.0))
        };
        assert_eq!(places(&[0]), (None, None));
        assert_eq!(places(&[0, 1]), (Some(vec![0]), Some(vec![1])));
        assert_eq!(places(&[0, 2, 4]), (Some(vec![0]), Some(vec![2, 4])));
    }

    /// The longest all of it takes: measured windows, warm-up, and 4 s around each for streams and draining.
    #[test]
    fn the_steps_fit_into_the_budget() {
        for budget_s in [10.0 * 60.0, BUDGET_S, 3600.0] {
            let t = Times::of(budget_s);
            let sweeps = (2.0 + 4.0) * (t.point + 6.0) + 6.0 * (t.overload + 6.0);
            // Catching up at twice what arrives takes as long as the outage.
            let all = t.probe + t.search + t.steady + 7.0 + 8.0 + 2.0 * t.outage + sweeps + 5.0;
            assert!(all <= budget_s, "{all} of {budget_s} s");
        }
    }

    #[test]
    fn what_is_done_is_known_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DONE);
        let step = job(&[0, 1]).probe();
        let mut done = Done::open(&path).unwrap();
        assert!(!done.has(&step) && done.address.is_none());
        done.add(&step).unwrap();
        done.at("127.0.0.1:4711").unwrap();
        let again = Done::open(&path).unwrap();
        assert!(again.has(&step) && again.address.as_deref() == Some("127.0.0.1:4711"));
        // Asked otherwise, it is another step.
        assert!(!again.has(&Job { dir: "n".into(), ..job(&[0, 1]) }.probe()));
    }
}
