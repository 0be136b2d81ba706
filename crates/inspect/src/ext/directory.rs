//! Directories. Those with an index are read as those without: its blocks look like empty ones on purpose.

use super::{Ext, Inode};
use crate::bytes::{byte, le16, le32, part};
use disk::{Error, Result};
use std::ops::ControlFlow;

/// Read at once, at first, and in the end of a large directory.
const STEPS: (u64, u64) = (32 << 10, 256 << 10);

type Each<'a> = &'a mut dyn FnMut(u32, &[u8]) -> Result<ControlFlow<()>>;

/// Hands out inodes and names, without `.` and `..`.
pub(super) fn entries(ext: &Ext, inode: &Inode, each: Each<'_>) -> Result<()> {
    inode.check_readable()?;
    if inode.is_inline() {
        // The number of the parent directory comes first, instead of the entry for it. What does not fit into the place
        // for block numbers is a block of its own.
        let all = inode.inline_data();
        if block(ext, part(&all, 4, 56), inode, each)?.is_continue() {
            let _ = block(ext, part(&all, 60, all.len()), inode, each)?;
        }
        return Ok(());
    }
    if inode.size > ext.source.size() {
        return Err(Error::io(format!("inode {} is a directory larger than the disk", inode.number)));
    }
    let size = ext.superblock.block;
    let mut buffer = Vec::new();
    let (mut at, mut step) = (0, STEPS.0.max(size));
    while at < inode.size {
        let run = ext.run_of(inode, at)?;
        let len = run.len.min(step).min((inode.size - at).next_multiple_of(size));
        if !matches!(run.place, crate::Place::Zeroes) {
            buffer.resize(len as usize, 0);
            ext.read_inode(inode, at, &mut buffer)?;
            for bytes in buffer.chunks(size as usize) {
                if block(ext, bytes, inode, each)?.is_break() {
                    return Ok(());
                }
            }
        }
        // A hole may be as large as it likes.
        at += if matches!(run.place, crate::Place::Zeroes) { run.len } else { len };
        step = (step * 2).min(STEPS.1.max(size));
    }
    Ok(())
}

fn block(ext: &Ext, bytes: &[u8], inode: &Inode, each: Each<'_>) -> Result<ControlFlow<()>> {
    let mut at = 0;
    // Less than that is no entry, but what is left of a block.
    while at + 8 <= bytes.len() {
        let length = match le16(bytes, at + 4) {
            // In blocks of 64K, where 65536 does not fit.
            0 | 0xffff if bytes.len() == 65536 => 65536 - at,
            length => length.into(),
        };
        let name = match ext.superblock.typed_entries {
            true => byte(bytes, at + 6).into(),
            false => usize::from(le16(bytes, at + 6)),
        };
        if length < 8 || !length.is_multiple_of(4) || length > bytes.len() - at || name > length - 8 {
            return Err(Error::io(format!("the directory of inode {} is damaged", inode.number)));
        }
        let number = le32(bytes, at);
        let name = part(bytes, at + 8, name);
        if number != 0 && !name.is_empty() && name != b"." && name != b".." && each(number, name)?.is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        at += length;
    }
    Ok(ControlFlow::Continue(()))
}
