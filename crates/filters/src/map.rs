//! `map`: ranges of a disk that lie elsewhere below.

use crate::{common::wrap::each, protect::bounds};
use disk::{
    Backend, Blocks, Data, Disk, Error, Extents, Facts, Filter, Io, Kind as Holds, Range, Result, Status,
    WriteFlags, ZeroFlags, shared::Place,
};
use params::{Kind, Params, Size, Value, Wrong};
use std::sync::Arc;

/// Move ranges of a disk to other places.
#[derive(Params)]
pub(crate) struct Map {
    /// The bytes from START to END, both included, lie from DEST on below. Of ranges that overlap the first counts.
    /// May be given many times.
    map: Vec<Move>,
    /// How large the disk is. Without it, as large as the disk below.
    map_size: Option<Size>,
}

/// `START-END:DEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    range: Range,
    to: u64,
}

impl Value for Move {
    const KIND: Kind = Kind::Other("START-END:DEST");

    fn from_text(text: &str) -> std::result::Result<Move, Wrong> {
        let (range, to) = text.split_once(':').ok_or("not START-END:DEST, such as 0-511:0x200")?;
        let (first, last) = bounds(range)?;
        let to = u64::from_text(to)?;
        let len = last.saturating_sub(first).saturating_add(1);
        Ok(Move { range: Range::new(first, len), to })
    }
}

impl Filter for Map {
    const NAME: &'static str = "map";
    const MANUAL: &'static str = include_str!("map.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        if let Some(size) = self.map_size
            && i64::try_from(size.bytes()).is_err()
        {
            return Err(Error::invalid(format!("map-size={size}: no disk is that large")));
        }
        Ok(each(next, move |disk, _| Ok(Arc::new(Mapped::new(&self, disk)?))))
    }
}

/// A range that lies in one piece below; nowhere: `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    range: Range,
    to: Option<u64>,
}

/// What lies where, in order and without gaps, of a disk of `size` bytes over one of `below` bytes.
fn segments(moves: &[Move], size: u64, below: u64) -> Vec<Segment> {
    let mut free = vec![Range::new(0, size)];
    let mut placed = Vec::new();
    for one in moves {
        let mut rest = Vec::new();
        for gap in free {
            let Some(part) = gap.intersect(one.range) else {
                rest.push(gap);
                continue;
            };
            placed.push((part, one.to.saturating_add(part.start - one.range.start)));
            rest.push(Range::new(gap.start, part.start - gap.start));
            rest.push(Range::new(part.end(), gap.end() - part.end()));
        }
        free = rest;
    }
    placed.extend(free.into_iter().filter(|gap| !gap.is_empty()).map(|gap| (gap, gap.start)));
    placed.sort_by_key(|(range, _)| range.start);
    let there = |(range, to): (Range, u64)| {
        let inside = below.saturating_sub(to).min(range.len);
        let beyond = Range::new(range.start + inside, range.len - inside);
        [
            Segment { range: Range::new(range.start, inside), to: Some(to) },
            Segment { range: beyond, to: None },
        ]
    };
    placed.into_iter().flat_map(there).filter(|segment| !segment.range.is_empty()).collect()
}

/// See [`crate::try_list`]: one move per line.
pub(crate) fn try_moves(text: &str) {
    let moves: Vec<Move> = text.lines().filter_map(|line| Move::from_text(line).ok()).collect();
    let (size, below) = (1 << 40, 1 << 39);
    let segments = segments(&moves, size, below);
    let mut at = 0;
    for Segment { range, to } in segments {
        assert!(range.start == at && !range.is_empty(), "without gaps");
        assert!(to.is_none_or(|to| Range::new(to, range.len).lies_within(below)), "on the disk below");
        at = range.end();
    }
    assert_eq!(at, size);
}

struct Mapped {
    facts: Facts,
    segments: Vec<Segment>,
    next: Arc<dyn Disk>,
}

impl Mapped {
    fn new(map: &Map, next: Arc<dyn Disk>) -> Result<Mapped> {
        let below = next.facts();
        let size = map.map_size.map_or(below.size, Size::bytes);
        let segments = segments(&map.map, size, below.size);
        let Blocks { minimum, mut preferred, .. } = below.blocks;
        for Segment { range, to } in &segments {
            let Some(to) = *to else { continue };
            for at in [range.start, to] {
                if !at.is_multiple_of(minimum.into()) {
                    return Err(Error::invalid(format!(
                        "byte {at}, where a range begins or lies, is no multiple of the disk's minimum block size {minimum}"
                    )));
                }
            }
            // Requests that are aligned here must be aligned below.
            while preferred > minimum.max(512) && !to.abs_diff(range.start).is_multiple_of(preferred.into()) {
                preferred /= 2;
            }
        }
        let facts = Facts { size, blocks: Blocks { preferred, ..below.blocks }, ..below.clone() };
        Ok(Mapped { facts, segments, next })
    }

    /// The parts of a range that lie in one piece, each with its place below.
    fn parts(&self, r: Range) -> impl Iterator<Item = (Range, Option<u64>)> + Send + '_ {
        let first = self.segments.partition_point(|segment| segment.range.end() <= r.start);
        self.segments[first..].iter().map_while(move |segment| {
            let part = segment.range.intersect(r)?;
            Some((part, segment.to.map(|to| to + (part.start - segment.range.start))))
        })
    }

    /// The part that a range begins with, and where it lies below.
    fn first(&self, r: Range) -> (Range, Option<u64>) {
        self.parts(r).next().unwrap_or((r, None))
    }

    /// Asks for every part of a range, one after the other.
    fn all<'a>(
        &'a self,
        r: Range,
        ask: impl Fn(Range, Range) -> Io<'a, ()> + Send + Sync + 'a,
    ) -> Io<'a, ()> {
        let (part, to) = self.first(r);
        if part == r {
            return to.map_or_else(|| nowhere(part), |to| ask(part, Range::new(to, part.len)));
        }
        Io::later(async move {
            for (part, to) in self.parts(r) {
                match to {
                    Some(to) => ask(part, Range::new(to, part.len)).await?,
                    None => return nowhere(part).await,
                }
            }
            Ok(())
        })
    }
}

fn nowhere<'a, T: Send + 'a>(part: Range) -> Io<'a, T> {
    Error::io(format!("{part} lie beyond the end of the disk below")).into()
}

impl Disk for Mapped {
    disk::forward!(next: next, flush);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        let (part, to) = self.first(r);
        if part == r {
            return to.map_or_else(|| nowhere(part), |to| self.next.read(Range::new(to, part.len)));
        }
        Io::later(async move {
            let mut data = Vec::new();
            for (part, to) in self.parts(r) {
                let Some(to) = to else { return nowhere(part).await };
                data.push(self.next.read(Range::new(to, part.len)).await?);
            }
            Ok(Data::join(data))
        })
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.all(Range::new(at, data.len()), move |part, below| {
            self.next.write(below.start, data.slice(part.start - at, part.len), flags)
        })
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.all(r, move |_, below| self.next.zero(below, flags))
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.all(r, move |_, below| self.next.trim(below, flags))
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.all(r, move |_, below| self.next.cache(below))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        // Whoever asks goes on asking where the answer ends.
        match self.first(r) {
            (part, Some(to)) => self.next.extents(Range::new(to, part.len), limit),
            (part, None) => Io::ok(Extents::one(part.len, Holds::DATA)),
        }
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        let (part, to) = self.first(r);
        let Some(to) = to else { return nowhere(part) };
        self.next.status(context, Range::new(to, part.len), limit).map(move |mut list| {
            let before: u64 = list.iter().rev().skip(1).map(|status| status.len).sum();
            if let Some(last) = list.last_mut() {
                last.len = last.len.min(part.len.saturating_sub(before).max(1));
            }
            Ok(list)
        })
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        match self.first(r) {
            (part, Some(to)) if part == r => self.next.place(Range::new(to, part.len)),
            _ => None,
        }
    }
    fn placed(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.all(r, move |_, below| self.next.placed(below, flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, noise, opened};
    use disk::Client;
    use proptest::prelude::*;

    fn read(disk: &Arc<dyn Disk>, start: u64, len: u64) -> Vec<u8> {
        disk.read(Range::new(start, len)).wait().unwrap().to_vec()
    }

    #[test]
    fn two_sectors_change_places() {
        let memory = Memory::new(noise(1, 2048));
        let bytes = memory.bytes();
        let disk = opened::<Map>(&["map=0-511:512", "map=512-1023:0"], &memory);
        assert_eq!(read(&disk, 0, 512), bytes[512..1024]);
        assert_eq!(read(&disk, 1024, 1024), bytes[1024..]);
        assert_eq!(read(&disk, 256, 512), [&bytes[768..1024], &bytes[..256]].concat());
        disk.write(511, Data::copy_from(b"ab"), WriteFlags::default()).wait().unwrap();
        assert_eq!((memory.bytes()[1023], memory.bytes()[0]), (b'a', b'b'));
    }

    #[test]
    fn what_lies_beyond_the_disk_below_cannot_be_read() {
        let memory = Memory::new(noise(1, 1024));
        let disk = opened::<Map>(&["map=0-511:768", "map-size=2K"], &memory);
        assert_eq!(disk.facts().size, 2048);
        assert_eq!(read(&disk, 0, 256), memory.bytes()[768..]);
        assert_eq!(read(&disk, 512, 512), memory.bytes()[512..]);
        for r in [Range::new(0, 257), Range::new(256, 1), Range::new(1024, 512)] {
            assert_eq!(disk.read(r).wait().unwrap_err().errno(), disk::Errno::IO, "{r}");
        }
    }

    #[test]
    fn ranges_that_the_disk_cannot_hold_are_refused() {
        let why = |text: &str| layer::<Map>(&[text], &Memory::new(vec![])).err().unwrap().to_string();
        assert_eq!(why("map=0-511"), "map: map=0-511: not START-END:DEST, such as 0-511:0x200");
        let facts = Facts { blocks: Blocks { minimum: 512, ..Blocks::default() }, ..Facts::writable(2048) };
        let layer = layer::<Map>(&["map=0-99:512"], &Memory::with(vec![0; 2048], facts)).unwrap();
        let why = layer.open(&Client::local("")).wait().err().unwrap().to_string();
        assert!(why.contains("byte 100, "), "{why}");
    }

    proptest! {
        #[test]
        fn segments_are_what_a_list_of_bytes_is(
            moves in prop::collection::vec((0u64..30, 1u64..30, 0u64..40), 0..5),
            size in 0u64..40,
            below in 0u64..40,
        ) {
            let moves: Vec<Move> =
                moves.into_iter().map(|(start, len, to)| Move { range: Range::new(start, len), to }).collect();
            let segments = segments(&moves, size, below);
            let mut at = 0;
            for segment in &segments {
                prop_assert_eq!(segment.range.start, at);
                at = segment.range.end();
                for byte in segment.range.start..segment.range.end() {
                    let moved = moves.iter().find(|one| one.range.intersect(Range::new(byte, 1)).is_some());
                    let to = moved.map_or(byte, |one| one.to + (byte - one.range.start));
                    let found = segment.to.map(|to| to + (byte - segment.range.start));
                    prop_assert_eq!(found, (to < below).then_some(to));
                }
            }
            prop_assert_eq!(at, size);
        }
    }
}
