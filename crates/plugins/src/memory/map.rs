//! Which parts of a memory disk were written: a tree that grows where it is written to, with a bit per granule.
//!
//! Looking up takes no lock and no allocation; a new node is made once and then stays. A clear bit promises that the
//! bytes of its granule are zero, so that holes are known without looking at (and thereby allocating) memory.

use super::order;
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::*},
};

/// Bytes per bit. (nbdkit's block size too, so that maps look alike.)
pub(super) const GRANULE: u64 = 32 << 10;
/// Bytes per word of bits: a huge page.
pub(super) const UNIT: u64 = GRANULE * 64;
/// Bytes per [`Chunk`].
pub(super) const CHUNK: u64 = UNIT * WORDS as u64;

const WORDS: usize = 16;
const GRANULES: usize = WORDS * 64;
/// Chunks per leaf and children per inner node, as powers of 2. Four inner levels reach 2^63 bytes.
const LEAF_BITS: u32 = 6;
const INNER_BITS: u32 = 8;

/// The state of 32 MiB of the disk.
pub(super) struct Chunk {
    bits: [AtomicU64; WORDS],
    /// Where in the store it lives, in chunks; unused when the store is as large as the disk.
    pub(super) slot: OnceLock<u32>,
}

enum Node {
    Inner(Box<[OnceLock<Node>]>),
    Leaf(Box<[Chunk]>),
}

/// The chunks of a disk.
pub(super) struct Map {
    root: Node,
    levels: u32,
}

impl Node {
    fn new(level: u32, children: u64) -> Node {
        match level {
            0 => Node::Leaf((0..children).map(|_| Chunk::new()).collect()),
            _ => Node::Inner((0..children).map(|_| OnceLock::new()).collect()),
        }
    }

    fn full(level: u32) -> Node {
        Node::new(level, 1 << if level == 0 { LEAF_BITS } else { INNER_BITS })
    }
}

/// How many chunks lie under a child of an inner node, as a power of 2.
fn child_bits(level: u32) -> u32 {
    LEAF_BITS + INNER_BITS * (level - 1)
}

impl Map {
    /// Of a disk of `size` bytes, nothing of which is written.
    pub(super) fn new(size: u64) -> Map {
        let chunks = size.div_ceil(CHUNK).max(1);
        let levels = (0..).find(|l| chunks <= 1 << (LEAF_BITS + INNER_BITS * l)).unwrap_or(0);
        let children = if levels == 0 { chunks } else { chunks.div_ceil(1 << child_bits(levels)) };
        Map { root: Node::new(levels, children), levels }
    }

    /// The chunk with this number, if anything near it was ever written.
    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<&Chunk> {
        self.find(number).ok()
    }

    /// The chunk, or the number of the next one that may exist.
    #[inline]
    pub(super) fn find(&self, number: u64) -> Result<&Chunk, u64> {
        let (mut node, mut level) = (&self.root, self.levels);
        loop {
            match node {
                Node::Leaf(chunks) => return Ok(&chunks[number as usize & ((1 << LEAF_BITS) - 1)]),
                Node::Inner(children) => {
                    let bits = child_bits(level);
                    match children[(number >> bits) as usize & ((1 << INNER_BITS) - 1)].get() {
                        Some(child) => node = child,
                        None => return Err(((number >> bits) + 1) << bits),
                    }
                    level -= 1;
                }
            }
        }
    }

    /// The chunk with this number, made if need be.
    #[inline]
    pub(super) fn make(&self, number: u64) -> &Chunk {
        match self.find(number) {
            Ok(chunk) => chunk,
            Err(_) => self.make_slowly(number),
        }
    }

    #[cold]
    fn make_slowly(&self, number: u64) -> &Chunk {
        let (mut node, mut level) = (&self.root, self.levels);
        loop {
            match node {
                Node::Leaf(chunks) => return &chunks[number as usize & ((1 << LEAF_BITS) - 1)],
                Node::Inner(children) => {
                    let child = (number >> child_bits(level)) as usize & ((1 << INNER_BITS) - 1);
                    node = children[child].get_or_init(|| Node::full(level - 1));
                    level -= 1;
                }
            }
        }
    }
}

/// The bits from `first` to `last` of word `w`, both counted from the chunk's first.
fn mask(w: usize, first: usize, last: usize) -> u64 {
    let from = first.saturating_sub(w * 64).min(63);
    let to = (last - w * 64).min(63);
    (u64::MAX >> (63 - to)) & (u64::MAX << from)
}

impl Chunk {
    fn new() -> Chunk {
        Chunk { bits: [const { AtomicU64::new(0) }; WORDS], slot: OnceLock::new() }
    }

    /// The granule that holds this byte of the disk.
    #[inline]
    pub(super) fn granule(at: u64) -> usize {
        (at % CHUNK / GRANULE) as usize
    }

    /// Whether this granule may hold something other than zeroes.
    #[inline]
    pub(super) fn is_set(&self, granule: usize) -> bool {
        self.bits[granule / 64].load(Acquire) >> (granule % 64) & 1 == 1
    }

    /// Whether the granule is set, and the first one behind it that is otherwise.
    pub(super) fn run(&self, granule: usize) -> (bool, usize) {
        let set = self.is_set(granule);
        // Zero bits are those that go on as the first does.
        let load = |w: usize| self.bits[w].load(Acquire) ^ if set { u64::MAX } else { 0 };
        let (mut w, mut at) = (granule / 64, granule);
        let mut rest = load(w) >> (granule % 64);
        while rest == 0 {
            w += 1;
            at = w * 64;
            if w == WORDS {
                return (set, GRANULES);
            }
            rest = load(w);
        }
        // Another thread may have changed the first bit meanwhile: a run is one granule at least.
        (set, (at + rest.trailing_zeros() as usize).max(granule + 1))
    }

    /// Sets the granules from `first` to `last`; the words (units of 2 MiB) that became full by that.
    ///
    /// To be called *after* the bytes are written. [`Chunk::clear`] is called *before* memory is given back. So
    /// when a write and a discard of one granule meet, either the discard comes last in memory too, or the bit ends
    /// up set: a clear bit over bytes other than zero cannot remain.
    #[inline]
    pub(super) fn set(&self, first: usize, last: usize, mut full: impl FnMut(usize)) {
        order::bytes_before_bits();
        for w in first / 64..=last / 64 {
            let mask = mask(w, first, last);
            if self.bits[w].load(Relaxed) & mask != mask {
                let old = self.bits[w].fetch_or(mask, SeqCst);
                if old | mask == u64::MAX && old != u64::MAX {
                    full(w);
                }
            }
        }
    }

    /// Clears the granules from `first` to `last`; to be called before their memory is given back.
    pub(super) fn clear(&self, first: usize, last: usize) {
        for w in first / 64..=last / 64 {
            self.bits[w].fetch_and(!mask(w, first, last), SeqCst);
        }
        order::bits_before_bytes();
    }

    /// Clears one granule, where a lock orders bits and bytes.
    #[cfg(feature = "zstd")]
    pub(super) fn forget(&self, granule: usize) {
        self.bits[granule / 64].fetch_and(!(1 << (granule % 64)), SeqCst);
    }

    /// Whether nothing of this unit of 2 MiB is set.
    pub(super) fn unit_is_empty(&self, word: usize) -> bool {
        self.bits[word].load(Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_found_where_they_were_made_on_disks_of_every_size() {
        for size in [0, 1, CHUNK, CHUNK + 1, 3 << 30, 5 << 40, 1 << 50, (1 << 63) - 1] {
            let map = Map::new(size);
            let last = size.saturating_sub(1) / CHUNK;
            for number in [0, last / 3, last] {
                let made: *const Chunk = map.make(number);
                assert!(std::ptr::eq(map.get(number).unwrap(), made), "{number} of {size}");
            }
        }
    }

    #[test]
    fn what_is_missing_names_where_to_look_next() {
        let map = Map::new((1 << 63) - 1);
        let far = 1 << 37;
        map.make(far);
        let (mut at, mut steps) = (0, 0);
        while let Err(next) = map.find(at) {
            assert!(next > at && next <= far);
            (at, steps) = (next, steps + 1);
        }
        assert!(at <= far && steps < 2000, "{steps} steps to {at}");
    }

    #[test]
    fn runs_end_where_the_bits_change() {
        let chunk = Chunk::new();
        let mut full = vec![];
        chunk.set(60, 200, |w| full.push(w));
        assert_eq!(full, [1, 2]);
        assert_eq!(chunk.run(0), (false, 60));
        assert_eq!(chunk.run(60), (true, 201));
        assert_eq!(chunk.run(199), (true, 201));
        assert_eq!(chunk.run(201), (false, GRANULES));
        chunk.clear(64, 64);
        assert_eq!(chunk.run(60), (true, 64));
        assert_eq!(chunk.run(64), (false, 65));
        chunk.set(GRANULES - 1, GRANULES - 1, |_| ());
        assert_eq!(chunk.run(201), (false, GRANULES - 1));
        assert_eq!(chunk.run(GRANULES - 1), (true, GRANULES));
    }
}
