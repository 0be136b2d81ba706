//! In place of `uring.rs` in programs that are built without rings: the pool does the work.

use disk::{BufMut, Data, Errno, Result};
use std::os::fd::BorrowedFd;

/// There is none.
pub(super) enum Ring {}

impl Ring {
    /// # Errors
    /// Always.
    pub(super) fn over(_: BorrowedFd<'_>) -> Result<Ring> {
        Err(Errno::NOTSUP.into())
    }

    pub(super) async fn read(&self, _: u64, _: usize) -> Result<BufMut> {
        match *self {}
    }

    pub(super) async fn write(&self, _: u64, _: Data, _: bool) -> Result<()> {
        match *self {}
    }

    pub(super) async fn settled(&self) {
        match *self {}
    }
}
