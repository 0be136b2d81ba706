//! Writes that are carried out whether somebody waits for them or not, and what must wait for them.

use crate::Io;
use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// The writes under way of a disk, or of all that share it: for disks whose work goes on when its [`Io`] is dropped, and
/// whose flush must wait for it (see [`crate::Disk`]).
#[derive(Default)]
pub struct Writes(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    under_way: BTreeSet<u64>,
    waiting: Vec<Waker>,
}

/// A write under way, until this is dropped: keep it with the work, not with whoever waits for its outcome.
#[must_use = "it is over when this is dropped"]
pub struct Write {
    of: Arc<Writes>,
    number: u64,
}

/// Done when all writes have ended that began before it was made.
#[must_use = "it must be awaited"]
pub struct Before {
    of: Arc<Writes>,
    /// Those with a lower number.
    number: u64,
}

impl Writes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write begins: a write, a zero or a trim.
    pub fn begin(self: &Arc<Self>) -> Write {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.under_way.insert(number);
        Write { of: self.clone(), number }
    }

    /// The end of all writes under way now; `None` where there are none.
    pub fn before(self: &Arc<Self>) -> Option<Before> {
        let state = self.lock();
        (!state.under_way.is_empty()).then(|| Before { of: self.clone(), number: state.next })
    }

    /// What `flush` answers, which is asked when all writes under way now have ended.
    pub fn flush<'a>(self: &Arc<Self>, flush: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        match self.before() {
            None => flush(),
            Some(before) => Io::later(async move {
                before.await;
                flush().await
            }),
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.of.lock();
            state.under_way.remove(&self.number);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Future for Before {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.of.lock();
        if state.under_way.first().is_none_or(|first| *first >= self.number) {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|known| known.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writes_before_are_waited_for_and_no_others() {
        let writes = Arc::new(Writes::default());
        assert!(writes.before().is_none());
        let first = writes.begin();
        let before = writes.before().unwrap();
        let later = writes.begin();
        let waiting = std::thread::spawn(move || reactor::block_on(before));
        drop(first);
        waiting.join().unwrap();
        drop(later);
        assert!(writes.before().is_none());
    }

    #[test]
    fn it_is_no_sooner_over_than_the_last_of_them() {
        let writes = Arc::new(Writes::default());
        let all = [writes.begin(), writes.begin(), writes.begin()];
        let mut before = writes.before().unwrap();
        let mut poll = || Pin::new(&mut before).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        for write in all.into_iter().rev() {
            assert!(!poll());
            drop(write);
        }
        assert!(poll());
    }
}
