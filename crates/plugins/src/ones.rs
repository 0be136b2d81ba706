//! A disk full of one byte, which forgets what is written to it.

use crate::one_disk::OneDisk;
use disk::{Backend, Data, Disk, Extents, Facts, Io, Kind, Plugin, Range, Result, WriteFlags, ZeroFlags};
use params::{Params, Size};

/// Reads share this many bytes.
const SHARED: u64 = 256 << 10;

/// A disk that holds 0xff, or another byte, all over.
#[derive(Params)]
pub(crate) struct Ones {
    /// The size of the disk.
    #[param(magic, default = "0")]
    size: Size,
    /// The byte, 0 to 255.
    #[param(default = "0xff")]
    byte: u8,
}

impl Plugin for Ones {
    const NAME: &'static str = "ones";
    const MANUAL: &'static str = include_str!("ones.md");

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
        let bytes = match self.byte {
            0 => Data::zeroes(SHARED),
            byte => Data::fill(SHARED as usize, |into| into.fill(byte)),
        };
        Ok(OneDisk::new(OnesDisk { facts, bytes }))
    }
}

struct OnesDisk {
    facts: Facts,
    bytes: Data,
}

impl Disk for OnesDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        if range.len <= SHARED {
            return Io::ok(self.bytes.slice(0, range.len));
        }
        let pieces = range.split_at_multiples(SHARED).map(|part| self.bytes.slice(0, part.len));
        Io::ok(Data::join(pieces.collect()))
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
        let kind = if self.bytes.says_zeroes() { Kind::ZERO } else { Kind::DATA };
        Io::ok(Extents::one(range.len, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    #[test]
    fn every_byte_is_the_one_asked_for() {
        let disk = |more: &[(&str, &str)]| model::open::<Ones>(&[&[("size", "1M")], more].concat()).unwrap();
        for (more, byte) in
            [(&[][..], 0xff), (&[("byte", "7")], 7), (&[("byte", "0x80")], 0x80), (&[("byte", "0")], 0)]
        {
            let disk = disk(more);
            disk.write(5, Data::copy_from(b"gone"), WriteFlags::default()).wait().unwrap();
            for len in [1, 4096, 1 << 20] {
                assert!(model::bytes(&*disk, 0, len).iter().all(|b| *b == byte));
            }
        }
        assert!(model::open::<Ones>(&[("byte", "256")]).is_err());
        assert_eq!(model::open::<Ones>(&[]).unwrap().facts().size, 0);
    }
}
