//! What is on a disk or a partition, by its first bytes.

use crate::{
    FileSystem, Source,
    bytes::{le16, part},
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
const KNOWN: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "XFS"),
    (0, b"LUKS\xba\xbe", "LUKS (encrypted)"),
    (0, b"hsqs", "squashfs"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\xfd7zXZ\0", "compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (0, b"BZh", "compressed by bzip2"),
    (0, b"\x04\x22\x4d\x18", "compressed by lz4"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x45\x3d\xcd\x28", "cramfs"),
    (0, b"-rom1fs-", "romfs"),
    (0, b"UBI#", "UBI"),
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
    (1030, b"\x34\x34", "NILFS2"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4096, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
    (0, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
    (4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "bcachefs"),
    (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
];

/// The same, so far behind the beginning that it is looked for last.
const FAR: &[(u64, &[u8], &str)] = &[
    (32 << 10, b"JFS1", "JFS"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    ((64 << 10) + 52, b"ReIsEr", "ReiserFS"),
    // ZFS keeps its labels far in; its first uberblock is at 128 KiB.
    (128 << 10, b"\x0c\xb1\xba\x00", "ZFS"),
    (1 << 20, b"\x0d\xd0\x01\xc0", "VMFS"),
];

const IMAGES: &[(u64, &[u8], &str)] = &[
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
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
    let is_here = |(at, magic, _): &&(u64, &[u8], &str)| part(&first, *at as usize, magic.len()) == *magic;
    if let Some((_, _, name)) = KNOWN.iter().find(is_here) {
        return Ok(Sniffed::Other(name));
    }
    if let Some((_, _, format)) = IMAGES.iter().find(is_here) {
        return Ok(Sniffed::Image(format));
    }
    // Volume descriptors of ISO 9660 and UDF begin in the sixteenth sector of 2048 bytes.
    let descriptor = source.beginning(16 * 2048, 6)?;
    match part(&descriptor, 1, 5) {
        b"CD001" => return Ok(Sniffed::Readable("ISO 9660")),
        b"BEA01" | b"NSR02" | b"NSR03" => return Ok(Sniffed::Other("UDF")),
        _ => {}
    }
    for (at, magic, name) in FAR {
        if source.beginning(*at, magic.len())? == *magic {
            return Ok(Sniffed::Other(name));
        }
    }
    Ok(Sniffed::Nothing)
}

/// How people get at what is in it all the same, as the end of a sentence.
fn advice(name: &str) -> &'static str {
    match name {
        "swap space" | "UBI" | "VMFS" | "bcache" => "",
        "compressed by gzip" => ", and can be read through [ nbdkit -r --filter=gzip file FILE ]",
        "compressed by xz" => ", and can be read through [ nbdkit -r --filter=xz file FILE ]",
        _ if name.starts_with("compressed") => ", and is to be unpacked first",
        _ if name.ends_with("archive") => ", and no disk",
        "LVM" => {
            ", whose volumes a kernel finds: losetup the file that 'diskpipe mount' shows, then vgchange -ay"
        }
        "Linux RAID" => {
            ", which a kernel puts together: losetup the files that 'diskpipe mount' shows, then mdadm"
        }
        "LUKS (encrypted)" => {
            ", which can be unlocked by: cryptsetup open, on the file that 'diskpipe mount' shows"
        }
        "BitLocker (encrypted)" => {
            ", which can be unlocked by: cryptsetup open --type bitlk, on the file that 'diskpipe mount' shows"
        }
        _ => ", which a kernel may know: mount -o loop,ro the file that 'diskpipe mount' shows",
    }
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
                "this is {name}{}; what can be read here are ext2, ext3, ext4, FAT and ISO 9660",
                advice(name)
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
