//! The numbers of a connection's requests. Almost all of them are made by one thread, which takes numbers in advance:
//! a locked instruction for every request would wait for the bytes of the last write.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// So many are taken in advance.
const AHEAD: u64 = 64;

/// Numbers from 1 on, each given out once.
#[derive(Default)]
pub(super) struct Ids {
    /// Given out, or taken in advance.
    taken: AtomicU64,
    /// The thread that takes numbers in advance, by a number that is not 0; only it touches what follows.
    owner: AtomicU64,
    last: AtomicU64,
    end: AtomicU64,
}

impl Ids {
    /// The next number, on thread `thread`.
    #[inline(always)]
    pub(super) fn next(&self, thread: u64) -> u64 {
        if self.owner.load(Acquire) != thread && !self.own(thread) {
            return self.taken.fetch_add(1, Relaxed) + 1;
        }
        let mut last = self.last.load(Relaxed);
        if last == self.end.load(Relaxed) {
            last = self.taken.fetch_add(AHEAD, Relaxed);
            self.end.store(last + AHEAD, Relaxed);
        }
        self.last.store(last + 1, Relaxed);
        last + 1
    }

    /// Whether the thread is the first one that asks.
    #[cold]
    fn own(&self, thread: u64) -> bool {
        self.owner.compare_exchange(0, thread, Release, Relaxed).is_ok()
    }

    /// How many were given out, once nobody asks any more.
    pub(super) fn given(&self) -> u64 {
        self.taken.load(Relaxed) - (self.end.load(Relaxed) - self.last.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_counts_and_no_two_get_the_same_number() {
        let alone = Ids::default();
        assert!((1..=1000).all(|n| alone.next(7) == n) && alone.given() == 1000);
        let ids = Ids::default();
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let ids = &ids;
            let count = move |thread| (0..1000).map(|_| ids.next(thread)).collect::<Vec<_>>();
            let threads: Vec<_> = (1..=3).map(|thread| scope.spawn(move || count(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), ids.given()), (3000, 3000));
    }
}
