//! Requests whose answers are not there yet.

use crate::{output::Output, to_wire};
use disk::{Data, Io, Result};
use proto::{Errno, Extent, ReplyTo, Request};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// A request that waits.
pub(crate) struct Pending<'d> {
    pub(crate) request: Request,
    pub(crate) answer: Answer<'d>,
}

/// Its answer to come.
pub(crate) enum Answer<'d> {
    Read(Io<'d, Data>),
    Done(Io<'d, ()>),
    Status(Io<'d, Vec<(u32, Vec<Extent>)>>),
}

/// What came of it.
pub(crate) enum Outcome {
    Read(Result<Data>),
    Done(Result<()>),
    Status(Result<Vec<(u32, Vec<Extent>)>>),
}

impl Outcome {
    /// Adds the reply to what is to be sent.
    #[inline]
    pub(crate) fn tell(self, out: &mut Output, to: ReplyTo, request: &Request) {
        match self {
            Outcome::Read(Ok(data)) if data.len() == request.length => to_wire::data(out, to, request, data),
            Outcome::Read(Ok(_)) => {
                to.error(out.header(), Errno::EIO, "the disk returned another length than asked for");
            }
            Outcome::Done(Ok(())) => to.done(out.header()),
            Outcome::Status(Ok(lists)) => {
                let last = lists.len() - 1;
                for (i, (id, extents)) in lists.iter().enumerate() {
                    to.block_status(out.header(), i == last, *id, extents);
                }
            }
            Outcome::Read(Err(e)) | Outcome::Done(Err(e)) | Outcome::Status(Err(e)) => {
                to_wire::error(out, to, request, &e);
            }
        }
    }
}

impl Answer<'_> {
    /// Whether it is there already.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Answer::Read(io) => matches!(io, Io::Ready(_)),
            Answer::Done(io) => matches!(io, Io::Ready(_)),
            Answer::Status(io) => matches!(io, Io::Ready(_)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self {
            Answer::Read(io) => Pin::new(io).poll(cx).map(Outcome::Read),
            Answer::Done(io) => Pin::new(io).poll(cx).map(Outcome::Done),
            Answer::Status(io) => Pin::new(io).poll(cx).map(Outcome::Status),
        }
    }
}

impl Future for Pending<'_> {
    type Output = (Request, Outcome);
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let request = self.request;
        self.answer.poll(cx).map(|outcome| (request, outcome))
    }
}
