//! Accepting connections, as many as there may be.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use highwater_wire::{ErrorCode, WireError};

use crate::connection::{Connection, serve, turn_away};
use crate::core_state::CoreState;
use crate::options::bounds::RETRY_MS;

/// Connections being told that there are too many, at once; beyond that they are closed without a word.
const TURNED_AWAY: usize = 64;

/// Accepts until the listener is shut down.
pub(crate) async fn accept(
    core: Rc<CoreState>,
    listener: tokio_uring::net::TcpListener,
    limit: usize,
) {
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(_) if core.stopping.get() => return,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            // Stopping begins with the listeners being shut down, a moment before this core hears of it.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return,
            // Out of descriptors or memory: the connection waits in the backlog.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connections = core.connections.borrow().len();
        let now = core.clock.now().mono_ns;
        let connection = Rc::new(Connection::new(core.new_connection(), socket, &core.queued, now));
        if connections < limit {
            tokio_uring::spawn(serve(Rc::clone(&core), connection));
        } else if connections < limit + TURNED_AWAY {
            let message =
                format!("core {} has {connections} connections; the limit is {limit}", core.index);
            let error = WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS * 100);
            tokio_uring::spawn(turn_away(Rc::clone(&core), connection, error));
        }
    }
}
