//! The network server: one pinned thread per core, sessions, routing, control plane, telemetry.
//!
//! Every core has a tokio-uring runtime for its connections and owns some of the shards, whose log runs on
//! a ring of its own ([`highwater_engine::Core`]). Cores share nothing; a request that arrives on the wrong
//! one is handed over by a bounded queue. Beside the cores there are a control thread, which may wait for
//! the disk (catalogue, positions), a telemetry thread, which never does, and filter threads, which evaluate the
//! expressions of subscriptions and fetches.
//!
//! ```no_run
//! use highwater_server::{Server, ServerOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::start(ServerOptions::new("data"))?;
//! println!("listening on {}", server.local_addr());
//! server.wait()?;
//! # Ok(())
//! # }
//! ```

mod accept;
mod clock;
mod connection;
mod control_thread;
mod core_state;
mod core_thread;
mod error;
mod figures;
mod filter;
mod flow;
mod handover;
mod memory;
mod net;
mod options;
mod outgoing;
mod patience;
mod pending;
mod prometheus;
mod publisher;
mod receipts;
mod receive;
mod request;
mod router;
mod server;
mod session;
mod telemetry;

pub use error::{CoreDied, StartError, StopError};
pub use memory::{MemoryError, MemoryShares};
pub use options::ServerOptions;
pub use server::Server;
