//! `ip`: who may connect, by where clients come from and who they are.

mod rule;

use disk::{Backend, Certificate, Client, Disk, Errno, Error, Filter, Io, Peer, Result};
use params::{Params, Value};
use rule::{Rule, Rules};
use std::{net::IpAddr, sync::Arc};

/// Choose who may connect.
#[derive(Params)]
pub(crate) struct Ip {
    /// Who may connect, whatever `deny` says: any of the words below, with commas between them.
    #[param(default = "", placeholder = "WHO[,WHO...]")]
    allow: Rules,
    /// Who may not, unless `allow` names them.
    #[param(default = "", placeholder = "WHO[,WHO...]")]
    deny: Rules,
}

impl Filter for Ip {
    const NAME: &'static str = "ip";
    const MANUAL: &'static str = include_str!("ip.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let late = self.allow.0.iter().chain(&self.deny.0).any(Rule::needs_tls);
        Ok(Doorkeeper { allow: self.allow.0, deny: self.deny.0, late, next })
    }
}

/// See [`crate::try_list`]: the rules are held against clients of all kinds.
pub(crate) fn try_rules(text: &str) {
    let Ok(Rules(rules)) = Rules::from_text(text) else { return };
    let addresses = ["10.1.2.3", "::ffff:10.1.2.3", "fe80::1"]
        .map(|ip| Peer::Ip((ip.parse::<IpAddr>().expect("an address"), 1).into()));
    let (pid, uid, gid) = (Some(1), Some(0), None);
    let others = [Peer::Unknown, Peer::Unix { pid, uid, gid }, Peer::Vsock { cid: 2, port: 3 }];
    for peer in addresses.into_iter().chain(others) {
        let label = Some("system_u:object_r:x_t:s0".into());
        let certificate =
            Some(Arc::new(Certificate { subject: "C=GB,CN=alice".into(), issuer: "CN=us".into() }));
        let client = Client { peer, label, certificate, ..Client::default() };
        for rule in &rules {
            assert!(rule.matches(&client) || *rule != Rule::Any);
        }
    }
}

struct Doorkeeper {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    /// Only when an export is opened is known who clients are.
    late: bool,
    next: Arc<dyn Backend>,
}

impl Doorkeeper {
    fn decide(&self, client: &Client<'_>) -> Result<()> {
        let named = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(client));
        if !named(&self.allow) && named(&self.deny) {
            return Err(Error::new(Errno::PERM, "this client may not connect (filter ip)"));
        }
        Ok(())
    }
}

impl Backend for Doorkeeper {
    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        if !self.late
            && let Err(e) = self.decide(client)
        {
            return e.into();
        }
        self.next.preconnect(client)
    }
    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<disk::Export>> {
        if self.late
            && let Err(e) = self.decide(client)
        {
            return e.into();
        }
        self.next.exports(client)
    }
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        if self.late
            && let Err(e) = self.decide(client)
        {
            return e.into();
        }
        self.next.open(client)
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer};
    use disk::{Certificate, Peer};

    fn admits(params: &[&str], client: &Client<'_>) -> bool {
        let layer = layer::<Ip>(params, &Memory::new(vec![])).unwrap();
        layer.preconnect(client).wait().is_ok() && layer.open(client).wait().is_ok()
    }

    fn from(address: &str) -> Client<'static> {
        Client { peer: Peer::Ip(address.parse().unwrap()), ..Client::default() }
    }

    #[test]
    fn allow_comes_before_deny_and_what_neither_names_may_connect() {
        let params = ["allow=127.0.0.1,::1", "deny=all"];
        assert!(admits(&params, &from("127.0.0.1:5")) && admits(&params, &from("[::1]:5")));
        assert!(!admits(&params, &from("127.0.0.2:5")));
        assert!(admits(&["deny=8.0.0.0/8"], &from("9.1.2.3:5")));
        assert!(!admits(&["deny=8.0.0.0/8"], &from("8.1.2.3:5")));
        assert!(admits(&[], &Client::default()));
        assert!(!admits(&["allow=anyipv4", "deny=any"], &Client::default()));
    }

    #[test]
    fn a_certificate_decides_when_an_export_is_opened() {
        let params = ["allow=dn:CN=alice", "deny=all"];
        let with = |subject: &str| {
            let certificate = Certificate { subject: subject.into(), issuer: "CN=ca".into() };
            Client { tls: true, certificate: Some(Arc::new(certificate)), ..from("9.1.2.3:5") }
        };
        assert!(admits(&params, &with("CN=alice")));
        assert!(!admits(&params, &with("CN=mallory")));
        let layer = layer::<Ip>(&params, &Memory::new(vec![])).unwrap();
        layer.preconnect(&from("9.1.2.3:5")).wait().unwrap();
        assert!(layer.exports(&from("9.1.2.3:5")).wait().is_err());
    }
}
