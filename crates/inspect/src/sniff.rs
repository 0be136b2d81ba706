//! What is on a disk or a partition, by its first bytes.

use crate::{
    FileSystem, Source,
    bytes::{le16, le32, part},
    ext, fat, iso,
};
use disk::{Error, Result};

/// What something turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// A file system that [`open`] opens: `ext`, `FAT`, `ISO 9660`.
    Readable(&'static str),
    /// Something else that is known.
    Other(&'static str),
    /// An image of a disk in this format.
    Image(&'static str),
    /// Zeroes, or nothing that is known.
    Nothing,
}

impl Sniffed {
    /// Whether it is something.
    pub fn is_known(self) -> bool {
        self != Sniffed::Nothing
    }
}

/// What begins like this, at this place.
const KNOWN: &[(usize, &[u8], &str)] = &[
    (0, b"XFSB", "XFS"),
    (0, b"LUKS\xba\xbe", "LUKS (encrypted)"),
    (0, b"hsqs", "squashfs"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\xfd7zXZ\0", "compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"-FVE-FS-", "BitLocker (encrypted)"),
    (32, b"NXSB", "APFS"),
    (512, b"LABELONE", "LVM"),
    (0, b"LABELONE", "LVM"),
    (1024, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (1024, b"H+\x00\x04", "HFS+"),
    (1024, b"HX\x00\x05", "HFS+"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4096, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
    (0, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
];

const IMAGES: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
];

/// What a disk or a partition holds.
///
/// # Errors
/// The disk failed.
pub fn sniff(source: &Source) -> Result<Sniffed> {
    let first = source.beginning(0, 4096 + 16)?;
    if le16(&first, 1024 + 0x38) == 0xef53 {
        return Ok(Sniffed::Readable("ext"));
    }
    if fat::is_boot_sector(&first) {
        return Ok(Sniffed::Readable("FAT"));
    }
    for (at, magic, name) in KNOWN {
        if part(&first, *at, magic.len()) == *magic {
            return Ok(Sniffed::Other(name));
        }
    }
    for (magic, name) in IMAGES {
        if first.starts_with(magic) {
            return Ok(Sniffed::Image(name));
        }
    }
    // Volume descriptors of ISO 9660 and UDF begin in the sixteenth sector of 2048 bytes.
    let descriptor = source.beginning(16 * 2048, 6)?;
    match part(&descriptor, 1, 5) {
        b"CD001" => return Ok(Sniffed::Readable("ISO 9660")),
        b"BEA01" | b"NSR02" | b"NSR03" => return Ok(Sniffed::Other("UDF")),
        _ => {}
    }
    if part(&source.beginning(0x10040, 8)?, 0, 8) == b"_BHRfS_M" {
        return Ok(Sniffed::Other("btrfs"));
    }
    // ZFS keeps its labels far in; its first uberblock is at 128 KiB.
    if le32(&source.beginning(128 << 10, 4)?, 0) == 0x00ba_b10c {
        return Ok(Sniffed::Other("ZFS"));
    }
    Ok(Sniffed::Nothing)
}

/// Opens the file system on a disk or a partition.
///
/// # Errors
/// There is none, or it is of another kind or damaged; or the disk failed.
pub fn open(source: &Source) -> Result<Box<dyn FileSystem>> {
    Ok(match sniff(source)? {
        Sniffed::Readable("ext") => Box::new(ext::Ext::open(source.clone())?),
        Sniffed::Readable("FAT") => Box::new(fat::Fat::open(source.clone())?),
        Sniffed::Readable(_) => Box::new(iso::Iso::open(source.clone())?),
        Sniffed::Other(name) => {
            return Err(Error::invalid(format!(
                "this is {name}; what can be read are ext2, ext3, ext4, FAT and ISO 9660"
            )));
        }
        Sniffed::Image(format) => {
            return Err(Error::invalid(format!(
                "this is an image in the format {format}, to be opened by a server that knows it, such as [ qemu-nbd -r -f {format} FILE ]"
            )));
        }
        Sniffed::Nothing => return Err(Error::invalid("there is no file system that is known")),
    })
}
