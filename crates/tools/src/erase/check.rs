//! Whether a part of a disk is as `discard` or `zero` would leave it. Nothing is changed.
//!
//! A server is asked for whole blocks only. Of the first and the last, just what is in the part counts.

use super::{LIMIT, PIECE};
use anyhow::{Context, Result, ensure};
use client::RemoteDisk;
use disk::{Disk, Extents, Kind, Range};

/// The blocks that a part of a disk is in.
fn whole_blocks(disk: &RemoteDisk, range: Range) -> Range {
    let block = u64::from(disk.facts().blocks.minimum).max(1);
    range.whole_blocks(block, disk.size())
}

/// Whether no part of the range takes space.
///
/// # Errors
/// The server does not tell, or failed.
pub(super) fn is_discarded(disk: &RemoteDisk, range: Range) -> Result<bool> {
    ensure!(disk.facts().extents, "the server does not tell what takes space");
    let whole = whole_blocks(disk, range);
    let mut at = whole.start;
    while at < range.end() {
        let extents = disk.extents(Range::new(at, whole.end() - at), LIMIT).wait();
        let extents = extents.with_context(|| format!("asking what takes space at {at}"))?;
        if extents.ranges(at).any(|(part, kind)| !kind.hole && part.intersect(range).is_some()) {
            return Ok(false);
        }
        at += extents.covered();
    }
    Ok(true)
}

/// Whether all of the range reads as zeroes. What the server says is believed, the rest is read.
///
/// # Errors
/// The server failed.
pub(super) fn is_zero(disk: &RemoteDisk, range: Range) -> Result<bool> {
    let whole = whole_blocks(disk, range);
    let mut says = disk.facts().extents;
    let mut at = whole.start;
    while at < range.end() {
        let rest = Range::new(at, whole.end() - at);
        let extents = if says { disk.extents(rest, LIMIT).wait().ok() } else { None };
        says = extents.is_some();
        let extents = extents.unwrap_or_else(|| Extents::one(rest.len, Kind::DATA));
        let data = extents.ranges(at).filter(|(_, kind)| !kind.zero).map(|(part, _)| part);
        for piece in data.flat_map(|part| part.split_at_multiples(PIECE)) {
            let Some(counts) = piece.intersect(range) else { continue };
            let data = disk.read(piece).wait().with_context(|| format!("reading at {}", piece.start))?;
            if !data.slice(counts.start - piece.start, counts.len).is_zero() {
                return Ok(false);
            }
        }
        at += extents.covered();
    }
    Ok(true)
}
