//! The proposed RESIZE on one connection: what it may ask for, and the client that is told of every change.

use crate::{output::Output, to_wire};
use disk::{Disk, Error, Facts, Io, Result, resize::Resizing};
use proto::{Command, CommandFlags, Errno, ReplyTo, Request, TransmissionFlags, handshake::Negotiated};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// What the flag promises: only where the server was told to, to a client that may write, of a disk that can.
pub(crate) fn is_offered(allowed: bool, disk: &dyn Disk, facts: &Facts) -> bool {
    allowed && facts.write && disk.resizing().is_some()
}

/// The size of the disk on one connection.
pub(crate) struct Resize<'d> {
    /// As it was in the handshake, for disks that do not change.
    fixed: u64,
    disk: Option<&'d dyn Resizing>,
    /// The client may change it.
    offered: bool,
    /// The next change: for the client, or because the disk knows its size only while somebody waits.
    next: Option<Io<'d, (u64, u64)>>,
    /// The client's request to be told of changes, which has no end.
    told: Option<(ReplyTo, Request)>,
}

impl<'d> Resize<'d> {
    pub(crate) fn new(disk: &'d dyn Disk, facts: &Facts, negotiated: &Negotiated) -> Self {
        let flags = negotiated.info.flags;
        let has_chunks = negotiated.replies.has_chunks();
        let offered = flags.has(TransmissionFlags::SEND_RESIZE) && has_chunks;
        let disk = disk.resizing();
        let next = disk.filter(|disk| disk.is_followed()).map(|disk| disk.changed(0));
        Resize { fixed: facts.size, disk, offered, next, told: None }
    }

    /// Requests must lie within this.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        match self.disk {
            None => self.fixed,
            Some(disk) => disk.size(),
        }
    }

    /// Whether this request is for here. (Where it was not offered, it is refused like any unknown one.)
    #[inline]
    pub(crate) fn takes(&self, request: &Request) -> bool {
        request.command == Command::Resize && self.offered
    }

    /// Whether changes are waited for.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.next.is_some()
    }

    /// Whether the client waits for changes, and may be silent as long as there are none.
    pub(crate) fn tells_client(&self) -> bool {
        self.told.is_some()
    }

    /// Carries out a RESIZE; `pending` are the requests under way. Nothing else of this connection begins before it
    /// is done, so that all of it sees either the old size or the new one.
    pub(crate) async fn carry_out(
        &mut self,
        request: &Request,
        to: ReplyTo,
        pending: impl Iterator<Item = &Request>,
        out: &mut Output,
    ) {
        match self.check(request, pending) {
            Err((errno, why)) => to.error(out.header(), errno, why),
            Ok(disk) if request.flags.has(CommandFlags::RESIZE_NOTIFY) => {
                self.told = Some((to, *request));
                self.next = Some(disk.changed(0));
            }
            Ok(disk) => match disk.resize(request.offset).await {
                Ok(size) => to.size(out.header(), true, size),
                Err(e) => to_wire::error(out, to, request, &e),
            },
        }
    }

    fn check<'r>(
        &self,
        request: &Request,
        mut pending: impl Iterator<Item = &'r Request>,
    ) -> std::result::Result<&'d dyn Resizing, (Errno, &'static str)> {
        let wrong = |why| Err((Errno::EINVAL, why));
        let Some(disk) = self.disk else { return wrong("there is no such command") };
        if request.flags.without(request.command.valid_flags()) != CommandFlags::NONE {
            return wrong("the request has flags that make no sense with it");
        }
        if request.length != 0 {
            return wrong("a resize has no length");
        }
        if request.flags.has(CommandFlags::RESIZE_NOTIFY) {
            return match request.offset {
                0 if self.told.is_none() => Ok(disk),
                0 => wrong("this connection is told of changes of the size already"),
                _ => wrong("a request to be told of changes has no offset"),
            };
        }
        // The specification leaves it to the client, but what is under way must not end outside of the disk.
        if pending.any(|r| r.offset.saturating_add(r.length) > request.offset) && request.offset < disk.size()
        {
            return wrong("a request is under way in the part that would go away");
        }
        Ok(disk)
    }

    /// Waits for a change; for ever, where nobody wants to know.
    pub(crate) fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u64, u64)>> {
        match &mut self.next {
            Some(next) => Pin::new(next).poll(cx),
            None => Poll::Pending,
        }
    }

    /// Tells the client of a change, if it asked for that, and waits for the next one.
    pub(crate) fn tell(&mut self, change: Result<(u64, u64)>, out: &mut Output) {
        match (change, self.disk) {
            (Ok((size, seen)), Some(disk)) => {
                if let Some((to, _)) = self.told {
                    to.size(out.header(), false, size);
                }
                self.next = Some(disk.changed(seen));
            }
            (change, _) => {
                if let Some((to, request)) = self.told.take() {
                    let e = change.err().unwrap_or_else(|| Error::io("the disk has no size any more"));
                    to_wire::error(out, to, &request, &e);
                }
                self.next = None;
            }
        }
    }
}
