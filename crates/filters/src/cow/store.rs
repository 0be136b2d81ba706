//! The temporary file that holds the overlays' blocks.

use disk::{BufMut, Data, Error, Result, error::Errno};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A sparse file without a name: it goes when the server does, however that ends.
pub(super) struct Store {
    dir: PathBuf,
    file: OnceLock<File>,
    next: AtomicU64,
}

impl Store {
    /// In `$TMPDIR`, or in `/var/tmp`: what is large is better not put where memory serves as a disk.
    pub(super) fn new() -> Store {
        let dir = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
        let dir = dir.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        // A server changes its directory before it serves.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        Store { dir, file: OnceLock::new(), next: AtomicU64::new(0) }
    }

    /// Makes the file, unless it is there.
    pub(super) fn open(&self) -> Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = tempfile::tempfile_in(&self.dir).map_err(|e| self.error(e, "making"))?;
        Ok(self.file.get_or_init(|| file))
    }

    /// A place for so many bytes; it takes room only where it is written.
    pub(super) fn place(&self, bytes: u64) -> u64 {
        self.next.fetch_add(bytes, Relaxed)
    }

    /// Reads what was written.
    pub(super) fn read(&self, at: u64, len: u64) -> Result<Data> {
        let mut buf = BufMut::new(len as usize);
        self.open()?.read_exact_at(&mut buf, at).map_err(|e| self.error(e, "reading"))?;
        Ok(buf.into())
    }

    /// Writes.
    ///
    /// # Errors
    /// `ENOSPC` when the file system is full; the bytes written may then be old and new.
    pub(super) fn write(&self, at: u64, data: &Data) -> Result<()> {
        let write = |bytes: &[u8]| self.open()?.write_all_at(bytes, at).map_err(|e| self.error(e, "writing"));
        match data.as_bytes() {
            Some(bytes) => write(bytes),
            None => write(data.contiguous().as_bytes().unwrap_or_default()),
        }
    }

    /// Gives the room of these bytes back. Where the file system cannot do that, it stays taken.
    pub(super) fn discard(&self, at: u64, len: u64) {
        use rustix::fs::{FallocateFlags, fallocate};
        if let Ok(file) = self.open() {
            let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len);
        }
    }

    #[cold]
    fn error(&self, e: std::io::Error, what: &str) -> Error {
        let dir = self.dir.display();
        let error = Error::from(e).context(format!("{what} the temporary file of changes in {dir}"));
        match error.errno() {
            // A limit of this server's environment: for clients, the disk is full.
            Errno::FBIG => Error::new(Errno::NOSPC, error.to_string()),
            _ => error,
        }
    }
}
