//! Which blocks of a disk are in the store: a tree that grows only where it is touched, so that a disk may be as
//! large as it likes.
//!
//! A leaf holds the state of 1024 blocks in atomic words; finding and changing states takes no lock. An absent child
//! of a node stands for blocks that are all still those of the base, or (marked in the node) all zero.

use crate::{
    changes::Changes,
    leaf::{LEAF_BLOCKS, Leaf, State},
};
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Children of a node.
const FAN: usize = 512;

/// The states of all blocks.
pub struct Map {
    /// In a box: it is large, and threads that serve have small stacks.
    root: Box<Node>,
    /// How many blocks a child of the root stands for.
    root_span: u64,
    blocks: u64,
    changes: Option<Arc<Changes>>,
}

struct Node {
    children: [OnceLock<Child>; FAN],
    /// One bit per child: while it is absent, its blocks are zero.
    zero: [AtomicU64; FAN / 64],
    /// Held to make a child, and to mark an absent one: neither may happen unseen by the other.
    changing: Mutex<()>,
}

enum Child {
    Node(Box<Node>),
    Leaf(Box<Leaf>),
}

/// What is known of a block.
pub enum Spot<'a> {
    /// It has this number in this leaf.
    Leaf(&'a Leaf, usize),
    /// It and the next blocks, so many in all, have no leaf.
    Absent {
        /// They are zero; else they are the base's.
        zero: bool,
        /// How many.
        blocks: u64,
    },
}

impl Map {
    /// Of a disk of so many blocks (at least 1), all of them the base's.
    pub(crate) fn new(blocks: u64, changes: Option<Arc<Changes>>) -> Map {
        let mut root_span = LEAF_BLOCKS as u64;
        while blocks.div_ceil(root_span) > FAN as u64 {
            root_span *= FAN as u64;
        }
        Map { root: Node::boxed(false), root_span, blocks, changes }
    }

    /// Looks a block up.
    #[inline]
    pub fn find(&self, block: u64) -> Spot<'_> {
        let (mut node, mut span) = (&*self.root, self.root_span);
        loop {
            let at = index(block, span);
            match node.children[at].get() {
                Some(Child::Leaf(leaf)) => return Spot::Leaf(leaf, (block % span) as usize),
                Some(Child::Node(next)) => (node, span) = (next, span / FAN as u64),
                None => return Spot::Absent { zero: node.is_zero(at), blocks: span - block % span },
            }
        }
    }

    /// The state of a block, and how many blocks from it on, at most `limit`, are known to have the same. `Base` and
    /// `Zero` are also said of blocks that are being changed: they read so until the change is done.
    #[inline]
    pub fn run(&self, block: u64, limit: u64) -> (State, u64) {
        match self.find(block) {
            Spot::Leaf(leaf, at) => {
                let (state, blocks) = leaf.run(at, LEAF_BLOCKS.min(at.saturating_add(limit as usize)));
                (state.settled(), blocks as u64)
            }
            Spot::Absent { zero, blocks } => {
                (if zero { State::Zero } else { State::Base }, blocks.min(limit))
            }
        }
    }

    /// The leaf of a block; if there is none it is made, with its place in the store from `place`.
    #[inline]
    pub fn leaf(&self, block: u64, place: impl FnOnce() -> u64) -> (&Leaf, usize) {
        match self.find(block) {
            Spot::Leaf(leaf, at) => (leaf, at),
            Spot::Absent { .. } => self.new_leaf(block, place),
        }
    }

    /// All blocks in order: every leaf, and between them what is absent.
    pub(crate) fn walk<'a>(&'a self, mut each: impl FnMut(u64, Spot<'a>)) {
        let mut block = 0;
        while block < self.blocks {
            let spot = self.find(block);
            let blocks = match &spot {
                Spot::Leaf(..) => LEAF_BLOCKS as u64,
                Spot::Absent { blocks, .. } => *blocks,
            };
            each(block, spot);
            block = block.saturating_add(blocks);
        }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    #[cold]
    fn new_leaf(&self, block: u64, place: impl FnOnce() -> u64) -> (&Leaf, usize) {
        let (mut node, mut span, mut place) = (&*self.root, self.root_span, Some(place));
        loop {
            let child =
                node.child(index(block, span), |zero| match place.take_if(|_| span == LEAF_BLOCKS as u64) {
                    Some(place) => {
                        let number = block / LEAF_BLOCKS as u64;
                        Child::Leaf(Box::new(Leaf::new(number, place(), zero, self.changes.clone())))
                    }
                    None => Child::Node(Node::boxed(zero)),
                });
            match child {
                Child::Leaf(leaf) => return (leaf, (block % span) as usize),
                Child::Node(next) => (node, span) = (next, span / FAN as u64),
            }
        }
    }

    /// Marks blocks from `block` on as zero, where whole leaves of the `blocks` are absent; says how many. 0: this
    /// block's leaf must be changed itself.
    pub fn zero_absent(&self, block: u64, blocks: u64) -> u64 {
        let (mut node, mut span) = (&*self.root, self.root_span);
        loop {
            let at = index(block, span);
            let to_the_end = block + blocks == self.blocks;
            if block.is_multiple_of(span) && (blocks >= span || to_the_end) && node.mark_zero(at) {
                let marked = span.min(blocks);
                if let Some(changes) = &self.changes {
                    changes.zeroed(block, marked);
                }
                return marked;
            }
            if span == LEAF_BLOCKS as u64 {
                return 0;
            }
            match node.child(at, |zero| Child::Node(Node::boxed(zero))) {
                Child::Node(next) => (node, span) = (next, span / FAN as u64),
                Child::Leaf(_) => return 0,
            }
        }
    }
}

#[inline]
fn index(block: u64, span: u64) -> usize {
    (block / span % FAN as u64) as usize
}

impl Node {
    /// Its frame is gone before whoever called it goes on.
    #[inline(never)]
    fn boxed(zero: bool) -> Box<Node> {
        let bits = if zero { u64::MAX } else { 0 };
        Box::new(Node {
            children: [const { OnceLock::new() }; FAN],
            zero: std::array::from_fn(|_| AtomicU64::new(bits)),
            changing: Mutex::new(()),
        })
    }

    fn is_zero(&self, at: usize) -> bool {
        self.zero[at / 64].load(Ordering::Acquire) >> (at % 64) & 1 == 1
    }

    /// The child, made by `make` if there is none.
    fn child(&self, at: usize, make: impl FnOnce(bool) -> Child) -> &Child {
        if let Some(child) = self.children[at].get() {
            return child;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.children[at].get_or_init(|| make(self.is_zero(at)))
    }

    /// Marks a child as zero if it is absent.
    fn mark_zero(&self, at: usize) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = self.children[at].get().is_none();
        if absent {
            self.zero[at / 64].fetch_or(1 << (at % 64), Ordering::Release);
        }
        absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> u64 {
        0
    }

    #[test]
    fn the_largest_disk_has_a_small_map() {
        let blocks = (i64::MAX as u64).div_ceil(4096);
        let map = Map::new(blocks, None);
        assert_eq!(map.run(0, 1), (State::Base, 1));
        let (found, at) = map.leaf(blocks - 1, leaf);
        assert_eq!(found.change(at, at + 1, State::Base, State::Copied), 1);
        assert_eq!(map.run(blocks - 1, 1), (State::Copied, 1));
        assert_eq!(map.run(blocks - 2, 2), (State::Base, 1));
        assert_eq!(map.run(0, u64::MAX).0, State::Base);
    }

    #[test]
    fn a_huge_disk_is_zeroed_by_a_few_marks() {
        let blocks = (i64::MAX as u64).div_ceil(4096);
        let map = Map::new(blocks, None);
        map.leaf(5 << 30, leaf);
        let (mut at, mut steps) = (0, 0);
        while at < blocks {
            match map.find(at) {
                Spot::Absent { zero: true, blocks } => at += blocks,
                Spot::Absent { zero: false, .. } => at += map.zero_absent(at, blocks - at),
                Spot::Leaf(leaf, first) => {
                    at += leaf.change(first, LEAF_BLOCKS, State::Base, State::Zero) as u64;
                }
            }
            steps += 1;
        }
        assert!(steps < 20_000, "{steps}");
        for block in [0, 1, 5 << 30, (5 << 30) + 1, blocks / 2, blocks - 1] {
            assert_eq!(map.run(block, 1), (State::Zero, 1), "{block}");
            assert_eq!(map.leaf(block, leaf).0.run(0, 1), (State::Zero, 1), "{block}");
        }
    }

    #[test]
    fn the_last_leaf_of_an_uneven_disk_is_marked_too() {
        let map = Map::new(1500, None);
        assert_eq!(map.zero_absent(0, 1000), 0);
        assert_eq!(map.zero_absent(1024, 400), 0);
        assert_eq!(map.zero_absent(1024, 476), 476);
        assert_eq!(map.run(1400, 100), (State::Zero, 100));
        assert_eq!(map.run(1000, 100), (State::Base, 24));
    }
}
