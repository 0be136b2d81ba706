//! What `-v` tells of each component: the requests that reach it and what it answers.

use super::debug_flag::Told;
use super::messages::Messages;
use disk::shapes::{
    Op, OpKind,
    around::{Around, EveryRequest},
};
use disk::{Backend, Client, Disk, Export, Io};
use std::sync::Arc;

/// `next`, the backend of component `name` over (or in) `plugin`, with lines for what is asked of it.
pub(crate) fn backend(
    name: &'static str,
    plugin: &'static str,
    next: Arc<dyn Backend>,
    messages: Messages,
    told: Told,
) -> Arc<dyn Backend> {
    Arc::new(Traced { name, plugin, next, messages, told })
}

struct Traced {
    name: &'static str,
    plugin: &'static str,
    next: Arc<dyn Backend>,
    messages: Messages,
    told: Told,
}

impl Traced {
    /// Where lines about a connection come from, as nbdkit has it.
    fn at(&self, connection: u64) -> String {
        format!("{}[{connection}]", self.plugin)
    }

    fn control(&self, connection: u64, line: impl FnOnce() -> String) {
        if self.told.control {
            self.messages.call(&self.at(connection), &format!("{}: {}", self.name, line()));
        }
    }
}

impl Backend for Traced {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.control(client.connection, || {
            let (read_only, tls) = (i32::from(client.read_only), i32::from(client.tls));
            format!("open readonly={read_only} exportname=\"{}\" tls={tls}", client.export)
        });
        if !self.told.requests {
            return self.next.open(client);
        }
        let (name, messages) = (self.name, self.messages.clone());
        let at = self.at(client.connection);
        Io::later(async move {
            let disk = self.next.open(client).await?;
            Ok(Arc::new(Around::new(Requests { name, at, messages }, disk)) as Arc<dyn Disk>)
        })
    }

    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        self.control(client.connection, || "preconnect".to_owned());
        self.next.preconnect(client)
    }

    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        self.control(client.connection, || format!("list_exports readonly={}", i32::from(client.read_only)));
        self.next.exports(client)
    }

    fn disconnected(&self, connection: u64) {
        self.control(connection, || "close".to_owned());
        self.next.disconnected(connection);
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Requests {
    name: &'static str,
    at: String,
    messages: Messages,
}

impl EveryRequest for Requests {
    fn may_place(&self) -> bool {
        true
    }

    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T> {
        let what = match op.kind {
            OpKind::Read => "pread",
            OpKind::Write => "pwrite",
            OpKind::Zero { .. } => "zero",
            OpKind::Trim => "trim",
            OpKind::Flush => "flush",
            OpKind::Cache => "cache",
            OpKind::Extents => "extents",
        };
        let mut line = format!("{}: {what}", self.name);
        if op.kind != OpKind::Flush {
            line += &format!(" count={} offset={}", op.range.len, op.range.start);
        }
        if let OpKind::Zero { may_trim, fast } = op.kind {
            line += &format!(" may_trim={} fast={}", i32::from(may_trim), i32::from(fast));
        }
        if op.fua {
            line += " fua=1";
        }
        self.messages.call(&self.at, &line);
        call()
    }
}
