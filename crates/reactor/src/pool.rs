//! Threads for work that blocks: they start when there is work and end when there is none.

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

/// So many jobs of one thread run at once: more than any disk under us profits from. A thread is a connection's, so
/// that a disk which takes its time holds up nobody else's.
const SHARE: usize = 64;
/// No more threads than this, whatever happens.
const MOST_THREADS: usize = 1024;
const KEEP_IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    /// Jobs to run next, each with the line it came from.
    next: VecDeque<(u64, Job)>,
    lines: BTreeMap<u64, Line>,
    threads: usize,
    idle: usize,
}

/// The jobs of one thread.
#[derive(Default)]
struct Line {
    /// In `next`, or running.
    under_way: usize,
    /// Beyond its share.
    waiting: VecDeque<Job>,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { next: VecDeque::new(), lines: BTreeMap::new(), threads: 0, idle: 0 });
static WORK: Condvar = Condvar::new();
static LAST_LINE: AtomicU64 = AtomicU64::new(1);
thread_local! { static LINE: u64 = LAST_LINE.fetch_add(1, Relaxed) }

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn push(&mut self, number: u64, job: Job) {
        let line = self.lines.entry(number).or_default();
        if line.under_way == SHARE {
            return line.waiting.push_back(job);
        }
        line.under_way += 1;
        self.next.push_back((number, job));
    }

    /// A job of this line has been done.
    fn done(&mut self, number: u64) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if let Some(job) = line.waiting.pop_front() {
            return self.next.push_back((number, job));
        }
        line.under_way -= 1;
        if line.under_way == 0 {
            self.lines.remove(&number);
        }
    }
}

/// What work keeps until it is done.
type Held = Arc<dyn Any + Send + Sync>;

thread_local! { static HELD: RefCell<Option<Held>> = const { RefCell::new(None) } }

/// Puts back what was held before.
struct Before(Option<Held>);

impl Drop for Before {
    fn drop(&mut self) {
        HELD.set(self.0.take());
    }
}

/// Runs `future`, which holds `held` until it ends or is dropped. So does all blocking work that it begins, which may go on
/// for longer than a future that is dropped: see [`unblock`].
pub async fn holding<T>(held: Arc<dyn Any + Send + Sync>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(move |cx| {
        let _before = Before(HELD.replace(Some(held.clone())));
        future.as_mut().poll(cx)
    })
    .await
}

/// Runs `work` on a thread where it may block. It runs even when the future is dropped.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Unblock<T> {
    let shared = Arc::new(Mutex::new(Shared { outcome: None, waker: None }));
    let there = shared.clone();
    let held = HELD.with_borrow(Clone::clone);
    submit(Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
        drop(held);
        let waker = {
            let mut shared = there.lock().unwrap_or_else(PoisonError::into_inner);
            shared.outcome = Some(outcome);
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }));
    Unblock(shared)
}

fn submit(job: Job) {
    // A thread that is ending has lost its number.
    let line = LINE.try_with(|line| *line).unwrap_or_default();
    let mut pool = pool();
    pool.push(line, job);
    if pool.idle >= pool.next.len() {
        WORK.notify_one();
    } else if pool.threads < MOST_THREADS {
        pool.threads += 1;
        drop(pool);
        let started = std::thread::Builder::new().name("blocking".into()).spawn(work_off);
        if started.is_err() {
            let mut pool = self::pool();
            pool.threads -= 1;
            // No thread to be had at all: better late on this one than never.
            if pool.threads == 0
                && let Some((line, job)) = pool.next.pop_front()
            {
                drop(pool);
                job();
                self::pool().done(line);
            }
        }
    }
}

fn work_off() {
    let mut pool = pool();
    loop {
        if let Some((line, job)) = pool.next.pop_front() {
            drop(pool);
            job();
            pool = self::pool();
            pool.done(line);
            continue;
        }
        pool.idle += 1;
        let (guard, timed_out) = WORK.wait_timeout(pool, KEEP_IDLE).unwrap_or_else(PoisonError::into_inner);
        pool = guard;
        pool.idle -= 1;
        if timed_out.timed_out() && pool.next.is_empty() {
            pool.threads -= 1;
            return;
        }
    }
}

struct Shared<T> {
    outcome: Option<Result<T, Panicked>>,
    waker: Option<Waker>,
}

/// The outcome of [`unblock`].
pub struct Unblock<T>(Arc<Mutex<Shared<T>>>);

impl<T> Future for Unblock<T> {
    type Output = Result<T, Panicked>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                shared.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The blocking work panicked; the message went to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;
impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operation panicked")
    }
}
impl std::error::Error for Panicked {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;

    #[test]
    fn blocking_work_returns_its_value() {
        assert_eq!(block_on(unblock(|| 6 * 7)), Ok(42));
    }

    #[test]
    fn what_a_future_holds_is_held_by_its_work_until_that_is_done() {
        let (held, gate) = (Arc::new(()), Arc::new(Mutex::new(())));
        let (stuck, there) = (gate.lock().unwrap(), gate.clone());
        let work = async move { unblock(move || drop(there.lock())).await };
        let mut future = Box::pin(holding(held.clone(), work));
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        // What others begin on this thread has nothing to do with it.
        let other = unblock(|| ());
        drop(future);
        assert_eq!(block_on(other), Ok(()));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(stuck);
        while Arc::strong_count(&held) > 1 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn work_that_is_stuck_holds_up_nobody_elses() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let stuck: Vec<_> = (0..SHARE * 3)
            .map(|_| {
                let gate = gate.clone();
                unblock(move || {
                    let (open, opened) = &*gate;
                    let open = opened.wait_while(open.lock().unwrap(), |open| !*open);
                    drop(open);
                })
            })
            .collect();
        let other = std::thread::spawn(|| block_on(unblock(|| 1)));
        assert_eq!(other.join().unwrap(), Ok(1));
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        for work in stuck {
            assert_eq!(block_on(work), Ok(()));
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        assert_eq!(block_on(unblock(|| panic!("on purpose"))), Err::<(), _>(Panicked));
        assert_eq!(block_on(unblock(|| 1)), Ok(1));
    }
}
