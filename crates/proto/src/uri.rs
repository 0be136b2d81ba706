//! NBD URIs (`doc/uri.md` of the specification): `nbd://host:port/export`, `nbd+unix:///export?socket=PATH`,
//! `nbd+vsock://cid:port/export`, and with TLS `nbds`, `nbds+unix`, `nbds+vsock`. Beyond the specification, as libnbd has it:
//! `nbd+ssh://user@host:port/export?nbd-port=PORT` and `?socket=PATH`, by way of ssh.

mod percent;

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::limits::{PORT, STRING_MAX};

/// Where a server is, which of its exports is meant, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    /// Whether TLS is required (`nbds`). Without it TLS may still be used where the server offers it.
    pub tls: bool,
    /// Where the server listens.
    pub address: Address,
    /// The export's name; empty for the default export.
    pub export: String,
    /// The name before `@`: the identity for TLS with pre-shared keys.
    pub user: Option<String>,
    /// `tls-certificates`: the directory of certificates and keys.
    pub tls_certificates: Option<PathBuf>,
    /// `tls-psk-file`: the file of pre-shared keys.
    pub tls_psk_file: Option<PathBuf>,
    /// `tls-hostname`: the name to expect in the server's certificate.
    pub tls_hostname: Option<String>,
    /// `tls-verify-peer`: whether to check the server's certificate; by default it is.
    pub tls_verify_peer: Option<bool>,
    /// `tls-priority`: versions and ciphers, as a priority string of GnuTLS.
    pub tls_priority: Option<String>,
    /// `tls-type`: the kind of authentication.
    pub tls_type: Option<TlsType>,
    /// The names of query parameters that have no meaning here, for a warning. Those that begin with `x-` are experiments
    /// by convention and are passed over.
    pub ignored: Vec<String>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket. A path that begins with a NUL byte names one in Linux's abstract namespace.
    Unix(PathBuf),
    /// A socket between a virtual machine and its host.
    Vsock {
        /// The context id; 2 is the host.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A server that a host reaches, to which ssh leads.
    Ssh {
        /// The host, as ssh takes it; it begins with no dash.
        host: String,
        /// The port of ssh, if it is said.
        port: Option<u16>,
        /// `compress`: whether ssh compresses.
        compress: bool,
        /// Where the server listens on that host.
        at: Remote,
    },
}

/// Where a server listens on a host that ssh leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Remote {
    /// `nbd-port`: a port of its loopback address.
    Port(u16),
    /// `socket`: a Unix domain socket.
    Socket(PathBuf),
}

/// A kind of TLS authentication, as `tls-type` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsType {
    /// None.
    Anon,
    /// Certificates.
    X509,
    /// Pre-shared keys.
    Psk,
}

impl TlsType {
    const NAMES: [(&'static str, TlsType); 3] =
        [("anon", TlsType::Anon), ("x509", TlsType::X509), ("psk", TlsType::Psk)];
}

/// A text that is not an NBD URI, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriError {
    uri: String,
    why: String,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.uri, self.why)
    }
}

impl std::error::Error for UriError {}

/// The context id of the host, seen from a virtual machine.
const VSOCK_HOST: u32 = 2;

const SCHEMES: [(&str, bool, Transport); 8] = [
    ("nbd", false, Transport::Tcp),
    ("nbds", true, Transport::Tcp),
    ("nbd+unix", false, Transport::Unix),
    ("nbds+unix", true, Transport::Unix),
    ("nbd+vsock", false, Transport::Vsock),
    ("nbds+vsock", true, Transport::Vsock),
    ("nbd+ssh", false, Transport::Ssh),
    ("nbds+ssh", true, Transport::Ssh),
];

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Tcp,
    Unix,
    Vsock,
    Ssh,
}

impl Uri {
    /// The default export of the server at `address`, without TLS.
    pub fn new(address: Address) -> Uri {
        Uri {
            tls: false,
            address,
            export: String::new(),
            user: None,
            tls_certificates: None,
            tls_psk_file: None,
            tls_hostname: None,
            tls_verify_peer: None,
            tls_priority: None,
            tls_type: None,
            ignored: Vec::new(),
        }
    }

    /// Whether `text` begins like an NBD URI, so that it is meant as one and not as a file's name.
    pub fn is_meant(text: &str) -> bool {
        text.split_once(':').is_some_and(|(scheme, _)| find_scheme(scheme).is_some())
    }

    /// The URI with a path even for the default export, as `nbdinfo` prints it: `nbd://localhost:10809/`. The `Display`
    /// form leaves the slash out there, as `nbdkit` does in `$uri`.
    pub fn with_slash(&self) -> String {
        self.text(true)
    }

    fn text(&self, slash: bool) -> String {
        let mut out = String::from(if self.tls { "nbds" } else { "nbd" });
        out += match self.address {
            Address::Tcp { .. } => "://",
            Address::Unix(_) => "+unix://",
            Address::Vsock { .. } => "+vsock://",
            Address::Ssh { .. } => "+ssh://",
        };
        if let Some(user) = &self.user {
            percent::encode_into(&mut out, user.as_bytes(), "");
            out.push('@');
        }
        match &self.address {
            Address::Tcp { host, port } if host.contains(':') => out += &format!("[{host}]:{port}"),
            Address::Tcp { host, port } => {
                percent::encode_into(&mut out, host.as_bytes(), "");
                out += &format!(":{port}");
            }
            Address::Unix(_) => {}
            Address::Ssh { host, port, .. } => {
                match host.contains(':') {
                    true => out += &format!("[{host}]"),
                    false => percent::encode_into(&mut out, host.as_bytes(), ""),
                }
                if let Some(port) = port {
                    out += &format!(":{port}");
                }
            }
            Address::Vsock { cid, port } => out += &format!("{cid}:{port}"),
        }
        if slash || !self.export.is_empty() || matches!(self.address, Address::Vsock { .. }) {
            out.push('/');
            percent::encode_into(&mut out, self.export.as_bytes(), "/");
        }
        let mut query = Query { out, separator: '?' };
        if let Address::Unix(path) = &self.address {
            query.put("socket", percent::path_bytes(path));
        }
        if let Address::Ssh { at, compress, .. } = &self.address {
            match at {
                Remote::Port(PORT) => {}
                Remote::Port(port) => query.put("nbd-port", port.to_string()),
                Remote::Socket(path) => query.put("socket", percent::path_bytes(path)),
            }
            if *compress {
                query.put("compress", "1");
            }
        }
        if let Some(dir) = &self.tls_certificates {
            query.put("tls-certificates", percent::path_bytes(dir));
        }
        if let Some(file) = &self.tls_psk_file {
            query.put("tls-psk-file", percent::path_bytes(file));
        }
        if let Some(name) = &self.tls_hostname {
            query.put("tls-hostname", name.as_bytes());
        }
        if let Some(verify) = self.tls_verify_peer {
            query.put("tls-verify-peer", if verify { b"1" } else { b"0" });
        }
        if let Some(priority) = &self.tls_priority {
            query.put("tls-priority", priority.as_bytes());
        }
        if let Some((name, _)) = TlsType::NAMES.iter().find(|(_, kind)| Some(*kind) == self.tls_type) {
            query.put("tls-type", name.as_bytes());
        }
        query.out
    }

    fn parse(text: &str) -> Result<Uri, String> {
        let (scheme, rest) = text
            .split_once(':')
            .ok_or("not an NBD URI such as nbd://localhost/ or nbd+unix:///?socket=/tmp/sock")?;
        let (tls, transport) = find_scheme(scheme)
            .ok_or_else(|| format!("unknown scheme “{scheme}”: nbd, nbds, nbd+unix, nbds+unix, nbd+vsock, nbds+vsock, nbd+ssh and nbds+ssh are known"))?;
        let rest = rest
            .strip_prefix("//")
            .ok_or_else(|| format!("“{scheme}:” must be followed by “//”, as in {scheme}://localhost/"))?;
        if rest.contains('#') {
            return Err("a fragment has no meaning in an NBD URI; write a “#” in a name as %23".into());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(percent::decode_text(user, "user name")?), place),
            None => (None, authority),
        };
        let export = percent::decode_text(path, "export name")?;
        if export.len() > STRING_MAX {
            return Err(format!(
                "the export name has {} bytes, and {STRING_MAX} are the limit",
                export.len()
            ));
        }
        let mut uri = Uri::new(match transport {
            Transport::Tcp => parse_tcp(place)?,
            Transport::Vsock => parse_vsock(place)?,
            // A host would say nothing: it is ignored, as other clients do.
            Transport::Unix => Address::Unix(PathBuf::new()),
            Transport::Ssh => parse_ssh(place)?,
        });
        (uri.tls, uri.export, uri.user) = (tls, export, user.filter(|user| !user.is_empty()));
        let socket = uri.read_query(query)?;
        match (&mut uri.address, socket) {
            (Address::Unix(path), Some(socket)) => *path = socket,
            (Address::Ssh { at, .. }, Some(socket)) => *at = Remote::Socket(socket),
            (Address::Unix(_), None) => {
                return Err(format!("{scheme} needs a socket, as in {scheme}:///?socket=/tmp/sock"));
            }
            (_, Some(_)) => {
                return Err(format!(
                    "a socket goes with nbd+unix, nbds+unix, nbd+ssh and nbds+ssh, not with {scheme}"
                ));
            }
            (_, None) => {}
        }
        Ok(uri)
    }

    /// Reads the query parameters; the value of `socket` is returned.
    fn read_query(&mut self, query: &str) -> Result<Option<PathBuf>, String> {
        let mut socket = None;
        for parameter in query.split(['&', ';']).filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let key = percent::decode_text(key, "parameter name")?.to_ascii_lowercase();
            match key.as_str() {
                "socket" => socket = Some(percent::decode_path(value, &key)?),
                "tls-certificates" => self.tls_certificates = Some(percent::decode_path(value, &key)?),
                "tls-psk-file" => self.tls_psk_file = Some(percent::decode_path(value, &key)?),
                "tls-hostname" => self.tls_hostname = Some(percent::decode_text(value, &key)?),
                "tls-priority" => self.tls_priority = Some(percent::decode_text(value, &key)?),
                "tls-verify-peer" => self.tls_verify_peer = Some(parse_truth(&key, value)?),
                "nbd-port" if let Address::Ssh { at, .. } = &mut self.address => {
                    *at = Remote::Port(parse_number(value, PORT, "port number such as 10809")?);
                }
                "compress" if let Address::Ssh { compress, .. } = &mut self.address => {
                    *compress = parse_truth(&key, value)?;
                }
                "tls-type" => {
                    let kind = TlsType::NAMES.iter().find(|(name, _)| *name == value).map(|(_, kind)| *kind);
                    self.tls_type =
                        Some(kind.ok_or_else(|| format!("tls-type={value}: not anon, x509 or psk"))?);
                }
                key if key.starts_with("x-") => {}
                _ => self.ignored.push(key),
            }
        }
        if socket.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err("the socket parameter is empty".into());
        }
        Ok(socket)
    }
}

/// Appends query parameters.
struct Query {
    out: String,
    separator: char,
}

impl Query {
    fn put(&mut self, key: &str, value: impl AsRef<[u8]>) {
        self.out.push(self.separator);
        self.separator = '&';
        self.out += key;
        self.out.push('=');
        percent::encode_into(&mut self.out, value.as_ref(), "/");
    }
}

fn find_scheme(scheme: &str) -> Option<(bool, Transport)> {
    let known = SCHEMES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme));
    known.map(|(_, tls, transport)| (*tls, *transport))
}

fn parse_tcp(place: &str) -> Result<Address, String> {
    let (host, port) = parse_host(place)?;
    Ok(Address::Tcp { host, port: port.unwrap_or(PORT) })
}

/// A host, which may be an IPv6 address in brackets, and maybe a port behind it.
fn parse_host(place: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("an IPv6 address lacks its closing bracket")?;
            // A zone (`fe80::1%eth0`, written %25eth0) is the resolver's business.
            let host = percent::decode_text(host, "host")?;
            let bare = host.split('%').next().unwrap_or_default();
            if bare.parse::<Ipv6Addr>().is_err() {
                return Err(format!("“{host}” is not an IPv6 address"));
            }
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => {
            let (host, port) = place.split_once(':').unwrap_or((place, ""));
            if port.contains(':') {
                return Err(format!(
                    "an IPv6 address stands in brackets, as in nbd://[::1]/; “{place}” does not"
                ));
            }
            (percent::decode_text(host, "host")?, Some(port))
        }
    };
    let port = port.ok_or("only a port may follow an IPv6 address")?;
    let host = if host.is_empty() { "localhost".into() } else { host };
    let number = || parse_number(port, PORT, "port number such as 10809");
    Ok((host, if port.is_empty() { None } else { Some(number()?) }))
}

/// The host, and maybe the port of ssh.
fn parse_ssh(place: &str) -> Result<Address, String> {
    let (host, port) = parse_host(place)?;
    // ssh would take it for an option.
    if host.starts_with('-') {
        return Err(format!("“{host}” is not a host: it begins with a dash"));
    }
    Ok(Address::Ssh { host, port, compress: false, at: Remote::Port(PORT) })
}

fn parse_truth(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("{key}={value}: neither 0 nor 1")),
    }
}

fn parse_vsock(place: &str) -> Result<Address, String> {
    let (cid, port) = place.split_once(':').unwrap_or((place, ""));
    Ok(Address::Vsock {
        cid: parse_number(cid, VSOCK_HOST, "vsock context id such as 2")?,
        port: parse_number(port, PORT.into(), "port number such as 10809")?,
    })
}

fn parse_number<N: FromStr>(text: &str, default: N, what: &str) -> Result<N, String> {
    match text {
        "" => Ok(default),
        // `parse` alone would take a plus sign.
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => Err(format!("“{text}” is not a {what}")),
        _ => text.parse().map_err(|_| format!("“{text}” is not a {what}")),
    }
}

impl FromStr for Uri {
    type Err = UriError;

    /// # Errors
    /// A sentence that begins with the URI and says what is wrong with it.
    fn from_str(text: &str) -> Result<Uri, UriError> {
        Uri::parse(text).map_err(|why| UriError { uri: text.to_owned(), why })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(false))
    }
}

#[cfg(test)]
mod tests;
