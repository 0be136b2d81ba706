//! One queue of a device: requests in flight, their buffers, and the completions, which wake whoever waits.
//!
//! A buffer that a request uses belongs to its slot, not to the future that waits for it, so that a future can be
//! dropped while the device still reads or writes. Devices that reach only certain memory get a region, cut into chunks.

use ::disk::{BufMut, Data, Errno, Error, Result, shared::SharedMemory};
use blkio::{Blkioq, Completion, ReqFlags};
use reactor::{Driver, Interest};
use std::{
    collections::BTreeMap,
    future::Future,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The part of the region that one request uses, in bytes.
pub(super) const CHUNK: usize = 128 << 10;
/// So many completions are taken at once.
const AT_ONCE: usize = 64;
/// With so many requests in flight, completions come in batches.
const MANY: usize = 8;
/// How long closing waits for a file's requests.
const PATIENCE: Duration = Duration::from_secs(10);

/// The chunks of a region that one queue may use.
pub(crate) struct Chunks {
    pub(super) memory: Arc<SharedMemory>,
    /// Offsets in the region that no request uses.
    pub(super) free: Vec<usize>,
}

/// What a request is to do, with the memory for it. Chunks are offsets in the region.
pub(crate) enum Request {
    Read { at: u64, into: BufMut },
    Write { at: u64, from: Data, fua: bool },
    ReadChunk { at: u64, chunk: usize, len: usize },
    WriteChunk { at: u64, chunk: usize, len: usize, fua: bool },
    Zero { at: u64, len: u64, unmap: bool, fast: bool, fua: bool },
    Discard { at: u64, len: u64 },
    Flush,
}

/// A request in its slot.
struct Slot {
    request: Request,
    outcome: Option<std::result::Result<(), Errno>>,
    waker: Option<Waker>,
    /// Nobody waits any more.
    abandoned: bool,
}

struct State {
    /// `None` once it is closed.
    queue: Option<Blkioq>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    chunks: Option<Chunks>,
    /// Those who wait for a chunk.
    waiting: Vec<Waker>,
    /// Those who wait until there is room in the queue, the first first.
    line: BTreeMap<u64, Waker>,
    next_ticket: u64,
    /// Those who wait for what nobody else waits for.
    settling: Vec<Waker>,
    /// Why nothing works any more.
    dead: Option<Error>,
}

/// A queue that many threads share.
pub(crate) struct Queue {
    state: Mutex<State>,
    event: OwnedFd,
    /// So many requests fit in. The drivers would keep what is more than that for later, but not all of them look at it
    /// again when the queue is empty.
    depth: usize,
    in_flight: AtomicUsize,
    /// Something was put into the queue that the device was not told of.
    unsubmitted: AtomicBool,
}

impl Queue {
    /// # Errors
    /// When no descriptor is to be had.
    pub(crate) fn new(mut queue: Blkioq, depth: usize, chunks: Option<Chunks>) -> Result<Arc<Queue>> {
        let fd = queue.get_completion_fd().ok_or_else(|| Error::io("the driver gives no descriptor"))?;
        // SAFETY: the queue has it open, and lives longer than this borrow.
        let event = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        queue.set_completion_fd_enabled(true);
        let state = State {
            queue: Some(queue),
            slots: Vec::new(),
            free: Vec::new(),
            chunks,
            waiting: Vec::new(),
            line: BTreeMap::new(),
            next_ticket: 0,
            settling: Vec::new(),
            dead: None,
        };
        Ok(Arc::new(Queue {
            state: Mutex::new(state),
            event,
            depth: depth.max(1),
            in_flight: AtomicUsize::new(0),
            unsubmitted: AtomicBool::new(false),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the device of new requests, and takes what it has completed.
    pub(crate) fn turn(&self) {
        self.unsubmitted.store(false, SeqCst);
        self.lock().turn(self, 0, Duration::ZERO);
    }

    /// Nothing works any more: all who wait are told why.
    pub(super) fn fail(&self, why: Error) {
        self.lock().fail(self, why);
    }

    /// Whether the queue still works.
    pub(super) fn is_alive(&self) -> bool {
        self.lock().dead.is_none()
    }

    /// Gives the queue back to the driver. Nobody waits any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.chunks.is_none() && state.dead.is_none() {
            // The kernel may still write to the buffers of requests that nobody waits for.
            while self.in_flight.load(SeqCst) > 0 && state.turn(self, 1, PATIENCE) {}
            if self.in_flight.load(SeqCst) > 0 {
                // Better lost than written to by others.
                std::mem::forget(std::mem::take(&mut state.slots));
            }
        }
        if state.dead.is_none() {
            state.dead = Some(Errno::SHUTDOWN.into());
        }
        state.queue = None;
    }
}

impl State {
    /// Puts a request into the queue. The device is told of it by the loop, before it waits.
    fn put(&mut self, shared: &Queue, mut request: Request) -> Result<usize> {
        let Some(queue) = &mut self.queue else { return Err(Errno::SHUTDOWN.into()) };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let memory = self.chunks.as_ref().map(|chunks| &chunks.memory);
        let place = |chunk: usize, len: usize| {
            let (at, _) = memory.expect("chunks are of a region").lend(chunk, len).as_raw();
            at.cast_mut()
        };
        let durable = |fua: bool| if fua { ReqFlags::FUA } else { ReqFlags::empty() };
        // Buffers are pages on the heap, so their addresses stay when the request moves into its slot below.
        match &mut request {
            Request::Read { at, into } => {
                queue.read(*at, into.as_mut_ptr(), into.len(), slot, ReqFlags::empty());
            }
            Request::Write { at, from, fua } => {
                let bytes = from.as_bytes().unwrap_or_default();
                queue.write(*at, bytes.as_ptr(), bytes.len(), slot, durable(*fua));
            }
            Request::ReadChunk { at, chunk, len } => {
                queue.read(*at, place(*chunk, *len), *len, slot, ReqFlags::empty());
            }
            Request::WriteChunk { at, chunk, len, fua } => {
                queue.write(*at, place(*chunk, *len), *len, slot, durable(*fua));
            }
            Request::Zero { at, len, unmap, fast, fua } => {
                let mut flags = durable(*fua);
                flags.set(ReqFlags::NO_UNMAP, !*unmap);
                flags.set(ReqFlags::NO_FALLBACK, *fast);
                queue.write_zeroes(*at, *len, slot, flags);
            }
            Request::Discard { at, len } => queue.discard(*at, *len, slot, ReqFlags::empty()),
            Request::Flush => queue.flush(slot, ReqFlags::empty()),
        }
        self.slots[slot] = Some(Slot { request, outcome: None, waker: None, abandoned: false });
        shared.in_flight.fetch_add(1, SeqCst);
        shared.unsubmitted.store(true, SeqCst);
        Ok(slot)
    }

    /// Submits and takes completions; `false` when none came in this time or the queue is dead.
    fn turn(&mut self, shared: &Queue, least: usize, mut patience: Duration) -> bool {
        let mut any = false;
        loop {
            let Some(queue) = &mut self.queue else { return any };
            if self.dead.is_some() {
                return any;
            }
            let mut done = [const { MaybeUninit::<Completion>::uninit() }; AT_ONCE];
            let (least, limit) = if any { (0, None) } else { (least, (least > 0).then_some(&mut patience)) };
            // A device that breaks the rules of its rings trips assertions in the driver.
            let count = match catch_unwind(AssertUnwindSafe(|| queue.do_io(&mut done, least, limit, None))) {
                Ok(Ok(count)) => count,
                Ok(Err(e)) => {
                    use blkio::Errno as E;
                    match e.errno() {
                        // It will be tried again; see `Waiting`.
                        E::INTR | E::AGAIN | E::BUSY | E::TIME => {
                            shared.unsubmitted.store(true, SeqCst);
                        }
                        _ => self.fail(shared, super::device::error(&e)),
                    }
                    return any;
                }
                Err(_) => {
                    self.fail(shared, Error::io("the device broke the rules of its queue"));
                    return any;
                }
            };
            for completion in &done[..count] {
                // SAFETY: the driver has filled in so many.
                let completion = unsafe { completion.assume_init_ref() };
                let outcome = match completion.ret {
                    0.. => Ok(()),
                    negative => Err(Errno::from_raw(negative.saturating_neg())),
                };
                self.complete(shared, completion.user_data, outcome);
            }
            any |= count > 0;
            if count < AT_ONCE {
                return any;
            }
        }
    }

    fn complete(&mut self, shared: &Queue, slot: usize, outcome: std::result::Result<(), Errno>) {
        let Some(Some(found)) = self.slots.get_mut(slot) else { return };
        if found.outcome.is_some() {
            return;
        }
        shared.in_flight.fetch_sub(1, SeqCst);
        found.outcome = Some(outcome);
        if let Some((_, next)) = self.line.pop_first() {
            next.wake();
        }
        if let Some(waker) = found.waker.take() {
            waker.wake();
        }
        if found.abandoned {
            let slot = self.release(slot);
            self.give_back(slot);
            self.settling.drain(..).for_each(Waker::wake);
        }
    }

    /// Whether the device still works on something that nobody waits for.
    fn is_unsettled(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.abandoned && slot.outcome.is_none())
    }

    fn fail(&mut self, shared: &Queue, why: Error) {
        if self.dead.is_some() {
            return;
        }
        self.dead = Some(why);
        shared.in_flight.store(0, SeqCst);
        for found in self.slots.iter_mut().flatten().filter(|slot| slot.outcome.is_none()) {
            found.outcome = Some(Err(Errno::IO));
            if let Some(waker) = found.waker.take() {
                waker.wake();
            }
            // Whether the device still uses the buffer nobody can tell: better lost than written to by others.
            std::mem::forget(std::mem::replace(&mut found.request, Request::Flush));
        }
        self.waiting.drain(..).for_each(Waker::wake);
        self.settling.drain(..).for_each(Waker::wake);
        std::mem::take(&mut self.line).into_values().for_each(Waker::wake);
    }

    /// Frees a slot whose request is complete.
    fn release(&mut self, slot: usize) -> Option<Request> {
        self.free.push(slot);
        self.slots[slot].take().map(|slot| slot.request)
    }

    /// The chunk of a request that nobody looks at can be used again.
    fn give_back(&mut self, request: Option<Request>) {
        if let Some(Request::ReadChunk { chunk, .. } | Request::WriteChunk { chunk, .. }) = request {
            self.give_back_chunk(chunk);
        }
    }

    fn give_back_chunk(&mut self, chunk: usize) {
        if let Some(chunks) = &mut self.chunks {
            chunks.free.push(chunk);
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Driver for Queue {
    fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
    fn interest(&self) -> Interest {
        Interest { read: self.in_flight.load(SeqCst) > 0, write: false }
    }
    fn expects_many(&self) -> bool {
        self.in_flight.load(SeqCst) >= MANY
    }
    fn before_wait(&self) {
        if self.unsubmitted.load(SeqCst) {
            self.turn();
        }
    }
    fn ready(&self) {
        // First: a completion after this makes the descriptor ready again.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        self.turn();
    }
}

/// A queue, and the same as the loop knows it.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) queue: Arc<Queue>,
    driver: Arc<dyn Driver>,
}

impl Handle {
    pub(crate) fn new(queue: Arc<Queue>) -> Handle {
        Handle { driver: queue.clone(), queue }
    }

    /// Does a request, once that is awaited; it comes back with what its memory holds then.
    pub(crate) fn run(&self, request: Request) -> Waiting<'_> {
        Waiting { handle: self, stage: Stage::InLine { request: Some(request), ticket: None } }
    }

    /// A chunk of the region, when there is one.
    pub(super) async fn chunk(&self) -> Result<Chunk<'_>> {
        std::future::poll_fn(|cx| {
            let mut state = self.queue.lock();
            if let Some(dead) = &state.dead {
                return Poll::Ready(Err(dead.duplicate()));
            }
            let Some(chunks) = &mut state.chunks else {
                return Poll::Ready(Err(Error::io("this driver has no region")));
            };
            if let Some(at) = chunks.free.pop() {
                let memory = chunks.memory.clone();
                return Poll::Ready(Ok(Chunk { queue: &self.queue, memory, at: Some(at) }));
            }
            state.waiting.push(cx.waker().clone());
            drop(state);
            reactor::watch(&self.driver);
            Poll::Pending
        })
        .await
    }

    /// Waits until the device is done with all that was given up while it was under way.
    pub(crate) async fn settled(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.queue.lock();
            if !state.is_unsettled() {
                return Poll::Ready(());
            }
            state.settling.push(cx.waker().clone());
            drop(state);
            reactor::watch(&self.driver);
            Poll::Pending
        })
        .await;
    }
}

/// A part of the region that somebody prepares or looks at.
pub(super) struct Chunk<'a> {
    queue: &'a Queue,
    pub(super) memory: Arc<SharedMemory>,
    at: Option<usize>,
}

impl Chunk<'_> {
    /// Its offset in the region.
    pub(super) fn at(&self) -> usize {
        self.at.unwrap_or_default()
    }

    /// The request has it from now on.
    pub(super) fn into_request(mut self) -> usize {
        self.at.take().unwrap_or_default()
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            self.queue.lock().give_back_chunk(at);
        }
    }
}

/// A request on its way.
pub(crate) struct Waiting<'a> {
    handle: &'a Handle,
    stage: Stage,
}

enum Stage {
    InLine { request: Option<Request>, ticket: Option<u64> },
    InFlight(usize),
    Done,
}

impl Waiting<'_> {
    /// The request's memory back as a chunk, which returns to the queue when it was looked at.
    pub(super) fn chunk_of(handle: &Handle, request: Request) -> Option<Chunk<'_>> {
        let (Request::ReadChunk { chunk, .. } | Request::WriteChunk { chunk, .. }) = request else {
            return None;
        };
        let memory = handle.queue.lock().chunks.as_ref()?.memory.clone();
        Some(Chunk { queue: &handle.queue, memory, at: Some(chunk) })
    }

    fn poll_locked(
        stage: &mut Stage,
        queue: &Queue,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Request>> {
        if let Stage::InLine { request, ticket } = stage {
            if let Some(dead) = &state.dead {
                return Poll::Ready(Err(dead.duplicate()));
            }
            if queue.in_flight.load(SeqCst) >= queue.depth {
                let ticket = *ticket.get_or_insert_with(|| {
                    state.next_ticket += 1;
                    state.next_ticket
                });
                state.line.insert(ticket, cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(ticket) = ticket {
                state.line.remove(ticket);
            }
            let Some(request) = request.take() else { return Poll::Ready(Err(Error::io("awaited twice"))) };
            *stage = Stage::InFlight(state.put(queue, request)?);
        }
        let Stage::InFlight(slot) = *stage else { return Poll::Ready(Err(Error::io("awaited twice"))) };
        let Some(Some(found)) = state.slots.get_mut(slot) else {
            return Poll::Ready(Err(Errno::SHUTDOWN.into()));
        };
        let Some(outcome) = found.outcome.take() else {
            if !found.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                found.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        *stage = Stage::Done;
        Poll::Ready(match (outcome, state.release(slot)) {
            (Ok(()), Some(request)) => Ok(request),
            (outcome, request) => {
                state.give_back(request);
                Err(match (&state.dead, outcome) {
                    (Some(dead), _) => dead.duplicate(),
                    (None, Err(errno)) => errno.into(),
                    (None, Ok(())) => Errno::IO.into(),
                })
            }
        })
    }
}

impl Future for Waiting<'_> {
    type Output = Result<Request>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Request>> {
        let handle = self.handle;
        let polled = Waiting::poll_locked(&mut self.stage, &handle.queue, &mut handle.queue.lock(), cx);
        if polled.is_pending() {
            reactor::watch(&handle.driver);
        }
        polled
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.handle.queue.lock();
        match &mut self.stage {
            Stage::InLine { request, ticket } => {
                state.give_back(request.take());
                // Who was called already and does not come lets the next one go first.
                if ticket.is_some_and(|ticket| state.line.remove(&ticket).is_none())
                    && let Some((_, next)) = state.line.pop_first()
                {
                    next.wake();
                }
            }
            Stage::InFlight(slot) => {
                let slot = *slot;
                let Some(Some(found)) = state.slots.get_mut(slot) else { return };
                if found.outcome.is_none() {
                    found.abandoned = true;
                    return;
                }
                let request = state.release(slot);
                state.give_back(request);
            }
            Stage::Done => {}
        }
    }
}
