//! A disk, or a part of it, that is read in small pieces: blocks that were read once are kept for a while.

use disk::{Data, Disk, Error, Io, Range, Result};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Blocks of this many bytes are kept, or of the disk's minimum block size if that is larger.
const BLOCK: u64 = 4096;
/// So many bytes of blocks are kept at most.
const KEPT: u64 = 8 << 20;

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
    /// The block that byte `at` is in. What is missing of the blocks up to byte `end` is read along with it.
    fn block_with(&self, at: u64, end: u64) -> Result<Data> {
        let number = at / self.block;
        let missing = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
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
        let start = number * self.block;
        let len = (missing * self.block).min(self.size) - start;
        let mut read = Vec::new();
        for piece in Range::new(start, len).split_at_multiples(self.maximum) {
            read.push(self.disk.read(piece).wait()?);
        }
        let data = Data::join(read);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = kept.uses;
        for n in number..missing {
            let from = (n - number) * self.block;
            // A copy, so that a kept block does not hold on to a larger piece of memory, or to memory of the disk.
            let bytes = data.slice(from, self.block.min(len - from)).to_vec();
            let block = if bytes.iter().all(|b| *b == 0) {
                Data::zeroes(bytes.len() as u64)
            } else {
                Data::copy_from(&bytes)
            };
            kept.blocks.insert(n, (block, uses));
        }
        let first = kept.blocks[&number].0.clone();
        if kept.blocks.len() as u64 > KEPT / self.block {
            kept.forget_half();
        }
        Ok(first)
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
