//! The temporary file that holds the blocks of overlays and caches that nobody keeps, and the memory before it.
//!
//! The first places can be in memory: a file system takes several times as long as a copy to give a page of a file its room. After
//! these, places are in the file.
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

const HUGE_PAGE: u64 = 2 << 20;

/// `None`: it could not be mapped.
type Window = OnceLock<Option<Arc<SharedMemory>>>;

/// A sparse file without a name: it goes when the server does, however that ends.
pub struct Store {
    /// Holds the first places.
    memory: Option<Arc<SharedMemory>>,
    /// Bytes of it.
    in_memory: u64,
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
        let (file, windows) = (OnceLock::new(), OnceLock::new());
        Store { memory: None, in_memory: 0, dir, file, windows, next: Arc::default() }
    }

    /// The same, with so many bytes in memory, which is taken when it is written.
    pub fn with_memory(bytes: u64) -> Store {
        // Where there is no such room, all is in the file.
        let memory = usize::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        let memory = memory.and_then(|bytes| SharedMemory::new(bytes).ok());
        if let Some(memory) = &memory {
            memory.want_huge_pages(0, memory.len());
        }
        let in_memory = memory.as_ref().map_or(0, |memory| memory.len() as u64);
        Store { memory, in_memory, ..Store::new() }
    }

    /// The memory, if these bytes are all in it.
    #[inline]
    fn remembered(&self, at: u64, len: u64) -> Option<&Arc<SharedMemory>> {
        if at + len <= self.in_memory { self.memory.as_ref() } else { None }
    }

    /// Where bytes that are in memory and in the file are to be cut.
    #[inline]
    fn cut(&self, at: u64, len: u64) -> Option<u64> {
        (at < self.in_memory && at + len > self.in_memory).then(|| self.in_memory - at)
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
        if let Some(memory) = self.remembered(at, len) {
            return Some((memory, at as usize));
        }
        if at < self.in_memory {
            return None;
        }
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
        if let Some(cut) = self.cut(at, len) {
            return Ok(Data::join(vec![self.read(at, cut)?, self.read(at + cut, len - cut)?]));
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
    #[inline]
    pub fn write(&self, at: u64, data: &Data) -> Result<()> {
        if let Some(memory) = self.remembered(at, data.len()) {
            match data.as_bytes() {
                Some(bytes) => memory.write(at as usize, bytes),
                None => memory.write(at as usize, data.contiguous().as_bytes().unwrap_or_default()),
            }
            return Ok(());
        }
        self.write_to_file(at, data)
    }

    fn write_to_file(&self, at: u64, data: &Data) -> Result<()> {
        if let Some(cut) = self.cut(at, data.len()) {
            self.write(at, &data.slice(0, cut))?;
            return self.write(at + cut, &data.slice(cut, data.len() - cut));
        }
        let write = |bytes: &[u8]| self.open()?.write_all_at(bytes, at).map_err(|e| self.error(e, "writing"));
        match data.as_bytes() {
            Some(bytes) => write(bytes),
            None => write(data.contiguous().as_bytes().unwrap_or_default()),
        }
    }

    /// Gives the room of these bytes back. Where the file system cannot do that, it stays taken.
    pub fn discard(&self, at: u64, len: u64) {
        use rustix::fs::{FallocateFlags, fallocate};
        if let Some(cut) = self.cut(at, len) {
            return self.discard(at + cut, len - cut);
        }
        if let Some(memory) = self.remembered(at, len) {
            // Less is not worth a call, nor a huge page that falls apart. What it holds is of no interest any more.
            if len >= HUGE_PAGE && (at | len).is_multiple_of(HUGE_PAGE) {
                let _ = memory.discard(at as usize, len as usize);
            }
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_in_memory_and_in_the_file_and_across_both() {
        let (store, plain) = (Store::with_memory(1 << 20), Store::new());
        let bytes = Data::copy_from(&(0..100_000).map(|i: u32| (i / 7) as u8).collect::<Vec<_>>());
        for at in [0, 500_000, (1 << 20) - 50_000, (1 << 20) - 100_000, 1 << 20, 3 << 20] {
            for store in [&store, &plain] {
                store.write(at, &bytes).unwrap();
                store.overwrite(at + 1000, &Data::zeroes(98_000)).unwrap();
                store.overwrite(at + 40_000, &bytes.slice(5, 20_000)).unwrap();
            }
            let read = |store: &Store| store.read(at, 100_000).unwrap().to_vec();
            assert!(read(&store) == read(&plain), "{at}");
        }
        store.discard(0, 2 << 20);
        store.discard(2 << 20, 1 << 20);
        store.write(2 << 20, &bytes).unwrap();
        assert_eq!(store.read((2 << 20) + 700, 1).unwrap().to_vec(), [100]);
    }
}
