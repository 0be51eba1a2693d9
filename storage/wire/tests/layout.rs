use highwater_wire::*;
fn hex(b: &[u8]) { for (i, c) in b.chunks(16).enumerate() { print!("{:04x}: ", i*16); for x in c { print!("{x:02x} "); } println!(); } }
#[test] fn dump() {
    let c = encode_control_request(&ControlRequest::Hello { protocol: 1, client: "doc".into() });
    println!("hello-archive"); hex(&c);
    let mut f = Vec::new(); encode_frame(&mut f, Kind::Control, 1, &c, &[]); println!("hello-frame"); hex(&f);
    let c = encode_control_request(&ControlRequest::Hello { protocol: 1, client: "highwater-client".into() });
    println!("hello-archive long"); hex(&c);
    let c = encode_control_request(&ControlRequest::CreateStream { name: "clicks".into(), config: StreamConfig { shards: 4, retention_ms: 86_400_000, retention_bytes: 1<<30, ack: AckMode::Written } });
    println!("create"); hex(&c);
    println!("empty"); hex(&encode_control_request(&ControlRequest::ListStreams));
    println!("commit"); hex(&encode_control_request(&ControlRequest::CommitPositions { group: "g".into(), stream: "clicks".into(), positions: vec![Position { shard: 0, sequence: 7}, Position {shard: 1, sequence: 9}] }));
    println!("error"); hex(&encode_error(&WireError::new(ErrorCode::OutOfSequence, "resend").detail(7)));
    println!("error long"); hex(&encode_error(&WireError::new(ErrorCode::Busy, "queue is full").retry_after(10)));
    println!("done"); hex(&encode_control_reply(&ControlReply::Done));
    println!("producer"); hex(&encode_control_reply(&ControlReply::Producer{id:7, epoch:0}));
    println!("hello reply"); hex(&encode_control_reply(&ControlReply::Hello(ClusterInfo { protocol: 1, server: "0.1.0".into(), max_record: 1<<20, max_batch: (1<<20)+4096, core_ports: vec![7412, 7413], now_ns: 5})));
    for s in [7,8,9] { println!("str {s}"); hex(&encode_control_request(&ControlRequest::ListGroups{stream: "abcdefghijk"[..s].into()})); }
    println!("str empty"); hex(&encode_control_request(&ControlRequest::ListGroups{stream: "".into()}));
    println!("str 64"); hex(&encode_control_request(&ControlRequest::ListGroups{stream: "x".repeat(100)}));
    let mut b = BatchBuilder::default();
    b.push(b"user-1", &[Header{name:"v", value: b"2"}], b"hello", 1_000_000_000).unwrap();
    let bytes = b.finish(ProducerStamp { id: 7, epoch: 0, sequence: 0 }).to_vec();
    let a = AppendRequest { stream: 1.into(), shard: 0.into(), timeout_ms: 0.into(), reserved: 0.into() };
    let mut f = Vec::new(); encode_frame(&mut f, Kind::Append, 2, &a.to_array(), &bytes);
    println!("append"); hex(&f);
    let r = AppendReply { base_sequence: 42.into(), arrival_ns: 2_000_000_000u64.into(), record_count: 1.into(), duplicate: 0.into() };
    let mut f = Vec::new(); encode_frame(&mut f, Kind::AppendReply, 2, &r.to_array(), &[]);
    println!("appendreply"); hex(&f);
    println!("sizes: req {} reply {} err {} sc {}", size_of::<rkyv::Archived<ControlRequest>>(), size_of::<rkyv::Archived<ControlReply>>(), size_of::<rkyv::Archived<ErrorReply>>(), size_of::<rkyv::Archived<StreamConfig>>());
    println!("sizes: SD {} StrD {} Pos {} GS {} GD {} CI {}", size_of::<rkyv::Archived<ShardDescription>>(), size_of::<rkyv::Archived<StreamDescription>>(), size_of::<rkyv::Archived<Position>>(), size_of::<rkyv::Archived<GroupShard>>(), size_of::<rkyv::Archived<GroupDescription>>(), size_of::<rkyv::Archived<ClusterInfo>>());
    use telemetry::*;
    println!("sizes: Dist {} Core {} Shard {} Group {} Snap {}", size_of::<rkyv::Archived<Distribution>>(), size_of::<rkyv::Archived<CoreSnapshot>>(), size_of::<rkyv::Archived<ShardSnapshot>>(), size_of::<rkyv::Archived<GroupSnapshot>>(), size_of::<rkyv::Archived<Snapshot>>());
    println!("hash {:032x} {:032x}", hash_key(b"user-1"), hash_key(b""));
    for r in split_evenly(3) { println!("{:032x} {:032x}", r.start, r.end); }
    println!("crc {:08x}", crc32c(b"123456789"));
}
