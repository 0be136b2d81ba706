//! What stands here when the program is built without TLS: errors that name the feature.

use super::{CertificateWishes, ClientSettings, ServerSettings, TlsFacts};
use crate::{
    raw::{Readable, Writable},
    stream::{Kind, Wait},
};
use std::{convert::Infallible, io, path::Path};

fn absent() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this program was built without TLS: build it with the cargo feature `tls`",
    )
}

/// A server's side of TLS: never made.
#[derive(Clone, Debug)]
pub struct Server(Infallible);

impl Server {
    /// # Errors
    /// Always.
    pub fn new(_: &ServerSettings) -> io::Result<Server> {
        Err(absent())
    }

    pub(crate) fn handshake(&self, _: &Kind) -> io::Result<Session> {
        match self.0 {}
    }
}

/// A client's side of TLS: never made.
#[derive(Clone, Debug)]
pub struct Client(Infallible);

impl Client {
    /// # Errors
    /// Always.
    pub fn new(_: &ClientSettings) -> io::Result<Client> {
        Err(absent())
    }

    pub(crate) fn handshake(&self, _: &Kind, _: Option<&str>) -> io::Result<Session> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct Session(Infallible);

impl Session {
    pub(crate) fn facts(&self) -> &TlsFacts {
        match self.0 {}
    }

    pub(crate) fn recv(&self, _: &Kind, _: Writable<'_>, _: Wait) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn send(&self, _: &Kind, _: Readable<'_>, _: Wait) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn rest(&self) {
        match self.0 {}
    }

    pub(crate) fn say_goodbye(&self, _: &Kind) {
        match self.0 {}
    }
}

/// # Errors
/// Always.
pub fn make_certificates(_: &Path, _: &CertificateWishes) -> io::Result<Vec<std::path::PathBuf>> {
    Err(absent())
}

/// # Errors
/// Always.
pub fn make_key(_: &Path, _: &str) -> io::Result<std::path::PathBuf> {
    Err(absent())
}

/// # Errors
/// Always.
pub fn psk_users(_: &Path) -> io::Result<Vec<String>> {
    Err(absent())
}
