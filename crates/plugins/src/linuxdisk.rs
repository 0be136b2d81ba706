//! A disk with a Linux file system that holds a directory of the server. `mke2fs` makes the file system; here is how
//! large it must be, and the partition table around it.

mod sizing;

use crate::{
    common::{
        content, fresh,
        one_disk::MadeDisk,
        partition_table::{ALIGNMENT, Guid, Wanted, gpt},
        regions::Regions,
        tree::Tree,
    },
    file::FileDisk,
};
use disk::{Backend, Disk, Error, Plugin, Result};
use params::{Choice, Kind, Params, Size, Value, Wrong};
use rustix::fs::{Mode, OFlags};
use sizing::{Demand, Found, Guess};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

/// Bytes of the longest label.
const LONGEST_LABEL: usize = 16;

/// Serve a directory as a disk with a Linux file system.
#[derive(Params)]
pub(crate) struct LinuxDisk {
    /// The directory. What is in it will be in the root directory of the file system.
    #[param(magic, placeholder = "DIRECTORY")]
    dir: PathBuf,
    /// The label of the file system, up to 16 bytes.
    label: Option<String>,
    /// The file system.
    #[param(default = "ext2")]
    r#type: FileSystem,
    /// The size of the file system, or `+SIZE` for how much must be free in it. By default it is as small as can be.
    size: Option<Room>,
}

#[derive(Clone, Copy, Choice, PartialEq, Eq)]
enum FileSystem {
    Ext2,
    Ext3,
    Ext4,
}

/// How large the file system shall be.
#[derive(Clone, Copy)]
enum Room {
    Whole(Size),
    Free(Size),
}

impl Value for Room {
    const KIND: Kind = Kind::Other("[+]SIZE");

    fn from_text(text: &str) -> std::result::Result<Room, Wrong> {
        match text.strip_prefix('+') {
            Some(free) => Size::from_text(free).map(Room::Free),
            None => Size::from_text(text).map(Room::Whole),
        }
    }
}

impl Plugin for LinuxDisk {
    const NAME: &'static str = "linuxdisk";
    const MANUAL: &'static str = include_str!("linuxdisk.md");

    fn start(self) -> Result<impl Backend + 'static> {
        if let Some(label) = &self.label
            && label.len() > LONGEST_LABEL
        {
            return Err(Error::invalid(format!("label={label}: longer than {LONGEST_LABEL} bytes")));
        }
        Ok(MadeDisk::by(move || self.make()))
    }
}

impl LinuxDisk {
    fn make(&self) -> Result<Arc<dyn Disk>> {
        let file_system = Arc::new(self.file_system()?);
        let random = || Guid::from_random(content::seed(None), content::seed(None));
        let wanted = Wanted {
            size: file_system.facts().size,
            alignment: ALIGNMENT,
            mbr_type: 0x83,
            gpt_type: Guid::LINUX,
            id: random(),
            name: self.label.clone().unwrap_or_default(),
            // As the disks of nbdkit have it.
            bootable: true,
        };
        let layout = gpt(&[wanted], random())?;
        let mut regions = Regions::new();
        let mut file_system = Some(file_system);
        for (at, bytes) in layout.tables {
            if let Some(file_system) = file_system.take_if(|_| at > layout.partitions[0].start) {
                regions.zeroes_to(layout.partitions[0].start)?;
                regions.disk(file_system)?;
            }
            regions.zeroes_to(at)?;
            regions.bytes(bytes)?;
        }
        Ok(Arc::new(regions.into_disk()))
    }

    /// The file system in a file that has no name any more.
    fn file_system(&self) -> Result<FileDisk> {
        let tree = Tree::read(std::slice::from_ref(&self.dir))?;
        let parent = fresh::temporary_directory();
        let own = fresh::private_directory(&parent, "diskpipe-");
        let own = own.map_err(|e| Error::from(e).context(parent.display()))?;
        let image = own.path().join("disk");
        let demand = Demand::of(&tree, self.r#type != FileSystem::Ext2);
        drop(tree);
        match self.size {
            Some(Room::Whole(size)) => {
                let made = self.mke2fs(&image, &demand.exactly(size.bytes()))?;
                made.map_err(|e| e.context(format!("size={size}")))?;
            }
            Some(Room::Free(free)) => {
                self.mke2fs_with_free(&image, demand.guess(free.bytes()), free.bytes())?
            }
            None => self.mke2fs_with_free(&image, demand.guess(0), 0)?,
        }
        let fd = rustix::fs::open(&image, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        FileDisk::open(fd, false)
    }

    /// Tries larger sizes until all files find room and so much is free.
    fn mke2fs_with_free(&self, image: &Path, mut guess: Guess, free: u64) -> Result<()> {
        loop {
            let found = match self.mke2fs(image, &guess)? {
                Ok(()) => Some(Found::read(image)?),
                Err(e) if guess.is_absurd() => return Err(e),
                Err(_) => None,
            };
            match guess.larger(found, free) {
                Some(larger) => guess = larger,
                None => return Ok(()),
            }
        }
    }

    /// Makes the file system. The inner error says that it is too small for the files.
    fn mke2fs(&self, image: &Path, guess: &Guess) -> Result<Result<()>> {
        std::fs::File::create(image).and_then(|file| file.set_len(guess.size))?;
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-F", "-t", &self.r#type.to_string(), "-m", "0"]);
        mke2fs.args(["-b", &guess.block.to_string(), "-N", &guess.inodes.to_string()]);
        if let Some(label) = &self.label {
            mke2fs.args(["-L", label]);
        }
        mke2fs.arg("-d").arg(&self.dir).arg(image).env("PATH", fresh::path_of_administrators());
        // What it says is looked at, so it says it in English.
        mke2fs.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
        let ended = mke2fs
            .output()
            .map_err(|e| Error::from(e).context("the program mke2fs (of the package e2fsprogs) is needed"))?;
        if ended.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        let error = Error::io(format!("mke2fs: {said} ({})", ended.status));
        let too_small = [
            "allocate block",
            "allocate inode",
            "No space left in",
            "too small",
            "too many inodes",
            "no free space",
        ];
        if too_small.iter().any(|words| said.contains(words)) { Ok(Err(error)) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests;
