//! Waiting for one file descriptor from a future.

use crate::local::{Driver, Interest, watch};
use std::{
    future::poll_fn,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

/// Lets a future wait until a descriptor can be read or written. Make one and use it again and again.
pub struct Readiness<T> {
    driver: Arc<Waiting<T>>,
    erased: Arc<dyn Driver>,
}

struct Waiting<T> {
    of: T,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    interest: Interest,
    fired: bool,
    waker: Option<Waker>,
}

impl<T: AsFd + Send + Sync + 'static> Readiness<T> {
    /// Of the descriptor that `of` owns or shares.
    pub fn new(of: T) -> Self {
        let driver = Arc::new(Waiting { of, state: Mutex::default() });
        Readiness { erased: driver.clone(), driver }
    }

    /// What it was made of.
    pub fn get_ref(&self) -> &T {
        &self.driver.of
    }

    /// Waits until the descriptor may be ready for `interest`. Spurious wake-ups are possible: try, and wait again.
    pub async fn wait(&self, interest: Interest) {
        let _clear = Clear(&self.driver.state);
        {
            let mut state = self.driver.lock();
            state.interest = interest;
            state.fired = false;
        }
        poll_fn(|cx| {
            let mut state = self.driver.lock();
            if state.fired {
                return Poll::Ready(());
            }
            if !state.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            drop(state);
            watch(&self.erased);
            Poll::Pending
        })
        .await
    }
}

/// Leaves no interest behind, also when the future is dropped.
struct Clear<'a>(&'a Mutex<State>);
impl Drop for Clear<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.interest = Interest::default();
        state.waker = None;
    }
}

impl<T> Waiting<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: AsFd + Send + Sync> Driver for Waiting<T> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.of.as_fd()
    }
    fn interest(&self) -> Interest {
        self.lock().interest
    }
    fn ready(&self) {
        let mut state = self.lock();
        state.fired = true;
        state.interest = Interest::default();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block_on, sleep, timeout};
    use std::{io::Write, os::unix::net::UnixStream, time::Duration};

    const READ: Interest = Interest { read: true, write: false };

    #[test]
    fn waits_until_bytes_come() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let a = Readiness::new(a);
        assert!(block_on(timeout(Duration::from_millis(5), a.wait(READ))).is_err());
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            b.write_all(b"x").unwrap();
            b
        });
        block_on(a.wait(READ));
        assert_eq!(std::io::Read::read(&mut a.get_ref(), &mut [0; 4]).unwrap(), 1);
        drop(writer.join().unwrap());
        block_on(a.wait(READ)); // the end of the stream is readable too
    }

    #[test]
    fn a_descriptor_and_a_timer_are_awaited_together() {
        let (a, _b) = UnixStream::pair().unwrap();
        let a = Readiness::new(a);
        let mut set = crate::InFlight::new();
        let readable: std::pin::Pin<Box<dyn Future<Output = &str> + '_>> = Box::pin(async {
            a.wait(READ).await;
            "readable"
        });
        set.push(readable);
        set.push(Box::pin(async {
            sleep(Duration::from_millis(5)).await;
            "timer"
        }));
        assert_eq!(block_on(set.next()), Some("timer"));
    }
}
