//! Timers: [`sleep`] and [`timeout`].

use crate::{background, local};
use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    thread::ThreadId,
    time::{Duration, Instant},
};

/// Completes `duration` from now.
pub fn sleep(duration: Duration) -> Sleep {
    // Far enough away to be never, near enough to be an instant.
    let never = Duration::from_secs(100 * 365 * 24 * 3600);
    sleep_until(Instant::now() + duration.min(never))
}

/// Completes at `at`.
pub fn sleep_until(at: Instant) -> Sleep {
    Sleep { at, registered: None }
}

/// A timer; dropping it cancels it.
#[derive(Debug)]
pub struct Sleep {
    at: Instant,
    registered: Option<Registered>,
}

#[derive(Debug)]
struct Registered {
    waker: Waker,
    thread: ThreadId,
    /// `None`: with the background thread, which cannot be told otherwise.
    key: Option<u64>,
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        let thread = std::thread::current().id();
        if let Some(r) = &self.registered
            && r.thread == thread
            && r.waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        self.cancel();
        let key = local::add_timer(self.at, cx.waker());
        if key.is_none() {
            background::timer(self.at, cx.waker().clone());
        }
        self.registered = Some(Registered { waker: cx.waker().clone(), thread, key });
        Poll::Pending
    }
}

impl Sleep {
    fn cancel(&mut self) {
        if let Some(Registered { thread, key: Some(key), .. }) = self.registered.take()
            && thread == std::thread::current().id()
        {
            local::remove_timer(self.at, key);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The time given to [`timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;
impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}
impl std::error::Error for Elapsed {}

/// Runs `future`, but no longer than `limit`.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut timer) = (pin!(future), pin!(sleep(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(out) => Poll::Ready(Ok(out)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;

    #[test]
    fn a_timer_fires_after_its_time_and_not_before() {
        let start = Instant::now();
        block_on(sleep(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn timers_of_one_thread_run_together() {
        let mut set = crate::InFlight::new();
        for ms in [30, 10, 20] {
            set.push(Box::pin(async move {
                sleep(Duration::from_millis(ms)).await;
                ms
            }));
        }
        let order = block_on(async {
            let mut order = vec![];
            while let Some(ms) = set.next().await {
                order.push(ms);
            }
            order
        });
        assert_eq!(order, [10, 20, 30]);
    }

    #[test]
    fn a_timeout_ends_what_never_ends() {
        let out = block_on(timeout(Duration::from_millis(5), std::future::pending::<()>()));
        assert_eq!(out, Err(Elapsed));
        assert_eq!(block_on(timeout(Duration::from_secs(5), async { 7 })), Ok(7));
    }

    #[test]
    fn timers_work_under_another_executor() {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        let mut timer = pin!(sleep(Duration::from_millis(10)));
        while timer.as_mut().poll(&mut cx).is_pending() {
            std::thread::park_timeout(Duration::from_secs(5));
        }
    }
}
