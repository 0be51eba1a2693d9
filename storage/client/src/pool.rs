//! Connections to the ports of one server, opened when first needed and again when broken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater_wire::ClusterInfo;

use crate::connection::Connection;
use crate::{ClientOptions, ConnectError};

/// How long a core's port is left alone after it could not be reached but the shared one could.
const AVOID: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    host: String,
    port: u16,
    options: ClientOptions,
    info: ClusterInfo,
    routes: Mutex<HashMap<u16, Arc<Route>>>,
}

/// The connections to one port.
#[derive(Debug)]
struct Route {
    slots: Vec<tokio::sync::Mutex<Option<Connection>>>,
    turn: AtomicUsize,
    avoid_until: Mutex<Option<Instant>>,
}

impl Route {
    fn new(connections: usize) -> Route {
        let slots = (0..connections.max(1)).map(|_| tokio::sync::Mutex::new(None)).collect();
        Route { slots, turn: AtomicUsize::new(0), avoid_until: Mutex::new(None) }
    }

    fn avoided(&self) -> bool {
        let until = self.avoid_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn avoid(&self) {
        let mut until = self.avoid_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = Some(Instant::now() + AVOID);
    }
}

/// `HOST:PORT` in two parts; an IPv6 address stands in brackets.
fn split_target(target: &str) -> Option<(&str, u16)> {
    let (host, port) = target.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

impl Pool {
    /// Connects to the target.
    pub(crate) async fn open(target: &str, options: ClientOptions) -> Result<Pool, ConnectError> {
        let (host, port) = split_target(target)
            .ok_or_else(|| ConnectError::Target { target: target.to_owned() })?;
        let (connection, info) = Connection::open(host, port, &options).await?;
        let mut route = Route::new(options.connections_per_core);
        route.slots[0] = tokio::sync::Mutex::new(Some(connection));
        let routes = Mutex::new(HashMap::from([(port, Arc::new(route))]));
        Ok(Pool { host: host.to_owned(), port, options, info, routes })
    }

    /// What the server said when it was first reached.
    pub(crate) fn info(&self) -> &ClusterInfo {
        &self.info
    }

    /// What the client was told.
    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// A connection to the target.
    pub(crate) async fn shared(&self) -> Result<Connection, ConnectError> {
        self.to_port(&self.route(self.port), self.port).await
    }

    /// A connection to a core's port, or to the target if that cannot be reached: the server passes
    /// requests on. Port 0 stands for the target.
    pub(crate) async fn to_core(&self, port: u16) -> Result<Connection, ConnectError> {
        if port == 0 || port == self.port {
            return self.shared().await;
        }
        let route = self.route(port);
        if route.avoided() {
            return self.shared().await;
        }
        match self.to_port(&route, port).await {
            Ok(connection) => Ok(connection),
            Err(_) => {
                let connection = self.shared().await?;
                route.avoid();
                Ok(connection)
            }
        }
    }

    fn route(&self, port: u16) -> Arc<Route> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Route::new(self.options.connections_per_core));
        Arc::clone(routes.entry(port).or_insert_with(new))
    }

    async fn to_port(&self, route: &Route, port: u16) -> Result<Connection, ConnectError> {
        let turn = route.turn.fetch_add(1, Ordering::Relaxed) % route.slots.len();
        // Whoever finds the connection broken opens it anew; the others wait for that.
        let mut slot = route.slots[turn].lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| !c.is_dead()) {
            return Ok(connection.clone());
        }
        let (connection, _) = Connection::open(&self.host, port, &self.options).await?;
        Ok(slot.insert(connection).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_host_and_a_port() {
        let table = [
            ("localhost:7411", Some(("localhost", 7411))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("[::1]:7411", Some(("::1", 7411))),
            ("::1:7411", None),
            ("[::1:7411", None),
            ("localhost", None),
            (":7411", None),
            ("localhost:0", None),
            ("localhost:65536", None),
            ("", None),
        ];
        for (target, parts) in table {
            assert_eq!(split_target(target), parts, "{target}");
        }
    }
}
