//! A local file or block device as one end of a copy.
//!
//! What is in the page cache is read at once; what is not is read by a thread that may wait. Writes go into the page
//! cache. A new file is a hole from the beginning, so that zeroes cost nothing, and gets its full size last: a copy
//! that was interrupted is shorter than its source.

use disk::{
    Blocks, BufMut, Data, Disk, Errno, Extents, Facts, Io, Kind, Piece, Range, Result, WriteFlags, ZeroFlags,
};
use rustix::{
    fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, fstatfs, seek},
    io::{Errno as Os, ReadWriteFlags, preadv2, pwrite},
};
use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, IoSliceMut},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// File systems that may report a failed write only when they are asked to make it stable: nfs, smb (three
/// generations), fuse, ceph, 9p.
const REMOTE: [u32; 7] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x00c3_6400, 0x0102_1997];

/// An open file or block device.
pub(crate) struct LocalFile {
    file: Arc<File>,
    facts: Facts,
    /// A new file: what was not written is zero.
    fresh: bool,
    /// A regular file that is written: it can have any size, and gets it last.
    grows: bool,
    /// `preadv2(RWF_NOWAIT)` works.
    may_peek: AtomicBool,
}

/// What a path or a descriptor turned out to be.
pub(crate) enum Opened {
    /// Bytes at any place.
    File(LocalFile),
    /// A pipe, a terminal, a socket: bytes in order.
    Stream(File),
}

impl LocalFile {
    /// Opens `path` as a source.
    ///
    /// # Errors
    /// As open(2).
    pub(crate) fn source(path: &Path) -> io::Result<Opened> {
        Self::source_from(File::open(path)?)
    }

    /// An open descriptor as a source; from its beginning, or as a stream when it was read from already.
    ///
    /// # Errors
    /// It cannot be used: a directory.
    pub(crate) fn source_from(file: File) -> io::Result<Opened> {
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !(kind.is_file() || kind.is_block_device()) || seek(&file, SeekFrom::Current(0)) != Ok(0) {
            return Ok(Opened::Stream(file));
        }
        let size = seek(&file, SeekFrom::End(0))?;
        let _ = fadvise(&file, 0, None, Advice::Sequential); // only a hint
        let facts = Facts { extents: kind.is_file(), blocks: blocks(&file)?, ..Facts::read_only(size) };
        Ok(Opened::File(Self::new(file, facts, false, false)))
    }

    /// Opens or creates `path` as a destination. A regular file loses what it held.
    ///
    /// # Errors
    /// As open(2) and ftruncate(2).
    pub(crate) fn destination(path: &Path) -> io::Result<Opened> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Self::destination_from(file)
    }

    /// Opens `path` as a destination that is there already. A regular file keeps what it holds.
    ///
    /// # Errors
    /// As open(2).
    pub(crate) fn kept(path: &Path) -> io::Result<Opened> {
        let file = OpenOptions::new().write(true).open(path)?;
        Self::destination_with(file, true)
    }

    /// An open descriptor as a destination. One that appends, or stands elsewhere than at its beginning, is a stream.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub(crate) fn destination_from(file: File) -> io::Result<Opened> {
        Self::destination_with(file, false)
    }

    fn destination_with(file: File, keep: bool) -> io::Result<Opened> {
        let kind = file.metadata()?.file_type();
        let appends = rustix::fs::fcntl_getfl(&file)?.contains(rustix::fs::OFlags::APPEND);
        if !(kind.is_file() || kind.is_block_device())
            || appends
            || seek(&file, SeekFrom::Current(0)) != Ok(0)
        {
            return Ok(Opened::Stream(file));
        }
        let grows = kind.is_file();
        let fresh = grows && !keep;
        if fresh {
            file.set_len(0)?;
        }
        let size = if grows { i64::MAX as u64 } else { seek(&file, SeekFrom::End(0))? };
        let facts = Facts { zero: true, blocks: blocks(&file)?, ..Facts::writable(size) };
        Ok(Opened::File(Self::new(file, facts, fresh, grows)))
    }

    fn new(file: File, facts: Facts, fresh: bool, grows: bool) -> Self {
        LocalFile { file: file.into(), facts, fresh, grows, may_peek: AtomicBool::new(true) }
    }

    /// Whether it is a regular file without content: it is zero all through.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether it is a regular file that is written: it can have any size.
    pub(crate) fn grows(&self) -> bool {
        self.grows
    }

    /// What the file system says of it.
    ///
    /// # Errors
    /// As fstat(2).
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Whether both are the same file or device.
    pub(crate) fn is_same(&self, path: &Path) -> bool {
        let (Ok(a), Ok(b)) = (self.file.metadata(), path.metadata()) else { return false };
        if a.file_type().is_block_device() && b.file_type().is_block_device() {
            return a.rdev() == b.rdev();
        }
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    }

    /// All is written: gives a new file its size, and makes it stable if that is asked for or if only then errors of a
    /// remote file system are reported.
    ///
    /// # Errors
    /// As ftruncate(2) and fsync(2): the file may lack something.
    pub(crate) fn finish(&self, size: u64, flush: bool) -> io::Result<()> {
        if self.grows {
            self.file.set_len(size)?;
        }
        let remote = || fstatfs(&*self.file).is_ok_and(|fs| REMOTE.contains(&(fs.f_type as u32)));
        if !flush && !remote() {
            return Ok(());
        }
        make_stable(&self.file)
    }

    /// Reads what the page cache holds. Returns how much.
    fn peek(&self, into: &mut [u8], at: u64) -> usize {
        if !self.may_peek.load(Relaxed) {
            return 0;
        }
        match preadv2(&self.file, &mut [IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT) {
            Ok(n) => n,
            Err(e) => {
                if e != Os::AGAIN {
                    self.may_peek.store(false, Relaxed);
                }
                0
            }
        }
    }

    fn write_all(&self, data: &Data, at: u64) -> Result<()> {
        let mut at = at;
        for piece in data.pieces() {
            match piece {
                Piece::Bytes(bytes) => self.write_bytes(bytes, at)?,
                // Whoever writes zeroes wants them allocated; otherwise they would have been zeroed.
                Piece::Zeroes(len) => self.zero_now(Range::new(at, len), false)?,
                Piece::Lent(_) => {
                    let mut copy = BufMut::new(piece.len() as usize);
                    piece.copy_to(&mut copy);
                    self.write_bytes(&copy, at)?;
                }
            }
            at += piece.len();
        }
        Ok(())
    }

    fn write_bytes(&self, mut bytes: &[u8], mut at: u64) -> Result<()> {
        while !bytes.is_empty() {
            match pwrite(&*self.file, bytes, at) {
                Ok(0) => return Err(Errno::NOSPC.into()),
                Ok(n) => {
                    bytes = &bytes[n..];
                    at += n as u64;
                }
                Err(Os::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn zero_now(&self, range: Range, may_trim: bool) -> Result<()> {
        let ways = [FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, FallocateFlags::ZERO_RANGE];
        for flags in &ways[usize::from(!may_trim)..] {
            match fallocate(&*self.file, *flags, range.start, range.len) {
                Ok(()) => return Ok(()),
                Err(Os::OPNOTSUPP | Os::INVAL | Os::NOSYS | Os::NODEV | Os::PERM) => {}
                Err(e) => return Err(e.into()),
            }
        }
        // Neither is supported here. What is written as zeroes is zero and allocated.
        let zeroes = BufMut::zeroed(range.len.min(256 << 10) as usize);
        for part in range.split_at_multiples(256 << 10) {
            self.write_bytes(&zeroes[..part.len as usize], part.start)?;
        }
        Ok(())
    }
}

fn make_stable(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // There is nothing that could be made stable.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        outcome => outcome,
    }
}

/// A block device takes whole sectors cheaply; everything else, anything.
fn blocks(file: &File) -> io::Result<Blocks> {
    let preferred = u32::try_from(file.metadata()?.blksize()).unwrap_or(4096).clamp(512, 1 << 20);
    let preferred = if preferred.is_power_of_two() { preferred } else { 4096 };
    Ok(Blocks { minimum: 1, preferred, maximum: u32::MAX })
}

fn read_rest(file: &File, mut into: &mut [u8], mut at: u64) -> Result<()> {
    while !into.is_empty() {
        match file.read_at(into, at) {
            Ok(0) => return Err(disk::Error::io("the file became shorter while it was copied")),
            Ok(n) => {
                into = &mut into[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

impl Disk for LocalFile {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let mut buffer = BufMut::new(range.len as usize);
        let there = self.peek(&mut buffer, range.start);
        if there == buffer.len() {
            return Io::ok(buffer.into());
        }
        let file = self.file.clone();
        let rest = move || {
            read_rest(&file, &mut buffer[there..], range.start + there as u64)?;
            Ok(buffer.into())
        };
        if self.may_peek.load(Relaxed) {
            Io::later(async move { reactor::unblock(rest).await? })
        } else {
            // Nothing tells what would wait; such files are in memory for the most part.
            rest().into()
        }
    }

    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.write_all(&data, at).into()
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.zero_now(range, flags.may_trim).into()
    }

    fn flush(&self) -> Io<'_, ()> {
        // That may take long, and requests go on meanwhile. (Writes are over when they are answered, so there are none to
        // wait for.)
        let file = self.file.clone();
        Io::later(async move { Ok(reactor::unblock(move || make_stable(&file)).await??) })
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let mut extents = Extents::new();
        let mut at = range.start;
        while at < range.end() && extents.len() < limit {
            let data = match seek(&*self.file, SeekFrom::Data(at)) {
                Ok(data) => data.min(range.end()),
                // A hole up to the end of the file.
                Err(Os::NXIO) => range.end(),
                Err(e) => return Io::Ready(Err(e.into())),
            };
            extents.push(data.saturating_sub(at), Kind::HOLE);
            at = data.max(at);
            if at >= range.end() {
                break;
            }
            let hole = match seek(&*self.file, SeekFrom::Hole(at)) {
                Ok(hole) => hole.clamp(at + 1, range.end()),
                Err(e) => return Io::Ready(Err(e.into())),
            };
            extents.push(hole - at, Kind::DATA);
            at = hole;
        }
        Io::ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(opened: Opened) -> LocalFile {
        match opened {
            Opened::File(file) => file,
            Opened::Stream(_) => panic!("a stream"),
        }
    }

    #[test]
    fn a_sparse_file_has_extents_that_agree_with_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let f = File::create(&path).unwrap();
        f.write_all_at(&[7; 65536], 1 << 20).unwrap();
        f.set_len(3 << 20).unwrap();
        let disk = file(LocalFile::source(&path).unwrap());
        assert_eq!(disk.facts().size, 3 << 20);
        let extents = disk.extents(disk.facts().whole(), 100).wait().unwrap();
        assert_eq!(extents.covered(), 3 << 20);
        for (range, kind) in extents.ranges(0) {
            assert!(!kind.zero || disk.read(range).wait().unwrap().is_zero());
        }
        assert_eq!(disk.read(Range::new((1 << 20) + 65535, 2)).wait().unwrap().to_vec(), [7, 0]);
    }

    #[test]
    fn a_new_file_gets_its_size_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"what was there before").unwrap();
        let disk = file(LocalFile::destination(&path).unwrap());
        assert!(disk.is_fresh());
        disk.write(4096, Data::copy_from(b"abc"), WriteFlags::default()).wait().unwrap();
        assert_eq!(path.metadata().unwrap().len(), 4099);
        disk.finish(1 << 20, true).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), &bytes[4096..4100]), (1 << 20, &b"abc\0"[..]));
    }

    #[test]
    fn zeroing_what_was_written_zeroes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let disk = file(LocalFile::destination(&path).unwrap());
        disk.write(0, Data::copy_from(&[9; 10000]), WriteFlags::default()).wait().unwrap();
        for may_trim in [true, false] {
            disk.write(3000, Data::copy_from(&[9; 1000]), WriteFlags::default()).wait().unwrap();
            disk.zero(Range::new(3000, 500), ZeroFlags { may_trim, ..Default::default() }).wait().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes[3000..3500].iter().all(|b| *b == 0));
            assert!(bytes[..3000].iter().chain(&bytes[3500..]).all(|b| *b == 9));
        }
    }

    #[test]
    fn a_directory_is_refused_and_a_fifo_is_a_stream() {
        assert!(LocalFile::source(Path::new("/")).is_err());
        assert!(matches!(LocalFile::source(Path::new("/dev/zero")).unwrap(), Opened::Stream(_)));
        assert!(matches!(LocalFile::destination(Path::new("/dev/null")).unwrap(), Opened::Stream(_)));
    }
}
