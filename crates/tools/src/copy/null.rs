//! `null:`, the destination that forgets.

use disk::{Data, Disk, Facts, Io, Range, WriteFlags, ZeroFlags};

/// Takes everything, as large as a disk can be.
pub(crate) struct Null(Facts);

impl Null {
    pub(crate) fn new() -> Null {
        let size = i64::MAX as u64;
        Null(Facts { zero: true, fua: true, trim: true, ..Facts::writable(size) })
    }
}

impl Disk for Null {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(Data::zeroes(range.len))
    }
    fn write(&self, _: u64, _: Data, _: WriteFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn zero(&self, _: Range, _: ZeroFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn trim(&self, _: Range, _: WriteFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
}
