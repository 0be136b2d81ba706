//! What a client is known by, and the name of the file that belongs to it.

use disk::{Client, Error, Result, backend::Peer};
use params::Choice;

/// What has an overlay of its own.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// An export.
    Export,
    /// A client by its address.
    Address,
    /// A client by whom its certificate names.
    Certificate,
}

impl Key {
    /// What this client is known by; different for different overlays.
    pub(super) fn of(self, client: &Client<'_>, export: &str) -> Result<String> {
        let who = match self {
            Key::Export => return Ok(export.to_owned()),
            Key::Address => match &client.peer {
                // Connections differ by their ports; IPv4 is the same however it is written.
                Peer::Ip(address) => address.ip().to_canonical().to_string(),
                Peer::Unix { uid: Some(uid), .. } => format!("uid-{uid}"),
                Peer::Vsock { cid, .. } => format!("cid-{cid}"),
                _ => return Err(Error::invalid("cow-key=address: this client has none")),
            },
            Key::Certificate => match &client.certificate {
                Some(certificate) => certificate.subject.clone(),
                None => return Err(Error::invalid("cow-key=certificate: this client has none")),
            },
        };
        // Nothing of `who` is a slash, once both are escaped.
        Ok(if export.is_empty() { who } else { format!("{who}/{export}") })
    }
}

/// The longest name, without the ending.
const LONGEST: usize = 240;

/// The name of the file for a key: one for each key, and never one that leads elsewhere. Letters, digits, `_`, `-`, and
/// dots but the first, are themselves; other bytes are `%` and two digits.
pub(super) fn file_name(key: &str) -> Result<String> {
    let mut name = String::with_capacity(key.len() + 4);
    for (i, byte) in key.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte.into()),
            b'.' if i > 0 => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.is_empty() {
        // No other key has this: behind a sign of percent are two digits.
        name.push_str("%default");
    }
    if name.len() > LONGEST {
        return Err(Error::invalid(format!("a name of {} bytes is too long for a file", name.len())));
    }
    Ok(name + ".cow")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_legible_where_they_can_be() {
        for (key, name) in [
            ("vm17", "vm17.cow"),
            ("", "%default.cow"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.cow"),
            ("..", "%2E..cow"),
            ("a b%", "a%20b%25.cow"),
            ("fe80::1", "fe80%3A%3A1.cow"),
            ("é", "%C3%A9.cow"),
        ] {
            assert_eq!(file_name(key).unwrap(), name);
        }
        assert!(file_name(&"x".repeat(4096)).is_err());
    }

    proptest! {
        #[test]
        fn different_keys_have_different_names_in_the_directory(a in ".{0,60}", b in ".{0,60}") {
            if let (Ok(one), Ok(other)) = (file_name(&a), file_name(&b)) {
                prop_assert_eq!(one == other, a == b);
                let path = std::path::Path::new(&one);
                prop_assert_eq!(path.file_name(), Some(path.as_os_str()));
                prop_assert!(!one.starts_with('.') && !one.contains(['/', '\0']));
            }
        }
    }

    #[test]
    fn clients_are_known_by_address_and_export() {
        let at = |address: &str| Client { peer: Peer::Ip(address.parse().unwrap()), ..Client::default() };
        let key = |client: &Client<'_>, export: &str| Key::Address.of(client, export).unwrap();
        assert_eq!(key(&at("10.0.0.1:999"), ""), "10.0.0.1");
        assert_eq!(key(&at("[::ffff:10.0.0.1]:5"), "disk"), "10.0.0.1/disk");
        let unix =
            Client { peer: Peer::Unix { pid: Some(7), uid: Some(1000), gid: None }, ..Client::default() };
        assert_eq!(key(&unix, ""), "uid-1000");
        assert!(Key::Address.of(&Client::default(), "").is_err());
        assert!(Key::Certificate.of(&unix, "").is_err());
        assert_eq!(Key::Export.of(&unix, "x/y").unwrap(), "x/y");
    }
}
