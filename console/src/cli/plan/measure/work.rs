//! Carrying out the steps, with a server where they need one.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::done::Done;
use super::steps::{Job, Step};
use crate::cli::child::{Running, Server};
use crate::cli::load::shell_line;
use crate::failure::Failure;
use crate::human;
use crate::signals::Stop;

/// What follows the search is measured at this share of what it publishes, if more is asked for.
const OF_SAFE: f64 = 0.7;

/// What the server's figures are recorded in.
pub(super) const RECORDING: &str = "load.rec";

/// Exit code of a measurement that does not count.
const VOID: i32 = 5;

pub(super) struct Worker<'a> {
    pub job: &'a Job,
    pub program: &'a Path,
    pub stop: &'a Stop,
    pub done: &'a mut Done,
}

impl Worker<'_> {
    /// Everything that needs a server. Its data is worth nothing afterwards.
    pub fn with_server(&mut self) -> Result<(), Failure> {
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
    pub fn carry_out(&mut self, step: &Step) -> Result<(), Failure> {
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

/// The rate that a search publishes.
fn published(search: &Path) -> Result<f64, Failure> {
    let path = search.join("search.json");
    let text = fs::read(&path).map_err(|e| Failure::doing(path.display(), e))?;
    let found: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| Failure::doing(path.display(), e))?;
    let result = &found["result"];
    result["published_rate"].as_f64().ok_or_else(|| {
        let remedy = match result["needs_s"].as_f64() {
            Some(more_s) => format!("its budget is about {more_s:.0} s too short: give --budget more"),
            None => "end other work on this machine".to_owned(),
        };
        Failure::Unmeasured(format!(
            "the search found no rate to plan with, see {}; {remedy}, remove that directory and run the same command \
             again",
            search.join("report.md").display()
        ))
    })
}
