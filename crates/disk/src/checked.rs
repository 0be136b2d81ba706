//! In debug builds, every boundary between layers checks the contract of [`Disk`]: ranges inside the disk and not
//! empty, only what the facts offer, data of the right length, extents that cover the request's start and no more.
//!
//! A violation is a defect of a layer, so it panics, with the layer's request in the message.

use crate::{
    Backend, Client, Data, Disk, Extents, Facts, Io, Range, Status, WriteFlags, ZeroFlags, backend::Export,
    resize::Resizing, shared::Place,
};
use std::sync::Arc;

/// `next` with all its disks checked, in debug builds; `next` itself in release builds.
pub fn backend(next: Arc<dyn Backend>) -> Arc<dyn Backend> {
    if cfg!(debug_assertions) { Arc::new(CheckedBackend(next)) } else { next }
}

struct CheckedBackend(Arc<dyn Backend>);

impl Backend for CheckedBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.0.open(client).map(|disk| Ok(Arc::new(Checked::new(disk)) as Arc<dyn Disk>))
    }
    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        self.0.exports(client)
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.0)
    }
}

/// A disk whose contract is checked, from above and from below.
pub struct Checked(Arc<dyn Disk>);

impl Checked {
    /// Checks the facts, and every request from now on.
    ///
    /// # Panics
    /// When the facts contradict themselves.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        let f = disk.facts();
        assert!(i64::try_from(f.size).is_ok(), "a disk of {} bytes", f.size);
        let b = f.blocks;
        assert!(b.minimum.is_power_of_two() && b.minimum <= 65536, "{b:?}");
        assert!(b.preferred.is_power_of_two() && b.preferred >= b.minimum.max(512), "{b:?}");
        assert!(b.maximum == u32::MAX || b.maximum.is_multiple_of(b.minimum), "{b:?}");
        assert!(!f.fast_zero || f.zero, "fast zero without zero");
        assert!(f.write || !(f.trim || f.zero || f.fua), "a read-only disk that changes: {f:?}");
        Checked(disk)
    }

    fn check(&self, what: &str, range: Range, offered: bool) {
        let f = self.0.facts();
        assert!(offered, "{what} was asked though the facts do not offer it: {f:?}");
        assert!(!range.is_empty(), "{what} of an empty range");
        let size = self.0.resizing().map_or(f.size, Resizing::size);
        assert!(range.lies_within(size), "{what} of {range} on a disk of {size} bytes");
        let minimum = u64::from(f.blocks.minimum);
        assert!(
            range.start.is_multiple_of(minimum) && range.len.is_multiple_of(minimum),
            "{what} of {range}, not aligned to {minimum}"
        );
    }

    fn check_limit(&self, what: &str, len: u64) {
        let maximum = self.0.facts().blocks.maximum;
        assert!(len <= maximum.into(), "{what} of {len} bytes, more than the disk's maximum {maximum}");
    }
}

impl Disk for Checked {
    fn facts(&self) -> &Facts {
        self.0.facts()
    }
    fn next(&self) -> Option<&dyn Disk> {
        Some(&*self.0)
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.check("read", r, true);
        self.check_limit("read", r.len);
        self.0.read(r).inspect(move |out| {
            if let Ok(data) = out {
                assert_eq!(data.len(), r.len, "a read of {r} returned another length");
            }
        })
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let f = self.0.facts();
        self.check("write", Range::new(at, data.len()), f.write && (f.fua || !flags.fua));
        self.check_limit("write", data.len());
        self.0.write(at, data, flags)
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let f = self.0.facts();
        self.check("zero", r, f.zero && (f.fua || !flags.fua) && (f.fast_zero || !flags.fast));
        self.0.zero(r, flags)
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        let f = self.0.facts();
        self.check("trim", r, f.trim && (f.fua || !flags.fua));
        self.0.trim(r, flags)
    }
    fn flush(&self) -> Io<'_, ()> {
        assert!(self.0.facts().flush, "flush was asked though the facts do not offer it");
        self.0.flush()
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.check("cache", r, self.0.facts().cache);
        self.0.cache(r)
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.check("extents", r, self.0.facts().extents);
        assert!(limit > 0, "no extent was asked for");
        self.0.extents(r, limit).inspect(move |out| {
            if let Ok(extents) = out {
                let covered = extents.covered();
                assert!(covered > 0 && covered <= r.len, "extents of {covered} bytes for {r}");
            }
        })
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        self.check("status", r, context < self.0.facts().contexts.len());
        assert!(limit > 0, "no status was asked for");
        self.0.status(context, r, limit).inspect(move |out| {
            if let Ok(list) = out {
                assert!(!list.is_empty() && list.iter().all(|s| s.len > 0), "an empty status for {r}");
            }
        })
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        self.check("place", r, self.0.facts().write);
        let place = self.0.place(r)?;
        assert_eq!(place.as_raw().1 as u64, r.len, "a place of another length for {r}");
        Some(place)
    }
    fn placed(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        let f = self.0.facts();
        self.check("placed write", r, f.write && (f.fua || !flags.fua));
        self.0.placed(r, flags)
    }
    fn resizing(&self) -> Option<&dyn Resizing> {
        self.0.resizing()
    }
}
