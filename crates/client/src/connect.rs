//! How to reach a server, and what to agree on with it.

use crate::{
    negotiate::{Encryption, Negotiation, tls_error},
    remote_disk::RemoteDisk,
};
use disk::{Errno, Error, Result};
use net::{Address, Child, Remote, Ssh, Stream, tls::ClientSettings};
use proto::{
    ExportEntry, Infos,
    handshake::{Tls, client::Wishes},
    meta_context::BASE_ALLOCATION,
    uri::{self, Uri, UriError},
};
use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What a client wants of a server.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The export's name; empty for the default one.
    pub export: String,
    /// Ask for structured replies. Without them there are no holes, no block status and no error messages.
    pub structured_replies: bool,
    /// Ask for extended headers, which carry 64-bit lengths.
    pub extended_headers: bool,
    /// The metadata contexts to ask for. Those that the server lacks are left out.
    pub contexts: Vec<String>,
    /// Encryption.
    pub tls: Tls,
    /// Whom to trust, and who to be, with TLS.
    pub tls_settings: Box<ClientSettings>,
    /// How many connections to open, if the server allows several; at least 1.
    pub connections: usize,
    /// Bounds connecting, and each wait for the server in the handshake. `None`: as long as it takes.
    pub timeout: Option<Duration>,
}

impl Default for ConnectOptions {
    /// The default export, everything that the server offers, one connection, no time limit.
    fn default() -> Self {
        ConnectOptions {
            export: String::new(),
            structured_replies: true,
            extended_headers: true,
            contexts: vec![BASE_ALLOCATION.to_string()],
            tls: Tls::Off,
            tls_settings: Box::default(),
            connections: 1,
            timeout: None,
        }
    }
}

/// A server to connect to, and how. Keeps a server that it started running.
#[derive(Clone, Debug)]
pub struct Connector {
    target: Target,
    /// What to agree on.
    pub options: ConnectOptions,
}

#[derive(Clone)]
enum Target {
    Address(Address),
    /// A server that was started for us, and lives as long as somebody wants to connect or is connected.
    Child(Arc<Child>, Address),
    /// A stream that can be used once.
    Stream(Arc<Mutex<Option<Stream>>>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => write!(f, "{address}"),
            Target::Child(..) => f.write_str("a server started for it"),
            Target::Stream(_) => f.write_str("an open stream"),
        }
    }
}

/// Where a URI leads.
pub(crate) fn address(uri: &Uri) -> Address {
    match uri.address.clone() {
        uri::Address::Tcp { host, port } => Address::Tcp { host, port },
        uri::Address::Unix(path) => Address::Unix(path),
        uri::Address::Vsock { cid, port } => Address::Vsock { cid, port },
        uri::Address::Ssh { host, port, compress, at } => {
            let at = match at {
                uri::Remote::Port(port) => Remote::Port(port),
                uri::Remote::Socket(path) => Remote::Socket(path),
            };
            Address::Ssh(Box::new(Ssh { user: uri.user.clone(), host, port, compress, at }))
        }
    }
}

/// How long a server that was started for us may take to end after it hung up.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// Names the program; that it has ended explains why it did not answer.
fn of_child(child: &Child, e: Error) -> Error {
    let silent = matches!(e.errno(), Errno::SHUTDOWN | Errno::CONNRESET);
    match child.ended(if silent { LAST_BREATH } else { Duration::ZERO }) {
        Some(status) => {
            let why = format!("{}: the command ended before it served ({status})", child.program());
            Error::new(e.errno(), why)
        }
        None => e.context(child.program()),
    }
}

impl Connector {
    /// A server at an address.
    pub fn to(address: Address) -> Connector {
        Connector { target: Target::Address(address), options: ConnectOptions::default() }
    }

    /// A server and export by URI, such as `nbd://host/export` or `nbd+unix:///?socket=/path`.
    ///
    /// # Errors
    /// The text is no NBD URI. (What is wrong with keys for TLS is said when connecting.)
    pub fn uri(uri: &str) -> Result<Connector> {
        let uri: Uri = uri.parse().map_err(|e: UriError| Error::invalid(e.to_string()))?;
        Ok(Connector::from_uri(&uri))
    }

    /// As [`Connector::uri`], from a parsed one.
    pub fn from_uri(uri: &Uri) -> Connector {
        let mut connector = Connector::to(address(uri));
        connector.options.export = uri.export.clone();
        if uri.tls {
            connector.options.tls = Tls::Require;
        }
        *connector.options.tls_settings = ClientSettings {
            certificates: uri.tls_certificates.clone(),
            psk_file: uri.tls_psk_file.clone(),
            user: uri.user.clone(),
            hostname: uri.tls_hostname.clone(),
            verify_peer: uri.tls_verify_peer.unwrap_or(true),
            priority: uri.tls_priority.clone(),
        };
        connector
    }

    /// Start a command as a server, by socket activation, to connect to. It ends when the connector and all
    /// that it opened are dropped.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn command(command: &[String]) -> Result<Connector> {
        let (child, address) = net::socket_activation(command)?;
        let options = ConnectOptions::default();
        Ok(Connector { target: Target::Child(Arc::new(child), address), options })
    }

    /// A server at the other end of an open stream, which serves for one connection.
    pub fn stream(stream: Stream) -> Connector {
        let target = Target::Stream(Arc::new(Mutex::new(Some(stream))));
        Connector { target, options: ConnectOptions::default() }
    }

    /// A server at the other end of a socket that this process was started with, by its number; it serves for
    /// one connection.
    ///
    /// # Errors
    /// The descriptor is not open, was taken already, or is not a socket.
    pub fn inherited(number: i32) -> Result<Connector> {
        Ok(Connector::stream(Stream::inherited(number)?))
    }

    /// The address, unless it is an open stream.
    pub fn address(&self) -> Option<&Address> {
        match &self.target {
            Target::Address(address) | Target::Child(_, address) => Some(address),
            Target::Stream(_) => None,
        }
    }

    /// The process id of the server, if it was started by [`Connector::command`] and still runs.
    pub fn child_id(&self) -> Option<u32> {
        match &self.target {
            Target::Child(child, _) => child.id(),
            _ => None,
        }
    }

    pub(crate) fn child(&self) -> Option<Arc<Child>> {
        match &self.target {
            Target::Child(child, _) => Some(child.clone()),
            _ => None,
        }
    }

    fn stream_to(&self) -> Result<Stream> {
        match &self.target {
            Target::Address(address) | Target::Child(_, address) => {
                let stream = net::connect(address, self.options.timeout).map_err(|e| {
                    // The sentence is whole already, and only the kind of the cause is left beside it.
                    let errno = match e.kind() {
                        io::ErrorKind::NotFound => Errno::NOENT,
                        io::ErrorKind::PermissionDenied => Errno::ACCES,
                        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Errno::CONNRESET,
                        _ => Errno::IO,
                    };
                    Error::new(errno, e.to_string())
                })?;
                stream.set_keepalive(true)?;
                Ok(stream)
            }
            Target::Stream(stream) => stream
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
                .ok_or_else(|| Error::new(Errno::NOTSUP, "an open socket serves for one connection only")),
        }
    }

    fn wishes(&self, opt_mode: bool) -> Wishes {
        let o = &self.options;
        Wishes {
            export: o.export.clone(),
            tls: o.tls,
            structured_replies: o.structured_replies,
            extended_headers: o.extended_headers,
            contexts: o.contexts.clone(),
            infos: Infos::ALL,
            opt_mode,
            ..Wishes::default()
        }
    }

    fn start(&self, opt_mode: bool) -> Result<Negotiation> {
        let tls = match self.options.tls {
            Tls::Off => None,
            // Before connecting: what is wrong here need not trouble the server.
            _ => Some(net::tls::Client::new(&self.options.tls_settings).map_err(tls_error)?),
        };
        // Other addresses have no name that a certificate could have.
        let host = match self.address() {
            Some(Address::Tcp { host, .. }) => Some(host.clone()),
            _ => None,
        };
        let tls = tls.map(|client| Encryption { client, host });
        let (wishes, timeout) = (self.wishes(opt_mode), self.options.timeout);
        let started = |stream| Negotiation::start_with(stream, wishes, timeout, tls);
        match &self.target {
            Target::Stream(_) => started(self.stream_to()?),
            Target::Address(address) => started(self.stream_to()?).map_err(|e| e.context(address)),
            // The address of its socket says nothing to anybody.
            Target::Child(child, _) => self.stream_to().and_then(started).map_err(|e| of_child(child, e)),
        }
    }

    /// Connect, and stop where exports can be listed and asked about.
    ///
    /// # Errors
    /// No connection, or no NBD server there.
    pub fn negotiate(&self) -> Result<Negotiation> {
        self.start(true)
    }

    /// Connect and go through the whole handshake, once.
    ///
    /// # Errors
    /// No connection, or the server refuses the export.
    pub(crate) fn open_one(&self) -> Result<Negotiation> {
        self.start(false)
    }

    /// Open the export, on this thread.
    ///
    /// # Errors
    /// No connection, or the server refuses the export. The errno is that of the cause.
    pub fn open(&self) -> Result<RemoteDisk> {
        RemoteDisk::open(self)
    }

    /// Open the export, without blocking this thread.
    ///
    /// # Errors
    /// As [`Connector::open`].
    pub async fn connect(&self) -> Result<RemoteDisk> {
        let connector = self.clone();
        reactor::unblock(move || connector.open()).await?
    }

    /// The exports that the server shows.
    ///
    /// # Errors
    /// No connection; or the server does not show them.
    pub fn list_exports(&self) -> Result<Vec<ExportEntry>> {
        let mut negotiation = self.negotiate()?;
        if negotiation.is_over() {
            let text = "the server speaks a dialect that cannot list exports";
            return Err(Error::new(Errno::NOTSUP, text));
        }
        let exports = negotiation.list()?;
        negotiation.abort();
        Ok(exports)
    }
}
