//! The threads that wait for the kernel's requests.
//!
//! One that takes a request sees it through. So there must be another that waits meanwhile; it is started when it is missing,
//! and ends when for a while too many have waited: a disk that is used by one program at a time has two threads, whose
//! memory stays in the processor's cache.

use super::{
    file_system::{FileSystem, LONGEST, Reply},
    protocol::{self, Body, HEAD, Request, What},
};
use disk::{BufMut, Data};
use rustix::io::Errno;
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::BorrowedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, Scope},
};

/// At most so many threads: each carries one request to the server at a time.
const MOST: usize = 16;
/// When so many others wait for the kernel, one is too many ...
const IDLE: usize = 2;
/// ... and after so many requests in a row it ends: a burst may be followed by another.
const A_WHILE: u32 = 64;

/// So many threads read ahead.
const AHEAD: usize = 2;

/// The threads of one mount.
pub(crate) struct Workers<'a> {
    kernel: BorrowedFd<'a>,
    file_system: &'a FileSystem,
    /// Whose requests are answered: everybody's, or those of this user and root.
    only: Option<u32>,
    most: usize,
    running: AtomicUsize,
    idle: AtomicUsize,
    over: AtomicBool,
    broken: Mutex<Option<io::Error>>,
}

impl<'a> Workers<'a> {
    pub(crate) fn new(
        kernel: BorrowedFd<'a>,
        file_system: &'a FileSystem,
        only: Option<u32>,
        single: bool,
    ) -> Self {
        Workers {
            kernel,
            file_system,
            only,
            most: if single { 1 } else { MOST },
            running: AtomicUsize::new(1),
            idle: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            broken: Mutex::new(None),
        }
    }

    /// Answers requests until the file system is unmounted.
    ///
    /// # Errors
    /// The kernel's side is broken.
    pub(crate) fn run(&self) -> io::Result<()> {
        thread::scope(|scope| {
            let ahead = if self.most > 1 { AHEAD } else { 0 };
            for _ in 0..ahead {
                let fetcher = thread::Builder::new().name("ahead".into());
                // Without them, who reads waits for more.
                let _ = fetcher.spawn_scoped(scope, || self.file_system.read_ahead());
            }
            thread::scope(|scope| self.work(scope));
            self.file_system.end();
        });
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let (mut buffer, mut needless) = (None, 0);
        while !self.over.load(Relaxed) {
            // So the payload of a write lies at the start of a page, and goes on to the server as it is.
            let mut head = [0; HEAD];
            let mut room = buffer.take().unwrap_or_else(|| BufMut::new(LONGEST as usize));
            self.idle.fetch_add(1, Relaxed);
            let places = &mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut room[..])];
            let read = rustix::io::readv(self.kernel, places);
            let others = self.idle.fetch_sub(1, Relaxed) - 1;
            let length = match read {
                Ok(length) => length,
                // The request was taken back; or this thread was interrupted.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {
                    buffer = Some(room);
                    continue;
                }
                Err(Errno::NODEV) => return self.over.store(true, Relaxed),
                Err(error) => {
                    *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
                    return self.over.store(true, Relaxed);
                }
            };
            if others == 0 {
                self.start_another(scope);
            }
            buffer = self.handle(&head, room, length);
            needless = if self.idle.load(Relaxed) >= IDLE { needless + 1 } else { 0 };
            if needless == A_WHILE {
                self.running.fetch_sub(1, Relaxed);
                return;
            }
        }
    }

    fn start_another<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let more = |running| (running < self.most).then_some(running + 1);
        if self.running.fetch_update(Relaxed, Relaxed, more).is_err() {
            return;
        }
        let started = thread::Builder::new().name("mount".into()).spawn_scoped(scope, || self.work(scope));
        if started.is_err() {
            self.running.fetch_sub(1, Relaxed); // those that there are do it
        }
    }

    /// Answers one request of this length, in bytes. Returns the buffer if it is free again.
    fn handle(&self, head: &[u8; HEAD], mut room: BufMut, length: usize) -> Option<BufMut> {
        let rest = length.saturating_sub(HEAD);
        // All that is longer is a write, or has a name in it.
        let whole;
        let mut request = Request::decode(&head[..length.min(HEAD)]);
        if rest > 0 && !matches!(request, Some(Request { what: What::Write { .. }, .. })) {
            whole = [&head[..], &room[..rest]].concat();
            request = Request::decode(&whole);
        }
        let Some(request) = request else {
            return Some(room); // without a number nobody can be answered
        };
        let unique = request.unique;
        if self.only.is_some_and(|user| request.user != 0 && request.user != user) {
            self.send(unique, Err(Errno::ACCESS));
            return Some(room);
        }
        match request.what {
            What::Forget => {}
            What::Write { length, .. } if length as usize != rest => self.send(unique, Err(Errno::INVAL)),
            What::Write { .. } => {
                room.truncate(rest);
                self.send(unique, self.file_system.answer(&request, &Data::from(room)));
                return None;
            }
            what => {
                self.send(unique, self.file_system.answer(&request, &Data::zeroes(0)));
                if what == What::Destroy {
                    self.over.store(true, Relaxed);
                }
            }
        }
        Some(room)
    }

    fn send(&self, unique: u64, answer: Result<Reply, Errno>) {
        let (error, bytes) = match &answer {
            Err(error) => (error.raw_os_error(), &[][..]),
            Ok(Reply::Body(Body(bytes))) => (0, &bytes[..]),
            Ok(Reply::Data(data)) => match data.as_bytes() {
                Some(bytes) => (0, bytes),
                None => return self.send(unique, Ok(Reply::Body(Body(data.to_vec())))),
            },
        };
        let header = protocol::answer(unique, error, bytes.len());
        // One that was interrupted wants no answer any more; and when all are gone, nobody does.
        let _ = rustix::io::writev(self.kernel, &[IoSlice::new(&header), IoSlice::new(bytes)]);
    }
}
