//! A disk put together from regions: bytes, zeroes and other disks, one behind the other.
//!
//! Writes go through to the disks. Bytes and zeroes cannot be changed, but somebody who writes what is there already
//! is not told off: clients rewrite whole blocks.

use disk::{Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Piece, Range, Result, WriteFlags, ZeroFlags};
use params::Size;
use std::sync::Arc;

/// The regions of a disk in their order. Each begins where the one before ends.
#[derive(Default)]
pub(crate) struct Regions {
    list: Vec<Region>,
}

/// A part of the disk, never empty.
struct Region {
    range: Range,
    source: Source,
}

/// What a region holds.
enum Source {
    Zeroes,
    /// As many as the region has.
    Bytes(Data),
    /// The disk from byte `from` on.
    Disk {
        disk: Arc<dyn Disk>,
        from: u64,
    },
}

impl Regions {
    /// No region yet.
    pub(crate) fn new() -> Regions {
        Regions::default()
    }

    /// How many bytes all regions have.
    pub(crate) fn size(&self) -> u64 {
        self.list.last().map_or(0, |last| last.range.end())
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        // One buffer has less than 4 GiB, and less is easier to find.
        for part in bytes.as_ref().chunks(64 << 20) {
            self.push(part.len() as u64, Source::Bytes(Data::copy_from(part)))?;
        }
        Ok(())
    }

    /// Adds zeroes, which clients see as a hole.
    pub(crate) fn zeroes(&mut self, len: u64) -> Result<()> {
        self.push(len, Source::Zeroes)
    }

    /// Adds zeroes up to byte `at`, which must not lie before the end of what there is.
    pub(crate) fn zeroes_to(&mut self, at: u64) -> Result<()> {
        match at.checked_sub(self.size()) {
            Some(len) => self.zeroes(len),
            None => Err(Error::invalid(format!("byte {at} lies before byte {}", self.size()))),
        }
    }

    /// Adds all of a disk.
    pub(crate) fn disk(&mut self, disk: Arc<dyn Disk>) -> Result<()> {
        let whole = disk.facts().whole();
        self.disk_part(disk, whole)
    }

    /// Adds a part of a disk, which takes requests of any alignment.
    pub(crate) fn disk_part(&mut self, disk: Arc<dyn Disk>, part: Range) -> Result<()> {
        debug_assert!(part.lies_within(disk.facts().size) && disk.facts().blocks.minimum == 1);
        self.push(part.len, Source::Disk { disk, from: part.start })
    }

    fn push(&mut self, len: u64, source: Source) -> Result<()> {
        let start = self.size();
        if start.checked_add(len).is_none_or(|end| end > Size::MAX.bytes()) {
            return Err(Error::invalid("the parts together are larger than a disk can be"));
        }
        if len > 0 {
            self.list.push(Region { range: Range::new(start, len), source });
        }
        Ok(())
    }

    /// The disk made of them. It can do what every disk in it can; without any it is read-only.
    pub(crate) fn into_disk(self) -> RegionsDisk {
        let mut disks: Vec<Arc<dyn Disk>> = Vec::new();
        for region in &self.list {
            if let Source::Disk { disk, .. } = &region.source
                && !disks.last().is_some_and(|last| Arc::ptr_eq(last, disk))
            {
                disks.push(disk.clone());
            }
        }
        let all = |can: fn(&Facts) -> bool| !disks.is_empty() && disks.iter().all(|disk| can(disk.facts()));
        let facts = Facts {
            flush: all(|f| f.flush),
            fua: all(|f| f.fua),
            trim: all(|f| f.trim),
            zero: all(|f| f.zero),
            fast_zero: all(|f| f.fast_zero),
            cache: disks.iter().all(|disk| disk.facts().cache),
            extents: true,
            multi_conn: disks.iter().all(|disk| disk.facts().multi_conn),
            rotational: disks.iter().any(|disk| disk.facts().rotational),
            write: true,
            ..Facts::read_only(self.size())
        };
        let facts = if all(|f| f.write) { facts } else { facts.without_write() };
        RegionsDisk { facts, list: self.list, disks }
    }
}

/// A disk made of regions.
pub(crate) struct RegionsDisk {
    facts: Facts,
    list: Vec<Region>,
    /// Those in the regions, neighbours only once.
    disks: Vec<Arc<dyn Disk>>,
}

impl RegionsDisk {
    /// The regions that a range touches, each with the part of the range in it.
    fn parts(&self, range: Range) -> impl Iterator<Item = (&Region, Range)> {
        let first = self.list.partition_point(|region| region.range.end() <= range.start);
        self.list[first..].iter().map_while(move |region| Some((region, region.range.intersect(range)?)))
    }

    /// Asks each region in turn to do its part.
    fn each<'a>(
        &'a self,
        range: Range,
        mut part: impl FnMut(&'a Region, Range) -> Io<'a, ()> + Send + 'a,
    ) -> Io<'a, ()> {
        in_turn(self.parts(range).map(move |(region, range)| part(region, range)))
    }
}

/// All of them, each after the one before has succeeded.
fn in_turn<'a>(mut steps: impl Iterator<Item = Io<'a, ()>> + Send + 'a) -> Io<'a, ()> {
    while let Some(step) = steps.next() {
        match step {
            Io::Ready(Ok(())) => {}
            Io::Ready(Err(e)) => return e.into(),
            later => {
                return Io::later(async move {
                    later.await?;
                    for step in steps {
                        step.await?;
                    }
                    Ok(())
                });
            }
        }
    }
    Io::ok(())
}

#[cold]
fn fixed(range: Range) -> Error {
    Error::new(Errno::IO, format!("this part of the disk cannot be changed ({range})"))
}

impl Region {
    /// The part of the region's disk, or bytes, that is at `range` of the whole.
    fn within(&self, range: Range) -> Range {
        Range::new(range.start - self.range.start, range.len)
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let within = self.within(range);
        match &self.source {
            Source::Zeroes => Io::ok(Data::zeroes(within.len)),
            Source::Bytes(bytes) => Io::ok(bytes.slice(within.start, within.len)),
            Source::Disk { disk, from } => disk.read(Range::new(from + within.start, within.len)),
        }
    }

    fn write(&self, range: Range, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let within = self.within(range);
        let same = match &self.source {
            Source::Zeroes => data.is_zero(),
            Source::Bytes(bytes) => is_same(&bytes.slice(within.start, within.len), &data),
            Source::Disk { disk, from } => return disk.write(from + within.start, data, flags),
        };
        if same { Io::ok(()) } else { fixed(range).into() }
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        let within = self.within(range);
        let same = match &self.source {
            Source::Zeroes => true,
            Source::Bytes(bytes) => bytes.slice(within.start, within.len).is_zero(),
            Source::Disk { disk, from } => {
                return disk.zero(Range::new(from + within.start, within.len), flags);
            }
        };
        if same { Io::ok(()) } else { fixed(range).into() }
    }

    /// Of a disk only: what is fixed stays as it is, which is as good as any outcome of trimming.
    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        let within = self.within(range);
        match &self.source {
            Source::Disk { disk, from } => disk.trim(Range::new(from + within.start, within.len), flags),
            _ => Io::ok(()),
        }
    }

    fn cache(&self, range: Range) -> Io<'_, ()> {
        let within = self.within(range);
        match &self.source {
            Source::Disk { disk, from } => disk.cache(Range::new(from + within.start, within.len)),
            _ => Io::ok(()),
        }
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let within = self.within(range);
        match &self.source {
            Source::Zeroes => Io::ok(Extents::one(range.len, Kind::HOLE)),
            Source::Disk { disk, from } if disk.facts().extents => {
                disk.extents(Range::new(from + within.start, within.len), limit)
            }
            _ => Io::ok(Extents::one(range.len, Kind::DATA)),
        }
    }
}

/// Whether both hold the same bytes; they have one length.
fn is_same(a: &Data, b: &Data) -> bool {
    let a = a.contiguous();
    let mut rest = a.as_bytes().unwrap_or_default();
    b.pieces().all(|piece| {
        let (now, later) = rest.split_at(piece.len() as usize);
        rest = later;
        match piece {
            Piece::Zeroes(_) => disk::data::is_zero(now),
            Piece::Bytes(bytes) => bytes == now,
            Piece::Lent(_) => {
                let mut copy = disk::BufMut::new(now.len());
                piece.copy_to(&mut copy);
                *copy == *now
            }
        }
    })
}

impl Disk for RegionsDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let mut parts = self.parts(range).map(|(region, part)| region.read(part));
        let first = parts.next().unwrap_or(Io::ok(Data::zeroes(0)));
        // All are begun before any is waited for.
        let rest: Vec<_> = parts.collect();
        if rest.is_empty() {
            return first;
        }
        join(first, rest)
    }

    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        if !self.facts.write {
            return fixed(Range::new(at, data.len())).into();
        }
        self.each(Range::new(at, data.len()), move |region, part| {
            region.write(part, data.slice(part.start - at, part.len), flags)
        })
    }

    fn zero(&self, range: Range, flags: ZeroFlags) -> Io<'_, ()> {
        if !self.facts.zero {
            return fixed(range).into();
        }
        self.each(range, move |region, part| region.zero(part, flags))
    }

    fn trim(&self, range: Range, flags: WriteFlags) -> Io<'_, ()> {
        if !self.facts.trim {
            return fixed(range).into();
        }
        self.each(range, move |region, part| region.trim(part, flags))
    }

    fn flush(&self) -> Io<'_, ()> {
        in_turn(self.disks.iter().map(|disk| disk.flush()))
    }

    fn cache(&self, range: Range) -> Io<'_, ()> {
        self.each(range, |region, part| region.cache(part))
    }

    /// As many regions as can be asked without waiting, or the first one.
    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let mut extents = Extents::new();
        for (region, part) in self.parts(range) {
            match region.extents(part, limit) {
                Io::Ready(Ok(more)) => {
                    extents.append(&more);
                    if more.covered() < part.len || extents.len() > limit {
                        break;
                    }
                }
                // What is known already is answer enough; the rest will be asked for again.
                _ if !extents.is_empty() => break,
                other => return other,
            }
        }
        Io::ok(extents)
    }

    fn close(&self) -> Io<'_, ()> {
        in_turn(self.disks.iter().map(|disk| disk.close()))
    }
}

/// The data of all, one behind the other.
pub(crate) fn join<'a>(first: Io<'a, Data>, rest: Vec<Io<'a, Data>>) -> Io<'a, Data> {
    let all: Vec<_> = std::iter::once(first).chain(rest).collect();
    let ready = |io: &Io<'_, Data>| matches!(io, Io::Ready(_));
    if !all.iter().all(ready) {
        return Io::later(async move {
            let mut parts = Vec::with_capacity(all.len());
            for io in all {
                parts.push(io.await?);
            }
            Ok(Data::join(parts))
        });
    }
    let parts = all.into_iter().map(Io::wait).collect::<Result<Vec<_>>>();
    Io::Ready(parts.map(Data::join))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    fn memory(size: &str) -> Arc<dyn Disk> {
        model::open::<crate::memory::Memory>(&[("size", size)]).unwrap()
    }

    #[test]
    fn a_disk_of_disks_is_as_good_as_one_disk() {
        let mut regions = Regions::new();
        for size in ["1", "4097", "3000000", "0", "7", "100000"] {
            regions.disk(memory(size)).unwrap();
        }
        let whole = memory("1000000");
        regions.disk_part(whole.clone(), Range::new(500_001, 200_000)).unwrap();
        regions.disk_part(whole, Range::new(0, 99_999)).unwrap();
        let disk = disk::checked::Checked::new(Arc::new(regions.into_disk()));
        model::compare(&disk, 5, 1500);
        disk.flush().wait().unwrap();
        disk.close().wait().unwrap();
    }

    #[test]
    fn what_is_fixed_cannot_be_changed_but_may_be_written_again() {
        let mut regions = Regions::new();
        regions.bytes(b"table").unwrap();
        regions.zeroes_to(512).unwrap();
        regions.disk(memory("512")).unwrap();
        assert!(regions.zeroes_to(1023).is_err());
        let disk = disk::checked::Checked::new(Arc::new(regions.into_disk()));
        let write = |at, bytes: &[u8]| disk.write(at, Data::copy_from(bytes), WriteFlags::default()).wait();
        write(510, b"\0\0payload").unwrap();
        assert_eq!(model::bytes(&disk, 508, 11), b"\0\0\0\0payload");
        write(0, b"table\0\0").unwrap();
        for (at, bytes) in [(0, b"Table"), (100, b"xxxxx")] {
            assert_eq!(write(at, bytes).unwrap_err().errno(), Errno::IO);
        }
        let zero = |start, len| disk.zero(Range::new(start, len), ZeroFlags::default()).wait();
        assert!(zero(0, 5).is_err() && zero(5, 1019).is_ok());
        disk.trim(disk.facts().whole(), WriteFlags::default()).wait().unwrap();
        assert_eq!(model::bytes(&disk, 0, 6), b"table\0");
        let extents = disk.extents(disk.facts().whole(), 9).wait().unwrap();
        assert_eq!(
            extents.iter().map(|e| (e.len, e.kind.hole)).collect::<Vec<_>>(),
            [(5, false), (1019, true)]
        );
    }

    #[test]
    fn without_disks_there_is_nothing_to_write_and_too_much_is_refused() {
        let mut regions = Regions::new();
        regions.zeroes(Size::MAX.bytes() - 3).unwrap();
        assert!(regions.zeroes(4).is_err());
        regions.bytes(b"end").unwrap();
        let disk = regions.into_disk();
        assert_eq!(
            (disk.facts().write, disk.facts().cache, disk.facts().size),
            (false, true, Size::MAX.bytes())
        );
        assert_eq!(model::bytes(&disk, Size::MAX.bytes() - 5, 5), b"\0\0end");
    }
}
