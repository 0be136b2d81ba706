//! A proxy: serves the export of another NBD server, with all that the server can do.
//!
//! The disk is the client's [`RemoteDisk`] itself, so requests, flags, extents and holes pass through as they
//! are. What is decided here is which server, which export, and whether clients share one connection.

mod size;

use client::{Address, Connector, RemoteDisk, Tls, TlsSettings};
use disk::{Backend, Client, Disk, Error, Export, Io, Plugin, Result};
use params::{Choice, Params};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

const PORT: u16 = 10809;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// Serve the export of another NBD server.
#[derive(Params)]
pub(crate) struct Nbd {
    /// The server and its export, as an NBD URI.
    #[param(magic, placeholder = "URI")]
    uri: Option<String>,
    /// A server on this Unix socket.
    socket: Option<PathBuf>,
    /// A server on this host, over TCP.
    #[param(placeholder = "HOST")]
    hostname: Option<String>,
    /// A server in this virtual machine, or on its host (2), over vsock.
    #[param(placeholder = "CID")]
    vsock: Option<u32>,
    /// The port, with hostname (a number or the name of a service) or vsock (a number); 10809 by default.
    port: Option<String>,
    /// Start this program as the server, by socket activation.
    #[param(placeholder = "PROGRAM")]
    command: Option<String>,
    /// An argument of the program; once for each.
    #[param(placeholder = "ARGUMENT")]
    arg: Vec<String>,
    /// A server at the other end of this inherited socket.
    #[param(placeholder = "FD")]
    socket_fd: Option<u32>,
    /// The export to open; by default the one without a name.
    #[param(placeholder = "NAME")]
    export: Option<String>,
    /// Open the export that the client asks for.
    #[param(default = "false")]
    dynamic_export: bool,
    /// How often to try again, after a second each, when the server cannot be reached.
    #[param(default = "0")]
    retry: u32,
    /// Let all clients share one connection, made at the start. By default only with command and socket-fd.
    shared: Option<bool>,
    /// Encryption of the connection to the server: off, on (if the server offers it) or require. By default off, but on
    /// when another of these parameters is given, and require with a URI that says nbds.
    tls: Option<TlsMode>,
    /// The directory of certificates for TLS.
    tls_certificates: Option<PathBuf>,
    /// Whether to check the server's certificate; true by default.
    tls_verify: Option<bool>,
    /// The name that the server's certificate must have; by default that of the host.
    #[param(placeholder = "NAME")]
    tls_hostname: Option<String>,
    /// The user name for TLS with pre-shared keys; by default the one who is logged in.
    #[param(placeholder = "NAME")]
    tls_username: Option<String>,
    /// The file of pre-shared keys for TLS.
    tls_psk: Option<PathBuf>,
    /// Versions and ciphers of TLS, as a priority string of GnuTLS.
    #[param(placeholder = "PRIORITY")]
    tls_priority: Option<String>,
}

#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
enum TlsMode {
    Off,
    On,
    Require,
}

/// How to get at the server.
enum Server {
    /// It runs already.
    Running(Connector),
    /// It is started for each connection of ours.
    Command(Vec<String>),
}

impl Plugin for Nbd {
    const NAME: &'static str = "nbd";
    const MANUAL: &'static str = include_str!("nbd.md");
    const DUMP: &'static [(&'static str, &'static str)] =
        &[("libnbd_tls", "1"), ("libnbd_uri", "1"), ("libnbd_vsock", "1"), ("libnbd_dynamic_list", "1")];

    fn start(self) -> Result<impl Backend + 'static> {
        let alone = self.command.is_some() || self.socket_fd.is_some();
        let shared = self.shared.unwrap_or(alone);
        if self.dynamic_export && (shared || alone) {
            let why = "dynamic-export=true: clients that share a connection cannot have exports of their own";
            return Err(Error::invalid(why));
        }
        if self.dynamic_export && self.export.is_some() {
            return Err(Error::invalid("dynamic-export=true: not together with export"));
        }
        let mut server = self.server()?;
        let mut tls = (Tls::Off, TlsSettings::default());
        if let Server::Running(connector) = &mut server {
            if let Some(export) = &self.export {
                connector.options.export = export.clone();
            }
            tls = (connector.options.tls, (*connector.options.tls_settings).clone());
        }
        let tls = self.tls(tls);
        Ok(NbdBackend(Arc::new(Proxy {
            server,
            tls,
            export: self.export.unwrap_or_default(),
            dynamic: self.dynamic_export,
            retry: self.retry,
            shared: shared.then(Mutex::default),
        })))
    }
}

impl Nbd {
    /// What the parameters say of encryption, over what a URI says.
    fn tls(&self, mut said: (Tls, TlsSettings)) -> (Tls, TlsSettings) {
        let (when, settings) = (&mut said.0, &mut said.1);
        let any = self.tls_certificates.is_some()
            || self.tls_verify.is_some()
            || self.tls_hostname.is_some()
            || self.tls_username.is_some()
            || self.tls_psk.is_some()
            || self.tls_priority.is_some();
        *when = match self.tls {
            // What the URI demands stays demanded.
            _ if *when == Tls::Require => Tls::Require,
            Some(TlsMode::Off) => Tls::Off,
            Some(TlsMode::On) => Tls::Allow,
            Some(TlsMode::Require) => Tls::Require,
            None => {
                if any {
                    Tls::Allow
                } else {
                    Tls::Off
                }
            }
        };
        let over = |to: &mut Option<PathBuf>, given: &Option<PathBuf>| *to = given.clone().or(to.take());
        over(&mut settings.certificates, &self.tls_certificates);
        over(&mut settings.psk_file, &self.tls_psk);
        let over = |to: &mut Option<String>, given: &Option<String>| *to = given.clone().or(to.take());
        over(&mut settings.user, &self.tls_username);
        over(&mut settings.hostname, &self.tls_hostname);
        over(&mut settings.priority, &self.tls_priority);
        settings.verify_peer = self.tls_verify.unwrap_or(settings.verify_peer);
        said
    }

    /// The one server that the parameters name.
    fn server(&self) -> Result<Server> {
        let ways = [
            self.uri.is_some(),
            self.socket.is_some(),
            self.hostname.is_some(),
            self.vsock.is_some(),
            self.command.is_some(),
            self.socket_fd.is_some(),
        ];
        if ways.iter().filter(|given| **given).count() != 1 {
            let why = "give exactly one of uri, socket, hostname, vsock, command and socket-fd";
            return Err(Error::invalid(why));
        }
        if self.port.is_some() && self.hostname.is_none() && self.vsock.is_none() {
            return Err(Error::invalid("port: only together with hostname or vsock"));
        }
        if !self.arg.is_empty() && self.command.is_none() {
            return Err(Error::invalid("arg: only together with command"));
        }
        let at = |address| Ok(Server::Running(Connector::to(address)));
        if let Some(uri) = &self.uri {
            let connector = Connector::uri(uri).map_err(|e| e.context("uri"))?;
            return Ok(Server::Running(connector));
        }
        if let Some(path) = &self.socket {
            return at(Address::Unix(path.clone()));
        }
        if let Some(host) = &self.hostname {
            return at(Address::Tcp { host: host.clone(), port: self.tcp_port()? });
        }
        if let Some(cid) = self.vsock {
            let port = self.port.as_ref().map_or(Ok(u32::from(PORT)), |port| {
                port.parse().map_err(|_| Error::invalid(format!("port={port}: not a vsock port number")))
            })?;
            return at(Address::Vsock { cid, port });
        }
        if let Some(fd) = self.socket_fd {
            let number = i32::try_from(fd).unwrap_or(i32::MAX);
            let named = |e: Error| e.context(format!("socket-fd={fd}"));
            return Ok(Server::Running(Connector::inherited(number).map_err(named)?));
        }
        Ok(Server::Command(self.command.iter().chain(&self.arg).cloned().collect()))
    }

    fn tcp_port(&self) -> Result<u16> {
        let Some(port) = &self.port else { return Ok(PORT) };
        port.parse().ok().filter(|port| *port > 0).or_else(|| client::service_port(port)).ok_or_else(|| {
            Error::invalid(format!("port={port}: neither a port from 1 to 65535 nor the name of a service"))
        })
    }
}

struct NbdBackend(Arc<Proxy>);

struct Proxy {
    server: Server,
    tls: (Tls, TlsSettings),
    /// For a server that is started; one that runs has it in its options.
    export: String,
    dynamic: bool,
    retry: u32,
    /// With `shared`: the one connection, once it is made.
    shared: Option<Mutex<Option<Opened>>>,
}

/// A connection to the server.
#[derive(Clone)]
enum Opened {
    /// The disk is as large as it is.
    Fixed(Arc<RemoteDisk>),
    /// The server lets clients change its size.
    Elastic(Arc<size::Shared>),
}

impl Opened {
    fn new(disk: RemoteDisk) -> Opened {
        let disk = Arc::new(disk);
        match disk.offers_resize() {
            true => Opened::Elastic(size::Shared::new(disk)),
            false => Opened::Fixed(disk),
        }
    }

    /// The disk for one client.
    async fn disk(self) -> Arc<dyn Disk> {
        match self {
            Opened::Fixed(disk) => disk,
            Opened::Elastic(shared) => Arc::new(shared.open().await),
        }
    }
}

impl Proxy {
    fn connector(&self, export: &str) -> Result<Connector> {
        let mut connector = match &self.server {
            Server::Running(connector) => connector.clone(),
            Server::Command(command) => {
                let mut connector = Connector::command(command).map_err(|e| e.context("command"))?;
                connector.options.export = self.export.clone();
                connector
            }
        };
        if self.dynamic {
            connector.options.export = export.to_string();
        }
        connector.options.tls = self.tls.0;
        *connector.options.tls_settings = self.tls.1.clone();
        Ok(connector)
    }

    /// Open a connection of its own, on a thread that may block.
    fn open(&self, export: &str) -> Result<Opened> {
        let mut tries = 0;
        loop {
            match self.connector(export).and_then(|connector| connector.open()) {
                Ok(mut disk) => {
                    if !self.dynamic {
                        // The client asked us for another name, and must not be told the server's.
                        disk.facts_mut().name = None;
                    }
                    return Ok(Opened::new(disk));
                }
                Err(e) if tries >= self.retry => return Err(e),
                Err(_) => thread::sleep(PAUSE),
            }
            tries += 1;
        }
    }

    /// The connection for a client.
    fn opened(&self, export: &str) -> Result<Opened> {
        let Some(shared) = &self.shared else { return self.open(export) };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shared {
            Some(opened) => Ok(opened.clone()),
            None => Ok(shared.insert(self.open(export)?).clone()),
        }
    }

    /// The shared connection, when it is there already.
    fn at_hand(&self) -> Option<Opened> {
        self.shared.as_ref()?.try_lock().ok()?.clone()
    }
}

impl Backend for NbdBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        match self.0.at_hand() {
            Some(Opened::Fixed(disk)) => return Io::ok(disk),
            Some(opened) => return Io::later(async { Ok(opened.disk().await) }),
            None => {}
        }
        let (proxy, export) = (self.0.clone(), client.export.to_string());
        Io::later(async move {
            let opened = reactor::unblock(move || proxy.opened(&export)).await??;
            Ok(opened.disk().await)
        })
    }

    fn exports<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        if !self.0.dynamic {
            return Io::ok(vec![Export::default()]);
        }
        let proxy = self.0.clone();
        Io::later(async move {
            let list = reactor::unblock(move || proxy.connector("")?.list_exports()).await??;
            let export = |e: client::ExportEntry| Export {
                name: e.name,
                description: (!e.description.is_empty()).then_some(e.description),
            };
            Ok(list.into_iter().map(export).collect())
        })
    }

    /// A server that cannot be reached is reported at the start, if one connection is to serve all.
    fn after_fork(&self) -> Result<()> {
        match &self.0.shared {
            Some(_) => self.0.opened("").map(drop),
            None => Ok(()),
        }
    }

    /// Ends the shared connection, and with it the server that was started for it.
    fn finish(&self) {
        if let Some(shared) = &self.0.shared {
            shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

#[cfg(test)]
mod tests;
