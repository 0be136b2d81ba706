//! A journal that has changes which are not in their places yet: where the present content of blocks is.
//!
//! Everything in it is big-endian, while the rest of the file system is little-endian.

use super::{Ext, Inode};
use crate::bytes::{be16, be32, le16, le32, part};
use disk::{Error, Result};
use std::collections::BTreeMap;

/// With this number each block of the journal's own begins. Where it would begin another, that one is escaped.
pub(super) const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

/// What fast commits begin with.
const FAST_HEAD: u16 = 9;

const WIDE: u32 = 0x2;
const CHECKSUMS_2: u32 = 0x8;
const CHECKSUMS_3: u32 = 0x10;
const FAST_COMMITS: u32 = 0x20;
/// Revocation, 64 bit, asynchronous commits, checksums of the second and third kind, fast commits.
const KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20;

/// Where blocks are instead of in their places.
#[derive(Default)]
pub(super) struct Journal {
    /// By block of the file system: the block in the journal, and whether it is escaped.
    moved: BTreeMap<u64, (u64, bool)>,
}

impl Journal {
    /// Where the content of a block is, and whether it is escaped.
    pub(super) fn place(&self, block: u64) -> (u64, bool) {
        self.moved.get(&block).copied().unwrap_or((block, false))
    }

    /// The first of `count` blocks from `block` on that is elsewhere.
    pub(super) fn next(&self, block: u64, count: u64) -> Option<u64> {
        self.moved.range(block..block.saturating_add(count)).next().map(|(at, _)| *at)
    }

    /// Reads the journal of a file system, in which nothing is replayed yet. With it comes what people should know.
    pub(super) fn read(ext: &Ext) -> Result<(Journal, Option<String>)> {
        let number = ext.superblock.journal_inode;
        if number == 0 {
            return Err(Error::invalid("it is on another disk"));
        }
        let inode = ext.inode(number)?;
        let log = Log::open(ext, &inode)?;
        let mut journal = Journal::default();
        let mut note = None;
        if log.start != 0 {
            let next = log.replay(&mut journal)?;
            note = log.has_fast_commits(next)?.then(|| {
                "the journal has fast commits, which are not replayed; the latest changes are missing"
                    .to_string()
            });
        }
        Ok((journal, note))
    }
}

/// The journal as the blocks of a file.
struct Log<'a> {
    ext: &'a Ext,
    inode: &'a Inode,
    /// The first block of the log, and the one behind its last: it is a ring.
    first: u64,
    end: u64,
    /// Where the oldest transaction begins; 0 for an empty log.
    start: u64,
    sequence: u32,
    features: u32,
    fast: bool,
}

impl<'a> Log<'a> {
    fn open(ext: &'a Ext, inode: &'a Inode) -> Result<Log<'a>> {
        let mut bytes = vec![0; 1024];
        ext.read_inode(inode, 0, &mut bytes)?;
        let kind = be32(&bytes, 4);
        if bytes[..4] != MAGIC || !(kind == 3 || kind == 4) {
            return Err(Error::io("its superblock is damaged"));
        }
        let features = if kind == 4 { be32(&bytes, 0x28) } else { 0 };
        if features & !KNOWN != 0 {
            return Err(Error::invalid(format!(
                "it has features that are not known (bits {:#x})",
                features & !KNOWN
            )));
        }
        let fast = features & FAST_COMMITS != 0;
        let reserved = match be32(&bytes, 0x54) {
            _ if !fast => 0,
            0 => 256,
            count => count,
        };
        let (first, all) = (u64::from(be32(&bytes, 0x14)), u64::from(be32(&bytes, 0x10)));
        let end = all.saturating_sub(reserved.into());
        let start = u64::from(be32(&bytes, 0x1c));
        let in_file = all.saturating_mul(ext.superblock.block) <= inode.size.min(ext.source.size());
        if u64::from(be32(&bytes, 0xc)) != ext.superblock.block
            || !in_file
            || first == 0
            || first >= end
            || start != 0 && !(first..end).contains(&start)
        {
            return Err(Error::io("its superblock is damaged"));
        }
        Ok(Log { ext, inode, first, end, start, sequence: be32(&bytes, 0x18), features, fast })
    }

    /// The block of the file system that block `at` of the log is.
    fn place(&self, at: u64) -> Result<u64> {
        let run = self.ext.run_of(self.inode, at * self.ext.superblock.block)?;
        match run.place {
            crate::Place::At(byte) => Ok(byte / self.ext.superblock.block),
            _ => Err(Error::io("it has a hole")),
        }
    }

    fn after(&self, at: u64) -> u64 {
        if at + 1 >= self.end { self.first } else { at + 1 }
    }

    /// Whether there are fast commits on top of the transactions before this one. They begin one block behind the end of
    /// the ring, and unlike all else in the journal they are little-endian.
    fn has_fast_commits(&self, next: u32) -> Result<bool> {
        if !self.fast {
            return Ok(false);
        }
        let bytes = self.ext.block(self.place(self.end + 1)?)?;
        Ok(le16(&bytes, 0) == FAST_HEAD && le32(&bytes, 8) == next)
    }

    /// Goes over the transactions, and takes those that were committed. Returns the number of the first that was not.
    fn replay(&self, journal: &mut Journal) -> Result<u32> {
        let (mut at, mut sequence) = (self.start, self.sequence);
        let mut written: Vec<(u64, (u64, bool))> = Vec::new();
        let mut revoked: Vec<u64> = Vec::new();
        // Once round, and no farther.
        let mut left = self.end - self.first;
        while left > 0 {
            left -= 1;
            let bytes = self.ext.block(self.place(at)?)?;
            if bytes[..4] != MAGIC || be32(&bytes, 8) != sequence {
                break;
            }
            at = self.after(at);
            match be32(&bytes, 4) {
                DESCRIPTOR => {
                    for (block, escaped) in self.tags(&bytes) {
                        if left == 0 {
                            return Ok(sequence);
                        }
                        left -= 1;
                        written.push((block, (self.place(at)?, escaped)));
                        at = self.after(at);
                    }
                }
                REVOKE => revoked.extend(self.revoked(&bytes)),
                COMMIT => {
                    journal.moved.extend(written.drain(..));
                    for block in revoked.drain(..) {
                        journal.moved.remove(&block);
                    }
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        Ok(sequence)
    }

    /// The blocks that follow a descriptor: whose content they are, and whether they are escaped.
    fn tags(&self, bytes: &[u8]) -> Vec<(u64, bool)> {
        let three = self.features & CHECKSUMS_3 != 0;
        let wide = self.features & WIDE != 0;
        let checksums = self.features & (CHECKSUMS_2 | CHECKSUMS_3) != 0;
        let size = match (three, wide) {
            (true, _) => 16,
            (false, true) => 12 + 2 * usize::from(checksums),
            (false, false) => 8 + 2 * usize::from(checksums),
        };
        let end = bytes.len() - if checksums { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut at = 12;
        while at + size <= end {
            let flags = if three { be32(bytes, at + 4) } else { be16(bytes, at + 6).into() };
            let high = if wide { u64::from(be32(bytes, at + 8)) << 32 } else { 0 };
            tags.push((u64::from(be32(bytes, at)) | high, flags & 1 != 0));
            if flags & 8 != 0 {
                break;
            }
            // A UUID follows unless it is the same as before.
            at += size + if flags & 2 == 0 { 16 } else { 0 };
        }
        tags
    }

    /// The blocks that this and earlier transactions shall not write any more.
    fn revoked(&self, bytes: &[u8]) -> Vec<u64> {
        let end = (be32(bytes, 12) as usize).min(bytes.len());
        let all = part(bytes, 16, end.saturating_sub(16));
        match self.features & WIDE != 0 {
            true => {
                all.chunks_exact(8).map(|n| u64::from(be32(n, 0)) << 32 | u64::from(be32(n, 4))).collect()
            }
            false => all.chunks_exact(4).map(|n| be32(n, 0).into()).collect(),
        }
    }
}
