//! The changes to one disk, and the arithmetic of its blocks.

use disk::{Error, Facts, Range, Result};
use std::sync::Arc;
use store::{Blocks, Header, Leaf, Map, Medium, Store};

/// The changes to one export.
pub(super) struct Overlay {
    /// Of the disk.
    pub(super) size: u64,
    /// What lies beyond the last whole minimum block of the disk below cannot be asked for; up to here it can.
    end: u64,
    /// Bytes of a block: a power of two.
    pub(super) block: u64,
    pub(super) blocks: Blocks,
    /// What it stands on, highest first; the lowest stands on the disk below.
    pub(super) parents: Vec<Arc<Overlay>>,
}

impl Overlay {
    /// Over a disk of these facts, with no block in it.
    pub(super) fn temporary(block: u64, below: &Facts, store: &Arc<Store>) -> Result<Overlay> {
        let block = block.max(below.blocks.minimum.into());
        fits(block, below)?;
        let end = end(below);
        let blocks = Blocks::temporary(store, block, end.div_ceil(block));
        Ok(Overlay { size: below.size, end, block, blocks, parents: vec![] })
    }

    /// What is kept, over a disk of these facts, which has the right size.
    pub(super) fn kept(
        header: &Header,
        blocks: Blocks,
        parents: Vec<Arc<Overlay>>,
        below: &Facts,
    ) -> Result<Overlay> {
        fits(header.block, below)?;
        Ok(Overlay { size: header.size, end: end(below), block: header.block, blocks, parents })
    }

    /// The bytes of the block that holds byte `at`.
    pub(super) fn block_around(&self, at: u64) -> Range {
        let start = at & !(self.block - 1);
        Range::new(start, self.block.min(self.end - start))
    }

    /// The blocks that a range touches, as bytes.
    pub(super) fn blocks_around(&self, r: Range) -> Range {
        let (first, last) = (self.block_around(r.start), self.block_around(r.end() - 1));
        Range::new(first.start, last.end() - first.start)
    }

    /// The whole blocks within a range, as bytes; the disk's last block may be short and whole.
    pub(super) fn blocks_within(&self, r: Range) -> Option<Range> {
        let start = r.start.checked_next_multiple_of(self.block)?;
        let end = if r.end() >= self.end { self.end } else { r.end() & !(self.block - 1) };
        (start < end).then(|| Range::new(start, end - start))
    }

    /// The leaf of the block that holds byte `at`.
    pub(super) fn leaf(&self, at: u64) -> (&Leaf, usize) {
        self.blocks.leaf(at / self.block)
    }

    /// The states of the blocks.
    pub(super) fn map(&self) -> &Map {
        self.blocks.map()
    }

    /// The bytes of the blocks that are here.
    pub(super) fn store(&self) -> &dyn Medium {
        self.blocks.bytes()
    }

    /// Where byte `at` of the disk has its place in the store.
    pub(super) fn place(&self, leaf: &Leaf, at: u64) -> u64 {
        self.blocks.place(leaf, at / self.block) + at % self.block
    }

    /// So many blocks from the one that holds byte `at`, as the rest of `r` from `at` on that lies in them.
    pub(super) fn part(&self, at: u64, blocks: u64, r: Range) -> Range {
        let end = (at / self.block).saturating_add(blocks).saturating_mul(self.block);
        Range::new(at, end.min(r.end()) - at)
    }
}

/// Up to here the disk below can be asked.
fn end(below: &Facts) -> u64 {
    below.size - below.size % u64::from(below.blocks.minimum)
}

/// Whether the disk below gives such blocks.
fn fits(block: u64, below: &Facts) -> Result<()> {
    let (minimum, maximum) = (u64::from(below.blocks.minimum), u64::from(below.blocks.maximum));
    if block < minimum {
        return Err(Error::invalid(format!(
            "the overlay has blocks of {block} bytes, but the disk below reads no less than {minimum} at once"
        )));
    }
    if block > maximum {
        return Err(Error::invalid(format!(
            "cow-block-size={block}: the disk below reads no more than {maximum} bytes at once"
        )));
    }
    Ok(())
}
