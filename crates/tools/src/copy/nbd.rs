//! An NBD server as one end of a copy: by URI, or started as a subprocess.

use crate::copy::{
    endpoint::Another,
    ranges::Ranges,
    reconnect::{Patience, Reconnecting},
};
use client::{Connector, RemoteDisk};
use disk::{Disk, Result};
use std::sync::Arc;

/// A server, and the first connection to it.
pub(crate) struct Nbd {
    connector: Connector,
    first: Link,
    /// Servers that were started here have one connection.
    may_reconnect: bool,
    patience: Option<Patience>,
}

/// An export.
#[derive(Clone)]
pub(crate) enum Link {
    /// Over one connection.
    Once(Arc<RemoteDisk>),
    /// Over as many as it takes.
    Again(Arc<Reconnecting>),
}

impl Link {
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Link::Once(disk) => disk.clone(),
            Link::Again(disk) => disk.clone(),
        }
    }

    /// How many bytes of requests wait to be sent.
    pub(crate) fn unsent(&self) -> usize {
        match self {
            Link::Once(disk) => disk.unsent(),
            Link::Again(_) => 0,
        }
    }

    /// What must be written again, because the server has gone before it was flushed.
    pub(crate) fn lost(&self) -> Ranges {
        match self {
            Link::Once(_) => Ranges::new(),
            Link::Again(disk) => disk.lost(),
        }
    }

    /// These are going to be written again.
    pub(crate) fn take_lost(&self) -> Ranges {
        match self {
            Link::Once(_) => Ranges::new(),
            Link::Again(disk) => disk.take_lost(),
        }
    }
}

impl Nbd {
    /// The server that a URI names. Asks for these metadata contexts, too.
    ///
    /// # Errors
    /// It is no URI, nobody answers, or the server refuses the export.
    pub(crate) fn uri(uri: &str, contexts: &[String], patience: Option<&Patience>) -> Result<Nbd> {
        Nbd::open(Connector::uri(uri)?, true, contexts, patience, 0)
    }

    /// The server that a URI names, whose disk is made larger where it is too small and the server offers that.
    ///
    /// # Errors
    /// As [`Nbd::uri`]; or it cannot be made so large.
    pub(crate) fn uri_with_room(uri: &str, patience: Option<&Patience>, room: u64) -> Result<Nbd> {
        Nbd::open(Connector::uri(uri)?, true, &[], patience, room)
    }

    /// A server that is started now, by socket activation, and ends with the copy.
    ///
    /// # Errors
    /// It does not start, or is no server.
    pub(crate) fn command(command: &[String], contexts: &[String]) -> Result<Nbd> {
        Nbd::open(Connector::command(command)?, false, contexts, None, 0)
    }

    /// As [`Nbd::command`], with room as in [`Nbd::uri_with_room`].
    ///
    /// # Errors
    /// The same.
    pub(crate) fn command_with_room(command: &[String], room: u64) -> Result<Nbd> {
        Nbd::open(Connector::command(command)?, false, &[], None, room)
    }

    fn open(
        mut connector: Connector,
        may_reconnect: bool,
        contexts: &[String],
        patience: Option<&Patience>,
        room: u64,
    ) -> Result<Nbd> {
        connector.options.contexts.extend_from_slice(contexts);
        let mut disk = open(&connector, patience)?;
        if disk.facts().size < room && disk.offers_resize() {
            let grown = reactor::block_on(disk.resize(room));
            disk.facts_mut().size =
                grown.map_err(|e| e.context(format!("making the destination larger, to {room} bytes")))?;
        }
        let patience = patience.cloned();
        let first = link(&connector, disk, patience.as_ref());
        Ok(Nbd { connector, first, may_reconnect, patience })
    }

    /// The export over the first connection.
    pub(crate) fn first(&self) -> &Link {
        &self.first
    }

    /// Whether several connections see the same data.
    pub(crate) fn may_have_several(&self) -> bool {
        self.may_reconnect && self.first.disk().facts().multi_conn
    }

    /// The export over one more connection.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) fn another(&self) -> Result<Another> {
        let another = open(&self.connector, self.patience.as_ref())?;
        if another.facts().size != self.first.disk().facts().size {
            return Err(disk::Error::io("the server opened a disk of another size on a further connection"));
        }
        let link = link(&self.connector, another, self.patience.as_ref());
        Ok(Another { disk: link.disk(), server: Some(link) })
    }
}

fn open(connector: &Connector, patience: Option<&Patience>) -> Result<RemoteDisk> {
    patience.map_or_else(|| connector.open(), |patience| patience.open(connector))
}

fn link(connector: &Connector, disk: RemoteDisk, patience: Option<&Patience>) -> Link {
    match patience {
        None => Link::Once(Arc::new(disk)),
        Some(patience) => Link::Again(Arc::new(Reconnecting::new(connector.clone(), disk, patience.clone()))),
    }
}
