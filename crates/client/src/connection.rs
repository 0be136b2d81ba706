//! One connection in the transmission phase: many requests in flight, answered in any order.
//!
//! Requests are gathered and sent together when the thread is about to wait. Whoever waits, drives: any thread
//! that awaits an answer receives for all of them. A request that is dropped abandons its answer, not its
//! effect. Anything that the server does wrong ends the connection with one error, which every request gets.

mod answer;
mod inbox;
mod outbox;
mod slots;
mod watch;

pub use answer::{Answer, ContextStatus};
pub use watch::SizeWatch;

use disk::{Data, Errno, Error, Result};
use inbox::Inbox;
use net::{How, Stream, Wait};
use outbox::{Outbox, PLENTY};
use proto::{Command, CommandFlags, Context, ReplyStyle, Request, command::BlockStatusPayload};
use reactor::{Driver, Interest, Spin};
use slots::{Counts, Slots};
use std::{
    cell::RefCell,
    future::Future,
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{self, Poll, Waker},
};

/// A connection after its handshake. Dropping it says goodbye to the server, without waiting for requests
/// whose answers nobody awaits any more: see [`Connection::disconnect`].
pub struct Connection {
    inner: Arc<Inner>,
    /// `inner` again, as the reactor wants it.
    driver: Arc<dyn Driver>,
}

struct Inner {
    stream: Stream,
    style: ReplyStyle,
    counts: Counts,
    // Locks are taken in this order, and never `slots` with `outbox`.
    inbox: Mutex<Inbox>,
    slots: Mutex<Slots>,
    outbox: Mutex<Outbox>,
    /// Whether `outbox` holds anything, readable without its lock.
    unsent: AtomicBool,
    /// For [`Ticket::wait`]; the loop has its own.
    spin: Spin,
    /// Whom to wake when nothing is in flight any more.
    idle: Mutex<Option<Waker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request, before it has a cookie.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What to do.
    pub command: Command,
    /// How to do it. PAYLOAD_LEN is set as needed.
    pub flags: CommandFlags,
    /// First byte.
    pub offset: u64,
    /// How many bytes; with compact headers at most `u32::MAX`.
    pub length: u64,
}

impl Connection {
    /// Go on with a stream on which a handshake agreed on these replies and metadata contexts.
    pub fn new(stream: Stream, style: ReplyStyle, contexts: &[Context]) -> Connection {
        let inner = Arc::new(Inner {
            stream,
            style,
            counts: Counts::default(),
            inbox: Mutex::new(Inbox::new(style, contexts)),
            slots: Mutex::default(),
            outbox: Mutex::default(),
            unsent: AtomicBool::new(false),
            spin: Spin::new(),
            idle: Mutex::default(),
        });
        Connection { driver: inner.clone(), inner }
    }

    /// Queue a request; await the ticket for its answer. It is sent when the thread waits, or when there is
    /// plenty to send. `payload` is the data of a WRITE.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn submit(&self, ask: Ask, payload: Option<&Data>) -> Result<Ticket<'_>> {
        self.queue(ask, payload, &[])
    }

    /// Queue a BLOCK_STATUS request for only some of the contexts. Needs extended headers, and the server must
    /// have advertised BLOCK_STATUS_PAYLOAD.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn submit_status(&self, ask: Ask, contexts: &[u32]) -> Result<Ticket<'_>> {
        let mut bytes = Vec::with_capacity(8 + 4 * contexts.len());
        BlockStatusPayload { length: ask.length, contexts: contexts.to_vec() }.encode_into(&mut bytes);
        self.queue(ask, None, &bytes)
    }

    fn queue(&self, ask: Ask, payload: Option<&Data>, status: &[u8]) -> Result<Ticket<'_>> {
        let inner = &*self.inner;
        let Ask { command, mut flags, offset, length } = ask;
        let has_payload = command == Command::Write || !status.is_empty();
        if inner.style == ReplyStyle::Extended && has_payload {
            flags |= CommandFlags::PAYLOAD_LEN;
        }
        let request = Request { flags, command, cookie: 0, offset, length };
        let mut request = lock(&inner.slots).add(request, &inner.counts)?;
        let cookie = request.cookie;
        if !status.is_empty() {
            request.length = status.len() as u64;
        }
        let mut outbox = lock(&inner.outbox);
        outbox.push(inner.style.header_style(), &request, payload);
        outbox.push_bytes(status);
        let plenty = outbox.queued() >= PLENTY;
        inner.unsent.store(true, Relaxed);
        drop(outbox);
        if plenty {
            inner.flush();
        }
        Ok(Ticket { connection: self, cookie, taken: false })
    }

    /// How many replies are outstanding, including those that nobody awaits; not that to [`Connection::watch_size`],
    /// which has no end.
    pub fn in_flight(&self) -> usize {
        self.inner.counts.finite()
    }

    /// How many bytes of requests wait to be sent: what is in flight beyond that holds no memory here.
    pub fn unsent(&self) -> usize {
        if !self.inner.unsent.load(Relaxed) {
            return 0;
        }
        lock(&self.inner.outbox).queued()
    }

    /// Why the connection ended, if it did.
    pub fn error(&self) -> Option<Error> {
        lock(&self.inner.slots).dead().map(Error::duplicate)
    }

    /// The stream below, to learn about the peer.
    pub fn stream(&self) -> &Stream {
        &self.inner.stream
    }

    /// The end of all writes, zeroes and trims that are in flight now although their tickets were dropped; `None` where
    /// there are none. Until then they may take effect, also over what is written meanwhile: a server may carry out in any
    /// order what is in flight at once, and its flush waits only for what it has answered.
    pub fn settled(&self) -> Option<impl Future<Output = ()> + Send + '_> {
        let mut before = lock(&self.inner.slots).unsettled();
        if before.is_empty() {
            return None;
        }
        Some(std::future::poll_fn(move |cx| {
            if lock(&self.inner.slots).has_settled(&mut before, cx.waker()) {
                return Poll::Ready(());
            }
            reactor::watch(&self.driver);
            Poll::Pending
        }))
    }

    /// Wait until everything in flight is answered, then tell the server that the session is over.
    /// Later requests fail.
    ///
    /// # Errors
    /// The connection ended before all was answered.
    pub async fn disconnect(&self) -> Result<()> {
        std::future::poll_fn(|cx| {
            // Stored before looking, so that the last answer cannot slip through.
            *lock(&self.inner.idle) = Some(cx.waker().clone());
            if self.in_flight() == 0 {
                return Poll::Ready(());
            }
            reactor::watch(&self.driver);
            Poll::Pending
        })
        .await;
        let error = self.error();
        self.say_goodbye();
        error.map_or(Ok(()), Err)
    }

    fn say_goodbye(&self) {
        let inner = &*self.inner;
        if lock(&inner.slots).dead().is_some() {
            return;
        }
        let (flags, command) = (CommandFlags::NONE, Command::Disc);
        let request = Request { flags, command, cookie: 0, offset: 0, length: 0 };
        let mut outbox = lock(&inner.outbox);
        outbox.push(inner.style.header_style(), &request, None);
        inner.unsent.store(true, Relaxed);
        drop(outbox);
        inner.flush();
        let _ = inner.stream.shutdown(How::Write); // the server may be gone; then it needs no goodbye
        inner.fail(Error::new(Errno::SHUTDOWN, "the connection was closed"), false);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

impl Inner {
    /// Send without waiting.
    fn flush(&self) {
        if !self.unsent.load(Relaxed) {
            return;
        }
        let mut outbox = lock(&self.outbox);
        let sent = outbox.send(&self.stream, Wait::DontWait);
        self.unsent.store(outbox.queued() > 0, Relaxed);
        drop(outbox);
        if let Err(e) = sent {
            // The server may have said why before it closed; what it said was read or is lost.
            self.fail(broken("sending to", e), true);
        }
    }

    /// Receive and decode what is there, or (waiting) what comes next. Returns whether anything came.
    fn receive(&self, inbox: &mut Inbox, mut wait: Wait) -> bool {
        let mut any = false;
        loop {
            let more = match inbox.receive(&self.stream, wait, self.counts.only_large()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return any,
                Err(e) => return self.fail(broken("receiving from", e), true),
                Ok((0, _)) => {
                    let unanswered = self.counts.finite();
                    let text =
                        format!("the server closed the connection with {unanswered} requests unanswered");
                    return self.fail(Error::new(Errno::SHUTDOWN, text), true);
                }
                Ok((_, more)) => more,
            };
            any = true;
            let mut wakers = std::mem::take(&mut inbox.wakers);
            let mut slots = lock(&self.slots);
            let decoded = inbox.decode(&mut slots, &self.counts, &mut wakers);
            slots.take_settled(&mut wakers);
            drop(slots);
            wakers.drain(..).for_each(Waker::wake);
            inbox.wakers = wakers;
            if self.counts.finite() == 0 {
                self.wake_idle();
            }
            if let Err(text) = decoded {
                return self.fail(Error::io(text), true);
            }
            // What was received but not decrypted yet shows in no descriptor: over TLS it is taken at once.
            if !more || (wait == Wait::Block && self.stream.tls().is_none()) {
                return true;
            }
            wait = Wait::DontWait;
        }
    }

    /// End the connection: everybody who waits gets the error. Returns true: that is an event, too.
    fn fail(&self, error: Error, hang_up: bool) -> bool {
        let wakers = lock(&self.slots).fail(error, &self.counts);
        lock(&self.outbox).clear();
        self.unsent.store(false, Relaxed);
        if hang_up {
            let _ = self.stream.shutdown(How::Both); // it is broken already
        }
        wakers.into_iter().for_each(Waker::wake);
        self.wake_idle();
        true
    }

    fn wake_idle(&self) {
        let waker = lock(&self.idle).take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn try_inbox(&self) -> Option<MutexGuard<'_, Inbox>> {
        match self.inbox.try_lock() {
            Ok(inbox) => Some(inbox),
            Err(TryLockError::Poisoned(inbox)) => Some(inbox.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

fn broken(doing: &str, e: io::Error) -> Error {
    let errno = match e.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Errno::SHUTDOWN,
        _ => Errno::IO,
    };
    Error::new(errno, format!("{doing} the server failed: {}", Error::from(e)))
}

impl Driver for Inner {
    fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn interest(&self) -> Interest {
        Interest { read: self.counts.waiting() > 0, write: self.unsent.load(Relaxed) }
    }

    fn expects_many(&self) -> bool {
        self.counts.waiting() > 4
    }

    fn before_wait(&self) {
        self.flush();
    }

    fn ready(&self) {
        self.flush();
        match self.try_inbox() {
            Some(mut inbox) => _ = self.receive(&mut inbox, Wait::DontWait),
            // Somebody else receives: for us, too. Until then the loop would find the same, again and again, and on one core
            // keep the other from it.
            None => std::thread::yield_now(),
        }
    }
}

/// A request under way. Await it for the answer; drop it, and the answer is abandoned.
#[must_use = "the answer, and whether there was an error, is known only when the ticket is awaited"]
pub struct Ticket<'a> {
    connection: &'a Connection,
    cookie: u64,
    taken: bool,
}

impl Ticket<'_> {
    fn take(&mut self) -> Option<Result<Answer>> {
        let answer = lock(&self.connection.inner.slots).take(self.cookie);
        self.taken |= answer.is_some();
        answer
    }

    /// Wait for the answer on this thread. With nobody else receiving, that is one send and one receive.
    ///
    /// # Errors
    /// What the server answered, or how the connection ended.
    pub fn wait(mut self) -> Result<Answer> {
        let inner = &*self.connection.inner;
        inner.flush();
        loop {
            if let Some(answer) = self.take() {
                return answer;
            }
            // What cannot be sent now needs the loop, and so does what another thread receives for us.
            if inner.unsent.load(Relaxed) {
                break;
            }
            let Some(mut inbox) = inner.try_inbox() else { break };
            // Between the look above and the lock, the answer may have come.
            if let Some(answer) = self.take() {
                return answer;
            }
            let inbox = RefCell::new(&mut *inbox);
            inner.spin.wait(
                || inner.receive(&mut inbox.borrow_mut(), Wait::DontWait).then_some(true),
                || inner.receive(&mut inbox.borrow_mut(), Wait::Block),
            );
        }
        reactor::block_on(self)
    }
}

impl Future for Ticket<'_> {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let connection = self.connection;
        let mut slots = lock(&connection.inner.slots);
        if let Some(answer) = slots.take(self.cookie) {
            drop(slots);
            self.taken = true;
            return Poll::Ready(answer);
        }
        slots.set_waker(self.cookie, cx.waker());
        drop(slots);
        reactor::watch(&connection.driver);
        Poll::Pending
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // What was asked for must still be sent, and the reply read, by whoever waits next.
        if !self.taken && lock(&self.connection.inner.slots).abandon(self.cookie) {
            reactor::watch(&self.connection.driver);
        }
    }
}
