//! Pooled, page-aligned buffers that clones share.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    cell::RefCell,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering::*, fence},
};

pub(crate) const PAGE: usize = 4096;
/// What a thread keeps for reuse at most, per size class: never more than it once had in use at the same time.
const CLASSES: [(usize, usize); 5] =
    [(PAGE, 64), (16 << 10, 32), (64 << 10, 32), (256 << 10, 64), (1 << 20, 4)];

/// The counter of a buffer; it lives in a box of its own, so that the pages stay whole.
struct Head {
    refs: AtomicU32,
    capacity: usize,
    base: NonNull<u8>,
}

/// A shared, read-only buffer. Its length is `capacity`; [`crate::Data`] knows which part counts.
pub(crate) struct Buf(NonNull<Head>);

// SAFETY: the head counts atomically, and the payload is written only while there is one owner (`BufMut`).
unsafe impl Send for Buf {}
// SAFETY: as above.
unsafe impl Sync for Buf {}

thread_local! {
    static FREE: RefCell<[Vec<Buf>; CLASSES.len()]> = const { RefCell::new([const { Vec::new() }; CLASSES.len()]) };
}

/// Gives the buffers back that this thread keeps for reuse: it may have nothing to do for a while.
pub fn release_idle_buffers() {
    // Taken out before they are dropped: each would come back.
    let kept = FREE.try_with(|free| free.borrow_mut().each_mut().map(std::mem::take));
    for buf in kept.into_iter().flatten().flatten() {
        buf.free();
    }
}

fn class_of(capacity: usize) -> Option<usize> {
    CLASSES.iter().position(|(size, _)| capacity <= *size)
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, PAGE).expect("buffers are far smaller than the address space")
}

impl Buf {
    #[inline]
    fn alloc(len: usize) -> Buf {
        match class_of(len) {
            Some(class) => FREE
                .try_with(|free| free.borrow_mut()[class].pop())
                .ok()
                .flatten()
                .unwrap_or_else(|| Buf::fresh(CLASSES[class].0)),
            None => Buf::fresh(len.next_multiple_of(PAGE)),
        }
    }

    #[cold]
    fn fresh(capacity: usize) -> Buf {
        let layout = layout(capacity);
        // SAFETY: the layout is not empty: `len` 0 falls into the first class.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        let head = Box::new(Head { refs: AtomicU32::new(1), capacity, base });
        Buf(NonNull::from(Box::leak(head)))
    }

    /// Gives the memory back. Only for the last owner.
    fn free(self) {
        let buf = std::mem::ManuallyDrop::new(self);
        debug_assert_eq!(buf.head().refs.load(Relaxed), 1);
        // SAFETY: this is the last owner; base and head were made by `fresh` with this layout.
        unsafe {
            dealloc(buf.head().base.as_ptr(), layout(buf.head().capacity));
            drop(Box::from_raw(buf.0.as_ptr()));
        }
    }

    fn head(&self) -> &Head {
        // SAFETY: the head lives until the last owner is dropped.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn as_slice(&self, start: usize, len: usize) -> &[u8] {
        assert!(start + len <= self.head().capacity);
        // SAFETY: inside the allocation, initialised when it was made; nobody writes while `Buf`s exist.
        unsafe { std::slice::from_raw_parts(self.head().base.as_ptr().add(start), len) }
    }
}

impl Clone for Buf {
    #[inline]
    fn clone(&self) -> Self {
        self.head().refs.fetch_add(1, Relaxed);
        Buf(self.0)
    }
}

impl Drop for Buf {
    #[inline]
    fn drop(&mut self) {
        let refs = &self.head().refs;
        // A single owner needs no read-modify-write: nobody else can raise the count.
        if refs.load(Acquire) != 1 {
            if refs.fetch_sub(1, Release) != 1 {
                return;
            }
            fence(Acquire);
            refs.store(1, Relaxed);
        }
        let capacity = self.head().capacity;
        if let Some(class) = class_of(capacity)
            && CLASSES[class].0 == capacity
        {
            let head = self.0;
            let kept = FREE
                .try_with(|free| {
                    let Ok(mut free) = free.try_borrow_mut() else { return false };
                    let keep = free[class].len() < CLASSES[class].1;
                    if keep {
                        free[class].push(Buf(head));
                    }
                    keep
                })
                .unwrap_or(false);
            if kept {
                return;
            }
        }
        Buf(self.0).free();
    }
}

/// A buffer with one owner, to be filled and then frozen into [`crate::Data`].
pub struct BufMut {
    buf: Buf,
    len: usize,
}

impl BufMut {
    /// A page-aligned buffer of `len` bytes. **What it holds is unspecified** (bytes of earlier requests): fill
    /// all of it. Debug builds fill it with 0xDE so that tests notice.
    #[inline]
    pub fn new(len: usize) -> BufMut {
        let mut buf = BufMut { buf: Buf::alloc(len), len };
        if cfg!(debug_assertions) {
            buf.fill(0xDE);
        }
        buf
    }

    /// As [`BufMut::new`], all zeroes.
    pub fn zeroed(len: usize) -> BufMut {
        let mut buf = BufMut { buf: Buf::alloc(len), len };
        buf.fill(0);
        buf
    }

    /// Drops all bytes from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn into_parts(self) -> (Buf, usize) {
        (self.buf, self.len)
    }
}

impl Deref for BufMut {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.buf.as_slice(0, self.len)
    }
}

impl DerefMut for BufMut {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` is within the capacity, and this is the only owner: `Buf`s leave only by value.
        unsafe { std::slice::from_raw_parts_mut(self.buf.head().base.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_used_again_and_freed_on_any_thread() {
        for len in [0, 1, PAGE, PAGE + 1, 1 << 20] {
            let mut buf = BufMut::new(len);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr().align_offset(PAGE), 0);
            buf.fill(7);
            let (shared, len) = buf.into_parts();
            let twin = shared.clone();
            std::thread::spawn(move || assert!(twin.as_slice(0, len).iter().all(|b| *b == 7)))
                .join()
                .unwrap();
            drop(shared);
        }
    }
}
