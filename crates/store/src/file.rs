//! A store in a file with a name: made whole or not at all, opened by one writer or many readers.
//!
//! It is read and written by system calls, not through a mapping: a disk that fails, or somebody who cuts the file
//! short, is then an error of one request and not the end of the server.

use crate::{Blocks, Header, Kind, Medium, lock::Lock};
use disk::{BufMut, Data, Errno, Error, Piece, Result};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::{Errno as Os, ReadWriteFlags, preadv2},
};
use std::{
    fs::{File, OpenOptions},
    io::IoSliceMut,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file that is kept, and locked as long as this lives.
struct Named {
    file: File,
    path: PathBuf,
    lock: Lock,
}

/// Whose file it is.
fn user(kind: Kind) -> &'static str {
    match kind {
        Kind::Overlay => "the filter cow",
        Kind::Cache => "the filter cache",
    }
}

impl Named {
    #[cold]
    fn error(&self, e: std::io::Error, what: &str) -> Error {
        let error = Error::from(e).context(format!("{what} {}", self.path.display()));
        let quota = Errno::from_raw(rustix::io::Errno::DQUOT.raw_os_error());
        match error.errno() {
            // A limit of this server's environment, or a quota: for clients, the disk is full.
            errno if errno == Errno::FBIG || errno == quota => Error::new(Errno::NOSPC, error.to_string()),
            _ => error,
        }
    }

    fn write_bytes(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| match e.kind() {
            // So a full file system says it when it had room for a part.
            std::io::ErrorKind::WriteZero => Error::new(Errno::NOSPC, "there is no room for all of it"),
            _ => self.error(e, "writing"),
        })
    }
}

impl Medium for Named {
    fn read(&self, at: u64, len: u64) -> Result<Data> {
        let mut buf = BufMut::new(len as usize);
        self.file.read_exact_at(&mut buf, at).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::io(format!("{} has become shorter", self.path.display()))
            }
            _ => self.error(e, "reading"),
        })?;
        Ok(buf.into())
    }

    fn peek(&self, at: u64, len: u64) -> Option<Result<Data>> {
        let mut buf = BufMut::new(len as usize);
        match preadv2(&self.file, &mut [IoSliceMut::new(&mut buf)], at, ReadWriteFlags::NOWAIT) {
            Ok(got) if got == buf.len() => Some(Ok(buf.into())),
            // Not in the page cache; or it cannot be said, and then what is to be waited for is not seen beforehand.
            Ok(_) | Err(Os::AGAIN) => None,
            Err(_) => Some(self.read(at, len)),
        }
    }

    fn write(&self, mut at: u64, data: &Data) -> Result<()> {
        if let Some(bytes) = data.as_bytes() {
            return self.write_bytes(bytes, at);
        }
        for piece in data.pieces() {
            match piece {
                Piece::Bytes(bytes) => self.write_bytes(bytes, at)?,
                other => {
                    let mut copy = BufMut::new(other.len() as usize);
                    other.copy_to(&mut copy);
                    self.write_bytes(&copy, at)?;
                }
            }
            at += piece.len();
        }
        Ok(())
    }

    fn discard(&self, at: u64, len: u64) {
        let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len);
    }

    fn reserve(&self, at: u64, len: u64) {
        let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, at, len);
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| self.error(e, "making stable"))
    }

    fn end(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|e| self.error(e, "looking at"))?.len())
    }
}

/// Opens the store in a file, for writing or only for reading. While one program writes it, no other opens it.
///
/// # Errors
/// With the path: it is not there (`ENOENT`), in use (`EBUSY`), no store, damaged, or frozen and to be written.
pub fn open(path: &Path, write: bool) -> Result<Blocks> {
    open_here(path, write).map_err(|e| e.context(path.display()))
}

fn open_here(path: &Path, write: bool) -> Result<Blocks> {
    let named = Arc::new(named(path, write)?);
    let blocks = Blocks::open(named.clone(), write)?;
    if let Some(header) = blocks.header() {
        named.lock.is_of(user(header.kind));
    }
    Ok(blocks)
}

/// What the store in a file says of itself, without a look at its blocks.
///
/// # Errors
/// As of `open`.
pub fn header(path: &Path) -> Result<Header> {
    let header = named(path, false).and_then(|named| crate::journal::read_header(&named));
    header.map(|(header, _)| header).map_err(|e| e.context(path.display()))
}

fn named(path: &Path, write: bool) -> Result<Named> {
    // Without NONBLOCK, opening a pipe would wait for somebody at its other end.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::invalid("not a regular file"));
    }
    let lock = Lock::take(&file, write, "one that just opens it")?;
    Ok(Named { file, path: path.to_owned(), lock })
}

/// Makes a store in a file that is not there yet. A crash leaves a whole store or none. Of the header, the log's
/// fields do not count.
///
/// # Errors
/// With the path: it is there (`EEXIST`), or cannot be made.
pub fn create(path: &Path, header: Header) -> Result<Blocks> {
    create_here(path, header, false).map_err(|e| e.context(path.display()))
}

/// As [`create`], in the place of a file that is there: the name is of the one or of the other, at every moment.
///
/// # Errors
/// With the path, that it cannot be made.
pub fn replace(path: &Path, header: Header) -> Result<Blocks> {
    create_here(path, header, true).map_err(|e| e.context(path.display()))
}

/// The directory that a file is in.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn create_here(path: &Path, header: Header, replaces: bool) -> Result<Blocks> {
    let dir = directory(path);
    let temporary = tempfile::Builder::new().prefix(".diskpipe-").suffix(".new").tempfile_in(dir)?;
    let lock = Lock::take(temporary.as_file(), true, user(header.kind))?;
    let named = Named { file: temporary.as_file().try_clone()?, path: path.to_owned(), lock };
    let blocks = Blocks::create(Arc::new(named), header)?;
    let named = if replaces { temporary.persist(path) } else { temporary.persist_noclobber(path) };
    named.map_err(|e| e.error)?;
    sync_dir(dir)?;
    Ok(blocks)
}

/// Makes the names in a directory stable.
///
/// # Errors
/// Those of the system.
pub fn sync_dir(dir: &Path) -> Result<()> {
    Ok(File::open(dir)?.sync_all()?)
}
