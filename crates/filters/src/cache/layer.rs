//! The disk that clients see: requests against the cache, and the disk below where the cache knows nothing.
//!
//! What is here is answered at once, without a lock; everything else is a future.

use super::{Mode, blocks::Cache};
use disk::{Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Range, Result, WriteFlags, ZeroFlags};
use std::sync::Arc;
use store::{Claim, LEAF_BLOCKS, Leaf, Spot, State};

pub(super) struct Layer {
    pub(super) facts: Facts,
    pub(super) cache: Arc<Cache>,
}

/// The next blocks of a request that are looked at together.
struct Piece<'a> {
    leaf: &'a Leaf,
    /// In the leaf.
    at: usize,
    /// The first of them on the disk.
    block: u64,
    state: State,
    /// So many have this state; of those that are changed in part, only one.
    count: usize,
}

impl Cache {
    /// The piece of a request that begins at byte `at`.
    fn piece(&self, at: u64, r: Range, limit: u64) -> Piece<'_> {
        let block = at / self.block;
        let (leaf, first) = self.blocks.leaf(block);
        let whole = (r.end().min(self.end) - block * self.block) / self.block
            + u64::from(r.end() >= self.end && !self.end.is_multiple_of(self.block));
        let count = if at.is_multiple_of(self.block) { whole.clamp(1, limit) } else { 1 };
        let (state, count) = leaf.run(first, LEAF_BLOCKS.min(first.saturating_add(count as usize)));
        Piece { leaf, at: first, block, state, count }
    }

    /// What a claim has of a request, from byte `at` on.
    fn part(&self, claim: &Claim<'_>, at: u64, r: Range) -> Range {
        let count = (claim.to - claim.from) as u64;
        let bytes = self.bytes(at / self.block, count);
        Range::new(at, bytes.end().min(r.end()) - at)
    }

    /// Bytes that are here. Nobody gives them up meanwhile, if that is possible at all: then it may have to wait.
    async fn here(&self, leaf: &Leaf, at: usize, part: Range) -> Result<Option<Data>> {
        let (state, _) = leaf.run(at, at + 1);
        match state {
            _ if self.recent.is_none() => {
                self.blocks.bytes().read(self.place(leaf, part.start), part.len).map(Some)
            }
            State::Copied | State::Dirty => {
                let Some(claim) = leaf.claim(at, at + 1, state) else { return Ok(None) };
                let data = self.copy(leaf, part)?;
                claim.end(state);
                Ok(Some(data))
            }
            _ => {
                leaf.settled(at).await;
                Ok(None)
            }
        }
    }

    /// Reads a range, of which `keep` says whether what comes from below is kept.
    async fn read(&self, r: Range, keep: bool) -> Result<Data> {
        let mut parts = Vec::new();
        let mut at = r.start;
        while at < r.end() {
            let block = at / self.block;
            let last = (r.end() - 1) / self.block + 1;
            let (state, same) = self.blocks.map().run(block, last - block);
            let run = self.bytes(block, same);
            let part = Range::new(at, run.end().min(r.end()) - at);
            let data = match state {
                State::Copied | State::Dirty => {
                    let (leaf, first) = self.blocks.leaf(block);
                    if let Some(recent) = &self.recent {
                        recent.touch(block);
                        let part = Range::new(at, self.bytes(block, 1).end().min(r.end()) - at);
                        self.here(leaf, first, part).await?
                    } else {
                        self.here(leaf, first, part).await?
                    }
                }
                State::Zero => Some(Data::zeroes(part.len)),
                _ if keep => self.fetch_run(at, r).await?,
                _ => Some(self.read_base(part).await?),
            };
            // Else somebody changed the block just now: look again.
            if let Some(data) = data {
                at += data.len();
                parts.push(data);
            }
        }
        Ok(Data::join(parts))
    }

    /// Reads the next blocks, which are not here, and keeps them. Several who want the same read it once.
    async fn fetch_run(&self, at: u64, r: Range) -> Result<Option<Data>> {
        // The reader need not care whether it can be kept.
        if let Err(e) = self.make_room().await {
            tracing::debug!(target: "diskpipe", "cache: there is no room to be had: {e}");
        }
        let _reading = self.changing.read().await;
        let block = at / self.block;
        let (leaf, first) = self.blocks.leaf(block);
        let wanted = (r.end() - 1) / self.block + 1 - block;
        let most = wanted.min(self.run_limit()).min(((1 << 20) / self.block).max(1));
        let (state, count) = leaf.run(first, LEAF_BLOCKS.min(first + most as usize));
        if state != State::Base {
            if state == State::BaseBusy {
                drop(_reading);
                leaf.settled(first).await;
            }
            return Ok(None);
        }
        let Some(claim) = leaf.claim(first, first + count, State::Base) else { return Ok(None) };
        let count = (claim.to - claim.from) as u64;
        let bytes = self.bytes(block, count);
        let data = self.read_base(bytes).await?;
        let full = self.recent.as_ref().is_some_and(|recent| recent.count() >= recent.high + recent.at_once);
        match if full {
            Err(Errno::NOSPC.into())
        } else {
            self.blocks.bytes().write(self.place(leaf, bytes.start), &data)
        } {
            Ok(()) => {
                claim.end(State::Copied);
                self.came(block, count);
            }
            Err(e) => tracing::debug!(target: "diskpipe", "cache: what was read is not kept: {e}"),
        }
        let part = Range::new(at, bytes.end().min(r.end()) - at);
        Ok(Some(data.slice(part.start - bytes.start, part.len)))
    }

    /// Brings all blocks of a range into the cache.
    async fn fetch(&self, r: Range) -> Result<()> {
        for part in r.split_at_multiples(self.block.max(1 << 20)) {
            self.read(part, true).await?;
        }
        Ok(())
    }

    /// Writes into the cache; where that has no room, to the disk below.
    async fn write(&self, at: u64, data: Data, fua: bool) -> Result<()> {
        let r = Range::new(at, data.len());
        let mut at = at;
        while at < r.end() {
            at += self.write_piece(at, r, &data).await?;
        }
        if !fua {
            return Ok(());
        }
        if self.is_kept() {
            return self.flush().await;
        }
        self.write_back(self.blocks_of(r)).await?;
        self.flush_base().await
    }

    /// Writes the next blocks of one state; says how many bytes that were.
    async fn write_piece(&self, at: u64, r: Range, data: &Data) -> Result<u64> {
        let Piece { leaf, at: first, block, state, count } = self.piece(at, r, self.run_limit());
        if state != state.settled() {
            if leaf.stays_busy(first) {
                leaf.settled(first).await;
            }
            return Ok(0);
        }
        if matches!(state, State::Base | State::Zero) {
            return self.write_absent(at, r, data).await;
        }
        // Lost to another request: look again.
        let Some(mut claim) = leaf.claim(first, first + count, state) else { return Ok(0) };
        if let Some(recent) = &self.recent {
            recent.touch(block);
        }
        let part = self.part(&claim, at, r);
        if state == State::Copied && self.is_kept() {
            claim = claim.turn(State::Dirty);
            self.dirty.note(block);
            self.sync().await?;
        }
        self.blocks.bytes().overwrite(self.place(leaf, at), &data.slice(at - r.start, part.len))?;
        claim.end(State::Dirty);
        if state == State::Copied {
            self.dirty.note(block);
        }
        Ok(part.len)
    }

    async fn write_absent(&self, at: u64, r: Range, data: &Data) -> Result<u64> {
        let room = self.make_room().await;
        let _reading = self.changing.read().await;
        let Piece { leaf, at: first, block, state, count } = self.piece(at, r, self.run_limit());
        if !matches!(state, State::Base | State::Zero) {
            return Ok(0);
        }
        let Some(claim) = leaf.claim(first, first + count, state) else { return Ok(0) };
        let part = self.part(&claim, at, r);
        let count = (claim.to - claim.from) as u64;
        let bytes = self.bytes(block, count);
        let own = data.slice(at - r.start, part.len);
        let whole = if part == bytes {
            own.clone()
        } else {
            let old = match state {
                State::Zero => Data::zeroes(bytes.len),
                _ => self.read_base(bytes).await?,
            };
            merged(&old, part.start - bytes.start, own.clone())
        };
        let limit = self.recent.as_ref().filter(|recent| recent.count() >= recent.high + recent.at_once);
        let put = match (room, limit) {
            (Err(e), Some(_)) => Err(e),
            // A short last block still has the room of a whole one, which a change to it later may use.
            _ => self.blocks.bytes().write(self.place(leaf, bytes.start), &whole),
        };
        match put {
            Ok(()) => {
                claim.end(State::Dirty);
                self.dirty.note(block);
                self.came(block, count);
            }
            // Nothing is kept of it, so that the disk below alone holds it.
            Err(_) => self.write_base(part.start, &own, WriteFlags::default()).await?,
        }
        Ok(part.len)
    }

    /// Claims all blocks of a range, in order.
    async fn claim_all(&self, r: Range) -> Vec<(u64, Claim<'_>)> {
        let (mut at, mut claims) = (r.start, Vec::new());
        while at < r.end() {
            let Piece { leaf, at: first, state, count, .. } = self.piece(at, r, u64::MAX);
            if state != state.settled() {
                leaf.settled(first).await;
                continue;
            }
            if let Some(claim) = leaf.claim(first, first + count, state) {
                let part = self.part(&claim, at, r);
                claims.push((at, claim));
                at = part.end();
            }
        }
        claims
    }

    /// Writes to the disk below, and then into the cache: whole blocks, and parts of those that are in it.
    async fn write_through(&self, at: u64, data: Data, flags: WriteFlags) -> Result<()> {
        let r = Range::new(at, data.len());
        if let Err(e) = self.make_room().await {
            tracing::debug!(target: "diskpipe", "cache: there is no room to be had: {e}");
        }
        let _reading = self.changing.read().await;
        let (places, claims): (Vec<u64>, Vec<Claim<'_>>) = self.claim_all(r).await.into_iter().unzip();
        // Until it is done, and if it fails or is given up, below may be old or new bytes.
        let was: Vec<State> = claims.iter().map(Claim::was).collect();
        let claims = self.forget(claims).await?;
        let native = WriteFlags { fua: flags.fua && self.base.facts().fua };
        self.write_base(at, &data, native).await?;
        for ((from, claim), was) in places.into_iter().zip(claims).zip(was) {
            let part = self.part(&claim, from, r);
            let (place, own) = (self.place(claim.leaf, from), data.slice(from - at, part.len));
            let count = (claim.to - claim.from) as u64;
            let bytes = self.bytes(from / self.block, count);
            // In a file, what is not here can be changed without a word; so it is not put again before it is read.
            let put = match was {
                State::Dirty => true,
                State::Copied => !self.is_kept(),
                _ => part == bytes && !self.is_kept() && count <= self.run_limit(),
            };
            if !put {
                continue;
            }
            match self.blocks.bytes().write(place, &own) {
                Ok(()) if was == State::Dirty => claim.end(was),
                Ok(()) => {
                    claim.end(State::Copied);
                    if was == State::Base {
                        self.came(from / self.block, count);
                    }
                }
                Err(e) if was == State::Dirty => return Err(e),
                // The disk below has it, so that the cache may do without.
                Err(_) => {}
            }
        }
        if flags.fua && !native.fua { self.stable_base().await } else { Ok(()) }
    }

    /// Makes a request of the disk below that changes a whole range, to zeroes if `zero` says so, and forgets what the
    /// cache has of it.
    async fn around(
        &self,
        r: Range,
        zero: bool,
        request: impl FnOnce(&dyn Disk) -> Io<'_, ()> + Send,
    ) -> Result<()> {
        let _alone = self.changing.write().await;
        // What a trimmed block reads as is the affair of the disk below alone.
        for block in [r.start / self.block, (r.end() - 1) / self.block] {
            if !zero && self.bytes(block, 1).intersect(r) != Some(self.bytes(block, 1)) {
                self.write_back(block..block + 1).await?;
            }
        }
        let (mut at, mut places, mut claims) = (r.start, Vec::new(), Vec::new());
        while at < r.end() {
            let block = at / self.block;
            if let Spot::Absent { zero: false, blocks } = self.blocks.map().find(block) {
                at = block.saturating_add(blocks).saturating_mul(self.block);
                continue;
            }
            let Piece { leaf, at: first, state, count, .. } = self.piece(at, r, u64::MAX);
            if state == State::Base {
                at = self.bytes(block, count as u64).end();
            } else if state != state.settled() {
                leaf.settled(first).await;
            } else if let Some(claim) = leaf.claim(first, first + count, state) {
                let part = self.part(&claim, at, r);
                places.push(at);
                claims.push(claim);
                at = part.end();
            }
        }
        // Until it is done, and if it fails or is given up, below may be old or new bytes. What is dirty holds then.
        let claims = self.forget(claims).await?;
        self.disown().await?;
        self.change_base(request).await?;
        if self.is_kept() && claims.iter().any(|claim| claim.was() == State::Dirty) {
            // Before the file may say that they are not here: what it held was perhaps promised to last.
            self.flush_base().await?;
        }
        for (from, claim) in places.into_iter().zip(claims) {
            let part = self.part(&claim, from, r);
            if claim.was() != State::Dirty {
                continue;
            }
            if part == self.bytes(from / self.block, (claim.to - claim.from) as u64) {
                claim.end(State::Base);
            } else if zero {
                let outcome =
                    self.blocks.bytes().overwrite(self.place(claim.leaf, from), &Data::zeroes(part.len));
                claim.end(State::Dirty);
                outcome?;
            }
        }
        Ok(())
    }

    async fn extents(&self, r: Range, limit: usize) -> Result<Extents> {
        // First, so that a block written back meanwhile counts in one way or the other.
        let dirty = self.dirty_in(r);
        let below = self.base.extents(r, limit).await?;
        if dirty.is_empty() {
            return Ok(below);
        }
        let mut extents = Extents::new();
        let mut dirty = dirty.into_iter().peekable();
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
    /// A read of what is here.
    #[inline]
    fn hit(&self, r: Range) -> Option<Result<Data>> {
        let cache = &*self.cache;
        let (first, last) = (r.start / cache.block, (r.end() - 1) / cache.block);
        let Spot::Leaf(leaf, at) = cache.blocks.map().find(first) else { return None };
        let end = at + (last - first + 1) as usize;
        if end > LEAF_BLOCKS {
            return None;
        }
        let (state, same) = leaf.run(at, end);
        if at + same < end || !matches!(state.settled(), State::Copied | State::Dirty) {
            return None;
        }
        let Some(recent) = &cache.recent else {
            return Some(cache.blocks.bytes().read(cache.place(leaf, r.start), r.len));
        };
        if first != last || state != state.settled() {
            return None;
        }
        recent.touch(first);
        let claim = leaf.claim(at, end, state)?;
        let data = cache.copy(leaf, r);
        claim.end(state);
        Some(data)
    }

    /// Whether none of a range is in the cache.
    fn is_absent(&self, r: Range) -> bool {
        let blocks = self.cache.blocks_of(r);
        let mut block = blocks.start;
        while block < blocks.end {
            let (state, same) = self.cache.blocks.map().run(block, blocks.end - block);
            if state != State::Base {
                return false;
            }
            block += same;
        }
        true
    }

    /// A write to what is here, or of whole blocks that are not, if nobody else has them just now.
    #[inline]
    fn written(&self, at: u64, data: &Data) -> Option<Result<()>> {
        let cache = &*self.cache;
        let end = at + data.len();
        let (first, last) = (at / cache.block, (end - 1) / cache.block);
        let whole = at.is_multiple_of(cache.block) && (end.is_multiple_of(cache.block) || end == cache.end);
        let (leaf, from) = match cache.blocks.map().find(first) {
            Spot::Leaf(leaf, from) => (leaf, from),
            Spot::Absent { .. } if whole => cache.blocks.leaf(first),
            Spot::Absent { .. } => return None,
        };
        let to = from + (last - first + 1) as usize;
        if to > LEAF_BLOCKS {
            return None;
        }
        let (state, same) = leaf.run(from, to);
        let possible = match state {
            State::Dirty => true,
            State::Copied => !cache.is_kept(),
            State::Base => whole && cache.recent.is_none(),
            _ => false,
        };
        if from + same < to || !possible {
            return None;
        }
        let claim = leaf.claim(from, to, state)?;
        if claim.to < to {
            return None;
        }
        let place = cache.place(leaf, at);
        if state == State::Base {
            // Without room, the disk below takes it.
            cache.blocks.bytes().write(place, data).ok()?;
        } else if let Err(e) = cache.blocks.bytes().overwrite(place, data) {
            return Some(Err(e));
        }
        claim.end(State::Dirty);
        if state != State::Dirty {
            cache.dirty.note(first);
        }
        if let Some(recent) = &cache.recent {
            recent.touch(first);
        }
        Some(Ok(()))
    }

    fn refused(&self) -> Error {
        Error::new(Errno::PERM, "this client may only read")
    }

    /// What was changed below is stable.
    async fn stable(&self, fua: bool) -> Result<()> {
        match self.cache.mode {
            _ if !fua => Ok(()),
            Mode::Unsafe => Ok(()),
            _ if self.cache.is_kept() => self.cache.flush().await,
            _ => self.cache.stable_base().await,
        }
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
        let mode = self.cache.mode;
        if mode != Mode::WriteThrough
            && !(flags.fua && mode == Mode::WriteBack)
            && let Some(done) = self.written(at, &data)
        {
            return done.into();
        }
        match mode {
            Mode::WriteBack => Io::later(self.cache.write(at, data, flags.fua)),
            Mode::WriteThrough => Io::later(async move { self.cache.write_through(at, data, flags).await }),
            Mode::Unsafe => Io::later(self.cache.write(at, data, false)),
        }
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if !self.facts.zero {
            return self.refused().into();
        }
        let below = ZeroFlags { fua: false, ..flags };
        Io::later(async move {
            self.cache.around(r, true, |base| base.zero(r, below)).await?;
            if flags.fua && self.cache.mode == Mode::WriteBack && !self.cache.is_kept() {
                // Of blocks at its ends that are dirty, the cache alone knows it.
                self.cache.write_back(self.cache.blocks_of(r)).await?;
            }
            self.stable(flags.fua).await
        })
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        if !self.facts.trim {
            return self.refused().into();
        }
        Io::later(async move {
            self.cache.around(r, false, |base| base.trim(r, WriteFlags::default())).await?;
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
        Io::later(async move {
            self.cache.write_all_back().await?;
            self.cache.flush().await
        })
    }
}
