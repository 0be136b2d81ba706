//! The loop of one thread: [`block_on`], the drivers and the timers it turns.

use crate::{background, spin::Spin};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

/// What a [`Driver`] waits for. With neither, the loop forgets the driver until it is watched again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Wake when the descriptor can be read.
    pub read: bool,
    /// Wake when the descriptor can be written.
    pub write: bool,
}

/// Something with a file descriptor that completes futures: a connection with replies outstanding.
///
/// Every thread that waits for one of its futures watches the driver, so `ready` may be called by several
/// threads at once and must not block.
pub trait Driver: Send + Sync {
    /// The descriptor to wait on.
    fn fd(&self) -> BorrowedFd<'_>;
    /// What to wait for now.
    fn interest(&self) -> Interest;
    /// Whether many answers are outstanding. They come in batches, which are larger when the loop sleeps for them;
    /// looking for them without sleeping would take them one by one.
    fn expects_many(&self) -> bool {
        false
    }
    /// The loop is about to wait: send what was gathered.
    fn before_wait(&self) {}
    /// The descriptor may be ready: make progress without blocking and wake those whose answers came.
    fn ready(&self);
}

/// Wakes one thread out of its wait.
pub(crate) struct Signal {
    woken: AtomicBool,
    asleep: AtomicBool,
    event: OnceLock<Option<OwnedFd>>,
}

impl Signal {
    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event
            .get_or_init(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok())
            .as_ref()
            .map(AsFd::as_fd)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, SeqCst)
            && self.asleep.load(SeqCst)
            && let Some(event) = self.event()
        {
            // A full counter is as good as a written one.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

pub(crate) struct Local {
    signal: Arc<Signal>,
    drivers: RefCell<Vec<Arc<dyn Driver>>>,
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next_timer: Cell<u64>,
    depth: Cell<usize>,
    spin: Spin,
}

thread_local! {
    static LOCAL: Local = Local {
        signal: Arc::new(Signal { woken: AtomicBool::new(false), asleep: AtomicBool::new(false), event: OnceLock::new() }),
        drivers: RefCell::default(),
        timers: RefCell::default(),
        next_timer: Cell::new(0),
        depth: Cell::new(0),
        spin: Spin::new(),
    };
}

/// Runs `future` to its end on this thread, driving what it waits for. May be nested.
pub fn block_on<F: Future>(future: F) -> F::Output {
    LOCAL.with(|local| {
        let mut future = pin!(future);
        let waker = Waker::from(local.signal.clone());
        let mut cx = Context::from_waker(&waker);
        let _depth = Depth::enter(&local.depth);
        let mut turns = 0u32;
        loop {
            local.signal.woken.store(false, SeqCst);
            if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
                local.flush();
                if local.depth.get() > 1 {
                    // The outer future's wake-ups may have been taken by this inner loop.
                    local.signal.woken.store(true, SeqCst);
                }
                return out;
            }
            turns = turns.wrapping_add(1);
            local.turn(turns.is_multiple_of(16));
        }
    })
}

/// Counts nested loops of a thread, also when one is left by a panic.
struct Depth<'a>(&'a Cell<usize>);
impl<'a> Depth<'a> {
    fn enter(depth: &'a Cell<usize>) -> Self {
        depth.set(depth.get() + 1);
        Depth(depth)
    }
}
impl Drop for Depth<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Has the loop of this thread drive `driver` until it has no interest any more.
///
/// Cheap when the driver is watched already. Outside of [`block_on`] a background thread drives it.
pub fn watch(driver: &Arc<dyn Driver>) {
    LOCAL.with(|local| {
        if local.depth.get() == 0 {
            background::watch(driver.clone());
        } else {
            local.add(driver);
        }
    })
}

/// Lets go of what this thread's loop has driven, when its work is done and other work may follow. To be called
/// outside of [`block_on`].
pub fn forget() {
    LOCAL.with(|local| {
        // Taken out before they are dropped: that may watch another driver.
        let drivers = std::mem::take(&mut *local.drivers.borrow_mut());
        let timers = std::mem::take(&mut *local.timers.borrow_mut());
        drop((drivers, timers));
    });
}

/// Registers a timer with this thread's loop; the key unregisters it again. `None`: no loop runs here.
pub(crate) fn add_timer(at: Instant, waker: &Waker) -> Option<u64> {
    LOCAL.with(|local| {
        (local.depth.get() > 0).then(|| {
            let key = local.next_timer.get();
            local.next_timer.set(key + 1);
            local.timers.borrow_mut().insert((at, key), waker.clone());
            key
        })
    })
}

pub(crate) fn remove_timer(at: Instant, key: u64) {
    // The thread may be ending, its timers gone before the future.
    let _ = LOCAL.try_with(|local| local.timers.borrow_mut().remove(&(at, key)));
}

fn poll_fd(driver: &Arc<dyn Driver>) -> PollFd<'_> {
    let interest = driver.interest();
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.read);
    flags.set(PollFlags::OUT, interest.write);
    PollFd::from_borrowed_fd(driver.fd(), flags)
}

/// Adds a driver to this thread's loop, even while no loop runs (for the background thread).
pub(crate) fn add_driver(driver: &Arc<dyn Driver>) {
    LOCAL.with(|local| local.add(driver));
}

fn timespec(t: Duration) -> Timespec {
    Timespec { tv_sec: t.as_secs().min(1 << 31) as i64, tv_nsec: t.subsec_nanos().into() }
}

impl Local {
    fn add(&self, driver: &Arc<dyn Driver>) {
        let mut drivers = self.drivers.borrow_mut();
        if !drivers.iter().any(|d| Arc::ptr_eq(d, driver)) {
            drivers.push(driver.clone());
        }
    }

    fn flush(&self) {
        let mut at = 0;
        loop {
            // Not borrowed during the call: it may wake a future that watches another driver.
            let Some(driver) = self.drivers.borrow().get(at).cloned() else { return };
            driver.before_wait();
            at += 1;
        }
    }

    /// One turn of the loop: flush, wait for a descriptor, a timer or a wake-up, and act on it.
    fn turn(&self, look_at_descriptors: bool) {
        self.flush();
        let woken = self.signal.woken.load(SeqCst);
        if woken && !look_at_descriptors {
            return;
        }
        let timeout = if woken { Some(Duration::ZERO) } else { self.until_next_timer() };
        self.drivers.borrow_mut().retain(|d| d.interest() != Interest::default());
        self.wait(timeout);
        self.fire_timers();
    }

    fn wait(&self, timeout: Option<Duration>) {
        let drivers = self.drivers.borrow();
        let event = self.signal.event().map(|event| PollFd::from_borrowed_fd(event, PollFlags::IN));
        // Not borrowed while it waits: a driver may wake what watches another one.
        match (&drivers[..], event) {
            ([only], Some(event)) => {
                // The usual case, without lists.
                let only = only.clone();
                drop(drivers);
                self.wait_for(std::slice::from_ref(&only), &mut [poll_fd(&only), event], timeout);
            }
            (several, event) => {
                let several = several.to_vec();
                drop(drivers);
                let mut fds: Vec<PollFd<'_>> = several.iter().map(poll_fd).chain(event).collect();
                self.wait_for(&several, &mut fds, timeout);
            }
        }
    }

    /// Waits for `fds`: those of `drivers` in their order, then that of the signal.
    fn wait_for(&self, drivers: &[Arc<dyn Driver>], fds: &mut [PollFd<'_>], timeout: Option<Duration>) {
        self.signal.asleep.store(true, SeqCst);
        let timeout = if self.signal.woken.load(SeqCst) { Some(Duration::ZERO) } else { timeout };
        let (limit, now) = (timeout.map(timespec), timespec(Duration::ZERO));
        // Timers alone cannot be early, so there is nothing to look for.
        let look = !drivers.is_empty() && !drivers.iter().any(|d| d.expects_many());
        let outcome = if !look || timeout == Some(Duration::ZERO) {
            poll(fds, limit.as_ref())
        } else {
            let attempt = |may_sleep| match poll(fds, if may_sleep { limit.as_ref() } else { Some(&now) }) {
                Ok(0) if !may_sleep => None,
                found => Some(found),
            };
            self.spin.attempt(attempt).unwrap_or(Ok(0))
        };
        self.signal.asleep.store(false, SeqCst);
        if !matches!(outcome, Ok(n) if n > 0) {
            return;
        }
        if let Some(event) = fds.get(drivers.len())
            && !event.revents().is_empty()
        {
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
        for (driver, fd) in drivers.iter().zip(fds) {
            if !fd.revents().is_empty() {
                driver.ready();
            }
        }
    }

    fn until_next_timer(&self) -> Option<Duration> {
        let timers = self.timers.borrow();
        let (at, _) = timers.keys().next()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    fn fire_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = Instant::now();
        loop {
            let mut timers = self.timers.borrow_mut();
            match timers.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let waker = first.remove();
                    drop(timers);
                    waker.wake();
                }
                _ => return,
            }
        }
    }
}
