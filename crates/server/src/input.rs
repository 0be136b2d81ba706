//! What the client sends: one buffer, out of which whole requests are taken.

use crate::raw::Destination;
use net::{Stream, Wait};
use proto::{HeaderStyle, Request};
use std::{
    io,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Large enough for many small writes in one call; a smaller one costs a third of the speed of 4 KiB writes.
const ROOM: usize = 256 << 10;
/// How long to poll before sleeping, while requests come quickly: a wake-up costs as much.
const POLL: Duration = Duration::from_micros(50);
/// A wait as short as this makes polling worth while.
const QUICK: Duration = Duration::from_micros(200);

pub(crate) struct Input {
    room: Box<[u8]>,
    start: usize,
    end: usize,
    /// More than one processor, and recent waits were short.
    poll: bool,
    may_poll: bool,
}

impl Input {
    /// Begins with what came behind the handshake.
    pub(crate) fn new(first: &[u8]) -> Self {
        let mut room = vec![0; ROOM.max(first.len())].into_boxed_slice();
        room[..first.len()].copy_from_slice(first);
        // Asked for once: the answer is in files of the kernel's.
        static SEVERAL: OnceLock<bool> = OnceLock::new();
        let may_poll =
            *SEVERAL.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() > 1));
        Input { room, start: 0, end: first.len(), poll: false, may_poll }
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
        let n = if wait == Wait::Block && self.may_poll {
            self.receive_polling(stream)
        } else {
            stream.recv(&mut self.room[self.end..], wait)
        }?;
        self.end += n;
        Ok(n)
    }

    fn receive_polling(&mut self, stream: &Stream) -> io::Result<usize> {
        let room = &mut self.room[self.end..];
        match stream.recv(room, Wait::DontWait) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        let asked = Instant::now();
        while self.poll && asked.elapsed() < POLL {
            std::thread::yield_now();
            match stream.recv(room, Wait::DontWait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        let done = stream.recv(room, Wait::Block);
        self.poll = asked.elapsed() < QUICK;
        done
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
