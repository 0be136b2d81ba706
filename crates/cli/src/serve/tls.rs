//! `--tls` and its kin: which keys the server has, and whether clients may or must use them.

use super::messages::Messages;
use super::options::BadUsage;
use anyhow::{Result, anyhow};
use net::tls::{self, Keys, ServerSettings};
use params::Value;
use proto::handshake::Tls;
use proto::uri::Uri;
use std::path::{Path, PathBuf};

/// What was typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    /// `None`: on if there are keys, else off.
    pub(crate) when: Option<Tls>,
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) psk: Option<PathBuf>,
    pub(crate) verify_peer: bool,
    pub(crate) priority: Option<String>,
}

impl TlsOptions {
    fn says_nothing(&self) -> bool {
        *self == TlsOptions::default()
    }
}

/// The value of `--tls`.
pub(crate) fn when(text: &str) -> Result<Tls, BadUsage> {
    if text == "require" {
        return Ok(Tls::Require);
    }
    match bool::from_text(text) {
        Ok(true) => Ok(Tls::Allow),
        Ok(false) => Ok(Tls::Off),
        Err(_) => Err(BadUsage(format!("--tls={text}: not one of off, on and require"))),
    }
}

/// What comes of it.
#[derive(Clone)]
pub(crate) struct Encryption {
    pub(crate) policy: Tls,
    pub(crate) server: Option<tls::Server>,
    keys: Option<Keys>,
}

impl Encryption {
    /// None.
    pub(crate) fn off() -> Encryption {
        Encryption { policy: Tls::Off, server: None, keys: None }
    }

    /// Reads the keys. Clients that must use TLS cannot be served without; those that may, can, after a warning.
    pub(crate) fn set_up(options: &TlsOptions, messages: &Messages) -> Result<Encryption> {
        if options.when == Some(Tls::Off) {
            return Ok(Encryption::off());
        }
        let keys = match (&options.psk, &options.certificates) {
            (Some(file), _) => Some(Keys::Psk(std::path::absolute(file)?)),
            (None, Some(dir)) => Some(Keys::Certificates(std::path::absolute(dir)?)),
            (None, None) if tls::BUILT => tls::server_directory().map(Keys::Certificates),
            (None, None) => None,
        };
        if keys.is_none() && options.says_nothing() {
            return Ok(Encryption::off());
        }
        let made = match &keys {
            Some(keys) => make(options, keys, messages),
            None if !tls::BUILT => {
                Err(anyhow!("this program was built without TLS: build it with the cargo feature `tls`"))
            }
            None => {
                let places: Vec<_> =
                    tls::server_places().iter().map(|dir| dir.display().to_string()).collect();
                Err(anyhow!(
                    "there are no certificates in {}: --tls-certificates names another place, --tls-psk a file of \
                     keys, and diskpipe keygen makes both",
                    places.join(" or ")
                ))
            }
        };
        match made {
            Ok(server) => {
                let policy = options.when.unwrap_or(Tls::Allow);
                Ok(Encryption { policy, server: Some(server), keys })
            }
            Err(error) if options.when == Some(Tls::Require) => Err(error.context("--tls=require")),
            // Who names a file of keys wants no server without.
            Err(error) if options.psk.is_some() => Err(error.context("--tls-psk")),
            Err(error) => {
                let asked = [
                    ("--tls=on", options.when.is_some()),
                    ("--tls-certificates", options.certificates.is_some()),
                    ("--tls-verify-peer", options.verify_peer),
                    ("--tls-priority", options.priority.is_some()),
                    ("TLS", keys.is_some()),
                ];
                if let Some((option, _)) = asked.iter().find(|(_, given)| *given) {
                    messages.warn(&format!("{option}: {error:#}; clients that want TLS will be refused"));
                }
                Ok(Encryption::off())
            }
        }
    }

    /// `$tls`.
    pub(crate) fn variable(&self) -> Option<u8> {
        match self.policy {
            Tls::Off => None,
            Tls::Allow => Some(1),
            Tls::Require => Some(2),
        }
    }

    /// What clients need to know, where they must use TLS.
    pub(crate) fn complete(&self, uri: &mut Uri) {
        if self.policy != Tls::Require {
            return;
        }
        uri.tls = true;
        match &self.keys {
            Some(Keys::Certificates(dir)) => uri.tls_certificates = Some(dir.clone()),
            Some(Keys::Psk(file)) => {
                uri.user = first_user(file);
                uri.tls_psk_file = Some(file.clone());
            }
            None => {}
        }
    }
}

fn make(options: &TlsOptions, keys: &Keys, messages: &Messages) -> Result<tls::Server> {
    let is_psk = matches!(keys, Keys::Psk(_));
    if is_psk && options.verify_peer {
        messages.warn("--tls-verify-peer: clients with pre-shared keys have no certificates");
    }
    let settings = ServerSettings {
        keys: keys.clone(),
        verify_peer: options.verify_peer && !is_psk,
        priority: options.priority.clone(),
    };
    Ok(tls::Server::new(&settings)?)
}

fn first_user(file: &Path) -> Option<String> {
    tls::psk_users(file).ok()?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_a_word_or_a_boolean() {
        for (text, policy) in
            [("off", Tls::Off), ("0", Tls::Off), ("on", Tls::Allow), ("require", Tls::Require)]
        {
            assert_eq!(when(text), Ok(policy));
        }
        assert_eq!(when("maybe").unwrap_err().0, "--tls=maybe: not one of off, on and require");
    }

    #[test]
    fn where_clients_must_use_tls_the_uri_has_what_they_need() {
        let address = || proto::uri::Address::Unix("/s".into());
        let said = |policy, keys| {
            let mut uri = Uri::new(address());
            Encryption { policy, server: None, keys: Some(keys) }.complete(&mut uri);
            uri.to_string()
        };
        let certificates = || Keys::Certificates("/c".into());
        assert_eq!(said(Tls::Allow, certificates()), "nbd+unix://?socket=/s");
        assert_eq!(said(Tls::Require, certificates()), "nbds+unix://?socket=/s&tls-certificates=/c");
        if tls::BUILT {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("k");
            std::fs::write(&file, "bob:00\nalice:11\n").unwrap();
            let expected = format!("nbds+unix://bob@?socket=/s&tls-psk-file={}", file.display());
            assert_eq!(said(Tls::Require, Keys::Psk(file)), expected);
        }
    }
}
