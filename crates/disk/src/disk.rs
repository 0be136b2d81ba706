//! A disk somebody opened: its facts and its requests.

use crate::{
    Data, Io, Range,
    error::{Errno, Error},
    extents::{Extents, Status},
    resize::Resizing,
    shared::Place,
};
use std::sync::Arc;

/// The block sizes of a disk, in bytes, as NBD's block size constraints define them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Requests must be multiples of this, offset and length: a power of 2 from 1 to 64 KiB.
    pub minimum: u32,
    /// Requests are fast when they are multiples of this: a power of 2, at least 512 (and `minimum`).
    pub preferred: u32,
    /// The largest read or write: a multiple of `minimum`, or `u32::MAX` for no limit but the protocol's.
    pub maximum: u32,
}

impl Default for Blocks {
    fn default() -> Self {
        Blocks { minimum: 1, preferred: 4096, maximum: u32::MAX }
    }
}

/// What an opened disk is and can do; fixed until it is closed (but see [`Disk::resizing`] of its size).
///
/// A filter adjusts a copy: `Facts { size, ..next.facts().clone() }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// In bytes, at most 2^63-1. Where it changes ([`Disk::resizing`]) this is what it was when the disk was opened.
    pub size: u64,
    /// How requests should be cut.
    pub blocks: Blocks,
    /// What clients are told instead of `blocks`, where requests that do not keep to it are taken all the same.
    pub told_blocks: Option<Blocks>,
    /// Whether it can be written at all. Without it `flush`, `trim`, `zero` and `fua` are of no use.
    pub write: bool,
    /// `flush` works.
    pub flush: bool,
    /// Writes, zeroes and trims honour `fua`: they are stable when they are answered.
    pub fua: bool,
    /// `trim` works.
    pub trim: bool,
    /// `zero` works.
    pub zero: bool,
    /// `zero` honours `fast`: it fails with `ENOTSUP` at once where it would be no faster than writing.
    pub fast_zero: bool,
    /// `cache` works.
    pub cache: bool,
    /// `extents` works; without it everything counts as data.
    pub extents: bool,
    /// What one connection wrote and flushed, others read: many connections may share the disk.
    pub multi_conn: bool,
    /// A spinning medium: long sequential requests are better.
    pub rotational: bool,
    /// The metadata contexts, other than `base:allocation`, that `status` answers for.
    pub contexts: Arc<[Box<str>]>,
    /// Tells this content from any other, as far as its source can: its time of change, its tag. Two disks of the
    /// same words have the same content, as far as is known; of different words, not.
    pub identity: Option<Arc<str>>,
    /// For people.
    pub description: Option<Arc<str>>,
    /// The export's canonical name, where it is another than the one asked for.
    pub name: Option<Arc<str>>,
}

impl Facts {
    /// A disk of `size` bytes that can be read by many.
    pub fn read_only(size: u64) -> Facts {
        Facts { size, multi_conn: true, ..Facts::default() }
    }

    /// A disk of `size` bytes that can be read and written by many, and flushed.
    pub fn writable(size: u64) -> Facts {
        Facts { size, write: true, flush: true, multi_conn: true, ..Facts::default() }
    }

    /// A disk of `size` bytes that does all there is: it zeroes fast, trims, caches, describes itself and honours `fua`.
    pub fn capable(size: u64) -> Facts {
        Facts {
            fua: true,
            trim: true,
            zero: true,
            fast_zero: true,
            cache: true,
            extents: true,
            ..Facts::writable(size)
        }
    }

    /// The same disk for reading only.
    pub fn without_write(self) -> Facts {
        Facts { write: false, flush: false, fua: false, trim: false, zero: false, fast_zero: false, ..self }
    }

    /// Everything on it.
    pub fn whole(&self) -> Range {
        Range::new(0, self.size)
    }
}

/// How to write or trim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteFlags {
    /// Stable when it is answered.
    pub fua: bool,
}

/// How to zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroFlags {
    /// Stable when it is answered.
    pub fua: bool,
    /// May leave a hole (the opposite of NBD's NO_HOLE).
    pub may_trim: bool,
    /// Fail with `ENOTSUP` rather than be slow.
    pub fast: bool,
}

/// An opened disk.
///
/// Requests lie within `facts().size` (or the present size, where [`Disk::resizing`] tells one) and use only what `facts()` offers; neither is empty. Whoever calls sees to
/// that (the server checks what clients send; in debug builds [`crate::checked`] checks every layer). Many requests
/// may be under way at once, and may be answered in any order. `flush` makes all writes stable that were answered
/// before it was asked.
///
/// Dropping the [`Io`] of a request abandons its answer, not its effect. A write, zero or trim that was dropped may come
/// about or not, in part or whole, and at any time, also over a later write to the same place; but no later than a `flush`
/// or `close` that is asked for afterwards has ended, which waits for it. What was answered, also with an error, is over.
///
/// The defaults fail loudly. A filter that passes a request on unchanged says so in one line:
/// `disk::forward!(next: flush, extents);`
pub trait Disk: Send + Sync {
    /// What the disk is and can do.
    fn facts(&self) -> &Facts;

    /// Reads a range; the data has its length.
    fn read(&self, range: Range) -> Io<'_, Data>;

    /// Writes data from byte `at` on.
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let _ = (at, data, flags);
        unsupported("writing")
    }

    /// Makes a range read as zeroes.
    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let _ = (range, flags);
        unsupported("zeroing")
    }

    /// Says that a range is no longer needed; what it reads as afterwards is up to the disk.
    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        let _ = (range, flags);
        unsupported("trimming")
    }

    /// Makes stable what was written.
    fn flush(&self) -> Io<'_, ()> {
        unsupported("flushing")
    }

    /// Brings a range nearer, in expectation of reads.
    fn cache(&self, range: Range) -> Io<'_, ()> {
        let _ = range;
        unsupported("caching")
    }

    /// What a range holds, from its start on: at least one extent and, where that is cheap, not many more than
    /// `limit` (1 or more).
    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let _ = (range, limit);
        unsupported("extents")
    }

    /// What the metadata context with this index in `facts().contexts` says of a range: as `extents`, but the last
    /// one may go beyond the range.
    fn status(&self, context: usize, range: Range, limit: usize) -> Io<'_, Vec<Status>> {
        let _ = (context, range, limit);
        unsupported("metadata contexts")
    }

    /// A place into which the payload of a write may be received directly, `None` where there is none. After all
    /// of it has come, [`Disk::placed`] completes the write; when it does not come, the range holds old and new
    /// bytes, as after any write that was cut short.
    fn place(&self, range: Range) -> Option<Place<'_>> {
        let _ = range;
        None
    }

    /// The payload was received into the place of this range.
    fn placed(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        let _ = (range, flags);
        unsupported("placed writes")
    }

    /// In a disk whose size changes while it is open: its size as it is now. A filter passes this on only if it does
    /// not care how large the disk is; else it makes of it a disk of a fixed size, which is the default.
    fn resizing(&self) -> Option<&dyn Resizing> {
        None
    }

    /// The client is leaving in an orderly way: last chance for work that can wait or fail. Passed on by default.
    fn close(&self) -> Io<'_, ()> {
        self.next().map_or(Io::ok(()), Disk::close)
    }

    /// The disk below, in a filter that has one.
    fn next(&self) -> Option<&dyn Disk> {
        None
    }
}

fn unsupported<T>(what: &'static str) -> Io<'static, T> {
    Error::new(Errno::NOTSUP, format!("{what} is not supported by this disk")).into()
}

/// Names the requests that a filter passes on unchanged to its field: `forward!(next: facts, read, flush);`
///
/// Always name `next` (the layer itself) among them, so that `close` finds its way.
#[macro_export]
macro_rules! forward {
    ($field:ident: $($op:ident),+ $(,)?) => { $($crate::forward!(@$op $field);)+ };
    (@facts $f:ident) => { fn facts(&self) -> &$crate::Facts { self.$f.facts() } };
    (@next $f:ident) => { fn next(&self) -> Option<&dyn $crate::Disk> { Some(&*self.$f) } };
    (@read $f:ident) => {
        fn read(&self, range: $crate::Range) -> $crate::Io<'_, $crate::Data> { self.$f.read(range) }
    };
    (@write $f:ident) => {
        fn write(&self, at: u64, data: $crate::Data, flags: $crate::WriteFlags) -> $crate::Io<'_, ()> {
            self.$f.write(at, data, flags)
        }
        fn place(&self, range: $crate::Range) -> Option<$crate::shared::Place<'_>> { self.$f.place(range) }
        fn placed(&self, range: $crate::Range, flags: $crate::WriteFlags) -> $crate::Io<'_, ()> {
            self.$f.placed(range, flags)
        }
    };
    (@zero $f:ident) => {
        fn zero(&self, range: $crate::Range, flags: $crate::ZeroFlags) -> $crate::Io<'_, ()> {
            self.$f.zero(range, flags)
        }
    };
    (@trim $f:ident) => {
        fn trim(&self, range: $crate::Range, flags: $crate::WriteFlags) -> $crate::Io<'_, ()> {
            self.$f.trim(range, flags)
        }
    };
    (@flush $f:ident) => { fn flush(&self) -> $crate::Io<'_, ()> { self.$f.flush() } };
    (@cache $f:ident) => {
        fn cache(&self, range: $crate::Range) -> $crate::Io<'_, ()> { self.$f.cache(range) }
    };
    (@extents $f:ident) => {
        fn extents(&self, range: $crate::Range, limit: usize) -> $crate::Io<'_, $crate::Extents> {
            self.$f.extents(range, limit)
        }
    };
    (@resizing $f:ident) => {
        fn resizing(&self) -> Option<&dyn $crate::resize::Resizing> { self.$f.resizing() }
    };
    (@status $f:ident) => {
        fn status(&self, context: usize, range: $crate::Range, limit: usize) -> $crate::Io<'_, Vec<$crate::Status>> {
            self.$f.status(context, range, limit)
        }
    };
}
