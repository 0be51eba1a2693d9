//! The environment of a run as names and values: what is known, nothing else.

use super::figures::{bytes, percent, whole};
use crate::Environment;
use crate::environment::Place;

/// As rows of a table.
pub fn rows(e: &Environment) -> Vec<(String, String)> {
    let mut rows = Rows::default();
    let build = if e.debug_build { "DEBUG BUILD" } else { "release build" };
    rows.add("generator", (!e.version.is_empty()).then(|| format!("{}, {build}", e.version)));
    rows.add("kernel", (!e.kernel.is_empty()).then(|| e.kernel.clone()));
    rows.add("kernel options", joined(&e.kernel_options));
    rows.add("virtual machine", e.virtualisation.clone());
    rows.add("CPU", e.cpu_model.clone());
    rows.add("CPUs this process may use", (e.cpus > 0).then(|| whole(e.cpus as u64)));
    rows.add("CPUs online", e.cpus_online.clone());
    rows.add("CPUs allowed", e.cpus_allowed.clone());
    rows.add("CPUs isolated", e.cpus_isolated.clone());
    rows.add("SMT", e.smt.map(on_or_off));
    rows.add("CPUs that share a core", joined(&e.siblings));
    rows.add("frequency governor", joined(&e.governors));
    rows.add("turbo", e.turbo.map(on_or_off));
    rows.add("NUMA nodes", e.numa_nodes.map(|nodes| whole(nodes as u64)));
    rows.add("clock source", e.clock_source.clone());
    rows.add("memory", e.memory_bytes.map(size));
    rows.add("swap in use", e.swap_used_bytes.map(size));
    rows.add("transparent huge pages", e.huge_pages.clone());
    rows.add("load average before the run", e.load_average.map(|load| format!("{load:.2}")));
    rows.add("steal during the run", e.steal.map(percent));
    rows.add("container CPU limit", e.cpu_quota.map(|cpus| format!("{cpus:.2} CPUs")));
    rows.add("container memory limit", e.memory_quota_bytes.map(size));
    rows.add("lockable memory", e.memlock_bytes.map(size));
    rows.add("open files", e.open_files.map(whole));
    rows.add(
        "io_uring",
        e.io_uring_disabled.map(|level| {
            match level {
                0 => "allowed",
                1 => "for a group only",
                _ => "disabled",
            }
            .to_owned()
        }),
    );
    rows.place("data", e.data_dir.as_ref());
    rows.place("run directory", e.run_dir.as_ref());
    rows.0
}

#[derive(Default)]
struct Rows(Vec<(String, String)>);

impl Rows {
    fn add(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.push((name.to_owned(), value));
        }
    }

    fn place(&mut self, name: &str, place: Option<&Place>) {
        let Some(place) = place else { return };
        self.add(name, Some(place.path.clone()));
        let mount = [&place.file_system, &place.mount_point, &place.mount_options];
        self.add(&format!("{name}: mount"), words(mount));
        let turns =
            place.rotational.map(|turns| if turns { "rotational" } else { "not rotational" });
        let device = [
            place.device.clone(),
            joined(&place.members).map(|members| format!("of {members}")),
            place.model.clone(),
            turns.map(str::to_owned),
            place.scheduler.as_ref().map(|scheduler| format!("scheduler {scheduler}")),
            place.write_cache.as_ref().map(|cache| format!("cache {cache}")),
        ];
        self.add(&format!("{name}: device"), words(device.each_ref()));
        let fill = place.size_bytes.zip(place.fill);
        let fill = fill.map(|(bytes, fill)| format!("{}, {} in use", size(bytes), percent(fill)));
        self.add(&format!("{name}: size"), fill);
    }
}

fn words<const N: usize>(words: [&Option<String>; N]) -> Option<String> {
    let known: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
    (!known.is_empty()).then(|| known.join(", "))
}

fn joined(list: &[String]) -> Option<String> {
    (!list.is_empty()).then(|| list.join(" "))
}

fn on_or_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

fn size(value: u64) -> String {
    bytes(value as f64)
}
