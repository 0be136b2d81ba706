//! Files that appear under their name when they are whole.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file that is being written beside the place where it is going to be. What a killed process leaves there, the next
/// one writes over.
pub(crate) struct Aside {
    file: File,
    there: PathBuf,
    path: PathBuf,
}

impl Aside {
    /// Begins one, as `PATH.new`.
    ///
    /// # Errors
    /// As open(2).
    pub(crate) fn new(path: &Path) -> io::Result<Aside> {
        let mut there = OsString::from(path);
        there.push(".new");
        let there = PathBuf::from(there);
        Ok(Aside { file: File::create(&there)?, there, path: path.into() })
    }

    /// It is whole: puts it in its place. After a loss of power there is this one or the one before.
    ///
    /// # Errors
    /// As fsync(2) and rename(2).
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.there, &self.path)?;
        File::open(store::file::directory(&self.path))?.sync_all()
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
