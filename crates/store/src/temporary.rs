//! The temporary file that holds the blocks of overlays and caches that nobody keeps.
//!
//! Bytes get their room in the file by an ordinary write, which can say that the file system is full. After that they
//! are read and overwritten through a mapping of the file, without system calls, where the file system never needs new
//! room to overwrite (else the process would end by a signal when it is full).

use crate::medium::Medium;
use disk::{BufMut, Data, Error, Result, error::Errno, shared::SharedMemory};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The file is mapped in parts of this size, 16 TiB of it at most.
const WINDOW: u64 = 1 << 30;
const WINDOWS: usize = 1 << 14;

/// `None`: it could not be mapped.
type Window = OnceLock<Option<Arc<SharedMemory>>>;

/// A sparse file without a name: it goes when the server does, however that ends.
pub struct Store {
    dir: PathBuf,
    file: OnceLock<File>,
    /// Empty on file systems where overwriting may need room.
    windows: OnceLock<Box<[Window]>>,
    next: Arc<AtomicU64>,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// In `$TMPDIR`, or in `/var/tmp`: what is large is better not put where memory serves as a disk.
    pub fn new() -> Store {
        let dir = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
        let dir = dir.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        // A server changes its directory before it serves.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        Store { dir, file: OnceLock::new(), windows: OnceLock::new(), next: Arc::default() }
    }

    /// Makes the file, unless it is there.
    pub fn open(&self) -> Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = tempfile::tempfile_in(&self.dir).map_err(|e| self.error(e, "making"))?;
        Ok(self.file.get_or_init(|| file))
    }

    /// A place for so many bytes; it takes room only where it is written.
    pub fn place(&self, bytes: u64) -> u64 {
        self.next.fetch_add(bytes, Relaxed)
    }

    /// Where the next place will be: for those that share this file.
    pub(crate) fn places(&self) -> Arc<AtomicU64> {
        self.next.clone()
    }

    /// The mapping of these bytes, and where in it they are.
    #[inline]
    fn mapped(&self, at: u64, len: u64) -> Option<(&Arc<SharedMemory>, usize)> {
        let windows = self.windows.get_or_init(|| {
            let count = if self.overwrites_in_place() { WINDOWS } else { 0 };
            (0..count).map(|_| OnceLock::new()).collect()
        });
        let (window, inside) = ((at / WINDOW) as usize, at % WINDOW);
        if inside + len > WINDOW {
            return None;
        }
        let map = || SharedMemory::map_file(self.open().ok()?, at - inside, WINDOW as usize).ok();
        Some((windows.get(window)?.get_or_init(map).as_ref()?, inside as usize))
    }

    /// Whether bytes that have their room in the file keep it when they are overwritten: not so where file systems
    /// copy on write themselves.
    fn overwrites_in_place(&self) -> bool {
        const EXT: u64 = 0xEF53;
        const XFS: u64 = 0x5846_5342;
        const TMPFS: u64 = 0x0102_1994;
        let kind =
            self.open().ok().and_then(|file| rustix::fs::fstatfs(file).ok()).map(|fs| fs.f_type as u64);
        kind.is_some_and(|kind| [EXT, XFS, TMPFS].contains(&kind))
    }

    /// Reads what was written.
    #[inline]
    pub fn read(&self, at: u64, len: u64) -> Result<Data> {
        if let Some((memory, at)) = self.mapped(at, len) {
            return Ok(memory.lend(at, len as usize).into());
        }
        let mut buf = BufMut::new(len as usize);
        self.open()?.read_exact_at(&mut buf, at).map_err(|e| self.error(e, "reading"))?;
        Ok(buf.into())
    }

    /// Overwrites what was written, and not discarded since.
    ///
    /// # Errors
    /// As of `write`.
    #[inline]
    pub fn overwrite(&self, at: u64, data: &Data) -> Result<()> {
        match (self.mapped(at, data.len()), data.as_bytes()) {
            (Some((memory, at)), Some(bytes)) => {
                memory.write(at, bytes);
                Ok(())
            }
            _ => self.write(at, data),
        }
    }

    /// Writes.
    ///
    /// # Errors
    /// `ENOSPC` when the file system is full; the bytes written may then be old and new.
    pub fn write(&self, at: u64, data: &Data) -> Result<()> {
        let write = |bytes: &[u8]| self.open()?.write_all_at(bytes, at).map_err(|e| self.error(e, "writing"));
        match data.as_bytes() {
            Some(bytes) => write(bytes),
            None => write(data.contiguous().as_bytes().unwrap_or_default()),
        }
    }

    /// Gives the room of these bytes back. Where the file system cannot do that, it stays taken.
    pub fn discard(&self, at: u64, len: u64) {
        use rustix::fs::{FallocateFlags, fallocate};
        if let Ok(file) = self.open() {
            let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len);
        }
    }

    #[cold]
    fn error(&self, e: std::io::Error, what: &str) -> Error {
        let dir = self.dir.display();
        let error = Error::from(e).context(format!("{what} the temporary file in {dir}"));
        match error.errno() {
            // A limit of this server's environment: for clients, the disk is full.
            Errno::FBIG => Error::new(Errno::NOSPC, error.to_string()),
            _ => error,
        }
    }
}

impl Medium for Store {
    #[inline]
    fn read(&self, at: u64, len: u64) -> Result<Data> {
        Store::read(self, at, len)
    }
    fn write(&self, at: u64, data: &Data) -> Result<()> {
        Store::write(self, at, data)
    }
    #[inline]
    fn overwrite(&self, at: u64, data: &Data) -> Result<()> {
        Store::overwrite(self, at, data)
    }
    fn discard(&self, at: u64, len: u64) {
        Store::discard(self, at, len);
    }
    /// Nothing of it outlives a crash.
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    fn end(&self) -> Result<u64> {
        Ok(self.open()?.metadata()?.len())
    }
}
