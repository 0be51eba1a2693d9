//! A machine as it should be has nothing against it; each fault is found, with what it costs and what to set.

use super::super::tests::machine;
use super::*;

const INTERRUPTS: &str = "           CPU0       CPU2\n 36:  0  17  PCI-MSIX-0000:00:02.0  1-edge  nvme0q1\n \
                          37:  3  0  PCI-MSIX  1-edge  nvme1q1\n";

fn perfect() -> (Environment, Place) {
    let environment = Environment {
        kernel: "linux 6.12.3".into(),
        cpus: 4,
        governors: vec!["performance".into()],
        smt: Some(false),
        numa_nodes: Some(1),
        clock_source: Some("tsc".into()),
        cpus_isolated: Some("2-3".into()),
        swap_used_bytes: Some(0),
        ..Environment::default()
    };
    let place = Place {
        file_system: Some("xfs".into()),
        mount_point: Some("/data".into()),
        device: Some("nvme0n1".into()),
        rotational: Some(false),
        write_cache: Some("write through".into()),
        scheduler: Some("none".into()),
        fill: Some(0.2),
        ..Place::default()
    };
    (environment, place)
}

fn healthy_tree() -> tempfile::TempDir {
    machine(&[
        ("proc/interrupts", INTERRUPTS),
        ("sys/class/block/nvme0n1/queue/io_poll", "1\n"),
        ("sys/class/block/nvme0n1/queue/fua", "1\n"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state1/latency", "2\n"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state1/name", "C1\n"),
    ])
}

#[test]
fn nothing_is_said_against_a_machine_that_is_as_it_should_be() {
    let (environment, place) = perfect();
    let tree = healthy_tree();
    let diagnosis = examine(Root(tree.path()), &environment, &place, &[2]);
    assert_eq!(diagnosis.worst(), Verdict::Good, "{diagnosis:#?}");
    assert!(diagnosis.checks.iter().all(|check| check.costs.is_empty() && check.set.is_empty()));
}

#[test]
fn each_fault_is_found_and_has_its_cost_and_its_remedy() {
    type Fault = fn(&mut Environment, &mut Place);
    let table: [(&str, Verdict, Fault); 15] = [
        ("kernel", Verdict::Bad, |e, _| e.kernel = "linux 5.15.0-91-generic".into()),
        ("io_uring", Verdict::Bad, |e, _| e.io_uring_disabled = Some(2)),
        ("memlock", Verdict::Warning, |e, _| e.memlock_bytes = Some(8 << 20)),
        ("nofile", Verdict::Note, |e, _| e.open_files = Some(1024)),
        ("governor", Verdict::Warning, |e, _| e.governors.push("powersave".into())),
        ("smt", Verdict::Note, |e, _| e.smt = Some(true)),
        ("isolation", Verdict::Note, |e, _| e.cpus_isolated = None),
        ("numa", Verdict::Note, |e, _| e.numa_nodes = Some(2)),
        ("cpu-quota", Verdict::Warning, |e, _| e.cpu_quota = Some(1.5)),
        ("clock-source", Verdict::Warning, |e, _| e.clock_source = Some("hpet".into())),
        ("file-system", Verdict::Bad, |_, p| p.file_system = Some("tmpfs".into())),
        ("file-system", Verdict::Warning, |_, p| p.mount_options = Some("rw,discard".into())),
        ("fill", Verdict::Warning, |_, p| p.fill = Some(0.9)),
        ("write-cache", Verdict::Note, |_, p| p.write_cache = Some("write back".into())),
        ("scheduler", Verdict::Note, |_, p| p.scheduler = Some("bfq".into())),
    ];
    let tree = healthy_tree();
    for (name, verdict, fault) in table {
        let (mut environment, mut place) = perfect();
        fault(&mut environment, &mut place);
        let diagnosis = examine(Root(tree.path()), &environment, &place, &[2]);
        let bad: Vec<&Check> =
            diagnosis.checks.iter().filter(|check| check.verdict < Verdict::Good).collect();
        let [check] = bad.as_slice() else { panic!("{name}: {bad:#?}") };
        assert_eq!((check.name, check.verdict), (name, verdict));
        assert!(!check.found.is_empty() && !check.costs.is_empty() && !check.set.is_empty());
        assert_eq!(diagnosis.worst(), verdict);
    }
}

#[test]
fn deep_sleep_and_interrupts_elsewhere_are_found() {
    let (environment, place) = perfect();
    let deep = machine(&[
        ("proc/interrupts", INTERRUPTS),
        ("sys/class/block/nvme0n1/queue/io_poll", "1\n"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state3/latency", "133\n"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state3/name", "C6\n"),
    ]);
    let diagnosis = examine(Root(deep.path()), &environment, &place, &[3]);
    let names: Vec<&str> = diagnosis
        .checks
        .iter()
        .filter(|check| check.verdict < Verdict::Good)
        .map(|check| check.name)
        .collect();
    assert_eq!(names, ["idle-states", "interrupts"]);
    assert_eq!(interrupted(INTERRUPTS, "nvme1q"), BTreeSet::from([0]));
}

#[test]
fn what_a_system_does_not_tell_is_no_fault() {
    let tree = machine(&[]);
    let diagnosis = examine(Root(tree.path()), &Environment::default(), &Place::default(), &[]);
    assert!(diagnosis.checks.iter().all(|check| check.verdict >= Verdict::Good), "{diagnosis:?}");
}

#[test]
fn this_machine_can_be_looked_at() {
    let diagnosis = diagnose(Path::new("/tmp/not/there"), &[0]);
    let names: BTreeSet<&str> = diagnosis.checks.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), diagnosis.checks.len(), "each once: {diagnosis:?}");
    assert!(names.contains("kernel") && names.contains("memlock"));
}
