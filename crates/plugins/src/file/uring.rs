//! Requests that the page cache cannot answer, through io_uring: any number at once, and no thread for each.
//!
//! The ring is that of the plugin blkio. It is made when it is needed first; where there is none, the pool does the work.

use crate::blkio::queue::{Handle, Queue, Request};
use blkio::Blkio;
use disk::{BufMut, Data, Error, Result};
use std::{
    os::fd::{BorrowedFd, IntoRawFd},
    pin::pin,
    time::Duration,
};

/// The kernel may be out of memory for requests; then they are offered again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// How many requests fit into a ring.
const DEPTH: usize = 128;

/// A ring over an open file.
pub(super) struct Ring {
    handle: Handle,
    /// Has the file open.
    _file: Blkio,
}

impl Ring {
    /// # Errors
    /// Where the kernel or the administrator does not allow rings.
    pub(super) fn over(file: BorrowedFd<'_>) -> Result<Ring> {
        let told = |e: blkio::Error| Error::io(e.message().to_owned());
        let mut blkio = Blkio::new("io_uring").map_err(told)?;
        blkio.set_i32("fd", file.try_clone_to_owned()?.into_raw_fd()).map_err(told)?;
        blkio.connect().map_err(told)?;
        blkio.set_i32("num-entries", DEPTH as i32).map_err(told)?;
        let queue = blkio.start().map_err(told)?.queues.pop();
        let queue = queue.ok_or_else(|| Error::io("there is no queue"))?;
        Ok(Ring { handle: Handle::new(Queue::new(queue, DEPTH, None)?), _file: blkio })
    }

    /// Reads `len` bytes. What lies behind the end of the file is zeroes; it is for the caller to know where that is.
    pub(super) async fn read(&self, at: u64, len: usize) -> Result<BufMut> {
        match self.run(Request::Read { at, into: BufMut::new(len) }).await? {
            Request::Read { into, .. } => Ok(into),
            _ => Err(Error::io("a read came back as something else")),
        }
    }

    /// Writes bytes that lie in one piece.
    pub(super) async fn write(&self, at: u64, from: Data, fua: bool) -> Result<()> {
        self.run(Request::Write { at, from, fua }).await.map(drop)
    }

    /// Waits for writes that nobody else waits for any more.
    pub(super) async fn settled(&self) {
        let mut settled = pin!(self.handle.settled());
        while reactor::timeout(AGAIN, settled.as_mut()).await.is_err() {
            self.handle.queue.turn();
        }
    }

    async fn run(&self, request: Request) -> Result<Request> {
        let mut waiting = pin!(self.handle.run(request));
        loop {
            match reactor::timeout(AGAIN, waiting.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.handle.queue.turn(),
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.handle.queue.close();
    }
}
