//! Partition tables as bytes, and where the partitions go: pure arithmetic that touches no file.
//!
//! Sectors have 512 bytes. A disk of partitions is a [`Layout`]: the bytes of its tables, the place of each partition,
//! and zeroes between.

mod gpt;
mod mbr;

use disk::{Error, Range, Result};
pub(crate) use gpt::gpt;
pub(crate) use inspect::Guid;
pub(crate) use mbr::{MAX_PRIMARY, MAX_SIZE, mbr};
use params::Size;

/// Bytes per sector.
pub(crate) const SECTOR: u64 = 512;

/// Where partitions begin unless somebody wants it otherwise: multiples of this many bytes.
pub(crate) const ALIGNMENT: u64 = 1 << 20;

/// A partition that shall be on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// In bytes, not 0; rounded up to whole sectors.
    pub(crate) size: u64,
    /// It begins at a multiple of this many bytes, itself a multiple of [`SECTOR`].
    pub(crate) alignment: u64,
    /// Its type in an MBR.
    pub(crate) mbr_type: u8,
    /// Its type in a GPT.
    pub(crate) gpt_type: Guid,
    /// Its own id in a GPT.
    pub(crate) id: Guid,
    /// Its name in a GPT, which keeps 36 UTF-16 units of it.
    pub(crate) name: String,
    /// A BIOS may boot from it.
    pub(crate) bootable: bool,
}

/// A partitioned disk.
#[derive(Debug)]
pub(crate) struct Layout {
    /// In bytes.
    pub(crate) size: u64,
    /// Where each partition lies, in bytes and in the order in which they were wanted; whole sectors.
    pub(crate) partitions: Vec<Range>,
    /// The bytes of the tables and where they lie, from the beginning of the disk to its end.
    pub(crate) tables: Vec<(u64, Vec<u8>)>,
}

/// Goes along the disk from one thing to the next.
struct Cursor(u64);

impl Cursor {
    /// The next `len` bytes from a multiple of `alignment` on.
    fn take(&mut self, len: u64, alignment: u64) -> Result<Range> {
        let start = self.0.checked_next_multiple_of(alignment);
        let end = start.and_then(|start| start.checked_add(len)?.checked_next_multiple_of(SECTOR));
        match (start, end) {
            (Some(start), Some(end)) if end <= Size::MAX.bytes() => {
                self.0 = end;
                Ok(Range::new(start, end - start))
            }
            _ => Err(Error::invalid("the partitions together are larger than a disk can be")),
        }
    }
}

/// The number of the sector that begins at this byte.
pub(crate) fn sector(byte: u64) -> u64 {
    byte / SECTOR
}

#[cfg(test)]
mod tests;
