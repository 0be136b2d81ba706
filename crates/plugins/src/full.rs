//! A disk that has run out of space.

use crate::one_disk::OneDisk;
use disk::{
    Backend, Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Plugin, Range, Result, WriteFlags, ZeroFlags,
};
use params::{Params, Size};

/// A disk that reads as zeroes and has no space for anything else.
#[derive(Params)]
pub(crate) struct Full {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
}

impl Plugin for Full {
    const NAME: &'static str = "full";
    const MANUAL: &'static str = include_str!("full.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let facts = Facts {
            write: true,
            trim: true,
            zero: true,
            fast_zero: true,
            cache: true,
            extents: true,
            ..Facts::read_only(self.size.bytes())
        };
        Ok(OneDisk::new(FullDisk(facts)))
    }
}

struct FullDisk(Facts);

fn no_space<'a>() -> Io<'a, ()> {
    Error::from(Errno::NOSPC).into()
}

impl Disk for FullDisk {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(Data::zeroes(range.len))
    }
    fn write(&self, _: u64, _: Data, _: WriteFlags) -> Io<'_, ()> {
        no_space()
    }
    fn zero(&self, _: Range, _: ZeroFlags) -> Io<'_, ()> {
        no_space()
    }
    fn trim(&self, _: Range, _: WriteFlags) -> Io<'_, ()> {
        no_space()
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
    fn extents(&self, range: Range, _: usize) -> Io<'_, Extents> {
        Io::ok(Extents::one(range.len, Kind::HOLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    #[test]
    fn everything_that_writes_finds_no_space() {
        let disk = model::open::<Full>(&[("size", "1M")]).unwrap();
        let range = Range::new(0, 512);
        let outcomes = [
            disk.write(0, Data::zeroes(512), WriteFlags::default()),
            disk.zero(range, ZeroFlags::default()),
            disk.trim(range, WriteFlags::default()),
        ];
        for outcome in outcomes {
            assert_eq!(outcome.wait().unwrap_err().errno(), Errno::NOSPC);
        }
        assert!(disk.read(range).wait().unwrap().says_zeroes());
    }
}
