//! Connecting to an [`Address`].

use crate::{address::Address, raw, reason, stream::Stream};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::{Duration, Instant},
};

/// Connect to `address`, trying every address that a host name resolves to. `timeout` bounds the whole.
///
/// # Errors
/// A sentence that names the address and the last reason; the kind is that of the reason.
pub fn connect(address: &Address, timeout: Option<Duration>) -> io::Result<Stream> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let connected = match address {
        Address::Tcp { host, port } => tcp(host, *port, deadline),
        Address::Unix(path) => socket(AddressFamily::UNIX, deadline).and_then(|socket| {
            rustix::net::connect(&socket, &unix(path)?)?;
            Ok(socket)
        }),
        Address::Vsock { cid, port } => socket(AddressFamily::VSOCK, deadline).and_then(|socket| {
            raw::connect_vsock(socket.as_fd(), *cid, *port)?;
            Ok(socket)
        }),
        Address::Ssh(ssh) => ssh.connect(),
    };
    connected
        .and_then(|socket| {
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
            Stream::from_socket(socket)
        })
        .map_err(|e| {
            // The kernel's words for a timeout here are "in progress" and "try again", which help nobody.
            let timed_out = deadline.is_some_and(|d| Instant::now() >= d);
            let kind = if timed_out { io::ErrorKind::TimedOut } else { e.kind() };
            let why = if timed_out { "no answer in time".to_string() } else { reason(&e) };
            io::Error::new(kind, format!("{address}: cannot connect: {why}"))
        })
}

/// A path that begins with a NUL byte is a name in Linux's abstract namespace.
pub(crate) fn unix(path: &Path) -> Result<SocketAddrUnix, rustix::io::Errno> {
    match path.as_os_str().as_bytes() {
        [0, name @ ..] => SocketAddrUnix::new_abstract_name(name),
        _ => SocketAddrUnix::new(path),
    }
}

/// A socket whose `connect` gives up at the deadline (the kernel applies the send timeout to it).
fn socket(family: AddressFamily, deadline: Option<Instant>) -> io::Result<OwnedFd> {
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if let Some(deadline) = deadline {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(left(deadline)))?;
    }
    Ok(socket)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn tcp(host: &str, port: u16, deadline: Option<Instant>) -> io::Result<OwnedFd> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        let connected = match deadline {
            Some(deadline) => TcpStream::connect_timeout(&address, left(deadline)),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => return Ok(stream.into()),
            Err(e) => last = e,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_is_named_in_the_error() {
        let address = Address::Unix("/nonexistent/socket".into());
        let error = connect(&address, Some(Duration::from_secs(1))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let sentence = "/nonexistent/socket: cannot connect: No such file or directory";
        assert_eq!(error.to_string(), sentence);
    }

    #[test]
    fn a_server_that_does_not_accept_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = Address::Unix(path);
        let waiting: Vec<_> = (0..3).map(|_| connect(&address, Some(Duration::from_millis(50)))).collect();
        let error = waiting.into_iter().find_map(Result::err).expect("the queue is bounded");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
