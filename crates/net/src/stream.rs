//! One connected byte stream: a socket, or a pair of pipes.

use crate::{
    address::Peer,
    raw::{self, MAX_PIECES, Readable, Writable},
    tls::{self, Session, TlsFacts},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt},
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
    time::Duration,
};

/// May a call sleep until it can do something?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Sleep until at least one byte was moved, or the stream ended.
    Block,
    /// Fail with [`io::ErrorKind::WouldBlock`] instead of sleeping.
    DontWait,
}

/// Which directions of a stream to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing more will be received.
    Read,
    /// Nothing more will be sent; the peer sees the end of the stream.
    Write,
    /// Both; threads that wait in a receive wake up.
    Both,
}

/// A connected byte stream. All methods take `&self`: one thread may receive while another sends.
#[derive(Debug)]
pub struct Stream {
    pub(crate) kind: Kind,
    /// Once encryption has begun.
    pub(crate) tls: OnceLock<Box<Session>>,
    is_local_tcp: bool,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Socket(OwnedFd),
    /// Separate descriptors for the two directions, not sockets (or not one socket).
    Pair {
        input: OwnedFd,
        output: OwnedFd,
    },
}

/// On one host a large send buffer only makes the data cold before it is read: 1 MiB reads are 2.3 times
/// as fast with this bound (asked for; the kernel doubles it).
const LOCAL_TCP_SEND_BUFFER: usize = 128 << 10;

/// A blocking pipe that polls as writable takes at least this much without sleeping (PIPE_BUF).
pub(crate) const PIPE_PIECE: usize = 4096;

impl Stream {
    /// Wrap a connected socket. TCP gets its options (no delay; a bounded send buffer on one host).
    ///
    /// # Errors
    /// When `socket` is not a socket.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Stream> {
        let family = sockopt::socket_domain(&socket)?;
        let mut is_local_tcp = false;
        if family == AddressFamily::INET || family == AddressFamily::INET6 {
            sockopt::set_tcp_nodelay(&socket, true)?;
            is_local_tcp = same_host(socket.as_fd());
            if is_local_tcp {
                sockopt::set_socket_send_buffer_size(&socket, LOCAL_TCP_SEND_BUFFER)?;
            }
        }
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(Stream { kind: Kind::Socket(socket), tls: OnceLock::new(), is_local_tcp })
    }

    /// A connected socket that this process was started with, by its number. It can be taken once.
    ///
    /// # Errors
    /// A sentence: it is not open, was taken already, or is not a socket.
    pub fn inherited(number: i32) -> io::Result<Stream> {
        let bad = |kind, why: &str| Err(io::Error::new(kind, format!("descriptor {number} {why}")));
        match raw::inherited(number) {
            None => bad(io::ErrorKind::NotFound, "was not inherited, or is in use"),
            Some(fd) => {
                Stream::from_socket(fd).or_else(|_| bad(io::ErrorKind::InvalidInput, "is not a socket"))
            }
        }
    }

    /// A stream of two descriptors, such as standard input and output. When both are the same socket (as
    /// inetd makes them) the stream is that socket.
    ///
    /// # Errors
    /// When a descriptor cannot be examined.
    pub fn from_pair(input: OwnedFd, output: OwnedFd) -> io::Result<Stream> {
        let (a, b) = (rustix::fs::fstat(&input)?, rustix::fs::fstat(&output)?);
        let is_socket = rustix::fs::FileType::from_raw_mode(a.st_mode).is_socket();
        if is_socket && a.st_dev == b.st_dev && a.st_ino == b.st_ino {
            return Stream::from_socket(input);
        }
        Ok(Stream { kind: Kind::Pair { input, output }, tls: OnceLock::new(), is_local_tcp: false })
    }

    /// Two connected unix sockets, close-on-exec.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Stream, Stream)> {
        let (a, b) = std::os::unix::net::UnixStream::pair()?;
        Ok((Stream::from_socket(a.into())?, Stream::from_socket(b.into())?))
    }

    /// Receive into `into`. 0 means the end of the stream (or an empty buffer).
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there and `wait` forbids to sleep; else what the system says.
    #[inline]
    pub fn recv(&self, into: &mut [u8], wait: Wait) -> io::Result<usize> {
        match self.tls.get() {
            None => self.kind.recv(into, wait),
            Some(tls) => tls.recv(&self.kind, Writable::of(&mut [IoSliceMut::new(into)]), wait),
        }
    }

    /// Receive into several pieces, in order.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub fn recv_vectored(&self, into: &mut [IoSliceMut<'_>], wait: Wait) -> io::Result<usize> {
        if let Some(tls) = self.tls.get() {
            return tls.recv(&self.kind, Writable::of(into), wait);
        }
        match &self.kind {
            Kind::Socket(fd) => {
                let flags = if wait == Wait::DontWait { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
                loop {
                    let mut control = rustix::net::RecvAncillaryBuffer::default();
                    match rustix::net::recvmsg(fd, into, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
                        Err(rustix::io::Errno::INTR) => {}
                        other => return Ok(other?.bytes),
                    }
                }
            }
            Kind::Pair { input, .. } => {
                piped(input.as_fd(), PollFlags::IN, wait, || Ok(rustix::io::readv(input, into)?))
            }
        }
    }

    /// Send from several pieces, in order; returns how many bytes were taken. Never raises SIGPIPE on a
    /// socket. What was not taken must be the beginning of what is sent next: over TLS it may be encrypted already.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room and `wait` forbids to sleep; else what the system says.
    #[inline]
    pub fn send_vectored(&self, from: &[IoSlice<'_>], wait: Wait) -> io::Result<usize> {
        match self.tls.get() {
            None => self.kind.send(from, wait),
            Some(tls) => tls.send(&self.kind, Readable::of(from), wait),
        }
    }

    /// Send all of `from`, sleeping as needed.
    ///
    /// # Errors
    /// What the system says.
    pub fn send_all(&self, mut from: &[u8]) -> io::Result<()> {
        while !from.is_empty() {
            match self.send_vectored(&[IoSlice::new(from)], Wait::Block)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => from = &from[n..],
            }
        }
        Ok(())
    }

    /// Go on encrypted, as the server: the handshake is run now. Nothing else may be received or sent meanwhile.
    ///
    /// # Errors
    /// A sentence: the client speaks no TLS, cannot prove who it is, does not trust this end, or went away.
    pub fn accept_tls(&self, server: &tls::Server) -> io::Result<&TlsFacts> {
        self.set_tls(server.handshake(&self.kind)?)
    }

    /// Go on encrypted, as the client: the handshake is run now. Nothing else may be received or sent meanwhile. `host` is the
    /// name or address that the server's certificate must have, where the settings of `client` name no other.
    ///
    /// # Errors
    /// A sentence: the server speaks no TLS, is not to be trusted (and why), does not trust this end, or went away.
    pub fn begin_tls(&self, client: &tls::Client, host: Option<&str>) -> io::Result<&TlsFacts> {
        self.set_tls(client.handshake(&self.kind, host)?)
    }

    fn set_tls(&self, session: Session) -> io::Result<&TlsFacts> {
        let again = |_| io::Error::new(io::ErrorKind::AlreadyExists, "the stream is encrypted already");
        self.tls.set(Box::new(session)).map_err(again)?;
        self.tls().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives back the memory that is not needed until something comes or is sent.
    pub fn rest(&self) {
        if let Some(tls) = self.tls.get() {
            tls.rest();
        }
    }

    /// What is known of the encryption, if there is any.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.get().map(|tls| tls.facts())
    }

    /// Close one direction or both. Pipes close only with the stream: for them this does nothing. Over TLS the peer is told
    /// first, if there is room for that, when the direction to it is closed.
    ///
    /// # Errors
    /// What the system says; a peer that is already gone is not an error.
    pub fn shutdown(&self, how: How) -> io::Result<()> {
        if how != How::Read
            && let Some(tls) = self.tls.get()
        {
            tls.say_goodbye(&self.kind);
        }
        let Kind::Socket(fd) = &self.kind else { return Ok(()) };
        let how = match how {
            How::Read => Shutdown::Read,
            How::Write => Shutdown::Write,
            How::Both => Shutdown::Both,
        };
        match rustix::net::shutdown(fd, how) {
            Err(rustix::io::Errno::NOTCONN) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Ask the kernel to notice a TCP peer that vanished; for other streams this does nothing.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_keepalive(&self, on: bool) -> io::Result<()> {
        match &self.kind {
            Kind::Socket(fd) => Ok(sockopt::set_socket_keepalive(fd, on)?),
            Kind::Pair { .. } => Ok(()),
        }
    }

    /// Bound each waiting receive: after `timeout` without a byte it fails with `WouldBlock`. `None` lifts the
    /// bound. For pipes this does nothing.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_recv_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.kind {
            Kind::Socket(fd) => Ok(sockopt::set_socket_timeout(fd, sockopt::Timeout::Recv, timeout)?),
            Kind::Pair { .. } => Ok(()),
        }
    }

    /// As [`Stream::set_recv_timeout`], for each waiting send: the peer takes nothing meanwhile.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_send_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.kind {
            Kind::Socket(fd) => Ok(sockopt::set_socket_timeout(fd, sockopt::Timeout::Send, timeout)?),
            Kind::Pair { .. } => Ok(()),
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        let Kind::Socket(fd) = &self.kind else { return Peer::Unknown };
        match sockopt::socket_domain(fd) {
            Ok(AddressFamily::UNIX) => raw::unix_peer(fd.as_fd()).unwrap_or(Peer::Unknown),
            Ok(AddressFamily::VSOCK) => {
                raw::vsock_peer(fd.as_fd()).map_or(Peer::Unknown, |(cid, port)| Peer::Vsock { cid, port })
            }
            _ => peer_address(fd.as_fd()).map_or(Peer::Unknown, Peer::Tcp),
        }
    }

    /// The label that the system's security module gives the process at the other end.
    pub fn security_label(&self) -> Option<String> {
        let Kind::Socket(fd) = &self.kind else { return None };
        raw::security_label(fd.as_fd())
    }

    /// TCP between two ends of one host: what is sent is best sent in pieces that its bounded buffer has room for.
    pub fn is_local_tcp(&self) -> bool {
        self.is_local_tcp
    }

    /// A socket, which [`Stream::shutdown`] can close while others use it.
    pub fn is_socket(&self) -> bool {
        matches!(self.kind, Kind::Socket(_))
    }

    /// The descriptor to send on, when it is another one than that of [`AsFd`].
    pub fn output(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Socket(fd) => fd.as_fd(),
            Kind::Pair { output, .. } => output.as_fd(),
        }
    }
}

impl Kind {
    #[inline]
    pub(crate) fn recv(&self, into: &mut [u8], wait: Wait) -> io::Result<usize> {
        match self {
            Kind::Socket(fd) => {
                let flags = if wait == Wait::DontWait { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
                loop {
                    match rustix::net::recv(fd, &mut *into, flags) {
                        Err(rustix::io::Errno::INTR) => {}
                        other => return Ok(other?.0),
                    }
                }
            }
            Kind::Pair { input, .. } => {
                piped(input.as_fd(), PollFlags::IN, wait, || Ok(rustix::io::read(input, &mut *into)?))
            }
        }
    }

    #[inline]
    pub(crate) fn send(&self, from: &[IoSlice<'_>], wait: Wait) -> io::Result<usize> {
        let from = &from[..from.len().min(MAX_PIECES)];
        match self {
            Kind::Socket(fd) => {
                let mut flags = SendFlags::NOSIGNAL;
                if wait == Wait::DontWait {
                    flags |= SendFlags::DONTWAIT;
                }
                loop {
                    let sent = match from {
                        [one] => rustix::net::send(fd, one, flags),
                        _ => rustix::net::sendmsg(fd, from, &mut SendAncillaryBuffer::default(), flags),
                    };
                    match sent {
                        Err(rustix::io::Errno::INTR) => {}
                        other => return Ok(other?),
                    }
                }
            }
            Kind::Pair { output, .. } => piped(output.as_fd(), PollFlags::OUT, wait, || {
                if wait == Wait::Block {
                    return Ok(rustix::io::writev(output, from)?);
                }
                let Some(piece) = from.iter().find(|piece| !piece.is_empty()) else { return Ok(0) };
                Ok(rustix::io::write(output, &piece[..piece.len().min(PIPE_PIECE)])?)
            }),
        }
    }
}

/// A peer over TLS is told, also when nobody called [`Stream::shutdown`].
impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(tls) = self.tls.get() {
            tls.say_goodbye(&self.kind);
        }
    }
}

/// The descriptor to wait on for something to receive.
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Socket(fd) => fd.as_fd(),
            Kind::Pair { input, .. } => input.as_fd(),
        }
    }
}

/// A pipe's own blocking mode belongs to whoever else holds it, so readiness is asked for first, and a
/// descriptor that turns out to be non-blocking is waited for.
pub(crate) fn piped(
    fd: BorrowedFd<'_>,
    ready: PollFlags,
    wait: Wait,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        if wait == Wait::DontWait && poll(&mut [PollFd::new(&fd, ready)], Some(&now))? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && wait == Wait::Block => {
                match poll(&mut [PollFd::new(&fd, ready)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            other => return other,
        }
    }
}

fn peer_address(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    rustix::net::getpeername(fd).ok()??.try_into().ok()
}

fn same_host(fd: BorrowedFd<'_>) -> bool {
    let Some(peer) = peer_address(fd) else { return false };
    let own: Option<SocketAddr> = rustix::net::getsockname(fd).ok().and_then(|a| a.try_into().ok());
    let canonical = |ip: IpAddr| ip.to_canonical();
    canonical(peer.ip()).is_loopback() || own.is_some_and(|own| canonical(own.ip()) == canonical(peer.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_and_sends_on_a_socket_without_changing_its_mode() {
        let (a, b) = Stream::pair().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(a.recv(&mut buffer, Wait::DontWait).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        b.send_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")], Wait::Block).unwrap();
        assert_eq!(a.recv(&mut buffer, Wait::Block).unwrap(), 4);
        assert_eq!(&buffer[..4], b"abcd");
        b.shutdown(How::Write).unwrap();
        assert_eq!(a.recv(&mut buffer, Wait::Block).unwrap(), 0);
        assert!(matches!(a.peer(), Peer::Unix { .. }));
        b.set_recv_timeout(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(b.recv(&mut buffer, Wait::Block).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_full_socket_refuses_to_wait_and_a_dead_one_raises_no_signal() {
        let (a, b) = Stream::pair().unwrap();
        let block = [7; 65536];
        let full = loop {
            if let Err(e) = a.send_vectored(&[IoSlice::new(&block)], Wait::DontWait) {
                break e;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(b);
        let gone = a.send_vectored(&[IoSlice::new(&block)], Wait::Block).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_pair_of_pipes_is_a_stream() {
        let (r1, w1) = rustix::pipe::pipe().unwrap();
        let (r2, w2) = rustix::pipe::pipe().unwrap();
        let near = Stream::from_pair(r1, w2).unwrap();
        let far = Stream::from_pair(r2, w1).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(near.recv(&mut buffer, Wait::DontWait).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        far.send_all(b"hello").unwrap();
        assert_eq!(near.recv(&mut buffer, Wait::DontWait).unwrap(), 5);
        let mut sent = 0;
        loop {
            match near.send_vectored(&[IoSlice::new(&[1; 10000])], Wait::DontWait) {
                Ok(n) => sent += n,
                Err(e) => break assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(sent >= PIPE_PIECE);
        drop(near);
        assert_eq!(far.peer(), Peer::Unknown);
    }

    #[test]
    fn one_socket_given_twice_is_that_socket() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = Stream::from_pair(a.try_clone().unwrap().into(), a.into()).unwrap();
        assert!(matches!(stream.kind, Kind::Socket(_)));
        drop(b);
    }
}
