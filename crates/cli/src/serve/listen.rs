//! The place where clients connect: its sockets, and its name for `--run`.

use super::options::Listen;
use anyhow::{Context, Result, bail};
use net::Listener;
use proto::uri::{Address, Uri};
use std::path::PathBuf;

/// Sockets that clients can connect to from now on.
pub(crate) struct Place {
    pub(crate) listeners: Vec<Listener>,
    /// `None` for sockets that somebody else made.
    pub(crate) address: Option<Address>,
    /// Removed, with the socket in it, when the server ends.
    _private: Option<tempfile::TempDir>,
}

impl Place {
    /// Opens the sockets; those that this process was started with come before all options.
    pub(crate) fn open(listen: &Listen) -> Result<Place> {
        if let Some(listeners) = net::listen_fds()? {
            return Ok(Place { listeners, address: None, _private: None });
        }
        let (listeners, address, private) = match listen {
            Listen::Tcp { host, port, family } => {
                let listeners = Listener::tcp(host.as_deref(), *port, *family)?;
                let port = listeners.first().and_then(Listener::port).unwrap_or(*port);
                (listeners, Address::Tcp { host: reachable(host.as_deref()), port }, None)
            }
            Listen::Unix(path) => {
                let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
                (vec![Listener::unix(&path, false)?], Address::Unix(path), None)
            }
            Listen::PrivateUnix => {
                let dir = tempfile::Builder::new().prefix("diskpipe").tempdir();
                let dir = dir.context("cannot make a directory for the private socket")?;
                let path = dir.path().join("socket");
                (vec![Listener::unix(&path, true)?], Address::Unix(path), Some(dir))
            }
            // Context id 1 is this machine itself.
            Listen::Vsock { port } => {
                (vec![Listener::vsock(*port)?], Address::Vsock { cid: 1, port: *port }, None)
            }
            Listen::Stdio => bail!("standard input and output are no place to listen"),
        };
        Ok(Place { listeners, address: Some(address), _private: private })
    }

    /// What `--run` tells its command.
    pub(crate) fn variables(&self, export: &str) -> super::run::Variables {
        let mut variables = super::run::Variables { export: export.to_owned(), ..Default::default() };
        let Some(address) = &self.address else { return variables };
        match address {
            Address::Tcp { port, .. } => variables.port = Some((*port).into()),
            Address::Vsock { port, .. } => variables.port = Some(*port),
            Address::Unix(path) => variables.unix_socket = Some(PathBuf::clone(path)),
        }
        let mut uri = Uri::new(address.clone());
        uri.export = export.to_owned();
        variables.uri = uri.to_string();
        variables
    }
}

/// How a client on this machine names what the server listens on.
fn reachable(host: Option<&str>) -> String {
    match host {
        None | Some("0.0.0.0" | "::" | "127.0.0.1" | "localhost") => "localhost".to_owned(),
        Some(host) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::Family;

    #[test]
    fn a_private_socket_has_a_directory_that_goes_with_it() {
        let place = Place::open(&Listen::PrivateUnix).unwrap();
        let variables = place.variables("a b");
        let socket = variables.unix_socket.unwrap();
        assert!(socket.exists());
        assert_eq!(variables.uri, format!("nbd+unix:///a%20b?socket={}", socket.display()));
        drop(place);
        assert!(!socket.parent().unwrap().exists());
    }

    #[test]
    fn a_port_is_told_by_its_real_number() {
        let listen = Listen::Tcp { host: Some("127.0.0.1".into()), port: 0, family: Family::Any };
        let variables = Place::open(&listen).unwrap().variables("");
        let port = variables.port.unwrap();
        assert_ne!(port, 0);
        assert_eq!(variables.uri, format!("nbd://localhost:{port}"));
    }
}
