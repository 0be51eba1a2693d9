//! Bytes that are no requests: the connection ends, and nobody else notices.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use highwater_wire::{
    ControlRequest, Kind, PROTOCOL_VERSION, encode_control_request, encode_frame,
};

use crate::support::{Server, access_log, scratch};

fn greeting() -> Vec<u8> {
    let hello = ControlRequest::Hello { protocol: PROTOCOL_VERSION, client: "test".into() };
    let mut frame = Vec::new();
    encode_frame(&mut frame, Kind::Control, 1, &encode_control_request(&hello), &[]);
    frame
}

/// Sends `bytes`, and no more; returns when the server has closed the connection.
fn send(addr: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(addr).unwrap();
    // The server may have closed before it was all sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[test]
fn others_go_on_whatever_comes() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("logs", 1);
    let log = access_log(7, 2_000);
    std::thread::scope(|scope| {
        let put = scope.spawn(|| server.put("logs", &log, &[]));
        let mut rng = fastrand::Rng::with_seed(8);
        let greeting = greeting();
        for round in 0..60 {
            let mut bytes = match round % 4 {
                // Noise, from the start or after a proper greeting.
                0 => Vec::new(),
                _ => greeting.clone(),
            };
            match round % 4 {
                0 | 1 => bytes.extend((0..rng.usize(1..5_000)).map(|_| rng.u8(..))),
                // Cut off anywhere.
                2 => bytes.truncate(rng.usize(0..bytes.len())),
                // A frame that announces 4 GiB.
                _ => {
                    let at = bytes.len();
                    bytes.extend_from_slice(&greeting);
                    bytes[at + 20..at + 24].copy_from_slice(&u32::MAX.to_le_bytes());
                }
            }
            send(&server.addr, &bytes);
        }
        assert!(put.join().unwrap().status.success());
    });
    assert_eq!(server.ok(&["tail", "logs"]), log);
}

#[test]
fn a_flipped_bit_in_a_request_is_refused() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    let greeting = greeting();
    for bit in 0..greeting.len() * 8 {
        let mut bytes = greeting.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        send(&server.addr, &bytes);
    }
    server.create("still-here", 1);
}
