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
    /// By way of ssh.
    Ssh(Box<Ssh>),
}

/// A server that a host reaches, to which ssh leads. Who asks for passwords and knows keys is the program `ssh`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ssh {
    /// The user there; else it is ssh's choice.
    pub user: Option<String>,
    /// The host, as ssh takes it. It must not begin with a dash.
    pub host: String,
    /// The port of ssh; else it is ssh's choice.
    pub port: Option<u16>,
    /// Whether ssh compresses.
    pub compress: bool,
    /// Where the server listens on that host.
    pub at: Remote,
}

/// Where a server listens on a host that ssh leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// A port of its loopback address, which ssh forwards.
    Port(u16),
    /// A unix domain socket, to which the host's `nc` connects.
    Socket(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
            Address::Ssh(ssh) => match &ssh.at {
                Remote::Port(port) => write!(f, "port {port} of {}", ssh.host),
                Remote::Socket(path) => write!(f, "{} on {}", path.display(), ssh.host),
            },
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
