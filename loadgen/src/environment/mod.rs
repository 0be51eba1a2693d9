//! Where the generator ran, as far as it decides what the figures are worth.
//!
//! Everything comes from `/proc` and `/sys`; what a system does not tell is absent, never guessed.
//! [`lint()`] says what about it makes figures worse or hard to repeat.

mod cpu_time;
pub mod doctor;
mod lint;
mod list;
mod machine;
mod place;
mod root;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub(crate) use cpu_time::CpuTime;
pub use lint::{Lint, Severity};
pub(crate) use lint::{Setting, lint, lint_place};
pub use place::Place;
use root::Root;

/// The machine of the load generator. Lists of CPUs are in the kernel's notation, as `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Release of the generator.
    pub version: String,
    /// Whether the generator was built without optimisation.
    pub debug_build: bool,
    /// Operating system and kernel release.
    pub kernel: String,
    /// Options on the kernel's command line that change timing, `mitigations=` and the like.
    pub kernel_options: Vec<String>,
    /// Which kind of virtual machine this is, where it can be told.
    pub virtualisation: Option<String>,
    /// The CPU's name.
    pub cpu_model: Option<String>,
    /// CPUs this process may use, at least 1.
    pub cpus: usize,
    /// CPUs that are on.
    pub cpus_online: Option<String>,
    /// CPUs this process may be scheduled on.
    pub cpus_allowed: Option<String>,
    /// CPUs the kernel keeps other work off (`isolcpus=`).
    pub cpus_isolated: Option<String>,
    /// CPUs that share a core, one list per core; empty without SMT.
    pub siblings: Vec<String>,
    /// Whether cores run more than one thread.
    pub smt: Option<bool>,
    /// Frequency governors in use, each once; empty where the frequency is not ours to govern.
    pub governors: Vec<String>,
    /// Whether the CPU may go above its nominal frequency.
    pub turbo: Option<bool>,
    /// NUMA nodes.
    pub numa_nodes: Option<usize>,
    /// What the kernel reads the time from.
    pub clock_source: Option<String>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Swap in use at the end, in bytes.
    pub swap_used_bytes: Option<u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Processes running or waiting, over the minute before the run.
    pub load_average: Option<f64>,
    /// Share of all CPU time during the run that the hypervisor gave to others, 0 to 1.
    pub steal: Option<f64>,
    /// CPUs' worth of time the container (cgroup v2) may use; absent if not limited.
    pub cpu_quota: Option<f64>,
    /// Memory the container may use, in bytes; absent if not limited.
    pub memory_quota_bytes: Option<u64>,
    /// Memory this process may lock, in bytes; absent if not limited.
    pub memlock_bytes: Option<u64>,
    /// Files this process may have open; absent if not limited.
    pub open_files: Option<u64>,
    /// `kernel.io_uring_disabled`: 0 allowed, 1 for a group only, 2 for nobody.
    pub io_uring_disabled: Option<u8>,
    /// Where an embedded engine keeps its data.
    pub data_dir: Option<Place>,
    /// Where the run directory is.
    pub run_dir: Option<Place>,
}

/// What must be read before the first record, because the run changes it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    cpu: Option<CpuTime>,
    load: Option<f64>,
}

impl Before {
    /// Now.
    pub(crate) fn read() -> Before {
        Before { cpu: CpuTime::read(), load: machine::load_average(Root::system()) }
    }
}

impl Environment {
    /// Of this machine, at the end of a run that began at `before`; `data` is where an embedded engine
    /// keeps its data. The run directory adds itself ([`crate::RunDir::finish`]).
    pub(crate) fn read(data: Option<&Path>, before: &Before) -> Environment {
        Environment {
            steal: before.cpu.zip(CpuTime::read()).and_then(|(then, now)| now.steal_since(then)),
            load_average: before.load,
            data_dir: data.map(Place::of),
            ..machine::read(Root::system())
        }
    }
}

/// CPUs this process may use, at least 1.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
