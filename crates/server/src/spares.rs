//! Threads whose connection has ended wait a moment for the next one: to make and to end a thread takes longer than
//! a handshake does.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a thread waits for more work.
const MOMENT: Duration = Duration::from_secs(1);
/// No more threads than this wait.
const MOST: usize = 4;

/// Work of type `T` for threads that wait.
pub(crate) struct Spares<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: usize,
    /// For those who wait: never more than they are.
    work: VecDeque<T>,
    ended: bool,
}

impl<T> Spares<T> {
    pub(crate) fn new() -> Self {
        let state = State { waiting: 0, work: VecDeque::with_capacity(MOST), ended: false };
        Spares { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Gives work to a thread that waits; it comes back when there is none.
    pub(crate) fn give(&self, work: T) -> Result<(), T> {
        let mut state = self.state();
        if state.work.len() >= state.waiting {
            return Err(work);
        }
        state.work.push_back(work);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for work; `None`: nothing came for a while, others wait already, or no more will come.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.state();
        if state.waiting == MOST {
            return None;
        }
        state.waiting += 1;
        let end = Instant::now() + MOMENT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let work = state.work.pop_front();
            if work.is_some() || state.ended || left.is_zero() {
                state.waiting -= 1;
                return work;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No more work will come: nobody needs to wait.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_only_to_threads_that_wait() {
        let spares = Spares::new();
        assert_eq!(spares.give(1), Err(1));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| spares.take());
            while spares.give(2).is_err() && !waiting.is_finished() {
                std::thread::yield_now();
            }
            // `None` where this thread was kept from running for the whole moment.
            assert!(matches!(waiting.join().unwrap(), Some(2) | None));
            assert_eq!(spares.give(3), Err(3));
        });
    }

    #[test]
    fn nobody_waits_when_no_more_work_will_come() {
        let spares = Spares::<()>::new();
        spares.end();
        assert_eq!(spares.take(), None);
    }
}
