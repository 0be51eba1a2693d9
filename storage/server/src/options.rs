//! What a server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
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
    /// Most connections per core, at least 1; one more is refused with `Busy`. `None`: 4,096, or as many as the memory
    /// bound has room for.
    pub max_connections: Option<usize>,
    /// Memory for all cores together, in bytes; it decides over the sizes of the store's buffers, whatever is said
    /// there. `None`: [`MemoryShares::default_bound`](crate::MemoryShares::default_bound).
    pub memory: Option<u64>,
    /// Threads that evaluate the filters of subscriptions and fetches, 1 to 64.
    pub filter_threads: usize,
    /// How long [`crate::Server::stop`] waits for work in flight before it cuts connections.
    pub stop_deadline: Duration,
    /// Where to say what happens while the server runs and an operator should read in its log: a line each, a few in
    /// a day. `None`: nowhere.
    pub notices: Option<Sender<String>>,
    /// Settings of the store; its `cores` are set from [`ServerOptions::cores`].
    pub store: StoreOptions,
}

impl ServerOptions {
    /// Defaults for a data directory: `127.0.0.1:7411`, no HTTP, 4,096 connections and 512 MiB per core, one
    /// filter thread, 10 s to stop.
    pub fn new(data: impl Into<PathBuf>) -> ServerOptions {
        ServerOptions {
            data: data.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7411)),
            http: None,
            cores: Vec::new(),
            core_port_base: None,
            max_connections: None,
            memory: None,
            filter_threads: 1,
            stop_deadline: Duration::from_secs(10),
            notices: None,
            store: StoreOptions::default(),
        }
    }
}

/// Bounds of one connection and one core that are not for users to turn.
pub(crate) mod bounds {
    /// Most connections of a core, unless it was told otherwise.
    pub const CONNECTIONS: usize = 4096;
    /// Receive buffer of a connection to begin with, and when idle, in bytes.
    pub const RECEIVE_MIN: usize = 4 << 10;
    /// What it is while the core has no memory for more than that, but for so much: it holds an append of the
    /// clients' default batch, 64 KiB, with its headers.
    pub const RECEIVE_MODEST: usize = 72 << 10;
    /// Receive buffer a busy connection grows to; a longer frame gets what it needs.
    pub const RECEIVE_BUSY: usize = 256 << 10;
    /// Bytes queued for a peer above which its requests are no longer read and its subscriptions pause.
    pub const OUT_HIGH: usize = 4 << 20;
    /// What [`OUT_HIGH`] falls to on a core that is pressed; as much a peer may be granted or fetch there.
    pub const OUT_PRESSED: usize = 64 << 10;
    /// Seconds a peer may take nothing of what is queued, if it has closed its side or the core is pressed.
    pub const WRITE_STALL_S: u32 = 5;
    /// Seconds a peer may take nothing in any case; and may keep more than [`OUT_PRESSED`] on a core that is pressed,
    /// whatever it takes.
    pub const REPLY_STALL_S: u32 = 30;
    /// Seconds a peer may leave a frame unfinished without sending a byte.
    pub const FRAME_STALL_S: u32 = 10;
    /// Seconds a peer may take for one frame while others wait for the memory it holds.
    pub const FRAME_SLOW_S: u32 = 30;
    /// Bytes queued for a peer above which a delivery ends its subscription instead.
    pub const OUT_HARD: usize = 32 << 20;
    /// Bytes queued for a peer above which deliveries are copied rather than hold the log's buffers.
    pub const OUT_SHARE: usize = 1 << 20;
    /// Bytes a subscription may have granted or queued, however many there are, and to begin with.
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
    /// Control requests waiting for the control thread.
    pub const CONTROL: usize = 1024;
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
    /// Most filter threads.
    pub const FILTER_THREADS: usize = 64;
    /// Bytes a filter may have read ahead of what it looks at.
    pub const FILTER_AHEAD: u64 = 2 << 20;
    /// Bytes that are read for a filter at once.
    pub const FILTER_READ: usize = 1 << 20;
    /// Bytes a filter may find in one turn, about.
    pub const FILTER_PIECE: usize = 256 << 10;
    /// Milliseconds a turn of a filter takes, about: whoever waits behind it waits as long.
    pub const FILTER_TURN_MS: u64 = 5;
    /// Turns of one core that filter threads may have at once.
    pub const FILTER_TURNS: usize = 32;
    /// Frames without batches that a consumer with a filter is sent while nothing is heard of it.
    pub const FILTER_UNHEARD: u32 = 64;
    /// Different filters of one core, those that are kept though nobody uses them included.
    pub const FILTERS: usize = 256;
    /// What `Busy` tells clients to wait, in milliseconds.
    pub const RETRY_MS: u32 = 10;
}
