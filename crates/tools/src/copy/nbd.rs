//! An NBD server as one end of a copy: by URI, or started as a subprocess.

use client::{Connector, RemoteDisk};
use disk::{Disk, Result};
use std::sync::Arc;

/// A server, and the first connection to it.
pub(crate) struct Nbd {
    connector: Connector,
    first: Arc<RemoteDisk>,
    /// Servers that were started here have one connection.
    may_reconnect: bool,
}

impl Nbd {
    /// The server that a URI names.
    ///
    /// # Errors
    /// It is no URI, nobody answers, or the server refuses the export.
    pub(crate) fn uri(uri: &str) -> Result<Nbd> {
        Nbd::open(Connector::uri(uri)?, true)
    }

    /// A server that is started now, by socket activation, and ends with the copy.
    ///
    /// # Errors
    /// It does not start, or is no server.
    pub(crate) fn command(command: &[String]) -> Result<Nbd> {
        Nbd::open(Connector::command(command)?, false)
    }

    fn open(connector: Connector, may_reconnect: bool) -> Result<Nbd> {
        let first = Arc::new(connector.open()?);
        Ok(Nbd { connector, first, may_reconnect })
    }

    /// The export over the first connection.
    pub(crate) fn first(&self) -> &Arc<RemoteDisk> {
        &self.first
    }

    /// Whether several connections see the same data.
    pub(crate) fn may_have_several(&self) -> bool {
        self.may_reconnect && self.first.facts().multi_conn
    }

    /// The export over one more connection.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) fn another(&self) -> Result<Arc<RemoteDisk>> {
        let another = self.connector.open()?;
        if another.facts().size != self.first.facts().size {
            return Err(disk::Error::io("the server opened a disk of another size on a further connection"));
        }
        Ok(Arc::new(another))
    }
}
