//! Being told of changes of the export's size (the proposed RESIZE).

use super::{Connection, Ticket, lock};
use disk::{Error, Result};
use proto::Command;
use std::{
    future::poll_fn,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::Poll,
};

/// Hears of every change of the export's size, as long as the connection lives. Dropping it ends the listening, but
/// the server goes on telling: a connection has one such request in all its life.
pub struct SizeWatch<'a> {
    ticket: Ticket<'a>,
    /// Where the owner of the connection keeps the size.
    keep: Option<&'a AtomicU64>,
}

impl<'a> SizeWatch<'a> {
    pub(super) fn new(ticket: Ticket<'a>) -> Self {
        SizeWatch { ticket, keep: None }
    }

    pub(crate) fn keeping(self, size: &'a AtomicU64) -> Self {
        SizeWatch { keep: Some(size), ..self }
    }

    /// The next size, in bytes: at first the present one, then one after each change. Of several changes that nobody
    /// waited for, only the last is told.
    ///
    /// # Errors
    /// The server refuses to tell, or the connection has ended.
    pub async fn next(&mut self) -> Result<u64> {
        let connection = self.ticket.connection;
        let size = poll_fn(|cx| {
            if let Some(outcome) = self.ticket.take() {
                return Poll::Ready(match outcome {
                    Err(e) => Err(e),
                    Ok(_) => Err(Error::io("the server tells no more of changes of the size")),
                });
            }
            let mut slots = lock(&connection.inner.slots);
            if let Some(size) = slots.take_news(self.ticket.cookie) {
                return Poll::Ready(Ok(size));
            }
            slots.set_waker(self.ticket.cookie, cx.waker());
            drop(slots);
            reactor::watch(&connection.driver);
            Poll::Pending
        })
        .await?;
        if let Some(keep) = self.keep {
            keep.store(size, Relaxed);
        }
        Ok(size)
    }

    /// As [`SizeWatch::next`], waiting on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn wait(&mut self) -> Result<u64> {
        reactor::block_on(self.next())
    }
}

/// Whether a request asks to be told of changes, so that its reply has no end.
pub(super) fn is_watch(request: &proto::Request) -> bool {
    request.command == Command::Resize && request.flags.has(proto::CommandFlags::RESIZE_NOTIFY)
}

impl Connection {
    /// Ask to be told of every change of the export's size; once per connection. The server must have advertised
    /// SEND_RESIZE.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn watch_size(&self) -> Result<SizeWatch<'_>> {
        let flags = proto::CommandFlags::RESIZE_NOTIFY;
        let ask = super::Ask { command: Command::Resize, flags, offset: 0, length: 0 };
        self.submit(ask, None).map(SizeWatch::new)
    }
}
