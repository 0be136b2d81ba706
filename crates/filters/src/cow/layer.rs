//! The disk that one connection has: the base with the overlay over it.

use super::{Cow, Overlay, kept::Leave};
use disk::{
    BufMut, Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Range, Result, WriteFlags, ZeroFlags,
};
use std::sync::Arc;
use store::{Claim, LEAF_BLOCKS, Leaf, Spot, State};

/// What is read from the base at once to be kept.
const KEEP_AT_ONCE: u64 = 1 << 20;

pub(super) struct Layer {
    pub(super) facts: Facts,
    pub(super) overlay: Arc<Overlay>,
    pub(super) base: Arc<dyn Disk>,
    /// What says when the overlay is filled without being written to; `None`: never, it is only read.
    pub(super) fills: Option<Arc<Cow>>,
    /// Comes after `overlay`: whoever leaves last closes it.
    #[expect(dead_code, reason = "it works by being dropped")]
    pub(super) leave: Option<Leave>,
}

/// A change under way: bytes to be written, or a range to become zero (`data` is `None`).
struct Change {
    range: Range,
    data: Option<Data>,
    /// Up to here it is done.
    at: u64,
}

impl Change {
    fn write(at: u64, data: Data) -> Change {
        Change { range: Range::new(at, data.len()), data: Some(data), at }
    }
    fn zero(range: Range) -> Change {
        Change { range, data: None, at: range.start }
    }
    fn rest(&self) -> Range {
        Range::new(self.at, self.range.end() - self.at)
    }
    /// The bytes for a part of it.
    fn bytes(&self, part: Range) -> Data {
        match &self.data {
            Some(data) if part == self.range => data.clone(),
            Some(data) => data.slice(part.start - self.range.start, part.len),
            None => Data::zeroes(part.len),
        }
    }
}

/// Why a change cannot go on at once.
enum Stop<'a> {
    /// It is done.
    Done,
    /// Another request is changing this block.
    Busy(&'a Leaf, usize),
    /// A claimed block must come from the base first.
    Copy(Claim<'a>, Io<'a, Data>),
}

impl Layer {
    /// The next part of a range that is all of one state; those of the overlay also lie together in the store.
    fn piece(&self, at: u64, r: Range) -> (State, Range) {
        let overlay = &*self.overlay;
        let blocks = (r.end() - 1) / overlay.block - at / overlay.block + 1;
        let (state, mut same) = overlay.map().run(at / overlay.block, blocks);
        while state != State::Copied && same < blocks {
            let (next, more) = overlay.map().run(at / overlay.block + same, blocks - same);
            if next != state {
                break;
            }
            same += more;
        }
        (state, overlay.part(at, same, r))
    }

    fn read_piece(&self, state: State, part: Range) -> Io<'_, Data> {
        match state {
            State::Copied => {
                let (leaf, _) = self.overlay.leaf(part.start);
                let place = self.overlay.place(leaf, part.start);
                match self.overlay.store().peek(place, part.len) {
                    Some(read) => read.into(),
                    None => self.read_later(place, part.len),
                }
            }
            State::Zero => Io::ok(Data::zeroes(part.len)),
            _ if self.fills.as_ref().is_some_and(|fills| fills.cow_on_read.now()) => self.read_and_keep(part),
            _ => self.base.read(part),
        }
    }

    /// Reads what must come from a disk, while others are served.
    fn read_later(&self, place: u64, len: u64) -> Io<'_, Data> {
        let overlay = self.overlay.clone();
        Io::later(async move { reactor::unblock(move || overlay.store().read(place, len)).await? })
    }

    /// Reads a part of the base by whole blocks, and keeps them. Keeping may fail; the reader need not care.
    fn read_and_keep(&self, part: Range) -> Io<'_, Data> {
        let around = self.overlay.blocks_around(part);
        if around.len > self.facts.blocks.maximum.into() {
            return self.base.read(part).map(move |data| {
                let _ = self.keep(part, &data);
                Ok(data)
            });
        }
        self.base.read(around).map(move |data| {
            let _ = self.keep(around, &data);
            Ok(data.slice(part.start - around.start, part.len))
        })
    }

    /// Puts bytes of the base into the overlay, block by block, where they are not there yet.
    fn keep(&self, r: Range, data: &Data) -> Result<()> {
        let overlay = &*self.overlay;
        let Some(whole) = overlay.blocks_within(r) else { return Ok(()) };
        let mut at = whole.start;
        while at < whole.end() {
            let (leaf, first) = overlay.leaf(at);
            let last = LEAF_BLOCKS.min(first + (whole.end() - at).div_ceil(overlay.block) as usize);
            let (state, same) = leaf.run(first, last);
            let mut part = overlay.part(at, same as u64, whole);
            if state == State::Base
                && let Some(claim) = leaf.claim(first, first + same, State::Base)
            {
                part = overlay.part(at, (claim.to - claim.from) as u64, whole);
                let bytes = data.slice(part.start - r.start, part.len);
                overlay.store().write(overlay.place(leaf, at), &bytes)?;
                claim.end(State::Copied);
            }
            at = part.end();
        }
        Ok(())
    }

    /// Makes a change, at once as far as that is possible.
    fn change(&self, mut change: Change) -> Io<'_, ()> {
        if !self.facts.write {
            return Error::new(Errno::PERM, "this client may only read").into();
        }
        match self.advance(&mut change) {
            Ok(Stop::Done) => Io::ok(()),
            Err(e) => e.into(),
            Ok(mut stop) => Io::later(async move {
                loop {
                    match stop {
                        Stop::Done => return Ok(()),
                        Stop::Busy(leaf, block) => leaf.settled(block).await,
                        Stop::Copy(claim, old) => {
                            let old = old.await?;
                            self.put(claim, &mut change, old)?;
                        }
                    }
                    stop = self.advance(&mut change)?;
                }
            }),
        }
    }

    /// Goes on with a change until it is done or must wait. Holds no claim while it waits for another's, so that no
    /// two changes can wait for each other.
    fn advance<'a>(&'a self, change: &mut Change) -> Result<Stop<'a>> {
        let overlay = &*self.overlay;
        while change.at < change.range.end() {
            let (at, rest) = (change.at, change.rest());
            if change.data.is_none()
                && let Spot::Absent { zero, blocks } = overlay.map().find(at / overlay.block)
                && let Some(done) = self.zero_without_leaf(rest, zero, blocks)
            {
                change.at += done;
                continue;
            }
            let (leaf, first) = overlay.leaf(at);
            let around = overlay.block_around(at);
            let part = rest.intersect(around).unwrap_or(rest);
            if part != around {
                match leaf.run(first, first + 1).0 {
                    State::Copied => {
                        // Lost to another request: look again.
                        let Some(claim) = leaf.claim(first, first + 1, State::Copied) else { continue };
                        overlay.store().overwrite(overlay.place(leaf, at), &change.bytes(part))?;
                        claim.end(State::Copied);
                        change.at = part.end();
                    }
                    State::Zero if change.data.is_none() => change.at = part.end(),
                    was @ (State::Base | State::Zero) => {
                        let Some(claim) = leaf.claim(first, first + 1, was) else { continue };
                        let old = match was {
                            State::Zero => Io::ok(Data::zeroes(around.len)),
                            _ => self.base.read(around),
                        };
                        match old {
                            Io::Ready(old) => self.put(claim, change, old?)?,
                            later => return Ok(Stop::Copy(claim, later)),
                        }
                    }
                    _ if leaf.stays_busy(first) => return Ok(Stop::Busy(leaf, first)),
                    _ => {}
                }
            } else if let Some(busy) = self.whole_blocks(change, leaf, first)? {
                return Ok(busy);
            }
        }
        Ok(Stop::Done)
    }

    /// Makes whole leaves zero that are not there; says how many bytes that were.
    fn zero_without_leaf(&self, rest: Range, zero: bool, absent: u64) -> Option<u64> {
        let overlay = &*self.overlay;
        if zero {
            return Some(overlay.part(rest.start, absent, rest).len);
        }
        let whole = overlay.blocks_within(rest).filter(|whole| whole.start == rest.start)?;
        let marked = overlay.map().zero_absent(rest.start / overlay.block, whole.len.div_ceil(overlay.block));
        (marked > 0).then(|| overlay.part(rest.start, marked, whole).len)
    }

    /// Changes the next whole blocks of one state, as far as this leaf goes.
    fn whole_blocks<'a>(
        &'a self,
        change: &mut Change,
        leaf: &'a Leaf,
        first: usize,
    ) -> Result<Option<Stop<'a>>> {
        let overlay = &*self.overlay;
        let rest = change.rest();
        let whole = overlay.blocks_within(rest).unwrap_or(rest);
        let last = LEAF_BLOCKS.min(first + whole.len.div_ceil(overlay.block) as usize);
        let (state, same) = leaf.run(first, last);
        let place = overlay.place(leaf, whole.start);
        let end = first + same;
        let part = |blocks: usize| overlay.part(whole.start, blocks as u64, whole);
        change.at += match (state, &change.data) {
            (State::Zero, None) => part(same).len,
            (State::Base, None) => part(leaf.change(first, end, State::Base, State::Zero)).len,
            (State::Base | State::Zero | State::Copied, data) => match leaf.claim(first, end, state) {
                Some(claim) => {
                    let part = part(claim.to - claim.from);
                    match (data, state) {
                        // While it is claimed: a hole made later could swallow what others write after this.
                        (None, _) => overlay.store().discard(place, part.len),
                        (Some(_), State::Copied) => overlay.store().overwrite(place, &change.bytes(part))?,
                        (Some(_), _) => overlay.store().write(place, &change.bytes(part))?,
                    }
                    claim.end(if data.is_some() { State::Copied } else { State::Zero });
                    part.len
                }
                // Lost to another request: look again.
                None => 0,
            },
            _ if leaf.stays_busy(first) => return Ok(Some(Stop::Busy(leaf, first))),
            _ => 0,
        };
        Ok(None)
    }

    /// Completes the change of a claimed block whose old bytes are here.
    fn put(&self, claim: Claim<'_>, change: &mut Change, old: Data) -> Result<()> {
        let around = self.overlay.block_around(change.at);
        let part = change.rest().intersect(around).unwrap_or(around);
        let mut block = BufMut::new(around.len as usize);
        old.copy_to(&mut block);
        let inside = (part.start - around.start) as usize;
        change.bytes(part).copy_to(&mut block[inside..inside + part.len as usize]);
        self.overlay.store().write(self.overlay.place(claim.leaf, around.start), &block.into())?;
        claim.end(State::Copied);
        change.at = part.end();
        Ok(())
    }

    /// What was changed is answered for, and if need be made stable before. A temporary overlay is as stable as it
    /// will ever be: it is gone after a crash.
    fn stable<'a>(&'a self, changed: Io<'a, ()>, wanted: bool) -> Io<'a, ()> {
        if !wanted || !self.overlay.blocks.is_kept() {
            return changed;
        }
        Io::later(async move {
            changed.await?;
            let overlay = self.overlay.clone();
            reactor::unblock(move || overlay.blocks.sync()).await?
        })
    }

    async fn all_extents(&self, r: Range, limit: usize) -> Result<Extents> {
        let mut out = Extents::new();
        // One more than asked for tells that the last one asked for is whole.
        while out.covered() < r.len && out.len() <= limit {
            let (state, part) = self.piece(r.start + out.covered(), r);
            match state {
                State::Copied => out.push(part.len, Kind::DATA),
                State::Zero => out.push(part.len, Kind::HOLE),
                _ if self.base.facts().extents => {
                    out.append(&self.base.extents(part, (limit - out.len()).max(1)).await?);
                }
                _ => out.push(part.len, Kind::DATA),
            }
        }
        Ok(out)
    }
}

impl Disk for Layer {
    disk::forward!(base: next);
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, r: Range) -> Io<'_, Data> {
        let (state, first) = self.piece(r.start, r);
        if first.len == r.len {
            return self.read_piece(state, r);
        }
        let mut pieces = vec![self.read_piece(state, first)];
        let mut at = first.end();
        while at < r.end() {
            let (state, part) = self.piece(at, r);
            pieces.push(self.read_piece(state, part));
            at = part.end();
        }
        if pieces.iter().all(|piece| matches!(piece, Io::Ready(_))) {
            let data = pieces.into_iter().map(Io::wait).collect::<Result<Vec<Data>>>();
            return data.map(Data::join).into();
        }
        Io::later(async move {
            let mut data = Vec::with_capacity(pieces.len());
            for piece in pieces {
                data.push(piece.await?);
            }
            Ok(Data::join(data))
        })
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.stable(self.change(Change::write(at, data)), flags.fua)
    }

    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if flags.may_trim {
            return self.stable(self.change(Change::zero(r)), flags.fua);
        }
        // Without holes, zeroes take their room like other bytes.
        if flags.fast {
            return Error::new(Errno::NOTSUP, "zeroing without a hole would be no faster than writing")
                .into();
        }
        if r.len <= KEEP_AT_ONCE {
            return self.stable(self.change(Change::write(r.start, Data::zeroes(r.len))), flags.fua);
        }
        let zeroed = Io::later(async move {
            for part in r.split_at_multiples(KEEP_AT_ONCE) {
                self.change(Change::write(part.start, Data::zeroes(part.len))).await?;
            }
            Ok(())
        });
        self.stable(zeroed, flags.fua)
    }

    /// Blocks that are trimmed only in part stay as they are.
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        let trimmed = match self.overlay.blocks_within(r) {
            Some(whole) => self.change(Change::zero(whole)),
            None => Io::ok(()),
        };
        self.stable(trimmed, flags.fua)
    }

    fn flush(&self) -> Io<'_, ()> {
        self.stable(Io::ok(()), true)
    }

    fn cache(&self, r: Range) -> Io<'_, ()> {
        let keep = self.fills.as_ref().is_some_and(|fills| fills.cow_on_cache);
        if !self.facts.cache {
            return Error::new(Errno::NOTSUP, "the disk below cannot cache").into();
        }
        Io::later(async move {
            let around = if keep { self.overlay.blocks_around(r) } else { r };
            let mut at = around.start;
            while at < around.end() {
                let (state, part) = self.piece(at, around);
                if state == State::Base && !keep {
                    self.base.cache(part).await?;
                } else if state == State::Base {
                    let step = KEEP_AT_ONCE.max(self.overlay.block).min(self.facts.blocks.maximum.into());
                    for part in part.split_at_multiples(step - step % self.overlay.block) {
                        let data = self.base.read(part).await?;
                        self.keep(part, &data)?;
                    }
                }
                at = part.end();
            }
            Ok(())
        })
    }

    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        match self.piece(r.start, r) {
            (State::Base, part) if part.len == r.len && self.base.facts().extents => {
                self.base.extents(r, limit)
            }
            _ => Io::later(self.all_extents(r, limit)),
        }
    }
}
