//! Tests against the kernel, in a temporary directory.

use std::path::Path;

use super::*;
use crate::files::{FilesOptions, OsFiles};
use crate::preparer::{PreparerOptions, spawn_preparer};
use crate::vocab::{Disk, Done, Files, Op, OpenMode};

const CAPACITY: u64 = 4 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    files: OsFiles,
    pool: BufferPool,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let files = OsFiles::open(dir.path(), FilesOptions { allow_buffered: true }).unwrap();
        files.create(Path::new("log"), CAPACITY, true).unwrap();
        Fixture { dir, files, pool: BufferPool::new(8 << 20, 8 << 20).unwrap() }
    }

    fn disk(&self, options: UringOptions) -> (UringDisk, FileId) {
        let mut disk = UringDisk::new(&self.pool, None, options).unwrap();
        let fd = self.files.open_file(Path::new("log"), OpenMode::Write).unwrap();
        let file = disk.register_file(fd).unwrap();
        (disk, file)
    }

    fn filled(&self, len: usize, byte: u8) -> crate::SharedBuf {
        let mut buf = self.pool.take(len).unwrap();
        buf.fill(byte);
        buf.freeze()
    }
}

fn one(disk: &mut UringDisk) -> Completion {
    let mut out = Vec::new();
    while out.is_empty() {
        disk.wait(None).unwrap();
        disk.reap(&mut out);
    }
    assert_eq!(out.len(), 1);
    out.remove(0)
}

fn options(durability: Durability) -> UringOptions {
    UringOptions { durability, ..UringOptions::default() }
}

#[test]
fn durable_writes_read_back_both_ways() {
    for durability in [Durability::Dsync, Durability::WriteThenFlush] {
        let fixture = Fixture::new();
        let (mut disk, file) = fixture.disk(options(durability));
        for (i, len) in [4096u32, 16384, 65536, 262_144, 1 << 20, 2 << 20].into_iter().enumerate() {
            let buf = fixture.filled(len as usize, i as u8 + 1);
            disk.submit(7, Op::Write { file, offset: 4096, buf, len, durable: true });
            assert_eq!(disk.in_flight(), 1);
            let done = one(&mut disk);
            assert!(matches!(done, Completion { token: 7, result: Ok(Done::Written) }), "{done:?}");
            let buf = fixture.pool.take(len as usize).unwrap();
            disk.submit(8, Op::Read { file, offset: 4096, buf, len });
            match one(&mut disk) {
                Completion { token: 8, result: Ok(Done::Read { buf, len: read }) } => {
                    assert_eq!(read, len);
                    assert!(buf[..len as usize].iter().all(|&b| b == i as u8 + 1));
                }
                other => panic!("{other:?}"),
            }
            disk.submit(9, Op::Sync { file });
            assert!(matches!(one(&mut disk).result, Ok(Done::Synced)));
            assert_eq!(disk.in_flight(), 0);
        }
        drop(disk);
        assert_eq!(fixture.pool.used_bytes(), 0);
    }
}

#[test]
fn many_more_than_fit_in_the_ring() {
    for durability in [Durability::Dsync, Durability::WriteThenFlush] {
        let fixture = Fixture::new();
        let small = UringOptions { entries: 4, max_in_flight: 8, ..options(durability) };
        let (mut disk, file) = fixture.disk(small);
        let count = CAPACITY / 4096;
        for i in 0..count {
            let buf = fixture.filled(4096, i as u8);
            let durable = i % 2 == 0;
            disk.submit(i, Op::Write { file, offset: i * 4096, buf, len: 4096, durable });
        }
        disk.flush().unwrap();
        let mut out = Vec::new();
        while disk.in_flight() > 0 {
            disk.wait(None).unwrap();
            disk.reap(&mut out);
        }
        assert!(disk.stats().queued > 0);
        let mut tokens: Vec<u64> = out.iter().map(|c| c.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..count).collect::<Vec<_>>());
        assert!(out.iter().all(|c| matches!(c.result, Ok(Done::Written))));
        let mut all = crate::AlignedBuf::alloc(CAPACITY as usize);
        fixture.files.read_at(Path::new("log"), 0, &mut all).unwrap();
        for (i, block) in all.chunks(4096).enumerate() {
            assert!(block.iter().all(|&b| b == i as u8), "block {i}");
        }
    }
}

#[test]
fn a_durable_write_does_not_queue_behind_reads() {
    for durability in [Durability::Dsync, Durability::WriteThenFlush] {
        let fixture = Fixture::new();
        let few = UringOptions { max_reads: 4, entries: 4, ..options(durability) };
        let (mut disk, file) = fixture.disk(few);
        let reads = 400;
        for i in 0..reads {
            let buf = fixture.pool.take(8192).unwrap();
            disk.submit(i, Op::Read { file, offset: i * 8192, buf, len: 8192 });
        }
        let buf = fixture.filled(4096, 1);
        disk.submit(reads, Op::Write { file, offset: 0, buf, len: 4096, durable: true });
        disk.submit(reads + 1, Op::Sync { file });
        disk.flush().unwrap();
        let (writes, first) = (&disk.writes, &disk.reads);
        assert_eq!((writes.in_kernel(), writes.waiting()), (2, 0), "{durability:?}");
        assert_eq!((first.in_kernel(), first.waiting()), (4, reads as usize - 4), "{durability:?}");
        let mut out = Vec::new();
        while disk.in_flight() > 0 {
            disk.wait(None).unwrap();
            assert!(disk.reads.in_kernel() <= 4);
            disk.reap(&mut out);
        }
        let mut tokens: Vec<u64> = out.iter().map(|c| c.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..reads + 2).collect::<Vec<_>>());
        assert!(out.iter().all(|c| c.result.is_ok()));
    }
}

#[test]
fn reads_go_on_however_many_writes_wait() {
    let fixture = Fixture::new();
    let one = UringOptions { max_in_flight: 1, max_read_bytes: 4096, ..UringOptions::default() };
    let (mut disk, file) = fixture.disk(one);
    let buf = fixture.filled(4096, 1);
    for i in 0..100 {
        let buf = buf.clone();
        disk.submit(i, Op::Write { file, offset: 0, buf, len: 4096, durable: true });
    }
    for i in 100..102 {
        let buf = fixture.pool.take(8192).unwrap();
        disk.submit(i, Op::Read { file, offset: 0, buf, len: 8192 });
    }
    disk.flush().unwrap();
    assert_eq!((disk.writes.in_kernel(), disk.writes.waiting()), (1, 99));
    assert_eq!((disk.reads.in_kernel(), disk.reads.waiting()), (1, 1), "one alone may be larger");
    let mut out = Vec::new();
    while disk.in_flight() > 0 {
        disk.wait(None).unwrap();
        disk.reap(&mut out);
    }
    assert_eq!(out.len(), 102);
}

#[test]
fn reads_at_the_end_are_short_and_bad_requests_are_answered() {
    let fixture = Fixture::new();
    let (mut disk, file) = fixture.disk(UringOptions::default());
    let buf = fixture.pool.take(16384).unwrap();
    disk.submit(1, Op::Read { file, offset: CAPACITY - 8192, buf, len: 16384 });
    assert!(matches!(one(&mut disk).result, Ok(Done::Read { len: 8192, .. })));
    let buf = fixture.filled(4096, 1);
    disk.submit(2, Op::Write { file, offset: 100, buf: buf.clone(), len: 4096, durable: true });
    assert_eq!(one(&mut disk).result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    disk.close(file);
    disk.close(file);
    disk.submit(3, Op::Write { file, offset: 0, buf, len: 4096, durable: true });
    assert_eq!(one(&mut disk).result.unwrap_err().raw_os_error(), Some(libc::EBADF));
    let path = "x".into();
    disk.submit(4, Op::Job(Job::Recycle { path }));
    assert_eq!(one(&mut disk).result.unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_wait_ends_by_timeout_or_waker() {
    let fixture = Fixture::new();
    let (mut disk, _) = fixture.disk(UringOptions::default());
    disk.wait(Some(Duration::from_millis(1))).unwrap();
    let waker = disk.waker();
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        for i in 0..200 {
            sender.send(i).unwrap();
            waker.wake();
            waker.wake();
        }
    });
    let (mut got, mut out) = (0, Vec::new());
    while got < 200 {
        disk.wait(None).unwrap(); // hangs here if a wake is lost
        disk.reap(&mut out);
        got += receiver.try_iter().count();
    }
    thread.join().unwrap();
    assert!(out.is_empty());
}

#[test]
fn a_wake_before_the_wait_is_not_lost() {
    let fixture = Fixture::new();
    let (mut disk, _) = fixture.disk(UringOptions::default());
    disk.waker().wake();
    disk.wait(None).unwrap();
    disk.reap(&mut Vec::new());
    disk.waker().wake();
    disk.wait(None).unwrap();
}

/// Blocks until the descriptor is readable, as a runtime would.
fn readable(fd: &OwnedFd) {
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}

#[test]
fn the_event_descriptor_tells_of_completions_and_wakes() {
    let fixture = Fixture::new();
    let (mut disk, file) = fixture.disk(UringOptions::default());
    let event = disk.event_fd().unwrap();
    let mut out = Vec::new();
    for i in 0..100 {
        let buf = fixture.filled(4096, 3);
        disk.submit(i, Op::Write { file, offset: 0, buf, len: 4096, durable: true });
        disk.flush().unwrap();
        while out.len() as u64 <= i {
            readable(&event);
            disk.clear_event();
            disk.reap(&mut out);
        }
    }
    let waker = disk.waker();
    for _ in 0..10 {
        let waker = waker.clone();
        let thread = std::thread::spawn(move || waker.wake());
        readable(&event);
        disk.clear_event();
        disk.reap(&mut out);
        thread.join().unwrap();
    }
    assert_eq!(out.len(), 100);
}

#[test]
fn reaping_an_idle_disk_makes_no_system_call() {
    let fixture = Fixture::new();
    let (mut disk, file) = fixture.disk(UringOptions::default());
    let buf = fixture.filled(4096, 3);
    disk.submit(1, Op::Write { file, offset: 0, buf, len: 4096, durable: true });
    one(&mut disk);
    let before = disk.stats();
    for _ in 0..100 {
        disk.reap(&mut Vec::new());
        disk.flush().unwrap();
    }
    assert_eq!(disk.stats(), before);
    assert_eq!(before.waits, 1, "a lone write is one system call");
}

#[test]
fn dropped_with_writes_in_flight_it_waits_for_them() {
    let fixture = Fixture::new();
    let (mut disk, file) = fixture.disk(UringOptions::default());
    for i in 0..4 {
        let buf = fixture.filled(1 << 20, 9);
        disk.submit(i, Op::Write { file, offset: i << 20, buf, len: 1 << 20, durable: true });
    }
    for i in 0..100 {
        let buf = fixture.pool.take(4096).unwrap();
        disk.submit(4 + i, Op::Read { file, offset: 0, buf, len: 4096 });
    }
    drop(disk);
    assert_eq!(fixture.pool.used_bytes(), 0);
    let mut all = crate::AlignedBuf::alloc(CAPACITY as usize);
    fixture.files.read_at(Path::new("log"), 0, &mut all).unwrap();
    assert!(all.iter().all(|&b| b == 9));
}

#[test]
fn jobs_come_back_through_reap_with_open_files() {
    let fixture = Fixture::new();
    let preparer = PreparerOptions { max_bytes: 16 << 20, ..PreparerOptions::default() };
    let preparer = spawn_preparer(fixture.files.clone(), preparer).unwrap();
    let mut disk =
        UringDisk::new(&fixture.pool, Some(preparer.clone()), UringOptions::default()).unwrap();
    let job = Job::TakeSegment { path: "s/0/seg".into(), capacity: 1 << 20, least: 0 };
    disk.submit(1, Op::Job(job));
    let file = match one(&mut disk).result.unwrap() {
        Done::Segment { file, capacity, .. } => {
            assert_eq!(capacity, 1 << 20);
            file
        }
        other => panic!("{other:?}"),
    };
    let buf = fixture.filled(4096, 5);
    disk.submit(2, Op::Write { file, offset: 4096, buf, len: 4096, durable: true });
    assert!(matches!(one(&mut disk).result, Ok(Done::Written)));
    disk.submit(3, Op::Job(Job::OpenSegment { path: "s/0/seg".into(), write: false }));
    let Done::Segment { file: again, .. } = one(&mut disk).result.unwrap() else { panic!() };
    assert_ne!(file, again);
    let buf = fixture.pool.take(4096).unwrap();
    disk.submit(4, Op::Read { file: again, offset: 4096, buf, len: 4096 });
    match one(&mut disk).result.unwrap() {
        Done::Read { buf, len: 4096 } => assert!(buf.iter().all(|&b| b == 5)),
        other => panic!("{other:?}"),
    }
    disk.close(file);
    disk.close(again);
    disk.submit(5, Op::Job(Job::Recycle { path: "s/0/seg".into() }));
    assert!(matches!(one(&mut disk).result, Ok(Done::Gone)));
    assert!(fixture.files.len(Path::new("s/0/seg")).is_err());
    disk.submit(6, Op::Job(Job::OpenSegment { path: "missing".into(), write: true }));
    assert_eq!(one(&mut disk).result.unwrap_err().kind(), io::ErrorKind::NotFound);
    drop(disk);
    drop(preparer);
    assert!(fixture.dir.path().join("pool").is_dir());
}

#[test]
fn a_linked_write_that_fails_is_answered_once() {
    let fixture = Fixture::new();
    let (mut disk, file) = fixture.disk(options(Durability::WriteThenFlush));
    disk.close(file);
    for i in 0..300 {
        let buf = fixture.filled(4096, 1);
        disk.submit(i, Op::Write { file, offset: 0, buf, len: 4096, durable: true });
        let done = one(&mut disk);
        assert_eq!(done.token, i);
        assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(disk.in_flight(), 0);
    }
    assert_eq!(fixture.pool.used_bytes(), 0);
}

#[test]
fn a_full_file_table_is_an_error() {
    let fixture = Fixture::new();
    let options = UringOptions { max_files: 2, ..UringOptions::default() };
    let (mut disk, first) = fixture.disk(options);
    let open = || fixture.files.open_file(Path::new("log"), OpenMode::Read).unwrap();
    disk.register_file(open()).unwrap();
    let error = disk.register_file(open()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    disk.close(first);
    assert_eq!(disk.register_file(open()).unwrap(), first);
}

#[test]
fn without_locked_memory_it_warns_and_works() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let fixture = Fixture::new();
    // On a thread of its own, which loses the privilege to exceed the limit.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Ok(mut sets) = capabilities(None) {
                sets.effective.remove(CapabilitySet::IPC_LOCK);
                let _ = set_capabilities(None, sets);
            }
            let old = getrlimit(Resource::Memlock);
            setrlimit(Resource::Memlock, Rlimit { current: Some(65536), ..old }).unwrap();
            let (mut disk, file) = fixture.disk(UringOptions::default());
            let _ = setrlimit(Resource::Memlock, old);
            assert!(!disk.has_fixed_buffers());
            assert!(disk.warnings().iter().any(|w| w.contains("RLIMIT_MEMLOCK")));
            let buf = fixture.filled(65536, 8);
            disk.submit(1, Op::Write { file, offset: 0, buf, len: 65536, durable: true });
            assert!(matches!(one(&mut disk).result, Ok(Done::Written)));
        });
    });
}
