//! How large a file system of ext2, ext3 or ext4 must be for a tree. It is a guess that errs on the small side; what
//! `mke2fs` makes of it tells how much is missing.

use crate::common::tree::{Tree, What};
use disk::Result;
use std::{collections::HashSet, io::Read, path::Path};

/// File systems from this size on have blocks of 4 KiB, smaller ones of 1 KiB, as mke2fs chooses by itself.
const LARGE: u64 = 512 << 20;
/// Of an inode.
const INODE: u64 = 256;
/// Of the smallest file system that is worth the name.
const LEAST: u64 = 1 << 20;
/// Without anybody's wish, one inode for so many free bytes.
const BYTES_PER_INODE: u64 = 16 << 10;
/// No file system is larger; who needs more has another problem.
const ABSURD: u64 = 16 << 40;

/// What a tree needs.
pub(super) struct Demand {
    files: Vec<u64>,
    inodes: u64,
    has_journal: bool,
}

impl Demand {
    pub(super) fn of(tree: &Tree, has_journal: bool) -> Demand {
        let (mut files, mut seen) = (Vec::new(), HashSet::new());
        for (number, node) in tree.nodes.iter().enumerate() {
            let directory = matches!(node.what, What::Directory(_));
            // Further names of a file take up nothing.
            if directory || node.attributes.links < 2 || seen.insert(node.attributes.identity) {
                files.push(match &node.what {
                    // Entries, each with a name of its own.
                    What::Directory(children) => {
                        24 + children.iter().map(|c| 8 + tree.nodes[*c].name.len() as u64 + 3).sum::<u64>()
                    }
                    // Short ones are in the inode.
                    What::Link(target) if target.len() >= 60 => target.len() as u64,
                    _ => tree.size(number),
                });
            }
        }
        Demand { inodes: files.len() as u64, files, has_journal }
    }

    /// A file system that holds the tree, with so many bytes free besides.
    pub(super) fn guess(&self, free: u64) -> Guess {
        let inodes = self.inodes + self.inodes / 10 + 32 + free / BYTES_PER_INODE;
        let small = self.blocks(1024) * 1024 + inodes * INODE + free;
        let block = if small < LARGE { 1024 } else { 4096 };
        let content = self.blocks(block) * block;
        // Where blocks of a file are, bitmaps, descriptors of groups.
        let more = (content + free) / 128 + inodes * INODE + 64 * block;
        let journal = if self.has_journal { 4096 * block } else { 0 };
        let size = (content + free + more + journal).max(LEAST).next_multiple_of(block);
        Guess { size, inodes, block }
    }

    /// A file system of this size, whatever that means for the tree.
    pub(super) fn exactly(&self, size: u64) -> Guess {
        let block = if size < LARGE { 1024 } else { 4096 };
        let inodes = (size / BYTES_PER_INODE).max(self.inodes + 32);
        Guess { size, inodes, block }
    }

    fn blocks(&self, block: u64) -> u64 {
        self.files.iter().map(|size| size.div_ceil(block)).sum()
    }
}

/// What is asked of mke2fs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    /// Of the file system, in bytes.
    pub(super) size: u64,
    pub(super) inodes: u64,
    /// Bytes of a block.
    pub(super) block: u64,
}

impl Guess {
    /// Whether there is no point in trying a larger one.
    pub(super) fn is_absurd(&self) -> bool {
        self.size > ABSURD
    }

    /// The next guess after this one, of which `found` came; `None` when that is good. Without `found` the files did not
    /// find room.
    pub(super) fn larger(&self, found: Option<Found>, free: u64) -> Option<Guess> {
        let missing = match found {
            None => (self.size / 8).max(256 << 10),
            Some(found) if found.free < free => free - found.free + free / 100 + 16 * self.block,
            Some(_) => return None,
        };
        let inodes = if found.is_none() { self.inodes + self.inodes / 8 } else { self.inodes };
        Some(Guess { size: (self.size + missing).next_multiple_of(self.block), inodes, ..*self })
    }
}

/// What the superblock of a file system says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Bytes that are free.
    pub(super) free: u64,
}

impl Found {
    pub(super) fn read(image: &Path) -> Result<Found> {
        let mut superblock = [0; 1024];
        let mut file = std::fs::File::open(image)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(1024))?;
        file.read_exact(&mut superblock)?;
        let number =
            |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|byte| superblock[at + byte])));
        // The upper halves of counts matter only with the feature "64bit".
        let high = |at: usize| if number(0x60) & 0x80 != 0 { number(at) << 32 } else { 0 };
        let blocks = number(0x0c) | high(0x158);
        Ok(Found { free: blocks << (10 + number(0x18).min(6)) })
    }
}
