//! `truncate`: a disk smaller or larger than the one below.

use disk::{
    Backend, Client, Data, Disk, Errno, Error, Extents, Facts, Filter, Io, Kind, Range, Result, Status,
    WriteFlags, ZeroFlags, shared::Place,
};
use params::{ParamError, Params, Size};
use std::sync::Arc;

/// Make a disk look smaller or larger than it is.
#[derive(Params)]
pub(crate) struct Truncate {
    /// The new size.
    truncate: Option<Size>,
    /// Round the size (the new one, if there is one) up to a multiple of this.
    round_up: Option<Size>,
    /// Round the size down to a multiple of this, after any rounding up.
    round_down: Option<Size>,
}

impl Filter for Truncate {
    const NAME: &'static str = "truncate";
    const MANUAL: &'static str = include_str!("truncate.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        for (key, value) in [("round-up", self.round_up), ("round-down", self.round_down)] {
            if value.is_some_and(|size| size.bytes() == 0) {
                return Err(ParamError::bad(key, "0", "must be at least 1").into());
            }
        }
        Ok(Resizing { params: self, next })
    }
}

struct Resizing {
    params: Truncate,
    next: Arc<dyn Backend>,
}

impl Resizing {
    /// The new size of a disk of `size` bytes.
    fn resize(&self, size: u64) -> Result<u64> {
        let mut size = self.params.truncate.map_or(size, Size::bytes);
        if let Some(up) = self.params.round_up {
            size = size
                .checked_next_multiple_of(up.bytes())
                .filter(|size| *size <= Size::MAX.bytes())
                .ok_or_else(|| {
                    Error::new(Errno::FBIG, format!("round-up={up}: {size} bytes rounded up are too many"))
                })?;
        }
        if let Some(down) = self.params.round_down {
            size -= size % down.bytes();
        }
        Ok(size)
    }
}

impl Backend for Resizing {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.next.open(client).map(|next| {
            let below = next.facts();
            let size = self.resize(below.size)?;
            // What lies beyond the last whole block below cannot be asked for.
            let minimum = u64::from(below.blocks.minimum);
            if size % minimum != 0 {
                return Err(Error::invalid(format!(
                    "truncate: {size} bytes are no multiple of {minimum}, the smallest block of the disk below; \
                     add round-down={minimum}, or put the filter blocksize behind this one"
                )));
            }
            let real = size.min(below.size - below.size % minimum);
            // What lies beyond is a hole, whether the disk below knows of holes or not.
            let facts = Facts { size, extents: below.extents || size > real, ..below.clone() };
            Ok(Arc::new(Resized { facts, real, next }) as Arc<dyn Disk>)
        })
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

struct Resized {
    facts: Facts,
    /// So many bytes are the disk's below; those beyond are zero.
    real: u64,
    next: Arc<dyn Disk>,
}

impl Resized {
    /// The part of a range on the disk below, and the length of the rest.
    fn split(&self, r: Range) -> (Option<Range>, u64) {
        let real = r.intersect(Range::new(0, self.real));
        (real, r.len - real.map_or(0, |real| real.len))
    }

    fn real_extents(&self, real: Range, limit: usize) -> Io<'_, Extents> {
        if self.next.facts().extents || !self.facts.extents {
            return self.next.extents(real, limit);
        }
        Io::ok(Extents::one(real.len, Kind::DATA))
    }

    /// Asks for the real part, where there is one.
    fn real_part<'a>(&'a self, r: Range, ask: impl FnOnce(Range) -> Io<'a, ()>) -> Io<'a, ()> {
        self.split(r).0.map_or(Io::ok(()), ask)
    }
}

impl Disk for Resized {
    disk::forward!(next: next, flush);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        match self.split(r) {
            (Some(real), 0) => self.next.read(real),
            (Some(real), rest) => {
                self.next.read(real).map(move |data| Ok(Data::join(vec![data, Data::zeroes(rest)])))
            }
            (None, rest) => Io::ok(Data::zeroes(rest)),
        }
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        let (real, rest) = self.split(Range::new(at, data.len()));
        if rest == 0 {
            return self.next.write(at, data, flags);
        }
        let inside = data.len() - rest;
        // Before anything is written: a refused write changes nothing.
        if !data.slice(inside, rest).is_zero() {
            return Error::new(Errno::NOSPC, "only zeroes can be written beyond the end of the disk below")
                .into();
        }
        match real {
            Some(_) => self.next.write(at, data.slice(0, inside), flags),
            None => Io::ok(()),
        }
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.real_part(r, |real| self.next.zero(real, flags))
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.real_part(r, |real| self.next.trim(real, flags))
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.real_part(r, |real| self.next.cache(real))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        match self.split(r) {
            (Some(real), rest) => self.real_extents(real, limit).map(move |mut extents| {
                if extents.covered() == real.len {
                    extents.push(rest, Kind::HOLE);
                }
                Ok(extents)
            }),
            (None, rest) => Io::ok(Extents::one(rest, Kind::HOLE)),
        }
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        match self.split(r) {
            // What the context says beyond `real` on a disk made smaller is cut off by whoever asked.
            (Some(real), _) => self.next.status(context, real, limit),
            // No context says anything of bytes that its disk does not have.
            (None, rest) => Io::ok(vec![Status { len: rest, value: 0 }]),
        }
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        if self.split(r).1 == 0 { self.next.place(r) } else { None }
    }
    fn placed(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.next.placed(r, flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, Random, layer, noise, opened};

    const F: WriteFlags = WriteFlags { fua: false };

    fn size_of(params: &[&str], below: usize) -> u64 {
        opened::<Truncate>(params, &Memory::new(vec![0; below])).facts().size
    }

    #[test]
    fn sizes_are_set_and_rounded_in_this_order() {
        assert_eq!(size_of(&[], 5000), 5000);
        assert_eq!(size_of(&["truncate=0"], 5000), 0);
        assert_eq!(size_of(&["truncate=7E"], 5000), 7 << 60);
        assert_eq!(size_of(&["round-up=4K"], 5000), 8192);
        assert_eq!(size_of(&["round-up=1000"], 5000), 5000);
        assert_eq!(size_of(&["round-down=4K"], 5000), 4096);
        assert_eq!(size_of(&["truncate=1000", "round-up=512", "round-down=1K"], 5000), 1024);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let memory = Memory::new(vec![0; 512]);
        let error = layer::<Truncate>(&["round-up=0"], &memory).err().unwrap();
        assert_eq!(error.to_string(), "truncate: round-up=0: must be at least 1");
        let layer = layer::<Truncate>(&["truncate=9223372036854775807", "round-up=512"], &memory).unwrap();
        let error = layer.open(&Client::local("")).wait().err().unwrap();
        assert_eq!(error.to_string(), "round-up=512: 9223372036854775807 bytes rounded up are too many");
    }

    #[test]
    fn a_size_that_cuts_a_block_of_the_disk_below_is_refused() {
        let blocks = disk::Blocks { minimum: 1024, ..disk::Blocks::default() };
        let memory = Memory::with(vec![0; 8192], Facts { blocks, ..Facts::writable(8192) });
        assert_eq!(opened::<Truncate>(&["truncate=10K"], &memory).facts().size, 10240);
        let layer = layer::<Truncate>(&["truncate=2560"], &memory).unwrap();
        let error = layer.open(&Client::local("")).wait().err().unwrap();
        assert!(error.to_string().contains("add round-down=1024"), "{error}");
    }

    #[test]
    fn only_zeroes_can_be_written_beyond_the_end() {
        let memory = Memory::new(noise(1, 5000));
        let disk = opened::<Truncate>(&["truncate=10000"], &memory);
        let mut bytes = vec![7; 904];
        bytes.extend([0; 100]);
        disk.write(4096, Data::copy_from(&bytes), F).wait().unwrap();
        assert_eq!(memory.bytes()[4096..], [7; 904]);
        bytes[1003] = 1;
        bytes[0] = 8;
        let error = disk.write(4096, Data::copy_from(&bytes), F).wait().unwrap_err();
        assert_eq!(error.errno(), Errno::NOSPC);
        assert_eq!(memory.bytes()[4096..], [7; 904], "nothing of a refused write is written");
        assert_eq!(disk.write(9999, Data::copy_from(&[1]), F).wait().unwrap_err().errno(), Errno::NOSPC);
        assert!(disk.read(Range::new(5000, 5000)).wait().unwrap().says_zeroes());
    }

    #[test]
    fn beyond_the_end_is_a_hole() {
        let disk = opened::<Truncate>(&["truncate=2K"], &Memory::new(vec![1; 1024]));
        let mut expected = Extents::one(512, Kind::DATA);
        expected.push(1024, Kind::HOLE);
        assert_eq!(disk.extents(Range::new(512, 1536), 9).wait().unwrap(), expected);
        assert_eq!(disk.extents(Range::new(1024, 512), 9).wait().unwrap(), Extents::one(512, Kind::HOLE));
        let unaware = Memory::with(vec![1; 1024], Facts::writable(1024));
        let disk = opened::<Truncate>(&["truncate=2K"], &unaware);
        assert_eq!(disk.extents(Range::new(512, 1536), 9).wait().unwrap(), expected);
        assert!(!opened::<Truncate>(&["truncate=512"], &unaware).facts().extents);
    }

    #[test]
    fn random_operations_do_what_they_do_to_a_vector() {
        for (below, above) in [(5000, 9000), (9000, 5000), (5000, 5000)] {
            let memory = Memory::new(noise(7, below));
            let disk = opened::<Truncate>(&[&format!("truncate={above}")], &memory);
            let mut model = noise(7, below);
            model.resize(above, 0);
            let mut random = Random(3);
            for step in 0..2000 {
                let start = random.below(above as u64);
                let r = Range::new(start, 1 + random.below((above as u64 - start).min(3000)));
                let part = r.start as usize..r.end() as usize;
                match random.below(4) {
                    0 => assert_eq!(disk.read(r).wait().unwrap().to_vec(), model[part], "step {step}"),
                    1 => {
                        disk.zero(r, ZeroFlags::default()).wait().unwrap();
                        model[part].fill(0);
                    }
                    2 => {
                        let extents = disk.extents(r, 9).wait().unwrap();
                        for (r, kind) in extents.ranges(r.start).filter(|(_, kind)| kind.zero) {
                            let part = &model[r.start as usize..r.end() as usize];
                            assert!(part.iter().all(|b| *b == 0), "step {step}: {r} is {kind:?}");
                        }
                    }
                    _ => {
                        let bytes = noise(step, r.len as usize);
                        let beyond = (r.end() as usize).saturating_sub(below.max(r.start as usize));
                        let fits = bytes[bytes.len() - beyond.min(bytes.len())..].iter().all(|b| *b == 0);
                        assert_eq!(disk.write(r.start, Data::copy_from(&bytes), F).wait().is_ok(), fits);
                        if fits {
                            model[part].copy_from_slice(&bytes);
                        }
                    }
                }
            }
        }
    }
}
