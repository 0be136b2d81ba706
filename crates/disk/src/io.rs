//! The result of a request: already there, or a future. Forwarding one costs nothing.

use crate::error::{Errno, Error, Result};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The outcome of a request.
///
/// A request that can be answered now allocates nothing, through any number of filters; one that must wait costs
/// one box, at the layer that waits. Dropping an `Io` abandons the answer, not the write: see [`crate::Disk`].
#[must_use = "a request that must wait does nothing until its `Io` is awaited"]
pub enum Io<'a, T> {
    /// Answered.
    Ready(Result<T>),
    /// To be awaited.
    Later(Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>),
    /// The answer was taken by an earlier poll.
    Taken,
}

impl<'a, T: Send + 'a> Io<'a, T> {
    /// Answered with success.
    #[inline]
    pub fn ok(value: T) -> Self {
        Io::Ready(Ok(value))
    }

    /// Answered by `future`, once it is awaited.
    pub fn later(future: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Io::Later(Box::pin(future))
    }

    /// Looks at the outcome on its way up.
    #[inline]
    pub fn inspect(self, look: impl FnOnce(&Result<T>) + Send + 'a) -> Self {
        match self {
            // A success is made anew instead of being moved as a whole: a success of a write is no bytes at all, and to load
            // what was just stored in smaller pieces waits for all stores before, such as the bytes that were written.
            Io::Ready(Ok(value)) => {
                let success = Ok(value);
                look(&success);
                Io::Ready(success)
            }
            Io::Ready(failure) => {
                look(&failure);
                Io::Ready(failure)
            }
            Io::Later(p) => Io::later(async move {
                let r = p.await;
                look(&r);
                r
            }),
            Io::Taken => Io::Taken,
        }
    }

    /// Changes a success, or fails it.
    #[inline]
    pub fn map<U: Send + 'a>(self, change: impl FnOnce(T) -> Result<U> + Send + 'a) -> Io<'a, U> {
        match self {
            Io::Ready(r) => Io::Ready(r.and_then(change)),
            Io::Later(p) => Io::later(async move { change(p.await?) }),
            Io::Taken => Io::Taken,
        }
    }

    /// Goes on with another request after a success.
    #[inline]
    pub fn and_then<U: Send + 'a>(self, next: impl FnOnce(T) -> Io<'a, U> + Send + 'a) -> Io<'a, U> {
        match self {
            Io::Ready(Ok(value)) => next(value),
            Io::Ready(Err(e)) => Io::Ready(Err(e)),
            Io::Later(p) => Io::later(async move { next(p.await?).await }),
            Io::Taken => Io::Taken,
        }
    }

    /// Goes on with another request after a failure.
    #[inline]
    pub fn or_else(self, next: impl FnOnce(Error) -> Io<'a, T> + Send + 'a) -> Self {
        match self {
            Io::Ready(Err(e)) => next(e),
            Io::Later(p) => Io::later(async move {
                match p.await {
                    Err(e) => next(e).await,
                    done => done,
                }
            }),
            done => done,
        }
    }

    /// Waits on this thread.
    pub fn wait(self) -> Result<T> {
        match self {
            Io::Ready(r) => r,
            io => reactor::block_on(io),
        }
    }
}

impl<T> From<Error> for Io<'_, T> {
    fn from(e: Error) -> Self {
        Io::Ready(Err(e))
    }
}

impl<T> From<Errno> for Io<'_, T> {
    fn from(e: Errno) -> Self {
        Io::Ready(Err(e.into()))
    }
}

impl<T> From<Result<T>> for Io<'_, T> {
    fn from(r: Result<T>) -> Self {
        Io::Ready(r)
    }
}

impl<T> Unpin for Io<'_, T> {}

impl<T> Future for Io<'_, T> {
    type Output = Result<T>;
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let me = self.get_mut();
        match me {
            Io::Later(future) => future.as_mut().poll(cx),
            _ => match std::mem::replace(me, Io::Taken) {
                Io::Ready(r) => Poll::Ready(r),
                // As futures do; no input of a peer leads here.
                _ => panic!("Io polled after its answer was taken"),
            },
        }
    }
}
