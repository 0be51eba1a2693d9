//! Why a server does not start, run or stop as asked.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use highwater_engine::OpenError;
use highwater_ring::PinError;

use crate::memory::MemoryError;

/// Why a server did not start; nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Somebody else listens there.
    #[error("address {0} is in use: is another server running? (port 0 picks a free one)")]
    AddressInUse(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The ports of the cores do not fit.
    #[error("core_port_base {base} with {cores} cores goes beyond port 65535")]
    PortRange {
        /// As given.
        base: u16,
        /// How many cores.
        cores: usize,
    },
    /// A setting out of its range.
    #[error("{field} is {value}; the limit is {limit}")]
    Option {
        /// Which.
        field: &'static str,
        /// As given.
        value: usize,
        /// What is allowed.
        limit: &'static str,
    },
    /// The memory bound.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Too few file descriptors.
    #[error(
        "RLIMIT_NOFILE is {limit}, at least {needed} are needed: raise it (ulimit -n, LimitNOFILE=)"
    )]
    OpenFiles {
        /// The hard limit.
        limit: u64,
        /// Needed to begin with.
        needed: u64,
    },
    /// A CPU cannot be used.
    #[error(transparent)]
    Cpu(#[from] PinError),
    /// The store did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A core did not start.
    #[error("core {core} on CPU {cpu} did not start: {reason}")]
    Core {
        /// Which.
        core: usize,
        /// Its CPU.
        cpu: usize,
        /// The cause.
        reason: String,
    },
    /// The kernel refuses io_uring to this process.
    #[error(
        "the kernel refuses io_uring ({source}): set sysctl kernel.io_uring_disabled=0, or allow \
         io_uring in the container's seccomp profile"
    )]
    Uring {
        /// The cause.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// Which.
        name: String,
        /// The cause.
        source: io::Error,
    },
}

/// What was left undone when a server stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// Work in flight did not finish.
    #[error("the server did not come to rest within {0:?}: some requests were left unanswered")]
    Deadline(Duration),
    /// A core had died.
    #[error(transparent)]
    Core(#[from] CoreDied),
}

/// A core's thread ended by itself; its shards are not served any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("core {core} died: {reason}")]
pub struct CoreDied {
    /// Which.
    pub core: usize,
    /// The cause.
    pub reason: String,
}
