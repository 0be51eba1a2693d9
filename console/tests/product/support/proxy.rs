//! A proxy between clients and a server that loses replies: seeded, in plain threads.
//!
//! It listens on 127.0.0.2 at the ports the server has on 127.0.0.1, so that the ports of the cores, which a client
//! learns from the server, lead through it too. TCP loses nothing within a connection: a reply is lost by cutting
//! its connection, before it or in the middle of it. The server has carried out what it answered by then.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use highwater_wire::{FRAME_HEADER_LEN, FrameHeader, Kind};

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Of all dice.
    pub seed: u64,
    /// Share of append replies that are lost with their connection, half of them cut in the middle.
    pub lost: f64,
    /// Share of reads of what clients send that are cut in the middle.
    pub cut: f64,
    /// Share of replies that come late ...
    pub delayed: f64,
    /// ... by up to this.
    pub longest: Duration,
}

/// The proxy; it ends with the value.
pub struct Proxy {
    /// Where clients connect.
    pub addr: String,
    shared: Arc<Shared>,
    fronts: Vec<SocketAddr>,
}

struct Shared {
    faults: Faults,
    stopped: AtomicBool,
    connections: AtomicU64,
    replies: AtomicU64,
    lost: AtomicU64,
    delayed: AtomicU64,
    received: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

const FRONT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

impl Proxy {
    /// In front of the server at `addr`, 127.0.0.1 and a port, whose cores have these ports.
    pub fn before(addr: &str, cores: &[u16], faults: Faults) -> Proxy {
        let server: SocketAddr = addr.parse().unwrap();
        let shared = Arc::new(Shared {
            faults,
            stopped: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            replies: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            received: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let mut fronts = Vec::new();
        for port in cores.iter().copied().chain([server.port()]) {
            let front = SocketAddr::from((FRONT, port));
            let listener = TcpListener::bind(front).unwrap();
            let shared = Arc::clone(&shared);
            let behind = SocketAddr::new(server.ip(), port);
            thread::spawn(move || shared.accept(&listener, behind));
            fronts.push(front);
        }
        Proxy { addr: format!("{FRONT}:{}", server.port()), shared, fronts }
    }

    /// Append replies that clients got, and those they did not.
    pub fn replies(&self) -> (u64, u64) {
        (self.shared.replies.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// Bytes that the server sent.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Replies that came late.
    pub fn delayed(&self) -> u64 {
        self.shared.delayed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting threads.
        self.fronts.iter().for_each(|front| drop(TcpStream::connect(front)));
        for socket in self.shared.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener, server: SocketAddr) {
        for client in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            // Without a server behind it the connection ends at once, as with the server itself.
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
            let number = self.connections.fetch_add(1, Ordering::Relaxed);
            let mut rng = fastrand::Rng::with_seed(self.faults.seed.wrapping_add(number));
            let dice = fastrand::Rng::with_seed(rng.u64(..));
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let both = |socket: &TcpStream| socket.try_clone().unwrap();
            self.open.lock().unwrap().extend([both(&client), both(&server)]);
            let (to_server, to_client) = (both(&server), both(&client));
            let requests = Arc::clone(&self);
            thread::spawn(move || requests.requests(client, to_server, rng));
            let replies = Arc::clone(&self);
            thread::spawn(move || replies.replies(server, to_client, dice));
        }
    }

    /// What the client sends, as it comes, and now and then only the half of it.
    fn requests(&self, mut from: TcpStream, mut to: TcpStream, mut rng: fastrand::Rng) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let cut = rng.f64() < self.faults.cut;
            let sent = if cut { read / 2 } else { read };
            if to.write_all(&buffer[..sent]).is_err() || cut {
                break;
            }
        }
        end(&from, &to);
    }

    /// What the server answers, frame by frame.
    fn replies(&self, mut from: TcpStream, mut to: TcpStream, mut rng: fastrand::Rng) {
        let mut frame = Vec::new();
        while let Some(kind) = next_frame(&mut from, &mut frame) {
            self.received.fetch_add(frame.len() as u64, Ordering::Relaxed);
            if rng.f64() < self.faults.delayed {
                self.delayed.fetch_add(1, Ordering::Relaxed);
                thread::sleep(self.faults.longest.mul_f64(rng.f64()));
            }
            let ack = kind == Kind::AppendReply as u16;
            if ack && rng.f64() < self.faults.lost {
                self.lost.fetch_add(1, Ordering::Relaxed);
                let part = if rng.bool() { frame.len() / 2 } else { 0 };
                let _ = to.write_all(&frame[..part]);
                break;
            }
            self.replies.fetch_add(u64::from(ack), Ordering::Relaxed);
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        end(&from, &to);
    }
}

fn end(a: &TcpStream, b: &TcpStream) {
    let _ = (a.shutdown(Shutdown::Both), b.shutdown(Shutdown::Both));
}

/// The next frame, whole, and its kind's number; `None` at the end.
fn next_frame(from: &mut TcpStream, frame: &mut Vec<u8>) -> Option<u16> {
    frame.resize(FRAME_HEADER_LEN, 0);
    from.read_exact(frame).ok()?;
    let header = *FrameHeader::view(frame)?;
    let rest = header.control_len.to_native() as usize + header.data_len.to_native() as usize;
    frame.resize(FRAME_HEADER_LEN + rest, 0);
    from.read_exact(&mut frame[FRAME_HEADER_LEN..]).ok()?;
    Some(header.kind.to_native())
}
