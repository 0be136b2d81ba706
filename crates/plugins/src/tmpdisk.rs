//! A new disk for every client, gone when the client goes.

use crate::{common::fresh, file::FileDisk};
use disk::{Backend, Client, Disk, Facts, Io, Plugin, Result, WriteFlags, ZeroFlags};
use params::{Params, Size};
use rustix::fs::{Mode, OFlags};
use std::sync::Arc;

/// Give each client a new, empty file system of its own.
#[derive(Params)]
pub(crate) struct TmpDisk {
    /// The size of the disk. With `command` it is what the command is told.
    #[param(magic)]
    size: Size,
    /// The file system: what `mkfs -t` understands.
    #[param(default = "ext4", placeholder = "FILESYSTEM")]
    r#type: String,
    /// The label of the file system.
    label: Option<String>,
    /// A piece of shell script that makes the disk `"$disk"`, in place of mkfs.
    #[param(placeholder = "COMMAND")]
    command: Option<String>,
    #[param(rest)]
    variables: Vec<(String, String)>,
}

impl Plugin for TmpDisk {
    const NAME: &'static str = "tmpdisk";
    const MANUAL: &'static str = include_str!("tmpdisk.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let command = self.command.as_deref();
        let recipe = fresh::Recipe::new(self.size, self.r#type, self.label, command, &self.variables)?;
        Ok(TmpDisks(Arc::new(recipe)))
    }
}

struct TmpDisks(Arc<fresh::Recipe>);

impl Backend for TmpDisks {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let recipe = self.0.clone();
        Io::later(async move { reactor::unblock(move || make(&recipe)).await? })
    }
}

fn make(recipe: &fresh::Recipe) -> Result<Arc<dyn Disk>> {
    let parent = fresh::temporary_directory();
    let dir = fresh::private_directory(&parent, "diskpipe-");
    let dir = dir.map_err(|e| disk::Error::from(e).context(parent.display()))?;
    let file = dir.path().join("disk");
    recipe.make(&file)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(&file, flags, Mode::empty())
        .map_err(|e| disk::Error::from(e).context("opening the new disk"))?;
    // The directory and the name go now. The file stays until the client has gone, however the server ends.
    drop(dir);
    let next = FileDisk::open(fd, true)?;
    let facts = Facts { multi_conn: false, ..next.facts().clone() };
    Ok(Arc::new(Own { facts, next: Box::new(next) }))
}

/// One client's disk. Nobody will ever read it after a crash, so nothing need become stable.
struct Own {
    facts: Facts,
    next: Box<FileDisk>,
}

impl Disk for Own {
    disk::forward!(next: next, read, cache, extents);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn write(&self, at: u64, data: disk::Data, _: WriteFlags) -> Io<'_, ()> {
        self.next.write(at, data, WriteFlags::default())
    }
    fn zero(&self, range: disk::Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.next.zero(range, ZeroFlags { fua: false, ..flags })
    }
    fn trim(&self, range: disk::Range, _: WriteFlags) -> Io<'_, ()> {
        self.next.trim(range, WriteFlags::default())
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn each_client_has_a_disk_of_its_own_that_leaves_nothing_behind() {
        let mut args = params::Args::new([("size", "1M"), ("command", r#"truncate -s $size "$disk""#)]);
        let backend = TmpDisk::parse(&mut args).unwrap().start().unwrap();
        let open = || backend.open(&Client::local("")).wait().unwrap();
        let (one, two) = (open(), open());
        assert!(one.facts().size == 1 << 20 && !one.facts().multi_conn);
        one.write(5, disk::Data::copy_from(b"mine"), WriteFlags { fua: true }).wait().unwrap();
        one.flush().wait().unwrap();
        assert_eq!(model::bytes(&*one, 5, 4), b"mine");
        assert_eq!(model::bytes(&*two, 5, 4), [0; 4]);
    }

    #[test]
    fn the_command_decides_about_the_size() {
        let disk = model::open::<TmpDisk>(&[("size", "0"), ("command", r#"printf abc > "$disk""#)]).unwrap();
        assert_eq!((disk.facts().size, model::bytes(&*disk, 0, 3)), (3, b"abc".to_vec()));
    }

    #[test]
    fn a_command_that_fails_turns_the_client_away() {
        let error = model::open::<TmpDisk>(&[("size", "1M"), ("command", "exit 1")]).err().unwrap();
        assert_eq!(error.to_string(), "command=: failed (exit status: 1)");
        assert!(model::open::<TmpDisk>(&[("size", "0")]).is_err());
        assert!(model::open::<TmpDisk>(&[("size", "1M"), ("type", "../x")]).is_err());
    }
}
