//! Partition tables: GPT, and that of DOS with its chain of logical partitions, on sectors of 512 and 4096 bytes.

mod gpt;
mod mbr;
mod types;

use crate::{Guid, Source};
use disk::{Error, Range, Result};

/// Which kind of table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table, of UEFI.
    Gpt,
    /// Master boot record, of DOS.
    Mbr,
}

impl Scheme {
    /// As people call it.
    pub fn word(self) -> &'static str {
        match self {
            Scheme::Gpt => "gpt",
            Scheme::Mbr => "mbr",
        }
    }
}

/// What a partition is for, in the words of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A byte in an MBR.
    Mbr(u8),
    /// A GUID in a GPT.
    Gpt(Guid),
}

impl Type {
    /// What is known of it, such as `Linux` or `EFI system`; else the number or GUID.
    pub fn describe(self) -> String {
        let known = match self {
            Type::Mbr(number) => types::of_mbr(number),
            Type::Gpt(guid) => types::of_gpt(guid),
        };
        known.map_or_else(|| self.number(), str::to_string)
    }

    /// The number or GUID: `0x83`.
    pub fn number(self) -> String {
        match self {
            Type::Mbr(number) => format!("0x{number:02x}"),
            Type::Gpt(guid) => guid.to_string(),
        }
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As Linux counts: from 1; the first logical partition of an MBR is 5.
    pub number: u32,
    /// Where it lies, in bytes. It may end behind the end of a disk that was cut off.
    pub range: Range,
    /// What it is for.
    pub r#type: Type,
    /// Its name in a GPT; else empty.
    pub name: String,
    /// Its own id: a UUID in lower case, or `12345678-01` in an MBR, as Linux makes it up.
    pub id: String,
    /// A BIOS may boot from it.
    pub bootable: bool,
}

/// A partition table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Which kind.
    pub scheme: Scheme,
    /// In bytes: 512 or 4096.
    pub sector: u32,
    /// In the order of their numbers, without extended partitions, which only hold others.
    pub partitions: Vec<Partition>,
    /// What people should know of it: sentences without a stop.
    pub notes: Vec<String>,
}

/// Finds the partition table of a disk, and reads it. `sector` is the size of a sector in bytes where it is known.
///
/// A GPT counts if the MBR announces it, or if there is no MBR; of its two copies the first is taken unless it is
/// damaged. An MBR counts if its entries make sense, and if it is not the boot sector of a FAT or NTFS file system.
///
/// # Errors
/// There is one, but it is damaged beyond use; or the disk failed.
pub fn read(disk: &Source, sector: Option<u32>) -> Result<Option<Table>> {
    let first = disk.beginning(0, 512)?;
    let announced = mbr::announces_gpt(&first);
    if announced || !mbr::is_signed(&first) {
        let found = gpt::read(disk, sector, announced)?;
        if found.is_some() || !announced {
            return Ok(found);
        }
    }
    let found = mbr::read(disk, &first, sector)?;
    match found {
        Some(table) if announced && table.partitions.is_empty() => {
            Err(Error::io("the MBR tells of a GPT, of which there is no trace"))
        }
        found => Ok(found),
    }
}
