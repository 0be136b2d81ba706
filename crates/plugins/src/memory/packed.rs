//! The allocator zstd: pages that rest are compressed, pages in use are not.
//!
//! A page is 32 KiB. The pages of a disk are spread over many shards, each with a lock of its own, its own share of the
//! room for pages in use, and its own compressed pages; so threads seldom meet. Whole pages are compressed when they
//! are written and decompressed into the reply when they are read. A request for a part of a page makes the page *hot*:
//! it is kept as it is until the room is needed, or until nobody has used it for some seconds.

mod codec;
mod shard;

use super::map::{CHUNK, Chunk, GRANULE as PAGE, Map};
use super::order;
use disk::{
    Data, Disk, Extents, Facts, Io, Kind, Piece, Range, Result, WriteFlags, ZeroFlags, shared::SharedMemory,
};
use shard::{PAGE_LEN, Shard};
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

const SHARDS: usize = 64;
/// A page that was not used between two looks, so far apart, is compressed.
const LOOK: Duration = Duration::from_millis(2500);
/// Room for hot pages: a part of the machine's memory, and no more than this.
const MOST_HOT: u64 = 1 << 30;

/// A disk in compressed memory, which all clients share.
pub(super) struct PackedDisk {
    facts: Facts,
    store: Arc<Packed>,
}

/// Its bytes.
pub(super) struct Packed {
    size: u64,
    /// Which pages there are. A clear bit promises zeroes; it is changed only under the lock of the page's shard.
    map: Map,
    shards: Box<[Mutex<Shard>]>,
    /// There may be hot pages.
    is_warm: AtomicBool,
    warmed: (Mutex<()>, Condvar),
}

impl Packed {
    /// A disk of this size, with room for as many hot pages as `hot` bytes hold.
    pub(super) fn new(size: u64, hot: Option<u64>) -> io::Result<Packed> {
        order::prepare();
        let share = SHARDS as u64 * PAGE;
        let ram = rustix::system::sysinfo();
        let ram = ram.totalram.saturating_mul(ram.mem_unit.into());
        let hot = hot.unwrap_or((ram / 8).min(MOST_HOT)).min(size.saturating_mul(2)).max(1).div_ceil(share);
        // Two at least: a page on its way in must not push out the one that is being looked at.
        let slots = usize::try_from(hot.max(2)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let memory = SharedMemory::new(slots * SHARDS * PAGE_LEN)?;
        let shard = |nth| Mutex::new(Shard::new(memory.clone(), nth * slots, slots));
        Ok(Packed {
            size,
            map: Map::new(size),
            shards: (0..SHARDS).map(shard).collect(),
            is_warm: AtomicBool::new(false),
            warmed: Default::default(),
        })
    }

    /// Neighbours are in different shards, and so are pages at any power of two from each other.
    fn shard(&self, page: u64) -> MutexGuard<'_, Shard> {
        let nth = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHARDS.trailing_zeros());
        self.shards[nth as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_there(&self, page: u64) -> bool {
        let at = page * PAGE;
        self.map.get(at / CHUNK).is_some_and(|chunk| chunk.is_set(Chunk::granule(at)))
    }

    /// To be called while the page's shard is locked.
    fn mark(&self, page: u64, is_there: bool) {
        let at = page * PAGE;
        let (chunk, granule) = (self.map.make(at / CHUNK), Chunk::granule(at));
        match is_there {
            true => chunk.set(granule, granule, |_| ()),
            false => chunk.forget(granule),
        }
    }

    fn warm(&self) {
        if !self.is_warm.load(Relaxed) && !self.is_warm.swap(true, Relaxed) {
            let _guard = self.warmed.0.lock().unwrap_or_else(PoisonError::into_inner);
            self.warmed.1.notify_all();
        }
    }

    /// Whether a range within one page is all of the page that the disk has.
    fn is_whole(&self, part: Range) -> bool {
        part.start.is_multiple_of(PAGE) && (part.len == PAGE || part.end() == self.size)
    }

    fn read_part(&self, part: Range, into: &mut [u8]) -> Result<()> {
        let (page, at) = (part.start / PAGE, (part.start % PAGE) as usize);
        if !self.is_there(page) {
            into.fill(0);
            return Ok(());
        }
        if self.is_whole(part) {
            return self.shard(page).peek(page, into);
        }
        self.shard(page).read(page, at, into)?;
        self.warm();
        Ok(())
    }

    fn read(&self, range: Range) -> Result<Data> {
        // Long runs of what is not there need no memory.
        let (mut at, mut parts) = (range.start, Vec::new());
        while at < range.end() {
            let (is_there, stop) = self.run(at, range.end());
            let len = stop - at;
            parts.push(match is_there {
                false => Data::zeroes(len),
                true => Data::try_fill(len as usize, |mut into| {
                    for part in Range::new(at, len).split_at_multiples(PAGE) {
                        let (now, rest) = into.split_at_mut(part.len as usize);
                        self.read_part(part, now)?;
                        into = rest;
                    }
                    Ok(())
                })?,
            });
            at = stop;
        }
        Ok(Data::join(parts))
    }

    fn write(&self, at: u64, data: &Data) -> Result<()> {
        let mut at = at;
        for piece in data.pieces() {
            let range = Range::new(at, piece.len());
            match piece {
                Piece::Zeroes(_) => self.zero(range)?,
                Piece::Bytes(bytes) => self.write_bytes(range, bytes)?,
                Piece::Lent(_) => {
                    let mut copy = disk::BufMut::new(piece.len() as usize);
                    piece.copy_to(&mut copy);
                    self.write_bytes(range, &copy)?;
                }
            }
            at = range.end();
        }
        Ok(())
    }

    fn write_bytes(&self, range: Range, mut bytes: &[u8]) -> Result<()> {
        for part in range.split_at_multiples(PAGE) {
            let (now, rest) = bytes.split_at(part.len as usize);
            let page = part.start / PAGE;
            if self.is_whole(part) {
                // The work is done before anybody has to wait for it.
                let packed = codec::pack(now)?;
                let mut shard = self.shard(page);
                self.mark(page, packed.is_some());
                shard.replace(page, packed);
            } else {
                let mut shard = self.shard(page);
                shard.write(page, (part.start % PAGE) as usize, now)?;
                self.mark(page, true);
                drop(shard);
                self.warm();
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Makes a range zero. Whole pages are given back.
    pub(super) fn zero(&self, range: Range) -> Result<()> {
        let mut at = range.start;
        while at < range.end() {
            let (is_there, stop) = self.run(at, range.end());
            let run = Range::new(at, if is_there { stop - at } else { 0 });
            for part in run.split_at_multiples(PAGE) {
                let page = part.start / PAGE;
                let mut shard = self.shard(page);
                if self.is_whole(part) {
                    self.mark(page, false);
                    shard.replace(page, None);
                } else if self.is_there(page) {
                    shard.write(page, (part.start % PAGE) as usize, &[0; PAGE_LEN][..part.len as usize])?;
                    drop(shard);
                    self.warm();
                }
            }
            at = stop;
        }
        Ok(())
    }

    /// From `at` to where the next run ends (`end` at most), and whether its pages are there.
    fn run(&self, at: u64, end: u64) -> (bool, u64) {
        let number = at / CHUNK;
        match self.map.find(number) {
            Err(next) => (false, next.saturating_mul(CHUNK).min(end)),
            Ok(chunk) => {
                let (set, granule) = chunk.run(Chunk::granule(at));
                (set, (number * CHUNK + granule as u64 * PAGE).min(end))
            }
        }
    }

    fn extents(&self, range: Range, limit: usize) -> Extents {
        let (mut extents, mut at) = (Extents::new(), range.start);
        while at < range.end() && extents.len() <= limit {
            let (is_there, stop) = self.run(at, range.end());
            extents.push(stop - at, if is_there { Kind::DATA } else { Kind::HOLE });
            at = stop;
        }
        extents
    }

    /// Compresses the pages that nobody has used since the last call; whether hot ones are left.
    fn cool(&self) -> bool {
        let mut left = false;
        for shard in &self.shards {
            let mut pages = shard.lock().unwrap_or_else(PoisonError::into_inner).hot_pages();
            // One by one, so that nobody waits for more than one of them.
            while let Some(page) = pages.pop() {
                left |= shard.lock().unwrap_or_else(PoisonError::into_inner).cool(page);
            }
        }
        left
    }

    /// Has a thread compress what rests, as long as the store lives.
    pub(super) fn start_cooling(self: &Arc<Self>) -> io::Result<()> {
        fn rest(store: &Weak<Packed>) -> Option<()> {
            let store = store.upgrade()?;
            let (mutex, condvar) = &store.warmed;
            let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
            if !store.is_warm.load(Relaxed) {
                // Now and then it is seen whether the store is still there.
                drop(condvar.wait_timeout(guard, LOOK * 4));
            }
            Some(())
        }
        let store = Arc::downgrade(self);
        let work = move || {
            while rest(&store).is_some() {
                std::thread::sleep(LOOK);
                let Some(store) = store.upgrade() else { return };
                if store.is_warm.swap(false, Relaxed) && store.cool() {
                    store.is_warm.store(true, Relaxed);
                }
            }
        };
        std::thread::Builder::new().name("packing".into()).stack_size(256 << 10).spawn(work).map(drop)
    }

    /// What the pages of the disk take, hot and compressed, in bytes.
    #[cfg(test)]
    fn taken(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().taken()).sum()
    }
}

impl PackedDisk {
    pub(super) fn new(store: Arc<Packed>) -> PackedDisk {
        let facts = Facts::capable(store.size);
        PackedDisk { facts, store }
    }
}

impl Disk for PackedDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        self.store.read(range).into()
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.store.write(at, &data).into()
    }
    fn zero(&self, range: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.store.zero(range).into()
    }
    fn trim(&self, range: Range, _: WriteFlags) -> Io<'_, ()> {
        self.store.zero(range).into()
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        Io::ok(self.store.extents(range, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    fn disk(size: u64, hot: u64) -> PackedDisk {
        PackedDisk::new(Arc::new(Packed::new(size, Some(hot)).unwrap()))
    }

    fn text(len: usize) -> Vec<u8> {
        b"It was a dark and stormy night; the rain fell in torrents. "
            .iter()
            .copied()
            .cycle()
            .take(len)
            .collect()
    }

    #[test]
    fn random_requests_leave_what_a_vector_would_hold() {
        // With room for everything, and with almost none.
        for (size, hot) in [(10_000_000, 1 << 30), (10_000_000, 1), (33_554_433, 5 << 20), (1, 1)] {
            model::compare(&disk(size, hot), 1, 1500);
        }
    }

    #[test]
    fn pages_that_rest_are_compressed_and_come_back() {
        let disk = disk(64 << 20, 64 << 20);
        let text = text(8 << 20);
        for (nth, piece) in text.chunks(5000).enumerate().collect::<Vec<_>>().into_iter().rev() {
            disk.write(nth as u64 * 5000, Data::copy_from(piece), WriteFlags::default()).wait().unwrap();
        }
        let before = disk.store.taken();
        // The first look sees them as used.
        assert!(disk.store.cool());
        assert!(!disk.store.cool());
        let after = disk.store.taken();
        assert!(after * 10 < text.len() && after < before, "{before} bytes, then {after}");
        assert!(model::bytes(&disk, 0, text.len() as u64) == text);
        model::compare(&super::tests::disk(3 << 20, 2 << 20), 9, 500);
    }

    #[test]
    fn what_is_written_in_order_takes_a_tenth_at_once() {
        for step in [512, 4096, 32 << 10, 256 << 10] {
            let disk = disk(64 << 20, 64 << 20);
            let text = text(8 << 20);
            for (nth, piece) in text.chunks(step).enumerate() {
                let at = (nth * step) as u64;
                disk.write(at, Data::copy_from(piece), WriteFlags::default()).wait().unwrap();
            }
            assert!(disk.store.taken() * 10 < text.len(), "{step}: {}", disk.store.taken());
        }
    }

    #[test]
    fn threads_lose_nothing_while_pages_come_and_go() {
        let disk = disk(4 << 20, 1);
        std::thread::scope(|scope| {
            for mine in 0..4u64 {
                let disk = &disk;
                scope.spawn(move || {
                    let mut dice = model::Dice(mine);
                    let mut last = [0u8; 256];
                    for round in 0..2000u64 {
                        let nth = dice.below(256);
                        let r = Range::new((nth * 4 + mine) * 4096, 4096);
                        let got = disk.read(r).wait().unwrap().to_vec();
                        assert!(got.iter().all(|b| *b == last[nth as usize]), "thread {mine}, round {round}");
                        last[nth as usize] = round as u8;
                        let data = Data::fill(4096, |b| b.fill(round as u8));
                        disk.write(r.start, data, WriteFlags::default()).wait().unwrap();
                        if mine == 0 && round % 50 == 0 {
                            disk.store.cool();
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn the_largest_disk_works_at_its_end() {
        let size = (1 << 63) - 1;
        let disk = disk(size, 1 << 20);
        disk.write(size - 5, Data::copy_from(b"hello"), WriteFlags::default()).wait().unwrap();
        assert_eq!(disk.read(Range::new(size - 7, 7)).wait().unwrap().to_vec(), b"\0\0hello");
        disk.trim(disk.facts().whole(), WriteFlags::default()).wait().unwrap();
        assert!(disk.read(Range::new(size - 7, 7)).wait().unwrap().says_zeroes());
        assert_eq!(disk.store.taken(), 0);
    }
}
