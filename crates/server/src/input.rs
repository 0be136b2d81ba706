//! What the client sends: one buffer, out of which whole requests are taken.

use crate::raw::Destination;
use net::{Room, Stream, Wait};
use proto::{HeaderStyle, Request};
use reactor::Spin;
use std::io;

/// Large enough for many small writes in one call; a smaller one costs a third of the speed of 4 KiB writes.
const ROOM: usize = 256 << 10;
pub(crate) struct Input {
    room: Room,
    start: usize,
    end: usize,
    /// Polls before sleeping, where that pays.
    spin: Spin,
    /// Requests taken since the last receive. When several come at once, the client has more of them in flight; to
    /// sleep then lets a batch gather, which is faster than taking them one by one.
    batch: u32,
}

impl Input {
    /// Begins with what came behind the handshake.
    pub(crate) fn new(first: &[u8]) -> io::Result<Self> {
        let mut room = Room::new(ROOM.max(first.len()))?;
        room[..first.len()].copy_from_slice(first);
        Ok(Input { room, start: 0, end: first.len(), spin: Spin::new(), batch: 0 })
    }

    /// Gives the memory back until something comes. The buffer must be empty, or stays as it is.
    pub(crate) fn rest(&mut self) {
        if self.start == self.end {
            self.room.release();
        }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    /// Takes the next header off, `None` when it has not come yet.
    #[inline]
    pub(crate) fn request(&mut self, style: HeaderStyle) -> proto::Result<Option<Request>> {
        let request = Request::decode(style, self.unread())?;
        if request.is_some() {
            self.start += style.request_len();
            self.batch += 1;
        }
        Ok(request)
    }

    /// Takes up to `most` bytes off.
    pub(crate) fn take(&mut self, most: usize) -> &[u8] {
        let start = self.start;
        self.start = self.end.min(start + most);
        &self.room[start..self.start]
    }

    /// Receives more; 0 is the end of the stream. With [`Wait::Block`] it polls first where that pays.
    pub(crate) fn receive(&mut self, stream: &Stream, wait: Wait) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.room.len() - self.end < ROOM / 4 {
            self.room.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.room[self.end..];
        let n = match wait {
            Wait::Block if self.spin.is_allowed() && self.batch <= 1 => {
                Self::receive_polling(&self.spin, stream, room)
            }
            _ => stream.recv(room, wait),
        }?;
        self.end += n;
        self.batch = 0;
        Ok(n)
    }

    fn receive_polling(spin: &Spin, stream: &Stream, room: &mut [u8]) -> io::Result<usize> {
        let mut attempt = |may_sleep| {
            let wait = if may_sleep { Wait::Block } else { Wait::DontWait };
            match stream.recv(room, wait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !may_sleep => None,
                done => Some(done),
            }
        };
        if let Some(done) = attempt(false) {
            return done;
        }
        spin.attempt(attempt).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    /// Receives the payload from byte `at` on straight to where it goes, and what follows it into the buffer, which
    /// must be empty. Returns how many bytes of the payload came; 0 is the end of the stream.
    pub(crate) fn receive_payload(
        &mut self,
        to: &mut Destination<'_>,
        at: usize,
        len: usize,
        stream: &Stream,
        wait: Wait,
    ) -> io::Result<usize> {
        debug_assert_eq!(self.start, self.end);
        let n = to.receive(at, &mut self.room, stream, wait)?;
        let payload = n.min(len - at);
        (self.start, self.end) = (0, n - payload);
        Ok(payload)
    }
}
