//! Connecting without waiting: for those who wait on descriptors themselves.

use crate::{address::Address, connect, stream::Stream};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};
use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// A connection under way. Wait until its descriptor can be written to, then call [`Connecting::progress`].
#[derive(Debug)]
pub struct Connecting {
    socket: OwnedFd,
    done: bool,
    /// What else the name resolved to.
    rest: VecDeque<SocketAddr>,
}

/// How far it is.
#[derive(Debug)]
pub enum Progress {
    /// There.
    Connected(Stream),
    /// Not yet; the descriptor may be another one now.
    Waiting(Connecting),
}

impl Connecting {
    /// Begin. Resolving a name waits; all else does not.
    ///
    /// # Errors
    /// What the system says, with its number where it has one; of several addresses, for the last one.
    pub fn begin(address: &Address) -> io::Result<Connecting> {
        let at_once = |socket| Connecting { socket, done: true, rest: VecDeque::new() };
        match address {
            Address::Tcp { host, port } => {
                let rest = (host.as_str(), *port).to_socket_addrs()?.collect();
                let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                next(rest, none)
            }
            Address::Unix(path) => {
                let socket =
                    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                rustix::net::connect(&socket, &connect::unix(path)?)?;
                Ok(at_once(socket))
            }
            Address::Vsock { cid, port } => {
                // Where nobody listens the kernel takes two seconds to say so.
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
                let done = match crate::raw::connect_vsock(socket.as_fd(), *cid, *port) {
                    Ok(()) => true,
                    Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => false,
                    Err(e) => return Err(e),
                };
                Ok(Connecting { done, ..at_once(socket) })
            }
            Address::Ssh(ssh) => ssh.connect().map(at_once),
        }
    }

    /// Go on, without waiting.
    ///
    /// # Errors
    /// As [`Connecting::begin`].
    pub fn progress(self) -> io::Result<Progress> {
        let mut this = self;
        while !this.done {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&this.socket, PollFlags::OUT)], Some(&now))? == 0 {
                return Ok(Progress::Waiting(this));
            }
            match sockopt::socket_error(&this.socket)? {
                Ok(()) => this.done = true,
                Err(e) => this = next(this.rest, e.into())?,
            }
        }
        Stream::from_socket(this.socket).map(Progress::Connected)
    }
}

/// The next address that does not fail at once.
fn next(mut rest: VecDeque<SocketAddr>, mut last: io::Error) -> io::Result<Connecting> {
    while let Some(address) = rest.pop_front() {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let begun =
            socket_with(family, SocketType::STREAM, flags, None).and_then(
                |socket| match rustix::net::connect(&socket, &address) {
                    Ok(()) => Ok((socket, true)),
                    Err(Errno::INPROGRESS) => Ok((socket, false)),
                    Err(e) => Err(e),
                },
            );
        match begun {
            Ok((socket, done)) => return Ok(Connecting { socket, done, rest }),
            Err(e) => last = e.into(),
        }
    }
    Err(last)
}

impl AsFd for Connecting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(mut connecting: Connecting) -> io::Result<Stream> {
        loop {
            poll(&mut [PollFd::new(&connecting, PollFlags::OUT)], None)?;
            match connecting.progress()? {
                Progress::Connected(stream) => return Ok(stream),
                Progress::Waiting(again) => connecting = again,
            }
        }
    }

    #[test]
    fn a_listener_is_reached_and_a_closed_port_has_the_kernels_number() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        let stream = wait(Connecting::begin(&address).unwrap()).unwrap();
        drop((listener, stream));
        let refused = Connecting::begin(&address).and_then(wait).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::CONNREFUSED.raw_os_error()));
        let absent = Connecting::begin(&Address::Unix("/nonexistent/s".into())).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(Errno::NOENT.raw_os_error()));
    }

    #[test]
    fn over_vsock_it_is_under_way_at_once_where_nobody_listens() {
        // Of this very machine, whose kernel may not know vsock, or not reach itself: then it says so at once.
        match Connecting::begin(&Address::Vsock { cid: 1, port: 4_294_967_290 }) {
            Err(e) => assert!(e.raw_os_error().is_some(), "{e}"),
            Ok(connecting) => {
                assert!(!connecting.done, "nobody listens there");
                assert!(wait(connecting).unwrap_err().raw_os_error().is_some());
            }
        }
    }
}
