use highwater_engine::format::*;
use highwater_engine::*;
fn hex(b: &[u8]) {
    for (i, c) in b.chunks(16).enumerate() {
        print!("{:04x}: ", i * 16);
        for x in c {
            print!("{x:02x} ");
        }
        println!();
    }
}
#[test]
fn dump() {
    let seal = Seal {
        end_sequence: 3,
        last_arrival_ns: 9,
        index: vec![IndexEntry { sequence: 0, offset: 4096, arrival_ns: 5 }],
        producers: vec![Producer {
            id: 7,
            epoch: 0,
            next: 3,
            last_used: 3,
            recent: vec![Stored { sequence: 0, records: 3, base_sequence: 0, arrival_ns: 5 }],
        }],
    };
    hex(&seal.encode());
    println!("empty");
    hex(&Seal { end_sequence: 1, last_arrival_ns: 2, index: vec![], producers: vec![] }.encode());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine = Engine::open(dir.path(), EngineOptions::default()).unwrap();
    let config = highwater_wire::StreamConfig {
        shards: 1,
        retention_ms: 0,
        retention_bytes: 0,
        ack: Default::default(),
    };
    let stream = engine.create_stream("clicks", config).unwrap();
    let shard = highwater_wire::ShardId { stream: stream.id, shard: 0 };
    let mut batch = highwater_wire::BatchBuilder::default();
    batch.push(b"user-1", &[], b"hello", 0).unwrap();
    engine.append(shard, batch.finish(Default::default()).to_vec()).unwrap().wait().unwrap();
    engine.close();
    for e in std::process::Command::new("find")
        .arg(dir.path())
        .arg("-printf")
        .arg("%P %s\n")
        .output()
        .unwrap()
        .stdout
        .split(|b| *b == b'\n')
    {
        println!("{}", String::from_utf8_lossy(e));
    }
    println!("{}", std::fs::read_to_string(dir.path().join("highwater.json")).unwrap());
    println!("{}", std::fs::read_to_string(dir.path().join("calibration.txt")).unwrap());
    let seg = std::fs::read(dir.path().join("shards/1-0/000000000000.seg")).unwrap();
    hex(&seg[..128]);
    hex(&seg[4096..4096 + 256]);
    hex(&seg[8192..8192 + 256]);
}
