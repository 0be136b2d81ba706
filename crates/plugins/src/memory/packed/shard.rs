//! Some of the pages of a disk, and the room for those of them that are hot.

use super::codec::{self, Packed};
use disk::{Result, shared::SharedMemory};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

/// Bytes of a page.
pub(super) const PAGE_LEN: usize = super::PAGE as usize;

/// Pages by number.
pub(super) struct Shard {
    pages: HashMap<u64, Page, BuildHasherDefault<Spread>>,
    memory: Arc<SharedMemory>,
    slots: usize,
    /// Where in the memory there is room for a page, in pages.
    free: Vec<u32>,
    /// The hot pages in the order of becoming so, and perhaps some that are no longer.
    queue: VecDeque<u64>,
}

enum Page {
    Cold(Packed),
    Hot(Hot),
}

struct Hot {
    slot: u32,
    /// What it was made of, as long as it was not written.
    clean: Option<Packed>,
    /// Used since somebody last looked.
    used: bool,
    /// Written in order from its start up to here.
    filled: usize,
}

impl Shard {
    /// With room for `slots` hot pages from `first` on.
    pub(super) fn new(memory: Arc<SharedMemory>, first: usize, slots: usize) -> Shard {
        let free = (first..first + slots).rev().map(|slot| slot as u32).collect();
        Shard { pages: HashMap::default(), memory, slots, free, queue: VecDeque::new() }
    }

    /// Reads from the start of a page without making it hot.
    pub(super) fn peek(&mut self, page: u64, into: &mut [u8]) -> Result<()> {
        match self.pages.get(&page) {
            None => into.fill(0),
            Some(Page::Cold(packed)) => codec::unpack(packed, into)?,
            Some(Page::Hot(hot)) => self.memory.read(hot.slot as usize * PAGE_LEN, into),
        }
        Ok(())
    }

    /// Reads a part of a page.
    pub(super) fn read(&mut self, page: u64, at: usize, into: &mut [u8]) -> Result<()> {
        if !self.pages.contains_key(&page) {
            into.fill(0);
            return Ok(());
        }
        let slot = self.heat(page)?.slot;
        self.memory.read(slot as usize * PAGE_LEN + at, into);
        Ok(())
    }

    /// Writes a part of a page.
    pub(super) fn write(&mut self, page: u64, at: usize, bytes: &[u8]) -> Result<()> {
        let hot = self.heat(page)?;
        hot.clean = None;
        let end = at + bytes.len();
        hot.filled = if at == hot.filled || at == 0 { end } else { PAGE_LEN + 1 };
        let (slot, is_full) = (hot.slot, hot.filled == PAGE_LEN);
        self.memory.write(slot as usize * PAGE_LEN + at, bytes);
        if is_full {
            // A stream goes by, and will not come back to it soon.
            self.pack(page, true)?;
        }
        Ok(())
    }

    /// Puts another page, or none, in the place of this one.
    pub(super) fn replace(&mut self, page: u64, packed: Option<Packed>) {
        let old = match packed {
            Some(packed) => self.pages.insert(page, Page::Cold(packed)),
            None => self.pages.remove(&page),
        };
        if let Some(Page::Hot(hot)) = old {
            self.give_back(hot.slot);
        }
    }

    /// The page, hot; made of zeroes where there is none.
    fn heat(&mut self, page: u64) -> Result<&mut Hot> {
        if !matches!(self.pages.get(&page), Some(Page::Hot(_))) {
            self.make_hot(page)?;
        }
        match self.pages.get_mut(&page) {
            Some(Page::Hot(hot)) => {
                hot.used = true;
                Ok(hot)
            }
            _ => Err(disk::Error::io("compressed memory: a page that was made hot is not")),
        }
    }

    #[cold]
    fn make_hot(&mut self, page: u64) -> Result<()> {
        let slot = self.room()?;
        let mut bytes = [0; PAGE_LEN];
        let unpacked = match self.pages.get(&page) {
            Some(Page::Cold(packed)) => codec::unpack(packed, &mut bytes),
            _ => Ok(()),
        };
        if let Err(e) = unpacked {
            self.free.push(slot);
            return Err(e);
        }
        self.memory.write(slot as usize * PAGE_LEN, &bytes);
        let clean = match self.pages.remove(&page) {
            Some(Page::Cold(packed)) => Some(packed),
            _ => None,
        };
        self.pages.insert(page, Page::Hot(Hot { slot, clean, used: true, filled: 0 }));
        self.queue.push_back(page);
        if self.queue.len() > 2 * self.slots + 16 {
            self.tidy();
        }
        Ok(())
    }

    /// Room for one more hot page: where none is free, that of the one that was not used for longest, more or less.
    fn room(&mut self) -> Result<u32> {
        loop {
            if let Some(slot) = self.free.pop() {
                return Ok(slot);
            }
            let Some(page) = self.queue.pop_front() else {
                return Err(disk::Error::io("compressed memory: there is no room for a page"));
            };
            if let Some(Page::Hot(hot)) = self.pages.get_mut(&page) {
                if std::mem::take(&mut hot.used) {
                    self.queue.push_back(page);
                } else {
                    self.pack(page, false)?;
                }
            }
        }
    }

    /// Compresses a hot page; its memory goes back to the system, or is used again at once.
    fn pack(&mut self, page: u64, give_back: bool) -> Result<()> {
        let Some(Page::Hot(hot)) = self.pages.get_mut(&page) else { return Ok(()) };
        let (slot, clean) = (hot.slot, hot.clean.take());
        let packed = match clean {
            Some(packed) => packed,
            None => {
                let mut bytes = [0; PAGE_LEN];
                self.memory.read(slot as usize * PAGE_LEN, &mut bytes);
                // Zeroes, too: a hole would have to be told to the map.
                codec::pack_any(&bytes)?
            }
        };
        self.pages.insert(page, Page::Cold(packed));
        match give_back {
            true => self.give_back(slot),
            false => self.free.push(slot),
        }
        Ok(())
    }

    fn give_back(&mut self, slot: u32) {
        // Memory that stays is no harm: it is used before any other.
        let _ = self.memory.discard(slot as usize * PAGE_LEN, PAGE_LEN);
        self.free.push(slot);
    }

    /// The pages that are hot.
    pub(super) fn hot_pages(&mut self) -> Vec<u64> {
        self.tidy();
        self.queue.iter().copied().collect()
    }

    fn tidy(&mut self) {
        let Shard { queue, pages, .. } = self;
        let mut seen = HashMap::<u64, (), BuildHasherDefault<Spread>>::default();
        // Pages that became hot again are in the queue twice, and others no longer belong there.
        queue
            .retain(|page| matches!(pages.get(page), Some(Page::Hot(_))) && seen.insert(*page, ()).is_none());
    }

    /// Compresses the page if nobody has used it since the last call; whether it is still hot.
    pub(super) fn cool(&mut self, page: u64) -> bool {
        match self.pages.get_mut(&page) {
            Some(Page::Hot(hot)) => std::mem::take(&mut hot.used) || self.pack(page, true).is_err(),
            _ => false,
        }
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        let taken = |page: &Page| match page {
            Page::Cold(packed) => packed.len(),
            Page::Hot(hot) => PAGE_LEN + hot.clean.as_ref().map_or(0, |packed| packed.len()),
        };
        self.pages.values().map(taken).sum()
    }
}

/// Spreads page numbers over a table.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, number: u64) {
        // Another multiplier than that which chooses the shard: within one, that one's upper bits are all the same.
        self.0 = (self.0 ^ number).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(32);
    }
}
