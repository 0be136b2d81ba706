//! Requests that wait for their answer.

use crate::{
    arguments::{Number, Words, bits},
    callback::Callback,
    handle::{Nbd, calls},
    memory::Lent,
};
use pyo3::{exceptions::PySystemError, prelude::*, types::PyByteArray};

/// A buffer to read into, of a size that can be read.
fn buffer<'py>(py: Python<'py>, count: i64) -> PyResult<Bound<'py, PyByteArray>> {
    // The kind of error that the peer's module raises.
    let size = usize::try_from(count)
        .map_err(|_| PySystemError::new_err(format!("count={count}: nothing is shorter than no bytes")))?;
    PyByteArray::new_with(py, size, |_| Ok(()))
}

#[pymethods]
impl Nbd {
    /// Read count bytes from offset on.
    #[pyo3(signature = (count, offset, flags=0))]
    fn pread<'py>(
        &self,
        py: Python<'py>,
        count: i64,
        offset: Number,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let bytes = buffer(py, count)?;
        let memory = Lent::zeroed(&bytes)?.boxed();
        self.with(py, "nbd_pread", |h| {
            let cookie = h.aio_pread(memory, offset.0, flags.into())?;
            h.wait(cookie)
        })?;
        Ok(bytes)
    }

    /// Read count bytes from offset on, and have chunk(bytes, offset, status, error) called with each part of the answer:
    /// READ_DATA, READ_HOLE or READ_ERROR.
    #[pyo3(signature = (count, offset, chunk, flags=0))]
    fn pread_structured<'py>(
        &self,
        py: Python<'py>,
        count: i64,
        offset: Number,
        chunk: Callback,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let bytes = buffer(py, count)?;
        let memory = Lent::zeroed(&bytes)?.boxed();
        self.with(py, "nbd_pread_structured", |h| {
            let cookie = h.aio_pread_structured(memory, offset.0, chunk.chunk(), flags.into())?;
            h.wait(cookie)
        })?;
        Ok(bytes)
    }

    /// Write a bytes-like object from offset on.
    #[pyo3(signature = (buf, offset, flags=0))]
    fn pwrite(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Number,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        let memory = Lent::readable(buf)?.boxed();
        self.with(py, "nbd_pwrite", |h| {
            let cookie = h.aio_pwrite(memory, offset.0, flags.into())?;
            h.wait(cookie)
        })
    }

    /// Read from offset on into a writable buffer, all of it, without a copy.
    #[pyo3(signature = (buf, offset, flags=0))]
    fn pread_into(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Number,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<()> {
        let memory = Lent::writable(buf)?.boxed();
        self.with(py, "nbd_pread_into", |h| {
            let cookie = h.aio_pread(memory, offset.0, flags.into())?;
            h.wait(cookie)
        })
    }
}

calls! {
    /// Make what was written permanent.
    #[pyo3(signature = (flags=0))]
    fn flush(h, #[pyo3(from_py_with = bits)] flags: u32) -> () {
        let cookie = h.aio_flush(flags.into())?;
        h.wait(cookie)
    }

    /// Forget count bytes from offset on: what they read as then is up to the server.
    #[pyo3(signature = (count, offset, flags=0))]
    fn trim(h, count: Number, offset: Number, #[pyo3(from_py_with = bits)] flags: u32) -> () {
        let cookie = h.aio_trim(count.0, offset.0, flags.into())?;
        h.wait(cookie)
    }

    /// Have the server make count bytes from offset on ready for reading.
    #[pyo3(signature = (count, offset, flags=0))]
    fn cache(h, count: Number, offset: Number, #[pyo3(from_py_with = bits)] flags: u32) -> () {
        let cookie = h.aio_cache(count.0, offset.0, flags.into())?;
        h.wait(cookie)
    }

    /// Make count bytes from offset on read as zeroes.
    #[pyo3(signature = (count, offset, flags=0))]
    fn zero(h, count: Number, offset: Number, #[pyo3(from_py_with = bits)] flags: u32) -> () {
        let cookie = h.aio_zero(count.0, offset.0, flags.into())?;
        h.wait(cookie)
    }

    /// Give the export another size, in bytes (a proposed extension, which `diskpipe serve --resize` has). Returns the size
    /// that it has now.
    fn resize(h, size: Number) -> u64 {
        let cookie = h.aio_resize(size.0, 0.into())?;
        h.wait(cookie)?;
        h.size()
    }

    /// Have extent(metacontext, offset, [length, status, length, status...], error) called with the extents of a range,
    /// once or more often for each metadata context. The server may tell of less, or of more, than was asked.
    #[pyo3(signature = (count, offset, extent, flags=0))]
    fn block_status(h, count: Number, offset: Number, extent: Callback, #[pyo3(from_py_with = bits)] flags: u32) -> () {
        let cookie = h.aio_block_status(count.0, offset.0, None, extent.extent(), flags.into())?;
        h.wait(cookie)
    }

    /// As block_status(), with a list of pairs of 64-bit numbers (length, status).
    #[pyo3(signature = (count, offset, extent64, flags=0))]
    fn block_status_64(h, count: Number, offset: Number, extent64: Callback, #[pyo3(from_py_with = bits)] flags: u32) -> () {
        let cookie = h.aio_block_status(count.0, offset.0, None, extent64.extent_64(), flags.into())?;
        h.wait(cookie)
    }

    /// As block_status_64(), for only some of the metadata contexts. The server must have can_block_status_payload().
    #[pyo3(signature = (count, offset, contexts, extent64, flags=0))]
    fn block_status_filter(
        h,
        count: Number,
        offset: Number,
        contexts: Words,
        extent64: Callback,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> () {
        let extent = extent64.extent_64();
        let cookie = h.aio_block_status(count.0, offset.0, Some(&contexts.0), extent, flags.into())?;
        h.wait(cookie)
    }

    /// End the connection in order, after everything in flight, or with SHUTDOWN_ABANDON_PENDING without it.
    #[pyo3(signature = (flags=0))]
    fn shutdown(h, #[pyo3(from_py_with = bits)] flags: u32) -> () { h.shutdown(flags) }
}
