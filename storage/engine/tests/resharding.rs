//! Splits, merges, settings and retention on a real directory, through the embedded engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use highwater_engine::{
    AppendError, ControlError, Engine, EngineOptions, ReadError, ReshardError, SegmentSizes, Start,
};
use highwater_wire::{
    Backpressure, BatchBuilder, BatchIter, ControlReply, ControlRequest, ErrorCode, ProducerStamp,
    Quota, ShardDescription, ShardId, StreamChange, StreamConfig, StreamDescription, TrimBefore,
    hash_key,
};

fn options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.store.pool_bytes = 8 << 20;
    options.store.prepared_bytes = 64 << 20;
    options.store.core.segments = SegmentSizes { min: 256 << 10, max: 1 << 20 };
    // Two cores, on one CPU: children have somewhere to go.
    options.store.cores = vec![0, 0];
    options
}

fn config(shards: u32) -> StreamConfig {
    StreamConfig { shards, ..StreamConfig::default() }
}

fn one(key: &str, payload: &[u8], stamp: ProducerStamp) -> Vec<u8> {
    let mut b = BatchBuilder::default();
    b.push(key.as_bytes(), &[], payload, 1).unwrap();
    b.finish(stamp).to_vec()
}

fn append(engine: &Engine, shard: ShardId, bytes: Vec<u8>) -> Result<u64, AppendError> {
    loop {
        match engine.append(shard, bytes.clone()).and_then(|reply| reply.wait()) {
            Err(AppendError::Busy { .. }) => std::thread::yield_now(),
            other => return other.map(|a| a.base_sequence),
        }
    }
}

fn shard_of(stream: &StreamDescription, key: &str) -> ShardId {
    let hash = hash_key(key.as_bytes());
    let mut open = stream.shards.iter().filter(|s| !s.closed);
    let shard = open.find(|s| (s.hash_start..=s.hash_end).contains(&hash)).unwrap().shard;
    ShardId { stream: stream.id, shard }
}

/// Keys and payloads of a shard, to its end if it is closed.
fn read_all(engine: &Engine, shard: ShardId) -> (Vec<(String, String)>, Option<u64>) {
    let mut from = engine.locate(shard, Start::Oldest).unwrap().sequence;
    let mut all = Vec::new();
    loop {
        match engine.read(shard, from, 100_000) {
            Ok(chunk) if chunk.next == from => return (all, None),
            Ok(chunk) => {
                for slice in &chunk.slices {
                    for r in BatchIter::new(slice.bytes()).flat_map(|b| b.unwrap().records()) {
                        if r.sequence >= from {
                            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                            all.push((text(r.key), text(r.payload)));
                        }
                    }
                }
                from = chunk.next;
            }
            Err(ReadError::ShardEnded { end, .. }) => return (all, Some(end)),
            Err(other) => panic!("{other}"),
        }
    }
}

fn by_number(stream: &StreamDescription) -> BTreeMap<u32, &ShardDescription> {
    stream.shards.iter().map(|s| (s.shard, s)).collect()
}

/// Reads all shards, parents before their children; each key's payloads in the order read.
fn by_key(engine: &Engine, stream: &StreamDescription) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Numbers grow: a parent has a smaller one than its children.
    for (&number, shard) in &by_number(stream) {
        let (records, end) = read_all(engine, ShardId { stream: stream.id, shard: number });
        assert_eq!(end.is_some(), shard.closed, "shard {number}");
        for (key, payload) in records {
            keys.entry(key).or_default().push(payload);
        }
    }
    keys
}

#[test]
fn every_key_keeps_its_order_through_splits_and_merges_and_a_restart() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut engine = Engine::open(dir.path(), options()).unwrap();
    let mut stream = engine.create_stream("s", config(1)).unwrap();
    let (mut expected, mut n): (BTreeMap<String, Vec<String>>, _) = (BTreeMap::new(), 0);
    let mut closed_met = 0;
    for step in 0..6 {
        // With the description from before the step: some shards are closed by now.
        let before = stream.clone();
        stream = match step {
            0 => engine.control().split("s", 0, &[]).unwrap(),
            1 => engine.control().reshard("s", 4).unwrap(),
            2 => engine.control().reshard("s", 8).unwrap(),
            3 => {
                engine.close();
                engine = Engine::open(dir.path(), options()).unwrap();
                engine.control().describe("s").unwrap()
            }
            4 => engine.control().reshard("s", 3).unwrap(),
            _ => {
                let open: Vec<u32> =
                    stream.shards.iter().filter(|s| !s.closed).map(|s| s.shard).collect();
                engine.control().merge("s", &open).unwrap()
            }
        };
        for _ in 0..300 {
            let key = format!("key-{}", n % 37);
            let bytes = one(&key, n.to_string().as_bytes(), ProducerStamp::default());
            match append(&engine, shard_of(&before, &key), bytes.clone()) {
                Ok(_) => {}
                Err(AppendError::ShardClosed(_)) => {
                    closed_met += 1;
                    append(&engine, shard_of(&stream, &key), bytes).unwrap();
                }
                Err(other) => panic!("{other}"),
            }
            expected.entry(key).or_default().push(n.to_string());
            n += 1;
        }
        let open = stream.shards.iter().filter(|s| !s.closed).count();
        assert_eq!(open, [2, 4, 8, 8, 3, 1][step], "step {step}");
        // Children go to the core that has fewer open shards.
        let first = stream.shards.iter().filter(|s| !s.closed && s.core == 0).count();
        assert!(first.abs_diff(open - first) <= 1, "{first} of {open} on core 0");
    }
    assert!(closed_met > 1000, "{closed_met}");
    assert_eq!(by_key(&engine, &stream), expected);
    let all = by_number(&stream);
    for shard in stream.shards.iter().filter(|s| s.closed) {
        assert!(shard.children.iter().all(|c| all[c].parents.contains(&shard.shard)));
        assert_eq!((shard.state.as_str(), shard.children.is_empty()), ("closed", false));
    }
}

/// It divided the hash-key space evenly, whatever load there was.
#[test]
fn a_reshard_divides_the_load_that_was_seen_and_the_space_without() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    let stream = engine.create_stream("s", config(1)).unwrap();
    let shard = ShardId { stream: stream.id, shard: 0 };
    // Keys of the lowest sixteenth of the space only.
    let low = |n: &u32| hash_key(n.to_string().as_bytes()) >> 124 == 0;
    let keys: Vec<u32> = (0u32..).filter(low).take(400).collect();
    let mut builder = BatchBuilder::default();
    for _ in 0..5 {
        for n in &keys {
            builder.push(n.to_string().as_bytes(), &[], b"x", 1).unwrap();
        }
        let bytes = builder.finish(ProducerStamp::default()).to_vec();
        append(&engine, shard, bytes).unwrap();
        builder.clear();
    }
    let open = |stream: &StreamDescription| {
        let open = stream.shards.iter().filter(|s| !s.closed);
        open.map(|s| (s.hash_start, s.hash_end)).collect::<Vec<_>>()
    };
    let divided = engine.control().reshard("s", 4).unwrap();
    let of = |(start, end): &(u128, u128)| {
        let hash = |n: &&u32| (*start..=*end).contains(&hash_key(n.to_string().as_bytes()));
        keys.iter().filter(hash).count()
    };
    let shares: Vec<usize> = open(&divided).iter().map(of).collect();
    assert_eq!((shares.len(), shares.iter().sum::<usize>()), (4, 400));
    assert!(shares.iter().all(|n| (50..=150).contains(n)), "{shares:?}");
    // The children have seen nothing yet.
    let even = engine.control().reshard("s", 2).unwrap();
    assert_eq!(open(&even), [(0, (1 << 127) - 1), (1 << 127, u128::MAX)]);
}

#[test]
fn splits_that_cannot_be_say_why() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    let stream = engine.create_stream("s", config(1)).unwrap();
    let shard = ShardId { stream: stream.id, shard: 0 };
    for n in 0..20 {
        append(&engine, shard, one("only", &[n], ProducerStamp::default())).unwrap();
    }
    let mut control = engine.control();
    let reason = |error| match error {
        ControlError::Reshard { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let refused = reason(control.split("s", 0, &[]).unwrap_err());
    assert!(matches!(refused, ReshardError::OneKey { shard: 0, .. }), "{refused}");
    assert_eq!(reason(control.split("s", 5, &[]).unwrap_err()), ReshardError::Unknown(5));
    let code = |request| control.handle(request, &[]).unwrap_err().code;
    let split = |shard, at| ControlRequest::Split { name: "s".into(), shard, at };
    let merge = |shards| ControlRequest::Merge { name: "s".into(), shards };
    let reshard = |name: &str, shards| ControlRequest::Reshard { name: name.into(), shards };
    let mut code = code;
    assert_eq!(code(split(0, vec![])), ErrorCode::CannotReshard);
    assert_eq!(code(split(0, vec![7, 7])), ErrorCode::CannotReshard);
    assert_eq!(code(split(5, vec![])), ErrorCode::UnknownShard);
    assert_eq!(code(merge(vec![0])), ErrorCode::CannotReshard);
    assert_eq!(code(reshard("s", 0)), ErrorCode::InvalidArgument);
    assert_eq!(code(reshard("s", 5000)), ErrorCode::InvalidArgument);
    assert_eq!(code(reshard("t", 2)), ErrorCode::UnknownStream);
    // Whoever says where may set the key apart.
    let hot = hash_key(b"only");
    let split = control.split("s", 0, &[hot, hot + 1]).unwrap();
    assert_eq!(split.shards.iter().filter(|s| !s.closed).count(), 3);
}

#[test]
fn settings_trims_producers_and_quotas_are_in_force_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut engine = Engine::open(dir.path(), options()).unwrap();
    let stream = engine.create_stream("s", config(2)).unwrap();
    let shard = |shard| ShardId { stream: stream.id, shard };
    for n in 0..10u8 {
        append(&engine, shard(0), one("a", &[b'a' + n], ProducerStamp::default())).unwrap();
    }
    let quota = Quota { records_in: 1000, ..Quota::default() };
    let change = StreamChange { quota: Some(quota), ..StreamChange::default() };
    let set = engine.control().set_stream("s", &change).unwrap();
    assert_eq!((set.config.quota, set.config.shards), (quota, 2));
    let too_long = Quota { burst_ms: u32::MAX, ..Quota::default() };
    let change = StreamChange { quota: Some(too_long), ..StreamChange::default() };
    let refused = engine.control().set_stream("s", &change).unwrap_err();
    assert!(matches!(refused, ControlError::Argument { field: "burst_ms", .. }), "{refused}");

    let beyond = engine.control().trim("s", Some(0), TrimBefore::Sequence(11)).unwrap_err();
    assert!(beyond.to_string().contains("shard 0 ends at 10"), "{beyond}");
    let trimmed = engine.control().trim("s", None, TrimBefore::Sequence(4)).unwrap();
    let oldest: Vec<u64> = trimmed.shards.iter().map(|s| s.oldest).collect();
    assert_eq!(oldest, [4, 0], "each as far as it goes");
    engine.control().trim("s", Some(0), TrimBefore::Time(0)).unwrap();

    let first = engine.control().open_producer("p").unwrap();
    let stamp = |epoch, sequence| ProducerStamp { id: first.0, epoch, sequence };
    append(&engine, shard(0), one("a", b"x", stamp(first.1, 0))).unwrap();
    let second = engine.control().open_producer("p").unwrap();
    assert_eq!(second, (first.0, first.1 + 1));
    engine.control().set_client_quota("loader", quota).unwrap();
    let unnamed = engine.control().set_client_quota("", quota).unwrap_err();
    assert!(matches!(unnamed, ControlError::Name { field: "client", .. }));

    for restarted in [false, true] {
        if restarted {
            engine.close();
            engine = Engine::open(dir.path(), options()).unwrap();
        }
        let mut control = engine.control();
        let described = control.describe("s").unwrap();
        assert_eq!((described.config.quota, described.shards[0].oldest), (quota, 4));
        let ControlReply::ClientQuotas(quotas) =
            control.handle(ControlRequest::ListClientQuotas, &[]).unwrap()
        else {
            panic!()
        };
        assert_eq!((quotas.len(), quotas[0].client.as_str()), (1, "loader"));
        drop(control);
        // The older epoch is fenced on both shards, where the newer one has not appended anything.
        for number in [0, 1] {
            let fenced = append(&engine, shard(number), one("a", b"y", stamp(first.1, 1)));
            let (current, got) = (second.1, first.1);
            assert_eq!(fenced, Err(AppendError::Fenced { current, got }));
        }
        let trimmed = engine.read(shard(0), 3, 100).unwrap_err();
        assert_eq!(trimmed, ReadError::Trimmed { from: 3, oldest: 4 });
    }
}

/// Bytes allocated under a directory.
fn disk_use(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += disk_use(&entry.path()),
            Ok(meta) => bytes += meta.blocks() * 512,
            // Renamed or removed meanwhile.
            Err(_) => {}
        }
    }
    bytes
}

#[test]
fn retention_bounds_the_disk_and_makes_no_files_in_the_steady_state() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    const KEEP: u64 = 4 << 20;
    const SEGMENT: u64 = KEEP / 8;
    let limited = StreamConfig { retention_bytes: KEEP, ..config(1) };
    let id = engine.create_stream("s", limited).unwrap().id;
    let shard = ShardId { stream: id, shard: 0 };
    let payload = vec![b'x'; 32 << 10];
    let (mut written, mut most, mut steady) = (0, 0, None);
    while written < 16 * KEEP {
        append(&engine, shard, one("k", &payload, ProducerStamp::default())).unwrap();
        written += payload.len() as u64;
        most = most.max(disk_use(&dir.path().join("shards")));
        if written > 4 * KEEP && steady.is_none() {
            steady = Some(engine.store().pool().counts);
        }
    }
    assert!(most <= KEEP + 2 * SEGMENT, "{most} bytes for {KEEP}");
    let (then, now) = (steady.unwrap(), engine.store().pool().counts);
    // The pool may come to be one file larger, when one was taken a moment before another came back.
    assert!(
        now.created <= then.created + 1,
        "blocks were taken from the file system: {then:?} {now:?}"
    );
    assert!(now.reused - then.reused >= 12 * KEEP / SEGMENT - 4, "{then:?} {now:?}");
    assert!(now.recycled - then.recycled >= now.reused - then.reused - 2, "{then:?} {now:?}");
    // Changed live: less is kept from now on.
    let change = StreamChange { retention_bytes: Some(KEEP / 2), ..StreamChange::default() };
    engine.control().set_stream("s", &change).unwrap();
    append(&engine, shard, one("k", b"y", ProducerStamp::default())).unwrap();
    while engine.control().describe("s").unwrap().shards[0].stored_bytes > KEEP / 2 + 2 * SEGMENT {
        std::thread::yield_now();
    }
}

/// A buffer of 100 TiB was taken, and a retention under which each segment went the moment it was full.
#[test]
fn settings_that_cannot_be_kept_are_refused_with_the_limit() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut options = options();
    options.store.core.held_bytes = 80 << 20;
    let engine = Engine::open(dir.path(), options).unwrap();
    let refused = |result: Result<StreamDescription, ControlError>, words: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.to_wire().code, ErrorCode::InvalidArgument);
        assert!(error.to_string().starts_with(words), "{error}");
    };
    let create = |config| engine.control().create_stream("s", config);
    let buffer = |bytes| Backpressure::Buffer { bytes, age_ms: 5_000 };
    let too_much = "backpressure bytes is 109951162777600; at most 83886080: ";
    refused(create(StreamConfig { backpressure: buffer(100 << 40), ..config(1) }), too_much);
    let too_little = "retention_bytes is 1; 524288 at least (two segments), or 0 for no bound";
    refused(create(StreamConfig { retention_bytes: 1, ..config(1) }), too_little);
    let within =
        StreamConfig { backpressure: buffer(80 << 20), retention_bytes: 512 << 10, ..config(4) };
    create(within).unwrap();
    let set = |change| engine.control().set_stream("s", &change);
    let oldest = Backpressure::DropOldest { bytes: 100 << 40, age_ms: 5_000 };
    refused(set(StreamChange { backpressure: Some(oldest), ..StreamChange::default() }), too_much);
    refused(set(StreamChange { retention_bytes: Some(1), ..StreamChange::default() }), too_little);
    set(StreamChange { retention_bytes: Some(0), ..StreamChange::default() }).unwrap();
    engine.close();
    // With less memory than it was set with it still is as it was, and what else there is can be set.
    let mut options = self::options();
    options.store.core.held_bytes = 1 << 20;
    let engine = Engine::open(dir.path(), options).unwrap();
    let change = StreamChange { retention_ms: Some(7), ..StreamChange::default() };
    let config = engine.control().set_stream("s", &change).unwrap().config;
    assert_eq!((config.retention_ms, config.backpressure), (7, buffer(80 << 20)));
    // What is meant if no size is said is always taken.
    let change = StreamChange { backpressure: Some(buffer(64 << 20)), ..StreamChange::default() };
    engine.control().set_stream("s", &change).unwrap();
}

#[test]
fn closed_shards_give_way_to_their_children_within_the_bytes_of_the_stream() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = Engine::open(dir.path(), options()).unwrap();
    const KEEP: u64 = 4 << 20;
    let limited = StreamConfig { retention_bytes: KEEP, ..config(1) };
    let id = engine.create_stream("s", limited).unwrap().id;
    let payload = vec![b'x'; 32 << 10];
    let fill = |shard, bytes: u64| {
        for _ in 0..bytes / payload.len() as u64 {
            let shard = ShardId { stream: id, shard };
            append(&engine, shard, one("k", &payload, ProducerStamp::default())).unwrap();
        }
    };
    fill(0, 2 * KEEP);
    let split = engine.control().split("s", 0, &[1 << 127]).unwrap();
    let parent = |s: &StreamDescription| (s.shards[0].stored_bytes, s.shards[0].oldest);
    engine.control().tend().unwrap();
    let (kept, oldest) = parent(&split);
    assert!(kept > KEEP / 2, "a split by itself gives nothing up: {kept}");
    fill(1, KEEP / 2);
    fill(2, KEEP / 2);
    engine.control().tend().unwrap();
    loop {
        let (now, now_oldest) = parent(&engine.control().describe("s").unwrap());
        if now < kept / 2 {
            assert!(now_oldest > oldest);
            break;
        }
        std::thread::yield_now();
    }
}
