//! What the kernel asks of the file, as requests to the disk.
//!
//! Each of the session's threads takes a request, waits for the server's answer (and while it waits drives the connections
//! for the others), and answers the kernel: no request changes hands.

use client::RemoteDisk;
use disk::{Data, Disk, Errno as DiskErrno, Range, WriteFlags, ZeroFlags};
use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags as FuseWriteFlags,
};
use std::{
    ffi::{OsStr, OsString},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// So long the kernel may believe what it was told of the file.
const BELIEVE: Duration = Duration::from_secs(1);
/// The longest request that the kernel sends, in bytes.
const LONGEST: u32 = 1 << 20;
/// So many of the kernel's own requests (read-ahead, for one) are under way at a time.
const BACKGROUND: u16 = 64;
/// Extents asked for at once.
const EXTENTS: usize = 256;
/// The disk, where it is in a directory.
const INSIDE: INodeNo = INodeNo(2);

/// How the file looks.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Its name in the directory; `None` where it is what is mounted.
    pub(crate) name: Option<OsString>,
    pub(crate) read_only: bool,
    /// The kernel's cache outlives the last close.
    pub(crate) keep_cache: bool,
    /// The kernel caches nothing.
    pub(crate) direct: bool,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// One file, maybe in a directory.
pub(crate) struct FileSystem {
    disk: Arc<RemoteDisk>,
    settings: Settings,
    /// When it was mounted.
    since: SystemTime,
    /// The server's smallest block, in bytes.
    block: u64,
    /// Writes of parts of blocks come one by one: each reads the block first.
    parts: Mutex<()>,
}

type Answer<T> = Result<T, Errno>;

impl FileSystem {
    pub(crate) fn new(disk: Arc<RemoteDisk>, settings: Settings) -> FileSystem {
        let block = u64::from(disk.facts().blocks.minimum);
        FileSystem { disk, settings, since: SystemTime::now(), block, parts: Mutex::new(()) }
    }

    fn disk_node(&self) -> INodeNo {
        if self.settings.name.is_some() { INSIDE } else { INodeNo::ROOT }
    }

    fn attributes(&self, node: INodeNo) -> FileAttr {
        let is_disk = node == self.disk_node();
        let size = if is_disk { self.disk.size() } else { 0 };
        let (write, read) = if is_disk { (0o666, 0o444) } else { (0o777, 0o555) };
        FileAttr {
            ino: node,
            size,
            blocks: size.div_ceil(512),
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind: if is_disk { FileType::RegularFile } else { FileType::Directory },
            perm: if self.settings.read_only { read } else { write },
            nlink: if is_disk { 1 } else { 2 },
            uid: self.settings.user,
            gid: self.settings.group,
            rdev: 0,
            blksize: self.disk.facts().blocks.preferred.clamp(512, LONGEST),
            flags: 0,
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
        let start = range.start - range.start % self.block;
        let end = range.end().next_multiple_of(self.block).min(self.disk.size());
        Range::new(start, end - start)
    }

    fn read(&self, offset: u64, length: u64) -> Answer<Data> {
        let range = self.within(offset, length);
        if range.is_empty() {
            return Ok(Data::zeroes(0));
        }
        let blocks = self.blocks(range);
        let data = self.disk.read(blocks).wait().map_err(errno)?;
        Ok(if blocks == range { data } else { data.slice(range.start - blocks.start, range.len) })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Answer<u32> {
        let range = self.within(offset, bytes.len() as u64);
        let Ok(length) = u32::try_from(range.len) else { return Err(Errno::EINVAL) };
        if range.is_empty() {
            return if bytes.is_empty() { Ok(0) } else { Err(Errno::ENOSPC) };
        }
        let bytes = &bytes[..range.len as usize];
        let blocks = self.blocks(range);
        let flags = WriteFlags::default();
        if blocks == range {
            self.disk.write(range.start, Data::copy_from(bytes), flags).wait().map_err(errno)?;
            return Ok(length);
        }
        let _alone = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whole = self.disk.read(blocks).wait().map_err(errno)?.to_vec();
        whole[(range.start - blocks.start) as usize..][..bytes.len()].copy_from_slice(bytes);
        self.disk.write(blocks.start, Data::copy_from(&whole), flags).wait().map_err(errno)?;
        Ok(length)
    }

    fn flush(&self) -> Answer<()> {
        match self.disk.facts().flush && !self.settings.read_only {
            true => self.disk.flush().wait().map_err(errno),
            false => Ok(()),
        }
    }

    fn allocate(&self, offset: u64, length: u64, mode: i32) -> Answer<()> {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        const ZERO_AND_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        if self.settings.read_only {
            return Err(Errno::EROFS);
        }
        let facts = self.disk.facts();
        let range = self.within(offset, length);
        match mode {
            // Whoever punches a hole reads zeroes there; a trim alone promises nothing.
            PUNCH if facts.trim && facts.zero => self.zero(range, true),
            libc::FALLOC_FL_ZERO_RANGE | ZERO_AND_KEEP if facts.zero => {
                if range.len < length && mode != ZERO_AND_KEEP {
                    return Err(Errno::ENOSPC);
                }
                self.zero(range, false)
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Zeroes a range, whose whole blocks may be given back to the server.
    fn zero(&self, range: Range, punch: bool) -> Answer<()> {
        let start = range.start.next_multiple_of(self.block).min(range.end());
        let end = (range.end() - range.end() % self.block).max(start);
        let whole = Range::new(start, end - start);
        for part in [Range::new(range.start, start - range.start), Range::new(end, range.end() - end)] {
            if !part.is_empty() {
                self.write(part.start, &vec![0; part.len as usize])?;
            }
        }
        if whole.is_empty() {
            return Ok(());
        }
        if punch {
            self.disk.trim(whole, WriteFlags::default()).wait().map_err(errno)?;
        }
        let flags = ZeroFlags { may_trim: punch, ..ZeroFlags::default() };
        self.disk.zero(whole, flags).wait().map_err(errno)
    }

    /// Where the next data or the next hole is.
    fn seek(&self, offset: i64, whence: i32) -> Answer<i64> {
        let size = self.disk.size();
        let Some(mut at) = u64::try_from(offset).ok().filter(|at| *at < size) else {
            return Err(Errno::ENXIO);
        };
        let hole = match whence {
            libc::SEEK_HOLE => true,
            libc::SEEK_DATA => false,
            _ => return Err(Errno::EINVAL),
        };
        if !self.disk.facts().extents {
            return Ok(if hole { size } else { at } as i64);
        }
        while at < size {
            let blocks = self.blocks(Range::new(at, size - at));
            let extents = self.disk.extents(blocks, EXTENTS).wait().map_err(errno)?;
            let found =
                extents.ranges(blocks.start).find(|(part, kind)| kind.zero == hole && part.end() > at);
            if let Some((part, _)) = found {
                return Ok(part.start.max(at) as i64);
            }
            at = blocks.start + extents.covered();
        }
        if hole { Ok(size as i64) } else { Err(Errno::ENXIO) }
    }
}

/// What a program makes of the server's error. A connection that is gone is an error of the disk.
fn errno(error: disk::Error) -> Errno {
    match error.errno() {
        DiskErrno::PERM => Errno::EPERM,
        DiskErrno::NOMEM => Errno::ENOMEM,
        DiskErrno::INVAL => Errno::EINVAL,
        DiskErrno::NOSPC => Errno::ENOSPC,
        DiskErrno::NOTSUP => Errno::EOPNOTSUPP,
        _ => Errno::EIO,
    }
}

impl Filesystem for FileSystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(LONGEST); // within what it takes
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match parent == INodeNo::ROOT && self.settings.name.as_deref() == Some(name) {
            true => reply.entry(&BELIEVE, &self.attributes(INSIDE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&BELIEVE, &self.attributes(node));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Times, modes and owners are no part of a disk; programs that set them are not disturbed by that.
        if let Some(size) = size.filter(|size| *size != self.disk.size()) {
            if self.settings.read_only {
                return reply.error(Errno::EROFS);
            }
            if let Err(error) = reactor::block_on(self.disk.resize(size)) {
                return reply.error(errno(error));
            }
        }
        reply.attr(&BELIEVE, &self.attributes(node));
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.settings.read_only && flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let mut how = FopenFlags::empty();
        how.set(FopenFlags::FOPEN_DIRECT_IO, self.settings.direct);
        how.set(FopenFlags::FOPEN_KEEP_CACHE, self.settings.keep_cache);
        reply.opened(FileHandle(0), how);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match FileSystem::read(self, offset, size.into()) {
            Ok(data) => match data.as_bytes() {
                Some(bytes) => reply.data(bytes),
                None => reply.data(&data.to_vec()),
            },
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: FuseWriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match FileSystem::write(self, offset, bytes) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(FileSystem::flush(self), reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file promises nothing; the kernel need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        done(self.allocate(offset, length, mode), reply);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.seek(offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let dots = [OsStr::new("."), OsStr::new("..")].map(|name| (INodeNo::ROOT, FileType::Directory, name));
        let disk = self.settings.name.as_deref().map(|name| (INSIDE, FileType::RegularFile, name));
        let entries = dots.into_iter().chain(disk).enumerate();
        for (number, (node, kind, name)) in entries.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(node, number as u64 + 1, kind, name) {
                break; // it is full
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let size = self.disk.size();
        reply.statfs(size / 4096, 0, 0, 1, 0, 4096, 255, 4096);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}

fn done(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
