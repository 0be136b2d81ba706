//! Memory that disks own and lend: the store of a RAM disk, a mapped file, the page of a cache.
//!
//! Requests of several clients may touch the same bytes at the same time, as on any disk; what a reader then sees
//! may be torn, but nothing worse. Therefore these bytes are only ever copied by raw pointers (or by the kernel),
//! never seen as a Rust reference.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::{fs::File, io, marker::PhantomData, ptr::NonNull, sync::Arc};

/// Memory that many threads may read and write: new and zero-filled, or that of a file.
///
/// Memory is taken from the system when it is first written, so that a large region costs what was written to it.
pub struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
    /// The mapping, of which `len` bytes from `base` on are used.
    start: NonNull<u8>,
    reserved: usize,
}

/// On x86-64 and most others; elsewhere alignment is the only thing lost.
const HUGE_PAGE: usize = 2 << 20;

// SAFETY: all access is by raw copies within bounds; races tear bytes, as documented, and nothing else.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Reserves `len` bytes (not 0) of address space.
    ///
    /// # Errors
    /// When the address space has no such room.
    pub fn new(len: usize) -> io::Result<Arc<Self>> {
        // Room for huge pages must begin at a multiple of their size; not every kernel sees to that.
        let spare = if len >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let reserved = len.checked_add(spare).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                reserved,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = if spare == 0 { 0 } else { start.as_ptr().align_offset(HUGE_PAGE) };
        // SAFETY: `skip` is less than `spare`, so that `len` bytes remain behind it.
        let base = unsafe { start.add(skip) };
        Ok(Arc::new(SharedMemory { base, len, start, reserved }))
    }

    /// Maps `len` bytes (not 0) of a file that can be read and written, from byte `at` (in whole pages) on.
    ///
    /// The file may be shorter: it is whoever uses the memory that must see to touching only what is there and has its
    /// room in the file system, or the process is ended by SIGBUS. Memory of a file is not discarded but punched out
    /// of the file.
    ///
    /// # Errors
    /// As mmap(2) reports them.
    pub fn map_file(file: &File, at: u64, len: usize) -> io::Result<Arc<Self>> {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, at) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(SharedMemory { base, len, start: base, reserved: len }))
    }

    /// Size in bytes.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.len
    }

    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "outside the shared memory");
        // SAFETY: within the mapping, as just checked.
        unsafe { self.base.as_ptr().add(at) }
    }

    /// Copies bytes out.
    #[inline]
    pub fn read(&self, at: usize, into: &mut [u8]) {
        // SAFETY: both sides are valid for the length, and cannot overlap: `into` is exclusive.
        unsafe { std::ptr::copy_nonoverlapping(self.at(at, into.len()), into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in.
    #[inline]
    pub fn write(&self, at: usize, from: &[u8]) {
        // SAFETY: both sides are valid for the length; a Rust slice never lies in shared memory.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.at(at, from.len()), from.len()) }
    }

    /// Sets bytes to zero.
    pub fn clear(&self, at: usize, len: usize) {
        // SAFETY: within the mapping.
        unsafe { std::ptr::write_bytes(self.at(at, len), 0, len) }
    }

    /// Whether all these bytes are zero.
    pub fn is_zero(&self, at: usize, len: usize) -> bool {
        let mut scratch = [0u8; 1024];
        (0..len).step_by(scratch.len()).all(|done| {
            let part = &mut scratch[..(len - done).min(1024)];
            self.read(at + done, part);
            crate::data::is_zero(part)
        })
    }

    /// Gives whole pages back to the system; they read as zeroes afterwards. `at` and `len` in whole pages.
    ///
    /// # Errors
    /// As madvise(2) reports them.
    pub fn discard(&self, at: usize, len: usize) -> io::Result<()> {
        // SAFETY: within the mapping; dropping anonymous pages makes them zero, nothing else.
        unsafe { madvise(self.at(at, len).cast(), len, Advice::LinuxDontNeed) }?;
        Ok(())
    }

    /// Asks for huge pages under this part. Only a wish; whatever the kernel answers is fine.
    pub fn want_huge_pages(&self, at: usize, len: usize) {
        // SAFETY: within the mapping; an advice changes no content.
        let _ = unsafe { madvise(self.at(at, len).cast(), len, Advice::LinuxHugepage) };
    }

    /// Makes a huge page of 2 MiB of small ones now (Linux 6.1). Only a wish.
    pub fn collapse(&self, at: usize, len: usize) {
        // SAFETY: within the mapping; the content stays.
        let _ = unsafe { libc::madvise(self.at(at, len).cast(), len, libc::MADV_COLLAPSE) };
    }

    /// Takes all of the memory now and keeps it from being swapped out.
    ///
    /// # Errors
    /// As mlock(2) reports them: no permission, no memory.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: within the mapping; locking changes no content.
        unsafe { rustix::mm::mlock(self.base.as_ptr().cast(), self.len) }?;
        Ok(())
    }

    /// Lends bytes to a reader: they are read when they are sent.
    #[inline]
    pub fn lend(self: &Arc<Self>, at: usize, len: usize) -> Lent {
        Lent { at: self.at(at, len), len, owner: self.clone() }
    }

    /// Offers bytes to be received into.
    #[inline]
    pub fn place(&self, at: usize, len: usize) -> Place<'_> {
        Place { at: self.at(at, len), len, _owner: PhantomData }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; whoever was lent a part holds a reference to `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.reserved) };
    }
}

/// Bytes that a disk lends to a reader.
#[derive(Clone)]
pub struct Lent {
    at: *const u8,
    len: usize,
    owner: Arc<SharedMemory>,
}

// SAFETY: it is a reference into `SharedMemory`, which is `Send` and `Sync` itself.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// Where the bytes are, for the kernel to copy from. Valid while `self` lives; others may write to them.
    #[inline]
    pub fn as_raw(&self) -> (*const u8, usize) {
        (self.at, self.len)
    }

    /// A part of it.
    pub(crate) fn slice(&self, start: usize, len: usize) -> Lent {
        assert!(start + len <= self.len);
        // SAFETY: within what was lent.
        Lent { at: unsafe { self.at.add(start) }, len, owner: self.owner.clone() }
    }

    /// Appends a copy to `out`.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.len);
        // SAFETY: the room was just reserved, and is filled before it counts; valid while `owner` lives.
        unsafe {
            std::ptr::copy_nonoverlapping(self.at, out.as_mut_ptr().add(out.len()), self.len);
            out.set_len(out.len() + self.len);
        }
    }

    /// Copies all of it out.
    #[inline]
    pub(crate) fn copy_to(&self, into: &mut [u8]) {
        assert_eq!(into.len(), self.len);
        // SAFETY: valid while `owner` lives; `into` is exclusive and so elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(self.at, into.as_mut_ptr(), self.len) }
    }
}

/// Bytes of a disk into which the payload of a write may be received directly.
///
/// It borrows rather than counts: an atomic operation behind the copy would make every small write wait until its
/// bytes have reached memory.
pub struct Place<'a> {
    at: *mut u8,
    len: usize,
    _owner: PhantomData<&'a SharedMemory>,
}

// SAFETY: it is a reference into `SharedMemory`, which is `Send` and `Sync` itself.
unsafe impl Send for Place<'_> {}

impl Place<'_> {
    /// Where the bytes go. Valid for writes while the disk lives; others may read and write them too.
    #[inline]
    pub fn as_raw(&self) -> (*mut u8, usize) {
        (self.at, self.len)
    }

    /// Copies the first bytes in, when a part of the payload came with its header.
    pub fn copy_from(&self, start: usize, from: &[u8]) {
        assert!(start + from.len() <= self.len);
        // SAFETY: within the place; a Rust slice never lies in shared memory.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.at.add(start), from.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_discarded_pages_are_zero() {
        let m = SharedMemory::new(1 << 20).unwrap();
        m.write(4096, b"hello");
        let mut out = [0; 5];
        m.read(4096, &mut out);
        assert_eq!(&out, b"hello");
        assert!(!m.is_zero(0, 8192) && m.is_zero(0, 4096));
        let lent = m.lend(4096, 5);
        m.discard(4096, 4096).unwrap();
        lent.copy_to(&mut out);
        assert_eq!(out, [0; 5]);
    }

    #[test]
    fn lent_memory_outlives_its_disk() {
        let m = SharedMemory::new(4096).unwrap();
        m.place(0, 3).copy_from(0, b"abc");
        let lent = m.lend(0, 3);
        drop(m);
        let mut out = [0; 3];
        lent.copy_to(&mut out);
        assert_eq!(&out, b"abc");
    }
}
