//! Named file systems that are made when they are first asked for, and kept in a directory.

use crate::{
    common::fresh::{self, Recipe},
    file::FileDisk,
};
use disk::{Backend, Client, Disk, Errno, Error, Export, Facts, Io, Plugin, Result};
use params::{Params, Size};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno as E,
};
use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The file behind the export without a name.
const DEFAULT: &str = "default";
/// The longest name of a file, in bytes.
const LONGEST: usize = 255;
/// Between two attempts to lock.
const PAUSE: Duration = Duration::from_millis(30);

/// Make file systems on demand, one for each export name, and keep them.
#[derive(Params)]
pub(crate) struct OnDemand {
    /// Where the file systems are kept, one file each.
    #[param(placeholder = "DIRECTORY")]
    dir: PathBuf,
    /// The size of new file systems. With `command` it is what the command is told.
    #[param(magic)]
    size: Size,
    /// The kind of new file systems: what `mkfs -t` understands.
    #[param(default = "ext4", placeholder = "FILESYSTEM")]
    r#type: String,
    /// The label of new file systems.
    label: Option<String>,
    /// A piece of shell script that makes the disk `"$disk"`, in place of mkfs.
    #[param(placeholder = "COMMAND")]
    command: Option<String>,
    /// A client that asks for what another client has open waits until that one has gone, and is not refused.
    #[param(default = "false")]
    wait: bool,
    /// Clients may have the same file system open at once.
    #[param(default = "false")]
    share: bool,
    #[param(rest)]
    variables: Vec<(String, String)>,
}

impl Plugin for OnDemand {
    const NAME: &'static str = "ondemand";
    const MANUAL: &'static str = include_str!("ondemand.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let shown = format!("dir={}", self.dir.display());
        let found = std::fs::metadata(&self.dir).map_err(|e| Error::from(e).context(&shown))?;
        if !found.is_dir() {
            return Err(Error::invalid(format!("{shown}: not a directory")));
        }
        let command = self.command.as_deref();
        let recipe = Recipe::new(self.size, self.r#type, self.label, command, &self.variables)?;
        Ok(Kept { store: Arc::new(Store { dir: self.dir, recipe, share: self.share }), wait: self.wait })
    }
}

struct Kept {
    store: Arc<Store>,
    wait: bool,
}

struct Store {
    dir: PathBuf,
    recipe: Recipe,
    share: bool,
}

/// The file of an export, and whether it can be written; `None`: somebody else has it.
type Locked = Option<(OwnedFd, bool)>;

impl Store {
    /// The locked file of this name, which is made if need be.
    fn locked(&self, name: &str, read_only: bool) -> Result<Locked> {
        let path = self.dir.join(name);
        // Each turn ends because somebody else made or removed the file meanwhile, which cannot go on for ever.
        for _ in 0..100 {
            match open(&path, read_only) {
                Ok((fd, writable)) => {
                    let how = match self.share {
                        true => FlockOperation::NonBlockingLockShared,
                        false => FlockOperation::NonBlockingLockExclusive,
                    };
                    match rustix::fs::flock(&fd, how) {
                        Ok(()) if is_still_there(&fd, &path) => return Ok(Some((fd, writable))),
                        Ok(()) => {}
                        Err(E::AGAIN) => return Ok(None),
                        Err(e) => return Err(Error::from(e).context("locking")),
                    }
                }
                Err(E::NOENT) => self.make(name, &path)?,
                Err(e) => return Err(e.into()),
            }
        }
        Err(Error::io("the file is made and removed again and again"))
    }

    /// Makes the file. It gets its name when it is whole: who finds it finds all of it.
    fn make(&self, name: &str, path: &Path) -> Result<()> {
        // Names with a dot are no exports.
        let own = fresh::private_directory(&self.dir, ".making-")?;
        let unfinished = own.path().join(name);
        self.recipe.make(&unfinished)?;
        match std::fs::hard_link(&unfinished, path) {
            // Another client was faster, and has its file there.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Ok(()) => Ok(()),
            // Some file systems have no links. There, and with a link that the command made, two clients that ask at
            // once may still each make a file; the later one stays.
            Err(_) => Ok(std::fs::rename(&unfinished, path)?),
        }
    }

    fn disk(&self, (fd, writable): (OwnedFd, bool)) -> Result<Arc<dyn Disk>> {
        let next = FileDisk::open(fd, writable)?;
        let facts = Facts { multi_conn: self.share, ..next.facts().clone() };
        Ok(Arc::new(Named { facts, next: Box::new(next) }))
    }
}

/// Opens it, for writing where that is possible.
fn open(path: &Path, read_only: bool) -> std::result::Result<(OwnedFd, bool), E> {
    let flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let open = |access| rustix::fs::open(path, flags | access, Mode::empty());
    match if read_only { Err(E::ROFS) } else { open(OFlags::RDWR) } {
        Ok(fd) => Ok((fd, true)),
        Err(E::ACCESS | E::PERM | E::ROFS) => Ok((open(OFlags::RDONLY)?, false)),
        Err(e) => Err(e),
    }
}

/// Whether the name still leads to what was locked.
fn is_still_there(fd: &OwnedFd, path: &Path) -> bool {
    let (Ok(ours), Ok(named)) = (rustix::fs::fstat(fd), rustix::fs::stat(path)) else { return false };
    (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
}

/// Whether a client may ask for this name, and a file of it be an export.
fn is_export(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && !name.contains(['.', '/', ':', '\0'])
}

struct Named {
    facts: Facts,
    next: Box<FileDisk>,
}

impl Disk for Named {
    disk::forward!(next: next, read, write, zero, trim, flush, cache, extents);
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Backend for Kept {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let name = if client.export.is_empty() { DEFAULT } else { client.export };
        if !is_export(name) {
            let why = format!("export name {name:?}: at most {LONGEST} bytes, and none of '.', '/' and ':'");
            return Error::new(Errno::NOENT, why).into();
        }
        let read_only = client.read_only;
        Io::later(async move {
            loop {
                let (store, asked) = (self.store.clone(), name.to_owned());
                let locked = reactor::unblock(move || store.locked(&asked, read_only)).await?;
                match locked.map_err(|e| e.context(format!("export {name:?}")))? {
                    Some(file) => return self.store.disk(file),
                    // A thread that slept in the kernel might be the last one that the other client needs.
                    None if self.wait => reactor::sleep(PAUSE).await,
                    None => {
                        let why = format!("export {name:?}: filesystem is locked by another client");
                        return Err(Error::new(Errno::BUSY, why));
                    }
                }
            }
        })
    }

    fn exports<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        let entries = match std::fs::read_dir(&self.store.dir) {
            Ok(entries) => entries.flatten(),
            Err(e) => return Error::from(e).context("listing exports").into(),
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| is_export(name) && name != DEFAULT);
        names.sort();
        // It can be had, whether it is there yet or not.
        names.insert(0, DEFAULT.to_owned());
        Io::ok(names.into_iter().map(|name| Export { name, description: None }).collect())
    }

    fn default_export<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Option<String>> {
        Io::ok(Some(DEFAULT.to_owned()))
    }
}

#[cfg(test)]
mod tests;
