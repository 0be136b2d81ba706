//! What the beginning of a disk looks like: file(1) says it, where it is installed, else a short table of what disks
//! begin with.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

/// What `head`, the first bytes of a disk, look like.
pub(crate) fn of(head: &[u8]) -> String {
    let text = ask_file(head).unwrap_or_else(|| own(head).to_string());
    // What came off a disk must not drive a terminal.
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn ask_file(head: &[u8]) -> Option<String> {
    let mut child = Command::new("file")
        .args(["--brief", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(head); // it may have seen enough before the end
    }
    let mut text = Vec::new();
    let heard = child.stdout.take().map(|mut stdout| stdout.read_to_end(&mut text));
    let ended = child.wait().is_ok_and(|status| status.success());
    (ended && matches!(heard, Some(Ok(_))) && !text.is_empty())
        .then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Where on a disk which bytes stand, and what that means. The first that fits counts.
const MAGIC: [(usize, &[u8], &str); 24] = [
    (0, b"QFI\xfb", "QEMU QCOW Image"),
    (0, b"QED\0", "QEMU QED Image"),
    (0, b"KDMV", "VMware4 disk image"),
    (0, b"# Disk DescriptorFile", "VMware4 disk image description"),
    (64, b"\x7f\x10\xda\xbe", "VirtualBox Disk Image"),
    (0, b"vhdxfile", "Microsoft Disk Image eXtended"),
    (0, b"conectix", "Microsoft Disk Image, Virtual Server or Virtual PC"),
    (0, b"LUKS\xba\xbe", "LUKS encrypted file"),
    (512, b"LABELONE", "LVM2 PV (Linux Logical Volume Manager)"),
    (0, b"hsqs", "Squashfs filesystem, little endian"),
    (0, b"XFSB", "SGI XFS filesystem data"),
    (0x10040, b"_BHRfS_M", "BTRFS Filesystem"),
    (0x438, b"\x53\xef", "Linux ext2, ext3 or ext4 filesystem data"),
    (0x8001, b"CD001", "ISO 9660 CD-ROM filesystem data"),
    (4086, b"SWAPSPACE2", "Linux swap file"),
    (3, b"NTFS    ", "DOS/MBR boot sector, NTFS filesystem"),
    (510, b"\x55\xaa", "DOS/MBR boot sector"),
    (512, b"EFI PART", "GPT partition table"),
    (257, b"ustar", "POSIX tar archive"),
    (0, b"\x1f\x8b", "gzip compressed data"),
    (0, b"\xfd7zXZ\0", "XZ compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard compressed data"),
    (0, b"BZh", "bzip2 compressed data"),
    (0, b"PK\x03\x04", "Zip archive data"),
];

fn own(head: &[u8]) -> &'static str {
    let found =
        MAGIC.iter().find(|(at, bytes, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    match found {
        Some((_, _, name)) => name,
        None if head.is_empty() => "empty",
        None if head.iter().all(|b| matches!(b, 9 | 10 | 13 | 32..127)) => "ASCII text",
        None => "data",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_disks_are_recognised_without_help() {
        assert_eq!(own(b""), "empty");
        assert_eq!(own(&[0; 8192]), "data");
        assert_eq!(own(b"hello\n"), "ASCII text");
        assert_eq!(own(b"QFI\xfb\0\0\0\x03"), "QEMU QCOW Image");
        let mut mbr = [0; 512];
        mbr[510..].copy_from_slice(b"\x55\xaa");
        assert_eq!(own(&mbr), "DOS/MBR boot sector");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert!(of(b"\x1b[31m evil \x07").chars().all(|c| !c.is_control()));
        assert_eq!(of(&[0; 8192]), "data");
    }
}
