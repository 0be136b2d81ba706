//! From a block of a file to a block of the file system: trees of extents, and maps of blocks.
//!
//! Both are asked anew for each stretch, from the root down: no state that could go wrong, and the cache makes it cheap.

use super::{Ext, Inode};
use crate::bytes::{le16, le32, part};
use disk::{Error, Result};

/// A tree of extents is never deeper.
const DEEPEST: u16 = 5;
/// Blocks or holes of a map that are put together to one stretch, at most.
const LONGEST: u64 = 1024;

/// Some blocks of a file.
pub(super) struct Stretch {
    /// How many, from the asked one on; not 0.
    pub(super) blocks: u64,
    /// Where they begin; `None` for a hole.
    pub(super) on_disk: Option<u64>,
}

fn damaged(inode: &Inode) -> Error {
    Error::io(format!("the extents of inode {} are damaged", inode.number))
}

/// What is at block `wanted` of a file with extents.
pub(super) fn extent(ext: &Ext, inode: &Inode, wanted: u64) -> Result<Stretch> {
    // Behind the last block that an extent can name there is nothing.
    let mut end = 1u64 << 32;
    if wanted >= end {
        return Ok(Stretch { blocks: u64::MAX >> 20, on_disk: None });
    }
    let mut node = inode.block.to_vec();
    let mut expected: Option<u16> = None;
    loop {
        let (count, depth) = (usize::from(le16(&node, 2)), le16(&node, 6));
        let fits = 12 + count * 12 <= node.len();
        if le16(&node, 0) != 0xf30a || !fits || depth > DEEPEST || expected.is_some_and(|e| e != depth) {
            return Err(damaged(inode));
        }
        // The last entry that begins at or before the wanted block, and where the next begins.
        let mut best: Option<(u64, usize)> = None;
        for at in (1..=count).map(|n| n * 12) {
            let first = u64::from(le32(&node, at));
            if first > wanted {
                end = end.min(first);
            } else if best.is_none_or(|(other, _)| first >= other) {
                best = Some((first, at));
            }
        }
        let hole = Stretch { blocks: end - wanted, on_disk: None };
        let Some((first, at)) = best else { return Ok(hole) };
        if depth > 0 {
            let child = u64::from(le32(&node, at + 4)) | u64::from(le16(&node, at + 8)) << 32;
            node = ext.block(child)?;
            expected = Some(depth - 1);
            continue;
        }
        let length = u64::from(le16(&node, at + 4));
        // Longer ones are shorter ones that were not written yet.
        let (length, written) = if length > 32768 { (length - 32768, false) } else { (length, true) };
        if wanted >= first + length {
            return Ok(hole);
        }
        let start = u64::from(le32(&node, at + 8)) | u64::from(le16(&node, at + 6)) << 32;
        let blocks = (first + length).min(end) - wanted;
        return Ok(Stretch { blocks, on_disk: written.then_some(start + wanted - first) });
    }
}

/// What is at block `wanted` of a file with a map: twelve blocks, and blocks of numbers of one, two and three levels.
pub(super) fn block_map(ext: &Ext, inode: &Inode, wanted: u64) -> Result<Stretch> {
    let first = pointer(ext, inode, wanted)?;
    let mut blocks = first.blocks;
    for _ in 1..LONGEST {
        let Some(next) = wanted.checked_add(blocks) else { break };
        let next = pointer(ext, inode, next)?;
        if next.on_disk != first.on_disk.map(|start| start + blocks) {
            break;
        }
        blocks = blocks.saturating_add(next.blocks);
    }
    Ok(Stretch { blocks, on_disk: first.on_disk })
}

/// One block, or a hole of the size that the missing number stands for.
fn pointer(ext: &Ext, inode: &Inode, wanted: u64) -> Result<Stretch> {
    let per_block = ext.superblock.block / 4;
    let found =
        |number: u32, blocks: u64| Stretch { blocks, on_disk: (number != 0).then_some(number.into()) };
    if wanted < 12 {
        return Ok(found(le32(&inode.block, wanted as usize * 4), 1));
    }
    let mut index = wanted - 12;
    let mut covers = per_block;
    for level in 0..3 {
        if index < covers {
            let mut number = le32(&inode.block, 48 + level * 4);
            // `covers` is what the block with this number stands for, in blocks.
            while covers > 1 && number != 0 {
                covers /= per_block;
                let mut bytes = [0; 4];
                ext.read_block(number.into(), index / covers * 4, &mut bytes)?;
                number = le32(part(&bytes, 0, 4), 0);
                index %= covers;
            }
            return Ok(found(number, covers - index));
        }
        index -= covers;
        covers *= per_block;
    }
    Ok(Stretch { blocks: u64::MAX >> 20, on_disk: None })
}
