//! Reading a machine that the test makes up.

use std::path::Path;

use super::*;

/// A tree with these files; a text that begins with `->` makes a symbolic link.
pub(super) fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("->") {
            Some(to) => std::os::unix::fs::symlink(to, path).unwrap(),
            None => std::fs::write(path, text).unwrap(),
        }
    }
    dir
}

#[test]
fn a_machine_is_read_from_its_files() {
    let dir = machine(&[
        ("proc/sys/kernel/osrelease", "6.12.3\n"),
        ("proc/cmdline", "root=/dev/sda secret=x mitigations=off isolcpus=2-3 -- idle=poll\n"),
        (
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu hypervisor\n",
        ),
        ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-1\n"),
        (
            "proc/self/limits",
            "Limit  Soft  Hard\nMax open files  1024  4096  files\n\
                              Max locked memory  unlimited  unlimited  bytes\n",
        ),
        ("proc/self/cgroup", "1:cpu:/old\n0::/a/b\n"),
        ("proc/meminfo", "MemTotal:  1024 kB\nSwapTotal: 100 kB\nSwapFree: 60 kB\n"),
        ("proc/loadavg", "1.25 0.5 0.1 1/100 7\n"),
        ("proc/sys/kernel/io_uring_disabled", "1\n"),
        ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ("sys/fs/cgroup/a/memory.max", "4096\n"),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("sys/devices/system/cpu/isolated", "\n"),
        ("sys/devices/system/cpu/smt/active", "1\n"),
        ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n"),
        ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "0,2\n"),
        ("sys/devices/system/cpu/cpu10/topology/thread_siblings_list", "10\n"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
        ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance\n"),
        ("sys/devices/system/cpu/cpuidle/x", ""),
        ("sys/devices/system/cpu/intel_pstate/no_turbo", "0\n"),
        ("sys/devices/system/node/node0/x", ""),
        ("sys/devices/system/node/node1/x", ""),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ("sys/class/dmi/id/sys_vendor", "Maker\n"),
        ("sys/class/dmi/id/product_name", "Board\n"),
    ]);
    let found = machine::read(Root(dir.path()));
    assert!(found.kernel.ends_with(" 6.12.3"), "{}", found.kernel);
    assert_eq!(found.kernel_options, ["mitigations=off", "isolcpus=2-3"]);
    assert_eq!(found.virtualisation.as_deref(), Some("Maker Board"));
    assert_eq!(found.cpu_model.as_deref(), Some("Some CPU @ 3 GHz"));
    assert_eq!(found.cpus_online.as_deref(), Some("0-3"));
    assert_eq!(found.cpus_allowed.as_deref(), Some("0-1"));
    assert_eq!(found.cpus_isolated, None);
    assert_eq!((found.smt, found.siblings), (Some(true), vec!["0,2".to_owned()]));
    assert_eq!(found.governors, ["performance", "powersave"]);
    assert_eq!((found.turbo, found.numa_nodes), (Some(true), Some(2)));
    assert_eq!(found.clock_source.as_deref(), Some("hpet"));
    assert_eq!((found.memory_bytes, found.swap_used_bytes), (Some(1 << 20), Some(40 << 10)));
    assert_eq!(found.huge_pages.as_deref(), Some("madvise"));
    assert_eq!(found.load_average, Some(1.25));
    assert_eq!((found.cpu_quota, found.memory_quota_bytes), (Some(1.5), Some(4096)));
    assert_eq!((found.memlock_bytes, found.open_files), (None, Some(1024)));
    assert_eq!(found.io_uring_disabled, Some(1));
}

#[test]
fn a_machine_that_tells_nothing_or_nonsense_is_read_without_guesses() {
    let dir = machine(&[
        ("proc/cpuinfo", "\n:\n"),
        ("proc/loadavg", "NaN\n"),
        ("proc/meminfo", "MemTotal: 99999999999999999999 kB\nSwapFree: x kB\n"),
        ("proc/self/limits", "Max open files\n"),
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/cpu.max", "1 0\n"),
        ("sys/devices/system/cpu/smt/active", "maybe"),
    ]);
    let found = machine::read(Root(dir.path()));
    let empty = machine::read(Root(&dir.path().join("nowhere")));
    assert_eq!(found, empty);
    assert_eq!(found.turbo.or(found.smt), None);
    assert!(found.cpus >= 1);
}

#[test]
fn a_directory_is_traced_to_its_disk() {
    let disk = "sys/devices/pci/nvme0/nvme0n1";
    let at = |file: &str| format!("{disk}/{file}");
    let files = [
        (
            "proc/self/mountinfo".to_owned(),
            "1 0 259:2 / /data rw,noatime - xfs /dev/nvme0n1p2 rw,attr2\n\
          2 0 0:40 / /home rw - btrfs /dev/dm-0 rw\n3 0 0:41 / /tmp rw - tmpfs tmpfs rw\n"
                .to_owned(),
        ),
        (at("device/model"), "Fast SSD   \n".to_owned()),
        (at("queue/write_cache"), "write back\n".to_owned()),
        (at("queue/rotational"), "0\n".to_owned()),
        (at("queue/scheduler"), "[none] mq-deadline\n".to_owned()),
        (at("nvme0n1p2/partition"), "2\n".to_owned()),
        (
            "sys/dev/block/259:2".to_owned(),
            "->../../devices/pci/nvme0/nvme0n1/nvme0n1p2".to_owned(),
        ),
        (
            "sys/devices/virtual/block/dm-0/slaves/nvme0n1p2".to_owned(),
            "->../../../../pci/nvme0/nvme0n1/nvme0n1p2".to_owned(),
        ),
        ("sys/class/block/dm-0".to_owned(), "->../../devices/virtual/block/dm-0".to_owned()),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let dir = machine(&files);
    let place = |path| Place::below(Root(dir.path()), Path::new(path));

    let data = place("/data/x");
    assert_eq!(data.file_system.as_deref(), Some("xfs"));
    assert_eq!(data.mount_point.as_deref(), Some("/data"));
    assert_eq!(data.mount_options.as_deref(), Some("rw,noatime,attr2"));
    assert_eq!(
        (data.device.as_deref(), data.model.as_deref()),
        (Some("nvme0n1"), Some("Fast SSD"))
    );
    assert_eq!(data.write_cache.as_deref(), Some("write back"));
    assert_eq!((data.rotational, data.scheduler.as_deref()), (Some(false), Some("none")));

    let home = place("/home");
    assert_eq!((home.device.as_deref(), home.model.as_deref()), (Some("dm-0"), Some("Fast SSD")));
    assert_eq!(home.members, ["nvme0n1"]);
    assert_eq!(place("/tmp").device, None);
    assert_eq!(place("/elsewhere").file_system, None);
}

#[test]
fn this_machine_is_read_and_written_down_and_read_back() {
    let before = Before::read();
    let found = Environment::read(Some(Path::new("/")), &before);
    assert!(!found.kernel.is_empty() && !found.version.is_empty() && found.cpus >= 1);
    assert_eq!(found.data_dir.as_ref().map(|place| place.path.as_str()), Some("/"));
    let json = serde_json::to_string(&found).unwrap();
    let back: Environment = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    assert_eq!(serde_json::from_str::<Environment>("{}").unwrap(), Environment::default());
}
