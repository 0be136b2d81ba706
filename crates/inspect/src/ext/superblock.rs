//! The superblock, and what follows from it alone.

use crate::{
    About,
    bytes::{id, le16, le32, part, text, uuid},
};
use disk::{Error, Result};

/// Features without which a file system cannot be read, as bits of the field `incompat`.
const JOURNAL: u32 = 0x4;
const EXTENTS: u32 = 0x40;
const WIDE: u32 = 0x80;
const META_GROUPS: u32 = 0x10;
const LARGE_DIRECTORIES: u32 = 0x4000;
const NEEDS_RECOVERY: u32 = 0x4;
/// Compression (of single files), types in directories, recovery, meta groups, extents, 64 bit, protection against
/// multiple mounts, flexible groups, attributes in inodes, a seed of checksums, large directories, inline data,
/// encryption (of single files), and names that have no case.
const KNOWN: u32 = 0x1
    | 0x2
    | 0x4
    | 0x10
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;

pub(super) struct Superblock {
    /// How many.
    pub(super) inodes: u32,
    /// How many.
    pub(super) blocks: u64,
    /// Bytes of a block.
    pub(super) block: u64,
    pub(super) inodes_per_group: u32,
    /// In bytes.
    pub(super) inode_size: u64,
    /// In bytes.
    pub(super) descriptor_size: u64,
    pub(super) journal_inode: u32,
    pub(super) needs_recovery: bool,
    /// Directories may be larger than 4 GiB.
    pub(super) large_directories: bool,
    /// Directory entries have a type, and so names of at most 255 bytes.
    pub(super) typed_entries: bool,
    first_block: u64,
    blocks_per_group: u64,
    /// From this group of descriptor blocks on, they lie in the groups that they describe.
    first_meta_group: u64,
    sparse: bool,
    /// The groups with a copy of the superblock, where these are listed.
    listed: Option<[u32; 2]>,
    kind: &'static str,
    label: String,
    uuid: [u8; 16],
}

impl Superblock {
    pub(super) fn parse(bytes: &[u8]) -> Result<Superblock> {
        let damaged = |what: &str| Error::io(format!("the superblock is damaged: {what}"));
        if le16(bytes, 0x38) != 0xef53 {
            return Err(damaged("its magic number is missing"));
        }
        let (compat, incompat, read_only) = (le32(bytes, 0x5c), le32(bytes, 0x60), le32(bytes, 0x64));
        if incompat & 0x8 != 0 {
            return Err(Error::invalid("this is the journal of another file system"));
        }
        if incompat & !KNOWN != 0 {
            return Err(Error::invalid(format!(
                "this ext file system has features that are not known (bits {:#x})",
                incompat & !KNOWN
            )));
        }
        let log = le32(bytes, 0x18);
        if log > 6 {
            return Err(damaged("the size of blocks is impossible"));
        }
        let block = 1024u64 << log;
        let wide = incompat & WIDE != 0;
        let high = if wide { u64::from(le32(bytes, 0x150)) << 32 } else { 0 };
        let blocks = u64::from(le32(bytes, 4)) | high;
        if blocks.checked_mul(block).is_none_or(|size| size > i64::MAX as u64) {
            return Err(damaged("it has too many blocks"));
        }
        // In its first revision these fields did not exist.
        let dynamic = le32(bytes, 0x4c) > 0;
        let inode_size = if dynamic { u64::from(le16(bytes, 0x58)) } else { 128 };
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > block {
            return Err(damaged("the size of inodes is impossible"));
        }
        let descriptor_size = if wide { u64::from(le16(bytes, 0xfe)) } else { 32 };
        if !descriptor_size.is_power_of_two() || descriptor_size < 32 || descriptor_size > block {
            return Err(damaged("the size of group descriptors is impossible"));
        }
        let (inodes_per_group, blocks_per_group) = (le32(bytes, 0x28), le32(bytes, 0x20));
        if inodes_per_group == 0 || blocks_per_group == 0 {
            return Err(damaged("its groups are empty"));
        }
        let kind = match (compat & JOURNAL != 0, incompat & (EXTENTS | WIDE) != 0) {
            (_, true) => "ext4",
            (true, false) => "ext3",
            (false, false) => "ext2",
        };
        Ok(Superblock {
            inodes: le32(bytes, 0),
            blocks,
            block,
            inodes_per_group,
            inode_size,
            descriptor_size,
            journal_inode: if compat & JOURNAL != 0 { le32(bytes, 0xe0) } else { 0 },
            needs_recovery: incompat & NEEDS_RECOVERY != 0,
            large_directories: incompat & LARGE_DIRECTORIES != 0,
            typed_entries: incompat & 0x2 != 0,
            first_block: le32(bytes, 0x14).into(),
            blocks_per_group: blocks_per_group.into(),
            first_meta_group: if incompat & META_GROUPS != 0 { le32(bytes, 0x104).into() } else { u64::MAX },
            sparse: read_only & 0x1 != 0,
            listed: (compat & 0x200 != 0).then(|| [le32(bytes, 0x24c), le32(bytes, 0x250)]),
            // What else only ext4 has: checksums of groups and metadata, large files and directories, bigalloc.
            kind: if read_only & 0x678 != 0 && kind != "ext4" { "ext4" } else { kind },
            label: text(part(bytes, 0x78, 16)),
            uuid: id(bytes, 0x68),
        })
    }

    pub(super) fn about(&self) -> About {
        About { kind: self.kind, label: self.label.clone(), uuid: uuid(self.uuid), notes: Vec::new() }
    }

    /// Where the descriptor of a group is: its block, and its place there.
    pub(super) fn descriptor(&self, group: u64) -> (u64, u64) {
        let per_block = self.block / self.descriptor_size;
        let (number, offset) = (group / per_block, group % per_block * self.descriptor_size);
        // The superblock is at byte 1024.
        let superblock = 1024 / self.block;
        if number < self.first_meta_group {
            return (superblock + 1 + number, offset);
        }
        let first = number * per_block;
        let start = self.first_block.saturating_add(first.saturating_mul(self.blocks_per_group));
        // With blocks of 1K and clusters, the first group begins with the block before the superblock's.
        let odd = self.block == 1024 && first == 0 && self.first_block == 0;
        (start.saturating_add(u64::from(self.has_superblock(first)) + u64::from(odd)), offset)
    }

    fn has_superblock(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if let Some(listed) = self.listed {
            return listed.iter().any(|n| u64::from(*n) == group);
        }
        let is_power = |base: u64| {
            let mut power = 1u64;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        !self.sparse || [3, 5, 7].into_iter().any(is_power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_with_a_sentence() {
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = vec![0; 1024];
            for (at, value) in
                [(0, 16), (4, 64), (0x20, 8192), (0x28, 16), (0x38, 0xef53), (0x4c, 1), (0x58, 256)]
            {
                bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            }
            change(&mut bytes);
            Superblock::parse(&bytes).err().map(|e| e.to_string())
        };
        assert_eq!(refused(&|_| {}), None);
        assert_eq!(
            refused(&|b| b[0x38] = 0).unwrap(),
            "the superblock is damaged: its magic number is missing"
        );
        assert_eq!(
            refused(&|b| b[0x18] = 7).unwrap(),
            "the superblock is damaged: the size of blocks is impossible"
        );
        assert_eq!(
            refused(&|b| b[0x58] = 3).unwrap(),
            "the superblock is damaged: the size of inodes is impossible"
        );
        assert!(refused(&|b| b[0x63] = 0x80).unwrap().contains("bits 0x80000000"));
        assert!(refused(&|b| b[0x60] = 8).unwrap().contains("journal of another"));
    }
}
