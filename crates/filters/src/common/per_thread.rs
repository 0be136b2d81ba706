//! Something for each thread, so that threads which count or note something share no memory, and need no locked
//! instruction: such a one waits until all that was written before has reached the cache, which after the payload of a
//! write takes longer than all else.

use std::{
    any::Any,
    cell::RefCell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A `T` for each thread that asks for it; one that a thread leaves behind is the next one's.
pub(crate) struct PerThread<T> {
    id: u64,
    all: Mutex<Vec<Arc<Slot<T>>>>,
}

struct Slot<T> {
    taken: AtomicBool,
    value: T,
}

/// What a thread holds of one [`PerThread`].
struct Held {
    id: u64,
    slot: Arc<dyn Leave>,
}

trait Leave: Any + Send + Sync {
    fn leave(&self);
}

impl<T: Send + Sync + 'static> Leave for Slot<T> {
    fn leave(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.slot.leave();
    }
}

thread_local! {
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

impl<T: Default + Send + Sync + 'static> PerThread<T> {
    pub(crate) fn new() -> PerThread<T> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        PerThread { id: NEXT.fetch_add(1, Ordering::Relaxed), all: Mutex::default() }
    }

    /// Does something with this thread's own. No other thread does so with the same one meanwhile.
    #[inline]
    pub(crate) fn with<R>(&self, act: impl FnOnce(&T) -> R) -> R {
        HELD.with_borrow_mut(|held| {
            let at = held.iter().position(|held| held.id == self.id).unwrap_or_else(|| self.take(held));
            let slot: &dyn Any = &*held[at].slot;
            act(&slot.downcast_ref::<Slot<T>>().expect("its own type").value)
        })
    }

    #[cold]
    fn take(&self, held: &mut Vec<Held>) -> usize {
        // What is left of those that are gone.
        held.retain(|held| Arc::strong_count(&held.slot) > 1);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let free = all.iter().find(|slot| !slot.taken.swap(true, Ordering::Acquire));
        let slot = free.cloned().unwrap_or_else(|| {
            all.push(Arc::new(Slot { taken: AtomicBool::new(true), value: T::default() }));
            all.last().cloned().expect("just added")
        });
        held.push(Held { id: self.id, slot });
        held.len() - 1
    }

    /// Looks at those of all threads.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &T>) -> R) -> R {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut all.iter().map(|slot| &slot.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_its_own_and_the_next_one_inherits_it() {
        let one = PerThread::<AtomicU64>::new();
        let other = PerThread::<AtomicU64>::new();
        let bump = |n: &AtomicU64| n.store(n.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            one.with(bump);
                            other.with(bump);
                        }
                    });
                }
            });
        }
        for each in [&one, &other] {
            let counted: Vec<u64> = each.look(|all| all.map(|n| n.load(Ordering::Relaxed)).collect());
            assert_eq!(counted.iter().sum::<u64>(), 12_000);
            // Threads of a scope may still be ending when the next ones begin.
            assert!(counted.len() <= 12, "{counted:?}");
        }
    }
}
