//! Requests that do not wait, and pumping. Each returns a cookie; completion(error), if given, is called at its end.

use crate::{
    arguments::{Number, Words, bits},
    callback::{Callback, completion},
    handle::{Nbd, calls},
    memory::{Lent, borrow_descriptor},
};
use client::handle::{AioFlags, State};
use pyo3::prelude::*;

fn how(flags: u32, callback: Option<Callback>) -> AioFlags {
    AioFlags { flags, completion: completion(callback) }
}

#[pymethods]
impl Nbd {
    /// Begin to read into a buffer, all of it, from offset on.
    #[pyo3(signature = (buf, offset, completion=None, flags=0))]
    fn aio_pread(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Number,
        completion: Option<Callback>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let memory = Lent::writable(buf)?.boxed();
        self.with(py, "nbd_aio_pread", |h| h.aio_pread(memory, offset.0, how(flags, completion)))
    }

    /// Begin as pread_structured(), into a buffer.
    #[pyo3(signature = (buf, offset, chunk, completion=None, flags=0))]
    fn aio_pread_structured(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Number,
        chunk: Callback,
        completion: Option<Callback>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let memory = Lent::writable(buf)?.boxed();
        self.with(py, "nbd_aio_pread_structured", |h| {
            h.aio_pread_structured(memory, offset.0, chunk.chunk(), how(flags, completion))
        })
    }

    /// Begin to write a buffer from offset on. It must not change until the request is complete.
    #[pyo3(signature = (buf, offset, completion=None, flags=0))]
    fn aio_pwrite(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: Number,
        completion: Option<Callback>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> PyResult<u64> {
        let memory = Lent::readable(buf)?.boxed();
        self.with(py, "nbd_aio_pwrite", |h| h.aio_pwrite(memory, offset.0, how(flags, completion)))
    }

    /// Whether nothing is connected yet.
    fn aio_is_created(&self) -> bool {
        self.state() == State::Created
    }

    /// Whether the handle is on the way to a server, or waits for its word in the handshake.
    fn aio_is_connecting(&self) -> bool {
        self.state() == State::Connecting
    }

    /// Whether options can be asked.
    fn aio_is_negotiating(&self) -> bool {
        self.state() == State::Negotiating
    }

    /// Whether the handle is connected and in the middle of nothing.
    fn aio_is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Whether the handle is in the middle of a request or of a reply.
    fn aio_is_processing(&self) -> bool {
        self.state() == State::Processing
    }

    /// Whether the connection has ended by an error.
    fn aio_is_dead(&self) -> bool {
        self.state() == State::Dead
    }

    /// Whether the connection has ended in order.
    fn aio_is_closed(&self) -> bool {
        self.state() == State::Closed
    }
}

calls! {
    /// Begin flush().
    #[pyo3(signature = (completion=None, flags=0))]
    fn aio_flush(h, completion: Option<Callback>, #[pyo3(from_py_with = bits)] flags: u32) -> u64 { h.aio_flush(how(flags, completion)) }

    /// Begin trim().
    #[pyo3(signature = (count, offset, completion=None, flags=0))]
    fn aio_trim(h, count: Number, offset: Number, completion: Option<Callback>, #[pyo3(from_py_with = bits)] flags: u32) -> u64 {
        h.aio_trim(count.0, offset.0, how(flags, completion))
    }

    /// Begin cache().
    #[pyo3(signature = (count, offset, completion=None, flags=0))]
    fn aio_cache(h, count: Number, offset: Number, completion: Option<Callback>, #[pyo3(from_py_with = bits)] flags: u32) -> u64 {
        h.aio_cache(count.0, offset.0, how(flags, completion))
    }

    /// Begin zero().
    #[pyo3(signature = (count, offset, completion=None, flags=0))]
    fn aio_zero(h, count: Number, offset: Number, completion: Option<Callback>, #[pyo3(from_py_with = bits)] flags: u32) -> u64 {
        h.aio_zero(count.0, offset.0, how(flags, completion))
    }

    /// Begin resize(); the size is that of get_size() afterwards.
    #[pyo3(signature = (size, completion=None))]
    fn aio_resize(h, size: Number, completion: Option<Callback>) -> u64 {
        h.aio_resize(size.0, how(0, completion))
    }

    /// Begin block_status().
    #[pyo3(signature = (count, offset, extent, completion=None, flags=0))]
    fn aio_block_status(
        h,
        count: Number,
        offset: Number,
        extent: Callback,
        completion: Option<Callback>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> u64 {
        h.aio_block_status(count.0, offset.0, None, extent.extent(), how(flags, completion))
    }

    /// Begin block_status_64().
    #[pyo3(signature = (count, offset, extent64, completion=None, flags=0))]
    fn aio_block_status_64(
        h,
        count: Number,
        offset: Number,
        extent64: Callback,
        completion: Option<Callback>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> u64 {
        h.aio_block_status(count.0, offset.0, None, extent64.extent_64(), how(flags, completion))
    }

    /// Begin block_status_filter().
    #[pyo3(signature = (count, offset, contexts, extent64, completion=None, flags=0))]
    fn aio_block_status_filter(
        h,
        count: Number,
        offset: Number,
        contexts: Words,
        extent64: Callback,
        completion: Option<Callback>,
        #[pyo3(from_py_with = bits)] flags: u32,
    ) -> u64 {
        let extent = extent64.extent_64();
        h.aio_block_status(count.0, offset.0, Some(&contexts.0), extent, how(flags, completion))
    }

    /// Begin to end the connection; aio_is_closed() or aio_is_dead() tells when it has.
    #[pyo3(signature = (flags=0))]
    fn aio_disconnect(h, #[pyo3(from_py_with = bits)] flags: u32) -> () { h.aio_disconnect(flags) }

    /// Whether a request is complete, by its cookie; then it is retired. A failed one raises its error.
    fn aio_command_completed(h, cookie: Number) -> bool {
        // No request ever has a higher one.
        i64::try_from(cookie.0).map_or(Ok(false), |cookie| h.command_completed(cookie))
    }

    /// The cookie of a request that is complete and not retired; 0 if none is, but some are in flight.
    fn aio_peek_command_completed(h) -> u64 { h.peek_completed() }

    /// How many requests are in flight.
    fn aio_in_flight(h) -> usize { h.in_flight() }

    /// The descriptor to wait for.
    fn aio_get_fd(h) -> i32 { h.fd() }

    /// What to wait for: AIO_DIRECTION_READ, AIO_DIRECTION_WRITE, both, or nothing (0).
    fn aio_get_direction(h) -> u32 {
        let (read, write) = h.direction();
        Ok(u32::from(read) | u32::from(write) << 1)
    }

    /// Go on: the descriptor can be read from.
    fn aio_notify_read(h) -> () { h.notify_read() }

    /// Go on: the descriptor can be written to.
    fn aio_notify_write(h) -> () { h.notify_write() }

    /// Wait for the server at most timeout milliseconds, forever if negative, and go on. 0: the time is over, 1: something
    /// was done.
    fn poll(h, timeout: i32) -> i32 { h.poll(timeout).map(i32::from) }

    /// As poll(), and wait for another descriptor to be readable; 2: only that one is.
    fn poll2(h, fd: i32, timeout: i32) -> i32 { h.poll_with(borrow_descriptor(fd), timeout) }
}
