//! The unsafe corner of TLS: OpenSSL reads and writes memory that somebody lends, without a copy of ours in between.

use crate::raw::{RawIoVec, Readable, Writable};
use foreign_types::ForeignTypeRef;
use openssl::ssl::SslRef;
use std::{ffi::c_int, marker::PhantomData};

/// The most that one record carries.
pub(super) const RECORD: usize = 16 << 10;

/// Where the next byte of a list of lent pieces stands.
pub(super) struct Cursor<'a, L> {
    pieces: &'a [RawIoVec],
    /// Within the first of them.
    at: usize,
    /// What was promised of them.
    lent: PhantomData<L>,
}

impl<'a> Cursor<'a, Writable<'a>> {
    pub(super) fn into(pieces: Writable<'a>) -> Self {
        Cursor { pieces: pieces.as_raw(), at: 0, lent: PhantomData }
    }

    /// Decrypts into what comes next, and returns how much; or, where that was nothing, what OpenSSL returned.
    pub(super) fn read_from(&mut self, ssl: &SslRef) -> Result<usize, c_int> {
        let Some((ptr, len)) = self.here() else { return Ok(0) };
        let len = len.min(c_int::MAX as usize) as c_int;
        // SAFETY: the pointer and length are within a piece, which is writable as was promised; OpenSSL's object is alive,
        // and only this thread uses it.
        let n = unsafe { openssl_sys::SSL_read(ssl.as_ptr(), ptr.cast(), len) };
        self.at += n.max(0) as usize;
        usize::try_from(n).ok().filter(|n| *n > 0).ok_or(n)
    }
}

impl<'a> Cursor<'a, Readable<'a>> {
    pub(super) fn out_of(pieces: Readable<'a>) -> Self {
        Cursor { pieces: pieces.as_raw(), at: 0, lent: PhantomData }
    }

    /// Encrypts about `most` bytes, and returns how many. Short pieces are put together in `staging`, so that a header shares a
    /// record with its payload; from long ones OpenSSL takes the bytes itself. (They may change meanwhile, where a disk lends
    /// them: OpenSSL copies before it encrypts.)
    pub(super) fn write_to(
        &mut self,
        ssl: &SslRef,
        staging: &mut Vec<u8>,
        most: usize,
    ) -> Result<usize, c_int> {
        let mut taken = 0;
        forget_errors();
        staging.clear();
        while taken < most
            && let Some((ptr, len)) = self.here()
        {
            let step = if staging.is_empty() && len >= RECORD {
                let step = len.min((most - taken).max(RECORD)) / RECORD * RECORD;
                // SAFETY: `step` bytes are within the piece, which is readable as was promised.
                unsafe { write(ssl, ptr, step)? };
                step
            } else {
                let step = len.min(RECORD - staging.len());
                staging.reserve_exact(RECORD - staging.len());
                // SAFETY: as above, and there is room for `step` more bytes.
                unsafe {
                    let end = staging.as_mut_ptr().add(staging.len());
                    std::ptr::copy_nonoverlapping(ptr.cast_const(), end, step);
                    staging.set_len(staging.len() + step);
                }
                if staging.len() == RECORD {
                    // SAFETY: the buffer is ours.
                    unsafe { write(ssl, staging.as_ptr(), RECORD)? };
                    staging.clear();
                }
                step
            };
            self.at += step;
            taken += step;
        }
        if !staging.is_empty() {
            // SAFETY: the buffer is ours.
            unsafe { write(ssl, staging.as_ptr(), staging.len())? };
        }
        Ok(taken)
    }

    /// Passes over up to `count` bytes, and returns how many there were.
    pub(super) fn skip(&mut self, count: usize) -> usize {
        let mut left = count;
        while left > 0
            && let Some((_, len)) = self.here()
        {
            let step = len.min(left);
            self.at += step;
            left -= step;
        }
        count - left
    }
}

impl<L> Cursor<'_, L> {
    /// What is left of the first piece that has anything left.
    fn here(&mut self) -> Option<(*mut u8, usize)> {
        while let Some(first) = self.pieces.first() {
            if self.at < first.len {
                return Some((first.ptr.wrapping_add(self.at), first.len - self.at));
            }
            self.pieces = &self.pieces[1..];
            self.at = 0;
        }
        None
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.here().is_none()
    }
}

/// Encrypts all of it: the memory behind takes any amount.
///
/// # Safety
/// `len` bytes from `ptr` on are readable.
unsafe fn write(ssl: &SslRef, ptr: *const u8, len: usize) -> Result<(), c_int> {
    let wanted = len.min(c_int::MAX as usize) as c_int;
    // SAFETY: the caller's promise; OpenSSL's object is alive, and only this thread uses it.
    let n = unsafe { openssl_sys::SSL_write(ssl.as_ptr(), ptr.cast(), wanted) };
    if n == wanted { Ok(()) } else { Err(n) }
}

/// Forgets what went wrong before: needed once before calls of which [`outcome`] is asked.
pub(super) fn forget_errors() {
    // SAFETY: only touches this thread's list.
    unsafe { openssl_sys::ERR_clear_error() };
}

/// What kind of an outcome a call that returned `n` had: an `SSL_ERROR_...`.
pub(super) fn outcome(ssl: &SslRef, n: c_int) -> c_int {
    // SAFETY: OpenSSL's object is alive, and only this thread uses it.
    unsafe { openssl_sys::SSL_get_error(ssl.as_ptr(), n) }
}

unsafe extern "C" {
    /// Of OpenSSL 1.1.1 and later, but not in its bindings.
    fn SSL_free_buffers(ssl: *mut openssl_sys::SSL) -> c_int;
}

/// Frees the buffers of OpenSSL's object that are empty. It makes new ones when it needs them.
pub(super) fn release_buffers(ssl: &SslRef) {
    // SAFETY: OpenSSL's object is alive, and only this thread uses it.
    unsafe { SSL_free_buffers(ssl.as_ptr()) };
}

/// Ends our direction: the alert that says so is written.
pub(super) fn close(ssl: &SslRef) {
    // SAFETY: OpenSSL's object is alive, and only this thread uses it.
    unsafe {
        openssl_sys::ERR_clear_error();
        openssl_sys::SSL_shutdown(ssl.as_ptr());
        openssl_sys::ERR_clear_error();
    }
}
