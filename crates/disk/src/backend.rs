//! Something that can open disks: a configured plugin, or a filter over one.

use crate::{Disk, Io, Wish, error::Result};
use std::{fmt, net::SocketAddr, sync::Arc};

/// Where a client comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// Not known: pipes, tests, tools of our own.
    #[default]
    Unknown,
    /// Over TCP.
    Ip(SocketAddr),
    /// Over a Unix socket, with what the kernel says of the process.
    Unix {
        /// Process id.
        pid: Option<u32>,
        /// User id.
        uid: Option<u32>,
        /// Group id.
        gid: Option<u32>,
    },
    /// Over AF_VSOCK.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
}

/// Whom a client's certificate names: distinguished names, as `C=GB,O=Example,CN=alice`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who gave it.
    pub issuer: String,
}

/// Who is asking: one value per connection.
#[derive(Clone, Debug, Default)]
pub struct Client<'a> {
    /// Which connection of the server this is, from 1; 0 outside of a server.
    pub connection: u64,
    /// The export asked for; empty: the default one.
    pub export: &'a str,
    /// The client may only read.
    pub read_only: bool,
    /// Only the facts of the disk matter, and no request follows: nothing may be made, changed or begun for it.
    pub looks: bool,
    /// The connection is encrypted.
    pub tls: bool,
    /// With which certificate it has proved who it is, over TLS.
    pub certificate: Option<Arc<Certificate>>,
    /// Where it comes from.
    pub peer: Peer,
    /// The label that the system's security module gives its process, such as SELinux's context.
    pub label: Option<Arc<str>>,
    /// Ends its connection, with what is under way.
    pub hang_up: Wish,
    /// Refuses its requests from now on with `ESHUTDOWN`; what is under way is answered.
    pub dismiss: Wish,
}

impl<'a> Client<'a> {
    /// A client of no server that asks for `export`.
    pub fn local(export: &'a str) -> Self {
        Client { export, ..Client::default() }
    }

    /// The same client, asking for `export`.
    pub fn asking_for<'b>(&self, export: &'b str) -> Client<'b> {
        Client {
            connection: self.connection,
            export,
            read_only: self.read_only,
            looks: self.looks,
            tls: self.tls,
            certificate: self.certificate.clone(),
            peer: self.peer.clone(),
            label: self.label.clone(),
            hang_up: self.hang_up.clone(),
            dismiss: self.dismiss.clone(),
        }
    }
}

/// An export, as lists show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// At most 4096 bytes; empty: the default one.
    pub name: String,
    /// For people; at most 4096 bytes.
    pub description: Option<String>,
}

/// How many requests a backend's disks take at once; the lowest of a stack counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreadModel {
    /// One client at a time.
    SerializeConnections,
    /// Many clients, one request at a time over all of them.
    SerializeAllRequests,
    /// One request at a time per client.
    SerializeRequests,
    /// No limit.
    Parallel,
}

impl ThreadModel {
    /// As nbdkit spells it.
    pub fn name(self) -> &'static str {
        match self {
            ThreadModel::SerializeConnections => "serialize_connections",
            ThreadModel::SerializeAllRequests => "serialize_all_requests",
            ThreadModel::SerializeRequests => "serialize_requests",
            ThreadModel::Parallel => "parallel",
        }
    }
}

impl fmt::Display for ThreadModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A configured plugin, or a filter over one: something that can open disks.
///
/// Only `open` must be written. The rest passes on to [`Backend::next`] where there is one.
pub trait Backend: Send + Sync {
    /// Opens a disk for this client.
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>>;

    /// The exports that a list shows to this client (whose `export` is empty).
    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        match self.next() {
            Some(next) => next.exports(client),
            None => Io::ok(vec![Export::default()]),
        }
    }

    /// The name behind the empty name; `None`: it stays empty.
    fn default_export<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Option<String>> {
        self.next().map_or(Io::ok(None), |next| next.default_export(client))
    }

    /// How many requests it takes at once.
    fn thread_model(&self) -> ThreadModel {
        self.next().map_or(ThreadModel::Parallel, |next| next.thread_model())
    }

    /// There is a server: `end` ends it in good order. Comes before [`Backend::after_fork`], or never.
    fn hosted(&self, end: &Wish) {
        if let Some(next) = self.next() {
            next.hosted(end);
        }
    }

    /// Everything is configured and the server is about to fork into the background: last chance to refuse, with
    /// the error on the terminal. Start no threads here.
    ///
    /// # Errors
    /// Whatever makes serving pointless.
    fn get_ready(&self) -> Result<()> {
        self.next().map_or(Ok(()), |next| next.get_ready())
    }

    /// The server is in its final process: threads may be started.
    ///
    /// # Errors
    /// Whatever makes serving pointless.
    fn after_fork(&self) -> Result<()> {
        self.next().map_or(Ok(()), |next| next.after_fork())
    }

    /// A client has connected and not yet said anything; an error turns it away.
    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        self.next().map_or(Io::ok(()), |next| next.preconnect(client))
    }

    /// The client has gone, whether it ever opened a disk or not.
    fn disconnected(&self, connection: u64) {
        if let Some(next) = self.next() {
            next.disconnected(connection);
        }
    }

    /// The server has served its last client.
    fn finish(&self) {
        if let Some(next) = self.next() {
            next.finish();
        }
    }

    /// The backend below, in a filter.
    fn next(&self) -> Option<&dyn Backend> {
        None
    }
}
