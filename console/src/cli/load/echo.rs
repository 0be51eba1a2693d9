//! All settings of a run, those not typed included, as a command that can be copied.

use std::time::Duration;

use highwater_loadgen::schedule::Profile;
use highwater_loadgen::{Arrival, LoadOptions, Scenario};

use super::flags::Request;
use super::slo;
use super::words::{PayloadSize, WorkloadName, warmup_word};
use crate::units::Cores;

/// The command for a run with these options.
pub fn of_options(options: &LoadOptions) -> Vec<String> {
    words(&Request { options: options.clone(), workload: None, slo: Vec::new() })
}

/// The command for `request`, word by word.
pub fn words(request: &Request) -> Vec<String> {
    let o = &request.options;
    let command = match o.scenario {
        Scenario::Run => "run",
        Scenario::Burst => "burst",
        Scenario::Backlog { .. } => "backlog",
    };
    let mut words = Words(vec!["highwater".into(), "load".into(), command.into()]);
    words.add("-t", &o.target);
    // A trace says its rate itself.
    if !matches!(o.profile, Profile::Trace(_)) {
        words.add("-r", o.rate);
    }
    words.add("-d", duration(o.duration));
    words.add("--warmup", warmup_word(o.warmup));
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
    words.0
}

struct Words(Vec<String>);

impl Words {
    fn add(&mut self, flag: &str, value: impl std::fmt::Display) {
        self.0.extend([flag.to_owned(), value.to_string()]);
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

/// Without spaces, so that it needs no quotes.
pub fn duration(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}
