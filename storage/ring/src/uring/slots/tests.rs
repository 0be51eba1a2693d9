//! Tests of what the kernel's answers are taken to mean.

use super::*;

const FLUSH: Durability = Durability::WriteThenFlush;

fn write(len: u32) -> Slot {
    let buf = AlignedBuf::alloc(len as usize).freeze();
    let op = Op::Write { file: FileId(0), offset: 8192, buf, len, durable: true };
    Slot::new(1, op).unwrap().unwrap()
}

fn read(len: u32) -> Slot {
    let buf = AlignedBuf::alloc(len as usize);
    Slot::new(1, Op::Read { file: FileId(0), offset: 0, buf, len }).unwrap().unwrap()
}

/// Issues, and answers for the operation itself.
fn turn(slot: &mut Slot, durability: Durability, result: i32) -> Outcome {
    let (first, _) = slot.issue(3, durability, None);
    slot.answer(first.get_user_data(), result, durability).unwrap()
}

/// Issues a linked pair, and answers for the flush.
fn flush_turn(slot: &mut Slot, result: i32) -> Outcome {
    let (_, second) = slot.issue(3, FLUSH, None);
    slot.answer(second.unwrap().get_user_data(), result, FLUSH).unwrap()
}

fn finished(outcome: Outcome) -> io::Result<Done> {
    match outcome {
        Outcome::Finish(result) => result,
        Outcome::Again => panic!("issued again"),
    }
}

#[test]
fn short_and_interrupted_writes_go_on() {
    let mut slot = write(16384);
    assert!(matches!(turn(&mut slot, Durability::Dsync, -libc::EINTR), Outcome::Again));
    assert!(matches!(turn(&mut slot, Durability::Dsync, -libc::EAGAIN), Outcome::Again));
    assert!(matches!(turn(&mut slot, Durability::Dsync, 5000), Outcome::Again));
    assert_eq!(slot.done, 4096, "only whole blocks count");
    assert!(matches!(finished(turn(&mut slot, Durability::Dsync, 12288)), Ok(Done::Written)));
}

#[test]
fn a_write_that_never_gets_on_ends() {
    let mut slot = write(4096);
    let mut turns = 0;
    let error = loop {
        turns += 1;
        match turn(&mut slot, Durability::Dsync, 0) {
            Outcome::Again => assert!(turns < 1000),
            Outcome::Finish(result) => break result.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    let mut slot = write(4096);
    let error = finished(turn(&mut slot, Durability::Dsync, -libc::EIO)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn a_linked_flush_is_issued_again_with_what_is_left() {
    // Short: the write answers. Both go again, for the rest.
    let mut slot = write(8192);
    assert!(matches!(turn(&mut slot, FLUSH, 4096), Outcome::Again));
    assert_eq!(slot.entries(FLUSH), 2);
    assert!(matches!(finished(flush_turn(&mut slot, 0)), Ok(Done::Written)));
    // Written in full, the flush interrupted or cancelled: the flush alone.
    let mut slot = write(8192);
    assert!(matches!(flush_turn(&mut slot, -libc::ECANCELED), Outcome::Again));
    assert_eq!(slot.entries(FLUSH), 1);
    assert!(matches!(turn(&mut slot, FLUSH, -libc::EINTR), Outcome::Again));
    assert!(matches!(finished(turn(&mut slot, FLUSH, 0)), Ok(Done::Written)));
    // A write that says it is through says nothing about its flush.
    let mut slot = write(8192);
    assert!(matches!(turn(&mut slot, FLUSH, 8192), Outcome::Again));
    assert!(matches!(finished(turn(&mut slot, FLUSH, 0)), Ok(Done::Written)));
}

#[test]
fn a_failed_flush_is_never_tried_again() {
    let mut slot = write(8192);
    let error = finished(flush_turn(&mut slot, -libc::EIO)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let mut slot = Slot::new(1, Op::Sync { file: FileId(0) }).unwrap().unwrap();
    let error = finished(turn(&mut slot, Durability::Dsync, -libc::EIO)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn stale_answers_are_ignored() {
    let mut slots = Slots::default();
    let index = slots.insert(write(4096));
    let (old, _) = slots.get(index).unwrap().issue(index, FLUSH, None);
    slots.remove(index);
    assert_eq!(slots.insert(write(4096)), index);
    let slot = slots.get(index).unwrap();
    assert!(slot.answer(old.get_user_data(), 0, FLUSH).is_none());
    let (new, _) = slot.issue(index, FLUSH, None);
    assert!(slot.answer(old.get_user_data(), 0, FLUSH).is_none());
    assert!(slot.answer(new.get_user_data(), 0, FLUSH).is_some());
    assert!(slot.answer(new.get_user_data(), 0, FLUSH).is_none());
}

#[test]
fn reads_go_on_until_full_or_the_end() {
    let len = |outcome| match finished(outcome) {
        Ok(Done::Read { len, .. }) => len,
        other => panic!("{other:?}"),
    };
    let mut slot = read(16384);
    assert!(matches!(turn(&mut slot, FLUSH, 8192), Outcome::Again));
    assert_eq!(len(turn(&mut slot, FLUSH, 8192)), 16384);
    let mut slot = read(16384);
    assert!(matches!(turn(&mut slot, FLUSH, 4096), Outcome::Again));
    assert_eq!(len(turn(&mut slot, FLUSH, 0)), 4096);
    let mut slot = read(16384);
    assert_eq!(len(turn(&mut slot, FLUSH, 5000)), 5000);
}

#[test]
fn misaligned_operations_are_refused() {
    let op = |offset, len| Op::Write {
        file: FileId(0),
        offset,
        buf: AlignedBuf::alloc(8192).freeze(),
        len,
        durable: false,
    };
    for (offset, len) in [(1, 4096), (0, 100), (0, 0), (0, 12288), (512, 4096)] {
        assert!(Slot::new(0, op(offset, len)).is_err(), "{offset} {len}");
    }
    assert!(Slot::new(0, op(4096, 8192)).unwrap().is_some());
}

#[test]
fn slots_are_reused_and_leak_only_what_the_kernel_has() {
    let mut slots = Slots::default();
    let (a, b) = (slots.insert(read(4096)), slots.insert(write(4096)));
    assert_eq!(slots.len(), 2);
    slots.remove(a).unwrap();
    assert!(slots.remove(a).is_none());
    assert_eq!(slots.insert(write(4096)), a);
    let pool = BufferPoolProbe::new();
    let kept = slots.insert(pool.write());
    let dropped = slots.insert(pool.write());
    slots.get(kept).unwrap().issue(0, FLUSH, None);
    assert!(slots.get(b).is_some() && slots.get(dropped).is_some());
    slots.leak();
    assert_eq!(pool.0.used_bytes(), 4096);
}

struct BufferPoolProbe(crate::BufferPool);

impl BufferPoolProbe {
    fn new() -> Self {
        BufferPoolProbe(crate::BufferPool::new(1 << 20, 0).unwrap())
    }

    fn write(&self) -> Slot {
        let buf = self.0.take(4096).unwrap().freeze();
        let op = Op::Write { file: FileId(0), offset: 0, buf, len: 4096, durable: true };
        Slot::new(1, op).unwrap().unwrap()
    }
}
