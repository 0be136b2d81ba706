//! A local directory that files are copied into: by its descriptor, so that nothing which lies in it can lead elsewhere.
//!
//! Names come from the disk, and may be meant ill. None has a slash or is `..`; and what exists already is never reached
//! through a symbolic link.

use crate::cat::out::Out;
use anyhow::{Context, Result, bail};
use inspect::{File, Time};
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps},
    io::Errno,
};
use std::path::Path;

/// An open directory.
pub(super) struct Directory(OwnedFd);

/// Whether something was there before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    New,
    Found,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Directory {
    /// A directory that the user named, by whatever way.
    pub(super) fn open(path: &Path) -> Result<Directory> {
        Ok(Directory(fs::open(path, DIRECTORY, Mode::empty())?))
    }

    /// The directory with this name, which is made unless it is there.
    pub(super) fn directory(&self, name: &[u8]) -> Result<(Directory, Made)> {
        check(name)?;
        let made = match fs::mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) => Made::New,
            Err(Errno::EXIST) => Made::Found,
            Err(e) => return Err(e.into()),
        };
        match fs::openat(&self.0, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(directory) => Ok((Directory(directory), made)),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                bail!("there is something else under this name at the destination")
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Gives it the permissions that it had, and its time.
    pub(super) fn finish(&self, file: &File, preserve: bool) -> Result<()> {
        let mode = if preserve { permissions(file) } else { permissions(file) & !umask() };
        fs::fchmod(&self.0, mode)?;
        if preserve {
            fs::futimens(&self.0, &times(file.modified))?;
        }
        Ok(())
    }

    /// A file with this name, which `fill` writes. A file that is there already is overwritten.
    pub(super) fn file(
        &self,
        name: &[u8],
        file: &File,
        preserve: bool,
        fill: impl FnOnce(&mut Out) -> Result<()>,
    ) -> Result<()> {
        check(name)?;
        // A named pipe would make us wait for its reader.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (there, made) = match fs::openat(&self.0, name, flags | OFlags::EXCL, permissions(file)) {
            Ok(there) => (there, Made::New),
            Err(Errno::EXIST) => {
                let there = fs::openat(&self.0, name, flags, permissions(file));
                (
                    there.map_err(|e| if e == Errno::LOOP { anyhow::anyhow!(LINK) } else { e.into() })?,
                    Made::Found,
                )
            }
            Err(e) => return Err(e.into()),
        };
        let there = std::fs::File::from(there);
        if !there.metadata()?.is_file() {
            bail!("there is something else under this name at the destination");
        }
        let mut out = Out::new(there.try_clone()?);
        let written = there.set_len(0).context("writing").and_then(|()| fill(&mut out));
        let written = written.and_then(|()| out.end().context("writing"));
        if written.is_err() && made == Made::New {
            // Half a file must not be taken for a whole one.
            let _ = fs::unlinkat(&self.0, name, AtFlags::empty());
        }
        written?;
        if preserve {
            fs::fchmod(&there, permissions(file))?;
            fs::futimens(&there, &times(file.modified))?;
        }
        Ok(())
    }

    /// A symbolic link, in the place of one that may be there already. Where it leads does not matter: nothing here
    /// follows it.
    pub(super) fn link(&self, name: &[u8], target: &[u8], file: &File, preserve: bool) -> Result<()> {
        check(name)?;
        if target.contains(&0) || target.is_empty() {
            bail!("the target of the symbolic link is damaged");
        }
        match fs::symlinkat(target, &self.0, name) {
            Err(Errno::EXIST) if self.is_link(name)? => {
                fs::unlinkat(&self.0, name, AtFlags::empty())?;
                fs::symlinkat(target, &self.0, name)?;
            }
            done => done?,
        }
        if preserve {
            fs::utimensat(&self.0, name, &times(file.modified), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn is_link(&self, name: &[u8]) -> Result<bool> {
        let found = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(fs::FileType::from_raw_mode(found.st_mode) == fs::FileType::Symlink)
    }
}

const LINK: &str = "there is a symbolic link under this name at the destination, which is not followed";

/// Whether a name stays in its directory.
fn check(name: &[u8]) -> Result<()> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        bail!("refused: this is no name for a file");
    }
    Ok(())
}

/// Without the bits that let programs run as somebody else.
fn permissions(file: &File) -> Mode {
    Mode::from_raw_mode(u32::from(file.permissions) & 0o777)
}

fn umask() -> Mode {
    // It can only be asked for by setting it. There is one thread here, and it is set back at once.
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    mask
}

fn times(modified: Time) -> Timestamps {
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
