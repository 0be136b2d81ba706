//! Threads for work that blocks: they start when there is work and end when there is none.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

/// More than any disk under us profits from, few enough to be harmless.
const MOST_THREADS: usize = 64;
const KEEP_IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { jobs: VecDeque::new(), threads: 0, idle: 0 });
static WORK: Condvar = Condvar::new();

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` on a thread where it may block. It runs even when the future is dropped.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Unblock<T> {
    let shared = Arc::new(Mutex::new(Shared { outcome: None, waker: None }));
    let there = shared.clone();
    submit(Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
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
    let mut pool = pool();
    pool.jobs.push_back(job);
    if pool.idle >= pool.jobs.len() {
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
                && let Some(job) = pool.jobs.pop_back()
            {
                drop(pool);
                job();
            }
        }
    }
}

fn work_off() {
    let mut pool = pool();
    loop {
        if let Some(job) = pool.jobs.pop_front() {
            drop(pool);
            job();
            pool = self::pool();
            continue;
        }
        pool.idle += 1;
        let (guard, timed_out) = WORK.wait_timeout(pool, KEEP_IDLE).unwrap_or_else(PoisonError::into_inner);
        pool = guard;
        pool.idle -= 1;
        if timed_out.timed_out() && pool.jobs.is_empty() {
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
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        assert_eq!(block_on(unblock(|| panic!("on purpose"))), Err::<(), _>(Panicked));
        assert_eq!(block_on(unblock(|| 1)), Ok(1));
    }
}
