//! What the kernel asks of the file, as requests to the disk.
//!
//! Whoever takes a request from the kernel waits for the server's answer (and while it waits drives the connections
//! for the others), and answers the kernel: no request changes hands.

use super::{
    ahead::{Ahead, GOOD},
    protocol::{Attributes, Body, Request, What},
};
use client::blocking::Client;
use disk::{Data, Disk, Errno as DiskErrno, Range, WriteFlags, ZeroFlags};
use rustix::io::Errno;
use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// The longest request that the kernel sends, in bytes.
pub(crate) const LONGEST: u32 = 1 << 20;
/// Extents asked for at once.
const EXTENTS: usize = 256;
/// What is mounted.
const ROOT: u64 = 1;
/// The disk, where it is in a directory.
const INSIDE: u64 = 2;
/// How a file is opened: reads and writes pass the kernel's cache by; the cache outlives the last close; writes need
/// not wait for each other.
const DIRECT: u32 = 1 << 0;
const KEEP_CACHE: u32 = 1 << 1;
const PARALLEL_WRITES: u32 = 1 << 6;

/// How the file looks.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Its name in the directory; `None` where it is what is mounted.
    pub(crate) name: Option<OsString>,
    pub(crate) read_only: bool,
    /// The kernel's cache outlives the last close.
    pub(crate) keep_cache: bool,
    /// Reads and writes pass the kernel's cache by.
    pub(crate) direct: bool,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Permissions that file and directory have not; they have all others then.
    pub(crate) umask: Option<u32>,
    /// So long the kernel may believe what it was told of the file.
    pub(crate) believe: Duration,
}

/// One file, maybe in a directory.
pub(crate) struct FileSystem {
    disk: Client,
    settings: Settings,
    ahead: Ahead,
    /// When it was mounted.
    since: SystemTime,
    /// The server's smallest block, in bytes.
    block: u64,
    /// Writes of parts of blocks come one by one: each reads the block first.
    parts: Mutex<()>,
}

type Answer<T> = Result<T, Errno>;

impl FileSystem {
    pub(crate) fn new(disk: Client, settings: Settings) -> FileSystem {
        let block = u64::from(disk.facts().blocks.minimum);
        let (since, ahead, parts) = (SystemTime::now(), Ahead::new(GOOD), Mutex::new(()));
        FileSystem { disk, settings, ahead, since, block, parts }
    }

    /// The disk, when it is no longer mounted.
    pub(crate) fn into_disk(self) -> Client {
        self.disk
    }

    fn disk_node(&self) -> u64 {
        if self.settings.name.is_some() { INSIDE } else { ROOT }
    }

    fn attributes(&self, node: u64) -> Attributes {
        let is_disk = node == self.disk_node();
        let (write, read) = if is_disk { (0o666, 0o444) } else { (0o777, 0o555) };
        Attributes {
            node,
            directory: !is_disk,
            size: if is_disk { self.disk.size() } else { 0 },
            block: self.disk.facts().blocks.preferred.clamp(512, LONGEST),
            mode: match self.settings.umask {
                Some(mask) => 0o777 & !mask,
                None if self.settings.read_only => read,
                None => write,
            },
            user: self.settings.user,
            group: self.settings.group,
            since: self.since,
        }
    }

    /// The part of the range that is on the disk.
    fn within(&self, offset: u64, length: u64) -> Range {
        let size = self.disk.size();
        let start = offset.min(size);
        Range::new(start, length.min(size - start))
    }

    /// The whole blocks that the range touches.
    fn blocks(&self, range: Range) -> Range {
        range.whole_blocks(self.block, self.disk.size())
    }

    fn read(&self, offset: u64, length: u64, ahead: bool) -> Answer<Data> {
        let range = self.within(offset, length);
        if range.is_empty() {
            return Ok(Data::zeroes(0));
        }
        let fetch = |range| self.fetch(range);
        if ahead { self.ahead.read(range, self.disk.size(), fetch) } else { fetch(range) }
    }

    fn fetch(&self, range: Range) -> Answer<Data> {
        let blocks = self.blocks(range);
        let data = self.disk.read_data(blocks.start, blocks.len).map_err(errno)?;
        Ok(if blocks == range { data } else { data.slice(range.start - blocks.start, range.len) })
    }

    /// Reads ahead for those who read in a row, until [`FileSystem::end`].
    pub(crate) fn read_ahead(&self) {
        self.ahead.fetch(|range| self.fetch(range));
    }

    /// Nothing is asked any more.
    pub(crate) fn end(&self) {
        self.ahead.end();
    }

    fn write(&self, offset: u64, data: &Data) -> Answer<u32> {
        let range = self.within(offset, data.len());
        let Ok(length) = u32::try_from(range.len) else { return Err(Errno::INVAL) };
        if range.is_empty() {
            return if data.is_empty() { Ok(0) } else { Err(Errno::NOSPC) };
        }
        let data = if range.len < data.len() { &data.slice(0, range.len) } else { data };
        let _writing = self.ahead.write();
        let blocks = self.blocks(range);
        let flags = WriteFlags::default();
        if blocks == range {
            self.disk.write_data(data, range.start, flags).map_err(errno)?;
            return Ok(length);
        }
        let _alone = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whole = self.disk.read_data(blocks.start, blocks.len).map_err(errno)?.to_vec();
        data.copy_to(&mut whole[(range.start - blocks.start) as usize..][..range.len as usize]);
        self.disk.write_with(&whole, blocks.start, flags).map_err(errno)?;
        Ok(length)
    }

    fn flush(&self) -> Answer<()> {
        match self.disk.facts().flush && !self.settings.read_only {
            true => self.disk.flush().map_err(errno),
            false => Ok(()),
        }
    }

    fn allocate(&self, offset: u64, length: u64, mode: i32) -> Answer<()> {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        const ZERO_AND_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        if self.settings.read_only {
            return Err(Errno::ROFS);
        }
        let facts = self.disk.facts();
        let range = self.within(offset, length);
        match mode {
            // Whoever punches a hole reads zeroes there; a trim alone promises nothing.
            PUNCH if facts.trim && facts.zero => self.zero(range, true),
            libc::FALLOC_FL_ZERO_RANGE | ZERO_AND_KEEP if facts.zero => {
                if range.len < length && mode != ZERO_AND_KEEP {
                    return Err(Errno::NOSPC);
                }
                self.zero(range, false)
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// Zeroes a range, whose whole blocks may be given back to the server.
    fn zero(&self, range: Range, punch: bool) -> Answer<()> {
        let start = range.start.next_multiple_of(self.block).min(range.end());
        let end = (range.end() - range.end() % self.block).max(start);
        let whole = Range::new(start, end - start);
        for part in [Range::new(range.start, start - range.start), Range::new(end, range.end() - end)] {
            if !part.is_empty() {
                self.write(part.start, &Data::zeroes(part.len))?;
            }
        }
        if whole.is_empty() {
            return Ok(());
        }
        let _writing = self.ahead.write();
        if punch {
            self.disk.trim(whole.start, whole.len).map_err(errno)?;
        }
        let flags = ZeroFlags { may_trim: punch, ..ZeroFlags::default() };
        self.disk.zero(whole.start, whole.len, flags).map_err(errno)
    }

    /// Where the next data or the next hole is.
    fn seek(&self, offset: u64, whence: u32) -> Answer<u64> {
        let size = self.disk.size();
        if offset >= size {
            return Err(Errno::NXIO);
        }
        let mut at = offset;
        let hole = match whence.cast_signed() {
            libc::SEEK_HOLE => true,
            libc::SEEK_DATA => false,
            _ => return Err(Errno::INVAL),
        };
        if !self.disk.facts().extents {
            return Ok(if hole { size } else { at });
        }
        while at < size {
            let blocks = self.blocks(Range::new(at, size - at));
            let extents = self.disk.disk().extents(blocks, EXTENTS).wait().map_err(errno)?;
            let found =
                extents.ranges(blocks.start).find(|(part, kind)| kind.zero == hole && part.end() > at);
            if let Some((part, _)) = found {
                return Ok(part.start.max(at));
            }
            at = blocks.start + extents.covered();
        }
        if hole { Ok(size) } else { Err(Errno::NXIO) }
    }

    /// The entries of the directory from this one on, as many as there is room for.
    fn list(&self, offset: u64, room: u32) -> Body {
        let dots = [&b"."[..], b".."].map(|name| (ROOT, true, name));
        let disk = self.settings.name.as_deref().map(|name| (INSIDE, false, name.as_bytes()));
        let entries = (1..).zip(dots.into_iter().chain(disk));
        let mut list = Body::default();
        for (number, (node, directory, name)) in entries.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let before = list.0.len();
            list = list.listed(node, number, directory, name);
            if list.0.len() > room as usize {
                list.0.truncate(before);
                break;
            }
        }
        list
    }

    fn open(&self, node: u64, flags: u32) -> Answer<Body> {
        if node != self.disk_node() {
            return Ok(Body::opened(0));
        }
        if self.settings.read_only && flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 {
            return Err(Errno::ROFS);
        }
        self.ahead.forget();
        let direct = if self.settings.direct { DIRECT } else { 0 };
        let keep = if self.settings.keep_cache { KEEP_CACHE } else { 0 };
        Ok(Body::opened(PARALLEL_WRITES | direct | keep))
    }

    /// Times, modes and owners are no part of a disk; programs that set them are not disturbed by that.
    fn set_size(&self, size: Option<u64>) -> Answer<()> {
        match size {
            Some(size) if size == self.disk.size() => Ok(()),
            Some(_) if self.settings.read_only => Err(Errno::ROFS),
            Some(size) => {
                let _writing = self.ahead.write();
                self.disk.resize(size).map_err(errno).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Answers a request; only a write has a payload.
    ///
    /// # Errors
    /// What the program that asked is told.
    pub(crate) fn answer(&self, request: &Request<'_>, payload: &Data) -> Answer<Reply> {
        let body = match request.what {
            What::Read { offset, length, flags } => {
                let ahead = self.settings.direct && flags & libc::O_DIRECT as u32 == 0;
                return self.read(offset, length.into(), ahead).map(Reply::Data);
            }
            What::Write { offset, .. } => Body::written(self.write(offset, payload)?),
            What::Lookup { name } => {
                match self.settings.name.as_deref().is_some_and(|disk| disk.as_bytes() == name) {
                    true if request.node == ROOT => {
                        Body::entry(self.settings.believe, &self.attributes(INSIDE))
                    }
                    _ => return Err(Errno::NOENT),
                }
            }
            What::Attributes => Body::attributes(self.settings.believe, &self.attributes(request.node)),
            What::SetAttributes { size } => {
                self.set_size(size)?;
                Body::attributes(self.settings.believe, &self.attributes(request.node))
            }
            What::Open { flags } => self.open(request.node, flags)?,
            What::Flush => self.flush().map(|()| Body::default())?,
            What::Allocate { offset, length, mode } => {
                self.allocate(offset, length, mode).map(|()| Body::default())?
            }
            What::Seek { offset, whence } => Body::offset(self.seek(offset, whence)?),
            What::List { offset, room } => self.list(offset, room),
            What::Size => Body::size(self.disk.size() / 4096),
            What::Fine | What::Destroy => Body::default(),
            // The kernel need not ask again. Closing a file, for one, promises nothing.
            What::Unknown | What::Forget => return Err(Errno::NOSYS),
        };
        Ok(Reply::Body(body))
    }
}

/// What the kernel is answered.
pub(crate) enum Reply {
    Body(Body),
    Data(Data),
}

/// What a program makes of the server's error. A connection that is gone is an error of the disk.
fn errno(error: disk::Error) -> Errno {
    match error.errno() {
        DiskErrno::PERM => Errno::PERM,
        DiskErrno::NOMEM => Errno::NOMEM,
        DiskErrno::INVAL => Errno::INVAL,
        DiskErrno::NOSPC => Errno::NOSPC,
        DiskErrno::NOTSUP => Errno::OPNOTSUPP,
        _ => Errno::IO,
    }
}
