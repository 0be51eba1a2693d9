//! Listening sockets and the limit on open files.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::error::StartError;

/// Connections the kernel may complete before they are accepted.
const BACKLOG: i32 = 1024;

/// Binds and listens at `address`. Without SO_REUSEPORT: a port in use has to be an error, not a second
/// server that takes half the connections.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Lets a restarted server have its port back while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit both.
        socket.set_tcp_nodelay(true)?;
        let probe = Duration::from_secs(15);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(probe * 4).with_interval(probe))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse(address),
        _ => StartError::Listen { address, source },
    })
}

/// Ends all waiting and future `accept`s on a listener, in whichever thread they are.
pub(crate) fn close_listener(listener: &TcpListener) {
    // Fails only when it is closed already.
    let _ = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
}

/// Raises the soft limit of open files to the hard one and returns the limit then in force (`u64::MAX`
/// for none).
pub(crate) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if soft < hard && setrlimit(Resource::Nofile, raised).is_ok() { hard } else { soft }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_that_names_it() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let Err(StartError::AddressInUse(named)) = listen(address) else { panic!() };
        assert_eq!(named, address);
    }

    #[test]
    fn a_closed_listener_accepts_no_more() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let other = listener.try_clone().unwrap();
        let waiting = std::thread::spawn(move || other.accept().map(drop));
        close_listener(&listener);
        assert!(waiting.join().unwrap().is_err());
    }
}
