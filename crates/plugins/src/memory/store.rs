//! The bytes of a memory disk.
//!
//! Invariant, whenever no request is under way: a granule whose bit is clear holds zeroes only. (One way around it
//! remains: a client dies in the middle of a large write while another one discards the same bytes. What it had sent
//! then stays hidden until the granule is next written.)

use super::map::{CHUNK, Chunk, GRANULE, Map, UNIT};
use super::order;
use disk::{
    Data, Errno, Error, Extents, Kind, Piece, Range, Result,
    shared::{Place, SharedMemory},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Up to here a copy is cheaper than what lending costs.
const COPY: u64 = 16 << 10;
/// Larger disks keep chunks in the store rather than lie in it: half the address space of x86-64 is 128 TiB.
const LARGEST_WHOLE: u64 = 16 << 40;

pub(super) struct Store {
    size: u64,
    map: Map,
    memory: Arc<SharedMemory>,
    /// How many chunks have been given a place in the store; `None`: the disk lies in the store as it is.
    slots: Option<AtomicU64>,
    /// Everything counts as data.
    solid: bool,
    /// The whole store asks for huge pages.
    huge: bool,
}

impl Store {
    /// Takes memory as it is written.
    pub(super) fn sparse(size: u64) -> io::Result<Store> {
        order::prepare();
        if size <= LARGEST_WHOLE
            && let Ok(store) = Store::whole(size)
        {
            return Ok(store);
        }
        // Address space may be short (`ulimit -v`), so be content with less.
        let mut memory = SharedMemory::new(64 << 40);
        for bits in (30..46).rev() {
            if memory.is_ok() {
                break;
            }
            memory = SharedMemory::new(1 << bits);
        }
        let slots = Some(AtomicU64::new(0));
        Ok(Store { size, map: Map::new(size), memory: memory?, slots, solid: false, huge: false })
    }

    /// Takes all memory at once, as far as anybody can see.
    pub(super) fn solid(size: u64) -> io::Result<Store> {
        order::prepare();
        Ok(Store { solid: true, ..Store::whole(size)? })
    }

    fn whole(size: u64) -> io::Result<Store> {
        let len =
            usize::try_from(size.next_multiple_of(UNIT).max(UNIT)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let memory = SharedMemory::new(len)?;
        // Huge pages make everything faster, but a few scattered bytes then take 2 MiB each. That is bounded by the
        // disk's size, so small disks may have them from the start; others see `filled`.
        let ram = rustix::system::sysinfo();
        let huge = size <= ram.totalram.saturating_mul(ram.mem_unit.into()) / 4;
        if huge {
            memory.want_huge_pages(0, len);
        }
        Ok(Store { size, map: Map::new(size), memory, slots: None, solid: false, huge })
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Keeps it all in RAM.
    pub(super) fn lock(&self) -> io::Result<()> {
        self.memory.lock()
    }

    /// Where a chunk lies in the store, if it has a place there.
    #[inline]
    fn base(&self, number: u64, chunk: &Chunk) -> Option<usize> {
        let number = if self.slots.is_none() { number } else { u64::from(*chunk.slot.get()?) };
        Some((number * CHUNK) as usize)
    }

    /// As [`Store::base`], with a place made if need be.
    #[inline]
    fn make_base(&self, number: u64, chunk: &Chunk) -> Result<usize> {
        match self.base(number, chunk) {
            Some(base) => Ok(base),
            None => self.new_base(chunk),
        }
    }

    #[cold]
    fn new_base(&self, chunk: &Chunk) -> Result<usize> {
        let next = self.slots.as_ref().map_or(0, |slots| slots.fetch_add(1, Relaxed));
        if next >= self.memory.len() as u64 / CHUNK {
            return Err(Error::new(Errno::NOSPC, "the disk's share of the address space is used up"));
        }
        // Should another thread be faster, this slot stays empty, which costs nothing but addresses.
        Ok(*chunk.slot.get_or_init(|| next as u32) as usize * CHUNK as usize)
    }

    /// From `at` to where the next run ends (`end` at most): its place in the store, `None` for zeroes.
    fn run(&self, at: u64, end: u64) -> (Option<usize>, u64) {
        let number = at / CHUNK;
        match self.map.find(number) {
            Err(next) => (None, next.saturating_mul(CHUNK).min(end)),
            Ok(chunk) => {
                let (set, granule) = chunk.run(Chunk::granule(at));
                let base = if set { self.base(number, chunk) } else { None };
                let stop = number * CHUNK + granule as u64 * GRANULE;
                (base.map(|base| base + (at % CHUNK) as usize), stop.min(end))
            }
        }
    }

    fn bytes(&self, base: usize, len: u64) -> Data {
        if len > COPY {
            return self.memory.lend(base, len as usize).into();
        }
        Data::fill(len as usize, |into| self.memory.read(base, into))
    }

    #[inline]
    pub(super) fn read(&self, range: Range) -> Data {
        let number = range.start / CHUNK;
        if range.len <= COPY && (range.end() - 1) / CHUNK == number {
            let Some(chunk) = self.map.get(number) else { return Data::zeroes(range.len) };
            // So short a range touches two granules at most.
            let (first, last) = (Chunk::granule(range.start), Chunk::granule(range.end() - 1));
            if chunk.is_set(first) || chunk.is_set(last) {
                return match self.base(number, chunk) {
                    Some(base) => self.bytes(base + (range.start % CHUNK) as usize, range.len),
                    None => Data::zeroes(range.len),
                };
            }
            return Data::zeroes(range.len);
        }
        self.read_runs(range)
    }

    fn read_runs(&self, range: Range) -> Data {
        let (mut at, end) = (range.start, range.end());
        let mut parts = Vec::new();
        loop {
            let (base, stop) = self.run(at, end);
            let part = base.map_or(Data::zeroes(stop - at), |base| self.bytes(base, stop - at));
            if stop == end && parts.is_empty() {
                return part;
            }
            parts.push(part);
            at = stop;
            if at == end {
                return Data::join(parts);
            }
        }
    }

    #[inline]
    pub(super) fn write(&self, at: u64, data: &Data) -> Result<()> {
        if let Some(bytes) = data.as_bytes() {
            return self.write_bytes(at, bytes);
        }
        let mut at = at;
        for piece in data.pieces() {
            match piece {
                Piece::Zeroes(len) => self.zero(Range::new(at, len), false),
                Piece::Bytes(bytes) => self.write_bytes(at, bytes)?,
                Piece::Lent(_) => {
                    // Perhaps lent by this very store: it must not be copied from and to at once.
                    let mut copy = disk::BufMut::new(piece.len() as usize);
                    piece.copy_to(&mut copy);
                    self.write_bytes(at, &copy)?;
                }
            }
            at += piece.len();
        }
        Ok(())
    }

    #[inline]
    fn write_bytes(&self, at: u64, mut bytes: &[u8]) -> Result<()> {
        let mut at = at;
        while !bytes.is_empty() {
            let within = (at % CHUNK) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK as usize - within));
            let chunk = self.map.make(at / CHUNK);
            self.memory.write(self.make_base(at / CHUNK, chunk)? + within, now);
            self.written(chunk, at, now.len() as u64);
            at += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Marks what was written; the range lies within the chunk.
    #[inline]
    fn written(&self, chunk: &Chunk, at: u64, len: u64) {
        chunk.set(Chunk::granule(at), Chunk::granule(at + len - 1), |word| {
            if !self.huge {
                self.filled(chunk, at / CHUNK, word);
            }
        });
    }

    /// A unit of 2 MiB is now full, so a huge page for it wastes nothing. And if the next one is empty, this was
    /// perhaps a long sequential write, which should find huge pages ready.
    #[cold]
    fn filled(&self, chunk: &Chunk, number: u64, word: usize) {
        let Some(base) = self.base(number, chunk) else { return };
        let (at, unit) = (base + word * UNIT as usize, UNIT as usize);
        self.memory.collapse(at, unit);
        let next = at + unit;
        if !next.is_multiple_of(CHUNK as usize) && next < self.memory.len() && chunk.unit_is_empty(word + 1) {
            self.memory.want_huge_pages(next, unit);
        }
    }

    /// Room for a write, where it lies in one piece.
    pub(super) fn place(&self, range: Range) -> Option<Place<'_>> {
        if self.slots.is_some() && range.start / CHUNK != (range.end() - 1) / CHUNK {
            return None;
        }
        // Already marked now: should the rest never come, the bytes that came are no secret.
        self.placed(range);
        let number = range.start / CHUNK;
        let base = self.make_base(number, self.map.make(number)).ok()?;
        Some(self.memory.place(base + (range.start % CHUNK) as usize, range.len as usize))
    }

    /// All of it has come.
    pub(super) fn placed(&self, range: Range) {
        for part in range.split_at_multiples(CHUNK) {
            self.written(self.map.make(part.start / CHUNK), part.start, part.len);
        }
    }

    /// Makes a range zero. Granules that lie in it as a whole are given back, and become holes where that is allowed.
    pub(super) fn zero(&self, range: Range, may_trim: bool) {
        let (mut at, end) = (range.start, range.end());
        while at < end {
            let (base, stop) = self.run(at, end);
            if let Some(base) = base {
                self.zero_run(at, stop, base, may_trim && !self.solid);
            }
            at = stop;
        }
    }

    /// Zeroes a run of set granules within one chunk. What shares a granule with other bytes is overwritten, never
    /// given back: another client may be writing those at this moment.
    fn zero_run(&self, start: u64, stop: u64, base: usize, may_trim: bool) {
        let disk_end = if stop == self.size { stop.next_multiple_of(GRANULE) } else { stop };
        let (first, last) = (start.next_multiple_of(GRANULE), disk_end / GRANULE * GRANULE);
        if first >= last {
            return self.memory.clear(base, (stop - start) as usize);
        }
        let offset = |at: u64| base + (at - start) as usize;
        self.memory.clear(base, (first - start) as usize);
        self.memory.clear(offset(last.min(stop)), (stop - last.min(stop)) as usize);
        if may_trim && let Some(chunk) = self.map.get(first / CHUNK) {
            chunk.clear(Chunk::granule(first), Chunk::granule(last - 1));
        }
        let whole = (last - first) as usize;
        // Locked memory cannot be given back.
        if self.memory.discard(offset(first), whole).is_err() {
            self.memory.clear(offset(first), whole);
        }
    }

    pub(super) fn extents(&self, range: Range, limit: usize) -> Extents {
        if self.solid {
            return Extents::one(range.len, Kind::DATA);
        }
        let (mut extents, mut at, end) = (Extents::new(), range.start, range.end());
        while at < end && extents.len() <= limit {
            let (base, stop) = self.run(at, end);
            extents.push(stop - at, if base.is_some() { Kind::DATA } else { Kind::HOLE });
            at = stop;
        }
        extents
    }
}
