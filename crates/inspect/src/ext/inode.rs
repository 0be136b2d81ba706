//! An inode: what is said of a file, and where its content is.

use super::{Superblock, time};
use crate::{
    bytes::{byte, id, le16, le32, part},
    file_system::Time,
};
use disk::{Error, Result};

const COMPRESSED: u32 = 0x4;
const ENCRYPTED: u32 = 0x800;
const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;

/// What an inode says.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(super) number: u32,
    pub(super) mode: u16,
    pub(super) links: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) modified: Time,
    /// Numbers of blocks, the root of a tree of extents, or the first bytes of the content.
    pub(super) block: [u8; 60],
    flags: u32,
    /// Where content that is kept in the inode goes on.
    more: Vec<u8>,
}

impl Inode {
    pub(super) fn parse(number: u32, bytes: &[u8], superblock: &Superblock) -> Result<Inode> {
        let mode = le16(bytes, 0);
        let is_directory = mode >> 12 == 4;
        // Directories had something else in the upper half.
        let wide = !is_directory || superblock.large_directories;
        let size = u64::from(le32(bytes, 4)) | if wide { u64::from(le32(bytes, 0x6c)) << 32 } else { 0 };
        if size > i64::MAX as u64 {
            return Err(Error::io(format!("the size of inode {number} is damaged")));
        }
        let extra = if bytes.len() > 128 { usize::from(le16(bytes, 0x80)) } else { 0 };
        let extra_time = if extra >= 12 { le32(bytes, 0x88) } else { 0 };
        let mut block = [0; 60];
        block.copy_from_slice(part(bytes, 0x28, 60));
        let flags = le32(bytes, 0x20);
        let attributes = part(bytes, 128 + extra, bytes.len());
        Ok(Inode {
            number,
            mode,
            links: le16(bytes, 0x1a),
            uid: u32::from(le16(bytes, 2)) | u32::from(le16(bytes, 0x78)) << 16,
            gid: u32::from(le16(bytes, 0x18)) | u32::from(le16(bytes, 0x7a)) << 16,
            size,
            modified: time(le32(bytes, 0x10), extra_time),
            block,
            flags,
            more: if flags & INLINE != 0 { data_attribute(attributes).to_vec() } else { Vec::new() },
        })
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    pub(super) fn is_inline(&self) -> bool {
        self.flags & INLINE != 0
    }

    /// The content of a file that is kept in its inode.
    pub(super) fn inline_data(&self) -> Vec<u8> {
        let mut all = self.block.to_vec();
        all.extend(&self.more);
        all.truncate(usize::try_from(self.size).unwrap_or(usize::MAX));
        all
    }

    /// Whether the content is as the file's owner wrote it.
    pub(super) fn check_readable(&self) -> Result<()> {
        if self.flags & ENCRYPTED != 0 {
            return Err(Error::invalid(
                "is encrypted by the file system, which only a kernel with the key can read",
            ));
        }
        if self.flags & COMPRESSED != 0 {
            return Err(Error::invalid("is compressed by the file system, in a way that is not supported"));
        }
        Ok(())
    }

    /// Major and minor number, in the old form or the new one.
    pub(super) fn device(&self) -> (u32, u32) {
        let (old, new) = (le32(&self.block, 0), le32(&self.block, 4));
        match old {
            0 => ((new & 0xf_ff00) >> 8, new & 0xff | new >> 12 & 0xf_ff00),
            _ => (old >> 8 & 0xff, old & 0xff),
        }
    }
}

/// The attribute `system.data`, among those that an inode keeps.
fn data_attribute(attributes: &[u8]) -> &[u8] {
    if le32(attributes, 0) != 0xea02_0000 {
        return &[];
    }
    let all = part(attributes, 4, attributes.len());
    let mut at = 0;
    // The list ends with four zeroes, or with the inode.
    while at + 16 <= all.len() && id(all, at)[..4] != [0; 4] {
        let length = usize::from(byte(all, at));
        if byte(all, at + 1) == 7 && part(all, at + 16, length) == b"data" && le32(all, at + 4) == 0 {
            return part(all, le16(all, at + 2).into(), le32(all, at + 8) as usize);
        }
        at += (16 + length).next_multiple_of(4);
    }
    &[]
}
