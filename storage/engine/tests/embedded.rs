//! The engine in this process on a real directory: restart, damage, retention, written streams, refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use highwater_engine::inspect::inspect;
use highwater_engine::recovery::{Bounds, recover};
use highwater_engine::{
    AppendError, Appended, Chunk, Claims, Engine, EngineOptions, OpenError, ReadError,
    SegmentSizes, Start, StartError,
};
use highwater_ring::{FilesOptions, OsFiles};
use highwater_wire::{
    AckMode, BatchBuilder, BatchIter, ErrorCode, ProducerStamp, ShardId, StreamConfig,
};

fn options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.store.pool_bytes = 8 << 20;
    options.store.prepared_bytes = 64 << 20;
    options.store.core.segments = SegmentSizes { min: 256 << 10, max: 1 << 20 };
    options
}

fn config(shards: u32, ack: AckMode) -> StreamConfig {
    StreamConfig { shards, retention_ms: 0, retention_bytes: 0, ack, ..StreamConfig::default() }
}

fn batch(payloads: &[String], producer: ProducerStamp) -> Vec<u8> {
    let mut b = BatchBuilder::default();
    for payload in payloads {
        b.push(b"key", &[], payload.as_bytes(), 1).unwrap();
    }
    b.finish(producer).to_vec()
}

fn append_all(engine: &Engine, shard: ShardId, from: usize, to: usize) {
    let mut replies = std::collections::VecDeque::new();
    for chunk in (from..to).collect::<Vec<_>>().chunks(10) {
        let payloads: Vec<String> = chunk.iter().map(|n| payload(*n)).collect();
        let bytes = batch(&payloads, ProducerStamp::default());
        loop {
            match engine.append(shard, bytes.clone()) {
                Ok(reply) => break replies.push_back(reply),
                Err(AppendError::Busy { .. }) => drop(replies.pop_front().unwrap().wait().unwrap()),
                Err(other) => panic!("{other}"),
            }
        }
        if replies.len() > 20 {
            replies.pop_front().unwrap().wait().unwrap();
        }
    }
    replies.into_iter().for_each(|r| {
        r.wait().unwrap();
    });
}

fn payload(n: usize) -> String {
    format!("record {n} {}", "x".repeat(n % 700))
}

fn read_all(engine: &Engine, shard: ShardId) -> Result<Vec<String>, ReadError> {
    let located = engine.locate(shard, Start::Oldest)?;
    let (mut from, mut all) = (located.sequence, Vec::new());
    while from < located.high_water {
        let chunk = engine.read(shard, from, 100_000)?;
        for slice in &chunk.slices {
            for record in BatchIter::new(slice.bytes()).flat_map(|b| b.unwrap().records()) {
                if record.sequence >= from {
                    all.push(String::from_utf8(record.payload.to_vec()).unwrap());
                }
            }
        }
        from = chunk.next;
    }
    Ok(all)
}

/// Equal, or where they first differ (a whole log in a panic helps nobody).
fn assert_log(found: &[String], expected: &[String]) {
    let differ = found.iter().zip(expected).position(|(f, e)| f != e);
    let at = differ.map(|i| (i, &found[i][..20.min(found[i].len())]));
    assert_eq!((found.len(), at), (expected.len(), None));
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(payload).collect()
}

/// The file and offset of a text in the segments of a data directory.
fn find(dir: &Path, text: &str) -> (PathBuf, u64) {
    for shard in std::fs::read_dir(dir.join("shards")).unwrap() {
        for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(text.len()).position(|w| w == text.as_bytes()) {
                return (path, at as u64);
            }
        }
    }
    panic!("{text:?} is in no segment");
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir_in(".").unwrap();
    for ack in [AckMode::Durable, AckMode::Written] {
        let name = format!("s-{ack}");
        let engine = Engine::open(dir.path(), options()).unwrap();
        let id = engine.create_stream(&name, config(1, ack)).unwrap().id;
        let shard = ShardId { stream: id, shard: 0 };
        append_all(&engine, shard, 0, 3000);
        engine.close();
        let engine = Engine::open(dir.path(), options()).unwrap();
        assert_log(&read_all(&engine, shard).unwrap(), &expected(0..3000));
        append_all(&engine, shard, 3000, 3100);
        // A written stream's mark follows its acknowledgements, by a flush.
        while let mark @ 0..3100 = engine.locate(shard, Start::Latest).unwrap().high_water {
            engine.read_wait(shard, mark, 1, 1, Duration::from_secs(10)).unwrap();
        }
        assert_log(&read_all(&engine, shard).unwrap(), &expected(0..3100));
        engine.close();
    }
    let report = inspect(dir.path()).unwrap();
    assert_eq!(
        (report.records, report.damaged, report.torn),
        (6200, 0, 0),
        "{:?}",
        report.findings
    );
}

#[test]
fn a_flipped_bit_stops_its_shard_with_file_offset_and_records_and_no_other() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    let id = engine.create_stream("s", config(2, AckMode::Durable)).unwrap().id;
    let (bad, good) = (ShardId { stream: id, shard: 0 }, ShardId { stream: id, shard: 1 });
    append_all(&engine, bad, 0, 500);
    append_all(&engine, good, 10_000, 10_500);
    engine.close();
    let (path, offset) = find(dir.path(), "record 100 ");
    flip(&path, offset);
    let report = inspect(dir.path()).unwrap();
    assert!(report.damaged >= 1, "{report:?}");
    let engine = Engine::open(dir.path(), options()).unwrap();
    let error = read_all(&engine, bad).unwrap_err();
    assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(".seg at byte") && text.contains("records from"), "{text}");
    let refused =
        engine.append(bad, batch(&["x".into()], ProducerStamp::default())).unwrap().wait();
    assert_eq!(refused.unwrap_err().to_wire().code, ErrorCode::ShardDamaged);
    assert_log(&read_all(&engine, good).unwrap(), &expected(10_000..10_500));
    append_all(&engine, good, 10_500, 10_510);
}

/// Named for what it broke: the damage of a last block, known only from the checkpoint, was forgotten by the
/// first restart and cut as a torn tail by the second.
#[test]
fn damage_is_still_damage_after_a_second_restart() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let copy = dir.path().join("copy");
    let engine = Engine::open(&dir.path().join("data"), options()).unwrap();
    let id = engine.create_stream("s", config(1, AckMode::Durable)).unwrap().id;
    let shard = ShardId { stream: id, shard: 0 };
    append_all(&engine, shard, 0, 50);
    // A checkpoint follows within milliseconds; a copy taken after it is what a killed process leaves.
    loop {
        copy_dir(&dir.path().join("data"), &copy);
        if inspect(&copy).unwrap().records == 50 && last_block_is_claimed(&copy, shard) {
            break;
        }
        std::fs::remove_dir_all(&copy).unwrap();
    }
    engine.close();
    let (path, offset) = find(&copy, "record 49 ");
    flip(&path, offset);
    for start in 0..3 {
        let engine = Engine::open(&copy, options()).unwrap();
        let error = engine.locate(shard, Start::Oldest).unwrap_err();
        assert!(matches!(error, ReadError::Damaged { .. }), "start {start}: {error}");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
        match path.is_dir() {
            true => copy_dir(&path, &to.join(name)),
            // A file of the pool may go while we look.
            false => drop(std::fs::copy(&path, to.join(name))),
        }
    }
}

/// Whether a checkpoint of a directory knows the last block of the shard to be durable.
fn last_block_is_claimed(dir: &Path, shard: ShardId) -> bool {
    let files = OsFiles::open(dir, FilesOptions::default()).unwrap();
    let claims = Claims::peek(&files).unwrap();
    let bounds = Bounds { in_flight_bytes: 1 << 20, producers: 8, read_only: true };
    let (log, _) = recover(&files, shard, &claims, bounds).unwrap();
    claims.of(shard).is_some_and(|c| c.block + 1 == log.next_block)
}

#[test]
fn producers_are_remembered_through_a_restart() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    let id = engine.create_stream("s", config(1, AckMode::Durable)).unwrap().id;
    let shard = ShardId { stream: id, shard: 0 };
    let (id, epoch) = engine.control().new_producer().unwrap();
    let producer = |sequence| ProducerStamp { id, epoch, sequence };
    let first = batch(&["a".into(), "b".into()], producer(0));
    let stored = engine.append(shard, first.clone()).unwrap().wait().unwrap();
    engine.close();
    let engine = Engine::open(dir.path(), options()).unwrap();
    let again = engine.append(shard, first).unwrap().wait().unwrap();
    assert!(again.duplicate);
    assert_eq!(again.base_sequence, stored.base_sequence);
    let gap = engine.append(shard, batch(&["d".into()], producer(3))).unwrap().wait();
    assert_eq!(gap, Err(AppendError::OutOfSequence { expected: 2, got: 3 }));
    engine.append(shard, batch(&["c".into()], producer(2))).unwrap().wait().unwrap();
    assert_eq!(read_all(&engine, shard).unwrap(), ["a", "b", "c"]);
}

/// It was stored, and its owner fenced for ever.
#[test]
fn a_forged_epoch_or_id_is_refused_also_after_a_restart() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut engine = Engine::open(dir.path(), options()).unwrap();
    let stream = engine.create_stream("s", config(1, AckMode::Durable)).unwrap().id;
    let shard = ShardId { stream, shard: 0 };
    let owner = engine.control().open_producer("till").unwrap();
    let unnamed = engine.control().new_producer().unwrap();
    for start in 0..3 {
        if start > 0 {
            engine.close();
            engine = Engine::open(dir.path(), options()).unwrap();
        }
        let append = |(id, epoch), sequence| {
            let bytes = batch(&["x".into()], ProducerStamp { id, epoch, sequence });
            engine.append(shard, bytes).and_then(|reply| reply.wait()).map(|a| a.record_count)
        };
        // Those of a former start go on.
        assert_eq!(append(owner, start), Ok(1));
        assert_eq!(append(unnamed, start), Ok(1));
        let next = engine.control().new_producer().unwrap().0 + 1;
        for (id, epoch) in [
            (owner.0, owner.1 + 1),
            (owner.0, u32::MAX),
            (unnamed.0, 1),
            (next, 0),
            (next + 5_000, 0),
            (u64::MAX, 0),
        ] {
            let refused = append((id, epoch), 0).unwrap_err();
            assert_eq!(refused, AppendError::NotGiven { id, epoch });
            assert_eq!(refused.to_wire().code, ErrorCode::UnknownProducer);
        }
        // Given out, it is taken.
        let given = engine.control().new_producer().unwrap();
        assert_eq!(given, (next, 0));
        assert_eq!(append(given, 0), Ok(1));
    }
    let (id, epoch) = engine.control().open_producer("till").unwrap();
    let bytes = batch(&["y".into()], ProducerStamp { id, epoch, sequence: 0 });
    engine.append(shard, bytes).unwrap().wait().unwrap();
}

#[test]
fn retention_by_bytes_keeps_the_newest() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    let mut limited = config(1, AckMode::Durable);
    limited.retention_bytes = 2 << 20;
    let id = engine.create_stream("s", limited).unwrap().id;
    let shard = ShardId { stream: id, shard: 0 };
    let mut written = 0;
    // Retention looks once a second: write until it has.
    let oldest = loop {
        append_all(&engine, shard, written, written + 2000);
        written += 2000;
        let oldest = engine.locate(shard, Start::Oldest).unwrap().oldest;
        if oldest > 0 {
            break oldest;
        }
        assert!(written < 2_000_000, "retention never came");
    };
    let gone = engine.locate(shard, Start::At(0)).unwrap_err();
    assert!(matches!(gone, ReadError::Trimmed { from: 0, oldest: o } if o >= oldest), "{gone}");
    // Retention may go on while the log is read.
    let newest = loop {
        match read_all(&engine, shard) {
            Err(ReadError::Trimmed { .. }) => {}
            read => break read.unwrap(),
        }
    };
    assert_eq!(newest.last(), Some(&payload(written - 1)));
}

#[test]
fn directories_that_cannot_be_used_say_why() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let open = |path: &Path| match Engine::open(path, options()) {
        Ok(_) => panic!("opened"),
        Err(StartError::Open(error)) => error,
        Err(other) => panic!("{other}"),
    };
    let data = dir.path().join("data");
    let engine = Engine::open(&data, options()).unwrap();
    assert!(matches!(open(&data), OpenError::Lock(_)));
    engine.close();
    std::fs::write(data.join("highwater.json"), r#"{"format": 99, "created_by": "later"}"#)
        .unwrap();
    assert!(matches!(open(&data), OpenError::NewerFormat { found: 99, .. }));
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("holiday.jpg"), "x").unwrap();
    assert!(matches!(open(&other), OpenError::NotOurs { .. }));
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(open(&file), OpenError::Files(_)));
}

#[test]
fn deleting_a_stream_removes_its_files_and_a_new_one_of_that_name_is_empty() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    let id = engine.create_stream("s", config(3, AckMode::Durable)).unwrap().id;
    for shard in 0..3 {
        append_all(&engine, ShardId { stream: id, shard }, 0, 100);
    }
    engine.control().delete_stream("s").unwrap();
    assert!(!dir.path().join(format!("shards/{id}-0")).exists());
    let new = engine.create_stream("s", config(1, AckMode::Durable)).unwrap();
    assert_ne!(new.id, id);
    assert_eq!(
        read_all(&engine, ShardId { stream: new.id, shard: 0 }).unwrap(),
        Vec::<String>::new()
    );
}

/// One stream of one shard in an engine of its own.
fn one_shard(dir: &Path) -> (Engine, ShardId) {
    let engine = Engine::open(dir, options()).unwrap();
    let id = engine.create_stream("s", config(1, AckMode::Durable)).unwrap().id;
    (engine, ShardId { stream: id, shard: 0 })
}

#[test]
fn calls_come_in_order_on_the_cores_thread() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let (engine, shard) = one_shard(dir.path());
    let (tell, told) = channel();
    for n in 0..1000u64 {
        let tell = tell.clone();
        let then = move |answer: Result<Appended, AppendError>| {
            let thread = std::thread::current().name().map(str::to_owned);
            tell.send((n, answer.map(|a| a.base_sequence), thread)).unwrap();
        };
        let bytes = batch(&[payload(n as usize)], ProducerStamp::default());
        engine.append_then(shard, bytes, then).unwrap();
    }
    drop(tell);
    let answers: Vec<_> = told.iter().collect();
    let thread = Some("hw-core-0".to_owned());
    let expected: Vec<_> = (0..1000).map(|n| (n, Ok(n), thread.clone())).collect();
    assert_eq!(answers, expected);
    let (tell, told) = channel();
    engine.locate_then(shard, Start::Latest, move |located| tell.send(located).unwrap()).unwrap();
    assert_eq!(told.recv().unwrap().unwrap().sequence, 1000);
    let (tell, told) = channel();
    let unknown = ShardId { stream: 99, shard: 0 };
    let bytes = batch(&["x".into()], ProducerStamp::default());
    engine.append_then(unknown, bytes, move |answer| tell.send(answer).unwrap()).unwrap();
    assert_eq!(told.recv().unwrap(), Err(AppendError::UnknownShard(unknown)));
}

#[test]
fn a_long_poll_is_answered_by_the_record_it_waits_for() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let (engine, shard) = one_shard(dir.path());
    let poll = |from, wait| {
        let (tell, told) = channel();
        let then = move |chunk: Result<Chunk, ReadError>| {
            tell.send(chunk.map(|c| (c.records, c.next))).unwrap();
        };
        engine.read_then(shard, from, 1 << 20, 1, wait, then).unwrap();
        told
    };
    let hour = Duration::from_secs(3600);
    for n in 0..20 {
        let told = poll(n, hour);
        engine.append(shard, batch(&["x".into()], ProducerStamp::default())).unwrap();
        assert_eq!(told.recv().unwrap(), Ok((1, n + 1)));
    }
    assert_eq!(poll(20, Duration::from_millis(1)).recv().unwrap(), Ok((0, 20)));
    let beyond = ReadError::BeyondEnd { from: 21, high_water: 20 };
    assert_eq!(poll(21, hour).recv().unwrap(), Err(beyond));
}

#[test]
fn reads_that_wait_are_bounded_and_each_is_answered_once() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let (engine, shard) = one_shard(dir.path());
    let (tell, told) = channel();
    let mut asked = 0u64;
    let mut refused = 0u64;
    // What fits into the mailbox and into the core, and more.
    for _ in 0..10_000 {
        let tell = tell.clone();
        let then =
            move |chunk: Result<Chunk, ReadError>| tell.send(chunk.map(|c| c.records)).unwrap();
        match engine.read_then(shard, 0, 1 << 20, 1, Duration::from_secs(3600), then) {
            Ok(()) => asked += 1,
            Err(ReadError::Busy { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    drop(tell);
    let append = || engine.append(shard, batch(&["x".into()], ProducerStamp::default()));
    while let Err(AppendError::Busy { .. }) = append() {
        std::thread::yield_now();
    }
    let (mut given, mut busy) = (0, 0);
    for answer in told {
        match answer {
            Ok(1..) => given += 1,
            Err(ReadError::Busy { .. }) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(given + busy, asked, "exactly once");
    assert_eq!(given, 4096, "busy {busy}, refused {refused}");
}

#[test]
fn an_engine_that_closes_answers_everybody() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let (engine, shard) = one_shard(dir.path());
    let (tell, told) = channel();
    for _ in 0..100 {
        let (read, append) = (tell.clone(), tell.clone());
        let read = move |chunk: Result<Chunk, ReadError>| {
            read.send(matches!(chunk, Ok(_) | Err(ReadError::Closing))).unwrap();
        };
        engine.read_then(shard, 0, 1 << 20, 1 << 20, Duration::from_secs(3600), read).unwrap();
        let append = move |answer: Result<Appended, AppendError>| {
            append.send(matches!(answer, Ok(_) | Err(AppendError::Closing))).unwrap();
        };
        let bytes = batch(&["x".into()], ProducerStamp::default());
        engine.append_then(shard, bytes, append).unwrap();
    }
    drop(tell);
    engine.close();
    assert_eq!(told.iter().collect::<Vec<_>>(), [true; 200]);
}
