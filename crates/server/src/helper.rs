//! A second thread for a connection that moves large payloads, while other cores have nothing to do.
//!
//! The connection's own thread, which alone receives, lays large requests on a desk when more are behind them. The helper
//! takes them from there whole, asks the disk and sends the replies; and so does the connection's thread when there is
//! nothing to receive. So one payload is copied from or to the disk while another goes through the socket. Nobody
//! waits for the helper, but for the turn to send.
//!
//! Small requests stay where they are, since the hand-over costs more than they do (decision 0001), and so do those of
//! disks that do not answer at once: they wait together, in the connection's own set.

use crate::{
    output::Output,
    pending::{Answer, Outcome, Pending},
    stack,
    transmit::Broken,
};
use disk::{Data, Disk, Range, WriteFlags};
use net::{How, Stream, Wait};
use proto::{Command, CommandFlags, ReplyStyle, ReplyTo, Request};
use reactor::Spin;
use std::{
    cell::OnceCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Poll, Waker},
    thread::{Builder, Scope, available_parallelism, panicking},
    time::{Duration, Instant},
};

/// From this size on a payload is worth the hand-over.
pub(crate) const LARGE: u64 = 64 << 10;
/// Above it, a few of them would be more memory than a connection should take.
const TOO_LARGE: u64 = 4 << 20;
/// The disk has answered about so many large requests in a row at once, with others behind them.
const STEADY: u32 = 16;
/// So many reads wait on the desk ...
const READS: usize = 64;
/// ... or so many writes, with their payloads.
const WRITES: usize = 2;
/// How long a helper stays without work.
const MOMENT: Duration = Duration::from_secs(1);

/// The helpers of all connections.
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// How many there may be: where more connections are busy than half of the cores, these have enough to do.
fn most_helpers() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| available_parallelism().map_or(0, |cores| cores.get() / 2))
}

/// A read, or a write with what is to be written.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) payload: Option<Data>,
}

impl Job {
    /// Asks the disk.
    pub(crate) fn begin<'d>(&self, disk: &'d dyn Disk) -> Pending<'d> {
        let Request { offset, length, flags, .. } = self.request;
        let answer = match &self.payload {
            None => Answer::Read(disk.read(Range::new(offset, length))),
            Some(data) => {
                let flags = WriteFlags { fua: flags.has(CommandFlags::FUA) };
                Answer::Done(disk.write(offset, data.clone(), flags))
            }
        };
        Pending { request: self.request, answer }
    }
}

/// Between the two threads of a connection.
#[derive(Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    /// How many jobs there are, to be looked at without the lock.
    jobs: AtomicUsize,
    changed: Condvar,
    /// Held while replies are sent, to their last byte. Says why no more can be.
    turn: Mutex<Option<Broken>>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Payloads that the helper has written: their memory is given back by the thread that took it.
    written: Vec<Data>,
    /// There is a helper ...
    present: bool,
    /// ... which sleeps ...
    asleep: bool,
    /// ... or carries something out.
    busy: bool,
    /// No more jobs will come ...
    over: bool,
    /// ... nor does anybody want what is under way.
    abandoned: bool,
    /// Whom to tell.
    waits: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a connection's desk stands, once it is needed: few ever need one.
#[derive(Default)]
pub(crate) struct Spot(OnceCell<Box<Desk>>);

impl Spot {
    #[inline]
    pub(crate) fn desk(&self) -> Option<&Desk> {
        self.0.get().map(|desk| &**desk)
    }

    pub(crate) fn desk_at_last(&self) -> &Desk {
        self.0.get_or_init(Box::default)
    }
}

/// The connection's side of the desk. When it is dropped, the helper ends.
pub(crate) struct Helper<'d> {
    spot: &'d Spot,
    /// Starts the thread; whether it could.
    start: &'d dyn Fn() -> bool,
    /// This connection may have one.
    allowed: bool,
    /// How many large requests in a row were answered at once.
    steady: u32,
}

/// The right to send.
pub(crate) struct Turn<'d> {
    _held: Option<MutexGuard<'d, Option<Broken>>>,
}

impl<'d> Helper<'d> {
    pub(crate) fn new(spot: &'d Spot, start: &'d dyn Fn() -> bool, allowed: bool) -> Self {
        Helper { spot, start, allowed: allowed && most_helpers() > 0, steady: 0 }
    }

    /// A large request was answered at once; `last`: the client had sent nothing behind it.
    pub(crate) fn praise(&mut self, last: bool) {
        self.steady = if last && !self.is_busy() {
            self.steady.saturating_sub(1)
        } else {
            (2 * STEADY).min(self.steady + 1)
        };
    }

    /// A request had to wait.
    pub(crate) fn doubt(&mut self) {
        self.steady = 0;
    }

    /// Whether this request would be welcome on the desk.
    #[inline]
    pub(crate) fn wants(&self, request: &Request) -> bool {
        let most = if request.command == Command::Write { WRITES } else { READS };
        (LARGE..=TOO_LARGE).contains(&request.length)
            && self.allowed
            && self.steady >= STEADY
            && self.spot.desk().is_none_or(|desk| desk.jobs.load(Relaxed) < most)
    }

    /// Lays a job on the desk; it comes back where there is no helper to be had.
    pub(crate) fn give(&mut self, job: Job) -> Result<(), Job> {
        let desk = self.spot.desk_at_last();
        let mut state = lock(&desk.state);
        if !state.present {
            drop(state);
            if !(self.start)() {
                // Asked again after some more.
                self.steady = 0;
                return Err(job);
            }
            state = lock(&desk.state);
        }
        state.jobs.push_back(job);
        desk.jobs.store(state.jobs.len(), Release);
        let (written, asleep) = (std::mem::take(&mut state.written), state.asleep);
        drop(state);
        if asleep {
            desk.changed.notify_one();
        }
        drop(written);
        Ok(())
    }

    /// The connection has failed: whatever is under way need not end.
    pub(crate) fn abandon(&self) {
        let Some(desk) = self.spot.desk() else { return };
        let mut state = lock(&desk.state);
        state.jobs.clear();
        state.abandoned = true;
        if let Some(waits) = state.waits.take() {
            waits.wake();
        }
    }

    /// Whether there are jobs that nobody has begun.
    #[inline]
    pub(crate) fn has_jobs(&self) -> bool {
        self.spot.desk().is_some_and(Desk::has_jobs)
    }

    /// Takes one of them.
    #[inline]
    pub(crate) fn take_back(&self) -> Option<Job> {
        let desk = self.spot.desk().filter(|desk| desk.has_jobs())?;
        desk.take(&mut lock(&desk.state))
    }

    /// Whether there is something that the helper is at, or could be.
    pub(crate) fn is_busy(&self) -> bool {
        self.spot.desk().is_some_and(|desk| desk.has_jobs() || lock(&desk.state).busy)
    }

    /// The turn to send, as soon as the helper has sent what it has.
    ///
    /// # Errors
    /// It could not.
    pub(crate) fn turn(&self) -> Result<Turn<'d>, Broken> {
        let Some(desk) = self.spot.desk() else { return Ok(Turn { _held: None }) };
        let mut turn = lock(&desk.turn);
        match turn.take() {
            Some(broken) => Err(broken),
            None => Ok(Turn { _held: Some(turn) }),
        }
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        let Some(desk) = self.spot.desk() else { return };
        lock(&desk.state).over = true;
        desk.changed.notify_one();
    }
}

/// What becomes of a helper's end, however that comes.
struct Leaving<'a>(&'a Stream);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        HELPERS.fetch_sub(1, Relaxed);
        if panicking() {
            // The connection's thread may be waiting for input. It sees the end, and then the panic.
            let _ = self.0.shutdown(How::Both);
        }
    }
}

impl Desk {
    #[inline]
    fn has_jobs(&self) -> bool {
        self.jobs.load(Relaxed) > 0
    }

    /// Starts a helper, if there are not enough. It stays until it has had nothing to do for a while, or the connection
    /// ends.
    pub(crate) fn start<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        stream: &'s Stream,
        disk: &'s dyn Disk,
        style: ReplyStyle,
    ) -> bool {
        let leaving = Leaving(stream);
        if HELPERS.fetch_add(1, Relaxed) >= most_helpers() {
            return false;
        }
        lock(&self.state).present = true;
        let span = tracing::Span::current();
        let thread = Builder::new().name("nbd-helper".into()).stack_size(stack::SIZE);
        let started = thread.spawn_scoped(scope, move || {
            let _inside = span.enter();
            let _leaving = leaving;
            self.work(stream, disk, style);
        });
        if started.is_err() {
            lock(&self.state).present = false;
        }
        started.is_ok()
    }

    /// Why the helper could not send, if nobody has been told yet.
    pub(crate) fn broken(&self) -> Option<Broken> {
        lock(&self.turn).take()
    }

    /// A helper's life.
    fn work(&self, stream: &Stream, disk: &dyn Disk, style: ReplyStyle) {
        let (mut output, spin) = (Output::new(stream), Spin::new());
        let send = |output: &mut Output| {
            let mut turn = lock(&self.turn);
            let sent = output.send(stream, Wait::Block);
            if let Err(e) = sent {
                *turn = Some(e.into());
                let _ = stream.shutdown(How::Both);
            }
            turn.is_none()
        };
        while let Some(first) = self.next(&spin) {
            let mut next = Some(first);
            while let Some(job) = next {
                let pending = job.begin(disk);
                // What is ready does not wait for what is not.
                if !pending.answer.is_ready() && !send(&mut output) {
                    return;
                }
                let Some((request, outcome)) = self.finish(pending) else { return };
                let to = ReplyTo { style, cookie: request.cookie, offset: request.offset };
                outcome.tell(&mut output, to, &request);
                let mut state = lock(&self.state);
                state.written.extend(job.payload);
                next = if output.is_ample() { None } else { self.take(&mut state) };
            }
            if !send(&mut output) {
                return;
            }
        }
    }

    /// Waits for the answer, where it is not ready; `None`: nobody wants it any more.
    fn finish(&self, mut pending: Pending<'_>) -> Option<(Request, Outcome)> {
        reactor::block_on(poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut pending).poll(cx) {
                return Poll::Ready(Some(done));
            }
            let mut state = lock(&self.state);
            state.waits = Some(cx.waker().clone());
            if state.abandoned { Poll::Ready(None) } else { Poll::Pending }
        }))
    }

    fn take(&self, state: &mut State) -> Option<Job> {
        let job = state.jobs.pop_front();
        self.jobs.store(state.jobs.len(), Release);
        job
    }

    /// The next job, looked for before sleeping where that pays; `None` when there is none for a while, or no more.
    fn next(&self, spin: &Spin) -> Option<Job> {
        let attempt = |may_sleep: bool| match self.jobs.load(Acquire) {
            0 if !may_sleep => None,
            _ => Some(self.wait()),
        };
        attempt(false).or_else(|| spin.attempt(attempt)).flatten()
    }

    fn wait(&self) -> Option<Job> {
        let end = Instant::now() + MOMENT;
        let mut state = lock(&self.state);
        state.busy = false;
        loop {
            let job = self.take(&mut state);
            let left = end.saturating_duration_since(Instant::now());
            if job.is_some() || left.is_zero() || state.over {
                (state.present, state.busy) = (job.is_some(), job.is_some());
                return job;
            }
            state.asleep = true;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
    }
}
