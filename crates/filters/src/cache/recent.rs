//! Which blocks of a limited cache are given up next: those that were not used for a while.
//!
//! Blocks wait in rings in the order in which they came, and who is next but has been used meanwhile goes to the end
//! once more. So a use costs a look at one bit, and takes no lock.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

const RINGS: u64 = 64;

pub(super) struct Recent {
    /// With so many blocks, some are given up.
    pub(super) high: u64,
    /// Until there are so many.
    pub(super) low: u64,
    /// So many may be put at once.
    pub(super) at_once: u64,
    /// Blocks in the rings; one that was forgotten and came again counts twice.
    count: AtomicU64,
    rings: [Mutex<VecDeque<u64>>; RINGS as usize],
    /// The ring to take from next.
    hand: AtomicU64,
    /// A bit for each block, or for several.
    used: Box<[AtomicU64]>,
    /// One makes room at a time.
    pub(super) reclaiming: async_lock::Mutex<()>,
}

impl Recent {
    /// Of a cache of `most` blocks, at least 2, of which so many percent are used.
    pub(super) fn new(most: u64, high: u32, low: u32) -> Recent {
        let percent = |percent: u32| (most * u64::from(percent) / 100).max(1);
        let bits = (most * 2).next_power_of_two().clamp(1 << 10, 1 << 30);
        Recent {
            high: percent(high),
            low: percent(low).min(percent(high) - 1),
            at_once: ((most - percent(high)) / 2).clamp(1, 256),
            count: AtomicU64::new(0),
            rings: std::array::from_fn(|_| Mutex::default()),
            hand: AtomicU64::new(0),
            used: (0..bits / 64).map(|_| AtomicU64::new(0)).collect(),
            reclaiming: async_lock::Mutex::default(),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    fn ring(&self, number: u64) -> MutexGuard<'_, VecDeque<u64>> {
        self.rings[(number % RINGS) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word and the bit of a block.
    #[inline]
    fn bit(&self, block: u64) -> (&AtomicU64, u64) {
        let bit = block & (self.used.len() as u64 * 64 - 1);
        (&self.used[(bit / 64) as usize], 1 << (bit % 64))
    }

    /// A block is used.
    #[inline]
    pub(super) fn touch(&self, block: u64) {
        let (word, bit) = self.bit(block);
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    /// Whether it was used since the last time.
    fn was_used(&self, block: u64) -> bool {
        let (word, bit) = self.bit(block);
        word.fetch_and(!bit, Relaxed) & bit != 0
    }

    /// A block has come.
    pub(super) fn insert(&self, block: u64) {
        self.ring(block).push_back(block);
        self.count.fetch_add(1, SeqCst);
    }

    /// The block that is next, and no longer in its ring. Blocks that were used are passed over, but not for ever.
    pub(super) fn next(&self) -> Option<u64> {
        let mut patience = 2 * self.count() + RINGS;
        let mut empty = 0;
        while empty < RINGS {
            let hand = self.hand.fetch_add(1, Relaxed);
            let Some(block) = self.ring(hand).pop_front() else {
                empty += 1;
                continue;
            };
            empty = 0;
            patience = patience.saturating_sub(1);
            if patience > 0 && self.was_used(block) {
                self.ring(block).push_back(block);
                continue;
            }
            self.count.fetch_sub(1, SeqCst);
            return Some(block);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_that_was_not_used_for_the_longest_time_is_next() {
        let recent = Recent::new(100, 90, 50);
        (0..4).for_each(|block| recent.insert(block));
        recent.touch(0);
        recent.touch(2);
        assert_eq!((recent.next(), recent.next(), recent.next()), (Some(1), Some(3), Some(0)));
        assert_eq!((recent.count(), recent.next(), recent.next()), (1, Some(2), None));
    }
}
