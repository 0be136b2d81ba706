//! TLS on a [`Stream`](crate::Stream): who may be trusted, with which keys, and the state of an encrypted stream.
//!
//! [`Server`] and [`Client`] are made once of their settings; [`Stream::accept_tls`](crate::Stream::accept_tls) and
//! [`Stream::begin_tls`](crate::Stream::begin_tls) then run a handshake, after which the stream works as before, only encrypted.
//! Everything of OpenSSL is in this directory and in the cargo feature `tls`; without it the same items exist, and making a
//! [`Server`] or a [`Client`] fails with an error that names the feature.

#[cfg(feature = "tls")]
mod context;
#[cfg(feature = "tls")]
mod keygen;
mod places;
#[cfg(feature = "tls")]
mod priority;
#[cfg(feature = "tls")]
mod psk;
#[cfg(feature = "tls")]
#[allow(unsafe_code)]
mod raw;
#[cfg(feature = "tls")]
mod reason;
#[cfg(feature = "tls")]
mod session;

#[cfg(not(feature = "tls"))]
mod absent;

#[cfg(not(feature = "tls"))]
pub(crate) use absent::Session;
#[cfg(not(feature = "tls"))]
pub use absent::{Client, Server, make_certificates, make_key, psk_users};
#[cfg(feature = "tls")]
pub use context::{Client, Server};
#[cfg(feature = "tls")]
pub use keygen::{make_certificates, make_key};
pub use places::{client_directory, default_user, server_directory, server_places};
#[cfg(feature = "tls")]
pub use psk::users as psk_users;
#[cfg(feature = "tls")]
pub(crate) use session::Session;

use std::{io, path::PathBuf};

/// Whether this program was built with TLS.
pub const BUILT: bool = cfg!(feature = "tls");

/// The authority's certificate, in a directory of certificates.
pub const CA_CERT: &str = "ca-cert.pem";
/// The authority's private key, which only the maker of certificates needs.
pub const CA_KEY: &str = "ca-key.pem";
/// What the authority has revoked; optional.
pub const CA_CRL: &str = "ca-crl.pem";
/// The server's certificate, and after it those between it and the authority, if any.
pub const SERVER_CERT: &str = "server-cert.pem";
/// The server's private key.
pub const SERVER_KEY: &str = "server-key.pem";
/// The client's certificate; optional.
pub const CLIENT_CERT: &str = "client-cert.pem";
/// The client's private key.
pub const CLIENT_KEY: &str = "client-key.pem";

/// How a server proves who it is, and who its clients are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// A directory with [`SERVER_CERT`], [`SERVER_KEY`], and for checking clients [`CA_CERT`] and perhaps [`CA_CRL`].
    Certificates(PathBuf),
    /// A file with a line `user:hexadecimal key` for every client. It is read again for every connection.
    Psk(PathBuf),
}

/// What a server needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its keys.
    pub keys: Keys,
    /// Demand a certificate of every client, signed by the authority in [`CA_CERT`] and not revoked in [`CA_CRL`].
    pub verify_peer: bool,
    /// Versions and ciphers, as a priority string of GnuTLS; `None`: all that are safe.
    pub priority: Option<String>,
}

/// What a client needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// A directory with [`CA_CERT`], perhaps [`CA_CRL`], and perhaps [`CLIENT_CERT`] and [`CLIENT_KEY`]. `None`: the first of the
    /// usual places that exists, else the authorities that the system trusts.
    pub certificates: Option<PathBuf>,
    /// A file with a line `user:hexadecimal key`. Used instead of certificates.
    pub psk_file: Option<PathBuf>,
    /// The user to be, with pre-shared keys; `None`: the one who is logged in.
    pub user: Option<String>,
    /// The name or address that the server's certificate must have; `None`: that of the host connected to.
    pub hostname: Option<String>,
    /// Check the server's certificate. Without, anybody may be the server.
    pub verify_peer: bool,
    /// Versions and ciphers, as a priority string of GnuTLS; `None`: all that are safe.
    pub priority: Option<String>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientSettings {
            certificates: None,
            psk_file: None,
            user: None,
            hostname: None,
            verify_peer: true,
            priority: None,
        }
    }
}

/// What is known of an encrypted stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher: &'static str,
    /// The other end, if it has proved who it is: the subject of its certificate, or the user of its key.
    pub peer: Option<String>,
    /// Who signed the other end's certificate, if it has proved itself by one.
    pub issuer: Option<String>,
}

/// Which certificates to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateWishes {
    /// Names and addresses of the server, the main one first.
    pub names: Vec<String>,
    /// The name in the client's certificate.
    pub user: String,
    /// How long they are valid, in days from now.
    pub days: u32,
}

#[cfg_attr(not(feature = "tls"), allow(dead_code))]
fn unreadable(file: &std::path::Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {}", file.display(), crate::reason(e)))
}
