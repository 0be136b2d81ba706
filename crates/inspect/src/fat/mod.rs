//! FAT12, FAT16 and FAT32, with long names.

mod boot;
mod names;

use crate::{
    About, Entry, File, FileSystem, Kind, Place, Run, Source,
    bytes::{byte, le16, le32, part},
    calendar::Moment,
    file_system::{Node, Time, Whereabouts, no_directory},
};
use boot::Boot;
pub(crate) use boot::is_boot_sector;
use disk::{Error, Result};
use names::LongName;
use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

/// In bytes.
const ENTRY: usize = 32;
/// A directory has at most so many bytes.
const LARGEST_DIRECTORY: u64 = 65536 * ENTRY as u64;

const READ_ONLY: u8 = 0x01;
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// All of read-only, hidden, system and label: an entry with a part of a long name.
const LONG: u8 = 0x0f;

/// Takes an entry as it is on the disk, and where it is.
type EachRaw<'a> = &'a mut dyn FnMut(&[u8], u64) -> Result<ControlFlow<()>>;

/// Clusters of a chain that follow each other on the disk.
#[derive(Clone, Copy)]
struct Stretch {
    /// In the chain.
    index: u64,
    /// On the disk.
    cluster: u32,
    /// How many, not 0.
    count: u32,
}

pub(crate) struct Fat {
    source: Source,
    boot: Boot,
    about: About,
    /// Of chains of clusters, by their first: the stretch that was asked for last.
    followed: Mutex<HashMap<u32, Stretch>>,
}

impl Fat {
    /// # Errors
    /// It is none, or it is damaged.
    pub(crate) fn open(source: Source) -> Result<Fat> {
        let boot = Boot::read(&source)?;
        let about = boot.about();
        let mut fat = Fat { source, boot, about, followed: Mutex::default() };
        // The label in the root directory is the one that people change.
        let mut label = None;
        let root = fat.root()?;
        fat.raw_entries(&root, &mut |entry, _| {
            if byte(entry, 11) & (LABEL | DIRECTORY) == LABEL {
                label = Some(names::label(part(entry, 0, 11)));
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(label) = label {
            fat.about.label = label;
        }
        Ok(fat)
    }

    /// The cluster that follows another; `None` at the end of a chain.
    fn next(&self, cluster: u32) -> Result<Option<u32>> {
        let next = self.boot.next(&self.source, cluster)?;
        match next {
            _ if next >= self.boot.end_mark() => Ok(None),
            _ if self.boot.is_cluster(next) => Ok(Some(next)),
            _ => Err(Error::io(format!("the chain of clusters is broken behind cluster {cluster}"))),
        }
    }

    /// Clusters that follow each other on the disk, from the one with this index in a chain on: the first, and how many.
    fn stretch(&self, first: u32, index: u64) -> Result<(u32, u64)> {
        if index >= self.boot.clusters.into() {
            return Err(Error::io(format!("the chain of clusters from {first} on goes round in a circle")));
        }
        let lock = || self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut cluster) = match lock().get(&first) {
            Some(last) if (last.index..last.index + u64::from(last.count)).contains(&index) => {
                let within = (index - last.index) as u32;
                return Ok((last.cluster + within, (last.count - within).into()));
            }
            Some(last) if last.index < index => {
                (last.index + u64::from(last.count) - 1, last.cluster + last.count - 1)
            }
            _ => (0, first),
        };
        let ended = || Error::io(format!("the chain of clusters from {first} on ends too early"));
        if !self.boot.is_cluster(cluster) {
            return Err(ended());
        }
        while at < index {
            cluster = self.next(cluster)?.ok_or_else(ended)?;
            at += 1;
        }
        let (start, mut count) = (cluster, 1);
        // As far as one look should go.
        while count < 1024 {
            match self.next(cluster) {
                Ok(Some(next)) if next == cluster + 1 => cluster = next,
                _ => break,
            }
            count += 1;
        }
        let mut followed = lock();
        if followed.len() > 4096 {
            followed.clear();
        }
        followed.insert(first, Stretch { index, cluster: start, count });
        Ok((start, count.into()))
    }

    /// The entries of a directory as they are on the disk, and where.
    fn raw_entries(&self, directory: &File, each: EachRaw<'_>) -> Result<()> {
        let Whereabouts::Fat(first) = directory.whereabouts else { return Err(no_directory()) };
        let mut at = 0;
        while at < LARGEST_DIRECTORY {
            let (start, len) = match first {
                // The root directory of FAT12 and FAT16 is in one place, and may be of no size in a damaged one.
                0 if at > 0 || self.boot.root.is_empty() => return Ok(()),
                0 => (self.boot.root.start, self.boot.root.len),
                _ => {
                    let index = at / self.boot.cluster;
                    // One cluster at a time: most directories have no more.
                    let (cluster, _) = match self.stretch(first, index) {
                        Ok(found) => found,
                        // A directory has no length; it ends with its chain.
                        Err(_) if index > 0 && self.ends_at(first, index)? => return Ok(()),
                        Err(e) => return Err(e),
                    };
                    (self.boot.place(cluster), self.boot.cluster)
                }
            };
            for within in (0..len).step_by(4096) {
                let bytes = self.source.bytes(start + within, (len - within).min(4096) as usize)?;
                for (entry, at) in bytes.chunks_exact(ENTRY).zip((start + within..).step_by(ENTRY)) {
                    if byte(entry, 0) == 0 || each(entry, at)?.is_break() {
                        return Ok(());
                    }
                }
            }
            at += len;
        }
        Ok(())
    }

    /// Whether a chain has exactly so many clusters.
    fn ends_at(&self, first: u32, count: u64) -> Result<bool> {
        let mut cluster = first;
        for _ in 1..count {
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => return Ok(false),
            }
        }
        Ok(self.next(cluster)?.is_none())
    }

    fn file_at(&self, entry: &[u8], at: u64) -> File {
        let attributes = byte(entry, 11);
        let is_directory = attributes & DIRECTORY != 0;
        let high = if self.boot.bits == 32 { u32::from(le16(entry, 20)) << 16 } else { 0 };
        let first = u32::from(le16(entry, 26)) | high;
        let may_write = if attributes & READ_ONLY == 0 { 0o222 } else { 0 };
        let (kind, permissions) = match is_directory {
            true => (Kind::Directory, 0o555 | may_write),
            false => (Kind::Regular, 0o444 | may_write),
        };
        File {
            // Clusters are far fewer than bytes; the root directory of FAT12 is none, but that is 0.
            id: if is_directory { first.into() } else { at + u64::from(u32::MAX) },
            kind,
            permissions: permissions & !0o022,
            links: 1,
            uid: 0,
            gid: 0,
            size: if is_directory { 0 } else { le32(entry, 28).into() },
            modified: time(le16(entry, 24), le16(entry, 22)),
            whereabouts: Whereabouts::Fat(first),
        }
    }
}

impl FileSystem for Fat {
    fn about(&self) -> &About {
        &self.about
    }

    fn source(&self) -> &Source {
        &self.source
    }

    fn root(&self) -> Result<File> {
        Ok(File {
            id: self.boot.root_cluster.into(),
            kind: Kind::Directory,
            permissions: 0o755,
            links: 1,
            uid: 0,
            gid: 0,
            size: 0,
            modified: Time::default(),
            whereabouts: Whereabouts::Fat(self.boot.root_cluster),
        })
    }

    fn entries(
        &self,
        directory: &File,
        each: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if !directory.is_directory() {
            return Err(no_directory());
        }
        let is_root = directory.id == u64::from(self.boot.root_cluster);
        // Of other directories 0 would be the root of FAT12.
        if !is_root && matches!(directory.whereabouts, Whereabouts::Fat(0)) {
            return Err(Error::io("the directory has no clusters: it is damaged"));
        }
        let mut long = LongName::default();
        self.raw_entries(directory, &mut |entry, at| {
            let attributes = byte(entry, 11);
            if byte(entry, 0) == 0xe5 {
                long = LongName::default();
            } else if attributes & 0x3f == LONG {
                long.add(entry);
            } else if attributes & LABEL == 0 {
                let short = part(entry, 0, 11);
                let name = std::mem::take(&mut long)
                    .of(short)
                    .unwrap_or_else(|| names::short(short, byte(entry, 12)));
                if short != b".          " && short != b"..         " && !name.is_empty() {
                    return each(Entry {
                        name: name.into_bytes(),
                        node: Node::Known(self.file_at(entry, at)),
                    });
                }
            } else {
                long = LongName::default();
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn file(&self, entry: &Entry) -> Result<File> {
        match &entry.node {
            Node::Known(file) => Ok(file.clone()),
            Node::Inode(_) => Err(Error::invalid("a file of another file system")),
        }
    }

    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
        one == other || lower(one) == lower(other)
    }

    fn target(&self, _: &File) -> Result<Vec<u8>> {
        Err(Error::invalid("not a symbolic link"))
    }

    fn run(&self, file: &File, at: u64) -> Result<Run> {
        let Whereabouts::Fat(first) = file.whereabouts else {
            return Err(Error::invalid("a file of another file system"));
        };
        let size = self.boot.cluster;
        let (cluster, count) = self.stretch(first, at / size)?;
        Ok(Run { len: count * size - at % size, place: Place::At(self.boot.place(cluster) + at % size) })
    }
}

/// The time that the directory has, which is of no time zone: it is taken for UTC.
fn time(date: u16, time: u16) -> Time {
    if date == 0 {
        return Time::default();
    }
    let moment = Moment {
        year: 1980 + i64::from(date >> 9),
        month: (date >> 5 & 15) as u8,
        day: (date & 31) as u8,
        hour: (time >> 11) as u8,
        minute: (time >> 5 & 63) as u8,
        second: (time & 31) as u8 * 2,
    };
    Time { seconds: moment.to_unix(), nanoseconds: 0 }
}
