//! The state of an encrypted stream: OpenSSL between two buffers.
//!
//! OpenSSL never touches the descriptor. What was received lies in `Pipe::input` until it is decrypted; what it has encrypted
//! goes to `Pipe::output`, which takes any amount, so that encrypting cannot fail for want of room. All waiting is done
//! outside of the lock on OpenSSL's object: one thread may sleep in a receive while another sends.
//!
//! Two habits of a socket are kept up:
//! * A receive that returns less than there was room for has taken everything that was received so far. So a caller that
//!   waits for the descriptor only after such a receive (or after `WouldBlock`) sleeps through nothing.
//! * A byte counts as sent when the kernel has it. With [`Wait::DontWait`] some may be encrypted but not taken by the kernel:
//!   the caller is not told of them yet, comes back with the same bytes (as with any stream of bytes), and they are
//!   not encrypted again.

use super::{
    TlsFacts,
    raw::{self, Cursor, RECORD},
    reason,
};
use crate::{
    Room,
    raw::{Readable, Writable},
    stream::{Kind, Wait},
};
use openssl::{error::ErrorStack, ssl::SslStream};
use std::{
    io::{self, IoSlice, Read, Write},
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
};

/// So much is received at once.
const INPUT: usize = 128 << 10;
/// So much is encrypted before it is sent: few calls, and the bytes are still in the processor's cache. Three records go
/// through TCP in one piece, where four and what is around them would be cut in two.
const BATCH: usize = 6 * RECORD;

/// An encrypted stream's state, beside the descriptor.
#[derive(Debug)]
pub(crate) struct Session {
    facts: TlsFacts,
    /// For sentences: `the client` or `the server`.
    peer: &'static str,
    // Locks are taken in this order.
    sending: Mutex<Sending>,
    /// A buffer to receive into while `engine` is free for others.
    receiving: Mutex<Room>,
    engine: Mutex<Engine>,
}

#[derive(Debug)]
struct Engine {
    stream: SslStream<Pipe>,
    /// Why nothing more can be received.
    ended: Option<Ended>,
}

#[derive(Clone, Debug)]
enum Ended {
    InOrder,
    Broken(String),
}

#[derive(Debug, Default)]
struct Sending {
    /// Encrypted, and of that the part that the kernel has.
    bytes: Vec<u8>,
    sent: usize,
    /// How many of the caller's bytes `bytes` and what was sent of it stand for, that it was not told of.
    untold: usize,
    staging: Vec<u8>,
    said_goodbye: bool,
}

/// The descriptor as OpenSSL sees it.
#[derive(Debug)]
pub(super) struct Pipe {
    input: Room,
    start: usize,
    end: usize,
    output: Vec<u8>,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Pipe> {
        Ok(Pipe { input: Room::new(INPUT)?, start: 0, end: 0, output: Vec::new() })
    }

    /// Sends what there is, and receives something. 0: the stream has ended.
    pub(super) fn exchange(&mut self, kind: &Kind) -> io::Result<usize> {
        self.flush_to(kind)?;
        debug_assert_eq!(self.start, self.end);
        let n = kind.recv(&mut self.input, Wait::Block)?;
        (self.start, self.end) = (0, n);
        Ok(n)
    }

    /// Sends what there is.
    pub(super) fn flush_to(&mut self, kind: &Kind) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            match kind.send(&[IoSlice::new(&self.output[sent..])], Wait::Block)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => sent += n,
            }
        }
        self.output.clear();
        Ok(())
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(self.end - self.start);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        into[..n].copy_from_slice(&self.input[self.start..][..n]);
        self.start += n;
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Session {
    /// After the handshake.
    pub(super) fn new(stream: SslStream<Pipe>, facts: TlsFacts, peer: &'static str) -> io::Result<Session> {
        Ok(Session {
            facts,
            peer,
            sending: Mutex::default(),
            receiving: Mutex::new(Room::new(INPUT)?),
            engine: Mutex::new(Engine { stream, ended: None }),
        })
    }

    pub(crate) fn facts(&self) -> &TlsFacts {
        &self.facts
    }

    /// As [`Stream::recv_raw`](crate::Stream::recv_raw).
    pub(crate) fn recv(&self, kind: &Kind, into: Writable<'_>, wait: Wait) -> io::Result<usize> {
        let mut cursor = Cursor::into(into);
        if cursor.is_at_end() {
            return Ok(0);
        }
        let mut spare = match wait {
            Wait::Block => lock(&self.receiving),
            // Another thread waits in there: for it, nothing has come either.
            Wait::DontWait => try_lock(&self.receiving).ok_or(io::ErrorKind::WouldBlock)?,
        };
        let mut received = 0;
        // Whether the last receive left something in the kernel, so that another one costs no call in vain.
        let mut more = false;
        loop {
            let (now, ended) = lock(&self.engine).decrypt(&mut cursor, self.peer);
            received += now;
            match ended {
                _ if received > 0 && (!more || cursor.is_at_end()) => return Ok(received),
                Some(Ended::InOrder) => return Ok(received),
                Some(Ended::Broken(why)) if received == 0 => return Err(io::Error::other(why)),
                Some(Ended::Broken(_)) => return Ok(received),
                None => {}
            }
            let wait = if received > 0 { Wait::DontWait } else { wait };
            let n = match kind.recv(&mut spare, wait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && received > 0 => return Ok(received),
                other => other?,
            };
            more = n == spare.len();
            let mut engine = lock(&self.engine);
            if n == 0 {
                // Without the farewell that TLS has. NBD has one of its own, so nothing can be cut off unnoticed.
                engine.ended.get_or_insert(Ended::InOrder);
                continue;
            }
            let pipe = engine.stream.get_mut();
            debug_assert_eq!(pipe.start, pipe.end, "all was decrypted before");
            std::mem::swap(&mut pipe.input, &mut spare);
            (pipe.start, pipe.end) = (0, n);
        }
    }

    /// As [`Stream::send_raw`](crate::Stream::send_raw).
    pub(crate) fn send(&self, kind: &Kind, from: Readable<'_>, wait: Wait) -> io::Result<usize> {
        let mut sending = lock(&self.sending);
        sending.flush(kind, wait)?;
        let mut cursor = Cursor::out_of(from);
        let mut told = cursor.skip(sending.untold);
        sending.untold -= told;
        while !cursor.is_at_end() {
            let sending = &mut *sending;
            let taken = {
                let mut engine = lock(&self.engine);
                let taken = cursor.write_to(engine.stream.ssl(), &mut sending.staging, BATCH);
                let taken = taken.map_err(|_| io::Error::other(failure(self.peer)))?;
                // What OpenSSL has written by itself meanwhile comes before.
                std::mem::swap(&mut engine.stream.get_mut().output, &mut sending.bytes);
                taken
            };
            match sending.flush(kind, wait) {
                Ok(()) => told += taken,
                Err(e) => {
                    sending.untold = taken;
                    return if e.kind() == io::ErrorKind::WouldBlock && told > 0 { Ok(told) } else { Err(e) };
                }
            }
        }
        Ok(told)
    }

    /// Gives back what is not needed until something comes or goes. Whoever is in the midst of either keeps what he has.
    pub(crate) fn rest(&self) {
        if let Some(mut sending) = try_lock(&self.sending)
            && sending.sent == sending.bytes.len()
        {
            (sending.bytes, sending.sent, sending.staging) = (Vec::new(), 0, Vec::new());
        }
        if let Some(mut spare) = try_lock(&self.receiving) {
            spare.release();
        }
        if let Some(mut engine) = try_lock(&self.engine) {
            raw::release_buffers(engine.stream.ssl());
            let pipe = engine.stream.get_mut();
            if pipe.start == pipe.end {
                pipe.input.release();
            }
            if pipe.output.is_empty() {
                pipe.output = Vec::new();
            }
        }
    }

    /// Tells the other end that nothing more will come, if that can be done without waiting.
    pub(crate) fn say_goodbye(&self, kind: &Kind) {
        let Some(mut sending) = try_lock(&self.sending) else { return };
        let Some(mut engine) = try_lock(&self.engine) else { return };
        if std::mem::replace(&mut sending.said_goodbye, true) {
            return;
        }
        raw::close(engine.stream.ssl());
        sending.bytes.append(&mut engine.stream.get_mut().output);
        drop(engine);
        let _ = sending.flush(kind, Wait::DontWait); // who does not listen needs no farewell
    }
}

impl Sending {
    fn flush(&mut self, kind: &Kind, wait: Wait) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match kind.send(&[IoSlice::new(&self.bytes[self.sent..])], wait)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.sent += n,
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

impl Engine {
    /// Decrypts as much of what was received as there is room for. Returns how much, and whether that was the end.
    fn decrypt<'a>(&mut self, cursor: &mut Cursor<'a, Writable<'a>>, peer: &str) -> (usize, Option<Ended>) {
        let mut received = 0;
        raw::forget_errors();
        while !cursor.is_at_end() && self.ended.is_none() {
            match cursor.read_from(self.stream.ssl()) {
                Ok(n) => received += n,
                Err(n) => match raw::outcome(self.stream.ssl(), n) {
                    openssl_sys::SSL_ERROR_WANT_READ => break,
                    openssl_sys::SSL_ERROR_ZERO_RETURN => self.ended = Some(Ended::InOrder),
                    _ => self.ended = Some(Ended::Broken(failure(peer))),
                },
            }
        }
        (received, self.ended.clone())
    }
}

fn failure(peer: &str) -> String {
    reason::sentence(&ErrorStack::get(), peer)
}

// What `write_to` may put into `staging`.
const _: () = assert!(RECORD <= BATCH);
