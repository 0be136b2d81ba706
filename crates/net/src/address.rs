//! Where a server listens, and who is at the other end of a connection.

use std::{fmt, net::SocketAddr, path::PathBuf};

/// Where an NBD server can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or a literal IPv4 or IPv6 address (without brackets), and a port.
    Tcp {
        /// Name or literal address.
        host: String,
        /// Port number, in host order.
        port: u16,
    },
    /// A unix domain socket by its path.
    Unix(PathBuf),
    /// A virtual machine's or its host's socket.
    Vsock {
        /// Context identifier; 2 is the host.
        cid: u32,
        /// Port number.
        port: u32,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer's address.
    Tcp(SocketAddr),
    /// The process that connected a unix socket, as the kernel saw it then.
    Unix {
        /// Process id; 0 when it lives in a namespace that we cannot see.
        pid: i32,
        /// Effective user id.
        uid: u32,
        /// Effective group id.
        gid: u32,
    },
    /// A peer over vsock.
    Vsock {
        /// Context identifier of the peer.
        cid: u32,
        /// Port of the peer.
        port: u32,
    },
    /// A pipe, or a socket of another kind.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(f, "{address}"),
            Peer::Unix { pid, uid, .. } => write!(f, "pid {pid} of user {uid}"),
            Peer::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
            Peer::Unknown => f.write_str("a pipe"),
        }
    }
}
