//! What only a hostile or unlucky client sends, and what it is told: a typed error, at once, and nothing is stored.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use highwater_wire::{
    AppendRequest, BatchBuilder, BatchHeader, Compression, ControlReply, ControlRequest, Decoded,
    ErrorCode, Kind, PROTOCOL_VERSION, Packer, ProducerStamp, ShardId, WireError,
    decode_control_reply, decode_error, decode_frame, encode_control_request, encode_frame,
    restamp,
};

use crate::support::{Server, refused, said, scratch, text, until};

/// A connection that speaks frames, one request at a time.
struct Wire {
    socket: TcpStream,
    received: Vec<u8>,
    correlation: u64,
}

impl Wire {
    fn greeted(addr: &str) -> Wire {
        let socket = TcpStream::connect(addr).unwrap();
        let mut wire = Wire { socket, received: Vec::new(), correlation: 0 };
        let hello = ControlRequest::Hello { protocol: PROTOCOL_VERSION, client: "test".into() };
        wire.control(&hello).unwrap();
        wire
    }

    fn control(&mut self, request: &ControlRequest) -> Result<ControlReply, WireError> {
        let control = encode_control_request(request);
        let reply = self.exchange(Kind::Control, &control, &[])?;
        Ok(decode_control_reply(&reply).unwrap())
    }

    fn append(&mut self, shard: ShardId, batch: &[u8]) -> Result<(), WireError> {
        let request = AppendRequest::new(shard, 5_000);
        self.exchange(Kind::Append, &request.to_array(), batch).map(drop)
    }

    /// A request, and the control part of its reply.
    fn exchange(&mut self, kind: Kind, control: &[u8], data: &[u8]) -> Result<Vec<u8>, WireError> {
        self.correlation += 1;
        let mut frame = Vec::new();
        encode_frame(&mut frame, kind, self.correlation, control, data);
        self.socket.write_all(&frame).unwrap();
        loop {
            if let Decoded::Frame(frame, used) = decode_frame(&self.received, 64 << 20).unwrap() {
                let (kind, control) = (frame.kind, frame.control.to_vec());
                self.received.drain(..used);
                return match kind {
                    Kind::Error => Err(decode_error(&control)),
                    _ => Ok(control),
                };
            }
            let mut buffer = [0; 16 << 10];
            let read = self.socket.read(&mut buffer).unwrap();
            assert!(read > 0, "the server closed the connection");
            self.received.extend_from_slice(&buffer[..read]);
        }
    }
}

/// The stream's first shard.
fn first_shard(server: &Server, stream: &str) -> ShardId {
    let described = server.json(&["stream", "describe", stream, "--json"]);
    ShardId { stream: described["id"].as_u64().unwrap() as u32, shard: 0 }
}

/// A megabyte of nothing, packed, which announces `announced` bytes if that is told.
fn packed(compression: Compression, announced: Option<u32>) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    builder.push(b"k", &[], &vec![0; 1_000_000], 5).unwrap();
    let mut batch = builder.finish(ProducerStamp::default()).to_vec();
    Packer::new(compression).pack(&mut batch);
    assert!(batch.len() < 64 << 10, "{} bytes", batch.len());
    if let Some(bytes) = announced {
        let mut header = *BatchHeader::view(&batch).unwrap();
        header.body_length = bytes.into();
        header.write_to(&mut batch);
        restamp(&mut batch, ProducerStamp::default());
    }
    batch
}

#[test]
fn a_decompression_bomb_is_refused_before_it_goes_off() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let shard = first_shard(&server, "s");
    let mut wire = Wire::greeted(&server.addr);
    for compression in [Compression::Lz4, Compression::Zstd] {
        for (announced, code) in [
            (u32::MAX, ErrorCode::BatchTooLarge),
            (1 << 30, ErrorCode::BatchTooLarge),
            (1_024, ErrorCode::CorruptBatch),
            (1_040_000, ErrorCode::CorruptBatch),
            (1_200_000, ErrorCode::BatchTooLarge),
        ] {
            let batch = packed(compression, Some(announced));
            let told = wire.append(shard, &batch).unwrap_err();
            assert_eq!(told.code, code, "{compression} {announced}: {told}");
        }
        assert!(server.peak_memory() < 256 << 20, "{} bytes", server.peak_memory());
        assert_eq!(server.records("s"), u64::from(compression == Compression::Zstd));
        wire.append(shard, &packed(compression, None)).unwrap();
    }
    // What was honest comes out as it went in, twice.
    assert_eq!(server.ok(&["tail", "s"]), [&vec![0; 1_000_000][..], b"\n"].concat().repeat(2));
}

#[test]
fn an_older_or_invented_epoch_of_a_producer_is_fenced() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let shard = first_shard(&server, "s");
    let mut wire = Wire::greeted(&server.addr);
    let mut open = || match wire.control(&ControlRequest::OpenProducer { name: "till".into() }) {
        Ok(ControlReply::Producer { id, epoch }) => (id, epoch),
        other => panic!("{other:?}"),
    };
    let (id, old) = open();
    let (again, new) = open();
    assert_eq!(id, again);
    assert!(new > old, "{new} after {old}");
    let mut batch = |epoch, sequence| {
        let mut builder = BatchBuilder::default();
        builder.push(b"k", &[], b"payload", 5).unwrap();
        let batch = builder.finish(ProducerStamp { id, epoch, sequence }).to_vec();
        wire.append(shard, &batch)
    };
    // The older one is turned away although this shard has not yet heard of the newer.
    assert_eq!(batch(old, 0).unwrap_err().code, ErrorCode::ProducerFenced);
    batch(new, 0).unwrap();
    assert_eq!(batch(old, 1).unwrap_err().code, ErrorCode::ProducerFenced);
    assert_eq!(batch(0, 1).unwrap_err().code, ErrorCode::ProducerFenced);
    batch(new, 1).unwrap();
    // It was stored, and locked out whoever the name belongs to.
    assert_eq!(batch(new + 1, 0).unwrap_err().code, ErrorCode::UnknownProducer);
    assert_eq!(batch(u32::MAX, 0).unwrap_err().code, ErrorCode::UnknownProducer);
    batch(new, 2).unwrap();
    assert_eq!(server.records("s"), 3);
}

#[test]
fn a_named_producer_started_again_fences_the_one_that_runs() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let mut first = server.begin(&["put", "s", "--producer", "till"]);
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    until(|| server.records("s") == 1);
    assert!(server.put("s", b"two\n", &["--producer", "till"]).status.success());
    stdin.write_all(b"three\n").unwrap();
    drop(stdin);
    let first = first.wait_with_output().unwrap();
    refused(&first, 1, &["till", "opened by somebody else"]);
    assert_eq!(server.ok(&["tail", "s"]), b"one\ntwo\n");
}

#[test]
fn an_expected_sequence_number_is_held_to() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    let put =
        |input: &[u8], expected: &str| server.put("s", input, &["--expect-sequence", expected]);
    let alone = put(b"a\nb\n", "0");
    assert!(alone.status.success(), "{}", said(&alone));
    refused(&put(b"c\n", "0"), 1, &["2"]);
    refused(&put(b"c\n", "3"), 1, &["2"]);
    assert!(put(b"c\n", "2").status.success());
    assert_eq!(server.ok(&["tail", "s"]), b"a\nb\nc\n");

    // Of several shards each counts for itself: which one is meant must follow from the key.
    server.create("wide", 3);
    let wide = |args: &[&str]| {
        server.put("wide", b"a\nb\n", &[&["--expect-sequence", "0"], args].concat())
    };
    refused(&wide(&[]), 1, &["--expect-sequence", "3 open shards", "--key const"]);
    refused(&wide(&["--format", "json", "--key", "user"]), 1, &["3 open shards"]);
    assert_eq!(server.records("wide"), 0);
    let meant = wide(&["--key", "const:k"]);
    assert!(meant.status.success(), "{}", said(&meant));
    refused(&wide(&["--key", "const:k"]), 1, &["2"]);
    assert_eq!(server.records("wide"), 2);
}

#[test]
fn what_is_compressed_comes_back_as_it_was() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    for compression in ["lz4", "zstd", "none"] {
        server.create(compression, 1);
        let input = b"the same line over and over again\n".repeat(20_000);
        let put =
            server.put(compression, &input, &["--compression", compression, "--key", "const"]);
        assert!(put.status.success(), "{}", said(&put));
        assert_eq!(server.ok(&["tail", compression]), input);
    }
    let bytes = |stream: &str| {
        let described = server.json(&["stream", "describe", stream, "--json"]);
        described["shards"][0]["bytes"].as_u64().unwrap()
    };
    assert!(bytes("lz4") < bytes("none") / 2 && bytes("zstd") < bytes("none") / 2);
    refused(&server.put("none", b"x", &["--compression", "gzip"]), 2, &["--compression", "gzip"]);
}

#[test]
fn a_quota_of_one_record_a_second_says_so_and_when_to_come_back() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.ok(&["stream", "create", "s", "--quota-in", "1rec/s"]);
    let put = server.put("s", &b"x\n".repeat(50), &["--timeout", "1s"]);
    refused(&put, 1, &["quota"]);
    let stored = server.records("s");
    assert!(stored < 10, "{stored} stored: {}", text(&put));
    // By hand: the code, and a time.
    let mut wire = Wire::greeted(&server.addr);
    let shard = first_shard(&server, "s");
    let mut batch = BatchBuilder::default();
    batch.push(b"k", &[], b"payload", 5).unwrap();
    let batch = batch.finish(ProducerStamp::default()).to_vec();
    let told = (0..10).find_map(|_| wire.append(shard, &batch).err()).expect("a refusal");
    assert_eq!(told.code, ErrorCode::QuotaExceeded, "{told}");
    assert!((1..=60_000).contains(&told.retry_after_ms), "{} ms", told.retry_after_ms);
}
