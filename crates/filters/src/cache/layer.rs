//! The disk that clients see: requests against the cache, and the disk below where the cache knows nothing.

use super::{Cache, Mode, blocks::Shard};
use async_lock::MutexGuardArc;
use disk::{Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Range, Result, WriteFlags, ZeroFlags};
use reactor::InFlight;
use std::sync::Arc;

pub(super) struct Layer {
    pub(super) facts: Facts,
    pub(super) cache: Arc<Cache>,
}

/// The shards of a request's blocks, locked in their order, so that no two requests wait for each other.
struct Locked(Vec<(usize, MutexGuardArc<Shard>)>);

impl Locked {
    fn of(&mut self, shard: usize) -> &mut Shard {
        let at = self.0.binary_search_by_key(&shard, |(number, _)| *number).expect("it was locked");
        &mut self.0[at].1
    }
}

impl Cache {
    /// The blocks that a range touches, from the first to before the last.
    fn blocks(&self, r: Range) -> std::ops::Range<u64> {
        r.start / self.block..(r.end() - 1) / self.block + 1
    }

    /// A block's bytes; the last one may be short.
    fn bytes(&self, block: u64) -> Range {
        let start = block * self.block;
        Range::new(start, self.block.min(self.end - start))
    }

    fn shard(&self, block: u64) -> usize {
        (block % self.shards.len() as u64) as usize
    }

    /// Locks the shards of these blocks.
    async fn lock(&self, blocks: std::ops::Range<u64>) -> Locked {
        let count = self.shards.len() as u64;
        let mut wanted: Vec<usize> = if blocks.end - blocks.start >= count {
            (0..self.shards.len()).collect()
        } else {
            blocks.map(|block| self.shard(block)).collect()
        };
        wanted.sort_unstable();
        let mut locked = Vec::with_capacity(wanted.len());
        for shard in wanted {
            locked.push((shard, self.shards[shard].lock_arc().await));
        }
        Locked(locked)
    }

    /// Reads the disk below, in as many pieces as it takes.
    async fn read_base(&self, r: Range) -> Result<Data> {
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

    async fn write_base(&self, at: u64, data: &Data, flags: WriteFlags) -> Result<()> {
        let most = u64::from(self.facts.blocks.maximum);
        for part in Range::new(at, data.len()).split_at_multiples(most) {
            self.base.write(part.start, data.slice(part.start - at, part.len), flags).await?;
        }
        Ok(())
    }

    /// A copy of a part of a block that lies at `place`: once the shard is free, others may use the place.
    fn copy(&self, place: u64, from: u64, len: u64) -> Result<Data> {
        let there = self.store.read(place + from, len)?;
        Ok(Data::fill(len as usize, |bytes| there.copy_to(bytes)))
    }

    /// Writes a dirty block to the disk below. When that fails it stays dirty.
    async fn write_back(&self, shard: &mut Shard, block: u64) -> Result<()> {
        if let Some(place) = shard.find(block, self.limits) {
            let r = self.bytes(block);
            let data = self.copy(place, 0, r.len)?;
            self.write_base(r.start, &data, WriteFlags::default()).await?;
        }
        shard.mark_clean(block);
        Ok(())
    }

    /// Gives up blocks, the oldest first, if there are too many.
    async fn make_room(&self, shard: &mut Shard, but: u64) -> Result<()> {
        let (Some(high), Some(low)) = (self.limits.high, self.limits.low) else { return Ok(()) };
        if shard.len() < high {
            return Ok(());
        }
        while shard.len() > low.min(high - 1) {
            let Some(oldest) = shard.oldest(but) else { return Ok(()) };
            if shard.is_dirty(oldest) {
                self.write_back(shard, oldest).await?;
            }
            shard.forget(oldest);
        }
        Ok(())
    }

    /// Puts a whole block into the cache.
    async fn put(&self, shard: &mut Shard, block: u64, data: &Data, dirty: bool) -> Result<()> {
        if !shard.has(block) {
            self.make_room(shard, block).await?;
        }
        shard.put(&self.store, self.limits, self.block, block, data, dirty)
    }

    /// Reads a range, of which `keep` says whether what comes from below is kept.
    async fn read(&self, r: Range, keep: bool) -> Result<Data> {
        let blocks = self.blocks(r);
        let mut locked = self.lock(blocks.clone()).await;
        let mut parts = Vec::new();
        let mut block = blocks.start;
        while block < blocks.end {
            let inside = self.bytes(block).intersect(r).unwrap_or(r);
            let shard = locked.of(self.shard(block));
            if let Some(place) = shard.find(block, self.limits) {
                parts.push(self.copy(place, inside.start - block * self.block, inside.len)?);
                block += 1;
                continue;
            }
            // All that is missing up to the next block that is not.
            let first = block;
            while block < blocks.end && !locked.of(self.shard(block)).has(block) {
                block += 1;
            }
            let (start, end) = (self.bytes(first).start, self.bytes(block - 1).end());
            let missing = Range::new(start, end - start);
            if !keep {
                let wanted = missing.intersect(r).unwrap_or(r);
                parts.push(self.read_base(wanted).await?);
                continue;
            }
            let data = self.read_base(missing).await?;
            for block in first..block {
                let bytes = self.bytes(block);
                let own = data.slice(bytes.start - start, bytes.len);
                let shard = locked.of(self.shard(block));
                // The reader need not care whether it can be kept.
                if let Err(e) = self.put(shard, block, &own, false).await {
                    tracing::debug!(target: "diskpipe", "cache: a block that was read is not kept: {e}");
                }
            }
            let wanted = missing.intersect(r).unwrap_or(r);
            parts.push(data.slice(wanted.start - start, wanted.len));
        }
        Ok(Data::join(parts))
    }

    /// Brings all blocks of a range into the cache.
    async fn fetch(&self, r: Range) -> Result<()> {
        for part in r.split_at_multiples(self.block.max(1 << 20)) {
            self.read(part, true).await?;
        }
        Ok(())
    }

    /// Writes one block's part of a request into the cache; where that has no room, to the disk below.
    async fn write_block(&self, shard: &mut Shard, block: u64, inside: Range, data: &Data) -> Result<()> {
        let bytes = self.bytes(block);
        if let Some(place) = shard.find(block, self.limits) {
            return shard.change(&self.store, place, block, inside.start - bytes.start, data, true);
        }
        let whole = if inside == bytes {
            data.clone()
        } else {
            let old = self.read_base(bytes).await?;
            merged(&old, inside.start - bytes.start, data.clone())
        };
        match self.put(shard, block, &whole, true).await {
            Ok(()) => Ok(()),
            // Nothing is kept of it, so that the disk below alone holds it.
            Err(_) => self.write_base(inside.start, data, WriteFlags::default()).await,
        }
    }

    async fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Result<()> {
        let r = Range::new(at, data.len());
        let blocks = self.blocks(r);
        let mut locked = self.lock(blocks.clone()).await;
        for block in blocks.clone() {
            let inside = self.bytes(block).intersect(r).unwrap_or(r);
            let part = data.slice(inside.start - at, inside.len);
            let shard = locked.of(self.shard(block));
            self.write_block(shard, block, inside, &part).await?;
        }
        if flags.fua {
            for block in blocks {
                let shard = locked.of(self.shard(block));
                if shard.is_dirty(block) {
                    self.write_back(shard, block).await?;
                }
            }
            drop(locked);
            self.base.flush().await?;
        }
        Ok(())
    }

    /// Writes to the disk below, and then into the cache: whole blocks, and parts of those that are in it.
    async fn write_through(&self, at: u64, data: Data, flags: WriteFlags) -> Result<()> {
        let r = Range::new(at, data.len());
        let blocks = self.blocks(r);
        let mut locked = self.lock(blocks.clone()).await;
        let mut afterwards = Vec::new();
        for block in blocks.clone() {
            let bytes = self.bytes(block);
            let inside = bytes.intersect(r).unwrap_or(r);
            let part = data.slice(inside.start - at, inside.len);
            let shard = locked.of(self.shard(block));
            if inside == bytes {
                afterwards.push((block, part));
            } else if let Some(place) = shard.find(block, self.limits) {
                let old = self.copy(place, 0, bytes.len)?;
                afterwards.push((block, merged(&old, inside.start - bytes.start, part)));
            }
            // Until it is done, and if it fails or is given up, below may be old or new bytes.
            shard.forget(block);
        }
        let native = WriteFlags { fua: flags.fua && self.base.facts().fua };
        self.write_base(at, &data, native).await?;
        for (block, data) in afterwards {
            let shard = locked.of(self.shard(block));
            // The disk below has it, so that the cache may do without.
            if let Err(e) = self.put(shard, block, &data, false).await {
                tracing::debug!(target: "diskpipe", "cache: a block that was written is not kept: {e}");
            }
        }
        drop(locked);
        if flags.fua && !native.fua { self.base.flush().await } else { Ok(()) }
    }

    /// Makes a request of the disk below that changes a whole range, and forgets what the cache has of it.
    async fn around(&self, r: Range, request: impl FnOnce(&dyn Disk) -> Io<'_, ()> + Send) -> Result<()> {
        let blocks = self.blocks(r);
        let mut locked = self.lock(blocks.clone()).await;
        // Bytes beside the range must not be lost with the block.
        let mut whole = blocks.clone();
        for block in [blocks.start, blocks.end - 1] {
            let bytes = self.bytes(block);
            if bytes.intersect(r) == Some(bytes) {
                continue;
            }
            let shard = locked.of(self.shard(block));
            if shard.is_dirty(block) {
                self.write_back(shard, block).await?;
            }
            // It is clean now: below is what it holds, and can be read again.
            shard.forget(block);
            if block == blocks.start {
                whole.start = block + 1;
            } else {
                whole.end = block;
            }
        }
        // Until it is done, and if it fails or is given up, below may be old or new bytes. What is dirty holds then.
        let all = whole.start < whole.end;
        for (_, shard) in locked.0.iter_mut().filter(|_| all) {
            shard.forget_clean(whole.start, whole.end);
        }
        request(&*self.base).await?;
        for (_, shard) in locked.0.iter_mut().filter(|_| all) {
            shard.forget_all(whole.start, whole.end);
        }
        Ok(())
    }

    /// Writes back all that is dirty.
    async fn write_all_back(&self) -> Result<()> {
        let mut shards = InFlight::new();
        let mut outcome = Ok(());
        for shard in &self.shards {
            shards.push(Box::pin(async move {
                let mut shard = shard.lock_arc().await;
                while let Some(block) = shard.first_dirty() {
                    self.write_back(&mut shard, block).await?;
                }
                Ok(())
            }));
            // So many at once, and no more.
            if shards.len() >= 64 {
                outcome = outcome.and(shards.next().await.unwrap_or(Ok(())));
            }
        }
        while let Some(done) = shards.next().await {
            outcome = outcome.and(done);
        }
        outcome
    }

    /// Makes all writes stable.
    pub(super) async fn flush(&self) -> Result<()> {
        let _turn = self.flushing.lock().await;
        if self.may_write {
            self.write_all_back().await?;
        }
        if self.base.facts().flush { self.base.flush().await } else { Ok(()) }
    }

    async fn extents(&self, r: Range, limit: usize) -> Result<Extents> {
        let blocks = self.blocks(r);
        // First, so that a block written back meanwhile counts in one way or the other.
        let mut dirty = Vec::new();
        if self.may_write && self.mode != Mode::WriteThrough {
            for shard in &self.shards {
                dirty.extend(shard.lock().await.dirty(blocks.start, blocks.end));
            }
            dirty.sort_unstable();
        }
        let below = self.base.extents(r, limit).await?;
        if dirty.is_empty() {
            return Ok(below);
        }
        let mut extents = Extents::new();
        let mut dirty = dirty.into_iter().filter_map(|block| self.bytes(block).intersect(r)).peekable();
        for (range, kind) in below.ranges(r.start) {
            let mut at = range.start;
            while at < range.end() {
                while dirty.next_if(|own| own.end() <= at).is_some() {}
                let own = dirty.peek().and_then(|own| own.intersect(Range::new(at, range.end() - at)));
                let until = own.map_or(range.end(), |own| own.start);
                extents.push(until - at, kind);
                at = until;
                if let Some(own) = own {
                    extents.push(own.len, Kind::DATA);
                    at = own.end();
                }
            }
        }
        Ok(extents)
    }
}

/// `old` with `part` in it from byte `from` on.
fn merged(old: &Data, from: u64, part: Data) -> Data {
    let end = from + part.len();
    Data::join(vec![old.slice(0, from), part, old.slice(end, old.len() - end)])
}

impl Layer {
    /// A read of a part of a block that is in the cache, if nobody else has its shard just now.
    fn hit(&self, r: Range) -> Option<Result<Data>> {
        let cache = &*self.cache;
        let block = r.start / cache.block;
        if r.end() > cache.bytes(block).end() {
            return None;
        }
        let mut shard = cache.shards[cache.shard(block)].try_lock()?;
        let place = shard.find(block, cache.limits)?;
        Some(cache.copy(place, r.start - block * cache.block, r.len))
    }

    /// Whether none of a range is in the cache, as far as can be seen without waiting.
    fn is_absent(&self, r: Range) -> bool {
        let cache = &*self.cache;
        cache
            .blocks(r)
            .all(|block| cache.shards[cache.shard(block)].try_lock().is_some_and(|shard| !shard.has(block)))
    }

    /// A write to a part of a block that is in the cache, if nobody else has its shard just now.
    fn overwritten(&self, at: u64, data: &Data) -> Option<Result<()>> {
        let cache = &*self.cache;
        let block = at / cache.block;
        if cache.mode == Mode::WriteThrough || at + data.len() > cache.bytes(block).end() {
            return None;
        }
        let mut shard = cache.shards[cache.shard(block)].try_lock()?;
        let place = shard.find(block, cache.limits)?;
        Some(shard.change(&cache.store, place, block, at - block * cache.block, data, true))
    }

    fn refused(&self) -> Error {
        Error::new(Errno::PERM, "this client may only read")
    }
}

impl Disk for Layer {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        if let Some(found) = self.hit(r) {
            return found.into();
        }
        let keep = self.cache.on_read.now();
        if !keep && self.is_absent(r) {
            return self.cache.base.read(r);
        }
        Io::later(self.cache.read(r, keep))
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        if !self.facts.write {
            return self.refused().into();
        }
        if !(flags.fua && self.cache.mode == Mode::WriteBack)
            && let Some(done) = self.overwritten(at, &data)
        {
            return done.into();
        }
        match self.cache.mode {
            Mode::WriteBack => Io::later(self.cache.write(at, data, flags)),
            Mode::WriteThrough => Io::later(self.cache.write_through(at, data, flags)),
            Mode::Unsafe => Io::later(self.cache.write(at, data, WriteFlags { fua: false })),
        }
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if !self.facts.zero {
            return self.refused().into();
        }
        let below = ZeroFlags { fua: false, ..flags };
        Io::later(async move {
            self.cache.around(r, |base| base.zero(r, below)).await?;
            self.stable(flags.fua).await
        })
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        if !self.facts.trim {
            return self.refused().into();
        }
        Io::later(async move {
            self.cache.around(r, |base| base.trim(r, WriteFlags::default())).await?;
            self.stable(flags.fua).await
        })
    }
    fn flush(&self) -> Io<'_, ()> {
        if self.cache.mode == Mode::Unsafe {
            return Io::ok(());
        }
        Io::later(self.cache.flush())
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        Io::later(self.cache.fetch(r))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        Io::later(self.cache.extents(r, limit))
    }
    /// Others may still use the disk below; but what this client wrote need not wait for them.
    fn close(&self) -> Io<'_, ()> {
        if self.cache.mode != Mode::WriteBack || !self.facts.write {
            return Io::ok(());
        }
        Io::later(self.cache.flush())
    }
}

impl Layer {
    /// What was changed below is stable.
    async fn stable(&self, fua: bool) -> Result<()> {
        if fua && self.cache.mode != Mode::Unsafe { self.cache.base.flush().await } else { Ok(()) }
    }
}
