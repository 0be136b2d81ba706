//! Sockets that wait for connections.

use crate::{raw, reason, stream::Stream};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, socket_with, sockopt},
};
use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

/// Which versions of the Internet protocol to listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Whatever the name resolves to, or both.
    #[default]
    Any,
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

/// A socket that waits for connections.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// A unix socket's path, to be removed with the listener.
    remove: Option<PathBuf>,
    /// What whoever handed it over calls it.
    name: Option<String>,
}

/// Connections that may wait to be accepted; the kernel bounds it further.
const BACKLOG: i32 = 4096;

impl Listener {
    /// Listen on a TCP port, on one socket per address: those that `host` resolves to, or all interfaces.
    /// Port 0 lets the kernel choose one port, which all of them share (see [`Listener::port`]).
    ///
    /// # Errors
    /// A sentence that names the address. An address family that this machine lacks is an error only when
    /// nothing else could be bound.
    pub fn tcp(host: Option<&str>, port: u16, family: Family) -> io::Result<Vec<Listener>> {
        let mut addresses: Vec<SocketAddr> = match host {
            Some(host) => {
                let named = |e: io::Error| io::Error::new(e.kind(), format!("{host}: {}", reason(&e)));
                (host, port).to_socket_addrs().map_err(named)?.collect()
            }
            None => vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()],
        };
        addresses.retain(|a| family.has(a));
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            let name = host.unwrap_or("any interface");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{name}: no such address")));
        }
        // With port 0, a port that is free for the first address may be taken for the second: try others.
        let tries = if port == 0 && addresses.len() > 1 { 16 } else { 1 };
        let mut last = None;
        for _ in 0..tries {
            match Listener::tcp_all(&addresses) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = Some(e),
                other => return other,
            }
        }
        Err(last.expect("there was at least one try"))
    }

    fn tcp_all(addresses: &[SocketAddr]) -> io::Result<Vec<Listener>> {
        let mut listeners: Vec<Listener> = Vec::new();
        let mut missing = None;
        for &address in addresses {
            let mut address = address;
            if address.port() == 0
                && let Some(first) = listeners.first()
            {
                address.set_port(first.port().unwrap_or(0));
            }
            match Listener::tcp_one(address) {
                Ok(listener) => listeners.push(listener),
                Err(e @ (Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => missing = Some((address, e)),
                Err(e) => return Err(cannot_listen(&address, e)),
            }
        }
        match missing {
            Some((address, e)) if listeners.is_empty() => Err(cannot_listen(&address, e)),
            _ => Ok(listeners),
        }
    }

    fn tcp_one(address: SocketAddr) -> Result<Listener, Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = stream_socket(family)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            // IPv4 has a socket of its own.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Listener { socket, remove: None, name: None })
    }

    /// Listen on a unix socket at `path`, which must not exist yet.
    ///
    /// # Errors
    /// A sentence that names the path: it exists, or cannot be made.
    pub fn unix(path: &Path, remove_on_drop: bool) -> io::Result<Listener> {
        let bound = || -> Result<OwnedFd, Errno> {
            let socket = stream_socket(AddressFamily::UNIX)?;
            rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        let socket = bound().map_err(|e| cannot_listen(&path.display(), e))?;
        Ok(Listener { socket, remove: remove_on_drop.then(|| path.to_path_buf()), name: None })
    }

    /// Listen on a vsock port of this machine.
    ///
    /// # Errors
    /// A sentence that names the port.
    pub fn vsock(port: u32) -> io::Result<Listener> {
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("vsock port {port}: cannot listen: {}", reason(&e)))
        };
        let socket = stream_socket(AddressFamily::VSOCK).map_err(|e| named(e.into()))?;
        raw::bind_vsock(socket.as_fd(), port).map_err(named)?;
        rustix::net::listen(&socket, BACKLOG).map_err(|e| named(e.into()))?;
        Ok(Listener { socket, remove: None, name: None })
    }

    /// Use a listening socket that somebody else made.
    ///
    /// # Errors
    /// When it is not a listening socket.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Listener> {
        if !sockopt::socket_acceptconn(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Listener { socket, remove: None, name: None })
    }

    /// What whoever handed it over calls it (see [`crate::listen_fds`]).
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same listener under a name.
    pub(crate) fn named(self, name: Option<&str>) -> Listener {
        let mut listener = self;
        listener.name = name.map(str::to_owned);
        listener
    }

    /// The TCP port it listens on, if it is a TCP socket.
    pub fn port(&self) -> Option<u16> {
        self.address().map(|a| a.port())
    }

    /// The TCP address it listens on, if it is a TCP socket.
    pub fn address(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(&self.socket).ok()?.try_into().ok()
    }

    /// Accept one connection if there is one. The peer may be gone again.
    ///
    /// # Errors
    /// `WouldBlock` when nobody waits; else what the system says (such as too many open files).
    pub fn accept(&self) -> io::Result<Stream> {
        Stream::from_socket(accept_with(&self.socket, SocketFlags::CLOEXEC)?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.remove {
            let _ = fs::remove_file(path); // it may be gone already, and nobody could be told
        }
    }
}

/// Listening sockets do not block: several threads may be told of one connection.
fn stream_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn cannot_listen(address: &dyn std::fmt::Display, e: Errno) -> io::Error {
    io::Error::new(e.kind(), format!("{address}: cannot listen: {}", reason(&e.into())))
}

/// Wakes threads that wait in [`accept_any`], for good. Setting it is safe in a signal handler.
#[derive(Debug)]
pub struct Stop(OwnedFd);

impl Stop {
    /// A stop that is not set.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Stop> {
        Ok(Stop(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Set it: every wait on it ends, now and later.
    pub fn set(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes()); // full means it is set already
    }

    /// Was it set?
    pub fn is_set(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wait for a connection on any of `listeners`; returns it with the index of its listener. `None` once `stop`
/// is set or `timeout` passed.
///
/// # Errors
/// What the system says; the listeners stay usable, so that a caller may log it, pause and go on.
pub fn accept_any(
    listeners: &[Listener],
    stop: &Stop,
    timeout: Option<Duration>,
) -> io::Result<Option<(usize, Stream)>> {
    let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos().into() });
    loop {
        let mut fds: Vec<PollFd<'_>> =
            listeners.iter().map(|l| PollFd::new(&l.socket, PollFlags::IN)).collect();
        fds.push(PollFd::new(&stop.0, PollFlags::IN));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(None),
            Err(Errno::INTR) => continue,
            other => _ = other?,
        }
        if !fds[listeners.len()].revents().is_empty() {
            return Ok(None);
        }
        for (i, listener) in listeners.iter().enumerate() {
            if fds[i].revents().is_empty() {
                continue;
            }
            match listener.accept() {
                // Another thread took it, or the client left: not our trouble.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionReset
                    ) => {}
                Err(e) => return Err(e),
                Ok(stream) => return Ok(Some((i, stream))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Address, address::Peer, connect::connect, stream::Wait};

    #[test]
    fn port_0_is_one_real_port_for_all_addresses() {
        let listeners = Listener::tcp(None, 0, Family::Any).unwrap();
        let port = listeners[0].port().unwrap();
        assert_ne!(port, 0);
        assert!(listeners.iter().all(|l| l.port() == Some(port)));
        let stop = Stop::new().unwrap();
        let client = connect(&Address::Tcp { host: "127.0.0.1".into(), port }, None).unwrap();
        let (_, server) = accept_any(&listeners, &stop, None).unwrap().unwrap();
        assert!(matches!(server.peer(), Peer::Tcp(a) if a.ip().is_loopback()));
        server.send_all(b"x").unwrap();
        assert_eq!(client.recv(&mut [0; 4], Wait::Block).unwrap(), 1);
        stop.set();
        assert!(stop.is_set());
        assert!(accept_any(&listeners, &stop, None).unwrap().is_none());
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = Listener::tcp(Some("127.0.0.1"), 0, Family::V4).unwrap();
        let port = first[0].port().unwrap();
        let error = Listener::tcp(Some("127.0.0.1"), port, Family::V4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("127.0.0.1:{port}: cannot listen: ")), "{error}");
    }

    #[test]
    fn a_family_that_the_name_lacks_is_an_error() {
        assert!(Listener::tcp(Some("127.0.0.1"), 0, Family::V6).is_err());
    }

    #[test]
    fn a_unix_socket_is_not_replaced_and_is_removed_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let kept = Listener::unix(&path, false).unwrap();
        assert_eq!(Listener::unix(&path, true).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists(), "a failed listener removes nothing");
        drop(kept);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        drop(Listener::unix(&path, true).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn waiting_can_be_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let listener = [Listener::unix(&dir.path().join("s"), true).unwrap()];
        let stop = Stop::new().unwrap();
        assert!(accept_any(&listener, &stop, Some(Duration::from_millis(5))).unwrap().is_none());
    }
}
