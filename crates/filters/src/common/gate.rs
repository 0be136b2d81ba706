//! A gate that requests pass, and that can be closed: then nothing is under way behind it. For `pause` and `cbt`.

use async_lock::{RwLock, RwLockWriteGuardArc};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

/// What requests pass.
#[derive(Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    /// Held for writing while the gate is closed; requests that wait for it to open want it for reading.
    lock: Arc<RwLock<()>>,
    /// Counts of the requests under way, one per connection: so they do not get into each other's way.
    members: Mutex<Vec<Weak<AtomicUsize>>>,
    /// Behind a closed gate, a request has come to its end.
    one_less: Condvar,
}

/// Keeps the gate closed.
pub(crate) struct Closed {
    gate: Arc<Gate>,
    _held: RwLockWriteGuardArc<()>,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.gate.closed.store(false, SeqCst);
    }
}

impl Gate {
    fn members(&self) -> MutexGuard<'_, Vec<Weak<AtomicUsize>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way of one more connection.
    pub(crate) fn passing(self: &Arc<Gate>) -> Passing {
        let traffic = Arc::<AtomicUsize>::default();
        self.members().push(Arc::downgrade(&traffic));
        Passing { traffic, gate: self.clone() }
    }

    /// Lets no more requests through, and waits for those that are.
    pub(crate) fn close(self: &Arc<Gate>) -> Closed {
        let held = self.lock.write_arc_blocking();
        // From here on, whoever comes sees it closed, or is seen in the counts.
        self.closed.store(true, SeqCst);
        let closed = Closed { gate: self.clone(), _held: held };
        let mut members = self.members();
        loop {
            members.retain(|member| member.strong_count() > 0);
            let busy = members.iter().filter_map(Weak::upgrade).any(|traffic| traffic.load(SeqCst) > 0);
            if !busy {
                return closed;
            }
            members = self.one_less.wait(members).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A connection's way through the gate.
pub(crate) struct Passing {
    traffic: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

/// Counts a request as long as it is under way.
pub(crate) struct OnItsWay<'a>(&'a Passing);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.traffic.fetch_sub(1, SeqCst);
        if self.0.gate.closed.load(SeqCst) {
            // With the lock, so that it is not missed between the look and the wait.
            let _members = self.0.gate.members();
            self.0.gate.one_less.notify_all();
        }
    }
}

impl Passing {
    /// `None`: the gate is closed.
    #[inline]
    pub(crate) fn enter(&self) -> Option<OnItsWay<'_>> {
        self.traffic.fetch_add(1, SeqCst);
        let way = OnItsWay(self);
        (!self.gate.closed.load(SeqCst)).then_some(way)
    }

    /// Goes through once it is open.
    pub(crate) async fn wait(&self) -> OnItsWay<'_> {
        loop {
            drop(self.gate.lock.read().await);
            if let Some(way) = self.enter() {
                return way;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_begins_when_all_under_way_is_done() {
        let gate = Arc::<Gate>::default();
        let passing = gate.passing();
        let way = passing.enter().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (told, gate) = (closed.clone(), gate.clone());
            let closing = scope.spawn(move || {
                let guard = gate.close();
                told.store(true, SeqCst);
                guard
            });
            while passing.enter().is_some() {
                std::thread::yield_now();
            }
            assert!(!closed.load(SeqCst));
            drop(way);
            drop(closing.join().unwrap());
        });
        assert!(passing.enter().is_some());
    }
}
