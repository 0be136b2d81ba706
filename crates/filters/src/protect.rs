//! `protect`: parts of a disk that may not be changed.

use crate::common::wrap::{difference, each};
use disk::{
    Backend, Data, Disk, Errno, Error, Filter, Io, Range, Result, WriteFlags, ZeroFlags, shared::Place,
};
use params::{Kind, Params, Value, Wrong};
use std::sync::Arc;

/// Protect parts of a disk from being changed.
#[derive(Params)]
pub(crate) struct Protect {
    /// The bytes from START to END, both included, are protected; with `~` before them, all others are. Either may be
    /// left out: then it is the disk's first or last byte. May be given many times.
    protect: Vec<Part>,
}

/// `[~][START]-[END]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    others: bool,
    first: u64,
    /// `u64::MAX`: the disk's last byte.
    last: u64,
}

impl Value for Part {
    const KIND: Kind = Kind::Other("START-END");

    fn from_text(text: &str) -> std::result::Result<Part, Wrong> {
        let (others, range) = match text.strip_prefix('~') {
            Some(range) => (true, range),
            None => (false, text),
        };
        let (first, last) = bounds(range)?;
        Ok(Part { others, first, last })
    }
}

/// `[START]-[END]`, both included.
pub(crate) fn bounds(text: &str) -> std::result::Result<(u64, u64), Wrong> {
    let (first, last) = text.split_once('-').ok_or("not a range such as 0-511, 0x200- or -511")?;
    let number = |text: &str, absent| if text.is_empty() { Ok(absent) } else { u64::from_text(text) };
    let (first, last) = (number(first, 0)?, number(last, u64::MAX)?);
    if last < first {
        return Err(Wrong(format!("byte {last} comes before byte {first}")));
    }
    Ok((first, last))
}

/// See [`crate::try_list`]: one part per line.
pub(crate) fn try_parts(text: &str) {
    let parts: Vec<Part> = text.lines().filter_map(|line| Part::from_text(line).ok()).collect();
    let ranges = protected(&parts, 1 << 40);
    assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].start), "in order, apart from each other");
    assert!(ranges.iter().all(|range| !range.is_empty()));
}

impl Filter for Protect {
    const NAME: &'static str = "protect";
    const MANUAL: &'static str = include_str!("protect.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        let parts = self.protect;
        Ok(each(next, move |disk, _| {
            let ranges = protected(&parts, disk.facts().size);
            Ok(if ranges.is_empty() { disk } else { Arc::new(Guarding { ranges, next: disk }) })
        }))
    }
}

/// What is protected on a disk of this size, in order and apart from each other.
fn protected(parts: &[Part], size: u64) -> Vec<Range> {
    let mut ranges: Vec<Range> = parts
        .iter()
        .flat_map(|part| {
            let inside = Range::new(part.first, part.last.saturating_sub(part.first).saturating_add(1));
            match part.others {
                false => [Some(inside), None],
                true => [
                    Some(Range::new(0, part.first)),
                    Some(Range::new(inside.end(), size.saturating_sub(inside.end()))),
                ],
            }
        })
        .flatten()
        .filter_map(|range| range.intersect(Range::new(0, size)))
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let joined = next.start <= before.end();
        if joined {
            before.len = before.end().max(next.end()) - before.start;
        }
        joined
    });
    ranges
}

struct Guarding {
    ranges: Vec<Range>,
    next: Arc<dyn Disk>,
}

impl Guarding {
    /// The protected parts of a range.
    fn within(&self, r: Range) -> impl Iterator<Item = Range> + '_ {
        let first = self.ranges.partition_point(|range| range.end() <= r.start);
        self.ranges[first..].iter().map_while(move |range| range.intersect(r))
    }

    fn is_free(&self, r: Range) -> bool {
        self.within(r).next().is_none()
    }

    /// Fails unless the protected parts of a request hold already what it brings: `data`, or zeroes.
    async fn check(&self, r: Range, data: Option<&Data>) -> Result<()> {
        for part in self.within(r) {
            let whole = self.whole_blocks(part);
            let data = data.map(|data| data.slice(whole.start - r.start, whole.len));
            // The rest of a block may change, so that what differs must be looked for in the part itself.
            let changes = if whole == part {
                difference(&*self.next, part, data.as_ref()).await?
            } else {
                self.difference_within(whole, part, data.as_ref()).await?
            };
            if let Some(at) = changes {
                return Err(Error::new(Errno::PERM, format!("byte {at} is protected")));
            }
        }
        Ok(())
    }

    async fn difference_within(&self, whole: Range, part: Range, data: Option<&Data>) -> Result<Option<u64>> {
        let step = (1 << 20).min(u64::from(self.facts().blocks.maximum));
        for piece in whole.split_at_multiples(step) {
            let Some(part) = piece.intersect(part) else { continue };
            let there = self.next.read(piece).await?.slice(part.start - piece.start, part.len).to_vec();
            let wanted = data.map(|data| data.slice(part.start - whole.start, part.len).to_vec());
            let wanted = wanted.unwrap_or_else(|| vec![0; there.len()]);
            if let Some(offset) = wanted.iter().zip(&there).position(|(a, b)| a != b) {
                return Ok(Some(part.start + offset as u64));
            }
        }
        Ok(None)
    }

    /// Requests are of whole blocks, so that these lie within them.
    fn whole_blocks(&self, part: Range) -> Range {
        let block = u64::from(self.facts().blocks.minimum);
        let start = part.start & !(block - 1);
        Range::new(start, part.end().next_multiple_of(block) - start)
    }
}

impl Disk for Guarding {
    disk::forward!(next: next, facts, read, flush, cache, extents, status);
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let r = Range::new(at, data.len());
        if self.is_free(r) {
            return self.next.write(at, data, flags);
        }
        Io::later(async move {
            self.check(r, Some(&data)).await?;
            self.next.write(at, data, flags).await
        })
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if self.is_free(r) {
            return self.next.zero(r, flags);
        }
        Io::later(async move {
            self.check(r, None).await?;
            self.next.zero(r, flags).await
        })
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        if self.is_free(r) {
            return self.next.trim(r, flags);
        }
        Io::later(async move {
            self.check(r, None).await?;
            // A disk need not read as zeroes after a trim, so the protected blocks are left alone.
            let mut at = r.start;
            for part in self.within(r).map(|part| self.whole_blocks(part)) {
                if at < part.start {
                    self.next.trim(Range::new(at, part.start - at), flags).await?;
                }
                at = at.max(part.end());
            }
            if at < r.end() {
                self.next.trim(Range::new(at, r.end() - at), flags).await?;
            }
            Ok(())
        })
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        if self.is_free(r) { self.next.place(r) } else { None }
    }
    fn placed(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.next.placed(r, flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, noise, opened};
    use disk::{Blocks, Facts};
    use proptest::prelude::*;

    const F: WriteFlags = WriteFlags { fua: false };

    #[test]
    fn protected_bytes_keep_their_content_and_others_change() {
        let memory = Memory::new(noise(1, 4096));
        let before = memory.bytes();
        let disk = opened::<Protect>(&["protect=512-1023", "protect=0x800-"], &memory);
        let write =
            |at: u64, data: &[u8]| disk.write(at, Data::copy_from(data), F).wait().map_err(|e| e.to_string());
        assert_eq!(write(1000, b"x"), Err("byte 1000 is protected".into()));
        assert_eq!(write(4095, b"x"), Err("byte 4095 is protected".into()));
        write(511, &before[511..1025]).unwrap();
        write(1024, b"free").unwrap();
        assert!(disk.place(Range::new(0, 512)).is_none() && disk.place(Range::new(500, 20)).is_none());
        let mut after = before.clone();
        after[1024..1028].copy_from_slice(b"free");
        assert_eq!(memory.bytes(), after);
    }

    #[test]
    fn zeroes_may_be_zeroed_and_are_not_trimmed() {
        let memory = Memory::new(vec![0; 2048]);
        let disk = opened::<Protect>(&["protect=512-1023"], &memory);
        disk.zero(Range::new(0, 2048), ZeroFlags::default()).wait().unwrap();
        memory.asked();
        disk.trim(Range::new(0, 2048), F).wait().unwrap();
        let asked = memory.asked();
        assert_eq!(asked[asked.len() - 2..], ["trim 0 512", "trim 1024 1024"]);
    }

    #[test]
    fn the_rest_of_a_block_may_change() {
        let blocks = Blocks { minimum: 512, ..Blocks::default() };
        let facts = Facts { blocks, trim: true, zero: true, fua: true, ..Facts::writable(2048) };
        let memory = Memory::with(noise(1, 2048), facts);
        let disk = opened::<Protect>(&["protect=0-0x1bd"], &memory);
        let mut sector = memory.bytes()[..512].to_vec();
        sector[0x1be] ^= 1;
        disk.write(0, Data::copy_from(&sector), F).wait().unwrap();
        assert_eq!(memory.bytes()[..512], sector);
        sector[0x1bd] ^= 1;
        disk.write(0, Data::copy_from(&sector), F).wait().unwrap_err();
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        let why = |text: &str| layer::<Protect>(&[text], &Memory::new(vec![])).err().unwrap().to_string();
        assert_eq!(why("protect=5"), "protect: protect=5: not a range such as 0-511, 0x200- or -511");
        assert_eq!(why("protect=~9-8"), "protect: protect=~9-8: byte 8 comes before byte 9");
    }

    proptest! {
        #[test]
        fn protected_ranges_are_those_of_a_bitmap(
            parts in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..40), 0..5),
            size in 0u64..40,
        ) {
            let parts: Vec<Part> =
                parts.into_iter().map(|(others, a, b)| Part { others, first: a.min(b), last: a.max(b) }).collect();
            let ranges = protected(&parts, size);
            for byte in 0..size {
                let wanted = parts.iter().any(|part| (part.first..=part.last).contains(&byte) != part.others);
                let found = ranges.iter().any(|range| range.start <= byte && byte < range.end());
                prop_assert_eq!(found, wanted, "byte {}", byte);
            }
            prop_assert!(ranges.is_sorted_by(|a, b| a.end() < b.start));
        }
    }
}
