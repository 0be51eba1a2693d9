//! Records there and back: appends, fetches, subscriptions, over cores.

use std::collections::BTreeSet;

use highwater_wire::{
    ControlReply, ControlRequest, ErrorCode, FetchReply, Kind, LocateReply, LocateRequest,
    Position, SubscribeReply, UnsubscribeRequest, encode_control_request,
};

use crate::raw::{Fixture, batch};
use crate::{drain, follow, shard};

#[test]
fn appends_pipelined_are_acknowledged_in_order_and_fetched() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let stream = client.create("s", 1);
    let id = shard(stream.id, 0);
    assert_eq!(stream.shards[0].port, fixture.server.core_ports()[0]);
    for i in 0..100 {
        client.send_append(i, id, &batch(10, 100, i as u8));
    }
    for i in 0..100 {
        let reply = client.expect();
        assert_eq!(reply.correlation, i);
        assert_eq!(reply.appended().base_sequence.to_native(), i * 10);
        assert_eq!(reply.appended().record_count.to_native(), 10);
    }
    let mut next = 0;
    while next < 1000 {
        client.send_fetch(7, id, next, 0);
        let reply = client.expect();
        assert_eq!((reply.kind, reply.correlation), (Kind::FetchReply, 7), "{reply:?}");
        next = follow(&reply.data, next);
        let header = FetchReply::view(&reply.control).unwrap();
        assert_eq!((header.next.to_native(), header.high_water.to_native()), (next, 1000));
    }
    let locate = LocateRequest {
        stream: id.stream.into(),
        shard: 0.into(),
        kind: 1.into(),
        reserved: 0.into(),
        value: 0.into(),
    };
    client.send(Kind::Locate, 8, &locate.to_array(), &[]);
    let reply = client.expect();
    assert_eq!(LocateReply::view(&reply.control).unwrap().sequence.to_native(), 1000);
}

#[test]
fn a_fetch_at_the_end_waits_for_records_and_no_longer_than_asked() {
    let fixture = Fixture::start(1);
    let (mut reader, mut writer) = (fixture.client(), fixture.client());
    let id = shard(writer.create("s", 1).id, 0);
    reader.send_fetch(1, id, 0, 60_000);
    // Answered at once, and after the fetch was accepted: requests of a connection are taken in order.
    assert!(reader.control(&ControlRequest::Snapshot).is_ok());
    writer.append(id, &batch(3, 10, 0));
    assert_eq!(follow(&reader.expect().data, 0), 3);
    reader.send_fetch(2, id, 3, 1);
    let reply = reader.expect();
    assert_eq!((reply.kind, reply.data.len()), (Kind::FetchReply, 0));
}

#[test]
fn subscriptions_deliver_as_credit_allows() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    let id = shard(client.create("s", 1).id, 0);
    let one = batch(1, 1000, 1);
    client.append(id, &one);
    client.subscribe(5, id, 0, 1);
    let reply = client.expect();
    assert_eq!(reply.kind, Kind::SubscribeReply);
    assert_eq!(SubscribeReply::view(&reply.control).unwrap().high_water.to_native(), 1);
    let reply = client.expect();
    assert_eq!((reply.kind, reply.correlation), (Kind::Deliver, 5));
    assert_eq!(follow(&reply.data, 0), 1);
    // The credit is spent: an append is acknowledged and nothing delivered.
    for _ in 0..2 {
        assert_eq!(client.append(id, &one).record_count.to_native(), 1);
    }
    client.credit(5, 1 << 20);
    drain(&mut client, 5, 1, 3);
    let end = UnsubscribeRequest { subscription: 5.into() };
    client.send(Kind::Unsubscribe, 5, &end.to_array(), &[]);
    assert_eq!(client.append(id, &one).base_sequence.to_native(), 3);
}

#[test]
fn shards_of_other_cores_are_served_through_any_core() {
    let fixture = Fixture::start(2);
    let mut client = fixture.client_of(0);
    let stream = client.create("s", 2);
    let cores: BTreeSet<u32> = stream.shards.iter().map(|s| s.core).collect();
    assert_eq!(cores, BTreeSet::from([0, 1]));
    for number in 0..2 {
        let id = shard(stream.id, number);
        client.subscribe(50, id, 0, 10_000);
        assert_eq!(client.expect().kind, Kind::SubscribeReply);
        for i in 0..50 {
            client.send_append(1000 + i, id, &batch(2, 500, 0));
        }
        let (mut acks, mut next) = (0, 0);
        while acks < 50 || next < 100 {
            let reply = client.expect();
            if reply.kind == Kind::Deliver {
                next = follow(&reply.data, next);
                client.credit(50, reply.data.len() as u64);
            } else {
                assert_eq!(reply.appended().base_sequence.to_native(), acks * 2);
                acks += 1;
            }
        }
        let end = UnsubscribeRequest { subscription: 50.into() };
        client.send(Kind::Unsubscribe, 50, &end.to_array(), &[]);
        client.send_fetch(60, id, 98, 0);
        assert_eq!(follow(&client.expect().data, 98), 100);
        client.send_fetch(61, id, 101, 0);
        client.expect().error(ErrorCode::PositionBeyondEnd);
    }
    client.send_append(70, shard(77, 1), &batch(1, 1, 0));
    client.expect().error(ErrorCode::UnknownShard);
}

#[test]
fn a_reader_on_each_core_sees_what_is_appended_on_the_other() {
    let fixture = Fixture::start(2);
    let id = shard(fixture.client().create("s", 1).id, 0);
    let mut readers = [fixture.client_of(0), fixture.client_of(1)];
    for reader in &mut readers {
        reader.subscribe(3, id, 0, 100_000);
        assert_eq!(reader.expect().kind, Kind::SubscribeReply);
    }
    let mut writers = [fixture.client_of(1), fixture.client_of(0)];
    for _ in 0..100 {
        for writer in &mut writers {
            writer.append(id, &batch(5, 200, 0));
        }
    }
    for reader in &mut readers {
        drain(reader, 3, 0, 1000);
    }
}

#[test]
fn positions_are_kept_and_control_errors_are_typed() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client();
    client.create("s", 2);
    let commit = |stream: &str, sequence| ControlRequest::CommitPositions {
        group: "g".into(),
        stream: stream.into(),
        positions: vec![Position { shard: 1, sequence }],
    };
    for i in 0..20 {
        let stream = if i == 10 { "missing" } else { "s" };
        client.send(Kind::Control, 100 + i, &encode_control_request(&commit(stream, i)), &[]);
    }
    for i in 0..20 {
        let reply = client.expect();
        assert_eq!(reply.correlation, 100 + i);
        if i == 10 {
            reply.error(ErrorCode::UnknownStream);
        } else {
            assert_eq!(reply.kind, Kind::ControlReply);
        }
    }
    let fetch = ControlRequest::FetchPositions { group: "g".into(), stream: "s".into() };
    let Ok(ControlReply::Positions(positions)) = client.control(&fetch) else { panic!() };
    assert_eq!(positions, [Position { shard: 1, sequence: 19 }]);
    let odd = ControlRequest::DescribeStream { name: "no/such".into() };
    assert!(client.control(&odd).is_err());
    let delete = ControlRequest::DeleteStream { name: "s".into() };
    assert_eq!(client.control(&delete).unwrap(), ControlReply::Done);
    assert_eq!(client.control(&fetch).unwrap_err().code, ErrorCode::UnknownStream);
}

#[test]
fn each_of_many_subscriptions_of_a_connection_goes_on_by_its_own_credit() {
    let fixture = Fixture::start(2);
    let (mut reader, mut writer) = (fixture.client(), fixture.client());
    let (shards, batches) = (32, 4);
    let stream = writer.create("s", shards);
    for i in 0..shards {
        reader.subscribe(u64::from(i) + 1, shard(stream.id, i), 0, 1);
        assert_eq!(reader.expect().kind, Kind::SubscribeReply);
    }
    for i in 0..shards {
        for _ in 0..batches {
            writer.append(shard(stream.id, i), &batch(1, 100, 0));
        }
    }
    // One byte of credit is a batch.
    let mut next = vec![0; shards as usize];
    for _ in 0..shards * batches {
        let reply = reader.expect();
        assert_eq!(reply.kind, Kind::Deliver, "{reply:?}");
        let of = &mut next[reply.correlation as usize - 1];
        *of = follow(&reply.data, *of);
        // What the batch took beyond its byte, and one more.
        reader.credit(reply.correlation, reply.data.len() as u64);
    }
    assert!(next.iter().all(|&next| next == u64::from(batches)), "{next:?}");
}
