//! Filters of subscriptions and fetches, in bare frames.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

// Each test file is a crate of its own and uses a part of it.
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
mod raw;

use highwater_wire::{
    BatchBuilder, BatchIter, Compression, ControlReply, ControlRequest, DeliverHeader, ErrorCode,
    FetchReply, FetchRequest, FilterCounts, FilterTally, Kind, NO_END, Packer, ProducerStamp,
    ResetTo, ShardId, SubscribeRequest, UnsubscribeRequest,
};
use raw::{Fixture, Raw, Reply, batch};

fn shard(stream: u32, shard: u32) -> ShardId {
    ShardId { stream, shard }
}

/// A batch of documents `{"n": …}`, with so many bytes beside.
fn numbers(numbers: impl Iterator<Item = u64>, beside: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    let filler = "x".repeat(beside);
    for n in numbers {
        let document = format!("{{\"n\":{n},\"filler\":\"{filler}\"}}");
        builder.push(b"key", &[], document.as_bytes(), n).unwrap();
    }
    builder.finish(ProducerStamp::default()).to_vec()
}

/// What is asked for.
struct Wish<'a> {
    from: u64,
    credit: u64,
    until: u64,
    lease: u64,
    filter: &'a [u8],
}

impl<'a> Wish<'a> {
    fn of(filter: &'a str) -> Wish<'a> {
        Wish { from: 0, credit: 1 << 30, until: NO_END, lease: 0, filter: filter.as_bytes() }
    }
}

fn subscribe(client: &mut Raw, correlation: u64, id: ShardId, wish: &Wish<'_>) {
    let request = SubscribeRequest {
        stream: id.stream.into(),
        shard: id.shard.into(),
        from: wish.from.into(),
        credit_bytes: wish.credit.into(),
        max_bytes: 0.into(),
        reserved: 0.into(),
        lease: wish.lease.into(),
        until: wish.until.into(),
        since_ns: 0.into(),
    };
    client.send(Kind::Subscribe, correlation, &request.to_array(), wish.filter);
}

/// A delivery of a subscription with a filter.
struct Delivered {
    next: u64,
    high_water: u64,
    tally: FilterTally,
    /// Sequence numbers of the records.
    records: Vec<u64>,
    bytes: usize,
}

fn delivered(reply: &Reply) -> Delivered {
    assert_eq!(reply.kind, Kind::DeliverFiltered, "{reply:?}");
    assert_eq!(reply.control.len(), DeliverHeader::LEN + FilterCounts::LEN);
    let header = DeliverHeader::view(&reply.control).unwrap();
    let counts = FilterCounts::view(&reply.control[DeliverHeader::LEN..]).unwrap();
    Delivered {
        next: header.next.to_native(),
        high_water: header.high_water.to_native(),
        tally: FilterTally::from(counts),
        records: sequences(&reply.data),
        bytes: reply.data.len(),
    }
}

fn sequences(data: &[u8]) -> Vec<u64> {
    let mut inflated = Vec::new();
    for batch in BatchIter::new(data) {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        highwater_wire::Unpacker::default().unpack_batch(&batch, 1 << 21, &mut inflated).unwrap();
    }
    BatchIter::new(&inflated).flat_map(|b| b.unwrap().records()).map(|r| r.sequence).collect()
}

/// What comes of a subscription up to `until`.
#[derive(Default)]
struct All {
    records: Vec<u64>,
    tally: FilterTally,
    bytes: usize,
    frames: usize,
}

fn read_until(client: &mut Raw, correlation: u64, until: u64) -> All {
    let mut all = All::default();
    loop {
        let reply = client.expect();
        if (reply.kind, reply.correlation) == (Kind::SubscribeReply, correlation) {
            continue;
        }
        assert_eq!(reply.correlation, correlation, "{reply:?}");
        let frame = delivered(&reply);
        assert!(frame.high_water >= frame.next);
        assert!(frame.records.iter().all(|sequence| *sequence < frame.next));
        all.records.extend(frame.records);
        all.tally.add(&frame.tally);
        (all.bytes, all.frames) = (all.bytes + frame.bytes, all.frames + 1);
        // Only so that it is heard of.
        client.credit(correlation, 0);
        if frame.next >= until {
            return all;
        }
    }
}

#[test]
fn only_what_matches_crosses_the_connection_whoever_serves_the_shard() {
    let fixture = Fixture::start(2);
    let mut client = fixture.client();
    let stream = client.create("s", 2);
    let mut cores = Vec::new();
    for number in 0..2 {
        let id = shard(stream.id, number);
        cores.push(stream.shards[number as usize].core);
        let mut stored = 0;
        for i in 0..40 {
            let compression = Compression::ALL[i % 3];
            let mut batch = numbers(i as u64 * 100..(i as u64 + 1) * 100, 200);
            Packer::new(compression).pack(&mut batch);
            stored += batch.len();
            client.append(id, &batch);
        }
        for core in 0..2 {
            let mut reader = fixture.client_of(core);
            subscribe(&mut reader, 7, id, &Wish::of("json.n % 500 == 3 || json.n == 1234"));
            let all = read_until(&mut reader, 7, 4_000);
            let expected: Vec<u64> = (0..4_000).filter(|n| n % 500 == 3 || *n == 1_234).collect();
            assert_eq!(all.records, expected);
            let tally = FilterTally { looked: 4_000, matched: 9, ..FilterTally::default() };
            assert_eq!(all.tally, tally);
            assert!(all.bytes < 9 * 400 && all.bytes * 20 < stored, "{} of {stored}", all.bytes);
        }
    }
    cores.sort_unstable();
    assert_eq!(cores, [0, 1]);
}

#[test]
fn what_begins_and_ends_inside_of_a_batch_is_counted_to_the_record() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    client.append(id, &numbers(0..100, 10));
    client.append(id, &numbers(100..200, 10));
    let wish = Wish { from: 30, until: 150, ..Wish::of("json.n % 10 == 0 || json.gone") };
    subscribe(&mut client, 3, id, &wish);
    let all = read_until(&mut client, 3, 150);
    assert_eq!(all.records, (30..150).step_by(10).collect::<Vec<u64>>());
    assert_eq!((all.tally.looked, all.tally.matched), (120, 12));
    assert_eq!(all.tally.reasons().collect::<Vec<_>>(), [("missing field", 108)]);
}

#[test]
fn a_filter_that_is_none_is_refused_by_itself() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    client.append(id, &numbers(0..10, 10));
    let long = vec![b' '; 5_000];
    let wrong: [(&[u8], &str); 6] = [
        (b"json.n = 1", "column 8"),
        (b"jsn.n == 1", "column 1"),
        (b"json.n + 1", "true or false"),
        (b"key.matches('(')", "pattern"),
        (b"key == '\xff'", "UTF-8 from byte 8"),
        (&long, "limit is 4096"),
    ];
    for (filter, words) in wrong {
        subscribe(&mut client, 5, id, &Wish { filter, ..Wish::of("") });
        let error = client.expect().error(ErrorCode::InvalidFilter);
        assert!(error.message.contains(words), "{words}: {error}");
        fetch(&mut client, 6, id, 0, filter);
        let error = client.expect().error(ErrorCode::InvalidFilter);
        assert!(error.message.contains(words), "{words}: {error}");
    }
    // Neither the connection nor the name has suffered.
    subscribe(&mut client, 5, id, &Wish::of("json.n == 9"));
    assert_eq!(read_until(&mut client, 5, 10).records, [9]);
    // A shard that does not exist, with a filter that is known and with one that is not.
    for filter in ["json.n == 9", "json.n == 8"] {
        subscribe(&mut client, 8, shard(77, 0), &Wish::of(filter));
        client.expect().error(ErrorCode::UnknownShard);
        subscribe(&mut client, 8, id, &Wish { from: 99, ..Wish::of(filter) });
        client.expect().error(ErrorCode::PositionBeyondEnd);
    }
}

fn fetch(client: &mut Raw, correlation: u64, id: ShardId, from: u64, filter: &[u8]) {
    let request = FetchRequest {
        stream: id.stream.into(),
        shard: id.shard.into(),
        from: from.into(),
        max_bytes: (1 << 20).into(),
        min_bytes: 1.into(),
        max_wait_ms: 60_000.into(),
        reserved: 0.into(),
        lease: 0.into(),
    };
    client.send(Kind::Fetch, correlation, &request.to_array(), filter);
}

#[test]
fn a_fetch_brings_what_matches_of_what_it_reads() {
    let fixture = Fixture::start(2);
    let mut writer = fixture.client();
    let id = shard(writer.create("s", 1).id, 0);
    for i in 0..20 {
        writer.append(id, &numbers(i * 100..(i + 1) * 100, 100));
    }
    for core in 0..2 {
        let mut client = fixture.client_of(core);
        let (mut next, mut records, mut tally) = (50, Vec::new(), FilterTally::default());
        while next < 2_000 {
            fetch(&mut client, 4, id, next, b"json.n % 100 == 7");
            let reply = client.expect();
            assert_eq!((reply.kind, reply.correlation), (Kind::FetchReply, 4), "{reply:?}");
            let header = FetchReply::view(&reply.control).unwrap();
            let counts = FilterCounts::view(&reply.control[FetchReply::LEN..]).unwrap();
            tally.add(&FilterTally::from(counts));
            records.extend(sequences(&reply.data));
            assert!(header.next.to_native() > next);
            assert_eq!(header.high_water.to_native(), 2_000);
            next = header.next.to_native();
        }
        assert_eq!(records, (107..2_000).step_by(100).collect::<Vec<u64>>());
        assert_eq!((tally.looked, tally.matched), (1_950, 19));
    }
    // At the end it waits for records, and says that they were none of those.
    let mut client = fixture.client();
    fetch(&mut client, 4, id, 2_000, b"json.n == 7");
    assert!(client.control(&ControlRequest::ListStreams).is_ok());
    writer.append(id, &numbers(0..3, 10));
    let reply = client.expect();
    let header = FetchReply::view(&reply.control).unwrap();
    assert_eq!((reply.data.len(), header.next.to_native()), (0, 2_003));
}

#[test]
fn credit_is_for_what_is_delivered_and_not_for_what_is_read() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    // Far more than is read ahead, and than the memory kept for live consumers.
    for i in 0..24 {
        client.append(id, &numbers(i * 1_000..(i + 1) * 1_000, 900));
    }
    let end = 24_000;
    subscribe(&mut client, 2, id, &Wish { credit: 1, ..Wish::of("json.n == 23999") });
    let all = read_until(&mut client, 2, end);
    assert_eq!((all.records, all.tally.looked), (vec![23_999], end));
    // Of what matches nothing comes without credit.
    subscribe(&mut client, 3, id, &Wish { credit: 1, ..Wish::of("json.n % 2 == 0") });
    assert_eq!(client.expect().kind, Kind::SubscribeReply);
    let first = delivered(&client.expect());
    assert_eq!((first.records, first.next), (vec![0], 1));
    let mut next = 2;
    for _ in 0..5 {
        // What the last one was too large is owed.
        client.credit(3, 2 * first.bytes as u64);
        let frame = loop {
            let frame = delivered(&client.expect());
            if !frame.records.is_empty() {
                break frame;
            }
        };
        assert_eq!(frame.records, [next, next + 2]);
        next += 4;
    }
    assert_eq!(client.append(id, &batch(1, 1, 0)).base_sequence.to_native(), end);
}

/// Takes all steps that one evaluation may take, and has no answer.
fn expensive() -> String {
    let list = (0..50).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    format!("[{list}].all(a, [{list}].all(b, [{list}].all(c, a + b + c >= 0)))")
}

#[test]
fn an_expensive_filter_holds_up_neither_appends_nor_other_filters() {
    let fixture = Fixture::start(1);
    let (mut client, mut reader) = (fixture.client(), fixture.client());
    let id = shard(client.create("s", 1).id, 0);
    let other = shard(client.create("t", 1).id, 0);
    // Minutes of work for its one thread, and nobody waits for its end.
    for _ in 0..20 {
        client.append(id, &batch(1_000, 10, 1));
    }
    subscribe(&mut reader, 2, id, &Wish::of(&expensive()));
    assert_eq!(reader.expect().kind, Kind::SubscribeReply);
    for i in 0..50 {
        client.append(id, &batch(1, 10, 1));
        client.append(other, &numbers(i..i + 1, 10));
    }
    subscribe(&mut client, 3, other, &Wish::of("json.n == 49"));
    assert_eq!(read_until(&mut client, 3, 50).records, [49]);
    // It is told of its progress all the same, and is far from done.
    let frame = delivered(&reader.expect());
    assert!(frame.next > 0 && frame.next < 20_000, "{}", frame.next);
    assert_eq!(frame.tally.reasons().collect::<Vec<_>>(), [("too expensive", frame.next)]);
    // Its end does not wait for it either.
    let end = UnsubscribeRequest { subscription: 2.into() };
    reader.send(Kind::Unsubscribe, 2, &end.to_array(), &[]);
    subscribe(&mut reader, 4, other, &Wish::of("json.n == 48"));
    let records = loop {
        let reply = reader.expect();
        if reply.correlation == 4 && reply.kind == Kind::DeliverFiltered {
            break delivered(&reply).records;
        }
    };
    assert_eq!(records, [48]);
    fixture.server.stop().unwrap();
}

#[test]
fn a_consumer_hears_how_far_it_is_though_nothing_matches() {
    let fixture = Fixture::start(1);
    let (mut client, mut reader) = (fixture.client(), fixture.client());
    let id = shard(client.create("s", 1).id, 0);
    subscribe(&mut reader, 2, id, &Wish::of("json.n < 0"));
    assert_eq!(reader.expect().kind, Kind::SubscribeReply);
    for n in 0..300 {
        client.append(id, &numbers(n..n + 1, 10));
    }
    let all = read_until(&mut reader, 2, 300);
    assert_eq!((all.tally.looked, all.bytes), (300, 0));
    assert!(all.frames < 100, "{} frames for 300 appends", all.frames);
    // What matches is there at once, and tells of what was passed over before it.
    client.append(id, &numbers(5..6, 10));
    client.append(id, &numbers(0..1, 10));
    drop(reader);
    let mut reader = fixture.client();
    subscribe(&mut reader, 9, id, &Wish { from: 290, ..Wish::of("json.n == 0") });
    let all = read_until(&mut reader, 9, 302);
    assert_eq!((all.records, all.tally.looked), (vec![301], 12));
}

#[test]
fn a_subscription_may_end_at_any_moment() {
    let fixture = Fixture::start(2);
    let mut client = fixture.client_of(0);
    let stream = client.create("s", 2);
    for number in 0..2 {
        for _ in 0..4 {
            client.append(shard(stream.id, number), &numbers(0..1_000, 500));
        }
    }
    for round in 0..200u64 {
        // Another filter each time, so that some end before theirs is compiled.
        let filter = format!("json.n % 3 == {}", round % 50);
        let (id, name) = (shard(stream.id, (round % 2) as u32), 100 + round);
        subscribe(&mut client, name, id, &Wish { credit: 5_000, ..Wish::of(&filter) });
        if round % 3 == 0 {
            client.credit(name, 10_000);
        }
        if round % 5 == 1 {
            let mut gone = fixture.client_of((round % 2) as usize);
            subscribe(&mut gone, 1, id, &Wish::of(&filter));
        }
        let end = UnsubscribeRequest { subscription: name.into() };
        client.send(Kind::Unsubscribe, name, &end.to_array(), &[]);
    }
    let wish = Wish::of("json.n == 999");
    subscribe(&mut client, 9, shard(stream.id, 1), &wish);
    let mut records = Vec::new();
    while records.len() < 4 {
        let reply = client.expect();
        if reply.correlation == 9 && reply.kind == Kind::DeliverFiltered {
            records.extend(delivered(&reply).records);
        }
    }
    assert_eq!(records, [999, 1_999, 2_999, 3_999]);
    // All of what was in hand is given back.
    let mut other = fixture.client();
    loop {
        let snapshot = other.snapshot();
        if snapshot.cores.iter().all(|core| core.queued == 0)
            && snapshot.shards.iter().map(|s| s.readers).sum::<u32>() == 1
        {
            break;
        }
    }
}

#[test]
fn a_closed_shard_ends_after_what_matches_of_it() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    for i in 0..20 {
        client.append(id, &numbers(i * 500..(i + 1) * 500, 300));
    }
    let split = ControlRequest::Split { name: "s".into(), shard: 0, at: vec![1 << 127] };
    client.control(&split).unwrap();
    subscribe(&mut client, 2, id, &Wish { credit: 3_000, ..Wish::of("json.n % 100 == 99") });
    assert_eq!(client.expect().kind, Kind::SubscribeReply);
    let (mut records, mut next, mut looked) = (Vec::new(), 0, 0);
    loop {
        let reply = client.expect();
        if reply.kind == Kind::Error {
            assert_eq!(reply.error(ErrorCode::ShardEnded).detail, 10_000);
            break;
        }
        let frame = delivered(&reply);
        client.credit(2, frame.bytes as u64);
        records.extend(frame.records);
        (next, looked) = (frame.next, looked + frame.tally.looked);
    }
    assert_eq!((next, looked), (10_000, 10_000), "told before the end");
    assert_eq!(records, (99..10_000).step_by(100).collect::<Vec<u64>>());
}

#[test]
fn who_has_lost_its_lease_gets_nothing_of_what_was_read_under_it() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    client.append(id, &batch(20_000, 10, 1));
    let join = ControlRequest::JoinGroup {
        group: "g".into(),
        stream: "s".into(),
        member: 7,
        name: "m".into(),
        fixed: false,
        session_ms: 600_000,
        start: ResetTo::Oldest,
    };
    let Ok(ControlReply::Membership(membership)) = client.control(&join) else { panic!() };
    let lease = membership.leases[0].lease;
    let mut reader = fixture.client();
    // It has hardly begun with what was read.
    subscribe(&mut reader, 2, id, &Wish { lease, ..Wish::of(&expensive()) });
    assert_eq!(reader.expect().kind, Kind::SubscribeReply);
    let leave = ControlRequest::LeaveGroup { group: "g".into(), stream: "s".into(), member: 7 };
    client.control(&leave).unwrap();
    let mut next = 0;
    let error = loop {
        let reply = reader.expect();
        if reply.kind == Kind::Error {
            break reply.error(ErrorCode::LeaseLost);
        }
        next = delivered(&reply).next;
    };
    assert!(next < 20_000 && error.detail == 0, "{next}");
    for filter in ["true", "size > 1"] {
        subscribe(&mut reader, 3, id, &Wish { lease, ..Wish::of(filter) });
        reader.expect().error(ErrorCode::LeaseLost);
    }
}

#[test]
fn filters_are_counted_and_what_they_left_out_is_not_delivered() {
    let fixture = Fixture::with(1, |options| options.http = Some("127.0.0.1:0".parse().unwrap()));
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    client.append(id, &numbers(0..1_000, 10));
    subscribe(&mut client, 2, id, &Wish::of("json.n < 10"));
    read_until(&mut client, 2, 1_000);
    let mut next = 0;
    while next < 1_000 {
        fetch(&mut client, 3, id, next, b"json.n < 5");
        next = FetchReply::view(&client.expect().control).unwrap().next.to_native();
    }
    let snapshot = loop {
        let snapshot = client.snapshot();
        if snapshot.shards.first().is_some_and(|s| s.filter_looked == 2_000)
            && snapshot.filter_busy_ns > 0
        {
            break snapshot;
        }
    };
    let shard = &snapshot.shards[0];
    assert_eq!((shard.filter_matched, shard.records_out), (15, 15));
    assert!(shard.bytes_out > 15 * 20 && shard.bytes_out < 15 * 400, "{}", shard.bytes_out);
    let line = "highwater_filter_looked_records_total{stream=\"s\",shard=\"0\"} 2000";
    while !scrape(&fixture).lines().any(|l| l == line) {}
    let text = scrape(&fixture);
    for line in [
        "highwater_filter_matched_records_total{stream=\"s\",shard=\"0\"} 15",
        "# TYPE highwater_filter_busy_seconds gauge",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
}

fn scrape(fixture: &Fixture) -> String {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(fixture.server.http_addr().unwrap()).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_peer_that_does_not_read_pauses_its_filter_and_misses_nothing() {
    let fixture = Fixture::start(1);
    let (mut slow, mut writer) = (fixture.client(), fixture.client());
    let id = shard(writer.create("s", 1).id, 0);
    subscribe(&mut slow, 2, id, &Wish { credit: u64::MAX, ..Wish::of("size > 100") });
    assert_eq!(slow.expect().kind, Kind::SubscribeReply);
    // Half of it matches, which is far more than the queue and the sockets' buffers hold.
    let (large, small) = (batch(60, 1024, 0), batch(600, 90, 0));
    let rounds = 300;
    for _ in 0..rounds {
        writer.append(id, &large);
        writer.append(id, &small);
    }
    let all = read_until(&mut slow, 2, rounds * 660);
    assert_eq!(all.tally.looked, rounds * 660);
    assert_eq!(all.records.len() as u64, rounds * 60);
    assert!(all.records.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn stopping_does_not_wait_for_filters() {
    let fixture = Fixture::start(1);
    let (mut client, mut other) = (fixture.client(), fixture.client());
    let id = shard(client.create("s", 1).id, 0);
    client.append(id, &batch(5_000, 10, 1));
    subscribe(&mut client, 2, id, &Wish::of(&expensive()));
    assert_eq!(client.expect().kind, Kind::SubscribeReply);
    fetch(&mut other, 3, id, 5_000, b"size > 1");
    assert!(other.control(&ControlRequest::ListStreams).is_ok());
    fixture.server.stop().unwrap();
    let mut last = client.expect();
    while let Some(reply) = client.next() {
        last = reply;
    }
    last.error(ErrorCode::Unavailable);
    assert!(matches!(other.expect().kind, Kind::Error | Kind::FetchReply));
}
