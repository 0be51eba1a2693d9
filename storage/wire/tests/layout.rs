//! `docs/wire.md` against the code: tables, declarations and examples are read from the page and compared,
//! so that neither can change alone.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use highwater_wire::telemetry::{
    CoreSnapshot, DeliverySnapshot, Distribution, GroupSnapshot, HotKey, Refusals, ShardSnapshot,
    Snapshot,
};
use highwater_wire::*;
use rkyv::Archived;

const DOC: &str = include_str!("../../../docs/wire.md");

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

/// The bytes of the example called `name`.
fn example(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}");
    let lines = DOC.lines().skip_while(|line| *line != fence).skip(1);
    let words = lines.take_while(|line| *line != "```").flat_map(str::split_whitespace);
    let bytes: Vec<u8> = words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect();
    assert!(!bytes.is_empty(), "no example {name}");
    bytes
}

fn same_header(name: &str, len: usize, fields: &[(&str, usize, usize)]) {
    let documented: Vec<(&str, usize, usize)> = table(&format!("### `{name}`, {len} bytes"))
        .iter()
        .map(|row| (row[0], row[1].parse().unwrap(), row[2].parse().unwrap()))
        .collect();
    assert_eq!(documented, fields, "{name}");
}

macro_rules! headers {
    ($($name:ident),*) => { $( same_header(stringify!($name), $name::LEN, $name::FIELDS); )* };
}

#[test]
fn every_header_is_as_documented() {
    headers!(FrameHeader, BatchHeader, RecordHeader);
    headers!(AppendRequest, AppendReply, FetchRequest, FetchReply, SubscribeRequest);
    headers!(SubscribeReply, DeliverHeader, CreditRequest, UnsubscribeRequest);
    headers!(LocateRequest, LocateReply, RecordOutcome, DeliveryReceipt, FilterCounts);
    assert_eq!(DOC.matches("\n### `").count(), 17, "a header without a test");
}

#[test]
fn every_kind_and_error_is_as_documented() {
    let kinds: Vec<(String, &str)> =
        Kind::ALL.iter().map(|(kind, name)| (format!("{:#06x}", *kind as u16), *name)).collect();
    let documented: Vec<(String, &str)> =
        table("### Kinds").iter().map(|row| (row[0].to_owned(), row[1])).collect();
    assert_eq!(documented, kinds);
    for (kind, _) in &kinds {
        // A reply's number is its request's with the highest bit set.
        let number = u16::from_str_radix(&kind[2..], 16).unwrap();
        let known = |n: u16| kinds.iter().any(|(k, _)| *k == format!("{n:#06x}"));
        let is_reply = (0x8000..0x8100).contains(&number);
        assert!(!is_reply || known(number & 0x7fff), "{kind}");
    }
    let codes: Vec<[String; 4]> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retriable = if code.retriable() { "yes" } else { "no" };
            let number = (*code as u16).to_string();
            [number, format!("{code:?}"), retriable.to_owned(), code.meaning().to_owned()]
        })
        .collect();
    assert_eq!(table("## Errors"), codes);
}

#[test]
fn every_constant_is_as_documented() {
    let limits = Limits::default();
    let constants = [
        ("PROTOCOL_VERSION", u64::from(PROTOCOL_VERSION)),
        ("FRAME_MAGIC", u64::from(FRAME_MAGIC)),
        ("BATCH_MAGIC", u64::from(BATCH_MAGIC)),
        ("BATCH_VERSION", u64::from(BATCH_VERSION)),
        ("ENCODING_RECORDS", u64::from(ENCODING_RECORDS)),
        ("MAX_CONTROL", max_control()),
        ("MAX_KEY_CHARS", MAX_KEY_CHARS as u64),
        ("MAX_NAME_CHARS", max_name()),
        ("MAX_SHARDS_PER_STREAM", u64::from(MAX_SHARDS_PER_STREAM)),
        ("MAX_RECORD_CEILING", u64::from(MAX_RECORD_CEILING)),
        ("max_record` (default)", u64::from(limits.max_record)),
        ("max_batch` (default)", u64::from(limits.max_batch)),
        ("max_frame` (default)", limits.max_frame() as u64),
    ];
    let documented: Vec<(&str, u64)> =
        table("## Constants").iter().map(|row| (row[0], number(row[1]))).collect();
    assert_eq!(documented, constants);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert!(DOC.contains("`e3069283`"));
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

/// The largest control part that a frame may announce.
fn max_control() -> u64 {
    let takes = |len: u32| {
        let mut frame = Vec::new();
        encode_frame_header(&mut frame, Kind::Control, 1, &[], 0);
        frame[16..20].copy_from_slice(&len.to_le_bytes());
        decode_frame(&frame, usize::MAX).is_ok()
    };
    let (mut low, mut high) = (0, u32::MAX);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if takes(middle) { low = middle } else { high = middle - 1 }
    }
    u64::from(low)
}

fn max_name() -> u64 {
    (1..1000).take_while(|&n| StreamName::new(&"x".repeat(n)).is_ok()).count() as u64
}

/// All `struct` and `enum` items of a text, without visibility, comments and attributes, blanks squeezed.
fn items(text: &str) -> Vec<String> {
    let plain: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("#["))
        .map(|line| line.strip_prefix("pub ").unwrap_or(line))
        .collect();
    let begins = |line: &str| {
        let name = line.strip_prefix("struct ").or_else(|| line.strip_prefix("enum "));
        name.is_some_and(|name| name.starts_with(char::is_alphabetic) && name.ends_with('{'))
    };
    // Variants with fields end in "},", the item itself in "}".
    let item = |at: usize| {
        let end = plain[at..].iter().position(|line| *line == "}").unwrap();
        plain[at..at + end].join(" ")
    };
    (0..plain.len()).filter(|&at| begins(plain[at])).map(item).collect()
}

#[test]
fn every_declaration_is_as_documented() {
    macro_rules! sources {
        ($($name:literal),*) => { [ $( ($name, include_str!(concat!("../src/", $name, ".rs"))) ),* ] };
    }
    let sources = sources!("quota", "stream", "group", "control", "telemetry", "deliveries");
    for (name, source) in sources {
        let fence = format!("```rust {name}\n");
        let blocks = DOC.split(&fence).skip(1).filter_map(|block| block.split("```").next());
        assert_eq!(items(&blocks.collect::<String>()), items(source), "{name}");
    }
    let declared: Vec<usize> = sources.iter().map(|(_, source)| items(source).len()).collect();
    assert!(declared.iter().all(|items| *items >= 4), "{declared:?}");
    assert_eq!(
        DOC.matches("```rust").count(),
        sources.len(),
        "a block that nothing is compared with"
    );
}

#[test]
fn every_archived_size_is_as_documented() {
    macro_rules! sizes {
        ($($name:ident),*) => { vec![ $( (stringify!($name), size_of::<Archived<$name>>()), )* ] };
    }
    let mut sizes = sizes!(ControlRequest, ControlReply, ErrorReply, StreamConfig);
    sizes.extend(sizes!(StreamDescription, ShardDescription, Position, GroupDescription));
    sizes.extend(sizes!(GroupShard, ClusterInfo, Snapshot, CoreSnapshot, ShardSnapshot));
    sizes.extend(sizes!(Quota, Backpressure, StreamChange, ShardCounters, TrimBefore, ClientQuota));
    sizes.extend(sizes!(GroupSnapshot, Distribution, Refusals, HotKey, ResetPosition, ResetTo));
    sizes.extend(sizes!(GroupMember, LeaseGrant, LeasedPosition, Membership));
    sizes.extend(sizes!(DeliveryConfig, GroupDelivery, Outcome, Settlement, Portion, Burial));
    sizes.extend(sizes!(Claimed, SequenceRange, Redriven, DeliverySnapshot));
    let documented: Vec<(&str, usize)> = table("- `String` is 8 bytes.")
        .iter()
        .map(|row| (row[0], row[1].parse().unwrap()))
        .collect();
    assert_eq!(documented, sizes);
}

fn frame(kind: Kind, correlation: u64, control: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, kind, correlation, control, data);
    bytes
}

#[test]
fn control_messages_have_the_documented_bytes() {
    let hello = ControlRequest::Hello { protocol: PROTOCOL_VERSION, client: "doc".into() };
    let bytes = frame(Kind::Control, 1, &encode_control_request(&hello), &[]);
    assert_eq!(bytes, example("hello-frame"));
    let config = StreamConfig {
        shards: 4,
        retention_ms: 86_400_000,
        retention_bytes: 1 << 30,
        ack: AckMode::Written,
        ..StreamConfig::default()
    };
    let create = ControlRequest::CreateStream { name: "clicks".into(), config };
    assert_eq!(encode_control_request(&create), example("create-stream"));
    let error = WireError::new(ErrorCode::Busy, "queue is full").retry_after(10);
    assert_eq!(encode_error(&error), example("error-reply"));
    // And back, from the bytes on the page.
    assert_eq!(decode_control_request(&example("create-stream")), Ok(create));
    assert_eq!(decode_error(&example("error-reply")), error);
}

#[test]
fn an_append_has_the_documented_bytes() {
    let mut builder = BatchBuilder::default();
    builder.push(b"user-1", &[Header { name: "v", value: b"2" }], b"hello", 1_000_000_000).unwrap();
    let batch = builder.finish(ProducerStamp { id: 7, epoch: 0, sequence: 0 });
    let request = AppendRequest::new(ShardId { stream: 1, shard: 0 }, 0);
    let bytes = frame(Kind::Append, 2, &request.to_array(), batch);
    assert_eq!(bytes, example("append-frame"));
    let reply = AppendReply::whole(42, 2_000_000_000, 1, false);
    let bytes = frame(Kind::AppendReply, 2, &reply.to_array(), &[]);
    assert_eq!(bytes, example("append-reply-frame"));
}

#[test]
fn partitioning_is_as_documented() {
    let shard = split_evenly(3)[1];
    let keys: Vec<String> = [hash_key(b"user-1"), shard.start, shard.end]
        .iter()
        .map(|key| format!("{key:032x}"))
        .collect();
    let documented: Vec<&str> = table("## Partitioning").iter().map(|row| row[1]).collect();
    assert_eq!(documented, keys);
}
