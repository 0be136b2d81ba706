//! Being told of changes of the export's size (the proposed RESIZE).

use super::{Connection, Ticket, lock};
use disk::{Error, Result};
use proto::{Command, CommandFlags};
use std::{
    future::poll_fn,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
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

    /// For an owner of the connection who keeps the watch beside it: what [`Connection::poll_size`] is asked with. Nobody
    /// stops listening then.
    pub(crate) fn into_cookie(mut self) -> u64 {
        self.ticket.taken = true;
        self.ticket.cookie
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
        let (connection, cookie) = (self.ticket.connection, self.ticket.cookie);
        let size = poll_fn(|cx| connection.poll_size(cookie, cx)).await?;
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
    request.command == Command::Resize && request.flags.has(CommandFlags::RESIZE_NOTIFY)
}

impl Connection {
    /// Ask to be told of every change of the export's size; once per connection. The server must have advertised
    /// SEND_RESIZE.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn watch_size(&self) -> Result<SizeWatch<'_>> {
        let flags = CommandFlags::RESIZE_NOTIFY;
        let ask = super::Ask { command: Command::Resize, flags, offset: 0, length: 0 };
        self.submit(ask, None).map(SizeWatch::new)
    }

    /// The next size that the request with this cookie was told; see [`SizeWatch::next`]. Of several who poll, the last
    /// one's waker counts.
    pub(crate) fn poll_size(&self, cookie: u64, cx: &mut Context<'_>) -> Poll<Result<u64>> {
        let mut slots = lock(&self.inner.slots);
        if let Some(outcome) = slots.take(cookie) {
            return Poll::Ready(match outcome {
                Err(e) => Err(e),
                Ok(_) => Err(Error::io("the server tells no more of changes of the size")),
            });
        }
        if let Some(size) = slots.take_news(cookie) {
            return Poll::Ready(Ok(size));
        }
        slots.set_waker(cookie, cx.waker());
        drop(slots);
        reactor::watch(&self.driver);
        Poll::Pending
    }
}
