//! A disk, or a part of it, that is read in small pieces: blocks that were read once are kept for a while.

use disk::{Data, Disk, Error, Io, Range, Result};
use reactor::InFlight;
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Blocks of this many bytes are kept, or of the disk's minimum block size if that is larger.
const BLOCK: u64 = 4096;
/// So many bytes of blocks are kept at most.
const KEPT: u64 = 8 << 20;
/// So many requests are under way at once for what is expected.
const AHEAD: usize = 16;

/// A disk or a part of it. All parts of one disk share a cache.
#[derive(Clone)]
pub struct Source {
    cache: Arc<Cache>,
    range: Range,
}

struct Cache {
    disk: Arc<dyn Disk>,
    size: u64,
    block: u64,
    maximum: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By their number, with when they were last used.
    blocks: HashMap<u64, (Data, u64)>,
    uses: u64,
}

impl Source {
    /// All of a disk, as far as it has whole minimum blocks.
    pub fn new(disk: Arc<dyn Disk>) -> Source {
        let facts = disk.facts();
        let minimum = u64::from(facts.blocks.minimum.max(1));
        let size = facts.size - facts.size % minimum;
        let maximum = u64::from(facts.blocks.maximum) / minimum * minimum;
        let cache = Cache {
            size,
            block: BLOCK.max(minimum),
            maximum: maximum.clamp(minimum, 32 << 20),
            kept: Mutex::default(),
            disk,
        };
        Source { cache: Arc::new(cache), range: Range::new(0, size) }
    }

    /// A part, by its place in this source. What would lie beyond the end is left out.
    pub fn part(&self, range: Range) -> Source {
        let start = range.start.min(self.range.len);
        let len = range.len.min(self.range.len - start);
        Source { cache: self.cache.clone(), range: Range::new(self.range.start + start, len) }
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.range.len
    }

    /// Where it lies on the disk.
    pub fn range(&self) -> Range {
        self.range
    }

    /// Reads bytes through the cache.
    ///
    /// # Errors
    /// They lie beyond the end, or the disk failed.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let range = self.on_disk(Range::new(at, into.len() as u64))?;
        let mut rest = into;
        for piece in range.split_at_multiples(self.cache.block) {
            let wanted = Range::new(piece.start, rest.len() as u64);
            let block = self.cache.block_with(piece.start, wanted.end())?;
            let (here, behind) = rest.split_at_mut(piece.len as usize);
            block.slice(piece.start % self.cache.block, piece.len).copy_to(here);
            rest = behind;
        }
        Ok(())
    }

    /// Bytes, read through the cache.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        // Nothing is allocated for what is not there.
        self.on_disk(Range::new(at, len as u64))?;
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`Source::bytes`], but as much as there is before the end.
    ///
    /// # Errors
    /// The disk failed.
    pub fn beginning(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let len = (len as u64).min(self.range.len.saturating_sub(at));
        if len == 0 { Ok(Vec::new()) } else { self.bytes(at, len as usize) }
    }

    /// Reads into the cache what will soon be asked for, several pieces at once: on a distant disk that saves one way there
    /// and back for each. No more than half of the cache is filled; what fails will fail again when it is asked for.
    pub fn expect(&self, ranges: impl IntoIterator<Item = Range>) {
        let ranges = ranges.into_iter().filter(|range| !range.is_empty());
        // All of them first: to say where the next one is may need the cache.
        let on_disk: Vec<Range> = ranges.filter_map(|range| self.on_disk(range).ok()).collect();
        self.cache.expect(&on_disk);
    }

    /// The bytes, if all of them are in the cache.
    pub(crate) fn kept(&self, range: Range) -> Option<Data> {
        let range = self.on_disk(range).ok()?;
        let kept = self.cache.lock();
        let pieces = range.split_at_multiples(self.cache.block).map(|piece| {
            let (block, _) = kept.blocks.get(&(piece.start / self.cache.block))?;
            Some(block.slice(piece.start % self.cache.block, piece.len))
        });
        pieces.collect::<Option<Vec<Data>>>().map(Data::join)
    }

    /// Bytes past the cache: for contents, of which each is read once. At most [`Source::step`] bytes.
    pub fn fetch(&self, range: Range) -> Io<'_, Data> {
        let range = match self.on_disk(range) {
            Ok(range) => range,
            Err(e) => return e.into(),
        };
        let minimum = u64::from(self.cache.disk.facts().blocks.minimum.max(1));
        let start = range.start - range.start % minimum;
        let end = range.end().next_multiple_of(minimum);
        let read = self.cache.disk.read(Range::new(start, end - start));
        if (start, end) == (range.start, range.end()) {
            return read;
        }
        read.map(move |data| Ok(data.slice(range.start - start, range.len)))
    }

    /// The most bytes that [`Source::fetch`] reads at once.
    pub fn step(&self) -> u64 {
        // One minimum block less, because both ends may have to be rounded outwards.
        let minimum = u64::from(self.cache.disk.facts().blocks.minimum.max(1));
        (256 << 10).min(self.cache.maximum - minimum).max(1)
    }

    fn on_disk(&self, range: Range) -> Result<Range> {
        match range.lies_within(self.range.len) {
            true => Ok(Range::new(self.range.start + range.start, range.len)),
            false => Err(Error::io(format!(
                "{range} lie beyond the end, which is at {}: something is damaged or cut off",
                self.range.len
            ))),
        }
    }
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block that byte `at` is in. What is missing of the blocks up to byte `end` is read along with it.
    fn block_with(&self, at: u64, end: u64) -> Result<Data> {
        let number = at / self.block;
        let missing = {
            let mut kept = self.lock();
            kept.uses += 1;
            let uses = kept.uses;
            if let Some((block, used)) = kept.blocks.get_mut(&number) {
                *used = uses;
                return Ok(block.clone());
            }
            let last =
                (number + 1).max(end.div_ceil(self.block)).min(number + (self.maximum / self.block).max(1));
            (number + 1..last).find(|n| kept.blocks.contains_key(n)).unwrap_or(last)
        };
        let mut read = Vec::new();
        for piece in self.on_disk(number, missing).split_at_multiples(self.maximum) {
            read.push(self.disk.read(piece).wait()?);
        }
        Ok(self.keep(number, &Data::join(read)))
    }

    /// Where the blocks from one to another, which is not one of them, lie.
    fn on_disk(&self, first: u64, end: u64) -> Range {
        let start = first * self.block;
        Range::new(start, (end * self.block).min(self.size) - start)
    }

    /// Keeps blocks, and hands out the first.
    fn keep(&self, number: u64, data: &Data) -> Data {
        let mut kept = self.lock();
        let uses = kept.uses;
        for n in 0..data.len().div_ceil(self.block) {
            let from = n * self.block;
            // A copy, so that a kept block does not hold on to a larger piece of memory, or to memory of the disk.
            let bytes = data.slice(from, self.block.min(data.len() - from)).to_vec();
            let block = if bytes.iter().all(|b| *b == 0) {
                Data::zeroes(bytes.len() as u64)
            } else {
                Data::copy_from(&bytes)
            };
            kept.blocks.insert(number + n, (block, uses));
        }
        let first = kept.blocks[&number].0.clone();
        if kept.blocks.len() as u64 > KEPT / self.block {
            kept.forget_half();
        }
        first
    }

    fn expect(&self, ranges: &[Range]) {
        let most = (KEPT / self.block / 2) as usize;
        let mut missing = BTreeSet::new();
        {
            let mut kept = self.lock();
            kept.uses += 1;
            let uses = kept.uses;
            let numbers = ranges.iter().flat_map(|r| r.start / self.block..r.end().div_ceil(self.block));
            for number in numbers.take(most) {
                match kept.blocks.get_mut(&number) {
                    // So that what comes now does not drive it out.
                    Some((_, used)) => *used = uses,
                    None => drop(missing.insert(number)),
                }
            }
        }
        // Neighbours in one request, as far as the disk likes it.
        let longest = (self.maximum.min(256 << 10) / self.block).max(1);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for number in missing {
            match runs.last_mut() {
                Some((first, end)) if *end == number && number - *first < longest => *end += 1,
                _ => runs.push((number, number + 1)),
            }
        }
        // One alone is no slower when it is asked for.
        if runs.len() < 2 && runs.first().is_none_or(|(first, end)| end - first < 2) {
            return;
        }
        let mut runs = runs.into_iter();
        reactor::block_on(async {
            type Reading<'a> = Pin<Box<dyn Future<Output = (u64, Result<Data>)> + 'a>>;
            let mut flying: InFlight<Reading<'_>> = InFlight::new();
            loop {
                while flying.len() < AHEAD
                    && let Some((first, end)) = runs.next()
                {
                    let range = self.on_disk(first, end);
                    flying.push(Box::pin(async move { (first, self.disk.read(range).await) }));
                }
                match flying.next().await {
                    Some((first, Ok(data))) => drop(self.keep(first, &data)),
                    Some((_, Err(_))) => {}
                    None => break,
                }
            }
        });
    }
}

impl Kept {
    fn forget_half(&mut self) {
        let mut uses: Vec<u64> = self.blocks.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let middle = uses[uses.len() / 2];
        self.blocks.retain(|_, (_, used)| *used > middle);
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.range)
    }
}
