//! A client of bare frames over a blocking socket, and a server in a directory of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use highwater_server::{Server, ServerOptions};
use highwater_wire::telemetry::Snapshot;
use highwater_wire::{
    AckMode, AppendReply, AppendRequest, BatchBuilder, ControlReply, ControlRequest, CreditRequest,
    Decoded, DeliveryReceipt, ErrorCode, FetchRequest, Kind, NO_END, PROTOCOL_VERSION,
    ProducerStamp, ShardId, StreamConfig, StreamDescription, SubscribeRequest, WireError,
    decode_control_reply, decode_error, decode_frame, encode_control_request, encode_frame,
};
use tempfile::TempDir;

/// A server on ports of its own choosing, and its directory.
pub struct Fixture {
    pub server: Server,
    pub options: ServerOptions,
    _dir: TempDir,
}

impl Fixture {
    pub fn start(cores: usize) -> Fixture {
        Fixture::with(cores, |_| {})
    }

    pub fn with(cores: usize, change: impl FnOnce(&mut ServerOptions)) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let cpus = highwater_ring::usable_cpus().unwrap();
        let mut options = ServerOptions::new(dir.path().join("data"));
        options.listen = "127.0.0.1:0".parse().unwrap();
        options.cores = (0..cores).map(|core| cpus[core % cpus.len()]).collect();
        options.max_connections = Some(64);
        options.memory = Some((cores as u64) * (128 << 20));
        options.store.prepared_bytes = 8 << 20;
        options.store.allow_buffered = true;
        options.store.core.segments.max = 4 << 20;
        change(&mut options);
        let server = Server::start(options.clone()).unwrap();
        Fixture { server, options, _dir: dir }
    }

    pub fn client(&self) -> Raw {
        Raw::greeted(self.server.local_addr())
    }

    /// On a core's own port.
    pub fn client_of(&self, core: usize) -> Raw {
        let port = self.server.core_ports()[core];
        Raw::greeted(SocketAddr::new(self.server.local_addr().ip(), port))
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Reply {
    pub kind: Kind,
    pub correlation: u64,
    pub control: Vec<u8>,
    pub data: Vec<u8>,
}

impl Reply {
    /// The error in it, of this code.
    pub fn error(&self, code: ErrorCode) -> WireError {
        assert_eq!(self.kind, Kind::Error, "{self:?}");
        let error = decode_error(&self.control);
        assert_eq!(error.code, code, "{error}");
        error
    }

    pub fn appended(&self) -> &AppendReply {
        if self.kind == Kind::Error {
            panic!("{}", decode_error(&self.control));
        }
        assert_eq!(self.kind, Kind::AppendReply);
        AppendReply::view(&self.control).unwrap()
    }
}

/// A connection.
pub struct Raw {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    /// Connects without greeting.
    pub fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        // Only so that a failing test ends.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Raw { stream, received: Vec::new() }
    }

    pub fn greeted(address: SocketAddr) -> Raw {
        let mut raw = Raw::connect(address);
        let hello = ControlRequest::Hello { protocol: PROTOCOL_VERSION, client: "test".into() };
        let Ok(ControlReply::Hello(info)) = raw.control(&hello) else { panic!("no greeting") };
        assert_eq!(info.protocol, PROTOCOL_VERSION);
        raw
    }

    pub fn send(&mut self, kind: Kind, correlation: u64, control: &[u8], data: &[u8]) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, kind, correlation, control, data);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Reply> {
        let mut buf = vec![0; 256 << 10];
        loop {
            match decode_frame(&self.received, 64 << 20).unwrap() {
                Decoded::Frame(frame, used) => {
                    let (kind, correlation) = (frame.kind, frame.correlation);
                    let (control, data) = (frame.control.to_vec(), frame.data.to_vec());
                    self.received.drain(..used);
                    return Some(Reply { kind, correlation, control, data });
                }
                Decoded::Need(_) => match self.stream.read(&mut buf) {
                    Ok(0) => return None,
                    Ok(n) => self.received.extend_from_slice(&buf[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => panic!("{e}"),
                },
            }
        }
    }

    pub fn expect(&mut self) -> Reply {
        self.next().expect("the connection ended")
    }

    pub fn control(&mut self, request: &ControlRequest) -> Result<ControlReply, WireError> {
        self.send(Kind::Control, 1, &encode_control_request(request), &[]);
        let reply = self.expect();
        match reply.kind {
            Kind::ControlReply => Ok(decode_control_reply(&reply.control).unwrap()),
            Kind::Error => Err(decode_error(&reply.control)),
            kind => panic!("{kind:?} in reply to {request:?}"),
        }
    }

    pub fn create(&mut self, name: &str, shards: u32) -> StreamDescription {
        let config = StreamConfig {
            shards,
            retention_ms: 0,
            retention_bytes: 0,
            ack: AckMode::Durable,
            ..StreamConfig::default()
        };
        match self.control(&ControlRequest::CreateStream { name: name.into(), config }) {
            Ok(ControlReply::Stream(stream)) => stream,
            other => panic!("{other:?}"),
        }
    }

    pub fn send_append(&mut self, correlation: u64, shard: ShardId, batch: &[u8]) {
        let request = AppendRequest::new(shard, 0);
        self.send(Kind::Append, correlation, &request.to_array(), batch);
    }

    pub fn append(&mut self, shard: ShardId, batch: &[u8]) -> AppendReply {
        self.send_append(9, shard, batch);
        *self.expect().appended()
    }

    pub fn send_fetch(&mut self, correlation: u64, shard: ShardId, from: u64, wait_ms: u32) {
        let request = FetchRequest {
            stream: shard.stream.into(),
            shard: shard.shard.into(),
            from: from.into(),
            max_bytes: (1 << 20).into(),
            min_bytes: 1.into(),
            max_wait_ms: wait_ms.into(),
            reserved: 0.into(),
            lease: 0.into(),
        };
        self.send(Kind::Fetch, correlation, &request.to_array(), &[]);
    }

    pub fn subscribe(&mut self, correlation: u64, shard: ShardId, from: u64, credit: u64) {
        let request = SubscribeRequest {
            stream: shard.stream.into(),
            shard: shard.shard.into(),
            from: from.into(),
            credit_bytes: credit.into(),
            max_bytes: 0.into(),
            reserved: 0.into(),
            lease: 0.into(),
            until: NO_END.into(),
            since_ns: 0.into(),
        };
        self.send(Kind::Subscribe, correlation, &request.to_array(), &[]);
    }

    pub fn credit(&mut self, subscription: u64, bytes: u64) {
        let request = CreditRequest { subscription: subscription.into(), bytes: bytes.into() };
        self.send(Kind::Credit, subscription, &request.to_array(), &[]);
    }

    /// Tells when the delivery up to `next` was received.
    pub fn receipt(&mut self, subscription: u64, next: u64, received_ns: u64) {
        let request = CreditRequest { subscription: subscription.into(), bytes: 0.into() };
        let receipt = DeliveryReceipt { next: next.into(), received_ns: received_ns.into() };
        self.send(Kind::Credit, subscription, &request.to_array(), &receipt.to_array());
    }

    pub fn snapshot(&mut self) -> Snapshot {
        match self.control(&ControlRequest::Snapshot) {
            Ok(ControlReply::Snapshot(snapshot)) => *snapshot,
            other => panic!("{other:?}"),
        }
    }
}

/// A batch of `records` records of `size` bytes of payload, filled with `fill`.
pub fn batch(records: usize, size: usize, fill: u8) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    let payload = vec![fill; size];
    for _ in 0..records {
        builder.push(b"key", &[], &payload, 0).unwrap();
    }
    builder.finish(ProducerStamp::default()).to_vec()
}
