//! What about a machine makes figures worse than they need be, or hard to repeat, and what to do about it.

use std::collections::BTreeSet;

use highwater_wire::AckMode;
use serde::{Deserialize, Serialize};

use super::{Environment, Place, list};

/// More stolen time than this share is reported.
const STEAL: f64 = 0.01;
/// A file system fuller than this share slows down, and an SSD under it.
const FILL: f64 = 0.80;
/// More processes than this, per CPU, before the first record.
const LOAD: f64 = 0.5;
/// An engine with less memory to lock cannot register the buffers its ring wants.
const MEMLOCK: u64 = 64 << 20;

/// How much a [`Lint`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// The figures are likely worse, or less repeatable, than they could be.
    Warning,
}

/// Something about the machine that makes figures worse, or not comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lint {
    /// Stable name.
    pub name: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// What a run asked for, as far as it can be at odds with the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    /// CPUs the generator's threads are pinned to; empty: not pinned.
    pub cores: &'a [usize],
    /// CPUs an embedded engine's threads are pinned to; empty: not pinned.
    pub engine_cores: &'a [usize],
    /// Whether the engine runs in this process.
    pub embedded: bool,
    /// What the stream's acknowledgements mean.
    pub ack: AckMode,
}

/// Everything found, warnings first.
pub(crate) fn lint(environment: &Environment, setting: &Setting<'_>) -> Vec<Lint> {
    let mut found = Findings::default();
    found.build_and_acknowledgement(environment, setting);
    found.cpus(environment);
    found.placement(environment, setting);
    found.others(environment);
    found.memory(environment, setting);
    let places = environment.data_dir.iter().chain(&environment.run_dir);
    found.0.extend(places.filter_map(lint_place));
    found.0.sort_by_key(|lint| lint.severity == Severity::Info);
    // The same file system under both directories is one finding.
    found.0.dedup();
    found.0
}

#[derive(Default)]
struct Findings(Vec<Lint>);

impl Findings {
    fn warn(&mut self, name: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Severity::Warning, message.into(), remedy.into());
    }

    fn info(&mut self, name: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Severity::Info, message.into(), remedy.into());
    }

    fn add(&mut self, name: &str, severity: Severity, message: String, remedy: String) {
        self.0.push(Lint { name: name.to_owned(), severity, message, remedy });
    }

    fn build_and_acknowledgement(&mut self, environment: &Environment, setting: &Setting<'_>) {
        if environment.debug_build {
            self.warn(
                "debug-build",
                "the generator is a debug build: several times slower than a release build",
                "build with cargo build --release",
            );
        }
        if setting.ack == AckMode::Written {
            self.warn(
                "not-durable",
                "acknowledged means written, not durable: a power cut may take what was acknowledged",
                "use a stream with --ack durable to measure what survives a power cut",
            );
        }
    }

    fn cpus(&mut self, environment: &Environment) {
        let slow: Vec<_> =
            environment.governors.iter().filter(|governor| *governor != "performance").collect();
        if let Some(governor) = slow.first() {
            self.warn(
                "governor",
                format!("frequency governor {governor}: a CPU that was idle answers late"),
                "cpupower frequency-set -g performance",
            );
        }
        if environment.turbo == Some(true) {
            self.info(
                "turbo",
                "turbo is on: the frequency depends on heat and on how many cores work",
                "for figures to compare: echo 1 >/sys/devices/system/cpu/intel_pstate/no_turbo, or \
                 echo 0 >/sys/devices/system/cpu/cpufreq/boost",
            );
        }
        match environment.clock_source.as_deref() {
            None | Some("tsc" | "arch_sys_counter") => {}
            // Read without a system call, but through the hypervisor's scaling.
            Some(clock @ ("kvm-clock" | "hyperv_clocksource_tsc_page")) => self.info(
                "clock-source",
                format!("clock source {clock}: read without a system call, slower than tsc"),
                "tsc, if the hypervisor offers a stable one: see available_clocksource under \
                 /sys/devices/system/clocksource/clocksource0",
            ),
            Some(clock) => self.warn(
                "clock-source",
                format!("clock source {clock}: every look at the clock is a system call or slower"),
                "echo tsc >/sys/devices/system/clocksource/clocksource0/current_clocksource",
            ),
        }
        if let Some(quota) = environment.cpu_quota.filter(|quota| *quota < environment.cpus as f64)
        {
            self.warn(
                "cpu-quota",
                format!(
                    "the container may use {quota:.2} CPUs' time on {} CPUs: it is stopped for the \
                     rest of a period when that is used up",
                    environment.cpus
                ),
                "give the container whole CPUs (cpuset) instead of a quota",
            );
        }
        if let Some(kind) = &environment.virtualisation {
            let kind = if kind == "unknown" { String::new() } else { format!(" ({kind})") };
            self.info(
                "virtual-machine",
                format!("this is a virtual machine{kind}: neighbours and the host take part"),
                "repeat on a machine of your own before drawing conclusions about tails",
            );
        }
    }

    fn placement(&mut self, environment: &Environment, setting: &Setting<'_>) {
        let generator: BTreeSet<usize> = setting.cores.iter().copied().collect();
        let engine: BTreeSet<usize> = setting.engine_cores.iter().copied().collect();
        let both: Vec<usize> = generator.intersection(&engine).copied().collect();
        if !both.is_empty() {
            let plural = if both.len() == 1 { "CPU" } else { "CPUs" };
            self.warn(
                "cores-overlap",
                format!(
                    "generator and engine are pinned to the same {plural} {}: each waits for the other",
                    list::words(both)
                ),
                "disjoint lists for --cores and --engine-cores",
            );
        } else if setting.embedded && (generator.is_empty() || engine.is_empty()) {
            self.info(
                "cores-not-pinned",
                "generator and embedded engine may run on the same CPUs: each can hold up the other",
                "--cores and --engine-cores, with disjoint lists",
            );
        }
        let mut shared = BTreeSet::new();
        for cpus in &environment.siblings {
            let cpus = list::parse(cpus);
            let (mine, theirs) = (&cpus & &generator, &cpus & &engine);
            if !mine.is_empty() && !theirs.is_empty() && mine != theirs {
                shared.extend(cpus);
            }
        }
        if !shared.is_empty() {
            self.warn(
                "smt-sibling",
                format!(
                    "of the CPUs {} that share cores, some are the generator's and some the engine's",
                    list::words(shared)
                ),
                "--cores and --engine-cores on different cores: see thread_siblings_list under \
                 /sys/devices/system/cpu/cpu*/topology",
            );
        } else if environment.smt == Some(true) {
            self.info(
                "smt",
                "cores run two threads or more: one slows the other",
                "leave the siblings of pinned CPUs idle, or echo off >/sys/devices/system/cpu/smt/control",
            );
        }
    }

    fn others(&mut self, environment: &Environment) {
        if let Some(steal) = environment.steal.filter(|steal| *steal > STEAL) {
            self.warn(
                "steal",
                format!("the hypervisor gave {:.1} % of the CPU time to others", steal * 100.0),
                "a quieter host, or a dedicated one",
            );
        }
        let most = environment.cpus as f64 * LOAD;
        if let Some(load) = environment.load_average.filter(|load| *load > most) {
            self.warn(
                "load",
                format!(
                    "the load average was {load:.2} on {} CPUs before the run began",
                    environment.cpus
                ),
                "end other work; after another run, wait a minute",
            );
        }
    }

    fn memory(&mut self, environment: &Environment, setting: &Setting<'_>) {
        if let Some(used) = environment.swap_used_bytes.filter(|used| *used > 0) {
            self.warn(
                "swap",
                format!(
                    "{} MiB of swap are in use: what is fetched back stalls",
                    used.div_ceil(1 << 20)
                ),
                "free memory, then swapoff -a",
            );
        }
        if !setting.embedded {
            return;
        }
        if let Some(bytes) = environment.memlock_bytes.filter(|bytes| *bytes < MEMLOCK) {
            self.warn(
                "memlock",
                format!(
                    "only {} KiB may be locked: the embedded engine gets smaller rings and buffers",
                    bytes >> 10
                ),
                "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
            );
        }
        if let Some(mode) = environment.io_uring_disabled.filter(|mode| *mode > 0) {
            self.warn(
                "io-uring-disabled",
                format!(
                    "kernel.io_uring_disabled is {mode}: the embedded engine may not open its ring"
                ),
                "sysctl kernel.io_uring_disabled=0",
            );
        }
    }
}

/// What is to be said against a directory.
pub(crate) fn lint_place(place: &Place) -> Option<Lint> {
    let fill = place.fill.filter(|fill| *fill > FILL)?;
    let on = place.mount_point.as_deref().unwrap_or(&place.path);
    Some(Lint {
        name: "disk-full".to_owned(),
        severity: Severity::Warning,
        message: format!("the file system at {on} is {:.0} % full", fill * 100.0),
        remedy: "free space: file systems and SSDs slow down as they fill".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Setting<'_> =
        Setting { cores: &[], engine_cores: &[], embedded: false, ack: AckMode::Durable };

    fn good() -> Environment {
        Environment {
            cpus: 4,
            governors: vec!["performance".into()],
            turbo: Some(false),
            smt: Some(false),
            clock_source: Some("tsc".into()),
            load_average: Some(0.3),
            steal: Some(0.001),
            swap_used_bytes: Some(0),
            memlock_bytes: Some(8 << 20),
            ..Environment::default()
        }
    }

    fn names(environment: &Environment, setting: &Setting<'_>) -> Vec<String> {
        let lints = lint(environment, setting);
        assert!(lints.iter().all(|lint| !lint.message.is_empty() && !lint.remedy.is_empty()));
        lints.into_iter().map(|lint| lint.name).collect()
    }

    #[test]
    fn a_good_machine_has_nothing_against_it_and_an_unknown_one_neither() {
        assert_eq!(names(&good(), &SERVER), [""; 0]);
        assert_eq!(names(&Environment { cpus: 1, ..Environment::default() }, &SERVER), [""; 0]);
    }

    #[test]
    fn each_fault_is_named_alone() {
        type Change = fn(&mut Environment);
        let full = || Some(Place { fill: Some(0.9), ..Place::default() });
        let table: [(&str, Change); 12] = [
            ("debug-build", |e| e.debug_build = true),
            ("governor", |e| e.governors.push("powersave".into())),
            ("turbo", |e| e.turbo = Some(true)),
            ("smt", |e| e.smt = Some(true)),
            ("clock-source", |e| e.clock_source = Some("hpet".into())),
            ("clock-source", |e| e.clock_source = Some("kvm-clock".into())),
            ("steal", |e| e.steal = Some(0.02)),
            ("load", |e| e.load_average = Some(2.1)),
            ("swap", |e| e.swap_used_bytes = Some(1)),
            ("cpu-quota", |e| e.cpu_quota = Some(1.5)),
            ("virtual-machine", |e| e.virtualisation = Some("KVM".into())),
            ("turbo", |e| (e.turbo, e.cpu_quota) = (Some(true), Some(4.0))),
        ];
        for (name, change) in table {
            let mut environment = good();
            change(&mut environment);
            assert_eq!(names(&environment, &SERVER), [name]);
        }
        let environment = Environment { data_dir: full(), run_dir: full(), ..good() };
        assert_eq!(names(&environment, &SERVER), ["disk-full"], "once for one file system");
    }

    #[test]
    fn what_concerns_an_embedded_engine_is_said_only_with_one() {
        let environment = Environment { io_uring_disabled: Some(2), ..good() };
        assert_eq!(names(&environment, &SERVER), [""; 0]);
        let embedded = Setting { embedded: true, ..SERVER };
        let found = names(&environment, &embedded);
        assert_eq!(found, ["memlock", "io-uring-disabled", "cores-not-pinned"], "warnings first");
        assert_eq!(names(&good(), &Setting { ack: AckMode::Written, ..SERVER }), ["not-durable"]);
    }

    #[test]
    fn cores_that_are_shared_are_named() {
        let environment = Environment {
            smt: Some(true),
            siblings: vec!["0,4".into(), "1,5".into()],
            memlock_bytes: None,
            ..good()
        };
        let pinned = |cores, engine_cores| {
            lint(&environment, &Setting { cores, engine_cores, embedded: true, ..SERVER })
        };
        let found = pinned(&[0], &[4]);
        assert_eq!(found[0].name, "smt-sibling");
        assert!(found[0].message.contains("0 and 4"), "{}", found[0].message);
        let found = pinned(&[0, 1], &[1, 2]);
        assert_eq!(found[0].name, "cores-overlap");
        assert!(found[0].message.contains("CPU 1:"), "{}", found[0].message);
        let found = pinned(&[0], &[1]);
        assert!(found.iter().all(|lint| lint.severity == Severity::Info), "{found:?}");
    }
}
