//! Where a server listens.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::error::StartError;
use crate::net::listen;
use crate::options::ServerOptions;

/// What clients connect to, bound before anything else is begun.
pub(super) struct Ports {
    /// All cores accept from it.
    pub shared: TcpListener,
    pub local_addr: SocketAddr,
    /// By core.
    pub own: Vec<TcpListener>,
    pub core_ports: Arc<[u16]>,
    pub http: Option<TcpListener>,
    pub http_addr: Option<SocketAddr>,
}

impl Ports {
    pub fn bind(options: &ServerOptions) -> Result<Ports, StartError> {
        let shared = listen(options.listen)?;
        let local_addr = address_of(&shared, options.listen)?;
        let own = core_listeners(local_addr, options.core_port_base, options.cores.len())?;
        let port = |listener| Ok(address_of(listener, local_addr)?.port());
        let core_ports: Vec<u16> = own.iter().map(port).collect::<Result<_, StartError>>()?;
        let http = options.http.map(listen).transpose()?;
        let http_addr = match (&http, options.http) {
            (Some(listener), Some(address)) => Some(address_of(listener, address)?),
            _ => None,
        };
        Ok(Ports { shared, local_addr, own, core_ports: core_ports.into(), http, http_addr })
    }
}

fn core_listeners(
    address: SocketAddr,
    base: Option<u16>,
    cores: usize,
) -> Result<Vec<TcpListener>, StartError> {
    let port = |core: usize| match base {
        None => Ok(0),
        Some(base) => u16::try_from(core)
            .ok()
            .and_then(|core| base.checked_add(core))
            .ok_or(StartError::PortRange { base, cores }),
    };
    (0..cores).map(|core| listen(SocketAddr::new(address.ip(), port(core)?))).collect()
}

fn address_of(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address, source })
}

pub(super) fn copy(listener: &TcpListener, address: SocketAddr) -> Result<TcpListener, StartError> {
    listener.try_clone().map_err(|source| StartError::Listen { address, source })
}
