//! A disk as people have them: partitioned, with a file system full of files.

use crate::run::Run;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the partition begins, in bytes.
pub const PARTITION: u64 = 1 << 20;
const SIZE: u64 = 192 << 20;

/// The disk, twice: raw (sparse) and as qcow2. It is made once and kept beside the build, so nothing may write to it.
pub struct RealDisk {
    /// As bytes.
    pub raw: PathBuf,
    /// As an image.
    pub qcow2: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    directory: TempDir,
}

impl RealDisk {
    /// The programs that make one.
    pub const NEEDS: [&str; 3] = ["qemu-img", "sfdisk", "mke2fs"];

    /// The disk, and a place for copies of it.
    ///
    /// # Panics
    /// When it is not there and cannot be made.
    pub fn get() -> RealDisk {
        let place = crate::target_directory().join("tmp");
        // Whoever changes how it is made changes the name.
        let kept = place.join("e2e-real-disk-2");
        if !kept.exists() {
            fs::create_dir_all(&place).expect("a directory beside the build");
            let fresh = tempfile::tempdir_in(&place).expect("a directory beside the build").keep();
            make(&fresh);
            // Another test may have been faster. Its disk is as good.
            if fs::rename(&fresh, &kept).is_err() {
                let _ = fs::remove_dir_all(&fresh);
            }
        }
        RealDisk {
            raw: kept.join("real.raw"),
            qcow2: kept.join("real.qcow2"),
            size: SIZE,
            directory: crate::directory(),
        }
    }

    /// A name for a file of the test's own.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory of the test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn make(directory: &Path) {
    let (raw, qcow2) = (directory.join("real.raw"), directory.join("real.qcow2"));
    let (tree, made) = (directory.join("tree"), directory.join("made.raw"));
    files(&tree).expect("files can be written");
    File::create(&made).and_then(|file| file.set_len(SIZE)).expect("the image can be made");
    let table = format!("label: dos\nstart={}, type=83\n", PARTITION / 512);
    Run::new("sfdisk").arg("--quiet").arg(&made).input(table.as_bytes()).end().good();
    Run::new("mke2fs")
        .words("-q -F -t ext4 -L real -E")
        .arg(format!("offset={PARTITION},lazy_itable_init=0"))
        .arg("-d")
        .arg(&tree)
        .arg(&made)
        .arg(format!("{}K", (SIZE - PARTITION) / 1024))
        .end()
        .good();
    // mke2fs leaves ranges that are allocated but never written. Those turn from holes to data in the eyes of SEEK_DATA
    // as soon as somebody reads them, and here everybody reads. A copy has holes instead, and those stay holes.
    Run::new("cp").arg("--sparse=always").args([&made, &raw]).end().good();
    File::open(&raw).and_then(|file| file.sync_all()).expect("the image reaches the disk");
    fs::remove_file(&made).expect("files can be removed");
    Run::new("qemu-img").words("convert -f raw -O qcow2").args([&raw, &qcow2]).end().good();
    fs::remove_dir_all(&tree).expect("files can be removed");
}

/// Directories, small files, large ones, empty ones and links; about 30 MB.
fn files(tree: &Path) -> std::io::Result<()> {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..400_usize {
        let directory = tree.join(format!("{:02}/{:02}", number % 20, number % 7));
        fs::create_dir_all(&directory)?;
        let length = if number % 50 == 3 { 2 << 20 } else { number * number % 60_000 };
        let mut content = Vec::with_capacity(length + 8);
        while content.len() < length {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            content.extend_from_slice(&noise.to_le_bytes());
        }
        content.truncate(length);
        fs::write(directory.join(format!("file {number}.bin")), content)?;
        symlink(format!("file {number}.bin"), directory.join(format!("link {number}")))?;
    }
    Ok(())
}

/// The file system in a raw copy of the disk must be sound.
#[track_caller]
pub fn check_file_system(raw: &Path) {
    let mut place = raw.as_os_str().to_owned();
    place.push(format!("?offset={PARTITION}"));
    let said = Run::new("e2fsck").arg("-fn").arg(place).end().code(0).text();
    assert!(said.contains("real: ") && said.contains(" files"), "{said}");
}

/// Two images must hold the same bytes, by the word of `qemu-img`. Each is a format and a place.
#[track_caller]
pub fn same_content(a: (&str, impl AsRef<std::ffi::OsStr>), b: (&str, impl AsRef<std::ffi::OsStr>)) {
    let said = Run::new("qemu-img").words("compare -f").arg(a.0).arg("-F").arg(b.0).arg(a.1).arg(b.1).text();
    // Where one is longer, a warning comes first; the rest must be zeroes.
    assert!(said.ends_with("Images are identical.\n"), "{said}");
}
