//! A disk full of random bytes, computed from a seed.

use crate::common::{
    content::{self, Stream},
    one_disk::OneDisk,
};
use disk::{Backend, Data, Disk, Error, Facts, Io, Plugin, Range, Result, WriteFlags, ZeroFlags};
use params::{Params, Size};

/// With `fast=true`, this many bytes are repeated.
const SECTOR: usize = 512;

/// A disk full of random data that stays the same.
#[derive(Params)]
pub(crate) struct Random {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
    /// The content follows from this number; without it every start has another content.
    seed: Option<u64>,
    /// Whether one sector of 512 random bytes is repeated, only its first 8 bytes differing.
    #[param(default = "false")]
    fast: bool,
}

impl Plugin for Random {
    const NAME: &'static str = "random";
    const MANUAL: &'static str = include_str!("random.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let facts = Facts {
            write: true,
            zero: true,
            fast_zero: true,
            trim: true,
            cache: true,
            ..Facts::read_only(self.size.bytes())
        };
        let stream = Stream::new(content::seed(self.seed), 0);
        let sector = self.fast.then(|| {
            let mut sector = [0; SECTOR];
            stream.fill(0, &mut sector);
            sector
        });
        Ok(OneDisk::new(RandomDisk { facts, stream, sector }))
    }
}

struct RandomDisk {
    facts: Facts,
    stream: Stream,
    /// What is repeated, if anything is.
    sector: Option<[u8; SECTOR]>,
}

impl RandomDisk {
    fn fill(&self, at: u64, into: &mut [u8]) {
        let Some(sector) = &self.sector else { return self.stream.fill(at, into) };
        for part in Range::new(at, into.len() as u64).split_at_multiples(SECTOR as u64) {
            let into = &mut into[(part.start - at) as usize..][..part.len as usize];
            let from = (part.start % SECTOR as u64) as usize;
            into.copy_from_slice(&sector[from..from + into.len()]);
            let number = self.stream.number(part.start / SECTOR as u64).to_le_bytes();
            if let Some(own) = number.get(from..) {
                let len = own.len().min(into.len());
                into[..len].copy_from_slice(&own[..len]);
            }
        }
    }
}

fn never_zero<'a>() -> Io<'a, ()> {
    Error::io("a disk of random data can be neither trimmed nor zeroed").into()
}

impl Disk for RandomDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(content::read(range, |at, into| self.fill(at, into)))
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        content::verify(at, &data, |at, into| self.fill(at, into)).into()
    }
    fn zero(&self, _: Range, _: ZeroFlags) -> Io<'_, ()> {
        never_zero()
    }
    fn trim(&self, _: Range, _: WriteFlags) -> Io<'_, ()> {
        never_zero()
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use disk::Errno;

    #[test]
    fn the_seed_decides_the_content() {
        let sample = |more: &[(&str, &str)]| {
            model::bytes(&*model::open::<Random>(&[&[("size", "1M")], more].concat()).unwrap(), 0, 1 << 20)
        };
        assert!(sample(&[("seed", "1")]) == sample(&[("seed", "1")]));
        assert!(sample(&[("seed", "1")]) != sample(&[("seed", "2")]));
        assert!(sample(&[]) != sample(&[]));
    }

    #[test]
    fn reads_of_any_place_agree_and_writes_are_compared() {
        for fast in ["false", "true"] {
            let disk = model::open::<Random>(&[("size", "1000001"), ("seed", "5"), ("fast", fast)]).unwrap();
            let whole = model::bytes(&*disk, 0, 1_000_001);
            assert!(whole[..512] != whole[512..1024]);
            let mut dice = model::Dice(3);
            for _ in 0..300 {
                let r = dice.range(1_000_001);
                let data = disk.read(r).wait().unwrap();
                let mut bytes = data.to_vec();
                assert!(bytes == whole[r.start as usize..r.end() as usize], "{r}");
                disk.write(r.start, data, WriteFlags::default()).wait().unwrap();
                bytes[dice.below(r.len) as usize] ^= 0x10;
                let wrong = disk.write(r.start, Data::copy_from(&bytes), WriteFlags::default()).wait();
                assert_eq!(wrong.unwrap_err().errno(), Errno::IO);
            }
            assert!(disk.zero(Range::new(0, 512), ZeroFlags::default()).wait().is_err());
        }
    }
}
