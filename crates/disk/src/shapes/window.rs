//! A part of a disk as a disk: offset, partition, a file inside a tar.

use crate::{
    Blocks, Data, Disk, Error, Extents, Facts, Io, Range, Result, Status, WriteFlags, ZeroFlags,
    shared::Place,
};
use std::sync::Arc;

/// `size` bytes of a disk from byte `start` on.
pub struct Window {
    facts: Facts,
    start: u64,
    next: Arc<dyn Disk>,
}

impl Window {
    /// The part of `next`, as far as it is of whole minimum blocks.
    ///
    /// # Errors
    /// `EINVAL` when it does not lie on `next`.
    pub fn new(next: Arc<dyn Disk>, start: u64, size: u64) -> Result<Self> {
        let below = next.facts();
        if !Range::new(start, size).lies_within(below.size) {
            let disk = below.size;
            return Err(Error::invalid(format!(
                "{size} bytes at {start} lie outside a disk of {disk} bytes"
            )));
        }
        if !start.is_multiple_of(below.blocks.minimum.into()) {
            return Err(Error::invalid(format!(
                "the part begins at byte {start}, which is no multiple of the disk's minimum block size {}",
                below.blocks.minimum
            )));
        }
        // Of a block that is not whole nothing could be asked.
        let size = size - size % u64::from(below.blocks.minimum);
        // Requests that are aligned here must be aligned below.
        let mut preferred = below.blocks.preferred;
        while preferred > below.blocks.minimum.max(512) && !start.is_multiple_of(preferred.into()) {
            preferred /= 2;
        }
        let blocks = Blocks { preferred, ..below.blocks };
        Ok(Window { facts: Facts { size, blocks, ..below.clone() }, start, next })
    }

    #[inline]
    fn below(&self, r: Range) -> Range {
        Range::new(r.start + self.start, r.len)
    }
}

impl Disk for Window {
    crate::forward!(next: next, flush);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.next.read(self.below(r))
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        self.next.write(at + self.start, data, f)
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        self.next.zero(self.below(r), f)
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.next.trim(self.below(r), f)
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.next.cache(self.below(r))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.next.extents(self.below(r), limit)
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        self.next.status(context, self.below(r), limit)
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        self.next.place(self.below(r))
    }
    fn placed(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.next.placed(self.below(r), f)
    }
}
