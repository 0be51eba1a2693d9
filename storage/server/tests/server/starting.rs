//! Start and stop, and what keeps a server from starting.

use std::net::TcpStream;

use highwater_server::{Server, StartError};
use highwater_wire::{ControlReply, ControlRequest, ErrorCode, Kind};

use crate::raw::{Fixture, Raw, Reply, batch};
use crate::shard;

#[test]
fn stopping_answers_what_is_in_flight_and_keeps_what_it_acknowledged() {
    let Fixture { server, options, .. } = &Fixture::start(2);
    let mut client = Raw::greeted(server.local_addr());
    let stream = client.create("s", 2);
    for i in 0..200 {
        client.send_append(i, shard(stream.id, (i % 2) as u32), &batch(4, 1000, 0));
    }
    // The first answer shows that the server is at work.
    let first = client.expect();
    let mut acknowledged = u64::from(first.appended().record_count.to_native());
    let answered = std::thread::scope(|scope| {
        scope.spawn(|| server.stop().unwrap());
        let mut answered = 1;
        while let Some(reply) = client.next() {
            match reply.kind {
                Kind::AppendReply => acknowledged += 4,
                _ => drop(reply.error(ErrorCode::Unavailable)),
            }
            answered += 1;
        }
        answered
    });
    // What the server had not read when it stopped gets no answer; all it read does.
    assert!((1..=200).contains(&answered));
    server.wait().unwrap();
    assert!(TcpStream::connect(server.local_addr()).is_err());

    let mut again = options.clone();
    again.listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(again).unwrap();
    let mut client = Raw::greeted(server.local_addr());
    let request = ControlRequest::DescribeStream { name: "s".into() };
    let Ok(ControlReply::Stream(stream)) = client.control(&request) else { panic!() };
    let kept: u64 = stream.shards.iter().map(|s| s.high_water).sum();
    assert_eq!(kept, acknowledged);
}

#[test]
fn stopping_with_idle_and_waiting_clients_is_prompt() {
    let fixture = Fixture::start(1);
    let mut waiting = fixture.client();
    let id = shard(waiting.create("s", 1).id, 0);
    waiting.send_fetch(1, id, 0, 60_000);
    let mut subscribed = fixture.client();
    subscribed.subscribe(2, id, 0, 1000);
    assert_eq!(subscribed.expect().kind, Kind::SubscribeReply);
    let mut idle = fixture.client();
    fixture.server.stop().unwrap();
    let said = |reply: Option<Reply>| reply.map(|reply| reply.kind);
    assert!(matches!(said(waiting.next()), Some(Kind::Error | Kind::FetchReply)));
    assert_eq!(said(subscribed.next()), Some(Kind::Error));
    assert_eq!(said(idle.next()), None);
}

#[test]
fn a_port_in_use_and_a_directory_in_use_are_errors_that_name_them() {
    let fixture = Fixture::start(1);
    let mut options = fixture.options.clone();
    options.data = options.data.with_file_name("other");
    options.listen = fixture.server.local_addr();
    let Err(StartError::AddressInUse(address)) = Server::start(options.clone()) else { panic!() };
    assert_eq!(address, fixture.server.local_addr());
    assert!(!options.data.exists());

    let error = Server::start(fixture.options.clone()).err().expect("two servers on one directory");
    assert!(matches!(error, StartError::Open(_)), "{error}");
    // A failed start leaves nothing behind.
    assert!(fixture.client().control(&ControlRequest::ListStreams).is_ok());
}

#[test]
fn a_core_that_cannot_start_is_an_error_and_leaves_nothing_behind() {
    let fixture = Fixture::start(1);
    fixture.server.stop().unwrap();
    let mut options = fixture.options.clone();
    options.cores.push(100_000);
    let error = Server::start(options.clone()).err().expect("a core on a CPU that does not exist");
    assert!(matches!(error, StartError::Cpu(_)), "{error}");
    options.cores.pop();
    options.core_port_base = Some(u16::MAX);
    options.cores.push(options.cores[0]);
    let error = Server::start(options.clone()).err().expect("ports beyond 65535");
    assert!(matches!(error, StartError::PortRange { .. } | StartError::AddressInUse(_)), "{error}");
    // Neither the directory's lock nor a port is still held.
    Server::start(fixture.options.clone()).unwrap().stop().unwrap();
}

#[test]
fn a_full_disk_is_said_and_a_reserve_of_all_of_it_is_refused() {
    let size = |at: &std::path::Path| {
        let of = rustix::fs::statvfs(at).unwrap();
        of.f_blocks * of.f_frsize
    };
    let (notices, heard) = std::sync::mpsc::channel();
    let fixture = Fixture::with(1, |options| {
        let total = size(options.data.parent().unwrap());
        options.notices = Some(notices);
        // Some of it is in use.
        options.store.reserve_bytes = Some(total - 1);
    });
    // Only so that a failing test ends.
    let said = heard.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert!(said.starts_with("the file system is full: "), "{said}");

    let mut options = fixture.options.clone();
    options.data = options.data.with_file_name("other");
    options.store.reserve_bytes = Some(size(options.data.parent().unwrap()));
    let Err(refused) = Server::start(options) else { panic!("it starts") };
    assert!(refused.to_string().contains("reserve_bytes is "), "{refused}");
}
