//! Requests whose answers are not there yet.

use disk::{Data, Io, Result};
use proto::{Extent, Request};
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

impl Answer<'_> {
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
