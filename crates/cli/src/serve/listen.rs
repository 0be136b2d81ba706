//! The place where clients connect: its sockets, and its name for `--run`.

use super::options::Listen;
use super::run::Variables;
use super::tls::Encryption;
use anyhow::{Context, Result, bail};
use net::Listener;
use proto::uri::{Address, Uri};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Sockets that clients can connect to from now on.
pub(crate) struct Place {
    pub(crate) listeners: Vec<Listener>,
    /// `None` for sockets that somebody else made.
    pub(crate) address: Option<Address>,
    /// Behind the listeners, so that it is empty when it goes.
    _private: Option<Private>,
}

/// A private socket's directory, removed with whatever is in it when the server ends.
struct Private(tempfile::TempDir);

impl Drop for Private {
    fn drop(&mut self) {
        // Usually it is empty, and one call does it.
        if std::fs::remove_dir(self.0.path()).is_ok() {
            self.0.disable_cleanup(true);
        }
    }
}

impl Place {
    /// The sockets that this process was started with, if it was; then nothing may say where to listen.
    pub(crate) fn inherited(option: Option<&str>) -> Result<Option<Place>> {
        let Some(listeners) = net::listen_fds()? else { return Ok(None) };
        if let Some(option) = option {
            bail!("{option} cannot be used by a process that was started with sockets (LISTEN_FDS)");
        }
        Ok(Some(Place { listeners, address: None, _private: None }))
    }

    /// Opens sockets in several places; the first one is what `--run` tells.
    pub(crate) fn open_all(places: &[Listen]) -> Result<Place> {
        let (first, others) = places.split_first().context("there is no place to listen")?;
        let mut place = Place::open(first)?;
        for other in others {
            place.listeners.append(&mut Place::open(other)?.listeners);
        }
        Ok(place)
    }

    /// Opens the sockets.
    pub(crate) fn open(listen: &Listen) -> Result<Place> {
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
                // Private for others, too: the umask may be any.
                let for_us = Permissions::from_mode(0o700);
                let dir =
                    tempfile::Builder::new().prefix("diskpipe").permissions(for_us).tempdir_in(parent());
                let dir = dir.context("cannot make a directory for the private socket")?;
                let path = dir.path().join("socket");
                (vec![Listener::unix(&path, true)?], Address::Unix(path), Some(Private(dir)))
            }
            // Context id 1 is this machine itself.
            Listen::Vsock { port } => {
                (vec![Listener::vsock(*port)?], Address::Vsock { cid: 1, port: *port }, None)
            }
            Listen::Stdio => bail!("standard input and output are no place to listen"),
        };
        Ok(Place { listeners, address: Some(address), _private: private })
    }

    /// Where clients connect, in a few words.
    pub(crate) fn told(&self) -> String {
        let sockets = match self.listeners.len() {
            1 => "1 socket".to_owned(),
            many => format!("{many} sockets"),
        };
        match &self.address {
            None => format!("serving on {sockets} that somebody else made"),
            Some(Address::Tcp { host, port }) => format!("bound to IP address {host}:{port} ({sockets})"),
            Some(Address::Vsock { port, .. }) => format!("bound to vsock port {port}"),
            // ssh leads to servers; none listens there.
            Some(Address::Ssh { .. }) => String::new(),
            Some(Address::Unix(path)) => format!("bound to unix socket {}", path.display()),
        }
    }

    /// What `--run` tells its command.
    pub(crate) fn variables(&self, export: &str, encryption: &Encryption) -> Variables {
        let tls = encryption.variable();
        let mut variables = Variables { export: export.to_owned(), tls, ..Default::default() };
        let Some(address) = &self.address else { return variables };
        match address {
            Address::Tcp { port, .. } => variables.port = Some((*port).into()),
            Address::Vsock { port, .. } => variables.port = Some(*port),
            Address::Ssh { .. } => {}
            Address::Unix(path) => variables.unix_socket = Some(PathBuf::clone(path)),
        }
        let mut uri = Uri::new(address.clone());
        uri.export = export.to_owned();
        encryption.complete(&mut uri);
        variables.uri = uri.to_string();
        variables
    }
}

/// Where private sockets are made: `$TMPDIR`, unless there is none or its name leaves no room for a socket's, which
/// has 107 bytes at most.
fn parent() -> PathBuf {
    const LONGEST: usize = 80;
    let wanted = std::env::temp_dir();
    if wanted.as_os_str().len() <= LONGEST && wanted.is_dir() { wanted } else { "/tmp".into() }
}

/// A place as files name it: `127.0.0.1:10809`, `[::1]:10809`, `:10809`, `unix:PATH` or `vsock:PORT`.
pub(crate) fn parse(text: &str) -> Result<Listen> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(if path == "-" { Listen::PrivateUnix } else { Listen::Unix(path.into()) });
    }
    if let Some(port) = text.strip_prefix("vsock:") {
        let port = port.parse().ok().with_context(|| format!("{text}: not a vsock port number"))?;
        return Ok(Listen::Vsock { port });
    }
    let (host, port) = text.rsplit_once(':').with_context(|| {
        format!("{text}: not a place to listen such as :10809, 127.0.0.1:10809, unix:/path or vsock:10809")
    })?;
    let port = port.parse().ok().with_context(|| format!("{text}: not a port number from 0 to 65535"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = (!host.is_empty()).then(|| host.to_owned());
    Ok(Listen::Tcp { host, port, family: net::Family::Any })
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
        let variables = place.variables("a b", &Encryption::off());
        let socket = variables.unix_socket.unwrap();
        assert!(socket.exists());
        let mode = socket.parent().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        assert_eq!(variables.uri, format!("nbd+unix:///a%20b?socket={}", socket.display()));
        drop(place);
        assert!(!socket.parent().unwrap().exists());
    }

    #[test]
    fn places_are_written_as_people_write_them() {
        let tcp =
            |host: Option<&str>| Listen::Tcp { host: host.map(str::to_owned), port: 7, family: Family::Any };
        for (text, listen) in [
            (":7", tcp(None)),
            ("127.0.0.1:7", tcp(Some("127.0.0.1"))),
            ("[::1]:7", tcp(Some("::1"))),
            ("unix:/x y", Listen::Unix("/x y".into())),
            ("unix:-", Listen::PrivateUnix),
            ("vsock:7", Listen::Vsock { port: 7 }),
        ] {
            assert_eq!(parse(text).unwrap(), listen, "{text}");
        }
        for text in ["", "10809", "x:", "x:99999", "vsock:x"] {
            assert!(parse(text).unwrap_err().to_string().starts_with(&format!("{text}: not a ")), "{text}");
        }
    }

    #[test]
    fn several_places_are_served_at_once() {
        let tcp = Listen::Tcp { host: Some("127.0.0.1".into()), port: 0, family: Family::Any };
        let place = Place::open_all(&[Listen::PrivateUnix, tcp.clone(), tcp]).unwrap();
        assert_eq!(place.listeners.len(), 3);
        assert!(place.variables("", &Encryption::off()).unix_socket.is_some());
        assert!(Place::open_all(&[]).is_err());
    }

    #[test]
    fn a_port_is_told_by_its_real_number() {
        let listen = Listen::Tcp { host: Some("127.0.0.1".into()), port: 0, family: Family::Any };
        let variables = Place::open(&listen).unwrap().variables("", &Encryption::off());
        let port = variables.port.unwrap();
        assert_ne!(port, 0);
        assert_eq!(variables.uri, format!("nbd://localhost:{port}"));
    }
}
