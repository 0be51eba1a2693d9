//! What is done, noted so that it is not done again.

use std::fs;
use std::path::{Path, PathBuf};

use super::steps::Step;
use crate::failure::Failure;

/// What was done: a line for each step, after one with the address.
pub(super) struct Done {
    path: PathBuf,
    pub address: Option<String>,
    steps: Vec<String>,
}

impl Done {
    pub fn open(path: &Path) -> Result<Done, Failure> {
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

    pub fn has(&self, step: &Step) -> bool {
        self.steps.contains(&step.line())
    }

    pub fn at(&mut self, address: &str) -> Result<(), Failure> {
        self.address = Some(address.to_owned());
        self.write()
    }

    pub fn add(&mut self, step: &Step) -> Result<(), Failure> {
        self.steps.push(step.line());
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let address = self.address.iter().map(|address| format!("server {address}"));
        let lines: Vec<String> = address.chain(self.steps.iter().cloned()).collect();
        let text = lines.join("\n") + "\n";
        // Half an address is one to listen on, too.
        highwater_loadgen::write_whole(&self.path, text.as_bytes()).map_err(Failure::failed)
    }
}
