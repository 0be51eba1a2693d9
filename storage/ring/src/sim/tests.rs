//! Tests of the simulated world: that it is as cruel as it says, and repeatable.

use super::*;
use crate::buffer::{AlignedBuf, SharedBuf};
use crate::vocab::{Completion, Disk, Files, Op};

const LEN: u32 = 8192;

fn p(path: &str) -> &Path {
    Path::new(path)
}

fn filled(byte: u8) -> SharedBuf {
    let mut buf = AlignedBuf::alloc(LEN as usize);
    buf.fill(byte);
    buf.freeze()
}

/// A world with one written file, open on a disk.
fn open(seed: u64) -> (SimWorld, SimDisk, FileId) {
    let world = SimWorld::new(seed, SimOptions::default());
    world.files().create(p("log"), 1 << 20, true).unwrap();
    let mut disk = world.disk();
    let file = reopen(&mut disk);
    (world, disk, file)
}

fn reopen(disk: &mut SimDisk) -> FileId {
    disk.submit(0, Op::Job(Job::OpenSegment { path: "log".into(), write: true }));
    match all(disk).remove(0).result {
        Ok(Done::Segment { file, .. }) => file,
        other => panic!("{other:?}"),
    }
}

fn all(disk: &mut SimDisk) -> Vec<Completion> {
    disk.flush().unwrap();
    disk.run_until_idle();
    let mut out = Vec::new();
    disk.reap(&mut out);
    out
}

fn write(disk: &mut SimDisk, file: FileId, offset: u64, byte: u8, durable: bool) {
    disk.submit(1, Op::Write { file, offset, buf: filled(byte), len: LEN, durable });
}

fn contents(world: &SimWorld, len: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::alloc(len);
    world.files().read_at(p("log"), 0, &mut buf).unwrap();
    buf
}

/// Sectors of the range that hold `byte`; panics at a sector that is mixed.
fn sectors(bytes: &[u8], byte: u8) -> usize {
    bytes
        .chunks(512)
        .filter(|sector| {
            assert!(sector.iter().all(|b| b == &sector[0]), "a sector is one piece");
            sector[0] == byte
        })
        .count()
}

#[test]
fn a_write_overtakes_reads_in_some_histories_and_in_others_not() {
    let mut first = 0;
    for seed in 0..50 {
        let (_, mut disk, file) = open(seed);
        let buf = AlignedBuf::alloc(LEN as usize);
        disk.submit(0, Op::Read { file, offset: 0, buf, len: LEN });
        write(&mut disk, file, 0, 1, true);
        let tokens: Vec<Token> = all(&mut disk).iter().map(|c| c.token).collect();
        first += u32::from(tokens == [1, 0]);
    }
    assert!((1..50).contains(&first), "{first} of 50");
}

#[test]
fn what_was_acknowledged_durable_survives_a_power_cut() {
    for seed in 0..50 {
        let (world, mut disk, file) = open(seed);
        for i in 0..8 {
            write(&mut disk, file, i * u64::from(LEN), i as u8 + 1, true);
        }
        assert!(all(&mut disk).iter().all(|c| matches!(c.result, Ok(Done::Written))));
        world.crash(Crash::PowerCut);
        for (i, block) in contents(&world, 8 * LEN as usize).chunks(LEN as usize).enumerate() {
            assert_eq!(sectors(block, i as u8 + 1), 16);
        }
    }
}

#[test]
fn what_was_not_flushed_is_torn_by_sectors() {
    let (mut kept_all, mut kept_none, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let (world, mut disk, file) = open(seed);
        write(&mut disk, file, 0, 9, false);
        assert!(matches!(all(&mut disk)[0].result, Ok(Done::Written)));
        assert_eq!(sectors(&contents(&world, LEN as usize), 9), 16, "visible at once");
        assert_eq!(world.volatile_sectors(p("log")).unwrap(), 16);
        world.crash(Crash::PowerCut);
        match sectors(&contents(&world, LEN as usize), 9) {
            16 => kept_all += 1,
            0 => kept_none += 1,
            _ => torn += 1,
        }
    }
    assert!(kept_all > 10 && kept_none > 10 && torn > 50, "{kept_all} {kept_none} {torn}");
}

#[test]
fn writes_in_flight_are_torn_by_a_power_cut() {
    let mut torn = 0;
    for seed in 0..100 {
        let (world, mut disk, file) = open(seed);
        write(&mut disk, file, 0, 9, true);
        disk.flush().unwrap();
        world.crash(Crash::PowerCut);
        torn += usize::from((1..16).contains(&sectors(&contents(&world, LEN as usize), 9)));
    }
    assert!(torn > 20);
}

#[test]
fn a_sync_covers_what_had_completed_before_it() {
    let mut lost = 0;
    for seed in 0..100 {
        let (world, mut disk, file) = open(seed);
        write(&mut disk, file, 0, 1, false);
        all(&mut disk);
        disk.submit(2, Op::Sync { file });
        write(&mut disk, file, 0, 2, false); // over the first, beside the sync
        write(&mut disk, file, u64::from(LEN), 3, false);
        all(&mut disk);
        world.crash(Crash::PowerCut);
        let bytes = contents(&world, 2 * LEN as usize);
        let (first, second) = bytes.split_at(LEN as usize);
        assert_eq!(sectors(first, 1) + sectors(first, 2), 16, "one of the two, never older");
        lost += usize::from(sectors(second, 3) < 16);
    }
    assert!(lost > 50);
}

#[test]
fn a_killed_process_writes_land_later_until_settled() {
    let (mut late, mut early) = (0, 0);
    for seed in 0..100 {
        let (world, mut disk, file) = open(seed);
        write(&mut disk, file, 0, 7, true);
        disk.flush().unwrap();
        world.crash(Crash::ProcessKill);
        let mut old = Vec::new();
        disk.reap(&mut old);
        assert!(old.is_empty() && !disk.is_alive());
        let files = world.files();
        let before = sectors(&contents(&world, LEN as usize), 7);
        for _ in 0..8 {
            files.space().unwrap();
        }
        let after = sectors(&contents(&world, LEN as usize), 7);
        early += usize::from(before < after);
        files.settle(p("log")).unwrap();
        assert_eq!(sectors(&contents(&world, LEN as usize), 7), 16);
        late += usize::from(after == 0);
        world.crash(Crash::PowerCut);
        assert_eq!(sectors(&contents(&world, LEN as usize), 7), 16, "settled is stable");
    }
    assert!(late > 20 && early > 5, "{late} {early}");
}

#[test]
fn opening_through_the_preparer_settles_first() {
    for seed in 0..20 {
        let (world, mut disk, file) = open(seed);
        write(&mut disk, file, 0, 7, true);
        disk.flush().unwrap();
        world.crash(Crash::ProcessKill);
        let mut disk = world.disk();
        reopen(&mut disk);
        assert_eq!(sectors(&contents(&world, LEN as usize), 7), 16);
        assert_eq!(world.volatile_sectors(p("log")).unwrap(), 0);
    }
}

#[test]
fn a_dropped_disk_goes_on_writing_like_a_dead_one() {
    let (world, mut disk, file) = open(3);
    write(&mut disk, file, 0, 7, true);
    disk.flush().unwrap();
    drop(disk);
    world.run_until_idle();
    assert_eq!(sectors(&contents(&world, LEN as usize), 7), 16);
}

#[test]
fn a_lying_device_is_found_out() {
    let mut lost = 0;
    for seed in 0..50 {
        let (world, mut disk, file) = open(seed);
        world.lie_about_durability(true);
        write(&mut disk, file, 0, 7, true);
        assert!(matches!(all(&mut disk)[0].result, Ok(Done::Written)));
        world.crash(Crash::PowerCut);
        lost += usize::from(sectors(&contents(&world, LEN as usize), 7) < 16);
    }
    assert!(lost > 20);
}

#[test]
fn a_failed_flush_answers_ok_the_next_time_and_has_lost() {
    let (world, mut disk, file) = open(5);
    write(&mut disk, file, 0, 7, false);
    all(&mut disk);
    world.fail(FaultKind::Sync, 0, libc::EIO);
    disk.submit(2, Op::Sync { file });
    let error = all(&mut disk).remove(0).result.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    disk.submit(3, Op::Sync { file });
    assert!(matches!(all(&mut disk)[0].result, Ok(Done::Synced)));
    assert_eq!(sectors(&contents(&world, LEN as usize), 7), 16);
    world.crash(Crash::PowerCut);
    assert_eq!(sectors(&contents(&world, LEN as usize), 7), 0);
}

#[test]
fn faults_hit_the_chosen_operation() {
    let (world, mut disk, file) = open(6);
    world.fail(FaultKind::Write, 1, libc::EIO);
    for i in 0..3 {
        disk.submit(i, Op::Write { file, offset: 0, buf: filled(1), len: LEN, durable: true });
        assert_eq!(all(&mut disk)[0].result.is_err(), i == 1);
    }
    world.fail_file(FaultKind::Read, p("log"), libc::EIO).unwrap();
    for _ in 0..2 {
        let buf = AlignedBuf::alloc(4096);
        disk.submit(9, Op::Read { file, offset: 0, buf, len: 4096 });
        assert!(all(&mut disk)[0].result.is_err());
    }
    world.clear_faults();
    world.flip(p("log"), 5, 3).unwrap();
    assert_eq!(contents(&world, 4096)[..8], [1, 1, 1, 1, 1, 9, 1, 1]);
    assert!(world.flip(p("log"), 1 << 20, 0).is_err());
    world.set_quota(1 << 20);
    let error = world.files().create(p("more"), 4096, false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn a_stalled_file_holds_up_nobody_else() {
    let (world, mut disk, file) = open(7);
    disk.submit(1, Op::Job(Job::TakeSegment { path: "other".into(), capacity: 1 << 20, least: 0 }));
    let Ok(Done::Segment { file: other, cold: true, .. }) = all(&mut disk).remove(0).result else {
        panic!("no segment");
    };
    world.stall(p("log")).unwrap();
    write(&mut disk, file, 0, 1, true);
    write(&mut disk, other, 0, 2, true);
    assert_eq!(all(&mut disk).len(), 1);
    assert_eq!(disk.in_flight(), 1);
    world.clear_faults();
    assert_eq!(all(&mut disk).len(), 1);
    disk.close(other);
    write(&mut disk, other, 0, 2, true);
    assert!(all(&mut disk)[0].result.is_err());
}

#[test]
fn nothing_starts_before_the_flush_of_the_queue() {
    let (world, mut disk, file) = open(8);
    write(&mut disk, file, 0, 1, true);
    world.run_until_idle();
    let mut out = Vec::new();
    disk.reap(&mut out);
    assert!(out.is_empty());
    assert_eq!(disk.in_flight(), 1);
    assert_eq!(all(&mut disk).len(), 1);
    assert_eq!(disk.in_flight(), 0);
}

#[test]
fn a_chosen_crash_halts_everything_until_the_restart() {
    for n in 1..12 {
        let (world, mut disk, file) = open(n);
        world.crash_after(n);
        let files = world.files();
        let mut failed = false;
        for i in 0..12 {
            failed |= files.create(p(&format!("f{i}")), 4096, true).is_err();
        }
        assert!(failed && world.is_halted());
        assert!(files.list(p("")).is_err());
        write(&mut disk, file, 0, 1, true);
        let _ = disk.flush();
        assert!(!world.step());
        world.crash(Crash::PowerCut);
        assert!(files.list(p("")).is_err(), "the old incarnation stays dead");
        let mut names = world.files().list(p("")).unwrap();
        names.retain(|name| name.starts_with('f'));
        // One operation per step, two steps per file: no fewer than what returned, at most one more.
        let done = (n as usize - 1) / 2;
        assert!((done..=done + 1).contains(&names.len()), "{n}: {names:?}");
    }
}

/// A life with everything in it.
fn life(seed: u64) -> u64 {
    let world = SimWorld::new(seed, SimOptions::default());
    let mut rng = fastrand::Rng::with_seed(!seed);
    for _ in 0..3 {
        world.crash_after(rng.u64(20..200));
        let mut disk = world.disk();
        let mut files = Vec::new();
        let mut out = Vec::new();
        for i in 0..60u64 {
            match (rng.u8(0..8), files.is_empty()) {
                (0, _) | (_, true) => {
                    let path = format!("s/{}", rng.u8(0..6)).into();
                    let capacity = 1 << rng.u32(16..19);
                    disk.submit(i, Op::Job(Job::TakeSegment { path, capacity, least: capacity }));
                }
                (1, _) => disk.submit(i, Op::Sync { file: rng.choice(&files).copied().unwrap() }),
                (2, _) => {
                    let path = format!("s/{}", rng.u8(0..6)).into();
                    disk.submit(i, Op::Job(Job::Recycle { path }));
                }
                _ => {
                    let file = rng.choice(&files).copied().unwrap();
                    let offset = rng.u64(0..6) * 4096;
                    let buf = filled(rng.u8(..));
                    let durable = rng.bool();
                    disk.submit(i, Op::Write { file, offset, buf, len: LEN, durable });
                }
            }
            disk.flush().unwrap();
            for _ in 0..rng.u8(0..4) {
                world.step();
            }
            disk.reap(&mut out);
            for done in out.drain(..) {
                if let Ok(Done::Segment { file, .. }) = done.result {
                    files.push(file);
                }
            }
        }
        world.crash(if rng.bool() { Crash::PowerCut } else { Crash::ProcessKill });
    }
    world.run_until_idle();
    world.trace_hash()
}

#[test]
fn the_same_seed_lives_the_same_life() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let hash = life(seed);
        assert_eq!(hash, life(seed), "seed {seed}");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 100);
}

#[test]
fn a_world_is_freed_with_its_handles() {
    let (world, disk, _) = open(1);
    let weak = Arc::downgrade(&world.shared);
    drop((world, disk));
    assert!(weak.upgrade().is_none());
}
