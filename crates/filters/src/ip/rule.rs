//! The words that say who is meant.

use disk::{Client, Peer};
use params::{Kind, Value, Wrong};
use std::net::IpAddr;

/// Rules with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(pub(super) Vec<Rule>);

/// Whom a word means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Any,
    AnyIpv4,
    AnyIpv6,
    Loopback,
    AnyUnix,
    AnyVsock,
    /// An address and how many of its first bits count.
    Network(IpAddr, u32),
    Pid(u32),
    Uid(u32),
    Gid(u32),
    VsockCid(u32),
    VsockPort(u32),
    Security(String),
    Subject(String),
    Issuer(String),
}

impl Value for Rules {
    const KIND: Kind = Kind::Other("WHO[,WHO...]");

    fn from_text(text: &str) -> Result<Rules, Wrong> {
        if text.is_empty() {
            return Ok(Rules::default());
        }
        // Distinguished names and labels have commas of their own: a rule goes on until the next word that is one.
        let mut rules: Vec<Rule> = Vec::new();
        for word in text.strip_suffix(',').unwrap_or(text).split(',') {
            match (rules.last_mut(), Rule::from_word(word)) {
                (_, Ok(rule)) => rules.push(rule),
                (Some(Rule::Subject(name) | Rule::Issuer(name) | Rule::Security(name)), Err(_)) => {
                    name.push(',');
                    name.push_str(word);
                }
                (_, Err(wrong)) => return Err(wrong),
            }
        }
        Ok(Rules(rules))
    }
}

impl Rule {
    fn from_word(word: &str) -> Result<Rule, Wrong> {
        let number = |text: &str| {
            u32::from_text(text).map_err(|wrong| Wrong(format!("in '{word}', '{text}' is {}", wrong.0)))
        };
        let known = match word.to_ascii_lowercase().as_str() {
            "all" | "any" => Some(Rule::Any),
            "allipv4" | "anyipv4" => Some(Rule::AnyIpv4),
            "allipv6" | "anyipv6" => Some(Rule::AnyIpv6),
            "loopback" | "allloopback" | "anyloopback" => Some(Rule::Loopback),
            "allunix" | "anyunix" => Some(Rule::AnyUnix),
            "allvsock" | "anyvsock" => Some(Rule::AnyVsock),
            _ => None,
        };
        if let Some(rule) = known {
            return Ok(rule);
        }
        Ok(match word.split_once(':') {
            Some(("pid", n)) => Rule::Pid(number(n)?),
            Some(("uid", n)) => Rule::Uid(number(n)?),
            Some(("gid", n)) => Rule::Gid(number(n)?),
            Some(("vsock-cid", n)) => Rule::VsockCid(number(n)?),
            Some(("vsock-port", n)) => Rule::VsockPort(number(n)?),
            Some(("security", label)) => Rule::Security(label.to_owned()),
            Some(("dn", name)) => Rule::Subject(name.to_owned()),
            Some(("issuer-dn", name)) => Rule::Issuer(name.to_owned()),
            _ => return Rule::network(word),
        })
    }

    /// `ADDRESS` or `ADDRESS/BITS`.
    fn network(word: &str) -> Result<Rule, Wrong> {
        let (address, bits) = match word.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (word, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(Wrong(format!(
                "'{word}' is neither an address nor a word such as any, uid:1000 or 10.0.0.0/8"
            )));
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits.map(|bits| (bits, bits.parse::<u32>())) {
            None => most,
            Some((_, Ok(bits))) if bits <= most => bits,
            Some((bits, _)) => {
                return Err(Wrong(format!("in '{word}', '{bits}' is not a number from 0 to {most}")));
            }
        };
        Ok(Rule::Network(address, bits))
    }

    /// Whether it speaks of what only TLS tells.
    pub(super) fn needs_tls(&self) -> bool {
        matches!(self, Rule::Subject(_) | Rule::Issuer(_))
    }

    /// Whether the client is meant.
    pub(super) fn matches(&self, client: &Client<'_>) -> bool {
        // IPv4 addresses reach a socket for both families as IPv6 ones.
        let ip = match &client.peer {
            Peer::Ip(address) => Some(address.ip().to_canonical()),
            _ => None,
        };
        let (pid, uid, gid) = match client.peer {
            Peer::Unix { pid, uid, gid } => (pid, uid, gid),
            _ => (None, None, None),
        };
        let vsock = match client.peer {
            Peer::Vsock { cid, port } => Some((cid, port)),
            _ => None,
        };
        let is = |own: Option<u32>, wanted: u32| own == Some(wanted);
        let name = |own: Option<&str>, wanted: &str| own.is_some_and(|own| same_name(own, wanted));
        let certificate = client.certificate.as_deref();
        match self {
            Rule::Any => true,
            Rule::AnyIpv4 => ip.is_some_and(|ip| ip.is_ipv4()),
            Rule::AnyIpv6 => ip.is_some_and(|ip| ip.is_ipv6()),
            Rule::Loopback => ip.is_some_and(|ip| ip.is_loopback()),
            Rule::AnyUnix => matches!(client.peer, Peer::Unix { .. }),
            Rule::AnyVsock => vsock.is_some(),
            Rule::Network(network, bits) => {
                ip.is_some_and(|ip| lies_in(ip, network.to_canonical(), *network, *bits))
            }
            Rule::Pid(n) => is(pid, *n),
            Rule::Uid(n) => is(uid, *n),
            Rule::Gid(n) => is(gid, *n),
            Rule::VsockCid(n) => is(vsock.map(|(cid, _)| cid), *n),
            Rule::VsockPort(n) => is(vsock.map(|(_, port)| port), *n),
            Rule::Security(label) => client.label.as_deref() == Some(label),
            Rule::Subject(wanted) => name(certificate.map(|c| c.subject.as_str()), wanted),
            Rule::Issuer(wanted) => name(certificate.map(|c| c.issuer.as_str()), wanted),
        }
    }
}

/// `network` as it was written, and `canonical` as what it means when it is an IPv4 address within IPv6.
fn lies_in(ip: IpAddr, canonical: IpAddr, network: IpAddr, bits: u32) -> bool {
    let bits = if canonical.is_ipv4() && network.is_ipv6() { bits.saturating_sub(96) } else { bits };
    match (ip, canonical) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (ip.to_bits() ^ network.to_bits()) & mask == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (ip.to_bits() ^ network.to_bits()) & mask == 0
        }
        _ => false,
    }
}

/// Distinguished names are written from either end: `C=GB,CN=alice` and `CN=alice,C=GB` are one.
fn same_name(own: &str, wanted: &str) -> bool {
    let own = || own.split(',').map(str::trim);
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
    own().eq(wanted.iter().copied()) || own().eq(wanted.iter().rev().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::Certificate;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn names(text: &str, client: &Client<'_>) -> bool {
        Rules::from_text(text).unwrap().0.iter().any(|rule| rule.matches(client))
    }

    fn ip(address: &str) -> Client<'static> {
        let ip: IpAddr = address.parse().unwrap();
        Client { peer: Peer::Ip((ip, 1).into()), ..Client::default() }
    }

    #[test]
    fn addresses_and_networks_are_matched_bit_by_bit() {
        for (rule, address, expected) in [
            ("192.168.2.0/24", "192.168.2.255", true),
            ("192.168.2.0/24", "192.168.3.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::/0", "::1", true),
            ("::/0", "1.2.3.4", false),
            ("fe80::/10", "febf::1", true),
            ("fe80::/10", "fec0::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("anyipv4", "::1", false),
            ("allipv6", "::1", true),
            ("loopback", "127.9.9.9", true),
        ] {
            assert_eq!(names(rule, &ip(address)), expected, "{rule} {address}");
        }
    }

    #[test]
    fn other_sources_are_matched_by_their_numbers() {
        let unix = Peer::Unix { pid: Some(7), uid: Some(1000), gid: Some(100) };
        let unix = Client { peer: unix, label: Some("a_u:b_r:c_t:s0".into()), ..Client::default() };
        let vsock = Client { peer: Peer::Vsock { cid: 3, port: 99 }, ..Client::default() };
        for rule in ["anyunix", "pid:7", "uid:1000", "gid:100", "security:a_u:b_r:c_t:s0", "uid:1,gid:100"] {
            assert!(names(rule, &unix) && !names(rule, &vsock), "{rule}");
        }
        for rule in ["allvsock", "vsock-cid:3", "vsock-port:99"] {
            assert!(names(rule, &vsock) && !names(rule, &unix), "{rule}");
        }
        assert!(!names("pid:8,uid:0,gid:0,anyipv4,127.0.0.1", &unix));
    }

    #[test]
    fn distinguished_names_have_commas_and_two_ends() {
        let certificate = Certificate { subject: "C=GB,O=Example,CN=alice".into(), issuer: "CN=ca".into() };
        let client = Client { certificate: Some(Arc::new(certificate)), ..Client::default() };
        assert!(names("dn:CN=alice,O=Example,C=GB", &client));
        assert!(names("1.2.3.4,dn:C=GB,O=Example,CN=alice,uid:5", &client));
        assert!(!names("dn:CN=alice", &client) && names("issuer-dn:CN=ca", &client));
    }

    #[test]
    fn what_is_no_rule_is_told() {
        let why = |text: &str| Rules::from_text(text).unwrap_err().0;
        assert!(why("localhost").starts_with("'localhost' is neither an address"));
        assert_eq!(why("10.0.0.0/33"), "in '10.0.0.0/33', '33' is not a number from 0 to 32");
        assert_eq!(why("uid:me"), "in 'uid:me', 'me' is not a whole number such as 10, 0xa or 012");
        assert!(why("any,,any").starts_with("''"));
    }

    proptest! {
        #[test]
        fn any_text_is_rules_or_an_error(text in "[a-f0-9:./,=any-]{0,40}", address in any::<u128>()) {
            if let Ok(rules) = Rules::from_text(&text) {
                let client = Client { peer: Peer::Ip((std::net::Ipv6Addr::from_bits(address), 1).into()), ..Client::default() };
                let _ = rules.0.iter().any(|rule| rule.matches(&client));
            }
        }
    }
}
