//! `blocksize`: clients may ask for any bytes, and the disk below sees requests of the sizes that it likes.

mod turns;

use crate::common::unsettled::Unsettled;
use disk::{
    Backend, Blocks, BufMut, Client, Data, Disk, Errno, Error, Extents, Facts, Filter, Io, Kind, Range,
    Result, Status, WriteFlags, ZeroFlags, shared::Place,
};
use params::{ParamError, Params, Size};
use std::sync::Arc;
use turns::{Turn, Turns};

/// The largest requests that nbdkit's plugins see.
const MOST_DATA: u64 = 64 << 20;

/// Cut and align requests, so that they have the sizes that the disk below takes.
#[derive(Params)]
pub(crate) struct BlockSize {
    /// Requests to the disk below are multiples of this, offset and length: a power of two up to 64K. Without it, the
    /// disk's own minimum.
    minblock: Option<Size>,
    /// No read or write below is longer than this: a multiple of `minblock`. Without it, 64M or what the disk below
    /// says, if that is less.
    maxdata: Option<Size>,
    /// No other request below is longer than this: a multiple of `minblock`. Without it, just under 4G.
    maxlen: Option<Size>,
}

impl Filter for BlockSize {
    const NAME: &'static str = "blocksize";
    const MANUAL: &'static str = include_str!("blocksize.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let bad = |key, value: Size, why: String| Err(ParamError::bad(key, value.to_string(), why).into());
        if let Some(min) = self.minblock
            && !(min.bytes().is_power_of_two() && min.bytes() <= 64 << 10)
        {
            return bad("minblock", min, "not a power of two up to 64K".into());
        }
        let multiple_of = self.minblock.map_or(1, Size::bytes);
        for (key, value) in [("maxdata", self.maxdata), ("maxlen", self.maxlen)] {
            match value {
                Some(size) if size.bytes() == 0 => return bad(key, size, "must be at least 1".into()),
                Some(size) if !size.bytes().is_multiple_of(multiple_of) => {
                    return bad(key, size, format!("not a multiple of minblock={multiple_of}"));
                }
                _ => {}
            }
        }
        Ok(Cutting { params: self, turns: Arc::default(), unsettled: Arc::default(), next })
    }
}

struct Cutting {
    params: BlockSize,
    /// Whoever writes to a block of which another reads, changes and writes back a part, on whatever connection, would
    /// lose.
    turns: Arc<Turns>,
    /// Blocks that were written back for the sake of a part, and nobody waits for them: what lies beside that part must
    /// not be changed before they are done.
    unsettled: Arc<Unsettled>,
    next: Arc<dyn Backend>,
}

impl Cutting {
    fn over(&self, next: Arc<dyn Disk>) -> Result<Cut> {
        let below = next.facts();
        let min = u64::from(below.blocks.minimum).max(self.params.minblock.map_or(1, Size::bytes));
        let limit = |given: Option<Size>, most: u64, key: &str| {
            let most = given.map_or(most, Size::bytes).min(most);
            match most - most % min {
                0 => {
                    Err(Error::invalid(format!("{key}={most}: the disk below takes only multiples of {min}")))
                }
                most => Ok(most),
            }
        };
        let data = limit(self.params.maxdata, MOST_DATA.min(below.blocks.maximum.into()), "maxdata")?;
        let len = limit(self.params.maxlen, u32::MAX.into(), "maxlen")?;
        let preferred = below.blocks.preferred.max(min as u32);
        let blocks = Blocks { minimum: 1, preferred, maximum: u32::MAX };
        let size = below.size - below.size % min;
        let mut facts = Facts { size, blocks, told_blocks: None, ..below.clone() };
        if min > below.blocks.minimum.into() {
            // Their borders may lie within our blocks, and nothing sensible can be said of a part.
            facts.contexts = Arc::new([]);
        }
        let (turns, unsettled) = (self.turns.clone(), self.unsettled.clone());
        Ok(Cut { facts, min, data, len, turns, unsettled, next })
    }
}

impl Backend for Cutting {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|disk| Ok(Arc::new(self.over(disk)?) as Arc<dyn Disk>))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Cut {
    facts: Facts,
    /// A power of two.
    min: u64,
    /// The longest reads and writes, and the longest other requests: multiples of `min`.
    data: u64,
    len: u64,
    turns: Arc<Turns>,
    unsettled: Arc<Unsettled>,
    next: Arc<dyn Disk>,
}

impl Cut {
    /// The whole blocks that a range touches.
    fn around(&self, r: Range) -> Range {
        let start = r.start & !(self.min - 1);
        Range::new(start, r.end().next_multiple_of(self.min) - start)
    }

    /// The whole blocks within a range.
    fn within(&self, r: Range) -> Option<Range> {
        let (start, end) = (r.start.next_multiple_of(self.min), r.end() & !(self.min - 1));
        (start < end).then(|| Range::new(start, end - start))
    }

    /// The turn of a change, in which the whole blocks of a range are written, and parts of others.
    async fn turn(&self, r: Range) -> Turn<'_> {
        if self.min == 1 {
            return Turn::default();
        }
        let around = self.around(r);
        let blocks = around.start / self.min..around.end() / self.min;
        // A block that is not written whole is the first or the last one.
        let (head, tail) = (around.start < r.start, r.end() < around.end());
        let single = around.len == self.min && (head || tail);
        let turn = self.turns.of(blocks, (head || single, tail || single)).await;
        self.unsettled.settle().await;
        turn
    }

    /// Whether the change may be passed on as it is. With blocks of more than a byte, a turn must be waited for.
    fn passes(&self, len: u64, most: u64) -> bool {
        self.min == 1 && len <= most
    }

    /// Reads whole blocks.
    async fn read_blocks(&self, r: Range) -> Result<Data> {
        let mut parts = Vec::new();
        for part in pieces(r, self.data) {
            parts.push(self.next.read(part).await?);
        }
        Ok(Data::join(parts))
    }

    /// Changes a part of one block.
    async fn change_part(&self, at: u64, data: &Data, flags: WriteFlags) -> Result<()> {
        let block = self.around(Range::new(at, data.len()));
        let old = self.read_blocks(block).await?;
        let mut bytes = BufMut::new(block.len as usize);
        old.copy_to(&mut bytes);
        let inside = (at - block.start) as usize;
        data.copy_to(&mut bytes[inside..inside + data.len() as usize]);
        let begun = self.unsettled.begin(&self.next);
        let outcome = self.next.write(block.start, bytes.into(), flags).await;
        begun.over();
        outcome
    }

    /// The parts of a range in its first and last block, where these are not whole.
    fn edges(&self, r: Range) -> impl Iterator<Item = Range> {
        let (head, tail) = match self.within(r) {
            Some(whole) => {
                (Range::new(r.start, whole.start - r.start), Range::new(whole.end(), r.end() - whole.end()))
            }
            // In one block, or in two of which neither is whole.
            None => {
                let border = r.start.next_multiple_of(self.min).clamp(r.start, r.end());
                (Range::new(r.start, border - r.start), Range::new(border, r.end() - border))
            }
        };
        [head, tail].into_iter().filter(|part| !part.is_empty())
    }
}

/// The pieces of a range, each of this length but the last.
fn pieces(r: Range, most: u64) -> impl Iterator<Item = Range> {
    let mut rest = r;
    std::iter::from_fn(move || {
        let piece = Range::new(rest.start, rest.len.min(most));
        rest = Range::new(piece.end(), rest.len - piece.len);
        (!piece.is_empty()).then_some(piece)
    })
}

impl Disk for Cut {
    disk::forward!(next: next);
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, r: Range) -> Io<'_, Data> {
        let around = self.around(r);
        if around.len <= self.data {
            let data = self.next.read(around);
            return if around == r {
                data
            } else {
                data.map(move |data| Ok(data.slice(r.start - around.start, r.len)))
            };
        }
        Io::later(async move { Ok(self.read_blocks(around).await?.slice(r.start - around.start, r.len)) })
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let r = Range::new(at, data.len());
        if self.passes(r.len, self.data) {
            return self.next.write(at, data, flags);
        }
        if !self.facts.write {
            return Error::new(Errno::PERM, "the disk below cannot be written").into();
        }
        Io::later(async move {
            let _turn = self.turn(r).await;
            for edge in self.edges(r) {
                self.change_part(edge.start, &data.slice(edge.start - at, edge.len), flags).await?;
            }
            for part in self.within(r).into_iter().flat_map(|whole| pieces(whole, self.data)) {
                self.next.write(part.start, data.slice(part.start - at, part.len), flags).await?;
            }
            Ok(())
        })
    }

    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if self.passes(r.len, self.len) {
            return self.next.zero(r, flags);
        }
        if !self.facts.zero {
            return Error::new(Errno::NOTSUP, "the disk below cannot zero").into();
        }
        Io::later(async move {
            let _turn = self.turn(r).await;
            // First, so that fast zeroing fails before anything is changed.
            for part in self.within(r).into_iter().flat_map(|whole| pieces(whole, self.len)) {
                self.next.zero(part, flags).await?;
            }
            for edge in self.edges(r) {
                let flags = WriteFlags { fua: flags.fua };
                self.change_part(edge.start, &Data::zeroes(edge.len), flags).await?;
            }
            Ok(())
        })
    }

    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        if self.passes(r.len, self.len) {
            return self.next.trim(r, flags);
        }
        if !self.facts.trim {
            return Error::new(Errno::NOTSUP, "the disk below cannot trim").into();
        }
        Io::later(async move {
            let Some(whole) = self.within(r) else { return Ok(()) };
            let _turn = self.turn(whole).await;
            for part in pieces(whole, self.len) {
                self.next.trim(part, flags).await?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Io<'_, ()> {
        self.unsettled.take_failure().map_or_else(|| self.next.flush(), Io::from)
    }

    fn cache(&self, r: Range) -> Io<'_, ()> {
        let around = self.around(r);
        if around.len <= self.len {
            return self.next.cache(around);
        }
        Io::later(async move {
            for part in pieces(around, self.len) {
                self.next.cache(part).await?;
            }
            Ok(())
        })
    }

    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        let around = self.around(r);
        let before = r.start - around.start;
        let asked = Range::new(around.start, around.len.min(self.len));
        // A few more than asked for, since those before the range are dropped.
        let more = if before > 0 { 8 } else { 0 };
        self.next.extents(asked, limit.saturating_add(more)).map(move |found| {
            let mut extents = Extents::new();
            let mut skip = before;
            for extent in &found {
                let skipped = skip.min(extent.len);
                skip -= skipped;
                extents.push(extent.len - skipped, extent.kind);
            }
            if extents.is_empty() {
                // The disk below told less than our first block; of the rest, calling it data is never wrong.
                extents.push(self.min - before, Kind::DATA);
            }
            extents.truncate(r.len);
            Ok(extents)
        })
    }

    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        let around = self.around(r);
        let before = r.start - around.start;
        let asked = Range::new(around.start, around.len.min(self.len));
        self.next.status(context, asked, limit).map(move |mut list| {
            if let Some(first) = list.first_mut() {
                // Never shorter than a block of the disk below, which is one of ours (see `over`).
                first.len = first.len.saturating_sub(before).max(1);
            }
            Ok(list)
        })
    }

    fn place(&self, r: Range) -> Option<Place<'_>> {
        if self.passes(r.len, self.data) { self.next.place(r) } else { None }
    }
    fn placed(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.next.placed(r, flags)
    }
}

#[cfg(test)]
mod tests;
