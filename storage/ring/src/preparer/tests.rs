//! Tests of the preparer's logic, over the simulated files and the real ones.

use super::*;
use crate::files::{FilesOptions, OsFiles};
use crate::sim::{Crash, FaultKind, SimFiles, SimOptions, SimWorld};

const MIB: u64 = 1 << 20;

fn options() -> PreparerOptions {
    PreparerOptions {
        ready_per_class: 2,
        max_bytes: 16 * MIB,
        keep_free_bytes: 0,
        ..PreparerOptions::default()
    }
}

fn world(quota: u64) -> SimWorld {
    SimWorld::new(1, SimOptions { quota_bytes: quota, ..SimOptions::default() })
}

fn start(world: &SimWorld) -> Preparer<SimFiles> {
    Preparer::new(world.files(), options()).unwrap()
}

fn take<F: Files>(preparer: &mut Preparer<F>, path: &str, capacity: u64) -> io::Result<bool> {
    match preparer.handle(Job::TakeSegment { path: path.into(), capacity, least: capacity })? {
        JobDone::Segment { cold, capacity: got, write: true, .. } => {
            assert_eq!(got, capacity);
            Ok(cold)
        }
        other => panic!("{other:?}"),
    }
}

fn fill<F: Files>(preparer: &mut Preparer<F>) {
    while preparer.idle(false).more {}
}

#[test]
fn a_miss_is_cold_and_fills_the_pool_for_the_next() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    assert!(!preparer.idle(false).more, "nothing was asked for");
    assert!(take(&mut preparer, "s/0/a", 4 * MIB).unwrap());
    fill(&mut preparer);
    assert_eq!(preparer.status().ready[&(4 * MIB)], 2);
    assert_eq!(preparer.status().bytes, 8 * MIB);
    assert!(!take(&mut preparer, "s/0/b", 4 * MIB).unwrap());
    assert!(!take(&mut preparer, "s/1/a", 4 * MIB).unwrap());
    assert!(take(&mut preparer, "s/1/b", 4 * MIB).unwrap());
    // What a request that failed half-way left behind does not bar the next one.
    take(&mut preparer, "s/1/b", 4 * MIB).unwrap();
    assert!(take(&mut preparer, "s/1/c", 100).is_err());
}

#[test]
fn recycled_files_come_first_and_keep_their_bytes() {
    let world = world(1 << 30);
    let files = world.files();
    let mut preparer = start(&world);
    files.create_dir(Path::new("s")).unwrap();
    files.create(Path::new("s/old"), MIB, true).unwrap();
    let mut bytes = AlignedBuf::alloc(4096);
    bytes.fill(7);
    files.write_at(Path::new("s/old"), 0, &bytes, 4096).unwrap();
    let recycle = |p: &str| Job::Recycle { path: p.into() };
    assert_eq!(preparer.handle(recycle("s/old")).unwrap(), JobDone::Gone);
    assert_eq!(preparer.handle(recycle("s/old")).unwrap(), JobDone::Gone, "twice is fine");
    assert!(!take(&mut preparer, "s/new", MIB).unwrap());
    let mut back = AlignedBuf::alloc(4096);
    files.read_at(Path::new("s/new"), 0, &mut back).unwrap();
    assert_eq!(back[..], bytes[..]);
}

#[test]
fn a_cold_file_recycled_is_written_before_it_counts_as_ready() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    assert!(take(&mut preparer, "cold", 2 * MIB).unwrap());
    preparer.handle(Job::Recycle { path: "cold".into() }).unwrap();
    assert_eq!(preparer.status().ready[&(2 * MIB)], 0);
    fill(&mut preparer);
    assert_eq!(preparer.status().ready[&(2 * MIB)], 2);
    assert!(!take(&mut preparer, "warm", 2 * MIB).unwrap());
    assert!(world.files().is_written(Path::new("warm")).unwrap());
}

/// What was kept for a seal stays unwritten in a file that was made in a hurry: 256 MiB were written again for two pages.
#[test]
fn of_a_recycled_file_only_what_was_never_written_is_filled() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    assert!(take(&mut preparer, "cold", 8 * MIB).unwrap());
    let bytes = AlignedBuf::alloc(MIB as usize);
    for at in 0..7 {
        world.files().write_at(Path::new("cold"), at * MIB, &bytes, MIB as usize).unwrap();
    }
    preparer.handle(Job::Recycle { path: "cold".into() }).unwrap();
    // Before the one that was begun for the pool, of which all is still to be written.
    assert_eq!(preparer.idle(false), Step { more: true, cost: MIB, removed: false });
    assert_eq!(preparer.idle(false), Step { more: true, cost: 0, removed: false });
    assert_eq!(preparer.status().ready[&(8 * MIB)], 1);
    assert!(!take(&mut preparer, "warm", 8 * MIB).unwrap());
    assert!(world.files().is_written(Path::new("warm")).unwrap());
}

/// Every durable write to a file that is only allocated took the device two writes of metadata more: 330 us instead of 110.
#[test]
fn a_smaller_file_that_is_written_stands_in_for_one_that_is_not() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    take(&mut preparer, "a", MIB).unwrap();
    fill(&mut preparer);
    let mut ask = |path: &str, capacity, least| {
        let job = Job::TakeSegment { path: path.into(), capacity, least };
        match preparer.handle(job).unwrap() {
            JobDone::Segment { capacity, cold, .. } => (capacity, cold),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("b", 4 * MIB, 4 * MIB), (4 * MIB, true), "the smaller one would not do");
    assert_eq!(ask("c", 8 * MIB, 2 * MIB), (8 * MIB, true));
    assert_eq!(ask("d", 4 * MIB, MIB / 2), (MIB, false));
    assert_eq!(ask("e", 4 * MIB, MIB / 2), (MIB, false));
    assert_eq!(ask("f", 64 * MIB, MIB), (4 * MIB, true), "cold, and no larger than it has to be");
    fill(&mut preparer);
    let mut ask = |path: &str, capacity, least| {
        let job = Job::TakeSegment { path: path.into(), capacity, least };
        preparer.handle(job).unwrap()
    };
    let JobDone::Segment { capacity, cold, .. } = ask("g", 4 * MIB, MIB / 2) else { panic!() };
    assert_eq!((capacity, cold), (4 * MIB, false), "prepared meanwhile");
}

/// While a large stream was being removed no file was filled, so that all segments were cold.
#[test]
fn removing_and_filling_take_turns() {
    let world = world(1 << 30);
    let options = PreparerOptions { max_bytes: 4 * MIB, ..options() };
    let mut preparer = Preparer::new(world.files(), options).unwrap();
    take(&mut preparer, "big", 512 * MIB).unwrap();
    preparer.handle(Job::Recycle { path: "big".into() }).unwrap();
    take(&mut preparer, "small", MIB).unwrap();
    for _ in 0..12 {
        preparer.idle(false);
    }
    assert_eq!(preparer.status().ready[&MIB], 2);
    assert_eq!(preparer.status().gone_bytes, (512 - 6 * 4) * MIB);
}

/// A durable write waited behind 1 MiB of zeroes.
#[test]
fn beside_durable_writes_zeroes_are_written_in_small_steps() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    take(&mut preparer, "a", MIB).unwrap();
    assert_eq!(
        preparer.idle(true),
        Step { more: true, cost: 0, removed: false },
        "the file is made"
    );
    for _ in 0..8 {
        assert_eq!(preparer.idle(true), Step { more: true, cost: MIB / 8, removed: false });
    }
    assert_eq!(preparer.idle(true), Step { more: true, cost: 0, removed: false }, "and renamed");
    assert_eq!(preparer.status().ready[&MIB], 1);
}

#[test]
fn the_pool_is_bounded_and_gives_way() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    take(&mut preparer, "a", 8 * MIB).unwrap();
    fill(&mut preparer);
    assert_eq!(preparer.status().bytes, 16 * MIB);
    // Another class, used later, pushes the first one out.
    take(&mut preparer, "b", 4 * MIB).unwrap();
    fill(&mut preparer);
    let status = preparer.status();
    assert_eq!((status.ready[&(8 * MIB)], status.ready[&(4 * MIB)]), (1, 2));
    assert!(status.bytes <= 16 * MIB);
    // What does not fit is removed, not kept.
    take(&mut preparer, "big", 32 * MIB).unwrap();
    preparer.handle(Job::Recycle { path: "big".into() }).unwrap();
    assert!(world.files().len(Path::new("big")).is_err());
    assert!(preparer.status().bytes <= 16 * MIB);
}

#[test]
fn a_full_disk_is_the_jobs_error_and_leaves_nothing() {
    let world = world(10 * MIB);
    let mut preparer = start(&world);
    take(&mut preparer, "a", 2 * MIB).unwrap();
    fill(&mut preparer);
    assert_eq!(preparer.status().bytes, 4 * MIB);
    // 6 MiB used: room only if the pool gives its space back.
    assert!(take(&mut preparer, "b", 7 * MIB).unwrap());
    assert_eq!(preparer.status().bytes, 0);
    let before = world.tree();
    let error = take(&mut preparer, "c", 2 * MIB).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(world.tree(), before);
    fill(&mut preparer);
    assert_eq!(world.tree(), before, "no room to fill the pool either");
}

#[test]
fn a_failed_zeroing_is_tidied_up() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    take(&mut preparer, "a", 4 * MIB).unwrap();
    assert!(preparer.idle(false).more); // creates
    world.fail(FaultKind::Write, 1, libc::EIO);
    fill(&mut preparer);
    assert_eq!(world.tree(), [("a".into(), 4 * MIB)]);
    assert!(preparer.status().last_error.is_some());
    assert_eq!(preparer.status().bytes, 0);
}

#[test]
fn what_a_former_process_left_is_taken_over_or_removed() {
    let world = world(1 << 30);
    let mut preparer = start(&world);
    take(&mut preparer, "a", 2 * MIB).unwrap();
    while preparer.status().ready[&(2 * MIB)] < 1 {
        preparer.idle(false);
    }
    preparer.idle(false); // a second one, half-way
    preparer.idle(false);
    let pool = |world: &SimWorld| world.files().list(Path::new("pool")).unwrap();
    assert_eq!(pool(&world).len(), 2);
    world.crash(Crash::ProcessKill);
    world.files().create(Path::new("pool/readme.txt"), 4096, false).unwrap();
    let mut preparer = start(&world);
    assert_eq!(pool(&world).len(), 1, "{:?}", pool(&world));
    assert_eq!(preparer.status().ready[&(2 * MIB)], 1);
    assert!(!take(&mut preparer, "b", 2 * MIB).unwrap());
}

#[test]
fn names_of_pool_files() {
    assert_eq!(parse_name("100000-1f.ready"), Some((MIB, 31, State::Ready)));
    assert_eq!(parse_name("100000-1f.part"), Some((MIB, 31, State::Part)));
    assert_eq!(parse_name("100000-1f.gone"), Some((MIB, 31, State::Gone)));
    for bad in ["", "1.ready", "x-1.ready", "1-1", "1-1.tmp", "1-1.ready.x", "1--1.ready"] {
        assert_eq!(parse_name(bad), None, "{bad}");
    }
}

#[test]
fn a_crash_at_every_operation_leaves_a_usable_pool() {
    for crash_at in 1..60 {
        for kind in [Crash::PowerCut, Crash::ProcessKill] {
            let world = SimWorld::new(crash_at, SimOptions::default());
            world.crash_after(crash_at);
            let run = || -> io::Result<()> {
                let mut preparer = Preparer::new(world.files(), options())?;
                take(&mut preparer, "s/a", MIB)?;
                fill(&mut preparer);
                take(&mut preparer, "s/b", MIB)?;
                preparer.handle(Job::Recycle { path: "s/a".into() })?;
                take(&mut preparer, "s/c", 6 * MIB)?;
                preparer.handle(Job::RemoveDir { path: "s".into() })?;
                while !preparer.gone.is_empty() {
                    preparer.step(false)?;
                }
                Ok(())
            };
            let _ = run();
            world.crash(kind);
            let mut preparer = start(&world);
            fill(&mut preparer);
            let names = world.files().list(Path::new("pool")).unwrap();
            assert!(names.iter().all(|n| n.ends_with(".ready")), "{names:?}");
            for name in &names {
                let path = Path::new("pool").join(name);
                assert!(world.files().is_written(&path).unwrap(), "{crash_at} {path:?}");
            }
            take(&mut preparer, "t/a", MIB).unwrap();
        }
    }
}

/// A file system mounted with `discard` held up every request for 100 to 250 ms while a segment was removed.
#[test]
fn what_is_removed_goes_in_steps() {
    let world = world(40 * MIB);
    let files = world.files();
    let mut preparer =
        Preparer::new(files.clone(), PreparerOptions { max_bytes: 0, ..options() }).unwrap();
    take(&mut preparer, "s/0/a", 16 * MIB).unwrap();
    take(&mut preparer, "s/0/b", 10 * MIB).unwrap();
    take(&mut preparer, "s/0/c", 4 * MIB).unwrap();
    preparer.handle(Job::Recycle { path: "s/0/a".into() }).unwrap();
    preparer.handle(Job::RemoveDir { path: "s/0".into() }).unwrap();
    assert_eq!(files.list(Path::new("s")).unwrap(), [""; 0], "out of use at once");
    let used = || 40 - files.space().unwrap().0 / MIB;
    let mut seen = vec![used()];
    while preparer.idle(false).more {
        seen.push(used());
    }
    seen.dedup(); // every other step looks whether there is something to fill
    assert_eq!(seen, [26, 22, 18, 14, 10, 6, 2, 0]);
    assert_eq!(preparer.status().last_error, None);
    assert_eq!(files.list(Path::new("pool")).unwrap(), [""; 0]);
}

#[test]
fn space_that_is_being_given_back_in_steps_is_there_for_who_needs_it() {
    let world = world(24 * MIB);
    let mut preparer =
        Preparer::new(world.files(), PreparerOptions { max_bytes: 0, ..options() }).unwrap();
    take(&mut preparer, "s/0/a", 16 * MIB).unwrap();
    preparer.handle(Job::Recycle { path: "s/0/a".into() }).unwrap();
    assert!(preparer.idle(false).more);
    assert!(take(&mut preparer, "s/0/b", 20 * MIB).is_ok());
}

#[test]
fn what_a_former_process_was_removing_goes_in_steps_too() {
    let world = world(64 * MIB);
    let mut preparer =
        Preparer::new(world.files(), PreparerOptions { max_bytes: 0, ..options() }).unwrap();
    take(&mut preparer, "s/0/a", 16 * MIB).unwrap();
    preparer.handle(Job::Recycle { path: "s/0/a".into() }).unwrap();
    assert!(preparer.idle(false).more);
    world.crash(Crash::ProcessKill);
    let mut preparer = start(&world);
    assert_eq!(preparer.gone.len(), 1);
    fill(&mut preparer);
    assert_eq!(world.files().list(Path::new("pool")).unwrap(), [""; 0]);
}

#[test]
fn on_the_real_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let files = OsFiles::open(dir.path(), FilesOptions { allow_buffered: true }).unwrap();
    let mut preparer = Preparer::new(files.clone(), options()).unwrap();
    let cold = take(&mut preparer, "s/0/a", 2 * MIB).unwrap();
    assert!(cold);
    fill(&mut preparer);
    assert_eq!(preparer.status().last_error, None);
    assert_eq!(preparer.status().ready[&(2 * MIB)], 2);
    assert!(!take(&mut preparer, "s/0/b", 2 * MIB).unwrap());
    assert!(files.is_written(Path::new("s/0/b")).unwrap());
    preparer.handle(Job::Recycle { path: "s/0/b".into() }).unwrap();
    std::fs::write(dir.path().join("pool/200000-ff.part"), b"").unwrap();
    drop(preparer);
    let mut preparer = Preparer::new(files.clone(), options()).unwrap();
    assert_eq!(preparer.status().ready[&(2 * MIB)], 2);
    assert_eq!(files.list(Path::new("pool")).unwrap().len(), 2);
    preparer.handle(Job::RemoveDir { path: "s".into() }).unwrap();
    assert_eq!(files.list(Path::new("")).unwrap(), ["pool"]);
}

#[test]
fn no_file_is_made_out_of_the_reserve() {
    let world = world(20 * MIB);
    let options = PreparerOptions { reserve_bytes: 6 * MIB, ..options() };
    let mut preparer = Preparer::new(world.files(), options).unwrap();
    take(&mut preparer, "s/0/a", 4 * MIB).unwrap();
    fill(&mut preparer);
    assert_eq!(preparer.status().ready[&(4 * MIB)], 2, "12 of 20 MiB, 8 are free");
    // The pool's files are there already; they are met from it.
    take(&mut preparer, "s/0/b", 4 * MIB).unwrap();
    take(&mut preparer, "s/0/c", 4 * MIB).unwrap();
    let refused = take(&mut preparer, "s/0/d", 4 * MIB).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(refused.to_string().contains("reserve"), "{refused}");
    // What is given back makes room: a file that was never written is made anew.
    preparer.handle(Job::Recycle { path: "s/0/a".into() }).unwrap();
    assert!(take(&mut preparer, "s/0/d", 4 * MIB).is_ok());
    preparer.handle(Job::RemoveDir { path: "s/0".into() }).unwrap();
    assert!(take(&mut preparer, "s/1/a", 8 * MIB).is_ok());
    let counts = preparer.status().counts;
    assert_eq!((counts.created, counts.reused, counts.recycled), (5, 2, 1));
}
