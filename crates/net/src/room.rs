//! Buffers whose memory can be given back while nobody needs it. Unsafe, because the pages come straight from the kernel.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

/// A buffer in whole pages, which take memory only once they are used, and can be given back.
pub struct Room {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its mapping.
unsafe impl Send for Room {}

impl Room {
    /// Of `len` bytes, all zero, and at least one.
    ///
    /// # Errors
    /// When the process is out of memory.
    pub fn new(len: usize) -> io::Result<Room> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, flags) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Room { base, len })
    }

    /// Gives the memory back; all bytes are zero afterwards.
    pub fn release(&mut self) {
        // SAFETY: the whole of our own mapping, borrowed exclusively; dropped anonymous pages read as zeroes.
        let _ = unsafe { madvise(self.base.as_ptr().cast(), self.len, Advice::LinuxDontNeed) };
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("len", &self.len).finish()
    }
}

impl Deref for Room {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is of this length and initialised by the kernel.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for Room {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nobody borrows it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
