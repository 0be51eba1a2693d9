//! What is run: each step as the command that would be typed.

use std::path::PathBuf;

use super::Wanted;
use crate::cli::load::shell_line;
use crate::units::Cores;

/// Time for all of it, seconds.
pub(super) const BUDGET_S: f64 = 14.0 * 60.0;
/// What the search has of it, seconds. If the generator gives out before the server does, only a soak promises anything:
/// for a p99 one of 232 s (`highwater_loadgen::search`), which has to be within half of this.
const SEARCH_S: f64 = 470.0;
/// What warm-ups, streams and draining take however long is measured, seconds.
const AROUND_S: f64 = 92.0;
/// How long the group that was away may take to catch up, as a multiple of the outage.
const DRAIN: f64 = 2.0;
/// Payload of a record, unless asked otherwise: that of `load`.
const RECORD: u64 = 1024;

/// A command, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// A path below DIR.
    pub leaves: &'static str,
    /// After `highwater`.
    pub words: Vec<String>,
    /// What it prints is what it leaves.
    pub printed: bool,
    /// The server is recorded meanwhile.
    pub recorded: bool,
}

impl Step {
    pub fn printed(self) -> Step {
        Step { printed: true, ..self }
    }

    pub fn recorded(self) -> Step {
        Step { recorded: true, ..self }
    }

    /// As it would be typed.
    pub fn line(&self) -> String {
        let words: Vec<String> =
            std::iter::once("highwater".to_owned()).chain(self.words.iter().cloned()).collect();
        shell_line(&words)
    }
}

fn step<T: Into<String>>(leaves: &'static str, words: impl IntoIterator<Item = T>) -> Step {
    let words = words.into_iter().map(Into::into).collect();
    Step { leaves, words, printed: false, recorded: false }
}

/// How the steps of a budget are cut: seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub probe: f64,
    pub search: f64,
    pub steady: f64,
    pub outage: f64,
    pub point: f64,
    pub overload: f64,
}

impl Times {
    pub fn of(budget_s: f64) -> Times {
        let share = (budget_s - AROUND_S) / (BUDGET_S - AROUND_S);
        let of = |usual: f64, least: f64| (usual * share).max(least);
        Times {
            probe: of(20.0, 2.0),
            search: of(SEARCH_S, 20.0),
            steady: of(20.0, 2.0),
            outage: of(40.0, 3.0),
            point: of(10.0, 2.0),
            overload: of(8.0, 2.0),
        }
    }

    /// The budget that has room for a search of `search_s`.
    pub fn budget_for(search_s: f64) -> f64 {
        AROUND_S + search_s / SEARCH_S * (BUDGET_S - AROUND_S)
    }

    /// The longest that catching up may take.
    pub fn drain(&self) -> f64 {
        self.outage * DRAIN
    }
}

/// What is on which CPU: the server on the first half, the generator on the others.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub server: Option<Cores>,
    pub load: Option<Cores>,
}

impl Places {
    pub fn of(usable: &[usize]) -> Places {
        let (server, load) = usable.split_at(usable.len() / 2);
        let some = |cpus: &[usize]| (!server.is_empty()).then(|| Cores(cpus.to_vec()));
        Places { server: some(server), load: some(load) }
    }
}

/// Everything the steps are made from.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub dir: PathBuf,
    pub wanted: Wanted,
    pub slo: Vec<String>,
    /// Flags of every load: what it may meet without being void.
    pub bounds: Vec<String>,
    pub times: Times,
    pub places: Places,
}

impl Job {
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// What is done before a server runs.
    pub fn probe(&self) -> Step {
        let time = duration(self.times.probe);
        let words = ["probe", &self.dir.display().to_string(), "--for", &time, "--json"];
        step("probe.json", words).printed()
    }

    /// What is found first: the other steps depend on it.
    pub fn search(&self, target: &str) -> Step {
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
    pub fn others(&self, target: &str, rate: f64) -> Vec<Step> {
        let t = &self.times;
        let groups = self.wanted.groups.max(1);
        let make = |kind: &str, leaves: &'static str, more: String| {
            let mut words = self.load(kind, target, leaves);
            words.extend(more.split(' ').map(str::to_owned));
            // The disk is for the next one.
            words.push("--delete-stream".to_owned());
            step(leaves, words)
        };
        let (steady, outage) = (duration(t.steady), duration(t.outage));
        let (point, overload) = (duration(t.point), duration(t.overload));
        let (few, many) = (groups, groups.max(2));
        // Nothing may expire while the group is away or catches up, however long that takes.
        let bytes = self.wanted.record_bytes.unwrap_or(RECORD) as f64 * 1.5 + 128.0;
        let kept = ((rate * bytes * t.outage * 6.0) as u64).max(4 << 30);
        let rate = rate.max(1.0).round();
        let run = format!("-r {rate} -d {steady} --warmup 3s --groups {few}");
        let backlog = format!(
            "-r {rate} -d 5s --warmup 3s --groups {many} --outage {outage} --drain-limit {} \
             --retention-bytes {kept}",
            duration(t.drain())
        );
        // Read as much as in the search: what reading takes is missing in what is written.
        let point = format!("-r {rate} -d {point} --warmup 2s --groups {few}");
        let durability = format!("--vary ack=durable,written {point}");
        let batches = format!("--vary batch=16KiB,256KiB --vary linger=0us,1ms {point}");
        let shards =
            format!("--vary shards=1,2,3,4,6,8 -r max -d {overload} --warmup 2s --groups {few}");
        vec![
            make("run", "steady", run).recorded(),
            make("backlog", "backlog", backlog).recorded(),
            make("sweep", "durability", durability),
            make("sweep", "batches", batches),
            make("sweep", "shards", shards),
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

    pub fn serve(&self, listen: &str) -> Vec<String> {
        let data = self.path("data");
        let mut words =
            ["highwater", "serve", "--data", &data, "--listen", listen].map(str::to_owned).to_vec();
        if let Some(cores) = &self.places.server {
            words.extend(["--cores".to_owned(), cores.to_string()]);
        }
        words
    }
}

fn duration(s: f64) -> String {
    format!("{}s", s.round().max(1.0))
}
