//! What `-v` tells of each component: the requests that reach it and what it answers.

use super::messages::Messages;
use disk::shapes::{
    Op, OpKind,
    around::{Around, EveryRequest},
};
use disk::{Backend, Client, Disk, Io};
use std::sync::Arc;

/// `next`, the backend of component `name` over (or in) `plugin`, with a line for every request to it.
pub(crate) fn backend(
    name: &'static str,
    plugin: &'static str,
    next: Arc<dyn Backend>,
    messages: Messages,
) -> Arc<dyn Backend> {
    Arc::new(Traced { name, plugin, next, messages })
}

struct Traced {
    name: &'static str,
    plugin: &'static str,
    next: Arc<dyn Backend>,
    messages: Messages,
}

impl Traced {
    /// Where lines about a connection come from, as nbdkit has it.
    fn at(&self, connection: u64) -> String {
        format!("{}[{connection}]", self.plugin)
    }
}

impl Backend for Traced {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let Traced { name, messages, .. } = self;
        let at = self.at(client.connection);
        let (read_only, tls) = (i32::from(client.read_only), i32::from(client.tls));
        let export = client.export;
        messages.call(&at, &format!("{name}: open readonly={read_only} exportname=\"{export}\" tls={tls}"));
        Io::later(async move {
            let disk = self.next.open(client).await?;
            let requests = Requests { name, at, messages: messages.clone() };
            Ok(Arc::new(Around::new(requests, disk)) as Arc<dyn Disk>)
        })
    }

    fn disconnected(&self, connection: u64) {
        self.messages.call(&self.at(connection), &format!("{}: close", self.name));
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
