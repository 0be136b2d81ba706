//! What every writable disk offers, though its plugin need not: zeroing (by writing zeroes) and FUA (by flushing).
//!
//! As in nbdkit, plugins below this layer write only what they can do better. A fast zero that only writing could
//! do fails with `ENOTSUP`, so fast zeroing can be offered truthfully.

use crate::{
    Backend, Client, Data, Disk, Errno, Error, Facts, Io, Range, WriteFlags, ZeroFlags, backend::Export,
};
use std::sync::Arc;

/// The most zeroes written at once.
const WRITE_AT_ONCE: u64 = 32 << 20;

/// The backend of a plugin, with its disks completed.
pub struct Complete<B: ?Sized>(Arc<B>);

impl<B: Backend> Complete<B> {
    /// Completes the disks of `plugin`.
    pub fn new(plugin: B) -> Self {
        Complete(Arc::new(plugin))
    }
}

impl<B: Backend + ?Sized> Backend for Complete<B> {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.0.open(client).map(|disk| Ok(complete(disk)))
    }
    fn exports<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Vec<Export>> {
        self.0.exports(client)
    }
    fn thread_model(&self) -> crate::ThreadModel {
        self.0.thread_model()
    }
    fn default_export<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Option<String>> {
        self.0.default_export(client)
    }
    fn hosted(&self, end: &crate::Wish) {
        self.0.hosted(end);
    }
    fn get_ready(&self) -> crate::Result<()> {
        self.0.get_ready()
    }
    fn after_fork(&self) -> crate::Result<()> {
        self.0.after_fork()
    }
    fn preconnect<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, ()> {
        self.0.preconnect(client)
    }
    fn disconnected(&self, connection: u64) {
        self.0.disconnected(connection);
    }
    fn finish(&self) {
        self.0.finish();
    }
}

/// The backend with its disks completed, as the registry does for plugins.
pub fn backend(plugin: Arc<dyn Backend>) -> Arc<dyn Backend> {
    Arc::new(Complete(plugin))
}

/// `disk` itself where nothing is missing, else a layer that adds zeroing and FUA.
pub fn complete(disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
    let below = disk.facts();
    let fua = below.fua || (below.write && below.flush);
    if !below.write || (below.zero && below.fast_zero && below.fua == fua) {
        return disk;
    }
    let facts = Facts { zero: true, fast_zero: true, fua, ..below.clone() };
    Arc::new(Completed { facts, next: disk })
}

/// Zeroes a range of `disk` by writing zeroes, as many at once as it takes.
pub fn zero_by_writing(disk: &dyn Disk, range: Range, flags: WriteFlags) -> Io<'_, ()> {
    let step = WRITE_AT_ONCE.min(disk.facts().blocks.maximum.into());
    if range.len <= step {
        return disk.write(range.start, Data::zeroes(range.len), flags);
    }
    Io::later(async move {
        for part in range.split_at_multiples(step) {
            disk.write(part.start, Data::zeroes(part.len), flags).await?;
        }
        Ok(())
    })
}

struct Completed {
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl Completed {
    /// `io`, and then a flush where the disk below has no FUA of its own.
    fn stable<'a>(&'a self, io: Io<'a, ()>, fua: bool) -> Io<'a, ()> {
        if fua && !self.next.facts().fua { io.and_then(|()| self.next.flush()) } else { io }
    }

    /// Whether the layer below is asked for FUA.
    fn below(&self, fua: bool) -> bool {
        fua && self.next.facts().fua
    }

    /// Zeroes the range by writing, and makes that stable where it must be.
    fn written(&self, range: Range, fua: bool) -> Io<'_, ()> {
        let io = zero_by_writing(&*self.next, range, WriteFlags::default());
        if fua { io.and_then(|()| self.next.flush()) } else { io }
    }

    /// The plugin offers zeroing but cannot zero this range after all.
    fn zero_failed(&self, e: Error, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if e.errno() == Errno::NOTSUP && !flags.fast { self.written(range, flags.fua) } else { e.into() }
    }
}

impl Disk for Completed {
    crate::forward!(next: next, read, flush, cache, extents, status, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let below = WriteFlags { fua: self.below(flags.fua) };
        self.stable(self.next.write(at, data, below), flags.fua)
    }
    fn place(&self, range: Range) -> Option<crate::shared::Place<'_>> {
        self.next.place(range)
    }
    fn placed(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        let below = WriteFlags { fua: self.below(flags.fua) };
        self.stable(self.next.placed(range, below), flags.fua)
    }
    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        let below = WriteFlags { fua: self.below(flags.fua) };
        self.stable(self.next.trim(range, below), flags.fua)
    }
    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let native = self.next.facts();
        if !native.zero || (flags.fast && !native.fast_zero) {
            if flags.fast {
                return Error::new(Errno::NOTSUP, "zeroing would be no faster than writing").into();
            }
            return self.written(range, flags.fua);
        }
        let below = ZeroFlags { fua: self.below(flags.fua), ..flags };
        match self.next.zero(range, below) {
            Io::Ready(Ok(())) => self.stable(Io::ok(()), flags.fua),
            Io::Ready(Err(e)) => self.zero_failed(e, range, flags),
            later => Io::later(async move {
                match later.await {
                    Ok(()) => self.stable(Io::ok(()), flags.fua).await,
                    Err(e) => self.zero_failed(e, range, flags).await,
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk of 8 bytes that can only be written and flushed, and counts its flushes.
    struct Plain(Facts, Mutex<([u8; 8], u32)>);
    impl Disk for Plain {
        fn facts(&self) -> &Facts {
            &self.0
        }
        fn read(&self, range: Range) -> Io<'_, Data> {
            let bytes = self.1.lock().unwrap().0;
            Io::ok(Data::copy_from(&bytes[range.start as usize..range.end() as usize]))
        }
        fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
            assert!(!flags.fua, "not offered");
            data.copy_to(&mut self.1.lock().unwrap().0[at as usize..(at + data.len()) as usize]);
            Io::ok(())
        }
        fn flush(&self) -> Io<'_, ()> {
            self.1.lock().unwrap().1 += 1;
            Io::ok(())
        }
    }

    #[test]
    fn a_plain_disk_gains_zero_and_fua() {
        let plain = Arc::new(Plain(Facts::writable(8), Mutex::new(([9; 8], 0))));
        let disk = complete(plain.clone());
        assert!(disk.facts().zero && disk.facts().fast_zero && disk.facts().fua);
        let zero = ZeroFlags { fua: true, ..Default::default() };
        disk.zero(Range::new(2, 3), zero).wait().unwrap();
        assert_eq!(*plain.1.lock().unwrap(), ([9, 9, 0, 0, 0, 9, 9, 9], 1));
        disk.write(0, Data::copy_from(b"a"), WriteFlags { fua: true }).wait().unwrap();
        assert_eq!(plain.1.lock().unwrap().1, 2);
        let fast = ZeroFlags { fast: true, ..Default::default() };
        assert_eq!(disk.zero(Range::new(0, 1), fast).wait().unwrap_err().errno(), Errno::NOTSUP);
    }
}
