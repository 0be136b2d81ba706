//! What `-v` tells of each component: the requests that reach it and what it answers.

use super::messages::Messages;
use disk::shapes::{
    Op, OpKind,
    around::{Around, EveryRequest},
};
use disk::{Backend, Client, Disk, Io};
use std::sync::Arc;

/// `next`, the backend of component `name`, with a line for every request to it.
pub(crate) fn backend(
    name: &'static str,
    next: Arc<dyn Backend>,
    messages: Arc<Messages>,
) -> Arc<dyn Backend> {
    Arc::new(Traced { name, next, messages })
}

struct Traced {
    name: &'static str,
    next: Arc<dyn Backend>,
    messages: Arc<Messages>,
}

impl Backend for Traced {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let Traced { name, messages, .. } = self;
        messages.debug(&format!(
            "{name}[{}]: {name}: open readonly={} exportname=\"{}\" tls={}",
            client.connection,
            i32::from(client.read_only),
            client.export,
            i32::from(client.tls),
        ));
        Io::later(async move {
            let disk = self.next.open(client).await?;
            let requests = Requests { name, connection: client.connection, messages: messages.clone() };
            Ok(Arc::new(Around::new(requests, disk)) as Arc<dyn Disk>)
        })
    }

    fn disconnected(&self, connection: u64) {
        self.messages.debug(&format!("{0}[{connection}]: {0}: close", self.name));
        self.next.disconnected(connection);
    }

    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Requests {
    name: &'static str,
    connection: u64,
    messages: Arc<Messages>,
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
        let mut line = format!("{0}[{1}]: {0}: {what}", self.name, self.connection);
        if op.kind != OpKind::Flush {
            line += &format!(" count={} offset={}", op.range.len, op.range.start);
        }
        if let OpKind::Zero { may_trim, fast } = op.kind {
            line += &format!(" may_trim={} fast={}", i32::from(may_trim), i32::from(fast));
        }
        if op.fua {
            line += " fua=1";
        }
        self.messages.debug(&line);
        call()
    }
}
