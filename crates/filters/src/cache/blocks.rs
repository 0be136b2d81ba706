//! A shard: which of its blocks are in the cache, where, and which of them the disk below does not have yet.

use disk::{Data, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::Store;

/// When a shard gives blocks up, in blocks. `None`: never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// With so many, it begins to.
    pub(super) high: Option<u64>,
    /// With so many, it stops.
    pub(super) low: Option<u64>,
}

/// One part of the blocks.
#[derive(Default)]
pub(super) struct Shard {
    blocks: HashMap<u64, Block>,
    /// What the disk below does not have yet.
    dirty: BTreeSet<u64>,
    /// The blocks by their last use; kept only in a limited cache.
    uses: BTreeMap<u64, u64>,
    /// Counts uses.
    now: u64,
    /// Places in the store that can be used again: they have their room.
    free: Vec<u64>,
}

struct Block {
    /// In the store.
    place: u64,
    /// When it was last used.
    used: u64,
}

impl Shard {
    pub(super) fn len(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(super) fn has(&self, block: u64) -> bool {
        self.blocks.contains_key(&block)
    }

    pub(super) fn is_dirty(&self, block: u64) -> bool {
        self.dirty.contains(&block)
    }

    /// The dirty blocks from `first` to before `end`.
    pub(super) fn dirty(&self, first: u64, end: u64) -> impl Iterator<Item = u64> + '_ {
        self.dirty.range(first..end).copied()
    }

    pub(super) fn first_dirty(&self) -> Option<u64> {
        self.dirty.first().copied()
    }

    pub(super) fn mark_clean(&mut self, block: u64) {
        self.dirty.remove(&block);
    }

    /// Where a block lies in the store; this is a use of it.
    pub(super) fn find(&mut self, block: u64, limits: Limits) -> Option<u64> {
        let known = self.blocks.get_mut(&block)?;
        if limits.high.is_some() {
            self.uses.remove(&known.used);
            self.now += 1;
            known.used = self.now;
            self.uses.insert(self.now, block);
        }
        Some(known.place)
    }

    /// Puts a whole block into the cache, which may be there already.
    ///
    /// # Errors
    /// When the store is full; the block is then no more in the cache than before, with its old content.
    pub(super) fn put(
        &mut self,
        store: &Store,
        limits: Limits,
        size: u64,
        block: u64,
        data: &Data,
        dirty: bool,
    ) -> Result<()> {
        match self.find(block, limits) {
            Some(place) => store.overwrite(place, data)?,
            None => {
                match self.free.last() {
                    Some(place) => {
                        let place = *place;
                        store.overwrite(place, data)?;
                        self.free.pop();
                        self.insert(block, place, limits);
                    }
                    None => {
                        let place = store.place(size);
                        // A short last block still has the room of a whole one, for others after it.
                        let write = store.write(place, data);
                        let rest = size - data.len();
                        let whole = write.and_then(|()| match rest {
                            0 => Ok(()),
                            rest => store.write(place + data.len(), &Data::zeroes(rest)),
                        });
                        if let Err(e) = whole {
                            store.discard(place, size);
                            return Err(e);
                        }
                        self.insert(block, place, limits);
                    }
                }
            }
        }
        if dirty {
            self.dirty.insert(block);
        }
        Ok(())
    }

    fn insert(&mut self, block: u64, place: u64, limits: Limits) {
        let used = if limits.high.is_some() {
            self.now += 1;
            self.uses.insert(self.now, block);
            self.now
        } else {
            0
        };
        self.blocks.insert(block, Block { place, used });
    }

    /// Writes a part of a block that is in the cache.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn change(
        &mut self,
        store: &Store,
        place: u64,
        block: u64,
        from: u64,
        data: &Data,
        dirty: bool,
    ) -> Result<()> {
        store.overwrite(place + from, data)?;
        if dirty {
            self.dirty.insert(block);
        }
        Ok(())
    }

    /// Forgets a block; its place can be used again.
    pub(super) fn forget(&mut self, block: u64) {
        if let Some(known) = self.blocks.remove(&block) {
            self.uses.remove(&known.used);
            self.dirty.remove(&block);
            self.free.push(known.place);
        }
    }

    /// Forgets all blocks from `first` to before `end`.
    pub(super) fn forget_all(&mut self, first: u64, end: u64) {
        let gone: Vec<u64> = if end - first < self.len() {
            (first..end).filter(|block| self.has(*block)).collect()
        } else {
            self.blocks.keys().copied().filter(|block| (first..end).contains(block)).collect()
        };
        gone.into_iter().for_each(|block| self.forget(block));
    }

    /// Forgets those blocks from `first` to before `end` that the disk below has.
    pub(super) fn forget_clean(&mut self, first: u64, end: u64) {
        let inside = |block: &u64| (first..end).contains(block) && !self.dirty.contains(block);
        let gone: Vec<u64> = self.blocks.keys().copied().filter(inside).collect();
        gone.into_iter().for_each(|block| self.forget(block));
    }

    /// The block that was not used for the longest time, other than `but`.
    pub(super) fn oldest(&self, but: u64) -> Option<u64> {
        self.uses.values().copied().find(|block| *block != but)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITED: Limits = Limits { high: Some(10), low: Some(5) };

    #[test]
    fn the_block_that_was_not_used_for_the_longest_time_is_the_oldest() {
        let (mut shard, store) = (Shard::default(), Store::new());
        for block in 0..4 {
            shard.put(&store, LIMITED, 4096, block, &Data::zeroes(4096), block == 1).unwrap();
        }
        assert!(shard.find(0, LIMITED).is_some());
        assert_eq!((shard.oldest(9), shard.oldest(1)), (Some(1), Some(2)));
        shard.forget(1);
        assert_eq!((shard.oldest(9), shard.len(), shard.first_dirty()), (Some(2), 3, None));
        let place = shard.free[0];
        shard.put(&store, LIMITED, 4096, 7, &Data::copy_from(&[7; 4096]), false).unwrap();
        assert_eq!(shard.find(7, LIMITED), Some(place));
        assert_eq!(store.read(place, 4096).unwrap().to_vec(), [7; 4096]);
        shard.forget_all(0, u64::MAX);
        assert_eq!((shard.len(), shard.oldest(9)), (0, None));
    }
}
