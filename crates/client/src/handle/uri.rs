//! URIs: connecting by one, within what the settings allow, and telling the one of a connection.

use super::{Fault, Handle, Outcome, When, fault::errno, settings::transport};
use crate::connect::address;
use net::{Address, Remote};
use proto::{
    handshake::Tls,
    uri::{self, Uri, UriError},
};

fn forbidden(text: String) -> Fault {
    Fault::new(errno::EPERM, text)
}

impl Handle {
    /// Choose what a URI says, and begin to connect to its server.
    ///
    /// # Errors
    /// EINVAL: it is none; EPERM: the settings forbid what it asks for; else as [`Handle::aio_connect`].
    pub fn aio_connect_uri(&mut self, text: &str) -> Outcome<()> {
        self.need(When::Created)?;
        let uri: Uri = text.parse().map_err(|e: UriError| Fault::invalid(e.to_string()))?;
        let address = address(&uri);
        let transport = match &address {
            Address::Tcp { .. } => transport::TCP,
            Address::Unix(_) => transport::UNIX,
            Address::Vsock { .. } => transport::VSOCK,
            Address::Ssh(_) => transport::SSH,
        };
        let settings = &mut self.settings;
        if settings.allow_transports & transport == 0 {
            return Err(forbidden(format!("{text}: set_uri_allow_transports forbids this way to a server")));
        }
        match (settings.allow_tls, uri.tls) {
            (Tls::Off, true) => return Err(forbidden(format!("{text}: set_uri_allow_tls forbids TLS"))),
            (Tls::Require, false) => {
                return Err(forbidden(format!("{text}: set_uri_allow_tls demands TLS (nbds)")));
            }
            _ => {}
        }
        if !settings.allow_local_file && (uri.tls_certificates.is_some() || uri.tls_psk_file.is_some()) {
            return Err(forbidden(format!("{text}: local files need set_uri_allow_local_file")));
        }
        if !settings.allow_tls_priority && uri.tls_priority.is_some() {
            return Err(forbidden(format!("{text}: tls-priority needs set_uri_allow_tls_priority")));
        }
        settings.export = uri.export;
        if uri.tls {
            settings.tls = Tls::Require;
        }
        let tls = &mut settings.tls_settings;
        tls.user = uri.user.or(tls.user.take());
        tls.certificates = uri.tls_certificates.or(tls.certificates.take());
        tls.psk_file = uri.tls_psk_file.or(tls.psk_file.take());
        tls.hostname = uri.tls_hostname.or(tls.hostname.take());
        tls.priority = uri.tls_priority.or(tls.priority.take());
        tls.verify_peer = uri.tls_verify_peer.unwrap_or(tls.verify_peer);
        self.aio_connect(address)
    }

    /// The URI of the connection.
    ///
    /// # Errors
    /// ENOTCONN: there is none; EINVAL: none says how to get there.
    pub fn uri(&self) -> Outcome<String> {
        self.need(When::Known)?;
        let mut user = None;
        let place = match self.address() {
            Some(Address::Tcp { host, port }) => uri::Address::Tcp { host: host.clone(), port: *port },
            Some(Address::Unix(path)) => uri::Address::Unix(path.clone()),
            Some(Address::Vsock { cid, port }) => uri::Address::Vsock { cid: *cid, port: *port },
            Some(Address::Ssh(ssh)) => {
                let at = match &ssh.at {
                    Remote::Port(port) => uri::Remote::Port(*port),
                    Remote::Socket(path) => uri::Remote::Socket(path.clone()),
                };
                let (host, port, compress) = (ssh.host.clone(), ssh.port, ssh.compress);
                user = ssh.user.clone();
                uri::Address::Ssh { host, port, compress, at }
            }
            None => return Err(Fault::invalid("no URI leads to a socket that was given, or to a program")),
        };
        let mut uri = Uri::new(place);
        uri.tls = self.tls;
        uri.export = self.settings.export.clone();
        let tls = &self.settings.tls_settings;
        uri.user = user.or(tls.user.clone());
        uri.tls_certificates = tls.certificates.clone();
        uri.tls_psk_file = tls.psk_file.clone();
        uri.tls_hostname = tls.hostname.clone();
        uri.tls_verify_peer = (!tls.verify_peer).then_some(false);
        Ok(uri.with_slash())
    }
}
