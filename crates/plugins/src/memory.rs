//! A RAM disk: one region of address space as the store, a map of what was written beside it.
//!
//! A disk that fits into the address space lies in its region byte for byte; a larger one keeps chunks of 32 MiB
//! there, each where the region was free when the chunk was first written. Memory is taken when it is written, and
//! given back when it is trimmed or zeroed. No request takes a lock. (Compressed memory is another matter: `packed.rs`.)

mod map;
mod order;
#[cfg(feature = "zstd")]
mod packed;
mod store;

use disk::{
    Backend, Client, Data, Disk, Errno, Error, Extents, Facts, Io, Plugin, Range, Result, WriteFlags, Writes,
    ZeroFlags, resize, shared::Place,
};
use params::{Kind, Params, Size, Value, Wrong};
use std::sync::Arc;
use store::Store;

/// Zeroing or trimming more than this at once may take milliseconds, so it is done on the pool.
const LONG: u64 = 256 << 20;

/// A disk in memory (RAM disk), initially all zeroes.
#[derive(Params)]
pub(crate) struct Memory {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
    /// Clients may change the size of the disk, up to this (with the server's option `--resize`).
    max_size: Option<Size>,
    /// How the memory is taken.
    #[param(default = "sparse")]
    allocator: Allocator,
}

/// How the memory of the disk is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allocator {
    Sparse,
    Malloc { mlock: bool },
    Zstd { hot: Option<Size> },
}

impl Value for Allocator {
    const KIND: Kind = Kind::Other("sparse|malloc[,mlock=BOOL]|zstd[,hot=SIZE]");

    fn from_text(text: &str) -> std::result::Result<Self, Wrong> {
        let (name, rest) = match text.split_once(',') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let (mut mlock, mut hot) = (false, None);
        for parameter in rest.into_iter().flat_map(|rest| rest.split(',')) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, "true"));
            let wrong = |wrong: Wrong| Wrong(format!("{key} is {}", wrong.0));
            match (name, key) {
                ("malloc", "mlock") => mlock = bool::from_text(value).map_err(wrong)?,
                ("zstd", "hot") => hot = Some(Size::from_text(value).map_err(wrong)?),
                _ => return Err(Wrong(format!("the {name} allocator has no parameter {key}"))),
            }
        }
        match name {
            "sparse" => Ok(Allocator::Sparse),
            "malloc" => Ok(Allocator::Malloc { mlock }),
            "zstd" => Ok(Allocator::Zstd { hot }),
            _ => Err("not one of sparse, malloc (with mlock=true) or zstd".into()),
        }
    }
}

impl Plugin for Memory {
    const NAME: &'static str = "memory";
    const MANUAL: &'static str = include_str!("memory.md");
    const DUMP: &'static [(&'static str, &'static str)] =
        &[("mlock", "yes"), ("zstd", if cfg!(feature = "zstd") { "yes" } else { "no" })];

    fn start(self) -> Result<impl Backend + 'static> {
        let size = match self.max_size {
            None => self.size.bytes(),
            Some(most) if most < self.size => {
                let why = format!("max-size={most}: less than size={}", self.size);
                return Err(Error::invalid(why));
            }
            Some(most) => most.bytes(),
        };
        let present = self.max_size.map(|_| resize::Size::new(self.size.bytes()));
        let (store, lock) = match self.allocator {
            Allocator::Sparse => (Store::sparse(size), false),
            Allocator::Malloc { mlock } => (Store::solid(size), mlock),
            Allocator::Zstd { hot } => {
                let store = compressed(size, hot)?;
                return Ok(MemoryBackend { store, present, lock: false });
            }
        };
        let store = store.map_err(|e| no_room(e, size))?;
        Ok(MemoryBackend { store: Kept::Plain(Arc::new(MemoryDisk::new(store))), present, lock })
    }
}

fn no_room(e: std::io::Error, size: u64) -> Error {
    Error::from(e).context(format!("size={size}: no room for the disk in memory"))
}

#[cfg(feature = "zstd")]
fn compressed(size: u64, hot: Option<Size>) -> Result<Kept> {
    let store = packed::Packed::new(size, hot.map(Size::bytes)).map_err(|e| no_room(e, size))?;
    let store = Arc::new(store);
    Ok(Kept::Packed(Arc::new(packed::PackedDisk::new(store.clone())), store))
}

#[cfg(not(feature = "zstd"))]
fn compressed(_: u64, _: Option<Size>) -> Result<Kept> {
    let why = "allocator=zstd: this program was built without the cargo feature zstd; use allocator=sparse";
    Err(Error::invalid(why))
}

/// The disk, as its allocator keeps it.
#[derive(Clone)]
enum Kept {
    Plain(Arc<MemoryDisk>),
    #[cfg(feature = "zstd")]
    Packed(Arc<packed::PackedDisk>, Arc<packed::Packed>),
}

impl Kept {
    fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Kept::Plain(disk) => disk.clone(),
            #[cfg(feature = "zstd")]
            Kept::Packed(disk, _) => disk.clone(),
        }
    }

    /// Makes a range zero, for good.
    fn cut(&self, range: Range) -> Result<()> {
        match self {
            Kept::Plain(disk) => disk.store.zero(range, true),
            #[cfg(feature = "zstd")]
            Kept::Packed(_, store) => store.zero(range)?,
        }
        Ok(())
    }
}

struct MemoryBackend {
    /// Of the largest size that it can have.
    store: Kept,
    /// The size that it has, where that can change.
    present: Option<Arc<resize::Size>>,
    lock: bool,
}

impl Backend for MemoryBackend {
    fn open<'a>(&'a self, _: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let Some(present) = &self.present else { return Io::ok(self.store.disk()) };
        let store = self.store.clone();
        let change = move |from: u64, to: u64| {
            let most = store.disk().facts().size;
            if to > most {
                let why = format!("the disk can have {most} bytes at most, not {to}");
                return Err(Error::new(Errno::NOSPC, why));
            }
            if to < from {
                // What is cut off must not come back when the disk grows again.
                store.cut(Range::new(to, from - to))?;
            }
            Ok(())
        };
        Io::ok(Arc::new(present.open(self.store.disk(), change)))
    }

    /// Locks belong to a process: those taken before the fork would be gone.
    fn after_fork(&self) -> Result<()> {
        match &self.store {
            Kept::Plain(disk) if self.lock => disk
                .store
                .lock()
                .map_err(|e| Error::from(e).context("allocator=malloc,mlock=true: locking memory")),
            Kept::Plain(_) => Ok(()),
            #[cfg(feature = "zstd")]
            Kept::Packed(_, store) => {
                store.start_cooling().map_err(|e| Error::from(e).context("allocator=zstd: starting a thread"))
            }
        }
    }
}

/// The disk that all clients share.
struct MemoryDisk {
    facts: Facts,
    store: Arc<Store>,
    writes: Arc<Writes>,
}

impl MemoryDisk {
    fn new(store: Store) -> Self {
        let facts = Facts::capable(store.size());
        MemoryDisk { facts, store: Arc::new(store), writes: Arc::default() }
    }

    fn zero_or_trim(&self, range: Range, may_trim: bool) -> Io<'_, ()> {
        if range.len <= LONG {
            self.store.zero(range, may_trim);
            return Io::ok(());
        }
        let (store, write) = (self.store.clone(), self.writes.begin());
        // The work begins here, so that dropping the `Io` does not undo it.
        let work = reactor::unblock(move || {
            store.zero(range, may_trim);
            drop(write);
        });
        Io::later(async move { Ok(work.await?) })
    }
}

impl Disk for MemoryDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    #[inline]
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(self.store.read(range))
    }
    #[inline]
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.store.write(at, &data).into()
    }
    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.zero_or_trim(range, flags.may_trim)
    }
    fn trim(&self, range: Range, _: WriteFlags) -> Io<'_, ()> {
        self.zero_or_trim(range, true)
    }
    fn flush(&self) -> Io<'_, ()> {
        self.writes.flush(|| Io::ok(()))
    }
    fn close(&self) -> Io<'_, ()> {
        self.writes.flush(|| Io::ok(()))
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        Io::ok(self.store.extents(range, limit))
    }
    fn place(&self, range: Range) -> Option<Place<'_>> {
        self.store.place(range)
    }
    fn placed(&self, range: Range, _: WriteFlags) -> Io<'_, ()> {
        self.store.placed(range);
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn allocators_are_spelled_as_in_nbdkit() {
        let parse = Allocator::from_text;
        assert_eq!(parse("sparse"), Ok(Allocator::Sparse));
        assert_eq!(parse("malloc"), Ok(Allocator::Malloc { mlock: false }));
        assert_eq!(parse("malloc,mlock"), Ok(Allocator::Malloc { mlock: true }));
        assert_eq!(parse("malloc,mlock=false"), Ok(Allocator::Malloc { mlock: false }));
        assert_eq!(parse("zstd"), Ok(Allocator::Zstd { hot: None }));
        assert_eq!(parse("zstd,hot=1M"), Ok(Allocator::Zstd { hot: Size::new(1 << 20) }));
        for wrong in
            ["", "foo", "sparse,mlock=true", "malloc,x=1", "malloc,mlock=maybe", "zstd,mlock", "zstd,hot=x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_flush_waits_for_zeroes_that_nobody_waits_for() {
        let disk = model::open::<Memory>(&[("size", "1G")]).unwrap();
        disk.write(1 << 29, Data::copy_from(b"data"), WriteFlags::default()).wait().unwrap();
        model::flush_waits_for(&*disk, || disk.trim(disk.facts().whole(), WriteFlags::default()));
        assert_eq!(model::bytes(&*disk, 1 << 29, 4), [0; 4]);
    }

    #[test]
    fn random_requests_leave_what_a_vector_would_hold() {
        for (size, allocator) in [("10000000", "sparse"), ("33554433", "malloc"), ("1", "sparse")] {
            let disk = model::open::<Memory>(&[("size", size), ("allocator", allocator)]).unwrap();
            model::compare(&*disk, 1, 1500);
        }
    }

    #[test]
    fn a_disk_larger_than_the_address_space_is_the_same_where_it_is_used() {
        let disk = model::open::<Memory>(&[("size", "7E")]).unwrap();
        // The borders of its chunks are everywhere, so any place will do.
        let window = disk::Window::new(disk, (5 << 60) + 12345, 50 << 20).unwrap();
        model::compare(&window, 2, 1500);
    }

    #[test]
    fn writers_and_trimmers_of_neighbouring_bytes_lose_nothing() {
        const BLOCK: u64 = 4096;
        let disk = model::open::<Memory>(&[("size", "1M")]).unwrap();
        std::thread::scope(|scope| {
            for mine in 0..4u64 {
                let disk = &disk;
                scope.spawn(move || {
                    let mut dice = model::Dice(mine);
                    let mut last = [None; 64];
                    for round in 0..4000u64 {
                        let nth = dice.below(64);
                        let r = Range::new((nth * 4 + mine) * BLOCK, BLOCK);
                        if let Some(expected) = last[nth as usize] {
                            let got = disk.read(r).wait().unwrap().to_vec();
                            assert!(got == [expected; BLOCK as usize], "thread {mine}, round {round}");
                        }
                        let value = (1 + round % 255) as u8;
                        last[nth as usize] = match dice.below(3) {
                            0 => {
                                disk.trim(r, WriteFlags::default()).wait().unwrap();
                                Some(0)
                            }
                            _ => {
                                let data = Data::fill(BLOCK as usize, |b| b.fill(value));
                                disk.write(r.start, data, WriteFlags::default()).wait().unwrap();
                                Some(value)
                            }
                        };
                    }
                });
            }
        });
    }

    #[test]
    fn a_granule_torn_between_writing_and_discarding_never_comes_back_later() {
        let disk = model::open::<Memory>(&[("size", "64K")]).unwrap();
        for round in 0..300 {
            let whole = Range::new(0, 32 << 10);
            std::thread::scope(|scope| {
                let data = Data::fill(whole.len as usize, |b| b.fill(7));
                let disk = &disk;
                scope.spawn(move || disk.write(0, data, WriteFlags::default()).wait().unwrap());
                scope.spawn(move || disk.trim(whole, WriteFlags::default()).wait().unwrap());
            });
            let before = model::bytes(&*disk, 0, whole.len);
            disk.write(whole.len - 1, Data::copy_from(&before[before.len() - 1..]), WriteFlags::default())
                .wait()
                .unwrap();
            assert!(model::bytes(&*disk, 0, whole.len) == before, "round {round}");
        }
    }

    #[test]
    fn trimming_gives_back_what_was_taken_and_extents_say_so() {
        let disk = model::open::<Memory>(&[("size", "1G")]).unwrap();
        let data = Data::fill(1 << 20, |b| b.fill(1));
        disk.write(100 << 20, data, WriteFlags::default()).wait().unwrap();
        let map = |disk: &dyn Disk| {
            let extents = disk.extents(disk.facts().whole(), 100).wait().unwrap();
            extents.iter().map(|e| (e.len >> 10, e.kind.hole)).collect::<Vec<_>>()
        };
        assert_eq!(map(&*disk), [(100 << 10, true), (1 << 10, false), (923 << 10, true)]);
        disk.trim(Range::new(100 << 20, 512 << 10), WriteFlags::default()).wait().unwrap();
        assert_eq!(map(&*disk)[0], ((100 << 10) + 512, true));
        let keep = ZeroFlags { may_trim: false, ..Default::default() };
        disk.zero(Range::new(100 << 20, 1 << 20), keep).wait().unwrap();
        assert_eq!(map(&*disk)[1], (512, false));
        assert!(disk.read(Range::new(100 << 20, 1 << 20)).wait().unwrap().is_zero());
    }

    #[test]
    fn what_is_cut_off_does_not_come_back_when_the_disk_grows_again() {
        let disk = model::open::<Memory>(&[("size", "1K"), ("max-size", "4K")]).unwrap();
        let resizing = disk.resizing().unwrap();
        let resize = |size| resizing.resize(size).wait().map_err(|e| e.to_string());
        assert_eq!((disk.facts().size, resize(4096)), (1024, Ok(4096)));
        disk.write(1000, Data::copy_from(&[7; 3000]), WriteFlags::default()).wait().unwrap();
        assert_eq!((resize(1024), resize(4096)), (Ok(1024), Ok(4096)));
        let expected = [[0; 1000].as_slice(), &[7; 24], &[0; 3072]].concat();
        assert!(model::bytes(&*disk, 0, 4096) == expected);
        assert_eq!(resize(4097).unwrap_err(), "the disk can have 4096 bytes at most, not 4097");
    }

    #[test]
    fn a_largest_size_below_the_size_is_refused() {
        let error = model::open::<Memory>(&[("size", "1M"), ("max-size", "4K")]).err().unwrap();
        assert_eq!(error.to_string(), "max-size=4K: less than size=1M");
    }

    #[test]
    fn the_largest_disk_works_at_its_end() {
        let size = (1 << 63) - 1;
        let memory = Memory { size: Size::new(size).unwrap(), max_size: None, allocator: Allocator::Sparse };
        let backend = memory.start().unwrap();
        let disk = backend.open(&Client::local("")).wait().unwrap();
        assert_eq!(disk.facts().size, size);
        disk.write(size - 5, Data::copy_from(b"hello"), WriteFlags::default()).wait().unwrap();
        let data = disk.read(Range::new(size - 7, 7)).wait().unwrap();
        assert_eq!(data.to_vec(), b"\0\0hello");
        let extents = disk.extents(disk.facts().whole(), 10).wait().unwrap();
        assert_eq!((extents.len(), extents.covered()), (2, size));
        // More than a moment's work, so done on the pool.
        disk.trim(disk.facts().whole(), WriteFlags::default()).wait().unwrap();
        assert!(disk.read(Range::new(size - 7, 7)).wait().unwrap().says_zeroes());
    }
}
