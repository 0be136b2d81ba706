//! The states of 1024 neighbouring blocks, and who waits for one of them.

use crate::changes::Changes;
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Poll, Waker},
};

/// Blocks of a leaf.
pub const LEAF_BLOCKS: usize = 1024;
/// Four bits per block.
const PER_WORD: usize = 16;
pub(crate) const WORDS: usize = LEAF_BLOCKS / PER_WORD;

/// Where the bytes of a block are, and whether somebody is changing that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// In the disk below.
    Base = 0,
    /// In the store.
    Copied = 1,
    /// Nowhere: it reads as zeroes.
    Zero = 2,
    /// In the store, and the disk below shall have it, too: of use to caches.
    Dirty = 3,
    /// In the disk below, and claimed.
    BaseBusy = 4,
    /// In the store, and claimed.
    CopiedBusy = 5,
    /// Nowhere, and claimed.
    ZeroBusy = 6,
    /// In the store, to be written below, and claimed.
    DirtyBusy = 7,
}

impl State {
    #[inline]
    fn of(bits: u64) -> State {
        match bits & 15 {
            0 => State::Base,
            1 => State::Copied,
            2 => State::Zero,
            3 => State::Dirty,
            4 => State::BaseBusy,
            5 => State::CopiedBusy,
            6 => State::ZeroBusy,
            7 => State::DirtyBusy,
            bits => unreachable!("no state has the bits {bits}"),
        }
    }

    /// Where the bytes are for now.
    #[inline]
    #[must_use]
    pub fn settled(self) -> State {
        State::of(self as u64 & 3)
    }

    #[inline]
    fn busy(self) -> State {
        State::of(self as u64 | 4)
    }
}

/// The states of 1024 blocks.
pub struct Leaf {
    words: [AtomicU64; WORDS],
    /// Which leaf of the disk this is, from 0.
    pub(crate) index: u64,
    /// Where the first block has its place in the store.
    pub place: u64,
    /// A state is another than the file knows.
    changed: AtomicBool,
    /// Where that is told; `None` where nothing outlives the server.
    changes: Option<Arc<Changes>>,
    waiting: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Leaf {
    /// All blocks are the base's, or all are zero.
    pub(crate) fn new(index: u64, place: u64, zero: bool, changes: Option<Arc<Changes>>) -> Leaf {
        let word = spread(if zero { State::Zero } else { State::Base });
        Leaf {
            words: std::array::from_fn(|_| AtomicU64::new(word)),
            index,
            place,
            changed: AtomicBool::new(false),
            changes,
            waiting: AtomicBool::new(false),
            wakers: Mutex::default(),
        }
    }

    /// The state of block `from`, and how many blocks from it on, before `to`, have the same.
    #[inline]
    pub fn run(&self, from: usize, to: usize) -> (State, usize) {
        let state = State::of(self.words[from / PER_WORD].load(SeqCst) >> (from % PER_WORD * 4));
        let mut at = from;
        while at < to {
            let same = same(self.words[at / PER_WORD].load(SeqCst), at % PER_WORD, state);
            let end = (at / PER_WORD + 1) * PER_WORD;
            at += same;
            if at < end {
                break;
            }
        }
        // At least 1: should the block have changed meanwhile, the first look counts.
        (state, (at.min(to) - from).max(1))
    }

    /// Changes blocks from `from` on, before `to`, from one state to another; stops at the first that has a different
    /// state, and says how many were changed.
    pub fn change(&self, from: usize, to: usize, old: State, new: State) -> usize {
        let difference = spread(old) ^ spread(new);
        let mut at = from;
        while at < to {
            let (word, first) = (&self.words[at / PER_WORD], at % PER_WORD);
            let end = (to - at).min(PER_WORD - first);
            let mut seen = word.load(SeqCst);
            let changed = loop {
                let count = same(seen, first, old).min(end);
                if count == 0 {
                    break 0;
                }
                match word.compare_exchange_weak(
                    seen,
                    seen ^ (difference & mask(first, count)),
                    SeqCst,
                    SeqCst,
                ) {
                    Ok(_) => break count,
                    Err(now) => seen = now,
                }
            };
            at += changed;
            if changed < end {
                break;
            }
        }
        if at > from && old.settled() != new.settled() {
            self.note();
        }
        at - from
    }

    /// The file does not know these states any more.
    fn note(&self) {
        // After the change: whoever takes note of this leaf sees it, or it is told once more.
        if let Some(changes) = &self.changes
            && !self.changed.swap(true, SeqCst)
        {
            changes.leaf(self.index);
        }
    }

    /// The states of all blocks, two bits each, for the file; what changes from now on is told again.
    pub(crate) fn take(&self) -> [u64; WORDS / 2] {
        self.changed.store(false, SeqCst);
        self.states()
    }

    /// What was taken did not reach the file.
    pub(crate) fn put_back(&self) {
        self.note();
    }

    /// The states of all blocks, two bits each.
    pub(crate) fn states(&self) -> [u64; WORDS / 2] {
        let half = |word: usize| squeeze(self.words[word].load(SeqCst));
        std::array::from_fn(|i| half(2 * i) | half(2 * i + 1) << 32)
    }

    /// The last of the first `blocks` blocks whose bytes are here.
    pub(crate) fn last_here(&self, blocks: u64) -> Option<usize> {
        let end = LEAF_BLOCKS.min(usize::try_from(blocks).unwrap_or(LEAF_BLOCKS));
        let here =
            |block: &usize| self.words[block / PER_WORD].load(SeqCst) >> (block % PER_WORD * 4) & 1 == 1;
        (0..end).rev().find(here)
    }

    /// Sets all states, as the file knows them.
    pub(crate) fn restore(&self, states: &[u64; WORDS / 2]) {
        for (word, halves) in self.words.chunks_exact(2).zip(states) {
            word[0].store(stretch(*halves & 0xFFFF_FFFF), SeqCst);
            word[1].store(stretch(*halves >> 32), SeqCst);
        }
    }

    /// Claims blocks that are in state `was` (not a busy one) from `from` on, before `to`, as many as there are in a
    /// row: nobody else will change them before the claim ends.
    pub fn claim(&self, from: usize, to: usize, was: State) -> Option<Claim<'_>> {
        let count = self.change(from, to, was, was.busy());
        (count > 0).then_some(Claim { leaf: self, from, to: from + count, was })
    }

    /// Waits while somebody else is changing the block.
    pub async fn settled(&self, block: usize) {
        let busy = || self.is_busy(block);
        poll_fn(|cx| {
            if !busy() {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            self.waiting.store(true, SeqCst);
            // Either this look sees the change, or whoever makes it sees `waiting`.
            if !busy() {
                return Poll::Ready(());
            }
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether the block is still being changed after a moment: most changes take no longer than a copy.
    pub fn stays_busy(&self, block: usize) -> bool {
        for _ in 0..200 {
            if !self.is_busy(block) {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }

    fn is_busy(&self, block: usize) -> bool {
        let (state, _) = self.run(block, block + 1);
        state != state.settled()
    }

    #[inline]
    fn wake(&self) {
        if self.waiting.load(SeqCst) {
            let wakers = {
                let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                self.waiting.store(false, SeqCst);
                std::mem::take(&mut *wakers)
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// Blocks of a leaf that one request is changing. Dropped, they are what they were.
pub struct Claim<'a> {
    /// Where they are.
    pub leaf: &'a Leaf,
    /// The first of them.
    pub from: usize,
    /// Behind the last of them.
    pub to: usize,
    was: State,
}

impl Claim<'_> {
    /// The blocks are in this state now.
    #[inline]
    pub fn end(self, state: State) {
        self.release(state);
        std::mem::forget(self);
    }

    /// The blocks are in another state now, and stay claimed.
    #[must_use]
    pub fn turn(self, state: State) -> Self {
        let (leaf, from, to) = (self.leaf, self.from, self.to);
        let count = leaf.change(from, to, self.was.busy(), state.busy());
        debug_assert_eq!(count, to - from, "somebody changed blocks that were claimed");
        std::mem::forget(self);
        Claim { leaf, from, to, was: state }
    }

    /// In which state they were when they were claimed.
    #[inline]
    pub fn was(&self) -> State {
        self.was
    }

    #[inline]
    fn release(&self, state: State) {
        let count = self.leaf.change(self.from, self.to, self.was.busy(), state);
        debug_assert_eq!(count, self.to - self.from, "somebody changed blocks that were claimed");
        self.leaf.wake();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.release(self.was);
    }
}

/// The lower two of each four bits, side by side.
fn squeeze(word: u64) -> u64 {
    (0..PER_WORD).fold(0, |out, i| out | (word >> (4 * i) & 3) << (2 * i))
}

/// The inverse of `squeeze`.
fn stretch(half: u64) -> u64 {
    (0..PER_WORD).fold(0, |out, i| out | (half >> (2 * i) & 3) << (4 * i))
}

/// The state in every block of a word.
#[inline]
const fn spread(state: State) -> u64 {
    state as u64 * 0x1111_1111_1111_1111
}

/// How many blocks of `word` from block `first` on have this state.
#[inline]
fn same(word: u64, first: usize, state: State) -> usize {
    let different = (word ^ spread(state)) >> (first * 4);
    (different.trailing_zeros() as usize / 4).min(PER_WORD - first)
}

/// The bits of `count` (at least 1) blocks of a word from block `first` on.
#[inline]
fn mask(first: usize, count: usize) -> u64 {
    u64::MAX >> (64 - 4 * count) << (4 * first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use conformance::Random;

    #[test]
    fn changes_and_runs_agree_with_a_plain_list() {
        let leaf = Leaf::new(0, 0, false, None);
        let mut model = vec![State::Base; LEAF_BLOCKS];
        let states = [State::Dirty, State::Copied, State::Zero, State::BaseBusy, State::CopiedBusy];
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let from = random.below(LEAF_BLOCKS as u64) as usize;
            let to = from + 1 + random.below(((LEAF_BLOCKS - from) as u64).min(60)) as usize;
            let (state, count) = leaf.run(from, to);
            assert_eq!(state, model[from]);
            assert_eq!(count, model[from..to].iter().take_while(|s| **s == state).count());
            let new = states[random.below(5) as usize];
            let changed = leaf.change(from, to, state, new);
            assert_eq!(changed, count);
            model[from..from + count].fill(new);
        }
    }

    #[test]
    fn a_claim_is_kept_or_leaves_things_as_they_were() {
        let leaf = Leaf::new(0, 0, true, None);
        let claim = leaf.claim(10, 40, State::Zero).unwrap();
        assert_eq!((claim.from, claim.to), (10, 40));
        assert_eq!(leaf.run(10, 100), (State::ZeroBusy, 30));
        assert_eq!(leaf.claim(5, 40, State::Zero).map(|claim| claim.to), Some(10));
        assert!(leaf.claim(20, 40, State::Zero).is_none());
        drop(claim);
        assert_eq!(leaf.run(0, LEAF_BLOCKS), (State::Zero, LEAF_BLOCKS));
        leaf.claim(0, 20, State::Zero).unwrap().end(State::Copied);
        assert_eq!(leaf.run(0, LEAF_BLOCKS), (State::Copied, 20));
    }

    #[test]
    fn those_who_wait_are_woken() {
        let leaf = Leaf::new(0, 0, false, None);
        let claim = leaf.claim(3, 4, State::Base).unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> =
                (0..4).map(|_| scope.spawn(|| reactor::block_on(leaf.settled(3)))).collect();
            std::thread::sleep(std::time::Duration::from_millis(10));
            claim.end(State::Copied);
            waiting.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
