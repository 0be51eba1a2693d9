//! What a server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use highwater_engine::StoreOptions;

/// Settings of a server; make them with [`ServerOptions::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The data directory; created if missing.
    pub data: PathBuf,
    /// Address of the port that all cores share; port 0 picks one.
    pub listen: SocketAddr,
    /// Address of the `/metrics` endpoint; off when `None`; port 0 picks one.
    pub http: Option<SocketAddr>,
    /// CPUs to serve on, one core each. Empty: all usable ones but the last, at least one.
    pub cores: Vec<usize>,
    /// Port of core 0, the others follow upwards; `None` lets the system pick each.
    pub core_port_base: Option<u16>,
    /// Most connections per core, at least 1; one more is refused with `Busy`.
    pub max_connections: usize,
    /// How long [`crate::Server::stop`] waits for work in flight before it cuts connections.
    pub stop_deadline: Duration,
    /// Settings of the store; its `cores` are set from [`ServerOptions::cores`].
    pub store: StoreOptions,
}

impl ServerOptions {
    /// Defaults for a data directory: `127.0.0.1:7411`, no HTTP, 4,096 connections per core, 10 s to stop.
    pub fn new(data: impl Into<PathBuf>) -> ServerOptions {
        ServerOptions {
            data: data.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7411)),
            http: None,
            cores: Vec::new(),
            core_port_base: None,
            max_connections: 4096,
            stop_deadline: Duration::from_secs(10),
            store: StoreOptions::default(),
        }
    }
}

/// Bounds of one connection and one core that are not for users to turn.
pub(crate) mod bounds {
    /// Receive buffer of a connection to begin with, and when idle, in bytes.
    /// Holds an append of the clients' default batch, 64 KiB, with its headers.
    pub const RECEIVE_MIN: usize = 72 << 10;
    /// Receive buffer a busy connection grows to; a longer frame gets what it needs.
    pub const RECEIVE_BUSY: usize = 256 << 10;
    /// Receive memory of a core beyond [`RECEIVE_MIN`] per connection, in bytes.
    pub const RECEIVE_EXTRA: usize = 64 << 20;
    /// Bytes queued for a peer above which its requests are no longer read and its subscriptions pause.
    pub const OUT_HIGH: usize = 4 << 20;
    /// Bytes queued for all peers of a core above which it is pressed: nothing is granted, fetches are refused,
    /// and a peer's requests are only read below [`OUT_PRESSED`].
    pub const CORE_OUT: usize = 256 << 20;
    /// What [`OUT_HIGH`] falls to on a core that is pressed.
    pub const OUT_PRESSED: usize = 64 << 10;
    /// Seconds a peer may take nothing of what is queued, if it has closed its side or the core is pressed.
    pub const WRITE_STALL_S: u32 = 5;
    /// The same for a peer without subscriptions whose requests pause because it takes no replies: whether it
    /// has closed its side is not seen then.
    pub const REPLY_STALL_S: u32 = 30;
    /// Seconds a peer may leave a frame unfinished without sending a byte.
    pub const FRAME_STALL_S: u32 = 10;
    /// Bytes queued for a peer above which a delivery ends its subscription instead.
    pub const OUT_HARD: usize = 32 << 20;
    /// Bytes queued for a peer above which deliveries are copied rather than hold the log's buffers.
    pub const OUT_SHARE: usize = 1 << 20;
    /// Bytes a subscription may have granted or queued, however many there are.
    pub const WINDOW_MIN: usize = 64 << 10;
    /// Requests of a connection not yet answered, above which no more are read.
    pub const PENDING: usize = 4096;
    /// Bytes all fetches of a connection under way may bring.
    pub const FETCH_BYTES: usize = 8 << 20;
    /// Subscriptions of a connection.
    pub const SUBSCRIPTIONS: usize = 1024;
    /// Batches of a core delivered live whose consumers have not said yet when they had them; what is delivered
    /// beyond counts when the socket has it. 16 bytes each.
    pub const UNRECEIPTED: usize = 256 << 10;
    /// The same of a subscription that never said anything.
    pub const UNRECEIPTED_UNTOLD: usize = 1024;
    /// Requests handed over from one core to another and not yet answered.
    pub const FORWARDED: usize = 1024;
    /// Of these, fetches that wait for records.
    pub const FORWARDED_WAITS: usize = FORWARDED / 2;
    /// Bytes of batches handed over from one core to another and not yet answered.
    pub const FORWARDED_BYTES: usize = 16 << 20;
    /// Control requests waiting for the control thread.
    pub const CONTROL: usize = 1024;
    /// Bytes of the control requests of one core under way.
    pub const CONTROL_BYTES: usize = 16 << 20;
    /// Control requests under way from one connection.
    pub const CONTROL_EACH: usize = 64;
    /// Longest an append waits for memory before it is refused, in milliseconds.
    pub const APPEND_WAIT_MS: u64 = 100;
    /// Longest a fetch may wait for records, in milliseconds.
    pub const FETCH_WAIT_MS: u32 = 60_000;
    /// A connection that has not greeted after this many milliseconds ends.
    pub const GREETING_MS: u64 = 10_000;
    /// After the last reply a peer has this long to close, in milliseconds.
    pub const LINGER_MS: u64 = 1000;
    /// What `Busy` tells clients to wait, in milliseconds.
    pub const RETRY_MS: u32 = 10;
}
