//! What `/proc` and `/sys` tell about kernel, CPUs, memory and limits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Environment, Root, cpus, list};

/// Everything but the run's own: steal, load before it, directories.
pub(super) fn read(root: Root<'_>) -> Environment {
    let cpuinfo = root.text("proc/cpuinfo").unwrap_or_default();
    let cpu = "sys/devices/system/cpu";
    let limits = root.text("proc/self/limits").unwrap_or_default();
    let control_group = control_group(root);
    let siblings = siblings(root, cpu);
    Environment {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        debug_build: cfg!(debug_assertions),
        kernel: kernel(root),
        kernel_options: kernel_options(&root.text("proc/cmdline").unwrap_or_default()),
        virtualisation: virtualisation(root, &cpuinfo),
        cpu_model: field(&cpuinfo, "model name").map(str::to_owned),
        cpus: cpus(),
        cpus_online: root.word(format!("{cpu}/online")),
        cpus_allowed: root
            .text("proc/self/status")
            .and_then(|status| field(&status, "Cpus_allowed_list").map(str::to_owned)),
        cpus_isolated: root.word(format!("{cpu}/isolated")),
        smt: root
            .number::<u8>(format!("{cpu}/smt/active"))
            .map(|active| active != 0)
            .or((!siblings.is_empty()).then_some(true)),
        siblings,
        governors: governors(root, cpu),
        turbo: turbo(root, cpu),
        numa_nodes: Some(root.numbered("sys/devices/system/node", "node").len())
            .filter(|nodes| *nodes > 0),
        clock_source: root.word("sys/devices/system/clocksource/clocksource0/current_clocksource"),
        memory_bytes: memory(root, "MemTotal"),
        swap_used_bytes: memory(root, "SwapTotal")
            .zip(memory(root, "SwapFree"))
            .map(|(total, free)| total.saturating_sub(free)),
        huge_pages: root.choice("sys/kernel/mm/transparent_hugepage/enabled"),
        load_average: load_average(root),
        steal: None,
        cpu_quota: control_group.iter().filter_map(|group| cpu_quota(root, group)).reduce(f64::min),
        memory_quota_bytes: control_group
            .iter()
            .filter_map(|group| root.number(group.join("memory.max")))
            .min(),
        memlock_bytes: limit(&limits, "Max locked memory"),
        open_files: limit(&limits, "Max open files"),
        io_uring_disabled: root.number("proc/sys/kernel/io_uring_disabled"),
        data_dir: None,
        run_dir: None,
    }
}

/// Processes running or waiting, over the last minute.
pub(super) fn load_average(root: Root<'_>) -> Option<f64> {
    let load = root.text("proc/loadavg")?.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    load.is_finite().then_some(load)
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
        .filter(|value| !value.is_empty())
}

fn kernel(root: Root<'_>) -> String {
    let release = root.word("proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {release}", std::env::consts::OS).trim().to_owned()
}

/// The options that change how long things take. The rest of a command line is nobody's business, and
/// may hold secrets.
fn kernel_options(command_line: &str) -> Vec<String> {
    const TIMING: [&str; 16] = [
        "mitigations",
        "isolcpus",
        "nohz",
        "nohz_full",
        "rcu_nocbs",
        "idle",
        "nosmt",
        "tsc",
        "clocksource",
        "intel_pstate",
        "amd_pstate",
        "intel_idle.max_cstate",
        "processor.max_cstate",
        "transparent_hugepage",
        "preempt",
        "irqaffinity",
    ];
    command_line
        .split_ascii_whitespace()
        // What follows is for the first process.
        .take_while(|option| *option != "--")
        .filter(|option| TIMING.contains(&option.split('=').next().unwrap_or_default()))
        .map(str::to_owned)
        .collect()
}

fn virtualisation(root: Root<'_>, cpuinfo: &str) -> Option<String> {
    if let Some(kind) = root.word("sys/hypervisor/type") {
        return Some(kind);
    }
    let vendor = root.word("sys/class/dmi/id/sys_vendor");
    // x86 has a flag for it; elsewhere only the emulated board tells.
    let flags = field(cpuinfo, "flags").unwrap_or_default();
    let flagged = flags.split_ascii_whitespace().any(|flag| flag == "hypervisor");
    if !flagged && vendor.as_deref() != Some("QEMU") {
        return None;
    }
    let board: Vec<String> =
        vendor.into_iter().chain(root.word("sys/class/dmi/id/product_name")).collect();
    Some(if board.is_empty() { "unknown".to_owned() } else { board.join(" ") })
}

fn siblings(root: Root<'_>, cpu: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let lists = root.numbered(cpu, "cpu").into_iter().filter_map(|name| {
        let list = root.word(format!("{cpu}/{name}/topology/thread_siblings_list"))?;
        // The same list stands with each of its CPUs.
        (list::parse(&list).len() > 1 && seen.insert(list.clone())).then_some(list)
    });
    lists.collect()
}

fn governors(root: Root<'_>, cpu: &str) -> Vec<String> {
    let names = root.numbered(cpu, "cpu").into_iter();
    let governors: BTreeSet<String> = names
        .filter_map(|name| root.word(format!("{cpu}/{name}/cpufreq/scaling_governor")))
        .collect();
    governors.into_iter().collect()
}

fn turbo(root: Root<'_>, cpu: &str) -> Option<bool> {
    let off = root.number::<u8>(format!("{cpu}/intel_pstate/no_turbo")).map(|off| off == 0);
    off.or_else(|| root.number::<u8>(format!("{cpu}/cpufreq/boost")).map(|on| on != 0))
}

/// A line of `/proc/meminfo`, in bytes.
fn memory(root: Root<'_>, name: &str) -> Option<u64> {
    let text = root.text("proc/meminfo")?;
    let kib: u64 = field(&text, name)?.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit in a line of `/proc/self/limits`; `None` if unlimited or not there.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The directories of this process's control group (v2) and of all above it: each may limit.
fn control_group(root: Root<'_>) -> Vec<PathBuf> {
    let text = root.text("proc/self/cgroup").unwrap_or_default();
    let Some(group) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let ancestors = Path::new(group).ancestors();
    ancestors.map(|group| Path::new("sys/fs/cgroup").join(group)).collect()
}

fn cpu_quota(root: Root<'_>, group: &Path) -> Option<f64> {
    let text = root.word(group.join("cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota.is_finite() && period > 0.0).then_some(quota / period)
}
