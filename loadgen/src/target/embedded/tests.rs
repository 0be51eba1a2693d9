//! A real engine in a temporary directory: what goes in comes out, in order, whatever is dropped on the way.

use std::path::Path;

use highwater_wire::AckMode;
use tempfile::TempDir;

use super::*;

/// Where it is stored.
fn stored(fate: Fate) -> Option<u64> {
    let Fate::Stored(at) = fate else { panic!("{fate:?}") };
    at.map(|at| at.sequence)
}

/// An engine whose directory goes with the first value, one stream of one shard in it.
async fn engine(retention_bytes: u64) -> (TempDir, Embedded, StreamDescription) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let engine = open(Some(&dir.path().join("made/if missing")));
    let config = StreamConfig {
        shards: 1,
        retention_ms: 0,
        retention_bytes,
        ack: AckMode::Durable,
        ..StreamConfig::default()
    };
    let stream = engine.stream("s", &config).await.unwrap();
    assert_eq!(engine.stream("s", &config).await.unwrap(), stream, "there already");
    (dir, engine, stream)
}

fn open(dir: Option<&Path>) -> Embedded {
    Embedded::open(EmbeddedOptions {
        dir: dir.map(Path::to_path_buf),
        engine_cores: Vec::new(),
        cores: Vec::new(),
        retention_bytes: 16 << 20,
        hold: Duration::from_secs(10),
    })
    .unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// A batch of `count` records of `size` bytes that begin with their numbers, from `first` on.
fn batch(first: u64, count: u64, size: usize) -> BatchBuilder {
    let mut batch = BatchBuilder::default();
    let mut payload = vec![b'x'; size.max(8)];
    for n in first..first + count {
        payload[..8].copy_from_slice(&n.to_le_bytes());
        batch.push(b"key", &[], &payload, n).unwrap();
    }
    batch
}

fn numbers(chunk: &EmbeddedChunk) -> Vec<(u64, u64)> {
    let mut numbers = Vec::new();
    chunk.each(|record, arrival_ns| {
        assert!(arrival_ns > 1_700_000_000_000_000_000);
        let number = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
        numbers.push((record.sequence, number));
    });
    numbers
}

#[test]
fn what_is_appended_is_answered_and_read_in_order() {
    run(async {
        let (_dir, engine, stream) = engine(0).await;
        let (mut sink, mut outcomes) =
            engine.sink(&stream, 0, LaneOptions { number: 0, inflight: 4 }).await.unwrap();
        let mut source = engine.source(&stream, 0, 0).await.unwrap();
        let produce = async {
            for n in 0..100 {
                sink.ready().await;
                let mut builder = batch(3 * n, 3, 100);
                sink.append(&mut builder, n).await.unwrap();
                assert!(builder.is_empty());
            }
            drop(sink);
        };
        let hear = async {
            let mut heard = Vec::new();
            while let Some(outcome) = outcomes.next().await {
                heard.push((outcome.tag, stored(outcome.fate)));
            }
            assert_eq!(heard, (0..100).map(|n| (n, Some(3 * n))).collect::<Vec<_>>());
        };
        let consume = async {
            let mut read = Vec::new();
            while read.len() < 300 {
                // Dropped unfinished and asked again, nothing is lost: what is under way stays under way.
                tokio::select! {
                    biased;
                    chunk = source.next() => read.extend(numbers(&chunk.unwrap().unwrap())),
                    () = tokio::task::yield_now() => {}
                }
            }
            assert_eq!(read, (0..300).map(|n| (n, n)).collect::<Vec<_>>());
        };
        tokio::join!(produce, hear, consume);
        assert_eq!(source.position(), 300);
        assert_eq!(engine.high_water(&stream, 0).await.unwrap(), 300);
    });
}

#[test]
fn a_source_may_begin_in_a_batch_and_go_elsewhere() {
    run(async {
        let (_dir, engine, stream) = engine(0).await;
        let (mut sink, mut outcomes) =
            engine.sink(&stream, 0, LaneOptions { number: 0, inflight: 1 }).await.unwrap();
        sink.append(&mut batch(0, 10, 100), 0).await.unwrap();
        stored(outcomes.next().await.unwrap().fate);
        let mut source = engine.source(&stream, 0, 7).await.unwrap();
        let chunk = source.next().await.unwrap().unwrap();
        assert_eq!(numbers(&chunk), [(7, 7), (8, 8), (9, 9)]);
        // A read is under way at the tail; after it the position asked for counts.
        tokio::select! {
            biased;
            _ = source.next() => panic!("there is nothing"),
            () = tokio::task::yield_now() => {}
        }
        source.resume(9);
        let chunk = source.next().await.unwrap().unwrap();
        assert_eq!((numbers(&chunk), source.position()), (vec![(9, 9)], 10));
        source.resume(11);
        assert!(matches!(source.next().await, Err(Trouble::Failed(_))), "beyond the end");
    });
}

#[test]
fn what_retention_removed_is_passed_over_and_counted() {
    run(async {
        let (_dir, engine, stream) = engine(8 << 20).await;
        let (mut sink, mut outcomes) =
            engine.sink(&stream, 0, LaneOptions { number: 0, inflight: 4 }).await.unwrap();
        let mut source = engine.source(&stream, 0, 0).await.unwrap();
        let shard = Embedded::shard(&stream, 0);
        let mut written = 0;
        // Retention looks once a second: write until it has.
        while engine.0.engine.locate(shard, Start::Oldest).unwrap().oldest == 0 {
            sink.append(&mut batch(written, 10, 50_000), 0).await.unwrap();
            stored(outcomes.next().await.unwrap().fate);
            written += 10;
        }
        let chunk = source.next().await.unwrap().unwrap();
        let (first, number) = numbers(&chunk)[0];
        assert!(source.trimmed() > 0 && first == number);
        assert_eq!(first, source.trimmed());
    });
}

#[test]
fn a_temporary_directory_goes_with_the_engine_and_a_given_one_stays() {
    run(async {
        let target = open(None);
        let path = target.0.scratch.as_ref().unwrap().path().to_owned();
        assert!(path.join("control.redb").exists());
        let link = target.link().await.unwrap();
        assert!(link.server().contains("in this process, one core on CPU"), "{}", link.server());
        drop(link);
        target.close().unwrap();
        assert!(!path.exists());
        let (dir, target, _) = engine(0).await;
        target.close().unwrap();
        assert!(dir.path().join("made/if missing/control.redb").exists());
    });
}

#[test]
fn a_directory_that_is_something_else_is_refused() {
    let dir = tempfile::tempdir_in(".").unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
    let options = EmbeddedOptions {
        dir: Some(dir.path().to_owned()),
        engine_cores: Vec::new(),
        cores: Vec::new(),
        retention_bytes: 0,
        hold: Duration::ZERO,
    };
    let missing = EmbeddedOptions { dir: None, engine_cores: vec![4095], ..options.clone() };
    let said = |options| Embedded::open(options).err().unwrap().0;
    let not_ours = said(options);
    assert!(not_ours.contains("not a Highwater data directory"), "{not_ours}");
    let no_cpu = said(missing);
    assert!(no_cpu.contains("4095"), "{no_cpu}");
}

#[test]
fn targets_are_told_apart() {
    assert_eq!(directory("embedded"), Some(None));
    assert_eq!(directory("embedded:a/b"), Some(Some("a/b".into())));
    assert_eq!(directory("embedded-host:7411"), None);
    assert_eq!(directory("127.0.0.1:7411"), None);
}

#[test]
fn the_engine_stays_awake_only_where_it_takes_nothing_from_the_generator() {
    let usable = [0, 1, 2, 3];
    for (wanted, generator, expected, awake) in [
        (&[][..], &[][..], &[3][..], false),
        (&[], &[3], &[2], true),
        (&[], &[0, 1, 2, 3], &[3], false),
        (&[1, 2], &[], &[1, 2], false),
        (&[1, 2], &[0], &[1, 2], true),
        (&[1, 2], &[2], &[1, 2], false),
    ] {
        let chosen = cpus(wanted, generator, &usable);
        assert_eq!(chosen, expected);
        assert_eq!(idle(&chosen, generator) != Idle::Block, awake, "{wanted:?} {generator:?}");
    }
}

#[test]
fn a_whole_run_accounts_for_every_record_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let options = LoadOptions {
        target: format!("embedded:{}", dir.path().display()),
        rate: crate::Rate::PerSecond(2_000.0),
        duration: Duration::from_millis(300),
        warmup: crate::WarmUpRule::Fixed(Duration::ZERO),
        producers: 2,
        streams: 2,
        shards: 2,
        groups: 2,
        retention_bytes: 16 << 20,
        ..LoadOptions::default()
    };
    let report = crate::run(options, &mut (), &crate::Stop::default()).unwrap();
    assert!(report.intact() && report.checked, "{report}");
    assert_eq!((report.errors, report.refused, report.unknown), (0, 0, 0), "{report}");
    assert_eq!(report.unread + report.lost, 0);
    assert_eq!(report.consumed_records, 2 * report.acked_records);
    assert!(report.latency_us.delivery.count > 0);
    assert!(report.server.contains("in this process"), "{}", report.server);
    // The directory's lock is free again.
    open(Some(dir.path())).close().unwrap();
}
