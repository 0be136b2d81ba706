//! A disk whose content says where it is: every 8 bytes hold their own offset.

use crate::common::{content, one_disk::OneDisk};
use disk::{Backend, Data, Disk, Error, Facts, Io, Plugin, Range, Result, WriteFlags, ZeroFlags};
use params::{Kind, Params, Size, Value, Wrong};

/// A disk that holds its own offsets, as 64-bit big-endian numbers.
#[derive(Params)]
pub(crate) struct Pattern {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
    /// There is one number in so many bytes, and zeroes behind it: a power of 2, at least 8.
    #[param(default = "8")]
    stride: Size,
    /// The highest 16 bits of each number are combined with this one (exclusive or): 0 to 65535, or `random`.
    #[param(default = "0")]
    upper: Upper,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Upper(u16);

impl Value for Upper {
    const KIND: Kind = Kind::Other("N|random");

    fn from_text(text: &str) -> std::result::Result<Self, Wrong> {
        if text == "random" {
            return Ok(Upper((1 + content::seed(None) % 0xffff) as u16));
        }
        u16::from_text(text).map(Upper).map_err(|_| "not a number from 0 to 65535, nor random".into())
    }
}

impl Plugin for Pattern {
    const NAME: &'static str = "pattern";
    const MANUAL: &'static str = include_str!("pattern.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let stride = self.stride.bytes();
        if stride < 8 || !stride.is_power_of_two() {
            let why = format!("stride={}: not a power of 2 that is at least 8", self.stride);
            return Err(Error::invalid(why));
        }
        let facts = Facts {
            write: true,
            zero: true,
            fast_zero: true,
            trim: true,
            cache: true,
            ..Facts::read_only(self.size.bytes())
        };
        Ok(OneDisk::new(PatternDisk { facts, stride, upper: u64::from(self.upper.0) << 48 }))
    }
}

struct PatternDisk {
    facts: Facts,
    stride: u64,
    upper: u64,
}

impl PatternDisk {
    fn fill(&self, at: u64, into: &mut [u8]) {
        if self.stride == 8 {
            return content::words(at, into, |word| ((word * 8) ^ self.upper).to_be_bytes());
        }
        into.fill(0);
        for (part, word) in self.words(Range::new(at, into.len() as u64)) {
            into[(part.start - at) as usize..][..part.len as usize].copy_from_slice(&word);
        }
    }

    /// The parts of a range that are numbers, each with its bytes; between them are zeroes.
    fn words(&self, range: Range) -> impl Iterator<Item = (Range, Vec<u8>)> {
        let first = range.start / self.stride * self.stride;
        let places = std::iter::successors(Some(first), |place| place.checked_add(self.stride));
        places.take_while(move |place| *place < range.end()).filter_map(move |place| {
            let part = Range::new(place, 8).intersect(range)?;
            let bytes = (place ^ self.upper).to_be_bytes();
            Some((part, bytes[(part.start - place) as usize..][..part.len as usize].to_vec()))
        })
    }

    /// Zeroes are right only where there are no numbers.
    fn verify_zeroes(&self, range: Range) -> Io<'_, ()> {
        match self.words(range).find(|(_, word)| word.iter().any(|byte| *byte != 0)) {
            Some((part, _)) => content::mismatch(part).into(),
            None => Io::ok(()),
        }
    }
}

impl Disk for PatternDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(content::read(range, |at, into| self.fill(at, into)))
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        content::verify(at, &data, |at, into| self.fill(at, into)).into()
    }
    fn zero(&self, range: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.verify_zeroes(range)
    }
    fn trim(&self, range: Range, _: WriteFlags) -> Io<'_, ()> {
        self.verify_zeroes(range)
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn every_eight_bytes_hold_their_offset() {
        let disk = model::open::<Pattern>(&[("size", "9223372036854775807")]).unwrap();
        let last = disk.facts().size - 7;
        assert_eq!(model::bytes(&*disk, 8, 9), [0, 0, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(model::bytes(&*disk, last, 7), last.to_be_bytes()[..7]);
        let whole = model::bytes(&*disk, 0, 1 << 20);
        let mut dice = model::Dice(1);
        for _ in 0..300 {
            let r = dice.range(1 << 20);
            assert!(model::bytes(&*disk, r.start, r.len) == whole[r.start as usize..r.end() as usize], "{r}");
        }
    }

    #[test]
    fn strides_and_upper_bits_are_those_asked_for() {
        let open = |more: &[(&str, &str)]| model::open::<Pattern>(&[&[("size", "1000003")], more].concat());
        for (stride, upper) in [(8u64, 0x1234u64), (16, 0), (4096, 0xffff), (1 << 30, 7)] {
            let (stride_text, upper_text) = (stride.to_string(), format!("{upper:#x}"));
            let disk = open(&[("stride", &stride_text), ("upper", &upper_text)]).unwrap();
            let expected: Vec<u8> = (0..1_000_003u64 / 8 + 1)
                .flat_map(|word| match word * 8 % stride {
                    0 => ((word * 8) ^ (upper << 48)).to_be_bytes(),
                    _ => [0; 8],
                })
                .take(1_000_003)
                .collect();
            let mut dice = model::Dice(stride);
            for _ in 0..100 {
                let r = dice.range(1_000_003);
                let there = &expected[r.start as usize..r.end() as usize];
                assert!(model::bytes(&*disk, r.start, r.len) == there, "{stride} {upper}: {r}");
                let zero = disk.zero(r, ZeroFlags::default()).wait().is_ok();
                assert_eq!(zero, there.iter().all(|b| *b == 0), "{stride} {upper}: {r}");
            }
        }
        let random = model::bytes(&*open(&[("upper", "random")]).unwrap(), 0, 8);
        assert!(random[..2] != [0, 0] && random[2..] == [0; 6]);
        for (key, value) in [("stride", "4"), ("stride", "100"), ("upper", "65536"), ("upper", "-1")] {
            assert!(open(&[(key, value)]).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn only_what_is_there_can_be_written() {
        let disk = model::open::<Pattern>(&[("size", "1M")]).unwrap();
        let data = disk.read(Range::new(100, 5000)).wait().unwrap();
        disk.write(100, data.clone(), WriteFlags::default()).wait().unwrap();
        assert!(disk.write(101, data, WriteFlags::default()).wait().is_err());
    }
}
