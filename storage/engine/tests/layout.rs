//! `docs/format.md` against the code and against a directory made by it: tables, declarations and the
//! example are read from the page and compared, so that neither can change alone.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;

use highwater_engine::format::*;
use highwater_engine::recovery::{Case, Evidence, Place};
use highwater_engine::*;
use highwater_ring::BLOCK_ALIGN;
use highwater_wire::{BatchBuilder, BatchView, ProducerStamp, ShardId, StreamConfig, crc32c};
use redb::{ReadableDatabase, TableHandle};
use rkyv::Archived;

const DOC: &str = include_str!("../../../docs/format.md");

/// The rows of the first table behind the line that begins with `after`, cells trimmed of blanks and backticks.
fn table(after: &str) -> Vec<Vec<&'static str>> {
    let lines = DOC.lines().skip_while(|line| !line.starts_with(after)).skip(1);
    let rows: Vec<Vec<&str>> = lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|c| c.trim().trim_matches('`')).collect())
        .collect();
    assert!(rows.len() > 2, "no table behind {after:?}");
    rows[2..].to_vec()
}

/// The lines of the code block that begins with `fence`.
fn block(fence: &str) -> Vec<&'static str> {
    let lines = DOC.lines().skip_while(|line| *line != fence).skip(1);
    lines.take_while(|line| *line != "```").collect()
}

fn same_header(name: &str, len: usize, fields: &[(&str, usize, usize)]) {
    let documented: Vec<(&str, usize, usize)> = table(&format!("### `{name}`, {len} bytes"))
        .iter()
        .map(|row| (row[0], row[1].parse().unwrap(), row[2].parse().unwrap()))
        .collect();
    assert_eq!(documented, fields, "{name}");
}

#[test]
fn every_header_is_as_documented() {
    macro_rules! headers {
        ($($name:ident),*) => { $( same_header(stringify!($name), $name::LEN, $name::FIELDS); )* };
    }
    headers!(SegmentHeader, BlockHeader, CheckpointHeader, CheckpointEntry);
    assert_eq!(DOC.matches("\n### `").count(), 4, "a header without a test");
}

#[test]
fn every_constant_is_as_documented() {
    let options = CoreOptions::default();
    let constants = [
        ("FORMAT_VERSION", u64::from(FORMAT_VERSION)),
        ("BLOCK_ALIGN", BLOCK_ALIGN as u64),
        ("SEGMENT_MAGIC", SEGMENT_MAGIC),
        ("BLOCK_MAGIC", u64::from(BLOCK_MAGIC)),
        ("CHECKPOINT_MAGIC", CHECKPOINT_MAGIC),
        ("KIND_DATA", u64::from(KIND_DATA)),
        ("KIND_SEAL", u64::from(KIND_SEAL)),
        ("KIND_SEAL_1", u64::from(KIND_SEAL_1)),
        ("REMEMBERED", REMEMBERED as u64),
        ("segment, smallest (default)", options.segments.min),
        ("segment, largest (default)", options.segments.max),
        ("reach of groups in flight (default)", in_flight_bytes(&options)),
    ];
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    };
    let documented: Vec<(&str, u64)> =
        table("## Constants").iter().map(|row| (row[0], number(row[1]))).collect();
    assert_eq!(documented, constants);
    assert_eq!(SEGMENT_HEADER_LEN, BLOCK_ALIGN as u64);
}

/// A text without visibility, comments and attributes, in one line.
fn squeezed<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let plain = lines
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("#["))
        .map(|line| line.strip_prefix("pub ").unwrap_or(line));
    plain.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_seal_is_as_documented() {
    let sources = [
        include_str!("../src/segment.rs"),
        include_str!("../src/index.rs"),
        include_str!("../src/producers.rs"),
    ];
    let sources = squeezed(sources.iter().flat_map(|source| source.lines()));
    let declared = squeezed(block("```rust").into_iter());
    let items: Vec<&str> = declared.split_inclusive("} ").collect();
    assert_eq!(items.len(), 4);
    for item in items {
        assert!(sources.contains(item.trim()), "{item}");
    }
    let sizes = [
        ("Seal", size_of::<Archived<Seal>>()),
        ("IndexEntry", size_of::<Archived<IndexEntry>>()),
        ("Producer", size_of::<Archived<Producer>>()),
        ("Stored", size_of::<Archived<Stored>>()),
    ];
    let documented: Vec<(&str, usize)> =
        table("struct Stored {").iter().map(|row| (row[0], row[1].parse().unwrap())).collect();
    assert_eq!(documented, sizes);

    let stored = Stored { sequence: 0, records: 2, decided: 3, base_sequence: 0, arrival_ns: 5 };
    let producer = Producer { id: 7, epoch: 0, next: 3, last_used: 2, recent: vec![stored] };
    let seal = Seal {
        end_sequence: 2,
        last_arrival_ns: 9,
        index: vec![IndexEntry { sequence: 0, offset: 4096, arrival_ns: 5 }],
        producers: vec![producer],
    };
    let example: Vec<u8> = block("```hex seal")
        .into_iter()
        .flat_map(str::split_whitespace)
        .map(|word| u8::from_str_radix(word, 16).unwrap())
        .collect();
    assert_eq!(seal.encode(), example);
    assert_eq!(Seal::decode(&example), Some(seal));
}

#[test]
fn the_recovery_table_is_as_documented() {
    let rows = table("### The end of the log");
    for place in [Place::Stale, Place::BadHeader, Place::BadBody] {
        for claimed in [false, true] {
            for followed in [false, true] {
                let yes =
                    |cell: &str, value| cell == "any" || cell == if value { "yes" } else { "no" };
                let matching: Vec<_> = rows
                    .iter()
                    .filter(|row| row[0] == format!("{place:?}"))
                    .filter(|row| yes(row[1], claimed) && yes(row[2], followed))
                    .map(|row| (row[3].to_owned(), row[4]))
                    .collect();
                let case = Case::of(Evidence { place, claimed, followed });
                let outcome = match case {
                    Case::CleanEnd => "end",
                    case if case.is_damage() => "stop",
                    case if case.is_ambiguous() => "cut, ambiguous",
                    _ => "cut",
                };
                assert_eq!(matching, [(format!("{case:?}"), outcome)]);
            }
        }
    }
}

/// A directory with one stream of one shard, one record in it, stopped in order.
fn directory(dir: &Path) {
    let engine = Engine::open(dir, EngineOptions::default()).unwrap();
    let config = StreamConfig {
        shards: 1,
        retention_ms: 0,
        retention_bytes: 0,
        ack: highwater_wire::AckMode::Durable,
        ..StreamConfig::default()
    };
    let stream = engine.create_stream("clicks", config).unwrap();
    let mut batch = BatchBuilder::default();
    batch.push(b"user-1", &[], b"hello", 0).unwrap();
    let batch = batch.finish(ProducerStamp::default()).to_vec();
    let shard = ShardId { stream: stream.id, shard: 0 };
    engine.append(shard, batch).unwrap().wait().unwrap();
    engine.close();
}

/// A documented path with its placeholders filled in.
fn fill(path: &str) -> String {
    path.replace("<epoch>-<core>", "0000000001-0000")
        .replace("<stream>-<shard>", "1-0")
        .replace("<segment>", "000000000000")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

#[test]
fn a_directory_made_by_the_engine_is_as_documented() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = temp.path();
    directory(dir);

    // Every documented path but the sidecar is there, and nothing else at the top.
    let mut top: Vec<String> = Vec::new();
    for row in table("## The tree") {
        let path = fill(row[0]);
        assert_eq!(dir.join(&path).exists(), !path.ends_with(".seal"), "{path}");
        top.extend(path.split('/').next().map(str::to_owned));
    }
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(top.contains(&name), "{name} is not documented");
    }
    let identity = std::fs::read_to_string(dir.join("highwater.json")).unwrap();
    let identity = identity.replace(env!("CARGO_PKG_VERSION"), "0.1.0");
    assert_eq!(identity.lines().collect::<Vec<_>>(), block("```json"));
    for line in std::fs::read_to_string(dir.join("calibration.txt")).unwrap().lines() {
        let key = line.split('=').next().unwrap();
        assert!(DOC.contains(&format!("`{key}`")), "{key} is not documented");
    }

    let db = redb::Database::open(dir.join("control.redb")).unwrap();
    let read = db.begin_read().unwrap();
    let mut names: Vec<String> =
        read.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    names.sort();
    let documented: Vec<&str> = table("## Control database").iter().map(|row| row[0]).collect();
    assert_eq!(documented, names);

    // The log, by the offsets on the page alone.
    let log = std::fs::read(dir.join(fill("shards/<stream>-<shard>/<segment>.seg"))).unwrap();
    assert_eq!(log.len(), 4 << 20);
    assert_eq!((&log[..8], u32_at(&log, 116)), (&b"HWSEG001"[..], crc32c(&log[..116])));
    let generation = u64_at(&log, 24);
    let data = &log[4096..];
    let body = &data[64..][..u32_at(data, 44) as usize];
    assert_eq!((&data[..4], u32_at(data, 4)), (&b"HWBK"[..], crc32c(&data[8..64])));
    assert_eq!((u64_at(data, 8), u64_at(data, 16)), (generation, 1));
    assert_eq!((u32_at(data, 56), u32_at(data, 60)), (crc32c(body), 0));
    let batch = BatchView::parse(body).unwrap();
    assert_eq!(batch.records().next().unwrap().payload, b"hello");
    let seal_offset = 4096 + u64::from(u32_at(data, 40));
    let seal = &log[seal_offset as usize..];
    assert_eq!((u64_at(seal, 8), u64_at(seal, 16), seal[54]), (generation, 2, 2));
    assert_eq!(u32_at(seal, 60), u32_at(data, 4), "the chain");
    let body = &seal[64..][..u32_at(seal, 44) as usize];
    assert_eq!((u32_at(seal, 56), Seal::decode(body).unwrap().end_sequence), (crc32c(body), 1));

    // The checkpoint of the stop names the seal, in one slot or the other.
    let file = std::fs::read(dir.join(fill("checkpoint/<epoch>-<core>.ckpt"))).unwrap();
    let (even, odd) = file.split_at(file.len() / 2);
    let last = if u64_at(even, 8) > u64_at(odd, 8) { even } else { odd };
    assert_eq!((&last[..8], u32_at(last, 28)), (&b"HWCP0001"[..], crc32c(&last[..28])));
    let entry = &last[32..64];
    assert_eq!((u32_at(last, 20), u32_at(last, 24)), (1, crc32c(entry)));
    assert_eq!((u32_at(entry, 0), u32_at(entry, 4), u64_at(entry, 8)), (1, 0, generation));
    assert_eq!((u64_at(entry, 16), u64_at(entry, 24)), (2, seal_offset));
}
