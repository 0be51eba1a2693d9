//! All settings of a run, those not typed included, as a command that can be copied.

use std::time::Duration;

use highwater_loadgen::schedule::Profile;
use highwater_loadgen::search::SearchSettings;
use highwater_loadgen::{Arrival, LoadOptions, Scenario};

use super::flags::Request;
use super::search::MAX_RATE;
use super::slo;
use super::words::{PayloadSize, WorkloadName, warmup_word};
use crate::units::Cores;

/// The command for a run with these options.
pub fn of_options(options: &LoadOptions) -> Vec<String> {
    words(&Request { options: options.clone(), workload: None, slo: Vec::new() })
}

/// Which command a load is made by.
#[derive(Clone, Copy, Debug)]
pub enum Made<'a> {
    /// `run`, `burst` or `backlog`, as its options say.
    Once,
    /// `search`.
    BySearch(&'a SearchSettings),
    /// `sweep`, a run at each point.
    ByRuns,
    /// `sweep`, a search at each point.
    BySearches(&'a SearchSettings),
}

impl<'a> Made<'a> {
    fn word(self, scenario: Scenario) -> &'static str {
        match (self, scenario) {
            (Made::Once, Scenario::Run) => "run",
            (Made::Once, Scenario::Burst) => "burst",
            (Made::Once, Scenario::Backlog { .. }) => "backlog",
            (Made::BySearch(_), _) => "search",
            (Made::ByRuns | Made::BySearches(_), _) => "sweep",
        }
    }

    fn search(self) -> Option<&'a SearchSettings> {
        match self {
            Made::Once | Made::ByRuns => None,
            Made::BySearch(settings) | Made::BySearches(settings) => Some(settings),
        }
    }
}

/// The command for the run of `request`, word by word.
pub fn words(request: &Request) -> Vec<String> {
    command(Made::Once, request)
}

/// The command that makes the load of `request`; what a sweep varies is not in it.
pub fn command(made: Made<'_>, request: &Request) -> Vec<String> {
    let o = &request.options;
    let mut words = Words(vec!["highwater".into(), "load".into(), made.word(o.scenario).into()]);
    words.add("-t", &o.target);
    // A trace says its rate itself; and given one, a sweep makes runs.
    if !matches!(o.profile, Profile::Trace(_)) && !matches!(made, Made::BySearches(_)) {
        words.add("-r", o.rate);
    }
    match made.search() {
        // Trials warm up as they must.
        Some(settings) => words.add("-d", seconds(settings.trial_s)),
        None => {
            words.add("-d", duration(o.duration));
            words.add("--warmup", warmup_word(o.warmup));
        }
    }
    if let Some(workload) = &request.workload {
        words.add("-w", workload);
    }
    if let Some(size) = PayloadSize::of(&o.workload)
        && !matches!(request.workload, Some(WorkloadName::Named(..)))
    {
        words.add("--size", size);
    }
    if !o.workload.brings_keys() {
        words.add("--keys", o.keys.count);
        words.add("--key-distribution", o.keys.distribution);
    }
    words.add("--stream", &o.stream);
    words.add("--streams", o.streams);
    words.add("--shards", o.shards);
    words.add("--ack", o.ack);
    words.add("--retention-bytes", o.retention_bytes);
    words.add("--groups", o.groups);
    if let Some(consumers) = o.consumers {
        words.add("--consumers", consumers);
    }
    match o.clients {
        Some(clients) => words.add("--clients", clients),
        None => {
            words.add("--producers", o.producers);
            words.add("--batch", o.batch_bytes);
            words.add("--linger", duration(o.linger));
            words.add("--inflight", o.inflight);
        }
    }
    words.add("--connections", o.connections);
    words.add("--compression", o.compression);
    words.add("--client-name", &o.client_name);
    if let Some(producer) = &o.producer {
        words.add("--producer", producer);
    }
    words.arrivals(o.scenario, o.arrival, &o.profile);
    if let Scenario::Backlog { outage, drain_limit, paused_groups } = o.scenario {
        words.add("--outage", duration(outage));
        words.add("--drain-limit", duration(drain_limit));
        words.add("--paused-groups", paused_groups);
    }
    for (flag, cores) in [("--cores", &o.cores), ("--engine-cores", &o.engine_cores)] {
        if !cores.is_empty() {
            words.add(flag, Cores(cores.clone()));
        }
    }
    words.add("--seed", o.seed);
    words.add("--spin", duration(o.spin));
    if o.delete_stream {
        words.0.push("--delete-stream".into());
    }
    if o.tolerate_restart {
        words.0.push("--tolerate-restart".into());
    }
    words.add("--target-timeout", duration(o.target_timeout));
    words.add("--drain-timeout", duration(o.drain_timeout));
    let usual = LoadOptions::default();
    let mut late_bound = usual.late_bound;
    slo::tighten(&mut late_bound, &request.slo);
    if o.late_bound != late_bound {
        words.add("--late-bound", duration(o.late_bound));
    }
    if o.steal_bound != usual.steal_bound {
        words.add("--steal-bound", o.steal_bound);
    }
    for slo in &request.slo {
        words.add("--slo", slo);
    }
    if let Some(settings) = made.search() {
        words.search(settings);
    }
    words.0
}

struct Words(Vec<String>);

impl Words {
    fn add(&mut self, flag: &str, value: impl std::fmt::Display) {
        self.0.extend([flag.to_owned(), value.to_string()]);
    }

    fn search(&mut self, settings: &SearchSettings) {
        let share = |share: f64| format!("{}%", (share * 1e6).round() / 1e4);
        self.add("--stable", share(settings.stable));
        self.add("--budget", seconds(settings.budget_s));
        self.add("--precision", share(settings.precision));
        if settings.max_rate < MAX_RATE {
            self.add("--max-rate", settings.max_rate);
        }
    }

    fn arrivals(&mut self, scenario: Scenario, arrival: Arrival, profile: &Profile) {
        let spacing = match (arrival, profile) {
            (Arrival::Constant, Profile::Burst(_)) if scenario != Scenario::Burst => "burst",
            (Arrival::Constant, Profile::Trace(_)) => "trace",
            (Arrival::Constant, _) => "constant",
            (Arrival::Poisson, _) => "poisson",
        };
        self.add("--arrival", spacing);
        match profile {
            Profile::Flat => {}
            Profile::Burst(burst) => {
                self.add("--peak", format!("{}x", burst.peak));
                self.add("--on", duration(burst.on));
                self.add("--every", duration(burst.every));
            }
            Profile::Trace(trace) => {
                self.add("--trace", trace.file.display());
                self.add("--speed", format!("{}x", trace.speed));
            }
        }
    }
}

/// Words as a line for a shell.
pub fn line(words: &[String]) -> String {
    highwater_loadgen::shell_words(words)
}

fn seconds(seconds: f64) -> String {
    // What no clock knows is refused, by its name, once there is a request to check.
    duration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Without spaces, so that it needs no quotes.
pub fn duration(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}
