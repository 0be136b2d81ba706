//! What is kept of one export, and what becomes of it: blocks are put, changed, written back, given up and forgotten.
//!
//! The states of blocks and their bytes are of the crate `store`. Whoever changes a block claims it; who finds it claimed
//! waits. Nobody waits for a claim who holds one, but for those who claim in the order of the disk.
//!
//! A cache that outlives the server must not be wrong after a crash either. The file may know less than memory does, but
//! what it knows of a block is true at any moment:
//!
//! * before a clean block is changed, the file knows that it is dirty (what it holds then may be old or new);
//! * before the disk below is changed under a clean block, the file knows that it is not here;
//! * before a block's room is given back, likewise;
//! * a block that was written back is clean only when the disk below has flushed it.

use super::{Mode, recent::Recent};
use crate::common::{on_read::OnRead, unsettled::Unsettled};
use disk::{Data, Disk, Facts, Io, Range, Result, WriteFlags};
use reactor::InFlight;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use store::{Blocks, Claim, LEAF_BLOCKS, Leaf, Spot, State};

/// The most that is written back, or fetched, at once.
const PIECE: u64 = 1 << 20;
/// So many pieces are written back at a time.
const AT_ONCE: usize = 32;
const DIRTY_SHARDS: u64 = 64;

/// What clients see of an export, over one disk below.
pub(super) struct Cache {
    /// As clients see the disk.
    pub(super) facts: Facts,
    pub(super) mode: Mode,
    pub(super) on_read: OnRead,
    /// Bytes of a block: a power of two.
    pub(super) block: u64,
    /// What lies beyond the last whole minimum block of the disk below cannot be asked for.
    pub(super) end: u64,
    pub(super) may_write: bool,
    pub(super) base: Arc<dyn Disk>,
    pub(super) shared: Arc<Shared>,
}

/// What is kept of an export, also when a disk that can be written takes the place of one that could not.
pub(super) struct Shared {
    pub(super) blocks: Arc<Blocks>,
    /// In a limited cache.
    pub(super) recent: Option<Recent>,
    /// Leaves with dirty blocks.
    pub(super) dirty: Dirty,
    /// Flushes wait for each other: each must see that what was dirty has been written.
    flushing: async_lock::Mutex<()>,
    /// Held to read below and keep that (by many), and to change below what nobody has claimed.
    pub(super) changing: async_lock::RwLock<()>,
    /// Changes below that nobody waits for any more.
    unsettled: Unsettled,
    /// The disk below was changed since its last flush.
    below_changed: AtomicBool,
    /// The file says that the disk below is being changed, so that its identity is not known.
    disowned: async_lock::Mutex<bool>,
}

impl std::ops::Deref for Cache {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    /// Over these blocks, of which some may be here already.
    pub(super) fn new(blocks: Blocks, recent: Option<Recent>) -> Shared {
        // What a server wrote that was killed, the disk below need not have flushed.
        let changing = blocks.header().is_some_and(|header| header.identity == super::kept::CHANGING);
        let shared = Shared {
            recent,
            dirty: Dirty::default(),
            flushing: Default::default(),
            changing: Default::default(),
            unsettled: Default::default(),
            below_changed: AtomicBool::new(changing),
            disowned: async_lock::Mutex::new(changing),
            blocks: Arc::new(blocks),
        };
        shared.each_run(|first, count, state| match state {
            State::Base => {}
            State::Dirty => {
                (first..first + count).step_by(LEAF_BLOCKS).for_each(|block| shared.dirty.note(block));
                shared.dirty.note(first + count - 1);
                shared.came(first, count);
            }
            _ => shared.came(first, count),
        });
        shared
    }

    /// All blocks, as runs of one state.
    pub(super) fn each_run(&self, mut each: impl FnMut(u64, u64, State)) {
        let (mut block, end) = (0, self.blocks.map().blocks());
        while block < end {
            let (state, same) = self.blocks.map().run(block, end - block);
            each(block, same, state);
            block += same;
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.blocks.is_kept()
    }

    /// Blocks have come into the cache.
    pub(super) fn came(&self, first: u64, count: u64) {
        if let Some(recent) = &self.recent {
            (first..first + count).for_each(|block| recent.insert(block));
        }
    }

    /// Whether the file calls the disk below another than it was.
    pub(super) fn is_disowned(&self) -> bool {
        *self.disowned.lock_blocking()
    }
}

/// The leaves in which there are dirty blocks, or were.
pub(super) struct Dirty([Mutex<BTreeSet<u64>>; DIRTY_SHARDS as usize]);

impl Default for Dirty {
    fn default() -> Dirty {
        Dirty(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Dirty {
    fn shard(&self, number: u64) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.0[(number % DIRTY_SHARDS) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block has become dirty. Comes after that, and before anybody is told.
    #[inline]
    pub(super) fn note(&self, block: u64) {
        let leaf = block / LEAF_BLOCKS as u64;
        self.shard(leaf).insert(leaf);
    }
}

/// Leaves taken out of `Dirty`; those that are not settled go back.
struct Taken<'a> {
    dirty: &'a Dirty,
    leaves: BTreeSet<u64>,
}

impl<'a> Taken<'a> {
    fn all(dirty: &'a Dirty) -> Taken<'a> {
        let leaves = (0..DIRTY_SHARDS).flat_map(|shard| std::mem::take(&mut *dirty.shard(shard)));
        Taken { leaves: leaves.collect(), dirty }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for leaf in &self.leaves {
            self.dirty.shard(*leaf).insert(*leaf);
        }
    }
}

impl Cache {
    /// The blocks that a range touches, from the first to before the last.
    pub(super) fn blocks_of(&self, r: Range) -> std::ops::Range<u64> {
        r.start / self.block..(r.end() - 1) / self.block + 1
    }

    /// The bytes of blocks; the last one may be short.
    pub(super) fn bytes(&self, first: u64, count: u64) -> Range {
        let start = first * self.block;
        Range::new(start, (count * self.block).min(self.end - start))
    }

    /// Where byte `at` of the disk has its place, of whose block this is the leaf.
    #[inline]
    pub(super) fn place(&self, leaf: &Leaf, at: u64) -> u64 {
        self.blocks.place(leaf, at / self.block) + at % self.block
    }

    /// A copy of bytes that lie together: others may change them later.
    pub(super) fn copy(&self, leaf: &Leaf, r: Range) -> Result<Data> {
        let there = self.blocks.bytes().read(self.place(leaf, r.start), r.len)?;
        Ok(Data::fill(r.len as usize, |bytes| there.copy_to(bytes)))
    }

    /// Makes stable what the file is to know.
    pub(super) async fn sync(&self) -> Result<()> {
        let blocks = self.blocks.clone();
        reactor::unblock(move || blocks.sync()).await?
    }

    /// Reads the disk below, in as many pieces as it takes.
    pub(super) async fn read_base(&self, r: Range) -> Result<Data> {
        self.unsettled.settle().await;
        let most = u64::from(self.facts.blocks.maximum);
        if r.len <= most {
            return self.base.read(r).await;
        }
        let mut parts = Vec::new();
        for part in r.split_at_multiples(most) {
            parts.push(self.base.read(part).await?);
        }
        Ok(Data::join(parts))
    }

    /// The disk below is about to be changed. In the file, it is another one from now on until an orderly end.
    pub(super) async fn disown(&self) -> Result<()> {
        self.below_changed.store(true, SeqCst);
        if !self.is_kept() {
            return Ok(());
        }
        let mut disowned = self.disowned.lock().await;
        if !*disowned {
            let blocks = self.blocks.clone();
            reactor::unblock(move || blocks.set_identity(super::kept::CHANGING)).await??;
            *disowned = true;
        }
        Ok(())
    }

    /// Writes to the disk below, in as many pieces as it takes.
    pub(super) async fn write_base(&self, at: u64, data: &Data, flags: WriteFlags) -> Result<()> {
        self.disown().await?;
        let most = u64::from(self.facts.blocks.maximum);
        for part in Range::new(at, data.len()).split_at_multiples(most) {
            let data = data.slice(part.start - at, part.len);
            self.change_base(|base| base.write(part.start, data, flags)).await?;
        }
        Ok(())
    }

    /// Makes a request of the disk below that changes it.
    pub(super) async fn change_base(
        &self,
        request: impl FnOnce(&dyn Disk) -> Io<'_, ()> + Send,
    ) -> Result<()> {
        self.unsettled.settle().await;
        let begun = self.unsettled.begin(&self.base);
        let outcome = request(&*self.base).await;
        begun.over();
        outcome
    }

    /// Makes stable what was changed below.
    pub(super) async fn flush_base(&self) -> Result<()> {
        let changed = self.below_changed.swap(false, SeqCst);
        if !self.base.facts().flush {
            return Ok(());
        }
        let outcome = self.base.flush().await;
        if outcome.is_err() && changed {
            self.below_changed.store(true, SeqCst);
        }
        outcome
    }

    /// So many blocks, from one that is to be put, may be put at once.
    pub(super) fn run_limit(&self) -> u64 {
        self.recent.as_ref().map_or(u64::MAX, |recent| recent.at_once)
    }

    /// Gives up blocks, the oldest first, if there are too many. Comes from those who hold no claim.
    pub(super) async fn make_room(&self) -> Result<()> {
        let Some(recent) = self.recent.as_ref().filter(|recent| recent.count() >= recent.high) else {
            return Ok(());
        };
        let _turn = recent.reclaiming.lock().await;
        let too_many = recent.count().saturating_sub(recent.low);
        if recent.count() < recent.high {
            return Ok(());
        }
        let mut victims: Vec<(u64, Claim<'_>)> = Vec::new();
        for _ in 0..2 * too_many {
            if victims.len() as u64 >= too_many {
                break;
            }
            let Some(block) = recent.next() else { break };
            let Spot::Leaf(leaf, at) = self.blocks.map().find(block) else { continue };
            let (state, _) = leaf.run(at, at + 1);
            match (state, state == state.settled()) {
                // It was forgotten before.
                (State::Base | State::BaseBusy, _) => {}
                (state, true) => match leaf.claim(at, at + 1, state) {
                    Some(claim) => victims.push((block, claim)),
                    None => recent.insert(block),
                },
                _ => recent.insert(block),
            }
        }
        self.give_up(victims, recent).await
    }

    async fn give_up(&self, victims: Vec<(u64, Claim<'_>)>, recent: &Recent) -> Result<()> {
        let mut outcome = Ok(());
        let mut clean = Vec::with_capacity(victims.len());
        let mut written = false;
        for (block, claim) in victims {
            if claim.was() == State::Dirty {
                let r = self.bytes(block, 1);
                let back = match self.copy(claim.leaf, r) {
                    Ok(data) => self.write_base(r.start, &data, WriteFlags::default()).await,
                    Err(e) => Err(e),
                };
                if let Err(e) = back {
                    // It stays.
                    recent.insert(block);
                    outcome = outcome.and(Err(e));
                    continue;
                }
                written = true;
            }
            clean.push((block, claim));
        }
        if self.is_kept() {
            if written && let Err(e) = self.flush_base().await {
                clean.iter().for_each(|(block, _)| recent.insert(*block));
                return Err(e);
            }
            clean = clean.into_iter().map(|(block, claim)| (block, claim.turn(State::Base))).collect();
            if let Err(e) = self.sync().await {
                for (block, claim) in clean {
                    recent.insert(block);
                    claim.end(State::Copied);
                }
                return Err(e);
            }
        }
        let some = !clean.is_empty();
        for (block, claim) in clean {
            // While it is claimed: a hole made later could swallow what others write after this.
            self.blocks.bytes().discard(self.place(claim.leaf, block * self.block), self.block);
            claim.end(State::Base);
        }
        if some { Ok(()) } else { outcome }
    }

    /// The dirty blocks of a leaf, as runs of no more than a piece.
    fn dirty_runs(&self, leaf: u64, into: &mut Vec<(u64, u64)>) {
        let first = leaf * LEAF_BLOCKS as u64;
        let end = (first + LEAF_BLOCKS as u64).min(self.blocks.map().blocks());
        let most = (PIECE / self.block).max(1);
        let mut block = first;
        while block < end {
            let (state, same) = self.blocks.map().run(block, end - block);
            if state == State::Dirty {
                into.extend(Range::new(block, same).split_at_multiples(most).map(|run| (run.start, run.len)));
            }
            block += same;
        }
    }

    /// Writes the dirty blocks of a run to the disk below. They stay claimed, in a cache that outlives the server: until
    /// the disk below has flushed them. What others have claimed is left out, and told.
    async fn write_run(&self, first: u64, count: u64) -> Result<(Vec<Claim<'_>>, Vec<u64>)> {
        let (mut block, mut claims, mut busy) = (first, Vec::new(), Vec::new());
        while block < first + count {
            let (leaf, at) = self.blocks.leaf(block);
            let (state, same) = leaf.run(at, LEAF_BLOCKS.min(at + (first + count - block) as usize));
            if state == State::Dirty {
                let Some(claim) = leaf.claim(at, at + same, State::Dirty) else { continue };
                let claimed = (claim.to - claim.from) as u64;
                let r = self.bytes(block, claimed);
                let data = self.copy(leaf, r)?;
                self.write_base(r.start, &data, WriteFlags::default()).await?;
                if self.is_kept() {
                    claims.push(claim);
                } else {
                    claim.end(State::Copied);
                }
                block += claimed;
            } else {
                if state != state.settled() {
                    busy.extend(block..block + same as u64);
                }
                block += same as u64;
            }
        }
        Ok((claims, busy))
    }

    /// Writes all dirty blocks of runs back, and waits for those that others are changing.
    async fn write_runs(&self, runs: Vec<(u64, u64)>) -> Result<()> {
        let mut outcome = Ok(());
        let mut busy = Vec::new();
        for some in runs.chunks(AT_ONCE) {
            let mut under_way = InFlight::new();
            some.iter().for_each(|(first, count)| under_way.push(Box::pin(self.write_run(*first, *count))));
            let mut claims = Vec::new();
            while let Some(done) = under_way.next().await {
                match done {
                    Ok((written, left)) => {
                        claims.extend(written);
                        busy.extend(left);
                    }
                    Err(e) => outcome = outcome.and(Err(e)),
                }
            }
            if !claims.is_empty() {
                match self.flush_base().await {
                    Ok(()) => claims.into_iter().for_each(|claim| claim.end(State::Copied)),
                    Err(e) => outcome = outcome.and(Err(e)),
                }
            }
        }
        // No claim is held by now. What was there before somebody came counts for us.
        for block in busy {
            loop {
                let (leaf, at) = self.blocks.leaf(block);
                leaf.settled(at).await;
                let (claims, busy) = self.write_run(block, 1).await?;
                if !claims.is_empty() {
                    self.flush_base().await?;
                    claims.into_iter().for_each(|claim| claim.end(State::Copied));
                }
                if busy.is_empty() {
                    break;
                }
            }
        }
        outcome
    }

    /// Writes back what is dirty in a range.
    pub(super) async fn write_back(&self, blocks: std::ops::Range<u64>) -> Result<()> {
        let most = (PIECE / self.block).max(1);
        let runs = Range::new(blocks.start, blocks.end - blocks.start).split_at_multiples(most);
        self.write_runs(runs.map(|run| (run.start, run.len)).collect()).await
    }

    /// Writes back all that is dirty.
    pub(super) async fn write_all_back(&self) -> Result<()> {
        if !self.may_write {
            return Ok(());
        }
        let _turn = self.flushing.lock().await;
        let mut taken = Taken::all(&self.dirty);
        let mut runs = Vec::new();
        for leaf in &taken.leaves {
            self.dirty_runs(*leaf, &mut runs);
        }
        let outcome = self.write_runs(runs).await;
        if outcome.is_ok() {
            taken.leaves.clear();
        }
        outcome
    }

    /// Makes all writes stable: below, or in the file if there is one.
    pub(super) async fn flush(&self) -> Result<()> {
        if !self.is_kept() {
            self.write_all_back().await?;
            return self.stable_base().await;
        }
        self.sync().await?;
        if self.below_changed.load(SeqCst) { self.stable_base().await } else { Ok(()) }
    }

    /// As [`Cache::flush_base`], for a client, who is to hear of all that failed.
    pub(super) async fn stable_base(&self) -> Result<()> {
        let owed = self.unsettled.take_failure();
        let outcome = self.flush_base().await;
        owed.map_or(outcome, Err)
    }

    /// Makes of clean blocks, which are claimed, such as are not here, also in the file.
    pub(super) async fn forget<'a>(&self, claims: Vec<Claim<'a>>) -> Result<Vec<Claim<'a>>> {
        let mut any = false;
        let claims: Vec<Claim<'a>> = claims
            .into_iter()
            .map(|claim| match claim.was() {
                State::Copied | State::Zero => {
                    any = true;
                    claim.turn(State::Base)
                }
                _ => claim,
            })
            .collect();
        if any && self.is_kept() {
            self.sync().await?;
        }
        Ok(claims)
    }

    /// The dirty blocks of a range, as bytes, in order.
    pub(super) fn dirty_in(&self, r: Range) -> Vec<Range> {
        let blocks = self.blocks_of(r);
        let (mut block, mut found) = (blocks.start, Vec::new());
        while block < blocks.end {
            let (state, same) = self.blocks.map().run(block, blocks.end - block);
            if state == State::Dirty {
                found.extend(self.bytes(block, same).intersect(r));
            }
            block += same;
        }
        found
    }
}
