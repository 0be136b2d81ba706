//! A bit bucket: it reads as zeroes, and swallows what is written.

use crate::one_disk::OneDisk;
use disk::{Backend, Data, Disk, Extents, Facts, Io, Kind, Plugin, Range, Result, WriteFlags, ZeroFlags};
use params::{Params, Size};

/// A disk that reads as zeroes and forgets what is written to it.
#[derive(Params)]
pub(crate) struct Null {
    /// The size of the disk.
    #[param(magic, default = "0")]
    size: Size,
}

impl Plugin for Null {
    const NAME: &'static str = "null";
    const MANUAL: &'static str = include_str!("null.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let facts = Facts {
            fua: true,
            trim: true,
            zero: true,
            fast_zero: true,
            cache: true,
            extents: true,
            ..Facts::writable(self.size.bytes())
        };
        Ok(OneDisk::new(NullDisk(facts)))
    }
}

struct NullDisk(Facts);

impl Disk for NullDisk {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(Data::zeroes(range.len))
    }
    fn write(&self, _: u64, _: Data, _: WriteFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn zero(&self, _: Range, _: ZeroFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn trim(&self, _: Range, _: WriteFlags) -> Io<'_, ()> {
        Io::ok(())
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
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
    fn what_is_written_is_forgotten() {
        let disk = model::open::<Null>(&[("size", "1M")]).unwrap();
        disk.write(5, Data::copy_from(b"gone"), WriteFlags { fua: true }).wait().unwrap();
        assert!(disk.read(disk.facts().whole()).wait().unwrap().says_zeroes());
        assert_eq!(model::open::<Null>(&[]).unwrap().facts().size, 0);
    }
}
