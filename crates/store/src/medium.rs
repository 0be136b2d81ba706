//! Where a store has its bytes: a temporary file, a file that is kept, or a fake that loses power.

use disk::{Data, Result};

/// A file of bytes, without end: what was never written may be read as zeroes or fail.
///
/// Many threads use it at once. What is written is stable only after `sync`; until then a loss of power leaves any
/// part of it, in any order, by sectors of 512 bytes.
pub trait Medium: Send + Sync {
    /// Reads.
    ///
    /// # Errors
    /// `EIO`, also where the file ends before that.
    fn read(&self, at: u64, len: u64) -> Result<Data>;

    /// Reads, if that can be done without waiting for a disk.
    ///
    /// # Errors
    /// As of `read`.
    fn peek(&self, at: u64, len: u64) -> Option<Result<Data>> {
        Some(self.read(at, len))
    }

    /// Writes.
    ///
    /// # Errors
    /// `ENOSPC` when the file system is full; the bytes may then be old and new.
    fn write(&self, at: u64, data: &Data) -> Result<()>;

    /// Overwrites what was written, and not discarded since.
    ///
    /// # Errors
    /// As of `write`.
    fn overwrite(&self, at: u64, data: &Data) -> Result<()> {
        self.write(at, data)
    }

    /// Gives the room of these bytes back, where that can be done; they are zero or what they were.
    fn discard(&self, at: u64, len: u64);

    /// Sees to it that these bytes can be written later even when the file system is full, where that can be done.
    fn reserve(&self, at: u64, len: u64) {
        let _ = (at, len);
    }

    /// Makes stable what was written before.
    ///
    /// # Errors
    /// What was written since the last time may be lost, then, even if a second attempt says otherwise.
    fn sync(&self) -> Result<()>;

    /// Where it ends, in bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn end(&self) -> Result<u64>;
}
