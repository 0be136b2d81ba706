//! The unsafe corner: memory of Python objects that the handle fills or sends, without a copy.

use client::handle::Memory;
use pyo3::{
    buffer::PyUntypedBuffer,
    exceptions::{PyBufferError, PyOSError},
    prelude::*,
};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Memory lent by a Python object. As long as this lives, the object cannot change its size.
pub(crate) struct Lent {
    buffer: PyUntypedBuffer,
    writable: bool,
    /// Nobody has written to it yet.
    is_zero: bool,
}

impl Lent {
    /// Of a bytes-like object, or of an `nbd.Buffer`, which has one inside.
    pub(crate) fn readable(object: &Bound<'_, PyAny>) -> PyResult<Lent> {
        let inner = object.getattr("_o").ok();
        let buffer = PyUntypedBuffer::get(inner.as_ref().unwrap_or(object))?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the bytes of the buffer do not stand one after another"));
        }
        Ok(Lent { buffer, writable: false, is_zero: false })
    }

    /// As [`Lent::readable`], to be filled.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<Lent> {
        let lent = Lent::readable(object)?;
        if lent.buffer.readonly() {
            return Err(PyBufferError::new_err("the buffer is read-only"));
        }
        Ok(Lent { writable: true, ..lent })
    }

    /// As [`Lent::writable`], of an object that was just made, of zeroes.
    pub(crate) fn zeroed(object: &Bound<'_, PyAny>) -> PyResult<Lent> {
        Ok(Lent { is_zero: true, ..Lent::writable(object)? })
    }

    pub(crate) fn boxed(self) -> Box<dyn Memory> {
        Box::new(self)
    }
}

impl Memory for Lent {
    fn is_zero(&self) -> bool {
        self.is_zero
    }

    fn bytes(&self) -> &[u8] {
        let length = self.buffer.len_bytes();
        if length == 0 {
            return &[];
        }
        // SAFETY: the buffer protocol keeps `length` contiguous bytes alive until the buffer is released, which is when
        // `self` is dropped. That another thread of Python changes them meanwhile is its own doing, as with every extension
        // that reads without the interpreter's lock: bytes are any bytes, so no value can be broken by it.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast(), length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.buffer.len_bytes();
        if length == 0 || !self.writable {
            return &mut [];
        }
        // SAFETY: as above, and the exporter said that the memory may be written to.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.buf_ptr().cast(), length) }
    }
}

/// Takes over a descriptor by its number, as libnbd's callers expect.
pub(crate) fn take_descriptor(number: i32) -> PyResult<OwnedFd> {
    let bad = || PyOSError::new_err(());
    if number < 0 {
        return Err(bad());
    }
    // SAFETY: the borrow lasts for the call below, which fails harmlessly if the number is no open descriptor.
    let open = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(open).map_err(|_| bad())?;
    // SAFETY: it is open; the caller hands it over, and closes it no more.
    Ok(unsafe { OwnedFd::from_raw_fd(open.as_raw_fd()) })
}

/// Lends a descriptor of the caller for one call.
pub(crate) fn borrow_descriptor<'a>(number: i32) -> Option<BorrowedFd<'a>> {
    // SAFETY: the number is only polled, and the kernel says so if it is none that is open.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Whether bytes of a buffer are all zero: from `offset` on, `size` of them, or all if that is -1.
#[pyfunction]
#[pyo3(signature = (buffer, offset=0, size=-1))]
pub(crate) fn is_zero(buffer: &Bound<'_, PyAny>, offset: i64, size: i64) -> PyResult<bool> {
    let lent = Lent::readable(buffer)?;
    let bytes = lent.bytes();
    let first = usize::try_from(offset).ok().filter(|first| *first <= bytes.len());
    let end = match (first, usize::try_from(size)) {
        (Some(_), Err(_)) if size == -1 => Some(bytes.len()),
        (Some(first), Ok(size)) => first.checked_add(size).filter(|end| *end <= bytes.len()),
        _ => None,
    };
    match (first, end) {
        (Some(first), Some(end)) => Ok(bytes[first..end].iter().all(|byte| *byte == 0)),
        _ => Err(pyo3::exceptions::PyIndexError::new_err(format!(
            "{size} bytes from {offset} on are not all in a buffer of {}",
            bytes.len()
        ))),
    }
}
