//! What about this machine keeps a server from being as fast or as safe as it could be: what was found, what it costs,
//! what to set. `docs/operating.md` has the same list.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::{Environment, Place, Root, list, machine};

/// The oldest kernel the server runs on.
const KERNEL: (u32, u32) = (6, 1);
/// Locked memory for each core of a server with its default memory, bytes: the engine's registered buffers.
const MEMLOCK: u64 = 32 << 20;
/// Open files: what a core keeps open, and its connections by default.
const OPEN_FILES: u64 = 64 + 128 + 4096;
/// A file system fuller than this share slows down, and an SSD under it.
const FILL: f64 = 0.80;
/// Leaving an idle state that takes longer than this is felt beside a durable write, microseconds.
const WAKE_US: u64 = 50;

/// How much a [`Check`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A server does not start, or does not keep what it acknowledged.
    Bad,
    /// It is slower, or less even, than it could be.
    Warning,
    /// Worth knowing.
    Note,
    /// As it should be.
    Good,
    /// The system does not tell.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// How much it matters.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What that costs; empty if nothing.
    pub costs: String,
    /// What to set; empty if nothing.
    pub set: String,
}

/// All that was looked at, the worst first.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// In the order of their verdicts.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// The worst verdict; good if nothing was looked at.
    pub fn worst(&self) -> Verdict {
        self.checks.first().map_or(Verdict::Good, |check| check.verdict)
    }
}

/// Looks at this machine, for a server with its data in `dir` (a directory that need not exist yet) and its cores' threads
/// on the CPUs `cores` (empty: wherever).
pub fn diagnose(dir: &Path, cores: &[usize]) -> Diagnosis {
    let root = Root::system();
    examine(root, &machine::read(root), &Place::of(dir), cores)
}

pub(super) fn examine(
    root: Root<'_>,
    environment: &Environment,
    place: &Place,
    cores: &[usize],
) -> Diagnosis {
    let mut patient = Patient { root, environment, place, cores, checks: Vec::new() };
    patient.kernel();
    patient.limits();
    patient.processors();
    patient.clock();
    patient.memory();
    patient.file_system();
    patient.device();
    patient.interrupts();
    let mut checks = patient.checks;
    checks.sort_by_key(|check| check.verdict);
    Diagnosis { checks }
}

struct Patient<'a> {
    root: Root<'a>,
    environment: &'a Environment,
    place: &'a Place,
    cores: &'a [usize],
    checks: Vec<Check>,
}

impl Patient<'_> {
    fn good(&mut self, name: &'static str, found: impl Into<String>) {
        self.say(name, Verdict::Good, found, "", "");
    }

    fn unknown(&mut self, name: &'static str) {
        self.say(name, Verdict::Unknown, "the system does not tell", "", "");
    }

    fn say(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        costs: impl Into<String>,
        set: impl Into<String>,
    ) {
        let (found, costs, set) = (found.into(), costs.into(), set.into());
        self.checks.push(Check { name, verdict, found, costs, set });
    }

    fn kernel(&mut self) {
        let kernel = self.environment.kernel.clone();
        let release = kernel.split_whitespace().nth(1).unwrap_or_default();
        let mut numbers =
            release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
        match numbers.next().zip(numbers.next()) {
            None => self.unknown("kernel"),
            Some(found) if found >= KERNEL => self.good("kernel", kernel),
            Some(_) => self.say(
                "kernel",
                Verdict::Bad,
                kernel,
                "operations the ring needs are missing",
                format!("Linux {}.{} or later", KERNEL.0, KERNEL.1),
            ),
        }
        match self.environment.io_uring_disabled {
            None | Some(0) => self.good("io_uring", "allowed by the kernel's setting"),
            Some(mode) => self.say(
                "io_uring",
                Verdict::Bad,
                format!("kernel.io_uring_disabled is {mode}"),
                "a server cannot start",
                "sysctl -w kernel.io_uring_disabled=0; keep it in /etc/sysctl.d",
            ),
        }
    }

    fn limits(&mut self) {
        let cores = if self.cores.is_empty() { 1 } else { self.cores.len() as u64 };
        match self.environment.memlock_bytes {
            None => self.good("memlock", "unlimited"),
            Some(bytes) if bytes >= MEMLOCK * cores => {
                self.good("memlock", format!("{} MiB may be locked", bytes >> 20));
            }
            Some(bytes) => self.say(
                "memlock",
                Verdict::Warning,
                format!("{} MiB may be locked", bytes >> 20),
                "buffers that are not registered: large writes take more CPU",
                "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited",
            ),
        }
        match self.environment.open_files {
            None => self.good("nofile", "unlimited"),
            Some(files) if files >= OPEN_FILES * cores => {
                self.good("nofile", format!("{files} files"))
            }
            // The server raises it to the hard limit by itself.
            Some(files) => self.say(
                "nofile",
                Verdict::Note,
                format!(
                    "{files} files may be open, before the server raises that to the hard limit"
                ),
                format!(
                    "connections wait beyond it; {} take all that are allowed",
                    OPEN_FILES * cores
                ),
                "LimitNOFILE=65536 in the unit",
            ),
        }
    }

    fn processors(&mut self) {
        let slow: Vec<&String> =
            self.environment.governors.iter().filter(|name| *name != "performance").collect();
        if self.environment.governors.is_empty() {
            self.unknown("governor");
        } else if let Some(governor) = slow.first() {
            let found = format!("frequency governor {governor}");
            let costs =
                "a CPU that was idle is slow for its first milliseconds: tails of little load";
            self.say(
                "governor",
                Verdict::Warning,
                found,
                costs,
                "cpupower frequency-set -g performance",
            );
        } else {
            self.good("governor", "performance");
        }
        self.idle_states();
        match self.environment.smt {
            None => self.unknown("smt"),
            Some(false) => self.good("smt", "a thread a core"),
            Some(true) => self.say(
                "smt",
                Verdict::Note,
                "two threads or more share a core",
                "a busy sibling takes about a third of a core's speed",
                "leave the siblings of --cores idle: thread_siblings_list under \
                 /sys/devices/system/cpu/cpu*/topology",
            ),
        }
        self.isolation();
        self.numa();
        if let Some(kind) = self.environment.virtualisation.clone() {
            self.say(
                "virtual-machine",
                Verdict::Note,
                kind,
                "neighbours take CPU time (steal) and a share of the device: tails are theirs",
                "a machine of its own, or dedicated CPUs",
            );
        }
        if let Some(quota) = self.environment.cpu_quota {
            self.say(
                "cpu-quota",
                Verdict::Warning,
                format!("{quota:.2} CPUs' time for this control group"),
                "stopped for the rest of each 100 ms in which that is used up",
                "whole CPUs (cpuset, AllowedCPUs=) instead of CPUQuota=",
            );
        }
    }

    /// The slowest idle state that is on, of the first CPU.
    fn idle_states(&mut self) {
        let states = "sys/devices/system/cpu/cpu0/cpuidle";
        let latency = |state: &String| {
            let on = self.root.number::<u8>(format!("{states}/{state}/disable")) != Some(1);
            let latency = self.root.number::<u64>(format!("{states}/{state}/latency"))?;
            let name = self.root.word(format!("{states}/{state}/name"))?;
            on.then_some((latency, name))
        };
        let slowest = self.root.numbered(states, "state").iter().filter_map(latency).max();
        match slowest {
            None => self.unknown("idle-states"),
            Some((us, name)) if us > WAKE_US => self.say(
                "idle-states",
                Verdict::Warning,
                format!("an idle CPU may go to {name}, {us} us from which to wake"),
                "that much for each lone append: p50 of little load",
                "cpupower idle-set -D 50, or /dev/cpu_dma_latency held at 0 by a tuned profile",
            ),
            Some((us, name)) => self.good("idle-states", format!("{name} at the deepest, {us} us")),
        }
    }

    fn isolation(&mut self) {
        if self.cores.is_empty() {
            return;
        }
        let isolated: BTreeSet<usize> =
            self.environment.cpus_isolated.as_deref().map(list::parse).unwrap_or_default();
        let open: Vec<usize> =
            self.cores.iter().copied().filter(|cpu| !isolated.contains(cpu)).collect();
        if open.is_empty() {
            self.good("isolation", "the kernel keeps other work off the server's CPUs");
        } else {
            self.say(
                "isolation",
                Verdict::Note,
                format!("other work may run on CPUs {}", list::words(open)),
                "whatever runs there delays everything of that core",
                "AllowedCPUs= for everybody else's slice, or isolcpus= on the kernel's command line",
            );
        }
    }

    fn numa(&mut self) {
        let Some(nodes) = self.environment.numa_nodes else { return self.unknown("numa") };
        if nodes < 2 {
            return self.good("numa", "one node");
        }
        let device = self.place.device.clone().unwrap_or_default();
        let node = self.root.number::<i32>(format!("sys/class/block/{device}/device/numa_node"));
        let node = node.filter(|node| *node >= 0);
        let found = match node {
            Some(node) => format!("{nodes} nodes; {device} is on node {node}"),
            None => format!("{nodes} nodes; that of the device is not told"),
        };
        let cpus = node
            .and_then(|node| self.root.word(format!("sys/devices/system/node/node{node}/cpulist")));
        let near = cpus.as_deref().map(list::parse).unwrap_or_default();
        if !self.cores.is_empty() && self.cores.iter().all(|cpu| near.contains(cpu)) {
            return self.good("numa", found);
        }
        let set = cpus.map_or_else(
            || "--cores on the node of the device and the network card".to_owned(),
            |cpus| format!("--cores out of {cpus}"),
        );
        let costs = "memory and device across the node's border: 10 to 30 % of throughput";
        self.say("numa", Verdict::Note, found, costs, set);
    }

    fn clock(&mut self) {
        match self.environment.clock_source.clone() {
            None => self.unknown("clock-source"),
            Some(clock) if ["tsc", "arch_sys_counter"].contains(&clock.as_str()) => {
                self.good("clock-source", clock);
            }
            Some(clock)
                if ["kvm-clock", "hyperv_clocksource_tsc_page"].contains(&clock.as_str()) =>
            {
                let costs = "some 20 ns more for each look at the clock";
                let set = "tsc, if the hypervisor offers a stable one";
                self.say("clock-source", Verdict::Note, clock, costs, set);
            }
            Some(clock) => self.say(
                "clock-source",
                Verdict::Warning,
                clock,
                "every look at the clock is a system call, 0.3 us to 1 us and more",
                "echo tsc >/sys/devices/system/clocksource/clocksource0/current_clocksource",
            ),
        }
    }

    fn memory(&mut self) {
        match self.environment.swap_used_bytes {
            None => self.unknown("swap"),
            Some(0) => self.good("swap", "none in use"),
            Some(used) => self.say(
                "swap",
                Verdict::Warning,
                format!("{} MiB in use", used.div_ceil(1 << 20)),
                "a thread that touches what is out waits for the disk",
                "free memory, then swapoff -a; MemorySwapMax=0 in the unit",
            ),
        }
    }

    fn file_system(&mut self) {
        let on = self.place.mount_point.clone().unwrap_or_else(|| self.place.path.clone());
        let Some(kind) = self.place.file_system.clone() else {
            return self.unknown("file-system");
        };
        let found = format!("{kind} at {on}");
        let options = self.place.mount_options.clone().unwrap_or_default();
        let mounted_with = |wanted: &str| options.split(',').any(|option| option == wanted);
        match kind.as_str() {
            "ext4" | "xfs" if mounted_with("data=journal") => {
                let costs = "every byte is written twice, and O_DIRECT is not";
                self.say("file-system", Verdict::Warning, found + ", data=journal", costs, "data=ordered");
            }
            "ext4" | "xfs" if mounted_with("discard") => {
                let costs = "who removes a large file holds up every durable write, for 0.1 s and more";
                let set = "mount without discard, and fstrim.timer";
                self.say("file-system", Verdict::Warning, found + ", discard", costs, set);
            }
            "ext4" | "xfs" => self.good("file-system", found),
            "tmpfs" | "ramfs" => self.say(
                "file-system",
                Verdict::Bad,
                found,
                "NOT DURABLE: what was acknowledged is gone with the power",
                "ext4 or xfs on a local device",
            ),
            _ => self.say(
                "file-system",
                Verdict::Warning,
                found,
                "promises were measured on ext4 and xfs only; copy on write costs several times the latency",
                "ext4 or xfs on a local device",
            ),
        }
        match self.place.fill {
            None => self.unknown("fill"),
            Some(fill) if fill > FILL => self.say(
                "fill",
                Verdict::Warning,
                format!("{:.0} % of it is in use", fill * 100.0),
                "file systems and SSDs slow down as they fill",
                "less retention, or a larger device",
            ),
            Some(fill) => self.good("fill", format!("{:.0} % of it is in use", fill * 100.0)),
        }
    }

    fn device(&mut self) {
        let Some(device) = self.place.device.clone() else {
            return self.unknown("device");
        };
        let queue = format!("sys/class/block/{device}/queue");
        let model = self.place.model.as_ref().map_or(String::new(), |model| format!(" ({model})"));
        if self.place.rotational == Some(true) {
            self.say(
                "device",
                Verdict::Warning,
                format!("{device}{model} says that it turns"),
                "milliseconds for each durable write, if that is true",
                "an NVMe or SSD",
            );
        } else {
            self.good("device", format!("{device}{model}"));
        }
        match (self.place.write_cache.as_deref(), self.root.number::<u8>(format!("{queue}/fua"))) {
            (None, _) => self.unknown("write-cache"),
            (Some("write through"), _) => {
                self.good("write-cache", "none that a power cut empties: a write is durable");
            }
            (Some(cache), Some(1)) => self.say(
                "write-cache",
                Verdict::Note,
                format!("{cache}, with FUA"),
                "a durable write goes past the cache",
                "a device with protection against loss of power has no such cost",
            ),
            (Some(cache), _) => self.say(
                "write-cache",
                Verdict::Note,
                format!("{cache}, without FUA"),
                "a flush of the whole cache behind each commit group",
                "a device with FUA, or with protection against loss of power",
            ),
        }
        match self.place.scheduler.clone() {
            None => self.unknown("scheduler"),
            Some(scheduler) if scheduler == "none" => self.good("scheduler", scheduler),
            Some(scheduler) => self.say(
                "scheduler",
                Verdict::Note,
                scheduler,
                "sorting and a lock for each request: a few per cent of CPU on a fast device",
                format!("echo none >/sys/class/block/{device}/queue/scheduler"),
            ),
        }
        match self.root.number::<u8>(format!("{queue}/io_poll")) {
            None => self.unknown("poll-queues"),
            Some(1) => self.good("poll-queues", "there are some"),
            Some(_) => self.say(
                "poll-queues",
                Verdict::Note,
                "none",
                "every completion is an interrupt; the engine does not poll, so that it costs nothing now",
                "nothing, unless a benchmark of the device asks for them (nvme.poll_queues=)",
            ),
        }
    }

    /// Whether the device interrupts the server's CPUs, or others.
    fn interrupts(&mut self) {
        let Some(device) = self.place.device.clone() else { return };
        let owner = owner(self.root, &device);
        let text = self.root.text("proc/interrupts").unwrap_or_default();
        let cpus = interrupted(&text, &owner);
        if cpus.is_empty() {
            return self.unknown("interrupts");
        }
        let found = format!("{device} has interrupted CPUs {}", list::words(cpus.iter().copied()));
        if self.cores.is_empty() || cpus.iter().all(|cpu| self.cores.contains(cpu)) {
            return self.good("interrupts", found);
        }
        self.say(
            "interrupts",
            Verdict::Note,
            found,
            "completions for a core arrive on another CPU, and delay whatever runs there",
            "a queue for each CPU of --cores: smp_affinity_list under /proc/irq, irqbalance off",
        );
    }
}

/// As the kernel names the interrupts of a disk: `nvme0` of `nvme0n1`, `virtio1` of `vda`.
fn owner(root: Root<'_>, device: &str) -> String {
    if let Some((controller, _)) = device.strip_prefix("nvme").and_then(|rest| rest.split_once('n'))
    {
        return format!("nvme{controller}q");
    }
    let above = root.path(format!("sys/class/block/{device}")).canonicalize().ok();
    let virtio = above.and_then(|path| {
        let mut parts =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        parts.rfind(|part| part.starts_with("virtio"))
    });
    virtio.map_or_else(|| device.to_owned(), |virtio| format!("{virtio}-"))
}

/// CPUs on which an interrupt whose name begins with `owner` has come.
fn interrupted(interrupts: &str, owner: &str) -> BTreeSet<usize> {
    let cpus = interrupts.lines().next().unwrap_or_default().split_whitespace();
    let cpus: Vec<usize> = cpus.filter_map(|cpu| cpu.strip_prefix("CPU")?.parse().ok()).collect();
    let of_owner =
        |line: &&str| line.split_whitespace().next_back().is_some_and(|n| n.starts_with(owner));
    let counts = interrupts.lines().skip(1).filter(of_owner);
    counts
        .flat_map(|line| line.split_whitespace().skip(1).zip(&cpus))
        .filter(|(count, _)| count.parse::<u64>().is_ok_and(|count| count > 0))
        .map(|(_, cpu)| *cpu)
        .collect()
}

#[cfg(test)]
mod tests;
