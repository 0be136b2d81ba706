//! `tls-fallback`: clients in the clear see a message instead of the disk.

use disk::{Backend, Client, Data, Disk, Error, Export, Facts, Filter, Io, Range, Result, ThreadModel};
use params::Params;
use std::sync::Arc;

/// Show a message to clients that do not use TLS.
#[derive(Params)]
pub(crate) struct TlsFallback {
    /// The message.
    #[param(default = "This NBD server requires TLS authentication before it will serve useful data.\n")]
    tlsreadme: String,
}

impl Filter for TlsFallback {
    const NAME: &'static str = "tls-fallback";
    const MANUAL: &'static str = include_str!("tls_fallback.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        if next.thread_model() == ThreadModel::SerializeConnections {
            return Err(Error::invalid(
                "what is below serves one client at a time, so that a client without TLS could keep all others out",
            ));
        }
        let mut text = self.tlsreadme.into_bytes();
        text.resize(text.len().next_multiple_of(512).max(512), 0);
        Ok(Fallback { message: Data::copy_from(&text), next })
    }
}

struct Fallback {
    message: Data,
    next: Arc<dyn Backend>,
}

impl Backend for Fallback {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        if client.tls {
            return self.next.open(client);
        }
        Io::ok(Arc::new(Message {
            facts: Facts::read_only(self.message.len()),
            message: self.message.clone(),
        }))
    }
    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        if client.tls { self.next.exports(client) } else { Io::ok(vec![Export::default()]) }
    }
    fn default_export<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Option<String>> {
        if client.tls { self.next.default_export(client) } else { Io::ok(None) }
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Message {
    facts: Facts,
    message: Data,
}

impl Disk for Message {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        Io::ok(self.message.slice(r.start, r.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        common::testing::{Memory, layer, noise, over},
        noparallel::NoParallel,
    };

    #[test]
    fn only_clients_with_tls_see_the_disk() {
        let memory = Memory::new(noise(1, 8192));
        let layer = layer::<TlsFallback>(&["tlsreadme=come back with TLS"], &memory).unwrap();
        let open = |tls| layer.open(&Client { tls, ..Client::local("secret") }).wait().unwrap();
        assert_eq!(open(true).facts().size, 8192);
        let clear = open(false);
        assert!(clear.facts().size == 512 && !clear.facts().write);
        let text = clear.read(Range::new(0, 512)).wait().unwrap().to_vec();
        assert!(text.starts_with(b"come back with TLS\0"));
        assert_eq!(memory.asked(), [""; 0], "nothing below is asked");
    }

    #[test]
    fn it_refuses_what_one_client_could_block() {
        let serial = layer::<NoParallel>(&["serialize=connections"], &Memory::new(vec![])).unwrap();
        assert!(over::<TlsFallback>(&[], serial).is_err());
    }
}
